//! Settles an SRPM that is held without a result: too many attempts came to nothing.
//!
//! The SRPM is settled first, so that whatever happens then it is not built once more; that the logs of
//! the last attempt are published is for the operator's convenience. All of it blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use moji_proto::{ArtifactName, AttemptId, LogFile, ManifestEntry, Outcome};

use crate::commit;
use crate::folders::Folders;
use crate::lease_record::digest_of;
use crate::metadata;
use crate::record::{BuildRecord, FORMAT};
use crate::scheduler::{HoldCause, Lease};

/// Where the logs are gathered, in the staging of the attempt that wrote them.
const LOGS: &str = "held";

/// Records why an SRPM is held, and moves it to FINISHED. `attempts` are the last attempts at it, the
/// very last first: the logs of one of them are published in `REPO/<NVR>`, when that is free. Gives the
/// record, and the folder of the logs when there is one. Safe to call again after it failed.
///
/// # Errors
/// When FINISHED cannot be written.
pub fn hold(
    folders: &Folders,
    lease: &Lease,
    (cause, reason): (HoldCause, &str),
    attempts: &[AttemptId],
) -> anyhow::Result<(BuildRecord, Option<PathBuf>)> {
    let mut record = BuildRecord {
        format: FORMAT,
        srpm: lease.srpm.key.srpm.clone(),
        nvr: Some(lease.srpm.header.nvr.clone()),
        outcome: Outcome::failed(commit::held_kind(cause), reason, None, Vec::new()),
        // It is none's result: an attempt that is named here would be taken for published.
        attempt: None,
        artifacts: Vec::new(),
        note: None,
        held: Some(reason.to_owned()),
        parked: false,
        retried: false,
    };
    commit::settle(folders, &lease.srpm.key, &record)?;
    let published = publish_logs(folders, lease, &mut record, attempts).unwrap_or_else(|error| {
        tracing::warn!("the logs of {} are not published: {error:#}", lease.srpm.key);
        None
    });
    Ok((record, published))
}

fn publish_logs(
    folders: &Folders,
    lease: &Lease,
    record: &mut BuildRecord,
    attempts: &[AttemptId],
) -> anyhow::Result<Option<PathBuf>> {
    let key = &lease.srpm.key;
    let place = folders.published(key, &lease.srpm.header.nvr);
    if !commit::is_free(&place) {
        return Ok(None);
    }
    for attempt in attempts {
        let staging = folders.attempt(*attempt);
        let artifacts = gather(&staging)?;
        if artifacts.is_empty() {
            continue;
        }
        record.artifacts = artifacts;
        let logs = staging.join(LOGS);
        commit::make_durable(&logs, record)?;
        if key.target.is_some() {
            metadata::make_repository(&folders.repository(key))
                .with_context(|| format!("cannot make a repository for {key}"))?;
        }
        commit::publish(&logs, &place)?;
        return Ok(Some(place));
    }
    Ok(None)
}

/// Moves the live logs of an attempt, those that are not empty, into a folder of their own.
fn gather(staging: &Path) -> anyhow::Result<Vec<ManifestEntry>> {
    let to = staging.join(LOGS);
    let mut entries = Vec::new();
    for name in LogFile::ALL.map(LogFile::file_name) {
        let (log, moved) = (staging.join(name), to.join(name));
        match log.symlink_metadata() {
            Ok(data) if data.len() > 0 => {
                fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
                fs::rename(&log, &moved).with_context(|| format!("cannot move {}", log.display()))?;
            }
            _ => {}
        }
        match moved.symlink_metadata() {
            Ok(data) => entries.push(ManifestEntry {
                name: ArtifactName::new(name)?,
                size: data.len(),
                sha256: digest_of(&moved).with_context(|| format!("cannot read {}", moved.display()))?,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", moved.display())),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
