//! The SRPMs that wait, in the order in which they are handed out.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use moji_proto::TargetName;

use crate::BuildKey;
use crate::source::{Priority, QueuedSrpm};

/// Where an SRPM stands in its queue; smaller is earlier.
///
/// The place for "ready before parked" and "longest expected first" is between the two that are
/// here; they need history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Line of priority.txt; those that it does not name come last.
    rank: u32,
    /// Oldest first.
    queued_at: Timestamp,
    /// Largest first among those of the same age: the best guess at the longest.
    size: Reverse<u64>,
    /// Makes places unique, and the order the same each time.
    key: BuildKey,
}

/// The queue of one target, or of SOURCE itself.
#[derive(Debug, Default)]
struct TargetQueue {
    priority: Priority,
    waiting: BTreeMap<Place, QueuedSrpm>,
}

impl TargetQueue {
    fn place(&self, srpm: &QueuedSrpm) -> Place {
        Place {
            rank: self.priority.rank(&srpm.key.srpm, &srpm.header).unwrap_or(u32::MAX),
            queued_at: srpm.queued_at,
            size: Reverse(srpm.size),
            key: srpm.key.clone(),
        }
    }
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// For any builder.
    any: TargetQueue,
    of_target: BTreeMap<TargetName, TargetQueue>,
    places: BTreeMap<BuildKey, Place>,
}

impl Queue {
    /// Adds an SRPM, in place of what had its name. It keeps the age of that: putting an SRPM back
    /// into SOURCE makes it look new, and it must not lose its place for that.
    pub(super) fn insert(&mut self, mut srpm: QueuedSrpm) {
        if let Some(before) = self.remove(&srpm.key) {
            srpm.queued_at = srpm.queued_at.min(before.queued_at);
        }
        self.put(srpm);
    }

    /// Takes an SRPM out.
    pub(super) fn remove(&mut self, key: &BuildKey) -> Option<QueuedSrpm> {
        let place = self.places.remove(key)?;
        self.queue_of(key.target.as_ref()).waiting.remove(&place)
    }

    /// What a builder of these targets should build next, of what it may be given.
    pub(super) fn best<'a>(
        &'a self,
        targets: &[&TargetName],
        mut may_have: impl FnMut(&BuildKey) -> bool,
    ) -> Option<&'a BuildKey> {
        // Who has none may have nothing, not even what is for any builder.
        targets.first()?;
        let mut first = |queue: &'a TargetQueue| queue.waiting.keys().find(|place| may_have(&place.key));
        let own = targets.iter().filter_map(|target| self.of_target.get(*target));
        let candidates = std::iter::once(&self.any).chain(own).filter_map(&mut first);
        candidates.min().map(|place| &place.key)
    }

    /// A priority.txt has changed: everything in that queue gets its new place.
    pub(super) fn set_priority(&mut self, target: Option<TargetName>, list: Priority) {
        let queue = self.queue_of(target.as_ref());
        queue.priority = list;
        let waiting = std::mem::take(&mut queue.waiting);
        for srpm in waiting.into_values() {
            self.put(srpm);
        }
    }

    fn put(&mut self, srpm: QueuedSrpm) {
        let queue = self.queue_of(srpm.key.target.as_ref());
        let place = queue.place(&srpm);
        queue.waiting.insert(place.clone(), srpm);
        self.places.insert(place.key.clone(), place);
    }

    fn queue_of(&mut self, target: Option<&TargetName>) -> &mut TargetQueue {
        match target {
            Some(target) => self.of_target.entry(target.clone()).or_default(),
            None => &mut self.any,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether an SRPM waits.
    pub(super) fn contains(&self, key: &BuildKey) -> bool {
        self.places.contains_key(key)
    }
}
