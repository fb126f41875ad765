//! That pages show what they are given, and that nothing which they are given becomes markup.

use jiff::Timestamp;
use moji_proto::TargetName;
use moji_proto::api::{
    self, Build, BuildDetail, BuilderDetail, Overview, PackageDetail, Queued, Target, Why,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::history::BuildFilter;
use crate::log_text;

const NOW: &str = "2026-11-21T12:00:00Z";
const EVIL: &str = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&";

fn frame() -> Frame<'static> {
    Frame { now: NOW.parse().unwrap(), software: "moji-server 1" }
}

fn given<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn a_build(text: &str) -> Value {
    json!({
        "id": 17, "target": "fedora-43", "srpm": "hello-1-1.src.rpm", "nvr": null, "package": text, "state": "failed",
        "queued_at": "2026-11-21T11:00:00Z", "settled_at": "2026-11-21T11:30:00Z", "attempts": 2, "attempt": null,
        "builder": text, "took_seconds": 61, "failure": "package", "reason": text, "missing": [text],
    })
}

fn running(text: &str) -> Value {
    json!({
        "attempt": "0123456789abcdef-17", "build": 18, "srpm": "foo-1-1.src.rpm", "target": "fedora-43", "builder": text,
        "slot": 1, "since": "2026-11-21T11:58:59Z", "phase": null, "expected_seconds": 120, "is_orphaned": false,
        "is_publishing": false,
    })
}

fn a_builder(text: &str) -> Value {
    json!({
        "id": text, "state": "building", "arch": text, "targets": ["fedora-43"], "broken_targets": [], "tags": [text],
        "cores": 4, "memory": 1, "disk": 5, "slots": 2, "connected_at": null, "suspended_seconds": null,
        "drained": { "by": text, "at": NOW, "reason": text }, "software": text, "attempts": [],
    })
}

fn attempt(text: &str) -> Value {
    json!({
        "id": "0123456789abcdef-17", "builder": text, "target": "fedora-43", "generation": null, "leased_at": NOW,
        "ended_at": null, "ending": text, "succeeded": null, "failure": null, "reason": text, "exit_code": null,
        "missing": [text], "logs": [{ "name": "build.log", "bytes": 7 }], "running": running(text),
    })
}

fn a_target() -> Value {
    json!({
        "name": "fedora-43", "queue": { "ready": 1, "waiting": 2, "parked": 3, "running": 4 }, "builders": 5,
        "day": { "succeeded": 6, "failed": 7, "held": 8 }, "generation": 9,
    })
}

fn all_pages(text: &str) -> Vec<(&'static str, String)> {
    let overview_value: Overview = given(json!({
        "server": { "software": text, "started_at": NOW, "paused": { "by": text, "at": NOW, "reason": text }, "is_full": true,
            "out_of_date": [{ "repository": text, "since": NOW, "failures": 3, "reason": text }] },
        "queue": { "ready": 1, "waiting": 2, "parked": 3, "running": 1 },
        "eta": { "low": 60, "expected": 90, "high": 120 },
        "throughput": { "hour": { "succeeded": 1, "failed": 0, "held": 0 }, "day": { "succeeded": 5, "failed": 1, "held": 1 } },
        "slots": { "total": 2, "busy": 1 }, "running": [running(text)], "builders": [a_builder(text)],
        "newest": [a_build(text)], "failures": [a_build(text)],
    }));
    let detail: BuildDetail = given(json!({
        "build": a_build(text), "size": 5, "sha256": "0".repeat(64), "attempts": [attempt(text)],
        "artifacts": [{ "name": "hello-1-1.noarch.rpm", "size": 3, "sha256": "1".repeat(64) }],
        "folder": "/repo/fedora-43/hello-1-1/", "excerpt": { "log": text, "lines": [text] },
    }));
    let why: Why = given(json!({
        "build": a_build(text), "summary": text, "excerpt": null, "place": 4,
        "missing": [{ "requirement": text, "providers": [{ "build": text, "state": text }] }],
        "builders": [{ "builder": text, "reasons": [text] }],
    }));
    let one: Build = given(a_build(text));
    let part = LogPart {
        attempt: detail.attempts[0].id,
        name: detail.attempts[0].logs[0].name.clone(),
        from: 0,
        to: 9,
        size: 10,
        first: Some(41),
        lines: log_text::lines(
            format!("{}\n\u{1b}[1;31mred\u{1b}[0m\n", text.replace(char::is_control, "")).as_bytes(),
        ),
        is_growing: true,
        before: None,
    };
    let queue_page: api::Page<Queued> = given(json!({ "next": null, "total": 2, "items": [{
        "place": 1, "target": null, "srpm": "hello-1-1.src.rpm", "size": 5, "queued_at": NOW, "expected_seconds": 3,
        "waits_for": text, "is_parked": true,
    }] }));
    let package_value: PackageDetail = given(json!({
        "name": text, "builds": [a_build(text)],
        "durations": [{ "at": NOW, "seconds": 61, "builder": text, "target": "fedora-43" }],
    }));
    let builder_value: BuilderDetail = given(json!({
        "id": text, "builder": a_builder(text),
        "totals": { "attempts": 9, "succeeded": 5, "lost": 1, "failed": [["package", 3]], "percent_of_others": 80 },
        "running": [running(text)], "builds": [a_build(text)],
    }));
    let targets_value: Vec<Target> = vec![given(a_target())];
    let target_name: Option<TargetName> = None;
    let filter = BuildFilter {
        package: Some(text.into()),
        builder: Some(text.into()),
        search: Some(text.into()),
        target: Some(target_name),
        ..BuildFilter::default()
    };
    let list = api::Page { items: vec![one.clone()], next: Some(3), total: Some(4) };
    let known = api::Page {
        items: vec![given(json!({ "name": text, "builds": 3, "last": a_build(text) }))],
        next: Some(50),
        total: None,
    };
    let report_value = given(json!({
        "format": 1, "written_at": NOW, "standing": "stuck",
        "totals": {
            "counts": { "built": 1, "failed": 1, "held": 0, "parked": 1, "waiting": 0, "cycles": 1 },
            "attempts": 3, "wall_seconds": 3, "busy_seconds": 3, "critical_path_seconds": 3,
        },
        "targets": [{
            "counts": { "built": 0, "failed": 1, "held": 0, "parked": 1, "waiting": 0, "cycles": 1 }, "attempts": 3,
            "busy_seconds": 3, "built": [], "held": [], "waiting": [],
            "failed": [{
                "srpm": "hello-1-1.src.rpm", "reason": text, "attempts": 1, "logs": text,
                "excerpt": { "lines": [text], "telling": 0 },
            }],
            "parked": [{ "srpm": "foo-1-1.src.rpm", "attempts": 1, "missing": [{ "requirement": text, "providers": [] }] }],
            "cycles": [{ "edges": [{ "package": text, "requirement": text }] }],
        }],
    }));
    [
        ("overview", overview(frame(), &overview_value)),
        ("queue", queue(frame(), &queue_page, None, &targets_value)),
        ("builds", builds(frame(), &list, &filter, &targets_value)),
        ("build", build(frame(), &detail, Some(&why), Some(&part))),
        ("log", log(frame(), &one, &part)),
        ("packages", packages(frame(), &known, text, 50)),
        ("package", package(frame(), &package_value, None)),
        ("builders", builders(frame(), &[given(a_builder(text))])),
        ("builder", builder(frame(), &builder_value)),
        ("targets", targets(frame(), &targets_value)),
        ("target", target(frame(), &targets_value[0], Some("http://h:1"), &[one])),
        ("report", report(frame(), Some(&report_value))),
        ("problem", problem(frame(), text, text)),
    ]
    .map(|(name, page)| (name, page.into_string()))
    .into()
}

/// The names of the elements and attributes of a page: its markup without any text.
fn markup(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split_once('>').map_or(tag, |(tag, _)| tag);
        // What is between quotes is text.
        let outside = tag.split('"').step_by(2);
        names.push(outside.collect::<Vec<_>>().join("\"\""));
    }
    names
}

#[test]
fn nothing_becomes_markup() {
    let harmless = all_pages("harmless");
    for ((name, page), (_, plain)) in all_pages(EVIL).iter().zip(&harmless) {
        assert!(
            name == &"targets" || page.contains("&lt;img src=x onerror=alert(1)&gt;"),
            "{name} shows it: {page}"
        );
        assert_eq!(markup(page), markup(plain), "{name}");
    }
}

#[test]
fn the_policy_holds() {
    for (name, page) in all_pages("harmless") {
        for tag in markup(&page) {
            assert!(
                !tag.contains(" style=") && !tag.contains(" on") && !tag.starts_with("style"),
                "{name}: {tag}"
            );
        }
        assert_eq!(page.matches("<script").count(), 1, "{name}");
        assert!(page.contains(&format!("<script src=\"{}\" defer>", assets::SCRIPT.path())), "{name}");
        for address in page.split("href=\"").skip(1) {
            assert!(
                address.starts_with('/') && !address.starts_with("//") || address.starts_with('#'),
                "{name}: {address}"
            );
        }
    }
}

#[test]
fn each_page_has_its_landmarks_and_one_title() {
    for (name, page) in all_pages("harmless") {
        for part in [
            "<html lang=\"en\"",
            "<main id=\"main\"",
            "class=\"skip\"",
            "<title>",
            "role=\"search\"",
            "<footer>",
        ] {
            assert!(page.contains(part), "{name}: {part}");
        }
        assert_eq!(page.matches("<h1").count(), 1, "{name}");
        let ids: Vec<&str> =
            page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let mut once = ids.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), ids.len(), "{name}: an id is there twice: {ids:?}");
        assert_eq!(page.matches("<table").count(), page.matches("<caption").count(), "{name}");
    }
}

#[test]
fn what_is_asked_for_is_told() {
    let pages = all_pages("harmless");
    let page = |name: &str| &pages.iter().find(|(one, _)| *one == name).unwrap().1;
    for (name, text) in [
        ("overview", "The queue is paused"),
        ("overview", "All is built in about <strong>1 min 30 s</strong>"),
        ("overview", "5 succeeded, 1 failed, 1 held"),
        (
            "builds",
            "href=\"/builds?target=-&amp;package=harmless&amp;builder=harmless&amp;q=harmless&amp;before=3\"",
        ),
        ("build", "data-lines=\"/api/v1/attempts/0123456789abcdef-17/logs/build.log/lines\""),
        ("build", "href=\"/repo/fedora-43/hello-1-1/hello-1-1.noarch.rpm\""),
        ("log", "<li value=\"42\"><span class=\"s-bold-red\">red</span></li>"),
        ("builder", "is <strong>25 % faster than the others</strong>"),
        ("target", "http://h:1/repo/fedora-43/moji.repo"),
        ("package", "1 attempt that succeeded"),
        ("report", "Nothing that is left can move"),
    ] {
        assert!(page(name).contains(text), "{name}: {text}\n{}", page(name));
    }
}

#[test]
fn empty_pages_say_what_to_do() {
    let none = |html: Markup, text: &str| assert!(html.0.contains(text), "{text}: {}", html.0);
    none(builders(frame(), &[]), "moji-client HOST CONFIG");
    none(report(frame(), None), "There is no report yet");
    let empty = api::Page { items: Vec::new(), next: None, total: None };
    none(builds(frame(), &empty, &BuildFilter::default(), &[]), "There are no builds yet");
    let filter = BuildFilter { search: Some("x".into()), ..BuildFilter::default() };
    none(builds(frame(), &empty, &filter, &[]), "Show all");
    let idle: Overview = given(json!({
        "server": { "software": "x", "started_at": NOW, "paused": null, "is_full": false, "out_of_date": [] },
        "queue": { "ready": 0, "waiting": 0, "parked": 0, "running": 0 }, "eta": null,
        "throughput": { "hour": { "succeeded": 0, "failed": 0, "held": 0 }, "day": { "succeeded": 0, "failed": 0, "held": 0 } },
        "slots": { "total": 0, "busy": 0 }, "running": [], "builders": [], "newest": [], "failures": [],
    }));
    none(overview(frame(), &idle), "Nothing runs, and nothing waits.");
}

#[test]
fn a_time_that_has_not_come_is_now() {
    let at: Timestamp = "2026-11-21T12:00:05Z".parse().unwrap();
    assert!(words::ago(frame().now, at).0.contains(">0 s ago<"));
}

proptest! {
    #[test]
    fn no_text_changes_the_markup(text in "[ -~\\n<>\"'&\u{202e}\u{1b}é]{1,24}") {
        let plain = all_pages("harmless");
        for ((name, page), (_, plain)) in all_pages(&text).iter().zip(&plain) {
            prop_assert_eq!(markup(page), markup(plain), "{}", name);
        }
    }
}
