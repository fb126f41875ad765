//! Builders: what they are, what they do, what they did.

use maud::{Markup, html};
use moji_proto::TargetName;
use moji_proto::api::{Builder, BuilderDetail, BuilderTotals};

use super::frame::{Frame, Fresh, Page, Part};
use super::table::{Row, table};
use super::{link, parts, words};
use crate::history::BuildFilter;

/// All builders that are known now.
pub fn builders(frame: Frame<'_>, builders: &[Builder]) -> Markup {
    let row = |one: &Builder| Row {
        key: one.id.clone(),
        cells: vec![
            html! { a href=(link::builder(&one.id)) { (one.id) } @if let Some(note) = note(frame, one) { p .reason { (note) } } },
            parts::builder_state(one.state),
            html! { (one.attempts.len()) " of " (one.slots) },
            html! { (one.arch) },
            targets(one),
            html! { @if let Some(at) = one.connected_at { (words::since(frame.now, at)) } },
            html! { @if let Some(disk) = one.disk { (words::size(disk)) } },
        ],
    };
    let body = html! {
        h1 { "Builders" span .count { (builders.len()) } }
        section #builders data-live {
            @if builders.is_empty() { (none()) }
            @else {
                (table("Builders that are connected, or were lost with work",
                    &["Builder", "State", "Busy slots#", "Architecture", "Targets", "Connected for#", "Free disk#"],
                    builders.iter().map(row).collect()))
            }
        }
    };
    let fresh = Fresh { is_moving: true, ..Fresh::default() };
    Page { title: "Builders", part: Part::Builders, above: None, fresh, body }.render(frame)
}

/// What to do when there is none.
pub(super) fn none() -> Markup {
    parts::nothing(
        "No builder is connected.",
        html! { "Start one: " code { "moji-client HOST CONFIG" } ", with this host's name and a Mock config." },
    )
}

fn targets(one: &Builder) -> Markup {
    let is_broken = |target: &TargetName| one.broken_targets.contains(target);
    html! {
        @for (at, target) in one.targets.iter().enumerate() {
            @if at > 0 { ", " }
            (parts::target(Some(target)))
            @if is_broken(target) { span .aside { " (its configuration does not work there)" } }
        }
    }
}

/// What people should know of it.
fn note(frame: Frame<'_>, one: &Builder) -> Option<Markup> {
    if let Some(drained) = &one.drained {
        return Some(html! {
            "Drained" @if let Some(by) = &drained.by { " by " (by) } " " (words::ago(frame.now, drained.at))
            @if let Some(reason) = &drained.reason { ": " (reason) }
        });
    }
    let seconds = one.suspended_seconds?;
    Some(html! { "Too much went wrong on it: no more work for " (words::duration(seconds)) })
}

/// One builder.
pub fn builder(frame: Frame<'_>, detail: &BuilderDetail) -> Markup {
    let all = link::builds(&BuildFilter { builder: Some(detail.id.clone()), ..BuildFilter::default() });
    let body = html! {
        section #state data-live {
            h1 {
                (detail.id) " "
                @match &detail.builder {
                    Some(builder) => (parts::builder_state(builder.state)),
                    None => (parts::badge("away", "M3 8H13", "not connected")),
                }
            }
            @if let Some(builder) = &detail.builder {
                @if let Some(note) = note(frame, builder) { p .lead { (note) } }
                (facts(frame, builder))
            }
        }
        section #running data-live aria-labelledby="running-title" {
            h2 #running-title { "Running" }
            @if detail.running.is_empty() { (parts::nothing("It builds nothing now.", html! {})) }
            @else { (parts::running(frame, &detail.running)) }
        }
        section #totals data-live aria-labelledby="totals-title" {
            h2 #totals-title { "The last 30 days" }
            (totals(&detail.totals))
        }
        section #builds data-live aria-labelledby="builds-title" {
            h2 #builds-title { "Newest builds" a .more href=(all) { "All, and search" } }
            @if detail.builds.is_empty() { (parts::nothing("It has settled no build yet.", html! {})) }
            @else { (parts::builds(frame, "Builds that it settled, the newest first", &detail.builds)) }
        }
    };
    let fresh = Fresh { is_moving: true, ..Fresh::default() };
    Page { title: &detail.id, part: Part::Builders, above: Some(&[]), fresh, body }.render(frame)
}

fn facts(frame: Frame<'_>, one: &Builder) -> Markup {
    html! {
        dl .facts {
            div { dt { "Architecture" } dd { (one.arch) } }
            div { dt { "Slots" } dd { (one.slots) } }
            @if let Some(cores) = one.cores { div { dt { "Cores a build" } dd { (cores) } } }
            @if let Some(memory) = one.memory { div { dt { "Memory a build" } dd { (words::size(memory)) } } }
            @if let Some(disk) = one.disk { div { dt { "Free disk" } dd { (words::size(disk)) } } }
            @if let Some(at) = one.connected_at { div { dt { "Connected for" } dd { (words::since(frame.now, at)) } } }
            div { dt { "Program" } dd { (one.software) } }
            div .long { dt { "Targets" } dd { (targets(one)) } }
            @if !one.tags.is_empty() { div .long { dt { "Tags" } dd { (one.tags.join(", ")) } } }
        }
    }
}

fn totals(totals: &BuilderTotals) -> Markup {
    let failed: u64 = totals.failed.iter().map(|(_, count)| count).sum();
    html! {
        @if totals.attempts == 0 { (parts::nothing("No attempt of it has ended.", html! {})) }
        @else {
            (parts::shares(&[("succeeded", totals.succeeded), ("failed", failed), ("lost", totals.lost)]))
            p {
                (words::many(totals.attempts, "attempt")) ": " (words::number(totals.succeeded)) " succeeded, "
                (words::number(failed)) " failed, with " (words::number(totals.lost)) " it was lost."
                @if let Some(percent) = totals.percent_of_others {
                    " For the same packages it " @if percent < 104 { "is " } strong { (words::speed(percent)) } "."
                }
            }
            @if !totals.failed.is_empty() {
                (table("Failures by kind", &["Because of", "Attempts#"], totals.failed.iter().map(|(kind, count)| Row {
                    key: link::kind(*kind).to_owned(),
                    cells: vec![html! { (words::kind(*kind)) }, html! { (words::number(*count)) }],
                }).collect()))
            }
        }
    }
}
