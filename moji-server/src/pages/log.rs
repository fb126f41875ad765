//! A log, one part of it at a time: the end first, whole lines, numbered where that is known.

use maud::{Markup, html};
use moji_proto::api::Build;
use moji_proto::{ArtifactName, AttemptId};

use super::frame::{Frame, Fresh, Page, Part};
use super::{link, parts, words};
use crate::log_text::Line;

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPart {
    /// Whose log it is.
    pub attempt: AttemptId,
    /// Which log.
    pub name: ArtifactName,
    /// Where the part begins, in bytes; at the beginning of a line.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// How long the log is, now.
    pub size: u64,
    /// The number of its first line, when that is known.
    pub first: Option<u64>,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Whether the log may grow.
    pub is_growing: bool,
    /// Where the part before this one begins; none: there is none.
    pub before: Option<u64>,
}

impl LogPart {
    fn is_end(&self) -> bool {
        self.to >= self.size
    }
}

/// A log of a build's attempt.
pub fn log(frame: Frame<'_>, build: &Build, part: &LogPart) -> Markup {
    let name = parts::name(build);
    let here = link::log(build.id, part.attempt, part.name.as_str());
    let at = |from: u64| format!("{here}&from={from}");
    let steps = html! {
        @if let Some(before) = part.before {
            a href=(at(0)) { "Begin" }
            a rel="prev" href=(at(before)) { "Before" }
        }
        @if !part.is_end() { a rel="next" href=(at(part.to)) { "After" } a href=(here) { "End" } }
        a href=(link::raw_log(part.attempt, part.name.as_str())) { "As a file" }
    };
    let body = html! {
        h1 { (part.name) " " span .count { (words::size(part.size)) } }
        p .soft {
            "Attempt " code { (part.attempt) } " of " a href=(link::build(build.id)) { (name) } ". "
            @if part.from > 0 || !part.is_end() {
                "Bytes " (words::number(part.from)) " to " (words::number(part.to)) ". "
            }
            @if part.is_growing && part.is_end() { "It goes on." }
        }
        nav .pages aria-label="Parts of the log" { (steps) }
        (lines(part, part.is_growing && part.is_end()))
        nav .pages aria-label="Parts of the log, again" { (steps) }
    };
    let above = [(link::build(build.id), name)];
    let fresh = Fresh { is_still: true, ..Fresh::default() };
    let title = format!("{} of {name}", part.name);
    Page { title: &title, part: Part::Builds, above: Some(&above), fresh, body }.render(frame)
}

/// The lines; `follows`: the script adds those that come.
pub(super) fn lines(part: &LogPart, follows: bool) -> Markup {
    html! {
        div .log-box {
            ol .log tabindex="0" aria-label={ "Lines of " (part.name) } .unnumbered[part.first.is_none()]
                start=[part.first.filter(|first| *first > 1)]
                data-lines=[follows.then(|| link::lines(part.attempt, part.name.as_str()))]
                data-offset=[follows.then_some(part.to)] {
                @for (at, line) in part.lines.iter().enumerate() {
                    li value=[part.first.map(|first| first + at as u64)] {
                        @for segment in &line.segments {
                            @let style = segment.style.name();
                            @if style.is_empty() { (segment.text) } @else { span class={ "s-" (style) } { (segment.text) } }
                        }
                    }
                }
            }
            @if part.lines.is_empty() { p .soft .none { "There are no lines yet." } }
        }
    }
}
