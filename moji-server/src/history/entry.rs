//! The history's vocabulary: what is told to it, and what it tells.
//!
//! Plain data. It deliberately does not know how any of it is stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use moji_proto::api::EventKind;
use moji_proto::{AttemptId, Nvr, Outcome, Sha256, TargetName};

use crate::estimates::BuilderClass;
use crate::record::BuildRecord;
use crate::source::QueuedSrpm;
use crate::{BuildKey, BuilderId};

/// An SRPM as it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srpm {
    /// Its target and file name.
    pub key: BuildKey,
    /// What its header says; `None` when it could not be read.
    pub nvr: Option<Nvr>,
    /// Bytes.
    pub size: u64,
    /// Since when it waits.
    pub queued_at: Timestamp,
}

impl From<&QueuedSrpm> for Srpm {
    fn from(srpm: &QueuedSrpm) -> Self {
        let QueuedSrpm { key, header, size, queued_at } = srpm;
        Self { key: key.clone(), nvr: Some(header.nvr.clone()), size: *size, queued_at: *queued_at }
    }
}

/// An attempt that a builder has. It tells the SRPM once more, so that an entry that was lost
/// before it does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// What is built.
    pub srpm: Srpm,
    /// The attempt's id.
    pub attempt: AttemptId,
    /// Who builds it.
    pub builder: BuilderId,
    /// On what kind of machine, if the builder said so.
    pub class: Option<BuilderClass>,
    /// For what.
    pub target: TargetName,
    /// Which generation of the repository the builder was told, if it was told one.
    pub generation: Option<u64>,
    /// Since when.
    pub at: Timestamp,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    /// The attempt's id.
    pub attempt: AttemptId,
    /// When.
    pub at: Timestamp,
    /// In which way.
    pub ending: Ending,
    /// What the builder said of it, if it came so far.
    pub outcome: Option<Outcome>,
    /// Digest of the SRPM that the builder got, if that is known.
    pub srpm_sha256: Option<Sha256>,
    /// How many bytes of each log are here, by name.
    pub logs: BTreeMap<String, u64>,
    /// Bytes of all that the builder delivered.
    pub bytes: u64,
}

impl AttemptEnd {
    /// An end of which no more is known.
    pub fn new(attempt: AttemptId, at: Timestamp, ending: Ending) -> Self {
        Self { attempt, at, ending, outcome: None, srpm_sha256: None, logs: BTreeMap::new(), bytes: 0 }
    }
}

/// In which way an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Its results are here.
    Delivered,
    /// Its builder is gone, and the time in which it could have come back is over.
    Lost,
    /// The builder gave it back.
    Released,
    /// A person took the SRPM away.
    Cancelled,
    /// Another attempt was first.
    Stale,
    /// Its results were not good.
    Rejected,
    /// A stop of the server, or something that left no trace: it has no lease any more.
    Interrupted,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is published.
    Succeeded,
    /// It failed.
    Failed,
    /// It waits for a person.
    Held,
}

impl Verdict {
    /// What a record says, unless the build was held: the file's name tells that, not the record.
    pub fn of(record: &BuildRecord) -> Self {
        if record.outcome.is_success() { Self::Succeeded } else { Self::Failed }
    }
}

/// A build that waits for what it misses. What comes next of it ([`Entry::Queued`], [`Entry::Leased`],
/// [`Entry::Settled`], [`Entry::Withdrawn`]) ends that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Which SRPM, for which target. Nothing happens unless its build is open.
    pub key: BuildKey,
    /// Since when.
    pub at: Timestamp,
    /// The requirements that nothing provides.
    pub missing: Vec<String>,
    /// The attempt that showed it.
    pub attempt: AttemptId,
}

/// A build that is settled, with all that its record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which SRPM, for which target.
    pub key: BuildKey,
    /// When.
    pub at: Timestamp,
    /// How.
    pub verdict: Verdict,
    /// The record in REPO or FINISHED. Its attempt, if it has one, is the one that settled the
    /// build; it needs no [`Entry::AttemptEnded`].
    pub record: Box<BuildRecord>,
    /// The SRPM's size, when it is known.
    pub size: Option<u64>,
}

/// Something that happened to no build in particular: an event, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// In one line for people.
    pub text: String,
    /// To which builder.
    pub builder: Option<BuilderId>,
    /// To which target; with [`EventKind::Published`]; `None`: to REPO itself.
    pub target: Option<TargetName>,
    /// Which generation is served now.
    pub generation: Option<u64>,
}

/// One thing that happened.
///
/// Entries of one build must come in the order in which things happened. Each can be told twice: the
/// second time changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An SRPM waits: it begins a build, or comes back to one that is not settled.
    Queued(Srpm),
    /// A builder has it now.
    Leased(Leased),
    /// A builder has taken an attempt up again: after a lost connection, or a stop of the server.
    Readopted(Leased),
    /// An attempt has ended, and its build goes on.
    AttemptEnded(AttemptEnd),
    /// A build waits for requirements that nothing provides. Told after the end of its attempt.
    Parked(Parked),
    /// What the last good build of a package provides: all of it, in place of what was told before.
    Provided {
        /// The target whose repository it is in; `None`: the main one.
        target: Option<TargetName>,
        /// The SRPM's name.
        package: String,
        /// In RPM's notation.
        capabilities: Vec<String>,
    },
    /// A build is settled.
    Settled(Settled),
    /// A person took the SRPM away.
    Withdrawn {
        /// Which.
        key: BuildKey,
        /// When.
        at: Timestamp,
        /// Where it was missed.
        reason: String,
    },
    /// Something happened to no build in particular.
    Happened(Happening),
    /// A record was found in the folders that the history did not know: a build that was settled
    /// long ago. Never settles a build that is open.
    Unearthed(Settled),
    /// A record in REPO tells that a build waits for requirements that nothing provides, and its SRPM is in SOURCE:
    /// the history did not know the build, or not how that attempt ended.
    FoundParked {
        /// Which.
        key: BuildKey,
        /// The record, of an attempt.
        record: Box<BuildRecord>,
        /// The SRPM's size.
        size: u64,
    },
    /// What is true only together: after a crash all of it is known, or nothing.
    Together(Vec<Entry>),
}

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuildState {
    /// In SOURCE.
    Queued,
    /// In SOURCE, until something provides what an attempt missed.
    Parked,
    /// A builder has it.
    Running,
    /// Settled so.
    Settled(Verdict),
    /// Taken out before it was settled.
    Withdrawn,
}

impl BuildState {
    /// Whether it is not settled.
    pub fn is_open(self) -> bool {
        match self {
            Self::Queued | Self::Parked | Self::Running => true,
            Self::Settled(_) | Self::Withdrawn => false,
        }
    }
}
