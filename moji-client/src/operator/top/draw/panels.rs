//! Draws the four panels: what runs, what waits, who builds, what came of it.

use moji_proto::api::{Build, Builder, Queued, Running};
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::canvas::Canvas;
use super::table::{self, Cell, Column};
use crate::operator::output::words::size;
use crate::operator::top::state::{Panel, Top, short};
use crate::operator::top::text::{Looks, about, clock};

/// From this width on, builders and results stand side by side.
const SIDE_BY_SIDE: u16 = 96;
/// Title, heads and one row: less of a panel is nothing.
const LEAST: u16 = 3;

const RUNNING: [Column; 7] = [
    Column::text("package", 14, 0),
    Column::text("target", 12, 4),
    Column::text("builder", 8, 2),
    Column::text("phase", 10, 1),
    Column::text("", 6, 5),
    Column::number("time", 7, 0),
    Column::number("of about", 8, 3),
];
const QUEUE: [Column; 7] = [
    Column::number("#", 3, 2),
    Column::text("package", 14, 0),
    Column::text("target", 12, 3),
    Column::number("size", 8, 5),
    Column::number("takes", 5, 4),
    Column::number("waits", 6, 6),
    Column::text("state", 8, 1),
];
const BUILDERS: [Column; 6] = [
    Column::text("builder", 10, 0),
    Column::text("state", 9, 0),
    Column::number("slots", 5, 1),
    Column::text("arch", 7, 3),
    Column::text("note", 8, 2),
    Column::text("targets", 12, 4),
];
const NEWEST: [Column; 6] = [
    Column::text("result", 9, 0),
    Column::text("package", 12, 0),
    Column::text("target", 12, 4),
    Column::number("took", 5, 3),
    Column::number("ago", 6, 2),
    Column::text("reason", 10, 1),
];

/// Draws all panels, or the one in which keys choose when there is no room for all.
pub(super) fn draw(top: &Top, canvas: &mut Canvas<'_>, area: Rect) {
    if top.overview.is_none() {
        return;
    }
    let mut groups = vec![vec![Panel::Running], vec![Panel::Queue]];
    if area.width >= SIDE_BY_SIDE {
        groups.push(vec![Panel::Builders, Panel::Newest]);
    } else {
        groups.extend([vec![Panel::Builders], vec![Panel::Newest]]);
    }
    let wants: Vec<u16> = groups
        .iter()
        .map(|group| {
            let rows = group.iter().map(|panel| top.rows(*panel)).max().unwrap_or_default().max(1);
            u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2)
        })
        .collect();
    let focused = groups.iter().position(|group| group.contains(&top.focus)).unwrap_or_default();
    let Some(heights) = share(area.height, &wants, focused) else {
        return panel(top, canvas, area, top.focus);
    };
    let mut y = area.y;
    for (group, height) in groups.iter().zip(heights) {
        let line = Rect { y, height, ..area };
        match group.as_slice() {
            [left, right] => {
                let half = area.width.saturating_sub(2) / 2;
                panel(top, canvas, Rect { width: half, ..line }, *left);
                let rest = Rect { x: area.x + half + 2, width: area.width.saturating_sub(half + 2), ..line };
                panel(top, canvas, rest, *right);
            }
            group => group.iter().for_each(|one| panel(top, canvas, line, *one)),
        }
        y += height;
    }
}

/// How many lines each group gets: none has less than [`LEAST`], none more than it wants; what is left goes round,
/// two lines to the focused one for one to the others. None when there is no room for all.
fn share(available: u16, wants: &[u16], focused: usize) -> Option<Vec<u16>> {
    let mut heights = vec![LEAST; wants.len()];
    let least = LEAST.checked_mul(u16::try_from(wants.len()).ok()?)?;
    let mut left = available.checked_sub(least)?;
    loop {
        let before = left;
        for (at, (height, want)) in heights.iter_mut().zip(wants).enumerate() {
            let step = if at == focused { 2 } else { 1 };
            let more = step.min(left).min(want.saturating_sub(*height));
            *height += more;
            left -= more;
        }
        if left == 0 || left == before {
            return Some(heights);
        }
    }
}

fn panel(top: &Top, canvas: &mut Canvas<'_>, area: Rect, panel: Panel) {
    let is_focused = top.focus == panel;
    title(top, canvas, Rect { height: 1, ..area }, panel);
    let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let count = top.rows(panel);
    if count == 0 {
        if is_focused {
            canvas.put(body.x, body.y, 1, ">", Style::new().add_modifier(Modifier::BOLD));
        }
        canvas.put(body.x + 2, body.y, body.width.saturating_sub(2), empty(panel), canvas.looks.dim());
        return;
    }
    let height = usize::from(body.height.saturating_sub(1)).max(1);
    let row = top.cursor(panel).row;
    let above = (row + 1).saturating_sub(height);
    let looks = canvas.looks;
    let (columns, rows): (&[Column], Vec<Vec<Cell>>) = match panel {
        Panel::Running => (&RUNNING, window(top.running(), above, height, |run| running(top, run, looks))),
        Panel::Queue => (&QUEUE, window(top.queued(), above, height, |one| queued(top, one, looks))),
        Panel::Builders => (&BUILDERS, window(top.builders(), above, height, |one| builder(top, one, looks))),
        Panel::Newest => (&NEWEST, window(top.newest(), above, height, |build| result(top, build, looks))),
    };
    table::draw(canvas, body, columns, &rows, is_focused.then(|| row - above));
}

fn window<T, C>(rows: Vec<&T>, above: usize, height: usize, cells: C) -> Vec<Vec<Cell>>
where
    C: Fn(&T) -> Vec<Cell>,
{
    rows.into_iter().skip(above).take(height).map(cells).collect()
}

fn title(top: &Top, canvas: &mut Canvas<'_>, line: Rect, panel: Panel) {
    let count = top.rows(panel);
    let waiting =
        top.overview.as_ref().map_or(0, |all| all.queue.ready + all.queue.waiting + all.queue.parked);
    let name = match panel {
        Panel::Running => format!("Running {count}"),
        Panel::Queue if u64::try_from(count).is_ok_and(|count| count < waiting) => {
            format!("Queue {waiting}, the first {count}")
        }
        Panel::Queue => format!("Queue {count}"),
        Panel::Builders => format!("Builders {count}"),
        Panel::Newest => "Newest results".to_owned(),
    };
    let order = top.cursor(panel).order;
    let order = panel
        .orders()
        .get(order)
        .filter(|_| order > 0)
        .map_or_else(String::new, |order| format!(", {order}"));
    let is_focused = top.focus == panel;
    let style = if is_focused { Style::new().add_modifier(Modifier::BOLD) } else { canvas.looks.dim() };
    let whole =
        if is_focused { canvas.looks.colour(ratatui::style::Color::Cyan) } else { canvas.looks.dim() };
    canvas.rule(line, whole);
    canvas.put(
        line.x + 2,
        line.y,
        line.width.saturating_sub(4),
        &format!(" {name}{order} "),
        style.patch(whole),
    );
}

fn empty(panel: Panel) -> &'static str {
    match panel {
        Panel::Running => "nothing runs",
        Panel::Queue => "nothing waits",
        Panel::Builders => "no builder is connected: start moji-client on one",
        Panel::Newest => "nothing was built yet",
    }
}

fn running(top: &Top, run: &Running, looks: Looks) -> Vec<Cell> {
    let took = top.seconds_since(run.since).unsigned_abs();
    let (word, style) = match run.phase {
        _ if run.is_orphaned => ("lost connection".to_owned(), looks.bad()),
        _ if run.is_publishing => ("publishing".to_owned(), looks.good()),
        _ if run.slot.is_none() => ("in outbox".to_owned(), looks.odd()),
        Some(now) => (now.to_string(), looks.colour(ratatui::style::Color::Cyan)),
        None => ("starting".to_owned(), Style::new()),
    };
    let expected = run.expected_seconds;
    let is_late = expected.is_some_and(|expected| took > expected.saturating_mul(2));
    vec![
        Cell::Text(short(run.srpm.as_str()).to_owned(), Style::new().add_modifier(Modifier::BOLD)),
        Cell::plain(run.target.as_str()),
        Cell::plain(&run.builder),
        Cell::Text(word, style),
        expected.map_or_else(|| Cell::plain(""), |expected| Cell::Bar(took, expected, looks.good())),
        Cell::Text(clock(took), if is_late { looks.odd() } else { Style::new() }),
        Cell::plain(expected.map_or_else(String::new, clock)),
    ]
}

fn queued(top: &Top, one: &Queued, looks: Looks) -> Vec<Cell> {
    let (state, style) = match (&one.waits_for, one.is_parked) {
        (Some(reason), true) => (format!("parked: {reason}"), looks.odd()),
        (None, true) => ("parked".to_owned(), looks.odd()),
        (Some(reason), false) => (reason.clone(), looks.dim()),
        (None, false) => ("ready".to_owned(), looks.good()),
    };
    vec![
        Cell::Text(one.place.map_or_else(String::new, |place| place.to_string()), looks.dim()),
        Cell::Text(short(one.srpm.as_str()).to_owned(), Style::new().add_modifier(Modifier::BOLD)),
        Cell::plain(one.target.as_ref().map_or("any", |target| target.as_str())),
        Cell::plain(size(one.size)),
        Cell::plain(one.expected_seconds.map_or_else(String::new, about)),
        Cell::plain(about(top.seconds_since(one.queued_at).unsigned_abs())),
        Cell::Text(state, style),
    ]
}

fn builder(top: &Top, one: &Builder, looks: Looks) -> Vec<Cell> {
    let note = match (&one.drained, one.suspended_seconds) {
        (Some(drained), _) => {
            let by = drained.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
            let reason = drained.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("{} ago{by}{reason}", about(top.seconds_since(drained.at).unsigned_abs()))
        }
        (None, Some(seconds)) => format!("for {}", about(seconds)),
        (None, None) if !one.broken_targets.is_empty() => {
            let targets: Vec<_> = one.broken_targets.iter().map(|target| target.as_str()).collect();
            format!("broken: {}", targets.join(", "))
        }
        (None, None) => String::new(),
    };
    let targets: Vec<_> = one.targets.iter().map(|target| target.as_str()).collect();
    vec![
        Cell::Text(one.id.clone(), Style::new().add_modifier(Modifier::BOLD)),
        Cell::Text(one.state.word().to_owned(), looks.builder(one.state)),
        Cell::plain(format!("{}/{}", one.attempts.len(), one.slots)),
        Cell::plain(&one.arch),
        Cell::Text(note, looks.odd()),
        Cell::Text(targets.join(", "), looks.dim()),
    ]
}

fn result(top: &Top, build: &Build, looks: Looks) -> Vec<Cell> {
    let ago = build.settled_at.map_or_else(String::new, |at| about(top.seconds_since(at).unsigned_abs()));
    vec![
        Cell::Text(build.state.word().to_owned(), looks.build(build.state)),
        Cell::Text(short(build.srpm.as_str()).to_owned(), Style::new().add_modifier(Modifier::BOLD)),
        Cell::plain(build.target.as_ref().map_or("any", |target| target.as_str())),
        Cell::plain(build.took_seconds.map_or_else(String::new, about)),
        Cell::plain(ago),
        Cell::Text(build.reason.clone().unwrap_or_default(), looks.dim()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_those_who_want_them_and_twice_to_the_focused() {
        assert_eq!(share(12, &[9, 9, 9, 9], 0), Some(vec![3, 3, 3, 3]));
        assert_eq!(share(17, &[9, 9, 9, 9], 1), Some(vec![4, 5, 4, 4]));
        assert_eq!(share(30, &[3, 52, 5, 12], 0), Some(vec![3, 11, 5, 11]));
        assert_eq!(share(60, &[3, 4, 5, 6], 2), Some(vec![3, 4, 5, 6]));
        assert_eq!(share(11, &[9, 9, 9, 9], 1), None);
    }
}
