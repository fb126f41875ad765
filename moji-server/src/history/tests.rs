//! The history over real folders and real files.

mod answers;
mod broken;
mod events;
mod folders;
mod reading;
mod stories;
mod views;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use moji_proto::api::EventKind;
use moji_proto::{AttemptId, FailureKind, ManifestEntry, Outcome, Sha256};
use rusqlite::Connection;

use super::entry::*;
use super::schema;
use super::sqlite::SqliteStore;
use super::store::Store as _;
use crate::BuildKey;
use crate::estimates::BuilderClass;
use crate::folders::testing::TempFolders;
use crate::record::{AttemptRecord, BuildRecord, FORMAT};

/// Seconds since 1970.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn id(serial: u64) -> AttemptId {
    AttemptId { boot: 0xfedc_ba98_7654_3210, serial }
}

fn key(name: &str) -> BuildKey {
    match name.split_once('/') {
        Some((target, name)) => BuildKey {
            target: Some(target.parse().unwrap()),
            srpm: format!("{name}-1-1.src.rpm").parse().unwrap(),
        },
        None => BuildKey { target: None, srpm: format!("{name}-1-1.src.rpm").parse().unwrap() },
    }
}

fn srpm(name: &str, seconds: i64) -> Srpm {
    let key = key(name);
    let nvr = key.srpm.stem().parse().ok();
    Srpm { key, nvr, size: 4321, queued_at: at(seconds) }
}

fn leased(name: &str, serial: u64, seconds: i64) -> Leased {
    Leased {
        srpm: srpm(name, seconds - 1),
        attempt: id(serial),
        builder: format!("board-{serial}").parse().unwrap(),
        class: Some(BuilderClass::new("aarch64", serial as u32)),
        target: "f43-arm".parse().unwrap(),
        generation: Some(1000 + serial),
        at: at(seconds),
    }
}

fn parked(name: &str, serial: u64, seconds: i64) -> Entry {
    let missing = vec![format!("lib{serial} >= 2"), "pkgconfig(x)".to_owned()];
    Entry::Parked(Parked { key: key(name), at: at(seconds), missing, attempt: id(serial) })
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::failed(kind, "it did not work", Some(7), vec!["libfoo".into()])
}

/// A record of an attempt that began ten seconds before.
fn record(name: &str, serial: u64, seconds: i64, outcome: Outcome) -> BuildRecord {
    let srpm = key(name).srpm;
    let artifact = |name: &str, size| ManifestEntry {
        name: name.parse().unwrap(),
        size,
        sha256: Sha256::of(name.as_bytes()),
    };
    BuildRecord {
        format: FORMAT,
        nvr: srpm.stem().parse().ok(),
        srpm,
        outcome,
        attempt: Some(AttemptRecord {
            id: id(serial),
            builder: format!("board-{serial}").parse().unwrap(),
            target: "f43-arm".parse().unwrap(),
            srpm_sha256: Some(Sha256::of(b"srpm")),
            leased_at: at(seconds - 10),
            delivered_at: at(seconds),
            repository: None,
        }),
        artifacts: vec![artifact("build.log", 30 + serial), artifact("x.noarch.rpm", 500)],
        held: None,
        parked: false,
        retried: false,
        note: None,
    }
}

fn settled(name: &str, serial: u64, seconds: i64, outcome: Outcome) -> Settled {
    let record = Box::new(record(name, serial, seconds, outcome));
    Settled { key: key(name), at: at(seconds + 1), verdict: Verdict::of(&record), record, size: Some(99) }
}

fn memory() -> SqliteStore {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection, schema::MIGRATIONS).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    SqliteStore::new(connection)
}

/// All that a query gives, a line a row.
fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let text = |at| match row.get_ref(at).unwrap() {
            rusqlite::types::ValueRef::Null => "-".to_owned(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        Ok((0..columns).map(text).collect::<Vec<_>>().join(" "))
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// Everything, in an order and with names that do not depend on the order of writing.
fn content(connection: &Connection) -> Vec<String> {
    let builds = "SELECT ifnull(target, ''), srpm, ifnull(nvr, ''), srpm_sha256, size, queued_at, state, \
                  settled_at, reason, failure, settled_by, parked_at, missing FROM builds ORDER BY 2, 1, 6, 8, 11";
    let attempts = "SELECT a.id, b.srpm, b.settled_by, a.builder, a.target, leased_at, ended_at, ending, \
                    outcome, a.failure, a.reason, exit_code, a.missing, a.srpm_sha256, logs, bytes \
                    FROM attempts a JOIN builds b ON b.id = a.build ORDER BY 1";
    let artifacts = "SELECT * FROM artifacts ORDER BY 1, 2";
    [builds, attempts, artifacts].into_iter().flat_map(|sql| rows(connection, sql)).collect()
}

/// What happened, without the ids and the times of writing.
fn told_events(connection: &Connection) -> Vec<String> {
    let sql = "SELECT kind, at / 1000000, text, build, attempt, builder, failure, reason, missing FROM events ORDER BY id";
    rows(connection, sql)
}

struct Farm {
    folders: TempFolders,
}

impl Farm {
    fn new() -> Self {
        Self { folders: TempFolders::new() }
    }

    fn path(&self) -> PathBuf {
        super::path(&self.folders)
    }

    fn connection(&self) -> Connection {
        schema::open_to_look(&self.path()).unwrap().0
    }

    fn content(&self) -> Vec<String> {
        content(&self.connection())
    }

    fn put(&self, path: PathBuf, content: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A build that ended so, in REPO and FINISHED.
    fn finish(&self, name: &str, serial: u64, seconds: i64, outcome: Outcome) {
        let record = record(name, serial, seconds, outcome);
        let key = key(name);
        let folder = self.folders.published(&key, record.nvr.as_ref().unwrap());
        if let Some(target) = &key.target {
            fs::create_dir_all(self.folders.repo.join(target).join("repodata")).unwrap();
        }
        let folder = match folder.join("build.json").exists() {
            true => folder.join(format!("attempt-{}", id(serial))),
            false => folder,
        };
        let json = record.to_json().unwrap();
        self.put(folder.join("build.json"), &json);
        self.put(self.folders.finished.join(key.path()), b"srpm");
        if !record.outcome.is_success() {
            self.put(self.folders.failure_record(&key), &json);
        }
    }
}
