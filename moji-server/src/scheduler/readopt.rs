//! Attempts that outlive their connection, and the server: a builder comes back and says what it
//! holds.

use std::time::Duration;

use moji_proto::{AttemptId, TargetName};

use super::{Claim, Effect, Lease, LeaseState, Moment, Scheduler, SessionId};
use crate::BuildKey;

impl Scheduler {
    pub(super) fn restored(&mut self, now: Moment, mut lease: Lease, patience: Duration) -> Vec<Effect> {
        lease.session = None;
        lease.state = LeaseState::Orphaned { until: now + patience, is_loss: false };
        self.queue.run(now, &lease.srpm, self.expect(&lease.srpm, None).time);
        self.begin_lease(lease);
        Vec::new()
    }

    /// A builder of that name that asks for work for a slot, and has not said that it holds what was
    /// given to that slot, does not have it any more: it was started anew.
    pub(super) fn forgotten_in(&mut self, now: Moment, session: SessionId, slot: u16) -> Vec<Effect> {
        let Some(name) = self.builders.get(&session).map(|registered| registered.builder.id.clone()) else {
            return Vec::new();
        };
        let mut forgotten = Vec::new();
        for lease in self.leases.values() {
            // The state first: this runs at every Ask, and hardly any lease is orphaned.
            if let LeaseState::Orphaned { is_loss, .. } = lease.state
                && lease.slot == Some(slot)
                && lease.builder == name
                && !self.reserved.contains_key(&lease.srpm.key)
            {
                forgotten.push((lease.attempt, is_loss));
            }
        }
        forgotten.into_iter().flat_map(|(attempt, is_loss)| self.given_up(now, attempt, is_loss)).collect()
    }

    pub(super) fn unreserved(&mut self, now: Moment, key: &BuildKey) -> Vec<Effect> {
        let Some(count) = self.reserved.get_mut(key) else { return Vec::new() };
        *count -= 1;
        if *count > 0 {
            return Vec::new();
        }
        self.reserved.remove(key);
        self.serve_new_work(now, key)
    }

    pub(super) fn held(&mut self, claim: Claim, attempt: AttemptId) -> Vec<Effect> {
        let stale = vec![Effect::Stale { session: claim.session, attempt }];
        let Some(registered) = self.builders.get(&claim.session) else { return Vec::new() };
        let Some(lease) = self.leases.get_mut(&attempt) else { return stale };
        if lease.builder != registered.builder.id {
            return stale;
        }
        match &mut lease.state {
            LeaseState::Running { claimed_by } => match lease.session {
                Some(session) if session == claim.session => Vec::new(),
                Some(session) => {
                    *claimed_by = Some(claim);
                    vec![Effect::Disconnect(session)]
                }
                None => Vec::new(),
            },
            LeaseState::Orphaned { .. } => {
                lease.resume(claim);
                vec![Effect::Resume(lease.clone())]
            }
            // The word will come when it is published.
            LeaseState::Deferred { .. } | LeaseState::Committing { .. } => {
                lease.session = Some(claim.session);
                Vec::new()
            }
        }
    }

    pub(super) fn claimed(
        &mut self,
        now: Moment,
        claim: Claim,
        attempt: AttemptId,
        key: &BuildKey,
        (target, generation): (TargetName, u64),
    ) -> Vec<Effect> {
        // The lease may have come into being while the digest was computed.
        if self.leases.contains_key(&attempt) {
            return self.held(claim, attempt);
        }
        let Some(registered) = self.builders.get(&claim.session) else { return Vec::new() };
        let stale = vec![Effect::Stale { session: claim.session, attempt }];
        // No server gave that one away yet; its number must stay free.
        let is_invented = attempt.boot == self.boot && attempt.serial > self.serial;
        // The same results would be delivered once more.
        let was_rejected = self.blame.was_rejected(key, attempt);
        if is_invented || was_rejected || key.target.as_ref().is_some_and(|wanted| *wanted != target) {
            return stale;
        }
        let name = registered.builder.id.clone();
        let lease = |srpm| Lease {
            attempt,
            srpm,
            target,
            session: Some(claim.session),
            builder: name,
            slot: claim.slot,
            since: None,
            late_at: None,
            charged: std::time::Duration::ZERO,
            ended: None,
            generation,
            state: LeaseState::Running { claimed_by: None },
        };
        if let Some(srpm) = self.queue.take(now, key) {
            self.blame.take_back(key, attempt);
            let lease = lease(srpm);
            self.begin_lease(lease.clone());
            return vec![Effect::Retake(lease)];
        }
        // Nobody needs two attempts at one SRPM on one connection.
        let is_out = |lease: &Lease| lease.is_committing() || lease.session == Some(claim.session);
        let holder = self.holders(key).next().filter(|_| !self.holders(key).any(is_out));
        let Some(srpm) = holder.map(|holder| holder.srpm.clone()) else { return stale };
        self.blame.take_back(key, attempt);
        let lease = lease(srpm);
        self.begin_lease(lease.clone());
        vec![Effect::Resume(lease)]
    }

    /// The SRPM was taken away at the last moment.
    pub(super) fn retake_failed(&mut self, now: Moment, attempt: AttemptId) -> Vec<Effect> {
        let session = self.leases.get(&attempt).and_then(|lease| lease.session);
        let mut effects: Vec<_> =
            session.map(|session| Effect::Stale { session, attempt }).into_iter().collect();
        effects.extend(self.drop_lease(now, attempt));
        effects
    }
}
