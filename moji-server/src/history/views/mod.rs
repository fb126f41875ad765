//! What pages and people ask of the history.
//!
//! Each question costs what its answer is long, not what the history is long: lists are parts, found by an index; only a search for a
//! part of a name, and numbers of pages, go through all builds' names.
//!
//! It deliberately does not know what the farm does now, nor the folders: [`crate::api`] adds that.

mod attempts;
mod builds;
mod events;
mod rows;
mod totals;

use jiff::Timestamp;
use moji_proto::api::{Attempt, BuildState, Event};
use moji_proto::{FailureKind, TargetName};
use rusqlite::{CachedStatement, Connection, Params};

pub(super) use events::events_after;

use super::store::StoreError;
use super::words::Columns;
use crate::BuildKey;

type Done<T> = Result<T, StoreError>;

/// Statements that each connection keeps.
const STATEMENTS: usize = 64;

/// Which builds are wanted. What is not said is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// In one of these states; none: in any.
    pub states: Vec<BuildState>,
    /// For this target; `Some(None)`: for SOURCE itself.
    pub target: Option<Option<TargetName>>,
    /// Of this package.
    pub package: Option<String>,
    /// Settled by this builder.
    pub builder: Option<String>,
    /// Failed through this one's fault.
    pub failure: Option<FailureKind>,
    /// With this in its SRPM's name, whatever the case.
    pub search: Option<String>,
    /// Older than this one.
    pub before: Option<u64>,
    /// At most so many, and at most [`moji_proto::api::PAGE_MAX`].
    pub limit: u32,
}

/// A part of what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The id of the oldest one that is kept; 0: none is.
    pub oldest: u64,
    /// The id of the newest one, whatever its kind; 0: none is.
    pub newest: u64,
}

/// An attempt and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAttempt {
    /// The build's number.
    pub build: u64,
    /// The SRPM, and where it lies.
    pub key: BuildKey,
    /// The attempt.
    pub attempt: Attempt,
}

/// An open history, to be looked at.
pub struct Views {
    connection: Connection,
    /// When it is asked: what runs has run so long.
    now: Timestamp,
    /// The questions in SQL, for a test of how they are answered.
    #[cfg(test)]
    asked: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Views")
    }
}

impl Views {
    /// Over a connection whose schema is the newest.
    pub(super) fn new(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Self {
            connection,
            now: Timestamp::UNIX_EPOCH,
            #[cfg(test)]
            asked: std::cell::RefCell::default(),
        }
    }

    /// Answers a question of which all parts see the same.
    pub(super) fn at_one_moment<T>(
        &mut self,
        now: Timestamp,
        question: impl FnOnce(&Self) -> Done<T>,
    ) -> Done<T> {
        self.now = now;
        self.connection.execute_batch("BEGIN")?;
        let answer = question(self);
        self.connection.execute_batch("ROLLBACK")?;
        answer
    }

    /// A statement that is kept for the next time.
    fn prepare(&self, sql: &str) -> Done<CachedStatement<'_>> {
        #[cfg(test)]
        self.asked.borrow_mut().insert(sql.to_owned());
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// All rows, each read by `read`.
    fn rows<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl Fn(&Columns<'_>) -> Done<T>,
    ) -> Done<Vec<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(&Columns(row))?);
        }
        Ok(found)
    }

    /// The first row.
    fn row<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl Fn(&Columns<'_>) -> Done<T>,
    ) -> Done<Option<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(values)?;
        rows.next()?.map(|row| read(&Columns(row))).transpose()
    }
}

#[cfg(test)]
impl Views {
    /// How SQLite answers all that was asked: the steps of its plans.
    pub(super) fn plans(&self) -> Vec<(String, String)> {
        let plan = |sql: &String| {
            let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = statement.raw_query();
            let steps: Vec<String> = steps.mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap();
            (sql.clone(), steps.join("; "))
        };
        self.asked.borrow().iter().map(plan).collect()
    }
}

/// `text` anywhere, whatever the case, for `LIKE … ESCAPE '\\'`.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
