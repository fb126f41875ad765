//! Golden screens.

use std::path::Path;

use moji_proto::api::{BuildState, BuilderState, EventKind, OutOfDate, Overview, Page, QueueCounts, Steered};
use moji_proto::operator::Role;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Modifier;

use super::fixtures::{at, builder, busy, busy_queue, empty, event, queued, run, top, why};
use crate::operator::top::draw::draw;
use crate::operator::top::log::{LogNews, LogView};
use crate::operator::top::state::{News, Panel, Popup, Top};
use crate::operator::top::text::Looks;

const RICH: Looks = Looks { colours: true, unicode: true };
const PLAIN: Looks = Looks { colours: false, unicode: false };

fn screen(top: &Top, looks: Looks, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(top, looks, frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        // A wide character's second cell is empty in a terminal.
        let mut skip = 0;
        let mut line = String::new();
        for cell in row {
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = ratatui::text::Span::raw(cell.symbol()).width().max(1);
            }
            skip -= 1;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn assert_golden(name: &str, top: &Top, looks: Looks, width: u16, height: u16) -> String {
    let shown = text(&screen(top, looks, width, height));
    assert_eq!(shown.lines().count(), usize::from(height));
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/operator/top/tests/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("MOJI_BLESS").is_some() {
        std::fs::write(&file, &shown).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(shown == wanted, "{} is another one now:\n{shown}\nit was:\n{wanted}", file.display());
    shown
}

fn busy_top() -> Top {
    top(Role::Admin, busy(), busy_queue())
}

#[test]
fn a_wide_terminal_shows_everything() {
    assert_golden("wide", &busy_top(), RICH, 130, 36);
}

#[test]
fn a_usual_terminal() {
    assert_golden("usual", &busy_top(), RICH, 80, 24);
}

#[test]
fn a_narrow_terminal_drops_columns() {
    let shown = assert_golden("narrow", &busy_top(), RICH, 60, 20);
    for word in ["bash-5.3-1", "coreutils", "board-7", "succeeded"] {
        assert!(shown.contains(word), "{word} is missing");
    }
}

#[test]
fn a_flat_terminal_shows_one_panel() {
    let mut top = busy_top();
    top.focus = Panel::Builders;
    assert_golden("flat", &top, RICH, 60, 12);
}

#[test]
fn where_there_is_only_ascii_and_no_colour_words_tell_it() {
    let buffer = screen(&busy_top(), PLAIN, 100, 30);
    assert!(text(&buffer).is_ascii());
    let colours = buffer.content.iter().any(|cell| cell.fg != ratatui::style::Color::Reset);
    assert!(!colours);
    assert_golden("ascii", &busy_top(), PLAIN, 100, 30);
}

#[test]
fn an_empty_farm_says_what_to_do() {
    assert_golden(
        "empty",
        &top(Role::Submitter, empty(), Page { items: vec![], next: None, total: None }),
        RICH,
        80,
        24,
    );
}

#[test]
fn nothing_is_known_before_the_server_answers() {
    let shown = text(&screen(&Top::new("farm.example:6789".to_owned(), at(0)), RICH, 80, 24));
    assert!(shown.starts_with(" asking farm.example:6789 …\n"), "{shown}");
}

#[test]
fn a_tiny_terminal_says_so() {
    for (width, height) in [(39, 30), (80, 9), (1, 1), (2, 30), (20, 2)] {
        let shown = text(&screen(&busy_top(), RICH, width, height));
        assert!(width < 10 || shown.starts_with("too small"), "{shown}");
    }
}

#[test]
fn any_size_can_be_drawn() {
    let mut top = busy_top();
    let mut log =
        LogView::new(1, "bash-5.3-1".to_owned(), moji_proto::AttemptId { boot: 3, serial: 4 }, "build.log");
    log.learn(LogNews::Bytes("line\n".repeat(50).into_bytes()));
    for (width, height) in [(40, 10), (41, 11), (47, 60), (300, 10), (95, 13), (96, 14), (97, 15), (500, 200)]
    {
        for looks in [RICH, PLAIN] {
            top.popup = None;
            top.log = None;
            screen(&top, looks, width, height);
            top.popup = Some(Popup::Help);
            screen(&top, looks, width, height);
            top.log = Some(LogView::new(1, String::new(), log.attempt, "root.log"));
            screen(&top, looks, width, height);
        }
    }
}

#[test]
fn a_thousand_builders_are_a_window_on_them() {
    let mut overview = busy();
    overview.builders =
        (0..1_000).map(|n| builder(&format!("board-{n:04}"), BuilderState::Building)).collect();
    let mut top = top(Role::Admin, overview, busy_queue());
    top.focus = Panel::Builders;
    top.choose(Panel::Builders, 777);
    let shown = assert_golden("builders", &top, RICH, 100, 30);
    assert!(shown.contains("> board-0777"), "{shown}");
}

#[test]
fn twenty_thousand_queued_are_told_by_number() {
    let mut overview = busy();
    overview.queue = QueueCounts { ready: 19_000, waiting: 900, parked: 100, running: 4 };
    let items = (1..=50).map(|n| queued(n, &format!("package-{n:05}-1-1"))).collect();
    let mut one = top(Role::Admin, overview.clone(), Page { items, next: Some(50), total: Some(20_000) });
    one.focus = Panel::Queue;
    assert_golden("queue", &one, RICH, 100, 30);
    // Whoever is sent all of them is not slow for it: only what is seen is made text.
    let items = (1..=20_000).map(|n| queued(n, &format!("package-{n:05}-1-1"))).collect();
    let mut all = top(Role::Admin, overview, Page { items, next: None, total: Some(20_000) });
    all.focus = Panel::Queue;
    all.choose(Panel::Queue, usize::MAX);
    let shown = text(&screen(&all, RICH, 100, 30));
    assert!(shown.contains("> 20000  package-20000-1-1"), "{shown}");
}

#[test]
fn texts_are_harmless_and_wide_characters_keep_their_columns() {
    let mut overview = busy();
    overview.newest = vec![super::fixtures::result(
        1,
        "wide-1-1",
        BuildState::Failed,
        Some(
            "\x1b[2J\x1b]0;owned\x07日本語のとても長い理由がここに書いてある日本語のとても長い理由 \u{202e}end\r\n",
        ),
    )];
    overview.running = vec![run(1, "bash-5.3-1", "\x1b[31mboard\u{200b}", 10, None)];
    overview.server.paused =
        Some(Steered { by: None, at: at(-60), reason: Some("\x07wait\nfor it".to_owned()) });
    let mut top = top(Role::Admin, overview, busy_queue());
    top.learn(at(0), News::Event(Box::new(event(10, EventKind::Steered, "\x1b[5mblink\x1b[0m"))));
    let buffer = screen(&top, RICH, 100, 30);
    let is_harmful = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
    for cell in &buffer.content {
        assert!(!cell.symbol().contains(is_harmful), "{:?}", cell.symbol());
    }
    assert_golden("hostile", &top, RICH, 100, 30);
}

#[test]
fn all_that_stops_the_farm_is_said() {
    let mut overview = busy();
    overview.server.is_full = true;
    let stale = |repository: Option<&str>| OutOfDate {
        repository: repository.map(str::to_owned),
        since: at(-500),
        failures: 9,
        reason: "no space left".to_owned(),
    };
    overview.server.out_of_date = vec![stale(Some("fedora-43"))];
    let line = |overview: &Overview| {
        let top = top(Role::Admin, overview.clone(), busy_queue());
        text(&screen(&top, RICH, 160, 30)).lines().nth(3).unwrap().trim().to_owned()
    };
    let full = "DISK FULL: nothing is handed out until there is room; METADATA OUT OF DATE: ";
    assert_eq!(line(&overview), format!("{full}REPO/fedora-43: no space left"));
    overview.server.out_of_date.insert(0, stale(None));
    assert_eq!(line(&overview), format!("{full}REPO and 1 more: no space left"));
    overview.server.is_full = false;
    assert_eq!(line(&overview), "METADATA OUT OF DATE: REPO and 1 more: no space left");
}

#[test]
fn a_lost_connection_is_said_and_what_was_known_stays() {
    let mut top = busy_top();
    top.learn(at(5), News::Lost { reason: "connection refused".to_owned() });
    top.learn(at(9), News::Lost { reason: "no route to host".to_owned() });
    let shown = text(&screen(&top, RICH, 100, 30));
    let first = shown.lines().next().unwrap();
    assert_eq!(
        first.split("  ").next().unwrap(),
        " no connection to farm.example:6789 for 0:04, trying again: no route to host"
    );
    assert!(shown.contains("bash-5.3-1"));
    top.learn(at(10), News::Connected { role: Role::Admin });
    assert!(text(&screen(&top, RICH, 100, 30)).starts_with(" farm.example:6789 · moji-server"));
}

#[test]
fn why_and_questions_lie_over_the_rest() {
    let mut top = busy_top();
    let reference = "2".to_owned();
    top.popup = Some(Popup::Why { reference, name: "moji-typo-1-1".to_owned(), why: None, scrolled: 0 });
    top.learn(at(0), News::Why { reference: "2".to_owned(), why: Ok(Box::new(why())) });
    assert_golden("why", &top, RICH, 80, 24);
    top.popup =
        Some(Popup::Ask { question: "Pause the queue?".to_owned(), act: moji_proto::operator::Act::Unpause });
    assert_golden("question", &top, PLAIN, 60, 20);
    top.popup = Some(Popup::Help);
    assert_golden("help", &top, RICH, 80, 24);
}

#[test]
fn a_log_follows_and_its_lines_are_cut() {
    let mut top = busy_top();
    let mut log =
        LogView::new(1, "bash-5.3-1".to_owned(), moji_proto::AttemptId { boot: 3, serial: 4 }, "build.log");
    for n in 1..100 {
        log.learn(LogNews::Bytes(format!("line {n} {}\n", "x".repeat(n)).into_bytes()));
    }
    top.log = Some(log);
    assert_golden("log", &top, RICH, 60, 20);
    // A log of which only the end was read says so where it begins.
    if let Some(log) = &mut top.log {
        log.learn(LogNews::From(7));
        log.scroll_by(isize::MAX, 10);
    }
    assert_golden("log_cut", &top, PLAIN, 80, 12);
}

#[test]
fn what_is_chosen_is_reversed_and_failures_are_bold_without_colours() {
    let buffer = screen(&busy_top(), PLAIN, 100, 30);
    let lines = text(&buffer);
    let style_at = |word: &str| {
        let (y, line) = lines.lines().enumerate().find(|(_, line)| line.contains(word)).unwrap();
        let x = line.split_once(word).unwrap().0.len();
        buffer[(u16::try_from(x).unwrap(), u16::try_from(y).unwrap())].modifier
    };
    assert!(style_at("kernel-6.17.1").contains(Modifier::REVERSED));
    assert!(!style_at("zlib-1.3-2").contains(Modifier::REVERSED));
    assert!(style_at("failed     moji-typo").contains(Modifier::BOLD));
    assert!(!style_at("succeeded  acl").contains(Modifier::BOLD));
}
