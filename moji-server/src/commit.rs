//! Publishes the results of one attempt: from staging to REPO, the SRPM to FINISHED.
//!
//! The order is what makes it safe: everything durable in staging, one rename into REPO, then the
//! SRPM. A crash in between leaves either no trace in REPO, or a whole result whose SRPM is still
//! in WORKING; the same commit can then be done again. All of it blocks.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use moji_proto::names::RESERVED_ARTIFACT;
use moji_proto::{FailureKind, ManifestEntry, Nvr, Outcome, Sha256};
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
/// The folder beside it for what is not to be published.
const UNPUBLISHED: &str = "unpublished";

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
            set_aside(&staged, &folders.attempt(lease.attempt).join(UNPUBLISHED), delivery, &record)?;
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

/// Does the rest of a commit that a server began which has ended: its results are published, and
/// its SRPM is still in WORKING. Staging tells it from a result of long ago: an attempt's folder is
/// there until its SRPM is in FINISHED. Gives whether there was such a result.
///
/// # Errors
/// When FINISHED cannot be written.
pub fn complete(folders: &Folders, key: &BuildKey, nvr: &Nvr) -> anyhow::Result<bool> {
    let published = folders.published(key, nvr);
    let beside = fs::read_dir(&published).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = std::iter::once(published.clone()).chain(beside.filter(|path| path.is_dir()));
    for record in places.filter_map(|place| read_record(&place)).filter(|record| record.srpm == key.srpm) {
        let Some(attempt) = &record.attempt else { continue };
        let staging = folders.attempt(attempt.id);
        if staging.is_dir() && !staging.join(RESULTS).exists() {
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

/// Moves what is not to be published (RPMs of anything but a first success) out of the staged
/// folder, and back in what is: when this is a second try, the place may be free by now.
fn set_aside(staged: &Path, aside: &Path, delivery: &Delivery, record: &BuildRecord) -> anyhow::Result<()> {
    fs::create_dir_all(aside).with_context(|| format!("cannot make {}", aside.display()))?;
    for entry in &delivery.manifest {
        let (from, to) = if record.artifacts.contains(entry) { (aside, staged) } else { (staged, aside) };
        match fs::rename(from.join(&entry.name), to.join(&entry.name)) {
            // It is where it belongs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.with_context(|| format!("cannot move {} in staging", entry.name))?,
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
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => replace_failure(staged, place)?,
        other => other.with_context(cannot)?,
    }
    durable::sync_folder(parent).with_context(cannot)
}

/// An earlier failure stands in `place`: the new result takes its place without a gap. Anything else
/// stays.
fn replace_failure(staged: &Path, place: &Path) -> anyhow::Result<()> {
    let is_failure = |folder: &Path| read_record(folder).is_some_and(|record| !record.outcome.is_success());
    let meanwhile = || anyhow!("{} was taken meanwhile", place.display());
    let cannot = || format!("cannot publish {}", place.display());
    if !is_failure(place) {
        return Err(meanwhile());
    }
    match rustix::fs::renameat_with(CWD, staged, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) if is_failure(staged) => fs::remove_dir_all(staged).with_context(cannot),
        // Two SRPMs of one NVR at the same instant: what was taken out is good, so it goes back.
        Ok(()) => {
            rustix::fs::renameat_with(CWD, staged, CWD, place, RenameFlags::EXCHANGE).with_context(cannot)?;
            Err(meanwhile())
        }
        // A file system that cannot exchange: a short gap, in a folder that held no RPM.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::remove_dir_all(place).with_context(cannot)?;
            fs::rename(staged, place).with_context(cannot)
        }
        Err(error) => Err(error).with_context(cannot),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folders::FoldersLock;
    use crate::scheduler::{LeaseState, SessionId};
    use crate::source::{QueuedSrpm, SrpmHeader};
    use moji_proto::AttemptId;

    struct Farm {
        folders: Folders,
        _lock: FoldersLock,
        _at: tempfile::TempDir,
    }

    impl Farm {
        fn new() -> Self {
            let at = tempfile::tempdir().unwrap();
            let mut folders = Folders {
                source: at.path().join("source"),
                working: at.path().join("working"),
                finished: at.path().join("finished"),
                repo: at.path().join("repo"),
            };
            let lock = folders.prepare().unwrap();
            Self { folders, _lock: lock, _at: at }
        }

        /// An attempt whose results are in staging: one RPM and one log that name the attempt.
        fn deliver(&self, serial: u64, target: Option<&str>) -> (Lease, Delivery) {
            let target = target.map(|target| target.parse().unwrap());
            let key = BuildKey { target, srpm: "a-1-1.src.rpm".parse().unwrap() };
            let working = self.folders.working.join(key.path());
            fs::create_dir_all(working.parent().unwrap()).unwrap();
            fs::write(working, "srpm").unwrap();
            let header = SrpmHeader {
                name: "a".into(),
                epoch: None,
                version: "1".into(),
                release: "1".into(),
                nvr: "a-1-1".parse().unwrap(),
            };
            let lease = Lease {
                attempt: AttemptId { boot: 7, serial },
                srpm: QueuedSrpm { key, header, size: 4, queued_at: Timestamp::UNIX_EPOCH },
                target: "f43-arm".parse().unwrap(),
                session: Some(SessionId(3)),
                builder: "board".parse().unwrap(),
                slot: Some(2),
                state: LeaseState::Running { claimed_by: None },
            };
            let staged = self.folders.attempt(lease.attempt).join(RESULTS);
            fs::create_dir_all(&staged).unwrap();
            let names = ["build.log", "a-1-1.noarch.rpm"];
            let manifest = names.map(|name| {
                let content = format!("{name} of {serial}");
                fs::write(staged.join(name), &content).unwrap();
                ManifestEntry {
                    name: name.parse().unwrap(),
                    size: content.len() as u64,
                    sha256: Sha256::of(content.as_bytes()),
                }
            });
            let delivery = Delivery {
                manifest: manifest.into(),
                srpm_sha256: Some(Sha256::of(b"srpm")),
                leased_at: Timestamp::UNIX_EPOCH,
                delivered_at: Timestamp::UNIX_EPOCH,
            };
            (lease, delivery)
        }

        fn commit(&self, serial: u64, outcome: Outcome) -> Published {
            let (lease, delivery) = self.deliver(serial, None);
            commit(&self.folders, &lease, outcome, &delivery).unwrap()
        }

        fn text(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.folders.repo.join(path)).ok()
        }

        fn record(&self, path: &str) -> BuildRecord {
            serde_json::from_str(&self.text(path).unwrap()).unwrap()
        }

        fn is_settled(&self, failed: bool) {
            assert!(self.folders.finished.join("a-1-1.src.rpm").exists());
            assert!(!self.folders.working.join("a-1-1.src.rpm").exists());
            assert_eq!(self.folders.finished.join("a-1-1.src.rpm.failed.json").exists(), failed);
            assert_eq!(fs::read_dir(self.folders.attempts()).unwrap().count(), 0, "staging is left");
        }
    }

    fn failed() -> Outcome {
        Outcome::failed(FailureKind::Package, "%build failed", Some(1), Vec::new())
    }

    #[test]
    fn a_success_is_published_whole_and_readable_for_all() {
        let farm = Farm::new();
        farm.commit(1, Outcome::Succeeded);
        farm.is_settled(false);
        assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 1");
        let record = farm.record("a-1-1/build.json");
        assert_eq!(record.outcome, Outcome::Succeeded);
        assert_eq!(record.artifacts.len(), 2);
        assert_eq!(record.attempt.unwrap().id.serial, 1);
        for (path, mode) in [("a-1-1", 0o755), ("a-1-1/build.log", 0o644), ("a-1-1/build.json", 0o644)] {
            let is = fs::metadata(farm.folders.repo.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(is, mode, "{path}");
        }
    }

    #[test]
    fn a_failure_publishes_its_logs_and_gives_way_to_the_next() {
        let farm = Farm::new();
        farm.commit(1, failed());
        farm.is_settled(true);
        assert_eq!(farm.text("a-1-1/build.log").unwrap(), "build.log of 1");
        assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm"), None);
        assert_eq!(farm.record("a-1-1/build.json").artifacts.len(), 1);
        farm.commit(2, failed());
        assert_eq!(farm.text("a-1-1/build.log").unwrap(), "build.log of 2");
        farm.commit(3, Outcome::Succeeded);
        farm.is_settled(false);
        assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 3");
    }

    #[test]
    fn nothing_replaces_a_good_result() {
        let farm = Farm::new();
        farm.commit(1, Outcome::Succeeded);
        let again = [farm.commit(2, failed()), farm.commit(3, Outcome::Succeeded)];
        assert!(again[0].note.is_none() && again[1].note.is_some());
        assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 1");
        assert_eq!(farm.record("a-1-1/build.json").attempt.unwrap().id.serial, 1);
        for published in &again {
            assert!(published.folder.join("build.log").exists());
            assert!(!published.folder.join("a-1-1.noarch.rpm").exists());
        }
    }

    #[test]
    fn what_is_not_mojis_is_left_alone() {
        for (file, content) in [
            ("mine.rpm", "an RPM of a person"),
            ("repodata/repomd.xml", "a target's repository"),
            ("build.json", "{ torn"),
        ] {
            for outcome in [failed(), Outcome::Succeeded] {
                let farm = Farm::new();
                let theirs = farm.folders.repo.join("a-1-1").join(file);
                fs::create_dir_all(theirs.parent().unwrap()).unwrap();
                fs::write(&theirs, content).unwrap();
                let published = farm.commit(4, outcome);
                assert_eq!(fs::read_to_string(&theirs).unwrap(), content);
                assert!(published.note.is_some() && published.folder.join("build.log").exists());
                assert!(!published.folder.join("a-1-1.noarch.rpm").exists());
            }
        }
    }

    #[test]
    fn a_commit_can_be_done_again_after_any_step() {
        let farm = Farm::new();
        for (serial, outcome) in [(1, failed()), (2, Outcome::Succeeded), (3, Outcome::Succeeded)] {
            let (lease, delivery) = farm.deliver(serial, None);
            // FINISHED cannot take it: everything before that is done.
            let blocked = farm.folders.finished.join("a-1-1.src.rpm");
            let _ = fs::remove_file(&blocked);
            fs::create_dir(&blocked).unwrap();
            commit(&farm.folders, &lease, outcome.clone(), &delivery).unwrap_err();
            commit(&farm.folders, &lease, outcome.clone(), &delivery).unwrap_err();
            fs::remove_dir(&blocked).unwrap();
            let published = commit(&farm.folders, &lease, outcome.clone(), &delivery).unwrap();
            assert_eq!(published.outcome, outcome);
            assert!(published.folder.join("build.log").exists());
        }
        assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 2");
    }

    #[test]
    fn a_second_try_finds_the_place_free() {
        let farm = Farm::new();
        farm.commit(1, Outcome::Succeeded);
        let (lease, delivery) = farm.deliver(2, None);
        // The first try may publish logs only, and cannot even do that.
        let good = farm.folders.repo.join("a-1-1");
        fs::create_dir(good.join(format!("attempt-{}", lease.attempt))).unwrap();
        commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap_err();
        fs::remove_dir_all(good).unwrap();
        commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap();
        assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 2");
        farm.is_settled(false);
    }

    #[test]
    fn a_server_that_starts_completes_what_its_predecessor_had_published() {
        let nvr = "a-1-1".parse().unwrap();
        for outcomes in [vec![failed()], vec![Outcome::Succeeded], vec![Outcome::Succeeded, failed()]] {
            let farm = Farm::new();
            let (last, earlier) = outcomes.split_last().unwrap();
            for (outcome, serial) in earlier.iter().zip(1..) {
                farm.commit(serial, outcome.clone());
            }
            let (lease, delivery) = farm.deliver(9, None);
            let key = &lease.srpm.key;
            assert!(!complete(&farm.folders, key, &nvr).unwrap(), "nothing of this attempt is published");
            // The crash comes between REPO and FINISHED.
            let blocked = farm.folders.finished.join(key.path());
            let _ = fs::remove_file(&blocked);
            fs::create_dir(&blocked).unwrap();
            commit(&farm.folders, &lease, last.clone(), &delivery).unwrap_err();
            fs::remove_dir(&blocked).unwrap();
            assert!(complete(&farm.folders, key, &nvr).unwrap());
            assert!(farm.folders.recover().unwrap().is_empty());
            farm.is_settled(!last.is_success());
            // Queued once more, and lost with the next server: that is another build.
            let (lease, _) = farm.deliver(10, None);
            assert!(!complete(&farm.folders, &lease.srpm.key, &nvr).unwrap());
        }
    }

    #[test]
    fn a_success_without_rpms_is_not_believed() {
        let farm = Farm::new();
        let (lease, mut delivery) = farm.deliver(1, None);
        delivery.manifest.retain(|entry| !entry.name.is_rpm());
        let published = commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap();
        assert!(matches!(published.outcome, Outcome::Failed { kind: FailureKind::Infrastructure, .. }));
    }

    #[test]
    fn a_target_has_a_repository_of_its_own() {
        let farm = Farm::new();
        let (lease, delivery) = farm.deliver(1, Some("f43-arm"));
        commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap();
        assert!(farm.folders.repo.join("f43-arm/repodata").is_dir());
        assert!(farm.text("f43-arm/a-1-1/build.json").is_some());
        assert!(farm.folders.finished.join("f43-arm/a-1-1.src.rpm").exists());
    }

    #[test]
    fn what_cannot_be_built_has_a_record() {
        let farm = Farm::new();
        let key = BuildKey { target: None, srpm: "b-1-1.src.rpm".parse().unwrap() };
        fs::write(farm.folders.source.join(key.path()), "no RPM").unwrap();
        refuse(&farm.folders, &key, "it is no RPM").unwrap();
        let json = fs::read(farm.folders.failure_record(&key)).unwrap();
        let record: BuildRecord = serde_json::from_slice(&json).unwrap();
        assert!(matches!(record.outcome, Outcome::Failed { kind: FailureKind::UnreadableSrpm, .. }));
        assert!(farm.folders.finished.join(key.path()).exists());
    }
}
