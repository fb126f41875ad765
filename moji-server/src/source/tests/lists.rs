use std::time::Duration;

use crate::source::folder::{Sight, Stamp};
use crate::source::intake::Hint;
use crate::source::lists::{Action, Content, Kind, ListName, Lists, Observation};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn stamp(size: u64, time: i64) -> Stamp {
    Stamp { file: (1, 2), size, mtime: time, ctime: time }
}

const LIST: ListName = ListName { target: None, kind: Kind::Requires };

/// What the lists do when one of SOURCE's own is seen, as short text.
fn seen(lists: &mut Lists, now: Duration, stamp: Option<Stamp>, hint: Hint) -> String {
    let sight = stamp.map(|stamp| Sight { stamp, age: Duration::ZERO });
    text(lists.handle(now, Observation::Seen { list: LIST, sight, hint }))
}

fn text(actions: Vec<Action>) -> String {
    let text = |action| match action {
        Action::Look(_) => "look".to_owned(),
        Action::Read(_) => "read".to_owned(),
        Action::Tell(list, content) => {
            assert_eq!(list, LIST);
            format!("tell {}", content.len())
        }
        Action::Warn(_) => "warn".to_owned(),
    };
    actions.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

fn content(lists: &mut Lists, content: Result<Option<(Stamp, &str)>, &str>) -> String {
    let content = content
        .map(|content| content.map(|(stamp, text)| (stamp, Content::parse(LIST.kind, text.as_bytes()))))
        .map_err(str::to_owned);
    text(lists.handle(ms(0), Observation::Content { list: LIST, content }))
}

#[test]
fn a_truncated_list_is_not_read_before_its_writer_is_done() {
    let mut lists = Lists::default();
    assert_eq!(seen(&mut lists, ms(0), Some(stamp(5, 1)), Hint::Closed), "read");
    assert_eq!(content(&mut lists, Ok(Some((stamp(5, 1), "a cores=1\nb cores=2")))), "tell 2");
    assert_eq!(seen(&mut lists, ms(10), Some(stamp(0, 2)), Hint::Written), "");
    assert_eq!(seen(&mut lists, ms(20), Some(stamp(3, 3)), Hint::Written), "");
    assert_eq!(seen(&mut lists, ms(21), Some(stamp(3, 3)), Hint::Closed), "read");
    assert_eq!(content(&mut lists, Ok(Some((stamp(3, 3), "a cores=1")))), "tell 1");
    assert_eq!(lists.next_deadline(), None);
}

#[test]
fn without_an_event_time_tells() {
    let mut lists = Lists::default();
    assert_eq!(seen(&mut lists, ms(0), Some(stamp(5, 1)), Hint::Touched), "");
    let due = lists.next_deadline().unwrap();
    assert_eq!(due, ms(100));
    assert_eq!(text(lists.handle(due, Observation::Tick)), "look");
    assert_eq!(seen(&mut lists, due, Some(stamp(5, 1)), Hint::Touched), "read");
    assert_eq!(content(&mut lists, Ok(Some((stamp(5, 1), "a cores=1")))), "tell 1");
    // Gone, and it stays so.
    assert_eq!(seen(&mut lists, ms(200), None, Hint::Appeared), "");
    assert_eq!(seen(&mut lists, ms(700), None, Hint::Touched), "tell 0");
    assert_eq!(seen(&mut lists, ms(800), None, Hint::Touched), "");
}

#[test]
fn what_cannot_be_read_is_named_once_and_tried_again() {
    let mut lists = Lists::default();
    assert_eq!(seen(&mut lists, ms(0), Some(stamp(5, 1)), Hint::Closed), "read");
    assert_eq!(content(&mut lists, Err("denied")), "warn");
    assert_eq!(seen(&mut lists, ms(10), Some(stamp(5, 1)), Hint::Touched), "read");
    assert_eq!(content(&mut lists, Err("denied")), "");
    assert_eq!(seen(&mut lists, ms(20), Some(stamp(5, 2)), Hint::Closed), "read");
    // It changed between the look and the reading.
    assert_eq!(content(&mut lists, Ok(Some((stamp(6, 3), "a cores=1")))), "");
    assert_eq!(seen(&mut lists, ms(120), Some(stamp(6, 3)), Hint::Closed), "read");
    assert_eq!(content(&mut lists, Ok(Some((stamp(6, 3), "a cores=1")))), "tell 1");
}
