//! Disks that do not take what they were given, and say so once, as Linux does: the next fsync of the same file
//! succeeds.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use moji_proto::Outcome;
use moji_tests::support::processes::{Farm, names_in, tiny, wait_until};
use moji_tests::support::published::check_results;

const AGAIN: &str = "could not be published, trying again soon";

fn failing(mut command: Command, syncs: u32) -> Command {
    command.env("MOJI_FAIL_SYNC", syncs.to_string());
    command
}

/// Files that were not taken. They are held open: their numbers are given to no other file meanwhile.
#[derive(Default)]
struct NotTaken(Vec<File>);

impl NotTaken {
    fn add(&mut self, folder: &Path) {
        let names = names_in(folder);
        assert!(names.iter().any(|name| name.ends_with(".rpm")), "{}: {names:?}", folder.display());
        self.0.extend(names.iter().map(|name| File::open(folder.join(name)).unwrap()));
    }

    /// None of them is in a folder.
    fn assert_elsewhere(&self, folder: &Path) {
        let numbers: BTreeSet<_> = self.0.iter().map(|file| file.metadata().unwrap().ino()).collect();
        for name in names_in(folder) {
            let number = fs::metadata(folder.join(&name)).unwrap().ino();
            assert!(!numbers.contains(&number), "{name} is a file that the disk has not taken");
        }
    }
}

/// The only attempt there is.
fn staging(farm: &Farm) -> PathBuf {
    let attempts = farm.working(".moji/attempts");
    let names = names_in(&attempts);
    assert_eq!(names.len(), 1, "{names:?}");
    attempts.join(&names[0])
}

fn server_command(farm: &Farm) -> Command {
    let mut command = farm.server_command(&[]);
    command.args(["--listen", &farm.address.map_or("127.0.0.1:0".into(), |at| at.to_string())]);
    command
}

fn assert_published(farm: &Farm, not_taken: &NotTaken) {
    farm.wait_finished(&tiny("lost"));
    assert_eq!(farm.build_record("lost-1-1").outcome, Outcome::Succeeded);
    // With the digests that the builder took.
    assert_eq!(check_results(&farm.repo("")).unwrap().len(), 1);
    not_taken.assert_elsewhere(&farm.repo("lost-1-1"));
    wait_until("the end of the attempt", || names_in(&farm.working(".moji/attempts")).is_empty());
}

#[test]
fn what_a_disk_has_not_taken_is_written_anew_before_it_is_believed() {
    let (mut farm, mut not_taken) = (Farm::new(), NotTaken::default());
    farm.run_server(failing(server_command(&farm), 2));
    farm.run_client("b1", failing(farm.client_command("b1", &[]), 1));
    farm.queue_quick("lost");
    let line = farm.client("b1").wait_line("its results cannot be stored");
    assert!(line.contains("the disk has not taken all of it: Input/output error"), "{line}");
    not_taken.add(&farm.attempts_of("b1").remove(0).join("result"));
    wait_until("a parcel", || !farm.parcels_of("b1").is_empty());
    not_taken.assert_elsewhere(&farm.parcels_of("b1").remove(0));
    let mut mark = 0;
    for _ in 0..2 {
        let line = farm.server().wait_line_after(mark, AGAIN);
        assert!(line.contains("the disk has not taken all of it: Input/output error"), "{line}");
        mark = farm.server().mark();
        assert!(!farm.repo("lost-1-1").exists() && farm.where_is(&tiny("lost")) == ["WORKING"]);
        not_taken.assert_elsewhere(&staging(&farm).join("unsynced"));
        not_taken.add(&staging(&farm).join("unsynced"));
    }
    assert_published(&farm, &not_taken);
    assert_eq!(farm.hand_outs().len(), 1, "it was built again");
}

#[test]
fn the_next_server_does_not_believe_what_the_disk_has_not_taken() {
    let (mut farm, mut not_taken) = (Farm::new(), NotTaken::default());
    farm.run_server(failing(server_command(&farm), 1));
    farm.start_client("b1", &[]);
    farm.queue_quick("lost");
    farm.server().wait_line(AGAIN);
    not_taken.add(&staging(&farm).join("unsynced"));
    let handed_out = farm.hand_outs().len();
    farm.server.as_mut().unwrap().kill();
    farm.run_server(server_command(&farm));
    assert_published(&farm, &not_taken);
    assert_eq!(handed_out + farm.hand_outs().len(), 1, "it was built again");
}
