//! So much at once, and so much a second in the long run: a token bucket that may get into debt.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of tokens, full at the beginning.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: u64,
    burst: u64,
    /// What was taken and has not been refilled, in billionths.
    taken: u128,
    at: Instant,
}

const UNIT: u128 = 1_000_000_000;

impl Bucket {
    pub(crate) fn new(rate: u64, burst: u64) -> Self {
        Self { rate: rate.max(1), burst, taken: 0, at: Instant::now() }
    }

    /// Takes tokens, and gives how long to wait before the next ones are taken: not at all while there
    /// are some.
    pub(crate) fn take(&mut self, tokens: u64) -> Duration {
        let now = Instant::now();
        let refilled = now.duration_since(self.at).as_nanos().saturating_mul(self.rate.into());
        self.at = now;
        self.taken = self.taken.saturating_sub(refilled) + u128::from(tokens) * UNIT;
        let debt = self.taken.saturating_sub(u128::from(self.burst) * UNIT);
        let wait = debt.div_ceil(self.rate.into());
        Duration::from_nanos(wait.try_into().unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(100, 1000);
        assert_eq!(bucket.take(1000), Duration::ZERO);
        assert_eq!(bucket.take(50), Duration::from_millis(500));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(bucket.take(0), Duration::ZERO);
        let begin = Instant::now();
        for _ in 0..100 {
            let wait = bucket.take(10);
            sleep(wait).await;
        }
        assert_eq!(begin.elapsed().as_secs(), 10);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(bucket.take(1000), Duration::ZERO, "it is never more than full");
        assert_eq!(bucket.take(1), Duration::from_millis(10));
    }
}
