//! A log for a terminal: without anything that a terminal obeys. Pure, and indifferent to where its pieces are cut.

use moji_proto::outcome::plain;

/// Longest escape sequence that is waited for; what goes on longer is text.
const SEQUENCE: u32 = 256;

/// What the bytes before these have begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Text,
    /// ESC was seen.
    Escape,
    /// `ESC [`: ends with a letter or the like.
    Control,
    /// `ESC ]` and others that carry a text: ends with BEL or ESC.
    Message,
    /// `ESC (`: one more character.
    OneMore,
}

/// Makes a log harmless.
#[derive(Debug, Default)]
pub struct Cleaner {
    inside: Inside,
    length: u32,
    /// A character that is not whole yet.
    rest: Vec<u8>,
    was_return: bool,
}

impl Cleaner {
    /// The text of the next bytes, as far as it is whole.
    pub fn feed(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            self.valid(chunk.valid(), &mut text);
            let invalid = chunk.invalid();
            // At the very end it may become whole yet.
            if !invalid.is_empty() {
                let is_last = bytes.ends_with(invalid)
                    && chunk.invalid().as_ptr_range().end == bytes.as_ptr_range().end;
                if is_last && is_begun(invalid) {
                    self.rest = invalid.to_vec();
                } else {
                    self.character('\u{fffd}', &mut text);
                }
            }
        }
        text
    }

    /// Whole characters. What is between control characters is taken over at once: that is nearly all of a log.
    fn valid(&mut self, mut chunk: &str, text: &mut String) {
        while !chunk.is_empty() {
            let length = match (self.inside, self.was_return) {
                (Inside::Text, false) => chunk.find(char::is_control).unwrap_or(chunk.len()),
                _ => 0,
            };
            let (run, rest) = chunk.split_at(length);
            match run.is_ascii() {
                true => text.push_str(run),
                false => text.push_str(&plain(run)),
            }
            let mut rest = rest.chars();
            if let Some(c) = rest.next() {
                self.character(c, text);
            }
            chunk = rest.as_str();
        }
    }

    fn character(&mut self, c: char, text: &mut String) {
        self.length = self.length.saturating_add(1);
        if self.length > SEQUENCE {
            self.inside = Inside::Text;
        }
        let was_return = std::mem::take(&mut self.was_return);
        self.inside = match (self.inside, c) {
            (_, '\u{1b}') => self.begin(Inside::Escape),
            (Inside::Text, '\u{9b}') => self.begin(Inside::Control),
            (Inside::Text, _) => {
                match c {
                    '\n' if was_return => {}
                    '\n' | '\t' => text.push(c),
                    // What was to be written over stays to be read.
                    '\r' => {
                        self.was_return = true;
                        text.push('\n');
                    }
                    c if c.is_control() => {}
                    c => text.push_str(&plain(c.encode_utf8(&mut [0; 4]))),
                }
                Inside::Text
            }
            (Inside::Escape, '[') => Inside::Control,
            (Inside::Escape, ']' | 'P' | 'X' | '^' | '_') => Inside::Message,
            (Inside::Escape, ' '..='/') => Inside::OneMore,
            (Inside::Escape | Inside::OneMore, _) => Inside::Text,
            (Inside::Control, '@'..='~') => Inside::Text,
            (Inside::Message, '\u{7}' | '\u{9c}') => Inside::Text,
            // A sequence never goes beyond a line: an open one must not swallow the log.
            (Inside::Control | Inside::Message, '\n') => {
                text.push('\n');
                Inside::Text
            }
            (inside, _) => inside,
        };
    }

    fn begin(&mut self, inside: Inside) -> Inside {
        self.length = 0;
        inside
    }
}

/// Whether more bytes could make it a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let log = "a\u{1b}[31mred\u{1b}[0m\r\nb\u{1b}]0;title\u{7}c\u{1b}]8;;http://x\u{1b}\\d\tä日\u{9b}2Je\r50%\r100%\n\
                   \u{1b}(Bf\u{7}\u{8}\u{202e}g\u{1b}]open\nend\u{1b}c!"
            .as_bytes();
        let log = [log, b"\xff\xe6\n"].concat();
        let wanted = "ared\nbcd\tä日e\n50%\n100%\nf g\nend!\u{fffd}\u{fffd}\n";
        for size in 1..=log.len() {
            let mut cleaner = Cleaner::default();
            let text: String = log.chunks(size).map(|part| cleaner.feed(part)).collect();
            assert_eq!(text, wanted, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_plain_is_taken_over_wherever_it_is_cut_and_after_a_return() {
        for (log, wanted) in
            [("\rab~ \x7f!\n", "\nab~ !\n"), ("a\r\n\nb", "a\n\nb"), ("\x1b[1 mx\x1b(ny", "xy")]
        {
            for size in 1..=log.len() {
                let mut cleaner = Cleaner::default();
                let text: String = log.as_bytes().chunks(size).map(|part| cleaner.feed(part)).collect();
                assert_eq!(text, wanted, "in parts of {size}");
            }
        }
    }

    #[test]
    fn a_sequence_without_an_end_does_not_swallow_the_log() {
        let mut cleaner = Cleaner::default();
        let text = cleaner.feed(format!("\u{1b}]{}seen", "x".repeat(300)).as_bytes());
        assert!(text.ends_with("seen"), "{text}");
    }
}
