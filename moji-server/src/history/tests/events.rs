//! Entries in, events out: once each, in order, and kept as long as somebody needs them.

use moji_proto::api::Event;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use super::*;
use crate::history::History;
use crate::history::store::Backend as _;

fn happened(text: &str, seconds: i64) -> Entry {
    Entry::Happened(Happening {
        at: at(seconds),
        kind: EventKind::Published,
        text: text.to_owned(),
        builder: None,
        target: Some("f43".parse().unwrap()),
        generation: Some(7),
    })
}

fn ended(serial: u64, seconds: i64, ending: Ending, outcome: Option<Outcome>) -> Entry {
    Entry::AttemptEnded(AttemptEnd { outcome, ..AttemptEnd::new(id(serial), at(seconds), ending) })
}

fn all(store: &SqliteStore) -> Vec<Event> {
    store.events_after(0, 1000).unwrap()
}

fn lines(store: &SqliteStore) -> Vec<String> {
    all(store).iter().map(|event| format!("{} {}", event.kind.word(), event.text)).collect()
}

fn at_500(entries: &[Entry]) -> SqliteStore {
    let connection = memory().into_connection();
    let mut store = SqliteStore::new_at(connection, at(500));
    store.apply_at(entries, at(501)).unwrap();
    store
}

#[test]
fn the_life_of_a_build() {
    let missed = failed(FailureKind::MissingDependency);
    let mut held = settled("b", 9, 190, failed(FailureKind::Infrastructure));
    held.verdict = Verdict::Held;
    let store = at_500(&[
        Entry::Queued(srpm("f43/a", 90)),
        Entry::Leased(leased("f43/a", 1, 100)),
        ended(1, 110, Ending::Lost, None),
        Entry::Queued(srpm("f43/a", 90)),
        // As at each start.
        Entry::Queued(srpm("f43/a", 90)),
        Entry::Leased(leased("f43/a", 2, 120)),
        ended(2, 130, Ending::Delivered, Some(missed)),
        parked("f43/a", 2, 130),
        Entry::Queued(srpm("f43/a", 90)),
        Entry::Leased(leased("f43/a", 3, 140)),
        ended(3, 145, Ending::Interrupted, None),
        Entry::Readopted(leased("f43/a", 3, 146)),
        Entry::Settled(settled("f43/a", 3, 150, failed(FailureKind::Package))),
        Entry::Queued(srpm("f43/a", 160)),
        Entry::Settled(settled("f43/a", 4, 170, Outcome::Succeeded)),
        Entry::Leased(leased("b", 9, 180)),
        Entry::Settled(held),
        Entry::Queued(srpm("c", 191)),
        Entry::Withdrawn { key: key("c"), at: at(192), reason: "taken out of SOURCE".into() },
        happened("f43: generation 7", 200),
        happened("f43: generation 7", 200),
        happened("f43: generation 8\u{1b}[31m\nx", 200),
        Entry::Unearthed(settled("old", 20, 50, Outcome::Succeeded)),
    ]);
    let a = "a-1-1 for f43";
    let expected = [
        format!("queued {a} is queued"),
        format!("started {a} started on board-1"),
        format!("ended {a} is not built on board-1: the builder was lost"),
        format!("queued {a} is queued again"),
        format!("started {a} started on board-2"),
        format!("ended {a} is not built on board-2: it did not work"),
        format!("parked {a} waits for lib2 >= 2, pkgconfig(x)"),
        format!("queued {a} is queued again"),
        format!("started {a} started on board-3"),
        format!("ended {a} is not built on board-3: it was interrupted"),
        format!("failed {a} failed: it did not work"),
        format!("queued {a} is queued"),
        format!("succeeded {a} succeeded on board-4"),
        "started b-1-1 started on board-9 for f43-arm".to_owned(),
        "held b-1-1 is held: it did not work".to_owned(),
        "queued c-1-1 is queued".to_owned(),
        "withdrawn c-1-1 is withdrawn: taken out of SOURCE".to_owned(),
        "published f43: generation 7".to_owned(),
        "published f43: generation 8 [31m x".to_owned(),
    ];
    assert_eq!(lines(&store), expected);
    let events = all(&store);
    let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (500_000..500_000 + events.len() as u64).collect::<Vec<_>>());
    let failed = &events[10];
    assert_eq!(
        (failed.at, failed.attempt, failed.builder.as_deref()),
        (at(151), Some(id(3)), Some("board-3"))
    );
    assert_eq!(failed.failure, Some(FailureKind::Package));
    assert_eq!(
        (failed.reason.as_deref(), &*failed.missing),
        (Some("it did not work"), &["libfoo".to_owned()][..])
    );
    let build = failed.build.as_ref().unwrap();
    assert_eq!(
        (build.id, build.target.as_deref_str(), build.srpm.as_str()),
        (Some(1), Some("f43"), "a-1-1.src.rpm")
    );
    assert_eq!(build.nvr, Some("a-1-1".parse().unwrap()));
    assert_eq!(events[12].build.as_ref().unwrap().id, Some(2), "queued again after it failed: another build");
    assert_eq!((events[17].target.as_deref_str(), events[17].generation), (Some("f43"), Some(7)));
    assert_eq!((events[6].builder.as_deref(), &*events[6].missing[0]), (Some("board-2"), "lib2 >= 2"));
}

trait AsText {
    fn as_deref_str(&self) -> Option<&str>;
}

impl AsText for Option<moji_proto::TargetName> {
    fn as_deref_str(&self) -> Option<&str> {
        self.as_ref().map(|target| target.as_str())
    }
}

#[test]
fn only_what_goes_on_has_ended_and_only_what_waits_is_parked() {
    let store = at_500(&[
        Entry::Leased(leased("a", 1, 100)),
        Entry::Leased(leased("a", 2, 101)),
        ended(1, 110, Ending::Lost, None),
        // Corrected guesses, and what is over, tell nothing new.
        ended(1, 111, Ending::Released, None),
        parked("a", 1, 112),
        ended(2, 120, Ending::Released, None),
        Entry::Leased(leased("a", 3, 130)),
        Entry::Settled(settled("a", 3, 140, Outcome::Succeeded)),
        ended(3, 141, Ending::Stale, None),
        Entry::Settled(settled("a", 2, 142, failed(FailureKind::Package))),
    ]);
    let kinds: Vec<_> = all(&store).iter().map(|event| event.kind.word()).collect();
    assert_eq!(kinds, ["started", "started", "ended", "ended", "parked", "started", "succeeded"]);
}

#[test]
fn ids_are_never_used_again() {
    let mut store = at_500(&[happened("one", 1)]);
    store.apply_at(&[happened("two", 1)], at(100)).unwrap();
    // Opened again: by a clock that went on, and by one that went back.
    let mut store = SqliteStore::new_at(store.into_connection(), at(600));
    store.apply_at(&[happened("three", 1)], at(600)).unwrap();
    let mut store = SqliteStore::new_at(store.into_connection(), at(5));
    store.apply_at(&[happened("four", 1)], at(600)).unwrap();
    assert_eq!(
        all(&store).iter().map(|event| event.id).collect::<Vec<_>>(),
        [500_000, 500_001, 600_000, 600_001]
    );
    // Lost: by the time of the new one.
    let mut lost = SqliteStore::new_at(memory().into_connection(), at(700));
    lost.apply_at(&[happened("five", 1)], at(700)).unwrap();
    assert_eq!(lost.newest_event().unwrap(), 700_000);
    // What was rolled back has given none away.
    let no = "CREATE TRIGGER no BEFORE INSERT ON builds BEGIN SELECT raise(ABORT, 'no'); END";
    lost.connection().execute_batch(no).unwrap();
    lost.apply(&[happened("six", 1), Entry::Queued(srpm("a", 1))]).unwrap_err();
    assert_eq!((all(&lost).len(), lost.newest_event().unwrap()), (1, 700_000));
}

/// The server was killed between the publication and its entry.
#[test]
fn what_the_folders_settle_is_told_once() {
    let farm = Farm::new();
    let (history, _) = History::open(&farm.folders).unwrap();
    history.record(Entry::Leased(leased("a", 1, 900)));
    history.close();
    farm.finish("a", 1, 1000, Outcome::Succeeded);
    for _ in 0..3 {
        History::open(&farm.folders).unwrap().0.close();
        let sql = "SELECT kind, attempt FROM events ORDER BY id";
        let expected = [format!("started {}", id(1)), format!("succeeded {}", id(1))];
        assert_eq!(rows(&farm.connection(), sql), expected);
    }
}

fn heard(events: &mut broadcast::Receiver<std::sync::Arc<Event>>) -> Vec<Event> {
    let mut heard = Vec::new();
    loop {
        match events.try_recv() {
            Ok(event) => heard.push(Event::clone(&event)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return heard,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn subscribers_hear_what_is_written() {
    let farm = Farm::new();
    let (history, _) = History::open(&farm.folders).unwrap();
    history.record(Entry::Queued(srpm("before", 90)));
    assert!(history.flush());
    let mut events = history.events().subscribe();
    for n in 0..600 {
        history.record(Entry::Queued(srpm(&format!("p{n}"), 100)));
    }
    assert!(history.flush());
    let heard_now = heard(&mut events);
    let (store, _) = crate::history::sqlite::Sqlite::new(&farm.path()).open(None).unwrap();
    assert_eq!(heard_now, store.events_after(0, 1000).unwrap()[1..]);
    history.close();
    assert!(heard(&mut events).is_empty());
    // The next one tells nothing of what was before it.
    let (history, _) = History::open(&farm.folders).unwrap();
    let mut events = history.events().subscribe();
    history.record(happened("new", 100));
    assert!(history.flush());
    let texts: Vec<_> = heard(&mut events).into_iter().map(|event| event.text).collect();
    assert_eq!(texts, ["new"]);
    history.close();
}

#[test]
fn what_receivers_outside_have_got_is_remembered() {
    let farm = Farm::new();
    let (history, _) = History::open(&farm.folders).unwrap();
    let recorder = history.recorder();
    let delivered = |sink: &'static str| recorder.ask(move |store| store.delivered(sink)).unwrap();
    assert_eq!(delivered("mail"), None);
    for (sink, id) in [("mail", 7), ("hook", 8), ("mail", 9), ("mail", 3)] {
        recorder.delivered(sink, id);
        // One at a time: together, only the last word of each would be written.
        assert!(history.flush());
    }
    assert_eq!((delivered("mail"), delivered("hook")), (Some(9), Some(8)), "it never goes back");
    history.close();
    let (history, _) = History::open(&farm.folders).unwrap();
    let recorder = history.recorder();
    recorder.keep_sinks(["mail".to_owned()].into());
    let delivered = |sink: &'static str| recorder.ask(move |store| store.delivered(sink)).unwrap();
    assert_eq!((delivered("mail"), delivered("hook")), (Some(9), None));
    history.close();
}

const DAY: i64 = 24 * 3600;

/// So many events, one a second, the last one at `to`.
fn with_events(count: i64, to: i64) -> SqliteStore {
    let store = memory();
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         INSERT INTO events (id, noted_at, at, kind, text) \
         SELECT i, ({to} - {count} + i) * 1000000, 0, 'queue_empty', '' FROM n"
    );
    store.connection().execute_batch(&sql).unwrap();
    store
}

/// The oldest and the newest that are left after some removals at that time.
fn left(store: &SqliteStore, now: i64, times: usize) -> (u64, u64) {
    for _ in 0..times {
        crate::history::events::prune(store.connection(), at(now)).unwrap();
    }
    let oldest = store.events_after(0, 1).unwrap()[0].id;
    (oldest, store.newest_event().unwrap())
}

#[test]
fn old_events_go_unless_somebody_waits_for_them() {
    let now = 100 * DAY;
    assert_eq!(left(&with_events(3000, now), now, 3), (1, 3000), "few and young");
    assert_eq!(left(&with_events(3000, now), now + 30 * DAY - 1000, 3), (2000, 3000), "only the old ones");
    assert_eq!(left(&with_events(3000, now), now + 31 * DAY, 3), (3000, 3000), "the newest one stays");
    let many = with_events(112_000, now);
    assert_eq!(left(&many, now, 1), (5001, 112_000), "some at a time");
    assert_eq!(left(&many, now, 5), (12_001, 112_000));
    let waited_for = with_events(112_000, now);
    let mut store = SqliteStore::new_at(waited_for.into_connection(), at(now));
    store.set_delivered("slow", 400).unwrap();
    store.set_delivered("fast", 111_000).unwrap();
    assert_eq!(left(&store, now, 5), (401, 112_000));
    assert_eq!(left(&store, now + 3 * DAY - 111_000, 5), (1000, 112_000), "not for more than 3 days");
    store.forget_sinks(&["fast".to_owned()].into()).unwrap();
    assert_eq!(left(&store, now, 5), (12_001, 112_000));
    assert_eq!(left(&memory_with_one(), now, 1), (1, 1));
}

fn memory_with_one() -> SqliteStore {
    with_events(1, 0)
}

/// What a version without events knew is not told as if it happened now.
#[test]
fn an_older_history_has_no_events() {
    let farm = Farm::new();
    let mut connection = Connection::open(farm.path()).unwrap();
    schema::migrate(&mut connection, &schema::MIGRATIONS[..2]).unwrap();
    let sql = "INSERT INTO builds (srpm, nvr, name, queued_at, state) VALUES ('a-1-1.src.rpm', 'a-1-1', 'a', 8, 'queued'); \
               INSERT INTO builds (srpm, queued_at, state, settled_at, settled_by) \
               VALUES ('b-1-1.src.rpm', 5, 'succeeded', 6, 'fedcba9876543210-2'); \
               INSERT INTO attempts (id, build, builder, target, leased_at, ended_at, ending, outcome) \
               VALUES ('fedcba9876543210-2', 2, 'board', 'f43', 5, 6, 'delivered', 'succeeded')";
    connection.execute_batch(sql).unwrap();
    drop(connection);
    farm.put(farm.folders.source.join(key("a").path()), b"srpm");
    let (history, _) = History::open(&farm.folders).unwrap();
    history.record(Entry::Queued(srpm("a", 90)));
    history.record(Entry::Leased(leased("a", 1, 100)));
    history.close();
    assert_eq!(rows(&farm.connection(), "SELECT kind FROM events"), ["started"]);
    assert_eq!(rows(&farm.connection(), "SELECT builder FROM builds ORDER BY id"), ["-", "board"]);
}
