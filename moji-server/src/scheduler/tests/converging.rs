//! A queue of packages that need each other comes to its end by itself: what can be built is built, each with as few
//! tries as what it could know allows, and what cannot says why.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome, SrpmName};
use proptest::prelude::*;

use super::super::{Builder, Effect, Event, Fate, Rules, STUCK, Scheduler, SessionId, Wait};
use super::world::{GRACE, target};
use crate::BuildKey;
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, Evr, PackagePath, PublishedPackage, Relations};
use crate::metadata::Repository;
use crate::source::{QueuedSrpm, SrpmHeader};

/// One package, as it really is.
#[derive(Debug, Clone, Default)]
struct Package {
    needs: BTreeSet<usize>,
    /// What it is known to bring, and what shows only when it is built.
    brings: BTreeSet<usize>,
    brings_too: BTreeSet<usize>,
    fails: bool,
}

/// The farm as far as it matters here: builders that build at once or late, and a repository.
struct Farm {
    scheduler: Scheduler,
    packages: Vec<Package>,
    /// What other repositories have; the scheduler does not know it.
    base: BTreeSet<usize>,
    now: Duration,
    running: BTreeMap<AttemptId, (usize, BTreeSet<usize>)>,
    available: BTreeSet<usize>,
    generation: u64,
    coming: Vec<usize>,
    built: BTreeSet<usize>,
    failed: BTreeSet<usize>,
    tries: Vec<usize>,
    /// How often something came of which the last attempt had shown that it is missing.
    appeared: Vec<usize>,
    missing: Vec<BTreeSet<usize>>,
    /// Names all that is missing, or only the first.
    says_all: bool,
}

const SESSION: SessionId = SessionId(7);

fn name_of(capability: usize) -> String {
    format!("cap{capability}")
}

fn key_of(package: usize) -> BuildKey {
    let srpm = SrpmName::new(format!("p{package}-1-{}.src.rpm", 20 + package)).unwrap();
    BuildKey { target: None, srpm }
}

fn capability(number: usize) -> Capability {
    Capability { name: name_of(number).into(), versions: None }
}

impl Farm {
    fn new(packages: Vec<Package>, base: BTreeSet<usize>, slots: u16) -> Self {
        let rules = Rules { backup_after: 0, ..Rules::default() };
        let count = packages.len();
        let mut farm = Self {
            scheduler: Scheduler::new(5, GRACE).with_rules(rules),
            packages,
            base,
            now: Duration::ZERO,
            running: BTreeMap::new(),
            available: BTreeSet::new(),
            generation: 0,
            coming: Vec::new(),
            built: BTreeSet::new(),
            failed: BTreeSet::new(),
            tries: vec![0; count],
            appeared: vec![0; count],
            missing: vec![BTreeSet::new(); count],
            says_all: true,
        };
        let builder = Builder {
            id: "board".parse().unwrap(),
            targets: vec![target("f43-arm")],
            arch: "armv7l".into(),
            resources: moji_proto::Resources { cores: 2, memory: 1 << 30, disk: 1 << 30 },
            tags: Vec::new(),
        };
        farm.tell(Event::Ready);
        farm.tell(Event::Connected { session: SESSION, builder });
        for slot in 0..slots {
            farm.tell(Event::Asked { session: SESSION, slot });
        }
        farm
    }

    fn tell(&mut self, event: Event) {
        let effects = self.scheduler.handle(self.now, event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Lease(lease) => {
                    let package = self.number_of(&lease.srpm.key);
                    self.tries[package] += 1;
                    self.running.insert(lease.attempt, (package, self.available.clone()));
                }
                Effect::Commit { lease, outcome, fate } => {
                    let package = self.number_of(&lease.srpm.key);
                    match (&outcome, fate) {
                        (Outcome::Succeeded, _) => self.coming.push(package),
                        (_, Fate::Park(_)) => {}
                        (_, fate) => {
                            assert_eq!(fate, Fate::Settle);
                            assert!(self.failed.insert(package));
                        }
                    }
                    let event = Event::Committed { attempt: lease.attempt, rpms: outcome.is_success() };
                    todo.extend(self.scheduler.handle(self.now, event));
                    todo.extend(
                        self.scheduler
                            .handle(self.now, Event::Asked { session: SESSION, slot: lease.slot.unwrap() }),
                    );
                }
                Effect::Woken { .. } | Effect::Accept { .. } | Effect::Ended { .. } | Effect::Requeue(_) => {}
                Effect::Suspend { .. } | Effect::Hold { .. } | Effect::Forget(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn number_of(&self, key: &BuildKey) -> usize {
        (0..self.packages.len()).find(|number| key_of(*number) == *key).unwrap()
    }

    fn drop_srpm(&mut self, number: usize) {
        let package = &self.packages[number];
        let relations = Relations {
            build_requires: package.needs.iter().map(|need| name_of(*need).parse().unwrap()).collect(),
            provides: package.brings.iter().map(|brings| capability(*brings)).collect(),
        };
        let key = key_of(number);
        let header = SrpmHeader {
            name: format!("p{number}"),
            epoch: None,
            version: "1".into(),
            release: (20 + number).to_string(),
            nvr: key.srpm.stem().parse().unwrap(),
            relations: Arc::new(relations),
        };
        let queued_at = jiff::Timestamp::from_second(1000 - number as i64).unwrap();
        self.tell(Event::Found(QueuedSrpm { key, header, size: 10 + number as u64, queued_at }));
    }

    /// One of the running builds ends.
    fn end(&mut self, which: usize) {
        let Some(attempt) = self.running.keys().nth(which % self.running.len().max(1)).copied() else {
            return;
        };
        let (number, found) = self.running.remove(&attempt).unwrap();
        let package = &self.packages[number];
        let is_there = |need: &&usize| found.contains(need) || self.base.contains(need);
        let mut missing: BTreeSet<usize> =
            package.needs.iter().filter(|need| !is_there(need)).copied().collect();
        if !self.says_all {
            missing = missing.first().copied().into_iter().collect();
        }
        let outcome = match (missing.is_empty(), package.fails) {
            (false, _) => {
                let names = missing.iter().map(|need| name_of(*need)).collect();
                Outcome::failed(FailureKind::MissingDependency, "it is missing", Some(30), names)
            }
            (true, true) => Outcome::failed(FailureKind::Package, "%build failed", Some(1), Vec::new()),
            (true, false) => Outcome::Succeeded,
        };
        // What has come while it was built counts as well.
        if missing.iter().any(|need| self.available.contains(need)) {
            self.appeared[number] += 1;
            missing.clear();
        }
        self.missing[number] = missing;
        self.tell(Event::Delivered { session: SESSION, attempt, outcome });
    }

    /// What is published comes into the repository.
    fn generate(&mut self) {
        self.generation += 1;
        let mut added = Vec::new();
        for number in std::mem::take(&mut self.coming) {
            let package = &self.packages[number];
            let provides: Vec<usize> = package.brings.union(&package.brings_too).copied().collect();
            self.available.extend(&provides);
            self.built.insert(number);
            added.push(PublishedPackage {
                path: PackagePath::new(format!("p{number}-1-{}/p.rpm", 20 + number)),
                name: format!("p{number}").into(),
                evr: Evr::new("1-1"),
                arch: "noarch".into(),
                source: Some(format!("p{number}-1-{}.src.rpm", 20 + number).into()),
                provides: provides.into_iter().map(capability).collect(),
                files: Vec::new(),
            });
        }
        for number in 0..self.packages.len() {
            let came = self.missing[number].iter().any(|need| self.available.contains(need));
            if came {
                self.appeared[number] += 1;
                self.missing[number].clear();
            }
        }
        let change = RepositoryChange {
            repository: Repository::Main,
            generation: self.generation,
            added,
            removed: Vec::new(),
        };
        self.tell(Event::Contents { target: None, change: Box::new(change) });
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let effects = self.scheduler.on_time(self.now);
        self.carry_out(effects);
    }

    /// Until nothing happens any more.
    fn settle(&mut self) {
        for round in 0..10_000 {
            if let Some(deadline) = self.scheduler.next_deadline().filter(|at| *at <= self.now) {
                assert!(deadline <= self.now);
                self.wait(Duration::ZERO);
            } else if !self.running.is_empty() {
                self.end(round);
            } else if !self.coming.is_empty() {
                self.generate();
            } else {
                assert!(!self.scheduler.moves(), "something moves, and nothing does");
                return;
            }
        }
        panic!("it goes on for ever");
    }

    /// What can be built at all.
    fn buildable(&self) -> BTreeSet<usize> {
        let (mut built, mut there) = (BTreeSet::new(), self.base.clone());
        loop {
            let next = self.packages.iter().enumerate().find(|(number, package)| {
                !built.contains(number) && !package.fails && package.needs.is_subset(&there)
            });
            let Some((number, package)) = next else { return built };
            built.insert(number);
            there.extend(package.brings.iter().chain(&package.brings_too));
        }
    }

    /// What is missing for whom, at the end.
    fn check(&self, arrived: &BTreeSet<usize>) {
        let expected = self.buildable();
        assert_eq!(self.built, expected, "built is what can be built");
        let there: BTreeSet<usize> = self.base.union(&self.available).copied().collect();
        for number in arrived.iter().filter(|number| !expected.contains(number)) {
            let package = &self.packages[*number];
            let missing: BTreeSet<_> = package.needs.difference(&there).collect();
            let wait = self.scheduler.wait_of(&key_of(*number));
            match wait {
                None => {
                    assert!(package.fails && missing.is_empty() && self.failed.contains(number), "{number}")
                }
                Some(Wait::Parked(says)) => {
                    let says: BTreeSet<_> = says.iter().map(|one| one.requirement.to_string()).collect();
                    let names: BTreeSet<_> = missing.into_iter().map(|need| name_of(*need)).collect();
                    let is_so = if self.says_all { says == names } else { says.is_subset(&names) };
                    assert!(is_so && !says.is_empty(), "{number}: {says:?}, and not {names:?}");
                }
                other => panic!("{number} is not tried: {other:?}"),
            }
        }
        for number in arrived {
            let (tries, appeared) = (self.tries[*number], self.appeared[*number]);
            assert!(
                tries <= 1 + appeared,
                "{number} was tried {tries} times, and what it lacked came {appeared} times"
            );
        }
    }
}

fn packages(most: usize, names: usize, acyclic: bool) -> impl Strategy<Value = Vec<Package>> {
    let numbers = move |up_to| prop::collection::btree_set(0..names, 0..up_to);
    let package = (numbers(4), numbers(3), numbers(2), prop::bool::weighted(0.1));
    let package =
        package.prop_map(|(needs, brings, brings_too, fails)| Package { needs, brings, brings_too, fails });
    prop::collection::vec(package, 1..most).prop_map(move |mut packages| {
        if acyclic {
            // What a package needs nobody brings who comes after it.
            let count = packages.len();
            for number in 0..count {
                let later: BTreeSet<usize> = packages[number..]
                    .iter()
                    .flat_map(|package| {
                        package.brings.union(&package.brings_too).copied().collect::<Vec<_>>()
                    })
                    .collect();
                packages[number].needs.retain(|need| !later.contains(need));
            }
        }
        packages
    })
}

/// Things that happen while SRPMs arrive.
fn run(packages: Vec<Package>, base: BTreeSet<usize>, slots: u16, order: &[usize], says_all: bool) -> Farm {
    let count = packages.len();
    let mut farm = Farm::new(packages, base, slots);
    farm.says_all = says_all;
    let mut arrived = BTreeSet::new();
    for (step, number) in order.iter().enumerate() {
        match number % 4 {
            _ if arrived.insert(number / 4 % count) => farm.drop_srpm(number / 4 % count),
            0 | 1 => farm.end(step),
            2 => farm.generate(),
            _ => farm.wait(Duration::from_secs(*number as u64)),
        }
    }
    for number in 0..count {
        if arrived.insert(number) {
            farm.drop_srpm(number);
        }
    }
    farm.settle();
    farm.check(&arrived);
    farm
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_set_in_any_order_converges_with_few_tries(
        packages in packages(14, 12, true),
        base in prop::collection::btree_set(0..12_usize, 0..5),
        slots in 1..4_u16,
        order in prop::collection::vec(0..400_usize, 0..60),
        says_all in any::<bool>(),
    ) {
        let farm = run(packages, base, slots, &order, says_all);
        prop_assert!(farm.scheduler.outlook().cycles.is_empty());
    }

    #[test]
    fn what_needs_itself_in_a_circle_is_found_and_the_rest_is_built(
        packages in packages(10, 8, false),
        base in prop::collection::btree_set(0..8_usize, 0..4),
        slots in 1..4_u16,
        order in prop::collection::vec(0..400_usize, 0..60),
    ) {
        let farm = run(packages, base, slots, &order, true);
        let found: BTreeSet<BTreeSet<BuildKey>> =
            farm.scheduler.outlook().cycles.into_iter().map(|cycle| cycle.members).collect();
        prop_assert_eq!(found, circles(&farm));
    }
}

/// The circles among what is not built, the slow way: who reaches whom and back.
fn circles(farm: &Farm) -> BTreeSet<BTreeSet<BuildKey>> {
    let parked: Vec<usize> = (0..farm.packages.len())
        .filter(|number| matches!(farm.scheduler.wait_of(&key_of(*number)), Some(Wait::Parked(_))))
        .collect();
    let there: BTreeSet<usize> = farm.base.union(&farm.available).copied().collect();
    let needs = |one: usize, other: usize| {
        one != other
            && farm.packages[one]
                .needs
                .difference(&there)
                .any(|need| farm.packages[other].brings.contains(need))
    };
    let reach = |from: usize| {
        let (mut reached, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(one) = todo.pop() {
            todo.extend(
                parked.iter().filter(|other| needs(one, **other)).filter(|other| reached.insert(**other)),
            );
        }
        reached
    };
    let circle = |number: &usize| -> BTreeSet<usize> {
        reach(*number).into_iter().filter(|other| reach(*other).contains(number)).collect()
    };
    let found = parked.iter().map(circle).filter(|circle| circle.len() > 1);
    found.map(|circle| circle.into_iter().map(key_of).collect()).collect()
}

fn chain(needs: &[(&[usize], &[usize])]) -> Vec<Package> {
    let package = |(needs, brings): &(&[usize], &[usize])| Package {
        needs: needs.iter().copied().collect(),
        brings: brings.iter().copied().collect(),
        ..Package::default()
    };
    needs.iter().map(package).collect()
}

#[test]
fn a_known_chain_in_the_worst_order_takes_one_try_each() {
    let mut farm = Farm::new(chain(&[(&[1], &[0]), (&[2], &[1]), (&[3], &[2]), (&[9], &[3])]), [9].into(), 4);
    (0..4).for_each(|number| farm.drop_srpm(number));
    // The first ones came when nobody was known to bring what they need.
    farm.settle();
    farm.check(&(0..4).collect());
    let mut farm = Farm::new(chain(&[(&[1], &[0]), (&[2], &[1]), (&[3], &[2]), (&[9], &[3])]), [9].into(), 0);
    (0..4).for_each(|number| farm.drop_srpm(number));
    (0..4).for_each(|slot| farm.tell(Event::Asked { session: SESSION, slot }));
    farm.settle();
    assert_eq!(farm.tries, [1; 4]);
}

#[test]
fn a_circle_is_named_step_by_step() {
    let mut farm = Farm::new(chain(&[(&[1], &[0]), (&[2], &[1]), (&[0], &[2]), (&[0], &[5])]), [].into(), 2);
    (0..4).for_each(|number| farm.drop_srpm(number));
    farm.settle();
    let cycles = farm.scheduler.outlook().cycles;
    let steps: Vec<_> =
        cycles[0].steps.iter().map(|(key, needs)| format!("{} {needs}", key.srpm.stem())).collect();
    assert_eq!(steps, ["p0-1-20 cap1", "p1-1-21 cap2", "p2-1-22 cap0"]);
    assert_eq!((cycles.len(), cycles[0].members.len()), (1, 3));
    assert_eq!(farm.tries, [1; 4]);
}

/// It would wait for ever for one that is itself parked, while others are built without end.
#[test]
fn nobody_waits_for_long_for_what_does_not_move() {
    let packages = chain(&[(&[1], &[0]), (&[2], &[1]), (&[], &[5])]);
    let mut farm = Farm::new(packages, [1].into(), 0);
    (0..3).for_each(|number| farm.drop_srpm(number));
    // It has tried 1, which lacks 2, and is busy with the third.
    farm.tell(Event::Asked { session: SESSION, slot: 0 });
    farm.tell(Event::Asked { session: SESSION, slot: 1 });
    let first = farm.running.iter().find(|(_, (number, _))| *number == 1).map(|(attempt, _)| *attempt);
    let place = farm.running.keys().position(|attempt| Some(*attempt) == first).unwrap();
    farm.end(place);
    assert_eq!(farm.tries, [0, 1, 1]);
    farm.wait(STUCK - Duration::from_secs(1));
    assert_eq!(farm.tries[0], 0);
    farm.wait(Duration::from_secs(1));
    assert_eq!(farm.tries[0], 1);
}
