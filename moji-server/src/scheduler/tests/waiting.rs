//! What a build waits for, and what nobody must wait for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use moji_proto::{FailureKind, Outcome, Resources, SrpmName};

use super::super::{Builder, Effect, Event, Rules, Scheduler, SessionId, Wait};
use super::world::{GRACE, target};
use crate::BuildKey;
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, Evr, PackagePath, PublishedPackage, Relations, Requirement};
use crate::metadata::Repository;
use crate::source::{QueuedSrpm, SrpmHeader};

fn key(target_name: Option<&str>, n: usize) -> BuildKey {
    BuildKey { target: target_name.map(target), srpm: SrpmName::new(format!("p{n}-1-1.src.rpm")).unwrap() }
}

fn srpm(key: &BuildKey, needs: &[&str], brings: &[&str]) -> QueuedSrpm {
    let nvr = key.srpm.stem();
    let relations = Relations {
        build_requires: needs.iter().map(|n| Requirement::any(*n)).collect(),
        provides: brings.iter().map(|n| Capability { name: (*n).into(), versions: None }).collect(),
    };
    let header = SrpmHeader {
        name: nvr.split('-').next().unwrap().into(),
        epoch: None,
        version: "1".into(),
        release: "1".into(),
        nvr: nvr.parse().unwrap(),
        relations: Arc::new(relations),
    };
    QueuedSrpm {
        key: key.clone(),
        header,
        size: 100,
        queued_at: jiff::Timestamp::from_second(1_000_000).unwrap(),
    }
}

fn package(path: &str, provides: &[&str]) -> PublishedPackage {
    PublishedPackage {
        path: PackagePath::new(path.to_owned()),
        name: provides[0].into(),
        evr: Evr::new("1-1"),
        arch: "noarch".into(),
        source: None,
        provides: provides.iter().map(|n| Capability { name: (*n).into(), versions: None }).collect(),
        files: Vec::new(),
    }
}

fn change(generation: u64, added: Vec<PublishedPackage>, removed: &[&str]) -> Event {
    let change = RepositoryChange {
        repository: Repository::Main,
        generation,
        added,
        removed: removed.iter().map(|path| PackagePath::new((*path).to_owned())).collect(),
    };
    Event::Contents { target: None, change: Box::new(change) }
}

fn builder(n: usize, target_name: &str) -> Builder {
    Builder {
        id: format!("board{n}").parse().unwrap(),
        targets: vec![target(target_name)],
        arch: "aarch64".into(),
        resources: Resources { cores: 4, memory: 1 << 33, disk: 1 << 36 },
        tags: Vec::new(),
    }
}

fn missing(name: &str) -> Outcome {
    Outcome::failed(FailureKind::MissingDependency, "no", Some(30), vec![name.into()])
}

/// Numbers go down when a repository is made anew; whether that is seen at once, or only when there is one again.
#[test]
fn a_remade_repository_wakes_who_is_parked() {
    for is_seen in [true, false] {
        let now = Duration::ZERO;
        let mut s = Scheduler::new(5, GRACE);
        let (k, session) = (key(None, 1), SessionId(1));
        s.handle(now, Event::Ready);
        s.handle(now, change(50, vec![package("old.rpm", &["old"])], &[]));
        s.handle(now, Event::Connected { session, builder: builder(1, "f43") });
        s.handle(now, Event::Asked { session, slot: 0 });
        s.handle(now, Event::Found(srpm(&k, &[], &[])));
        let attempt = s.holders(&k).next().unwrap().attempt;
        s.handle(now, Event::Delivered { session, attempt, outcome: missing("libfoo") });
        s.handle(now, Event::Committed { attempt, rpms: false });
        assert!(matches!(s.wait_of(&k), Some(Wait::Parked(_))));
        if is_seen {
            s.handle(now, change(0, Vec::new(), &["old.rpm"]));
            assert_eq!(s.queue.generation(None), 0, "builds would be sent to one that is not there");
        }
        s.handle(now, change(1, vec![package("foo.rpm", &["libfoo"])], &["old.rpm"]));
        assert!(!matches!(s.wait_of(&k), Some(Wait::Parked(_))), "{:?}", s.wait_of(&k));
    }
}

/// The generation that lists a result is told before the commit is.
#[test]
fn what_is_listed_already_is_not_waited_for() {
    let now = Duration::ZERO;
    let mut s = Scheduler::new(5, GRACE);
    let (k, session) = (key(None, 1), SessionId(1));
    s.handle(now, Event::Ready);
    s.handle(now, Event::Connected { session, builder: builder(1, "f43") });
    s.handle(now, Event::Asked { session, slot: 0 });
    s.handle(now, Event::Found(srpm(&k, &[], &[])));
    let attempt = s.holders(&k).next().unwrap().attempt;
    s.handle(now, Event::Delivered { session, attempt, outcome: Outcome::Succeeded });
    s.handle(now, Event::CommitFailed(attempt)); // REPO has it, FINISHED was not writable
    s.handle(now, change(1, vec![package("p1-1-1/p1.rpm", &["p1"])], &[]));
    s.handle(now, Event::Committed { attempt, rpms: true });
    assert!(!s.moves(), "next deadline {:?}", s.next_deadline());
}

/// At a start what waits may find what it waits for.
#[test]
fn nothing_is_forced_before_all_is_known() {
    let now = Duration::ZERO;
    let mut s = Scheduler::new(5, GRACE);
    let (parked, waits, provider) = (key(None, 1), key(None, 2), key(None, 3));
    s.handle(
        now,
        Event::Parked { key: parked.clone(), missing: vec![Requirement::any("nobody")], generation: 4 },
    );
    s.handle(now, Event::Found(srpm(&parked, &[], &["lib"])));
    s.handle(now, Event::Found(srpm(&waits, &["lib"], &[])));
    if s.next_deadline().is_some_and(|at| at <= now) {
        s.on_time(now);
    }
    s.handle(now, Event::Found(srpm(&provider, &[], &["lib"])));
    s.handle(now, Event::Ready);
    assert!(s.wait_of(&waits) != Some(Wait::None), "it is given out although p3 will bring lib");
}

/// After a restart everything in the repository looks new.
#[test]
fn a_restart_is_no_rebuild() {
    let now = Duration::ZERO;
    let rules = Rules { retry_on_change: true, ..Rules::default() };
    let mut s = Scheduler::new(5, GRACE).with_rules(rules);
    let used = BTreeSet::from(["glibc".to_owned()]);
    s.handle(now, Event::Failed { key: key(None, 1), used, generation: 10 });
    // Generation 11 has brought something else; glibc came in 3.
    let effects =
        s.handle(now, change(11, vec![package("glibc.rpm", &["glibc"]), package("x.rpm", &["x"])], &[]));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Retry { .. })), "{effects:?}");
}

/// Another repository may have all of it.
#[test]
fn a_core_that_needs_itself_is_tried_at_once() {
    let n = 20;
    let names: Vec<String> = (0..n).map(|p| format!("lib{p}")).collect();
    let mut now = Duration::ZERO;
    let mut s = Scheduler::new(5, GRACE);
    s.handle(now, Event::Ready);
    for p in 0..n {
        let needs: Vec<&str> = names.iter().enumerate().filter(|(q, _)| *q != p).map(|(_, n)| &**n).collect();
        s.handle(now, Event::Found(srpm(&key(None, p), &needs, &[&names[p]])));
    }
    let session = SessionId(1);
    s.handle(now, Event::Connected { session, builder: builder(1, "f43") });
    for slot in 0..n {
        s.handle(now, Event::Asked { session, slot: slot as u16 });
    }
    let (mut most, mut generation, mut hours) = (0, 0, 0);
    while s.queued() > 0 || s.leases().count() > 0 {
        while s.next_deadline().is_some_and(|at| at <= now) {
            s.on_time(now);
        }
        let running: Vec<_> = s.leases().map(|l| (l.attempt, l.srpm.key.clone(), l.slot.unwrap())).collect();
        most = most.max(running.len());
        now += Duration::from_secs(600);
        hours += 1;
        let mut added = Vec::new();
        for (attempt, key, slot) in running {
            s.handle(now, Event::Delivered { session, attempt, outcome: Outcome::Succeeded });
            s.handle(now, Event::Committed { attempt, rpms: true });
            let number: usize = key.srpm.stem()[1..].split('-').next().unwrap().parse().unwrap();
            added.push(package(&format!("{}/p.rpm", key.srpm.stem()), &[&names[number]]));
            s.handle(now, Event::Asked { session, slot });
        }
        generation += 1;
        s.handle(now, change(generation, added, &[]));
        assert!(hours < 200);
    }
    assert_eq!(most, n, "so many at a time, in {hours} rounds");
}

/// What waits for an SRPM that nobody can build is tried all the same.
#[test]
fn nobody_waits_for_what_no_builder_can_take() {
    use crate::source::Requires;
    let mut now = Duration::ZERO;
    let mut s = Scheduler::new(5, GRACE);
    let session = SessionId(1);
    s.handle(now, Event::Ready);
    s.handle(now, Event::Requires { target: None, list: Requires::parse(b"p1 tag=kvm\n") });
    s.handle(now, Event::Found(srpm(&key(None, 1), &[], &["lib"])));
    s.handle(now, Event::Found(srpm(&key(None, 2), &["lib"], &[])));
    s.handle(now, Event::Connected { session, builder: builder(1, "f43") });
    s.handle(now, Event::Asked { session, slot: 0 });
    for _ in 0..3 {
        assert_eq!(s.leases().count(), 0);
        s.handle(now, Event::Look);
        now += super::super::STUCK / 2;
    }
    s.on_time(now);
    assert_eq!(s.leases().map(|lease| &lease.srpm.key).collect::<Vec<_>>(), [&key(None, 2)]);
}

/// Somebody is waited for by the first line of priority.txt.
#[test]
fn what_the_first_one_needs_comes_first() {
    use crate::source::Priority;
    let now = Duration::ZERO;
    let mut s = Scheduler::new(5, GRACE);
    let session = SessionId(1);
    s.handle(now, Event::Ready);
    s.handle(now, Event::Priority { target: None, list: Priority::parse(b"p1\np9*\n") });
    s.handle(now, Event::Found(srpm(&key(None, 1), &["lib"], &[])));
    s.handle(now, Event::Found(srpm(&key(None, 2), &[], &["lib"])));
    for p in 900..910 {
        s.handle(now, Event::Found(srpm(&key(None, p), &[], &[])));
    }
    s.handle(now, Event::Connected { session, builder: builder(1, "f43") });
    s.handle(now, Event::Asked { session, slot: 0 });
    let first = s.leases().next().unwrap().srpm.key.clone();
    assert_eq!(first, key(None, 2));
}

/// A builder that does not use the repository is to blame, and another one gets it.
#[test]
fn what_is_there_is_not_waited_for() {
    let now = Duration::ZERO;
    let mut s = Scheduler::new(5, GRACE);
    s.handle(now, Event::Ready);
    s.handle(now, change(7, vec![package("foo-1-1/foo.rpm", &["libfoo"])], &[]));
    let (k, session) = (key(None, 1), SessionId(1));
    s.handle(now, Event::Connected { session, builder: builder(1, "f43") });
    s.handle(now, Event::Asked { session, slot: 0 });
    s.handle(now, Event::Found(srpm(&k, &["libfoo"], &[])));
    let attempt = s.holders(&k).next().unwrap().attempt;
    s.handle(now, Event::Delivered { session, attempt, outcome: missing("libfoo") });
    s.handle(now, Event::Committed { attempt, rpms: false });
    // Another builder comes, which has it.
    s.handle(now, Event::Connected { session: SessionId(2), builder: builder(2, "f43") });
    s.handle(now, Event::Asked { session: SessionId(2), slot: 0 });
    assert!(s.holders(&k).next().is_some(), "{:?}", s.wait_of(&k));
}
