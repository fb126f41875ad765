//! What can disagree: a sentence for people, a name for scripts, and what may be done about it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use moji_proto::outcome::plain;
use moji_proto::{AttemptId, Nvr};

use crate::BuildKey;
use crate::metadata::{Disagreement, Repository};

/// One thing in which folders, records, metadata or history disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// An SRPM is in two of the three folders.
    Duplicate {
        /// Which.
        key: BuildKey,
        /// The file in the earlier one of SOURCE, WORKING, FINISHED.
        path: PathBuf,
        /// That folder.
        earlier: Spot,
        /// The other one.
        later: Spot,
        /// Whether either file may go.
        content: Discardable,
    },
    /// A commit was cut: the result is in REPO, and the SRPM still in WORKING.
    CutCommit {
        /// Which.
        key: BuildKey,
        /// Its NVR.
        nvr: Nvr,
        /// The SRPM.
        path: PathBuf,
    },
    /// An SRPM in FINISHED without anything that tells how it ended.
    NoResult {
        /// The SRPM.
        path: PathBuf,
    },
    /// A failed SRPM in FINISHED without its failure record.
    NoFailureRecord {
        /// Where that should be.
        path: PathBuf,
        /// The same record in REPO.
        copy: PathBuf,
    },
    /// A failure or held record in FINISHED without its SRPM anywhere.
    LoneRecord {
        /// The record.
        path: PathBuf,
        /// Whether the same is told in REPO.
        content: Discardable,
    },
    /// A failure or held record in FINISHED of an SRPM that has succeeded since.
    OutdatedRecord {
        /// The record.
        path: PathBuf,
    },
    /// Both a failure and a held record.
    TwoRecords {
        /// The held record.
        path: PathBuf,
    },
    /// Staging of an attempt that is over.
    OrphanedStaging {
        /// The folder.
        path: PathBuf,
        /// Whether it may go: not with RPMs that are not published.
        content: Discardable,
    },
    /// Something in the staging folder that no server puts there.
    Stray {
        /// What.
        path: PathBuf,
    },
    /// A file that a crash left: a part of a write, a probe.
    Leftover {
        /// The file.
        path: PathBuf,
    },
    /// A record that cannot be read.
    UnreadableRecord {
        /// The record.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A folder that cannot be read.
    UnreadableFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A record that tells of another build than its folder.
    ForeignRecord {
        /// The record.
        path: PathBuf,
        /// Of which.
        says: String,
    },
    /// An artifact that its record names is not there.
    NoArtifact {
        /// The artifact.
        path: PathBuf,
    },
    /// An artifact has another size than its record says.
    ArtifactSize {
        /// The artifact.
        path: PathBuf,
        /// What the record says.
        recorded: u64,
        /// What it is.
        found: u64,
    },
    /// An artifact has another digest than its record says.
    ArtifactDigest {
        /// The artifact.
        path: PathBuf,
    },
    /// Something in a result's folder that its record does not name.
    Unnamed {
        /// What.
        path: PathBuf,
    },
    /// The metadata of a repository and its files.
    Metadata {
        /// Which repository.
        repository: Repository,
        /// The file.
        path: PathBuf,
        /// In what they disagree.
        what: Disagreement,
    },
    /// There is no history, though something was built.
    NoHistory {
        /// Where it should be.
        path: PathBuf,
        /// How many records of builds there are.
        builds: usize,
    },
    /// The history's schema is older than this program's.
    OldHistory {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: usize,
    },
    /// The history was made by a newer program.
    NewHistory {
        /// The file.
        path: PathBuf,
        /// Which version, and what to do.
        why: String,
    },
    /// The history is damaged.
    BrokenHistory {
        /// The file.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// The history cannot be looked at.
    UnusableHistory {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A build of which a record tells and the history does not.
    UnknownToHistory {
        /// The history's file.
        path: PathBuf,
        /// Which build.
        key: BuildKey,
        /// The attempt that settled it.
        attempt: Option<AttemptId>,
    },
    /// A build that the history takes for open, and that is settled or gone.
    OpenInHistory {
        /// The history's file.
        path: PathBuf,
        /// Which build.
        key: BuildKey,
    },
    /// An attempt that the history takes for running, and whose SRPM is not in WORKING.
    RunningInHistory {
        /// The history's file.
        path: PathBuf,
        /// Which build.
        key: BuildKey,
        /// The attempt.
        attempt: AttemptId,
    },
}

/// One of the folders of SRPMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// SOURCE.
    Source,
    /// WORKING.
    Working,
    /// FINISHED.
    Finished,
}

/// Whether content may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discardable {
    /// The same is somewhere else, or it is worth nothing.
    Yes,
    /// It exists only here.
    OnlyHere,
}

/// What a difference is about: the parts that are looked at again by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// SRPMs, records in FINISHED, staging, leftovers.
    Folders,
    /// Records and artifacts in REPO.
    Results,
    /// The metadata.
    Metadata,
    /// The history.
    History,
}

impl Area {
    pub(super) const ALL: [Self; 4] = [Self::Folders, Self::Results, Self::Metadata, Self::History];
}

/// What mends a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Do the rest of the commit.
    Complete(BuildKey, Nvr),
    /// Remove this file.
    Remove(PathBuf),
    /// Remove this folder and what is in it.
    RemoveFolder(PathBuf),
    /// Copy a record from the first path to the second.
    CopyRecord(PathBuf, PathBuf),
    /// Make the metadata of a repository anew.
    MakeMetadata(Repository),
    /// Tell the history what it lacks.
    Reconcile,
    /// Put the history aside and make it anew.
    RebuildHistory(String),
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete(..) => f.write_str("complete the commit"),
            Self::Remove(path) | Self::RemoveFolder(path) => {
                write!(f, "remove {}", plain(&path.to_string_lossy()))
            }
            Self::CopyRecord(from, _) => write!(f, "copy {}", plain(&from.to_string_lossy())),
            Self::MakeMetadata(repository) => write!(f, "make the metadata of {repository} anew"),
            Self::Reconcile => f.write_str("write it into the history"),
            Self::RebuildHistory(_) => f.write_str("put it aside and make it anew from the folders"),
        }
    }
}

impl Difference {
    /// Its kind, for scripts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => "duplicate-srpm",
            Self::CutCommit { .. } => "cut-commit",
            Self::NoResult { .. } => "no-result",
            Self::NoFailureRecord { .. } => "no-failure-record",
            Self::LoneRecord { .. } => "lone-record",
            Self::OutdatedRecord { .. } => "outdated-record",
            Self::TwoRecords { .. } => "two-records",
            Self::OrphanedStaging { .. } => "orphaned-staging",
            Self::Stray { .. } => "stray",
            Self::Leftover { .. } => "leftover",
            Self::UnreadableRecord { .. } => "unreadable-record",
            Self::UnreadableFolder { .. } => "unreadable-folder",
            Self::ForeignRecord { .. } => "foreign-record",
            Self::NoArtifact { .. } => "no-artifact",
            Self::ArtifactSize { .. } => "artifact-size",
            Self::ArtifactDigest { .. } => "artifact-digest",
            Self::Unnamed { .. } => "unnamed-file",
            Self::Metadata { what, .. } => match what {
                Disagreement::Unreadable(_) => "unreadable-metadata",
                Disagreement::File(_) => "metadata-file",
                Disagreement::Unlisted => "unlisted-rpm",
                Disagreement::Missing => "listed-rpm-missing",
                Disagreement::Size => "listed-rpm-size",
                Disagreement::Digest => "listed-rpm-digest",
                Disagreement::Description(_) => "listed-rpm-description",
                Disagreement::NotCompared(_) => "not-compared",
                Disagreement::Generation(_) => "damaged-generation",
                Disagreement::Leftover => "leftover",
                Disagreement::Stray => "stray",
            },
            Self::NoHistory { .. } => "no-history",
            Self::OldHistory { .. } => "old-history",
            Self::NewHistory { .. } => "new-history",
            Self::BrokenHistory { .. } => "broken-history",
            Self::UnusableHistory { .. } => "unusable-history",
            Self::UnknownToHistory { .. } => "unknown-to-history",
            Self::OpenInHistory { .. } => "open-in-history",
            Self::RunningInHistory { .. } => "running-in-history",
        }
    }

    /// The file or folder that it is about.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Duplicate { path, .. }
            | Self::CutCommit { path, .. }
            | Self::NoResult { path }
            | Self::NoFailureRecord { path, .. }
            | Self::LoneRecord { path, .. }
            | Self::OutdatedRecord { path }
            | Self::TwoRecords { path }
            | Self::OrphanedStaging { path, .. }
            | Self::Stray { path }
            | Self::Leftover { path }
            | Self::UnreadableRecord { path, .. }
            | Self::UnreadableFolder { path, .. }
            | Self::ForeignRecord { path, .. }
            | Self::NoArtifact { path }
            | Self::ArtifactSize { path, .. }
            | Self::ArtifactDigest { path }
            | Self::Unnamed { path }
            | Self::Metadata { path, .. }
            | Self::NoHistory { path, .. }
            | Self::OldHistory { path, .. }
            | Self::NewHistory { path, .. }
            | Self::BrokenHistory { path, .. }
            | Self::UnusableHistory { path, .. }
            | Self::UnknownToHistory { path, .. }
            | Self::OpenInHistory { path, .. }
            | Self::RunningInHistory { path, .. } => path.clone(),
        }
    }

    /// What it is about.
    pub fn area(&self) -> Area {
        match self {
            Self::Duplicate { .. }
            | Self::CutCommit { .. }
            | Self::NoResult { .. }
            | Self::NoFailureRecord { .. }
            | Self::LoneRecord { .. }
            | Self::OutdatedRecord { .. }
            | Self::TwoRecords { .. }
            | Self::OrphanedStaging { .. }
            | Self::Stray { .. }
            | Self::Leftover { .. } => Area::Folders,
            Self::UnreadableRecord { .. }
            | Self::UnreadableFolder { .. }
            | Self::ForeignRecord { .. }
            | Self::NoArtifact { .. }
            | Self::ArtifactSize { .. }
            | Self::ArtifactDigest { .. }
            | Self::Unnamed { .. } => Area::Results,
            Self::Metadata { .. } => Area::Metadata,
            Self::NoHistory { .. }
            | Self::OldHistory { .. }
            | Self::NewHistory { .. }
            | Self::BrokenHistory { .. }
            | Self::UnusableHistory { .. }
            | Self::UnknownToHistory { .. }
            | Self::OpenInHistory { .. }
            | Self::RunningInHistory { .. } => Area::History,
        }
    }

    /// What mends it; `None` when only a person can know.
    pub fn repair(&self) -> Option<Repair> {
        match self {
            Self::Duplicate { path, content: Discardable::Yes, .. }
            | Self::LoneRecord { path, content: Discardable::Yes }
            | Self::OutdatedRecord { path }
            | Self::Leftover { path } => Some(Repair::Remove(path.clone())),
            Self::OrphanedStaging { path, content: Discardable::Yes } => {
                Some(Repair::RemoveFolder(path.clone()))
            }
            Self::CutCommit { key, nvr, .. } => Some(Repair::Complete(key.clone(), nvr.clone())),
            Self::NoFailureRecord { path, copy } => Some(Repair::CopyRecord(copy.clone(), path.clone())),
            // The one that is served is made again by the next server.
            Self::Metadata { path, what: Disagreement::Generation(_) | Disagreement::Leftover, .. } => {
                Some(Repair::RemoveFolder(path.clone()))
            }
            Self::Metadata { what: Disagreement::Stray | Disagreement::NotCompared(_), .. } => None,
            Self::Metadata { repository, .. } => Some(Repair::MakeMetadata(repository.clone())),
            Self::NoHistory { .. }
            | Self::OldHistory { .. }
            | Self::UnknownToHistory { .. }
            | Self::OpenInHistory { .. }
            | Self::RunningInHistory { .. } => Some(Repair::Reconcile),
            Self::BrokenHistory { why, .. } => Some(Repair::RebuildHistory(why.clone())),
            Self::Duplicate { content: Discardable::OnlyHere, .. }
            | Self::LoneRecord { content: Discardable::OnlyHere, .. }
            | Self::OrphanedStaging { content: Discardable::OnlyHere, .. }
            | Self::NoResult { .. }
            | Self::TwoRecords { .. }
            | Self::Stray { .. }
            | Self::UnreadableRecord { .. }
            | Self::UnreadableFolder { .. }
            | Self::ForeignRecord { .. }
            | Self::NoArtifact { .. }
            | Self::ArtifactSize { .. }
            | Self::ArtifactDigest { .. }
            | Self::Unnamed { .. }
            | Self::NewHistory { .. }
            | Self::UnusableHistory { .. } => None,
        }
    }

    /// What is wrong, in a sentence that follows the path.
    pub fn sentence(&self) -> Cow<'static, str> {
        match self {
            Self::Duplicate { key, earlier, later, content, .. } => match content {
                Discardable::Yes => format!("{key} is in {earlier} and, the same, in {later}").into(),
                Discardable::OnlyHere => format!(
                    "{key} is in {earlier} and, with other content, in {later}: remove the one that is not wanted"
                )
                .into(),
            },
            Self::CutCommit { .. } => "its result is published, but the SRPM is still in WORKING".into(),
            Self::NoResult { .. } => "neither REPO nor a record beside it tells how it ended: was its result \
                removed? Move it to SOURCE to build it again"
                .into(),
            Self::NoFailureRecord { .. } => "the failure record is not there".into(),
            Self::LoneRecord { content: Discardable::Yes, .. } => {
                "its SRPM is in none of the folders, and REPO tells the same".into()
            }
            Self::LoneRecord { content: Discardable::OnlyHere, .. } => {
                "its SRPM is in none of the folders: remove the record when nobody needs it".into()
            }
            Self::OutdatedRecord { .. } => "the SRPM has succeeded since".into(),
            Self::TwoRecords { .. } => "there is a failure record too: remove the one that is not true".into(),
            Self::OrphanedStaging { content: Discardable::Yes, .. } => {
                "staging of an attempt that is over".into()
            }
            Self::OrphanedStaging { content: Discardable::OnlyHere, .. } => "staging of an attempt that is \
                over, with RPMs that are not published: look whether they are needed"
                .into(),
            Self::Stray { .. } => "no server has put that here".into(),
            Self::Leftover { .. } => "a crash has left it".into(),
            Self::UnreadableRecord { why, .. } => format!("it cannot be read: {why}").into(),
            Self::UnreadableFolder { why, .. } => {
                format!("what is in it was not looked at: {why}; give it to the server's user").into()
            }
            Self::ForeignRecord { says, .. } => format!("it tells of {says}: was the folder renamed?").into(),
            Self::NoArtifact { .. } => "build.json names it, and it is not there".into(),
            Self::ArtifactSize { recorded, found, .. } => {
                format!("it has {found} bytes, and build.json says {recorded}").into()
            }
            Self::ArtifactDigest { .. } => "its SHA-256 is not what build.json says".into(),
            Self::Unnamed { .. } => "build.json does not name it".into(),
            Self::Metadata { repository, what, .. } => metadata(repository, what).into(),
            Self::NoHistory { builds, .. } => {
                format!("there is no history, though the folders tell of {builds} builds").into()
            }
            Self::OldHistory { version, .. } => {
                format!("it is of version {version}: the next start of the server makes it newer").into()
            }
            Self::NewHistory { why, .. } => why.clone().into(),
            Self::BrokenHistory { why, .. } => format!("it cannot be used: {why}").into(),
            Self::UnusableHistory { why, .. } => format!("it cannot be looked at: {why}").into(),
            Self::UnknownToHistory { key, attempt: Some(attempt), .. } => {
                format!("the history does not know attempt {attempt} of {key}").into()
            }
            Self::UnknownToHistory { key, attempt: None, .. } => {
                format!("the history does not know how {key} ended").into()
            }
            Self::OpenInHistory { key, .. } => {
                format!("the history takes {key} for open, and it is settled or gone").into()
            }
            Self::RunningInHistory { key, attempt, .. } => {
                format!("the history takes attempt {attempt} for running, and {key} is not in WORKING").into()
            }
        }
    }
}

fn metadata(repository: &Repository, what: &Disagreement) -> String {
    match what {
        Disagreement::Unreadable(why) => format!("the metadata of {repository} cannot be read: {why}"),
        Disagreement::File(why) => format!("repomd.xml of {repository} says otherwise: {why}"),
        Disagreement::Unlisted => format!("it is not in the metadata of {repository}"),
        Disagreement::Missing => format!("the metadata of {repository} name it, and it is not there"),
        Disagreement::Size => format!("the metadata of {repository} give another size"),
        Disagreement::Digest => format!("the metadata of {repository} give another SHA-256"),
        Disagreement::Description(file) => {
            format!("{file} of {repository} says otherwise of it than createrepo_c does now")
        }
        Disagreement::NotCompared(why) => {
            format!("what the metadata of {repository} say of packages is not compared: {why}")
        }
        Disagreement::Generation(why) => format!("this generation of {repository} cannot be used: {why}"),
        Disagreement::Leftover => "a crash has left it".to_owned(),
        Disagreement::Stray => format!("it is none of the generations of {repository}: remove it yourself"),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // People put files there, and what is read in them is quoted: it goes to a terminal.
        f.write_str(&plain(&format!("{}: {}", self.path().display(), self.sentence())))
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "SOURCE",
            Self::Working => "WORKING",
            Self::Finished => "FINISHED",
        })
    }
}
