//! Exit codes, and sentences that say what, where and what to do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use moji_tests::support::processes::{Farm, TARGET, are_apart, now, outcome_of, program, tiny};

/// Runs a command, which must end with this code and say all of this.
fn fails(command: Command, code: i32, says: &[&str]) {
    let shown = format!("{command:?}");
    let (ended, said) = outcome_of(command);
    assert_eq!(ended, code, "{shown}: {said}");
    for text in says {
        assert!(said.contains(text), "{shown} does not say {text:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_server_that_cannot_work_says_why() {
    let farm = Farm::new();
    let server = |arguments: &[&Path]| {
        let mut command = Command::new(program("moji-server"));
        command.args(arguments).args(["--listen", "127.0.0.1:0"]).env_remove("MOJI_PASSWORD");
        command
    };
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| farm.path(name));
    fails(server(&[]), 2, &["SOURCE is missing", "moji-server SOURCE WORKING FINISHED REPO", "--help"]);
    fails(server(&[&a, &b, &c]), 2, &["REPO is missing"]);
    fails(server(&[&a, &b, &c, &a.join("repo")]), 3, &["REPO", "lies inside it", "folders of their own"]);
    fails(server(&[&a, &b, &c, &a]), 3, &["SOURCE", "REPO", "folders of their own"]);
    fs::write(farm.path("file"), "").unwrap();
    fails(server(&[&a, &b, &farm.path("file"), &d]), 3, &["FINISHED", "file"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = port.local_addr().unwrap().to_string();
    fails(farm.server_command(&["--listen", &listen]), 4, &["cannot listen on", &listen, "another server"]);
}

#[test]
fn folders_on_two_file_systems_are_refused() {
    let farm = Farm::new();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
    if !are_apart(other.path(), &farm.path("")).unwrap() {
        return;
    }
    let mut command = Command::new(program("moji-server"));
    command.args(["a", "b", "c"].map(|name| farm.path(name))).arg(other.path().join("repo"));
    command.args(["--listen", "127.0.0.1:0"]);
    fails(command, 3, &["WORKING", "REPO", "not on one file system"]);
}

#[test]
fn a_client_that_cannot_work_says_why() {
    let farm = Farm::start(&[]);
    let server = farm.address().to_string();
    let client = |arguments: &[&str]| farm.client_command("b1", arguments);
    let mut command = Command::new(program("moji-client"));
    command.env_remove("MOJI_PASSWORD");
    fails(command, 2, &["the server is missing", "moji-client HOST[:PORT] MOCK_CONFIG"]);
    fails(client(&["--slots", "0"]), 2, &["--slots 0"]);
    let missing = farm.path("no-mock");
    fails(client(&["--mock", missing.to_str().unwrap()]), 3, &["no-mock is not there", "install"]);
    fails(client(&["--mock", "/etc/passwd"]), 3, &["/etc/passwd cannot be executed"]);

    // A config by name: those that are there are listed.
    farm.write_config("fedora-99-riscv64");
    let mut command = client(&[]);
    command.env("HOSTMOCK_CONFIG_DIR", farm.path("configs"));
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut by_name = Command::new(command.get_program());
    by_name.args(&arguments[..arguments.len() - 1]).arg("fedora-98-riscv64");
    by_name.env("HOSTMOCK_CONFIG_DIR", farm.path("configs")).env("HOME", farm.path("home"));
    fails(by_name, 3, &["fedora-98-riscv64", "there are fedora-99-riscv64, here"]);

    fs::write(farm.path("occupied"), "").unwrap();
    let mut command = Command::new(program("moji-client"));
    command.args(["--mock"]).arg(moji_tests::support::processes::hostmock());
    command.arg("--work-dir").arg(farm.path("occupied")).arg(&server);
    command.arg(farm.path(format!("configs/{TARGET}.cfg")));
    fails(command, 3, &["occupied", "--work-dir"]);
}

#[test]
fn two_clients_do_not_share_a_work_folder() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    fails(farm.client_command("b1", &[]), 3, &["another moji-client uses the work folder", "--work-dir"]);
}

#[test]
fn a_client_can_leave_when_there_is_nothing_to_do() {
    let mut farm = Farm::start(&[]);
    farm.queue_quick("only");
    farm.server().wait_line("queued only");
    let begin = now();
    farm.start_client("b1", &["--exit-when-idle=1500ms"]);
    assert_eq!(farm.client_mut("b1").wait_code(), 0);
    assert!(begin.elapsed().as_millis() >= 1500);
    farm.client("b1").wait_line("nothing to build for long enough");
    assert_eq!(farm.where_is(&tiny("only")), ["FINISHED"]);
}

#[test]
fn a_client_waits_for_a_server_that_is_not_there_yet() {
    let mut farm = Farm::start(&[]);
    farm.server = None;
    let command = farm.client_command("early", &[]);
    let client = moji_tests::support::processes::Program::start("client early", command);
    client.wait_line("next try in");
    farm.start_server(&[]);
    client.wait_line("connected to ");
    farm.queue_quick("work");
    farm.wait_finished(&tiny("work"));
    drop(client);
}
