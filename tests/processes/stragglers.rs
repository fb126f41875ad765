//! A build that takes much longer than expected is begun on an idle builder too.

use std::fs;

use moji_tests::support::processes::{Farm, tiny, wait_until};

#[test]
fn a_build_that_hangs_on_one_builder_is_done_by_an_idle_one() {
    let mut farm = Farm::start(&[]);
    ["b1", "b2"].iter().for_each(|name| farm.start_client(name, &[]));
    // Quick, and the first one after it is armed hangs.
    let (armed, hangs) = (farm.path("gates/armed"), farm.path("gates/hangs"));
    let script = format!(
        "if test -e {} && mkdir {}; then echo it hangs; while true; do sleep 0.05; done; fi",
        armed.display(),
        hangs.display()
    );
    farm.queue(&farm.tiny_srpms(&[("alpha", &script)])[0]);
    let srpm = tiny("alpha");
    farm.wait_finished(&srpm);

    fs::write(armed, "").unwrap();
    fs::remove_dir_all(farm.repo("alpha-1-1")).unwrap();
    fs::rename(farm.finished(&srpm), farm.source(&srpm)).unwrap();
    wait_until("the build that hangs", || hangs.exists());
    let [_, (_, slow)] = &farm.hand_outs()[..] else { panic!("{:?}", farm.hand_outs()) };
    let other = if slow == "b1" { "b2" } else { "b1" };
    farm.server().wait_line(&format!("{srpm} takes {slow} longer than expected: it goes to {other} too"));
    farm.wait_finished(&srpm);
    let record = farm.build_record("alpha-1-1");
    assert!(record.outcome.is_success());
    assert_eq!(record.attempt.unwrap().builder.name.as_str(), other);
    farm.wait_no_build_processes();
    // Nothing of it is left, and nobody is to blame: it gets the next one.
    farm.queue_gated("beta");
    farm.queue_gated("gamma");
    farm.wait_queued("beta");
    wait_until("work for both", || farm.attempts_of("b1").len() + farm.attempts_of("b2").len() == 2);
}
