//! A log as `moji top` shows it: its last lines, harmless, and where in them one reads.
//!
//! Knows nothing of where the bytes come from.

use std::collections::VecDeque;

use moji_proto::AttemptId;

use crate::operator::output::log_text::Cleaner;

/// Most lines that are kept; older ones go.
const LINES: usize = 5_000;
/// Longest line in bytes; the rest of it is left out.
const LINE: usize = 4_096;
/// The logs that an attempt can have, in the order in which they are offered.
pub(super) const NAMES: [&str; 4] = ["build.log", "root.log", "state.log", "mock.log"];

/// What the way to the server has to say of a log.
#[derive(Debug)]
pub(super) enum LogNews {
    /// Reading begins at this byte, after an interruption, or for the first time.
    From(u64),
    /// More of it.
    Bytes(Vec<u8>),
    /// There is nothing of it for now.
    Waiting(String),
    /// This was all, and nothing comes any more.
    Ended,
    /// It cannot be read.
    Failed(String),
}

/// How it is with the reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogState {
    /// It was asked for.
    Opening,
    /// What is new comes.
    Following,
    /// Nothing is there yet.
    Waiting(String),
    /// All is there.
    Ended,
    /// It cannot be read.
    Failed(String),
}

/// A log on the screen.
#[derive(Debug)]
pub(super) struct LogView {
    /// The number of this reading.
    pub(super) reading: u64,
    /// Of which build, for people.
    pub(super) build: String,
    /// Of which attempt.
    pub(super) attempt: AttemptId,
    /// Which of [`NAMES`].
    pub(super) name: &'static str,
    /// How it is with the reading.
    pub(super) state: LogState,
    /// Its lines, without what terminals obey.
    pub(super) lines: VecDeque<String>,
    /// How many lines are below the screen; 0: new ones are followed.
    pub(super) below: usize,
    /// Whether there was more before the first line.
    pub(super) is_cut: bool,
    /// The line that has not ended.
    rest: String,
    cleaner: Cleaner,
}

impl LogView {
    pub(super) fn new(reading: u64, build: String, attempt: AttemptId, name: &'static str) -> Self {
        Self {
            reading,
            build,
            attempt,
            name,
            state: LogState::Opening,
            lines: VecDeque::new(),
            below: 0,
            is_cut: false,
            rest: String::new(),
            cleaner: Cleaner::default(),
        }
    }

    /// Takes in more of it.
    pub(super) fn learn(&mut self, news: LogNews) {
        match news {
            LogNews::From(offset) => {
                self.state = LogState::Following;
                // Where a piece was cut out there is no whole line.
                self.is_cut |= offset > 0;
            }
            LogNews::Bytes(bytes) => {
                self.state = LogState::Following;
                for c in self.cleaner.feed(&bytes).chars() {
                    self.push(c);
                }
            }
            LogNews::Waiting(reason) => self.state = LogState::Waiting(reason),
            LogNews::Ended => {
                self.end_line();
                self.state = LogState::Ended;
            }
            LogNews::Failed(reason) => self.state = LogState::Failed(reason),
        }
    }

    fn push(&mut self, c: char) {
        match c {
            '\n' => {
                let line = std::mem::take(&mut self.rest);
                self.add(line);
            }
            _ if self.rest.len() >= LINE => {}
            '\t' => {
                let column = self.rest.chars().count();
                self.rest.extend(std::iter::repeat_n(' ', 8 - column % 8));
            }
            c => self.rest.push(c),
        }
    }

    fn end_line(&mut self) {
        if !self.rest.is_empty() {
            self.push('\n');
        }
    }

    fn add(&mut self, line: String) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.is_cut = true;
        }
        self.lines.push_back(line);
        if self.below > 0 {
            // Who reads further up goes on reading there.
            self.scroll_by(1, 0);
        }
    }

    /// Moves up by lines (down when negative), as far as there are any; `height` lines fit the screen.
    pub(super) fn scroll_by(&mut self, up: isize, height: usize) {
        let most = self.length().saturating_sub(height);
        self.below = self.below.saturating_add_signed(up).min(most);
    }

    /// The lines of a screen of this height, the last one of them at the bottom. None: here something is left out.
    pub(super) fn visible(&self, height: usize) -> impl Iterator<Item = Option<&str>> {
        let below = self.below.min(self.length().saturating_sub(height));
        let mark = self.is_cut.then_some(None);
        let all = mark.into_iter().chain(self.lines.iter().map(|line| Some(line.as_str())));
        let end = self.length() - below;
        let begin = end.saturating_sub(height);
        all.skip(begin).take(end - begin)
    }

    /// How many lines there are, with the one that says that others are left out.
    fn length(&self) -> usize {
        self.lines.len() + usize::from(self.is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> LogView {
        LogView::new(3, "hello-1-1".to_owned(), AttemptId { boot: 5, serial: 7 }, "build.log")
    }

    fn shown(log: &LogView, height: usize) -> Vec<&str> {
        log.visible(height).map(|line| line.unwrap_or("…")).collect()
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_are_harmless() {
        let mut log = view();
        for piece in [
            "one\ntw",
            "o\x1b[31m red\x1b[0m\n",
            "10%\r100%\r\n",
            "a\x1b[1",
            "mb\n",
            "a\tb\n\x1b]0;title\x07x\u{202e}y",
            "\n",
        ] {
            log.learn(LogNews::Bytes(piece.as_bytes().to_vec()));
        }
        assert_eq!(shown(&log, 9), ["one", "two red", "10%", "100%", "ab", "a       b", "x y"]);
    }

    #[test]
    fn a_line_without_end_is_bounded_and_an_escape_without_end_hides_only_its_line() {
        let mut log = view();
        log.learn(LogNews::Bytes(vec![b'x'; 100_000]));
        log.learn(LogNews::Bytes(b"\n\x1b]never ends\nnext\n".to_vec()));
        assert_eq!(log.lines.iter().map(String::len).collect::<Vec<_>>(), [LINE, 0, 4]);
    }

    #[test]
    fn who_reads_further_up_stays_there() {
        let mut log = view();
        log.learn(LogNews::Bytes(b"1\n2\n3\n4\n5\n".to_vec()));
        assert_eq!(shown(&log, 2), ["4", "5"]);
        log.scroll_by(2, 2);
        assert_eq!(shown(&log, 2), ["2", "3"]);
        log.learn(LogNews::Bytes(b"6\n7\n".to_vec()));
        assert_eq!(shown(&log, 2), ["2", "3"]);
        log.scroll_by(100, 2);
        assert_eq!(shown(&log, 2), ["1", "2"]);
        log.scroll_by(-100, 2);
        assert_eq!(shown(&log, 2), ["6", "7"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut log = view();
        log.learn(LogNews::From(0));
        assert!(!log.is_cut);
        for n in 0..LINES + 10 {
            log.learn(LogNews::Bytes(format!("{n}\n").into_bytes()));
        }
        assert_eq!(log.lines.len(), LINES);
        assert_eq!(log.lines.front().map(String::as_str), Some("10"));
        assert!(log.is_cut);
        log.scroll_by(isize::MAX, 2);
        assert_eq!(shown(&log, 2), ["…", "10"]);
    }

    #[test]
    fn a_log_that_ends_without_a_line_end_shows_its_last_line() {
        let mut log = view();
        log.learn(LogNews::Bytes(b"last words".to_vec()));
        assert!(log.lines.is_empty());
        log.learn(LogNews::Ended);
        assert_eq!(shown(&log, 2), ["last words"]);
        assert_eq!(log.state, LogState::Ended);
    }
}
