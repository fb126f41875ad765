//! Entries become events: rows that say what happened, written in the same transaction.
//!
//! An entry that is told twice makes one event, because an event is made where something changes, and nowhere
//! else. Ids grow by one, and at each opening they begin at the milliseconds since 1970 if that is more: so a
//! history that was lost gives no id again, as long as there was less than an event each millisecond.
//!
//! It deliberately does not know who hears of events.

use jiff::{SignedDuration, Timestamp};
use moji_proto::api::{Event, EventBuild, EventKind};
use moji_proto::outcome::one_line;
use moji_proto::{AttemptId, FailureKind, Outcome};
use rusqlite::{Connection, params};

use super::entry::{AttemptEnd, BuildState, Ending, Happening, Leased, Settled, Verdict};
use super::store::StoreError;
use super::words::{Columns, Word as _, bytes, micros};
use super::write::{Write, json};

type Done<T = ()> = Result<T, StoreError>;

/// Most events that are kept.
const KEPT: u64 = 100_000;
/// How long they are kept.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long they are kept for a receiver that does not take them, whatever their number.
const KEPT_FOR_SINKS: SignedDuration = SignedDuration::from_hours(3 * 24);
/// Most that are removed at a time.
const REMOVED: u64 = 5_000;
/// Most missing requirements that a line names.
const NAMED: usize = 3;

/// The build of an entry, as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    state: BuildState,
    parked_at: Option<i64>,
}

impl Before {
    pub(super) fn is_open(self) -> bool {
        self.state.is_open()
    }
}

impl Write<'_> {
    /// How a build is now.
    pub(super) fn standing(&self, build: i64) -> Done<Option<Before>> {
        let sql = "SELECT state, parked_at FROM builds WHERE id = ?1";
        self.row(sql, [build], |row| Ok(Before { state: row.word(0)?, parked_at: row.0.get(1)? }))
    }

    /// After [`super::Entry::Queued`]: whether it waits now and did not before. An attempt that ended has changed
    /// that already, so the last event counts, not the state alone.
    pub(super) fn tell_queued(&self, build: i64, is_new: bool) -> Done {
        let sql = "SELECT kind FROM events WHERE build = ?1 ORDER BY id DESC LIMIT 1";
        let last: Option<EventKind> = self.row(sql, [build], |row| row.word(0))?;
        // Without any, it waited before there were events.
        let was_told = last.is_none_or(|kind| kind == EventKind::Queued);
        let waits = self.standing(build)?.is_some_and(|now| now.state == BuildState::Queued);
        if !waits || (was_told && !is_new) {
            return Ok(());
        }
        let again = if is_new { "" } else { " again" };
        self.tell(build, EventKind::Queued, self.now, |event, subject| {
            event.text = format!("{subject} is queued{again}");
        })
    }

    /// After an attempt began.
    pub(super) fn tell_started(&self, build: i64, leased: &Leased) -> Done {
        self.tell(build, EventKind::Started, leased.at, |event, subject| {
            event.attempt = Some(leased.attempt);
            event.builder = Some(leased.builder.to_string());
            event.text = match &event.build {
                Some(EventBuild { target: Some(_), .. }) => {
                    format!("{subject} started on {}", leased.builder)
                }
                _ => format!("{subject} started on {} for {}", leased.builder, leased.target),
            };
        })
    }

    /// After an attempt ended that ran, at a build that goes on.
    pub(super) fn tell_ended(&self, build: i64, end: &AttemptEnd) -> Done {
        let builder = self.builder_of(end.attempt)?;
        self.tell(build, EventKind::Ended, end.at, |event, subject| {
            event.attempt = Some(end.attempt);
            if let Some(Outcome::Failed { kind, reason, missing, .. }) = &end.outcome {
                event.failure = Some(*kind);
                event.reason = Some(one_line(reason));
                event.missing.clone_from(missing);
            }
            let why = event.reason.clone().unwrap_or_else(|| in_words(end.ending).to_owned());
            let on = builder.as_ref().map(|builder| format!(" on {builder}")).unwrap_or_default();
            event.text = format!("{subject} is not built{on}: {why}");
            event.builder = builder;
        })
    }

    /// Whether a build is parked that was not, or is so once more.
    pub(super) fn tell_parked(
        &self,
        build: i64,
        before: Option<Before>,
        attempt: Option<AttemptId>,
        at: Timestamp,
    ) -> Done {
        let now = self.standing(build)?;
        if now == before || now.is_none_or(|now| now.state != BuildState::Parked) {
            return Ok(());
        }
        let sql = "SELECT missing FROM builds WHERE id = ?1";
        let missing = self.row(sql, [build], |row| row.list(0))?.unwrap_or_default();
        let builder = attempt.map(|attempt| self.builder_of(attempt)).transpose()?.flatten();
        self.tell(build, EventKind::Parked, at, |event, subject| {
            event.text = format!("{subject} waits for {}", some_of(&missing));
            (event.attempt, event.builder, event.missing) = (attempt, builder, missing);
            event.failure = Some(FailureKind::MissingDependency);
        })
    }

    /// After a build was settled.
    pub(super) fn tell_settled(&self, build: i64, settled: &Settled) -> Done {
        let (kind, how) = match settled.verdict {
            Verdict::Succeeded => (EventKind::Succeeded, "succeeded"),
            Verdict::Failed => (EventKind::Failed, "failed"),
            Verdict::Held => (EventKind::Held, "is held"),
        };
        self.tell(build, kind, settled.at, |event, subject| {
            event.text = format!("{subject} {how}");
            if let Some(attempt) = &settled.record.attempt {
                event.attempt = Some(attempt.id);
                event.builder = Some(attempt.builder.to_string());
                if settled.verdict == Verdict::Succeeded {
                    event.text += &format!(" on {}", attempt.builder);
                }
            }
            if let Outcome::Failed { kind, reason, missing, .. } = &settled.record.outcome {
                event.text += &format!(": {reason}");
                event.failure = Some(*kind);
                event.reason = Some(one_line(reason));
                event.missing.clone_from(missing);
            }
        })
    }

    /// After an SRPM was taken out.
    pub(super) fn tell_withdrawn(&self, build: i64, at: Timestamp, reason: &str) -> Done {
        self.tell(build, EventKind::Withdrawn, at, |event, subject| {
            event.text = format!("{subject} is withdrawn: {reason}");
            event.reason = Some(one_line(reason));
        })
    }

    /// Something that happened to no build. It has no id by which it could be known again, so the same words of
    /// the same microsecond have to do.
    pub(super) fn happened(&self, happening: &Happening) -> Done {
        let Happening { at, kind, text, builder, target, generation } = happening;
        let event = Event {
            text: text.clone(),
            builder: builder.as_ref().map(ToString::to_string),
            target: target.clone(),
            generation: *generation,
            ..empty(*kind, *at)
        };
        let sql = "SELECT id FROM events WHERE at = ?1 AND +kind = ?2 AND text = ?3 AND builder IS ?4 \
                   AND target IS ?5 AND generation IS ?6 LIMIT 1";
        let values = params![
            micros(*at),
            kind.word(),
            one_line(text),
            event.builder,
            target.as_ref().map(|target| target.as_str()),
            generation.map(bytes)
        ];
        match self.row(sql, values, |row| row.unsigned(0))? {
            Some(_) => Ok(()),
            None => self.insert(&event),
        }
    }

    fn builder_of(&self, attempt: AttemptId) -> Done<Option<String>> {
        let sql = "SELECT builder FROM attempts WHERE id = ?1";
        self.row(sql, [attempt.to_string()], |row| Ok(row.0.get(0)?))
    }

    /// An event of a build; `fill` also gets what people call that.
    fn tell(&self, build: i64, kind: EventKind, at: Timestamp, fill: impl FnOnce(&mut Event, &str)) -> Done {
        let sql = "SELECT id, target, srpm, nvr FROM builds WHERE id = ?1";
        let build = self.row(sql, [build], |row| {
            let (id, target) = (row.maybe_unsigned(0)?, row.maybe_parsed(1)?);
            Ok(EventBuild { id, target, srpm: row.parsed(2)?, nvr: row.maybe_parsed(3)? })
        })?;
        let Some(build) = build else { return Ok(()) };
        let name = build.nvr.as_ref().map_or_else(|| build.srpm.to_string(), ToString::to_string);
        let subject = match &build.target {
            Some(target) => format!("{name} for {target}"),
            None => name,
        };
        let mut event = Event { build: Some(build), ..empty(kind, at) };
        fill(&mut event, &subject);
        self.insert(&event)
    }

    fn insert(&self, event: &Event) -> Done {
        let sql = "INSERT INTO events VALUES ((SELECT max(?1, ifnull(max(id) + 1, 0)) FROM events), \
                   ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        let build = event.build.as_ref();
        let values = params![
            self.first_id,
            micros(self.now),
            micros(event.at),
            event.kind.word(),
            one_line(&event.text),
            build.and_then(|build| build.id).map(bytes),
            build.and_then(|build| build.target.as_ref()).map(|target| target.as_str()),
            build.map(|build| build.srpm.as_str()),
            build.and_then(|build| build.nvr.as_ref()).map(|nvr| nvr.as_str()),
            event.attempt.map(|attempt| attempt.to_string()),
            event.builder,
            event.failure.map(|kind| kind.word()),
            event.reason,
            Some(json(&event.missing)).filter(|_| !event.missing.is_empty()),
            event.target.as_ref().map(|target| target.as_str()),
            event.generation.map(bytes)
        ];
        self.run(sql, values).map(|_| ())
    }
}

fn empty(kind: EventKind, at: Timestamp) -> Event {
    Event {
        id: 0,
        at,
        kind,
        text: String::new(),
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

fn in_words(ending: Ending) -> &'static str {
    match ending {
        Ending::Delivered => "it failed",
        Ending::Lost => "the builder was lost",
        Ending::Released => "the builder gave it back",
        Ending::Cancelled => "it was cancelled",
        Ending::Stale => "another attempt was first",
        Ending::Rejected => "its results were not good",
        Ending::Interrupted => "it was interrupted",
    }
}

fn some_of(missing: &[String]) -> String {
    let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match missing.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Removes some of the oldest events that nobody needs any more. The newest one stays, so that its id is known.
pub(super) fn prune(connection: &Connection, now: Timestamp) -> Done {
    let number = |sql: &str, value: i64| -> Done<Option<i64>> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([value])?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?.flatten())
    };
    let ago = |time: SignedDuration| micros(now.saturating_sub(time).unwrap_or(Timestamp::UNIX_EPOCH));
    let newest = number("SELECT max(id) FROM events WHERE id > ?1", 0)?.unwrap_or(0);
    // The first that stays, for each reason.
    let young = "SELECT id FROM events WHERE noted_at >= ?1 ORDER BY id LIMIT 1";
    let by_age = number(young, ago(KEPT_FOR))?.unwrap_or(newest);
    let by_number =
        number("SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?1", bytes(KEPT) - 1)?.unwrap_or(0);
    let mut stay = by_age.max(by_number).min(newest);
    let slowest = number("SELECT min(delivered) + 1 FROM sinks WHERE ?1", 1)?;
    if let Some(slowest) = slowest.filter(|slowest| *slowest < stay) {
        let too_late = number(young, ago(KEPT_FOR_SINKS))?.unwrap_or(newest);
        stay = stay.min(slowest.max(too_late));
    }
    let some = number("SELECT id FROM events ORDER BY id LIMIT 1 OFFSET ?1", bytes(REMOVED))?;
    let stay = stay.min(some.unwrap_or(newest));
    connection.prepare_cached("DELETE FROM events WHERE id < ?1")?.execute([stay])?;
    Ok(())
}

impl Write<'_> {
    fn row<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Columns<'_>) -> Done<T>,
    ) -> Done<Option<T>> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        rows.next()?.map(|row| read(&Columns(row))).transpose()
    }
}
