//! How far uploads are: bars on a terminal, lines elsewhere. All of it goes to standard error.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use moji_proto::outcome::plain;

use super::{note, words};

/// A bar with rate and time left. `wide_bar` takes what the terminal has left.
const BAR: &str = "{prefix}{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
/// Below this many columns there is no room for a bar.
const NARROW: usize = 70;
const SHORT: &str = "{prefix}{msg} {percent}% {eta}";
/// Bars change at most this often, in times a second.
const RATE: u8 = 10;
/// Names are cut to this many columns.
const NAME: usize = 30;

/// How far uploads are.
#[derive(Debug)]
pub struct Progress {
    is_terminal: bool,
    number: usize,
    begun: std::cell::Cell<usize>,
}

/// How far one is.
#[derive(Debug)]
pub struct Bar {
    bar: Option<ProgressBar>,
    name: String,
    size: u64,
    begun: Option<u64>,
}

impl Progress {
    /// Of so many files.
    pub fn of_stderr(number: usize) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), number, begun: std::cell::Cell::new(0) }
    }

    /// Of a file of this size.
    pub fn begin(&self, name: &str, size: u64) -> Bar {
        let at = self.begun.get() + 1;
        self.begun.set(at);
        let bar = self.is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr_with_hz(RATE));
            let columns = rustix::termios::tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col));
            // A terminal that does not say how wide it is says 0.
            let width = columns.ok().filter(|columns| *columns > 0).unwrap_or(80);
            if let Ok(style) = ProgressStyle::with_template(if width < NARROW { SHORT } else { BAR }) {
                bar.set_style(style.progress_chars("=> "));
            }
            if self.number > 1 {
                bar.set_prefix(format!("[{at}/{}] ", self.number));
            }
            bar.set_message(super::table::cut(&plain(name), NAME.min(width / 2)));
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Bar { bar, name: plain(name), size, begun: None }
    }
}

impl Bar {
    /// So much of it is on its way.
    pub fn at(&mut self, bytes: u64) {
        let is_first = self.begun.is_none();
        let begun = *self.begun.get_or_insert(bytes);
        match &self.bar {
            // What an earlier try has sent is not this one's rate.
            Some(bar) if is_first => {
                bar.set_position(bytes);
                bar.reset_eta();
            }
            Some(bar) => bar.set_position(bytes),
            None if is_first && begun > 0 => {
                let (at, of) = (words::size(begun), words::size(self.size));
                note(&format!("{}: going on at {at} of {of}", self.name));
            }
            None if is_first => note(&format!("{}: sending {}", self.name, words::size(self.size))),
            None => {}
        }
    }

    /// Something happened to it; it may begin again.
    pub fn say(&mut self, text: &str) {
        self.begun = None;
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// It is there.
    pub fn done(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    /// It will not be.
    pub fn broken(self) {
        self.done();
    }
}
