//! The farm at one moment: the queue, the builders, the targets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Build;
use crate::{AttemptId, FailureKind, Phase, SrpmName, TargetName};

/// The farm at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overview {
    /// The server.
    pub server: Server,
    /// The queue.
    pub queue: QueueCounts,
    /// How long all that waits and runs will take; none when nothing does, or nobody builds.
    pub eta: Option<Eta>,
    /// What has become of builds lately.
    pub throughput: Throughput,
    /// Slots of builders that are connected.
    pub slots: Slots,
    /// What runs, the oldest first.
    pub running: Vec<Running>,
    /// Builders that are connected, or were lost with work, by name.
    pub builders: Vec<Builder>,
    /// What was settled last, the newest first; at most 10.
    pub newest: Vec<Build>,
    /// What failed or was held last, the newest first; at most 10.
    pub failures: Vec<Build>,
}

/// The server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// Its program and version.
    pub software: String,
    /// Since when it runs.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
    /// Nothing is handed out, because a person wants it so.
    pub paused: Option<Steered>,
    /// Nothing is handed out, because the disk is full.
    pub is_full: bool,
    /// Repositories whose metadata cannot be made just now. Those from before are served.
    #[serde(default)]
    pub out_of_date: Vec<OutOfDate>,
}

/// A repository whose metadata cannot be made: dnf does not see what has changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutOfDate {
    /// Which folder of REPO, a target's as a rule; none: REPO itself.
    pub repository: Option<String>,
    /// Since when the oldest change waits.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// How many tries have failed, one after the other.
    pub failures: u64,
    /// Why the last one failed, in one line.
    pub reason: String,
}

impl OutOfDate {
    /// The repository, as it is called in the log.
    pub fn folder(&self) -> String {
        self.repository.as_ref().map_or_else(|| "REPO".to_owned(), |name| format!("REPO/{name}"))
    }
}

/// What a person has done to the farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Steered {
    /// Who: the name of a credential; none: whoever could connect.
    pub by: Option<String>,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Why, in one line, if that was said.
    pub reason: Option<String>,
}

/// How much waits and runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueCounts {
    /// SRPMs in SOURCE that could be built now.
    pub ready: u64,
    /// SRPMs in SOURCE that wait for other builds.
    pub waiting: u64,
    /// SRPMs in SOURCE whose attempt missed something.
    pub parked: u64,
    /// Builds that builders have.
    pub running: u64,
}

/// How long something will take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Eta {
    /// When all goes well.
    pub low: u64,
    /// As far as is known.
    pub expected: u64,
    /// When it does not.
    pub high: u64,
}

/// What has become of builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Throughput {
    /// In the last hour.
    pub hour: History,
    /// In the last 24 hours.
    pub day: History,
}

/// Builds that were settled in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct History {
    /// Published.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
    /// Held.
    pub held: u64,
}

/// How many slots there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Slots {
    /// In all.
    pub total: u64,
    /// That build.
    pub busy: u64,
}

/// An attempt that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Running {
    /// The attempt.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub attempt: AttemptId,
    /// The build's number; none when the history does not know it yet.
    pub build: Option<u64>,
    /// What is built: the SRPM.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub srpm: SrpmName,
    /// For which target.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub target: TargetName,
    /// Who builds it.
    pub builder: String,
    /// In which slot; none when its results wait in the builder's outbox.
    pub slot: Option<u16>,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// What is being done, as the builder said last.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub phase: Option<Phase>,
    /// How long it is expected to take in all, in seconds, when the history knows.
    pub expected_seconds: Option<u64>,
    /// Its builder's connection is lost, and it may come back.
    pub is_orphaned: bool,
    /// Its results are here, and are being published.
    pub is_publishing: bool,
}

/// What a builder is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BuilderState {
    /// It waits for work.
    Idle,
    /// It builds.
    Building,
    /// It takes no more work: its owner stops it.
    Draining,
    /// It gets no work, because a person wants it so (`moji drain`).
    Drained,
    /// It gets no work for a while: too much went wrong on it.
    Suspended,
    /// It is not connected.
    Away,
}

impl BuilderState {
    /// The word of it, the same as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Building => "building",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Suspended => "suspended",
            Self::Away => "away",
        }
    }
}

/// A builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Builder {
    /// Its name, with its credential before it: `board-7`, `lab/board-7`.
    pub id: String,
    /// What it is about.
    pub state: BuilderState,
    /// Its machine architecture.
    pub arch: String,
    /// What it builds for, the preferred one first.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub targets: Vec<TargetName>,
    /// Those of them whose configuration does not work there.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub broken_targets: Vec<TargetName>,
    /// What SRPMs may ask for by name.
    pub tags: Vec<String>,
    /// Cores for each build; none: unknown.
    pub cores: Option<u16>,
    /// Bytes of memory for each build; none: unknown.
    pub memory: Option<u64>,
    /// Bytes that are free on its disk; none: unknown.
    pub disk: Option<u64>,
    /// How many SRPMs it builds at a time.
    pub slots: u16,
    /// Since when it is connected.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub connected_at: Option<Timestamp>,
    /// For how many seconds it gets no more work.
    pub suspended_seconds: Option<u64>,
    /// Who drained it.
    pub drained: Option<Steered>,
    /// Its program and version.
    pub software: String,
    /// The attempts that it has.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub attempts: Vec<AttemptId>,
}

/// What a builder did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BuilderTotals {
    /// Attempts that ended.
    pub attempts: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those with which it was lost.
    pub lost: u64,
    /// Those that failed, by kind.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<(String, u64)>))]
    pub failed: Vec<(FailureKind, u64)>,
    /// How long it took for builds that succeeded, compared with the others' median for the same packages: 100 is
    /// the same, 200 twice as long; none when there is nothing to compare.
    pub percent_of_others: Option<u64>,
}

/// A builder with its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BuilderDetail {
    /// Its name.
    pub id: String,
    /// What it is now; none when it was not seen since the server's start.
    pub builder: Option<Builder>,
    /// In the last 30 days.
    pub totals: BuilderTotals,
    /// What it runs.
    pub running: Vec<Running>,
    /// Builds that it settled, the newest first; at most 50.
    pub builds: Vec<Build>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Target {
    /// Its name; none: SOURCE itself, for any builder.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<TargetName>,
    /// Its queue.
    pub queue: QueueCounts,
    /// Builders that are connected and build for it.
    pub builders: u64,
    /// In the last 24 hours.
    pub day: History,
    /// The generation of its repository that is served; 0: none.
    pub generation: u64,
}

/// An SRPM in SOURCE, in the order in which they are handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Queued {
    /// Its place in the queue of its target, from 1; none while it waits or is parked.
    pub place: Option<u64>,
    /// For which target; none: any.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub target: Option<TargetName>,
    /// The SRPM.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub srpm: SrpmName,
    /// Its size in bytes.
    pub size: u64,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub queued_at: Timestamp,
    /// How long it is expected to take, in seconds, when the history knows.
    pub expected_seconds: Option<u64>,
    /// Why it is not handed out, in one line; none: it can be.
    pub waits_for: Option<String>,
    /// Whether an attempt missed something.
    pub is_parked: bool,
}

/// How long an attempt took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Took {
    /// When it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Who built it.
    pub builder: String,
    /// For which target.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub target: TargetName,
}
