//! What lies in SOURCE, in the order in which it is handed out.

use maud::{Markup, html};
use moji_proto::TargetName;
use moji_proto::api::{self, Queued, Target};

use super::frame::{Frame, Fresh, Page, Part};
use super::table::{Row, table};
use super::{link, parts, words};

/// What waits, of one target (`Some(None)`: in SOURCE itself) or of all.
pub fn queue(
    frame: Frame<'_>,
    queue: &api::Page<Queued>,
    target: Option<Option<&TargetName>>,
    targets: &[Target],
) -> Markup {
    let total = queue.total.unwrap_or(queue.items.len() as u64);
    let body = html! {
        h1 { "Queue" span .count { (words::many(total, "SRPM")) } }
        @if targets.len() > 1 { (choice(target, targets)) }
        section #queue data-live {
            @if queue.items.is_empty() {
                (parts::nothing("Nothing waits.", html! { "Put an SRPM into SOURCE, or " code { "moji submit" } " one." }))
            } @else {
                (table("What lies in SOURCE, in the order of hand-out",
                    &["SRPM", "Place#", "Target", "Waits for", "Expected#", "Size#", "Since#"],
                    queue.items.iter().map(|one| row(frame, one)).collect()))
                @if (queue.items.len() as u64) < total {
                    p .soft { "The first " (words::number(queue.items.len() as u64)) " are shown." }
                }
            }
        }
    };
    Page { title: "Queue", part: Part::Queue, above: None, fresh: Fresh::default(), body }.render(frame)
}

fn choice(chosen: Option<Option<&TargetName>>, targets: &[Target]) -> Markup {
    let current = |is: bool| is.then_some("true");
    html! {
        nav .choice aria-label="Target" {
            ul {
                li { a href="/queue" aria-current=[current(chosen.is_none())] { "All" } }
                @for target in targets {
                    li {
                        a href=(link::query("/queue", &[("target", link::target_word(target.name.as_ref()).to_owned())]))
                            aria-current=[current(chosen == Some(target.name.as_ref()))] {
                            @match &target.name { Some(name) => (name), None => "any builder" }
                            span .count { (words::number(target.queue.ready + target.queue.waiting + target.queue.parked)) }
                        }
                    }
                }
            }
        }
    }
}

fn row(frame: Frame<'_>, one: &Queued) -> Row {
    let folder = one.target.as_ref().map(|target| format!("{target}/")).unwrap_or_default();
    // Which build it is the history knows.
    let place = link::query("/find", &[("build", format!("{folder}{}", one.srpm))]);
    Row {
        key: format!("{folder}{}", one.srpm),
        cells: vec![
            html! { a href=(place) { (one.srpm.stem()) } },
            html! { @if let Some(place) = one.place { (words::number(place)) } },
            parts::target(one.target.as_ref()),
            html! {
                @if one.is_parked { (parts::state(api::BuildState::Parked)) " " }
                @if let Some(text) = &one.waits_for { (text) } @else { span .soft { "a builder" } }
            },
            html! { @if let Some(seconds) = one.expected_seconds { (words::duration(seconds)) } },
            html! { (words::size(one.size)) },
            words::ago(frame.now, one.queued_at),
        ],
    }
}
