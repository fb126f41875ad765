//! What is wanted first needs what it waits for first.

use super::{NodeId, Plan};
use crate::BuildKey;

impl Plan {
    /// Which line of priority.txt a build has; [`u32::MAX`]: none.
    pub(in crate::scheduler) fn set_rank(&mut self, key: &BuildKey, rank: u32) {
        let Some(id) = self.ids.get(key).copied() else { return };
        let waiting =
            self.dependents(id).into_iter().filter_map(|other| Some(self.nodes.get(&other)?.urgency));
        let urgency = waiting.chain([rank]).min().unwrap_or(rank);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.rank, node.urgency) = (rank, urgency);
        self.spread_urgency(vec![id]);
    }

    /// Every build has another line.
    pub(in crate::scheduler) fn set_ranks(&mut self, ranks: impl IntoIterator<Item = (BuildKey, u32)>) {
        for node in self.nodes.values_mut() {
            (node.rank, node.urgency) = (u32::MAX, u32::MAX);
        }
        let mut ranked = Vec::new();
        for (key, rank) in ranks {
            if let Some((id, node)) = self.ids.get(&key).and_then(|id| Some((*id, self.nodes.get_mut(id)?))) {
                (node.rank, node.urgency) = (rank, rank);
                ranked.extend((rank < u32::MAX).then_some(id));
            }
        }
        self.spread_urgency(ranked);
    }

    /// The first line of a build and of those that wait for it.
    pub(in crate::scheduler) fn urgency(&self, key: &BuildKey) -> u32 {
        self.ids.get(key).and_then(|id| self.nodes.get(id)).map_or(u32::MAX, |node| node.urgency)
    }

    /// What these need is as urgent as they are. Lines only get smaller here, so it ends, in a cycle too.
    pub(super) fn spread_urgency(&mut self, mut from: Vec<NodeId>) {
        while let Some(id) = from.pop() {
            let urgency = self.nodes.get(&id).map_or(u32::MAX, |node| node.urgency);
            if urgency == u32::MAX {
                continue;
            }
            for provider in self.all_providers(id) {
                if let Some(node) = self.nodes.get_mut(&provider).filter(|node| node.urgency > urgency) {
                    node.urgency = urgency;
                    self.changed.insert(provider);
                    from.push(provider);
                }
            }
        }
    }
}
