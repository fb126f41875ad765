//! `PROTOCOL.md` says what the code does: somebody who writes a peer has nothing else to go by.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use moji_proto::frame::Kind;
use moji_proto::handshake::RefusalCode;
use moji_proto::operator::{self, Act, Done, FromOperator, Operate, Place, Role, ToOperator};
use moji_proto::{
    Assignment, FailureKind, HeldAttempt, LogFile, ManifestEntry, Outcome, Phase, Registration,
    RepositoryUrl, Resources, StreamMessage, ToBuilder, ToServer, limits, names, outcome, repository_url,
    version,
};
use serde::Deserialize;

mod samples;
use samples::{fields, variants};

const PAGE: &str = include_str!("../PROTOCOL.md");

/// What stands under a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    rest.split_once("\n#").map_or(rest, |(section, _)| section)
}

/// The rows of a section's first table, without its head.
fn rows(heading: &str) -> Vec<&'static str> {
    section(heading)
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect()
}

#[test]
fn the_newest_version_is_the_one_that_is_described() {
    assert!(PAGE.lines().any(|line| line == format!("Version: {}", version::NEWEST)));
}

#[test]
fn every_limit_is_named_with_its_value() {
    let of_limits = [
        ("HANDSHAKE_BODY", limits::HANDSHAKE_BODY as u64),
        ("CONTROL_BODY", limits::CONTROL_BODY as u64),
        ("DATA_BYTES", limits::DATA_BYTES as u64),
        ("DATA_BODY", limits::DATA_BODY as u64),
        ("WINDOW", limits::WINDOW),
        ("WINDOW_FRAMES", limits::WINDOW_FRAMES as u64),
        ("SLOTS", u64::from(limits::SLOTS)),
        ("TARGETS", limits::TARGETS as u64),
        ("TAGS", limits::TAGS as u64),
        ("STREAMS_PER_SLOT", limits::STREAMS_PER_SLOT as u64),
        ("MANIFEST_PART", limits::MANIFEST_PART as u64),
        ("FILES", limits::FILES as u64),
        ("HOLDS", limits::HOLDS as u64),
    ];
    let in_the_code: Vec<_> = include_str!("../src/limits.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(of_limits.map(|(name, _)| name)[..], in_the_code, "this test forgot a limit");
    let elsewhere = [
        ("URL_MAX", repository_url::URL_MAX as u64),
        ("NAME_MAX", names::NAME_MAX as u64),
        ("PATH_MAX", operator::PATH_MAX as u64),
        ("REQUESTS", operator::REQUESTS as u64),
        ("NAMES", operator::NAMES as u64),
        ("NAME_MAX` (people)", operator::NAME_MAX as u64),
        ("REASON_MAX", outcome::REASON_MAX as u64),
        ("MISSING_MAX", outcome::MISSING_MAX as u64),
    ];
    let rows = rows("## Limits");
    assert_eq!(rows.len(), of_limits.len() + elsewhere.len());
    for (row, (name, value)) in rows.iter().zip(of_limits.into_iter().chain(elsewhere)) {
        // One name is another limit's too, and says for whom it is behind the code.
        let name = if name.contains('`') { format!("`{name}") } else { format!("`{name}`") };
        assert!(row.starts_with(&format!("| {name} | {value} |")), "{name} = {value}: {row}");
    }
}

#[test]
fn every_kind_of_frame_and_refusal_is_described() {
    let kinds = [Kind::ClientHello, Kind::ServerHello, Kind::Proof, Kind::Refusal, Kind::Control, Kind::Data];
    for (kind, row) in kinds.into_iter().zip(rows("## Frames")) {
        assert!(row.starts_with(&format!("| {} | `{kind:?}` |", kind as u8)), "{kind:?}: {row}");
        assert!(row.ends_with(&format!("| {} |", kind.limit())), "{kind:?}: {row}");
    }
    let codes = RefusalCode::ALL;
    for (code, row) in codes.into_iter().zip(rows("### Refusal codes")) {
        assert!(row.starts_with(&format!("| {} | `{code:?}` |", code as u16)), "{code:?}: {row}");
    }
    assert_eq!((rows("## Frames").len(), rows("### Refusal codes").len()), (kinds.len(), codes.len()));
}

/// Whether the section's table has the enum's variants with their numbers, and each row its fields
/// in their order.
fn describes<'de, E: Deserialize<'de>>(heading: &str) {
    let (rows, variants) = (rows(heading), variants::<E>());
    assert_eq!(rows.len(), variants.len(), "{heading}: variants in the page and in the code");
    for (number, ((name, fields), row)) in variants.into_iter().zip(rows).enumerate() {
        assert!(row.starts_with(&format!("| {number} | `{name}` |")), "{heading}: {number} is {name}: {row}");
        has_fields(row, fields);
    }
}

fn has_fields(row: &str, fields: &[&str]) {
    let found: Vec<_> = row
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once(": "))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, fields, "{row}");
}

#[test]
fn every_message_is_described() {
    describes::<ToServer>("### ToServer");
    describes::<ToBuilder>("### ToBuilder");
    describes::<FromOperator>("### FromOperator");
    describes::<ToOperator>("### ToOperator");
    describes::<Act>("### Act");
    describes::<Place>("### Place");
    describes::<Role>("### Role");
    describes::<StreamMessage>("### StreamMessage");
    describes::<RepositoryUrl>("### RepositoryUrl");
    describes::<Outcome>("### Outcome");
    describes::<FailureKind>("### FailureKind");
    describes::<Phase>("### Phase");
    describes::<LogFile>("### LogFile");
}

#[test]
fn every_structure_is_described() {
    let row = |name: &str| {
        let start = format!("| `{name}` |");
        rows("### Structures").into_iter().find(|row| row.starts_with(&start)).unwrap()
    };
    has_fields(row("AttemptId"), &["boot", "serial"]);
    has_fields(row("Registration"), fields::<Registration>());
    has_fields(row("Resources"), fields::<Resources>());
    has_fields(row("Assignment"), fields::<Assignment>());
    has_fields(row("ManifestEntry"), fields::<ManifestEntry>());
    has_fields(row("HeldAttempt"), fields::<HeldAttempt>());
    has_fields(row("Operate"), fields::<Operate>());
    has_fields(row("Done"), fields::<Done>());
}

#[test]
fn every_example_is_golden() {
    let golden: Vec<_> = include_str!("golden.txt").lines().collect();
    let examples: Vec<_> = section("## Encoding")
        .lines()
        .filter(|line| ["ToServer ", "StreamMessage ", "frame "].iter().any(|k| line.starts_with(k)))
        .collect();
    assert!(examples.len() >= 5);
    for example in examples {
        assert!(golden.contains(&example), "{example}");
    }
}
