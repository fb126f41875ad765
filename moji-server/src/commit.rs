//! Publishes the results of one attempt: from staging to REPO, the SRPM to FINISHED.
//!
//! The order is what makes it safe: everything durable in staging, one rename into REPO, then the
//! SRPM. A crash in between leaves either no trace in REPO, or a whole result whose SRPM is still
//! in WORKING; the same commit can then be done again. All of it blocks.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use moji_proto::names::RESERVED_ARTIFACT;
use moji_proto::{FailureKind, ManifestEntry, Outcome, Sha256};
use rustix::fs::{CWD, RenameFlags};

use crate::folders::{Folders, rename_no_replace};
use crate::record::{AttemptRecord, BuildRecord, FORMAT};
use crate::scheduler::Lease;
use crate::{BuildKey, durable, metadata};

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The files in [`RESULTS`], each with the size and digest that it was checked for.
    pub manifest: Vec<ManifestEntry>,
    /// Digest of the SRPM that the builder got.
    pub srpm_sha256: Option<Sha256>,
    /// When the lease began.
    pub leased_at: Timestamp,
    /// When all results were here.
    pub delivered_at: Timestamp,
}

/// What was published, and where.
#[derive(Debug)]
pub struct Published {
    /// How the build ended; a success without RPMs is none.
    pub outcome: Outcome,
    /// The folder.
    pub folder: PathBuf,
    /// Why it is not where one would look for it.
    pub note: Option<String>,
}

/// The folder in an attempt's staging folder where its results lie while they come in.
pub const RESULTS: &str = "results";

/// Publishes. Safe to call again after it failed at any point.
///
/// # Errors
/// When the disk is full or a folder cannot be written; nothing half-done is visible then.
pub fn commit(
    folders: &Folders,
    lease: &Lease,
    outcome: Outcome,
    delivery: &Delivery,
) -> anyhow::Result<Published> {
    let key = &lease.srpm.key;
    let place = Place::choose(folders.published(key, &lease.srpm.header.nvr), lease);
    let record = match read_record(&place.folder) {
        // An earlier try came as far as the rename.
        Some(record) if record.is_of(lease) => record,
        _ => {
            let staged = folders.attempt(lease.attempt).join(RESULTS);
            let record = describe(lease, believable(outcome, &delivery.manifest), delivery, &place);
            drop_unpublished(&staged, delivery, &record)?;
            make_durable(&staged, &record)?;
            if key.target.is_some() {
                // Or its RPMs would be in the metadata of REPO itself.
                metadata::make_repository(&folders.repository(key))
                    .with_context(|| format!("cannot make a repository for {key}"))?;
            }
            publish(&staged, &place.folder)?;
            record
        }
    };
    settle(folders, key, &record)?;
    let _ = fs::remove_dir_all(folders.attempt(lease.attempt));
    Ok(Published { outcome: record.outcome, folder: place.folder, note: record.note })
}

/// Where the results of an attempt belong.
struct Place {
    folder: PathBuf,
    /// A good result of another attempt stands in `REPO/<NVR>`, and stays.
    beside_good: bool,
}

impl Place {
    fn choose(published: PathBuf, lease: &Lease) -> Self {
        let standing = read_record(&published);
        if standing.is_some_and(|record| record.outcome.is_success() && !record.is_of(lease)) {
            Self { folder: published.join(format!("attempt-{}", lease.attempt)), beside_good: true }
        } else {
            Self { folder: published, beside_good: false }
        }
    }
}

impl BuildRecord {
    fn is_of(&self, lease: &Lease) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.id == lease.attempt)
    }
}

fn describe(lease: &Lease, outcome: Outcome, delivery: &Delivery, place: &Place) -> BuildRecord {
    let nvr = &lease.srpm.header.nvr;
    let with_rpms = outcome.is_success() && !place.beside_good;
    let mut artifacts = delivery.manifest.clone();
    artifacts.retain(|entry| with_rpms || !entry.name.is_rpm());
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    let note = (outcome.is_success() && place.beside_good).then(|| {
        format!(
            "{nvr} was published before and dnf may have it already, so the RPMs of this attempt are not \
             published; remove the folder and queue the SRPM again to replace them"
        )
    });
    BuildRecord {
        format: FORMAT,
        srpm: lease.srpm.key.srpm.clone(),
        nvr: Some(nvr.clone()),
        outcome,
        attempt: Some(AttemptRecord {
            id: lease.attempt,
            builder: lease.builder.clone(),
            target: lease.target.clone(),
            srpm_sha256: delivery.srpm_sha256,
            leased_at: delivery.leased_at,
            delivered_at: delivery.delivered_at,
        }),
        artifacts,
        note,
    }
}

/// Settles an SRPM that cannot be built at all.
///
/// # Errors
/// When FINISHED cannot be written.
pub fn refuse(folders: &Folders, key: &BuildKey, reason: &str) -> anyhow::Result<()> {
    let record = BuildRecord {
        format: FORMAT,
        srpm: key.srpm.clone(),
        nvr: None,
        outcome: Outcome::failed(FailureKind::UnreadableSrpm, reason, None, Vec::new()),
        attempt: None,
        artifacts: Vec::new(),
        note: None,
    };
    write_failure_record(folders, key, &record)?;
    folders.refuse(key).with_context(|| format!("cannot move {key} to FINISHED"))
}

/// A builder that says "succeeded" and brings no RPM is not believed.
fn believable(outcome: Outcome, manifest: &[ManifestEntry]) -> Outcome {
    if outcome.is_success() && !manifest.iter().any(|entry| entry.name.is_rpm()) {
        let reason = "the builder said that the build succeeded, but delivered no RPM";
        return Outcome::failed(FailureKind::Infrastructure, reason, Some(0), Vec::new());
    }
    outcome
}

/// What stands in a folder of REPO.
fn read_record(published: &Path) -> Option<BuildRecord> {
    serde_json::from_slice(&fs::read(published.join(RESERVED_ARTIFACT)).ok()?).ok()
}

/// Removes from staging what is not to be published: RPMs of anything but a first success.
fn drop_unpublished(staged: &Path, delivery: &Delivery, record: &BuildRecord) -> anyhow::Result<()> {
    for entry in delivery.manifest.iter().filter(|entry| !record.artifacts.contains(entry)) {
        match fs::remove_file(staged.join(&entry.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {} from staging", entry.name));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes `build.json` and makes the folder and all that is in it durable, readable for httpd.
fn make_durable(staged: &Path, record: &BuildRecord) -> anyhow::Result<()> {
    let cannot = || format!("cannot make the results in {} durable", staged.display());
    for entry in &record.artifacts {
        let path = staged.join(&entry.name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).with_context(cannot)?;
        durable::sync_file(&path).with_context(cannot)?;
    }
    let path = staged.join(RESERVED_ARTIFACT);
    durable::write_whole(&path, &record.to_json()?).with_context(cannot)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).with_context(cannot)?;
    fs::set_permissions(staged, fs::Permissions::from_mode(0o755)).with_context(cannot)?;
    durable::sync_folder(staged).with_context(cannot)
}

/// Moves the staged folder to its place.
fn publish(staged: &Path, place: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot publish {}", place.display());
    let parent = place.parent().context("REPO has no parent folder")?;
    fs::create_dir_all(parent).with_context(cannot)?;
    match rename_no_replace(staged, place) {
        // An earlier failure stands there: the new result takes its place without a gap.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            exchange(staged, place).with_context(cannot)?
        }
        other => other.with_context(cannot)?,
    }
    durable::sync_folder(parent).with_context(cannot)
}

/// Puts `new` in place of `old`, which is then removed.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_dir_all(new),
        // A file system that cannot exchange: a short gap, in a folder that held no RPM.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::remove_dir_all(old)?;
            fs::rename(new, old)
        }
        Err(error) => Err(error.into()),
    }
}

/// The SRPM to FINISHED, with a failure record beside it when it failed.
fn settle(folders: &Folders, key: &BuildKey, record: &BuildRecord) -> anyhow::Result<()> {
    if record.outcome.is_success() {
        let _ = fs::remove_file(folders.failure_record(key));
    } else {
        write_failure_record(folders, key, record)?;
    }
    match folders.finish(key) {
        // Moved by an earlier try, or taken away by a person.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot move {key} to FINISHED")),
    }
}

fn write_failure_record(folders: &Folders, key: &BuildKey, record: &BuildRecord) -> anyhow::Result<()> {
    let path = folders.failure_record(key);
    let cannot = || format!("cannot write {}", path.display());
    path.parent().map_or(Ok(()), fs::create_dir_all).with_context(cannot)?;
    durable::write_whole(&path, &record.to_json()?).with_context(cannot)
}
