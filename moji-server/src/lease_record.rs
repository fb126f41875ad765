//! `lease.json`: who builds an SRPM in WORKING, in the attempt's staging folder. It lets the next server
//! know a builder again that has kept its attempt.
//!
//! Written as a whole, but without fsync: what a power cut makes of it costs little. Without it the SRPM
//! goes back to SOURCE, and a builder that comes back with the attempt is checked by the SRPM's digest.
//! Nothing here decides anything. All of it blocks.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::Timestamp;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{AttemptId, Hasher, HeldAttempt, Nvr, Sha256, SrpmName, TargetName};
use serde::{Deserialize, Serialize};

use crate::beneath;
use crate::farm::Given;
use crate::folders::Folders;
use crate::record::RepositoryUsed;
use crate::scheduler::Lease;
use crate::{BuildKey, BuilderId};

/// The file's name.
const FILE: &str = "lease.json";
/// Version of the file's form.
const FORMAT: u32 = 1;

/// A lease, as it is told to the next server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    format: u32,
    /// The attempt.
    pub attempt: AttemptId,
    /// The target in whose folder the SRPM lies; none: directly in WORKING.
    pub folder: Option<TargetName>,
    /// The SRPM's file name.
    pub srpm: SrpmName,
    /// What its header says.
    pub nvr: Nvr,
    /// The file.
    pub file: FileIdentity,
    /// Since when it waited.
    pub queued_at: Timestamp,
    /// What it is built for.
    pub target: TargetName,
    /// Whose attempt it is.
    pub builder: BuilderId,
    /// In which slot.
    pub slot: Option<u16>,
    /// When the lease began.
    pub leased_at: Timestamp,
    /// Digest of the SRPM, when it was sent.
    pub srpm_sha256: Option<Sha256>,
    /// What it takes its dependencies from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryUsed>,
}

/// What tells a file from another of its name without reading it. A rename changes none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Bytes.
    pub size: u64,
    /// Time of the last write, in seconds since 1970.
    pub modified: i64,
    /// And nanoseconds.
    pub modified_nanos: i64,
    /// For people: it differs after a copy that kept the times.
    pub inode: u64,
}

impl FileIdentity {
    /// Looks at a file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&path.symlink_metadata()?))
    }

    /// Whether both are the same content, as far as can be told without reading it.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.size, self.modified, self.modified_nanos) == (other.size, other.modified, other.modified_nanos)
    }
}

impl From<&Metadata> for FileIdentity {
    fn from(data: &Metadata) -> Self {
        Self {
            size: data.len(),
            modified: data.mtime(),
            modified_nanos: data.mtime_nsec(),
            inode: data.ino(),
        }
    }
}

impl LeaseRecord {
    /// Of a lease that begins now.
    pub fn new(lease: &Lease, file: FileIdentity, repository: Option<RepositoryUsed>) -> Self {
        let BuildKey { target: folder, srpm } = lease.srpm.key.clone();
        Self {
            format: FORMAT,
            attempt: lease.attempt,
            folder,
            srpm,
            nvr: lease.srpm.header.nvr.clone(),
            file,
            queued_at: lease.srpm.queued_at,
            target: lease.target.clone(),
            builder: lease.builder.clone(),
            slot: lease.slot,
            leased_at: Timestamp::now(),
            srpm_sha256: None,
            repository,
        }
    }

    /// Of an attempt of which nothing is left in staging: what the history knows of it, what its builder says, and
    /// what was checked.
    pub fn of_claim(held: &HeldAttempt, given: &Given, nvr: Nvr, file: FileIdentity) -> Self {
        let BuildKey { target: folder, srpm } = given.key.clone();
        let repository =
            (given.generation > 0).then_some(RepositoryUsed { generation: given.generation, url: None });
        Self {
            format: FORMAT,
            attempt: held.attempt,
            folder,
            srpm,
            nvr,
            file,
            queued_at: Timestamp::now(),
            target: given.target.clone(),
            builder: given.builder.clone(),
            slot: held.slot,
            leased_at: given.leased_at,
            srpm_sha256: Some(held.sha256),
            repository,
        }
    }

    /// The generation of the repository that it was given; 0: none, or not known.
    pub fn generation(&self) -> u64 {
        self.repository.as_ref().map_or(0, |repository| repository.generation)
    }

    /// Which build it belongs to.
    pub fn key(&self) -> BuildKey {
        BuildKey { target: self.folder.clone(), srpm: self.srpm.clone() }
    }

    /// Reads the record of an attempt; `None` when there is none that can be read.
    pub fn read(folders: &Folders, attempt: AttemptId) -> Option<Self> {
        let json = fs::read(folders.attempt(attempt).join(FILE)).ok()?;
        let record: Self = serde_json::from_slice(&json).ok()?;
        (record.format == FORMAT && record.attempt == attempt).then_some(record)
    }

    /// Writes it into the attempt's staging folder, which is made when it is missing.
    ///
    /// # Errors
    /// When the disk is full or the folder cannot be written.
    pub fn write(&self, folders: &Folders) -> io::Result<()> {
        let staging = folders.attempt(self.attempt);
        fs::create_dir_all(&staging)?;
        let (part, path) = (staging.join("lease.json.part"), staging.join(FILE));
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        fs::rename(part, path)
    }
}

/// The digest of a file. A link in its place is not followed, a FIFO not waited for.
///
/// # Errors
/// When it cannot be read, or is no regular file.
pub fn digest_of(path: &Path) -> io::Result<Sha256> {
    digest_of_rest(beneath::open_regular(path)?)
}

/// The digest of what there is of a file from where it is read now.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn digest_of_rest(mut file: File) -> io::Result<Sha256> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; DATA_BYTES];
    loop {
        let length = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(hasher.finish());
        };
        hasher.update(bytes);
    }
}
