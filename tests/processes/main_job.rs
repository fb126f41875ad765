//! A folder of SRPMs in, a repository out.

use std::fs;

use moji_proto::{FailureKind, Outcome, Sha256};
use moji_server::record::BuildRecord;
use moji_tests::support::processes::{Farm, names_in, wait_until};
use moji_tests::support::repository::wait_for_packages;

/// How a record says that a build failed.
fn failure(record: &BuildRecord) -> (FailureKind, &str, &[String]) {
    match &record.outcome {
        Outcome::Failed { kind, reason, missing, .. } => (*kind, reason, missing),
        Outcome::Succeeded => panic!("{} succeeded", record.srpm),
    }
}

#[test]
fn srpms_become_a_repository_and_failures_say_why() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &["--slots", "2"]);
    let good = ["hello-moji-1.2-1", "moji-data-2011.11-3", "libmoji-demo-3.1-2"];
    let bad = ["moji-typo-0.1-1", "moji-garbled-0.9-1"];
    let srpms =
        farm.example_srpms(&["hello-moji", "moji-data", "libmoji-demo", "moji-typo", "moji-garbled"], &[]);
    for srpm in &srpms {
        farm.queue(srpm);
    }
    for nvr in good.iter().chain(&bad) {
        farm.wait_finished(&format!("{nvr}.src.rpm"));
    }

    for nvr in good {
        let record = farm.build_record(nvr);
        assert_eq!(record.outcome, Outcome::Succeeded);
        let attempt = record.attempt.as_ref().unwrap();
        assert_eq!((attempt.builder.name.as_str(), attempt.target.as_str()), ("b1", "here"));
        let srpm = fs::read(farm.finished(format!("{nvr}.src.rpm"))).unwrap();
        assert_eq!(attempt.srpm_sha256, Some(Sha256::of(&srpm)));
        assert!(attempt.leased_at < attempt.delivered_at);
        assert_published(&farm, nvr, &record);
        assert!(!farm.finished(format!("{nvr}.src.rpm.failed.json")).exists());
    }
    for nvr in bad {
        let record = farm.failure_record(&format!("{nvr}.src.rpm"));
        assert_eq!(record, farm.build_record(nvr));
        assert_published(&farm, nvr, &record);
        assert!(record.artifacts.iter().all(|entry| !entry.name.is_rpm()), "{:?}", record.artifacts);
    }
    let typo = farm.build_record("moji-typo-0.1-1");
    let (kind, reason, _) = failure(&typo);
    assert_eq!(kind, FailureKind::Package);
    assert!(reason.contains("greeting") && reason.contains("undeclared"), "{reason}");
    let garbled = farm.build_record("moji-garbled-0.9-1");
    let (kind, reason, _) = failure(&garbled);
    assert_eq!(kind, FailureKind::Package);
    assert!(reason.contains("moji-garbled was never ported"), "{reason}");

    let expected = [
        "hello-moji-1.2-1/hello-moji-1.2-1.t3.ARCH.rpm",
        "hello-moji-1.2-1/hello-moji-1.2-1.t3.src.rpm",
        "libmoji-demo-3.1-2/libmoji-demo-3.1-2.t3.ARCH.rpm",
        "libmoji-demo-3.1-2/libmoji-demo-3.1-2.t3.src.rpm",
        "libmoji-demo-3.1-2/libmoji-demo-devel-3.1-2.t3.ARCH.rpm",
        "moji-data-2011.11-3/moji-data-2011.11-3.t3.noarch.rpm",
        "moji-data-2011.11-3/moji-data-2011.11-3.t3.src.rpm",
    ];
    let arch = rustix::system::uname().machine().to_string_lossy().into_owned();
    let expected = expected.map(|path| path.replace("ARCH", &arch));
    wait_for_packages(&farm.repo(""), &expected);
    farm.wait_no_build_processes();
    assert_eq!(names_in(&farm.working("")), [".moji"]);
    assert!(names_in(&farm.working(".moji/attempts")).is_empty());
    assert!(names_in(&farm.source("")).is_empty());
    assert!(farm.attempts_of("b1").is_empty() && names_in(&farm.work_dir("b1").join("outbox")).is_empty());
}

/// The published folder holds what its record says and nothing else, readable for httpd, logs
/// among it.
fn assert_published(farm: &Farm, nvr: &str, record: &BuildRecord) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut expected = vec!["build.json".to_owned()];
    for entry in &record.artifacts {
        let path = farm.repo(nvr).join(&entry.name);
        let content = fs::read(&path).unwrap();
        assert_eq!((content.len() as u64, Sha256::of(&content)), (entry.size, entry.sha256), "{path:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "{path:?}");
        expected.push(entry.name.as_str().to_owned());
    }
    expected.sort();
    assert_eq!(names_in(&farm.repo(nvr)), expected);
    for log in ["build.log", "root.log", "state.log", "mock.log"] {
        assert!(expected.iter().any(|name| name == log), "{nvr} has no {log}: {expected:?}");
    }
}

#[test]
fn a_missing_dependency_is_named_and_waited_for() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue(&farm.example_srpms(&["moji-orphan"], &[])[0]);
    farm.server().wait_line("moji-orphan-1.0-4.src.rpm is parked");
    assert_eq!(farm.where_is("moji-orphan-1.0-4.src.rpm"), ["SOURCE"]);
    let record = farm.build_record("moji-orphan-1.0-4");
    assert!(record.parked);
    assert!(names_in(&farm.repo("moji-orphan-1.0-4")).contains(&"root.log".to_owned()));
    let (kind, reason, missing) = failure(&record);
    assert_eq!(kind, FailureKind::MissingDependency);
    assert_eq!(missing, ["pkgconfig(libunheard-of) >= 2.0", "unheard-of-tools"]);
    assert!(reason.contains("libunheard-of"), "{reason}");
}

#[test]
fn a_second_build_of_the_same_srpm_leaves_the_first_result_alone() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_quick("again");
    farm.wait_finished("again-1-1.src.rpm");
    let first = farm.build_record("again-1-1");
    fs::rename(farm.finished("again-1-1.src.rpm"), farm.source("again-1-1.src.rpm")).unwrap();
    farm.wait_finished("again-1-1.src.rpm");
    wait_until("the second result", || farm.server().count("was published before") == 1);
    assert_eq!(farm.build_record("again-1-1"), first);
    let packages = ["again-1-1/again-1-1.t3.noarch.rpm", "again-1-1/again-1-1.t3.src.rpm"];
    wait_for_packages(&farm.repo(""), &packages);
}
