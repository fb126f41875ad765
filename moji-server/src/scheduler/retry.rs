//! Builds that failed, and may be tried once more when what they used has been built anew.
//!
//! Only when the operator wants it so. That it happens once for each build is for whoever moves the SRPM to see to:
//! it has to outlive the server.

use std::collections::{BTreeMap, BTreeSet};

use moji_proto::TargetName;

use super::plan::Woken;
use super::{Effect, Moment, Scheduler};
use crate::BuildKey;
use crate::contents::RepositoryChange;

/// Most failures that are remembered.
const MOST: usize = 20_000;

/// Builds that failed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    failed: BTreeMap<BuildKey, Failed>,
}

#[derive(Debug)]
struct Failed {
    /// The packages that were installed for it.
    used: BTreeSet<String>,
    /// What the attempt found.
    generation: u64,
}

impl Failures {
    pub(super) fn add(&mut self, key: BuildKey, used: BTreeSet<String>, generation: u64) {
        if self.failed.len() < MOST {
            self.failed.insert(key, Failed { used, generation });
        }
    }

    pub(super) fn forget(&mut self, key: &BuildKey) {
        self.failed.remove(key);
    }

    /// Those that used one of these packages, and which one.
    fn take_users(
        &mut self,
        target: Option<&TargetName>,
        change: &RepositoryChange,
    ) -> Vec<(BuildKey, String)> {
        let names: BTreeSet<&str> = change.added.iter().map(|package| &*package.name).collect();
        let of_target = self.failed.iter().filter(|(key, _)| key.target.as_ref() == target);
        let earlier = of_target.filter(|(_, failed)| failed.generation < change.generation);
        let using = |failed: &Failed| failed.used.iter().find(|name| names.contains(name.as_str())).cloned();
        let users: Vec<_> = earlier.filter_map(|(key, failed)| Some((key.clone(), using(failed)?))).collect();
        users.iter().for_each(|(key, _)| self.forget(key));
        users
    }
}

impl Scheduler {
    /// Another generation is served.
    pub(super) fn contents(
        &mut self,
        now: Moment,
        target: Option<&TargetName>,
        change: RepositoryChange,
    ) -> Vec<Effect> {
        let generation = change.generation;
        let mut effects = Vec::new();
        // The first change after a start lists all that there is.
        if self.rules.retry_on_change && self.queue.generation(target) > 0 {
            let users = self.failures.take_users(target, &change);
            effects.extend(users.into_iter().map(|(key, package)| Effect::Retry { key, package }));
        }
        let woken = self.queue.contents(now, target, change);
        for Woken { key, requirement } in woken {
            if let Some(srpm) = self.queue.srpm(&key).cloned() {
                effects.push(Effect::Woken { srpm, requirement, generation });
            }
        }
        if self.unread.remove(&target.cloned()).is_some() {
            effects.extend(self.serve_all(now));
        }
        effects
    }
}
