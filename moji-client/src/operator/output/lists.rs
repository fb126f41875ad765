//! Lists: builds, the queue, builders, targets, events. Pure.

use jiff::Timestamp;
use moji_proto::TargetName;
use moji_proto::api::{Build, Builder, Event, Page, Queued, Target};

use super::table::{Column, Table, cut};
use super::{Paint, Style, words};

/// Builds, the newest first.
pub fn builds(page: &Page<Build>, style: &Style) -> String {
    let mut table = Table::new([
        Column::number("NUMBER"),
        Column::text("STATE"),
        Column::text("BUILD").gives_way(1),
        Column::text("TARGET").gives_way(3),
        Column::text("BUILDER").gives_way(4),
        Column::number("WHEN").gives_way(6),
        Column::number("TOOK").gives_way(5),
        Column::text("REASON").gives_way(2),
    ]);
    for build in &page.items {
        table.row([
            (Paint::Plain, build.id.to_string()),
            (Paint::of_build(build.state), build.state.to_string()),
            (Paint::Plain, words::name(build)),
            (Paint::Plain, words::target(build.target.as_ref()).to_owned()),
            (Paint::Plain, build.builder.clone().unwrap_or_default()),
            (Paint::Dim, words::time(build.settled_at.unwrap_or(build.queued_at))),
            (Paint::Plain, build.took_seconds.map(words::duration).unwrap_or_default()),
            (Paint::Plain, build.reason.clone().unwrap_or_default()),
        ]);
    }
    let more = page.next.map(|next| format!("there are more: --before {next}, or --limit\n"));
    or(table.render(style) + &more.unwrap_or_default(), "no such builds\n")
}

/// What waits, in the order of hand-out.
pub fn queue(page: &Page<Queued>, now: Timestamp, style: &Style) -> String {
    let mut table = Table::new([
        Column::number("PLACE"),
        Column::text("SRPM").gives_way(1),
        Column::text("TARGET").gives_way(3),
        Column::number("WAITS").gives_way(4),
        Column::number("SIZE").gives_way(6),
        Column::number("EXPECTED").gives_way(5),
        Column::text("WAITS FOR").gives_way(2),
    ]);
    for queued in &page.items {
        let place = match (queued.place, queued.is_parked) {
            (Some(place), _) => (Paint::Plain, place.to_string()),
            (None, true) => (Paint::Odd, "parked".into()),
            (None, false) => (Paint::Dim, "waits".into()),
        };
        table.row([
            place,
            (Paint::Plain, queued.srpm.to_string()),
            (Paint::Plain, words::target(queued.target.as_ref()).to_owned()),
            (Paint::Plain, words::ago(queued.queued_at, now)),
            (Paint::Dim, words::size(queued.size)),
            (Paint::Dim, queued.expected_seconds.map(words::duration).unwrap_or_default()),
            (Paint::Plain, queued.waits_for.clone().unwrap_or_default()),
        ]);
    }
    let shown = page.items.len() as u64;
    let rest = page.total.map_or(0, |total| total.saturating_sub(shown));
    let rest = if rest > 0 { format!("and {rest} more (--limit)\n") } else { String::new() };
    or(table.render(style) + &rest, "the queue is empty\n")
}

/// Builders.
pub fn builders(builders: &[Builder], now: Timestamp, style: &Style) -> String {
    let mut table = Table::new([
        Column::text("BUILDER").gives_way(1),
        Column::text("STATE"),
        Column::number("BUSY"),
        Column::text("ARCH").gives_way(6),
        Column::text("TARGETS").gives_way(3),
        Column::number("CORES").gives_way(8),
        Column::number("MEMORY").gives_way(7),
        Column::number("FREE DISK").gives_way(9),
        Column::text("TAGS").gives_way(5),
        Column::number("CONNECTED").gives_way(4),
        Column::text("REMARK").gives_way(2),
    ]);
    for builder in builders {
        table.row([
            (Paint::Plain, builder.id.clone()),
            (Paint::of_builder(builder.state), builder.state.word().into()),
            (Paint::Plain, format!("{}/{}", builder.attempts.len(), builder.slots)),
            (Paint::Plain, builder.arch.clone()),
            (Paint::Plain, joined(&builder.targets)),
            (Paint::Dim, builder.cores.map(|cores| cores.to_string()).unwrap_or_default()),
            (Paint::Dim, builder.memory.map(words::size).unwrap_or_default()),
            (Paint::Dim, builder.disk.map(words::size).unwrap_or_default()),
            (Paint::Plain, builder.tags.join(",")),
            (Paint::Dim, builder.connected_at.map(|at| words::ago(at, now)).unwrap_or_default()),
            (Paint::Odd, remark(builder, now)),
        ]);
    }
    or(table.render(style), "no builder is connected: start moji-client on one\n")
}

fn joined(targets: &[TargetName]) -> String {
    targets.iter().map(TargetName::as_str).collect::<Vec<_>>().join(",")
}

fn remark(builder: &Builder, now: Timestamp) -> String {
    let drained = builder.drained.as_ref().map(|by| format!("drained {}", words::steered(by, now)));
    let suspended =
        builder.suspended_seconds.map(|seconds| format!("no work for {} more", words::duration(seconds)));
    let broken = (!builder.broken_targets.is_empty())
        .then(|| format!("does not work: {}", joined(&builder.broken_targets)));
    [drained, suspended, broken].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Targets.
pub fn targets(targets: &[Target], style: &Style) -> String {
    let mut table = Table::new([
        Column::text("TARGET").gives_way(1),
        Column::number("BUILDERS").gives_way(5),
        Column::number("READY"),
        Column::number("WAITING").gives_way(4),
        Column::number("PARKED").gives_way(3),
        Column::number("RUNNING").gives_way(2),
        Column::number("BUILT 24H").gives_way(7),
        Column::number("FAILED 24H").gives_way(6),
        Column::number("GENERATION").gives_way(8),
    ]);
    for target in targets {
        let number =
            |paint: Paint, number: u64| (if number == 0 { Paint::Dim } else { paint }, number.to_string());
        let nobody = target.builders == 0 && target.queue.ready > 0;
        table.row([
            (Paint::Plain, words::target(target.name.as_ref()).to_owned()),
            (if nobody { Paint::Bad } else { Paint::Plain }, target.builders.to_string()),
            number(Paint::Plain, target.queue.ready),
            number(Paint::Plain, target.queue.waiting),
            number(Paint::Odd, target.queue.parked),
            number(Paint::Busy, target.queue.running),
            number(Paint::Good, target.day.succeeded),
            number(Paint::Bad, target.day.failed),
            number(Paint::Plain, target.generation),
        ]);
    }
    or(table.render(style), "there is no target yet\n")
}

/// Ids are this wide: they begin with milliseconds since 1970.
const ID: usize = 13;

/// One event, on a line, after the id that `--since` takes.
pub fn event(event: &Event, style: &Style) -> String {
    let head = format!("{:>ID$}  {}  {:<17}  ", event.id, words::time(event.at), event.kind.word());
    let room = style.width.map(|width| width.saturating_sub(head.len()).max(20));
    let text = room.map_or(event.text.clone(), |room| cut(&event.text, room));
    let (at, kind) = head.split_at(head.len().saturating_sub(19));
    format!(
        "{}{}{}\n",
        style.paint(Paint::Dim, at),
        style.paint(Paint::of_event(event.kind), kind),
        style.paint(Paint::Plain, &text)
    )
}

fn or(text: String, none: &str) -> String {
    if text.is_empty() { none.into() } else { text }
}
