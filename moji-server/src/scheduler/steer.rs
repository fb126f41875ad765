//! What people want: nothing handed out, a builder left alone, an SRPM tried now or stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::TargetName;

use super::{Builder, Effect, Ending, HoldCause, Lease, Moment, Scheduler, SessionId};
use crate::source::QueuedSrpm;
use crate::{BuildKey, BuilderId};

/// A builder that is connected, for those who look.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its connection.
    pub session: SessionId,
    /// What it said of itself.
    pub builder: &'a Builder,
    /// It takes no more work.
    pub is_draining: bool,
    /// Targets whose configuration does not work there.
    pub broken: &'a BTreeSet<TargetName>,
    /// How long it gets no more work: too much went wrong on it.
    pub suspended: Option<Duration>,
}

impl Scheduler {
    pub(super) fn set_drained(&mut self, now: Moment, builder: BuilderId, drained: bool) -> Vec<Effect> {
        match drained {
            true => _ = self.drained.insert(builder),
            false => _ = self.drained.remove(&builder),
        }
        // Its slots may get work again; what was left for it is now for those that have tried it already.
        self.serve_all(now)
    }

    pub(super) fn pardoned(&mut self, now: Moment, builder: &BuilderId) -> Vec<Effect> {
        self.blame.did_well(builder);
        for on in self.builders.values_mut().filter(|on| on.builder.id == *builder) {
            on.broken.clear();
        }
        self.serve_all(now)
    }

    pub(super) fn try_now(&mut self, now: Moment, key: &BuildKey) -> Vec<Effect> {
        let Some(srpm) = self.queue.srpm(key).cloned() else { return Vec::new() };
        let mut effects = self.gone(now, key);
        effects.extend(self.found(now, srpm));
        effects
    }

    pub(super) fn stop(
        &mut self,
        now: Moment,
        key: &BuildKey,
        reason: &str,
        cause: HoldCause,
    ) -> Vec<Effect> {
        let holders: Vec<Lease> = self.holders(key).cloned().collect();
        if holders.iter().any(Lease::is_committing) {
            return Vec::new();
        }
        // The first has the longest log; a second start has just begun.
        let Some(first) = holders.first().cloned() else { return Vec::new() };
        // Logs of those that were lost may be all that is left: they go when it is held.
        self.blame.forgive(key);
        let mut effects = Vec::new();
        for lease in holders {
            let attempt = lease.attempt;
            effects.extend(lease.session.map(|session| Effect::Cancel { session, attempt }));
            effects.push(Effect::Ended { lease, ending: Ending::Cancelled });
            effects.extend(self.drop_lease(now, attempt));
        }
        effects.push(Effect::Hold { lease: first, reason: reason.to_owned(), cause });
        effects
    }

    /// The builders that are connected.
    pub fn builders(&self, now: Moment) -> impl Iterator<Item = Seen<'_>> {
        self.builders.iter().map(move |(session, on)| Seen {
            session: *session,
            builder: &on.builder,
            is_draining: on.draining,
            broken: &on.broken,
            suspended: self.blame.suspended_until(&on.builder.id).map(|until| until.saturating_sub(now)),
        })
    }

    /// The targets of what lies in SOURCE or lay there, SOURCE itself first.
    pub fn targets(&self) -> impl Iterator<Item = Option<&TargetName>> {
        self.queue.targets()
    }

    /// How much lies in SOURCE for a target: what may be given out, what is parked, and all.
    pub fn counts(&self, target: Option<&TargetName>) -> (usize, usize, usize) {
        self.queue.counts(target)
    }

    /// Since when the oldest SRPM waits that may be given out.
    pub fn oldest_ready(&self) -> Option<Timestamp> {
        self.queue.oldest_ready()
    }

    /// What lies in SOURCE for a target, in the order of hand-out, with its place; `most` that may be given out at most, and as many that wait.
    pub fn in_order(
        &self,
        target: Option<&TargetName>,
        most: usize,
    ) -> impl Iterator<Item = (Option<u64>, &QueuedSrpm)> {
        self.queue.in_order(target, most)
    }

    /// An SRPM that lies in SOURCE.
    pub fn queued_srpm(&self, key: &BuildKey) -> Option<&QueuedSrpm> {
        self.queue.srpm(key)
    }

    /// The place of an SRPM in the queue of its target, from 1; none while it waits or is parked.
    pub fn place_of(&self, key: &BuildKey) -> Option<u64> {
        self.queue.place_of(key)
    }

    /// Whether the last attempt at an SRPM that lies in SOURCE missed something.
    pub fn is_parked(&self, key: &BuildKey) -> bool {
        self.queue.is_parked(key)
    }

    /// Which generation of a target's repository builds find that begin now.
    pub fn generation(&self, target: Option<&TargetName>) -> u64 {
        self.queue.generation(target)
    }

    /// How long a build of an SRPM takes, when the history knows.
    pub fn expected(&self, srpm: &QueuedSrpm) -> Option<Duration> {
        use crate::estimates::Basis;
        let expected = self.expect(srpm, None);
        matches!(expected.basis, Basis::History | Basis::OtherClass).then_some(expected.time)
    }
}
