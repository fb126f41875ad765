//! The start: a long queue finds its places at once.
//!
//! Until the whole queue is known a plan only gathers builds: what each needs and brings, and where it stands. Then who
//! needs whom is worked out once, and readiness, paths and urgency are walks over that. One by one, each new build would
//! look for those around it again and again, and move places that were found just before.
//!
//! What comes out is what one by one would, but for paths in cycles: there is no longest one.

use std::collections::VecDeque;
use std::time::Duration;

use super::{NodeId, Plan, Readiness, Standing};
use crate::BuildKey;
use crate::scheduler::Moment;

/// Who needs whom, by places in `ids`.
struct Web {
    ids: Vec<NodeId>,
    /// Of each, those that bring what it needs and does not have.
    providers: Vec<Vec<usize>>,
}

impl Web {
    fn of(plan: &Plan) -> Self {
        let ids: Vec<_> = plan.nodes.keys().copied().collect();
        let providers = plan.nodes.iter().map(|(id, node)| {
            let unmet = node.needs.iter().filter(|need| !need.met);
            let providers = unmet.flat_map(|need| plan.providers(*id, need).map(|(provider, _)| provider));
            let mut places: Vec<_> =
                providers.filter_map(|provider| ids.binary_search(&provider).ok()).collect();
            places.sort_unstable();
            places.dedup();
            places
        });
        let providers = providers.collect();
        Self { ids, providers }
    }

    /// The other way round: of each, those that need what it brings.
    fn dependents(&self) -> Vec<Vec<usize>> {
        let mut dependents = vec![Vec::new(); self.ids.len()];
        for (at, providers) in self.providers.iter().enumerate() {
            for provider in providers {
                if let Some(of_it) = dependents.get_mut(*provider) {
                    of_it.push(at);
                }
            }
        }
        dependents
    }
}

impl Plan {
    /// A plan to which builds come before it is asked who waits for whom.
    pub(in crate::scheduler) fn gathering() -> Self {
        Self { gathers: true, ..Self::default() }
    }

    /// All builds of the start are here. `ranks`: the lines of those that lie in SOURCE, in the order of their keys.
    pub(in crate::scheduler) fn begin<'a>(
        &mut self,
        now: Moment,
        ranks: impl IntoIterator<Item = (&'a BuildKey, u32)>,
    ) {
        if !std::mem::take(&mut self.gathers) {
            return;
        }
        let mut web = Web::of(self);
        let mut dependents = web.dependents();
        self.find_paths(&web, &dependents);
        let mut waits_for_less = false;
        for (id, providers) in web.ids.iter().zip(&mut web.providers) {
            // It waits only for what an attempt has shown to be missing.
            if self.nodes.get(id).is_some_and(|node| matches!(node.standing, Standing::Parked { .. })) {
                let missing = self.all_providers(*id);
                let before = providers.len();
                providers.retain(|at| web.ids.get(*at).is_some_and(|provider| missing.contains(provider)));
                waits_for_less |= providers.len() < before;
            }
        }
        if waits_for_less {
            dependents = web.dependents();
        }
        self.find_places(now, &web, &dependents);
        self.set_ranks(ranks);
        self.changed = web.ids.into_iter().collect();
    }

    /// From those that wait for nobody to those that everybody waits for.
    fn find_paths(&mut self, web: &Web, dependents: &[Vec<usize>]) {
        // How many of those that need it are not done, and the longest path of the others.
        let mut left: Vec<_> = dependents.iter().map(|those| (those.len(), Duration::ZERO)).collect();
        let mut todo: Vec<_> =
            (0..left.len()).filter(|at| left.get(*at).is_some_and(|(left, _)| *left == 0)).collect();
        while let Some(at) = todo.pop() {
            let (Some(id), Some(providers)) = (web.ids.get(at), web.providers.get(at)) else { continue };
            let (Some(node), Some((_, longest))) = (self.nodes.get_mut(id), left.get(at)) else { continue };
            node.path = node.expected + *longest;
            let path = node.path;
            for provider in providers {
                let Some((left, longest)) = left.get_mut(*provider) else { continue };
                (*left, *longest) = (*left - 1, path.max(*longest));
                if *left == 0 {
                    todo.push(*provider);
                }
            }
        }
        // Each of a cycle, and what a cycle needs, waits for another.
        let rest = web.ids.iter().zip(&left).filter(|(_, (left, _))| *left > 0);
        rest.for_each(|(id, _)| self.enter_path(*id));
    }

    /// From what moves by itself to what waits for that, and so on; what is not reached does not move.
    fn find_places(&mut self, now: Moment, web: &Web, dependents: &[Vec<usize>]) {
        let (mut reached, mut todo) = (vec![false; web.ids.len()], VecDeque::new());
        for (at, ((id, providers), reached)) in
            web.ids.iter().zip(&web.providers).zip(&mut reached).enumerate()
        {
            let Some(node) = self.nodes.get(id) else { continue };
            *reached = match node.standing {
                Standing::Running | Standing::Coming { .. } | Standing::Queued(Readiness::Forced) => true,
                Standing::Queued(_) => providers.is_empty(),
                Standing::Parked { .. } => false,
            };
            if *reached
                && matches!(node.standing, Standing::Queued(readiness) if readiness != Readiness::Forced)
            {
                self.set_ready(*id);
            }
            if *reached && self.nodes.get(id).is_some_and(|node| node.live) {
                todo.push_back(at);
            }
        }
        while let Some(at) = todo.pop_front() {
            let level = web.ids.get(at).and_then(|id| self.nodes.get(id)).map_or(0, |node| node.level);
            for other in dependents.get(at).into_iter().flatten() {
                let (Some(id), Some(reached)) = (web.ids.get(*other), reached.get_mut(*other)) else {
                    continue;
                };
                if !std::mem::replace(reached, true) {
                    self.wait(*id, level);
                    todo.push_back(*other);
                }
            }
        }
        let dead = web.ids.iter().zip(reached).filter(|(_, reached)| !reached);
        dead.for_each(|(id, _)| self.die(now, *id));
    }
}
