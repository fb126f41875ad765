//! Text of logs, made harmless: what compilers and test suites write for a terminal, as lines of plain text in a few
//! named styles.
//!
//! Pure. Whatever goes in, no control character and nothing that hides or reorders text comes out, and the same comes
//! out however the bytes are cut. Colours are the only thing that is taken from escape sequences. A line stands for
//! itself: it begins plain, so that a log can be read from the beginning of any of them. It deliberately does not
//! know where lines are shown; who makes markup of them escapes them all the same.

mod escape;
mod style;
#[cfg(test)]
mod tests;

use moji_proto::outcome;
use serde::{Serialize, Serializer};

use escape::{Escape, Meaning};
pub use style::{Color, Style};

/// Longest line, in bytes of what is shown; the rest of it is left out.
pub const LINE_MAX: usize = 4096;
/// Columns between two tabs.
const TAB: usize = 8;

/// Some text in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// How it is shown.
    pub style: Style,
    /// What is shown.
    pub text: String,
}

/// As `["bold-red", "text"]`.
impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.style.name(), &self.text).serialize(to)
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// What is in it; nothing: it is empty.
    pub segments: Vec<Segment>,
    /// Where in the log the next one begins, in bytes.
    pub end: u64,
}

impl Line {
    /// Without styles.
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect()
    }
}

/// As the array of its segments.
impl Serialize for Line {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.segments.serialize(to)
    }
}

/// All lines of a text.
pub fn lines(bytes: &[u8]) -> Vec<Line> {
    let mut cleaner = Cleaner::new(0);
    let mut lines = cleaner.push(bytes);
    lines.extend(cleaner.finish());
    lines
}

/// Makes lines of the bytes of a log as they come. Of a line it keeps what is shown, and not more.
#[derive(Debug, Clone)]
pub struct Cleaner {
    /// Where in the log the next byte is.
    at: u64,
    /// The first bytes of a character.
    part: Vec<u8>,
    escape: Escape,
    style: Style,
    segments: Vec<Segment>,
    /// Bytes in `segments`.
    length: usize,
    /// Characters in `segments`.
    column: usize,
    is_cut: bool,
    /// The next character begins the line anew: a progress bar.
    is_overwritten: bool,
    /// Something has come since the last line.
    is_begun: bool,
}

impl Cleaner {
    /// For what begins at this byte of a log, which is the beginning of a line.
    pub fn new(offset: u64) -> Self {
        Self {
            at: offset,
            part: Vec::new(),
            escape: Escape::default(),
            style: Style::default(),
            segments: Vec::new(),
            length: 0,
            column: 0,
            is_cut: false,
            is_overwritten: false,
            is_begun: false,
        }
    }

    /// Takes what comes next; gives the lines that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for byte in bytes {
            self.at += 1;
            self.is_begun = true;
            if *byte == b'\n' {
                lines.push(self.end_line());
            } else if self.part.is_empty() && byte.is_ascii() {
                self.take(char::from(*byte));
            } else {
                self.part.push(*byte);
                self.decode();
            }
        }
        lines
    }

    /// The last line, if it has no end. What comes after it begins another one.
    pub fn finish(&mut self) -> Option<Line> {
        self.is_begun.then(|| self.end_line())
    }

    fn end_line(&mut self) -> Line {
        if !self.part.is_empty() {
            self.take(char::REPLACEMENT_CHARACTER);
        }
        let mut segments = std::mem::take(&mut self.segments);
        for segment in &mut segments {
            segment.text = outcome::plain(&segment.text);
        }
        if self.is_cut {
            segments.push(Segment { style: Style::default(), text: "…".to_owned() });
        }
        let end = self.at;
        *self = Self::new(end);
        Line { segments, end }
    }

    /// Takes the characters of `part` that are whole, or cannot become so.
    fn decode(&mut self) {
        loop {
            let (taken, used) = match std::str::from_utf8(&self.part) {
                Ok(text) => (text.chars().next(), self.part.len()),
                Err(error) => match (error.valid_up_to(), error.error_len()) {
                    // At most one character is here, because this is done at each byte.
                    (0, None) => return,
                    (0, Some(wrong)) => (Some(char::REPLACEMENT_CHARACTER), wrong),
                    (valid, _) => {
                        let text = self.part.get(..valid).map(String::from_utf8_lossy);
                        (text.and_then(|text| text.chars().next()), valid)
                    }
                },
            };
            self.part.drain(..used.max(1).min(self.part.len()));
            if let Some(c) = taken {
                self.take(c);
            }
            if self.part.is_empty() {
                return;
            }
        }
    }

    fn take(&mut self, c: char) {
        match self.escape.take(c, &mut self.style) {
            Meaning::Nothing => {}
            Meaning::Shown => match c {
                '\r' => self.is_overwritten = true,
                '\u{8}' => self.back(),
                '\t' => {
                    for _ in 0..TAB - self.column % TAB {
                        self.show(' ');
                    }
                }
                c if c.is_control() => {}
                c => self.show(c),
            },
        }
    }

    fn show(&mut self, c: char) {
        if std::mem::take(&mut self.is_overwritten) {
            self.segments.clear();
            (self.length, self.column, self.is_cut) = (0, 0, false);
        }
        if self.is_cut || self.length + c.len_utf8() > LINE_MAX {
            self.is_cut = true;
            return;
        }
        self.length += c.len_utf8();
        self.column += 1;
        match self.segments.last_mut() {
            Some(last) if last.style == self.style => last.text.push(c),
            _ => self.segments.push(Segment { style: self.style, text: c.to_string() }),
        }
    }

    /// A backspace: what spinners write.
    fn back(&mut self) {
        if self.is_overwritten || self.is_cut {
            return;
        }
        let Some(last) = self.segments.last_mut() else { return };
        if let Some(c) = last.text.pop() {
            self.length -= c.len_utf8();
            self.column -= 1;
        }
        if last.text.is_empty() {
            self.segments.pop();
        }
    }
}
