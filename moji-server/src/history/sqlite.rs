//! The history in SQLite: the file, and what a start asks of it. Entries become rows in [`super::write`].
//!
//! It deliberately does not know the folders, or who tells it what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use moji_proto::FailureKind;
use moji_proto::api::Event;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::answers;
use super::entry::{BuildState, Ending, Entry};
use super::events;
use super::schema;
use super::store::{
    Backend, Known, KnownAttempt, OpenBuild, Opened, Parks, Products, SettledBuild, Stamp, Stamps, Store,
    StoreError, Waiting,
};
use super::views;
use super::words::{Columns, bytes, unsigned};
use super::write::Write;
use crate::BuildKey;
use crate::estimates::Sample;
use crate::farm::Given;
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
        Ok((Box::new(SqliteStore::new(connection)), opened))
    }
}

/// After how many entries old events are removed.
const PRUNE: usize = 1000;

/// An open file.
pub(super) struct SqliteStore {
    connection: Connection,
    /// The least id of what happens from now on.
    first_id: i64,
    /// Entries since old events were removed.
    entries: usize,
}

impl SqliteStore {
    /// Over a connection whose schema is the newest.
    pub(super) fn new(connection: Connection) -> Self {
        Self::new_at(connection, Timestamp::now())
    }

    /// The same, opened at that time.
    pub(super) fn new_at(connection: Connection, now: Timestamp) -> Self {
        Self { connection, first_id: now.as_millisecond(), entries: PRUNE }
    }

    /// [`Store::apply`] at that time.
    pub(super) fn apply_at(&mut self, entries: &[Entry], now: Timestamp) -> Done {
        let transaction = self.connection.transaction()?;
        let write = Write { transaction: &transaction, now, first_id: self.first_id };
        entries.iter().try_for_each(|entry| write.entry(entry))?;
        self.entries = self.entries.saturating_add(entries.len());
        if self.entries >= PRUNE {
            events::prune(&transaction, now)?;
            self.entries = 0;
        }
        Ok(transaction.commit()?)
    }

    #[cfg(test)]
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Store for SqliteStore {
    fn apply(&mut self, entries: &[Entry]) -> Done {
        self.apply_at(entries, Timestamp::now())
    }

    fn known(&self) -> Done<Known> {
        let mut known = Known::default();
        let mut open = self
            .connection
            .prepare("SELECT target, srpm, nvr, queued_at FROM builds WHERE settled_at IS NULL")?;
        let mut rows = open.query([])?;
        while let Some(row) = rows.next()? {
            let row = Columns(row);
            let (nvr, queued_at) = (row.maybe_parsed(2)?, row.time(3)?);
            let build = OpenBuild { nvr, queued_at, running: BTreeSet::new() };
            known.open.insert(key(&row)?, build);
        }
        let mut attempts = self.connection.prepare(
            "SELECT b.target, b.srpm, b.state, a.id, a.outcome IS NOT NULL, a.ended_at IS NULL \
             FROM attempts a JOIN builds b ON b.id = a.build",
        )?;
        let mut rows = attempts.query([])?;
        while let Some(row) = rows.next()? {
            let columns = Columns(row);
            let (key, build, id) = (key(&columns)?, columns.word::<BuildState>(2)?, columns.parsed(3)?);
            if build.is_open()
                && row.get(5)?
                && let Some(open) = known.open.get_mut(&key)
            {
                open.running.insert(id);
            }
            known.attempts.insert(id, KnownAttempt { key, has_outcome: row.get(4)?, build });
        }
        let mut refused = self.connection.prepare(
            "SELECT target, srpm, ifnull(reason, '') FROM builds \
             WHERE settled_by IS NULL AND state IN ('succeeded', 'failed', 'held', 'withdrawn')",
        )?;
        let mut rows = refused.query([])?;
        while let Some(row) = rows.next()? {
            known.refused.insert((key(&Columns(row))?, row.get(2)?));
        }
        Ok(known)
    }

    fn open_tries(&self) -> Done<BTreeMap<BuildKey, Vec<Try>>> {
        let mut tries: BTreeMap<BuildKey, Vec<Try>> = BTreeMap::new();
        let mut statement = self.connection.prepare(
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
        let mut statement = self.connection.prepare(
            "SELECT b.target, b.srpm, a.id, a.builder, a.target, a.leased_at, a.generation FROM attempts a JOIN builds b ON b.id = a.build \
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
                leased_at: row.time(5)?,
                generation: row.maybe_unsigned(6)?.unwrap_or_default(),
            });
        }
        given.reverse();
        Ok(given)
    }

    fn waiting(&self) -> Done<Waiting> {
        answers::waiting(&self.connection)
    }

    fn parked(&self) -> Done<Parks> {
        answers::parked(&self.connection)
    }

    fn durations(&self, most: usize) -> Done<Vec<Sample>> {
        answers::durations(&self.connection, most)
    }

    fn settled_since(&self, since: Timestamp, most: usize) -> Done<Vec<SettledBuild>> {
        answers::settled_since(&self.connection, since, most)
    }

    fn products(&self) -> Done<Products> {
        answers::products(&self.connection)
    }

    fn events_after(&self, id: u64, most: u32) -> Done<Vec<Event>> {
        views::events_after(&self.connection, id, most)
    }

    fn newest_event(&self) -> Done<u64> {
        let mut newest = self.connection.prepare_cached("SELECT max(id) FROM events")?;
        let newest = newest.query_row([], |row| row.get(0))?;
        Ok(Option::map_or(newest, 0, unsigned))
    }

    fn delivered(&self, sink: &str) -> Done<Option<u64>> {
        let sql = "SELECT delivered FROM sinks WHERE name = ?1";
        Ok(self.connection.query_row(sql, [sink], |row| row.get(0)).optional()?.map(unsigned))
    }

    fn set_delivered(&mut self, sink: &str, id: u64) -> Done {
        let sql = "INSERT INTO sinks VALUES (?1, ?2) \
                   ON CONFLICT (name) DO UPDATE SET delivered = max(delivered, excluded.delivered)";
        self.connection.execute(sql, params![sink, bytes(id)])?;
        Ok(())
    }

    fn forget_sinks(&mut self, except: &BTreeSet<String>) -> Done {
        let transaction = self.connection.transaction()?;
        let known: Vec<String> = transaction
            .prepare("SELECT name FROM sinks")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for name in known.iter().filter(|name| !except.contains(*name)) {
            transaction.execute("DELETE FROM sinks WHERE name = ?1", [name])?;
        }
        Ok(transaction.commit()?)
    }

    fn stamps(&self) -> Done<Stamps> {
        let mut statement = self.connection.prepare("SELECT path, inode, modified FROM stamps")?;
        let rows = statement.query_map([], |row| {
            let inode: i64 = row.get(1)?;
            Ok((row.get(0)?, Stamp { inode: inode.cast_unsigned(), modified: row.get(2)? }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn remember(&mut self, stamps: &Stamps) -> Done {
        let before = self.stamps()?;
        let transaction = self.connection.transaction()?;
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
pub(super) fn key(row: &Columns<'_>) -> Done<BuildKey> {
    Ok(BuildKey { target: row.maybe_parsed(0)?, srpm: row.parsed(1)? })
}
