//! What comes into the repository, and goes: whose needs are met now, and who wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use moji_proto::Nvr;

use super::{NodeId, Plan, Standing, Woken};
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, PackageId, PackagePath, Requirement};
use crate::scheduler::Moment;

impl Plan {
    /// Another generation is served. Gives what wakes.
    pub(in crate::scheduler) fn contents(&mut self, now: Moment, change: RepositoryChange) -> Vec<Woken> {
        if change.generation < self.generation {
            self.begin_anew();
        }
        self.generation = change.generation;
        let mut touched = BTreeSet::new();
        for path in &change.removed {
            if let Some((package, _)) = self.packages.remove(path) {
                touched.extend(self.wanting(package));
                self.provided.remove(package);
            }
        }
        if !change.removed.is_empty() {
            // Which files went nobody remembers.
            let files = self.wanted_files.values().flat_map(|name| self.wanted_by.get(name));
            touched.extend(files.copied());
        }
        let listed = self.listed(&change);
        let mut brought: BTreeMap<Box<str>, Vec<Capability>> = BTreeMap::new();
        for package in change.added {
            self.last_package += 1;
            let id = PackageId(self.last_package);
            self.packages.insert(package.path.clone(), (id, change.generation));
            if let Some(name) = package.source_name() {
                brought.entry(name.into()).or_default().extend(package.provides.iter().map(by_name));
            }
            let files = package.files.iter().filter_map(|file| self.wanted_files.get(file)).cloned();
            let names: Vec<Box<str>> = files.collect();
            for name in names.iter().map(|name| &**name) {
                touched.extend(self.wanted_by.get(name));
            }
            self.provided.add(id, package);
            touched.extend(self.wanting(id));
        }
        for (package, mut provides) in brought {
            provides.sort();
            provides.dedup();
            self.products.insert(package, provides.into());
        }
        let woken = self.recheck(&touched);
        touched.extend(listed.iter().flat_map(|id| self.dependents(*id)));
        listed.into_iter().for_each(|id| self.remove(id));
        self.reassess(now, touched);
        // Those that need what the woken ones bring had given them up.
        let risen = woken.iter().filter_map(|woken| self.ids.get(&woken.key).copied());
        let risen = risen.filter(|id| self.nodes.get(id).is_some_and(|node| node.live)).collect();
        self.spread_life(now, risen);
        woken
    }

    /// The repository was removed and made anew: its generations are counted from the beginning, and all that comes is
    /// news.
    fn begin_anew(&mut self) {
        for node in self.nodes.values_mut() {
            if let Standing::Parked { generation } | Standing::Coming { generation, .. } = &mut node.standing
            {
                *generation = 0;
            }
        }
        self.packages.values_mut().for_each(|(_, came)| *came = 0);
    }

    /// Those that asked for anything that a package provides.
    fn wanting(&self, package: PackageId) -> Vec<NodeId> {
        let provides = self.provided.package(package).map(|package| package.provides.as_slice());
        let names = provides.unwrap_or_default().iter().map(|capability| &*capability.name);
        names.flat_map(|name| self.wanted_by.get(name)).copied().collect()
    }

    /// Looks again whether the repository has what these need, and wakes those for which something has come.
    fn recheck(&mut self, touched: &BTreeSet<NodeId>) -> Vec<Woken> {
        let mut woken = Vec::new();
        for id in touched {
            let Some(node) = self.nodes.get_mut(id) else { continue };
            for need in &mut node.needs {
                need.met = self.provided.satisfies(&need.requirement);
            }
            let Standing::Parked { generation } = node.standing else { continue };
            let node = self.nodes.get(id);
            let missing = node.into_iter().flat_map(|node| &node.needs).filter(|need| need.missing);
            let come = missing.map(|need| &need.requirement).find(|one| self.has_come(one, generation));
            if let (Some(requirement), Some(node)) = (come.cloned(), node) {
                woken.push(Woken { key: node.key.clone(), requirement });
                self.set_ready(*id);
            }
        }
        woken
    }

    /// Whether all of this was in a generation that an attempt had.
    pub(in crate::scheduler) fn had(&self, missing: &[Requirement], generation: u64) -> bool {
        let was_there = |requirement: &Requirement| {
            self.provided.satisfies(requirement) && !self.has_come(requirement, generation)
        };
        generation > 0 && generation <= self.generation && missing.iter().all(was_there)
    }

    /// Whether something that helps has come after a generation.
    pub(super) fn has_come(&self, requirement: &Requirement, generation: u64) -> bool {
        let came = |package: PackageId| {
            let path = self.provided.package(package).map(|package| &package.path);
            path.and_then(|path| self.packages.get(path)).is_some_and(|(_, came)| *came > generation)
        };
        self.provided.providers(requirement).any(came)
    }

    /// Whether the repository has something in a folder.
    pub(super) fn lists(&self, folder: &Nvr) -> bool {
        let inner = format!("{folder}/");
        let from = (Bound::Included(inner.as_str()), Bound::Unbounded);
        self.packages.range::<str, _>(from).next().is_some_and(|(path, _)| is_in(path, folder))
    }

    /// What was on its way, and is listed now, or has been waited for long enough.
    fn listed(&self, change: &RepositoryChange) -> Vec<NodeId> {
        let is_listed = |id: &&NodeId| {
            let Some(Standing::Coming { folder, generation, .. }) =
                self.nodes.get(id).map(|node| &node.standing)
            else {
                return true;
            };
            // Two looks later it will not come any more.
            change.generation >= generation + 2
                || change.added.iter().any(|package| is_in(&package.path, folder))
        };
        self.coming.iter().filter(is_listed).copied().collect()
    }
}

fn is_in(path: &PackagePath, folder: &Nvr) -> bool {
    path.as_str().strip_prefix(folder.as_str()).is_some_and(|inner| inner.starts_with('/'))
}

/// The next build of a package provides the same names, in versions that nobody knows.
fn by_name(capability: &Capability) -> Capability {
    Capability { name: capability.name.clone(), versions: None }
}
