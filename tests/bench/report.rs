//! Tables of numbers: for people, and as JSON.
//!
//! A [`Line`] is one measure with its goal and the raw limits beside it, measured in the same run; a [`Table`] has
//! more columns and no goal.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::measure::{median, percentile};

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

/// What a measure is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(super) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {}", shown(*most)),
            Self::AtLeast(least) => write!(f, "≥ {}", shown(*least)),
        }
    }
}

/// What stands beside a measure, in its unit, so that the two can be divided.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) what: String,
    pub(super) values: Vec<f64>,
    /// What the machine does without moji. Two runs are compared by these only: what moji itself does in another way may
    /// get better too, and would then make the measure look worse.
    pub(super) is_limit: bool,
}

/// One measure, taken several times.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its name in JSON and for `--only`, in small letters with dashes.
    pub(super) key: String,
    /// For people.
    pub(super) what: String,
    pub(super) unit: &'static str,
    /// One for each time that it was measured.
    pub(super) values: Vec<f64>,
    pub(super) goal: Option<Goal>,
    pub(super) beside: Vec<Beside>,
}

impl Line {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>, unit: &'static str) -> Self {
        Self { key: key.into(), what: what.into(), unit, values: Vec::new(), goal: None, beside: Vec::new() }
    }

    pub(super) fn values(self, values: Vec<f64>) -> Self {
        Self { values, ..self }
    }

    pub(super) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Beside it: moji itself, in another way.
    pub(super) fn beside(mut self, what: impl Into<String>, values: Vec<f64>) -> Self {
        self.beside.push(Beside { what: what.into(), values, is_limit: false });
        self
    }

    /// Beside it: the machine, or another program.
    pub(super) fn limit(mut self, what: impl Into<String>, values: Vec<f64>) -> Self {
        self.beside.push(Beside { what: what.into(), values, is_limit: true });
        self
    }

    fn json(&self) -> Value {
        let beside = self.beside.iter().map(|one| {
            let mut spread = spread(&one.values);
            spread.insert("limit".to_owned(), json!(one.is_limit));
            (one.what.clone(), Value::Object(spread))
        });
        let (least, most) = match self.goal {
            Some(Goal::AtLeast(least)) => (Some(least), None),
            Some(Goal::AtMost(most)) => (None, Some(most)),
            None => (None, None),
        };
        json!({
            "what": self.what, "unit": self.unit, "measured": spread(&self.values), "at_least": least,
            "at_most": most, "beside": beside.collect::<Map<_, _>>(),
        })
    }
}

fn spread(values: &[f64]) -> Map<String, Value> {
    let (low, high) = (percentile(values, 0), percentile(values, 100));
    let numbers = [("median", median(values)), ("low", low), ("high", high)];
    let times = ("times".to_owned(), json!(values.len()));
    numbers.map(|(name, number)| (name.to_owned(), json!(number))).into_iter().chain([times]).collect()
}

/// All that was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<Line>,
    tables: Vec<Table>,
}

impl Report {
    pub(super) fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(super) fn lines(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.tables.is_empty()
    }

    fn show_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.what.chars().count()).max().unwrap_or_default();
        if !self.lines.is_empty() {
            writeln!(f, "\n{:width$}  {:>10}  {:>19}  {:>10}", "", "median", "low … high", "goal")?;
        }
        for line in &self.lines {
            let middle = median(&line.values);
            let range =
                format!("{} … {}", shown(percentile(&line.values, 0)), shown(percentile(&line.values, 100)));
            let goal = line.goal.map(|goal| goal.to_string()).unwrap_or_default();
            let met = match line.goal {
                Some(goal) if !goal.is_met(middle) => "  MISSED",
                _ => "",
            };
            write!(
                f,
                "{:width$}  {:>10}  {range:>19}  {goal:>10}  {}{met}",
                line.what,
                shown(middle),
                line.unit
            )?;
            writeln!(f)?;
            for one in &line.beside {
                let limit = median(&one.values);
                let ratio = if limit > 0.0 { middle / limit } else { 0.0 };
                writeln!(
                    f,
                    "{:width$}  {:>10}  {:>19}",
                    format!("  {}", one.what),
                    shown(limit),
                    format!("× {}", shown(ratio))
                )?;
            }
        }
        Ok(())
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
        let lines: Map<_, _> = self.lines.iter().map(|line| (line.key.clone(), line.json())).collect();
        let tables = self.tables.iter().map(|table| {
            let rows: Map<_, _> =
                table.rows.iter().map(|(name, numbers)| (name.clone(), row(table, numbers))).collect();
            (table.key.clone(), Value::Object(rows))
        });
        json!({ "measures": lines, "tables": Value::Object(tables.collect()) })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_lines(f)?;
        for table in &self.tables {
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
