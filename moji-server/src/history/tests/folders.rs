//! The folders decide.

use std::fs::FileTimes;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::history::History;
use crate::history::reconcile::{Reconciled, When, reconcile};
use crate::history::sqlite::Sqlite;
use crate::history::store::{Backend, Opened, Stamps, Store, StoreError};
use crate::history::survey::survey;
use crate::record::RepositoryUsed;
use crate::scheduler::TryKind;

fn reconciled(farm: &Farm) -> Reconciled {
    let (mut store, _) = Sqlite::new(&farm.path()).open(None).unwrap();
    reconcile(&farm.folders, store.as_mut(), When::Quiet).unwrap()
}

fn reconciled_meanwhile(farm: &Farm) -> Reconciled {
    let (mut store, _) = Sqlite::new(&farm.path()).open(None).unwrap();
    reconcile(&farm.folders, store.as_mut(), When::Running).unwrap()
}

fn tell(farm: &Farm, entries: &[Entry]) {
    let (mut store, _) = Sqlite::new(&farm.path()).open(None).unwrap();
    store.apply(entries).unwrap();
}

fn states(farm: &Farm) -> Vec<String> {
    rows(&farm.connection(), "SELECT srpm, state, ifnull(reason, '') FROM builds ORDER BY id")
}

#[test]
fn a_lost_history_is_made_anew() {
    let farm = Farm::new();
    farm.finish("a", 1, 1000, Outcome::Succeeded);
    farm.finish("f43/a", 2, 2000, failed(FailureKind::Package));
    farm.finish("a", 3, 3000, failed(FailureKind::Infrastructure));
    // Refused: no attempt. Held: only the file's name says so.
    let mut refused = record("b", 0, 1, failed(FailureKind::UnreadableSrpm));
    refused.attempt = None;
    farm.put(farm.folders.failure_record(&key("b")), &refused.to_json().unwrap());
    let held = record("f43/c", 5, 5000, failed(FailureKind::Infrastructure));
    let path = farm.folders.finished.join("f43/c-1-1.src.rpm.held.json");
    farm.put(path, &held.to_json().unwrap());

    let (history, tries) = History::open(&farm.folders).unwrap();
    history.close();
    assert!(tries.is_empty());
    let sql = "SELECT ifnull(target, '*'), srpm, state, settled_by FROM builds ORDER BY settled_by, srpm";
    let boot = "fedcba9876543210";
    assert_eq!(
        rows(&farm.connection(), sql),
        [
            "* b-1-1.src.rpm failed -".to_owned(),
            format!("* a-1-1.src.rpm succeeded {boot}-1"),
            format!("f43 a-1-1.src.rpm failed {boot}-2"),
            format!("* a-1-1.src.rpm failed {boot}-3"),
            format!("f43 c-1-1.src.rpm held {boot}-5"),
        ]
    );
    let content = farm.content();
    assert_eq!(reconciled(&farm), Reconciled::default());
    fs::remove_file(farm.path()).unwrap();
    assert_eq!(reconciled(&farm).unearthed, 5);
    assert_eq!(farm.content(), content);
}

#[test]
fn open_builds_follow_their_srpms() {
    let farm = Farm::new();
    let names = ["source", "working", "failed", "done", "held", "nowhere", "nothing"];
    for (name, serial) in names.into_iter().zip(1..) {
        tell(&farm, &[Entry::Leased(leased(name, serial, 100))]);
    }
    farm.put(farm.folders.source.join(key("source").path()), b"srpm");
    farm.put(farm.folders.working.join(key("working").path()), b"srpm");
    farm.finish("failed", 3, 1000, failed(FailureKind::Package));
    farm.finish("done", 4, 1000, Outcome::Succeeded);
    farm.put(farm.folders.finished.join(key("held").path()), b"srpm");
    let held = record("held", 5, 1000, failed(FailureKind::Infrastructure)).to_json().unwrap();
    farm.put(farm.folders.finished.join("held-1-1.src.rpm.held.json"), &held);
    farm.put(farm.folders.finished.join(key("nothing").path()), b"srpm");

    let running = reconciled_meanwhile(&farm);
    assert_eq!((running.closed, running.ended), (3, 0), "the farm tells the rest itself");
    let done = reconciled(&farm);
    assert_eq!((done.unearthed, done.closed, done.ended), (0, 2, 3));
    assert_eq!(
        states(&farm),
        [
            "source-1-1.src.rpm queued ",
            "working-1-1.src.rpm running ",
            "failed-1-1.src.rpm failed it did not work",
            "done-1-1.src.rpm succeeded ",
            "held-1-1.src.rpm held it did not work",
            "nowhere-1-1.src.rpm withdrawn its SRPM is in none of the folders",
            "nothing-1-1.src.rpm withdrawn its SRPM is in FINISHED, but no result is there",
        ]
    );
    let sql = "SELECT ifnull(ending, '-') FROM attempts ORDER BY id";
    assert_eq!(
        rows(&farm.connection(), sql),
        ["interrupted", "-", "delivered", "delivered", "delivered", "interrupted", "interrupted"]
    );
    assert_eq!(reconciled(&farm), Reconciled::default());
}

#[test]
fn a_folder_that_cannot_be_read_does_not_hide_the_rest() {
    let hidden = "h".repeat(190);
    let farm = Farm { folders: TempFolders::with_closed(&format!("{hidden}-1-1")) };
    for (name, serial) in [(hidden.as_str(), 1), ("done", 2), ("lost", 3)] {
        tell(&farm, &[Entry::Leased(leased(name, serial, 100))]);
    }
    farm.put(farm.folders.finished.join(key(&hidden).path()), b"srpm");
    farm.finish("done", 2, 1000, Outcome::Succeeded);
    farm.finish("f43/new", 5, 1000, Outcome::Succeeded);
    // Twice: what it looks like is not taken for known.
    for (unearthed, closed) in [(1, 2), (0, 0)] {
        let done = reconciled(&farm);
        assert_eq!((done.unearthed, done.closed), (unearthed, closed));
        assert_eq!(
            states(&farm),
            [
                format!("{hidden}-1-1.src.rpm running "),
                "done-1-1.src.rpm succeeded ".to_owned(),
                "lost-1-1.src.rpm withdrawn its SRPM is in none of the folders".to_owned(),
                "new-1-1.src.rpm succeeded ".to_owned(),
            ]
        );
        let (store, _) = Sqlite::new(&farm.path()).open(None).unwrap();
        let seen = survey(&farm.folders, &store.stamps().unwrap(), &BTreeMap::new()).unwrap();
        let closed = farm.folders.repo.join(format!("{hidden}-1-1"));
        assert_eq!(seen.closed.keys().collect::<Vec<_>>(), [&closed]);
        assert!(!seen.stamps.keys().any(|path| path.contains(&hidden)), "{:?}", seen.stamps);
    }
    // What lies in it is not taken for gone when it is one of the others that is closed.
    let repo = farm.folders.repo.clone();
    fs::rename(&repo, repo.with_file_name("elsewhere")).unwrap();
    let error = survey(&farm.folders, &Stamps::new(), &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.starts_with(&repo.display().to_string()), "{error}");
}

#[test]
fn an_old_result_does_not_settle_a_build_that_waits() {
    let farm = Farm::new();
    farm.finish("a", 1, 1000, Outcome::Succeeded);
    reconciled(&farm);
    // Moved back by a person; then its results of long ago are still there.
    fs::rename(farm.folders.finished.join(key("a").path()), farm.folders.source.join(key("a").path()))
        .unwrap();
    tell(&farm, &[Entry::Queued(srpm("a", 2000))]);
    assert_eq!(reconciled(&farm), Reconciled::default());
    // A result nobody told of is one of before, too.
    farm.put(
        farm.folders.repo.join(format!("a-1-1/attempt-{}/build.json", id(8))),
        &record("a", 8, 1500, failed(FailureKind::Package)).to_json().unwrap(),
    );
    assert_eq!(reconciled(&farm).unearthed, 1);
    assert_eq!(states(&farm)[1], "a-1-1.src.rpm queued ");
    // And a person who moves it to FINISHED takes it out.
    fs::rename(farm.folders.source.join(key("a").path()), farm.folders.finished.join(key("a").path()))
        .unwrap();
    assert_eq!(reconciled(&farm).closed, 1);
    assert!(states(&farm)[1].contains("withdrawn"), "{:?}", states(&farm));
}

#[test]
fn a_build_that_came_back_is_settled_by_the_attempt_that_went_on() {
    for (delivered, second) in
        [(3000, "succeeded "), (1500, "withdrawn its SRPM is in FINISHED, but no result is there")]
    {
        let farm = Farm::new();
        let gone = Entry::Withdrawn { key: key("a"), at: at(1000), reason: "gone".into() };
        tell(&farm, &[Entry::Leased(leased("a", 1, 100)), gone, Entry::Queued(srpm("a", 2000))]);
        farm.finish("a", 1, delivered, Outcome::Succeeded);
        assert_eq!(reconciled(&farm).closed, 1);
        let first = if delivered > 2000 { "withdrawn gone" } else { "succeeded " };
        assert_eq!(states(&farm), [format!("a-1-1.src.rpm {first}"), format!("a-1-1.src.rpm {second}")]);
        assert_eq!(reconciled(&farm), Reconciled::default());
    }
}

/// Parked builds are open builds: their SRPMs say what became of them, and what they miss survives.
#[test]
fn parked_builds_follow_their_srpms() {
    let farm = Farm::new();
    for (name, serial) in ["waits", "working", "done", "nowhere"].into_iter().zip(1..) {
        tell(&farm, &[Entry::Leased(leased(name, serial, 100)), parked(name, serial, 110)]);
    }
    assert!(states(&farm).iter().all(|state| state.contains(" parked ")), "{:?}", states(&farm));
    farm.put(farm.folders.source.join(key("waits").path()), b"srpm");
    farm.put(farm.folders.working.join(key("working").path()), b"srpm");
    farm.finish("done", 3, 1000, Outcome::Succeeded);
    let (mut history, _) = History::open(&farm.folders).unwrap();
    let parks = history.take_remembered().parked;
    assert_eq!(parks.keys().collect::<Vec<_>>(), [&key("waits"), &key("working")]);
    assert_eq!(parks[&key("waits")].missing, ["lib1 >= 2", "pkgconfig(x)"]);
    history.close();
    assert_eq!(
        states(&farm),
        [
            "waits-1-1.src.rpm parked ",
            "working-1-1.src.rpm parked ",
            "done-1-1.src.rpm succeeded ",
            "nowhere-1-1.src.rpm withdrawn its SRPM is in none of the folders",
        ]
    );
    assert_eq!(reconciled(&farm), Reconciled::default());
}

/// A parked build's record in REPO, and its SRPM in SOURCE.
fn park(farm: &Farm, name: &str, serial: u64, generation: u64) {
    let missing = vec!["lib1 >= 2".to_owned()];
    let outcome = Outcome::failed(FailureKind::MissingDependency, "no lib1", Some(30), missing);
    let mut record = record(name, serial, 1000, outcome);
    record.parked = true;
    record.attempt.as_mut().unwrap().repository = Some(RepositoryUsed { generation, url: None });
    let folder = farm.folders.published(&key(name), record.nvr.as_ref().unwrap());
    farm.put(folder.join("build.json"), &record.to_json().unwrap());
    farm.put(farm.folders.source.join(key(name).path()), b"srpm");
}

/// The folders tell who is parked when the history cannot be opened, is lost, or has not heard of it.
#[test]
fn parked_builds_stay_parked_without_a_history() {
    let farm = Farm::new();
    park(&farm, "waits", 1, 7);
    park(&farm, "replaced", 2, 7);
    farm.put(farm.folders.source.join(key("replaced").path()), b"a better srpm");
    park(&farm, "built", 3, 7);
    fs::rename(farm.folders.source.join(key("built").path()), farm.folders.working.join(key("built").path()))
        .unwrap();
    let parks = |backend: Box<dyn Backend>| {
        let (mut history, _) = History::open_with(&farm.folders, backend).unwrap();
        let parked = history.take_remembered().parked;
        history.close();
        let told = parked.into_iter().map(|(key, build)| (key, build.missing, build.generation));
        told.collect::<Vec<_>>()
    };
    let expected = [(key("waits"), vec!["lib1 >= 2".to_owned()], 7)];
    assert_eq!(parks(Box::new(Unusable)), expected);
    for _ in 0..2 {
        assert_eq!(parks(Box::new(Sqlite::new(&farm.path()))), expected, "made anew, and again");
    }
    assert_eq!(states(&farm), ["waits-1-1.src.rpm parked "]);
    fs::remove_file(farm.path()).unwrap();
    // Killed before it was told.
    let begun = Leased { generation: Some(7), ..leased("waits", 1, 100) };
    tell(&farm, &[Entry::Leased(begun)]);
    assert_eq!(parks(Box::new(Sqlite::new(&farm.path()))), expected);
    let sql = "SELECT ending, failure FROM attempts";
    assert_eq!(rows(&farm.connection(), sql), ["delivered missing_dependency"]);
    // And one that is tried again stays so.
    tell(&farm, &[Entry::Queued(srpm("waits", 2000))]);
    assert_eq!(parks(Box::new(Sqlite::new(&farm.path()))), []);
}

/// What a full disk has kept from the history: a farm at work may have woken what its record says is parked.
#[test]
fn what_is_parked_in_a_farm_at_work_is_found_only_when_it_is_unknown() {
    let farm = Farm::new();
    park(&farm, "woken", 1, 7);
    park(&farm, "unknown", 2, 7);
    tell(&farm, &[Entry::Leased(leased("woken", 1, 100)), Entry::Queued(srpm("woken", 2000))]);
    for _ in 0..2 {
        reconciled_meanwhile(&farm);
        let expected = ["woken-1-1.src.rpm running ", "unknown-1-1.src.rpm parked "];
        assert_eq!(states(&farm), expected);
    }
    reconciled(&farm);
    assert_eq!(states(&farm)[0], "woken-1-1.src.rpm parked ", "nobody has woken it when the server ended");
}

/// How an attempt ended, and what came of it: a history that knew the first alone would have it built again.
#[test]
fn what_is_told_together_is_known_whole_or_not_at_all() {
    let farm = Farm::new();
    let end = Entry::AttemptEnded(AttemptEnd::new(id(1), at(110), Ending::Delivered));
    tell(&farm, &[Entry::Leased(leased("a", 1, 100))]);
    tell(&farm, &[Entry::Together(vec![end.clone(), parked("a", 1, 110)])]);
    assert_eq!(states(&farm), ["a-1-1.src.rpm parked "]);
    let refuse =
        "CREATE TRIGGER refuse BEFORE UPDATE OF missing ON builds BEGIN SELECT RAISE(ABORT, 'no'); END";
    rusqlite::Connection::open(farm.path()).unwrap().execute_batch(refuse).unwrap();
    tell(&farm, &[Entry::Leased(leased("b", 2, 100))]);
    let end = Entry::AttemptEnded(AttemptEnd::new(id(2), at(110), Ending::Delivered));
    let (mut store, _) = Sqlite::new(&farm.path()).open(None).unwrap();
    store.apply(&[Entry::Together(vec![end, parked("b", 2, 110)])]).unwrap_err();
    let sql = "SELECT ifnull(ending, 'runs') FROM attempts WHERE id LIKE '%2'";
    assert_eq!(rows(&farm.connection(), sql), ["runs"]);
}

/// A database on a full disk.
#[derive(Debug)]
struct Unusable;

impl Backend for Unusable {
    fn open(&mut self, _: Option<&str>) -> Result<(Box<dyn Store>, Opened), StoreError> {
        Err(StoreError::Unavailable("the disk is full".into()))
    }
}

#[test]
fn tries_survive_a_restart() {
    let farm = Farm::new();
    farm.put(farm.folders.source.join(key("a").path()), b"srpm");
    let (history, _) = History::open(&farm.folders).unwrap();
    history.record(Entry::Leased(leased("a", 1, 100)));
    history.record(Entry::AttemptEnded(AttemptEnd::new(id(1), at(110), Ending::Lost)));
    history.record(Entry::Leased(leased("a", 2, 120)));
    history.close();
    let (history, tries) = History::open(&farm.folders).unwrap();
    history.close();
    let faults: Vec<_> = tries[&key("a")].iter().map(|one| (one.attempt, one.kind)).collect();
    assert_eq!(faults, [(id(1), TryKind::Lost)], "the server's own stop counts against nobody");
}

#[test]
fn only_what_changed_is_read_again() {
    let farm = Farm::new();
    for (name, serial) in [("a", 1), ("f43/b", 2), ("c", 3)] {
        farm.finish(name, serial, 1000, failed(FailureKind::Package));
    }
    let look = |before: &Stamps| survey(&farm.folders, before, &BTreeMap::new()).unwrap();
    // Just written: may change again unseen.
    assert!(look(&BTreeMap::new()).stamps.is_empty());
    let old = SystemTime::now() - Duration::from_secs(60);
    let age = |path: PathBuf| {
        fs::File::open(path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    };
    for name in ["a", "f43/b", "c"] {
        age(farm.folders.repo.join(format!("{name}-1-1")));
        age(farm.folders.failure_record(&key(name)));
    }
    let first = look(&BTreeMap::new());
    assert_eq!((first.records.len(), first.stamps.len()), (6, 6));
    let again = look(&first.stamps);
    assert_eq!((again.records.len(), &again.stamps), (0, &first.stamps));
    let wanted = BTreeMap::from([(key("a"), key("a").srpm.stem().parse().ok())]);
    assert_eq!(survey(&farm.folders, &first.stamps, &wanted).unwrap().records.len(), 2);
    farm.finish("f43/b", 9, 1000, failed(FailureKind::Package));
    let news = look(&first.stamps);
    // The failure record, the result, and the attempt beside it.
    assert_eq!(news.records.iter().filter(|found| found.key == key("f43/b")).count(), 3);
    assert_eq!(news.records.len(), 3);
}

#[test]
fn what_cannot_be_read_is_left_out_and_named() {
    let farm = Farm::new();
    farm.finish("a", 1, 1000, Outcome::Succeeded);
    for torn in ["b-1-1/build.json", "f43/x-1-1/build.json"] {
        farm.put(farm.folders.repo.join(torn), b"{ torn");
    }
    fs::create_dir(farm.folders.repo.join("f43/repodata")).unwrap();
    farm.put(farm.folders.finished.join("c-1-1.src.rpm.failed.json"), b"");
    let done = reconciled(&farm);
    assert_eq!((done.unearthed, done.unreadable), (1, 3));
}

/// Name, serial, time, whether it succeeded, and whether it is known before.
type Past = Vec<(&'static str, u64, i64, bool, bool)>;

fn any_past() -> impl Strategy<Value = Past> {
    let name = prop_oneof![Just("a"), Just("f43/a"), Just("b"), Just("f44/c")];
    let one = (name, 1000..2000_i64, any::<bool>(), any::<bool>());
    let number = |(serial, (name, at, good, known))| (name, serial, at, good, known);
    proptest::collection::vec(one, 0..8).prop_map(move |all| (1..).zip(all).map(number).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever part of what the folders tell was known before: afterwards all of it is, as if nothing
    /// had been known; and once more changes nothing.
    #[test]
    fn any_part_that_was_known_makes_no_difference(past in any_past()) {
        let (farm, fresh) = (Farm::new(), Farm::new());
        for (name, serial, at, good, known) in &past {
            let outcome = if *good { Outcome::Succeeded } else { failed(FailureKind::Package) };
            farm.finish(name, *serial, *at, outcome.clone());
            fresh.finish(name, *serial, *at, outcome);
            if *known {
                reconciled(&farm);
            }
        }
        reconciled(&farm);
        prop_assert_eq!(reconciled(&farm), Reconciled::default());
        prop_assert_eq!(reconciled(&fresh).unearthed, past.len());
        prop_assert_eq!(farm.content(), fresh.content());
    }
}
