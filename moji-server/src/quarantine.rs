//! Results that were refused, kept for whoever wants to know what a builder sent:
//! `WORKING/.moji/quarantine/<attempt>/` with the files and `refused.json`.
//!
//! | a crash after | leaves | the next start |
//! |---|---|---|
//! | the record is written | it and the results in staging, the lease | the builder comes back and delivers, and is refused once more |
//! | the rename | the results here, the lease | the same; what is delivered then takes the place of what is here |
//! | the lease has ended | all as it is to be | nothing to do |
//!
//! Bounded in number and bytes: the oldest go first. Nothing here decides anything. All of it blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use moji_proto::names::REFUSED_RECORD;
use moji_proto::{AttemptId, ManifestEntry, Nvr, SrpmName, TargetName};
use serde::{Deserialize, Serialize};

use crate::BuilderId;
use crate::commit::{RESULTS, UNPUBLISHED};
use crate::durable;
use crate::folders::Folders;
use crate::limits::Limits;
use crate::scheduler::Lease;

/// The record in each folder. No artifact can be called so.
pub const RECORD: &str = REFUSED_RECORD;
/// Version of the record's form.
const FORMAT: u32 = 1;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Attempts.
    pub attempts: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Bounds {
    /// As the operator wants it.
    pub fn of(limits: &Limits) -> Self {
        Self { attempts: limits.quarantine_attempts, bytes: limits.quarantine_size }
    }
}

/// What is known of refused results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    format: u32,
    /// The attempt.
    pub attempt: AttemptId,
    /// When they were refused.
    pub refused_at: Timestamp,
    /// Why.
    pub reason: String,
    /// The SRPM's file name.
    pub srpm: SrpmName,
    /// Its NVR.
    pub nvr: Nvr,
    /// The target in whose folder the SRPM lies; none: directly in WORKING.
    pub folder: Option<TargetName>,
    /// What it was built for.
    pub target: TargetName,
    /// Who sent them.
    pub builder: BuilderId,
    /// What was sent.
    pub manifest: Vec<ManifestEntry>,
}

/// Where the results of an attempt lie when they were refused.
pub fn place(folders: &Folders, attempt: AttemptId) -> PathBuf {
    all(folders).join(attempt.to_string())
}

fn all(folders: &Folders) -> PathBuf {
    folders.private().join("quarantine")
}

/// Moves the results of an attempt here, from its staging; gives where. Safe to call again.
///
/// # Errors
/// When the disk is full or a folder cannot be written.
pub fn keep(
    folders: &Folders,
    lease: &Lease,
    manifest: &[ManifestEntry],
    reason: &str,
    bounds: Bounds,
) -> anyhow::Result<PathBuf> {
    let staging = folders.attempt(lease.attempt);
    let (results, place) = (staging.join(RESULTS), place(folders, lease.attempt));
    let cannot = || format!("cannot put the results of {} into quarantine", lease.attempt);
    bring_back(&results, &staging.join(UNPUBLISHED)).with_context(cannot)?;
    let record = RefusedRecord {
        format: FORMAT,
        attempt: lease.attempt,
        refused_at: Timestamp::now(),
        reason: reason.to_owned(),
        srpm: lease.srpm.key.srpm.clone(),
        nvr: lease.srpm.header.nvr.clone(),
        folder: lease.srpm.key.target.clone(),
        target: lease.target.clone(),
        builder: lease.builder.clone(),
        manifest: manifest.to_vec(),
    };
    let mut json = serde_json::to_vec_pretty(&record).with_context(cannot)?;
    json.push(b'\n');
    durable::write_whole(&results.join(RECORD), &json).with_context(cannot)?;
    fs::create_dir_all(all(folders)).with_context(cannot)?;
    remove(&place).with_context(cannot)?;
    fs::rename(&results, &place).with_context(cannot)?;
    durable::sync_folder(&all(folders)).with_context(cannot)?;
    make_room(folders, lease.attempt, bounds).context("cannot make room in the quarantine")?;
    Ok(place)
}

/// A commit that came no further may have put files aside.
fn bring_back(results: &Path, aside: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        fs::rename(entry.path(), results.join(entry.file_name()))?;
    }
    Ok(())
}

/// What is kept of one attempt.
struct Kept {
    since: Timestamp,
    path: PathBuf,
    bytes: u64,
}

/// Removes the oldest until all is within bounds. Of the newest at least the record stays.
fn make_room(folders: &Folders, newest: AttemptId, bounds: Bounds) -> io::Result<()> {
    let newest = place(folders, newest);
    let mut kept = Vec::new();
    for entry in fs::read_dir(all(folders))? {
        let path = entry?.path();
        let since = record_of(&path).map_or(Timestamp::UNIX_EPOCH, |record| record.refused_at);
        kept.push(Kept { since, bytes: size_of(&path)?, path });
    }
    kept.sort_by(|a, b| (a.path == newest, a.since, &a.path).cmp(&(b.path == newest, b.since, &b.path)));
    let (mut count, mut bytes) = (kept.len(), kept.iter().map(|kept| kept.bytes).sum::<u64>());
    for Kept { path, bytes: its, .. } in kept {
        if count <= bounds.attempts && bytes <= bounds.bytes {
            return Ok(());
        }
        if path == newest {
            // Its files alone are too much.
            return if bytes > bounds.bytes { remove_files(&path) } else { Ok(()) };
        }
        tracing::info!("removing {}: newer results are in quarantine", path.display());
        remove(&path)?;
        (count, bytes) = (count - 1, bytes - its);
    }
    Ok(())
}

/// What is told of an attempt in quarantine.
pub fn record_of(place: &Path) -> Option<RefusedRecord> {
    serde_json::from_slice(&fs::read(place.join(RECORD)).ok()?).ok()
}

/// Bytes of a folder's files, or of a file. There are no folders in it.
fn size_of(path: &Path) -> io::Result<u64> {
    if !path.symlink_metadata()?.is_dir() {
        return Ok(path.symlink_metadata()?.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn remove_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != RECORD {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let is_folder = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.is_dir(),
    };
    if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BuildKey;
    use crate::folders::FoldersLock;
    use crate::left_behind::take_over;
    use crate::scheduler::LeaseState;
    use crate::source::{QueuedSrpm, SrpmHeader};
    use moji_proto::Sha256;

    struct Farm {
        folders: Folders,
        _lock: FoldersLock,
        _at: tempfile::TempDir,
    }

    const MANY: Bounds = Bounds { attempts: 20, bytes: 1 << 30 };

    impl Farm {
        fn new() -> Self {
            let at = tempfile::tempdir().unwrap();
            let folder = |name: &str| at.path().join(name);
            let (source, working) = (folder("source"), folder("working"));
            let mut folders = Folders { source, working, finished: folder("finished"), repo: folder("repo") };
            let lock = folders.prepare().unwrap();
            Self { folders, _lock: lock, _at: at }
        }

        /// Refuses an attempt whose results are so many bytes.
        fn refuse(&self, serial: u64, bytes: usize, bounds: Bounds) -> PathBuf {
            let key = BuildKey { target: None, srpm: "a-1-2.src.rpm".parse().unwrap() };
            let header = SrpmHeader {
                name: "a".into(),
                epoch: None,
                version: "1".into(),
                release: "2".into(),
                nvr: "a-1-2".parse().unwrap(),
                relations: Default::default(),
            };
            let lease = Lease {
                attempt: AttemptId { boot: 7, serial },
                srpm: QueuedSrpm { key, header, size: 4, queued_at: Timestamp::UNIX_EPOCH },
                target: "f43-arm".parse().unwrap(),
                session: None,
                builder: "board".parse().unwrap(),
                slot: Some(2),
                since: None,
                late_at: None,
                charged: std::time::Duration::ZERO,
                ended: None,
                generation: 0,
                state: LeaseState::Running { claimed_by: None },
            };
            let staging = self.folders.attempt(lease.attempt);
            fs::create_dir_all(staging.join(RESULTS)).unwrap();
            fs::create_dir_all(staging.join(UNPUBLISHED)).unwrap();
            fs::write(staging.join(RESULTS).join("a.rpm"), vec![b'x'; bytes]).unwrap();
            fs::write(staging.join(UNPUBLISHED).join("b.rpm"), "aside").unwrap();
            let entry = |name: &str| {
                let (size, sha256) = (5, Sha256::of(name.as_bytes()));
                ManifestEntry { name: name.parse().unwrap(), size, sha256 }
            };
            keep(&self.folders, &lease, &[entry("a.rpm"), entry("b.rpm")], "it lies", bounds).unwrap()
        }

        fn kept(&self) -> Vec<String> {
            let entries = fs::read_dir(all(&self.folders)).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names.iter().map(|name| name.rsplit('-').next().unwrap().to_owned()).collect()
        }
    }

    #[test]
    fn all_that_was_sent_is_kept_with_the_reason_also_over_a_restart() {
        let farm = Farm::new();
        let place = farm.refuse(5, 10, MANY);
        assert_eq!(place, super::place(&farm.folders, AttemptId { boot: 7, serial: 5 }));
        assert!(!farm.folders.attempt(AttemptId { boot: 7, serial: 5 }).join(RESULTS).exists());
        take_over(&farm.folders).unwrap();
        assert_eq!(fs::read(place.join("a.rpm")).unwrap(), [b'x'; 10]);
        assert_eq!(fs::read(place.join("b.rpm")).unwrap(), b"aside");
        let record = record_of(&place).unwrap();
        assert_eq!((record.reason.as_str(), record.builder.name.as_str()), ("it lies", "board"));
        assert_eq!((record.srpm.as_str(), record.target.as_str()), ("a-1-2.src.rpm", "f43-arm"));
        assert_eq!(record.manifest.len(), 2);
        // The lease was not over when the server ended, and the builder delivers once more.
        farm.refuse(5, 20, MANY);
        assert_eq!((farm.kept(), fs::read(place.join("a.rpm")).unwrap().len()), (vec!["5".into()], 20));
    }

    #[test]
    fn the_oldest_go_first() {
        let farm = Farm::new();
        let three = Bounds { attempts: 3, ..MANY };
        fs::create_dir_all(all(&farm.folders).join("7-0")).unwrap();
        fs::write(all(&farm.folders).join("7-1"), "nobody knows what this is").unwrap();
        // Older by its number, and newer in truth.
        for serial in [14, 13, 12, 11] {
            farm.refuse(serial, 10_000, three);
        }
        assert_eq!(farm.kept(), ["11", "12", "13"]);
        farm.refuse(9, 50_000, Bounds { bytes: 65_000, ..three });
        assert_eq!(farm.kept(), ["11", "9"]);
        // One that is too large alone: what stays is why.
        let place = farm.refuse(8, 70_000, Bounds { bytes: 65_000, ..three });
        assert_eq!(farm.kept(), ["8"]);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        assert!(record_of(&place).is_some());
    }
}
