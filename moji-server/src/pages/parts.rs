//! Pieces that several pages show: states, builds, attempts that run, bars.

use maud::{Markup, html};
use moji_proto::TargetName;
use moji_proto::api::{Build, BuildState, BuilderState, Excerpt, History, Running};

use super::frame::Frame;
use super::table::{Row, table};
use super::{link, words};

/// A state: a shape, a colour and a word, so that none of them is needed to know it.
pub(super) fn state(state: BuildState) -> Markup {
    badge(state.word(), shape_of(state.word()), state.word())
}

pub(super) fn builder_state(state: BuilderState) -> Markup {
    badge(state.word(), shape_of(state.word()), state.word())
}

pub(super) fn badge(class: &str, shape: &str, word: &str) -> Markup {
    html! {
        span class={ "state is-" (class) } {
            svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" { path d=(shape) {} }
            (word)
        }
    }
}

fn shape_of(word: &str) -> &'static str {
    match word {
        "queued" | "idle" => "M8 2.8a5.2 5.2 0 1 0 0 10.4A5.2 5.2 0 1 0 8 2.8Z",
        "parked" => "M8 2 14 8 8 14 2 8Z",
        "running" | "building" => "M5 3.2 12.6 8 5 12.8Z",
        "succeeded" => "M2.8 8.6 6.4 12.2 13.2 4.4",
        "failed" => "M4 4 12 12M12 4 4 12",
        "held" | "drained" => "M5.4 3.4V12.6M10.6 3.4V12.6",
        "draining" => "M8 2.6V12.6M3.8 8.6 8 12.8 12.2 8.6",
        "suspended" | "lost" => "M8 2.4 14.4 13.4H1.6Z",
        _ => "M3 8H13",
    }
}

/// For which target something is.
pub(super) fn target(target: Option<&TargetName>) -> Markup {
    html! {
        @match target {
            Some(name) => a .quiet href=(link::target(target)) { (name) },
            None => a .quiet href=(link::target(None)) title="SOURCE itself" { "any" },
        }
    }
}

pub(super) fn builder(id: &str) -> Markup {
    html! { a .quiet href=(link::builder(id)) { (id) } }
}

/// What a build is called: its NVR, or else its file.
pub(super) fn name(build: &Build) -> &str {
    build.nvr.as_ref().map_or(build.srpm.as_str(), |nvr| nvr.as_str())
}

fn when(frame: Frame<'_>, build: &Build) -> Markup {
    words::ago(frame.now, build.settled_at.unwrap_or(build.queued_at))
}

fn took(build: &Build) -> Markup {
    html! { @if let Some(seconds) = build.took_seconds { (words::duration(seconds)) } }
}

/// Why a build is what it is, in one line, and what it misses.
pub(super) fn reason(build: &Build) -> Markup {
    html! {
        @if let Some(reason) = &build.reason { (reason) }
        @if build.reason.is_none() && !build.missing.is_empty() { "misses " (build.missing.join(", ")) }
    }
}

/// Builds, in outline.
pub(super) fn builds(frame: Frame<'_>, caption: &str, builds: &[Build]) -> Markup {
    let row = |build: &Build| Row {
        key: build.id.to_string(),
        cells: vec![
            html! {
                a href=(link::build(build.id)) { (name(build)) }
                @if build.reason.is_some() || !build.missing.is_empty() { p .reason { (reason(build)) } }
            },
            state(build.state),
            target(build.target.as_ref()),
            html! { @if let Some(id) = &build.builder { (builder(id)) } },
            took(build),
            when(frame, build),
        ],
    };
    table(
        caption,
        &["Build", "State", "Target", "Builder", "Took#", "When#"],
        builds.iter().map(row).collect(),
    )
}

/// Builds, in short: what became of what, and why.
pub(super) fn brief(frame: Frame<'_>, builds: &[Build]) -> Markup {
    html! {
        ul .brief {
            @for build in builds {
                li data-key=(build.id) {
                    (state(build.state))
                    a href=(link::build(build.id)) { (name(build)) }
                    span .aside { (target(build.target.as_ref())) " " (when(frame, build)) }
                    @if build.reason.is_some() || !build.missing.is_empty() { p .reason { (reason(build)) } }
                }
            }
        }
    }
}

/// What runs.
pub(super) fn running(frame: Frame<'_>, running: &[Running]) -> Markup {
    let row = |one: &Running| Row {
        key: one.attempt.to_string(),
        cells: vec![
            html! {
                @match one.build {
                    Some(id) => a href=(link::build(id)) { (one.srpm.stem()) },
                    None => (one.srpm.stem()),
                }
            },
            target(Some(&one.target)),
            builder(&one.builder),
            doing(one),
            progress(frame, one),
        ],
    };
    table(
        "What runs, the oldest first",
        &["Build", "Target", "Builder", "Doing", "For"],
        running.iter().map(row).collect(),
    )
}

pub(super) fn doing(one: &Running) -> Markup {
    html! {
        @if one.is_orphaned { (badge("lost", shape_of("lost"), "connection lost, it may come back")) }
        @else if one.is_publishing { "publishing" }
        @else if let Some(phase) = one.phase { (words::phase(phase)) }
        @else { "starting" }
    }
}

/// How long it has run, and of how long that is a part.
pub(super) fn progress(frame: Frame<'_>, one: &Running) -> Markup {
    let gone = words::seconds(one.since, frame.now);
    html! {
        (words::since(frame.now, one.since))
        @if let Some(expected) = one.expected_seconds.filter(|expected| *expected > 0) {
            span .aside { " of about " (words::duration(expected)) }
            progress max=(expected) value=(gone.min(expected)) data-since=(one.since)
                aria-label="Part of the expected time" {}
        }
    }
}

/// Shares as one bar, with the same in words beside it for those who do not see it.
pub(super) fn shares(shares: &[(&str, u64)]) -> Markup {
    let all: u64 = shares.iter().map(|(_, count)| count).sum();
    let mut x = 0;
    let bars: Vec<(&str, u64, u64)> = shares
        .iter()
        .map(|(class, count)| {
            let width = (count * 1000).checked_div(all).unwrap_or(0);
            let from = x;
            x += width;
            (*class, from, width)
        })
        .filter(|(.., width)| *width > 0)
        .collect();
    html! {
        svg .shares viewBox="0 0 1000 8" preserveAspectRatio="none" aria-hidden="true" {
            rect width="1000" height="8" class="rest" {}
            @for (class, x, width) in bars { rect x=(x) width=(width) height="8" class={ "fill-" (class) } {} }
        }
    }
}

/// What was settled in some time, in words.
pub(super) fn settled(history: History) -> Markup {
    let History { succeeded, failed, held } = history;
    html! {
        @if succeeded + failed + held == 0 { span .soft { "nothing settled" } }
        @else {
            (words::number(succeeded)) " succeeded"
            @if failed > 0 { ", " (words::number(failed)) " failed" }
            @if held > 0 { ", " (words::number(held)) " held" }
        }
    }
}

/// Lines of a log that tell why.
pub(super) fn excerpt(excerpt: &Excerpt) -> Markup {
    html! {
        figure .excerpt {
            figcaption { "From " (excerpt.log) }
            pre tabindex="0" { @for line in &excerpt.lines { (line) "\n" } }
        }
    }
}

/// What to do where there is nothing to see.
pub(super) fn nothing(text: &str, hint: Markup) -> Markup {
    html! { div .nothing { p { (text) } @if !hint.0.is_empty() { p .soft { (hint) } } } }
}
