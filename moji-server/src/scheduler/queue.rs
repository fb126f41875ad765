//! The SRPMs in SOURCE: which may be given out, in which order, and from which target next.
//!
//! Each target has a queue of its own, and so has SOURCE itself. In one queue: `priority.txt`, then the longest
//! chain of builds that wait for each other, then the longest build (when nothing is known, the largest SRPM), then
//! the oldest. Between queues: whichever was
//! served least for its weight, so that a long queue of one target does not starve another one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::{Nvr, TargetName};

use super::Moment;
use super::plan::{Change, Cycle, Plan, Wait, Woken};
use crate::BuildKey;
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, Requirement};

use crate::source::{Demand, Priority, QueuedSrpm, Requires};

/// What any hand-out costs its target at least, so that none is free.
const LEAST_COST: Duration = Duration::from_secs(1);

/// Where an SRPM stands in its queue; smaller is earlier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Line of priority.txt, of this SRPM or of one that waits for it; those that it does not name come last.
    rank: u32,
    /// The longest chain of builds that begins with this one comes first.
    path: Reverse<Duration>,
    /// Of those, the longest build.
    expected: Reverse<Duration>,
    /// When nothing is known, the largest.
    size: Reverse<u64>,
    /// The oldest of those.
    queued_at: Timestamp,
    /// Makes places unique, and the order the same each time.
    key: BuildKey,
}

/// An SRPM in SOURCE.
#[derive(Debug)]
struct Entry {
    srpm: QueuedSrpm,
    expected: Duration,
    demand: Demand,
    /// None while it waits for others, or is parked.
    place: Option<Place>,
}

/// The queue of one target, or of SOURCE itself.
#[derive(Debug, Default)]
struct TargetQueue {
    priority: Priority,
    requires: Requires,
    plan: Plan,
    entries: BTreeMap<BuildKey, Entry>,
    /// Those that may be given out, by what they ask of a builder: few differ in that.
    ready: BTreeMap<Demand, BTreeSet<Place>>,
    /// Share of the builders; 0 counts as 1.
    weight: u32,
    /// Expected time of what was given out, divided by the weight.
    served: Duration,
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// `None`: SOURCE itself, for any builder.
    targets: BTreeMap<Option<TargetName>, TargetQueue>,
    /// How many lie in SOURCE.
    count: usize,
    ready: usize,
    /// The start is not over: nothing has a place yet.
    gathers: bool,
    /// How far the queue that was served last had been served: whoever comes back begins there.
    clock: Duration,
    /// What has become ready since this was asked last.
    fresh: Vec<BuildKey>,
}

impl Queue {
    /// Of a start: what comes gets its place when all is known ([`Self::begin`]).
    pub(super) fn gathering() -> Self {
        Self { gathers: true, ..Self::default() }
    }

    /// All that lay in SOURCE at the start is known, and gets its place.
    pub(super) fn begin(&mut self, now: Moment) {
        self.gathers = false;
        let targets: Vec<_> = self.targets.keys().cloned().collect();
        for target in targets {
            let queue = self.target(target.as_ref());
            let ranks = queue.entries.iter().map(|(key, entry)| (key, rank(&queue.priority, &entry.srpm)));
            queue.plan.begin(now, ranks);
            self.follow(target.as_ref());
        }
    }

    /// How often each target is served; others once.
    pub(super) fn set_weights(&mut self, weights: &BTreeMap<Option<TargetName>, u32>) {
        for (target, weight) in weights {
            self.target(target.as_ref()).weight = *weight;
        }
    }

    /// Adds an SRPM, in place of what had its name. It keeps the age of that: putting an SRPM back into
    /// SOURCE makes it look new, and it must not lose its place for that. One that is parked stays so, unless
    /// it is another one.
    pub(super) fn insert(&mut self, now: Moment, mut srpm: QueuedSrpm, expected: Duration) {
        let queue = self.target(srpm.key.target.as_ref());
        if let Some(before) = queue.entries.get(&srpm.key) {
            srpm.queued_at = srpm.queued_at.min(before.srpm.queued_at);
        }
        queue.plan.enter(now, &srpm, expected);
        self.put(srpm, expected);
    }

    /// A builder has tried it in vain for lack of `missing`. Whether it is parked; otherwise something has come
    /// meanwhile, and it is queued.
    pub(super) fn park(
        &mut self,
        now: Moment,
        srpm: QueuedSrpm,
        expected: Duration,
        missing: &[Requirement],
        generation: u64,
    ) -> bool {
        let queue = self.target(srpm.key.target.as_ref());
        let parked = queue.plan.park(now, &srpm, expected, missing, generation);
        self.put(srpm, expected);
        parked
    }

    fn put(&mut self, srpm: QueuedSrpm, expected: Duration) {
        let key = srpm.key.clone();
        let queue = self.target(key.target.as_ref());
        let demand = queue.requires.demand(&key.srpm, &srpm.header);
        let was_ready = queue.unready(&key);
        queue.plan.set_rank(&key, rank(&queue.priority, &srpm));
        let before = queue.entries.insert(key.clone(), Entry { srpm, expected, demand, place: None });
        queue.plan.touch(&key);
        self.ready -= usize::from(was_ready);
        self.count += usize::from(before.is_none());
        self.follow(key.target.as_ref());
    }

    /// Takes an SRPM out to give it to a builder.
    pub(super) fn take(&mut self, now: Moment, key: &BuildKey) -> Option<QueuedSrpm> {
        let Entry { srpm, expected, .. } = self.pull(key)?;
        self.run(now, &srpm, expected);
        Some(srpm)
    }

    /// Its target has had its turn.
    pub(super) fn charge(&mut self, target: Option<&TargetName>, expected: Duration) {
        let Some(queue) = self.targets.get_mut(&target.cloned()) else { return };
        self.clock = self.clock.max(queue.served);
        queue.served += expected.max(LEAST_COST) / queue.weight.max(1);
    }

    /// A turn was charged for what it was expected to take, and took this.
    pub(super) fn settle_charge(&mut self, target: Option<&TargetName>, expected: Duration, took: Duration) {
        let Some(queue) = self.targets.get_mut(&target.cloned()) else { return };
        let weight = queue.weight.max(1);
        queue.served += took.max(LEAST_COST) / weight;
        queue.served = queue.served.saturating_sub(expected.max(LEAST_COST) / weight);
    }

    /// An SRPM is with a builder.
    pub(super) fn run(&mut self, now: Moment, srpm: &QueuedSrpm, expected: Duration) {
        self.target(srpm.key.target.as_ref()).plan.run(now, srpm, expected);
        self.follow(srpm.key.target.as_ref());
    }

    /// Takes an SRPM out that is no longer in SOURCE.
    pub(super) fn remove(&mut self, now: Moment, key: &BuildKey) -> Option<QueuedSrpm> {
        let entry = self.pull(key)?;
        self.leave(now, key);
        Some(entry.srpm)
    }

    /// An SRPM is settled, or gone.
    fn leave(&mut self, now: Moment, key: &BuildKey) {
        self.target(key.target.as_ref()).plan.leave(now, key);
        self.follow(key.target.as_ref());
    }

    /// Nobody has an SRPM any more that was with builders. Unless it is published or back in SOURCE, it is settled.
    pub(super) fn settled(&mut self, now: Moment, key: &BuildKey) {
        if self.targets.get(&key.target).is_some_and(|queue| queue.plan.is_running(key)) {
            self.leave(now, key);
        }
    }

    /// One is published in `folder`, after a build that took so long.
    pub(super) fn publish(&mut self, now: Moment, key: &BuildKey, folder: Nvr, took: Duration) {
        self.target(key.target.as_ref()).plan.publish(now, key, folder, took);
        self.follow(key.target.as_ref());
    }

    /// Another generation of a repository is served. Gives what was parked and is queued again.
    pub(super) fn contents(
        &mut self,
        now: Moment,
        target: Option<&TargetName>,
        change: RepositoryChange,
    ) -> Vec<Woken> {
        let woken = self.target(target).plan.contents(now, change);
        self.follow(target);
        woken
    }

    /// Whether all of this was in a generation of a repository.
    pub(super) fn had(&self, target: Option<&TargetName>, missing: &[Requirement], generation: u64) -> bool {
        self.targets.get(&target.cloned()).is_some_and(|queue| queue.plan.had(missing, generation))
    }

    /// What a package's last good build provided.
    pub(super) fn learn(&mut self, target: Option<&TargetName>, package: &str, provides: Vec<Capability>) {
        self.target(target).plan.learn(package, provides);
    }

    /// What builds for a target that begin now find.
    pub(super) fn generation(&self, target: Option<&TargetName>) -> u64 {
        self.targets.get(&target.cloned()).map_or(0, |queue| queue.plan.generation())
    }

    /// What a builder of these targets should build next, of what it may be given. Of targets that had the
    /// same share the preferred one, SOURCE itself first.
    pub(super) fn best(
        &self,
        targets: &[&TargetName],
        fits: impl Fn(&Demand) -> bool,
        may_have: impl Fn(&BuildKey) -> bool,
    ) -> Option<&BuildKey> {
        // Who has none may have nothing, not even what is for any builder.
        targets.first()?;
        let names = std::iter::once(None).chain(targets.iter().map(|target| Some((*target).clone())));
        let queues = names.filter_map(|name| self.targets.get(&name));
        let firsts = queues.filter_map(|queue| Some((queue.served, queue.first(&fits, &may_have)?)));
        // The first one of those that are equal.
        firsts.min_by_key(|(served, _)| *served).map(|(_, place)| &place.key)
    }

    /// A priority.txt has changed: what has another line now gets its new place, and so does what that waits for.
    pub(super) fn set_priority(&mut self, target: Option<TargetName>, list: Priority) {
        let queue = self.target(target.as_ref());
        queue.priority = list;
        let ranks = queue.entries.iter().map(|(key, entry)| (key, rank(&queue.priority, &entry.srpm)));
        queue.plan.set_ranks(ranks);
        self.follow(target.as_ref());
    }

    /// A requires.txt has changed: everything in that queue gets its new place.
    pub(super) fn set_requires(&mut self, target: Option<TargetName>, list: Requires) {
        let queue = self.target(target.as_ref());
        queue.requires = list;
        queue.ready.clear();
        for (key, entry) in &mut queue.entries {
            entry.demand = queue.requires.demand(&key.srpm, &entry.srpm.header);
            let Some(place) = &entry.place else { continue };
            queue.ready.entry(entry.demand.clone()).or_default().insert(place.clone());
        }
        // Builders may fit now that did not before.
        let ready = queue.ready.values().flatten().map(|place| place.key.clone());
        let ready: Vec<_> = ready.collect();
        self.fresh.extend(ready);
        self.follow(target.as_ref());
    }

    /// Does what is due in the plans.
    pub(super) fn on_time(&mut self, now: Moment) {
        let due = |(_, queue): &(&_, &TargetQueue)| queue.plan.next_deadline().is_some_and(|at| at <= now);
        let due: Vec<_> = self.targets.iter().filter(due).map(|(target, _)| target.clone()).collect();
        for target in due {
            self.target(target.as_ref()).plan.on_time(now);
            self.follow(target.as_ref());
        }
    }

    /// When [`Self::on_time`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.targets.values().filter_map(|queue| queue.plan.next_deadline()).min()
    }

    /// What has become ready since this was asked last.
    pub(super) fn take_fresh(&mut self) -> Vec<BuildKey> {
        std::mem::take(&mut self.fresh)
    }

    /// What an SRPM asks of a builder.
    pub(super) fn demand(&self, srpm: &QueuedSrpm) -> Demand {
        let queue = self.targets.get(&srpm.key.target);
        queue.map(|queue| queue.requires.demand(&srpm.key.srpm, &srpm.header)).unwrap_or_default()
    }

    /// The same for one that lies in SOURCE.
    pub(super) fn demand_of(&self, key: &BuildKey) -> Option<&Demand> {
        Some(&self.targets.get(&key.target)?.entries.get(key)?.demand)
    }

    /// An SRPM that lies in SOURCE.
    pub(super) fn srpm(&self, key: &BuildKey) -> Option<&QueuedSrpm> {
        Some(&self.targets.get(&key.target)?.entries.get(key)?.srpm)
    }

    /// How many lie in SOURCE.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many of them may be given out.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Whether an SRPM lies in SOURCE.
    pub(super) fn contains(&self, key: &BuildKey) -> bool {
        self.targets.get(&key.target).is_some_and(|queue| queue.entries.contains_key(key))
    }

    /// Whether it may be given out.
    pub(super) fn is_ready(&self, key: &BuildKey) -> bool {
        let entry = self.targets.get(&key.target).and_then(|queue| queue.entries.get(key));
        entry.is_some_and(|entry| entry.place.is_some())
    }

    /// All that lies in SOURCE, with how long it is expected to take.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&QueuedSrpm, Duration)> {
        let entries = self.targets.values().flat_map(|queue| queue.entries.values());
        entries.map(|entry| (&entry.srpm, entry.expected))
    }

    /// The kinds of what may be given out: a target, and what is asked of a builder. Few differ in that.
    pub(super) fn classes(&self) -> impl Iterator<Item = (Option<&TargetName>, &Demand)> {
        self.targets
            .iter()
            .flat_map(|(target, queue)| queue.ready.keys().map(move |demand| (target.as_ref(), demand)))
    }

    /// Which of these may be given out, and nobody takes them.
    pub(super) fn set_untakeable(&mut self, now: Moment, keys: &BTreeSet<BuildKey>) {
        let targets: Vec<_> = self.targets.keys().cloned().collect();
        for target in targets {
            self.target(target.as_ref()).plan.set_untakeable(now, keys);
            self.follow(target.as_ref());
        }
    }

    /// What is of one kind.
    pub(super) fn in_class(&self, target: Option<&TargetName>, demand: &Demand) -> Vec<BuildKey> {
        let places = self.targets.get(&target.cloned()).and_then(|queue| queue.ready.get(demand));
        places.into_iter().flatten().map(|place| place.key.clone()).collect()
    }

    /// How many lie in SOURCE whose attempt missed something.
    pub(super) fn parked(&self) -> usize {
        self.targets.values().map(|queue| queue.plan.parked()).sum()
    }

    /// Whether the last attempt at an SRPM that lies in SOURCE missed something.
    pub(super) fn is_parked(&self, key: &BuildKey) -> bool {
        self.targets.get(&key.target).is_some_and(|queue| queue.plan.is_parked(key))
    }

    /// The targets, SOURCE itself first.
    pub(super) fn targets(&self) -> impl Iterator<Item = Option<&TargetName>> {
        self.targets.keys().map(Option::as_ref)
    }

    /// How much lies in SOURCE for one target: what may be given out, what is parked, and all.
    pub(super) fn counts(&self, target: Option<&TargetName>) -> (usize, usize, usize) {
        let Some(queue) = self.targets.get(&target.cloned()) else { return (0, 0, 0) };
        let ready = queue.ready.values().map(BTreeSet::len).sum();
        (ready, queue.plan.parked(), queue.entries.len())
    }

    /// Since when the oldest waits that may be given out.
    pub(super) fn oldest_ready(&self) -> Option<Timestamp> {
        let ready = self.targets.values().flat_map(|queue| queue.ready.values().flatten());
        ready.map(|place| place.queued_at).min()
    }

    /// What lies in SOURCE for one target, in the order of hand-out: first what may be given out, with its place, then
    /// the rest; `most` of each at most.
    pub(super) fn in_order(
        &self,
        target: Option<&TargetName>,
        most: usize,
    ) -> impl Iterator<Item = (Option<u64>, &QueuedSrpm)> {
        let queue = self.targets.get(&target.cloned());
        // Few kinds of demands, each in order: the first of all are among the first of each.
        let kinds = queue.iter().flat_map(|queue| queue.ready.values());
        let mut places: Vec<&Place> = kinds.flat_map(|places| places.iter().take(most)).collect();
        places.sort_unstable();
        places.truncate(most);
        let ready = places.into_iter().zip(1..).filter_map(move |(place, number)| {
            let entry = queue?.entries.get(&place.key)?;
            Some((Some(number), &entry.srpm))
        });
        let entries = queue.into_iter().flat_map(|queue| queue.entries.values());
        let others = entries.filter(|entry| entry.place.is_none()).take(most);
        ready.chain(others.map(|entry| (None, &entry.srpm)))
    }

    /// The place of an SRPM in the queue of its target, from 1; none while it waits or is parked.
    pub(super) fn place_of(&self, key: &BuildKey) -> Option<u64> {
        let queue = self.targets.get(&key.target)?;
        let own = queue.entries.get(key)?.place.as_ref()?;
        let before = queue.ready.values().map(|places| places.range(..own).count());
        Some(before.sum::<usize>() as u64 + 1)
    }

    /// What an SRPM waits for.
    pub(super) fn wait_of(&self, key: &BuildKey) -> Option<Wait> {
        self.targets.get(&key.target)?.plan.wait_of(key)
    }

    /// The builds that need each other, and do not move for that.
    pub(super) fn cycles(&self) -> Vec<Cycle> {
        self.targets.values().flat_map(|queue| queue.plan.cycles()).collect()
    }

    /// Whether something will happen without any builder.
    pub(super) fn moves(&self) -> bool {
        self.targets.values().any(|queue| queue.plan.moves())
    }

    /// The longest chain of builds that wait for each other.
    pub(super) fn longest_path(&self) -> Duration {
        self.targets.values().map(|queue| queue.plan.longest_path()).max().unwrap_or_default()
    }

    /// The longest chain of builds that needed each other, since this was forgotten last.
    pub(super) fn longest_chain(&self) -> Duration {
        self.targets.values().map(|queue| queue.plan.longest_chain()).max().unwrap_or_default()
    }

    /// Forgets how long chains of builds took.
    pub(super) fn forget_chains(&mut self) {
        self.targets.values_mut().for_each(|queue| queue.plan.forget_chains());
    }

    fn target(&mut self, target: Option<&TargetName>) -> &mut TargetQueue {
        let gathers = self.gathers;
        self.targets.entry(target.cloned()).or_insert_with(|| TargetQueue {
            plan: if gathers { Plan::gathering() } else { Plan::default() },
            ..TargetQueue::default()
        })
    }

    fn pull(&mut self, key: &BuildKey) -> Option<Entry> {
        let queue = self.targets.get_mut(&key.target)?;
        self.ready -= usize::from(queue.unready(key));
        let entry = queue.entries.remove(key)?;
        self.count -= 1;
        Some(entry)
    }

    /// Takes over what has changed in a plan.
    fn follow(&mut self, target: Option<&TargetName>) {
        let Some(queue) = self.targets.get_mut(&target.cloned()) else { return };
        for change in queue.plan.take_changes() {
            let had_ready = !queue.ready.is_empty();
            let was_ready = queue.unready(&change.key);
            self.ready -= usize::from(was_ready);
            if queue.place(&change) {
                self.ready += 1;
                if !was_ready {
                    self.fresh.push(change.key);
                }
                if !had_ready {
                    // It has no claim to what it did not want before.
                    queue.served = queue.served.max(self.clock);
                }
            }
        }
    }
}

impl TargetQueue {
    fn first(
        &self,
        fits: &impl Fn(&Demand) -> bool,
        may_have: &impl Fn(&BuildKey) -> bool,
    ) -> Option<&Place> {
        let classes = self.ready.iter().filter(|(demand, _)| fits(demand));
        classes.filter_map(|(_, places)| places.iter().find(|place| may_have(&place.key))).min()
    }

    /// Gives an SRPM its place, and says whether it has one: not when it waits, or is not in SOURCE.
    fn place(&mut self, Change { key, path, urgency }: &Change) -> bool {
        let Some(path) = *path else { return false };
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let place = Place {
            rank: *urgency,
            path: Reverse(path),
            expected: Reverse(entry.expected),
            size: Reverse(entry.srpm.size),
            queued_at: entry.srpm.queued_at,
            key: key.clone(),
        };
        entry.place = Some(place.clone());
        self.ready.entry(entry.demand.clone()).or_default().insert(place)
    }

    /// Takes its place from it; gives whether it had one.
    fn unready(&mut self, key: &BuildKey) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Some(place) = entry.place.take() else { return false };
        if let Some(places) = self.ready.get_mut(&entry.demand) {
            places.remove(&place);
            if places.is_empty() {
                self.ready.remove(&entry.demand);
            }
        }
        true
    }
}

fn rank(priority: &Priority, srpm: &QueuedSrpm) -> u32 {
    if priority.is_empty() {
        return u32::MAX;
    }
    priority.rank(&srpm.key.srpm, &srpm.header).unwrap_or(u32::MAX)
}
