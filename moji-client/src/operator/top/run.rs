//! Brings the terminal, the server and the signals together, and ends them together.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::link::{self, Ways};
use super::screen::{self, Input, Screen};
use super::state::{News, Top};
use super::text::Looks;
use crate::operator::{Failure, Farm};

/// How much waits for the screen before those who have something wait.
const INPUTS: usize = 256;
/// How much waits for the server.
const WISHES: usize = 64;
/// For how long a terminal may not take what is written before it is left as it is.
const STUCK: Duration = Duration::from_secs(2);

/// Shows the farm until somebody presses `q`, or a signal ends it. The terminal is afterwards as it was before.
///
/// # Errors
/// When there is no terminal, when the farm cannot be reached at the start, or says what is not understood.
pub async fn run(farm: &Farm, colours: bool) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::Wrong(
            "moji top wants a terminal, and standard output is none: moji status says the same once".into(),
        ));
    }
    let role = farm.session().await?.welcome().role;
    let looks = Looks { colours, unicode: is_utf8(|name| std::env::var(name).ok()) };
    let mut top = Top::new(farm.server(), Timestamp::now());
    top.learn(Timestamp::now(), News::Connected { role });

    let (inputs, to_screen) = mpsc::channel(INPUTS);
    let (wishes, wished) = mpsc::channel(WISHES);
    let broken = |error: io::Error| Failure::Broken(format!("cannot use the terminal: {error}"));
    let mut tasks = JoinSet::new();
    tasks.spawn(signals().map_err(broken)?);
    let mut shown = tokio::task::spawn_blocking(move || {
        let mut screen = Screen::enter()?;
        screen::show(&mut screen, top, looks, to_screen, &wishes)
    });
    screen::read_keys(inputs.clone()).map_err(broken)?;
    tasks.spawn(tick(inputs.clone()));
    link::start(farm, &mut tasks, Ways { news: inputs.clone(), wished });

    let first = tokio::select! {
        shown = &mut shown => return of_screen(shown),
        Some(ended) = tasks.join_next() => ended,
    };
    // Whatever has ended, a signal's task or the link's: the screen goes first, then what is to be said.
    let _ = inputs.try_send(Input::Quit);
    leave(shown).await;
    first.unwrap_or_else(|error| Err(Failure::Broken(format!("a part of moji top has ended: {error}"))))
}

/// Waits until the screen is left. One that takes nothing any more is left by force.
async fn leave(shown: JoinHandle<io::Result<()>>) {
    if timeout(STUCK, shown).await.is_err() {
        ratatui::restore();
    }
}

fn of_screen(shown: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), Failure> {
    match shown {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Broken(format!("cannot use the terminal: {error}"))),
        // The panic has already said what it is about, on a terminal that was given back.
        Err(_) => Err(Failure::Broken("moji top has stopped: this is a bug of it".into())),
    }
}

/// Ends at a signal that ends programs.
fn signals() -> io::Result<impl Future<Output = Result<(), Failure>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok(())
    })
}

/// Lets times on the screen go on.
async fn tick(inputs: mpsc::Sender<Input>) -> Result<(), Failure> {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        if inputs.send(Input::Tick).await.is_err() {
            return Ok(());
        }
    }
}

/// Whether the locale of these variables is one with more than ASCII; as in `setlocale(3)`, the first one that is
/// set and not empty counts.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_the_locale_that_says_something_counts() {
        let with = |set: &[(&str, &str)]| {
            is_utf8(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!with(&[("LANG", "POSIX")]));
        assert!(!with(&[]));
    }
}
