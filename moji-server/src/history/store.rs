//! What the history needs of a database, so that another one can take SQLite's place.
//!
//! It deliberately knows no SQL and no folders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::api::Event;
use moji_proto::{AttemptId, FailureKind, Nvr, TargetName};

use super::entry::{BuildState, Entry, Verdict};
use crate::estimates::Sample;
use crate::farm::Given;
use crate::scheduler::Try;
use crate::{BuildKey, BuilderId};

/// A database that is open. All of it blocks.
pub trait Store: Send {
    /// Writes entries and the events that they make: all of them or none.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn apply(&mut self, entries: &[Entry]) -> Result<(), StoreError>;

    /// What is known, in outline.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn known(&self) -> Result<Known, StoreError>;

    /// The attempts at builds that are still open which count against somebody, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn open_tries(&self) -> Result<BTreeMap<BuildKey, Vec<Try>>, StoreError>;

    /// The attempts that were given to a builder and of which it has not had the last word, the oldest
    /// first, and no more than the newest so many.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn unanswered(&self, most: usize) -> Result<Vec<Given>, StoreError>;

    /// The builds that wait for what they miss.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn parked(&self) -> Result<Parks, StoreError>;

    /// The builds that wait, and the sizes of their SRPMs: what is known of them need not be told again.
    ///
    /// # Errors
    /// When it cannot be read.
    fn waiting(&self) -> Result<Waiting, StoreError>;

    /// The newest so many attempts that succeeded, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn durations(&self, most: usize) -> Result<Vec<Sample>, StoreError>;

    /// What was settled at that time or later, oldest first, and no more than the newest so many.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn settled_since(&self, since: Timestamp, most: usize) -> Result<Vec<SettledBuild>, StoreError>;

    /// What the last good build of each package provides.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn products(&self) -> Result<Products, StoreError>;

    /// The events after that one, oldest first, at most so many.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn events_after(&self, id: u64, most: u32) -> Result<Vec<Event>, StoreError>;

    /// The id of the newest event; 0: there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn newest_event(&self) -> Result<u64, StoreError>;

    /// The last event that a receiver outside has got; `None`: it is not known.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn delivered(&self, sink: &str) -> Result<Option<u64>, StoreError>;

    /// Remembers that. It never goes back.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn set_delivered(&mut self, sink: &str, id: u64) -> Result<(), StoreError>;

    /// Forgets the receivers that are none any more: events are kept for those that are known.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn forget_sinks(&mut self, except: &BTreeSet<String>) -> Result<(), StoreError>;

    /// What was read in the folders, and how it looked then.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn stamps(&self) -> Result<Stamps, StoreError>;

    /// Remembers that: all of it, and nothing else.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn remember(&mut self, stamps: &Stamps) -> Result<(), StoreError>;
}

/// Opens the database, again when it has to be.
pub trait Backend: Send {
    /// Opens it; makes it when it is missing, and puts a broken one aside. `broken`: why the one that
    /// was opened last turned out to be.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn open(&mut self, broken: Option<&str>) -> Result<(Box<dyn Store>, Opened), StoreError>;
}

/// How a database was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// With content.
    Whole,
    /// It was not there, or empty.
    New,
    /// It could not be used: the text says why, and where it is now.
    Replaced(String),
}

/// Why a database did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not now, perhaps later: the disk is full, somebody else writes, it is read-only.
    #[error("{0}")]
    Unavailable(String),
    /// It is damaged, or not moji's.
    #[error("{0}")]
    Broken(String),
    /// A newer program made it: to be left alone.
    #[error("{0}")]
    Newer(String),
    /// What it was told cannot be written: a mistake in moji.
    #[error("{0}")]
    Refused(String),
}

/// A folder or file as it looked when it was read. The device is left out: it may be another one
/// after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Tells apart what was moved over each other.
    pub inode: u64,
    /// Modification time, in nanoseconds since 1970.
    pub modified: i64,
}

/// By `REPO/…` or `FINISHED/…`.
pub type Stamps = BTreeMap<String, Stamp>;

/// What a database knows, in outline.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Known {
    /// Builds that are not settled.
    pub open: BTreeMap<BuildKey, OpenBuild>,
    /// All attempts.
    pub attempts: BTreeMap<AttemptId, KnownAttempt>,
    /// Builds that failed, are held or were cancelled without an attempt, with the reason.
    pub refused: BTreeSet<(BuildKey, String)>,
}

/// A build that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBuild {
    /// The SRPM's NVR.
    pub nvr: Option<Nvr>,
    /// Since when it is.
    pub queued_at: Timestamp,
    /// The attempts at it that have not ended.
    pub running: BTreeSet<AttemptId>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAttempt {
    /// At which build.
    pub key: BuildKey,
    /// Whether it is known what it came to.
    pub has_outcome: bool,
    /// Where its build stands.
    pub build: BuildState,
}

/// A build that waits for what it misses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedBuild {
    /// Since when.
    pub since: Timestamp,
    /// The requirements that nothing provided then.
    pub missing: Vec<String>,
    /// How many attempts at it have ended for missing requirements.
    pub tries: u32,
    /// The generation of the repository that the last of these had; 0 when that is not known.
    pub generation: u64,
}

/// The builds that wait for what they miss.
pub type Parks = BTreeMap<BuildKey, ParkedBuild>;

/// The builds that wait, with the bytes of their SRPMs.
pub type Waiting = BTreeMap<BuildKey, u64>;

/// By repository (`None`: the main one) and package: its capabilities, sorted.
pub type Products = BTreeMap<(Option<TargetName>, String), Vec<String>>;

/// How a build ended, for a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledBuild {
    /// Which SRPM, for which target.
    pub key: BuildKey,
    /// The SRPM's NVR, if it could be read.
    pub nvr: Option<Nvr>,
    /// How it ended.
    pub verdict: Verdict,
    /// Whose fault it was.
    pub failure: Option<FailureKind>,
    /// What went wrong, in a line.
    pub reason: Option<String>,
    /// The requirements that its last attempt missed.
    pub missing: Vec<String>,
    /// How many attempts there were.
    pub attempts: u32,
    /// Since when it had waited.
    pub queued_at: Timestamp,
    /// When it ended.
    pub settled_at: Timestamp,
    /// How long the attempt that ended it took.
    pub took: Option<Duration>,
    /// How long all attempts took together.
    pub busy: Duration,
    /// Who made the attempt that ended it.
    pub builder: Option<BuilderId>,
}
