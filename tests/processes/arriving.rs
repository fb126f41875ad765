//! How SRPMs come into SOURCE, and go.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use moji_proto::{FailureKind, Outcome, Sha256};
use moji_tests::support::processes::{Farm, let_pass, names_in, tiny};

/// The digest of the SRPM that was built is that of the whole file.
fn assert_built_whole(farm: &Farm, name: &str, whole: &[u8]) {
    farm.wait_finished(&tiny(name));
    let record = farm.build_record(&format!("{name}-1-1"));
    assert_eq!(record.outcome, Outcome::Succeeded);
    assert_eq!(record.attempt.unwrap().srpm_sha256, Some(Sha256::of(whole)));
}

#[test]
fn a_slow_copy_is_taken_when_it_is_whole() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    let content = fs::read(&farm.tiny_srpms(&[("slow", "true")])[0]).unwrap();
    let mut copy = File::create(farm.source(tiny("slow"))).unwrap();
    for piece in content.chunks(content.len().div_ceil(6)) {
        assert_eq!(farm.where_is(&tiny("slow")), ["SOURCE"]);
        copy.write_all(piece).unwrap();
        let_pass(Duration::from_millis(300));
    }
    drop(copy);
    assert_built_whole(&farm, "slow", &content);
    assert_eq!(farm.hand_outs().len(), 1);
}

#[test]
fn half_a_copy_waits_for_its_other_half() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    let content = fs::read(&farm.tiny_srpms(&[("half", "true")])[0]).unwrap();
    let (first, second) = content.split_at(content.len() - 100);
    fs::write(farm.source(tiny("half")), first).unwrap();
    // Longer than any time after which a file counts as settled.
    let_pass(Duration::from_secs(4));
    assert_eq!(farm.where_is(&tiny("half")), ["SOURCE"]);
    assert_eq!(farm.server().count("queued half"), 0);
    let mut rest = File::options().append(true).open(farm.source(tiny("half"))).unwrap();
    rest.write_all(second).unwrap();
    drop(rest);
    assert_built_whole(&farm, "half", &content);
}

#[test]
fn a_hard_link_is_taken_and_what_it_links_to_stays() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    let srpm = farm.tiny_srpms(&[("linked", "true")]).remove(0);
    let content = fs::read(&srpm).unwrap();
    fs::hard_link(&srpm, farm.source(tiny("linked"))).unwrap();
    assert_built_whole(&farm, "linked", &content);
    assert_eq!(fs::read(&srpm).unwrap(), content);
}

#[test]
fn what_is_removed_before_its_turn_is_not_built() {
    let mut farm = Farm::start(&[]);
    farm.queue_quick("unwanted");
    farm.server().wait_line("queued unwanted");
    fs::remove_file(farm.source(tiny("unwanted"))).unwrap();
    farm.server().wait_line("unwanted-1-1.src.rpm was taken out of the queue");
    farm.queue_quick("wanted");
    farm.start_client("b1", &[]);
    farm.wait_finished(&tiny("wanted"));
    assert_eq!(farm.hand_outs(), [(tiny("wanted"), "b1".to_owned())]);
}

#[test]
fn what_is_removed_while_it_is_built_is_cancelled() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_gated("regretted");
    farm.wait_at_gate("b1", "regretted");
    fs::remove_file(farm.working(tiny("regretted"))).unwrap();
    farm.client("b1").wait_line("is not wanted any more");
    farm.wait_no_build_processes();
    farm.queue_quick("next");
    farm.wait_finished(&tiny("next"));
    assert!(farm.where_is(&tiny("regretted")).is_empty());
    assert!(!farm.repo("regretted-1-1").exists());
}

#[test]
fn what_is_no_srpm_is_refused_and_the_others_go_on() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    fs::write(farm.source("broken-1-1.src.rpm"), "this is no RPM at all\n".repeat(100)).unwrap();
    // A binary package under the name of a source package.
    let good = farm.tiny_srpms(&[("other", "true")]).remove(0);
    farm.queue(&good);
    farm.wait_finished(&tiny("other"));
    let binary = farm.repo("other-1-1/other-1-1.t3.noarch.rpm");
    fs::copy(binary, farm.source("binary-1-1.src.rpm")).unwrap();
    for srpm in ["broken-1-1.src.rpm", "binary-1-1.src.rpm"] {
        farm.wait_finished(srpm);
        let record = farm.failure_record(srpm);
        let Outcome::Failed { kind, reason, .. } = record.outcome else { panic!("{srpm} succeeded") };
        assert_eq!(kind, FailureKind::UnreadableSrpm);
        assert!(record.attempt.is_none() && !reason.is_empty());
        farm.server().wait_line(&format!("{srpm} cannot be built: {reason}"));
    }
    farm.queue_quick("after");
    farm.wait_finished(&tiny("after"));
}

#[test]
fn other_files_are_named_once_and_left_alone() {
    let mut farm = Farm::new();
    fs::create_dir_all(farm.source("fedora-1-x86_64/deeper")).unwrap();
    fs::write(farm.source("notes.txt"), "mine").unwrap();
    fs::write(farm.source("fedora-1-x86_64/deeper/x-1-1.src.rpm"), "mine").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", farm.source("link-1-1.src.rpm")).unwrap();
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    for name in ["one", "two"] {
        farm.queue_quick(name);
        farm.wait_finished(&tiny(name));
    }
    // Looked at again, named no second time.
    fs::write(farm.source("notes.txt"), "mine too").unwrap();
    farm.queue_quick("three");
    farm.wait_finished(&tiny("three"));
    for name in ["notes.txt", "link-1-1.src.rpm"] {
        assert_eq!(farm.server().count(&format!("{name} is left alone")), 1, "{name}");
    }
    assert_eq!(names_in(&farm.source("")), ["fedora-1-x86_64", "link-1-1.src.rpm", "notes.txt"]);
    assert_eq!(names_in(&farm.source("fedora-1-x86_64/deeper")), ["x-1-1.src.rpm"]);
}
