//! Text for people: on a terminal with colours and in its width, in a pipe plain and whole.
//!
//! Whatever comes from the server is made harmless here once more, whoever says that it is already.

pub mod lists;
pub mod log_text;
pub mod overview;
pub mod progress;
pub mod report;
pub mod story;
pub mod table;
pub mod words;

use std::io::{self, IsTerminal as _, Write as _};

use moji_proto::api::{BuildState, BuilderState, EventKind};
use moji_proto::outcome;

use super::Failure;
use super::options::Color;

/// Narrower terminals are treated as this one.
const NARROWEST: usize = 20;
/// What is assumed of a terminal that does not say.
const USUAL: usize = 80;

/// How text looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether there are colours.
    pub color: bool,
    /// Columns of the terminal; none: a pipe or a file, where nothing is cut off.
    pub width: Option<usize>,
}

/// How something is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// Of less weight.
    Dim,
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// It wants attention.
    Odd,
    /// It goes on.
    Busy,
}

impl Paint {
    /// Of a build.
    pub fn of_build(state: BuildState) -> Self {
        match state {
            BuildState::Queued => Self::Plain,
            BuildState::Running => Self::Busy,
            BuildState::Succeeded => Self::Good,
            BuildState::Failed => Self::Bad,
            BuildState::Parked | BuildState::Held => Self::Odd,
            BuildState::Withdrawn => Self::Dim,
        }
    }

    /// Of a builder.
    pub fn of_builder(state: BuilderState) -> Self {
        match state {
            BuilderState::Idle => Self::Plain,
            BuilderState::Building => Self::Busy,
            BuilderState::Draining | BuilderState::Drained => Self::Odd,
            BuilderState::Suspended => Self::Bad,
            BuilderState::Away => Self::Dim,
        }
    }

    /// Of an event.
    pub fn of_event(kind: EventKind) -> Self {
        match kind {
            EventKind::Succeeded | EventKind::Published | EventKind::BuilderBack => Self::Good,
            EventKind::Failed | EventKind::BuilderLost => Self::Bad,
            EventKind::Parked | EventKind::Held | EventKind::Steered | EventKind::Withdrawn => Self::Odd,
            EventKind::Started => Self::Busy,
            EventKind::Queued
            | EventKind::Ended
            | EventKind::BuilderConnected
            | EventKind::BuilderLeft
            | EventKind::QueueEmpty => Self::Plain,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Odd => "33",
            Self::Busy => "36",
        }
    }
}

impl Style {
    /// Of standard output.
    pub fn of_stdout(color: Color) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        let color = match color {
            Color::Auto => is_terminal && allowed,
            Color::Always => true,
            Color::Never => false,
        };
        let columns = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = is_terminal.then(|| columns().filter(|width| *width > 0).unwrap_or(USUAL).max(NARROWEST));
        Self { color, width }
    }

    /// `text`, marked. It is made harmless.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        let text = outcome::plain(text);
        match (self.color, paint.code()) {
            (true, code) if !code.is_empty() && !text.is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            _ => text,
        }
    }

    /// A heading.
    pub fn heading(&self, text: &str) -> String {
        self.paint(Paint::Bold, text)
    }
}

/// Writes to standard output, all at once.
///
/// # Errors
/// When it cannot be written, or nobody reads it.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same, of any bytes.
///
/// # Errors
/// As [`print()`].
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
}

/// A line to standard error, which is for what is no answer.
pub fn note(text: &str) {
    // Nobody is left to be told that nobody can be told.
    let _ = writeln!(io::stderr().lock(), "moji: {}", outcome::plain(text));
}

/// JSON as the server has sent it, made readable: names in their order, and nothing that a terminal obeys.
pub fn pretty(value: &serde_json::Value) -> String {
    let mut text = harmless(&serde_json::to_string_pretty(value).unwrap_or_default());
    text.push('\n');
    text
}

/// JSON on one line, as harmless.
pub fn compact(value: &serde_json::Value) -> String {
    let mut text = harmless(&value.to_string());
    text.push('\n');
    text
}

/// JSON with what is not harmless written as escapes. (ASCII's control characters are so already.)
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() || outcome::plain(c.encode_utf8(&mut [0; 4])) != " " {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_and_is_harmless() {
        let hostile = "a\u{1b}[31m\u{9b}2J\u{202e}b\u{e0041}ä\"\\\n\u{a0}";
        let value = serde_json::json!({ "z": hostile, "a": [1, null] });
        for text in [pretty(&value), compact(&value)] {
            let odd: Vec<_> = text
                .chars()
                .filter(|c| *c != '\n' && outcome::plain(&c.to_string()) != c.to_string())
                .collect();
            assert!(odd.is_empty(), "{odd:?} in {text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let colored = Style { color: true, width: None };
        assert_eq!(colored.paint(Paint::Bad, "failed\u{1b}[0m"), "\u{1b}[31mfailed [0m\u{1b}[0m");
        assert_eq!(colored.paint(Paint::Plain, "x"), "x");
        assert_eq!(Style::default().paint(Paint::Bad, "x"), "x");
    }
}
