//! The farm at a glance.

use jiff::Timestamp;
use maud::{Markup, html};
use moji_proto::api::{BuildState, Builder, Eta, OutOfDate, Overview, QueueCounts, Running};

use super::frame::{Frame, Fresh, Page, Part};
use super::{link, parts, words};

/// The farm at a glance.
pub fn overview(frame: Frame<'_>, overview: &Overview) -> Markup {
    let body = html! {
        h1 .unseen { "Overview" }
        section #now data-live { (notices(frame, overview)) (sentence(overview)) (tiles(overview)) }
        section #running data-live aria-labelledby="running-title" {
            h2 #running-title { "Running" }
            @if overview.running.is_empty() { (idle(overview)) } @else { (parts::running(frame, &overview.running)) }
        }
        div .columns {
            section #newest data-live aria-labelledby="newest-title" {
                h2 #newest-title { "Newest results" a .more href="/builds" { "All builds" } }
                @if overview.newest.is_empty() {
                    (parts::nothing("Nothing was built yet.", html! { "Put an SRPM into SOURCE, or " code { "moji submit" } " one." }))
                } @else { (parts::brief(frame, &overview.newest)) }
            }
            section #failures data-live aria-labelledby="failures-title" {
                h2 #failures-title {
                    "Newest failures"
                    a .more href=(link::builds(&crate::history::BuildFilter {
                        states: vec![BuildState::Failed, BuildState::Held], ..Default::default()
                    })) { "All failures" }
                }
                @if overview.failures.is_empty() { (parts::nothing("Nothing failed.", html! {})) }
                @else { (parts::brief(frame, &overview.failures)) }
            }
        }
        section #builders data-live aria-labelledby="builders-title" {
            h2 #builders-title {
                "Builders"
                span .count { (overview.slots.busy) " of " (words::many(overview.slots.total, "slot")) " busy" }
                a .more href="/builders" { "All builders" }
            }
            @if overview.builders.is_empty() { (super::builder::none()) }
            @else {
                ul .cards {
                    @for builder in &overview.builders { (card(frame, builder, &overview.running)) }
                }
            }
        }
    };
    let fresh = Fresh { is_moving: true, ..Fresh::default() };
    Page { title: "Moji: overview", part: Part::Overview, above: None, fresh, body }.render(frame)
}

fn notices(frame: Frame<'_>, overview: &Overview) -> Markup {
    let server = &overview.server;
    html! {
        @if let Some(paused) = &server.paused {
            p .notice role="status" {
                strong { "The queue is paused" }
                @if let Some(by) = &paused.by { " by " (by) }
                " since " (words::ago(frame.now, paused.at))
                @if let Some(reason) = &paused.reason { ": " (reason) }
                ". Nothing is handed out until " code { "moji unpause" } "."
            }
        }
        @if server.is_full {
            p .notice role="status" {
                strong { "The server's disk is full." } " Nothing is handed out until there is room."
            }
        }
        @if let Some(first) = server.out_of_date.first() {
            p .notice role="status" {
                strong { "The metadata of " (first.folder()) (others(&server.out_of_date)) " are out of date." }
                " The oldest change that dnf does not see was " (words::ago(frame.now, oldest(first, &server.out_of_date)))
                ": " (first.reason)
            }
        }
    }
}

/// How many more there are.
fn others(all: &[OutOfDate]) -> String {
    match all.len().saturating_sub(1) {
        0 => String::new(),
        1 => " and of another repository".to_owned(),
        more => format!(" and of {more} other repositories"),
    }
}

fn oldest(first: &OutOfDate, all: &[OutOfDate]) -> Timestamp {
    all.iter().map(|one| one.since).min().unwrap_or(first.since)
}

/// What one would say who was asked how it goes.
fn sentence(overview: &Overview) -> Markup {
    let QueueCounts { ready, waiting, parked, running } = overview.queue;
    let waits = ready + waiting;
    html! {
        p .lead {
            @match (running, waits) {
                (0, 0) => "Nothing runs, and nothing waits",
                (0, waits) => { strong { (words::many(waits, "SRPM")) } " " (verb(waits, "waits", "wait")) ", nothing runs" },
                (running, 0) => { strong { (words::many(running, "build")) } " " (verb(running, "runs", "run")) ", nothing waits" },
                (running, waits) => {
                    strong { (words::many(running, "build")) } " " (verb(running, "runs", "run")) ", "
                    strong { (words::number(waits)) } " " (verb(waits, "waits", "wait"))
                }
            }
            @if parked > 0 { ", " (words::number(parked)) " " (verb(parked, "is", "are")) " parked" }
            "."
            @if let Some(eta) = overview.eta { " " (time_left(eta)) }
        }
    }
}

fn verb(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

fn time_left(eta: Eta) -> Markup {
    let [low, expected, high] = [eta.low, eta.expected, eta.high].map(words::duration);
    html! {
        "All is built in about " strong { (expected) }
        @if low != high { span .aside { " (between " (low) " and " (high) ")" } }
        "."
    }
}

fn tiles(overview: &Overview) -> Markup {
    let QueueCounts { ready, waiting, parked, running } = overview.queue;
    let day = overview.throughput.day;
    let hour = overview.throughput.hour;
    html! {
        ul .tiles {
            li { a href=(link::in_state(BuildState::Running)) { (tile("running", running, "running")) } }
            li { a href="/queue" { (tile("queued", ready, "ready")) } }
            li { a href="/queue" { (tile("waiting", waiting, "waiting")) } }
            li { a href=(link::in_state(BuildState::Parked)) { (tile("parked", parked, "parked")) } }
            li .wide {
                p .tile-title { "Last 24 hours" }
                (parts::shares(&[("succeeded", day.succeeded), ("failed", day.failed), ("held", day.held)]))
                p { (parts::settled(day)) }
                p .soft { "Last hour: " (parts::settled(hour)) }
            }
        }
    }
}

fn tile(class: &str, count: u64, word: &str) -> Markup {
    html! { span class={ "figure is-" (class) } { (words::number(count)) } span .tile-title { (word) } }
}

fn idle(overview: &Overview) -> Markup {
    let waits = overview.queue.ready > 0;
    match (overview.builders.is_empty(), waits) {
        (true, true) => parts::nothing("Nothing runs: no builder is connected.", html! {}),
        (false, true) => parts::nothing("Nothing runs yet.", html! { "A build's page tells why it waits." }),
        _ => parts::nothing("Nothing runs.", html! { "An SRPM that is put into SOURCE is built at once." }),
    }
}

fn card(frame: Frame<'_>, builder: &Builder, running: &[Running]) -> Markup {
    let has = running.iter().filter(|one| one.builder == builder.id);
    html! {
        li data-key=(builder.id) {
            p .card-title { a href=(link::builder(&builder.id)) { (builder.id) } (parts::builder_state(builder.state)) }
            p .soft {
                (builder.arch) " · " (words::many(builder.slots.into(), "slot"))
                @for target in &builder.targets { " · " (target) }
            }
            ul .has {
                @for one in has {
                    li data-key=(one.attempt) {
                        @match one.build {
                            Some(id) => a href=(link::build(id)) { (one.srpm.stem()) },
                            None => (one.srpm.stem()),
                        }
                        " " span .aside { (parts::doing(one)) ", " (words::since(frame.now, one.since)) }
                    }
                }
            }
        }
    }
}
