//! Events, by their ids.

use moji_proto::api::{Event, EventBuild, EventKind};
use rusqlite::{Connection, params};

use super::{Done, Events, Views};
use crate::history::words::{Columns, bytes};

/// What [`event`] reads.
const EVENT: &str = "id, at, kind, text, build, build_target, srpm, nvr, attempt, builder, failure, reason, \
     missing, target, generation";

fn event(row: &Columns<'_>) -> Done<Event> {
    let srpm = row.maybe_parsed(6)?;
    let (id, target, nvr) = (row.maybe_unsigned(4)?, row.maybe_parsed(5)?, row.maybe_parsed(7)?);
    Ok(Event {
        id: row.unsigned(0)?,
        at: row.time(1)?,
        kind: row.word(2)?,
        text: row.0.get(3)?,
        build: srpm.map(|srpm| EventBuild { id, target, srpm, nvr }),
        attempt: row.maybe_parsed(8)?,
        builder: row.0.get(9)?,
        failure: row.maybe_word(10)?,
        reason: row.0.get(11)?,
        missing: row.list(12)?,
        target: row.maybe_parsed(13)?,
        generation: row.maybe_unsigned(14)?,
    })
}

/// The events after that one, oldest first, for the writer, who tells them at once.
pub(in crate::history) fn events_after(connection: &Connection, id: u64, most: u32) -> Done<Vec<Event>> {
    let sql = format!("SELECT {EVENT} FROM events WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![bytes(id), most])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(&Columns(row))?);
    }
    Ok(events)
}

impl Views {
    /// What happened after `since`, of these kinds (none: of all), at most so many.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn events(&self, since: u64, kinds: &[EventKind], limit: u32) -> Done<Events> {
        let mut events = Vec::new();
        if kinds.is_empty() {
            let sql = format!("SELECT {EVENT} FROM events WHERE id > ?1 ORDER BY id LIMIT ?2");
            events = self.rows(&sql, params![bytes(since), limit], event)?;
        }
        // One question for each: so each is answered in the order of an index.
        for kind in kinds.iter().copied().collect::<std::collections::BTreeSet<_>>() {
            let sql = format!("SELECT {EVENT} FROM events WHERE kind = ?3 AND id > ?1 ORDER BY id LIMIT ?2");
            events.extend(self.rows(&sql, params![bytes(since), limit, kind.word()], event)?);
        }
        events.sort_by_key(|event| event.id);
        events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let end = |sql| self.row(sql, [], |row| row.maybe_unsigned(0));
        let oldest = end("SELECT min(id) FROM events")?.flatten().unwrap_or(0);
        let newest = end("SELECT max(id) FROM events")?.flatten().unwrap_or(0);
        Ok(Events { events, oldest, newest })
    }

    /// The last event that a receiver outside has got; none: it is new. A moment later than
    /// [`crate::history::Recorder::delivered`] told it.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn delivered(&self, sink: &str) -> Done<Option<u64>> {
        self.row("SELECT delivered FROM sinks WHERE name = ?1", [sink], |row| row.unsigned(0))
    }
}
