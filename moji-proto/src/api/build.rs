//! Builds, their attempts and packages.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ArtifactName, AttemptId, FailureKind, Nvr, Sha256, SrpmName, TargetName};

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BuildState {
    /// In SOURCE.
    Queued,
    /// In SOURCE, until something provides what an attempt missed.
    Parked,
    /// A builder has it.
    Running,
    /// It is published.
    Succeeded,
    /// It failed, through the package's own fault.
    Failed,
    /// It waits until a person says `retry`.
    Held,
    /// A person took it out before it was settled.
    Withdrawn,
}

impl BuildState {
    /// All of them, in the order of a build's life.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Parked,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Held,
        Self::Withdrawn,
    ];

    /// The word of it, the same as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Parked => "parked",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Whether it is not settled.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Parked | Self::Running)
    }
}

impl std::fmt::Display for BuildState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for BuildState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = || Self::ALL.map(Self::word).join(", ");
        Self::ALL
            .into_iter()
            .find(|state| state.word() == text)
            .ok_or_else(|| format!("{text:?} is no state of a build: {}", words()))
    }
}

/// One SRPM for one target, from queued to settled. Queued again after that, it is another build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Build {
    /// Its number in the history. A history that was lost and made anew gives other ones.
    pub id: u64,
    /// The target whose folder the SRPM lies in; none: any builder may build it.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub target: Option<TargetName>,
    /// The SRPM's file name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub srpm: SrpmName,
    /// Its NVR; none when its header could not be read.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub nvr: Option<Nvr>,
    /// The package's name, of the NVR.
    pub package: Option<String>,
    /// Where it stands.
    pub state: BuildState,
    /// Since when it was queued.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub queued_at: Timestamp,
    /// When it was settled.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub settled_at: Option<Timestamp>,
    /// How many attempts there were.
    pub attempts: u32,
    /// The attempt that settled it, or else the last one.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attempt: Option<AttemptId>,
    /// Who made that.
    pub builder: Option<String>,
    /// How long that took, or takes up to now, in seconds.
    pub took_seconds: Option<u64>,
    /// Whose fault it is that it failed.
    pub failure: Option<FailureKind>,
    /// Why it failed, is held or was withdrawn, in one line.
    pub reason: Option<String>,
    /// The requirements that nothing provided, in RPM's notation.
    pub missing: Vec<String>,
}

/// A build with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BuildDetail {
    /// In outline.
    pub build: Build,
    /// The SRPM's size in bytes.
    pub size: Option<u64>,
    /// The SRPM's digest.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sha256: Option<Sha256>,
    /// The attempts at it, the last one first; at most [`crate::api::PAGE_MAX`].
    pub attempts: Vec<Attempt>,
    /// What its attempt has published.
    pub artifacts: Vec<Artifact>,
    /// Where that is served: `/repo/<NVR>/`, or a folder in it.
    pub folder: Option<String>,
    /// The lines of a log that tell why it failed.
    pub excerpt: Option<Excerpt>,
}

/// One try of a build on one builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attempt {
    /// Its id, which is never used again.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: AttemptId,
    /// Who made it.
    pub builder: String,
    /// What it was built for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub target: TargetName,
    /// The generation of the repository that it found.
    pub generation: Option<u64>,
    /// When the lease began.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub leased_at: Timestamp,
    /// When it ended; none: it runs.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub ended_at: Option<Timestamp>,
    /// In which way: `delivered`, `lost`, `released`, `cancelled`, `stale`, `rejected`, `interrupted`.
    pub ending: Option<String>,
    /// Whether its builder said that it succeeded.
    pub succeeded: Option<bool>,
    /// Whose fault it is that it failed.
    pub failure: Option<FailureKind>,
    /// Why, in one line.
    pub reason: Option<String>,
    /// What Mock exited with, or minus the number of the signal that ended it.
    pub exit_code: Option<i32>,
    /// The requirements that nothing provided.
    pub missing: Vec<String>,
    /// Its logs, as far as they are here.
    pub logs: Vec<LogInfo>,
    /// What is being done, of one that runs.
    pub running: Option<crate::api::Running>,
}

/// A log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogInfo {
    /// Its file name: `build.log`, `root.log`, `state.log`, `mock.log`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: ArtifactName,
    /// Its size in bytes, now.
    pub bytes: u64,
}

/// One published file of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// Its name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: ArtifactName,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub sha256: Sha256,
}

/// The lines of a log that tell why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Excerpt {
    /// Of which log.
    pub log: String,
    /// The lines, each harmless.
    pub lines: Vec<String>,
}

/// A package: what builds of one name came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Package {
    /// Its name.
    pub name: String,
    /// How many builds there were of it.
    pub builds: u64,
    /// The newest of them.
    pub last: Build,
}

/// A package with its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackageDetail {
    /// Its name.
    pub name: String,
    /// Builds of it, the newest first, at most [`crate::api::PAGE_MAX`].
    pub builds: Vec<Build>,
    /// How long attempts took that succeeded, the newest last; at most 200.
    pub durations: Vec<crate::api::Took>,
}
