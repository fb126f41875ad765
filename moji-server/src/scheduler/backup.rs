//! Stragglers: a build that takes much longer than expected is begun a second time, on a builder that has nothing
//! else to do. The first good result wins.

use std::time::Duration;

use super::{Effect, Lease, Moment, Scheduler, SessionId};
use crate::estimates::Basis;
use crate::source::QueuedSrpm;

/// No build is late before it takes so much longer than expected: a second start costs more than that.
const SHORT: Duration = Duration::from_secs(10);
/// How soon it is looked again whether a late build can be begun a second time.
const AGAIN: Duration = Duration::from_secs(10);

impl Scheduler {
    /// A slot for which there is no work may get what another builder is late with.
    pub(super) fn back_up(&mut self, now: Moment, session: SessionId, slot: u16) -> Vec<Effect> {
        let Some(late) = self.late_for(now, session) else { return Vec::new() };
        let (srpm, target) = (late.srpm.clone(), late.target.clone());
        let Some(registered) = self.builders.get(&session) else { return Vec::new() };
        let builder = registered.builder.id.clone();
        // Once for each build, whatever comes of it.
        self.backed_up.insert(srpm.key.clone());
        vec![Effect::Backup(self.lease_out(now, srpm, target, session, slot, builder))]
    }

    /// Time has made builds late: for each of the slots that wait.
    pub(super) fn begin_backups(&mut self, now: Moment) -> Vec<Effect> {
        if self.next_backup().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.backups_looked_at = Some(now);
        let mut effects = Vec::new();
        for session in self.asks.sessions().into_values() {
            if let Some((_, slot)) = self.asks.oldest_of(session) {
                effects.extend(self.back_up(now, session, slot));
            }
            if !self.may_be_late().any(|(at, _)| at <= now) {
                break;
            }
        }
        effects
    }

    /// When a build will be late. When nobody could begin it a second time, it is looked at again after a while.
    pub(super) fn next_backup(&self) -> Option<Moment> {
        if self.asks.len() == 0 || self.rules.backup_after == 0 {
            return None;
        }
        let earliest = self.backups_looked_at.map_or(Moment::ZERO, |at| at + AGAIN);
        self.may_be_late().map(|(at, _)| at.max(earliest)).min()
    }

    /// The builds that one builder works on, and when they are late.
    fn may_be_late(&self) -> impl Iterator<Item = (Moment, &Lease)> {
        let times = self.leases.values().filter_map(|lease| Some((lease.late_at?, lease)));
        times.filter(|(_, lease)| {
            let key = &lease.srpm.key;
            lease.is_running() && !self.backed_up.contains(key) && self.holders(key).nth(1).is_none()
        })
    }

    /// The build that is latest of those that a session could begin a second time.
    fn late_for(&self, now: Moment, session: SessionId) -> Option<&Lease> {
        let late = self.may_be_late().filter(|(at, _)| *at <= now);
        let late = late.filter(|(_, lease)| self.could_back_up(session, lease));
        late.min_by_key(|(at, lease)| (*at, lease.attempt)).map(|(_, lease)| lease)
    }

    fn could_back_up(&self, session: SessionId, lease: &Lease) -> bool {
        let Some(registered) = self.builders.get(&session) else { return false };
        let (key, name) = (&lease.srpm.key, &registered.builder.id);
        *name != lease.builder
            && self.usable_targets(registered).contains(&&lease.target)
            && registered.lacks(&self.queue.demand(&lease.srpm)).is_empty()
            && !self.blame.has_tried(key, name)
            && !self.again.contains_key(key)
            // Somebody may have it already who has lost his connection.
            && !self.reserved.contains_key(key)
    }

    /// When a build that begins now on a builder is late; never, when nobody knows how long it takes.
    pub(super) fn late_at(&self, now: Moment, srpm: &QueuedSrpm, session: SessionId) -> Option<Moment> {
        if self.rules.backup_after == 0 {
            return None;
        }
        let expected = self.expect(srpm, self.class_of(session).as_ref());
        let is_known = matches!(expected.basis, Basis::History | Basis::OtherClass);
        let late = (expected.time * self.rules.backup_after).max(expected.time + SHORT);
        is_known.then(|| now + late)
    }
}
