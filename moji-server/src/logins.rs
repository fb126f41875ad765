//! Wrong passwords, by address: each makes the next answer come later. A right password is answered at
//! once, whatever others at the same address do: a farm behind one address must not be locked out by
//! whoever guesses there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;
use crate::peer::{Origin, Peer};

/// What is known of those who could not prove themselves. The lock is held for a look at a table, never
/// across a wait.
#[derive(Debug)]
pub struct Logins {
    first: Duration,
    longest: Duration,
    memory: Duration,
    most: usize,
    failed: Mutex<BTreeMap<Origin, Failed>>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    times: u32,
    last: Instant,
}

impl Logins {
    /// Nobody has failed yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            first: limits.login_delay,
            longest: limits.login_delay_max,
            memory: limits.login_memory,
            most: limits.login_addresses,
            failed: Mutex::default(),
        }
    }

    /// A peer could not prove itself. Gives how long its answer is to wait.
    pub fn failed(&self, peer: &Peer) -> Duration {
        let Some(origin) = peer.origin() else { return self.first };
        let times = self.count(origin, Instant::now());
        let factor = 1u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest.max(self.first))
    }

    fn count(&self, origin: Origin, now: Instant) -> u32 {
        let mut table = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |failed: &Failed| now.duration_since(failed.last) >= self.memory;
        if !table.contains_key(&origin) && table.len() >= self.most {
            table.retain(|_, failed| !is_old(failed));
            let oldest = table.iter().min_by_key(|(_, failed)| failed.last).map(|(origin, _)| *origin);
            if let Some(oldest) = oldest.filter(|_| table.len() >= self.most) {
                table.remove(&oldest);
            }
        }
        let failed = table.entry(origin).or_insert(Failed { times: 0, last: now });
        if is_old(failed) {
            failed.times = 0;
        }
        failed.last = now;
        failed.times = failed.times.saturating_add(1);
        failed.times
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn peer(number: u16) -> Peer {
        let [high, low] = number.to_be_bytes();
        Peer::at(([10, 0, high, low], 5).into())
    }

    fn seconds(logins: &Logins, number: u16) -> u64 {
        logins.failed(&peer(number)).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_waits_twice_as_long_up_to_the_longest() {
        let logins = Logins::new(&Limits::default());
        let delays: Vec<_> = (0..7).map(|_| seconds(&logins, 1)).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(seconds(&logins, 2), 1);
        for _ in 0..100 {
            assert_eq!(seconds(&logins, 1), 20);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_when_there_are_none_for_a_while() {
        let logins = Logins::new(&Limits::default());
        assert_eq!((seconds(&logins, 1), seconds(&logins, 1)), (1, 2));
        sleep(Duration::from_secs(15 * 60 - 1)).await;
        assert_eq!(seconds(&logins, 1), 4);
        sleep(Duration::from_secs(15 * 60)).await;
        assert_eq!(seconds(&logins, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_forgets_the_oldest() {
        let logins = Logins::new(&Limits { login_addresses: 3, ..Limits::default() });
        for number in [1, 2, 3, 1] {
            seconds(&logins, number);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(seconds(&logins, 4), 1);
        assert_eq!(logins.failed.lock().unwrap().len(), 3);
        assert_eq!(seconds(&logins, 1), 4, "the one that was busy is known still");
        assert_eq!(seconds(&logins, 3), 2);
        assert_eq!(seconds(&logins, 2), 1, "the oldest was forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_address_only_the_first_delay() {
        let logins = Logins::new(&Limits::default());
        let peer = Peer::named("a test");
        assert_eq!((logins.failed(&peer).as_secs(), logins.failed(&peer).as_secs()), (1, 1));
    }
}
