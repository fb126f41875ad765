//! What stands above and below the panels: the server, the queue in numbers; the last events and the keys.

use moji_proto::api::{EventKind, History, Overview};
use moji_proto::operator::Role;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::canvas::Canvas;
use crate::operator::top::state::{Link, Top};
use crate::operator::top::text::{Looks, about, clock};

/// The keys, what they do, and whether only admins may.
const KEYS: [(&str, &str, bool); 10] = [
    ("q", "quit", false),
    ("?", "help", false),
    ("Tab", "panel", false),
    ("Enter", "log", false),
    ("w", "why", false),
    ("s", "sort", false),
    ("r", "retry", false),
    ("p", "pause", true),
    ("c", "cancel", true),
    ("d", "drain", true),
];

/// Draws what stands above; gives back how many lines that are.
pub(super) fn draw(top: &Top, canvas: &mut Canvas<'_>, area: Rect) -> u16 {
    let line = |y: u16| Rect { y: area.y + y, height: 1, ..area };
    title(top, canvas, line(0));
    let Some(overview) = &top.overview else {
        return 2;
    };
    let slots = slots(overview, canvas.looks);
    let [left, range] = eta(overview);
    let queue = overview.queue;
    let plain = |text: String| (text, Style::new());
    canvas.flow(
        line(1),
        &[
            (format!("{} running", queue.running), canvas.looks.good()),
            plain(format!("{} ready", queue.ready)),
            plain(format!("{} waiting", queue.waiting)),
            (format!("{} parked", queue.parked), some(queue.parked, canvas.looks.odd())),
            slots,
            plain(left),
            plain(range),
        ],
    );
    let lately = [("last hour", overview.throughput.hour), ("last day", overview.throughput.day)];
    let lately: Vec<_> =
        lately.iter().flat_map(|(name, history)| throughput(name, *history, canvas.looks)).collect();
    canvas.flow(line(2), &lately);
    match stopped(top, overview) {
        Some(text) => {
            canvas.put(area.x, area.y + 3, area.width, &text, canvas.looks.bad());
            4
        }
        None => 3,
    }
}

fn title(top: &Top, canvas: &mut Canvas<'_>, line: Rect) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let text = match (&top.link, &top.overview) {
        (Link::Down { reason, since }, _) => {
            let seconds = top.seconds_since(*since).unsigned_abs();
            format!("no connection to {} for {}, trying again: {reason}", top.server, clock(seconds))
        }
        (Link::Connecting, _) => format!("asking {} {}", top.server, canvas.looks.ellipsis()),
        (Link::Up, None) => format!("connected to {}, asking for the farm", top.server),
        (Link::Up, Some(overview)) => {
            let up = top.seconds_since(overview.server.started_at).unsigned_abs();
            let dot = canvas.looks.dot();
            format!("{}{dot}{}{dot}up {}", top.server, overview.server.software, about(up))
        }
    };
    let role = match top.role {
        Some(Role::Admin) => "admin",
        Some(Role::Submitter) => "submitter",
        None => "",
    };
    let left = line.width.saturating_sub(canvas.width(role) + 4);
    canvas.put(line.x + 1, line.y, left, &text, bold);
    canvas.put_right(line.x, line.y, line.width - 1, role, bold);
    if matches!(top.link, Link::Down { .. }) {
        canvas.restyle(line, canvas.looks.bad());
    }
    canvas.reverse(line);
}

/// The style, if there are any at all.
fn some(count: u64, style: Style) -> Style {
    if count > 0 { style } else { Style::new() }
}

fn slots(overview: &Overview, looks: Looks) -> (String, Style) {
    let slots = overview.slots;
    let bar = looks.bar(slots.busy, slots.total, 8);
    let style = if slots.total == 0 { looks.bad() } else { Style::new() };
    (format!("slots {bar} {}/{}", slots.busy, slots.total), style)
}

/// About when all is done, and how sure that is.
fn eta(overview: &Overview) -> [String; 2] {
    overview.eta.map_or_else(Default::default, |eta| {
        let range = format!("at best {}, at worst {}", about(eta.low), about(eta.high));
        [format!("{} left", about(eta.expected)), range]
    })
}

fn throughput(name: &str, history: History, looks: Looks) -> Vec<(String, Style)> {
    vec![
        (format!("{name} {} succeeded", history.succeeded), some(history.succeeded, looks.good())),
        (format!("{} failed", history.failed), some(history.failed, looks.bad())),
        (format!("{} held", history.held), some(history.held, looks.bad())),
    ]
}

/// Why nothing is handed out, or published.
fn stopped(top: &Top, overview: &Overview) -> Option<String> {
    let paused = overview.server.paused.as_ref().map(|paused| {
        let by = paused.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
        let reason = paused.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("PAUSED{by} {} ago{reason}", about(top.seconds_since(paused.at).unsigned_abs()))
    });
    let full =
        overview.server.is_full.then(|| "DISK FULL: nothing is handed out until there is room".to_owned());
    let stale = overview.server.out_of_date.first().map(|first| {
        let more = overview.server.out_of_date.len().saturating_sub(1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("METADATA OUT OF DATE: {}{more}: {}", first.folder(), first.reason)
    });
    let all: Vec<_> = [full, paused, stale].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Draws what stands below: events, the newest last, and the keys or what has just been done.
pub(super) fn footer(top: &Top, canvas: &mut Canvas<'_>, area: Rect) {
    let lines = usize::from(area.height.saturating_sub(1));
    let known = top.events.len();
    for (y, event) in (area.y..).zip(top.events.range(known.saturating_sub(lines)..)) {
        let ago = format!("{:>7} ago", about(top.seconds_since(event.at).unsigned_abs()));
        let used = canvas.put(area.x, y, area.width, &ago, canvas.looks.dim()) + 2;
        let text = if event.text.is_empty() { event.kind.word() } else { &event.text };
        canvas.put(area.x + used, y, area.width.saturating_sub(used), text, style(event.kind, canvas.looks));
    }
    let last = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
    if let Some(notice) = top.notice() {
        let style = if notice.is_good { canvas.looks.good() } else { canvas.looks.bad() };
        canvas.put(last.x, last.y, last.width, &notice.text, style);
    } else {
        let is_admin = top.role == Some(Role::Admin);
        let known: Vec<_> = KEYS.iter().filter(|(.., admins)| is_admin || !admins).collect();
        let known: Vec<_> = known.iter().map(|(key, does, _)| (*key, *does)).collect();
        keys(canvas, last, &known);
    }
}

/// Draws keys and what they do, as many as fit.
pub(super) fn keys(canvas: &mut Canvas<'_>, line: Rect, keys: &[(&str, &str)]) {
    let mut x = line.x;
    for (key, does) in keys {
        let wide = canvas.width(key) + 1 + canvas.width(does);
        if x + wide > line.right() {
            break;
        }
        x += canvas.put(x, line.y, wide, key, Style::new().add_modifier(Modifier::BOLD)) + 1;
        x += canvas.put(x, line.y, wide, does, canvas.looks.dim()) + 2;
    }
}

fn style(kind: EventKind, looks: Looks) -> Style {
    match kind {
        EventKind::Succeeded | EventKind::Published => looks.good(),
        EventKind::Failed | EventKind::Held | EventKind::BuilderLost => looks.bad(),
        EventKind::Parked | EventKind::Withdrawn | EventKind::Steered => looks.odd(),
        _ => Style::new(),
    }
}
