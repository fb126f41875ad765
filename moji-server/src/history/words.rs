//! The words and numbers that stand in the database for moji's types.

use std::str::FromStr;

use jiff::Timestamp;
use moji_proto::FailureKind;
use moji_proto::api::EventKind;
use rusqlite::Row;

use super::entry::{BuildState, Ending, Verdict};
use super::store::StoreError;

/// A type whose values are words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// All values.
    const ALL: &'static [Self];
    /// The word of one.
    fn word(self) -> &'static str;
}

impl Word for BuildState {
    const ALL: &'static [Self] = &[
        Self::Queued,
        Self::Parked,
        Self::Running,
        Self::Settled(Verdict::Succeeded),
        Self::Settled(Verdict::Failed),
        Self::Settled(Verdict::Held),
        Self::Withdrawn,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Parked => "parked",
            Self::Running => "running",
            Self::Settled(Verdict::Succeeded) => "succeeded",
            Self::Settled(Verdict::Failed) => "failed",
            Self::Settled(Verdict::Held) => "held",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl Word for Ending {
    const ALL: &'static [Self] = &[
        Self::Delivered,
        Self::Lost,
        Self::Released,
        Self::Cancelled,
        Self::Stale,
        Self::Rejected,
        Self::Interrupted,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Lost => "lost",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::Stale => "stale",
            Self::Rejected => "rejected",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Word for FailureKind {
    const ALL: &'static [Self] = &[
        Self::Package,
        Self::MissingDependency,
        Self::Infrastructure,
        Self::Configuration,
        Self::UnreadableSrpm,
        Self::Interrupted,
    ];

    /// The same as in `build.json`.
    fn word(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::MissingDependency => "missing_dependency",
            Self::Infrastructure => "infrastructure",
            Self::Configuration => "configuration",
            Self::UnreadableSrpm => "unreadable_srpm",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Word for EventKind {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        Self::word(self)
    }
}

/// Microseconds since 1970.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A size as SQLite's signed integer.
pub(super) fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The other way, for a column that holds one.
pub(super) fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Reads the columns of a row as moji's types.
pub(super) struct Columns<'a>(pub(super) &'a Row<'a>);

impl Columns<'_> {
    fn wrong(&self, at: usize, why: &str) -> StoreError {
        let column = self.0.as_ref().column_name(at).unwrap_or("a column");
        StoreError::Broken(format!("{column}: {why}"))
    }

    /// A name, an id.
    pub(super) fn parsed<T: FromStr>(&self, at: usize) -> Result<T, StoreError>
    where
        T::Err: ToString,
    {
        let text: String = self.0.get(at)?;
        text.parse().map_err(|error: T::Err| self.wrong(at, &error.to_string()))
    }

    /// The same where NULL is no name.
    pub(super) fn maybe_parsed<T: FromStr>(&self, at: usize) -> Result<Option<T>, StoreError>
    where
        T::Err: ToString,
    {
        match self.0.get_ref(at)? {
            rusqlite::types::ValueRef::Null => Ok(None),
            _ => self.parsed(at).map(Some),
        }
    }

    /// A word.
    pub(super) fn word<T: Word>(&self, at: usize) -> Result<T, StoreError> {
        let text: String = self.0.get(at)?;
        let found = T::ALL.iter().find(|word| word.word() == text);
        found.copied().ok_or_else(|| self.wrong(at, &format!("{text:?} is not known")))
    }

    /// A time.
    pub(super) fn time(&self, at: usize) -> Result<Timestamp, StoreError> {
        Ok(time(self.0.get(at)?))
    }

    /// A time, or none.
    pub(super) fn maybe_time(&self, at: usize) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.0.get::<_, Option<i64>>(at)?.map(time))
    }

    /// A number that is never below 0.
    pub(super) fn unsigned(&self, at: usize) -> Result<u64, StoreError> {
        Ok(unsigned(self.0.get(at)?))
    }

    /// The same, or none.
    pub(super) fn maybe_unsigned(&self, at: usize) -> Result<Option<u64>, StoreError> {
        Ok(self.0.get::<_, Option<i64>>(at)?.map(unsigned))
    }

    /// A list in JSON; NULL is an empty one.
    pub(super) fn list(&self, at: usize) -> Result<Vec<String>, StoreError> {
        let Some(json) = self.0.get::<_, Option<String>>(at)? else { return Ok(Vec::new()) };
        serde_json::from_str(&json).map_err(|error| self.wrong(at, &error.to_string()))
    }

    /// A word, or none.
    pub(super) fn maybe_word<T: Word>(&self, at: usize) -> Result<Option<T>, StoreError> {
        match self.0.get_ref(at)? {
            rusqlite::types::ValueRef::Null => Ok(None),
            _ => self.word(at).map(Some),
        }
    }
}

/// A column that is never below 0.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The words of a type, for a test that compares them with the schema.
#[cfg(test)]
pub(super) fn words<T: Word>() -> std::collections::BTreeSet<&'static str> {
    T::ALL.iter().map(|value| value.word()).collect()
}
