//! A farm that does not run, with something of everything, and what is answered of it without a socket.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{HeaderMap, Request};
use futures_util::StreamExt as _;
use hyper::service::Service as _;
use jiff::Timestamp;
use moji_proto::api::{self, BuilderState};
use moji_proto::{AttemptId, FailureKind, ManifestEntry, Outcome, Phase, Sha256};

use super::*;
use crate::BuildKey;
use crate::estimates::BuilderClass;
use crate::farm_handle::{Ask, FarmHandle, Live, WhyWaiting};
use crate::folders::testing::TempFolders;
use crate::history::{Entry, History, Leased, Settled, Srpm, Verdict};
use crate::metadata::{Repository, Standing, Standings};
use crate::record::{AttemptRecord, BuildRecord, FORMAT};

pub(super) const GOOD: &str = "foo";
pub(super) const BAD: &str = "f43/bar";
pub(super) const RUNS: &str = "baz";
pub(super) const WAITS: &str = "f43/qux";

pub(super) fn id(serial: u64) -> AttemptId {
    AttemptId { boot: 0xfedc_ba98_7654_3210, serial }
}

pub(super) fn key(name: &str) -> BuildKey {
    let (target, name) = name.split_once('/').map_or((None, name), |(target, name)| (Some(target), name));
    BuildKey {
        target: target.map(|target| target.parse().unwrap()),
        srpm: format!("{name}-1-1.src.rpm").parse().unwrap(),
    }
}

fn srpm(name: &str, at: Timestamp) -> Srpm {
    let key = key(name);
    Srpm { nvr: key.srpm.stem().parse().ok(), key, size: 4321, queued_at: at }
}

pub(super) struct Scene {
    pub(super) folders: TempFolders,
    pub(super) history: History,
    pub(super) api: Api,
    pub(super) live: Arc<Mutex<Live>>,
    began: Timestamp,
}

/// An answer, whole.
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Got {
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Scene {
    /// One good build, one that failed, one that runs, one that waits.
    pub(super) fn new() -> Self {
        let folders = TempFolders::new();
        let (history, _) = History::open(&folders).unwrap();
        let began = Timestamp::from_second(Timestamp::now().as_second() - 100).unwrap();
        let (farm, mut asks) = FarmHandle::new();
        let live = Arc::new(Mutex::new(live(began)));
        let answers = Arc::clone(&live);
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                let live = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
                answer(ask, live);
            }
        });
        let paths = Arc::new((*folders).clone());
        let api = Api::new(farm, history.reader(), history.events(), paths);
        let scene = Self { folders, history, api, live, began };
        for (name, serial) in [(GOOD, 3), (BAD, 5), (RUNS, 7), (WAITS, 0)] {
            scene.history.record(Entry::Queued(srpm(name, began)));
            if serial > 0 {
                scene.history.record(Entry::Leased(scene.leased(name, serial)));
            }
        }
        scene.settle(GOOD, 3, Outcome::Succeeded, "fine\n");
        let log = "+ gcc\na.c:3:1: error: expected ';'\nerror: Bad exit status from /x (%build)\n";
        let outcome =
            Outcome::failed(FailureKind::Package, "a.c:3:1: error: expected ';'", Some(1), Vec::new());
        scene.settle(BAD, 5, outcome, log);
        scene.put_live_log(7, "first line\nsecond ");
        assert!(scene.history.flush());
        scene
    }

    fn leased(&self, name: &str, serial: u64) -> Leased {
        Leased {
            srpm: srpm(name, self.began),
            attempt: id(serial),
            builder: format!("board-{serial}").parse().unwrap(),
            class: Some(BuilderClass::new("aarch64", 4)),
            target: "f43".parse().unwrap(),
            generation: Some(11),
            at: self.began + Duration::from_secs(serial),
        }
    }

    fn put(&self, path: PathBuf, content: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn put_live_log(&self, serial: u64, text: &str) {
        self.put(self.folders.attempt(id(serial)).join("build.log"), text.as_bytes());
    }

    /// The end of a build, in REPO and in the history; its staging goes.
    pub(super) fn settle(&self, name: &str, serial: u64, outcome: Outcome, log: &str) {
        let (key, srpm) = (key(name), srpm(name, self.began));
        let at = self.began + Duration::from_secs(20 + serial);
        let artifact = |name: &str, bytes: &[u8]| ManifestEntry {
            name: name.parse().unwrap(),
            size: bytes.len() as u64,
            sha256: Sha256::of(bytes),
        };
        let mut artifacts = vec![artifact("build.log", log.as_bytes())];
        if outcome.is_success() {
            artifacts.push(artifact("foo-1-1.noarch.rpm", b"0123456789"));
        }
        let record = BuildRecord {
            format: FORMAT,
            srpm: key.srpm.clone(),
            nvr: srpm.nvr.clone(),
            outcome,
            attempt: Some(AttemptRecord {
                id: id(serial),
                builder: format!("board-{serial}").parse().unwrap(),
                target: "f43".parse().unwrap(),
                srpm_sha256: Some(Sha256::of(b"srpm")),
                leased_at: self.began + Duration::from_secs(serial),
                delivered_at: at,
                repository: None,
            }),
            artifacts,
            note: None,
            held: None,
            parked: false,
            retried: false,
        };
        let folder = self.folders.published(&key, srpm.nvr.as_ref().unwrap());
        if let Some(target) = &key.target {
            fs::create_dir_all(self.folders.repo.join(target.as_str()).join("repodata")).unwrap();
        }
        self.put(folder.join("build.log"), log.as_bytes());
        self.put(folder.join("build.json"), &record.to_json().unwrap());
        let _ = fs::remove_dir_all(self.folders.attempt(id(serial)));
        let verdict = Verdict::of(&record);
        self.history.record(Entry::Settled(Settled {
            key,
            at,
            verdict,
            record: Box::new(record),
            size: Some(99),
        }));
    }

    /// Another SRPM waits.
    pub(super) fn queue(&self, name: &str) {
        self.history.record(self.queued(name));
    }

    pub(super) fn queued(&self, name: &str) -> Entry {
        Entry::Queued(srpm(name, self.began))
    }

    /// The attempt does not run any more, as the farm knows it.
    pub(super) fn stops(&self, serial: u64) {
        self.live.lock().unwrap().running.retain(|running| running.attempt != id(serial));
    }

    pub(super) async fn response(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers.iter().chain(&[("host", "farm.example:6780")]) {
            request = request.header(*name, *value);
        }
        let service = TowerToHyperService::new(router(&self.api));
        timeout(DEADLINE, service.call(request.body(Body::empty()).unwrap())).await.unwrap().unwrap()
    }

    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Got {
        let (head, body) = self.response(method, path, headers).await.into_parts();
        let body = timeout(DEADLINE, to_bytes(body, 1 << 24)).await.expect("it goes on").unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Got { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(super) async fn get(&self, path: &str) -> Got {
        self.ask("GET", path, &[]).await
    }

    pub(super) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Streamed {
        let response = self.response("GET", path, headers).await;
        assert_eq!(response.status(), 200, "{path}");
        Streamed { body: response.into_body().into_data_stream(), text: String::new() }
    }
}

/// An answer that goes on.
pub(super) struct Streamed {
    body: BodyDataStream,
    pub(super) text: String,
}

impl Streamed {
    /// Reads until that is in it.
    pub(super) async fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            assert!(self.more().await, "it ended without {text:?}: {}", self.text);
        }
    }

    /// Reads until the last event in it is whole.
    pub(super) async fn until_end_of_event(&mut self) {
        while !self.text.ends_with("\n\n") {
            assert!(self.more().await, "it ended within an event");
        }
    }

    pub(super) async fn drain(&mut self) {
        while self.more().await {}
    }

    async fn more(&mut self) -> bool {
        let piece = timeout(DEADLINE, self.body.next());
        let piece = piece.await.unwrap_or_else(|_| panic!("nothing more after {}", self.text));
        let Some(piece) = piece else { return false };
        self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        true
    }
}

fn live(began: Timestamp) -> Live {
    let target = |name: Option<&str>, ready| api::Target {
        name: name.map(|name| name.parse().unwrap()),
        queue: api::QueueCounts { ready, ..api::QueueCounts::default() },
        builders: 1,
        day: api::History::default(),
        generation: 11,
    };
    Live {
        server: api::Server {
            software: "moji-server".into(),
            started_at: began,
            paused: None,
            is_full: false,
            out_of_date: Vec::new(),
        },
        queue: api::QueueCounts { ready: 1, running: 1, ..api::QueueCounts::default() },
        oldest_queued: Some(began),
        eta: None,
        slots: api::Slots { total: 2, busy: 1 },
        running: vec![api::Running {
            attempt: id(7),
            build: None,
            srpm: key(RUNS).srpm,
            target: "f43".parse().unwrap(),
            builder: "board-7".into(),
            slot: Some(0),
            since: began,
            phase: Some(Phase::Building),
            expected_seconds: None,
            is_orphaned: false,
            is_publishing: false,
        }],
        builders: vec![api::Builder {
            id: "lab/board-9".into(),
            state: BuilderState::Idle,
            arch: "aarch64".into(),
            targets: vec!["f43".parse().unwrap()],
            broken_targets: Vec::new(),
            tags: Vec::new(),
            cores: None,
            memory: None,
            disk: None,
            slots: 2,
            connected_at: Some(began),
            suspended_seconds: None,
            drained: None,
            software: "moji-client".into(),
            attempts: Vec::new(),
        }],
        targets: vec![target(None, 0), target(Some("f43"), 1)],
        standings: Standings::from([(Repository::Main, Standing::default())]),
    }
}

fn answer(ask: Ask, live: Live) {
    match ask {
        Ask::Live(to) => drop(to.send(Arc::new(live))),
        Ask::Queue(target, most, to) => {
            let queued = api::Queued {
                place: Some(1),
                target: key(WAITS).target,
                srpm: key(WAITS).srpm,
                size: 4321,
                queued_at: Timestamp::UNIX_EPOCH,
                expected_seconds: None,
                waits_for: None,
                is_parked: false,
            };
            let is_wanted = target.is_none_or(|target| target == queued.target) && most > 0;
            drop(to.send((Vec::from_iter(is_wanted.then_some(queued)), 1)));
        }
        Ask::Why(key, to) => {
            assert_eq!(key, self::key(WAITS));
            drop(to.send(WhyWaiting { is_queued: true, place: Some(5), ..WhyWaiting::default() }));
        }
        Ask::Act(_, act, _) => panic!("{act:?} over HTTP"),
    }
}
