//! `moji-server fsck` over the folders of a real farm.

use std::fs;
use std::process::Stdio;

use moji_tests::support::processes::{Farm, TARGET, tiny};
use rustix::process::Signal;

/// Its exit code and what it prints.
fn fsck(farm: &Farm, arguments: &[&str]) -> (i32, String) {
    let mut command = farm.fsck_command(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn stop(farm: &mut Farm) {
    farm.server().signal(Signal::TERM);
    assert_eq!(farm.server.as_mut().unwrap().wait_code(), 0);
}

#[test]
fn a_farm_agrees_with_itself_and_damage_is_found_and_mended() {
    let mut farm = Farm::start(&[]);
    fs::create_dir(farm.source(TARGET)).unwrap();
    farm.start_client("b1", &[]);
    let srpms = farm.tiny_srpms(&[("good", "echo good"), ("bad", "exit 3"), ("other", "echo other")]);
    let [good, bad, other] = srpms.as_slice() else { panic!("{srpms:?}") };
    farm.queue(good);
    farm.queue(bad);
    let targeted = format!("{TARGET}/{}", tiny("other"));
    fs::rename(other, farm.source(&targeted)).unwrap();
    for srpm in [tiny("good"), tiny("bad"), targeted] {
        farm.wait_finished(&srpm);
    }
    let (code, said) = fsck(&farm, &["--digests"]);
    assert_eq!((code, said.trim()), (0, "folders, records, metadata and history agree"), "{said}");
    assert_eq!(fsck(&farm, &["--repair"]).0, 3, "a server is running");
    stop(&mut farm);
    let (code, said) = fsck(&farm, &["--digests", "--json"]);
    assert_eq!((code, said.trim()), (0, "[]"), "{said}");

    fs::copy(farm.finished(tiny("good")), farm.source(tiny("good"))).unwrap();
    fs::remove_file(farm.working(".moji/history.sqlite")).unwrap();
    fs::copy(farm.repo("good-1-1/build.log"), farm.repo("good-1-1/copy.log")).unwrap();
    let (code, said) = fsck(&farm, &[]);
    assert_eq!((code, said.lines().count()), (1, 4), "{said}");
    assert!(said.contains("3 differences; --repair mends 2 of them"), "{said}");
    let (code, said) = fsck(&farm, &["--repair"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("copy.log: build.json does not name it") && said.contains("1 are left"), "{said}");
    assert_eq!(farm.where_is(&tiny("good")), ["FINISHED"]);
    fs::remove_file(farm.repo("good-1-1/copy.log")).unwrap();
    assert_eq!(fsck(&farm, &[]).0, 0);
}
