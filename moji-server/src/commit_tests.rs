//! Commits in real folders with hand-made results, and what is left when one breaks off.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::folders::testing::TempFolders;
use crate::left_behind::take_over;
use crate::scheduler::{LeaseState, SessionId};
use crate::source::{QueuedSrpm, SrpmHeader};
use moji_proto::AttemptId;

struct Farm {
    folders: TempFolders,
}

impl Farm {
    fn new() -> Self {
        Self { folders: TempFolders::new() }
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
            relations: Default::default(),
        };
        let lease = Lease {
            attempt: AttemptId { boot: 7, serial },
            srpm: QueuedSrpm { key, header, size: 4, queued_at: Timestamp::UNIX_EPOCH },
            target: "f43-arm".parse().unwrap(),
            session: Some(SessionId(3)),
            builder: "board".parse().unwrap(),
            slot: Some(2),
            since: None,
            late_at: None,
            charged: std::time::Duration::ZERO,
            ended: None,
            generation: 0,
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
            payloads: Default::default(),
            manifest: manifest.into(),
            srpm_sha256: Some(Sha256::of(b"srpm")),
            machine: "x86_64".into(),
            leased_at: Timestamp::UNIX_EPOCH,
            delivered_at: Timestamp::UNIX_EPOCH,
            fate: Fate::Settle,
            repository: None,
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

/// Nothing lies beside an SRPM that waits; but one that was tried once more by itself is not so twice.
#[test]
fn what_is_parked_has_no_record_in_finished_but_keeps_its_mark() {
    for retried in [false, true] {
        let farm = Farm::new();
        let mut record = farm.commit(1, failed()).record;
        record.retried = retried;
        let path = farm.folders.finished.join("a-1-1.src.rpm.failed.json");
        fs::write(&path, record.to_json().unwrap()).unwrap();
        let (lease, mut delivery) = farm.deliver(2, None);
        delivery.fate = Fate::Park(Vec::new());
        commit(&farm.folders, &lease, failed(), &delivery).unwrap();
        assert!(farm.folders.source.join("a-1-1.src.rpm").exists());
        assert_eq!(path.exists(), retried);
        assert_eq!(rebuilt::was_retried(&farm.folders, &lease.srpm.key), retried);
    }
}

#[test]
fn nothing_replaces_a_good_result() {
    let farm = Farm::new();
    farm.commit(1, Outcome::Succeeded);
    let again = [farm.commit(2, failed()), farm.commit(3, Outcome::Succeeded)];
    assert!(again[0].record.note.is_none() && again[1].record.note.is_some());
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
            assert!(published.record.note.is_some() && published.folder.join("build.log").exists());
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
        assert_eq!(published.record.outcome, outcome);
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
    for outcomes in [
        vec![failed()],
        vec![Outcome::Succeeded],
        vec![Outcome::Succeeded, failed()],
        // What was replaced is still in staging.
        vec![failed(), failed()],
        vec![failed(), Outcome::Succeeded],
    ] {
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
        assert!(take_over(&farm.folders).unwrap().put_back.is_empty());
        farm.is_settled(!last.is_success());
        // Queued once more, and lost with the next server: that is another build.
        let (lease, _) = farm.deliver(10, None);
        assert!(!complete(&farm.folders, &lease.srpm.key, &nvr).unwrap());
    }
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
    refuse(&farm.folders, &key, &Refusal::Unreadable("it is no RPM".into())).unwrap();
    let json = fs::read(farm.folders.failure_record(&key)).unwrap();
    let record: BuildRecord = serde_json::from_slice(&json).unwrap();
    assert!(matches!(record.outcome, Outcome::Failed { kind: FailureKind::UnreadableSrpm, .. }));
    assert!(farm.folders.finished.join(key.path()).exists());
}

#[test]
fn a_good_result_that_an_exchange_took_out_goes_back() {
    let farm = Farm::new();
    farm.commit(1, Outcome::Succeeded);
    // The crash comes right after the exchange: what was a failure a moment before is good now.
    let (lease, delivery) = farm.deliver(2, None);
    let staged = farm.folders.attempt(lease.attempt).join(RESULTS);
    let place = farm.folders.repo.join("a-1-1");
    let record =
        describe(&lease, Outcome::Succeeded, &delivery, &Place { folder: place.clone(), taken: None });
    make_durable(&staged, &record).unwrap();
    rustix::fs::renameat_with(CWD, &staged, CWD, &place, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(farm.record("a-1-1/build.json").attempt.unwrap().id.serial, 2);
    assert!(!complete(&farm.folders, &lease.srpm.key, &"a-1-1".parse().unwrap()).unwrap());
    assert_eq!(farm.record("a-1-1/build.json").attempt.unwrap().id.serial, 1);
    assert_eq!(take_over(&farm.folders).unwrap().put_back, [lease.srpm.key]);
}

/// Which files these are, held open: their numbers are not given to others meanwhile.
fn inodes(folder: &Path) -> Vec<(u64, fs::File)> {
    let names = ["a-1-1.noarch.rpm", "build.log"].map(|name| folder.join(name));
    let opened = names.into_iter().filter_map(|path| fs::File::open(path).ok());
    opened.map(|file| (file.metadata().unwrap().ino(), file)).collect()
}

#[test]
fn what_the_disk_has_not_taken_is_published_as_another_file() {
    let farm = Farm::new();
    let (lease, delivery) = farm.deliver(1, None);
    let staging = farm.folders.attempt(lease.attempt);
    let publish = || commit(&farm.folders, &lease, Outcome::Succeeded, &delivery);
    let mut not_taken = inodes(&staging.join(RESULTS));
    for _ in 0..2 {
        crash::FAILING.set(1);
        let error = format!("{:#}", publish().unwrap_err());
        assert!(error.contains("has not taken") && error.contains("Input/output error"), "{error}");
        assert!(!staging.join(RESULTS).exists() && !farm.folders.repo.join("a-1-1").exists());
        assert_eq!(inodes(&staging.join(unsynced::UNSYNCED)).len(), 2);
        // The kernel has told it once: the same files would be taken for durable now.
        publish().unwrap_err();
        assert_eq!(unsynced::renew(&staging, &delivery.manifest).unwrap(), unsynced::Renewed::Whole);
        not_taken.extend(inodes(&staging.join(RESULTS)));
    }
    let published = publish().unwrap();
    let (earlier, last) = not_taken.split_at(4);
    let is_one_of = |files: &[(u64, fs::File)], inode| files.iter().any(|(other, _)| *other == inode);
    for (inode, _) in inodes(&published.folder) {
        assert!(is_one_of(last, inode) && !is_one_of(earlier, inode));
    }
    assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 1");
    farm.is_settled(false);
}

/// Then nothing is lost: the same files can be made durable as soon as there is room.
#[test]
fn what_fails_for_another_reason_is_not_copied() {
    let farm = Farm::new();
    let (lease, delivery) = farm.deliver(1, None);
    let staged = farm.folders.attempt(lease.attempt).join(RESULTS);
    let before = inodes(&staged);
    let blocked = staged.join("build.json");
    fs::create_dir_all(blocked.join("in the way")).unwrap();
    commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap_err();
    fs::remove_dir_all(blocked).unwrap();
    let published = commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap();
    let numbers = |files: &[(u64, fs::File)]| files.iter().map(|(inode, _)| *inode).collect::<Vec<_>>();
    assert_eq!(numbers(&inodes(&published.folder)), numbers(&before));
}

/// The RPMs were put aside before the logs were synced, and the place is free at the second try.
#[test]
fn what_was_not_to_be_published_is_where_it_was_put() {
    let farm = Farm::new();
    farm.commit(1, Outcome::Succeeded);
    let (lease, delivery) = farm.deliver(2, None);
    let staging = farm.folders.attempt(lease.attempt);
    crash::FAILING.set(1);
    commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap_err();
    assert!(staging.join(UNPUBLISHED).join("a-1-1.noarch.rpm").exists());
    assert!(staging.join(unsynced::UNSYNCED).join("build.log").exists());
    fs::remove_dir_all(farm.folders.repo.join("a-1-1")).unwrap();
    unsynced::renew(&staging, &delivery.manifest).unwrap();
    commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).unwrap();
    assert_eq!(farm.text("a-1-1/a-1-1.noarch.rpm").unwrap(), "a-1-1.noarch.rpm of 2");
    assert_eq!(farm.text("a-1-1/build.log").unwrap(), "build.log of 2");
    farm.is_settled(false);
}

/// Only the server writes in staging; should somebody else be able to, it is still only staging.
#[test]
fn a_link_in_staging_is_not_published_and_harms_nothing() {
    for name in ["a-1-1.noarch.rpm", "build.log"] {
        let farm = Farm::new();
        let outside = farm.folders.source.join("outside");
        fs::write(&outside, "secret").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let (lease, delivery) = farm.deliver(1, None);
        let staged = farm.folders.attempt(lease.attempt).join(RESULTS).join(name);
        fs::remove_file(&staged).unwrap();
        std::os::unix::fs::symlink(&outside, &staged).unwrap();
        assert!(commit(&farm.folders, &lease, Outcome::Succeeded, &delivery).is_err(), "{name}");
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        assert_eq!(fs::read_dir(&farm.folders.repo).unwrap().count(), 0, "{name}");
    }
}

/// People may write in FINISHED, and the server's user may write elsewhere.
#[test]
fn a_record_is_not_written_through_a_link_in_finished() {
    let farm = Farm::new();
    let outside = farm.folders.repo.join("outside");
    fs::write(&outside, "served").unwrap();
    for link in ["a-1-1.src.rpm.failed.json", "a-1-1.src.rpm.failed.json.part"] {
        std::os::unix::fs::symlink(&outside, farm.folders.finished.join(link)).unwrap();
    }
    farm.commit(1, Outcome::failed(FailureKind::Package, "why", Some(1), Vec::new()));
    assert_eq!(fs::read_to_string(&outside).unwrap(), "served");
    let record = farm.folders.finished.join("a-1-1.src.rpm.failed.json");
    assert!(
        record.symlink_metadata().unwrap().is_file() && fs::read_to_string(record).unwrap().contains("why")
    );
}
