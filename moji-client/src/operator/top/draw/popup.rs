//! Draws what lies over the rest: the keys, a question, why a build is where it is.

use moji_proto::api::Why;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::canvas::Canvas;
use crate::operator::top::state::Popup;

const KEYS: [(&str, &str); 11] = [
    ("Tab, Left, Right", "another panel"),
    ("Up, Down, j, k", "another row; PgUp, PgDn, Home, End go far"),
    ("Enter, l", "the log of the build; Tab goes to its other logs"),
    ("w", "why the build is where it is"),
    ("s", "sort the panel in another way"),
    ("r", "build it again"),
    ("c", "cancel it (admins)"),
    ("d", "drain the builder, or give it work again (admins)"),
    ("p", "pause the queue, or let it go on (admins)"),
    ("q, Esc", "back, or quit"),
    ("Ctrl-C", "quit"),
];

/// Draws it in the middle of the screen.
pub(super) fn draw(popup: &Popup, canvas: &mut Canvas<'_>, area: Rect) {
    let (title, lines, scrolled) = match popup {
        Popup::Help => ("Keys".to_owned(), help(canvas), 0),
        Popup::Ask { question, .. } => {
            let question = Line::raw(canvas.shown(question));
            ("Sure?".to_owned(), vec![question, Line::raw(""), Line::raw("y: yes   n: no")], 0)
        }
        Popup::Why { name, why, scrolled, .. } => {
            let lines = match why {
                None => vec![Line::raw("asking the server")],
                Some(Err(reason)) => vec![Line::styled(canvas.shown(reason), canvas.looks.bad())],
                Some(Ok(why)) => explain(why, canvas),
            };
            (format!("Why is {name} where it is?"), lines, *scrolled)
        }
    };
    let width = area.width.saturating_sub(4).min(match popup {
        Popup::Ask { .. } => 64,
        Popup::Help => 72,
        Popup::Why { .. } => 100,
    });
    let inner = usize::from(width.saturating_sub(2)).max(1);
    let height = lines.iter().map(|line| line.width().div_ceil(inner).max(1)).sum::<usize>() + 3;
    let height = u16::try_from(height).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let scrolled = u16::try_from(scrolled.min(lines.len().saturating_sub(1))).unwrap_or_default();
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scrolled, 0));
    canvas.boxed(place, &title, text);
}

fn help(canvas: &Canvas<'_>) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let lines = KEYS.iter().map(|(key, does)| {
        Line::from(vec![Span::styled(format!("{key:<18}"), bold), Span::raw(canvas.shown(does))])
    });
    lines.collect()
}

fn explain(why: &Why, canvas: &Canvas<'_>) -> Vec<Line<'static>> {
    let looks = canvas.looks;
    let head = |text: &str| Line::styled(text.to_owned(), Style::new().add_modifier(Modifier::BOLD));
    let mut lines = vec![
        Line::styled(why.build.state.word().to_owned(), looks.build(why.build.state)),
        Line::raw(canvas.shown(&why.summary)),
    ];
    if let Some(place) = why.place {
        lines.push(Line::raw(format!("Place {place} in the queue of its target.")));
    }
    if !why.missing.is_empty() {
        lines.extend([Line::raw(""), head("Missing")]);
    }
    for missing in &why.missing {
        let providers: Vec<_> =
            missing.providers.iter().map(|one| format!("{} ({})", one.build, one.state)).collect();
        let from =
            if providers.is_empty() { "nothing here brings it".to_owned() } else { providers.join(", ") };
        lines.push(Line::styled(canvas.shown(&format!("{}: {from}", missing.requirement)), looks.odd()));
    }
    if !why.builders.is_empty() {
        lines.extend([Line::raw(""), head("Builders")]);
    }
    for builder in &why.builders {
        let reasons = match builder.reasons.as_slice() {
            [] => "gets it as soon as it asks".to_owned(),
            reasons => reasons.join("; "),
        };
        lines.push(Line::raw(canvas.shown(&format!("{}: {reasons}", builder.builder))));
    }
    if let Some(excerpt) = &why.excerpt {
        lines.extend([Line::raw(""), head(&canvas.shown(&excerpt.log))]);
        lines.extend(excerpt.lines.iter().map(|line| Line::raw(canvas.shown(line))));
    }
    lines
}
