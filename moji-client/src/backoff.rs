//! How long to wait before the next try to connect.

use std::time::Duration;

/// The first wait is at least this long.
const SHORTEST: Duration = Duration::from_millis(300);
/// No wait is longer: a server that was away for a while has its builders back within half a minute.
const LONGEST: Duration = Duration::from_secs(15);

/// Waits that double, each drawn from the upper half, so that a thousand builders do not come back
/// in the same second.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait. `jitter` is a random number: any 32 bits.
    pub fn next(&mut self, jitter: u32) -> Duration {
        let ceiling = (SHORTEST * 2).saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        let half = ceiling / 2;
        half + half.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }

    /// A connection worked: begin with short waits again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_moment_to_a_quarter_of_a_minute_and_begin_again() {
        let waits = |jitter| {
            let mut backoff = Backoff::default();
            let waits: Vec<_> = (0..40).map(|_| backoff.next(jitter).as_millis()).collect();
            backoff.reset();
            assert_eq!(backoff.next(jitter).as_millis(), waits[0]);
            waits
        };
        assert_eq!(waits(0)[..7], [300, 600, 1200, 2400, 4800, 7500, 7500]);
        assert_eq!(waits(u32::MAX)[..7], [600, 1200, 2400, 4800, 9600, 15_000, 15_000]);
        assert_eq!(waits(u32::MAX)[39], 15_000);
    }
}
