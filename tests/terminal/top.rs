//! `moji top`.

use moji_tests::support::processes::{Farm, wait_until};

use crate::plain::moji;
use crate::tmux::Terminal;

/// A farm in which one build waits at its gate, and another one waits for a slot.
fn farm() -> Farm {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_gated("first");
    farm.wait_at_gate("b1", "first");
    farm.queue_gated("second");
    farm.wait_queued("second");
    farm
}

fn top(farm: &Farm, size: (u16, u16), environment: &[(&str, &str)]) -> Terminal {
    Terminal::run(&farm.path(""), size, environment, &moji(farm, "top"))
}

#[test]
fn it_shows_what_runs_and_what_comes_of_it_and_gives_the_terminal_back() {
    let farm = farm();
    let terminal = top(&farm, (100, 30), &[]);
    let screen = terminal.wait_for(&["Running 1", "Queue 1", "building", "first-1-1", "second-1-1", "ready"]);
    let line_of = |text: &str| screen.lines().find(|line| line.contains(text)).unwrap().to_owned();
    assert!(
        line_of("first-1-1").starts_with("> first-1-1") && line_of("first-1-1").contains("b1"),
        "{screen}"
    );
    assert!(line_of("second-1-1").contains("ready"), "{screen}");
    assert!(terminal.is_full_screen() && !terminal.has_cursor());
    farm.open("first");
    let screen = terminal.wait_for(&["succeeded  first-1-1", "second-1-1"]);
    assert!(screen.contains("Newest results"), "{screen}");
    // A colour that says the same as the word.
    assert!(terminal.coloured().contains("\u{1b}[38;5;2msucceeded"), "{}", terminal.coloured());
    terminal.press(&["q"]);
    terminal.wait_for(&["ended: 0"]);
    assert!(!terminal.is_full_screen() && terminal.has_cursor());
}

#[test]
fn it_reads_a_log_that_grows() {
    let farm = farm();
    let terminal = top(&farm, (100, 30), &[]);
    terminal.wait_for(&["> first-1-1"]);
    terminal.press(&["Enter"]);
    terminal.wait_for(&["first-1-1 · build.log · following", "sleep 0.02"]);
    farm.open("first");
    terminal.wait_for(&["build.log · ended"]);
    terminal.press(&["q"]);
    terminal.wait_for(&["Newest results", "succeeded  first-1-1"]);
}

#[test]
fn it_asks_before_it_acts() {
    let farm = farm();
    let terminal = top(&farm, (100, 30), &[]);
    terminal.wait_for(&["Running 1"]);
    terminal.press(&["p"]);
    terminal.wait_for(&["Pause the queue?"]);
    terminal.press(&["y"]);
    terminal.wait_for(&["PAUSED"]);
    terminal.press(&["Tab", "w"]);
    terminal.wait_for(&["Why is second-1-1 where it is?", "queued"]);
    terminal.press(&["Escape"]);
    terminal.wait("the popup to go", |screen| !screen.contains("Why is"));
    terminal.press(&["p"]);
    terminal.wait_for(&["Hand builds out again?"]);
    terminal.press(&["y"]);
    terminal.wait("the queue to go on", |screen| !screen.contains("PAUSED"));
}

#[test]
fn it_fits_any_size_and_follows_a_change_of_it() {
    let farm = farm();
    let terminal = top(&farm, (60, 20), &[]);
    let screen = terminal.wait_for(&["Running 1", "first-1-1", "second-1-1", "Builders 1"]);
    assert!(screen.lines().all(|line| line.chars().count() <= 60), "{screen}");
    terminal.resize((30, 8));
    terminal.wait_for(&["too small"]);
    terminal.resize((130, 40));
    terminal.wait("all columns", |screen| screen.contains("Builders 1") && screen.contains("targets"));
}

#[test]
fn it_does_without_colours_and_without_more_than_ascii() {
    let farm = farm();
    let terminal = top(&farm, (100, 30), &[("NO_COLOR", "1"), ("LANG", "C")]);
    let screen = terminal.wait_for(&["-- Running 1", "first-1-1"]);
    assert!(screen.is_ascii(), "{screen}");
    let coloured = terminal.coloured();
    let is_colour = |code: &str| code.starts_with('3') || code.starts_with('4') || code.starts_with('9');
    for sequence in coloured.split("\u{1b}[").skip(1) {
        let codes = sequence.split('m').next().unwrap();
        // 39 and 49 are the terminal's own.
        let mut codes = codes.split(';').filter(|code| code.len() > 1 && !matches!(*code, "39" | "49"));
        assert!(!codes.any(is_colour), "{coloured:?}");
    }
}

#[test]
fn it_connects_again_and_says_that_it_does() {
    let mut farm = farm();
    let terminal = top(&farm, (100, 30), &[]);
    terminal.wait_for(&["Running 1", "first-1-1"]);
    farm.server = None;
    // What was known stays.
    terminal.wait_for(&["no connection to", "trying again", "first-1-1"]);
    farm.start_server(&[]);
    terminal.wait("another connection", |screen| !screen.contains("no connection to"));
    farm.open("first");
    terminal.wait_for(&["succeeded  first-1-1"]);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let farm = farm();
    for signal in ["TERM", "INT", "HUP"] {
        let pid = farm.path(format!("pid-{signal}"));
        let line = format!("sh -c 'echo $$ >{}; exec {}'", pid.display(), moji(&farm, "top"));
        let terminal = Terminal::run(&farm.path(""), (100, 30), &[], &line);
        terminal.wait_for(&["Running 1"]);
        let id = std::fs::read_to_string(&pid).unwrap();
        let status = std::process::Command::new("kill").args(["-s", signal, id.trim()]).status().unwrap();
        assert!(status.success());
        terminal.wait_for(&["ended: 0"]);
        wait_until("the terminal as it was", || !terminal.is_full_screen() && terminal.has_cursor());
    }
}
