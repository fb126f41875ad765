//! Entries become rows.
//!
//! It deliberately asks nothing for anybody: what is told from rows is in [`super::answers`].

use jiff::Timestamp;
use moji_proto::{AttemptId, Nvr, Outcome, TargetName};
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::entry::{AttemptEnd, BuildState, Ending, Entry, Leased, Parked, Settled, Srpm, Verdict};
use super::store::StoreError;
use super::words::{Word as _, bytes, micros};
use crate::BuildKey;
use crate::record::BuildRecord;

type Done<T = ()> = Result<T, StoreError>;

/// Most capabilities of one package that are kept, and the longest one. A kernel has some thousands.
const CAPABILITIES_MAX: usize = 16 * 1024;
const CAPABILITY_BYTES_MAX: usize = 4096;

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

pub(super) fn json(value: &impl serde::Serialize) -> String {
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
pub(super) struct Write<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    /// When it is written.
    pub(super) now: Timestamp,
    /// The least id that an event may have.
    pub(super) first_id: i64,
}

impl Write<'_> {
    pub(super) fn entry(&self, entry: &Entry) -> Done {
        match entry {
            Entry::Queued(srpm) => self.queued(srpm),
            Entry::Leased(leased) => self.leased(leased),
            Entry::Readopted(leased) => self.readopted(leased),
            Entry::AttemptEnded(end) => self.ended(end),
            Entry::Parked(parked) => self.parked(parked),
            Entry::Provided { target, package, capabilities } => {
                self.provided(target.as_ref(), package, capabilities)
            }
            Entry::Settled(settled) => match self.settled(settled)? {
                Some(build) => self.tell_settled(build, settled),
                None => Ok(()),
            },
            Entry::Withdrawn { key, at, reason } => self.withdrawn(key, *at, reason),
            Entry::Happened(happening) => self.happened(happening),
            Entry::Unearthed(settled) => self.unearthed(settled).map(|_| ()),
            Entry::FoundParked { key, record, size } => self.found_parked(key, record, *size),
            Entry::Together(entries) => entries.iter().try_for_each(|entry| self.entry(entry)),
        }
    }

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> Done<usize> {
        Ok(self.transaction.prepare_cached(sql)?.execute(values)?)
    }

    fn number(&self, sql: &str, values: impl rusqlite::Params) -> Done<Option<i64>> {
        Ok(self.transaction.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?)
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
        let is_new = self.open(key)?.is_none();
        if is_new && self.number(sql, values)?.is_some() {
            return Ok(());
        }
        let build = self.ensure_open(srpm)?;
        self.tell_queued(build, is_new)
    }

    /// The open build of an SRPM, begun if need be, which is now as `srpm` says.
    fn ensure_open(&self, srpm: &Srpm) -> Done<i64> {
        let Srpm { key, nvr, size, queued_at } = srpm;
        let nvr = nvr.as_ref();
        match self.open(key)? {
            Some(build) => {
                // It may have been replaced by another one of that name.
                let sql = "UPDATE builds SET nvr = ifnull(?2, nvr), name = ifnull(?3, name), size = ?4 \
                           WHERE id = ?1";
                self.run(sql, params![build, nvr.map(Nvr::as_str), package(nvr), bytes(*size)])?;
                self.unpark(build)?;
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
                Ok(self.transaction.last_insert_rowid())
            }
        }
    }

    fn leased(&self, leased: &Leased) -> Done {
        match self.lease(leased)? {
            Some(build) => self.tell_started(build, leased),
            None => Ok(()),
        }
    }

    /// The build of an attempt that was not known.
    fn lease(&self, leased: &Leased) -> Done<Option<i64>> {
        let Leased { srpm, attempt, builder, class, target, generation, at } = leased;
        if self.of_attempt(*attempt)?.is_some() {
            return Ok(None);
        }
        let build = self.ensure_open(srpm)?;
        let sql = "INSERT INTO attempts (id, build, builder, target, leased_at, builder_class, generation) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let values = params![
            attempt.to_string(),
            build,
            builder.to_string(),
            target.as_str(),
            micros(*at),
            class.as_ref().map(ToString::to_string),
            generation.map(bytes)
        ];
        self.run(sql, values)?;
        self.follow(build)?;
        Ok(Some(build))
    }

    /// No event: it goes on with what had started. At a build that has come back it starts.
    fn readopted(&self, leased: &Leased) -> Done {
        self.lease(leased)?;
        let has_come_back = self.come_back(leased.attempt, &leased.srpm.key)?;
        let Some(build) = self.of_attempt(leased.attempt)? else { return Ok(()) };
        let sql = "UPDATE attempts SET readopted = readopted + 1, ended_at = NULL, ending = NULL \
                   WHERE id = ?1 AND outcome IS NULL \
                   AND EXISTS (SELECT 1 FROM builds WHERE id = ?2 AND settled_at IS NULL)";
        if self.run(sql, params![leased.attempt.to_string(), build])? > 0 {
            self.unpark(build)?;
        }
        self.follow(build)?;
        if has_come_back { self.tell_started(build, leased) } else { Ok(()) }
    }

    /// Whether an SRPM that was taken out has come back since, and the attempt at it goes on: it is one at the new
    /// build from now on. The withdrawn one stays what it is.
    fn come_back(&self, attempt: AttemptId, key: &BuildKey) -> Done<bool> {
        let Some(open) = self.open(key)? else { return Ok(false) };
        let sql = "UPDATE attempts SET build = ?2 WHERE id = ?1 AND build IN \
                   (SELECT id FROM builds WHERE srpm = ?3 AND target IS ?4 AND state = 'withdrawn')";
        let values = params![attempt.to_string(), open, key.srpm.as_str(), target(key)];
        Ok(self.run(sql, values)? > 0)
    }

    fn parked(&self, parked: &Parked) -> Done {
        let Parked { key, at, missing, attempt } = parked;
        let Some(build) = self.open(key)? else { return Ok(()) };
        let before = self.standing(build)?;
        if self.of_attempt(*attempt)? == Some(build) {
            // Only a guess, for when nobody told how it ended.
            self.end(&AttemptEnd::new(*attempt, *at, Ending::Interrupted))?;
        }
        let sql = "UPDATE builds SET parked_at = ?2, missing = ?3 WHERE id = ?1";
        self.run(sql, params![build, micros(*at), json(missing)])?;
        self.follow(build)?;
        self.tell_parked(build, before, Some(*attempt), *at)
    }

    fn found_parked(&self, key: &BuildKey, record: &BuildRecord, size: u64) -> Done {
        let (Some(attempt), Outcome::Failed { missing, .. }) = (&record.attempt, &record.outcome) else {
            return Ok(());
        };
        let known = self.open(key)?;
        // An attempt at a build that is settled, or at another one, says nothing of this.
        if self.of_attempt(attempt.id)?.is_some_and(|build| Some(build) != known) {
            return Ok(());
        }
        let before = known.map(|build| self.standing(build)).transpose()?.flatten();
        let (nvr, queued_at) = (record.nvr.clone(), attempt.leased_at);
        let build = self.ensure_open(&Srpm { key: key.clone(), nvr, size, queued_at })?;
        self.attempt_of(build, record)?;
        let sql = "UPDATE builds SET parked_at = ?2, missing = ?3 WHERE id = ?1";
        self.run(sql, params![build, micros(attempt.delivered_at), json(missing)])?;
        self.follow(build)?;
        // One that is found in a history made anew is no news.
        if known.is_some() {
            self.tell_parked(build, before, Some(attempt.id), attempt.delivered_at)
        } else {
            Ok(())
        }
    }

    /// What was missing is not waited for any more.
    fn unpark(&self, build: i64) -> Done {
        let sql = "UPDATE builds SET parked_at = NULL, missing = NULL, \
                   state = CASE state WHEN 'parked' THEN 'queued' ELSE state END \
                   WHERE id = ?1 AND parked_at IS NOT NULL";
        self.run(sql, [build]).map(|_| ())
    }

    fn provided(&self, target: Option<&TargetName>, package: &str, capabilities: &[String]) -> Done {
        let target = target.map_or("", |target| target.as_str());
        self.run("DELETE FROM provides WHERE target = ?1 AND package = ?2", [target, package])?;
        let usable = |capability: &&String| capability.len() <= CAPABILITY_BYTES_MAX;
        for capability in capabilities.iter().filter(usable).take(CAPABILITIES_MAX) {
            let sql = "INSERT OR IGNORE INTO provides VALUES (?1, ?2, ?3)";
            self.run(sql, [target, package, capability])?;
        }
        Ok(())
    }

    /// An open build runs while one of its attempts does; else it is parked, if it was since the last one.
    fn follow(&self, build: i64) -> Done {
        let sql = "UPDATE builds SET state = CASE WHEN EXISTS \
                   (SELECT 1 FROM attempts WHERE build = ?1 AND ended_at IS NULL) \
                   THEN 'running' WHEN parked_at IS NULL THEN 'queued' ELSE 'parked' END WHERE id = ?1 AND settled_at IS NULL";
        self.run(sql, [build]).map(|_| ())
    }

    fn ended(&self, end: &AttemptEnd) -> Done {
        let Some(build) = self.of_attempt(end.attempt)? else { return Ok(()) };
        let before = self.standing(build)?;
        let ran = "SELECT build FROM attempts WHERE id = ?1 AND ended_at IS NULL";
        let ran = self.number(ran, [end.attempt.to_string()])?.is_some();
        self.end(end)?;
        self.follow(build)?;
        if ran && before.is_some_and(|before| before.is_open()) {
            self.tell_ended(build, end)?;
            // Parked while this attempt still ran.
            self.tell_parked(build, before, None, end.at)?;
        }
        Ok(())
    }

    /// Fills in what is not known yet. `interrupted` is a guess, which whoever knows better corrects; and one that was
    /// cancelled may have been delivered all the same, when its builder had not heard of it.
    fn end(&self, end: &AttemptEnd) -> Done {
        const UNSURE: &str =
            "ending IS NULL OR ending = 'interrupted' OR (ending = 'cancelled' AND ?3 = 'delivered')";
        let told = end.outcome.as_ref().map(Told::of);
        let told = told.as_ref();
        let sql = format!(
            "UPDATE attempts SET \
                   ended_at = CASE WHEN {UNSURE} THEN ?2 ELSE ended_at END, \
                   ending = CASE WHEN {UNSURE} THEN ?3 ELSE ending END, \
                   outcome = ifnull(outcome, ?4), failure = ifnull(failure, ?5), \
                   reason = ifnull(reason, ?6), exit_code = ifnull(exit_code, ?7), \
                   missing = ifnull(missing, ?8), srpm_sha256 = ifnull(srpm_sha256, ?9), \
                   logs = CASE WHEN logs = '{{}}' THEN ?10 ELSE logs END, bytes = max(bytes, ?11) \
                   WHERE id = ?1"
        );
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
        self.run(&sql, values).map(|_| ())
    }

    /// The build that is settled now and was not.
    fn settled(&self, settled: &Settled) -> Done<Option<i64>> {
        let Settled { key, at, verdict, record, size } = settled;
        let known = match &record.attempt {
            Some(attempt) => {
                self.come_back(attempt.id, key)?;
                self.of_attempt(attempt.id)?
            }
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
    ) -> Done<Option<i64>> {
        let told = Told::of(&record.outcome);
        let attempt = record.attempt.as_ref();
        let nvr = record.nvr.as_ref();
        let sql = format!(
            "UPDATE builds SET state = ?2, settled_at = ?3, reason = ?4, failure = ?5, settled_by = ?6, builder = ?11, \
             parked_at = NULL, missing = NULL, nvr = ifnull(?7, nvr), name = ifnull(?8, name), srpm_sha256 = ifnull(?9, srpm_sha256), \
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
            size.map(bytes),
            attempt.map(|attempt| attempt.builder.to_string())
        ];
        if self.run(&sql, values)? == 0 {
            return Ok(None);
        }
        self.end_others(build, at, Ending::Stale)?;
        Ok(Some(build))
    }

    /// Nothing runs for a build that is settled.
    fn end_others(&self, build: i64, at: Timestamp, ending: Ending) -> Done {
        let sql = "UPDATE attempts SET ended_at = ?2, ending = ?3 WHERE build = ?1 AND ended_at IS NULL";
        self.run(sql, params![build, micros(at), ending.word()]).map(|_| ())
    }

    /// The attempt that a record tells of, complete, with its artifacts.
    fn attempt_of(&self, build: i64, record: &BuildRecord) -> Done {
        let Some(attempt) = &record.attempt else { return Ok(()) };
        let sql = "INSERT OR IGNORE INTO attempts (id, build, builder, target, leased_at, generation) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = params![
            attempt.id.to_string(),
            build,
            attempt.builder.to_string(),
            attempt.target.as_str(),
            micros(attempt.leased_at),
            attempt.repository.as_ref().map(|repository| bytes(repository.generation))
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

    fn unearthed(&self, settled: &Settled) -> Done<Option<i64>> {
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
        let build = self.transaction.last_insert_rowid();
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
        let sql = "UPDATE builds SET state = 'withdrawn', settled_at = ?2, reason = ?3, parked_at = NULL, \
                   missing = NULL WHERE id = ?1";
        self.run(sql, params![build, micros(at), reason])?;
        self.end_others(build, at, Ending::Cancelled)?;
        self.tell_withdrawn(build, at, reason)
    }
}
