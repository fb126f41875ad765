//! How the metadata of a repository stand to what lies in it: since when something waits to be published, and what
//! keeps it from being so. Says once that it begins, and once that it is over.
//!
//! Pure: times come in as arguments. It deliberately does not know what a run does, nor when the next one begins.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Maker, Repository};

/// What is told of all repositories.
pub type Standings = BTreeMap<Repository, Standing>;

/// How the metadata of a repository are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Since when the oldest change waits that is in no generation yet; none: nothing waits.
    pub since: Option<Timestamp>,
    /// What keeps it from being published; none: nothing does, as far as is known.
    pub trouble: Option<Trouble>,
}

/// Runs that have failed, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How many.
    pub failures: u32,
    /// Who was to make the metadata when the last one failed; none: it did not come to that.
    pub maker: Option<Maker>,
    /// Why the last one failed.
    pub reason: String,
}

/// Whether something is worth a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    /// That it begins.
    Begun,
    /// That it goes on for another reason.
    Other,
    /// It was said.
    Nothing,
}

/// Trouble that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) failures: u32,
    /// How long the oldest change had to wait, in seconds.
    pub(super) seconds: u64,
}

/// Follows one repository.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// The oldest change that no run has taken in.
    waits: Option<Timestamp>,
    /// The oldest one that the run which goes on has taken in.
    taken: Option<Timestamp>,
    trouble: Option<Trouble>,
}

impl Follower {
    /// Something changed.
    pub(super) fn on_change(&mut self, now: Timestamp) {
        self.waits.get_or_insert(now);
    }

    /// A run begins. What it finds changed and nobody has told of, counts from here.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.taken = Some(self.waits.take().unwrap_or(now));
    }

    /// It ended well. Gives the trouble that this ends.
    pub(super) fn done(&mut self, now: Timestamp) -> Option<Over> {
        let since = self.taken.take().unwrap_or(now);
        let seconds = u64::try_from(since.duration_until(now).as_secs()).unwrap_or(0);
        self.trouble.take().map(|Trouble { failures, .. }| Over { failures, seconds })
    }

    /// It came to nothing, and that is nobody's fault.
    pub(super) fn again(&mut self) {
        self.waits = self.standing().since;
        self.taken = None;
    }

    /// It failed.
    pub(super) fn failed(&mut self, maker: Option<Maker>, reason: String) -> Say {
        self.again();
        let before = self.trouble.take();
        let say = match &before {
            None => Say::Begun,
            Some(before) if before.maker == maker && is_same(&before.reason, &reason) => Say::Nothing,
            Some(_) => Say::Other,
        };
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        self.trouble = Some(Trouble { failures, maker, reason });
        say
    }

    /// How many runs have failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.trouble.as_ref().map_or(0, |trouble| trouble.failures)
    }

    /// What is told of it.
    pub(super) fn standing(&self) -> Standing {
        let since = [self.taken, self.waits].into_iter().flatten().min();
        Standing { since, trouble: self.trouble.clone() }
    }
}

/// Whether two reasons differ in numbers only: how much room is left, how long it took.
fn is_same(one: &str, other: &str) -> bool {
    let words = |text: &'_ str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn since(follower: &Follower) -> Option<i64> {
        follower.standing().since.map(Timestamp::as_second)
    }

    #[test]
    fn the_oldest_change_waits_until_a_run_that_began_after_it_ends_well() {
        let mut follower = Follower::default();
        assert_eq!(follower.standing(), Standing::default());
        follower.on_change(at(10));
        follower.on_change(at(12));
        assert_eq!(since(&follower), Some(10));
        follower.begin(at(13));
        follower.on_change(at(14));
        assert_eq!(since(&follower), Some(10));
        assert_eq!(follower.done(at(15)), None);
        assert_eq!(since(&follower), Some(14));
        follower.begin(at(16));
        // Overtaken, and once more.
        follower.again();
        follower.on_change(at(17));
        assert_eq!(since(&follower), Some(14));
        follower.begin(at(18));
        assert_eq!(follower.done(at(19)), None);
        assert_eq!(follower.standing(), Standing::default());
    }

    #[test]
    fn trouble_is_said_when_it_begins_when_it_is_another_and_when_it_is_over() {
        let mut follower = Follower::default();
        // A look that nobody has asked for finds something.
        let native = Some(Maker::Native);
        for (second, maker, reason, say) in [
            (100, None, "closed", Say::Begun),
            (101, None, "closed", Say::Nothing),
            (103, native, "closed", Say::Other),
            (107, native, "12 KiB are free", Say::Other),
            (115, native, "8 KiB are free", Say::Nothing),
        ] {
            follower.begin(at(second));
            assert_eq!(follower.failed(maker, reason.to_owned()), say, "{second}");
        }
        let trouble = Trouble { failures: 5, maker: native, reason: "8 KiB are free".to_owned() };
        assert_eq!(follower.standing(), Standing { since: Some(at(100)), trouble: Some(trouble) });
        follower.begin(at(130));
        assert_eq!(follower.failures(), 5);
        assert_eq!(follower.done(at(131)), Some(Over { failures: 5, seconds: 31 }));
        assert_eq!(follower.standing(), Standing::default());
        follower.begin(at(140));
        assert_eq!(follower.failed(native, "closed".to_owned()), Say::Begun);
    }
}
