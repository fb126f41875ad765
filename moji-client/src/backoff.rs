//! How long to wait before the next try to connect.

use std::time::Duration;

/// The first wait is about this long.
const SHORTEST: Duration = Duration::from_secs(1);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(60);

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
    fn waits_grow_from_a_second_to_a_minute_and_begin_again() {
        let waits = |jitter| {
            let mut backoff = Backoff::default();
            let waits: Vec<_> = (0..40).map(|_| backoff.next(jitter).as_secs_f64()).collect();
            backoff.reset();
            assert_eq!(backoff.next(jitter).as_secs_f64(), waits[0]);
            waits
        };
        assert_eq!(waits(0)[..7], [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(waits(u32::MAX)[..7], [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(waits(u32::MAX)[39], 60.0);
    }
}
