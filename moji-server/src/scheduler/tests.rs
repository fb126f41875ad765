//! Tier 0: the scheduler against a model of the folders and the builders, in any order of events.

mod attempts;
mod blaming;
mod converging;
mod waiting;
mod world;

use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome};
use proptest::prelude::*;

use crate::estimates::{BuilderClass, Estimates, Sample};

use super::{COMMIT_RETRY, Claim, Event, Lease, LeaseState, Rules, Scheduler, SessionId};
use world::{FIRST_BOOT, GRACE, Memory, World, failed, key, srpm};

const TARGETS: [&[&str]; 3] = [&["f43-arm"], &["f43-x86"], &["f43-x86", "f43-arm"]];
/// Two that differ in nothing but their credential.
const NAMES: [&str; 3] = ["panda", "tegra", "lab/panda"];

impl World {
    /// One of the things that can happen; numbers choose what it happens to.
    fn step(&mut self, what: u8, n: usize, at: i64) {
        let session = self.sessions.keys().nth(n % 5).copied();
        let speaking = self.memories.iter().filter(|(_, memory)| memory.session.is_some());
        let speaking = speaking.map(|(attempt, _)| *attempt).nth(n % 3);
        let remembered = self.memories.keys().nth(n % 7).copied();
        let committing = self.committing.keys().nth(n % 3).copied();
        match (what, session) {
            (0..=4, _) => self.drop_srpm(n % 9, at),
            (5, _) if self.source.remove(&key(n % 9)).is_some() => self.tell(Event::Gone(key(n % 9))),
            (6..=8, _) if self.sessions.len() < 5 => {
                self.connect(NAMES[n % 3], TARGETS[n / 3 % 3]);
            }
            (9..=14, Some(session)) => self.ask(session, (n / 5 % 3) as u16),
            (15 | 16, Some(session)) => self.lose(session),
            (17, _) => {
                if let Some(session) = self.doomed.first().copied() {
                    self.lose(session);
                }
            }
            (18..=22, Some(session)) => {
                if let Some(attempt) = remembered {
                    self.hold(session, attempt);
                }
            }
            (23..=29, _) => {
                let outcomes = [
                    Outcome::Succeeded,
                    Outcome::Succeeded,
                    failed(FailureKind::Package),
                    failed(FailureKind::Infrastructure),
                    failed(FailureKind::Configuration),
                    failed(FailureKind::Interrupted),
                    Outcome::failed(
                        FailureKind::MissingDependency,
                        "no",
                        Some(30),
                        vec![format!("lib{}", n % 3)],
                    ),
                ];
                if let Some(attempt) = speaking {
                    self.deliver(attempt, outcomes[usize::from(what - 23)].clone());
                }
            }
            (30, Some(session)) => self.strange(session, n),
            (31 | 32, _) => {
                if let Some(attempt) = speaking
                    && self.memories.get(&attempt).is_some_and(|memory| !memory.has_delivered)
                    && let Some(memory) = self.memories.remove(&attempt)
                    && let Some(session) = memory.session
                {
                    self.tell(Event::Released { session, attempt, trouble: what == 32 });
                }
            }
            (33..=35, _) => {
                if let Some(attempt) = committing {
                    self.finish_commit(attempt, what != 35);
                }
            }
            (36, _) => self.wait(Duration::from_secs(n as u64)),
            (37, _) => self.wait(Duration::from_secs(n as u64 * 100)),
            (38, _) => {
                let taken = self.working.keys().nth(n % 3).cloned();
                let commits =
                    |key: &crate::BuildKey| self.committing.values().any(|lease| lease.srpm.key == *key);
                if let Some(key) = taken.filter(|key| !commits(key)) {
                    self.working.remove(&key);
                    self.tell(Event::Withdrawn(key));
                }
            }
            (39, _) => self.set_priority(key(n % 9).target, &format!("pkg{}\n", n % 3)),
            (40, Some(session)) => {
                self.asking.retain(|(asking, _)| *asking != session);
                self.tell(Event::Draining(session));
            }
            (41 | 42, _) => {
                self.ready = true;
                self.tell(Event::Ready);
            }
            // A person takes an SRPM away, and nobody has told the scheduler yet.
            (43, Some(session)) if self.source.remove(&key(n % 9)).is_some() => {
                self.ask(session, 7);
                // It may be back already, from WORKING; the farm looks.
                if !self.source.contains_key(&key(n % 9)) {
                    self.tell(Event::Gone(key(n % 9)));
                }
            }
            (44, _) => self.tell(Event::Room(n.is_multiple_of(2))),
            (45, _) if n.is_multiple_of(4) => self.restart(),
            (46, _) => {
                self.reserved.push(key(n % 9));
                self.tell(Event::Reserved(key(n % 9)));
            }
            (47, _) if !self.reserved.is_empty() => {
                let key = self.reserved.swap_remove(n % self.reserved.len());
                self.tell(Event::Unreserved(key));
            }
            (49, _) => self.publish(&[["lib0", "lib1", "lib2"][n % 3]]),
            (48, _) => {
                let is_success = |lease: &Lease| {
                    let outcome = &lease.state;
                    matches!(outcome, LeaseState::Committing { outcome: Outcome::Succeeded, .. })
                };
                if let Some(attempt) = committing.filter(|attempt| is_success(&self.committing[attempt])) {
                    self.reject(attempt);
                }
            }
            (50, _) => {
                if let Some(attempt) = committing {
                    self.lose_results(attempt);
                }
            }
            _ => {}
        }
    }

    /// Somebody settles, gives back or claims what he does not hold.
    fn strange(&mut self, session: SessionId, n: usize) {
        let attempt = AttemptId { boot: 0xb007, serial: n as u64 };
        let knows = |memory: &Memory| memory.held_on.contains(&session) || memory.session == Some(session);
        let holds = |lease: &Lease| lease.session == Some(session);
        if self.memories.get(&attempt).is_some_and(knows) || self.scheduler.lease(attempt).is_some_and(holds)
        {
            return;
        }
        let before = self.scheduler.lease(attempt).cloned();
        let is_of_another = before.as_ref().is_some_and(|lease| lease.builder != self.sessions[&session].id);
        self.tell(Event::Delivered { session, attempt, outcome: Outcome::Succeeded });
        self.tell(Event::Released { session, attempt, trouble: true });
        if is_of_another {
            self.tell(Event::Held { claim: Claim { session, slot: None }, attempt });
        }
        assert_eq!(self.scheduler.lease(attempt).cloned(), before, "a stranger has settled {attempt}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_settled_twice_in_any_order_of_events(
        steps in proptest::collection::vec((0u8..51, 0usize..40, 0i64..100), 0..200),
    ) {
        let mut world = World::new();
        for (what, n, at) in steps {
            world.step(what, n, at);
            world.check();
        }
        world.settle();
    }
}

/// A farm that is ready, with one builder.
fn ready(targets: &[&str]) -> (World, SessionId) {
    let mut world = World::new();
    world.step(41, 0, 0);
    let session = world.connect("board", targets);
    (world, session)
}

/// The attempt that a builder works on, and nobody else.
fn attempt_of(world: &World, n: usize) -> AttemptId {
    let attempts: Vec<_> = world.scheduler.holders(&key(n)).map(|lease| lease.attempt).collect();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    attempts[0]
}

fn order(world: &mut World, session: SessionId) -> Vec<String> {
    let mut order = Vec::new();
    for slot in 0..10 {
        world.ask(session, slot);
        let last = world.scheduler.leases().last().map(|lease| lease.srpm.key.to_string());
        order.extend(last.filter(|last| !order.contains(last)));
    }
    order
}

#[test]
fn priority_comes_first_then_age() {
    let (mut world, session) = ready(&["f43-arm"]);
    for (n, at) in [(0, 30), (1, 20), (2, 10)] {
        world.drop_srpm(n, at);
    }
    world.set_priority(None, "pkg1\n");
    assert_eq!(order(&mut world, session), ["pkg1-1-11.src.rpm", "pkg2-1-12.src.rpm", "pkg0-1-10.src.rpm"]);
}

#[test]
fn a_builder_gets_only_what_is_for_it() {
    let (mut world, session) = ready(&["f43-arm"]);
    for n in [3, 6, 0] {
        world.drop_srpm(n, n as i64);
    }
    assert_eq!(order(&mut world, session), ["pkg0-1-10.src.rpm", "f43-arm/pkg0-1-10.src.rpm"]);
    assert!(world.source.contains_key(&key(6)));
}

#[test]
fn nothing_is_handed_out_before_the_queue_is_known_nor_without_room() {
    let mut world = World::new();
    let session = world.connect("board", &["f43-arm"]);
    world.ask(session, 0);
    world.drop_srpm(0, 50);
    world.drop_srpm(1, 5);
    world.tell(Event::Room(false));
    world.step(41, 0, 0);
    assert!(world.working.is_empty());
    world.tell(Event::Room(true));
    assert!(world.working.contains_key(&key(1)), "the older one first");
}

#[test]
fn a_build_is_begun_a_second_time_after_twice_its_time_and_not_within_seconds() {
    // The last one is told never to do so.
    for (took, late, times) in [(1, 11, 2), (60, 120, 2), (60, 180, 3), (60, 100_000, 0)] {
        let mut world = World::new();
        let rules = Rules { backup_after: times, ..Rules::default() };
        world.scheduler = Scheduler::new(FIRST_BOOT, GRACE).with_rules(rules);
        world.step(41, 0, 0);
        let board = world.connect("board", &["f43-arm"]);
        let took = Duration::from_secs(took);
        let class = BuilderClass::new("riscv64", 64);
        let sample = Sample { package: "pkg0".into(), class, size: None, took };
        world.tell(Event::Estimates(Box::new(Estimates::from_history([sample]))));
        world.drop_srpm(0, 10);
        world.ask(board, 0);
        let other = world.connect("other", &["f43-arm"]);
        world.ask(other, 0);
        world.wait(Duration::from_secs(late) - Duration::from_millis(1));
        assert_eq!(world.scheduler.holders(&key(0)).count(), 1, "it takes {took:?}");
        world.wait(Duration::from_millis(1));
        let both = if times == 0 { 1 } else { 2 };
        assert_eq!(world.scheduler.holders(&key(0)).count(), both, "it takes {took:?}");
    }
}

/// However long the queue of one target is, and whatever its weight, the other one gets its share.
#[test]
fn targets_share_a_builder_by_their_weights() {
    for (weight, expected) in [(1, 10), (4, 4)] {
        let mut world = World::new();
        let weights = [(Some(world::target("f43-arm")), weight)].into();
        world.scheduler = super::Scheduler::new(7, GRACE).with_rules(super::Rules {
            weights,
            backup_after: 0,
            ..super::Rules::default()
        });
        world.step(41, 0, 0);
        let session = world.connect("board", &["f43-arm", "f43-x86"]);
        for n in 0..60 {
            for (target, count) in [("f43-arm", 60), ("f43-x86", 20)] {
                let srpm_name = format!("many{n}-1-1.src.rpm").parse().unwrap();
                let key = crate::BuildKey { target: Some(world::target(target)), srpm: srpm_name };
                if n < count {
                    world.source.insert(key.clone(), n);
                    world.tell(Event::Found(srpm(&key, n as i64)));
                }
            }
        }
        (0..20).for_each(|slot| world.ask(session, slot));
        let of_x86 = world.scheduler.leases().filter(|lease| lease.target.as_str() == "f43-x86").count();
        assert_eq!(of_x86, expected, "with weight {weight} against 1");
    }
}

#[test]
fn a_build_is_begun_a_second_time_once() {
    let (mut world, board) = ready(&["f43-arm"]);
    let sample = Sample {
        package: "pkg0".into(),
        class: BuilderClass::new("riscv64", 64),
        size: None,
        took: Duration::from_secs(60),
    };
    world.tell(Event::Estimates(Box::new(Estimates::from_history([sample]))));
    world.drop_srpm(0, 10);
    world.ask(board, 0);
    let others = ["one", "two"].map(|name| world.connect(name, &["f43-arm"]));
    others.iter().for_each(|other| world.ask(*other, 0));
    world.wait(Duration::from_secs(120));
    let second = world.scheduler.holders(&key(0)).last().unwrap().clone();
    world.memories.remove(&second.attempt);
    world.tell(Event::Released { session: second.session.unwrap(), attempt: second.attempt, trouble: false });
    world.wait(Duration::from_secs(120));
    assert_eq!(world.scheduler.holders(&key(0)).count(), 1);
    assert!(world.scheduler.next_deadline().is_none_or(|at| at > world.now), "it would be asked for ever");
}

/// Once it is back in SOURCE, its watcher may tell of it before the end of the commit is told.
#[test]
fn a_watcher_that_is_faster_than_the_commit_wakes_nobody() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.ask(session, 0);
    let attempt = attempt_of(&world, 0);
    let missing = vec!["lib0".to_owned()];
    world.deliver(attempt, Outcome::failed(FailureKind::MissingDependency, "no", Some(30), missing));
    world.tell(Event::Found(srpm(&key(0), 99)));
    world.finish_commit(attempt, true);
    assert!(matches!(world.scheduler.wait_of(&key(0)), Some(super::Wait::Parked(_))));
    world.ask(session, 0);
    assert!(world.working.is_empty());
    // Another one in its place is news.
    let mut other = srpm(&key(0), 99);
    other.size += 1;
    world.tell(Event::Found(other));
    assert!(world.working.contains_key(&key(0)));
}

#[test]
fn nothing_is_handed_out_before_it_is_known_what_its_repository_has() {
    let until = Duration::from_secs(30);
    for is_told in [true, false] {
        let (mut world, session) = ready(&["f43-arm"]);
        world.tell(Event::Unread { target: None, until });
        world.drop_srpm(0, 10);
        world.drop_srpm(3, 20);
        world.ask(session, 0);
        world.ask(session, 1);
        assert!(world.working.keys().eq([&key(3)]), "only what is for a repository that is known");
        match is_told {
            true => world.publish(&[]),
            false => world.wait(until),
        }
        assert!(world.working.contains_key(&key(0)));
    }
}

#[test]
fn what_is_queued_again_keeps_its_place() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.drop_srpm(1, 20);
    world.ask(session, 0);
    world.lose(session);
    world.wait(GRACE);
    // Its file looks new now.
    world.tell(Event::Found(srpm(&key(0), 99)));
    let session = world.connect("other", &["f43-arm"]);
    assert_eq!(order(&mut world, session)[0], "pkg0-1-10.src.rpm");
}

#[test]
fn a_lost_lease_lasts_for_the_grace_and_a_delivered_one_for_ever() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.drop_srpm(1, 20);
    world.ask(session, 0);
    world.ask(session, 1);
    let delivered = attempt_of(&world, 1);
    world.deliver(delivered, Outcome::Succeeded);
    world.lose(session);
    world.wait(GRACE - Duration::from_millis(1));
    assert!(world.working.contains_key(&key(0)));
    world.wait(Duration::from_millis(1));
    assert!(world.source.contains_key(&key(0)) && world.working.contains_key(&key(1)));
    world.finish_commit(delivered, false);
    world.wait(COMMIT_RETRY);
    world.finish_commit(delivered, true);
    assert!(world.finished.contains(&key(1)));
}

#[test]
fn ids_are_those_of_this_run_of_the_server() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.ask(session, 0);
    assert_eq!(attempt_of(&world, 0), AttemptId { boot: 0xb007, serial: 1 });
    world.restart();
    world.wait(world::PATIENCE);
    world.step(41, 0, 0);
    let session = world.connect("board", &["f43-arm"]);
    world.ask(session, 0);
    assert_eq!(attempt_of(&world, 0), AttemptId { boot: 0xb008, serial: 1 });
}

/// Who says it again and again must not keep the farm busy: it changes nothing.
#[test]
fn a_second_drain_moves_nothing() {
    let (mut world, session) = ready(&["f43-arm"]);
    let other = world.connect("other", &["f43-arm"]);
    world.ask(other, 0);
    world.tell(Event::Draining(session));
    // Were the queue looked at once more, this one would be found.
    world.source.insert(key(0), 1);
    world.scheduler.queue.insert(world.now, srpm(&key(0), 1), Duration::from_secs(1));
    world.scheduler.queue.take_fresh();
    world.tell(Event::Draining(session));
    assert!(world.working.is_empty() && world.scheduler.asks.len() == 1);
}

#[test]
fn slots_are_served_in_the_order_in_which_they_asked() {
    let mut world = World::new();
    let [idle, one, two] = [("idle", "f99"), ("one", "f43-arm"), ("two", "f43-arm")]
        .map(|(name, target)| world.connect(name, &[target]));
    for (session, slot) in [(idle, 0), (two, 1), (one, 0), (two, 0), (idle, 1), (one, 1)] {
        world.ask(session, slot);
    }
    for n in 3..6 {
        world.drop_srpm(n, n as i64);
    }
    world.step(41, 0, 0);
    let given: Vec<_> =
        world.scheduler.leases().map(|lease| (lease.session.unwrap(), lease.slot.unwrap())).collect();
    assert_eq!(given, [(two, 1), (one, 0), (two, 0)]);
    assert_eq!(world.scheduler.asks.len(), 3);
}
