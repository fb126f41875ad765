//! Made-up farms.

use jiff::Timestamp;
use moji_proto::api::{
    Build, BuildState, Builder, BuilderState, Eta, Event, EventKind, Excerpt, History, Missing,
    MissingProvider, Overview, Page, QueueCounts, Queued, Running, Server, Slots, Steered, Throughput, Why,
    WhyBuilder,
};
use moji_proto::operator::Role;
use moji_proto::{AttemptId, FailureKind, Phase, SrpmName, TargetName};

use crate::operator::top::state::{News, Top};

/// The moment at which everything is looked at.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

pub(super) fn srpm(nvr: &str) -> SrpmName {
    SrpmName::new(format!("{nvr}.src.rpm")).unwrap()
}

pub(super) fn target(name: &str) -> TargetName {
    TargetName::new(name).unwrap()
}

pub(super) fn run(serial: u64, nvr: &str, builder: &str, since: i64, phase: Option<Phase>) -> Running {
    Running {
        attempt: AttemptId { boot: 0xb007, serial },
        build: Some(100 + serial),
        srpm: srpm(nvr),
        target: target("fedora-43-aarch64"),
        builder: builder.to_owned(),
        slot: Some(0),
        since: at(-since),
        phase,
        expected_seconds: Some(600),
        is_orphaned: false,
        is_publishing: false,
    }
}

pub(super) fn builder(id: &str, state: BuilderState) -> Builder {
    Builder {
        id: id.to_owned(),
        state,
        arch: "aarch64".to_owned(),
        targets: vec![target("fedora-43-aarch64")],
        broken_targets: Vec::new(),
        tags: Vec::new(),
        cores: Some(4),
        memory: None,
        disk: None,
        slots: 2,
        connected_at: Some(at(-7_000)),
        suspended_seconds: None,
        drained: None,
        software: "moji-client 0.1.0".to_owned(),
        attempts: Vec::new(),
    }
}

pub(super) fn result(id: u64, nvr: &str, state: BuildState, reason: Option<&str>) -> Build {
    Build {
        id,
        target: None,
        srpm: srpm(nvr),
        nvr: None,
        package: None,
        state,
        queued_at: at(-9_000),
        settled_at: Some(at(-60 * i64::try_from(id).unwrap())),
        attempts: 1,
        attempt: Some(AttemptId { boot: 0xb007, serial: 500 + id }),
        builder: Some("board-7".to_owned()),
        took_seconds: Some(75),
        failure: reason.map(|_| FailureKind::Package),
        reason: reason.map(str::to_owned),
        missing: Vec::new(),
    }
}

pub(super) fn queued(place: u64, nvr: &str) -> Queued {
    Queued {
        place: Some(place),
        target: Some(target("fedora-43-aarch64")),
        srpm: srpm(nvr),
        size: 3_400_000 * place,
        queued_at: at(-3_700),
        expected_seconds: Some(240),
        waits_for: None,
        is_parked: false,
    }
}

pub(super) fn event(id: u64, kind: EventKind, text: &str) -> Event {
    Event {
        id,
        at: at(-12),
        kind,
        text: text.to_owned(),
        build: None,
        attempt: None,
        builder: None,
        failure: None,
        reason: None,
        missing: Vec::new(),
        target: None,
        generation: None,
    }
}

pub(super) fn empty() -> Overview {
    Overview {
        server: Server {
            software: "moji-server 0.1.0".to_owned(),
            started_at: at(-270_000),
            paused: None,
            is_full: false,
            out_of_date: Vec::new(),
        },
        queue: QueueCounts::default(),
        eta: None,
        throughput: Throughput::default(),
        slots: Slots::default(),
        running: Vec::new(),
        builders: Vec::new(),
        newest: Vec::new(),
        failures: Vec::new(),
    }
}

/// A farm in which something of everything happens.
pub(super) fn busy() -> Overview {
    let mut lost = run(4, "kernel-6.17.1-300.fc43", "lab/board-9", 14_000, Some(Phase::Building));
    lost.is_orphaned = true;
    let mut publishing = run(2, "zlib-1.3-2", "board-7", 642, Some(Phase::Delivering));
    publishing.is_publishing = true;
    let mut fresh = run(5, "never-built-before-0.1-1", "board-8", 7, Some(Phase::InstallingBuildRequires));
    fresh.expected_seconds = None;
    let mut working = builder("board-7", BuilderState::Building);
    working.attempts = vec![AttemptId { boot: 0xb007, serial: 1 }, AttemptId { boot: 0xb007, serial: 2 }];
    let mut drained = builder("board-8", BuilderState::Drained);
    drained.drained =
        Some(Steered { by: Some("lena".to_owned()), at: at(-1_300), reason: Some("new disk".to_owned()) });
    let mut suspended = builder("lab/board-9", BuilderState::Suspended);
    suspended.suspended_seconds = Some(540);
    Overview {
        queue: QueueCounts { ready: 2, waiting: 1, parked: 1, running: 4 },
        eta: Some(Eta { low: 3_000, expected: 7_200, high: 15_000 }),
        throughput: Throughput {
            hour: History { succeeded: 12, failed: 1, held: 0 },
            day: History { succeeded: 120, failed: 8, held: 1 },
        },
        slots: Slots { total: 6, busy: 4 },
        running: vec![lost, publishing, run(1, "bash-5.3-1", "board-7", 200, Some(Phase::Building)), fresh],
        builders: vec![working, drained, suspended, builder("spare", BuilderState::Idle)],
        newest: vec![
            result(1, "acl-2.3-4", BuildState::Succeeded, None),
            result(2, "moji-typo-1-1", BuildState::Failed, Some("error: line 7: Unknown tag: Licence")),
            result(3, "attr-2.5-4", BuildState::Held, Some("lost 3 times on 2 builders")),
        ],
        ..empty()
    }
}

pub(super) fn busy_queue() -> Page<Queued> {
    let mut parked = queued(3, "moji-orphan-1-1");
    parked.place = None;
    parked.is_parked = true;
    parked.waits_for = Some("nothing provides pkgconfig(nowhere) >= 3".to_owned());
    let mut waiting = queued(4, "needs-zlib-2-1");
    waiting.place = None;
    waiting.target = None;
    waiting.expected_seconds = None;
    waiting.waits_for = Some("zlib-1.3-2 is being built".to_owned());
    Page {
        items: vec![queued(1, "coreutils-9.8-1"), queued(2, "sed-4.9-5"), parked, waiting],
        next: None,
        total: None,
    }
}

pub(super) fn why() -> Why {
    Why {
        build: result(2, "moji-typo-1-1", BuildState::Parked, Some("missing")),
        summary: "It waits until something provides pkgconfig(nowhere) >= 3.".to_owned(),
        excerpt: Some(Excerpt {
            log: "root.log".to_owned(),
            lines: vec!["No matching package to install: 'pkgconfig(nowhere) >= 3'".to_owned()],
        }),
        missing: vec![
            Missing { requirement: "pkgconfig(nowhere) >= 3".to_owned(), providers: Vec::new() },
            Missing {
                requirement: "zlib-devel".to_owned(),
                providers: vec![MissingProvider {
                    build: "fedora-43-aarch64/zlib-1.3-2.src.rpm".to_owned(),
                    state: "running".to_owned(),
                }],
            },
        ],
        place: Some(9),
        builders: vec![
            WhyBuilder { builder: "board-7".to_owned(), reasons: Vec::new() },
            WhyBuilder {
                builder: "board-8".to_owned(),
                reasons: vec!["drained by lena: new disk".to_owned(), "all its slots are busy".to_owned()],
            },
        ],
    }
}

/// Somebody with that role looks at that farm.
pub(super) fn top(role: Role, overview: Overview, queue: Page<Queued>) -> Top {
    let mut top = Top::new("farm.example:6789".to_owned(), at(0));
    top.learn(at(0), News::Connected { role });
    top.learn(at(0), News::Overview(Box::new(overview)));
    top.learn(at(0), News::Queue(queue));
    let happened = [
        (7, EventKind::Started, "bash-5.3-1 started on board-7"),
        (8, EventKind::Succeeded, "acl-2.3-4 is published"),
        (9, EventKind::Failed, "moji-typo-1-1 failed: error: line 7: Unknown tag: Licence"),
    ];
    for (id, kind, text) in happened {
        top.learn(at(0), News::Event(Box::new(event(id, kind, text))));
    }
    top
}
