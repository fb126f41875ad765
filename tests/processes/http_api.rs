//! What a server tells over HTTP while builds run: JSON, events and logs as they happen.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use moji_proto::api::{Build, BuildDetail, BuildState, Event, EventKind, Overview, Page};
use moji_tests::support::processes::{DEADLINE, Farm, now, tiny, wait_for, wait_until};

/// The address that is said in the server's log.
fn address(farm: &Farm) -> String {
    let line = farm.server.as_ref().unwrap().wait_line("http://");
    let rest = line.split("http://").nth(1).unwrap();
    rest.split(['/', ' ', ',']).next().unwrap().to_owned()
}

/// A connection that has asked for that, behind the head of the answer.
fn ask(address: &str, path: &str, more: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // 1.0: a body without chunks, to its end.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n{more}\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head, reader)
}

fn get<T: serde::de::DeserializeOwned>(address: &str, path: &str) -> T {
    let (head, mut reader) = ask(address, path, "");
    let mut body = String::new();
    reader.read_to_string(&mut body).unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{path}: {head}{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// Reads lines until one holds that text.
fn line_with(reader: &mut BufReader<TcpStream>, text: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended without {text:?}");
        if line.contains(text) {
            return line;
        }
    }
}

#[test]
fn a_build_is_watched_from_the_queue_to_the_repository() {
    let mut farm = Farm::start(&["--http", "127.0.0.1:0"]);
    let http = address(&farm);
    let (head, mut events) = ask(&http, "/events?since=0", "");
    assert!(head.contains("text/event-stream") && head.contains("nosniff"), "{head}");
    farm.start_client("b1", &[]);
    let gate = farm.path("gates/talk-first");
    let script = format!(
        "echo waiting at the gate\nwhile ! test -e {}; do sleep 0.02; done; printf 'the first \\033[31mword\\n'",
        gate.display()
    );
    farm.queue(&farm.tiny_srpms(&[("talk", &script)])[0]);
    let started = line_with(&mut events, "\"started\"");
    let started: Event = serde_json::from_str(started.trim().strip_prefix("data: ").unwrap()).unwrap();
    let attempt = started.attempt.unwrap();
    let overview = wait_for("the overview", || {
        let overview: Overview = get(&http, "/api/v1/overview");
        (overview.slots.busy == 1 && overview.running.len() == 1).then_some(overview)
    });
    assert_eq!(overview.running[0].attempt, attempt);
    let builds: Page<Build> = get(&http, "/api/v1/builds?state=running");
    assert_eq!(builds.items[0].id, overview.running[0].build.unwrap());
    let (_, mut log) = ask(&http, &format!("/api/v1/attempts/{attempt}/logs/build.log?follow=true"), "");
    let (_, mut lines) = ask(&http, &format!("/api/v1/attempts/{attempt}/logs/build.log/lines"), "");
    line_with(&mut log, "waiting at the gate");
    line_with(&mut lines, "waiting at the gate");
    let opened = now();
    farm.open("talk-first");
    let line = line_with(&mut lines, "the first ");
    println!("from the gate to the page: {:?}", opened.elapsed());
    assert!(opened.elapsed() < Duration::from_secs(2), "{:?}", opened.elapsed());
    assert!(line.contains("[[\"\",\"the first \"],[\"red\",\"word\"]]"), "{line}");
    line_with(&mut events, "\"succeeded\"");
    let (mut rest, mut end) = (String::new(), String::new());
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("the first \u{1b}[31mword\n"), "{rest}");
    lines.read_to_string(&mut end).unwrap();
    assert!(end.contains("event: end\n"), "{end}");
    farm.wait_finished(&tiny("talk"));
    let published = std::fs::read_to_string(farm.repo("talk-1-1/build.log")).unwrap();
    assert!(published.ends_with(&rest), "the end of the log was sent whole");
    let detail = wait_for("the end in the history", || {
        let detail: BuildDetail = get(&http, "/api/v1/builds/talk");
        (detail.build.state == BuildState::Succeeded).then_some(detail)
    });
    assert_eq!(detail.folder.as_deref(), Some("/repo/talk-1-1/"));
    assert!(detail.artifacts.iter().any(|artifact| artifact.name.is_rpm()));
    wait_until("the numbers", || {
        let (_, mut reader) = ask(&http, "/metrics", "");
        let mut numbers = String::new();
        reader.read_to_string(&mut numbers).unwrap();
        let has = |line: &str| numbers.contains(line);
        has("moji_attempts_ended_total{outcome=\"succeeded\",kind=\"none\"} 1\n")
            && has("moji_publish_latency_seconds_count 1\n")
    });
    // Again from where it was: nothing is told twice, and nothing is missing.
    let all: Page<Event> = get(&http, "/api/v1/events?limit=500");
    let since = all.items.iter().position(|event| event.id == started.id).unwrap();
    let (_, mut resumed) = ask(&http, "/events", &format!("Last-Event-ID: {}\r\n", started.id));
    for expected in &all.items[since + 1..] {
        let line = line_with(&mut resumed, "data: ");
        let event: Event = serde_json::from_str(line.trim().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(&event, expected);
    }
    assert!(all.items.iter().any(|event| event.kind == EventKind::Succeeded));
}
