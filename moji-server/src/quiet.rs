//! Lines of the log that strangers can cause, few of them: who connects ten thousand times must not fill
//! the journal. What is not said is counted, and the next line tells how much that was.
//!
//! Knows nothing of what it is asked to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::peer::{Origin, Peer};

/// In so much time each address has one line of each kind …
const PERIOD: Duration = Duration::from_secs(10);
/// … and so many addresses do.
const ADDRESSES: usize = 8;

/// Kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// The system gives no connection.
    Accepting,
    /// A connection over one of the limits was closed.
    TurnedAway,
    /// A stranger had to make place.
    Displaced,
    /// A stranger has taken too long.
    Silent,
    /// A stranger could not prove who it is.
    WrongProof,
    /// A stranger was refused for another reason.
    Refused,
    /// A stranger has left, or what it speaks is not understood.
    Lost,
    /// A builder sends too much at a time.
    Flood,
    /// Results that could not be received.
    Delivery,
}

/// What was said lately. The lock is held for a look at a small table, never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<BTreeMap<Topic, Period>>);

#[derive(Debug)]
struct Period {
    since: Instant,
    said: BTreeSet<Option<Origin>>,
    unsaid: u64,
}

impl Quiet {
    /// A warning about a peer, unless there was one of this kind about its address just now.
    pub(crate) fn warn(&self, topic: Topic, peer: &Peer, what: fmt::Arguments<'_>) {
        match self.ask(topic, peer.origin(), Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("{peer}: {what}"),
            Some(1) => tracing::warn!("{peer}: {what} (1 more line like this was left out)"),
            Some(more) => tracing::warn!("{peer}: {what} ({more} more lines like this were left out)"),
        }
    }

    /// Whether something may be said, and how much was not said since the last time.
    fn ask(&self, topic: Topic, about: Option<Origin>, now: Instant) -> Option<u64> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let period =
            topics.entry(topic).or_insert_with(|| Period { since: now, said: BTreeSet::new(), unsaid: 0 });
        if now.duration_since(period.since) >= PERIOD {
            (period.since, period.said) = (now, BTreeSet::new());
        }
        if period.said.len() >= ADDRESSES || !period.said.insert(about) {
            period.unsaid += 1;
            return None;
        }
        Some(std::mem::take(&mut period.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> Option<Origin> {
        Some(Origin::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_for_each_address_and_kind_and_period() {
        let (quiet, begin) = (Quiet::default(), Instant::now());
        assert_eq!(quiet.ask(Topic::Refused, address(1), begin), Some(0));
        for _ in 0..1000 {
            assert_eq!(quiet.ask(Topic::Refused, address(1), begin + PERIOD / 2), None);
        }
        assert_eq!(quiet.ask(Topic::Silent, address(1), begin), Some(0));
        assert_eq!(quiet.ask(Topic::Refused, address(2), begin), Some(1000));
        assert_eq!(quiet.ask(Topic::Refused, address(2), begin), None);
        assert_eq!(quiet.ask(Topic::Refused, address(1), begin + PERIOD), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_are_no_way_around_it() {
        let (quiet, begin) = (Quiet::default(), Instant::now());
        let said = (0..=255).filter(|last| quiet.ask(Topic::TurnedAway, address(*last), begin).is_some());
        assert_eq!(said.count(), ADDRESSES);
        assert_eq!(quiet.ask(Topic::TurnedAway, address(0), begin + PERIOD), Some(256 - ADDRESSES as u64));
    }
}
