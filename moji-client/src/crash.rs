//! Crash points: places where a test has the client killed as `kill -9` would do it, without unwinding
//! and with nothing flushed. `MOJI_CRASH_AT=moved:2` kills it when it passes that point for the second
//! time; with `MOJI_FAIL_SYNC=2` the disk does not take what the first two `in_sync` sync.
//!
//! Only with the cargo feature `crash-points`, which no release has; without it [`at`] and `in_sync` are empty and
//! [`arm`] reads nothing. It deliberately does not know what is to be done after a crash.

#[cfg(test)]
use std::cell::Cell;
use std::io;

#[cfg(test)]
use rustix::io::Errno;

use crate::outbox::Step;

/// Declares the points with `ALL`, so that a test goes through every one and a new one cannot be
/// forgotten.
macro_rules! points {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident { $($(#[$point_attribute:meta])* $point:ident,)+ }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$point_attribute])* $point,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$point),+];
        }
    };
}

points! {
    /// A place where the client can be killed: right after a step of an attempt. What is found after
    /// the steps of packing, and what the next start does, stands at [`crate::outbox::Step`].
    ///
    /// | after | found | next start |
    /// |---|---|---|
    /// | `Received` | the SRPM in the slot's folder | removes it; the server gives the SRPM out again |
    /// | `Built` | the same, and Mock's results in `result/` | the same |
    /// | `LogMoved` … `MovedDurably` | see there | packs what is left to pack, and offers it |
    /// | `SlotRemoved` | a whole parcel in the outbox | offers it |
    /// | `PieceSent` | the same; the server has a part of it | offers it, and sends the rest |
    /// | `Sent` | the same; the server has all of it, and may have published it | offers it |
    /// | `Settled` | the same; the server has said its last word | offers it, and hears that word again |
    /// | `ParcelRemoved` | a folder in the outbox that is no parcel | removes it |
    /// | `Removed` | nothing | nothing |
    pub enum Point {
        /// The SRPM is here, whole.
        Received,
        /// Mock has ended.
        Built,
        /// Mock's own output lies among the results.
        LogMoved,
        /// Logs are cut; each file is durable.
        FilesSynced,
        /// `parcel.json` is there.
        Described,
        /// Durably.
        DescribedDurably,
        /// The results are in the outbox.
        Moved,
        /// Durably.
        MovedDurably,
        /// The slot's folder is gone.
        SlotRemoved,
        /// A piece of the results is under way; passed once for each piece.
        PieceSent,
        /// All of them are.
        Sent,
        /// The server has said its last word.
        Settled,
        /// The folder in the outbox is no parcel any more.
        ParcelRemoved,
        /// It is gone.
        Removed,
    }
}

impl From<Step> for Point {
    fn from(step: Step) -> Self {
        match step {
            Step::LogMoved => Self::LogMoved,
            Step::FilesSynced => Self::FilesSynced,
            Step::Described => Self::Described,
            Step::DescribedDurably => Self::DescribedDurably,
            Step::Moved => Self::Moved,
            Step::MovedDurably => Self::MovedDurably,
        }
    }
}

impl Point {
    /// What it is called in `MOJI_CRASH_AT`: `results-moved`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(c.to_lowercase());
        }
        name
    }
}

pub use hook::{arm, at};

/// Part of the fsync of results: says what the disk says when a test wants it to have lost them. As the kernel, it says
/// so once: the next one succeeds.
pub(crate) fn in_sync() -> io::Result<()> {
    #[cfg(test)]
    if FAILING.get() > 0 {
        FAILING.set(FAILING.get() - 1);
        return Err(Errno::IO.into());
    }
    hook::in_sync()
}

#[cfg(test)]
thread_local! {
    /// How many of the next [`in_sync`] of this thread fail.
    pub(crate) static FAILING: Cell<u64> = const { Cell::new(0) };
}

#[cfg(not(feature = "crash-points"))]
mod hook {
    use std::io;

    use super::Point;

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub fn arm() -> anyhow::Result<()> {
        Ok(())
    }

    /// Nothing.
    #[inline(always)]
    pub fn at(_: Point) {}

    #[inline(always)]
    pub(super) fn in_sync() -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "crash-points")]
mod hook {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use anyhow::{Context as _, bail};
    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    const VARIABLE: &str = "MOJI_CRASH_AT";
    const FAIL: &str = "MOJI_FAIL_SYNC";

    /// Where, and how many times it may still be passed.
    static ARMED: OnceLock<(Point, AtomicU64)> = OnceLock::new();
    /// How many syncs are still to fail.
    static FAILING: AtomicU64 = AtomicU64::new(0);

    /// Takes the point from the environment, and how many syncs fail.
    ///
    /// # Errors
    /// When there is no such point; says which there are.
    pub fn arm() -> anyhow::Result<()> {
        if let Ok(text) = std::env::var(FAIL) {
            let failing = text.parse().with_context(|| format!("{FAIL}={text}: it is no number"))?;
            FAILING.store(failing, Ordering::SeqCst);
        }
        if let Ok(text) = std::env::var(VARIABLE) {
            let (point, passing) = parse(&text)?;
            let _ = ARMED.set((point, AtomicU64::new(passing)));
        }
        Ok(())
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<(Point, u64)> {
        let (name, passing) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::ALL.iter().copied().find(|point| point.name() == name);
        match (point, passing.parse()) {
            (Some(point), Ok(passing @ 1..)) => Ok((point, passing)),
            (Some(_), _) => bail!("{VARIABLE}={text}: after the colon stands a number from 1"),
            (None, _) => {
                let names: Vec<_> = Point::ALL.iter().copied().map(Point::name).collect();
                bail!("{VARIABLE}={text}: there is no such point, only {}", names.join(", "))
            }
        }
    }

    /// Kills this process if that is what `MOJI_CRASH_AT` says.
    pub fn at(point: Point) {
        let Some((armed, passings)) = ARMED.get() else { return };
        if *armed == point && passings.fetch_sub(1, Ordering::SeqCst) == 1 {
            tracing::warn!("crash point {}", point.name());
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    pub(super) fn in_sync() -> io::Result<()> {
        let one_less = |failing: u64| failing.checked_sub(1);
        match FAILING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => Err(Errno::IO.into()),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_point_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Point::ALL.iter().copied().map(Point::name).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for name in ["received", "moved-durably"] {
            assert!(names.contains(name), "{names:?}");
        }
    }

    #[cfg(feature = "crash-points")]
    #[test]
    fn a_point_is_taken_from_text() {
        let packed = Point::Moved;
        assert_eq!(hook::parse("moved").unwrap(), (packed, 1));
        assert_eq!(hook::parse("moved:12").unwrap(), (packed, 12));
        for wrong in ["moved:0", "moved:", "moved:x", "pack", ""] {
            assert!(hook::parse(wrong).is_err(), "{wrong}");
        }
        assert!(hook::parse("pack").unwrap_err().to_string().contains("settled"));
    }
}
