//! How leases end: with results, without, too often without.

use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome};

use super::handout::requirements;
use super::{Effect, Ending, Fate, HoldCause, Lease, LeaseState, Moment, Scheduler, SessionId, TryKind};
use crate::BuildKey;
use crate::estimates::Sample;
use crate::source::QueuedSrpm;

impl Scheduler {
    pub(super) fn lost(&mut self, now: Moment, session: SessionId) -> Vec<Effect> {
        self.builders.remove(&session);
        self.asks.remove_all(session);
        let mut effects = Vec::new();
        let until = now + self.grace;
        for lease in self.leases.values_mut() {
            lease.drop_claim(session);
            if lease.session != Some(session) {
                continue;
            }
            lease.session = None;
            match lease.state {
                LeaseState::Running { claimed_by: Some(claim) } => {
                    lease.resume(claim);
                    effects.push(Effect::Resume(lease.clone()));
                }
                LeaseState::Running { claimed_by: None } => {
                    lease.state = LeaseState::Orphaned { until, is_loss: true };
                }
                _ => {}
            }
        }
        if self.grace.is_zero() {
            effects.extend(self.on_time(now));
        }
        // What was left for this builder is now for those that have tried it already.
        effects.extend(self.serve_all(now));
        effects
    }

    /// The grace of an orphaned lease is over.
    pub(super) fn given_up(&mut self, now: Moment, attempt: AttemptId, is_loss: bool) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt) else { return Vec::new() };
        if is_loss {
            self.blame.add(&lease.srpm.key, attempt, &lease.builder, TryKind::Lost);
        }
        self.end_without_result(now, attempt, if is_loss { Ending::Lost } else { Ending::Unclaimed })
    }

    pub(super) fn released(
        &mut self,
        now: Moment,
        session: SessionId,
        attempt: AttemptId,
        trouble: bool,
    ) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt).filter(|lease| lease.is_run_by(session)).cloned() else {
            return self.does_not_hold(session, attempt);
        };
        let mut effects = Vec::new();
        if trouble {
            self.blame.add(&lease.srpm.key, attempt, &lease.builder, TryKind::GivenBack);
            effects.extend(self.builder_failed(now, &lease));
        } else {
            self.blame.returned(&lease.srpm.key, attempt, &lease.builder);
            let pause = self.blame.gave_back(now, &lease.builder);
            effects.extend(pause.map(|pause| self.suspended(now, &lease, pause)).unwrap_or_default());
        }
        effects.extend(self.end_without_result(now, attempt, Ending::Released { trouble }));
        effects
    }

    pub(super) fn delivered(
        &mut self,
        now: Moment,
        session: SessionId,
        attempt: AttemptId,
        outcome: Outcome,
    ) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt).filter(|lease| lease.is_run_by(session)).cloned() else {
            return self.does_not_hold(session, attempt);
        };
        let outcome = self.whose_fault(&lease, outcome);
        if let Some(lease) = self.leases.get_mut(&attempt) {
            lease.ended = Some(now);
        }
        let kind = match &outcome {
            Outcome::Succeeded => None,
            Outcome::Failed { kind, .. } => Some(*kind),
        };
        match kind {
            None
            | Some(FailureKind::Package | FailureKind::MissingDependency | FailureKind::UnreadableSrpm) => {
                // Of a success that is known when it is published.
                let did_well = !outcome.is_success();
                let mut effects = self.speaks_for_the_package(attempt, outcome);
                if did_well {
                    effects.extend(self.did_well(now, &lease));
                }
                effects
            }
            Some(kind) => {
                self.blame.add(&lease.srpm.key, attempt, &lease.builder, TryKind::Failed(kind));
                let mut effects = match kind {
                    FailureKind::Infrastructure => self.builder_failed(now, &lease),
                    FailureKind::Configuration => self.does_not_work_there(now, session, &lease),
                    _ => Vec::new(),
                };
                effects.extend(self.says_nothing(now, session, attempt, outcome));
                effects
            }
        }
    }

    /// What is missing on a builder, and was in the repository that it was told to use, is not missing.
    fn whose_fault(&self, lease: &Lease, outcome: Outcome) -> Outcome {
        let Outcome::Failed { kind: FailureKind::MissingDependency, missing, exit_code, .. } = &outcome
        else {
            return outcome;
        };
        let (target, generation) = (lease.srpm.key.target.as_ref(), lease.generation);
        let wanted = requirements(missing);
        if !self.rules.tells_repository || wanted.is_empty() || !self.queue.had(target, &wanted, generation) {
            return outcome;
        }
        let reason = format!(
            "the builder did not find {}, which generation {generation} of the repository has: does it use it?",
            missing.join(", ")
        );
        Outcome::failed(FailureKind::Infrastructure, &reason, *exit_code, missing.clone())
    }

    /// How long a build took that was good: that is known when it is published.
    fn learn(&mut self, lease: &Lease, took: Duration) {
        if let Some(class) = lease.session.and_then(|session| self.class_of(session)) {
            let (package, size) = (lease.srpm.header.name.clone(), Some(lease.srpm.size));
            self.estimates.learn(&Sample { package, class, size, took });
        }
    }

    /// Somebody speaks of an attempt that is not his. If he has asked for it, he does not get it any
    /// more: he forgets it now.
    fn does_not_hold(&mut self, session: SessionId, attempt: AttemptId) -> Vec<Effect> {
        if let Some(lease) = self.leases.get_mut(&attempt) {
            lease.drop_claim(session);
        }
        vec![Effect::Stale { session, attempt }]
    }

    fn did_well(&mut self, now: Moment, lease: &Lease) -> Vec<Effect> {
        if self.blame.did_well(&lease.builder) { self.serve_all(now) } else { Vec::new() }
    }

    fn builder_failed(&mut self, now: Moment, lease: &Lease) -> Vec<Effect> {
        let pause = self.blame.failed_on(now, &lease.builder);
        pause.map(|pause| self.suspended(now, lease, pause)).unwrap_or_default()
    }

    fn suspended(&mut self, now: Moment, lease: &Lease, pause: Duration) -> Vec<Effect> {
        let streak = self.blame.streak(&lease.builder);
        let sessions = self.builders.iter().filter(|(_, other)| other.builder.id == lease.builder);
        let mut effects: Vec<_> =
            sessions.map(|(session, _)| Effect::Suspend { session: *session, pause, streak }).collect();
        // What was left for this builder is now for those that have tried it already.
        effects.extend(self.serve_all(now));
        effects
    }

    fn does_not_work_there(&mut self, now: Moment, session: SessionId, lease: &Lease) -> Vec<Effect> {
        if let Some(registered) = self.builders.get_mut(&session) {
            registered.broken.insert(lease.target.clone());
        }
        self.serve_all(now)
    }

    /// A result that counts. It is published, unless a rival is being published or may do better.
    fn speaks_for_the_package(&mut self, attempt: AttemptId, outcome: Outcome) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt) else { return Vec::new() };
        let rivals = || self.holders(&lease.srpm.key).filter(|rival| rival.attempt != attempt);
        let waits = rivals().any(Lease::is_committing)
            || (!outcome.is_success() && rivals().any(|rival| rival.is_open()));
        if !waits {
            return self.commit(attempt, outcome);
        }
        if let Some(lease) = self.leases.get_mut(&attempt) {
            lease.has_ended(LeaseState::Deferred { outcome });
        }
        Vec::new()
    }

    /// A failure that says nothing about the package: it is tried again, or held.
    fn says_nothing(
        &mut self,
        now: Moment,
        session: SessionId,
        attempt: AttemptId,
        outcome: Outcome,
    ) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt) else { return Vec::new() };
        let key = lease.srpm.key.clone();
        let has_rivals = self.holders(&key).any(|rival| rival.attempt != attempt);
        if let Some(reason) = self.blame.verdict(&key).filter(|_| !has_rivals) {
            return self.commit_as(attempt, outcome, Fate::Hold(reason));
        }
        let mut effects = vec![Effect::Accept { session, attempt }];
        effects.extend(self.end_without_result(now, attempt, Ending::Failed(outcome)));
        effects
    }

    /// What is missing keeps an SRPM waiting for it; anything else settles it.
    fn commit(&mut self, attempt: AttemptId, outcome: Outcome) -> Vec<Effect> {
        let fate = match &outcome {
            Outcome::Failed { kind: FailureKind::MissingDependency, missing, .. } if !missing.is_empty() => {
                Fate::Park(requirements(missing))
            }
            _ => Fate::Settle,
        };
        self.commit_as(attempt, outcome, fate)
    }

    fn commit_as(&mut self, attempt: AttemptId, outcome: Outcome, fate: Fate) -> Vec<Effect> {
        let Some(lease) = self.leases.get_mut(&attempt) else { return Vec::new() };
        let (ended, then) = (outcome.clone(), fate.clone());
        lease.has_ended(LeaseState::Committing { outcome: ended, fate: then, retry_at: None });
        vec![Effect::Commit { lease: lease.clone(), outcome, fate }]
    }

    pub(super) fn committed(&mut self, now: Moment, attempt: AttemptId, rpms: bool) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt).filter(|lease| lease.is_committing()).cloned() else {
            return Vec::new();
        };
        let key = lease.srpm.key.clone();
        let mut effects = Vec::new();
        effects.extend(lease.session.map(|session| Effect::Accept { session, attempt }));
        let rivals: Vec<_> = self.holders(&key).filter(|rival| rival.attempt != attempt).cloned().collect();
        for rival in rivals {
            let attempt = rival.attempt;
            effects.extend(rival.session.map(|session| Effect::Stale { session, attempt }));
            effects.push(Effect::Ended { lease: rival, ending: Ending::Superseded });
            effects.extend(self.drop_lease(now, attempt));
        }
        effects.extend(self.blame.forgive(&key).into_iter().map(Effect::Forget));
        let LeaseState::Committing { outcome, fate, .. } = &lease.state else { return effects };
        let ending = if matches!(fate, Fate::Park(_)) { Ending::Parked } else { Ending::Published };
        effects.push(Effect::Ended { lease: lease.clone(), ending });
        // The watcher of SOURCE may have been faster than the word that it is there.
        let is_same =
            |again: &QueuedSrpm| (again.size, &again.header) == (lease.srpm.size, &lease.srpm.header);
        match fate {
            Fate::Park(missing) if self.again.get(&key).is_none_or(is_same) => {
                self.again.remove(&key);
                let expected = self.expect(&lease.srpm, None).time;
                self.queue.park(now, lease.srpm.clone(), expected, missing, lease.generation);
            }
            Fate::Settle if outcome.is_success() && rpms => {
                let took = lease.since.zip(lease.ended).map(|(since, ended)| ended.saturating_sub(since));
                took.into_iter().for_each(|took| self.learn(&lease, took));
                self.queue.publish(now, &key, lease.srpm.header.nvr.clone(), took.unwrap_or_default());
            }
            _ => {}
        }
        effects.extend(self.drop_lease(now, attempt));
        if outcome.is_success() {
            effects.extend(self.did_well(now, &lease));
        }
        effects
    }

    /// What was to be published is not good. Whoever waits with a result of that SRPM is next.
    pub(super) fn rejected(&mut self, now: Moment, attempt: AttemptId, reason: &str) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt).filter(|lease| lease.is_committing()).cloned() else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        let reject = |session| Effect::Reject { session, attempt, reason: reason.to_owned() };
        effects.extend(lease.session.map(reject));
        effects.extend(self.end_rejected(now, &lease, reason));
        effects
    }

    /// What was to be published is lost here. Its builder still has it; whoever waits with a result of that SRPM need
    /// not wait for that.
    pub(super) fn results_lost(&mut self, now: Moment, attempt: AttemptId, reason: String) -> Vec<Effect> {
        let until = now + self.grace;
        let Some(lease) = self.leases.get_mut(&attempt).filter(|lease| lease.is_committing()) else {
            return Vec::new();
        };
        // It is built: its slot is free, and nobody else needs to begin with it.
        (lease.slot, lease.late_at, lease.ended) = (None, None, None);
        let mut effects = Vec::new();
        if lease.session.is_some() {
            lease.state = LeaseState::Running { claimed_by: None };
            effects.push(Effect::DeliverAgain { lease: lease.clone(), reason });
        } else {
            lease.state = LeaseState::Orphaned { until, is_loss: false };
        }
        let key = lease.srpm.key.clone();
        // It is one of those that may do better than a failure.
        let holders: Vec<_> = self.holders(&key).cloned().collect();
        effects.extend(self.decide_between(&holders));
        if self.grace.is_zero() {
            effects.extend(self.on_time(now));
        }
        effects
    }

    /// The same before they came.
    pub(super) fn too_large(
        &mut self,
        now: Moment,
        session: SessionId,
        attempt: AttemptId,
        reason: &str,
    ) -> Vec<Effect> {
        match self.leases.get(&attempt).filter(|lease| lease.is_run_by(session)).cloned() {
            Some(lease) => self.end_rejected(now, &lease, reason),
            None => Vec::new(),
        }
    }

    fn end_rejected(&mut self, now: Moment, lease: &Lease, reason: &str) -> Vec<Effect> {
        self.blame.add(&lease.srpm.key, lease.attempt, &lease.builder, TryKind::Rejected);
        let mut effects = self.builder_failed(now, lease);
        effects.extend(self.end_without_result(now, lease.attempt, Ending::Rejected(reason.to_owned())));
        effects
    }

    pub(super) fn withdrawn(&mut self, now: Moment, key: &BuildKey) -> Vec<Effect> {
        let holders: Vec<_> = self.holders(key).cloned().collect();
        if holders.iter().any(Lease::is_committing) {
            return Vec::new();
        }
        let mut effects = Vec::new();
        effects.extend(self.blame.forgive(key).into_iter().map(Effect::Forget));
        for lease in holders {
            let attempt = lease.attempt;
            effects.extend(lease.session.map(|session| Effect::Cancel { session, attempt }));
            effects.push(Effect::Ended { lease, ending: Ending::Cancelled });
            effects.extend(self.drop_lease(now, attempt));
        }
        effects
    }

    /// Ends a lease that brought nothing. When it was the last one, its SRPM goes back into the
    /// queue, or is held.
    fn end_without_result(&mut self, now: Moment, attempt: AttemptId, ending: Ending) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt).cloned() else { return Vec::new() };
        let key = lease.srpm.key.clone();
        let rivals: Vec<_> = self.holders(&key).filter(|rival| rival.attempt != attempt).cloned().collect();
        let mut effects = vec![Effect::Ended { lease: lease.clone(), ending }];
        if !rivals.is_empty() {
            effects.extend(self.drop_lease(now, attempt));
            effects.extend(self.decide_between(&rivals));
        } else if let Some(reason) = self.blame.verdict(&key) {
            // Their logs may be all that is left of it: they go when it is held.
            self.blame.forgive(&key);
            effects.push(Effect::Hold { lease, reason, cause: HoldCause::Tries });
            effects.extend(self.drop_lease(now, attempt));
        } else {
            if self.again.contains_key(&key) {
                // Another one has been put in its place meanwhile.
                effects.extend(self.blame.forgive(&key).into_iter().map(Effect::Forget));
            } else {
                self.again.insert(key.clone(), lease.srpm);
            }
            effects.push(Effect::Requeue(key));
            effects.extend(self.drop_lease(now, attempt));
        }
        effects
    }

    /// One rival is gone: the first success that waits is next, or, if none of the others can do better
    /// any more, the first failure.
    fn decide_between(&mut self, rivals: &[Lease]) -> Vec<Effect> {
        if rivals.iter().any(Lease::is_committing) {
            return Vec::new();
        }
        let waiting: Vec<_> = rivals
            .iter()
            .filter_map(|rival| match &rival.state {
                LeaseState::Deferred { outcome } => Some((rival.attempt, outcome.clone())),
                _ => None,
            })
            .collect();
        let success = waiting.iter().find(|(_, outcome)| outcome.is_success()).cloned();
        let deferred = match success {
            None if rivals.iter().any(Lease::is_open) => return Vec::new(),
            None => waiting.into_iter().next(),
            success => success,
        };
        deferred.map(|(attempt, outcome)| self.commit(attempt, outcome)).unwrap_or_default()
    }

    /// Removes a lease. After the last one of an SRPM, what waited for its name is queued.
    pub(super) fn drop_lease(&mut self, now: Moment, attempt: AttemptId) -> Vec<Effect> {
        let Some(lease) = self.leases.remove(&attempt) else { return Vec::new() };
        if let Some(since) = lease.since.filter(|_| !lease.charged.is_zero()) {
            let took = lease.ended.unwrap_or(now).saturating_sub(since);
            self.queue.settle_charge(lease.srpm.key.target.as_ref(), lease.charged, took);
        }
        let key = lease.srpm.key;
        if let Some(attempts) = self.leased.get_mut(&key) {
            attempts.remove(&attempt);
            if !attempts.is_empty() {
                return Vec::new();
            }
        }
        self.leased.remove(&key);
        self.backed_up.remove(&key);
        match self.again.remove(&key) {
            Some(srpm) => self.found(now, srpm),
            None => {
                self.queue.settled(now, &key);
                Vec::new()
            }
        }
    }
}
