//! Tokens, the server's key, and credentials that end, as an operator and the owner of a builder see them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use moji_tests::support::processes::{DEADLINE, Farm, Program, names_in, now, tiny, wait_until};
use rustix::process::Signal;

const PASSWORD: &str = "correct horse battery staple";

/// Runs a command that must work; gives its standard output.
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Adds a credential as README does, and gives the file with its token.
fn token(farm: &Farm, name: &str, arguments: &[&str]) -> PathBuf {
    let add = [&["add", name, "--role", "builder"], arguments].concat();
    let path = farm.path(format!("token-{name}"));
    fs::write(&path, said(farm.credential_command(&add))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn fingerprint(farm: &Farm) -> String {
    let list = said(farm.credential_command(&["list"]));
    list.lines().next().and_then(|line| line.strip_prefix("server key: ")).unwrap().to_owned()
}

/// Starts a client with `--password-file`.
fn start_with(farm: &mut Farm, name: &str, secret: &Path) {
    farm.start_client(name, &["--password-file", secret.to_str().unwrap()]);
}

/// A client that will not be let in.
fn stranger(farm: &Farm, name: &str, arguments: &[&str]) -> Program {
    Program::start(&format!("client {name}"), farm.client_command(name, arguments))
}

fn mode(path: PathBuf) -> u32 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn a_token_in_a_file_is_all_that_a_builder_needs() {
    let mut farm = Farm::new();
    // Before there is a server: it has the same key then.
    fs::create_dir_all(farm.working("")).unwrap();
    let board = token(&farm, "board", &[]);
    let limited = token(&farm, "limited", &["--targets", "elsewhere,nowhere", "--expires", "2090-01-02"]);
    farm.start_server(&[]);
    let key = fingerprint(&farm);
    farm.server().wait_line(&format!("this server's key is {key}"));
    assert_eq!(
        said(farm.credential_command(&["list"])),
        format!(
            "server key: {key}\n\
             board    builder    all targets        good\n\
             limited  builder    elsewhere,nowhere  until 2090-01-02T00:00:00Z\n"
        )
    );
    let json: serde_json::Value =
        serde_json::from_str(&said(farm.credential_command(&["list", "--json"]))).unwrap();
    assert_eq!((&json["server"], &json["credentials"][1]["name"]), (&key.into(), &"limited".into()));

    start_with(&mut farm, "b1", &board);
    farm.queue_quick("hello");
    farm.wait_finished(&tiny("hello"));
    let builder = farm.build_record("hello-1-1").attempt.unwrap().builder;
    assert_eq!(builder.to_string(), "board/b1");
    assert_eq!(farm.server().count("board/b1 connected from"), 1);

    // Its owner, and the operator, see why.
    let mut refused = stranger(&farm, "b2", &["--password-file", limited.to_str().unwrap()]);
    assert_eq!(refused.wait_code(), 4);
    let why = "the credential limited is not for here, but for elsewhere, nowhere";
    assert_eq!(refused.count(why), 1);
    farm.server().wait_line(&format!("refused: {why}"));
    let mut unknown = stranger(&farm, "b3", &[]);
    assert_eq!(unknown.wait_code(), 4);
    assert_eq!(unknown.count("asks for a token"), 1);

    let private = farm.working(".moji");
    assert_eq!(mode(private.clone()), 0o700);
    for name in names_in(&private) {
        if name.starts_with("credentials") || name.starts_with("identity") {
            assert_eq!(mode(private.join(&name)), 0o600, "{name}");
        }
    }
    assert!(private.join("credentials.json").exists() && private.join("identity.pem").exists());
    let seed = fs::read_to_string(&board).unwrap();
    let seed = seed.trim_end().rsplit('.').next().unwrap().to_owned();
    let kept = fs::read_to_string(private.join("credentials.json")).unwrap();
    assert!(!kept.contains(&seed));
    for program in [farm.server(), farm.client("b1")] {
        assert_eq!(program.count(&seed), 0, "a log has the token");
    }
}

#[test]
fn plaintext_on_the_servers_side_only() {
    let mut farm = Farm::new();
    farm.start_server(&["--plaintext"]);
    farm.server().wait_line("no TLS: who can listen in reads everything but the password");
    let client = stranger(&farm, "encrypted", &[]);
    let mark = client.mark();
    let line = client.wait_line("no TLS connection (does the server run with --plaintext");
    assert!(line.contains("next try in"), "{line}");
    let both =
        "it speaks TLS, and this side does not: --plaintext must be given to both programs, or to neither";
    farm.server().wait_line(both);
    // It goes on as it began.
    wait_until("three tries", || client.count("next try in") >= 3);
    assert_eq!(client.count("connected to "), 0, "from line {mark}");
    assert_eq!(farm.server().count(" connected from "), 0);
    wait_until("the server's words", || farm.server().count(both) >= 3);
    farm.start_client("plain", &["--plaintext"]);
}

#[test]
fn plaintext_on_the_builders_side_only() {
    let mut farm = Farm::start(&[]);
    let mut client = stranger(&farm, "plain", &["--plaintext"]);
    assert_eq!(client.wait_code(), 4);
    assert_eq!(client.count("this server expects TLS: start the builder without --plaintext"), 1);
    farm.server().wait_line("refused: it does not speak TLS");
    assert_eq!(farm.server().count(" connected from "), 0);
    farm.start_client("encrypted", &[]);
}

/// Takes the server's key away, so that the next server makes another.
fn replace_the_server(farm: &mut Farm, arguments: &[&str]) {
    farm.server().signal(Signal::TERM);
    farm.server.as_mut().unwrap().wait_end();
    fs::rename(farm.working(".moji/identity.pem"), farm.path("old-identity.pem")).unwrap();
    farm.start_server(arguments);
}

fn known(farm: &Farm, client: &str) -> String {
    fs::read_to_string(farm.work_dir(client).join("known_servers")).unwrap()
}

fn remembered(server: SocketAddr, key: &str) -> String {
    format!("{server} {key}\n")
}

#[test]
fn a_server_with_another_key_is_refused_until_its_key_is_given() {
    let mut farm = Farm::new();
    fs::write(farm.path("password"), PASSWORD).unwrap();
    fs::set_permissions(farm.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    let secret = farm.path("password");
    let with_secret = ["--password-file", secret.to_str().unwrap()];
    farm.start_server(&with_secret);
    let old = fingerprint(&farm);
    for name in ["b1", "stays"] {
        start_with(&mut farm, name, &secret);
        assert_eq!(farm.client(name).count(&format!("remembering its key {old}")), 1);
        assert_eq!(known(&farm, name), remembered(farm.address(), &old));
    }
    farm.client("b1").signal(Signal::TERM);
    assert_eq!(farm.client_mut("b1").wait_code(), 0);

    replace_the_server(&mut farm, &with_secret);
    let new = fingerprint(&farm);
    assert_ne!(old, new);
    let mut client = stranger(&farm, "b1", &with_secret);
    assert_eq!(client.wait_code(), 4);
    let line = client
        .wait_line(&format!("has the key {new}, and not the one that it had at the first contact, {old}"));
    for part in
        ["the server was set up anew", "somebody stands between", "nothing was sent", "credential list"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    farm.server().wait_line("refused: ");
    assert_eq!(known(&farm, "b1"), remembered(farm.address(), &old));
    // One that was let in before waits for the server to be mended, and is not let in either.
    farm.client("stays").wait_line(&format!("has the key {new}"));
    wait_until("more tries", || farm.client("stays").count(&format!("has the key {new}")) >= 2);
    assert_eq!(farm.client("stays").count("connected to "), 1);
    assert_eq!(farm.server().count(" connected from "), 0);

    let command = line.split("moji-client ").nth(1).unwrap();
    let mut words = command.split_whitespace();
    let accepting = [words.next().unwrap(), words.next().unwrap()];
    assert_eq!(accepting, ["--server-key", &new]);
    farm.start_client("b1", &[&with_secret[..], &accepting].concat());
    assert_eq!(known(&farm, "b1"), remembered(farm.address(), &new));
    farm.client("b1").signal(Signal::TERM);
    assert_eq!(farm.client_mut("b1").wait_code(), 0);
    // Once was enough.
    start_with(&mut farm, "b1", &secret);
    // And the old one is not the right one any more.
    let mut client = stranger(&farm, "b4", &[&with_secret[..], &["--server-key", &old]].concat());
    assert_eq!(client.wait_code(), 4);
    assert_eq!(client.count(&format!("has the key {new}, and not the one that it should have, {old}")), 1);
}

#[test]
fn a_revoked_credential_ends_its_session_within_a_second_and_another_builds() {
    let mut farm = Farm::new();
    fs::create_dir_all(farm.working("")).unwrap();
    let (board, laptop) = (token(&farm, "board", &[]), token(&farm, "laptop", &[]));
    farm.start_server(&["--grace", "1s"]);
    start_with(&mut farm, "b1", &board);
    farm.queue_gated("passed-on");
    farm.wait_at_gate("b1", "passed-on");
    start_with(&mut farm, "b2", &laptop);
    let begin = now();
    assert_eq!(said(farm.credential_command(&["revoke", "board"])), "board is revoked\n");
    let revoked = now();
    farm.client("b1").wait_line("the credential board was revoked at ");
    let (took, after) = (begin.elapsed(), revoked.elapsed());
    eprintln!("the session ended {after:?} after the command, which began {took:?} before");
    // A second, and what a busy machine needs to say so; far from any other reason to end.
    assert!(after.as_secs() < 10 && after < DEADLINE, "{after:?}");
    farm.server().wait_line("board/b1 is gone: the credential board was revoked at ");
    let list = said(farm.credential_command(&["list"]));
    assert!(list.lines().any(|line| line.starts_with("board ") && line.contains("  revoked at ")), "{list}");

    farm.wait_at_gate("b2", "passed-on");
    farm.open("passed-on");
    farm.wait_finished(&tiny("passed-on"));
    let builder = farm.build_record("passed-on-1-1").attempt.unwrap().builder;
    assert_eq!(builder.to_string(), "laptop/b2");
    // The first one tries to come back, in vain.
    wait_until("more tries", || farm.client("b1").count("was revoked at ") >= 3);
    assert_eq!(farm.server().count("board/b1 connected from "), 1);
    assert_eq!(farm.hand_outs().len(), 2, "{:?}", farm.hand_outs());
}
