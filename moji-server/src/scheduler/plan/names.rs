//! Which builds have to do with a name: those that need it, or those that bring it.

use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

use indexmap::IndexMap;

use super::NodeId;

/// Builds by name. Two names may share their builds, as unlikely as that is: whoever looks one up asks each build whether
/// it is meant.
///
/// A long queue looks names up all the time, most of which begin alike, and has most of them once.
#[derive(Debug, Default)]
pub(super) struct ByName(IndexMap<u64, Builds, BuildHasherDefault<Hashed>>);

/// Builds in order.
#[derive(Debug)]
enum Builds {
    One(NodeId),
    Many(Vec<NodeId>),
}

impl Builds {
    fn as_slice(&self) -> &[NodeId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// What is hashed already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl ByName {
    /// Those that may have to do with it, in order.
    pub(super) fn get(&self, name: &str) -> &[NodeId] {
        self.0.get(&hash(name)).map_or(&[], Builds::as_slice)
    }

    pub(super) fn insert(&mut self, name: &str, id: NodeId) {
        let builds = self.0.entry(hash(name)).or_insert(Builds::One(id));
        let Err(at) = builds.as_slice().binary_search(&id) else { return };
        match builds {
            Builds::One(other) => {
                let mut both = vec![*other];
                both.insert(at, id);
                *builds = Builds::Many(both);
            }
            Builds::Many(ids) => ids.insert(at, id),
        }
    }

    /// Gives whether it was the last one of that name.
    pub(super) fn remove(&mut self, name: &str, id: NodeId) -> bool {
        let hash = hash(name);
        let Some(builds) = self.0.get_mut(&hash) else { return false };
        let is_last = match builds {
            Builds::One(only) => *only == id,
            Builds::Many(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
                ids.is_empty()
            }
        };
        is_last && self.0.swap_remove(&hash).is_some()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The same in each run.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}
