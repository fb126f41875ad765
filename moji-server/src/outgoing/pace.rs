//! When a sink tries again, and when an event is given up: pure.
//!
//! A receiver that cannot be reached is everybody's trouble now and then, so an event waits for it until it is old.
//! One that answers and does not want an event will hardly change its mind: after some tries the next event has its
//! turn. It deliberately does not know what a try is.

use std::time::Duration;

/// The first wait is at most this long, unless a test wants it otherwise.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer, unless the receiver asks for it.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// What a receiver may ask for.
const ASKED_MAX: Duration = Duration::from_secs(60 * 60);
/// An event that is older is not worth a second try.
pub(super) const OLD: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// How often a receiver is asked to take what it refuses.
pub(super) const TRIES: u32 = 10;

/// What kept an event from being delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Whose it is.
    pub(super) kind: TroubleKind,
    /// In a line for people.
    pub(super) why: String,
}

/// Whose trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TroubleKind {
    /// The receiver's: it is not there, or not able now; perhaps it has said for how long.
    Away(Option<Duration>),
    /// The event's: the receiver does not take it.
    Refused,
}

impl Trouble {
    /// The receiver is not there, or not able now.
    pub(super) fn away(why: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Away(None), why: why.into() }
    }

    /// It does not take the event.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Refused, why: why.into() }
    }
}

/// What to do after a try that did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The same event once more, after so long.
    Again(Duration),
    /// The next event.
    GiveUp,
}

/// How a sink does.
#[derive(Debug)]
pub(super) struct Pace {
    /// The first wait is at most this long.
    first: Duration,
    /// Tries in a row that did not work, and that were the receiver's trouble.
    failures: u32,
    /// How often the event whose turn it is was refused.
    refused: u32,
    trouble: Option<InTrouble>,
}

/// A time in which nothing was delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InTrouble {
    /// Events that were given up meanwhile.
    pub(super) given_up: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::beginning_with(FIRST)
    }
}

impl Pace {
    /// With another first wait.
    pub(super) fn beginning_with(first: Duration) -> Self {
        Self { first, failures: 0, refused: 0, trouble: None }
    }

    /// Whether it is pointless to try an event of that age even once: the receiver does not work, and it is too old.
    pub(super) fn is_hopeless(&self, age: Duration) -> bool {
        self.trouble.is_some() && age > OLD
    }

    /// A try worked. Says what ends by that.
    pub(super) fn delivered(&mut self) -> Option<InTrouble> {
        std::mem::replace(self, Self::beginning_with(self.first)).trouble
    }

    /// A try did not work. `jitter` is a random number: any 32 bits. Says too whether that is news.
    pub(super) fn failed(&mut self, kind: TroubleKind, age: Duration, jitter: u32) -> (Next, bool) {
        let is_news = self.trouble.is_none();
        self.trouble.get_or_insert_default();
        let (count, asked) = match kind {
            TroubleKind::Away(asked) => {
                if age > OLD {
                    return (Next::GiveUp, is_news);
                }
                self.failures = self.failures.saturating_add(1);
                (self.failures, asked.unwrap_or_default().min(ASKED_MAX))
            }
            TroubleKind::Refused => {
                // It answers: what comes later is not to wait for what was.
                self.failures = 0;
                self.refused = self.refused.saturating_add(1);
                if self.refused >= TRIES {
                    return (Next::GiveUp, is_news);
                }
                (self.refused, Duration::ZERO)
            }
        };
        (Next::Again(wait(self.first, count, jitter).max(asked)), is_news)
    }

    /// The event whose turn it is was given up. Says how many were, since something was delivered last.
    pub(super) fn given_up(&mut self) -> u64 {
        self.refused = 0;
        let trouble = self.trouble.get_or_insert_default();
        trouble.given_up = trouble.given_up.saturating_add(1);
        trouble.given_up
    }
}

/// Waits that double, each drawn from the upper half, so that the sinks of many farms do not come back together.
fn wait(first: Duration, failures: u32, jitter: u32) -> Duration {
    let ceiling = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    let half = ceiling / 2;
    half + half.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_secs(60);
    const AWAY: TroubleKind = TroubleKind::Away(None);

    fn waits(kind: TroubleKind, jitter: u32, count: usize) -> Vec<u64> {
        let mut pace = Pace::default();
        let wait = |_| match pace.failed(kind, YOUNG, jitter).0 {
            Next::Again(wait) => wait.as_millis().try_into().unwrap(),
            Next::GiveUp => u64::MAX,
        };
        (0..count).map(wait).collect()
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let most = waits(AWAY, u32::MAX, 40);
        assert_eq!(most[..6], [1000, 2000, 4000, 8000, 16_000, 32_000]);
        assert_eq!((most[8], most[9], most[39]), (256_000, 300_000, 300_000));
        assert_eq!(waits(AWAY, 0, 3), [500, 1000, 2000]);
    }

    #[test]
    fn a_receiver_may_ask_for_more_and_not_for_a_day() {
        let asked = |seconds| waits(TroubleKind::Away(Some(Duration::from_secs(seconds))), u32::MAX, 2);
        assert_eq!(asked(0), [1000, 2000]);
        assert_eq!(asked(30), [30_000, 30_000]);
        assert_eq!(asked(u64::MAX), [3_600_000, 3_600_000]);
    }

    #[test]
    fn what_is_refused_is_given_up_after_ten_tries_and_the_next_one_has_its_own() {
        let most = waits(TroubleKind::Refused, u32::MAX, 10);
        assert_eq!((most[0], most[8], most[9]), (1000, 256_000, u64::MAX));
        let mut pace = Pace::default();
        for event in 1..=3 {
            for _ in 1..TRIES {
                assert!(matches!(pace.failed(TroubleKind::Refused, YOUNG, 7).0, Next::Again(_)));
            }
            assert_eq!(pace.failed(TroubleKind::Refused, YOUNG, 7).0, Next::GiveUp);
            assert_eq!(pace.given_up(), event);
        }
        assert_eq!(pace.delivered(), Some(InTrouble { given_up: 3 }));
        assert_eq!(pace.delivered(), None);
    }

    #[test]
    fn who_is_away_is_waited_for_until_the_event_is_old() {
        let mut pace = Pace::default();
        assert!(!pace.is_hopeless(OLD * 2), "an old event has one try");
        for _ in 0..1000 {
            assert!(matches!(pace.failed(AWAY, OLD, 7).0, Next::Again(_)));
        }
        assert_eq!(pace.failed(AWAY, OLD + FIRST, 7).0, Next::GiveUp);
        assert!(pace.is_hopeless(OLD + FIRST) && !pace.is_hopeless(OLD));
        assert_eq!(pace.given_up(), 1);
        let (next, _) = pace.failed(AWAY, YOUNG, u32::MAX);
        assert_eq!(next, Next::Again(LONGEST), "the next event does not begin with short waits");
    }

    #[test]
    fn only_the_first_failure_is_news() {
        let mut pace = Pace::default();
        let news = |pace: &mut Pace, kind| pace.failed(kind, YOUNG, 7).1;
        assert!(news(&mut pace, AWAY));
        assert!(!news(&mut pace, AWAY) && !news(&mut pace, TroubleKind::Refused));
        pace.given_up();
        assert!(!news(&mut pace, AWAY), "still the same trouble");
        pace.delivered();
        assert!(news(&mut pace, TroubleKind::Refused));
    }
}
