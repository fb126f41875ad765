//! What is wanted first needs what it waits for first.

use super::{NodeId, Plan};
use crate::BuildKey;

impl Plan {
    /// Which line of priority.txt a build has; [`u32::MAX`]: none.
    pub(in crate::scheduler) fn set_rank(&mut self, key: &BuildKey, rank: u32) {
        if self.gathers {
            return;
        }
        let Some(id) = self.ids.get(key).copied() else { return };
        let waiting =
            self.dependents(id).into_iter().filter_map(|other| Some(self.nodes.get(&other)?.urgency));
        let urgency = waiting.chain([rank]).min().unwrap_or(rank);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        (node.rank, node.urgency) = (rank, urgency);
        self.spread_urgency(vec![id]);
    }

    /// The line of every build that lies in SOURCE, in the order of their keys; others have none.
    pub(in crate::scheduler) fn set_ranks<'a>(
        &mut self,
        ranks: impl IntoIterator<Item = (&'a BuildKey, u32)>,
    ) {
        let mut before = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.values_mut() {
            before.push(node.urgency);
            (node.rank, node.urgency) = (u32::MAX, u32::MAX);
        }
        let mut ranked = Vec::new();
        // Side by side, both being in order: looking each of a long queue up takes ten times as long.
        let mut ids = self.ids.iter().peekable();
        for (key, rank) in ranks {
            while ids.next_if(|(other, _)| *other < key).is_some() {}
            let Some((_, id)) = ids.next_if(|(other, _)| *other == key) else { continue };
            if let Some(node) = self.nodes.get_mut(id).filter(|_| rank < u32::MAX) {
                (node.rank, node.urgency) = (rank, rank);
                ranked.push(*id);
            }
        }
        self.spread_urgency(ranked);
        let others = self.nodes.iter().zip(before).filter(|((_, node), before)| node.urgency != *before);
        self.changed.extend(others.map(|((id, _), _)| *id));
    }

    /// What these need is as urgent as they are. Lines only get smaller here, so it ends, in a cycle too.
    pub(super) fn spread_urgency(&mut self, mut from: Vec<NodeId>) {
        if self.gathers {
            return;
        }
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
