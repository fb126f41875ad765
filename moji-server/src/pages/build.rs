//! One build: what became of it, why, its attempts, and its log while it runs.

use maud::{Markup, html};
use moji_proto::FailureKind;
use moji_proto::api::{Artifact, Attempt, Build, BuildDetail, BuildState, LogInfo, Missing, Why, WhyBuilder};

use super::frame::{Frame, Fresh, Page, Part};
use super::log::{LogPart, lines};
use super::table::{Row, table};
use super::{link, parts, words};

/// A build; why it is where it is, where that is worth telling; and the end of the log of what runs.
pub fn build(frame: Frame<'_>, detail: &BuildDetail, why: Option<&Why>, tail: Option<&LogPart>) -> Markup {
    let build = &detail.build;
    let name = parts::name(build);
    let running = detail.attempts.iter().find(|attempt| attempt.running.is_some());
    let body = html! {
        div #state data-live role="status" aria-atomic="true" {
            h1 { (name) " " (parts::state(build.state)) }
            (outcome(build, why))
        }
        section #facts data-live aria-label="Facts" { (facts(frame, detail)) }
        section #why data-live { (reasons(detail, why)) }
        @if let (Some(attempt), Some(tail)) = (running, tail) { (live(frame, build, attempt, tail)) }
        section #attempts data-live aria-labelledby="attempts-title" {
            h2 #attempts-title { "Attempts" span .count { (words::number(build.attempts.into())) } }
            @if detail.attempts.is_empty() { (parts::nothing(if build.state.is_open() { "No builder has had it yet." } else { "None that counts for this build." }, html! {})) }
            @else {
                (table("Attempts, the last one first", &["Attempt", "Ended", "Builder", "Target", "Took#", "Began#", "Logs"],
                    detail.attempts.iter().map(|one| attempt(frame, build, one)).collect()))
            }
        }
        section #artifacts data-live { (artifacts(detail)) }
    };
    let mut above = Vec::new();
    if let Some(package) = &build.package {
        above.push((link::package(package), package.as_str()));
    }
    let fresh = Fresh { build: Some(build.id), is_moving: build.state.is_open(), is_still: false };
    Page { title: &format!("{name} {}", build.state), part: Part::Builds, above: Some(&above), fresh, body }
        .render(frame)
}

fn outcome(build: &Build, why: Option<&Why>) -> Markup {
    html! {
        @if let Some(why) = why { p .lead { (why.summary) } }
        @else if build.reason.is_some() { p .lead { (parts::reason(build)) } }
    }
}

fn facts(frame: Frame<'_>, detail: &BuildDetail) -> Markup {
    let build = &detail.build;
    html! {
        dl .facts {
            div { dt { "Target" } dd { (parts::target(build.target.as_ref())) } }
            @if let Some(package) = &build.package { div { dt { "Package" } dd { a .quiet href=(link::package(package)) { (package) } } } }
            @if let Some(id) = &build.builder { div { dt { "Builder" } dd { (parts::builder(id)) } } }
            div { dt { "Queued" } dd { (words::ago(frame.now, build.queued_at)) } }
            @if let Some(at) = build.settled_at { div { dt { "Settled" } dd { (words::ago(frame.now, at)) } } }
            @if let Some(seconds) = build.took_seconds { div { dt { "Took" } dd { (words::duration(seconds)) } } }
            @if let Some(kind) = build.failure.filter(|kind| *kind != FailureKind::Interrupted) { div { dt { "Because of" } dd { (words::kind(kind)) } } }
            div .long { dt { "SRPM" } dd { (build.srpm) @if let Some(size) = detail.size { span .aside { " " (words::size(size)) } } } }
            @if let Some(digest) = &detail.sha256 { div .long { dt { "SHA-256" } dd { code { (digest) } } } }
        }
    }
}

fn reasons(detail: &BuildDetail, why: Option<&Why>) -> Markup {
    let excerpt = why.and_then(|why| why.excerpt.as_ref()).or(detail.excerpt.as_ref());
    let missing = why.map(|why| why.missing.as_slice()).unwrap_or_default();
    html! {
        @if let Some(excerpt) = excerpt { (parts::excerpt(excerpt)) }
        @if !missing.is_empty() { (misses(missing)) }
        @else if !detail.build.missing.is_empty() {
            h2 { "Missing" }
            ul .plain { @for requirement in &detail.build.missing { li { code { (requirement) } } } }
        }
        @if let Some(why) = why.filter(|why| detail.build.state != BuildState::Running && !why.builders.is_empty()) {
            h2 { "Why it waits" }
            @if let Some(place) = why.place { p { "It is number " (words::number(place)) " in the queue of its target." } }
            (waits(&why.builders))
        }
    }
}

fn misses(missing: &[Missing]) -> Markup {
    html! {
        h2 { "Missing" }
        ul .plain {
            @for one in missing {
                li {
                    code { (one.requirement) }
                    @if one.providers.is_empty() { span .soft { ": nothing here is known to bring it" } }
                    @for (at, provider) in one.providers.iter().enumerate() {
                        @if at == 0 { ": " } @else { ", " }
                        a href=(link::query("/find", &[("build", provider.build.clone())])) { (provider.build) }
                        " (" (provider.state) ")"
                    }
                }
            }
        }
    }
}

fn waits(builders: &[WhyBuilder]) -> Markup {
    let row = |one: &WhyBuilder| Row {
        key: one.builder.clone(),
        cells: vec![
            parts::builder(&one.builder),
            html! { @if one.reasons.is_empty() { "It gets it as soon as it asks" } @else { (one.reasons.join("; ")) } },
        ],
    };
    table(
        "For each builder, why it does not get it",
        &["Builder", "Why not"],
        builders.iter().map(row).collect(),
    )
}

fn live(frame: Frame<'_>, build: &Build, attempt: &Attempt, tail: &LogPart) -> Markup {
    html! {
        section aria-labelledby="log-title" {
            h2 #log-title {
                "Log" span .count { (tail.name) }
                @if let Some(running) = &attempt.running {
                    span #doing data-live .count { (parts::doing(running)) ", " (parts::progress(frame, running)) }
                }
                a .more href=(link::log(build.id, attempt.id, tail.name.as_str())) { "Whole log" }
            }
            (lines(tail, true))
        }
    }
}

fn attempt(frame: Frame<'_>, build: &Build, one: &Attempt) -> Row {
    Row {
        key: one.id.to_string(),
        cells: vec![
            html! { code { (one.id) } },
            html! {
                (ending(one))
                @if let Some(reason) = &one.reason { p .reason { (reason) } }
                @if !one.missing.is_empty() { p .reason { "misses " (one.missing.join(", ")) } }
            },
            parts::builder(&one.builder),
            parts::target(Some(&one.target)),
            html! {
                @match one.ended_at {
                    Some(ended) => (words::duration(words::seconds(one.leased_at, ended))),
                    None => (words::since(frame.now, one.leased_at)),
                }
            },
            words::ago(frame.now, one.leased_at),
            html! { @for log in &one.logs { (log_link(build, one, log)) " " } },
        ],
    }
}

fn log_link(build: &Build, attempt: &Attempt, log: &LogInfo) -> Markup {
    html! { a href=(link::log(build.id, attempt.id, log.name.as_str())) title=(words::size(log.bytes)) { (log.name) } }
}

fn ending(one: &Attempt) -> Markup {
    html! {
        @match (one.ended_at, one.succeeded, one.ending.as_deref()) {
            (None, ..) => (parts::state(BuildState::Running)),
            (_, Some(true), Some("delivered") | None) => (parts::state(BuildState::Succeeded)),
            (_, Some(false), Some("delivered") | None) => {
                (parts::state(BuildState::Failed))
                @if let Some(kind) = one.failure { span .aside { " " (words::kind(kind)) } }
                @if let Some(code) = one.exit_code { span .aside { ", exit code " (code) } }
            },
            (.., Some(ending)) => (parts::badge("withdrawn", "M3 8H13", ending)),
            (_, None, None) => "ended",
        }
    }
}

fn artifacts(detail: &BuildDetail) -> Markup {
    let folder = detail.folder.as_deref().and_then(|folder| folder.strip_prefix("/repo/"));
    let place =
        |name: &str| folder.map(|folder| link::repo(&format!("{}/{name}", folder.trim_end_matches('/'))));
    let row = |one: &Artifact| Row {
        key: one.name.to_string(),
        cells: vec![
            html! {
                @match place(one.name.as_str()) { Some(href) => a href=(href) { (one.name) }, None => (one.name) }
            },
            html! { (words::size(one.size)) },
            html! { code .digest { (one.sha256) } },
        ],
    };
    html! {
        @if !detail.artifacts.is_empty() {
            h2 {
                "Artifacts" span .count { (words::number(detail.artifacts.len() as u64)) }
                @if let Some(folder) = folder { a .more href=(link::repo(folder)) { "Folder" } }
            }
            (table("What was published", &["File", "Size#", "SHA-256"], detail.artifacts.iter().map(row).collect()))
        } @else if let Some(folder) = folder {
            h2 { "Files" }
            p { a href=(link::repo(folder)) { "All files of its last attempt" } }
        }
    }
}
