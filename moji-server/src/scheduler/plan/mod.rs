//! Who waits for whom in one repository: what its unsettled builds need, what they are known to bring,
//! and what the repository has.
//!
//! ```text
//!            nothing unsettled brings what it needs              given to a builder
//!   entered ─────────────────────────────────────────▶ ready ───────────────────────▶ running
//!      │  something that moves does           ▲   ▲                                    │   │
//!      ├────────────────────────▶ waiting ────┘   │ forced: nothing else moves,        │   │ published
//!      │  something that does not move does       │ or it has been stuck for long      │   ▼
//!      └────────────────────────▶ stuck ──────────┘                                    │ coming (in the next
//!                                                                                      │   generation)
//!   parked ◀──────── an attempt failed for missing requirements ───────────────────────┘
//!      └──▶ entered again, when a generation brings one of them
//! ```
//!
//! What an SRPM brings is known from its header (the names of its packages, since rpm 4.16) and from what its
//! last build provided. What nothing here is known to bring may come from another repository: it keeps nobody
//! waiting. A try is cheap, waiting for ever is not.
//!
//! *Moves* is well-founded (`support`): two builds that need each other do not keep each other waiting; they
//! are stuck, and one of them is tried.
//!
//! Pure. It deliberately does not know leases, builders, priorities, and who is told what.

mod begin;
mod contents;
mod cycles;
mod names;
mod path;
mod support;
#[cfg(test)]
mod tests;
mod urgency;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use moji_proto::Nvr;

use super::Moment;
use crate::BuildKey;
use crate::dependency::{Capability, FileHash, PackageId, PackagePath, Provided, Relations, Requirement};
use crate::source::QueuedSrpm;

pub use cycles::Cycle;
use names::ByName;

/// How long a build that is stuck waits for what does not move, while others are built.
pub const STUCK: Duration = Duration::from_secs(15 * 60);
/// Most BuildRequires of one SRPM that are looked at: no honest one has so many. Beyond them it is tried at once.
const NEEDS: usize = 500;
/// How long what is published is waited for when no generation has it.
pub const COMING: Duration = Duration::from_secs(30 * 60);

/// A build in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NodeId(u32);

/// Something that a build needs.
#[derive(Debug, Clone)]
struct Need {
    requirement: Requirement,
    /// The repository has it.
    met: bool,
    /// An attempt has shown that it is missing.
    missing: bool,
}

/// Where a build stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It lies in SOURCE.
    Queued(Readiness),
    /// It lies in SOURCE, and the last attempt showed that something is missing.
    Parked {
        /// The generation that the attempt had; what came later may help.
        generation: u64,
    },
    /// A builder has it.
    Running,
    /// Its results are published, and no generation lists them yet.
    Coming {
        /// Where they lie.
        folder: Nvr,
        /// The generation at that time.
        generation: u64,
        /// Until when they are waited for.
        until: Moment,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Tried although something that it needs is not there: ready, whatever others do.
    Forced,
    /// Something that it needs is on its way.
    Waiting,
    /// What it needs others would bring, and these do not move.
    Stuck,
}

/// One unsettled build.
#[derive(Debug)]
struct Node {
    key: BuildKey,
    package: Box<str>,
    /// What tells it from another one of its name.
    identity: (u64, Arc<Relations>),
    needs: Vec<Need>,
    brings: Arc<[Capability]>,
    standing: Standing,
    /// It may be given out, and nobody who is connected can take it: nothing to wait for.
    untakeable: bool,
    /// Whether it will move by itself.
    live: bool,
    /// For what is live: one more than that of something it waits for; 0 for what waits for nothing.
    level: u32,
    /// How long building it takes.
    expected: Duration,
    /// That, and the longest chain of builds that wait for it.
    path: Duration,
    /// Its line of priority.txt.
    rank: u32,
    /// The first line of those that it has and of those that wait for it.
    urgency: u32,
}

impl Node {
    fn is_of(&self, srpm: &QueuedSrpm) -> bool {
        self.identity.0 == srpm.size && self.identity.1 == srpm.header.relations
    }
}

/// What has changed for a build that lies in SOURCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Which.
    pub(super) key: BuildKey,
    /// Its place, if it may be given out; none while it waits.
    pub(super) path: Option<Duration>,
    /// Its line of priority.txt, or that of a build that waits for it.
    pub(super) urgency: u32,
}

/// Where a build in SOURCE stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// It may be given out.
    None,
    /// It waits for what other builds will bring.
    For(Vec<Missing>),
    /// An attempt has shown that something is missing.
    Parked(Vec<Missing>),
}

/// A requirement that is not met, and the unsettled builds that are known to bring it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub requirement: Requirement,
    /// Who would bring it.
    pub providers: Vec<BuildKey>,
    /// The repository has it, although the attempt did not find it.
    pub is_there: bool,
}

/// A build that was parked and is queued again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Woken {
    pub(super) key: BuildKey,
    /// What has come.
    pub(super) requirement: Requirement,
}

/// The plan of one repository.
#[derive(Debug, Default)]
pub(super) struct Plan {
    provided: Provided,
    /// Its packages, and in which generation each came.
    packages: BTreeMap<PackagePath, (PackageId, u64)>,
    last_package: u32,
    generation: u64,
    nodes: BTreeMap<NodeId, Node>,
    /// Who waits for whom is not asked yet: see `begin`.
    gathers: bool,
    ids: BTreeMap<BuildKey, NodeId>,
    last_node: u32,
    wanted_by: ByName,
    wanted_files: BTreeMap<FileHash, Box<str>>,
    offered_by: ByName,
    /// By package name: what its last good build provided.
    products: BTreeMap<Box<str>, Arc<[Capability]>>,
    /// Those that wait for nothing: they are ready, are built, or come with the next generation.
    moving: BTreeSet<NodeId>,
    stuck: BTreeMap<NodeId, Moment>,
    coming: BTreeSet<NodeId>,
    changed: BTreeSet<NodeId>,
    /// By package: how long it took to build it, and before that what it needed.
    chains: BTreeMap<Box<str>, Duration>,
}

impl Plan {
    /// How many have been tried in vain for lack of something.
    pub(super) fn parked(&self) -> usize {
        self.nodes.values().filter(|node| matches!(node.standing, Standing::Parked { .. })).count()
    }

    /// Whether one has been.
    pub(super) fn is_parked(&self, key: &BuildKey) -> bool {
        let node = self.ids.get(key).and_then(|id| self.nodes.get(id));
        node.is_some_and(|node| matches!(node.standing, Standing::Parked { .. }))
    }

    /// What builds that begin now find: 0 when nothing is published.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What a package's last good build provided, as a server before this one knew it.
    pub(super) fn learn(&mut self, package: &str, provides: Vec<Capability>) {
        self.products.insert(package.into(), provides.into());
    }

    /// A build is in SOURCE: a new one, or back from a builder.
    pub(super) fn enter(&mut self, now: Moment, srpm: &QueuedSrpm, expected: Duration) {
        let known = self.ids.get(&srpm.key).and_then(|id| Some((*id, self.nodes.get(id)?)));
        match known {
            Some((id, node)) if node.is_of(srpm) => match node.standing {
                Standing::Queued(_) | Standing::Parked { .. } => {}
                Standing::Running | Standing::Coming { .. } => {
                    self.set_ready(id);
                    self.reassess(now, [id]);
                }
            },
            // Another one under the same name.
            Some(_) => {
                self.leave(now, &srpm.key);
                self.enter(now, srpm, expected);
            }
            None => {
                self.admit(now, srpm, expected);
            }
        }
    }

    /// The node of a build, which enters when it is new.
    fn node_of(&mut self, now: Moment, srpm: &QueuedSrpm, expected: Duration) -> NodeId {
        match self.ids.get(&srpm.key) {
            Some(id) => *id,
            None => self.admit(now, srpm, expected),
        }
    }

    /// A new build enters.
    fn admit(&mut self, now: Moment, srpm: &QueuedSrpm, expected: Duration) -> NodeId {
        let id = self.add(srpm, expected);
        self.settle_in(now, id);
        id
    }

    /// Its place is to be told once more.
    pub(super) fn touch(&mut self, key: &BuildKey) {
        // At a start each is told when all are there.
        if !self.gathers {
            self.changed.extend(self.ids.get(key).copied());
        }
    }

    /// A builder has it: given out from here, or kept by a builder from before.
    pub(super) fn run(&mut self, now: Moment, srpm: &QueuedSrpm, expected: Duration) {
        let id = self.node_of(now, srpm, expected);
        let was_live = self.nodes.get(&id).is_some_and(|node| node.live);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.untakeable = false;
        }
        self.set_moving(id, Standing::Running);
        if !was_live {
            self.spread_life(now, vec![id]);
        }
    }

    /// Whether a builder has it, as far as was told.
    pub(super) fn is_running(&self, key: &BuildKey) -> bool {
        self.ids.get(key).is_some_and(|id| self.is(*id, &Standing::Running))
    }

    /// It is published after a build that took so long: what it brings comes with the next generation.
    pub(super) fn publish(&mut self, now: Moment, key: &BuildKey, folder: Nvr, took: Duration) {
        let Some(id) = self.ids.get(key).copied() else { return };
        self.built(id, took);
        if self.lists(&folder) {
            // Its commit had to be tried again, or took long.
            let dependents = self.dependents(id);
            self.remove(id);
            return self.reassess(now, dependents);
        }
        let generation = self.generation;
        self.set_moving(id, Standing::Coming { folder, generation, until: now + COMING });
    }

    /// An attempt at it failed for missing requirements, with what `generation` had. Whether it is parked:
    /// not when one of them has come meanwhile.
    pub(super) fn park(
        &mut self,
        now: Moment,
        srpm: &QueuedSrpm,
        expected: Duration,
        missing: &[Requirement],
        generation: u64,
    ) -> bool {
        let id = self.node_of(now, srpm, expected);
        // What an earlier attempt lacked this one may have found.
        self.forget_missing(id);
        let mut needs =
            self.nodes.get_mut(&id).map(|node| std::mem::take(&mut node.needs)).unwrap_or_default();
        for requirement in missing {
            self.need(id, &mut needs, requirement.clone(), true);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.needs = needs;
        }
        // What it turned out to need is as urgent as it is, and on its path.
        self.enter_path(id);
        self.spread_urgency(vec![id]);
        self.set_ready(id);
        // An attempt from before the repository was made anew knows nothing of it.
        let generation = if generation > self.generation { 0 } else { generation };
        if missing.iter().any(|requirement| self.has_come(requirement, generation)) {
            self.reassess(now, [id]);
            return false;
        }
        self.set_standing(id, Standing::Parked { generation });
        self.reassess(now, [id]);
        true
    }

    /// It is settled without having been published, or a person took it away.
    pub(super) fn leave(&mut self, now: Moment, key: &BuildKey) {
        let Some(id) = self.ids.get(key).copied() else { return };
        let dependents: Vec<_> = self.dependents(id);
        self.remove(id);
        self.reassess(now, dependents);
    }

    /// Does what is due, and has those that are stuck tried when nothing else moves.
    pub(super) fn on_time(&mut self, now: Moment) {
        let is_over = |id: &&NodeId| {
            let standing = self.nodes.get(id).map(|node| &node.standing);
            matches!(standing, Some(Standing::Coming { until, .. }) if *until <= now)
        };
        let over: Vec<_> = self.coming.iter().filter(is_over).copied().collect();
        for id in over {
            let dependents = self.dependents(id);
            self.remove(id);
            self.reassess(now, dependents);
        }
        let long = self.stuck.iter().filter(|(_, since)| **since + STUCK <= now).map(|(id, _)| *id);
        let long: BTreeSet<_> = long.collect();
        match self.moving.is_empty() {
            true => self.force(now, &self.stuck.keys().copied().collect()),
            false if !long.is_empty() => self.force(now, &long),
            false => {}
        }
    }

    /// When [`Self::on_time`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        if self.moving.is_empty() && !self.stuck.is_empty() {
            return Some(Moment::ZERO);
        }
        let coming = self.coming.iter().filter_map(|id| match self.nodes.get(id)?.standing {
            Standing::Coming { until, .. } => Some(until),
            _ => None,
        });
        coming.chain(self.stuck.values().map(|since| *since + STUCK)).min()
    }

    /// Lets the groups that keep themselves from moving be tried.
    fn force(&mut self, now: Moment, among: &BTreeSet<NodeId>) {
        for id in self.roots_of(among) {
            self.set_given_out(now, id, Readiness::Forced);
        }
    }

    /// It may be given out; whether others wait for it depends on whether somebody takes it.
    fn set_given_out(&mut self, now: Moment, id: NodeId, readiness: Readiness) {
        self.set_moving(id, Standing::Queued(readiness));
        match self.nodes.get(&id).is_some_and(|node| node.live) {
            true => self.spread_life(now, vec![id]),
            false => {
                let dependents = self.dependents(id);
                self.reassess(now, dependents);
            }
        }
    }

    /// Which builds may be given out, and nobody takes them: all others may find somebody.
    pub(super) fn set_untakeable(&mut self, now: Moment, keys: &BTreeSet<BuildKey>) {
        let other = self.nodes.iter().filter(|(_, node)| {
            let is_queued = matches!(node.standing, Standing::Queued(_));
            node.untakeable != (is_queued && keys.contains(&node.key))
        });
        let other: Vec<_> = other.map(|(id, _)| *id).collect();
        for id in other {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            node.untakeable = !node.untakeable;
            if let Standing::Queued(readiness @ (Readiness::Ready | Readiness::Forced)) = node.standing {
                self.set_given_out(now, id, readiness);
            }
        }
    }

    /// What has changed since this was asked last, of builds that lie in SOURCE.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        if self.gathers {
            return Vec::new();
        }
        let changed = std::mem::take(&mut self.changed);
        let changes = changed.into_iter().filter_map(|id| self.nodes.get(&id)).filter_map(|node| {
            let path = match node.standing {
                Standing::Queued(Readiness::Ready | Readiness::Forced) => Some(node.path),
                Standing::Queued(_) | Standing::Parked { .. } => None,
                Standing::Running | Standing::Coming { .. } => return None,
            };
            Some(Change { key: node.key.clone(), path, urgency: node.urgency })
        });
        changes.collect()
    }

    /// Whether something will happen in it without any builder: a generation comes, or a build will be tried.
    pub(super) fn moves(&self) -> bool {
        !self.coming.is_empty() || !self.stuck.is_empty()
    }

    /// Forgets how long chains of builds took.
    pub(super) fn forget_chains(&mut self) {
        self.chains.clear();
    }

    /// The longest chain of builds, each of which needed what the one before it brought.
    pub(super) fn longest_chain(&self) -> Duration {
        self.chains.values().copied().max().unwrap_or_default()
    }

    fn built(&mut self, id: NodeId, took: Duration) {
        let Some(node) = self.nodes.get(&id) else { return };
        let packages = node.needs.iter().flat_map(|need| self.provided.providers(&need.requirement));
        let sources = packages.filter_map(|package| self.provided.package(package)?.source_name());
        let before = sources.filter_map(|package| self.chains.get(package)).max();
        let chain = took + before.copied().unwrap_or_default();
        self.chains.insert(node.package.clone(), chain);
    }

    /// The longest chain of builds that wait for each other.
    pub(super) fn longest_path(&self) -> Duration {
        self.nodes.values().map(|node| node.path).max().unwrap_or_default()
    }

    /// What a build waits for.
    pub(super) fn wait_of(&self, key: &BuildKey) -> Option<Wait> {
        let (id, node) = self.ids.get(key).and_then(|id| Some((*id, self.nodes.get(id)?)))?;
        let missing = |need: &Need| Missing {
            requirement: need.requirement.clone(),
            providers: self.providers(id, need).map(|(_, node)| node.key.clone()).collect(),
            is_there: need.met,
        };
        Some(match node.standing {
            Standing::Parked { .. } => {
                Wait::Parked(node.needs.iter().filter(|need| need.missing).map(missing).collect())
            }
            Standing::Queued(Readiness::Waiting | Readiness::Stuck) => {
                let unmet = node.needs.iter().filter(|need| !need.met).map(missing);
                Wait::For(unmet.filter(|missing| !missing.providers.is_empty()).collect())
            }
            _ => Wait::None,
        })
    }

    fn add(&mut self, srpm: &QueuedSrpm, expected: Duration) -> NodeId {
        self.last_node += 1;
        let id = NodeId(self.last_node);
        let relations = &srpm.header.relations;
        let known = self.products.get(srpm.header.name.as_str());
        let brings: Arc<[Capability]> = match known {
            Some(known) => relations.provides.iter().chain(known.iter()).cloned().collect(),
            None => Arc::clone(&relations.provides),
        };
        for capability in brings.iter() {
            self.offered_by.insert(&capability.name, id);
        }
        self.ids.insert(srpm.key.clone(), id);
        let mut needs = Vec::with_capacity(relations.build_requires.len().min(NEEDS));
        for requirement in relations.build_requires.iter().take(NEEDS) {
            self.need(id, &mut needs, requirement.clone(), false);
        }
        let node = Node {
            key: srpm.key.clone(),
            package: srpm.header.name.as_str().into(),
            identity: (srpm.size, Arc::clone(relations)),
            needs,
            brings,
            standing: Standing::Queued(Readiness::Ready),
            untakeable: false,
            live: true,
            level: 0,
            expected,
            path: expected,
            rank: u32::MAX,
            urgency: u32::MAX,
        };
        self.nodes.insert(id, node);
        self.moving.insert(id);
        self.enter_path(id);
        id
    }

    /// One of the needs of a build is one more.
    fn need(&mut self, id: NodeId, needs: &mut Vec<Need>, requirement: Requirement, missing: bool) {
        for name in requirement.names() {
            self.wanted_by.insert(name, id);
            if name.starts_with('/') {
                self.wanted_files.insert(FileHash::of(name), name.into());
            }
        }
        let met = self.provided.satisfies(&requirement);
        match needs.iter_mut().find(|need| need.requirement == requirement) {
            Some(need) => (need.met, need.missing) = (met, need.missing || missing),
            None => needs.push(Need { requirement, met, missing }),
        }
    }

    /// What an attempt has said is missing, and the header does not ask for, goes.
    fn forget_missing(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (asked, said): (Vec<_>, Vec<_>) = std::mem::take(&mut node.needs)
            .into_iter()
            .partition(|need| node.identity.1.build_requires.contains(&need.requirement));
        let keeps: BTreeSet<&str> = asked.iter().flat_map(|need| need.requirement.names()).collect();
        for name in said.iter().flat_map(|need| need.requirement.names()).filter(|name| !keeps.contains(name))
        {
            if self.wanted_by.remove(name, id) && name.starts_with('/') {
                self.wanted_files.remove(&FileHash::of(name));
            }
        }
        node.needs = asked;
        node.needs.iter_mut().for_each(|need| need.missing = false);
    }

    fn remove(&mut self, id: NodeId) {
        self.leave_path(id);
        let Some(node) = self.nodes.remove(&id) else { return };
        self.ids.remove(&node.key);
        for set in [&mut self.moving, &mut self.coming, &mut self.changed] {
            set.remove(&id);
        }
        self.stuck.remove(&id);
        for capability in node.brings.iter() {
            self.offered_by.remove(&capability.name, id);
        }
        for name in node.needs.iter().flat_map(|need| need.requirement.names()) {
            if self.wanted_by.remove(name, id) && name.starts_with('/') {
                self.wanted_files.remove(&FileHash::of(name));
            }
        }
    }

    fn is(&self, id: NodeId, standing: &Standing) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.standing == *standing)
    }

    fn set_ready(&mut self, id: NodeId) {
        self.set_moving(id, Standing::Queued(Readiness::Ready));
    }

    /// For standings that wait for nothing.
    fn set_moving(&mut self, id: NodeId, standing: Standing) {
        if let Some(node) = self.nodes.get_mut(&id) {
            let is_left = node.untakeable && matches!(standing, Standing::Queued(_));
            (node.live, node.level) = (!is_left, 0);
        }
        self.set_standing(id, standing);
    }

    fn set_standing(&mut self, id: NodeId, standing: Standing) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let moves = match standing {
            Standing::Queued(Readiness::Waiting | Readiness::Stuck) | Standing::Parked { .. } => false,
            Standing::Queued(_) => !node.untakeable,
            Standing::Running | Standing::Coming { .. } => true,
        };
        match moves {
            true => self.moving.insert(id),
            false => self.moving.remove(&id),
        };
        if standing != Standing::Queued(Readiness::Stuck) {
            self.stuck.remove(&id);
        }
        match standing {
            Standing::Coming { .. } => self.coming.insert(id),
            _ => self.coming.remove(&id),
        };
        node.standing = standing;
        self.changed.insert(id);
    }
}
