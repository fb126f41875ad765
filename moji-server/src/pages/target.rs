//! Targets: what is built for what, and where dnf finds it.

use maud::{Markup, html};
use moji_proto::api::{Build, Target};

use super::frame::{Frame, Fresh, Page, Part};
use super::table::{Row, table};
use super::{link, parts, words};
use crate::history::BuildFilter;

fn name(target: &Target) -> &str {
    target.name.as_ref().map_or("any builder", |name| name.as_str())
}

/// All targets.
pub fn targets(frame: Frame<'_>, targets: &[Target]) -> Markup {
    let row = |one: &Target| Row {
        key: link::target_word(one.name.as_ref()).to_owned(),
        cells: vec![
            html! { a href=(link::target(one.name.as_ref())) { (name(one)) } },
            html! { (words::number(one.queue.running)) },
            html! { (words::number(one.queue.ready)) },
            html! { (words::number(one.queue.waiting)) },
            html! { (words::number(one.queue.parked)) },
            html! { (words::number(one.builders)) },
            parts::settled(one.day),
        ],
    };
    let body = html! {
        h1 { "Targets" }
        section #targets data-live {
            @if targets.is_empty() {
                (parts::nothing("There is no target yet.", html! { "A folder in SOURCE that is called like a Mock config is one." }))
            } @else {
                (table("What is built for what", &["Target", "Running#", "Ready#", "Waiting#", "Parked#", "Builders#", "Last 24 hours"],
                    targets.iter().map(row).collect()))
            }
        }
    };
    Page { title: "Targets", part: Part::Targets, above: None, fresh: Fresh::default(), body }.render(frame)
}

/// One target; `origin`: where this server is found, like `http://host:6780`.
pub fn target(frame: Frame<'_>, target: &Target, origin: Option<&str>, newest: &[Build]) -> Markup {
    let name = name(target);
    let filter = BuildFilter { target: Some(target.name.clone()), ..BuildFilter::default() };
    let queue = link::query("/queue", &[("target", link::target_word(target.name.as_ref()).to_owned())]);
    let below = target.name.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
    let body = html! {
        h1 { (name) @if target.name.is_none() { span .count { "SRPMs directly in SOURCE" } } }
        section #state data-live {
            ul .tiles {
                li { a href=(link::builds(&BuildFilter { states: vec![moji_proto::api::BuildState::Running], ..filter.clone() })) {
                    span .figure.is-running { (words::number(target.queue.running)) } span .tile-title { "running" } } }
                li { a href=(queue) { span .figure.is-queued { (words::number(target.queue.ready)) } span .tile-title { "ready" } } }
                li { a href=(queue) { span .figure.is-waiting { (words::number(target.queue.waiting)) } span .tile-title { "waiting" } } }
                li { a href=(queue) { span .figure.is-parked { (words::number(target.queue.parked)) } span .tile-title { "parked" } } }
                li .wide {
                    p .tile-title { "Last 24 hours" }
                    (parts::shares(&[("succeeded", target.day.succeeded), ("failed", target.day.failed), ("held", target.day.held)]))
                    p { (parts::settled(target.day)) }
                    p .soft { (words::many(target.builders, "builder")) " for it" }
                }
            }
        }
        section aria-labelledby="dnf-title" {
            h2 #dnf-title { "For dnf" a .more href=(link::repo(&below)) { "Files" } }
            @if target.generation == 0 { p .soft { "Nothing is published yet; dnf finds it here once something is." } }
            (dnf(target, origin, &below))
        }
        section #newest data-live aria-labelledby="newest-title" {
            h2 #newest-title { "Newest builds" a .more href=(link::builds(&filter)) { "All, and search" } }
            @if newest.is_empty() { (parts::nothing("Nothing was built for it yet.", html! {})) }
            @else { (parts::builds(frame, "Builds, the newest first", newest)) }
        }
    };
    Page { title: name, part: Part::Targets, above: Some(&[]), fresh: Fresh::default(), body }.render(frame)
}

fn dnf(target: &Target, origin: Option<&str>, below: &str) -> Markup {
    let file =
        format!("{}{}", origin.unwrap_or("http://HOST:6780"), link::repo(&format!("{below}moji.repo")));
    let suffix = target.name.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
    html! {
        pre .command tabindex="0" {
            "sudo curl -o /etc/yum.repos.d/moji" (suffix) ".repo \\\n    " (file) "\n"
            "sudo dnf install PACKAGE\n"
        }
        @if target.generation > 0 { p .soft { "Generation " (words::number(target.generation)) " is served." } }
    }
}
