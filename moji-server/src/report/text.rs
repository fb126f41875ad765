//! The report for a terminal or a journal: plain, at most 80 columns unless a single word is longer.

use std::fmt::Write as _;

use super::words::{self, count, duration, plain};
use super::{Failed, Missing, Report, SHOWN_MAX, TargetReport};

const COLUMNS: usize = 80;

/// As plain text.
pub fn text(report: &Report) -> String {
    let mut page = Page(String::new());
    let title = format!("{} ({})", words::standing(report.standing), words::moment(report.written_at));
    page.paragraph(0, 0, &title);
    page.paragraph(0, 0, &format!("{}.", words::outcomes(report)));
    page.paragraph(0, 0, &format!("{}.", words::effort(report)));
    report.targets.iter().for_each(|one| target(&mut page, one));
    page.0
}

fn target(page: &mut Page, target: &TargetReport) {
    page.line("");
    page.line(&format!("== {} ==", words::name(target)));
    if let Some(span) = words::span(target) {
        page.paragraph(0, 0, &format!("{span}."));
    }
    let counts = target.counts;
    failures(page, "Failed", &target.failed, counts.failed);
    failures(page, "Held, until a person moves it back to SOURCE", &target.held, counts.held);
    page.heading("Parked", counts.parked);
    for parked in target.parked.iter().take(SHOWN_MAX) {
        page.paragraph(2, 4, &format!("{} ({})", parked.srpm, count(parked.attempts.into(), "attempt")));
        needs(page, &parked.missing);
    }
    page.rest(counts.parked);
    page.heading("Dependency cycles", counts.cycles);
    for cycle in target.cycles.iter().take(SHOWN_MAX) {
        page.paragraph(2, 4, &words::round(cycle));
        for (package, requirement, of) in words::edges(cycle) {
            page.paragraph(4, 6, &format!("{package} needs {requirement} of {of}"));
        }
    }
    page.rest(counts.cycles);
    page.heading("Waiting", counts.waiting);
    for waiting in target.waiting.iter().take(SHOWN_MAX) {
        page.paragraph(2, 4, waiting.srpm.as_str());
        needs(page, &waiting.needs);
        if waiting.needs.is_empty() {
            page.paragraph(4, 6, words::NO_BUILDER);
        }
    }
    page.rest(counts.waiting);
    page.heading("Built", counts.built);
    for built in target.built.iter().take(SHOWN_MAX) {
        let mut line = built.srpm.to_string();
        let told = [
            built.seconds.map(duration),
            Some(count(built.attempts.into(), "attempt")).filter(|_| built.attempts > 1),
            built.builder.as_ref().map(|builder| format!("on {builder}")),
        ];
        let told: Vec<String> = told.into_iter().flatten().collect();
        if !told.is_empty() {
            let _ = write!(line, ": {}", told.join(", "));
        }
        page.paragraph(2, 4, &line);
    }
    page.rest(counts.built);
}

fn failures(page: &mut Page, title: &str, failed: &[Failed], all: u64) {
    page.heading(title, all);
    let shown = failed.get(..SHOWN_MAX.min(failed.len())).unwrap_or_default();
    for (kind, failures) in words::by_kind(shown) {
        page.line(&format!("  {kind}: {}", failures.len()));
        for failed in failures {
            page.paragraph(
                4,
                6,
                &format!("{} ({}): {}", failed.srpm, words::tried(failed), plain(&failed.reason)),
            );
            for (at, line) in failed.excerpt.iter().flat_map(|excerpt| excerpt.lines.iter().enumerate()) {
                let is_telling = failed.excerpt.as_ref().is_some_and(|excerpt| excerpt.telling == at);
                page.quote(if is_telling { "      > " } else { "      | " }, &plain(line));
            }
            if let Some(logs) = &failed.logs {
                page.paragraph(6, 8, &format!("{}/build.log", plain(logs)));
            }
        }
    }
    page.rest(all);
}

fn needs(page: &mut Page, missing: &[Missing]) {
    for missing in missing {
        let requirement = plain(&missing.requirement);
        page.paragraph(4, 6, &format!("needs {requirement}: {}", words::who(missing)));
    }
}

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    /// Nothing for an empty list.
    fn heading(&mut self, title: &str, all: u64) {
        if all > 0 {
            self.line("");
            self.line(&format!("{title}: {all}"));
        }
    }

    /// How many entries of a list there is no room for.
    fn rest(&mut self, all: u64) {
        let rest = all.saturating_sub(SHOWN_MAX as u64);
        if rest > 0 {
            self.line(&format!("  and {rest} more"));
        }
    }

    /// Words, with the first line so far in, and the others.
    fn paragraph(&mut self, first: usize, others: usize, text: &str) {
        let mut line = " ".repeat(first);
        let (mut width, mut begins) = (first, true);
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if !begins && width + 1 + length > COLUMNS {
                self.line(&line);
                line = " ".repeat(others);
                (width, begins) = (others, true);
            }
            if !begins {
                line.push(' ');
                width += 1;
            }
            line.push_str(word);
            width += length;
            begins = false;
        }
        self.line(&line);
    }

    /// A line as it is, cut where it is too long, with a mark in front.
    fn quote(&mut self, mark: &str, line: &str) {
        let chars: Vec<char> = line.chars().collect();
        let room = COLUMNS - mark.len();
        if chars.is_empty() {
            self.line(mark);
        }
        for (at, part) in chars.chunks(room).enumerate() {
            let mark = if at == 0 { mark } else { "        " };
            self.line(&format!("{mark}{}", part.iter().collect::<String>()));
        }
    }
}
