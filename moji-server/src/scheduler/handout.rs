//! Which slot gets which SRPM.

use std::collections::BTreeSet;

use moji_proto::{AttemptId, TargetName};

use super::{Builder, Effect, Lease, LeaseState, Moment, Registered, Scheduler, SessionId};
use crate::dependency::Requirement;
use crate::source::{Demand, QueuedSrpm};

use crate::{BuildKey, BuilderId};

/// When more than this has become ready at once, all slots are asked, and not one for each.
const ONE_BY_ONE: usize = 8;

impl Scheduler {
    pub(super) fn found(&mut self, now: Moment, srpm: QueuedSrpm) -> Vec<Effect> {
        if self.leased.contains_key(&srpm.key) {
            self.again.insert(srpm.key.clone(), srpm);
            return Vec::new();
        }
        let key = srpm.key.clone();
        if let Some(reason) = self.blame.verdict(&key) {
            let mut effects: Vec<_> = self.blame.forgive(&key).into_iter().map(Effect::Forget).collect();
            effects.push(Effect::HoldQueued { key, reason });
            return effects;
        }
        self.failures.forget(&key);
        let expected = self.expect(&srpm, None).time;
        match self.parked.remove(&key) {
            Some((missing, generation)) => {
                self.queue.park(now, srpm, expected, &missing, generation);
            }
            None => self.queue.insert(now, srpm, expected),
        }
        Vec::new()
    }

    pub(super) fn gone(&mut self, now: Moment, key: &BuildKey) -> Vec<Effect> {
        self.again.remove(key);
        self.parked.remove(key);
        if self.queue.remove(now, key).is_none() {
            return Vec::new();
        }
        // Whoever puts it there again wants it tried again.
        self.blame.forgive(key).into_iter().map(Effect::Forget).collect()
    }

    pub(super) fn connected(&mut self, now: Moment, session: SessionId, builder: Builder) -> Vec<Effect> {
        let name = builder.id.clone();
        let registered = Registered { builder, draining: false, broken: BTreeSet::new() };
        self.builders.insert(session, registered);
        let until = self.blame.suspended_until(&name).filter(|until| *until > now);
        let suspended = until.map(|until| Effect::Suspend {
            session,
            pause: until - now,
            streak: self.blame.streak(&name),
        });
        suspended.into_iter().collect()
    }

    pub(super) fn draining(&mut self, now: Moment, session: SessionId) -> Vec<Effect> {
        self.asks.remove_all(session);
        match self.builders.get_mut(&session) {
            Some(registered) if !registered.draining => registered.draining = true,
            // It changes nothing to say it again.
            _ => return Vec::new(),
        }
        // What was left for this builder is now for those that have tried it already.
        self.serve_all(now)
    }

    /// What fits on a builder changes with the room on its disk.
    pub(super) fn free_disk(&mut self, now: Moment, session: SessionId, bytes: u64) -> Vec<Effect> {
        let Some(registered) = self.builders.get_mut(&session) else { return Vec::new() };
        let before = std::mem::replace(&mut registered.builder.resources.disk, bytes);
        match self.asks.oldest_of(session) {
            Some((_, slot)) if before < bytes => self.asked(now, session, slot),
            _ => Vec::new(),
        }
    }

    /// Something may be given out that could not be before.
    pub(super) fn serve_fresh(&mut self, now: Moment) -> Vec<Effect> {
        let fresh = self.queue.take_fresh();
        if !self.hands_out() {
            // All that wait are asked when that has changed: nobody needs to be for each SRPM of a long queue.
            return Vec::new();
        }
        match fresh.len() {
            0..=ONE_BY_ONE => fresh.iter().flat_map(|key| self.serve_until_given(now, key)).collect(),
            _ => self.serve_all(now),
        }
    }

    /// Whoever is asked may get another one that has become ready too.
    fn serve_until_given(&mut self, now: Moment, key: &BuildKey) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            let given = self.serve_new_work(now, key);
            if given.is_empty() {
                return effects;
            }
            effects.extend(given);
        }
    }

    /// New work has come: the slot that has waited longest gets it.
    pub(super) fn serve_new_work(&mut self, now: Moment, key: &BuildKey) -> Vec<Effect> {
        if !self.queue.is_ready(key) {
            return Vec::new();
        }
        let mut waiting = self.asks.sessions().into_values();
        let Some(session) = waiting.find(|session| self.may_build(*session, key)) else { return Vec::new() };
        self.asks.oldest_of(session).map(|(_, slot)| self.asked(now, session, slot)).unwrap_or_default()
    }

    /// Something has changed that may give work to any slot.
    pub(super) fn serve_all(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut waiting = self.asks.sessions();
        while self.queue.ready() > 0
            && let Some((_, session)) = waiting.pop_first()
            && let Some((_, slot)) = self.asks.oldest_of(session)
        {
            let given = self.asked(now, session, slot);
            // A session for which there is nothing now gets nothing for its other slots either.
            if !given.is_empty()
                && let Some((next, _)) = self.asks.oldest_of(session)
            {
                waiting.insert(next, session);
            }
            effects.extend(given);
        }
        effects
    }

    pub(super) fn asked(&mut self, now: Moment, session: SessionId, slot: u16) -> Vec<Effect> {
        let Some(registered) = self.builders.get(&session) else { return Vec::new() };
        let name = &registered.builder.id;
        let targets = self.usable_targets(registered);
        let fits = |target: &TargetName, key: &BuildKey| key.target.as_ref().is_none_or(|t| t == target);
        let has_enough = |demand: &Demand| registered.lacks(demand).is_empty();
        let chosen = self.queue.best(&targets, has_enough, |key| self.is_for(key, name)).and_then(|key| {
            let target = targets.iter().find(|target| fits(target, key))?;
            Some((key.clone(), (*target).clone(), name.clone()))
        });
        let chosen = chosen.and_then(|(key, target, name)| Some((self.queue.take(now, &key)?, target, name)));
        let Some((srpm, target, builder)) = chosen else {
            self.asks.add(session, slot);
            return self.back_up(now, session, slot);
        };
        let expected = self.expect(&srpm, None).time;
        self.queue.charge(srpm.key.target.as_ref(), expected);
        let mut lease = self.lease_out(now, srpm, target, session, slot, builder);
        lease.charged = expected;
        self.leases.insert(lease.attempt, lease.clone());
        vec![Effect::Lease(lease)]
    }

    /// An SRPM, which is in no queue, goes to a slot.
    pub(super) fn lease_out(
        &mut self,
        now: Moment,
        srpm: QueuedSrpm,
        target: TargetName,
        session: SessionId,
        slot: u16,
        builder: BuilderId,
    ) -> Lease {
        self.asks.remove(session, slot);
        self.serial += 1;
        let generation = self.queue.generation(srpm.key.target.as_ref());
        let late_at = self.late_at(now, &srpm, session);
        let lease = Lease {
            attempt: AttemptId { boot: self.boot, serial: self.serial },
            srpm,
            target,
            session: Some(session),
            builder,
            slot: Some(slot),
            since: Some(now),
            late_at,
            charged: std::time::Duration::ZERO,
            ended: None,
            generation,
            state: LeaseState::Running { claimed_by: None },
        };
        self.begin_lease(lease.clone());
        lease
    }

    /// What a builder may be given work for just now, the preferred one first.
    pub(super) fn usable_targets<'a>(&self, registered: &'a Registered) -> Vec<&'a TargetName> {
        if !self.hands_out() || !self.is_usable(registered) {
            return Vec::new();
        }
        let targets = registered.builder.targets.iter();
        targets.filter(|target| !registered.broken.contains(*target)).collect()
    }

    fn hands_out(&self) -> bool {
        self.ready && self.room && !self.paused
    }

    fn is_usable(&self, registered: &Registered) -> bool {
        let name = &registered.builder.id;
        !registered.draining && !self.drained.contains(name) && self.blame.suspended_until(name).is_none()
    }

    /// Whether a session may be given an SRPM now that lies in SOURCE.
    pub(super) fn may_build(&self, session: SessionId, key: &BuildKey) -> bool {
        self.builders.get(&session).is_some_and(|registered| {
            self.hands_out() && self.could_build(registered, key) && self.is_for(key, &registered.builder.id)
        })
    }

    /// Whether a builder could build an SRPM that lies in SOURCE, whoever has tried it before.
    pub(super) fn could_build(&self, registered: &Registered, key: &BuildKey) -> bool {
        let none = Demand::default();
        let demand = self.queue.demand_of(key).unwrap_or(&none);
        self.is_usable(registered) && registered.takes(key.target.as_ref(), demand)
    }

    /// Whether an SRPM that a builder could build is for it, and not for another.
    fn is_for(&self, key: &BuildKey, name: &BuilderId) -> bool {
        !self.reserved.contains_key(key) && !self.unread.contains_key(&key.target) && !self.leaves(key, name)
    }

    /// Whether a builder leaves an SRPM, which it has tried in vain, to another that has not.
    pub(super) fn leaves(&self, key: &BuildKey, name: &BuilderId) -> bool {
        self.blame.has_tried(key, name)
            && self.builders.values().any(|other| {
                let other_name = &other.builder.id;
                other_name != name && !self.blame.has_tried(key, other_name) && self.could_build(other, key)
            })
    }

    /// The SRPM was taken away at the last moment; the slot gets the next one.
    pub(super) fn lease_failed(&mut self, now: Moment, attempt: AttemptId) -> Vec<Effect> {
        let asker = self.leases.get(&attempt).and_then(|lease| Some((lease.session?, lease.slot?)));
        let mut effects = self.drop_lease(now, attempt);
        if let Some((session, slot)) = asker {
            effects.extend(self.asked(now, session, slot));
        }
        effects
    }
}

/// What makes up for what an attempt lacked, in words of which any can be read.
pub(super) fn requirements(missing: &[String]) -> Vec<Requirement> {
    missing.iter().filter_map(|text| text.parse().ok()).collect()
}
