//! The plan against one that is made anew after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use moji_proto::SrpmName;
use proptest::prelude::*;

use super::{Change, NodeId, Plan, Readiness, Standing, Wait};
use crate::BuildKey;
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, Evr, FileHash, PackagePath, PublishedPackage, Relations};
use crate::metadata::Repository;
use crate::source::{QueuedSrpm, SrpmHeader};

const MINUTE: Duration = Duration::from_secs(60);

/// SRPM `number`, which needs and brings these.
fn srpm(number: usize, needs: &[&str], brings: &[&str]) -> QueuedSrpm {
    let relations = Relations {
        build_requires: needs.iter().map(|need| need.parse().unwrap()).collect(),
        provides: brings.iter().map(|name| Capability { name: (*name).into(), versions: None }).collect(),
    };
    let key = BuildKey { target: None, srpm: SrpmName::new(format!("p{number}-1-1.src.rpm")).unwrap() };
    let header = SrpmHeader {
        name: format!("p{number}"),
        epoch: None,
        version: "1".into(),
        release: "1".into(),
        nvr: key.srpm.stem().parse().unwrap(),
        relations: Arc::new(relations),
    };
    QueuedSrpm { key, header, size: 10 + number as u64, queued_at: jiff::Timestamp::UNIX_EPOCH }
}

fn package(path: &str, provides: &[&str], files: &[&str]) -> PublishedPackage {
    let capability = |name: &&str| match name.split_once(" = ") {
        None => Capability { name: (*name).into(), versions: None },
        Some((name, evr)) => {
            let versions =
                crate::dependency::Versions { sense: crate::dependency::Sense::Equal, evr: Evr::new(evr) };
            Capability { name: name.into(), versions: Some(versions) }
        }
    };
    let mut files: Vec<_> = files.iter().map(|file| FileHash::of(file)).collect();
    files.sort();
    PublishedPackage {
        path: PackagePath::new(path),
        name: "package".into(),
        evr: Evr::new("1-1"),
        arch: "noarch".into(),
        source: None,
        provides: provides.iter().map(capability).collect(),
        files,
    }
}

fn change(generation: u64, added: Vec<PublishedPackage>, removed: &[&str]) -> RepositoryChange {
    let removed = removed.iter().map(|path| PackagePath::new(*path)).collect();
    RepositoryChange { repository: Repository::Main, generation, added, removed }
}

impl Plan {
    fn ready(&mut self) -> BTreeSet<String> {
        let ready = self
            .nodes
            .values()
            .filter(|node| matches!(node.standing, Standing::Queued(Readiness::Ready | Readiness::Forced)));
        ready.map(|node| node.package.to_string()).collect()
    }

    /// Which of them move, worked out from nothing.
    fn living(&self) -> BTreeSet<NodeId> {
        let mut living = BTreeSet::new();
        loop {
            let lives = |id: &NodeId| {
                let providers = self.all_providers(*id);
                match self.nodes[id].standing {
                    Standing::Running | Standing::Coming { .. } => true,
                    Standing::Queued(Readiness::Forced) => !self.nodes[id].untakeable,
                    Standing::Queued(_) if providers.is_empty() => !self.nodes[id].untakeable,
                    Standing::Queued(_) => !providers.is_disjoint(&living),
                    Standing::Parked { .. } => !providers.is_disjoint(&living),
                }
            };
            let next = self.nodes.keys().find(|id| !living.contains(*id) && lives(id)).copied();
            match next {
                Some(id) => living.insert(id),
                None => return living,
            };
        }
    }

    fn check(&self) {
        let living = self.living();
        for (id, node) in &self.nodes {
            assert_eq!(node.live, living.contains(id), "{}: {:?}", node.package, node.standing);
            let providers = self.all_providers(*id);
            let expected = match (providers.is_empty(), providers.is_disjoint(&living)) {
                (true, _) => Readiness::Ready,
                (false, false) => Readiness::Waiting,
                (false, true) => Readiness::Stuck,
            };
            if let Standing::Queued(readiness) = node.standing
                && readiness != Readiness::Forced
            {
                assert_eq!(readiness, expected, "{}", node.package);
            }
            let is_stuck = node.standing == Standing::Queued(Readiness::Stuck);
            assert_eq!(self.stuck.contains_key(id), is_stuck);
            let waits = matches!(node.standing, Standing::Queued(Readiness::Waiting | Readiness::Stuck));
            let is_left = node.untakeable && matches!(node.standing, Standing::Queued(_));
            let moves = !waits && !is_left && !matches!(node.standing, Standing::Parked { .. });
            assert_eq!(self.moving.contains(id), moves);
            assert_eq!(self.coming.contains(id), matches!(node.standing, Standing::Coming { .. }));
            for need in &node.needs {
                assert_eq!(need.met, self.provided.satisfies(&need.requirement));
            }
        }
        let names =
            self.nodes.iter().flat_map(|(id, node)| node.brings.iter().map(move |one| (&*one.name, *id)));
        let mut offered: BTreeMap<&str, BTreeSet<NodeId>> = BTreeMap::new();
        names.for_each(|(name, id)| _ = offered.entry(name).or_default().insert(id));
        assert!(offered.iter().all(|(name, ids)| ids.iter().eq(self.offered_by.get(name))));
        assert_eq!(offered.len(), self.offered_by.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn what_moves_is_what_moves_whatever_happened_before(
        packages in prop::collection::vec(
            (prop::collection::btree_set(0..8_usize, 0..4), prop::collection::btree_set(0..8_usize, 0..3)),
            9,
        ),
        steps in prop::collection::vec((0..10_u8, 0..9_usize, 0..8_usize), 0..50),
    ) {
        let name = |number: &usize| format!("cap{number}");
        let texts = |numbers: &BTreeSet<usize>| numbers.iter().map(name).collect::<Vec<_>>();
        let srpms: Vec<_> = packages.iter().enumerate().map(|(number, (needs, brings))| {
            let (needs, brings) = (texts(needs), texts(brings));
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            let brings: Vec<&str> = brings.iter().map(String::as_str).collect();
            srpm(number, &needs, &brings)
        }).collect();
        let (mut plan, mut now, mut generation) = (Plan::default(), Duration::ZERO, 0_u64);
        for (what, number, other) in steps {
            let srpm = &srpms[number];
            let is_in_source = plan.ids.get(&srpm.key).is_some_and(|id| {
                matches!(plan.nodes[id].standing, Standing::Queued(_) | Standing::Parked { .. })
            });
            match what {
                0..=2 => plan.enter(now, srpm, MINUTE),
                3 if is_in_source || other == 0 => plan.run(now, srpm, MINUTE),
                4 => plan.leave(now, &srpm.key),
                5 if plan.is_running(&srpm.key) => plan.publish(now, &srpm.key, srpm.header.nvr.clone(), MINUTE),
                // Also at a start, when it is found.
                6 if plan.is_running(&srpm.key) || !plan.ids.contains_key(&srpm.key) => {
                    plan.park(now, srpm, MINUTE, &[name(&other).parse().unwrap()], generation.saturating_sub(1));
                }
                7 => {
                    generation += 1;
                    let name = name(&other);
                    let path = format!("p{number}-1-1/{generation}.rpm");
                    let gone = format!("p{number}-1-1/{}.rpm", generation.saturating_sub(3));
                    let added = vec![package(&path, &[name.as_str()], &[])];
                    let woken = plan.contents(now, change(generation, added, &[gone.as_str()]));
                    for woken in woken {
                        assert!(matches!(plan.wait_of(&woken.key), Some(Wait::None | Wait::For(_))));
                    }
                }
                9 => {
                    let some = srpms.iter().skip(number).take(other).map(|srpm| srpm.key.clone());
                    plan.set_untakeable(now, &some.collect());
                }
                8 => {
                    now += MINUTE * other as u32;
                    // What is tried and nobody takes, others do not wait for: one after the other.
                    for _ in 0..=srpms.len() {
                        plan.on_time(now);
                        plan.check();
                    }
                    // It would be called again at once, for ever.
                    assert!(plan.next_deadline().is_none_or(|at| at > now), "{:?}", plan.next_deadline());
                }
                _ => {}
            }
            plan.check();
        }
    }
}

/// One thing that happens to SRPM `number` before the queue is known.
fn at_the_start(
    plan: &mut Plan,
    srpms: &[QueuedSrpm],
    generation: &mut u64,
    (what, number, other): (u8, usize, usize),
) {
    let (now, srpm, name) = (Duration::ZERO, &srpms[number], format!("cap{other}"));
    let expected = MINUTE * (1 + number as u32);
    match what {
        0..=5 => plan.enter(now, srpm, expected),
        6 => plan.run(now, srpm, expected),
        7 => plan.leave(now, &srpm.key),
        8 if plan.is_running(&srpm.key) => plan.publish(now, &srpm.key, srpm.header.nvr.clone(), expected),
        9 if plan.is_running(&srpm.key) || !plan.ids.contains_key(&srpm.key) => {
            plan.park(now, srpm, expected, &[name.parse().unwrap()], generation.saturating_sub(1));
        }
        10 => {
            *generation += 1;
            let path = format!("p{number}-1-1/{generation}.rpm");
            plan.contents(now, change(*generation, vec![package(&path, &[&name], &[])], &[]));
        }
        11 => {
            let some = srpms.iter().skip(number).take(other).map(|srpm| srpm.key.clone());
            plan.set_untakeable(now, &some.collect());
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// A start comes to what one by one comes to.
    #[test]
    fn what_is_gathered_finds_the_same_places(
        packages in prop::collection::vec(
            (prop::collection::btree_set(0..8_usize, 0..4), prop::collection::btree_set(0..8_usize, 0..3)),
            9,
        ),
        ranks in prop::collection::vec(prop_oneof![Just(u32::MAX), 1..5_u32], 9),
        steps in prop::collection::vec((0..12_u8, 0..9_usize, 0..8_usize), 0..40),
    ) {
        let texts = |numbers: &BTreeSet<usize>| numbers.iter().map(|n| format!("cap{n}")).collect::<Vec<_>>();
        let mut srpms: Vec<_> = packages.iter().enumerate().map(|(number, (needs, brings))| {
            let (needs, brings) = (texts(needs), texts(brings));
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            let brings: Vec<&str> = brings.iter().map(String::as_str).collect();
            srpm(number, &needs, &brings)
        }).collect();
        srpms.sort_by(|a, b| a.key.cmp(&b.key));
        let ranks = || srpms.iter().map(|srpm| &srpm.key).zip(ranks.iter().copied());
        let (mut plan, mut gathered) = (Plan::default(), Plan::gathering());
        for plan in [&mut plan, &mut gathered] {
            let mut generation = 0;
            steps.iter().for_each(|step| at_the_start(plan, &srpms, &mut generation, *step));
        }
        prop_assert!(gathered.take_changes().is_empty());
        gathered.begin(Duration::ZERO, ranks());
        plan.set_ranks(ranks());
        plan.check();
        gathered.check();
        let told: Vec<_> = gathered.take_changes().into_iter().map(|change| change.key).collect();
        // Paths are the same where there are longest ones: no cycle, not even one that was there before; nor is it told
        // apart there whether what does not wait any more for what it needs came first.
        let mut all = Plan::default();
        srpms.iter().for_each(|srpm| all.enter(Duration::ZERO, srpm, MINUTE));
        let is_simple = all.components(&all.nodes.keys().copied().collect()).iter().all(|one| one.len() == 1)
            && !steps.iter().any(|(what, ..)| [9, 10].contains(what));
        prop_assert_eq!(&plan.ids, &gathered.ids);
        for (id, one) in &plan.nodes {
            let other = &gathered.nodes[id];
            prop_assert_eq!(
                (&one.standing, one.live, one.rank, one.urgency, one.untakeable),
                (&other.standing, other.live, other.rank, other.urgency, other.untakeable),
                "{}", one.key
            );
            if is_simple {
                prop_assert_eq!(one.path, other.path, "{}", one.key);
            }
            let is_in_source = matches!(one.standing, Standing::Queued(_) | Standing::Parked { .. });
            prop_assert_eq!(told.contains(&one.key), is_in_source);
        }
    }
}

#[test]
fn the_longest_chain_comes_first() {
    let mut plan = Plan::default();
    let times = [5, 1, 3, 9].map(|minutes| MINUTE * minutes);
    // 0 <- 1 <- 2, and 3 alone.
    let srpms = [srpm(0, &[], &["a"]), srpm(1, &["a"], &["b"]), srpm(2, &["b"], &[]), srpm(3, &[], &["c"])];
    // The dependents first, so that each later one lengthens nothing but itself; then the other way round.
    for order in [[2, 1, 0, 3], [0, 1, 2, 3], [1, 3, 0, 2]] {
        order.iter().for_each(|n| plan.enter(Duration::ZERO, &srpms[*n], times[*n]));
        let paths: BTreeMap<_, _> =
            plan.take_changes().into_iter().map(|Change { key, path, .. }| (key, path)).collect();
        let path = |n: usize| paths[&srpms[n].key];
        assert_eq!((path(0), path(3)), (Some(MINUTE * 9), Some(MINUTE * 9)), "{order:?}");
        assert_eq!((path(1), path(2)), (None, None));
        assert_eq!(plan.longest_path(), MINUTE * 9);
        // What is gone lengthens nothing.
        plan.leave(Duration::ZERO, &srpms[2].key);
        assert_eq!(plan.nodes[&plan.ids[&srpms[0].key]].path, MINUTE * 6);
        srpms.iter().for_each(|srpm| plan.leave(Duration::ZERO, &srpm.key));
        assert!(plan.nodes.is_empty() && plan.wanted_by.len() + plan.offered_by.len() == 0);
    }
}

/// Versions, files, rich requirements: whatever says that something is missing is woken by what brings it.
#[test]
fn what_is_missing_wakes_by_rpms_rules() {
    let brings = |provides: &[&str], files: &[&str]| vec![package("x/x.rpm", provides, files)];
    let table = [
        ("pkgconfig(z) >= 1.2", brings(&["pkgconfig(z) = 1.2.11"], &[]), true),
        ("pkgconfig(z) >= 1.2", brings(&["pkgconfig(z) = 1.1"], &[]), false),
        ("libz.so.1()(64bit)", brings(&["libz.so.1()(64bit)"], &[]), true),
        ("/usr/bin/foo", brings(&[], &["/usr/bin/foo"]), true),
        ("/usr/bin/foo", brings(&[], &["/usr/bin/fool"]), false),
        ("/usr/bin/foo", brings(&["/usr/bin/foo"], &[]), true),
        ("(a or b)", brings(&["b"], &[]), true),
        ("(a and gcc)", brings(&["a"], &[]), true),
        ("(a if b)", brings(&["b"], &[]), false),
        ("a = 1:2", brings(&["a = 2"], &[]), false),
    ];
    for (missing, added, wakes) in table {
        let mut plan = Plan::default();
        let parked = srpm(0, &[], &[]);
        plan.run(Duration::ZERO, &parked, MINUTE);
        assert!(plan.park(Duration::ZERO, &parked, MINUTE, &[missing.parse().unwrap()], 0));
        let woken = plan.contents(Duration::ZERO, change(1, added, &[]));
        assert_eq!(woken.len(), usize::from(wakes), "{missing}");
        assert_eq!(plan.ready().len(), usize::from(wakes));
    }
}

/// The attempt had it and did not find it: the same thing again is no news.
#[test]
fn what_was_there_already_wakes_nobody() {
    let mut plan = Plan::default();
    let parked = srpm(0, &["a"], &[]);
    plan.contents(Duration::ZERO, change(4, vec![package("a.rpm", &["a"], &[])], &[]));
    let missing = ["a".parse().unwrap()];
    plan.run(Duration::ZERO, &parked, MINUTE);
    assert!(plan.park(Duration::ZERO, &parked, MINUTE, &missing, 4));
    assert!(matches!(plan.wait_of(&parked.key), Some(Wait::Parked(missing)) if missing[0].is_there));
    assert!(plan.contents(Duration::ZERO, change(5, vec![package("b.rpm", &["b"], &[])], &[])).is_empty());
    assert_eq!(plan.contents(Duration::ZERO, change(6, vec![package("a2.rpm", &["a"], &[])], &[])).len(), 1);
    // It had come before the attempt had ended: nothing to wait for.
    plan.run(Duration::ZERO, &parked, MINUTE);
    assert!(!plan.park(Duration::ZERO, &parked, MINUTE, &missing, 5));
}

/// Published is not in the repository: who needs it waits for the generation that lists it, and not for ever.
#[test]
fn what_is_published_is_waited_for_until_it_is_listed() {
    let (library, program) = (srpm(0, &[], &["lib"]), srpm(1, &["lib"], &[]));
    let begin = || {
        let mut plan = Plan::default();
        plan.enter(Duration::ZERO, &library, MINUTE);
        plan.enter(Duration::ZERO, &program, MINUTE);
        plan.run(Duration::ZERO, &library, MINUTE);
        plan.publish(Duration::ZERO, &library.key, library.header.nvr.clone(), MINUTE);
        assert!(plan.ready().is_empty());
        plan
    };
    let mut plan = begin();
    plan.contents(MINUTE, change(1, vec![package("other-1-1/x.rpm", &["lib"], &[])], &[]));
    assert_eq!(plan.ready(), ["p1".to_owned()].into(), "somebody else has brought it");
    let mut plan = begin();
    plan.contents(MINUTE, change(1, vec![package("p0-1-1/lib.rpm", &["lib"], &[])], &[]));
    assert_eq!((plan.ready(), plan.nodes.len()), (["p1".to_owned()].into(), 1));
    let mut plan = begin();
    plan.on_time(super::COMING - MINUTE);
    assert!(plan.ready().is_empty());
    plan.on_time(super::COMING);
    assert_eq!(plan.ready(), ["p1".to_owned()].into());
}
