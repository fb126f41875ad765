//! Draws a log.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::canvas::Canvas;
use super::header::keys;
use crate::operator::top::log::{LogState, LogView};
use crate::operator::top::state::{Link, Top};

/// Draws a log over the whole screen.
pub(super) fn draw(log: &LogView, top: &Top, canvas: &mut Canvas<'_>, area: Rect) {
    let line = Rect { height: 1, ..area };
    let state = match (&log.state, &top.link) {
        (LogState::Ended, _) => "ended".to_owned(),
        (LogState::Failed(reason), _) => reason.clone(),
        (_, Link::Down { reason, .. }) => format!("no connection, trying again: {reason}"),
        (LogState::Opening, _) => format!("opening{}", canvas.looks.ellipsis()),
        (LogState::Waiting(reason), _) => reason.clone(),
        (LogState::Following, _) if log.below > 0 => format!("{} lines below, End follows", log.below),
        (LogState::Following, _) => "following".to_owned(),
    };
    let dot = canvas.looks.dot();
    let title = format!("{}{dot}{}{dot}{state}", log.build, log.name);
    canvas.put(
        line.x + 1,
        line.y,
        line.width.saturating_sub(2),
        &title,
        Style::new().add_modifier(Modifier::BOLD),
    );
    canvas.reverse(line);

    let body = Rect { y: area.y + 1, height: area.height.saturating_sub(2), ..area };
    let height = usize::from(body.height);
    for (y, text) in (body.y..body.bottom()).zip(log.visible(height)) {
        match text {
            Some(text) => canvas.put(body.x, y, body.width, text, Style::new()),
            None => {
                let mark = format!("{} earlier part left out", canvas.looks.ellipsis());
                canvas.put(body.x, y, body.width, &mark, canvas.looks.dim())
            }
        };
    }
    let last = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
    keys(
        canvas,
        last,
        &[
            ("q", "back"),
            ("End", "follow"),
            ("PgUp/PgDn", "scroll"),
            ("Home", if log.is_cut { "start of what is kept" } else { "begin" }),
            ("Tab", "next log"),
            ("Ctrl-C", "quit"),
        ],
    );
}
