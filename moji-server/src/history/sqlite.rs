//! The history in SQLite: entries become rows, rows become what is asked for.
//!
//! It deliberately does not know the folders, or who tells it what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use moji_proto::{AttemptId, FailureKind, Nvr, Outcome};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::entry::{AttemptEnd, BuildState, Ending, Entry, Leased, Settled, Srpm, Verdict};
use super::schema;
use super::store::{Backend, Known, KnownAttempt, OpenBuild, Opened, Stamp, Stamps, Store, StoreError};
use super::words::{Columns, Word as _, bytes, micros};
use crate::BuildKey;
use crate::farm::Given;
use crate::record::BuildRecord;
use crate::scheduler::{Try, TryKind};

type Done<T = ()> = Result<T, StoreError>;

/// Where the file is.
pub(super) struct Sqlite {
    path: PathBuf,
}

impl Sqlite {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Backend for Sqlite {
    fn open(&mut self, broken: Option<&str>) -> Done<(Box<dyn Store>, Opened)> {
        let opened = match broken {
            Some(why) => Err(StoreError::Broken(why.to_owned())),
            None => schema::open(&self.path),
        };
        let (connection, opened) = match opened {
            Ok((connection, true)) => (connection, Opened::New),
            Ok((connection, false)) => (connection, Opened::Whole),
            Err(StoreError::Broken(why)) => {
                let aside = schema::set_aside(&self.path, Timestamp::now()).map_err(|error| {
                    StoreError::Unavailable(format!("it is broken ({why}) and cannot be put aside: {error}"))
                })?;
                let (connection, _) = schema::open(&self.path)?;
                (connection, Opened::Replaced(format!("{why}; it is {} now", aside.display())))
            }
            Err(error) => return Err(error),
        };
        Ok((Box::new(SqliteStore(connection)), opened))
    }
}

/// An open file.
pub(super) struct SqliteStore(Connection);

impl SqliteStore {
    /// Over a connection whose schema is the newest.
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }
}

impl Store for SqliteStore {
    fn apply(&mut self, entries: &[Entry]) -> Done {
        let transaction = self.0.transaction()?;
        let write = Write(&transaction);
        entries.iter().try_for_each(|entry| write.entry(entry))?;
        Ok(transaction.commit()?)
    }

    fn known(&self) -> Done<Known> {
        let mut known = Known::default();
        let mut open = self.0.prepare("SELECT target, srpm, nvr FROM builds WHERE settled_at IS NULL")?;
        let mut rows = open.query([])?;
        while let Some(row) = rows.next()? {
            let row = Columns(row);
            let build = OpenBuild { nvr: row.maybe_parsed(2)?, running: BTreeSet::new() };
            known.open.insert(key(&row)?, build);
        }
        let mut attempts = self.0.prepare(
            "SELECT b.target, b.srpm, b.state, a.id, a.outcome IS NOT NULL, a.ended_at IS NULL \
             FROM attempts a JOIN builds b ON b.id = a.build",
        )?;
        let mut rows = attempts.query([])?;
        while let Some(row) = rows.next()? {
            let columns = Columns(row);
            let (key, build, id) = (key(&columns)?, columns.word(2)?, columns.parsed(3)?);
            let is_open = matches!(build, BuildState::Queued | BuildState::Running);
            if is_open
                && row.get(5)?
                && let Some(open) = known.open.get_mut(&key)
            {
                open.running.insert(id);
            }
            known.attempts.insert(id, KnownAttempt { key, has_outcome: row.get(4)?, build });
        }
        let mut refused = self.0.prepare(
            "SELECT target, srpm, ifnull(reason, '') FROM builds \
             WHERE settled_by IS NULL AND state IN ('succeeded', 'failed', 'held')",
        )?;
        let mut rows = refused.query([])?;
        while let Some(row) = rows.next()? {
            known.refused.insert((key(&Columns(row))?, row.get(2)?));
        }
        Ok(known)
    }

    fn open_tries(&self) -> Done<BTreeMap<BuildKey, Vec<Try>>> {
        let mut tries: BTreeMap<BuildKey, Vec<Try>> = BTreeMap::new();
        let mut statement = self.0.prepare(
            "SELECT b.target, b.srpm, a.id, a.builder, a.ending, a.failure \
             FROM attempts a JOIN builds b ON b.id = a.build \
             WHERE b.settled_at IS NULL AND a.ended_at IS NOT NULL ORDER BY a.ended_at, a.id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let row = Columns(row);
            let kind = match (row.word(4)?, row.maybe_word(5)?) {
                (Ending::Lost, _) => TryKind::Lost,
                (Ending::Rejected, _) => TryKind::Rejected,
                (
                    _,
                    Some(
                        kind @ (FailureKind::Infrastructure
                        | FailureKind::Configuration
                        | FailureKind::Interrupted),
                    ),
                ) => TryKind::Failed(kind),
                _ => continue,
            };
            let tried = Try { attempt: row.parsed(2)?, builder: row.parsed(3)?, kind };
            tries.entry(key(&row)?).or_default().push(tried);
        }
        Ok(tries)
    }

    fn unanswered(&self, most: usize) -> Done<Vec<Given>> {
        let mut statement = self.0.prepare(
            "SELECT b.target, b.srpm, a.id, a.builder, a.target FROM attempts a JOIN builds b ON b.id = a.build \
             WHERE a.outcome IS NULL AND (a.ending IS NULL OR a.ending IN ('lost', 'interrupted')) \
             ORDER BY a.leased_at DESC, a.id DESC LIMIT ?1",
        )?;
        let mut rows = statement.query([i64::try_from(most).unwrap_or(i64::MAX)])?;
        let mut given = Vec::new();
        while let Some(row) = rows.next()? {
            let row = Columns(row);
            given.push(Given {
                attempt: row.parsed(2)?,
                builder: row.parsed(3)?,
                key: key(&row)?,
                target: row.parsed(4)?,
            });
        }
        given.reverse();
        Ok(given)
    }

    fn stamps(&self) -> Done<Stamps> {
        let mut statement = self.0.prepare("SELECT path, inode, modified FROM stamps")?;
        let rows = statement.query_map([], |row| {
            let inode: i64 = row.get(1)?;
            Ok((row.get(0)?, Stamp { inode: inode.cast_unsigned(), modified: row.get(2)? }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn remember(&mut self, stamps: &Stamps) -> Done {
        let before = self.stamps()?;
        let transaction = self.0.transaction()?;
        for path in before.keys().filter(|path| !stamps.contains_key(*path)) {
            transaction.prepare_cached("DELETE FROM stamps WHERE path = ?1")?.execute([path])?;
        }
        for (path, stamp) in stamps.iter().filter(|(path, stamp)| before.get(*path) != Some(*stamp)) {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO stamps VALUES (?1, ?2, ?3)")?
                .execute(params![path, stamp.inode.cast_signed(), stamp.modified])?;
        }
        Ok(transaction.commit()?)
    }
}

/// From the first two columns.
fn key(row: &Columns<'_>) -> Done<BuildKey> {
    Ok(BuildKey { target: row.maybe_parsed(0)?, srpm: row.parsed(1)? })
}

/// What stands in the columns `outcome`, `failure`, `reason`, `exit_code` and `missing`.
struct Told<'a> {
    outcome: &'static str,
    failure: Option<&'static str>,
    reason: Option<&'a str>,
    exit_code: Option<i32>,
    missing: Option<String>,
}

impl<'a> Told<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => {
                Self { outcome: "succeeded", failure: None, reason: None, exit_code: None, missing: None }
            }
            Outcome::Failed { kind, reason, exit_code, missing } => Self {
                outcome: "failed",
                failure: Some(kind.word()),
                reason: Some(reason),
                exit_code: *exit_code,
                missing: Some(json(missing)).filter(|_| !missing.is_empty()),
            },
        }
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn target(key: &BuildKey) -> Option<&str> {
    key.target.as_ref().map(|target| target.as_str())
}

/// The package's name. Version and release have no dash.
fn package(nvr: Option<&Nvr>) -> Option<&str> {
    nvr?.as_str().rsplitn(3, '-').nth(2)
}

/// One transaction.
struct Write<'a>(&'a Transaction<'a>);

impl Write<'_> {
    fn entry(&self, entry: &Entry) -> Done {
        match entry {
            Entry::Queued(srpm) => self.queued(srpm),
            Entry::Leased(leased) => self.leased(leased),
            Entry::Readopted(leased) => self.readopted(leased),
            Entry::AttemptEnded(end) => self.ended(end),
            Entry::Settled(settled) => self.settled(settled),
            Entry::Withdrawn { key, at, reason } => self.withdrawn(key, *at, reason),
            Entry::Unearthed(settled) => self.unearthed(settled),
        }
    }

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Done<usize> {
        Ok(self.0.prepare_cached(sql)?.execute(values)?)
    }

    fn number(&self, sql: &str, values: impl rusqlite::Params) -> Done<Option<i64>> {
        Ok(self.0.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?)
    }

    /// The build of a key that is not settled.
    fn open(&self, key: &BuildKey) -> Done<Option<i64>> {
        let sql = "SELECT id FROM builds \
                   WHERE srpm = ?1 AND ifnull(target, '') = ifnull(?2, '') AND settled_at IS NULL";
        self.number(sql, params![key.srpm.as_str(), target(key)])
    }

    /// The build of an attempt.
    fn of_attempt(&self, attempt: AttemptId) -> Done<Option<i64>> {
        self.number("SELECT build FROM attempts WHERE id = ?1", [attempt.to_string()])
    }

    fn queued(&self, srpm: &Srpm) -> Done {
        let Srpm { key, queued_at, .. } = srpm;
        // Told late: what was queued then is settled by now.
        let sql = "SELECT id FROM builds WHERE srpm = ?1 AND target IS ?2 AND settled_at >= ?3 LIMIT 1";
        let values = params![key.srpm.as_str(), target(key), micros(*queued_at)];
        if self.open(key)?.is_none() && self.number(sql, values)?.is_some() {
            return Ok(());
        }
        self.ensure_open(srpm).map(|_| ())
    }

    /// The open build of an SRPM, begun if need be, which is now as `srpm` says.
    fn ensure_open(&self, srpm: &Srpm) -> Done<i64> {
        let Srpm { key, nvr, size, queued_at } = srpm;
        let nvr = nvr.as_ref();
        match self.open(key)? {
            Some(build) => {
                // It may have been replaced by another one of that name.
                let sql = "UPDATE builds SET nvr = ifnull(?2, nvr), name = ifnull(?3, name), size = ?4 WHERE id = ?1";
                self.run(sql, params![build, nvr.map(Nvr::as_str), package(nvr), bytes(*size)])?;
                Ok(build)
            }
            None => {
                let sql = "INSERT INTO builds (target, srpm, nvr, name, size, queued_at, state) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'queued')";
                let values = params![
                    target(key),
                    key.srpm.as_str(),
                    nvr.map(Nvr::as_str),
                    package(nvr),
                    bytes(*size),
                    micros(*queued_at)
                ];
                self.run(sql, values)?;
                Ok(self.0.last_insert_rowid())
            }
        }
    }

    fn leased(&self, leased: &Leased) -> Done {
        let Leased { srpm, attempt, builder, target, at } = leased;
        if self.of_attempt(*attempt)?.is_some() {
            return Ok(());
        }
        let build = self.ensure_open(srpm)?;
        let sql = "INSERT INTO attempts (id, build, builder, target, leased_at) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![attempt.to_string(), build, builder.to_string(), target.as_str(), micros(*at)];
        self.run(sql, values)?;
        self.follow(build)
    }

    fn readopted(&self, leased: &Leased) -> Done {
        self.leased(leased)?;
        let Some(build) = self.of_attempt(leased.attempt)? else { return Ok(()) };
        let sql = "UPDATE attempts SET readopted = readopted + 1, ended_at = NULL, ending = NULL \
                   WHERE id = ?1 AND outcome IS NULL \
                   AND EXISTS (SELECT 1 FROM builds WHERE id = ?2 AND settled_at IS NULL)";
        self.run(sql, params![leased.attempt.to_string(), build])?;
        self.follow(build)
    }

    /// An open build runs while one of its attempts does.
    fn follow(&self, build: i64) -> Done {
        let sql = "UPDATE builds SET state = CASE WHEN EXISTS \
                   (SELECT 1 FROM attempts WHERE build = ?1 AND ended_at IS NULL) \
                   THEN 'running' ELSE 'queued' END WHERE id = ?1 AND settled_at IS NULL";
        self.run(sql, [build]).map(|_| ())
    }

    fn ended(&self, end: &AttemptEnd) -> Done {
        let Some(build) = self.of_attempt(end.attempt)? else { return Ok(()) };
        self.end(end)?;
        self.follow(build)
    }

    /// Fills in what is not known yet. `interrupted` is a guess, which whoever knows better corrects.
    fn end(&self, end: &AttemptEnd) -> Done {
        let told = end.outcome.as_ref().map(Told::of);
        let told = told.as_ref();
        let sql = "UPDATE attempts SET \
                   ended_at = CASE WHEN ending IS NULL OR ending = 'interrupted' THEN ?2 ELSE ended_at END, \
                   ending = CASE WHEN ending IS NULL OR ending = 'interrupted' THEN ?3 ELSE ending END, \
                   outcome = ifnull(outcome, ?4), failure = ifnull(failure, ?5), \
                   reason = ifnull(reason, ?6), exit_code = ifnull(exit_code, ?7), \
                   missing = ifnull(missing, ?8), srpm_sha256 = ifnull(srpm_sha256, ?9), \
                   logs = CASE WHEN logs = '{}' THEN ?10 ELSE logs END, bytes = max(bytes, ?11) \
                   WHERE id = ?1";
        let values = params![
            end.attempt.to_string(),
            micros(end.at),
            end.ending.word(),
            told.map(|told| told.outcome),
            told.and_then(|told| told.failure),
            told.and_then(|told| told.reason),
            told.and_then(|told| told.exit_code),
            told.and_then(|told| told.missing.as_deref()),
            end.srpm_sha256.map(|digest| digest.to_string()),
            json(&end.logs),
            bytes(end.bytes)
        ];
        self.run(sql, values).map(|_| ())
    }

    fn settled(&self, settled: &Settled) -> Done {
        let Settled { key, at, verdict, record, size } = settled;
        let known = match &record.attempt {
            Some(attempt) => self.of_attempt(attempt.id)?,
            None => None,
        };
        let build = match known {
            Some(build) => Some(build),
            None => self.open(key)?,
        };
        let Some(build) = build else { return self.unearthed(settled) };
        self.attempt_of(build, record)?;
        self.settle(build, *at, *verdict, record, *size, "(settled_at IS NULL OR state = 'withdrawn')")
    }

    fn settle(
        &self,
        build: i64,
        at: Timestamp,
        verdict: Verdict,
        record: &BuildRecord,
        size: Option<u64>,
        when: &str,
    ) -> Done {
        let told = Told::of(&record.outcome);
        let attempt = record.attempt.as_ref();
        let nvr = record.nvr.as_ref();
        let sql = format!(
            "UPDATE builds SET state = ?2, settled_at = ?3, reason = ?4, failure = ?5, settled_by = ?6, \
             nvr = ifnull(?7, nvr), name = ifnull(?8, name), srpm_sha256 = ifnull(?9, srpm_sha256), \
             size = ifnull(?10, size) WHERE id = ?1 AND {when}"
        );
        let values = params![
            build,
            BuildState::Settled(verdict).word(),
            micros(at),
            told.reason,
            told.failure,
            attempt.map(|attempt| attempt.id.to_string()),
            nvr.map(Nvr::as_str),
            package(nvr),
            attempt.and_then(|attempt| attempt.srpm_sha256).map(|digest| digest.to_string()),
            size.map(bytes)
        ];
        if self.run(&sql, values)? > 0 {
            self.end_others(build, at, Ending::Stale)?;
        }
        Ok(())
    }

    /// Nothing runs for a build that is settled.
    fn end_others(&self, build: i64, at: Timestamp, ending: Ending) -> Done {
        let sql = "UPDATE attempts SET ended_at = ?2, ending = ?3 WHERE build = ?1 AND ended_at IS NULL";
        self.run(sql, params![build, micros(at), ending.word()]).map(|_| ())
    }

    /// The attempt that a record tells of, complete, with its artifacts.
    fn attempt_of(&self, build: i64, record: &BuildRecord) -> Done {
        let Some(attempt) = &record.attempt else { return Ok(()) };
        let sql = "INSERT OR IGNORE INTO attempts (id, build, builder, target, leased_at) \
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![
            attempt.id.to_string(),
            build,
            attempt.builder.to_string(),
            attempt.target.as_str(),
            micros(attempt.leased_at)
        ];
        self.run(sql, values)?;
        let logs = record.artifacts.iter().filter(|artifact| !artifact.name.is_rpm());
        self.end(&AttemptEnd {
            attempt: attempt.id,
            at: attempt.delivered_at,
            ending: Ending::Delivered,
            outcome: Some(record.outcome.clone()),
            srpm_sha256: attempt.srpm_sha256,
            logs: logs.map(|log| (log.name.to_string(), log.size)).collect(),
            bytes: record.artifacts.iter().fold(0, |sum, artifact| artifact.size.saturating_add(sum)),
        })?;
        for artifact in &record.artifacts {
            let sql = "INSERT OR REPLACE INTO artifacts VALUES (?1, ?2, ?3, ?4)";
            let (id, digest) = (attempt.id.to_string(), artifact.sha256.to_string());
            self.run(sql, params![id, artifact.name.as_str(), bytes(artifact.size), digest])?;
        }
        Ok(())
    }

    fn unearthed(&self, settled: &Settled) -> Done {
        let Settled { key, at, verdict, record, size } = settled;
        let known = match &record.attempt {
            Some(attempt) => self.of_attempt(attempt.id)?,
            None => self.told_already(key, *at, record)?,
        };
        if let Some(build) = known {
            self.attempt_of(build, record)?;
            self.follow(build)?;
            return self.settle(build, *at, *verdict, record, *size, "state = 'withdrawn'");
        }
        let began = record.attempt.as_ref().map_or(*at, |attempt| attempt.leased_at);
        let sql = "INSERT INTO builds (target, srpm, queued_at, state, settled_at) \
                   VALUES (?1, ?2, ?3, 'withdrawn', ?4)";
        self.run(sql, params![target(key), key.srpm.as_str(), micros(began), micros(*at)])?;
        let build = self.0.last_insert_rowid();
        self.attempt_of(build, record)?;
        self.settle(build, *at, *verdict, record, *size, "state = 'withdrawn'")
    }

    /// A build without an attempt has no id: its reason, and about when, have to do.
    fn told_already(&self, key: &BuildKey, at: Timestamp, record: &BuildRecord) -> Done<Option<i64>> {
        const NEAR: i64 = 60_000_000;
        let sql = "SELECT id FROM builds WHERE srpm = ?1 AND target IS ?2 AND settled_by IS NULL \
                   AND state IN ('succeeded', 'failed', 'held') AND ifnull(reason, '') = ifnull(?3, '') \
                   AND settled_at >= ?4 LIMIT 1";
        let near = micros(at).saturating_sub(NEAR);
        let reason = Told::of(&record.outcome).reason;
        self.number(sql, params![key.srpm.as_str(), target(key), reason, near])
    }

    fn withdrawn(&self, key: &BuildKey, at: Timestamp, reason: &str) -> Done {
        let Some(build) = self.open(key)? else { return Ok(()) };
        let sql = "UPDATE builds SET state = 'withdrawn', settled_at = ?2, reason = ?3 WHERE id = ?1";
        self.run(sql, params![build, micros(at), reason])?;
        self.end_others(build, at, Ending::Cancelled)
    }
}
