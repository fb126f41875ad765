//! Disks that are full for a while, of the server and of a builder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use moji_proto::{AttemptId, FailureKind, ManifestEntry, Outcome, Sha256};
use moji_server::BuildKey;
use moji_server::commit::{Delivery, RESULTS, commit};
use moji_server::folders::Folders;
use moji_server::scheduler::{Fate, Lease, LeaseState, SessionId};
use moji_server::source::{QueuedSrpm, SrpmHeader};
use moji_tests::support::disk::{PAGE, SmallDisk};
use moji_tests::support::processes::{Farm, hostmock, names_in, tiny, wait_for, wait_until};
use moji_tests::support::published::check_results;
use moji_tests::support::repository::{read_metadata, wait_for_packages};

const FULL: &str = "No space left on device";
const MIB: u64 = 1 << 20;

fn rpms(name: &str) -> [String; 2] {
    ["noarch", "src"].map(|arch| format!("{name}-1-1/{name}-1-1.t3.{arch}.rpm"))
}

/// A build that waits at its gate and then makes some megabytes that cannot be compressed.
fn big_build(farm: &Farm, name: &str, megabytes: u32) {
    let gate = farm.path(format!("gates/{name}"));
    let script = format!(
        "echo waiting at the gate\nwhile ! test -e {}; do sleep 0.02; done\n\
         mkdir -p %{{buildroot}}/usr/share/{name}\nhead -c {megabytes}M /dev/urandom >big",
        gate.display()
    );
    let spec = moji_tests::support::processes::tiny_spec(name, &script)
        .replace("%files", &format!("cp big %{{buildroot}}/usr/share/{name}\n%files"));
    let path = farm.path(format!("specs/{name}.spec"));
    fs::write(&path, spec).unwrap();
    farm.queue(&farm.make_srpms(&[path], &[])[0]);
}

#[test]
fn a_server_whose_disk_is_full_during_an_upload() {
    let Some(disk) = SmallDisk::mount(64 * MIB) else { return };
    let mut farm = Farm::apart(Some(disk.path()), None);
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    big_build(&farm, "big", 12);
    farm.wait_at_gate("b1", "big");
    disk.fill(6 * MIB);
    farm.open("big");
    let line = farm.server().wait_line("the server's disk is full");
    assert!(line.contains("delivery of ") && line.contains("are free"), "{line}");
    farm.client("b1").wait_line("are delivered again soon");
    assert_eq!(farm.where_is(&tiny("big")), ["WORKING"]);
    assert_eq!(check_results(&farm.repo("")).unwrap().len(), 0);
    disk.make_room();
    farm.wait_finished(&tiny("big"));
    assert_eq!(farm.build_record("big-1-1").outcome, Outcome::Succeeded);
    wait_for_packages(&farm.repo(""), &rpms("big"));
    assert_eq!(farm.hand_outs().len(), 1, "it was built again");
    assert!(names_in(&farm.working(".moji/attempts")).is_empty());
}

/// Results in staging, as a session leaves them there.
fn deliver(folders: &Folders, serial: u64) -> (Lease, Delivery) {
    let nvr = format!("a-{serial}-1");
    let key = BuildKey { target: None, srpm: format!("{nvr}.src.rpm").parse().unwrap() };
    fs::write(folders.working.join(key.path()), "srpm").unwrap();
    let header = SrpmHeader {
        name: "a".into(),
        epoch: None,
        version: serial.to_string(),
        release: "1".into(),
        nvr: nvr.parse().unwrap(),
        relations: Default::default(),
    };
    let lease = Lease {
        attempt: AttemptId { boot: 77, serial },
        srpm: QueuedSrpm { key, header, size: 4, queued_at: jiff_epoch() },
        target: "here".parse().unwrap(),
        session: Some(SessionId(5)),
        builder: "board".parse().unwrap(),
        slot: Some(3),
        since: None,
        late_at: None,
        charged: std::time::Duration::ZERO,
        ended: None,
        generation: 0,
        state: LeaseState::Running { claimed_by: None },
    };
    let staged = folders.attempt(lease.attempt).join(RESULTS);
    fs::create_dir_all(&staged).unwrap();
    let names = ["build.log", &format!("{nvr}.noarch.rpm")].map(str::to_owned);
    let manifest = names.map(|name| {
        fs::write(staged.join(&name), &name).unwrap();
        let (size, sha256) = (name.len() as u64, Sha256::of(name.as_bytes()));
        ManifestEntry { name: name.parse().unwrap(), size, sha256 }
    });
    let [leased_at, delivered_at] = [jiff_epoch(), jiff_epoch()];
    let machine = String::new();
    let manifest = manifest.into();
    (
        lease,
        Delivery {
            manifest,
            srpm_sha256: None,
            machine,
            leased_at,
            delivered_at,
            fate: Fate::Settle,
            repository: None,
            payloads: Default::default(),
        },
    )
}

fn jiff_epoch() -> jiff::Timestamp {
    jiff::Timestamp::UNIX_EPOCH
}

/// At every size of what is left: published whole or not at all, and the second try does it.
#[test]
fn a_server_whose_disk_is_full_while_it_publishes() {
    let Some(disk) = SmallDisk::mount(4 * MIB) else { return };
    let [source, working, finished, repo] =
        ["source", "working", "finished", "repo"].map(|name| disk.path().join(name));
    let mut folders = Folders { source, working, finished, repo };
    let _lock = folders.prepare().unwrap();
    let mut refused = 0;
    let failed = Outcome::failed(FailureKind::Package, "%build failed", Some(1), Vec::new());
    for serial in 0..12 {
        let outcome = if serial % 2 == 0 { Outcome::Succeeded } else { failed.clone() };
        let (lease, delivery) = deliver(&folders, serial);
        disk.fill(serial / 2 * PAGE);
        let published = commit(&folders, &lease, outcome.clone(), &delivery);
        let results = check_results(&folders.repo).unwrap();
        disk.make_room();
        match published {
            Ok(_) => assert_eq!(results.len() as u64, serial + 1),
            Err(error) => {
                refused += 1;
                assert!(format!("{error:#}").contains(FULL), "{error:#}");
                let again = commit(&folders, &lease, outcome.clone(), &delivery).unwrap();
                assert_eq!(again.record.outcome, outcome);
            }
        }
        assert_eq!(check_results(&folders.repo).unwrap().len() as u64, serial + 1);
        let settled = (folders.finished.join(lease.srpm.key.path()), folders.failure_record(&lease.srpm.key));
        assert!(settled.0.exists());
        assert_eq!(settled.1.exists(), !outcome.is_success());
    }
    assert!((2..12).contains(&refused), "{refused} were refused: the sizes show nothing");
    assert!(names_in(&folders.attempts()).is_empty());
}

#[test]
fn a_server_whose_disk_is_full_while_metadata_are_made() {
    let Some(disk) = SmallDisk::mount(64 * MIB) else { return };
    let mut farm = Farm::apart(Some(disk.path()), None);
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    farm.queue_quick("seed");
    farm.wait_finished(&tiny("seed"));
    let mut expected: Vec<String> = rpms("seed").into();
    wait_for_packages(&farm.repo(""), &expected);
    let mut refused = 0;
    for (n, pages) in [0, 3, 6, 9, 12, 30].into_iter().enumerate() {
        let mark = farm.server().mark();
        disk.fill(pages * PAGE);
        // Another link needs no room.
        let folder = farm.repo(format!("link-{n}"));
        fs::create_dir(&folder).unwrap();
        fs::hard_link(farm.repo(&rpms("seed")[0]), folder.join("seed-1-1.t3.noarch.rpm")).unwrap();
        expected.push(format!("link-{n}/seed-1-1.t3.noarch.rpm"));
        let said = ["the metadata are out of date", "is published, "];
        let line = farm.server().wait_any_after(mark, &said);
        let packages = read_metadata(&farm.repo("")).unwrap().len();
        if line.contains(said[0]) {
            refused += 1;
            assert!(line.contains("those from before are still served"), "{line}");
            // The true cause, and not what the longer way or cut-off files look like.
            assert!(line.to_lowercase().contains("no space left"), "{line}");
            let lines = farm.server().lines();
            let instead = lines.iter().find(|line| line.contains("all metadata are made by createrepo_c"));
            assert_eq!(instead, None);
            assert_eq!(packages, expected.len() - 1);
        }
        disk.make_room();
        wait_for_packages(&farm.repo(""), &expected);
    }
    assert!(refused >= 2, "{refused} were refused: the sizes show nothing");
    let left = names_in(&farm.working(".moji/metadata/main"));
    assert_eq!(left, ["generations.json", "index.json", "ledger.json"]);
}

/// These three wait for the rest that a slot takes after a trouble of its machine, so they do it at the
/// same time.
#[test]
fn a_builder_whose_disk_is_full() {
    thread::scope(|scope| {
        for (name, test) in [
            ("download", while_the_srpm_comes as fn()),
            ("build", while_it_builds),
            ("packing", while_it_packs),
        ] {
            thread::Builder::new().name(name.into()).spawn_scoped(scope, test).unwrap();
        }
    });
}

fn while_the_srpm_comes() {
    let Some(disk) = SmallDisk::mount(16 * MIB) else { return };
    let mut farm = Farm::apart(None, Some(disk.path()));
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    disk.fill(0);
    farm.queue_quick("small");
    let line = farm.client("b1").wait_line("is given back");
    assert!(line.contains("cannot store the SRPM") && line.contains(FULL), "{line}");
    let line = farm.server().wait_line("was given back");
    assert!(line.contains(FULL), "{line}");
    wait_until("it is back in SOURCE", || farm.where_is(&tiny("small")) == ["SOURCE"]);
    assert_eq!(farm.attempts_of("b1").len(), 0);
    disk.make_room();
    farm.wait_finished(&tiny("small"));
    assert_eq!(farm.build_record("small-1-1").outcome, Outcome::Succeeded);
}

fn while_it_builds() {
    let Some(disk) = SmallDisk::mount(32 * MIB) else { return };
    let mut farm = Farm::apart(None, Some(disk.path()));
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    big_build(&farm, "big", 6);
    farm.wait_at_gate("b1", "big");
    disk.fill(2 * MIB);
    farm.open("big");
    let line = farm.client("b1").wait_line("big-1-1.src.rpm failed (");
    assert!(line.to_lowercase().contains("no space left") || line.contains("disk"), "{line}");
    disk.make_room();
    wait_for_packages(&farm.repo(""), &rpms("big"));
    farm.wait_finished(&tiny("big"));
    assert_eq!(farm.build_record("big-1-1").outcome, Outcome::Succeeded);
}

fn while_it_packs() {
    let Some(disk) = SmallDisk::mount(32 * MIB) else { return };
    let mut farm = Farm::apart(None, Some(disk.path()));
    farm.start_server(&[]);
    // Mock ends well, and in the same instant the disk is full.
    let (mock, flag) = (farm.path("mock"), farm.path("fill"));
    let script = format!(
        "#!/bin/sh\n{} \"$@\"\ncode=$?\nif test -e {}; then cat /dev/zero >{} 2>/dev/null; fi\nexit $code\n",
        hostmock().display(),
        flag.display(),
        disk.path().join("ballast").display()
    );
    fs::write(&mock, script).unwrap();
    fs::set_permissions(&mock, fs::Permissions::from_mode(0o755)).unwrap();
    farm.start_client("b1", &["--mock", mock.to_str().unwrap()]);
    fs::write(&flag, "").unwrap();
    farm.queue_quick("small");
    let line = wait_for("the client says that its disk is full", || {
        let lines = farm.client("b1").lines();
        lines.into_iter().find(|line| line.contains("small-1-1.src.rpm") && line.contains(FULL))
    });
    assert!(line.contains("cannot be stored"), "{line}");
    assert_eq!(check_results(&farm.repo("")).unwrap().len(), 0);
    fs::remove_file(&flag).unwrap();
    disk.make_room();
    farm.wait_finished(&tiny("small"));
    assert_eq!(farm.build_record("small-1-1").outcome, Outcome::Succeeded);
    wait_for_packages(&farm.repo(""), &rpms("small"));
    assert_eq!(farm.hand_outs().len(), 1, "a finished build was built again");
}
