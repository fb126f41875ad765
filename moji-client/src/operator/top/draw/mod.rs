//! Draws `moji top`: a function of what is known, of what the terminal can show and of its size.
//!
//! Knows no terminal and changes nothing.

mod canvas;
mod header;
mod log;
mod panels;
mod popup;
mod table;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::state::Top;
use super::text::Looks;
use canvas::Canvas;

/// Below this, nothing that helps can be shown.
const LEAST: (u16, u16) = (40, 10);

/// Draws all of it.
pub(super) fn draw(top: &Top, looks: Looks, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut canvas = Canvas::new(buffer, looks);
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("too small: moji top wants {}x{}, q quits", LEAST.0, LEAST.1);
        return canvas.wrap(area, &text);
    }
    match &top.log {
        Some(view) => log::draw(view, top, &mut canvas, area),
        None => farm(top, &mut canvas, area),
    }
    if let Some(shown) = &top.popup {
        popup::draw(shown, &mut canvas, area);
    }
}

fn farm(top: &Top, canvas: &mut Canvas<'_>, area: Rect) {
    let above = header::draw(top, canvas, area);
    let events = (area.height.saturating_sub(18) / 6).clamp(1, 4);
    let below = events + 1;
    let body = Rect { y: area.y + above, height: area.height.saturating_sub(above + below), ..area };
    panels::draw(top, canvas, body);
    header::footer(top, canvas, Rect { y: body.bottom(), height: below, ..area });
}
