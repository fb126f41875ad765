//! The lines of a build.log that tell why a build failed.
//!
//! The first error of the section that failed, because what follows an error is mostly its consequence.
//! What counts as an error is a table of rules ([`rules`]), the surest first; in `%check` what test
//! suites write goes before what compilers write, because tests of errors print errors.
//!
//! The builder has put one line into the outcome already, by like rules that must also tell the package's
//! fault from the builder's; these here only choose what is shown, and show more of it. It deliberately
//! does not know outcomes, and judges nothing.

mod rules;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use moji_proto::outcome;
use serde::{Deserialize, Serialize};

use rules::{Section, Weight};

/// How much of a log is looked at, from its end.
const BYTES_MAX: usize = 4 << 20;
/// How many lines of that.
const LINES_MAX: usize = 200_000;
/// How much of a line is looked at: logs have lines of megabytes.
const LINE_BYTES_MAX: usize = 4096;
/// Longest line that is shown, in characters.
const SHOWN_MAX: usize = 240;
/// Lines that are shown before the telling one, and after it.
const BEFORE: usize = 2;
const AFTER: usize = 4;

/// Some lines of a log. Plain text: nothing in them moves a cursor, or hides what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Which line of the log tells why, from 1; absent when only the end of the log was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_number: Option<u64>,
    /// The lines.
    pub lines: Vec<String>,
    /// Which of `lines` it is, from 0.
    pub telling: usize,
}

/// The lines that tell why the build failed; `None` when the log does not show a failure.
pub fn excerpt(build_log: &str) -> Option<Excerpt> {
    let (begin, text) = tail(build_log);
    let skipped = build_log.get(..begin).unwrap_or_default();
    let lines: Vec<&str> = text.split('\n').map(visible).collect();
    let found = find(&lines)?;
    let line = skipped.matches('\n').count() + found + 1;
    Some(Excerpt { line_number: u64::try_from(line).ok(), ..around(&lines, found) })
}

/// The same of a file, of which no more than the last 4 MiB are read. Blocks.
///
/// # Errors
/// When the file cannot be read.
pub fn excerpt_of(mut file: File) -> io::Result<Option<Excerpt>> {
    let most = BYTES_MAX as u64;
    let skipped = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let found = excerpt(&String::from_utf8_lossy(&bytes));
    let line_number = |line: Option<u64>| line.filter(|_| skipped == 0);
    Ok(found.map(|found| Excerpt { line_number: line_number(found.line_number), ..found }))
}

/// Where the part begins that is looked at, at the beginning of a line, and that part.
fn tail(log: &str) -> (usize, &str) {
    let mut begin = log.len().saturating_sub(BYTES_MAX);
    while !log.is_char_boundary(begin) {
        begin += 1;
    }
    let tail = log.get(begin..).unwrap_or_default();
    if begin > 0
        && let Some(end) = tail.find('\n')
    {
        begin += end + 1;
    }
    let tail = log.get(begin..).unwrap_or_default();
    match tail.rmatch_indices('\n').nth(LINES_MAX) {
        Some((at, _)) => (begin + at + 1, tail.get(at + 1..).unwrap_or_default()),
        None => (begin, tail),
    }
}

/// What of a line was visible last, where a progress bar wrote over it, and no more than may matter.
fn visible(line: &str) -> &str {
    let line = line.trim_end();
    let line = line.rfind('\r').and_then(|at| line.get(at + 1..)).unwrap_or(line);
    let mut end = LINE_BYTES_MAX.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.get(..end).unwrap_or(line)
}

/// The line that tells most.
fn find(lines: &[&str]) -> Option<usize> {
    let (begin, section) = failed_part(lines)?;
    let mut best: Option<(Weight, usize)> = None;
    let mut last = None;
    let mut traceback = false;
    for (at, line) in lines.iter().enumerate().skip(begin) {
        let line = plain(line);
        if rules::is_noise(&line) {
            continue;
        }
        last = Some(at);
        let weight = match rules::weight(&line, section) {
            _ if line.trim_start().starts_with("Traceback (most recent call last)") => {
                traceback = true;
                None
            }
            // What ends a traceback is the first line that is not further in than its beginning.
            _ if traceback && !line.starts_with([' ', '|', '+']) => {
                traceback = false;
                Some(Weight::Telling)
            }
            weight => weight,
        };
        let Some(weight) = weight else { continue };
        if best.is_none_or(|(heaviest, _)| weight > heaviest) {
            best = Some((weight, at));
        }
    }
    best.map(|(_, at)| at).or(last)
}

/// Where the part begins that failed, and what it is; `None` when nothing failed in this log.
fn failed_part(lines: &[&str]) -> Option<(usize, Section)> {
    let last_where = |is: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| is(line));
    // Mock runs rpmbuild more than once: only the last run counts.
    let run = last_where(&|line| line.starts_with("Executing command:")).unwrap_or(0);
    let this_run = lines.get(run..).unwrap_or_default();
    let is_over = |line: &&str| {
        matches!(line.strip_prefix("Child return code was: "), Some("0"))
            || line.starts_with("Going to install missing buildrequires")
    };
    if this_run.iter().any(is_over) {
        return None;
    }
    let failed = this_run.iter().rev().find_map(|line| rules::failed_section(line));
    let begins = |name: &str| last_where(&|line| line.starts_with(&format!("Executing({name})")));
    if let Some(name) = failed {
        let section = if name == "%check" { Section::Check } else { Section::Other };
        return Some((begins(name).filter(|at| *at >= run).unwrap_or(run), section));
    }
    // rpmbuild itself: what is packaged is looked at when all sections are through.
    let files = last_where(&|line| line.starts_with("Processing files:")).filter(|at| *at >= run);
    let any = last_where(&|line| line.starts_with("Executing(%")).filter(|at| *at >= run);
    Some((files.or(any).unwrap_or(run), Section::Other))
}

/// The line and its neighbours.
fn around(lines: &[&str], found: usize) -> Excerpt {
    let is_noise = |at: usize| lines.get(at).is_none_or(|line| rules::is_noise(&plain(line)));
    let mut begin = found.saturating_sub(BEFORE);
    while begin < found && is_noise(begin) {
        begin += 1;
    }
    let mut end = found.saturating_add(AFTER).min(lines.len().saturating_sub(1));
    while end > found && is_noise(end) {
        end -= 1;
    }
    let shown = lines.get(begin..=end).unwrap_or_default();
    Excerpt {
        line_number: None,
        lines: shown.iter().map(|line| cut(&plain(line))).collect(),
        telling: found - begin,
    }
}

/// Without colours and whatever else a terminal obeys.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            text.push(c);
        } else if chars.next_if_eq(&'[').is_some() {
            // A CSI sequence ends with a letter or one of a few signs (ECMA-48, 5.4).
            while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
        } else if chars.next_if_eq(&']').is_some() {
            // An OSC sequence ends with BEL or ST.
            while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {}
            chars.next_if_eq(&'\\');
        }
    }
    let mut text = outcome::plain(&text);
    text.truncate(text.trim_end().len());
    text
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(SHOWN_MAX - 1) {
        Some((at, _)) if line.chars().count() > SHOWN_MAX => format!("{}…", line.get(..at).unwrap_or(line)),
        _ => line.to_owned(),
    }
}
