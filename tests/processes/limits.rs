//! Builds that hang.

use moji_proto::{FailureKind, Outcome};
use moji_tests::support::processes::{Farm, tiny};

/// A build that never ends by itself is ended, and says why.
fn hangs(arguments: &[&str], script: &str, why: &str) {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", arguments);
    farm.queue(&farm.tiny_srpms(&[("hangs", script)])[0]);
    farm.wait_finished(&tiny("hangs"));
    let Outcome::Failed { kind, reason, .. } = farm.failure_record(&tiny("hangs")).outcome else {
        panic!("it succeeded")
    };
    assert_eq!(kind, FailureKind::Package, "{reason}");
    assert!(reason.contains(why), "{reason}");
    assert!(farm.repo("hangs-1-1/build.log").exists());
    farm.wait_no_build_processes();
    farm.queue_quick("next");
    farm.wait_finished(&tiny("next"));
}

#[test]
fn a_build_that_takes_too_long_is_ended() {
    let script = "while :; do echo busy; sleep 0.1; done";
    hangs(&["--build-timeout", "3s"], script, "ran longer than the build's time limit");
}

#[test]
fn a_build_that_says_nothing_is_ended() {
    hangs(&["--stall-timeout", "2s"], "sleep 3600", "wrote nothing for as long as the watchdog waits");
}

#[test]
fn a_build_that_ignores_sigterm_and_hides_in_a_session_of_its_own_is_ended() {
    let script = "(setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.2; done' &)\n\
                  trap '' TERM; while :; do echo busy; sleep 0.1; done";
    hangs(&["--build-timeout", "3s"], script, "ran longer than the build's time limit");
}
