//! The writer, over stores that do not do what they should.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use moji_proto::api::Event;

use super::*;
use crate::estimates::Sample;
use crate::history::sqlite::Sqlite;
use crate::history::store::{
    Backend, Known, Opened, Parks, Products, SettledBuild, Stamps, Store, StoreError, Waiting,
};
use crate::history::{History, OpenTries};

/// What a test does to the stores of a backend.
#[derive(Default)]
struct Switches {
    /// The disk is full.
    full: AtomicBool,
    /// The next write finds it broken.
    breaks: AtomicBool,
    /// How often it was opened.
    opened: AtomicUsize,
    /// Held while the writer is not to go on.
    gate: Mutex<()>,
}

struct Moody(Arc<Switches>, Sqlite);

struct MoodyStore(Arc<Switches>, Box<dyn Store>);

impl Backend for Moody {
    fn open(&mut self, broken: Option<&str>) -> Result<(Box<dyn Store>, Opened), StoreError> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        if self.0.full.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("no room".into()));
        }
        let (store, opened) = self.1.open(broken)?;
        Ok((Box::new(MoodyStore(Arc::clone(&self.0), store)), opened))
    }
}

impl Store for MoodyStore {
    fn apply(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        drop(self.0.gate.lock().unwrap());
        if self.0.full.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("no room".into()));
        }
        if self.0.breaks.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Broken("a bad page".into()));
        }
        self.1.apply(entries)
    }

    fn known(&self) -> Result<Known, StoreError> {
        self.1.known()
    }

    fn unanswered(&self, most: usize) -> Result<Vec<crate::farm::Given>, StoreError> {
        self.1.unanswered(most)
    }

    fn open_tries(&self) -> Result<OpenTries, StoreError> {
        self.1.open_tries()
    }

    fn parked(&self) -> Result<Parks, StoreError> {
        self.1.parked()
    }

    fn durations(&self, most: usize) -> Result<Vec<Sample>, StoreError> {
        self.1.durations(most)
    }

    fn settled_since(&self, since: Timestamp, most: usize) -> Result<Vec<SettledBuild>, StoreError> {
        self.1.settled_since(since, most)
    }

    fn products(&self) -> Result<Products, StoreError> {
        self.1.products()
    }

    fn events_after(&self, id: u64, most: u32) -> Result<Vec<Event>, StoreError> {
        self.1.events_after(id, most)
    }

    fn newest_event(&self) -> Result<u64, StoreError> {
        self.1.newest_event()
    }

    fn delivered(&self, sink: &str) -> Result<Option<u64>, StoreError> {
        self.1.delivered(sink)
    }

    fn set_delivered(&mut self, sink: &str, id: u64) -> Result<(), StoreError> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("no room".into()));
        }
        self.1.set_delivered(sink, id)
    }

    fn forget_sinks(&mut self, except: &BTreeSet<String>) -> Result<(), StoreError> {
        self.1.forget_sinks(except)
    }

    fn stamps(&self) -> Result<Stamps, StoreError> {
        self.1.stamps()
    }

    fn waiting(&self) -> Result<Waiting, StoreError> {
        self.1.waiting()
    }

    fn remember(&mut self, stamps: &Stamps) -> Result<(), StoreError> {
        self.1.remember(stamps)
    }
}

fn open(farm: &Farm, switches: &Arc<Switches>) -> History {
    let backend = Moody(Arc::clone(switches), Sqlite::new(&farm.path()));
    History::open_with(&farm.folders, Box::new(backend)).unwrap().0
}

fn builds(farm: &Farm) -> Vec<String> {
    rows(&farm.connection(), "SELECT srpm, state FROM builds ORDER BY srpm")
}

#[test]
fn what_is_told_is_there_after_a_flush() {
    let farm = Farm::new();
    let history = open(&farm, &Arc::default());
    for n in 0..2000 {
        history.recorder().record(Entry::Queued(srpm(&format!("p{n}"), 100)));
    }
    assert!(history.flush());
    assert_eq!(builds(&farm).len(), 2000);
    history.close();
}

#[test]
fn a_full_disk_loses_nothing_that_there_is_room_for() {
    let farm = Farm::new();
    let switches = Arc::<Switches>::default();
    let history = open(&farm, &switches);
    switches.full.store(true, Ordering::SeqCst);
    history.record(Entry::Queued(srpm("a", 100)));
    history.record(Entry::Leased(leased("b", 1, 101)));
    assert!(!history.flush(), "it must not say that it is written");
    assert_eq!(builds(&farm), [""; 0]);
    switches.full.store(false, Ordering::SeqCst);
    assert!(history.flush());
    assert_eq!(builds(&farm), ["a-1-1.src.rpm queued", "b-1-1.src.rpm running"]);
    history.close();
}

#[test]
fn a_farm_starts_without_its_history_and_gets_it_later() {
    let farm = Farm::new();
    farm.finish("old", 1, 1000, Outcome::Succeeded);
    let switches = Arc::<Switches>::default();
    switches.full.store(true, Ordering::SeqCst);
    let history = open(&farm, &switches);
    history.record(Entry::Queued(srpm("a", 100)));
    assert!(!history.flush());
    switches.full.store(false, Ordering::SeqCst);
    assert!(history.flush());
    assert_eq!(builds(&farm), ["a-1-1.src.rpm queued", "old-1-1.src.rpm succeeded"]);
    history.close();
}

#[test]
fn one_that_breaks_while_it_is_used_is_made_anew() {
    let farm = Farm::new();
    farm.finish("old", 1, 1000, Outcome::Succeeded);
    let switches = Arc::<Switches>::default();
    let history = open(&farm, &switches);
    switches.breaks.store(true, Ordering::SeqCst);
    history.record(Entry::Queued(srpm("a", 100)));
    // Found broken at the first write, made anew at the second.
    let _ = history.flush();
    assert!(history.flush());
    assert_eq!(switches.opened.load(Ordering::SeqCst), 2);
    assert_eq!(builds(&farm), ["a-1-1.src.rpm queued", "old-1-1.src.rpm succeeded"]);
    history.close();
}

/// More than fits waits for a writer that stands still: telling does not wait, and what is lost is made
/// up for from the folders.
#[test]
fn what_does_not_fit_comes_from_the_folders() {
    let farm = Farm::new();
    let switches = Arc::<Switches>::default();
    let history = open(&farm, &switches);
    {
        let _closed = switches.gate.lock().unwrap();
        for n in 0..20_000 {
            history.record(Entry::Queued(srpm(&format!("p{}", n % 10), 100)));
        }
        farm.finish("late", 7, 1000, Outcome::Succeeded);
        history.record(Entry::Settled(settled("late", 7, 1000, Outcome::Succeeded)));
    }
    assert!(history.flush() || history.flush());
    assert_eq!(builds(&farm).iter().filter(|line| *line == "late-1-1.src.rpm succeeded").count(), 1);
    history.close();
}

#[test]
fn a_real_full_database_is_unavailable_and_recovers() {
    let farm = Farm::new();
    let mut store = SqliteStore::new(schema::open(&farm.path()).unwrap().0);
    let limit = |store: &SqliteStore, pages: i64| {
        store.connection().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(&store, 1);
    let entries: Vec<_> = (0..200).map(|n| Entry::Queued(srpm(&format!("p{n}"), 100))).collect();
    let error = store.apply(&entries).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    limit(&store, 1 << 20);
    store.apply(&entries).unwrap();
    assert_eq!(builds(&farm).len(), 200);
}

/// An entry that is a mistake does not keep the others from being written.
#[test]
fn a_refused_entry_is_left_out() {
    let farm = Farm::new();
    let history = open(&farm, &Arc::default());
    let sql = "CREATE TRIGGER no BEFORE INSERT ON builds WHEN NEW.srpm LIKE 'bad%' \
               BEGIN SELECT raise(ABORT, 'no'); END";
    Connection::open(farm.path()).unwrap().execute_batch(sql).unwrap();
    for name in ["a", "bad", "c"] {
        history.record(Entry::Queued(srpm(name, 100)));
    }
    assert!(history.flush());
    assert_eq!(builds(&farm), ["a-1-1.src.rpm queued", "c-1-1.src.rpm queued"]);
    history.close();
}

/// The answer comes from what was told before the question; and there is none while that cannot be written.
#[test]
fn a_question_is_answered_after_what_was_told_before() {
    let farm = Farm::new();
    let switches = Arc::<Switches>::default();
    let history = open(&farm, &switches);
    let ask = || history.recorder().ask(|store| store.settled_since(at(0), 10)).map(|found| found.len());
    history.record(Entry::Settled(settled("a", 1, 100, Outcome::Succeeded)));
    assert_eq!(ask(), Some(1));
    switches.full.store(true, Ordering::SeqCst);
    history.record(Entry::Settled(settled("b", 2, 100, Outcome::Succeeded)));
    assert_eq!(ask(), None);
    switches.full.store(false, Ordering::SeqCst);
    assert_eq!(ask(), Some(2));
    let refused = history.recorder().ask::<()>(|_| Err(StoreError::Unavailable("not now".into())));
    assert_eq!(refused, None);
    let recorder = history.recorder();
    history.close();
    assert_eq!(recorder.ask(|store| store.products()), None);
}

/// A long queue that is new comes at once, while the writer is busy with something else.
#[test]
fn all_that_a_start_brings_is_written() {
    let (farm, switches) = (Farm::new(), Arc::<Switches>::default());
    let history = open(&farm, &switches);
    let gate = switches.gate.lock().unwrap();
    history.record(Entry::Queued(srpm("first", 10)));
    let count = crate::history::WAITING_MAX + 17;
    let arrivals = (0..count).map(|number| Entry::Queued(srpm(&format!("p{number}"), 20)));
    history.recorder().record_all(arrivals.collect());
    history.record(Entry::Leased(leased("p16", 5, 30)));
    drop(gate);
    assert!(history.flush());
    let builds = builds(&farm);
    assert_eq!(builds.len(), count + 1);
    assert_eq!(
        builds.iter().filter(|line| line.ends_with("running")).collect::<Vec<_>>(),
        ["p16-1-1.src.rpm running"]
    );
    history.close();
}
