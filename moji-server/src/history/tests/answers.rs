//! What is told from rows.

use std::time::Duration;

use super::*;
use crate::history::store::{ParkedBuild, SettledBuild};

fn told(entries: &[Entry]) -> SqliteStore {
    let mut store = memory();
    store.apply(entries).unwrap();
    store
}

fn states(store: &SqliteStore) -> Vec<String> {
    rows(store.connection(), "SELECT state, parked_at, missing FROM builds ORDER BY id")
}

/// The end of an attempt for what it missed.
fn missed(serial: u64, seconds: i64) -> Entry {
    let outcome = Some(failed(FailureKind::MissingDependency));
    let end = AttemptEnd::new(id(serial), at(seconds), Ending::Delivered);
    Entry::AttemptEnded(AttemptEnd { outcome, ..end })
}

#[test]
fn a_build_is_parked_until_something_comes_of_it() {
    let begin = [
        Entry::Leased(leased("f43/a", 1, 100)),
        missed(1, 110),
        parked("f43/a", 1, 111),
        Entry::Leased(leased("f43/a", 2, 120)),
        missed(2, 130),
        parked("f43/a", 2, 131),
    ];
    let mut store = told(&begin);
    assert_eq!(states(&store), [r#"parked 131000000 ["lib2 >= 2","pkgconfig(x)"]"#]);
    let missing = vec!["lib2 >= 2".to_owned(), "pkgconfig(x)".to_owned()];
    let expected = ParkedBuild { since: at(131), missing, tries: 2, generation: 1002 };
    assert_eq!(store.parked().unwrap(), BTreeMap::from([(key("f43/a"), expected)]));
    assert!(store.known().unwrap().open.contains_key(&key("f43/a")));
    assert!(store.open_tries().unwrap().is_empty(), "what is missing is nobody's fault");

    let gone = Entry::Withdrawn { key: key("f43/a"), at: at(140), reason: "gone".into() };
    for (next, state) in [
        (Entry::Queued(srpm("f43/a", 140)), "queued - -"),
        (Entry::Leased(leased("f43/a", 3, 140)), "running - -"),
        (Entry::Settled(settled("f43/a", 3, 140, Outcome::Succeeded)), "succeeded - -"),
        (gone, "withdrawn - -"),
    ] {
        let mut store = told(&begin);
        store.apply(std::slice::from_ref(&next)).unwrap();
        assert_eq!(states(&store), [state], "{next:?}");
        assert!(store.parked().unwrap().is_empty(), "{next:?}");
    }
    // Its attempts end, the build goes on: it is not parked again by that.
    store.apply(&[Entry::Leased(leased("f43/a", 3, 140))]).unwrap();
    store.apply(&[Entry::AttemptEnded(AttemptEnd::new(id(3), at(150), Ending::Lost))]).unwrap();
    assert_eq!(states(&store), ["queued - -"]);
}

#[test]
fn a_park_that_comes_late_or_alone() {
    // Nobody told how the attempt ended, which is corrected by whoever knows.
    let mut store = told(&[Entry::Leased(leased("a", 1, 100)), parked("a", 1, 111)]);
    assert_eq!(states(&store)[0].split(' ').next(), Some("parked"));
    store.apply(&[missed(1, 110)]).unwrap();
    let sql = "SELECT state, ending, ended_at, a.failure FROM builds b JOIN attempts a ON a.build = b.id";
    assert_eq!(rows(store.connection(), sql), ["parked delivered 110000000 missing_dependency"]);
    // Another attempt is still at it: a second start elsewhere.
    let both = told(&[
        Entry::Leased(leased("a", 1, 100)),
        Entry::Leased(leased("a", 2, 101)),
        missed(1, 110),
        parked("a", 1, 111),
    ]);
    assert!(states(&both)[0].starts_with("running"), "{:?}", states(&both));
    // Settled, or never heard of.
    let over =
        [Entry::Settled(settled("a", 1, 100, Outcome::Succeeded)), parked("a", 1, 111), parked("b", 2, 112)];
    assert_eq!(states(&told(&over)), ["succeeded - -"]);
}

#[test]
fn where_and_of_what_an_attempt_was_built() {
    let store = told(&[
        Entry::Leased(leased("a", 4, 100)),
        Entry::Leased(Leased { class: None, generation: None, ..leased("b", 5, 101) }),
    ]);
    let sql = "SELECT builder_class, generation FROM attempts ORDER BY id";
    assert_eq!(rows(store.connection(), sql), ["aarch64/4 1004", "- -"]);
}

#[test]
fn how_long_good_attempts_took() {
    let mut store = memory();
    for (name, serial, begin, end, outcome) in [
        ("late", 4, 300, 400, Outcome::Succeeded),
        ("gcc", 2, 100, 137, Outcome::Succeeded),
        ("bad", 3, 100, 150, failed(FailureKind::Package)),
    ] {
        let mut end = settled(name, serial, end, outcome);
        end.size = Some(1000 + serial);
        store.apply(&[Entry::Leased(leased(name, serial, begin)), Entry::Settled(end)]).unwrap();
    }
    // Of a history that was lost: nobody knows on what kind of machine.
    store.apply(&[Entry::Unearthed(settled("old", 9, 50, Outcome::Succeeded))]).unwrap();
    let sample = |package: &str, class, size, seconds| crate::estimates::Sample {
        package: package.to_owned(),
        class,
        size: Some(size),
        took: Duration::from_secs(seconds),
    };
    let aarch64 = |cores| BuilderClass::new("aarch64", cores);
    let expected = [
        sample("old", BuilderClass::unknown(), 99, 10),
        sample("gcc", aarch64(2), 1002, 37),
        sample("late", aarch64(4), 1004, 100),
    ];
    assert_eq!(store.durations(10).unwrap(), expected);
    assert_eq!(store.durations(2).unwrap(), expected[1..]);
}

#[test]
fn what_was_settled_since() {
    let mut held = settled("f43/held", 5, 300, failed(FailureKind::Infrastructure));
    held.verdict = Verdict::Held;
    let store = told(&[
        Entry::Settled(settled("before", 1, 100, Outcome::Succeeded)),
        Entry::Queued(srpm("good", 150)),
        Entry::Leased(leased("good", 2, 160)),
        Entry::AttemptEnded(AttemptEnd::new(id(2), at(167), Ending::Lost)),
        Entry::Leased(leased("good", 3, 170)),
        Entry::Settled(settled("good", 3, 200, Outcome::Succeeded)),
        Entry::Leased(leased("gone", 4, 201)),
        Entry::Withdrawn { key: key("gone"), at: at(210), reason: "gone".into() },
        Entry::Settled(held),
        Entry::Queued(srpm("waits", 310)),
    ]);
    let found = store.settled_since(at(200), 10).unwrap();
    assert_eq!(found.iter().map(|build| &build.key).collect::<Vec<_>>(), [&key("good"), &key("f43/held")]);
    let good = SettledBuild {
        key: key("good"),
        nvr: Some("good-1-1".parse().unwrap()),
        verdict: Verdict::Succeeded,
        failure: None,
        reason: None,
        missing: Vec::new(),
        attempts: 2,
        queued_at: at(150),
        settled_at: at(201),
        took: Some(Duration::from_secs(30)),
        busy: Duration::from_secs(37),
        builder: Some("board-3".parse().unwrap()),
    };
    assert_eq!(found[0], good);
    let held = &found[1];
    assert_eq!((held.verdict, held.failure), (Verdict::Held, Some(FailureKind::Infrastructure)));
    assert_eq!(
        (held.reason.as_deref(), &*held.missing),
        (Some("it did not work"), &["libfoo".to_owned()][..])
    );
    assert_eq!(store.settled_since(at(200), 1).unwrap(), found[1..], "the newest");
}

#[test]
fn what_a_package_provides_is_replaced_as_a_whole() {
    let provided = |target: Option<&str>, package: &str, capabilities: &[&str]| Entry::Provided {
        target: target.map(|target| target.parse().unwrap()),
        package: package.to_owned(),
        capabilities: capabilities.iter().map(|text| (*text).to_owned()).collect(),
    };
    let store = told(&[
        provided(None, "zlib", &["zlib = 1.2", "libz.so.1", "zlib = 1.2"]),
        provided(Some("f43"), "zlib", &["zlib = 1.3"]),
        provided(None, "bash", &["bash = 5"]),
        provided(None, "zlib", &["zlib-ng = 2", "libz.so.1", &"x".repeat(5000)]),
        provided(None, "bash", &[]),
    ]);
    let products = store.products().unwrap();
    let of = |target: Option<&str>, package: &str| {
        products.get(&(target.map(|target| target.parse().unwrap()), package.to_owned())).cloned()
    };
    assert_eq!(of(None, "zlib").unwrap(), ["libz.so.1", "zlib-ng = 2"]);
    assert_eq!(of(Some("f43"), "zlib").unwrap(), ["zlib = 1.3"]);
    assert_eq!(products.len(), 2);
}
