//! One SRPM for several targets, by hard links.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use moji_tests::support::processes::{Farm, tiny, wait_until};
use moji_tests::support::repository::wait_for_packages;

const TARGETS: [&str; 2] = ["one", "two"];

fn inode_and_names(farm: &Farm, below: &str) -> (u64, u64) {
    let data = farm.finished(below).symlink_metadata().unwrap();
    (data.ino(), data.nlink())
}

#[test]
fn one_srpm_is_built_for_each_target_it_is_linked_for() {
    let mut farm = Farm::start(&["--min-free", "0"]);
    let server = farm.address().to_string();
    let srpms = [farm.gated_srpm("alpha"), farm.tiny_srpms(&[("beta", "true")]).remove(0)];
    let inodes = srpms.clone().map(|srpm| srpm.metadata().unwrap().ino());
    // At once, into folders that were not there.
    for target in TARGETS {
        farm.write_config(target);
        fs::create_dir(farm.source(target)).unwrap();
        for srpm in &srpms {
            fs::hard_link(srpm, farm.source(target).join(srpm.file_name().unwrap())).unwrap();
        }
    }
    srpms.iter().for_each(|srpm| fs::remove_file(srpm).unwrap());
    for target in TARGETS {
        farm.wait_queued(&format!("{target}/alpha"));
        farm.wait_queued(&format!("{target}/beta"));
    }
    for target in TARGETS {
        let client = farm.client_command_for(target, target, &server, &[]);
        farm.run_client(target, client);
    }
    // While both build the same file, its name for one of them is finished first.
    TARGETS.iter().for_each(|target| drop(farm.wait_at_gate(target, "alpha")));
    farm.open("alpha");
    for target in TARGETS {
        for (name, inode) in ["alpha", "beta"].into_iter().zip(inodes) {
            let srpm = format!("{target}/{}", tiny(name));
            farm.wait_finished(&srpm);
            let attempt = farm.build_record(&format!("{target}/{name}-1-1")).attempt.unwrap();
            assert_eq!((attempt.target.as_str(), attempt.builder.name.as_str()), (target, target));
            assert_eq!(inode_and_names(&farm, &srpm), (inode, 2), "{srpm}");
        }
    }
    // Noarch packages too: each repository has its own.
    let packages: Vec<_> = ["alpha", "beta"]
        .iter()
        .flat_map(|name| ["noarch", "src"].map(|arch| format!("{name}-1-1/{name}-1-1.t3.{arch}.rpm")))
        .collect();
    TARGETS.iter().for_each(|target| wait_for_packages(&farm.repo(target), &packages));
    let mut given = farm.hand_outs();
    given.sort();
    let wanted = ["alpha", "beta"]
        .iter()
        .flat_map(|name| TARGETS.map(|target| (format!("{target}/{}", tiny(name)), target.to_owned())));
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort();
    assert_eq!(given, wanted);
    assert_eq!(farm.server().count("taken out of"), 0);

    // Linked back to be built again: in the end it has one name less than meanwhile.
    let again = format!("one/{}", tiny("alpha"));
    fs::hard_link(farm.finished(&again), farm.source(&again)).unwrap();
    wait_until("the second build", || farm.hand_outs().len() == 5 && farm.where_is(&again) == ["FINISHED"]);
    assert_eq!(inode_and_names(&farm, &again), (inodes[0], 2));
}
