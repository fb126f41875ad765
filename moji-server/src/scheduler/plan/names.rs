//! Which builds have to do with a name: those that need it, or those that bring it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use super::NodeId;

/// Builds by name. Two names may share their builds, as unlikely as that is: whoever looks one up asks each build whether
/// it is meant.
///
/// A long queue looks names up all the time, most of which begin alike, and has most of them once. One number is compared in
/// a step, and lies in the tree itself; its builds are a list.
#[derive(Debug, Default)]
pub(super) struct ByName {
    /// Each list is in order.
    builds: BTreeMap<u64, Vec<NodeId>>,
}

impl ByName {
    /// Those that may have to do with it, in order.
    pub(super) fn get(&self, name: &str) -> &[NodeId] {
        self.builds.get(&hash(name)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn insert(&mut self, name: &str, id: NodeId) {
        let builds = self.builds.entry(hash(name)).or_insert_with(|| Vec::with_capacity(1));
        if let Err(at) = builds.binary_search(&id) {
            builds.insert(at, id);
        }
    }

    /// Gives whether it was the last one of that name.
    pub(super) fn remove(&mut self, name: &str, id: NodeId) -> bool {
        let hash = hash(name);
        let Some(builds) = self.builds.get_mut(&hash) else { return false };
        if let Ok(at) = builds.binary_search(&id) {
            builds.remove(at);
        }
        builds.is_empty() && self.builds.remove(&hash).is_some()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.builds.len()
    }
}

/// The same in each run.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}
