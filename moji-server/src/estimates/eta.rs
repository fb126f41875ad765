//! When the queue will be empty.

use std::time::Duration;

use super::Expectation;

/// When it will be done, from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Eta {
    /// Hardly before.
    pub low: Duration,
    /// Most likely.
    pub expected: Duration,
    /// Hardly later.
    pub high: Duration,
}

/// How long so many slots need for what remains. `critical_path`: how long the longest chain of builds
/// that must wait for each other takes, for which no number of slots makes up; nor does it for the longest
/// build. Errors of single builds are taken to be independent, so that they add in quadrature: a
/// hundred builds are known better than one.
pub fn eta(remaining: impl IntoIterator<Item = Expectation>, slots: usize, critical_path: Duration) -> Eta {
    let (mut work, mut below, mut above) = (0_u128, 0_u128, 0_u128);
    let mut longest = Eta::default();
    for Expectation { time, low, high, .. } in remaining {
        work = work.saturating_add(time.as_millis());
        below = below.saturating_add(square(time.saturating_sub(low)));
        above = above.saturating_add(square(high.saturating_sub(time)));
        longest.low = longest.low.max(low);
        longest.expected = longest.expected.max(time);
        longest.high = longest.high.max(high);
    }
    let slots = slots.max(1) as u128;
    let shared = |work: u128, longest: Duration| {
        let millis = u64::try_from(work.div_ceil(slots)).unwrap_or(u64::MAX);
        Duration::from_millis(millis).max(longest).max(critical_path)
    };
    let expected = shared(work, longest.expected);
    Eta {
        low: shared(work.saturating_sub(below.isqrt()), longest.low).min(expected),
        expected,
        high: shared(work.saturating_add(above.isqrt()), longest.high).max(expected),
    }
}

fn square(time: Duration) -> u128 {
    time.as_millis().saturating_mul(time.as_millis())
}
