//! Tables: columns as wide as what is in them, in a pipe; cut to the terminal's width, on one. Pure.

use moji_proto::outcome::plain;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Paint, Style};

/// Between two columns.
const GAP: usize = 2;
/// Before a column is cut to less than this, others are left out.
const LEAST: usize = 12;
/// Columns up to this number are cut, but not left out.
const NEVER_LEFT_OUT: u8 = 1;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    is_right: bool,
    /// The higher, the sooner it is left out, and the less room it has before; 0: never.
    gives_way: u8,
}

impl Column {
    /// Of text.
    pub fn text(title: &'static str) -> Self {
        Self { title, is_right: false, gives_way: 0 }
    }

    /// Of numbers.
    pub fn number(title: &'static str) -> Self {
        Self { title, is_right: true, gives_way: 0 }
    }

    /// On a narrow terminal this one is cut (numbers are not), and then left out, before those with a lower number.
    #[must_use]
    pub fn gives_way(self, gives_way: u8) -> Self {
        Self { gives_way, ..self }
    }

    /// Half a number is worth nothing.
    fn is_cut(&self) -> bool {
        self.gives_way > 0 && !self.is_right
    }
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<(Paint, String)>>,
}

impl Table {
    /// Without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Another row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = (Paint, T)>) {
        self.rows.push(cells.into_iter().map(|(paint, text)| (paint, plain(&text.into()))).collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text; nothing without rows. A column in which nothing stands is left out.
    pub fn render(&self, style: &Style) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let widths = self.widths(style.width);
        let heading = self.columns.iter().map(|column| (Paint::Bold, column.title));
        let mut text = line(&self.columns, &widths, heading, style);
        for row in &self.rows {
            text +=
                &line(&self.columns, &widths, row.iter().map(|(paint, text)| (*paint, text.as_str())), style);
        }
        text
    }

    /// How wide each column is; 0: it is left out.
    fn widths(&self, most: Option<usize>) -> Vec<usize> {
        let cells =
            |at: usize| self.rows.iter().filter_map(move |row| row.get(at)).map(|(_, text)| text.width());
        let natural = |(at, column): (usize, &Column)| match cells(at).max().unwrap_or(0) {
            0 => 0,
            width => width.max(column.title.width()),
        };
        let natural: Vec<usize> = self.columns.iter().enumerate().map(natural).collect();
        let Some(most) = most else { return natural };
        let mut order: Vec<(u8, usize)> =
            self.columns.iter().enumerate().map(|(at, column)| (column.gives_way, at)).collect();
        order.retain(|(gives_way, _)| *gives_way > 0);
        order.sort_unstable();
        let least = |(column, width): (&Column, &usize)| match column.is_cut() {
            true => (*width).min(LEAST),
            false => *width,
        };
        let mut widths: Vec<usize> = self.columns.iter().zip(&natural).map(least).collect();
        for (gives_way, at) in order.iter().rev() {
            if let Some(width) = widths.get_mut(*at).filter(|_| *gives_way > NEVER_LEFT_OUT) {
                let was = std::mem::take(width);
                let fits_with = total(&widths) + if was > 0 { was + GAP } else { 0 } <= most;
                if let Some(width) = widths.get_mut(*at).filter(|_| fits_with) {
                    *width = was;
                }
            }
        }
        // What is left goes to the most important ones.
        for (_, at) in order {
            let free = most.saturating_sub(total(&widths));
            let over = total(&widths).saturating_sub(most);
            if let (Some(width), Some(natural)) =
                (widths.get_mut(at).filter(|width| **width > 0), natural.get(at))
            {
                *width = (*width + free).min(*natural).saturating_sub(over).max(1);
            }
        }
        widths
    }
}

fn total(widths: &[usize]) -> usize {
    let shown = widths.iter().filter(|width| **width > 0);
    shown.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

fn line<'a>(
    columns: &[Column],
    widths: &[usize],
    cells: impl Iterator<Item = (Paint, &'a str)>,
    style: &Style,
) -> String {
    let shown: Vec<_> = columns.iter().zip(widths).zip(cells).filter(|((_, width), _)| **width > 0).collect();
    let mut text = String::new();
    let last = shown.len().saturating_sub(1);
    for (at, ((column, width), (paint, cell))) in shown.into_iter().enumerate() {
        let cell = cut(cell, *width);
        let room = " ".repeat(width.saturating_sub(cell.width()));
        if column.is_right {
            text.push_str(&room);
        }
        text.push_str(&style.paint(paint, &cell));
        if !column.is_right && at != last {
            text.push_str(&room);
        }
        if at != last {
            text.push_str(&" ".repeat(GAP));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// `text` in lines of at most `width` columns, where its words allow it; all but the first are indented.
pub fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        if used > indent && used + word.trim_end().width() > width {
            lines.truncate(lines.trim_end().len());
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        }
        lines.push_str(word);
        used += word.width();
    }
    lines
}

/// `text` in at most `width` columns, with `…` where it was cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width.saturating_sub(1) {
            break;
        }
        used += wide;
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::number("ID"),
            Column::text("PACKAGE").gives_way(1),
            Column::text("EMPTY"),
            Column::text("REASON").gives_way(2),
        ]);
        table.row([
            (Paint::Plain, "7"),
            (Paint::Plain, "zlib-1.3-1"),
            (Paint::Plain, ""),
            (Paint::Bad, "it\nfailed"),
        ]);
        table.row([
            (Paint::Plain, "1234"),
            (Paint::Plain, "日本語-1-1"),
            (Paint::Plain, ""),
            (Paint::Plain, "x".repeat(40).as_str()),
        ]);
        table
    }

    #[test]
    fn a_pipe_gets_everything_and_a_terminal_what_fits() {
        let all = table().render(&Style::default());
        assert_eq!(
            all,
            format!(
                "  ID  PACKAGE     REASON\n   7  zlib-1.3-1  it failed\n1234  日本語-1-1  {}\n",
                "x".repeat(40)
            )
        );
        for width in 1..70 {
            let text = table().render(&Style { color: false, width: Some(width) });
            let widest = text.lines().map(|line| line.width()).max().unwrap();
            assert!(widest <= width.max(7), "{widest} columns on a terminal of {width}:\n{text}");
            assert!(text.lines().nth(2).is_some_and(|line| line.contains("1234")), "{text}");
        }
        let narrow = |width| table().render(&Style { color: false, width: Some(width) });
        assert_eq!(
            narrow(30),
            "  ID  PACKAGE     REASON\n   7  zlib-1.3-1  it failed\n1234  日本語-1-1  xxxxxxxxxxx…\n"
        );
        // Rather one that can be read than two that cannot.
        assert_eq!(narrow(29), "  ID  PACKAGE\n   7  zlib-1.3-1\n1234  日本語-1-1\n");
        assert_eq!(narrow(12), "  ID  PACKA…\n   7  zlib-…\n1234  日本…\n");
        assert_eq!(wrapped("Queue  a b, c dd, e", 12, 7), "Queue  a b,\n       c dd,\n       e");
        assert!(Table::new([Column::text("A")]).render(&Style::default()).is_empty());
    }
}
