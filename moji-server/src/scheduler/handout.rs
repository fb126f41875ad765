//! Which slot gets which SRPM.

use std::collections::BTreeSet;

use moji_proto::{AttemptId, TargetName};

use super::{Builder, Effect, Lease, LeaseState, Moment, Registered, Scheduler, SessionId};
use crate::source::QueuedSrpm;
use crate::{BuildKey, BuilderId};

impl Scheduler {
    pub(super) fn found(&mut self, srpm: QueuedSrpm) -> Vec<Effect> {
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
        self.queue.insert(srpm);
        self.serve_new_work(&key)
    }

    pub(super) fn gone(&mut self, key: &BuildKey) -> Vec<Effect> {
        self.again.remove(key);
        if self.queue.remove(key).is_none() {
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

    pub(super) fn draining(&mut self, session: SessionId) -> Vec<Effect> {
        self.asks.remove_all(session);
        match self.builders.get_mut(&session) {
            Some(registered) if !registered.draining => registered.draining = true,
            // It changes nothing to say it again.
            _ => return Vec::new(),
        }
        // What was left for this builder is now for those that have tried it already.
        self.serve_all()
    }

    /// New work has come: the slot that has waited longest gets it.
    pub(super) fn serve_new_work(&mut self, key: &BuildKey) -> Vec<Effect> {
        let mut waiting = self.asks.sessions().into_values();
        let Some(session) = waiting.find(|session| self.may_build(*session, key)) else { return Vec::new() };
        self.asks.oldest_of(session).map(|(_, slot)| self.asked(session, slot)).unwrap_or_default()
    }

    /// Something has changed that may give work to any slot.
    pub(super) fn serve_all(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.queue.len() == 0 {
            return effects;
        }
        let mut waiting = self.asks.sessions();
        while let Some((_, session)) = waiting.pop_first()
            && let Some((_, slot)) = self.asks.oldest_of(session)
        {
            let given = self.asked(session, slot);
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

    pub(super) fn asked(&mut self, session: SessionId, slot: u16) -> Vec<Effect> {
        let Some(registered) = self.builders.get(&session) else { return Vec::new() };
        let name = &registered.builder.id;
        let targets = self.usable_targets(registered);
        let fits = |target: &TargetName, key: &BuildKey| key.target.as_ref().is_none_or(|t| t == target);
        let chosen = self.queue.best(&targets, |key| self.is_for(key, name)).and_then(|key| {
            let target = targets.iter().find(|target| fits(target, key))?;
            Some((key.clone(), (*target).clone(), name.clone()))
        });
        let chosen = chosen.and_then(|(key, target, name)| Some((self.queue.remove(&key)?, target, name)));
        let Some((srpm, target, name)) = chosen else {
            self.asks.add(session, slot);
            return Vec::new();
        };
        self.asks.remove(session, slot);
        self.serial += 1;
        let lease = Lease {
            attempt: AttemptId { boot: self.boot, serial: self.serial },
            srpm,
            target,
            session: Some(session),
            builder: name,
            slot: Some(slot),
            state: LeaseState::Running { claimed_by: None },
        };
        self.begin_lease(lease.clone());
        vec![Effect::Lease(lease)]
    }

    /// What a builder may be given work for just now, the preferred one first.
    fn usable_targets<'a>(&self, registered: &'a Registered) -> Vec<&'a TargetName> {
        if !self.ready || !self.room || !self.is_usable(registered) {
            return Vec::new();
        }
        let targets = registered.builder.targets.iter();
        targets.filter(|target| !registered.broken.contains(*target)).collect()
    }

    fn is_usable(&self, registered: &Registered) -> bool {
        !registered.draining && self.blame.suspended_until(&registered.builder.id).is_none()
    }

    /// Whether a session may be given an SRPM now.
    pub(super) fn may_build(&self, session: SessionId, key: &BuildKey) -> bool {
        self.builders.get(&session).is_some_and(|registered| {
            self.ready
                && self.room
                && self.could_build(registered, key)
                && self.is_for(key, &registered.builder.id)
        })
    }

    /// Whether a builder could build an SRPM, whoever has tried it before.
    fn could_build(&self, registered: &Registered, key: &BuildKey) -> bool {
        let fits = |target: &TargetName| key.target.as_ref().is_none_or(|wanted| wanted == target);
        let mut targets = registered.builder.targets.iter();
        self.is_usable(registered)
            && targets.any(|target| fits(target) && !registered.broken.contains(target))
    }

    /// Whether an SRPM that a builder could build is for it, and not for another.
    fn is_for(&self, key: &BuildKey, name: &BuilderId) -> bool {
        !self.reserved.contains_key(key) && !self.leaves(key, name)
    }

    /// Whether a builder leaves an SRPM, which it has tried in vain, to another that has not.
    fn leaves(&self, key: &BuildKey, name: &BuilderId) -> bool {
        self.blame.has_tried(key, name)
            && self.builders.values().any(|other| {
                let other_name = &other.builder.id;
                other_name != name && !self.blame.has_tried(key, other_name) && self.could_build(other, key)
            })
    }

    /// The SRPM was taken away at the last moment; the slot gets the next one.
    pub(super) fn lease_failed(&mut self, attempt: AttemptId) -> Vec<Effect> {
        let asker = self.leases.get(&attempt).and_then(|lease| Some((lease.session?, lease.slot?)));
        let mut effects = self.drop_lease(attempt);
        if let Some((session, slot)) = asker {
            effects.extend(self.asked(session, slot));
        }
        effects
    }
}
