//! The critical path: how long a build and the longest chain of those that wait for it take.

use std::collections::BTreeMap;

use super::{NodeId, Plan};

/// So often one thing that happens changes the path of a build: in a cycle it would never end.
const CHANGES: u32 = 16;
/// And those of all builds together, however many bring what they all need.
const ALL_CHANGES: usize = 2_000;

impl Plan {
    /// A build is new: its own path, and that of what it needs.
    pub(super) fn enter_path(&mut self, id: NodeId) {
        if !self.gathers {
            self.compute(id);
            self.spread_path(id);
        }
    }

    /// A build goes: the paths that went over it are shorter.
    pub(super) fn leave_path(&mut self, id: NodeId) {
        if self.gathers {
            return;
        }
        let providers = self.all_providers(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let path = node.path;
        // Nothing goes over it while the others look.
        let needs = std::mem::take(&mut node.needs);
        let (mut computed, mut todo) = (BTreeMap::<NodeId, u32>::new(), vec![(providers, path)]);
        let mut left = ALL_CHANGES;
        while let Some((providers, path)) = todo.pop() {
            for provider in providers {
                let before = self.nodes.get(&provider).filter(|node| node.path == node.expected + path);
                let Some(before) = before.map(|node| node.path) else { continue };
                let count = computed.entry(provider).or_default();
                if *count < CHANGES && left > 0 {
                    (*count, left) = (*count + 1, left - 1);
                    if self.compute(provider) {
                        todo.push((self.all_providers(provider), before));
                    }
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.needs = needs;
        }
    }

    /// Gives whether it has changed.
    fn compute(&mut self, id: NodeId) -> bool {
        let longest =
            self.dependents(id).into_iter().filter_map(|other| Some(self.nodes.get(&other)?.path)).max();
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let path = node.expected + longest.unwrap_or_default();
        let changed = path != node.path;
        if changed {
            node.path = path;
            self.changed.insert(id);
        }
        changed
    }

    /// It is on the path of what it needs. In a cycle there is no longest path.
    fn spread_path(&mut self, from: NodeId) {
        let (mut raises, mut todo) = (BTreeMap::<NodeId, u32>::new(), vec![from]);
        let mut left = ALL_CHANGES;
        while let Some(id) = todo.pop() {
            let path = self.nodes.get(&id).map(|node| node.path).unwrap_or_default();
            for provider in self.all_providers(id) {
                let Some(node) = self.nodes.get_mut(&provider) else { continue };
                let count = raises.entry(provider).or_default();
                if node.path < node.expected + path && *count < CHANGES && left > 0 {
                    (*count, left) = (*count + 1, left - 1);
                    node.path = node.expected + path;
                    self.changed.insert(provider);
                    todo.push(provider);
                }
            }
        }
    }
}
