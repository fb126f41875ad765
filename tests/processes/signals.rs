//! What SIGTERM and SIGINT do.

use moji_server::commit::Step;
use moji_server::crash::Point;
use moji_tests::support::processes::{Farm, tiny, wait_until};
use rustix::process::Signal;

/// The first signal: what is being built is finished and delivered, nothing new is begun.
fn drains(signal: Signal) {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &["--slots", "2"]);
    farm.queue_gated("begun");
    farm.wait_at_gate("b1", "begun");
    farm.client("b1").signal(signal);
    farm.client("b1").wait_line("finishing what is being built (1), then leaving");
    farm.queue_quick("late");
    farm.wait_queued("late");
    farm.open("begun");
    assert_eq!(farm.client_mut("b1").wait_code(), 0);
    assert_eq!(farm.where_is(&tiny("begun")), ["FINISHED"]);
    assert!(farm.repo("begun-1-1/begun-1-1.t3.noarch.rpm").exists());
    assert_eq!(farm.where_is(&tiny("late")), ["SOURCE"]);
    assert_eq!(farm.build_processes(), Vec::<String>::new());
}

/// The second one: Mock is stopped, the SRPM given back at once.
fn stops(signal: Signal) {
    // With this grace it would stay in WORKING, if it were not given back.
    let mut farm = Farm::start(&["--grace", "10m"]);
    farm.start_client("b1", &[]);
    farm.queue_gated("begun");
    farm.wait_at_gate("b1", "begun");
    farm.client("b1").signal(signal);
    farm.client("b1").wait_line("then leaving");
    farm.client("b1").signal(signal);
    assert_eq!(farm.client_mut("b1").wait_code(), 0);
    assert_eq!(farm.build_processes(), Vec::<String>::new());
    farm.server().wait_line("begun-1-1.src.rpm is queued again");
    assert_eq!(farm.where_is(&tiny("begun")), ["SOURCE"]);
    farm.open("begun");
    farm.start_client("b2", &[]);
    farm.wait_finished(&tiny("begun"));
}

#[test]
fn the_first_sigterm_drains() {
    drains(Signal::TERM);
}

#[test]
fn the_first_sigint_drains() {
    drains(Signal::INT);
}

#[test]
fn the_second_sigterm_stops() {
    stops(Signal::TERM);
}

#[test]
fn the_second_sigint_stops() {
    stops(Signal::INT);
}

#[test]
fn an_idle_client_leaves_at_the_first_signal() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.client("b1").signal(Signal::TERM);
    assert_eq!(farm.client_mut("b1").wait_code(), 0);
    farm.server().wait_line("b1 is gone");
}

#[test]
fn a_server_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut farm = Farm::start(&[]);
        farm.start_client("b1", &[]);
        let mut server = farm.server.take().unwrap();
        server.signal(signal);
        assert_eq!(server.wait_code(), 0);
        farm.client("b1").wait_line("the server says goodbye");
    }
}

/// With the disk hanging in the middle of a commit.
#[test]
fn a_server_ends_at_once_at_the_second_signal_and_the_next_one_goes_on() {
    let mut farm = Farm::new();
    let mut hanging = farm.server_command(&["--listen", "127.0.0.1:0"]);
    hanging.env("MOJI_HANG_AT", Point::Commit(Step::Recorded).name());
    farm.run_server(hanging);
    farm.start_client("b1", &[]);
    let srpms = farm.tiny_srpms(&[("closing", "exit 1")]);
    farm.queue(&srpms[0]);
    wait_until("the commit", || farm.finished(format!("{}.failed.json", tiny("closing"))).exists());
    let mut server = farm.server.take().unwrap();
    server.signal(Signal::TERM);
    server.wait_line("SIGTERM: stopping");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_code(), 1);
    farm.start_server(&[]);
    farm.server().wait_line("had been published when the last server ended");
    farm.wait_finished(&tiny("closing"));
    assert_eq!(farm.hand_outs().len(), 0, "it was built again");
}
