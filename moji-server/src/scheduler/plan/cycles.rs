//! Builds that need each other: Tarjan's strongly connected components, without recursion.

use std::collections::{BTreeMap, BTreeSet};

use super::{Need, NodeId, Plan, Standing};
use crate::BuildKey;
use crate::dependency::Requirement;

/// Builds that need each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// One way around: each needs something that the next one brings, and the last one something of the first.
    pub steps: Vec<(BuildKey, Requirement)>,
    /// All builds that are on some way around.
    pub members: BTreeSet<BuildKey>,
}

impl Plan {
    /// The cycles among the builds that do not move.
    pub(in crate::scheduler) fn cycles(&self) -> Vec<Cycle> {
        let still = |node: &super::Node| {
            matches!(node.standing, Standing::Queued(_) | Standing::Parked { .. })
                && !self.is_on_its_way(node)
        };
        let among: BTreeSet<_> =
            self.nodes.iter().filter(|(_, node)| still(node)).map(|(id, _)| *id).collect();
        let components = self.components(&among);
        components.iter().filter_map(|component| self.cycle(component)).collect()
    }

    fn is_on_its_way(&self, node: &super::Node) -> bool {
        node.live
            && matches!(node.standing, Standing::Queued(super::Readiness::Ready | super::Readiness::Forced))
    }

    /// All of each component that needs nothing of another: perhaps another repository has what they bring each
    /// other, and then nobody has to wait for anybody.
    pub(super) fn roots_of(&self, among: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let components = self.components(among);
        let is_root = |component: &&BTreeSet<NodeId>| {
            let needed = component.iter().flat_map(|id| self.all_providers(*id));
            needed.into_iter().all(|id| component.contains(&id) || !among.contains(&id))
        };
        components.iter().filter(is_root).flatten().copied().collect()
    }

    /// One way around: the shortest one from its first member.
    fn cycle(&self, component: &BTreeSet<NodeId>) -> Option<Cycle> {
        let start = *component.iter().min_by_key(|id| self.nodes.get(id).map(|node| &node.key))?;
        let mut came_from: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        let mut todo = std::collections::VecDeque::from([start]);
        let last = loop {
            let id = todo.pop_front()?;
            let next = self.all_providers(id);
            if next.contains(&start) {
                break id;
            }
            for other in next.into_iter().filter(|other| component.contains(other)) {
                if other != start && !came_from.contains_key(&other) {
                    came_from.insert(other, id);
                    todo.push_back(other);
                }
            }
        };
        let mut way = vec![last];
        while let Some(before) = way.last().and_then(|id| came_from.get(id)) {
            way.push(*before);
        }
        way.reverse();
        let next = way.iter().skip(1).chain(way.first());
        let steps = way.iter().zip(next).filter_map(|(id, next)| {
            let node = self.nodes.get(id)?;
            let brings =
                |need: &&Need| !need.met && self.providers(*id, need).any(|(other, _)| other == *next);
            Some((node.key.clone(), node.needs.iter().find(brings)?.requirement.clone()))
        });
        let members = component.iter().filter_map(|id| Some(self.nodes.get(id)?.key.clone()));
        Some(Cycle { steps: steps.collect(), members: members.collect() })
    }

    /// Tarjan's algorithm over "needs".
    pub(super) fn components(&self, among: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
        let mut search = Search::default();
        for id in among {
            if !search.index.contains_key(id) {
                search.from(*id, |id| self.all_providers(id).intersection(among).copied().collect());
            }
        }
        search.components
    }
}

#[derive(Default)]
struct Search {
    index: BTreeMap<NodeId, usize>,
    low: BTreeMap<NodeId, usize>,
    open: Vec<NodeId>,
    is_open: BTreeSet<NodeId>,
    components: Vec<BTreeSet<NodeId>>,
}

impl Search {
    fn from(&mut self, start: NodeId, next_of: impl Fn(NodeId) -> Vec<NodeId>) {
        let mut calls = vec![(start, self.enter(start, &next_of))];
        while let Some((id, rest)) = calls.last_mut() {
            let id = *id;
            match rest.pop() {
                Some(next) if !self.index.contains_key(&next) => {
                    let rest = self.enter(next, &next_of);
                    calls.push((next, rest));
                }
                Some(next) => {
                    if self.is_open.contains(&next) {
                        let index = self.index.get(&next).copied().unwrap_or_default();
                        self.lower(id, index);
                    }
                }
                None => {
                    calls.pop();
                    let low = self.low.get(&id).copied().unwrap_or_default();
                    if let Some((caller, _)) = calls.last() {
                        self.lower(*caller, low);
                    }
                    if self.index.get(&id) == Some(&low) {
                        self.close(id);
                    }
                }
            }
        }
    }

    fn enter(&mut self, id: NodeId, next_of: &impl Fn(NodeId) -> Vec<NodeId>) -> Vec<NodeId> {
        let index = self.index.len();
        self.index.insert(id, index);
        self.low.insert(id, index);
        self.open.push(id);
        self.is_open.insert(id);
        next_of(id)
    }

    fn lower(&mut self, id: NodeId, to: usize) {
        if let Some(low) = self.low.get_mut(&id) {
            *low = (*low).min(to);
        }
    }

    fn close(&mut self, root: NodeId) {
        let mut component = BTreeSet::new();
        while let Some(id) = self.open.pop() {
            self.is_open.remove(&id);
            component.insert(id);
            if id == root {
                break;
            }
        }
        self.components.push(component);
    }
}
