//! What the folders hold, what the builders remember, and what is right: the model that the
//! scheduler is tested against.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome, Resources, SrpmName, TargetName};

use super::super::{
    Builder, COMMIT_RETRY, Claim, Effect, Ending, Event, Fate, LONGEST_PAUSE, Lease, LeaseState, Scheduler,
    SessionId, Wait,
};
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, Evr, PackagePath, PublishedPackage};
use crate::metadata::Repository;
use crate::source::{Priority, QueuedSrpm, SrpmHeader};
use crate::{BuildKey, BuilderId};

pub(super) const GRACE: Duration = Duration::from_secs(10);
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const FIRST_BOOT: u64 = 0xb007;

pub(super) fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

/// Nine SRPMs: three names, each for any builder and for two targets.
pub(super) fn key(n: usize) -> BuildKey {
    let target = [None, Some(target("f43-arm")), Some(target("f43-x86"))][n / 3 % 3].clone();
    BuildKey { target, srpm: SrpmName::new(format!("pkg{}-1-{}.src.rpm", n % 3, 10 + n % 3)).unwrap() }
}

pub(super) fn srpm(key: &BuildKey, queued_at: i64) -> QueuedSrpm {
    let nvr = key.srpm.stem();
    let header = SrpmHeader {
        name: nvr.split('-').next().unwrap().into(),
        epoch: None,
        version: "1".into(),
        release: nvr.rsplit('-').next().unwrap().into(),
        nvr: nvr.parse().unwrap(),
        relations: Default::default(),
    };
    let queued_at = jiff::Timestamp::from_second(1_000_000 + queued_at).unwrap();
    QueuedSrpm { key: key.clone(), header, size: 100, queued_at }
}

pub(super) fn failed(kind: FailureKind) -> Outcome {
    Outcome::failed(kind, "it failed", None, Vec::new())
}

/// An attempt as its builder remembers it.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) builder: BuilderId,
    pub(super) key: BuildKey,
    pub(super) target: TargetName,
    /// Which SRPM it was given: its digest.
    pub(super) content: u64,
    pub(super) slot: u16,
    /// The connection on which it may speak of it.
    pub(super) session: Option<SessionId>,
    /// Connections on which it has said that it holds it.
    pub(super) held_on: BTreeSet<SessionId>,
    pub(super) has_delivered: bool,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: Duration,
    boot: u64,
    contents: u64,
    /// SRPMs by folder, with what tells one file of a name from the next.
    pub(super) source: BTreeMap<BuildKey, u64>,
    pub(super) working: BTreeMap<BuildKey, u64>,
    pub(super) finished: BTreeSet<BuildKey>,
    pub(super) held: BTreeMap<BuildKey, String>,
    pub(super) sessions: BTreeMap<SessionId, Builder>,
    /// Sessions that the scheduler wants closed.
    pub(super) doomed: BTreeSet<SessionId>,
    /// Slots that have asked and got no answer.
    pub(super) asking: BTreeSet<(SessionId, u16)>,
    pub(super) memories: BTreeMap<AttemptId, Memory>,
    given: BTreeMap<AttemptId, BuildKey>,
    pub(super) committing: BTreeMap<AttemptId, Lease>,
    published: BTreeSet<AttemptId>,
    pub(super) accepted: BTreeSet<AttemptId>,
    pub(super) rejected: BTreeSet<AttemptId>,
    pub(super) stale: Vec<AttemptId>,
    pub(super) suspended: Vec<Duration>,
    /// What somebody says that he holds, before that is known.
    pub(super) reserved: Vec<BuildKey>,
    last_session: u64,
    pub(super) ready: bool,
    generation: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            scheduler: Scheduler::new(FIRST_BOOT, GRACE),
            now: Duration::ZERO,
            boot: FIRST_BOOT,
            contents: 0,
            source: BTreeMap::new(),
            working: BTreeMap::new(),
            finished: BTreeSet::new(),
            held: BTreeMap::new(),
            sessions: BTreeMap::new(),
            doomed: BTreeSet::new(),
            asking: BTreeSet::new(),
            memories: BTreeMap::new(),
            given: BTreeMap::new(),
            committing: BTreeMap::new(),
            published: BTreeSet::new(),
            accepted: BTreeSet::new(),
            rejected: BTreeSet::new(),
            stale: Vec::new(),
            suspended: Vec::new(),
            reserved: Vec::new(),
            last_session: 0,
            ready: false,
            generation: 0,
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let effects = self.scheduler.handle(self.now, event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = VecDeque::from(effects);
        let mut forgotten = Vec::new();
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Lease(lease) => {
                    if self.move_to_working(&lease.srpm.key) {
                        self.assigned(lease);
                    } else {
                        todo.extend(self.scheduler.handle(self.now, Event::LeaseFailed(lease.attempt)));
                    }
                }
                Effect::Retake(lease) => {
                    if self.move_to_working(&lease.srpm.key) {
                        self.resumed(&lease);
                    } else {
                        todo.extend(self.scheduler.handle(self.now, Event::RetakeFailed(lease.attempt)));
                    }
                }
                Effect::Backup(lease) => {
                    assert!(self.working.contains_key(&lease.srpm.key), "{} is not there", lease.srpm.key);
                    // The other one may have ended in the same moment.
                    assert!(self.scheduler.holders(&lease.srpm.key).count() <= 2);
                    self.assigned(lease);
                }
                Effect::Woken { srpm, .. } => assert!(self.source.contains_key(&srpm.key)),
                Effect::Retry { key, .. } => panic!("{key} did not fail"),
                Effect::Resume(lease) => self.resumed(&lease),
                Effect::DeliverAgain { lease, .. } => {
                    let session = lease.session.unwrap();
                    let memory = self.memories.get_mut(&lease.attempt).expect("nobody has it any more");
                    assert!(self.sessions[&session].id == memory.builder && memory.has_delivered);
                    assert!(!self.published.contains(&lease.attempt));
                    (memory.session, memory.has_delivered) = (Some(session), false);
                }
                Effect::Requeue(key) => {
                    if let Some(content) = self.working.remove(&key) {
                        // What a person has put there meanwhile stays.
                        self.source.entry(key).or_insert(content);
                    }
                }
                Effect::Commit { lease, .. } => {
                    let others = self.committing.values().filter(|other| other.attempt != lease.attempt);
                    assert!(
                        others.into_iter().all(|other| other.srpm.key != lease.srpm.key),
                        "two at a time"
                    );
                    self.committing.insert(lease.attempt, lease);
                }
                Effect::Hold { lease, reason, .. } => {
                    assert!(
                        !forgotten.contains(&lease.srpm.key),
                        "logs of {} are gone before it is held",
                        lease.srpm.key
                    );
                    assert!(
                        self.working.remove(&lease.srpm.key).is_some(),
                        "{:?} is nowhere",
                        lease.srpm.key
                    );
                    self.held.insert(lease.srpm.key, reason);
                }
                Effect::HoldQueued { key, reason } => {
                    assert!(self.source.remove(&key).is_some(), "{key:?} is nowhere");
                    self.held.insert(key, reason);
                }
                Effect::Accept { session, attempt } => {
                    let memory = self.memories.remove(&attempt).expect("accepted twice, or after Stale");
                    assert!(self.sessions[&session].id == memory.builder && memory.has_delivered);
                    assert!(self.accepted.insert(attempt), "{attempt} is accepted twice");
                }
                Effect::Reject { session, attempt, .. } => {
                    let memory = self.memories.remove(&attempt).expect("rejected, and not to be known");
                    assert!(self.sessions[&session].id == memory.builder && memory.has_delivered);
                }
                Effect::Stale { session, attempt } => {
                    self.stale.push(attempt);
                    let speaks = |memory: &Memory| {
                        memory.session == Some(session) || memory.held_on.contains(&session)
                    };
                    if self.memories.get(&attempt).is_some_and(speaks) {
                        self.memories.remove(&attempt);
                    }
                }
                Effect::Cancel { session, attempt } => {
                    assert!(self.sessions.contains_key(&session));
                    self.memories.remove(&attempt);
                }
                Effect::Suspend { session, pause, .. } => {
                    assert!(self.sessions.contains_key(&session));
                    assert!(pause > Duration::ZERO && pause <= LONGEST_PAUSE);
                    self.suspended.push(pause);
                }
                Effect::Disconnect(session) => {
                    self.doomed.insert(session);
                }
                Effect::Ended { ending, lease } => {
                    let is_published = matches!(ending, Ending::Published | Ending::Parked);
                    assert_eq!(is_published, self.published.contains(&lease.attempt));
                    let is_rejected = matches!(ending, Ending::Rejected(_));
                    assert_eq!(is_rejected, self.rejected.contains(&lease.attempt));
                }
                Effect::Forget(attempt) => forgotten.extend(self.given.get(&attempt).cloned()),
            }
        }
    }

    fn move_to_working(&mut self, key: &BuildKey) -> bool {
        let Some(content) = self.source.remove(key) else { return false };
        assert!(self.working.insert(key.clone(), content).is_none(), "{key} is in WORKING twice");
        true
    }

    fn assigned(&mut self, lease: Lease) {
        let (session, slot, key) = (lease.session.unwrap(), lease.slot.unwrap(), lease.srpm.key.clone());
        assert!(self.asking.remove(&(session, slot)), "a slot that did not ask");
        let builder = &self.sessions[&session];
        assert!(builder.targets.contains(&lease.target) && builder.id == lease.builder);
        assert!(key.target.is_none() || key.target.as_ref() == Some(&lease.target));
        assert_eq!(self.scheduler.blame.verdict(&key), None, "{key} is given out once more");
        assert!(self.given.insert(lease.attempt, key.clone()).is_none(), "an attempt's id was used twice");
        let others = self.scheduler.holders(&key).filter(|other| other.attempt != lease.attempt);
        assert!(others.into_iter().all(|other| other.is_running() && other.builder != lease.builder));
        assert!(!self.reserved.contains(&key), "{key} is another's, perhaps");
        let memory = Memory {
            builder: lease.builder,
            target: lease.target,
            content: self.working[&key],
            key,
            slot,
            session: Some(session),
            held_on: BTreeSet::new(),
            has_delivered: false,
        };
        self.memories.insert(lease.attempt, memory);
    }

    fn resumed(&mut self, lease: &Lease) {
        let session = lease.session.unwrap();
        let memory = self.memories.get_mut(&lease.attempt).expect("resumed what nobody holds");
        assert!(memory.held_on.contains(&session), "resumed without being asked");
        assert!(!self.rejected.contains(&lease.attempt), "{} is not good and comes back", lease.attempt);
        assert_eq!(self.working[&memory.key], memory.content, "the wrong SRPM");
        assert!(self.sessions[&session].id == lease.builder && memory.builder == lease.builder);
        memory.session = Some(session);
        memory.has_delivered = false;
    }

    /// A person puts an SRPM into SOURCE, in place of what lies there.
    pub(super) fn drop_srpm(&mut self, n: usize, at: i64) {
        self.contents += 1;
        self.source.insert(key(n), self.contents);
        self.finished.remove(&key(n));
        self.held.remove(&key(n));
        self.tell(Event::Found(srpm(&key(n), at)));
    }

    pub(super) fn connect(&mut self, name: &str, targets: &[&str]) -> SessionId {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let targets = targets.iter().map(|name| target(name)).collect();
        let builder = Builder {
            id: name.parse().unwrap(),
            targets,
            arch: "aarch64".into(),
            resources: Resources::default(),
            tags: Vec::new(),
        };
        self.sessions.insert(session, builder.clone());
        self.tell(Event::Connected { session, builder });
        session
    }

    pub(super) fn ask(&mut self, session: SessionId, slot: u16) {
        let is_busy = |memory: &Memory| memory.session == Some(session) && memory.slot == slot;
        if !self.memories.values().any(is_busy) && self.asking.insert((session, slot)) {
            self.tell(Event::Asked { session, slot });
        }
    }

    pub(super) fn lose(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.doomed.remove(&session);
        self.asking.retain(|(asking, _)| *asking != session);
        for memory in self.memories.values_mut().filter(|memory| memory.session == Some(session)) {
            memory.session = None;
        }
        self.tell(Event::Lost(session));
    }

    /// A builder says on a connection that it holds an attempt; the farm looks at the folders first.
    /// A builder says that it has an attempt, if it does; if its lease is lost here, against what is served now.
    pub(super) fn hold(&mut self, session: SessionId, attempt: AttemptId) {
        let Some(memory) = self.memories.get_mut(&attempt) else { return };
        if self.sessions[&session].id != memory.builder || !memory.held_on.insert(session) {
            return;
        }
        // It has a connection that it takes for alive: then it would not say it on another one.
        memory.session = None;
        let claim = Claim { session, slot: Some(memory.slot) };
        let (key, target, content) = (memory.key.clone(), memory.target.clone(), memory.content);
        if self.scheduler.lease(attempt).is_some() {
            return self.tell(Event::Held { claim, attempt });
        }
        if self.published.contains(&attempt) {
            self.memories.remove(&attempt);
            self.accepted.insert(attempt);
            return;
        }
        let place = if self.working.contains_key(&key) { &self.working } else { &self.source };
        if place.get(&key) == Some(&content) {
            let generation = self.scheduler.generation(key.target.as_ref());
            self.tell(Event::Claimed { claim, attempt, key, target, generation });
        } else {
            self.memories.remove(&attempt);
        }
    }

    pub(super) fn deliver(&mut self, attempt: AttemptId, outcome: Outcome) {
        let Some(memory) = self.memories.get_mut(&attempt).filter(|memory| !memory.has_delivered) else {
            return;
        };
        let Some(session) = memory.session else { return };
        memory.has_delivered = true;
        assert!(self.scheduler.may_settle(session, attempt), "{attempt} is {memory:?}");
        self.tell(Event::Delivered { session, attempt, outcome });
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        let effects = self.scheduler.on_time(self.now);
        self.carry_out(effects);
    }

    pub(super) fn finish_commit(&mut self, attempt: AttemptId, works: bool) {
        if !works {
            return self.tell(Event::CommitFailed(attempt));
        }
        let Some(lease) = self.committing.remove(&attempt) else { return };
        let key = lease.srpm.key.clone();
        if self.working.remove(&key).is_some() {
            match lease.state {
                LeaseState::Committing { fate: Fate::Hold(reason), .. } => {
                    self.held.insert(key, reason);
                }
                LeaseState::Committing { fate: Fate::Park(_), .. } => {
                    // What a person has put there meanwhile stays.
                    self.source.entry(key).or_insert_with(|| self.memories[&attempt].content);
                }
                _ => {
                    self.finished.insert(key);
                }
            }
        }
        assert!(self.published.insert(attempt), "{attempt} is published twice");
        self.tell(Event::Committed { attempt, rpms: true });
    }

    /// What was to be published is not good.
    pub(super) fn reject(&mut self, attempt: AttemptId) {
        self.committing.remove(&attempt);
        assert!(self.rejected.insert(attempt), "{attempt} is rejected twice");
        self.tell(Event::Rejected { attempt, reason: "it is no RPM".into() });
    }

    /// What was to be published is lost.
    pub(super) fn lose_results(&mut self, attempt: AttemptId) {
        self.committing.remove(&attempt);
        self.tell(Event::ResultsLost { attempt, reason: "it is not on the disk".into() });
    }

    /// The server ends without a word, and a new one reads the folders.
    pub(super) fn restart(&mut self) {
        let old = std::mem::replace(&mut self.scheduler, Scheduler::new(self.boot + 1, GRACE));
        self.boot += 1;
        self.ready = false;
        self.sessions.clear();
        self.doomed.clear();
        self.asking.clear();
        self.committing.clear();
        self.reserved.clear();
        for memory in self.memories.values_mut() {
            memory.session = None;
        }
        for key in self.source.keys().cloned().collect::<Vec<_>>() {
            if let Some(Wait::Parked(missing)) = old.wait_of(&key) {
                let missing = missing.into_iter().map(|missing| missing.requirement).collect();
                self.tell(Event::Parked { key, missing, generation: self.generation });
            }
        }
        for (key, tries) in old.blame.tries() {
            self.tell(Event::Blamed(key, tries));
        }
        for lease in old.leases() {
            self.tell(Event::Restored { lease: Box::new(lease.clone()), patience: PATIENCE });
        }
        for key in self.source.keys().cloned().collect::<Vec<_>>() {
            self.tell(Event::Found(srpm(&key, 50)));
        }
    }

    /// The repository has another generation, with what some attempts lacked.
    pub(super) fn publish(&mut self, names: &[&str]) {
        self.generation += 1;
        let package = |name: &&str| PublishedPackage {
            path: PackagePath::new(format!("{name}-{}.rpm", self.generation)),
            name: (*name).into(),
            evr: Evr::new("1-1"),
            arch: "noarch".into(),
            source: None,
            provides: vec![Capability { name: (*name).into(), versions: None }],
            files: Vec::new(),
        };
        let change = RepositoryChange {
            repository: Repository::Main,
            generation: self.generation,
            added: names.iter().map(package).collect(),
            removed: Vec::new(),
        };
        for target in [None, Some(target("f43-arm")), Some(target("f43-x86"))] {
            self.tell(Event::Contents { target, change: Box::new(change.clone()) });
        }
    }

    fn is_parked(&self, key: &BuildKey) -> bool {
        matches!(self.scheduler.wait_of(key), Some(Wait::Parked(_)))
    }

    pub(super) fn check(&self) {
        let scheduler = &self.scheduler;
        let leased: BTreeSet<_> = scheduler.leases().map(|lease| &lease.srpm.key).collect();
        let working: BTreeSet<_> = self.working.keys().collect();
        assert_eq!(leased, working, "leases and WORKING");
        for key in &leased {
            let holders: Vec<_> = scheduler.holders(key).collect();
            assert!(holders.iter().any(|lease| lease.is_open() || lease.is_committing()), "{holders:?}");
            assert!(holders.iter().filter(|lease| lease.is_committing()).count() <= 1);
        }
        for lease in scheduler.leases() {
            let knows = lease.session.is_none_or(|session| self.sessions.contains_key(&session));
            assert!(knows, "{lease:?} belongs to a connection that has ended");
        }
        for (attempt, memory) in self.memories.iter().filter(|(_, memory)| memory.session.is_some()) {
            assert!(scheduler.lease(*attempt).is_some(), "{attempt}: nobody told {memory:?} that it is over");
        }
        for key in self.source.keys() {
            let waits = scheduler.queue.contains(key);
            let waits_for_its_namesake = scheduler.again.contains_key(key) && self.working.contains_key(key);
            assert!(waits ^ waits_for_its_namesake, "{key} lies in SOURCE and is not queued, or twice");
        }
        assert_eq!(scheduler.queued(), self.source.len(), "the queue has what SOURCE has not");
        for (session, _) in &self.asking {
            let starved = self
                .source
                .keys()
                .any(|key| scheduler.queue.is_ready(key) && scheduler.may_build(*session, key));
            assert!(!starved, "a slot waits although there is work for it");
        }
        assert_eq!(scheduler.asks.len(), self.asking.len(), "an ask was forgotten");
    }

    /// Nothing goes wrong any more: everything must come to its end.
    pub(super) fn settle(&mut self) {
        self.ready = true;
        self.tell(Event::Ready);
        self.tell(Event::Room(true));
        while let Some(key) = self.reserved.pop() {
            self.tell(Event::Unreserved(key));
        }
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.lose(session);
        }
        self.wait(PATIENCE.max(COMMIT_RETRY));
        self.publish(&["lib0", "lib1", "lib2"]);
        assert!(!self.source.keys().any(|key| self.is_parked(key)), "what it lacked has come");
        let session = self.connect("fresh", &["f43-arm", "f43-x86"]);
        for _ in 0..60 {
            self.ask(session, 0);
            let running = self.memories.iter().find(|(_, memory)| memory.session == Some(session));
            if let Some(attempt) = running.map(|(attempt, _)| *attempt) {
                self.deliver(attempt, Outcome::Succeeded);
            }
            for attempt in self.committing.keys().copied().collect::<Vec<_>>() {
                self.finish_commit(attempt, true);
            }
            self.wait(COMMIT_RETRY);
            self.check();
        }
        assert!(self.source.is_empty(), "never built: {:?}", self.source);
        assert!(self.working.is_empty(), "never settled: {:?}", self.working);
        self.wait(LONGEST_PAUSE);
        assert_eq!(self.scheduler.next_deadline(), None);
    }

    pub(super) fn set_priority(&mut self, target: Option<TargetName>, list: &str) {
        self.tell(Event::Priority { target, list: Priority::parse(list.as_bytes()) });
    }
}
