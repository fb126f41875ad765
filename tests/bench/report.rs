//! Tables of numbers: for people, and as JSON.

use std::fmt;

use serde_json::{Map, Value, json};

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in JSON.
    pub(super) key: String,
    /// What it is about.
    pub(super) title: String,
    pub(super) columns: Vec<&'static str>,
    /// What was measured, and a number for each column; none: it makes no sense there.
    pub(super) rows: Vec<(String, Vec<Option<f64>>)>,
    /// What has to be known to read it.
    pub(super) note: String,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Table>);

impl Report {
    pub(super) fn add(&mut self, table: Table) {
        self.0.push(table);
    }

    /// Table, row, column, number.
    pub(super) fn json(&self) -> Value {
        let row = |table: &Table, numbers: &[Option<f64>]| -> Value {
            table
                .columns
                .iter()
                .zip(numbers)
                .map(|(name, number)| ((*name).to_owned(), json!(number)))
                .collect()
        };
        let tables = self.0.iter().map(|table| {
            let rows: Map<_, _> =
                table.rows.iter().map(|(name, numbers)| (name.clone(), row(table, numbers))).collect();
            (table.key.clone(), Value::Object(rows))
        });
        Value::Object(tables.collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.0 {
            writeln!(f, "\n{}", table.title)?;
            let width = table.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
            write!(f, "  {:width$}", "")?;
            for column in &table.columns {
                write!(f, "  {column:>10}")?;
            }
            writeln!(f)?;
            for (name, numbers) in &table.rows {
                write!(f, "  {name:width$}")?;
                for (column, number) in table.columns.iter().zip(numbers) {
                    let width = column.chars().count().max(10);
                    write!(f, "  {:>width$}", number.map(shown).unwrap_or_default())?;
                }
                writeln!(f)?;
            }
            writeln!(f, "  {}", table.note)?;
        }
        Ok(())
    }
}

/// Three digits that count.
fn shown(number: f64) -> String {
    match number {
        _ if number >= 100.0 => format!("{number:.0}"),
        _ if number >= 10.0 => format!("{number:.1}"),
        _ if number >= 0.1 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}
