//! Clients and servers that are killed, stopped and started again.

use std::path::{Path, PathBuf};

use moji_proto::Outcome;
use moji_tests::support::processes::{Farm, names_in, outcome_of, tiny, wait_until};
use moji_tests::support::repository::check_repository;
use rustix::process::Signal;

/// Processes of builds that run in a chroot of this client: its name comes from the work folder.
fn in_chroot_of(farm: &Farm, attempt: &Path) -> Vec<String> {
    let slot = attempt.to_str().unwrap();
    farm.build_processes().into_iter().filter(|process| process.contains(slot)).collect()
}

fn assert_built_once_by(farm: &Farm, name: &str, builder: &str) {
    farm.wait_finished(&tiny(name));
    let folder = format!("{name}-1-1");
    let record = farm.build_record(&folder);
    assert_eq!(record.outcome, Outcome::Succeeded);
    assert_eq!(record.attempt.unwrap().builder.to_string(), builder);
    let besides: Vec<_> =
        names_in(&farm.repo(&folder)).into_iter().filter(|name| name.starts_with("attempt-")).collect();
    assert!(besides.is_empty(), "a second result was published: {besides:?}");
    wait_until("the metadata", || {
        let listed = check_repository(&farm.repo("")).unwrap_or_default();
        listed.contains_key(&format!("{name}-1-1/{name}-1-1.t3.noarch.rpm"))
    });
}

#[test]
fn a_killed_clients_srpm_is_built_by_another_and_its_leftovers_are_swept() {
    let mut farm = Farm::start(&["--grace", "1s"]);
    farm.start_client("victim", &[]);
    farm.queue_gated("precious");
    let attempt = farm.wait_at_gate("victim", "precious");
    farm.client_mut("victim").kill();
    farm.server().wait_line("precious-1-1.src.rpm is queued again");
    assert_eq!(farm.where_is(&tiny("precious")), ["SOURCE"]);
    farm.start_client("other", &[]);
    farm.wait_at_gate("other", "precious");
    // Mock of the killed client and its build still run, and end when that client comes back.
    assert!(!in_chroot_of(&farm, &attempt).is_empty(), "{:?}", farm.build_processes());
    let before = farm.build_processes().len();
    farm.start_client("victim", &[]);
    assert_eq!(in_chroot_of(&farm, &attempt), Vec::<String>::new());
    assert!(farm.build_processes().len() < before);
    assert!(farm.attempts_of("victim").is_empty());
    farm.open("precious");
    assert_built_once_by(&farm, "precious", "other");
    farm.wait_no_build_processes();
}

#[test]
fn a_client_that_hangs_is_given_up_and_finds_out_afterwards() {
    let mut farm = Farm::start(&["--heartbeat", "300ms", "--dead-after", "1500ms", "--grace", "0s"]);
    farm.start_client("sleeper", &[]);
    farm.queue_gated("precious");
    farm.wait_at_gate("sleeper", "precious");
    farm.client("sleeper").signal(Signal::STOP);
    farm.server().wait_line("precious-1-1.src.rpm is queued again");
    farm.start_client("other", &[]);
    farm.wait_at_gate("other", "precious");
    // Now both builds finish, the sleeper's first as far as it knows.
    farm.open("precious");
    assert_built_once_by(&farm, "precious", "other");
    let mark = farm.client("sleeper").mark();
    farm.client("sleeper").signal(Signal::CONT);
    farm.client("sleeper").wait_line_after(mark, "no connection to ");
    farm.client("sleeper").wait_line_after(mark, "connected to ");
    farm.wait_no_build_processes();
    assert_built_once_by(&farm, "precious", "other");
    assert_eq!(farm.hand_outs().len(), 2);
    // And it is of use again, at once: nothing is wrong with that machine.
    assert_eq!(farm.client("sleeper").count("is given back"), 0);
    farm.client("other").signal(Signal::TERM);
    assert_eq!(farm.client_mut("other").wait_code(), 0);
    farm.queue_quick("next");
    assert_built_once_by(&farm, "next", "sleeper");
}

#[test]
fn a_client_that_hangs_and_wakes_in_the_middle_competes_and_one_result_counts() {
    let mut farm = Farm::start(&["--heartbeat", "300ms", "--dead-after", "1500ms", "--grace", "0s"]);
    farm.start_client("sleeper", &[]);
    farm.queue_gated("precious");
    farm.wait_at_gate("sleeper", "precious");
    farm.client("sleeper").signal(Signal::STOP);
    farm.server().wait_line("precious-1-1.src.rpm is queued again");
    farm.start_client("other", &[]);
    farm.wait_at_gate("other", "precious");
    farm.client("sleeper").signal(Signal::CONT);
    farm.server().wait_line("sleeper goes on with precious-1-1.src.rpm");
    farm.open("precious");
    farm.wait_finished(&tiny("precious"));
    farm.wait_no_build_processes();
    wait_until("both builders have forgotten it", || {
        let is_idle = |name: &str| farm.attempts_of(name).is_empty() && farm.parcels_of(name).is_empty();
        is_idle("sleeper") && is_idle("other")
    });
    farm.server().wait_line("precious-1-1.src.rpm succeeded: ");
    assert_eq!(farm.server().count("precious-1-1.src.rpm succeeded: "), 1);
}

/// `end` ends the server; everything that it had given out is built in the end all the same.
fn server_restart(end: impl FnOnce(&mut Farm)) {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &["--slots", "2"]);
    farm.queue_gated("one");
    farm.queue_gated("two");
    farm.wait_at_gate("b1", "one");
    farm.wait_at_gate("b1", "two");
    farm.queue_quick("waiting");
    farm.wait_queued("waiting");
    end(&mut farm);
    farm.server = None;
    assert_eq!(farm.where_is(&tiny("waiting")), ["SOURCE"]);
    let mark = farm.client("b1").mark();
    farm.start_server(&[]);
    for name in ["one", "two"] {
        assert_ne!(farm.where_is(&tiny(name)), ["FINISHED"]);
    }
    farm.client("b1").wait_line_after(mark, "connected to ");
    farm.open("one");
    farm.open("two");
    for name in ["one", "two", "waiting"] {
        assert_built_once_by(&farm, name, "b1");
    }
    let handed_out: Vec<_> = farm.hand_outs().into_iter().map(|(srpm, _)| srpm).collect();
    assert_eq!(handed_out, [tiny("waiting")], "what was being built was given out again");
    farm.wait_no_build_processes();
    assert_eq!(names_in(&farm.working("")), [".moji"]);
    assert!(names_in(&farm.working(".moji/attempts")).is_empty());
}

#[test]
fn a_killed_servers_work_is_done_after_its_restart() {
    server_restart(|farm| farm.server.as_mut().unwrap().kill());
}

#[test]
fn a_stopped_servers_work_is_done_after_its_restart() {
    server_restart(|farm| {
        let server = farm.server.as_mut().unwrap();
        server.signal(Signal::TERM);
        assert_eq!(server.wait_code(), 0);
    });
}

/// What was finished while the server was away is still there after kill -9 of the client.
#[test]
fn finished_results_outlive_their_client() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_gated("precious");
    farm.wait_at_gate("b1", "precious");
    farm.server.as_mut().unwrap().kill();
    farm.open("precious");
    farm.client("b1").wait_line("precious-1-1.src.rpm is built");
    let is_whole = |parcel: &PathBuf| parcel.join("parcel.json").exists();
    wait_until("results in the outbox", || farm.parcels_of("b1").iter().any(is_whole));
    farm.client_mut("b1").kill();
    farm.start_server(&[]);
    farm.start_client("b1", &[]);
    farm.client("b1").wait_line("the results of precious-1-1.src.rpm");
    assert_built_once_by(&farm, "precious", "b1");
    wait_until("an empty outbox", || farm.parcels_of("b1").is_empty());
    farm.wait_no_build_processes();
}

#[test]
fn a_second_server_on_the_same_folders_is_refused() {
    let mut farm = Farm::start(&[]);
    let (code, said) = outcome_of(farm.server_command(&["--listen", "127.0.0.1:0"]));
    assert_eq!(code, 3, "{said}");
    let who = format!("another moji-server (process {} on ", farm.server().id());
    assert!(said.contains(&who) && said.contains(") already uses WORKING ("), "{said}");
    // The first one is none the worse for it.
    farm.start_client("b1", &[]);
    farm.queue_quick("still");
    assert_built_once_by(&farm, "still", "b1");
}
