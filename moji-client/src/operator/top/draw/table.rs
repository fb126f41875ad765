//! Rows and columns: which columns fit, and how wide they are.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::canvas::Canvas;

/// What stands between two columns.
const GAP: u16 = 2;
/// The place of the mark before a row.
const MARK: u16 = 2;

/// A column.
pub(super) struct Column {
    /// What stands above it.
    pub(super) head: &'static str,
    /// With less than that it is useless.
    pub(super) least: u16,
    /// When it gets too narrow, the columns with the highest rank go first. A column of rank 0 stays.
    pub(super) rank: u8,
    /// Whether it ends at the same place in all rows.
    pub(super) is_number: bool,
}

impl Column {
    pub(super) const fn text(head: &'static str, least: u16, rank: u8) -> Self {
        Self { head, least, rank, is_number: false }
    }

    pub(super) const fn number(head: &'static str, least: u16, rank: u8) -> Self {
        Self { head, least, rank, is_number: true }
    }
}

/// What stands in a row's column.
pub(super) enum Cell {
    /// A text.
    Text(String, Style),
    /// How much of a whole.
    Bar(u64, u64, Style),
}

impl Cell {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::Text(text.into(), Style::new())
    }
}

/// Draws the heads of columns, and the rows; the chosen one is marked.
pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    area: Rect,
    columns: &[Column],
    rows: &[Vec<Cell>],
    chosen: Option<usize>,
) {
    let wanted: Vec<u16> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| natural(canvas, cell));
            cells.chain([canvas.width(column.head)]).max().unwrap_or_default().max(column.least)
        })
        .collect();
    let widths = fit(columns, &wanted, area.width.saturating_sub(MARK));

    let heads: Vec<Cell> =
        columns.iter().map(|column| Cell::Text(column.head.to_owned(), canvas.looks.dim())).collect();
    let lines = std::iter::once(&heads).chain(rows);
    for (y, cells) in (area.y..area.bottom()).zip(lines) {
        let is_chosen =
            chosen.is_some_and(|row| Some(y) == u16::try_from(row + 1).ok().map(|row| area.y + row));
        let line = Rect { y, height: 1, ..area };
        row(canvas, line, columns, &widths, cells, is_chosen);
    }
}

fn row(
    canvas: &mut Canvas<'_>,
    line: Rect,
    columns: &[Column],
    widths: &[u16],
    cells: &[Cell],
    is_chosen: bool,
) {
    if is_chosen {
        canvas.put(line.x, line.y, 1, ">", Style::new().add_modifier(Modifier::BOLD));
    }
    let mut x = line.x + MARK;
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells).filter(|((_, width), _)| **width > 0)
    {
        match cell {
            Cell::Text(text, style) if column.is_number => canvas.put_right(x, line.y, *width, text, *style),
            Cell::Text(text, style) => {
                canvas.put(x, line.y, *width, text, *style);
            }
            Cell::Bar(part, whole, style) => {
                let bar = canvas.looks.bar(*part, *whole, usize::from(*width));
                canvas.put(x, line.y, *width, &bar, *style);
            }
        }
        x += width + GAP;
    }
    if is_chosen {
        canvas.reverse(line);
    }
}

/// How wide a cell would like to be.
fn natural(canvas: &Canvas<'_>, cell: &Cell) -> u16 {
    match cell {
        Cell::Text(text, _) => canvas.width(text),
        Cell::Bar(..) => 20,
    }
}

/// A width for each column so that all fit; 0 for those that do not. Columns go by rank until the rest has its
/// least; then those of the highest rank give way first.
fn fit(columns: &[Column], wanted: &[u16], available: u16) -> Vec<u16> {
    let mut widths: Vec<u16> = wanted.iter().map(|wide| (*wide).min(available / 2 + 12)).collect();
    let needed = |widths: &[u16], least: bool| {
        let shown = columns.iter().zip(widths).filter(|(_, width)| **width > 0);
        let cells = shown.map(|(column, width)| GAP + if least { column.least.min(*width) } else { *width });
        cells.fold(0_u16, u16::saturating_add).saturating_sub(GAP)
    };
    while needed(&widths, true) > available {
        let last = columns
            .iter()
            .zip(&mut widths)
            .filter(|(column, width)| **width > 0 && column.rank > 0)
            .max_by_key(|(column, _)| column.rank);
        let Some((_, width)) = last else { break };
        *width = 0;
    }
    loop {
        let over = needed(&widths, false).saturating_sub(available);
        let first = columns
            .iter()
            .zip(&mut widths)
            .filter(|(column, width)| **width > column.least)
            .max_by_key(|(column, width)| (column.rank, **width));
        match first {
            Some((column, width)) if over > 0 => *width -= over.min(*width - column.least),
            _ => return widths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("package", 12, 0),
        Column::text("target", 8, 2),
        Column::text("builder", 6, 1),
        Column::number("time", 4, 3),
    ];

    #[test]
    fn columns_get_what_they_want_while_there_is_room() {
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 57), [20, 17, 8, 6]);
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 200), [20, 17, 8, 6]);
    }

    #[test]
    fn those_of_high_rank_give_way_down_to_their_least() {
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 56), [20, 17, 8, 5]);
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 50), [20, 12, 8, 4]);
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 36), [12, 8, 6, 4]);
    }

    #[test]
    fn no_column_takes_it_all() {
        assert_eq!(fit(&COLUMNS, &[u16::MAX, 8, 8, 6], 53), [29, 8, 6, 4]);
        assert_eq!(fit(&COLUMNS, &[20, u16::MAX, 8, 6], 200), [20, 112, 8, 6]);
    }

    #[test]
    fn then_columns_go_by_rank() {
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 35), [17, 8, 6, 0]);
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 29), [20, 0, 7, 0]);
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 13), [13, 0, 0, 0]);
        assert_eq!(fit(&COLUMNS, &[20, 17, 8, 6], 3), [12, 0, 0, 0]);
    }
}
