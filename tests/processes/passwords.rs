//! Who is let in, and where the password must not be seen.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use moji_tests::support::processes::{Farm, Program, outcome_of, tiny};

const PASSWORD: &str = "correct horse battery staple";

/// A TCP proxy that keeps every byte of both directions.
struct Wiretap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    fn on(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let ears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let ways = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
                for (from, to) in ways {
                    let ears = Arc::clone(&ears);
                    std::thread::spawn(move || listen(from, to, &ears));
                }
            }
        });
        Self { address, heard }
    }
}

fn listen(mut from: TcpStream, mut to: TcpStream, ears: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        ears.lock().unwrap().extend(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_password_is_seen_neither_on_the_wire_nor_by_builds() {
    let mut farm = Farm::new();
    let mut command = farm.server_command(&["--listen", "127.0.0.1:0"]);
    command.env("MOJI_PASSWORD", PASSWORD);
    farm.run_server(command);
    let tap = Wiretap::on(farm.address());
    let mut command = farm.client_command_for("b1", "here", &tap.address.to_string(), &[]);
    command.env("MOJI_PASSWORD", PASSWORD);
    farm.run_client("b1", command);
    farm.queue_gated("curious");
    farm.wait_at_gate("b1", "curious");
    let processes = farm.build_processes();
    assert!(processes.len() >= 3, "Mock, rpmbuild and a shell: {processes:?}");
    for process in &processes {
        let proc = format!("/proc/{}", process.split(' ').next().unwrap());
        for file in ["environ", "cmdline"] {
            let content = fs::read(format!("{proc}/{file}")).unwrap_or_default();
            assert!(!contains(&content, PASSWORD.as_bytes()), "{file} of {process} has the password");
        }
    }
    farm.open("curious");
    farm.wait_finished(&tiny("curious"));
    let heard = tap.heard.lock().unwrap();
    // The tap works: it has heard an SRPM's magic number and a message.
    assert!(contains(&heard, b"\xed\xab\xee\xdb") && contains(&heard, b"moji-client"));
    assert!(!contains(&heard, PASSWORD.as_bytes()));
    for program in [farm.server(), farm.client("b1")] {
        assert_eq!(program.count(PASSWORD), 0);
    }
}

#[test]
fn a_password_can_be_given_in_three_ways() {
    let mut farm = Farm::new();
    fs::write(farm.path("password"), format!("{PASSWORD}\nnot this line\n")).unwrap();
    let file = farm.path("password").to_str().unwrap().to_owned();
    farm.start_server(&[PASSWORD]);
    farm.server().wait_line("the password on the command line can be seen with ps: use --password-file");
    farm.start_client("file", &["--password-file", &file]);
    assert_eq!(farm.client("file").count("can be seen"), 0);
    let mut command = farm.client_command("environment", &[]);
    command.env("MOJI_PASSWORD", PASSWORD);
    farm.run_client("environment", command);
    let mut command = farm.client_command("positional", &[]);
    command.arg(PASSWORD);
    farm.run_client("positional", command);
    farm.client("positional").wait_line("can be seen with ps");
    for program in farm.clients.values().chain(&farm.server) {
        assert_eq!(program.count(PASSWORD), 0, "a log has the password");
    }
}

/// A client that is not let in says so in one line and ends; the server too, and serves on.
fn refused(server_password: Option<&str>, password: Option<&str>, client_says: &str, server_says: &str) {
    let mut farm = Farm::new();
    let run = |mut command: std::process::Command, password: Option<&str>| {
        if let Some(password) = password {
            command.env("MOJI_PASSWORD", password);
        }
        command
    };
    farm.run_server(run(farm.server_command(&["--listen", "127.0.0.1:0"]), server_password));
    let mut client = Program::start("the client", run(farm.client_command("stranger", &[]), password));
    assert_eq!(client.wait_code(), 4);
    let lines = client.lines();
    let errors: Vec<_> =
        lines.iter().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
    assert_eq!(errors.len(), 1, "{lines:?}");
    assert!(errors[0].contains(client_says), "{}", errors[0]);
    farm.server().wait_line(server_says);
    assert_eq!(
        farm.server().count("refused") + farm.server().count("is gone"),
        1,
        "{:?}",
        farm.server().lines()
    );
    farm.run_client("friend", run(farm.client_command("friend", &[]), server_password));
}

#[test]
fn a_wrong_password_is_refused() {
    refused(Some(PASSWORD), Some("wrong"), "the server refuses the password", "wrong password");
}

#[test]
fn a_client_without_the_password_that_is_wanted_is_refused() {
    refused(Some(PASSWORD), None, "password", "refused");
}

#[test]
fn a_client_with_a_password_for_a_server_that_wants_none_does_not_believe_it() {
    refused(None, Some(PASSWORD), "password", "refused");
}

#[test]
fn without_a_password_nobody_is_invited_from_outside() {
    let farm = Farm::new();
    let (code, said) = outcome_of(farm.server_command(&["--listen", "0.0.0.0:0"]));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("without a password only a loopback address"), "{said}");
}
