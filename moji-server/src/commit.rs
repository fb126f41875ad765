//! Publishes the results of one attempt: from staging to REPO, the SRPM to FINISHED.
//!
//! The order is what makes it safe: everything durable in staging, one rename into REPO, then the
//! SRPM. A crash in between leaves either no trace in REPO, or a whole result whose SRPM is still
//! in WORKING; the same commit can then be done again ([`Step`] has the table). All of it blocks.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use moji_proto::names::RESERVED_ARTIFACT;
use moji_proto::{FailureKind, ManifestEntry, Nvr, Outcome, Sha256};
use rustix::fs::{CWD, RenameFlags};

use crate::beneath::Folder;
use crate::crash::{self, Point, steps};
use crate::folders::{Folders, rename_no_replace};
use crate::payload::Payloads;
use crate::record::{AttemptRecord, BuildRecord, FORMAT, RepositoryUsed};
use crate::scheduler::{Fate, HoldCause, Lease};
use crate::{BuildKey, durable, metadata, rebuilt, unsynced};

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The files in [`RESULTS`], each with the size and digest that it was checked for.
    pub manifest: Vec<ManifestEntry>,
    /// What is known of the RPMs among them.
    pub payloads: Payloads,
    /// Digest of the SRPM that the builder got.
    pub srpm_sha256: Option<Sha256>,
    /// What its builder says that its machine is (`uname -m`).
    pub machine: String,
    /// When the lease began.
    pub leased_at: Timestamp,
    /// When all results were here.
    pub delivered_at: Timestamp,
    /// What becomes of the SRPM.
    pub fate: Fate,
    /// What it took its dependencies from.
    pub repository: Option<RepositoryUsed>,
}

/// What was published, and where.
#[derive(Debug)]
pub struct Published {
    /// What `build.json` says.
    pub record: BuildRecord,
    /// The folder.
    pub folder: PathBuf,
}

/// The folder in an attempt's staging folder where its results lie while they come in.
pub const RESULTS: &str = "results";
/// No `build.json` is longer: the most files with the longest names are a tenth of it.
const RECORD_MAX: u64 = 16 << 20;
/// The folder beside it for what is not to be published.
pub(crate) const UNPUBLISHED: &str = "unpublished";

steps! {
    /// The steps, in order. The second column is what a crash right after a step leaves; whoever reads
    /// REPO finds the earlier result or the new one, whole, in every row. At the next start [`complete`]
    /// does the third column for what is in REPO already; what is not has its lease still, see
    /// [`crate::left_behind`].
    ///
    /// | after | found | next start |
    /// |---|---|---|
    /// | `Staged` | the SRPM in WORKING, its results in staging, not all of them durable | waits for the builder, which delivers once more what is not here; when it does not come, the SRPM goes back to SOURCE |
    /// | `SetAside` | the same; what is not to be published lies beside | the same |
    /// | (instead of `Durable`, a failed fsync) | the same; all that was to be published lies in `unsynced` | the same, and the builder delivers that once more: see `unsynced.rs` |
    /// | `Durable` | the same, with a `build.json` in staging | the same |
    /// | `RepositoryMade` | the same, and the target has its `repodata`, without RPMs | the same; the metadata of no packages are made |
    /// | `Published` | the result in REPO, not durably; an earlier failure may be in its place in staging; the SRPM in WORKING | sees by the attempt's id that it is published, and goes on from there. (If the power fails too, it may be in staging: then as after `Durable`) |
    /// | `PublishedDurably` | the same, durably | the same |
    /// | `Recorded` | the same, and its `.failed.json` or `.held.json` in FINISHED; one of another outcome is gone | the same |
    /// | `Finished` | the SRPM in FINISHED, staging | removes staging. (If the power fails too, the SRPM may be in WORKING: then as after `Recorded`) |
    /// | `FinishedDurably` | the same | removes staging |
    /// | `Cleared` | all as it is to be | nothing to do |
    ///
    /// What is parked has no record in FINISHED, and its SRPM goes back to SOURCE: `Recorded` to
    /// `FinishedDurably` are one step of [`crate::crash::Move`] then. What comes before it is the same; and
    /// once it is in SOURCE, the staging of an attempt that nobody has any more is removed.
    pub enum Step {
        /// All results are here.
        Staged,
        /// What is not to be published lies in a folder of its own.
        SetAside,
        /// The staged folder has its `build.json`; it and all in it are durable.
        Durable,
        /// The repository of the target exists. Only for builds for a target.
        RepositoryMade,
        /// The staged folder is `REPO/<NVR>`, or has changed places with a failure there.
        Published,
        /// Durably.
        PublishedDurably,
        /// A failure has its record in FINISHED, a success has none.
        Recorded,
        /// The SRPM is in FINISHED.
        Finished,
        /// Durably.
        FinishedDurably,
        /// Staging is empty.
        Cleared,
    }
}

fn passed(step: Step) {
    crash::at(Point::Commit(step));
}

/// Publishes. Safe to call again after it failed at any point; what the disk has not taken is to be
/// written anew before, see `unsynced::renew`.
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
    passed(Step::Staged);
    let place = Place::choose(folders.published(key, &lease.srpm.header.nvr), lease);
    let record = match read_record(&place.folder) {
        // An earlier try came as far as the rename.
        Some(record) if record.is_of(lease) => {
            place.make_durable()?;
            record
        }
        // A good result stands there; that something is missing now says nothing of it.
        _ if place.taken.is_some() && matches!(delivery.fate, Fate::Park(_)) => {
            describe(lease, outcome, delivery, &place)
        }
        _ => {
            let staging = folders.attempt(lease.attempt);
            let staged = staging.join(RESULTS);
            let mut record = describe(lease, outcome, delivery, &place);
            record.retried = rebuilt::was_retried(folders, key);
            set_aside(&staging, delivery, &record)?;
            passed(Step::SetAside);
            make_durable(&staged, &record).map_err(|error| unsynced::put_aside(&staging, error))?;
            passed(Step::Durable);
            if key.target.is_some() {
                // Or its RPMs would be in the metadata of REPO itself.
                metadata::make_repository(&folders.repository(key))
                    .with_context(|| format!("cannot make a repository for {key}"))?;
                passed(Step::RepositoryMade);
            }
            publish(&staged, &place.folder)?;
            record
        }
    };
    settle(folders, key, &record)?;
    let _ = fs::remove_dir_all(folders.attempt(lease.attempt));
    passed(Step::Cleared);
    Ok(Published { record, folder: place.folder })
}

/// Whether an earlier try of a commit came as far as REPO.
pub fn is_published(folders: &Folders, lease: &Lease) -> bool {
    let place = Place::choose(folders.published(&lease.srpm.key, &lease.srpm.header.nvr), lease);
    read_record(&place.folder).is_some_and(|record| record.is_of(lease))
}

/// Does the rest of a commit that a server began which has ended: its results are published, and
/// its SRPM is still in WORKING. The attempt's staging folder tells it from a result of long ago: that
/// is there until its SRPM is in FINISHED. Gives whether there was such a result.
///
/// # Errors
/// When FINISHED cannot be written.
pub fn complete(folders: &Folders, key: &BuildKey, nvr: &Nvr) -> anyhow::Result<bool> {
    let published = folders.published(key, nvr);
    let beside = fs::read_dir(&published).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = std::iter::once(published.clone()).chain(beside.filter(|path| path.is_dir()));
    for place in places {
        let Some(record) = read_record(&place).filter(|record| record.srpm == key.srpm) else { continue };
        let Some(attempt) = &record.attempt else { continue };
        let staging = folders.attempt(attempt.id);
        if staging.is_dir() && !give_back(&staging.join(RESULTS), &place)? {
            place.parent().map_or(Ok(()), durable::sync_folder).context("cannot make REPO durable")?;
            settle(folders, key, &record)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the results of an attempt belong.
struct Place {
    folder: PathBuf,
    /// Something stands in `REPO/<NVR>` that is not to be replaced.
    taken: Option<Taken>,
}

/// What stands in `REPO/<NVR>` and stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The good result of another attempt.
    GoodResult,
    /// Nothing of moji's: RPMs that a person put there, the repository of a target, or a
    /// `build.json` that cannot be read.
    Foreign,
}

impl Place {
    /// That it is there: the try that has put it there may have ended with this.
    fn make_durable(&self) -> anyhow::Result<()> {
        let made = self.folder.parent().map_or(Ok(()), durable::sync_folder);
        made.with_context(|| format!("cannot publish {}", self.folder.display()))
    }

    fn choose(published: PathBuf, lease: &Lease) -> Self {
        let taken = match (read_record(&published), published.symlink_metadata()) {
            (Some(record), _) if record.is_of(lease) || !record.outcome.is_success() => None,
            (Some(_), _) => Some(Taken::GoodResult),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            (None, _) => Some(Taken::Foreign),
        };
        match taken {
            Some(_) => Self { folder: published.join(format!("attempt-{}", lease.attempt)), taken },
            None => Self { folder: published, taken },
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
    let with_rpms = outcome.is_success() && place.taken.is_none();
    let mut artifacts = delivery.manifest.clone();
    artifacts.retain(|entry| with_rpms || !entry.name.is_rpm());
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    let note = match place.taken {
        Some(Taken::GoodResult) if outcome.is_success() => Some(format!(
            "{nvr} was published before and dnf may have it already, so the RPMs of this attempt are not \
             published; remove the folder and queue the SRPM again to replace them"
        )),
        Some(Taken::Foreign) => Some(format!(
            "the folder {nvr} of the repository holds something that is not a result of moji; it is left alone, \
             and only the logs of this attempt are published, inside it"
        )),
        _ => None,
    };
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
            repository: delivery.repository.clone(),
        }),
        artifacts,
        note,
        held: match &delivery.fate {
            Fate::Hold(reason) => Some(reason.clone()),
            Fate::Settle | Fate::Park(_) => None,
        },
        parked: matches!(delivery.fate, Fate::Park(_)),
        retried: false,
    }
}

/// Why an SRPM goes from SOURCE to FINISHED without being given to anybody.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It is not tried again before a person wants it, for this reason.
    Held(HoldCause, String),
}

/// Whose fault it is that an SRPM is held: nobody's, when a person wants it so.
pub(crate) fn held_kind(cause: HoldCause) -> FailureKind {
    match cause {
        HoldCause::Tries => FailureKind::Infrastructure,
        HoldCause::Person | HoldCause::Cancelled => FailureKind::Interrupted,
    }
}

/// Settles an SRPM that is given to nobody; gives the record beside it.
///
/// # Errors
/// When FINISHED cannot be written.
pub fn refuse(folders: &Folders, key: &BuildKey, refusal: &Refusal) -> anyhow::Result<BuildRecord> {
    let (kind, reason, held) = match refusal {
        Refusal::Unreadable(reason) => (FailureKind::UnreadableSrpm, reason, None),
        Refusal::Held(cause, reason) => (held_kind(*cause), reason, Some(reason.clone())),
    };
    let record = BuildRecord {
        format: FORMAT,
        srpm: key.srpm.clone(),
        nvr: None,
        outcome: Outcome::failed(kind, reason, None, Vec::new()),
        attempt: None,
        artifacts: Vec::new(),
        note: None,
        held,
        parked: false,
        retried: false,
    };
    write_final_record(folders, key, &record)?;
    crash::at(Point::Moved(crash::Move::RefusalRecorded));
    folders.refuse(key).with_context(|| format!("cannot move {key} to FINISHED"))?;
    Ok(record)
}

/// Whether a folder of REPO may take logs: nothing is there, or an earlier failure.
pub(crate) fn is_free(published: &Path) -> bool {
    match read_record(published) {
        Some(record) => !record.outcome.is_success(),
        None => matches!(published.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound),
    }
}

/// What stands in a folder of REPO.
pub(crate) fn read_record(published: &Path) -> Option<BuildRecord> {
    let mut json = Vec::new();
    let file = Folder::open(published).ok()?.open_file(RESERVED_ARTIFACT).ok()?;
    file.take(RECORD_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Moves what is not to be published (RPMs of anything but a first success) out of the staged
/// folder, and back in what is: when this is a second try, the place may be free by now.
fn set_aside(staging: &Path, delivery: &Delivery, record: &BuildRecord) -> anyhow::Result<()> {
    let cannot = || format!("cannot sort the results in {}", staging.display());
    let staging = Folder::make(staging).with_context(cannot)?;
    let staged = staging.make_folder(RESULTS).with_context(cannot)?;
    let is_published = |entry: &ManifestEntry| record.artifacts.contains(entry);
    // Mostly all of it is, and nothing was put aside before: no folder to be made and removed then.
    let aside = match staging.folder(UNPUBLISHED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if delivery.manifest.iter().all(is_published) {
                return Ok(());
            }
            staging.make_folder(UNPUBLISHED).with_context(cannot)?
        }
        there => there.with_context(cannot)?,
    };
    for entry in &delivery.manifest {
        let (from, to) = if is_published(entry) { (&aside, &staged) } else { (&staged, &aside) };
        match from.rename(&entry.name, to, &entry.name) {
            // It is where it belongs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.with_context(|| format!("cannot move {} in staging", entry.name))?,
        }
    }
    Ok(())
}

/// What is published may be read by everybody, httpd among them.
const READABLE: u32 = 0o644;

/// Writes `build.json` and makes the folder and all that is in it durable, readable for httpd. Nobody sees the
/// folder before it is published, so that one fsync for its entries is enough, when all of them are there.
pub(crate) fn make_durable(staged: &Path, record: &BuildRecord) -> anyhow::Result<()> {
    let cannot = || format!("cannot make the results in {} durable", staged.display());
    let folder = Folder::make(staged).with_context(cannot)?;
    let readable = |entry: &ManifestEntry| {
        let file = folder.open_file(&entry.name)?;
        // Mostly it is so already; a change would be one more write of the journal.
        if file.metadata()?.permissions().mode() & 0o7777 != READABLE {
            file.set_permissions(fs::Permissions::from_mode(READABLE))?;
        }
        Ok(file)
    };
    durable::sync_files(&record.artifacts, readable).with_context(cannot)?;
    let name = RESERVED_ARTIFACT.as_ref();
    durable::put_in(&folder, name, &record.to_json()?, Some(READABLE)).with_context(cannot)?;
    folder.set_mode(0o755).with_context(cannot)?;
    folder.sync().map_err(durable::SyncError::NotTaken).with_context(cannot)
}

/// Moves the staged folder to its place.
pub(crate) fn publish(staged: &Path, place: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot publish {}", place.display());
    let parent = place.parent().context("REPO has no parent folder")?;
    fs::create_dir_all(parent).with_context(cannot)?;
    match rename_no_replace(staged, place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => replace_failure(staged, place)?,
        other => other.with_context(cannot)?,
    }
    passed(Step::Published);
    durable::sync_folder(parent).with_context(cannot)?;
    passed(Step::PublishedDurably);
    Ok(())
}

/// An earlier failure stands in `place`: the new result takes its place without a gap, and the failure
/// its place in staging. Anything else stays.
fn replace_failure(staged: &Path, place: &Path) -> anyhow::Result<()> {
    let meanwhile = || anyhow!("{} was taken meanwhile", place.display());
    let cannot = || format!("cannot publish {}", place.display());
    if read_record(place).is_none_or(|record| record.outcome.is_success()) {
        return Err(meanwhile());
    }
    match rustix::fs::renameat_with(CWD, staged, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) if give_back(staged, place)? => Err(meanwhile()),
        Ok(()) => Ok(()),
        // A file system that cannot exchange: a short gap, in a folder that held no RPM.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::remove_dir_all(place).with_context(cannot)?;
            fs::rename(staged, place).with_context(cannot)
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// Two SRPMs of one NVR at the same instant: when what was taken out of `place` is not the failure that
/// stood there a moment before, it goes back. Gives whether it was so. Right after an exchange only:
/// what is taken out then has a record, and what never was in `place` has none of another attempt.
fn give_back(staged: &Path, place: &Path) -> anyhow::Result<bool> {
    let (Some(out), Some(now)) = (read_record(staged), read_record(place)) else { return Ok(false) };
    if !out.outcome.is_success() || out.attempt == now.attempt {
        return Ok(false);
    }
    rustix::fs::renameat_with(CWD, staged, CWD, place, RenameFlags::EXCHANGE)
        .with_context(|| format!("cannot put the earlier result back into {}", place.display()))?;
    Ok(true)
}

/// The SRPM to FINISHED, with a record beside it when it failed or is held; or back to SOURCE, when it is
/// parked.
pub(crate) fn settle(folders: &Folders, key: &BuildKey, record: &BuildRecord) -> anyhow::Result<()> {
    if record.parked {
        // But for the mark that it was tried once more by itself, which counts for the next failure.
        if !record.retried {
            folders.forget_outcome(key);
        }
        return match folders.requeue(key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("cannot move {key} back to SOURCE")),
        };
    }
    write_final_record(folders, key, record)?;
    passed(Step::Recorded);
    match folders.finish(key) {
        // Moved by an earlier try, or taken away by a person.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.with_context(|| format!("cannot move {key} to FINISHED"))?,
    }
    passed(Step::FinishedDurably);
    Ok(())
}

/// Writes the record that fits in FINISHED; what an earlier build of the SRPM left there goes.
fn write_final_record(folders: &Folders, key: &BuildKey, record: &BuildRecord) -> anyhow::Result<()> {
    let (failed, held) = (folders.failure_record(key), folders.held_record(key));
    let (path, others) = match (record.outcome.is_success(), &record.held) {
        (true, _) => (None, [Some(failed), Some(held)]),
        (false, None) => (Some(failed), [Some(held), None]),
        (false, Some(_)) => (Some(held), [Some(failed), None]),
    };
    if let Some(path) = path {
        let cannot = || format!("cannot write {}", path.display());
        path.parent().map_or(Ok(()), fs::create_dir_all).with_context(cannot)?;
        durable::write_whole(&path, &record.to_json()?).with_context(cannot)?;
    }
    for other in others.into_iter().flatten() {
        let _ = fs::remove_file(other);
    }
    Ok(())
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
