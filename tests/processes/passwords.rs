//! Who is let in, and where the password must not be seen.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use moji_tests::support::processes::{Farm, Program, hostmock, outcome_of, program, tiny, wait_until};

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
    hides_the_password(&[]);
}

#[test]
fn without_tls_too_the_password_is_not_seen() {
    hides_the_password(&["--plaintext"]);
}

fn hides_the_password(plaintext: &[&str]) {
    let mut farm = Farm::new();
    let mut command = farm.server_command(&["--listen", "127.0.0.1:0"]);
    command.args(plaintext);
    command.env("MOJI_PASSWORD", PASSWORD);
    farm.run_server(command);
    let tap = Wiretap::on(farm.address());
    let mut command = farm.client_command_for("b1", "here", &tap.address.to_string(), plaintext);
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
    // An SRPM's magic number, a message, a name: without TLS the tap hears them all, with it none.
    for said in [b"\xed\xab\xee\xdb".as_slice(), b"moji-client", b"curious"] {
        assert_eq!(contains(&heard, said), !plaintext.is_empty(), "{}", String::from_utf8_lossy(said));
    }
    assert!(heard.len() > 1000);
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
    let run = |mut command: Command, password: Option<&str>| {
        if let Some(password) = password {
            command.env("MOJI_PASSWORD", password);
        }
        command
    };
    farm.run_server(run(farm.server_command(&["--listen", "127.0.0.1:0"]), server_password));
    let mut client = Program::start("the client", run(farm.client_command("stranger", &[]), password));
    assert_eq!(client.wait_code(), 4);
    let lines = client.lines();
    let is_bad = |line: &&String| line.contains("ERROR") || line.contains("WARN");
    let errors: Vec<_> =
        lines.iter().filter(is_bad).filter(|line| !line.contains("running as root")).collect();
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

/// What there is to see of a program in `/proc`.
fn seen(program: &Program, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{}/{file}", program.id())).unwrap()
}

#[test]
fn a_password_that_was_given_carelessly_is_seen_no_more() {
    let mut farm = Farm::new();
    farm.start_server(&[PASSWORD]);
    let mut command = farm.client_command("positional", &["--slots", "1"]);
    command.arg(PASSWORD);
    farm.run_client("positional", command);
    let mut command = farm.client_command("environment", &[]);
    command.env("MOJI_PASSWORD", PASSWORD).env("MOJI_SLOTS", "1");
    farm.run_client("environment", command);
    // The other one counts, and stays as secret.
    fs::write(farm.path("password"), PASSWORD).unwrap();
    let mut command =
        farm.client_command("both", &["--password-file", farm.path("password").to_str().unwrap()]);
    command.env("MOJI_PASSWORD", format!("old {PASSWORD}"));
    farm.run_client("both", command);
    for (name, program) in farm.clients.iter().map(|(name, client)| (name.as_str(), client)) {
        let line = seen(program, "cmdline");
        assert!(contains(&line, b"--work-dir") && contains(&line, name.as_bytes()), "it is the client");
        assert!(!contains(&line, PASSWORD.as_bytes()), "the command line of {name} has the password");
        assert!(!contains(&seen(program, "environ"), PASSWORD.as_bytes()), "so has its environment");
        assert_eq!(seen(program, "comm"), b"moji-client\n", "the program keeps its name");
    }
    assert!(contains(&seen(farm.client("environment"), "environ"), b"MOJI_SLOTS=1"));
    assert!(!contains(&seen(farm.server(), "cmdline"), PASSWORD.as_bytes()));
    assert_eq!(seen(farm.server(), "comm"), b"moji-server\n");
}

/// A command that becomes another one of a user without rights, when there can be one.
fn as_nobody(program: &Path) -> Option<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"]);
    let works = Command::new("setpriv").args(command.get_args()).arg("true").output();
    command.arg(program);
    works.is_ok_and(|output| output.status.success()).then_some(command)
}

#[test]
fn builds_of_the_same_user_cannot_look_into_the_client() {
    let farm = Farm::new();
    let client = farm.path("moji-client");
    fs::copy(program("moji-client"), &client).unwrap();
    let Some(mut command) = as_nobody(&client) else {
        eprintln!("SKIPPED: only root with setpriv can become another user: nothing was tested");
        return;
    };
    fs::set_permissions(farm.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(hostmock(), farm.path("hostmock")).unwrap();
    fs::create_dir(farm.path("work")).unwrap();
    fs::set_permissions(farm.path("work"), fs::Permissions::from_mode(0o777)).unwrap();
    // Nobody but root can read the file: whoever starts the client opens it.
    fs::write(farm.path("password"), PASSWORD).unwrap();
    fs::set_permissions(farm.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    let input = fs::File::open(farm.path("password")).unwrap();
    command.env("HOME", farm.path("work")).args(["--min-free", "0", "--password-file", "-", "--mock"]);
    command.arg(farm.path("hostmock")).arg("--work-dir").arg(farm.path("work/client"));
    command.arg("127.0.0.1:9").arg(farm.path("configs/here.cfg"));
    let client = Program::start_with("the client", command, input.into());
    client.wait_line("next try in");
    assert_eq!(client.count("running as root"), 0);
    let look = |pid: u32, file: &str| {
        let mut command = as_nobody(Path::new("head")).unwrap();
        let output = command.args(["-c1", &format!("/proc/{pid}/{file}")]).env("LC_ALL", "C").output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    // One of this user's processes that does nothing against it.
    let mut other = as_nobody(Path::new("cat")).unwrap();
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("cat of nobody", || fs::read(format!("/proc/{}/comm", other.id())).unwrap() == b"cat\n");
    for file in ["environ", "maps", "fd/0", "mem"] {
        let said = look(client.id(), file);
        assert!(said.contains("Permission denied"), "{file} of the client can be read: {said}");
    }
    for file in ["environ", "maps"] {
        assert_eq!(look(other.id(), file), "", "{file} proves nothing");
    }
    let _ = other.kill();
    let _ = other.wait();
}

#[test]
fn a_password_file_that_everyone_can_read_is_a_warning() {
    let mut farm = Farm::new();
    let path = farm.path("password");
    fs::write(&path, PASSWORD).unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let arguments = ["--password-file", path.to_str().unwrap()];
    let says = format!("everyone on this machine can read the password in {0}: chmod o= {0}", path.display());
    mode(0o644);
    farm.start_server(&arguments);
    farm.start_client("open", &arguments);
    assert_eq!((farm.server().count(&says), farm.client("open").count(&says)), (1, 1));
    mode(0o640);
    farm.start_client("closed", &arguments);
    assert_eq!(farm.client("closed").count("everyone"), 0);
}

#[test]
fn root_is_told_in_one_line_what_to_do_instead() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    let lines = usize::from(rustix::process::geteuid().is_root());
    for (program, instead) in [(farm.server(), "owns the four folders"), (farm.client("b1"), "group mock")] {
        assert_eq!(program.count("running as root"), lines);
        assert_eq!(program.count(instead), lines);
    }
}
