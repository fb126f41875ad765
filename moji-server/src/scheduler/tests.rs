//! Tier 0: the scheduler against a model of the folders and the builders, in any order of events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome, SrpmName, TargetName};
use proptest::prelude::*;

use super::{Builder, COMMIT_RETRY, Effect, Event, Scheduler, SessionId};
use crate::BuildKey;
use crate::source::{Priority, QueuedSrpm, SrpmHeader};

const GRACE: Duration = Duration::from_secs(10);
const BOOT: u64 = 0xb007;

fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

/// Nine SRPMs: three names, each for any builder and for two targets.
fn key(n: usize) -> BuildKey {
    let target = [None, Some(target("f43-arm")), Some(target("f43-x86"))][n / 3 % 3].clone();
    BuildKey { target, srpm: SrpmName::new(format!("pkg{}-1-{}.src.rpm", n % 3, 10 + n % 3)).unwrap() }
}

fn srpm(key: &BuildKey, queued_at: i64) -> QueuedSrpm {
    let nvr = key.srpm.stem();
    let header = SrpmHeader {
        name: nvr.split('-').next().unwrap().into(),
        epoch: None,
        version: "1".into(),
        release: nvr.rsplit('-').next().unwrap().into(),
        nvr: nvr.parse().unwrap(),
    };
    let queued_at = jiff::Timestamp::from_second(1_000_000 + queued_at).unwrap();
    QueuedSrpm { key: key.clone(), header, size: 100, queued_at }
}

fn builder(name: &str, targets: &[&str]) -> Builder {
    Builder { name: name.parse().unwrap(), targets: targets.iter().map(|t| target(t)).collect() }
}

fn interrupted() -> Outcome {
    Outcome::failed(FailureKind::Interrupted, "killed", None, Vec::new())
}

/// What the folders hold and what the builders believe.
struct World {
    scheduler: Scheduler,
    now: Duration,
    source: BTreeSet<BuildKey>,
    working: BTreeSet<BuildKey>,
    finished: BTreeSet<BuildKey>,
    sessions: BTreeMap<SessionId, Vec<TargetName>>,
    /// Slots that have asked and got no answer.
    asking: BTreeSet<(SessionId, u16)>,
    /// What each attempt was given out as, and to whom.
    given: BTreeMap<AttemptId, (SessionId, BuildKey)>,
    /// Which session has delivered what is being published.
    committing: BTreeMap<AttemptId, SessionId>,
    accepted: BTreeSet<AttemptId>,
    last_session: u64,
    ready: bool,
}

impl World {
    fn new() -> Self {
        Self {
            scheduler: Scheduler::new(BOOT, GRACE),
            now: Duration::ZERO,
            source: BTreeSet::new(),
            working: BTreeSet::new(),
            finished: BTreeSet::new(),
            sessions: BTreeMap::new(),
            asking: BTreeSet::new(),
            given: BTreeMap::new(),
            committing: BTreeMap::new(),
            accepted: BTreeSet::new(),
            last_session: 0,
            ready: false,
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.scheduler.handle(self.now, event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = std::collections::VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Lease(lease) => {
                    let key = lease.srpm.key.clone();
                    if self.source.remove(&key) {
                        assert!(self.working.insert(key.clone()), "{key} is leased twice");
                        let session = lease.session.unwrap();
                        assert!(self.asking.remove(&(session, lease.slot)), "a slot that did not ask");
                        assert!(self.sessions[&session].contains(&lease.target));
                        assert!(key.target.is_none() || key.target.as_ref() == Some(&lease.target));
                        let before = self.given.insert(lease.attempt, (session, key));
                        assert!(before.is_none(), "an attempt's id was used twice");
                    } else {
                        todo.extend(self.scheduler.handle(self.now, Event::LeaseFailed(lease.attempt)));
                    }
                }
                Effect::Requeue { key, .. } => {
                    if self.working.remove(&key) {
                        self.source.insert(key);
                    }
                }
                Effect::Commit { lease, .. } => {
                    self.committing.entry(lease.attempt).or_insert(lease.session.unwrap_or(SessionId(0)));
                }
                Effect::Accept { session, attempt } => {
                    assert_eq!(
                        self.given[&attempt].0, session,
                        "accepted for a session that does not hold it"
                    );
                    assert!(self.accepted.insert(attempt), "{attempt} is accepted twice");
                }
                Effect::Stale { .. } | Effect::Cancel { .. } => {}
            }
        }
    }

    fn drop_srpm(&mut self, n: usize, at: i64) {
        self.source.insert(key(n));
        self.tell(Event::Found(srpm(&key(n), at)));
    }

    fn connect(&mut self, targets: &[&str]) -> SessionId {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let builder = builder(&format!("builder-{}", self.last_session), targets);
        self.sessions.insert(session, builder.targets.clone());
        self.tell(Event::Connected { session, builder });
        session
    }

    fn ask(&mut self, session: SessionId, slot: u16) {
        let busy = self.scheduler.leases().any(|lease| lease.session == Some(session) && lease.slot == slot);
        if !busy && self.asking.insert((session, slot)) {
            self.tell(Event::Asked { session, slot });
        }
    }

    fn lose(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.asking.retain(|(asking, _)| *asking != session);
        self.tell(Event::Lost(session));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let effects = self.scheduler.on_time(self.now);
        self.carry_out(effects);
    }

    fn finish_commit(&mut self, attempt: AttemptId, works: bool) {
        if works {
            self.committing.remove(&attempt);
            let key = self.given[&attempt].1.clone();
            if self.working.remove(&key) {
                self.finished.insert(key);
            }
            self.tell(Event::Committed(attempt));
        } else {
            self.tell(Event::CommitFailed(attempt));
        }
    }

    fn check(&self) {
        for lease in self.scheduler.leases() {
            let key = &lease.srpm.key;
            assert!(self.working.contains(key), "{key} is leased but not in WORKING");
            assert_eq!(self.scheduler.holder(key).map(|holder| holder.attempt), Some(lease.attempt));
        }
        assert_eq!(self.scheduler.leases().count(), self.working.len(), "something in WORKING has no lease");
        for key in &self.source {
            let waits = self.scheduler.queue.contains(key);
            let waits_for_its_namesake = self.scheduler.again.contains_key(key) && self.working.contains(key);
            assert!(waits ^ waits_for_its_namesake, "{key} lies in SOURCE and is not queued, or twice");
        }
        assert_eq!(self.scheduler.queued(), self.source.len(), "the queue has what SOURCE has not");
        for (session, _) in &self.asking {
            let starved = self.ready && self.scheduler.queue.has_work_for(&self.sessions[session]);
            assert!(!starved, "a slot waits although there is work for it");
        }
        assert_eq!(self.scheduler.asks.len(), self.asking.len(), "an ask was forgotten");
    }

    /// One of the things that can happen; numbers choose what it happens to.
    fn step(&mut self, what: u8, n: usize, at: i64) {
        let session = self.sessions.keys().nth(n % 4).copied();
        let running = self.scheduler.leases().filter(|lease| !lease.is_committing()).nth(n % 3).cloned();
        let committing = self.committing.keys().nth(n % 3).copied();
        match what {
            0..=5 => self.drop_srpm(n % 9, at),
            6 if self.source.remove(&key(n % 9)) => self.tell(Event::Gone(key(n % 9))),
            7 | 8 if self.sessions.len() < 4 => {
                let all = [&["f43-arm"][..], &["f43-x86"], &["f43-x86", "f43-arm"]];
                self.connect(all[n % 3]);
            }
            9..=13 => {
                if let Some(session) = session {
                    self.ask(session, (n / 4 % 3) as u16);
                }
            }
            14 => {
                if let Some(session) = session {
                    self.lose(session);
                }
            }
            15..=17 => {
                if let Some(lease) = running {
                    let outcome = if what == 17 { interrupted() } else { Outcome::Succeeded };
                    let session = self.given[&lease.attempt].0;
                    self.tell(Event::Delivered { session, attempt: lease.attempt, outcome });
                }
            }
            18 => {
                // Somebody delivers what was not given to him.
                let attempt = AttemptId { boot: BOOT, serial: n as u64 };
                let holder = self.scheduler.lease(attempt).and_then(|lease| lease.session);
                if let Some(session) = session.filter(|session| holder != Some(*session)) {
                    let before = self.scheduler.lease(attempt).cloned();
                    self.tell(Event::Delivered { session, attempt, outcome: Outcome::Succeeded });
                    self.tell(Event::Released { session, attempt });
                    let after = self.scheduler.lease(attempt).cloned();
                    assert_eq!(after, before, "a stranger has settled {attempt}");
                }
            }
            19 => {
                if let Some(lease) = running {
                    let session = self.given[&lease.attempt].0;
                    self.tell(Event::Released { session, attempt: lease.attempt });
                }
            }
            20..=22 => {
                if let Some(attempt) = committing {
                    self.finish_commit(attempt, what != 22);
                }
            }
            23 => self.wait(Duration::from_secs(n as u64)),
            24 => {
                if let Some(lease) = running {
                    self.working.remove(&lease.srpm.key);
                    self.tell(Event::Withdrawn(lease.srpm.key));
                }
            }
            25 => {
                let list = Priority::parse(format!("pkg{}\n", n % 3).as_bytes());
                self.tell(Event::Priority { target: key(n % 9).target, list });
            }
            26 => {
                if let Some(session) = session {
                    self.asking.retain(|(asking, _)| *asking != session);
                    self.tell(Event::Draining(session));
                }
            }
            27 => {
                self.ready = true;
                self.tell(Event::Ready);
            }
            28 => {
                // A person takes an SRPM away, and nobody has told the scheduler yet.
                let gone = key(n % 9);
                if self.source.remove(&gone) {
                    if let Some(session) = session {
                        self.ask(session, 7);
                    }
                    self.tell(Event::Gone(gone));
                }
            }
            _ => {}
        }
    }

    /// Nothing goes wrong any more: everything must come to its end.
    fn settle(&mut self) {
        if !self.ready {
            self.ready = true;
            self.tell(Event::Ready);
        }
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.lose(session);
        }
        self.wait(GRACE.max(COMMIT_RETRY));
        let session = self.connect(&["f43-arm", "f43-x86"]);
        for _ in 0..40 {
            self.ask(session, 0);
            let running = self.scheduler.leases().find(|lease| lease.session == Some(session)).cloned();
            if let Some(lease) = running {
                self.tell(Event::Delivered { session, attempt: lease.attempt, outcome: Outcome::Succeeded });
            }
            for attempt in self.committing.keys().copied().collect::<Vec<_>>() {
                self.finish_commit(attempt, true);
            }
            self.wait(COMMIT_RETRY);
            self.check();
        }
        assert!(self.source.is_empty(), "never built: {:?}", self.source);
        assert!(self.working.is_empty(), "never settled: {:?}", self.working);
        assert_eq!(self.scheduler.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_settled_twice_in_any_order_of_events(
        steps in proptest::collection::vec((0u8..29, 0usize..36, 0i64..100), 0..160),
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
    world.step(27, 0, 0);
    let session = world.connect(targets);
    (world, session)
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
    world.tell(Event::Priority { target: None, list: Priority::parse(b"pkg1\n") });
    assert_eq!(order(&mut world, session), ["pkg1-1-11.src.rpm", "pkg2-1-12.src.rpm", "pkg0-1-10.src.rpm"]);
}

#[test]
fn a_builder_gets_only_what_is_for_it() {
    let (mut world, session) = ready(&["f43-arm"]);
    for n in [3, 6, 0] {
        world.drop_srpm(n, n as i64);
    }
    assert_eq!(order(&mut world, session), ["pkg0-1-10.src.rpm", "f43-arm/pkg0-1-10.src.rpm"]);
    assert!(world.source.contains(&key(6)));
}

#[test]
fn nothing_is_handed_out_before_the_queue_is_known() {
    let mut world = World::new();
    let session = world.connect(&["f43-arm"]);
    world.ask(session, 0);
    world.drop_srpm(0, 50);
    world.drop_srpm(1, 5);
    assert!(world.working.is_empty());
    world.step(27, 0, 0);
    assert!(world.working.contains(&key(1)), "the older one first");
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
    let session = world.connect(&["f43-arm"]);
    assert_eq!(order(&mut world, session)[0], "pkg0-1-10.src.rpm");
}

#[test]
fn a_lost_lease_lasts_for_the_grace_and_a_delivered_one_for_ever() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.drop_srpm(1, 20);
    world.ask(session, 0);
    world.ask(session, 1);
    let delivered = world.scheduler.holder(&key(1)).unwrap().attempt;
    world.tell(Event::Delivered { session, attempt: delivered, outcome: Outcome::Succeeded });
    world.lose(session);
    world.wait(GRACE - Duration::from_millis(1));
    assert!(world.working.contains(&key(0)));
    world.wait(Duration::from_millis(1));
    assert!(world.source.contains(&key(0)) && world.working.contains(&key(1)));
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
    let attempts: Vec<_> = world.scheduler.leases().map(|lease| lease.attempt).collect();
    assert_eq!(attempts, [AttemptId { boot: BOOT, serial: 1 }]);
}
