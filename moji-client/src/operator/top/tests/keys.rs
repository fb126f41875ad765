//! What keys do.

use moji_proto::AttemptId;
use moji_proto::api::BuilderState;
use moji_proto::operator::{Act, Done, Role};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::fixtures::{at, busy, busy_queue, run, top, why};
use crate::operator::top::keys::Pressed;
use crate::operator::top::log::{LogNews, NAMES};
use crate::operator::top::state::{News, Panel, Popup, Top, Wish};

fn admin() -> Top {
    top(Role::Admin, busy(), busy_queue())
}

/// Presses one after the other; what the last one wants.
fn press(top: &mut Top, keys: &[KeyCode]) -> Pressed {
    let mut last = Pressed::Quit;
    for key in keys {
        last = top.press(KeyEvent::new(*key, KeyModifiers::NONE), 30);
    }
    last
}

fn wishes(wishes: impl IntoIterator<Item = Wish>) -> Pressed {
    Pressed::Wishes(wishes.into_iter().collect())
}

const fn char(c: char) -> KeyCode {
    KeyCode::Char(c)
}

#[test]
fn q_esc_and_control_c_quit() {
    for key in [char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut admin(), &[key]), Pressed::Quit);
    }
    let mut top = admin();
    press(&mut top, &[KeyCode::Enter, char('?')]);
    assert_eq!(top.press(KeyEvent::new(char('c'), KeyModifiers::CONTROL), 30), Pressed::Quit);
    // Only c: C-q, C-d and the like do not act as the plain letters.
    assert_eq!(admin().press(KeyEvent::new(char('q'), KeyModifiers::CONTROL), 30), wishes([]));
}

#[test]
fn tab_goes_round_the_panels_and_arrows_stay_within_the_rows() {
    let mut top = admin();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(top.focus);
        press(&mut top, &[KeyCode::Tab]);
    }
    assert_eq!((seen.as_slice(), top.focus), (Panel::ALL.as_slice(), Panel::Running));
    press(&mut top, &[KeyCode::BackTab]);
    assert_eq!(top.focus, Panel::Newest);
    press(&mut top, &[KeyCode::Up]);
    assert_eq!(top.cursor(Panel::Newest).row, 0);
    press(&mut top, &[char('j'), char('j'), KeyCode::Down, KeyCode::PageDown]);
    assert_eq!(top.cursor(Panel::Newest).row, 2);
    press(&mut top, &[char('k')]);
    assert_eq!(top.cursor(Panel::Newest).row, 1);
}

#[test]
fn the_choice_stays_with_its_row_when_rows_move() {
    let mut top = admin();
    press(&mut top, &[KeyCode::Down, KeyCode::Down]);
    assert_eq!(top.subject().unwrap().name, "bash-5.3-1");
    let mut next = busy();
    next.running.remove(0);
    top.learn(at(1), News::Overview(Box::new(next)));
    assert_eq!(top.subject().unwrap().name, "bash-5.3-1");
    let mut next = busy();
    next.running = vec![run(9, "other-1-1", "board-7", 3, None)];
    top.learn(at(2), News::Overview(Box::new(next)));
    assert_eq!(top.subject().unwrap().name, "other-1-1");
    let mut next = busy();
    next.running.clear();
    top.learn(at(3), News::Overview(Box::new(next)));
    assert_eq!(top.subject(), None);
}

#[test]
fn s_sorts_and_comes_back_to_the_servers_order() {
    let mut top = admin();
    let names = |top: &Top| top.running().iter().map(|run| run.attempt.serial).collect::<Vec<_>>();
    assert_eq!(names(&top), [4, 2, 1, 5]);
    press(&mut top, &[char('s')]);
    assert_eq!(names(&top), [1, 4, 5, 2]);
    press(&mut top, &[char('s')]);
    assert_eq!(names(&top), [2, 1, 5, 4]);
    press(&mut top, &[char('s'), char('s')]);
    assert_eq!(names(&top), [4, 2, 1, 5]);
}

#[test]
fn enter_reads_the_log_and_only_of_this_reading() {
    let mut top = admin();
    let attempt = AttemptId { boot: 0xb007, serial: 4 };
    let first = press(&mut top, &[KeyCode::Enter]);
    assert_eq!(first, wishes([Wish::Log { reading: 1, attempt, name: "build.log" }]));
    let second = press(&mut top, &[KeyCode::Tab]);
    assert_eq!(second, wishes([Wish::Log { reading: 2, attempt, name: NAMES[1] }]));
    for (reading, text) in [(1, "of build.log\n"), (2, "of root.log\n")] {
        top.learn(at(0), News::Log { reading, news: LogNews::Bytes(text.into()) });
    }
    assert_eq!(top.log.as_ref().unwrap().visible(9).collect::<Vec<_>>(), [Some("of root.log")]);
    assert_eq!(press(&mut top, &[char('q')]), wishes([Wish::NoLog]));
    assert!(top.log.is_none());
    // What is queued has none.
    assert_eq!(press(&mut top, &[KeyCode::Tab, KeyCode::Enter]), wishes([]));
    assert!(top.notice().unwrap().text.contains("has no log yet"));
}

#[test]
fn w_asks_why_and_shows_only_the_answer_to_that() {
    let mut top = admin();
    let reference = "fedora-43-aarch64/coreutils-9.8-1.src.rpm";
    assert_eq!(press(&mut top, &[KeyCode::Tab, char('w')]), wishes([Wish::Why(reference.to_owned())]));
    top.learn(at(0), News::Why { reference: "7".to_owned(), why: Ok(Box::new(why())) });
    assert!(matches!(&top.popup, Some(Popup::Why { why: None, .. })));
    top.learn(at(0), News::Why { reference: reference.to_owned(), why: Ok(Box::new(why())) });
    assert!(matches!(&top.popup, Some(Popup::Why { why: Some(Ok(_)), .. })));
    press(&mut top, &[char('j'), char('j'), char('k')]);
    assert!(matches!(&top.popup, Some(Popup::Why { scrolled: 1, .. })));
    assert_eq!(press(&mut top, &[KeyCode::Esc]), wishes([]));
    assert!(top.popup.is_none());
}

#[test]
fn what_changes_something_is_asked_first() {
    let builder = || "board-7".to_owned();
    let tabs = |n: usize| vec![KeyCode::Tab; n];
    let cases = [
        (tabs(0), 'p', Act::Pause { reason: None }),
        (tabs(0), 'c', Act::Cancel { builds: vec!["104".to_owned()] }),
        (tabs(1), 'c', Act::Cancel { builds: vec!["fedora-43-aarch64/coreutils-9.8-1.src.rpm".to_owned()] }),
        (tabs(2), 'd', Act::Drain { builder: builder(), reason: None }),
        (tabs(3), 'r', Act::Retry { builds: vec!["1".to_owned()] }),
    ];
    for (tabs, key, act) in cases {
        let mut top = admin();
        press(&mut top, &tabs);
        assert_eq!(press(&mut top, &[char(key)]), wishes([]));
        assert!(matches!(top.popup, Some(Popup::Ask { .. })), "{act:?}");
        // Any other key is no answer.
        assert_eq!(press(&mut top, &[KeyCode::Enter, char('x')]), wishes([]));
        assert!(top.popup.is_some());
        assert_eq!(press(&mut top, &[char('n')]), wishes([]));
        assert!(top.popup.is_none());
        assert_eq!(press(&mut top, &[char('y')]), wishes([]));
        assert_eq!(press(&mut top, &[char(key), char('y')]), wishes([Wish::Act(act)]));
        assert!(top.popup.is_none());
    }
}

#[test]
fn what_was_paused_or_drained_goes_on() {
    let mut farm = busy();
    farm.server.paused = farm.builders[1].drained.clone();
    let mut top = top(Role::Admin, farm, busy_queue());
    assert_eq!(press(&mut top, &[char('p'), char('y')]), wishes([Wish::Act(Act::Unpause)]));
    press(&mut top, &[KeyCode::Tab, KeyCode::Tab, KeyCode::Down]);
    assert_eq!(top.chosen_builder().unwrap().state, BuilderState::Drained);
    let resume = Act::Resume { builder: "board-8".to_owned() };
    assert_eq!(press(&mut top, &[char('d'), char('y')]), wishes([Wish::Act(resume)]));
}

#[test]
fn a_submitter_may_retry_and_nothing_else() {
    for (tabs, key, may) in [(0, 'p', false), (0, 'c', false), (2, 'd', false), (3, 'r', true)] {
        let mut top = top(Role::Submitter, busy(), busy_queue());
        press(&mut top, &vec![KeyCode::Tab; tabs]);
        press(&mut top, &[char(key)]);
        assert_eq!(matches!(top.popup, Some(Popup::Ask { .. })), may, "{key}");
        let notice = top.notice().map(|notice| notice.text.clone()).unwrap_or_default();
        assert_eq!(notice.contains("only an admin may"), !may, "{key}: {notice}");
    }
}

#[test]
fn what_came_of_it_is_said_for_a_while() {
    let mut top = admin();
    let done = |is_done, text: &str| Done { about: "board-7".to_owned(), is_done, text: text.to_owned() };
    top.learn(at(0), News::Acted(Ok(vec![done(true, "drained"), done(false, "is not there")])));
    let notice = top.notice().unwrap();
    assert_eq!((notice.text.as_str(), notice.is_good), ("board-7: drained; board-7: is not there", false));
    top.learn(at(1), News::Acted(Err("not by you".to_owned())));
    assert_eq!(top.notice().unwrap().text, "refused: not by you");
    top.now = at(12);
    assert!(top.notice().is_none());
}

#[test]
fn events_that_come_again_after_a_reconnect_are_known() {
    let mut top = admin();
    let again = top.events.iter().cloned().collect::<Vec<_>>();
    for event in again {
        top.learn(at(0), News::Event(Box::new(event)));
    }
    assert_eq!(top.events.iter().map(|event| event.id).collect::<Vec<_>>(), [7, 8, 9]);
}
