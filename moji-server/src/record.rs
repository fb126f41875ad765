//! `build.json`: what is told about a build beside its artifacts, and about a failed SRPM in
//! FINISHED. For people, scripts and a server that lost its history.

use crate::BuilderId;
use jiff::Timestamp;
use moji_proto::{AttemptId, ManifestEntry, Nvr, Outcome, Sha256, SrpmName, TargetName};
use serde::{Deserialize, Serialize};

/// Version of the file's form.
pub const FORMAT: u32 = 1;

/// Everything that is known about how a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The SRPM's file name.
    pub srpm: SrpmName,
    /// The SRPM's NVR as its header says; absent when the header could not be read.
    pub nvr: Option<Nvr>,
    /// How it ended.
    pub outcome: Outcome,
    /// The attempt that ended so; absent when there was none.
    pub attempt: Option<AttemptRecord>,
    /// The artifacts that are published, sorted by name.
    pub artifacts: Vec<ManifestEntry>,
    /// Something that people should know, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why the SRPM is held, if it is: nobody tries again before a person wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Whether the SRPM waits in SOURCE until a generation of the repository brings what was missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parked: bool,
    /// Whether it was tried once more because what it had used was built anew. That is done once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retried: bool,
}

/// The attempt that ended a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its id.
    pub id: AttemptId,
    /// The builder's name.
    pub builder: BuilderId,
    /// What it was built for.
    pub target: TargetName,
    /// Digest of the SRPM that the builder got.
    pub srpm_sha256: Option<Sha256>,
    /// When the lease began.
    pub leased_at: Timestamp,
    /// When all results were here.
    pub delivered_at: Timestamp,
    /// What it took its dependencies from beside the builder's own repositories, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryUsed>,
}

/// A state of the farm's repository that an attempt ran against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryUsed {
    /// Its generation.
    pub generation: u64,
    /// The URL that the builder was given; absent when it was told to find the server's own, and when an attempt went on
    /// whose lease was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl BuildRecord {
    /// As pretty JSON with a line end.
    ///
    /// # Errors
    /// Never in practice: all parts can be written as JSON.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}
