//! The report: what became of the queue, target by target.

use maud::{Markup, html};
use moji_proto::SrpmName;

use super::frame::{Frame, Fresh, Page, Part};
use super::table::{Row, table};
use super::{link, words};
use crate::report::words as sentences;
use crate::report::{Failed, Missing, Report, TargetReport};

/// Longest list; all of it stands in the report's own files.
const SHOWN_MAX: usize = 500;

/// What became of the queue; none: nobody has written one yet.
pub fn report(frame: Frame<'_>, report: Option<&Report>) -> Markup {
    let body = html! {
        @match report {
            None => {
                h1 { "Report" }
                (super::parts::nothing("There is no report yet.", html! { "One is written when the queue is empty or stuck, and by " code { "moji report" } "." }))
            },
            Some(report) => (whole(frame, report)),
        }
    };
    Page { title: "Report", part: Part::Report, above: None, fresh: Fresh::default(), body }.render(frame)
}

fn whole(frame: Frame<'_>, report: &Report) -> Markup {
    html! {
        section #report data-live {
            h1 { (sentences::standing(report.standing)) }
            p .lead { (sentences::outcomes(report)) "." }
            p .soft { (sentences::effort(report)) ". Written " (words::ago(frame.now, report.written_at)) "." }
            @if report.targets.len() > 1 {
                nav .choice aria-label="Targets" {
                    ul { @for (at, target) in report.targets.iter().enumerate() {
                        li { a href={ "#target-" (at) } { (sentences::name(target)) } }
                    } }
                }
            }
            @for (at, target) in report.targets.iter().enumerate() { (one(at, target)) }
        }
    }
}

fn one(at: usize, target: &TargetReport) -> Markup {
    let counts = target.counts;
    html! {
        section aria-labelledby={ "target-" (at) } {
            h2 id={ "target-" (at) } { (sentences::name(target)) @if let Some(span) = sentences::span(target) { span .count { (span) } } }
            (failures(target, "Failed", &target.failed, counts.failed))
            (failures(target, "Held, until a person says retry", &target.held, counts.held))
            (list("Parked", counts.parked, &["SRPM", "Misses"], target.parked.iter().map(|one| Row {
                key: one.srpm.to_string(),
                cells: vec![srpm(target, &one.srpm), needs(&one.missing)],
            })))
            (cycles(target))
            (list("Waiting", counts.waiting, &["SRPM", "For"], target.waiting.iter().map(|one| Row {
                key: one.srpm.to_string(),
                cells: vec![
                    srpm(target, &one.srpm),
                    html! { @if one.needs.is_empty() { (sentences::NO_BUILDER) } @else { (needs(&one.needs)) } },
                ],
            })))
            (list("Built", counts.built, &["SRPM", "Took#", "Attempts#", "Builder"], target.built.iter().map(|one| Row {
                key: one.srpm.to_string(),
                cells: vec![
                    srpm(target, &one.srpm),
                    html! { @if let Some(seconds) = one.seconds { (words::duration(seconds)) } },
                    html! { (one.attempts) },
                    html! { @if let Some(id) = &one.builder { (super::parts::builder(&id.to_string())) } },
                ],
            })))
        }
    }
}

fn srpm(target: &TargetReport, srpm: &SrpmName) -> Markup {
    let folder = target.target.as_ref().map(|target| format!("{target}/")).unwrap_or_default();
    html! { a href=(link::query("/find", &[("build", format!("{folder}{srpm}"))])) { (srpm.stem()) } }
}

fn list(title: &str, all: u64, columns: &[&str], rows: impl Iterator<Item = Row>) -> Markup {
    html! {
        @if all > 0 {
            h3 { (title) span .count { (words::number(all)) } }
            (table(title, columns, rows.take(SHOWN_MAX).collect()))
            (rest(all))
        }
    }
}

fn rest(all: u64) -> Markup {
    let rest = all.saturating_sub(SHOWN_MAX as u64);
    html! { @if rest > 0 { p .soft { "and " (words::number(rest)) " more: " a href="/repo/report.json" { "report.json" } } } }
}

fn failures(target: &TargetReport, title: &str, failed: &[Failed], all: u64) -> Markup {
    let shown = failed.get(..SHOWN_MAX.min(failed.len())).unwrap_or_default();
    html! {
        @if all > 0 {
            h3 { (title) span .count { (words::number(all)) } }
            @for (kind, failures) in sentences::by_kind(shown) {
                (table(&format!("{kind}: {}", failures.len()), &["SRPM", "Why"], failures.iter().map(|one| Row {
                    key: one.srpm.to_string(),
                    cells: vec![srpm(target, &one.srpm), failure(one)],
                }).collect()))
            }
            (rest(all))
        }
    }
}

fn failure(one: &Failed) -> Markup {
    html! {
        p { (sentences::plain(&one.reason)) }
        p .soft {
            (sentences::tried(one))
            @if let Some(logs) = &one.logs {
                "; " a href=(link::repo(&format!("{logs}/build.log"))) { "build.log" }
                ", " a href=(link::repo(&format!("{logs}/"))) { "all files" }
            }
        }
        @if let Some(excerpt) = &one.excerpt {
            pre .excerpt-lines tabindex="0" {
                @for (at, line) in excerpt.lines.iter().enumerate() {
                    @if at == excerpt.telling { mark { (sentences::plain(line)) } } @else { (sentences::plain(line)) }
                    "\n"
                }
            }
        }
    }
}

fn needs(missing: &[Missing]) -> Markup {
    html! { ul .plain { @for one in missing { li { code { (sentences::plain(&one.requirement)) } ": " (sentences::who(one)) } } } }
}

fn cycles(target: &TargetReport) -> Markup {
    html! {
        @if target.counts.cycles > 0 {
            h3 { "Dependency cycles" span .count { (words::number(target.counts.cycles)) } }
            ul .plain {
                @for cycle in target.cycles.iter().take(SHOWN_MAX) {
                    li {
                        (sentences::round(cycle))
                        ul { @for (package, requirement, of) in sentences::edges(cycle) {
                            li { (package) " needs " code { (requirement) } " of " (of) }
                        } }
                    }
                }
            }
            (rest(target.counts.cycles))
        }
    }
}
