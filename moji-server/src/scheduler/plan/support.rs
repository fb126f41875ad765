//! Which builds will move by themselves, and so are worth waiting for.
//!
//! What is ready, is built, or is on its way into a generation moves. What needs something that such a one
//! brings will move after it, and so on: each of these has a level, one more than that of a build that it waits
//! for. A build that has lost what it waits for looks for another one of a lower level; so two that need each
//! other never keep each other alive.

use std::collections::BTreeSet;

use super::{Need, Node, NodeId, Plan, Readiness, Standing};
use crate::dependency::Requirement;
use crate::scheduler::Moment;

/// What there is for a build to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    /// Nothing: no unsettled build is known to bring what it needs.
    None,
    /// Only builds that do not move.
    Dead,
    /// Something that moves; the lowest level of that.
    Live(u32),
}

impl Plan {
    /// The unsettled builds, other than `id`, that are known to bring what it needs.
    pub(super) fn providers<'a>(
        &'a self,
        id: NodeId,
        need: &'a Need,
    ) -> impl Iterator<Item = (NodeId, &'a Node)> {
        let offering = need.requirement.names().flat_map(|name| self.offered_by.get(name));
        let mut offering: Vec<_> = offering.copied().filter(|provider| *provider != id).collect();
        // Of one name they are so already.
        offering.sort_unstable();
        offering.dedup();
        let nodes = offering.into_iter().filter_map(|provider| Some((provider, self.nodes.get(&provider)?)));
        nodes.filter(|(_, node)| need.requirement.helped_by(&node.brings, &[]))
    }

    /// The same for all that it needs and does not have; for a parked one, all that it was shown to need.
    pub(super) fn all_providers(&self, id: NodeId) -> BTreeSet<NodeId> {
        let Some(node) = self.nodes.get(&id) else { return BTreeSet::new() };
        let is_parked = matches!(node.standing, Standing::Parked { .. });
        let unmet = node.needs.iter().filter(|need| !need.met && (need.missing || !is_parked));
        unmet.flat_map(|need| self.providers(id, need).map(|(provider, _)| provider)).collect()
    }

    /// The unsettled builds that need what this one brings.
    pub(super) fn dependents(&self, id: NodeId) -> Vec<NodeId> {
        let Some(node) = self.nodes.get(&id) else { return Vec::new() };
        let mut dependents = BTreeSet::new();
        for capability in node.brings.iter() {
            for other in self.wanted_by.get(&capability.name).iter().filter(|other| **other != id) {
                let needs = self.nodes.get(other).map(|other| other.needs.as_slice()).unwrap_or_default();
                let helps = |need: &Need| match &need.requirement {
                    // It may want several things of one package.
                    rich @ Requirement::Rich(_) => rich.helped_by(&node.brings, &[]),
                    plain => plain.helped_by(std::slice::from_ref(capability), &[]),
                };
                if needs.iter().any(|need| !need.met && helps(need)) {
                    dependents.insert(*other);
                }
            }
        }
        dependents.into_iter().collect()
    }

    fn support(&self, id: NodeId, without: &BTreeSet<NodeId>) -> Support {
        let providers = self.all_providers(id);
        let levels = providers.iter().filter(|provider| !without.contains(provider)).filter_map(|provider| {
            let node = self.nodes.get(provider)?;
            node.live.then_some(node.level)
        });
        match levels.min() {
            Some(level) => Support::Live(level),
            None if providers.is_empty() => Support::None,
            None => Support::Dead,
        }
    }

    /// A build that has just entered as ready finds its place, and those that need it theirs.
    pub(super) fn settle_in(&mut self, now: Moment, id: NodeId) {
        if self.gathers {
            return;
        }
        self.changed.insert(id);
        self.find_place(now, id);
        let Some(node) = self.nodes.get(&id) else { return };
        let (live, level) = (node.live, node.level);
        let mut risen = Vec::new();
        let ready: Vec<_> =
            self.dependents(id).into_iter().filter(|other| self.waits_for_nothing(*other)).collect();
        match level {
            // Nothing that it waits for itself: so nothing that waits for them.
            0 if live => {
                for other in ready {
                    if self.nodes.get(&other).is_some_and(|other| !other.live) {
                        risen.push(other);
                    }
                    self.wait(other, 0);
                }
            }
            _ => self.reassess(now, ready),
        }
        if live {
            risen.push(id);
        }
        self.spread_life(now, risen);
    }

    fn waits_for_nothing(&self, id: NodeId) -> bool {
        self.is(id, &Standing::Queued(Readiness::Ready))
    }

    pub(super) fn wait(&mut self, id: NodeId, below: u32) {
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.live, node.level) = (true, below.saturating_add(1));
            if matches!(node.standing, Standing::Queued(_)) {
                self.set_standing(id, Standing::Queued(Readiness::Waiting));
            }
        }
    }

    /// By what is live now. Gives whether it is live itself.
    fn find_place(&mut self, now: Moment, id: NodeId) -> bool {
        let is_parked =
            matches!(self.nodes.get(&id).map(|node| &node.standing), Some(Standing::Parked { .. }));
        match self.support(id, &BTreeSet::new()) {
            Support::Live(level) => self.wait(id, level),
            Support::None if !is_parked => {
                self.set_ready(id);
                return self.nodes.get(&id).is_some_and(|node| node.live);
            }
            Support::None | Support::Dead => {
                self.die(now, id);
                return false;
            }
        }
        true
    }

    /// It waits only for what does not move, or is parked and nothing brings what it misses.
    pub(super) fn die(&mut self, now: Moment, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.live = false;
        if !matches!(node.standing, Standing::Parked { .. }) {
            self.set_standing(id, Standing::Queued(Readiness::Stuck));
            self.stuck.entry(id).or_insert(now);
        }
    }

    /// These have become live: so may be what needs them.
    pub(super) fn spread_life(&mut self, now: Moment, mut from: Vec<NodeId>) {
        if self.gathers {
            return;
        }
        while let Some(id) = from.pop() {
            for other in self.dependents(id) {
                let is_dead = self.nodes.get(&other).is_some_and(|other| {
                    // What may be given out, and nobody takes, does not wait for this.
                    let may_be_given =
                        matches!(other.standing, Standing::Queued(Readiness::Ready | Readiness::Forced));
                    !other.live && !may_be_given
                });
                if is_dead && self.find_place(now, other) {
                    from.push(other);
                }
            }
        }
    }

    /// What these builds in SOURCE wait for may have gone, or come.
    pub(super) fn reassess(&mut self, now: Moment, seeds: impl IntoIterator<Item = NodeId>) {
        if self.gathers {
            return;
        }
        let mut dead = BTreeSet::new();
        let mut risen = Vec::new();
        let mut todo: Vec<_> = seeds.into_iter().collect();
        while let Some(id) = todo.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            let (live, level) = (node.live, node.level);
            let is_parked = matches!(node.standing, Standing::Parked { .. });
            let derived = matches!(
                node.standing,
                Standing::Queued(Readiness::Ready | Readiness::Waiting | Readiness::Stuck)
            );
            if dead.contains(&id) || !(derived || is_parked) {
                continue;
            }
            match self.support(id, &dead) {
                Support::None if !is_parked => {
                    self.set_ready(id);
                    let lives = self.nodes.get(&id).is_some_and(|node| node.live);
                    if live && !lives {
                        // Nobody takes it.
                        todo.extend(self.dependents(id));
                    }
                    if !live && lives {
                        risen.push(id);
                    }
                }
                Support::Live(below) if live && below < level => {}
                _ => {
                    dead.insert(id);
                    if live {
                        if let Some(node) = self.nodes.get_mut(&id) {
                            node.live = false;
                        }
                        // What is ready, whatever its level says, rests on nothing that was here.
                        let waiting = |other: &NodeId| !self.waits_for_nothing(*other);
                        todo.extend(self.dependents(id).into_iter().filter(waiting));
                    }
                }
            }
        }
        for id in &dead {
            let is_dead = self.nodes.get(id).is_some_and(|node| !node.live);
            if is_dead && self.find_place(now, *id) {
                risen.push(*id);
            }
        }
        self.spread_life(now, risen);
    }
}
