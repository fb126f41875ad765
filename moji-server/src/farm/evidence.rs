//! Which attempts without a lease may turn up again: those that were given to a builder and ended
//! without its word. Only these are believed when a builder says that it holds them.
//!
//! Plain data, bounded. It deliberately does not know the folders or the history, from which the farm
//! fills it at the start; from then on each lease that ends adds to it, or takes away.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use moji_proto::{AttemptId, HeldAttempt, TargetName, limits};

use crate::lease_record::LeaseRecord;
use crate::scheduler::Lease;
use crate::{BuildKey, BuilderId};

/// Most attempts of all builders. Of one builder: what it may hold at a time.
pub(crate) const EVIDENCE: usize = 64 * 1024;

/// An attempt that was given to a builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The attempt.
    pub attempt: AttemptId,
    /// To whom.
    pub builder: BuilderId,
    /// What was to be built.
    pub key: BuildKey,
    /// And for what.
    pub target: TargetName,
    /// When the lease began.
    pub leased_at: Timestamp,
    /// The generation of the repository that it was given; 0: none, or not known.
    pub generation: u64,
}

impl Given {
    /// Of a lease of this server.
    pub(super) fn of(lease: &Lease, record: Option<&LeaseRecord>) -> Self {
        Self {
            attempt: lease.attempt,
            builder: lease.builder.clone(),
            key: lease.srpm.key.clone(),
            target: lease.target.clone(),
            leased_at: record.map_or_else(Timestamp::now, |record| record.leased_at),
            generation: lease.generation,
        }
    }

    /// Of a lease of the last server.
    pub(crate) fn recorded(record: &LeaseRecord) -> Self {
        Self {
            attempt: record.attempt,
            builder: record.builder.clone(),
            key: record.key(),
            target: record.target.clone(),
            leased_at: record.leased_at,
            generation: record.generation(),
        }
    }
}

/// The attempts that may turn up again.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    given: BTreeMap<AttemptId, Given>,
    /// The oldest first.
    of: BTreeMap<BuilderId, VecDeque<AttemptId>>,
}

impl Evidence {
    /// An attempt has ended without its builder's word.
    pub(super) fn add(&mut self, given: Given) {
        self.remove(given.attempt);
        let own = self.of.get(&given.builder).map_or(0, VecDeque::len);
        if own >= limits::HOLDS {
            self.forget_oldest_of(&given.builder);
        } else if self.given.len() >= EVIDENCE {
            // Whoever has lost most pays for it.
            let most = self.of.iter().max_by_key(|(_, attempts)| attempts.len());
            if let Some(most) = most.map(|(builder, _)| builder.clone()) {
                self.forget_oldest_of(&most);
            }
        }
        self.of.entry(given.builder.clone()).or_default().push_back(given.attempt);
        self.given.insert(given.attempt, given);
    }

    /// An attempt has ended so that it does not come back.
    pub(super) fn remove(&mut self, attempt: AttemptId) {
        let Some(Given { builder, .. }) = self.given.remove(&attempt) else { return };
        if let Some(attempts) = self.of.get_mut(&builder) {
            attempts.retain(|other| *other != attempt);
            if attempts.is_empty() {
                self.of.remove(&builder);
            }
        }
    }

    /// What is known of an attempt, if it was given to this builder for what it says.
    pub(super) fn find(&self, builder: &BuilderId, held: &HeldAttempt) -> Option<&Given> {
        let given = self.given.get(&held.attempt)?;
        let is_it = given.builder == *builder && given.key.srpm == held.srpm && given.target == held.target;
        is_it.then_some(given)
    }

    fn forget_oldest_of(&mut self, builder: &BuilderId) {
        if let Some(oldest) = self.of.get(builder).and_then(|attempts| attempts.front()).copied() {
            self.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use moji_proto::{Phase, Sha256};

    use super::*;

    fn given(serial: u64, builder: &str) -> Given {
        Given {
            attempt: AttemptId { boot: 7, serial },
            builder: builder.parse().unwrap(),
            key: BuildKey { target: None, srpm: format!("p{serial}-1-1.src.rpm").parse().unwrap() },
            target: "f43".parse().unwrap(),
            leased_at: Timestamp::UNIX_EPOCH,
            generation: serial,
        }
    }

    fn knows(evidence: &Evidence, serial: u64, builder: &str) -> bool {
        let held = held(serial);
        let found = evidence.find(&builder.parse().unwrap(), &held);
        found.inspect(|found| assert_eq!(**found, given(serial, builder))).is_some()
    }

    fn held(serial: u64) -> HeldAttempt {
        let Given { attempt, key, target, .. } = given(serial, "any");
        let (srpm, phase) = (key.srpm, Phase::Building);
        HeldAttempt { attempt, srpm, target, sha256: Sha256::of(b""), slot: None, phase }
    }

    #[test]
    fn it_is_what_it_was_given_for() {
        let (mut evidence, builder) = (Evidence::default(), "board".parse().unwrap());
        evidence.add(given(3, "board"));
        assert!(evidence.find(&builder, &held(3)).is_some());
        for wrong in [
            HeldAttempt { target: "f44".parse().unwrap(), ..held(3) },
            HeldAttempt { srpm: held(4).srpm, ..held(3) },
            HeldAttempt { attempt: held(4).attempt, ..held(3) },
        ] {
            assert_eq!(evidence.find(&builder, &wrong), None);
        }
    }

    #[test]
    fn an_attempt_is_its_builders_only_until_it_is_over() {
        let mut evidence = Evidence::default();
        evidence.add(given(1, "lab/board"));
        evidence.add(given(2, "board"));
        assert!(knows(&evidence, 1, "lab/board") && knows(&evidence, 2, "board"));
        assert!(!knows(&evidence, 1, "board") && !knows(&evidence, 2, "lab/board"));
        evidence.remove(AttemptId { boot: 7, serial: 1 });
        assert!(!knows(&evidence, 1, "lab/board") && knows(&evidence, 2, "board"));
        assert_eq!(evidence.of.len(), 1);
    }

    #[test]
    fn a_builder_that_loses_much_crowds_out_nobody_else() {
        let mut evidence = Evidence::default();
        evidence.add(given(0, "honest"));
        for serial in 1..=limits::HOLDS as u64 + 1 {
            evidence.add(given(serial, "greedy"));
        }
        assert!(
            knows(&evidence, 0, "honest") && !knows(&evidence, 1, "greedy") && knows(&evidence, 2, "greedy")
        );
        for serial in 0..EVIDENCE as u64 {
            evidence.add(given(10_000 + serial, &format!("greedy{}", serial % 100)));
        }
        assert!(knows(&evidence, 0, "honest"));
        assert_eq!(evidence.given.len(), EVIDENCE);
    }
}
