//! `priority.txt`, and SOURCE's folders for one target.

use std::fs;
use std::time::Duration;

use moji_tests::support::processes::{Farm, let_pass, tiny, wait_until};
use moji_tests::support::repository::wait_for_packages;

/// How soon an edit counts.
const SOON: Duration = Duration::from_secs(1);

/// Waits until a package is handed out, and says which one it is.
fn nth_hand_out(farm: &Farm, n: usize) -> String {
    wait_until("the next hand-out", || farm.hand_outs().len() > n);
    farm.hand_outs()[n].0.trim_end_matches("-1-1.src.rpm").to_owned()
}

#[test]
fn the_list_says_what_is_built_first() {
    let mut farm = Farm::new();
    fs::create_dir(farm.source("")).unwrap();
    for name in ["anise", "basil", "chive", "dill", "elder"] {
        farm.queue_quick(name);
    }
    let list = "# a comment\nchive  # by its name\nbasil-1-1\n\nan entry with spaces\nd[iz]l?\n[oops\nelder-1-1.src.rpm\n";
    fs::write(farm.source("priority.txt"), list).unwrap();
    // What came at the last moment before the start may still be written to, and is queued later.
    let_pass(Duration::from_millis(1200));
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    for name in ["anise", "basil", "chive", "dill", "elder"] {
        farm.wait_finished(&tiny(name));
    }
    let order: Vec<_> = (0..5).map(|n| nth_hand_out(&farm, n)).collect();
    assert_eq!(order, ["chive", "basil", "dill", "elder", "anise"]);
    for line in ["priority.txt:5:", "priority.txt:7:"] {
        assert_eq!(farm.server().count(line), 1, "{line}");
    }
    assert_eq!(farm.server().count("priority.txt:"), 3, "one summary, two warnings");
    assert_eq!(fs::read_to_string(farm.source("priority.txt")).unwrap(), list);
}

#[test]
fn an_edit_changes_the_next_hand_out_within_a_second() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_gated("first");
    farm.wait_at_gate("b1", "first");
    for name in ["anise", "basil", "chive", "dill"] {
        farm.queue_gated(name);
        farm.wait_queued(name);
    }
    let list = farm.source("priority.txt");
    fs::write(&list, "dill\n").unwrap();
    let_pass(SOON);
    // In place, as `echo basil > priority.txt` does it.
    fs::write(&list, "basil\n").unwrap();
    let_pass(SOON);
    farm.open("first");
    assert_eq!(nth_hand_out(&farm, 1), "basil");
    // By rename, as editors do it.
    fs::write(farm.path("new-list"), "dill\n").unwrap();
    fs::rename(farm.path("new-list"), &list).unwrap();
    let_pass(SOON);
    farm.open("basil");
    assert_eq!(nth_hand_out(&farm, 2), "dill");
    // Without a list the largest is next: nobody knows how long they take.
    let size = |name: &&str| farm.source(tiny(name)).metadata().unwrap().len();
    let smaller = ["chive", "anise"].into_iter().min_by_key(size).unwrap();
    let next = if smaller == "anise" { "chive" } else { "anise" };
    fs::write(&list, format!("{smaller}\n")).unwrap();
    let_pass(SOON);
    fs::remove_file(&list).unwrap();
    let_pass(SOON);
    farm.open("dill");
    assert_eq!(nth_hand_out(&farm, 3), next);
}

#[test]
fn a_target_has_its_own_queue_list_and_repository() {
    let mut farm = Farm::start(&[]);
    farm.write_config("there");
    let server = farm.address().to_string();
    let srpms = farm.tiny_srpms(&[("alpha", "true"), ("omega", "true"), ("common", "true")]);
    fs::create_dir(farm.source("there")).unwrap();
    fs::write(farm.source("there/priority.txt"), "omega\n").unwrap();
    // Of two lists only the own one counts.
    fs::write(farm.source("priority.txt"), "alpha\n").unwrap();
    for srpm in &srpms[..2] {
        fs::rename(srpm, farm.source("there").join(srpm.file_name().unwrap())).unwrap();
    }
    farm.wait_queued("there/alpha");
    farm.wait_queued("there/omega");
    let_pass(SOON);
    // A builder of another target takes nothing of it.
    farm.start_client("wrong", &[]);
    farm.queue(&srpms[2]);
    farm.wait_finished(&tiny("common"));
    assert_eq!(farm.hand_outs(), [(tiny("common"), "wrong".to_owned())]);
    let client = farm.client_command_for("right", "there", &server, &[]);
    farm.run_client("right", client);
    for name in ["alpha", "omega"] {
        farm.wait_finished(&format!("there/{}", tiny(name)));
    }
    let order = [("common", "wrong"), ("there/omega", "right"), ("there/alpha", "right")];
    assert_eq!(farm.hand_outs(), order.map(|(name, builder)| (tiny(name), builder.to_owned())));
    let packages = |name: &str| ["noarch", "src"].map(|arch| format!("{name}-1-1/{name}-1-1.t3.{arch}.rpm"));
    wait_for_packages(&farm.repo("there"), &[packages("alpha"), packages("omega")].concat());
    wait_for_packages(&farm.repo(""), &packages("common"));
}
