//! The program itself: what it prints, where, and what it ends with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use moji_proto::operator::{Act, FromOperator, Place};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::server::{Peer, token};

/// However slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A farm that only this test knows.
pub(crate) struct Scene {
    pub(crate) listener: TcpListener,
    pub(crate) home: tempfile::TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The program with these arguments.
    pub(crate) fn moji(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moji"));
        command.env_clear().env("XDG_CONFIG_HOME", self.home.path()).env("MOJI_SERVER", self.address());
        command.arg("--plaintext").args(arguments).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer::welcome(timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap().0).await
    }

    /// What it does while `server` answers.
    pub(crate) async fn run(&self, arguments: &[&str], server: impl Future<Output = ()>) -> Output {
        let child = self.moji(arguments).spawn().unwrap();
        let both = async { tokio::join!(child.wait_with_output(), server).0.unwrap() };
        timeout(PATIENCE, both).await.expect("it ends in time")
    }

    /// Answers questions by their beginnings, until the program has nothing more to ask.
    pub(crate) async fn answers(&self, answers: &[(&str, &str)]) {
        let mut peer = self.accept().await;
        while let Some(asked) = peer.next().await {
            let FromOperator::Get { request, path } = asked else { panic!("{asked:?}") };
            match answers.iter().find(|(begin, _)| path.starts_with(begin)) {
                Some((_, body)) => peer.answer(request, 200, body).await,
                None => peer.answer(request, 404, "{\"error\":\"there is no such thing\"}").await,
            }
        }
    }
}

pub(crate) fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/samples").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn json_is_the_servers_own() {
    for (arguments, path, name) in [
        (&["status", "--json"][..], "/api/v1/overview", "overview.json"),
        (
            &["history", "zlib", "--state", "failed", "--limit", "7", "--json"],
            "/api/v1/builds?package=zlib&state=failed&limit=7",
            "builds.json",
        ),
        (&["queue", "-t", "-", "--json"], "/api/v1/queue?target=-&limit=50", "queue.json"),
        (&["builders", "--json"], "/api/v1/builders", "builders.json"),
        (&["targets", "--json"], "/api/v1/targets", "targets.json"),
        (&["report", "--json"], "/api/v1/report", "report.json"),
    ] {
        let scene = Scene::new().await;
        // A field of a newer server stays.
        let body = sample(name);
        let output = scene.run(arguments, scene.answers(&[(path, &body)])).await;
        let (code, out, err) = texts(&output);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value, "{arguments:?}");
        assert!(out.lines().count() > 3 && !out.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{out}");
        crate::output::golden(&format!("{}.out", name), &out);
    }
}

#[tokio::test]
async fn what_it_ends_with() {
    let scene = Scene::new().await;
    let nobody = || async {};
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let output = scene.run(&["--server", &gone, "status"], nobody()).await;
    let (code, _, err) = texts(&output);
    assert!(code == Some(3) && err.lines().count() == 1 && err.contains("--server"), "{code:?} {err}");

    let output = scene.run(&["why", "gone"], scene.answers(&[])).await;
    assert_eq!(texts(&output), (Some(4), String::new(), "moji: there is no such thing\n".into()));

    for wrong in [
        &["nonsense"][..],
        &["prio", "0", "x"],
        &["retry"],
        &["submit", "not-there-1-1.src.rpm"],
        &["submit", "x.rpm"],
        &["--server", "host:port", "status"],
    ] {
        let (code, out, err) = texts(&scene.run(wrong, nobody()).await);
        assert!(code == Some(64) && out.is_empty() && !err.is_empty(), "{wrong:?}: {code:?} {out} {err}");
    }
    for fine in [
        &["--help"][..],
        &["help", "--help"],
        &["help", "submit", "-h"],
        &["--version"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let (code, out, _) = texts(&scene.run(fine, nobody()).await);
        assert!(code == Some(0) && out.contains("moji"), "{fine:?}: {code:?} {out}");
    }
    let pages = scene.home.path().join("new/man");
    let (code, ..) = texts(&scene.run(&["man", "new/man"], nobody()).await);
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(code == Some(0) && page("moji-submit.1").contains("<SRPM>"), "{}", page("moji-submit.1"));
    for part in [".SH \"EXIT STATUS\"\n.nf", ".SH EXAMPLES\n.nf", "<COMMAND>", "completions"] {
        assert!(page("moji.1").contains(part), "{part} is not in {}", page("moji.1"));
    }
}

#[tokio::test]
async fn what_can_be_said_is_offered() {
    let scene = Scene::new().await;
    for (arguments, word) in [
        (&["retry", "--help"][..], "unreadable-srpm"),
        (&["history", "--help"], "withdrawn"),
        (&["events", "--help"], "builder_connected"),
    ] {
        let (code, out, _) = texts(&scene.run(arguments, async {}).await);
        let offered = out.contains("possible values") || out.contains("Possible values");
        assert!(code == Some(0) && offered && out.contains(word), "{arguments:?}: {out}");
    }
    let (_, out, _) = texts(&scene.run(&["completions", "fish"], async {}).await);
    let line = out.lines().find(|line| line.contains("from prio") || line.contains("-l priority"));
    assert!(line.is_some_and(|line| line.contains("first")), "{line:?}");
    let server = async {
        let mut peer = scene.accept().await;
        let Some(FromOperator::Act { request, act }) = peer.next().await else { panic!() };
        let kind = Some(moji_proto::FailureKind::MissingDependency);
        assert_eq!(act, Act::RetryFailed { kind, target: None });
        peer.done(request, "a", true);
        peer.next().await;
    };
    let output = scene.run(&["retry", "--kind", "missing_dependency"], server).await;
    assert_eq!(texts(&output).0, Some(0));
}

#[tokio::test]
async fn what_was_not_done_is_said() {
    let scene = Scene::new().await;
    let server = async {
        let mut peer = scene.accept().await;
        for (entry, is_done) in [("b", true), ("a", false)] {
            let Some(FromOperator::Act { request, act }) = peer.next().await else { panic!() };
            let target = Some("f43".parse().unwrap());
            assert_eq!(act, Act::Prioritize { entry: entry.into(), target, place: Place::First });
            peer.done(request, entry, is_done);
        }
        peer.next().await;
    };
    let output = scene.run(&["prio", "first", "a", "b", "--target", "f43"], server).await;
    let wanted = "b: a text [2J\na: not done: a text [2J\n";
    assert_eq!(texts(&output), (Some(4), wanted.into(), String::new()));

    let server = async {
        let mut peer = scene.accept().await;
        for (name, is_done) in [("b", true), ("a", false)] {
            let Some(FromOperator::Act { request, .. }) = peer.next().await else { panic!() };
            peer.done(request, name, is_done);
        }
        peer.next().await;
    };
    let (code, out, _) = texts(&scene.run(&["prio", "none", "b", "a", "--json"], server).await);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    let told = |at: usize| (value[at]["about"].clone(), value[at]["is_done"].clone());
    assert_eq!((code, told(0), told(1)), (Some(4), ("b".into(), true.into()), ("a".into(), false.into())));
    assert!(value[0]["text"].as_str().is_some_and(|text| text.starts_with("a text")), "{out}");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_ends_it_quietly() {
    let scene = Scene::new().await;
    let body = sample("builds.json");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = scene.moji(&["history"]).stdout(writer).spawn().unwrap();
    let answers = [("/api/v1/builds", body.as_str())];
    let both = async { tokio::join!(child.wait_with_output(), scene.answers(&answers)).0.unwrap() };
    assert_eq!(texts(&timeout(PATIENCE, both).await.unwrap()), (Some(141), String::new(), String::new()));
}

#[tokio::test]
async fn colours_only_when_they_are_asked_for_in_a_pipe() {
    let scene = Scene::new().await;
    let body = sample("builds.json");
    let answers = [("/api/v1/builds", body.as_str())];
    for (color, is_colored) in [("auto", false), ("never", false), ("always", true)] {
        let (code, out, _) = texts(&scene.run(&["history", "--color", color], scene.answers(&answers)).await);
        assert_eq!((code, out.contains('\u{1b}')), (Some(0), is_colored), "{color}: {out}");
    }
}

#[tokio::test]
async fn login_is_tried_and_written_for_its_owner_only() {
    let scene = Scene::new().await;
    let server = async {
        let io = scene.listener.accept().await.unwrap().0;
        assert_eq!(Peer::welcome_anna(io).await.next().await, None);
    };
    let mut child =
        scene.moji(&["login", &scene.address(), "--token-file", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{}\n", token().to_secret_text()).as_bytes())
        .await
        .unwrap();
    let both = async { tokio::join!(child.wait_with_output(), server).0.unwrap() };
    let (code, out, err) = texts(&timeout(PATIENCE, both).await.unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("as anna, admin"), "{out}");
    let path = scene.home.path().join("moji/config.toml");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    for (wrong, needle) in
        [(&["login", "a", "--server", "b"][..], "which one"), (&["login", "--server", "a:b"], "a:b")]
    {
        let (code, _, err) = texts(&scene.run(&[wrong, &["--token-file", "-"]].concat(), async {}).await);
        assert!(code == Some(64) && err.contains(needle), "{wrong:?}: {err}");
    }

    // Every later command has it from there.
    let server = async {
        let io = scene.listener.accept().await.unwrap().0;
        let mut peer = Peer::welcome_anna(io).await;
        let (request, _) = peer.path().await;
        peer.answer(request, 200, "[]").await;
        peer.next().await;
    };
    let child = scene.moji(&["builders"]).env_remove("MOJI_SERVER").spawn().unwrap();
    let both = async { tokio::join!(child.wait_with_output(), server).0.unwrap() };
    let (code, out, err) = texts(&timeout(PATIENCE, both).await.unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");

    let file = scene.home.path().join("token");
    std::fs::write(&file, token().to_secret_text()).unwrap();
    for (mode, is_warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let server = async {
            let io = scene.listener.accept().await.unwrap().0;
            let mut peer = Peer::welcome_anna(io).await;
            let (request, _) = peer.path().await;
            peer.answer(request, 200, "[]").await;
            peer.next().await;
        };
        let output = scene.run(&["builders", "--token-file", "token"], server).await;
        let (code, _, err) = texts(&output);
        assert_eq!((code, err.contains("everyone")), (Some(0), is_warned), "{err}");
    }

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, _, err) = texts(&scene.run(&["builders"], async {}).await);
    assert!(code == Some(64) && err.contains("chmod 600"), "{code:?} {err}");
}

const BUILD: &str = r#"{"id":12,"target":null,"srpm":"zlib-1.3-1.src.rpm","nvr":"zlib-1.3-1","package":"zlib","state":"STATE","queued_at":"2026-01-01T00:00:00Z","settled_at":null,"attempts":1,"attempt":"ATTEMPT","builder":"board-7","took_seconds":5,"failure":null,"reason":REASON,"missing":[]}"#;

pub(crate) fn build(state: &str, attempt: &str, reason: &str) -> String {
    BUILD.replace("STATE", state).replace("ATTEMPT", attempt).replace("REASON", reason)
}

/// With these attempts, and whether each has ended.
fn detail(build: &str, attempts: &[(&str, bool)]) -> String {
    let attempt = |(id, ended): &(&str, bool)| {
        let ended = if *ended { "\"2026-01-01T00:01:00Z\"" } else { "null" };
        format!(
            r#"{{"id":"{id}","builder":"b","target":"f43","generation":null,"leased_at":"2026-01-01T00:00:00Z","ended_at":{ended},"ending":null,"succeeded":null,"failure":null,"reason":null,"exit_code":null,"missing":[],"logs":[],"running":null}}"#
        )
    };
    let attempts: Vec<_> = attempts.iter().map(attempt).collect();
    format!(
        r#"{{"build":{build},"size":1,"sha256":null,"attempts":[{}],"artifacts":[],"folder":null,"excerpt":null}}"#,
        attempts.join(",")
    )
}

const FIRST: &str = "0000000000c0ffee-1";
const SECOND: &str = "0000000000c0ffee-2";

#[tokio::test]
async fn a_log_that_follows_survives_lost_connections_and_attempts() {
    let scene = Scene::new().await;
    let server = async {
        let mut asked = Vec::new();
        let running = build("running", FIRST, "null");
        let mut peer = scene.accept().await;
        for body in [running.clone(), detail(&running, &[(FIRST, false)])] {
            let (request, path) = peer.path().await;
            asked.push(path);
            peer.answer(request, 200, &body).await;
        }
        let (request, path) = peer.path().await;
        asked.push(path);
        let mut stream = peer.begin_answer(request, 200, [Bytes::from_static(b"one\n\x1b[31mtw")]).await;
        stream.all_received().await.unwrap();
        peer.cut();
        // Another connection; the server ends the stream because it stops, and the attempt goes on.
        let mut peer = scene.accept().await;
        let (request, path) = peer.path().await;
        asked.push(path);
        peer.answer(request, 200, "o\n").await;
        let requeued = build("queued", FIRST, "null");
        let again = build("running", SECOND, "null");
        let failed = build("failed", SECOND, "\"it \\u001b broke\"");
        for (body, log) in [
            (detail(&running, &[(FIRST, false)]), "three\n"),
            (detail(&requeued, &[(FIRST, true)]), ""),
            (detail(&requeued, &[(FIRST, true)]), ""),
            (detail(&again, &[(SECOND, false), (FIRST, true)]), "four"),
            (detail(&failed, &[(SECOND, true), (FIRST, true)]), ""),
            (detail(&failed, &[(SECOND, true), (FIRST, true)]), ""),
        ] {
            let (request, path) = peer.path().await;
            asked.push(path);
            peer.answer(request, 200, &body).await;
            if !log.is_empty() {
                let (request, path) = peer.path().await;
                asked.push(path);
                peer.answer(request, 200, log).await;
            }
        }
        assert_eq!(peer.next().await, None);
        let log = |attempt: &str, offset: &str| {
            format!("/api/v1/attempts/{attempt}/logs/root.log?follow=true{offset}")
        };
        let build = || "/api/v1/builds/12".to_owned();
        let wanted = [
            "/api/v1/find?build=f43%2Fzlib".to_owned(),
            build(),
            log(FIRST, ""),
            log(FIRST, "&offset=11"),
            build(),
            log(FIRST, "&offset=13"),
            build(),
            build(),
            build(),
            log(SECOND, ""),
            build(),
            build(),
        ];
        assert_eq!(asked, wanted);
    };
    let output = scene.run(&["log", "-f", "f43/zlib", "--file", "root"], server).await;
    let (code, out, err) = texts(&output);
    assert_eq!((code, out.as_str()), (Some(0), "one\ntwo\nthree\nfour"), "{err}");
    assert!(err.contains("trying again") && err.ends_with("moji: zlib-1.3-1 failed: it   broke\n"), "{err}");
}

#[tokio::test]
async fn a_log_without_an_attempt_and_a_raw_one() {
    let scene = Scene::new().await;
    let queued = build("queued", "", "null").replace("\"attempt\":\"\"", "\"attempt\":null");
    let (code, out, err) =
        texts(&scene.run(&["log", "12"], scene.answers(&[("/api/v1/find", &queued)])).await);
    assert!(code == Some(4) && out.is_empty() && err.contains("-f waits"), "{code:?} {out} {err}");
    let withdrawn = queued.replace("queued\"", "withdrawn\"").replace("withdrawn_at", "queued_at");
    let (code, _, err) =
        texts(&scene.run(&["log", "12"], scene.answers(&[("/api/v1/find", &withdrawn)])).await);
    assert!(code == Some(4) && err.contains("withdrawn and has no log") && !err.contains("-f"), "{err}");
    let failed = build("failed", FIRST, "null");
    let answers = [("/api/v1/find", failed.as_str()), ("/api/v1/attempts", "a\u{1b}[1mb\r\n")];
    for (arguments, wanted) in [(&["log", "12"][..], "ab\n"), (&["log", "12", "--raw"], "a\u{1b}[1mb\r\n")] {
        let (code, out, _) = texts(&scene.run(arguments, scene.answers(&answers)).await);
        assert_eq!((code, out.as_str()), (Some(0), wanted));
    }
}

#[tokio::test]
async fn past_events_come_part_by_part() {
    let scene = Scene::new().await;
    let event = |id: u64| {
        format!(
            r#"{{"id":{id},"at":"2026-01-01T00:00:00Z","kind":"failed","text":"x\u001b{id}","build":null,"attempt":null,"builder":null,"failure":null,"reason":null,"target":null,"generation":null}}"#
        )
    };
    let (first, second) = (
        format!(r#"{{"items":[{}],"next":8,"total":null}}"#, event(8)),
        format!(r#"{{"items":[{}],"next":null,"total":null}}"#, event(9)),
    );
    let answers = [
        ("/api/v1/events?since=3&limit=500&kind=failed", first.as_str()),
        ("/api/v1/events?since=8&limit=500&kind=failed", second.as_str()),
    ];
    let output = scene.run(&["events", "--since", "3", "--kind", "failed"], scene.answers(&answers)).await;
    let wanted = "            8  2026-01-01 00:00:00  failed             x 8\n            9  2026-01-01 00:00:00  failed             x 9\n";
    assert_eq!(texts(&output), (Some(0), wanted.into(), String::new()));
    let output =
        scene.run(&["events", "--since", "3", "--kind", "failed", "--json"], scene.answers(&answers)).await;
    let (_, out, _) = texts(&output);
    let ids: Vec<_> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, [8, 9]);
}

#[tokio::test]
async fn events_to_come_are_told_at_once() {
    let scene = Scene::new().await;
    let mut child = scene.moji(&["events", "--follow", "--json"]).spawn().unwrap();
    let mut peer = scene.accept().await;
    let (request, path) = peer.path().await;
    assert_eq!(path, "/events");
    let data = r#"{"id":5,"at":"2026-01-01T00:00:00Z","kind":"queue_empty","text":"x","build":null,"attempt":null,"builder":null,"failure":null,"reason":null,"target":null,"generation":null}"#;
    let text = format!("id: 5\ndata: {data}\n\n");
    let _stream = peer.begin_answer(request, 200, [Bytes::from(text)]).await;
    let mut line = vec![0; 40];
    let read = child.stdout.as_mut().unwrap().read_exact(&mut line);
    timeout(PATIENCE, read).await.expect("it is not kept back").unwrap();
    assert!(line.starts_with(b"{\"at\":"));
    child.kill().await.unwrap();
}
