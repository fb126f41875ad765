//! Crash points: places where a test has the server killed as `kill -9` would do it, without
//! unwinding and with nothing flushed. `MOJI_CRASH_AT=commit-published:2` kills it when it passes that
//! point for the second time; `MOJI_HANG_AT` makes what comes there hang, like a disk that does not answer;
//! with `MOJI_FAIL_SYNC=2` the disk does not take what is synced by the first two `in_sync`.
//!
//! Only with the cargo feature `crash-points`, which no release has; without it [`at`] and `in_sync` are empty
//! and [`arm`] reads nothing. It deliberately does not know what is to be found after a crash: the steps
//! say that where they are taken.

#[cfg(test)]
use std::cell::Cell;
use std::io;

#[cfg(test)]
use rustix::io::Errno;

use crate::{commit, metadata};

/// Declares an enum of steps with `ALL`, so that a test goes through every one and a new one cannot
/// be forgotten.
macro_rules! steps {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident { $($(#[$step_attribute:meta])* $step:ident,)+ }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        $visibility enum $name { $($(#[$step_attribute])* $step,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$step),+];
        }
    };
}
pub(crate) use steps;

/// A place where the server can be killed: right after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Publishing an attempt's results.
    Commit(commit::Step),
    /// Publishing metadata.
    Publication(metadata::Step),
    /// Moving an SRPM outside of a commit.
    Moved(Move),
}

steps! {
    /// SRPMs that move without a result, each told to somebody only afterwards.
    ///
    /// | after | found | next start |
    /// |---|---|---|
    /// | `Leased` | the SRPM in WORKING, its `lease.json` in staging | waits for its builder, then moves it back to SOURCE |
    /// | `Requeued` | the SRPM in SOURCE | nothing to do: it is queued |
    /// | `RefusalRecorded` | a broken SRPM in SOURCE, its `.failed.json` in FINISHED | refuses it again |
    /// | `Refused` | both in FINISHED | nothing to do |
    pub enum Move {
        /// From SOURCE to WORKING.
        Leased,
        /// From WORKING back to SOURCE.
        Requeued,
        /// The reason why an SRPM cannot be built stands in FINISHED.
        RefusalRecorded,
        /// And the SRPM has followed, from SOURCE.
        Refused,
    }
}

impl Point {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let commit = commit::Step::ALL.iter().copied().map(Self::Commit);
        let publication = metadata::Step::ALL.iter().copied().map(Self::Publication);
        let moved = Move::ALL.iter().copied().map(Self::Moved);
        commit.chain(publication).chain(moved).collect()
    }

    /// What it is called in `MOJI_CRASH_AT`: `commit-set-aside`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars().filter(|c| *c != ')') {
            if (c.is_uppercase() && !name.is_empty() && !name.ends_with('-')) || c == '(' {
                name.push('-');
            }
            name.extend(c.to_lowercase().filter(|c| *c != '('));
        }
        name
    }
}

pub use hook::{arm, at};

/// Part of each fsync of what was delivered or submitted: says what the disk says when a test wants it to have lost
/// that. As the kernel, it says so once: the next one succeeds.
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
    use std::thread;

    use anyhow::{Context as _, bail};
    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    const CRASH: &str = "MOJI_CRASH_AT";
    const HANG: &str = "MOJI_HANG_AT";
    const FAIL: &str = "MOJI_FAIL_SYNC";

    /// Where, how many times it may still be passed, and whether it then hangs.
    static ARMED: OnceLock<(Point, AtomicU64, bool)> = OnceLock::new();
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
        for (variable, hangs) in [(CRASH, false), (HANG, true)] {
            if let Ok(text) = std::env::var(variable) {
                let (point, passing) = parse(variable, &text)?;
                let _ = ARMED.set((point, AtomicU64::new(passing), hangs));
            }
        }
        Ok(())
    }

    pub(super) fn parse(variable: &str, text: &str) -> anyhow::Result<(Point, u64)> {
        let (name, passing) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::all().into_iter().find(|point| point.name() == name);
        match (point, passing.parse()) {
            (Some(point), Ok(passing @ 1..)) => Ok((point, passing)),
            (Some(_), _) => bail!("{variable}={text}: after the colon stands a number from 1"),
            (None, _) => {
                let names: Vec<_> = Point::all().into_iter().map(Point::name).collect();
                bail!("{variable}={text}: there is no such point, only {}", names.join(", "))
            }
        }
    }

    /// Kills this process if that is what `MOJI_CRASH_AT` says; never returns if `MOJI_HANG_AT` says so.
    pub fn at(point: Point) {
        let Some((armed, passings, hangs)) = ARMED.get() else { return };
        if *armed == point && passings.fetch_sub(1, Ordering::SeqCst) == 1 {
            if *hangs {
                loop {
                    thread::park();
                }
            }
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
        let names: BTreeSet<_> = Point::all().into_iter().map(Point::name).collect();
        assert_eq!(names.len(), Point::all().len());
        for name in ["commit-set-aside", "publication-switched-durably", "moved-leased"] {
            assert!(names.contains(name), "{names:?}");
        }
    }

    #[cfg(feature = "crash-points")]
    #[test]
    fn a_point_is_taken_from_text() {
        let leased = Point::Moved(Move::Leased);
        assert_eq!(hook::parse("MOJI_CRASH_AT", "moved-leased").unwrap(), (leased, 1));
        assert_eq!(hook::parse("MOJI_CRASH_AT", "moved-leased:12").unwrap(), (leased, 12));
        for wrong in ["moved-leased:0", "moved-leased:", "moved-leased:x", "leased", ""] {
            assert!(hook::parse("MOJI_CRASH_AT", wrong).is_err(), "{wrong}");
        }
        assert!(hook::parse("MOJI_CRASH_AT", "leased").unwrap_err().to_string().contains("moved-requeued"));
    }
}
