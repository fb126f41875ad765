//! Tables, all of one make: a caption, headings, and on a phone each row a card.
//!
//! The roles are said in words too: a browser forgets that something is a table when CSS makes cards of it.

use maud::{Markup, html};

/// One row.
pub(super) struct Row {
    /// What tells it from the others, so that it stays itself when the page is brought up to date.
    pub(super) key: String,
    /// The first one is the row's heading.
    pub(super) cells: Vec<Markup>,
}

/// A table; of a column whose heading ends with `#` the numbers stand one below the other.
pub(super) fn table(caption: &str, columns: &[&str], rows: Vec<Row>) -> Markup {
    let columns: Vec<(&str, bool)> = columns
        .iter()
        .map(|column| column.strip_suffix('#').map_or((*column, false), |name| (name, true)))
        .collect();
    html! {
        table role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    @for (column, is_number) in &columns {
                        th role="columnheader" scope="col" .number[*is_number] { (column) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for row in &rows {
                    tr role="row" data-key=(row.key) {
                        @for (at, (cell, (column, is_number))) in row.cells.iter().zip(&columns).enumerate() {
                            @if at == 0 {
                                th role="rowheader" scope="row" { (cell) }
                            } @else {
                                td role="cell" data-label=(column) .number[*is_number] .empty[cell.0.is_empty()] {
                                    div { (cell) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
