//! The terminal: entered, drawn on, read from and left. Works in threads of its own, because terminals block.
//!
//! Decides nothing: keys go to [`super::keys`], what is drawn comes from [`super::draw`].

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::sync::mpsc;

use super::draw::draw;
use super::keys::Pressed;
use super::state::{News, Top, Wish};
use super::text::Looks;

/// How often the thread that reads keys looks whether anybody still wants them.
const LOOK: Duration = Duration::from_millis(200);
/// After so many things that happened the screen is drawn, though more of them wait.
const AT_ONCE: usize = 64;

/// What happens to the screen.
#[derive(Debug)]
pub(super) enum Input {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// A second went by.
    Tick,
    /// The server, or the way to it, has something to say.
    News(News),
    /// Leave.
    Quit,
}

/// The terminal while it is ours. It is given back when this is dropped, and before a panic says what it is about.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // A part of it may have been done.
                ratatui::restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The error has no reader: what could not be written is what would say it.
        let _ = self.0.show_cursor();
        ratatui::restore();
    }
}

/// Draws what is known whenever something happens, until somebody leaves.
pub(super) fn show(
    screen: &mut Screen,
    mut top: Top,
    looks: Looks,
    mut inputs: mpsc::Receiver<Input>,
    wishes: &mpsc::Sender<Wish>,
) -> io::Result<()> {
    loop {
        top.now = Timestamp::now();
        screen.0.draw(|frame| draw(&top, looks, frame.buffer_mut()))?;
        let height = screen.0.size()?.height;
        let Some(first) = inputs.blocking_recv() else { return Ok(()) };
        let mut next = Some(first);
        for _ in 0..AT_ONCE {
            let Some(input) = next.take() else { break };
            if !take_in(&mut top, input, height, wishes) {
                return Ok(());
            }
            next = inputs.try_recv().ok();
        }
        if let Some(input) = next
            && !take_in(&mut top, input, height, wishes)
        {
            return Ok(());
        }
    }
}

/// Whether it goes on after that.
fn take_in(top: &mut Top, input: Input, height: u16, wishes: &mpsc::Sender<Wish>) -> bool {
    match input {
        Input::Quit => return false,
        Input::Tick | Input::Resized => {}
        Input::News(news) => top.learn(Timestamp::now(), news),
        Input::Key(key) => match top.press(key, height) {
            Pressed::Quit => return false,
            Pressed::Wishes(wanted) => {
                for wish in wanted {
                    if wishes.try_send(wish).is_err() {
                        top.tell("the server has not answered yet: try again".to_owned(), false);
                    }
                }
            }
        },
    }
    true
}

/// Begins to read keys, in a thread that ends when nobody wants them, or when there is no terminal any more.
pub(super) fn read_keys(inputs: mpsc::Sender<Input>) -> io::Result<()> {
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while !inputs.is_closed() {
            let input = match event::poll(LOOK).and_then(|is_there| is_there.then(event::read).transpose()) {
                Ok(None) => continue,
                Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Release => continue,
                Ok(Some(Event::Key(key))) => Input::Key(key),
                Ok(Some(Event::Resize(..))) => Input::Resized,
                Ok(Some(_)) => continue,
                Err(_) => Input::Quit,
            };
            let is_end = matches!(input, Input::Quit);
            if inputs.blocking_send(input).is_err() || is_end {
                return;
            }
        }
    })?;
    Ok(())
}
