//! `moji status`: the farm on one screen. Pure.

use jiff::Timestamp;
use moji_proto::api::{Build, BuilderState, Overview, Running};
use moji_proto::outcome::plain;

use super::table::{Column, Table, wrapped};
use super::{Paint, Style, words};

/// So many failures fit on one screen with the rest.
const FAILURES: usize = 5;
/// Where what is said of something begins.
const INDENT: usize = 10;

/// The farm on one screen.
pub fn status(overview: &Overview, now: Timestamp, style: &Style) -> String {
    let mut text = String::new();
    for (paint, line) in head(overview, now) {
        let line = plain(&line);
        let lines = style.width.map_or(line.clone(), |width| wrapped(&line, width, INDENT));
        for line in lines.lines() {
            text += &style.paint(paint, line);
            text.push('\n');
        }
    }
    let running = running(&overview.running, now).render(style);
    if !running.is_empty() {
        text += &format!("\n{running}");
    }
    let newest = |builds: &[Build]| failures(builds.iter().take(FAILURES), now).render(style);
    if !overview.failures.is_empty() {
        text += &format!("\n{}\n{}", style.heading("Newest failures"), newest(&overview.failures));
        text += "moji why BUILD says more\n";
    }
    text
}

fn head(overview: &Overview, now: Timestamp) -> Vec<(Paint, String)> {
    let Overview { server, queue, slots, throughput, builders, .. } = overview;
    let mut lines = Vec::new();
    if let Some(paused) = &server.paused {
        lines.push((Paint::Odd, format!("Paused {} (moji unpause)", words::steered(paused, now))));
    }
    if server.is_full {
        lines.push((Paint::Bad, "The server's disk is full: nothing is handed out".into()));
    }
    lines.extend(words::out_of_date(&server.out_of_date, now).map(|line| (Paint::Bad, line)));
    lines.push((Paint::Plain, format!("Queue     {}", words::queue(queue))));
    if let Some(eta) = &overview.eta {
        lines.push((Paint::Plain, format!("Done in   {}", words::eta(eta))));
    }
    let here = builders.iter().filter(|builder| builder.state != BuilderState::Away).count() as u64;
    let mut line = format!(
        "Builders  {}, {} of {} busy",
        words::count(here, "builder", "builders"),
        slots.busy,
        words::count(slots.total, "slot", "slots")
    );
    for state in [BuilderState::Draining, BuilderState::Drained, BuilderState::Suspended, BuilderState::Away]
    {
        let number = builders.iter().filter(|builder| builder.state == state).count();
        if number > 0 {
            line += &format!(", {number} {}", state.word());
        }
    }
    lines.push((Paint::Plain, line));
    let day = &throughput.day;
    lines.push((
        Paint::Plain,
        format!(
            "24 hours  {} succeeded ({} in the last one), {} failed, {} held",
            day.succeeded, throughput.hour.succeeded, day.failed, day.held
        ),
    ));
    lines
}

/// What runs where.
pub fn running(running: &[Running], now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::text("RUNNING").gives_way(1),
        Column::text("TARGET").gives_way(3),
        Column::text("BUILDER").gives_way(2),
        Column::text("PHASE").gives_way(4),
        Column::number("SINCE"),
        Column::number("EXPECTED").gives_way(5),
    ]);
    for one in running {
        let took = words::seconds_between(one.since, now);
        let late = one.expected_seconds.is_some_and(|expected| took > expected.saturating_mul(2));
        table.row([
            (Paint::Plain, package_of(one)),
            (Paint::Plain, one.target.to_string()),
            (Paint::Plain, one.builder.clone()),
            phase(one),
            (if late { Paint::Odd } else { Paint::Plain }, words::duration(took)),
            (Paint::Dim, one.expected_seconds.map(words::duration).unwrap_or_default()),
        ]);
    }
    table
}

/// An SRPM's name without what all of them end with.
fn package_of(running: &Running) -> String {
    let name = running.srpm.as_str();
    name.strip_suffix(".src.rpm").unwrap_or(name).to_owned()
}

/// What is being done.
fn phase(running: &Running) -> (Paint, String) {
    // In the words, and the order, of moji top.
    match (running.is_orphaned, running.is_publishing, running.phase) {
        (true, ..) => (Paint::Bad, "lost connection".into()),
        (_, true, _) => (Paint::Good, "publishing".into()),
        _ if running.slot.is_none() => (Paint::Odd, "in outbox".into()),
        (.., Some(phase)) => (Paint::Busy, phase.to_string()),
        (.., None) => (Paint::Dim, "starting".into()),
    }
}

fn failures<'a>(builds: impl Iterator<Item = &'a Build>, now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::text("BUILD").gives_way(1),
        Column::text("TARGET").gives_way(4),
        Column::number("AGO").gives_way(5),
        Column::text("REASON").gives_way(2),
    ]);
    for build in builds {
        let ago = build.settled_at.map(|at| words::ago(at, now)).unwrap_or_default();
        table.row([
            (Paint::of_build(build.state), words::name(build)),
            (Paint::Plain, build.target.as_ref().map(ToString::to_string).unwrap_or_default()),
            (Paint::Dim, ago),
            (Paint::Plain, build.reason.clone().unwrap_or_default()),
        ]);
    }
    table
}
