//! Rows as what is told of them.

use jiff::Timestamp;
use moji_proto::ArtifactName;
use moji_proto::api::{Attempt, Build, BuildState, LogInfo};

use super::Done;
use crate::history::entry::{self, Verdict};
use crate::history::store::StoreError;
use crate::history::words::Columns;

/// What [`build`] reads of the builds whose numbers are in a JSON list.
pub(super) const BUILD: &str = "b.id, b.target, b.srpm, b.nvr, b.name, b.state, b.queued_at, b.settled_at, \
     (SELECT count(*) FROM attempts WHERE build = b.id), a.id, a.builder, a.leased_at, a.ended_at, b.failure, \
     b.reason, CASE WHEN b.settled_at IS NULL THEN b.missing ELSE a.missing END \
     FROM json_each(?1) wanted CROSS JOIN builds b ON b.id = wanted.value LEFT JOIN attempts a ON a.id = ifnull(b.settled_by, \
     (SELECT id FROM attempts WHERE build = b.id ORDER BY leased_at DESC, id DESC LIMIT 1))";

pub(super) fn build(row: &Columns<'_>, now: Timestamp) -> Done<Build> {
    let began: Option<Timestamp> = row.maybe_time(11)?;
    let ended = row.maybe_time(12)?.unwrap_or(now);
    Ok(Build {
        id: row.unsigned(0)?,
        target: row.maybe_parsed(1)?,
        srpm: row.parsed(2)?,
        nvr: row.maybe_parsed(3)?,
        package: row.0.get(4)?,
        state: state(row.word(5)?),
        queued_at: row.time(6)?,
        settled_at: row.maybe_time(7)?,
        attempts: row.0.get(8)?,
        attempt: row.maybe_parsed(9)?,
        builder: row.0.get(10)?,
        took_seconds: began.map(|began| seconds(began, ended)),
        failure: row.maybe_word(13)?,
        reason: row.0.get(14)?,
        missing: row.list(15)?,
    })
}

/// What [`attempt`] reads.
pub(super) const ATTEMPT: &str = "a.id, a.builder, a.target, a.generation, a.leased_at, a.ended_at, a.ending, \
     a.outcome, a.failure, a.reason, a.exit_code, a.missing, a.logs";

pub(super) fn attempt(row: &Columns<'_>) -> Done<Attempt> {
    let outcome: Option<String> = row.0.get(7)?;
    Ok(Attempt {
        id: row.parsed(0)?,
        builder: row.0.get(1)?,
        target: row.parsed(2)?,
        generation: row.maybe_unsigned(3)?,
        leased_at: row.time(4)?,
        ended_at: row.maybe_time(5)?,
        ending: row.0.get(6)?,
        succeeded: outcome.map(|outcome| outcome == "succeeded"),
        failure: row.maybe_word(8)?,
        reason: row.0.get(9)?,
        exit_code: row.0.get(10)?,
        missing: row.list(11)?,
        logs: logs(&row.0.get::<_, String>(12)?)?,
        running: None,
    })
}

fn logs(json: &str) -> Done<Vec<LogInfo>> {
    let logs: std::collections::BTreeMap<String, u64> =
        serde_json::from_str(json).map_err(|error| StoreError::Broken(format!("logs: {error}")))?;
    let log = |(name, bytes)| Some(LogInfo { name: ArtifactName::new(name).ok()?, bytes });
    Ok(logs.into_iter().filter_map(log).collect())
}

fn state(state: entry::BuildState) -> BuildState {
    match state {
        entry::BuildState::Queued => BuildState::Queued,
        entry::BuildState::Parked => BuildState::Parked,
        entry::BuildState::Running => BuildState::Running,
        entry::BuildState::Settled(Verdict::Succeeded) => BuildState::Succeeded,
        entry::BuildState::Settled(Verdict::Failed) => BuildState::Failed,
        entry::BuildState::Settled(Verdict::Held) => BuildState::Held,
        entry::BuildState::Withdrawn => BuildState::Withdrawn,
    }
}

/// 0 when the clock went back.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0)
}
