//! `requires.txt`: some SRPMs ask for more of a builder than others.

use std::fs;

use moji_tests::support::processes::{Farm, tiny, wait_until};

#[test]
fn what_asks_for_a_tag_waits_for_the_builder_that_has_it_and_keeps_nothing_else_waiting() {
    let mut farm = Farm::start(&[]);
    fs::write(farm.source("requires.txt"), "moji-t-picky tag=fast\n").unwrap();
    farm.server().wait_line("requires.txt");
    farm.start_client("plain", &[]);
    // The one that it asks for is not there at first, and the other one is idle.
    farm.queue_quick("moji-t-picky");
    farm.wait_queued("moji-t-picky");
    farm.server().wait_line("moji-t-picky-1-1.src.rpm waits: no builder that is connected has");
    for name in ["alpha", "beta"] {
        farm.queue_quick(name);
        farm.wait_finished(&tiny(name));
    }
    assert_eq!(farm.where_is(&tiny("moji-t-picky")), ["SOURCE"]);
    let report = || fs::read_to_string(farm.repo("report.txt")).unwrap_or_default();
    wait_until("a report that names it", || report().contains(&tiny("moji-t-picky")));
    println!("{}", report());
    farm.start_client("tagged", &["--tag", "fast"]);
    farm.wait_finished(&tiny("moji-t-picky"));
    let to = |srpm: &str, builder: &str| (tiny(srpm), builder.to_owned());
    assert_eq!(farm.hand_outs(), [to("alpha", "plain"), to("beta", "plain"), to("moji-t-picky", "tagged")]);
}
