//! Text on a grid of cells: cut to where it belongs, harmless, and in ASCII where there is nothing else.

use moji_proto::outcome::plain;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use crate::operator::top::text::Looks;

/// Where is drawn.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    pub(super) looks: Looks,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, looks: Looks) -> Self {
        Self { buffer, looks }
    }

    /// `text` as the terminal can show it.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = plain(text);
        if self.looks.unicode {
            text
        } else {
            text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
        }
    }

    /// Writes into `width` cells from there; what does not fit is cut, and that is shown. Gives back how many cells
    /// it took.
    pub(super) fn put(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        if width == 0 || !self.buffer.area.contains((x, y).into()) {
            return 0;
        }
        let text = self.shown(text);
        let room = usize::from(width);
        if Span::raw(&text).width() <= room {
            let (end, _) = self.buffer.set_stringn(x, y, &text, room, style);
            return end.saturating_sub(x);
        }
        let (end, _) = self.buffer.set_stringn(x, y, &text, room - 1, style);
        let (end, _) = self.buffer.set_stringn(end, y, self.looks.ellipsis(), 1, style);
        end.saturating_sub(x)
    }

    /// Writes so that the text ends with the cell before `x + width`.
    pub(super) fn put_right(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let wide = self.width(text).min(width);
        self.put(x + width - wide, y, wide, text, style);
    }

    /// Writes parts one behind the other, a dot between them. What comes from the first one on that does not
    /// fit is left out; the very first is cut.
    pub(super) fn flow(&mut self, area: Rect, parts: &[(String, Style)]) {
        let dot = self.looks.dot();
        let mut x = area.x;
        for (text, style) in parts.iter().filter(|(text, _)| !text.is_empty()) {
            let first = x == area.x;
            let gap = if first { 0 } else { self.width(dot) };
            let left = area.right().saturating_sub(x);
            if !first && gap + self.width(text) > left {
                break;
            }
            if !first {
                x += self.put(x, area.y, left, dot, self.looks.dim());
            }
            x += self.put(x, area.y, area.right().saturating_sub(x), text, *style);
        }
    }

    /// Fills a line with a rule of that style.
    pub(super) fn rule(&mut self, line: Rect, style: Style) {
        let rule = self.looks.rule().repeat(usize::from(line.width));
        self.put(line.x, line.y, line.width, &rule, style);
    }

    /// How many cells a text takes.
    pub(super) fn width(&self, text: &str) -> u16 {
        u16::try_from(Span::raw(self.shown(text)).width()).unwrap_or(u16::MAX)
    }

    /// Gives all of an area another style.
    pub(super) fn restyle(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area, style);
    }

    /// Turns the colours of an area round.
    pub(super) fn reverse(&mut self, area: Rect) {
        self.restyle(area, Style::new().add_modifier(Modifier::REVERSED));
    }

    /// Writes a text over several lines.
    pub(super) fn wrap(&mut self, area: Rect, text: &str) {
        let text = self.shown(text);
        Paragraph::new(text).wrap(Wrap { trim: true }).render(area, self.buffer);
    }

    /// Draws a box over what is there, and writes into it.
    pub(super) fn boxed(&mut self, area: Rect, title: &str, text: Paragraph<'_>) {
        const ASCII: ratatui::symbols::border::Set<'_> = ratatui::symbols::border::Set {
            top_left: "+",
            top_right: "+",
            bottom_left: "+",
            bottom_right: "+",
            vertical_left: "|",
            vertical_right: "|",
            horizontal_top: "-",
            horizontal_bottom: "-",
        };
        let set = if self.looks.unicode { ratatui::symbols::border::PLAIN } else { ASCII };
        let title =
            Span::styled(format!(" {} ", self.shown(title)), Style::new().add_modifier(Modifier::BOLD));
        Clear.render(area, self.buffer);
        text.block(Block::bordered().border_set(set).title(title)).render(area, self.buffer);
    }
}
