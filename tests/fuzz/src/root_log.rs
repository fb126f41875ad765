//! What a run of Mock has left: the verdict, and the reading of root.log and the other logs.
//!
//! The first byte says how Mock ended, the second one what else is known; then come root.log, mock.log,
//! build.log and state.log with a record separator between them.

use moji_client::mock::classify::{classify, fuzzing};
use moji_client::mock::{Ended, Evidence};
use moji_proto::outcome::{FailureKind, MISSING_MAX, Outcome, REASON_MAX};

use super::assert_shown;

/// Between logs.
const SEPARATOR: u8 = 0x1e;
/// Longest part of a line that counts.
const LINE_MAX: usize = 4096;
/// Of so many lines every part is looked at.
const FEW: usize = 1000;
/// The exit codes that mean something, and one that does not.
const CODES: [i32; 20] = [0, 1, 2, 3, 5, 6, 7, 10, 11, 30, 31, 40, 50, 60, 129, 141, 143, 241, 247, 255];

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let Some(([how, what], bytes)) = bytes.split_first_chunk() else { return };
    let mut logs = bytes.splitn(4, |byte| *byte == SEPARATOR);
    // Now and then much of it: what takes more than its time shows.
    let times = if what & 0x80 == 0 { 1 } else { 40 };
    let mut log = || String::from_utf8_lossy(logs.next().unwrap_or_default()).repeat(times);
    let evidence = Evidence {
        ended: ended(*how),
        root_log: log(),
        mock_log: log(),
        build_log: log(),
        state_log: log(),
        lowest_free: (what & 1 == 1).then(|| u64::from(what >> 2 & 7) << 26),
        result_dir_empty: what & 2 == 2,
    };
    let outcome = classify(&evidence);
    assert_eq!(classify(&evidence), outcome);
    assert_eq!(outcome.clone().bounded(), outcome);
    match outcome {
        Outcome::Succeeded => assert_success(&evidence),
        Outcome::Failed { kind, reason, missing, .. } => {
            assert_shown(&reason, REASON_MAX);
            assert!(!reason.is_empty());
            assert_eq!(missing.is_empty(), kind != FailureKind::MissingDependency);
            assert_in_logs(&missing, &evidence);
        }
    }
    for log in [&evidence.root_log, &evidence.mock_log, &evidence.build_log, &evidence.state_log] {
        assert_lines(log);
    }
    assert_section(&evidence.root_log);
}

fn ended(how: u8) -> Ended {
    match how {
        250 => Ended::TimedOut,
        251 => Ended::Stalled,
        252 => Ended::Cancelled,
        253 => Ended::NotStarted("no such file".to_owned()),
        200..250 => Ended::Signal(i32::from(how - 200)),
        _ => Ended::Exit(CODES.get(usize::from(how)).copied().unwrap_or(i32::from(how) - 100)),
    }
}

/// Nothing is taken for a success of which no log says so.
fn assert_success(evidence: &Evidence) {
    assert!(!evidence.result_dir_empty);
    assert!(!matches!(evidence.ended, Ended::Cancelled | Ended::NotStarted(_)));
    assert!(evidence.state_log.contains("Finish: run") || evidence.mock_log.contains("INFO: Done("));
}

/// What an SRPM waits for was asked for: it stands in a log.
fn assert_in_logs(missing: &[String], evidence: &Evidence) {
    let shown = |log: &str| {
        let hidden =
            |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        log.chars().map(|c| if hidden(c) { ' ' } else { c }).collect::<String>()
    };
    let logs = [shown(&evidence.root_log), shown(&evidence.mock_log)];
    for name in missing {
        assert_shown(name, REASON_MAX);
        assert!(logs.iter().any(|log| log.contains(name)), "{name:?} is invented");
        assert!(!name.is_empty());
    }
}

/// As many lines as there are, each a part of its own.
fn assert_lines(log: &str) {
    let lines = fuzzing::lines(log);
    assert_eq!(lines.len(), log.split('\n').count());
    for (line, whole) in lines.iter().zip(log.split('\n')) {
        assert!(line.len() <= LINE_MAX && whole.contains(line), "{line:?} of {whole:?}");
        assert!(whole.contains('\r') || whole.len() > LINE_MAX || *line == whole.trim_end());
    }
}

/// The section that failed is all that stands before the exit code of a command; what is missing stands
/// in it, and what it says plainly is not overlooked.
fn assert_section(root_log: &str) {
    let section = fuzzing::last_failed_section(root_log);
    let lines = fuzzing::lines(root_log);
    if lines.len() <= FEW {
        let is_it = |part: &[&str]| {
            let Some((code, output)) = part.split_last() else { return false };
            code.contains("Child return code was: ")
                && output.iter().zip(&section).all(|(line, text)| line.ends_with(text))
        };
        let found = section.is_empty() || lines.windows(section.len() + 1).any(is_it);
        assert!(found, "{section:?} is invented");
    }
    let missing = fuzzing::missing(&section);
    assert!(missing.len() <= MISSING_MAX);
    for (at, name) in missing.iter().enumerate() {
        assert!(section.iter().any(|line| line.contains(name)) && !missing[..at].contains(name), "{name:?}");
    }
    let plain = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    let said = section.iter().filter_map(|line| line.strip_prefix("No matching package to install: "));
    for name in said.filter(plain) {
        assert!(missing.contains(&name) || missing.len() == MISSING_MAX, "{name:?} is lost");
    }
}
