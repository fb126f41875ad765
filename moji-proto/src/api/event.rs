//! What happens in the farm, one after the other.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, FailureKind, Nvr, SrpmName, TargetName};

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// An SRPM waits, for the first time or again.
    Queued,
    /// A builder has it.
    Started,
    /// An attempt has ended, and its build goes on.
    Ended,
    /// A build is published.
    Succeeded,
    /// A build failed.
    Failed,
    /// A build waits for what an attempt missed.
    Parked,
    /// A build waits for a person.
    Held,
    /// A person took an SRPM out.
    Withdrawn,
    /// Another generation of a repository is served.
    Published,
    /// A builder has connected that was not there.
    BuilderConnected,
    /// A builder's connection is lost while it had work.
    BuilderLost,
    /// A builder that was lost is back.
    BuilderBack,
    /// A builder has left, with nothing to do.
    BuilderLeft,
    /// Nothing waits, and nothing runs.
    QueueEmpty,
    /// A person has stopped the queue, or let it go on; has drained a builder, or resumed it.
    Steered,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Queued,
        Self::Started,
        Self::Ended,
        Self::Succeeded,
        Self::Failed,
        Self::Parked,
        Self::Held,
        Self::Withdrawn,
        Self::Published,
        Self::BuilderConnected,
        Self::BuilderLost,
        Self::BuilderBack,
        Self::BuilderLeft,
        Self::QueueEmpty,
        Self::Steered,
    ];

    /// The word of it, the same as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Parked => "parked",
            Self::Held => "held",
            Self::Withdrawn => "withdrawn",
            Self::Published => "published",
            Self::BuilderConnected => "builder_connected",
            Self::BuilderLost => "builder_lost",
            Self::BuilderBack => "builder_back",
            Self::BuilderLeft => "builder_left",
            Self::QueueEmpty => "queue_empty",
            Self::Steered => "steered",
        }
    }
}

impl std::str::FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = || Self::ALL.map(Self::word).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.word() == text)
            .ok_or_else(|| format!("{text:?} is no kind of event: {}", words()))
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Later ones have higher ids; an id is never used again, also by a server that has lost its history.
    pub id: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// In one line for people.
    pub text: String,
    /// Of which build.
    pub build: Option<EventBuild>,
    /// Of which attempt.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attempt: Option<AttemptId>,
    /// Of which builder.
    pub builder: Option<String>,
    /// Whose fault it is that something failed.
    pub failure: Option<FailureKind>,
    /// Why, in one line.
    pub reason: Option<String>,
    /// The requirements that nothing provided.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Of which target's repository; with [`EventKind::Published`]; none: of REPO itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub target: Option<TargetName>,
    /// The generation that is served now.
    pub generation: Option<u64>,
}

/// The build of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventBuild {
    /// Its number in the history.
    pub id: Option<u64>,
    /// For which target; none: any.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub target: Option<TargetName>,
    /// The SRPM.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub srpm: SrpmName,
    /// Its NVR, when it is known.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub nvr: Option<Nvr>,
}
