//! What people see, compared with what was looked at once: `golden/`. `MOJI_BLESS=1` writes it anew.

use std::path::Path;

use jiff::Timestamp;
use moji_client::operator::output::{Style, lists, overview, report, story};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Compares with the file of this name.
pub(crate) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/golden").join(name);
    if std::env::var_os("MOJI_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{name} is not what it was (MOJI_BLESS=1 writes it):\n{text}");
}

/// A made-up answer, which must have exactly the API's form.
fn sample<T: DeserializeOwned + Serialize>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/samples").join(name);
    let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let read: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value, "{name}");
    read
}

fn every_style(name: &str, show: impl Fn(&Style) -> String) {
    for (kind, style) in [
        ("pipe", Style::default()),
        ("wide", Style { color: true, width: Some(120) }),
        ("usual", Style { color: false, width: Some(80) }),
        ("narrow", Style { color: false, width: Some(40) }),
    ] {
        let text = show(&style);
        let codes = text.replace("\u{1b}[0m", "").matches('\u{1b}').count();
        assert!(codes == text.matches("\u{1b}[0m").count() && (codes > 0) == style.color, "{text}");
        let odd = |c: char| (c.is_control() && c != '\n' && c != '\u{1b}') || c == '\u{202e}';
        assert!(!text.contains(odd), "{text:?}");
        // Prose is the terminal's to wrap.
        let is_table = !name.starts_with("why") && name != "report";
        for line in text.lines().filter(|_| is_table && !style.color) {
            let width = line.chars().count();
            assert!(style.width.is_none_or(|most| width <= most), "{width} columns: {line}");
        }
        golden(&format!("{name}.{kind}.txt"), &text);
    }
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

#[test]
fn what_people_see() {
    let all = sample("overview.json");
    every_style("status", |style| overview::status(&all, now(), style));
    let page = sample("builds.json");
    every_style("history", |style| lists::builds(&page, style));
    let page = sample("queue.json");
    every_style("queue", |style| lists::queue(&page, now(), style));
    let all: Vec<_> = sample("builders.json");
    every_style("builders", |style| lists::builders(&all, now(), style));
    let all: Vec<_> = sample("targets.json");
    every_style("targets", |style| lists::targets(&all, style));
    let value = sample("report.json");
    every_style("report", |style| report::report(&value, style));
    for name in ["why_failed", "why_waits"] {
        let why = sample(&format!("{name}.json"));
        every_style(name, |style| story::why(&why, now(), style));
    }
    // No builder gets what is parked, also one that could build it.
    let mut why: moji_proto::api::Why = sample("why_waits.json");
    why.build.state = moji_proto::api::BuildState::Parked;
    golden("why_parked.txt", &story::why(&why, now(), &Style::default()));
}
