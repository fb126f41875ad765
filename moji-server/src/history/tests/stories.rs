//! Entries in, rows and answers out.

use proptest::prelude::*;

use super::*;
use crate::history::words::{Word, words};
use crate::scheduler::{Try, TryKind};

fn told(entries: &[Entry]) -> SqliteStore {
    let mut store = memory();
    store.apply(entries).unwrap();
    store
}

/// One column of all rows.
fn all(store: &SqliteStore, sql: &str) -> Vec<String> {
    rows(store.connection(), sql)
}

#[test]
fn a_build_from_queued_to_settled() {
    let mut lost = AttemptEnd::new(id(1), at(110), Ending::Lost);
    lost.logs = BTreeMap::from([("build.log".to_owned(), 17)]);
    let mut store = told(&[
        Entry::Queued(srpm("gcc", 90)),
        Entry::Leased(leased("gcc", 1, 100)),
        Entry::AttemptEnded(lost),
        Entry::Queued(srpm("gcc", 111)),
    ]);
    let builds =
        "SELECT nvr, name, size, queued_at, state, settled_at, reason, failure, settled_by FROM builds";
    assert_eq!(all(&store, builds), ["gcc-1-1 gcc 4321 90000000 queued - - - -"]);
    let tries = store.open_tries().unwrap();
    let expected = Try { attempt: id(1), builder: "board-1".parse().unwrap(), kind: TryKind::Lost };
    assert_eq!(tries, BTreeMap::from([(key("gcc"), vec![expected])]));

    store.apply(&[Entry::Leased(leased("gcc", 2, 120))]).unwrap();
    assert_eq!(all(&store, "SELECT state FROM builds"), ["running"]);
    let end = settled("gcc", 2, 130, failed(FailureKind::Package));
    store.apply(&[Entry::Settled(end)]).unwrap();
    assert_eq!(
        all(&store, builds),
        ["gcc-1-1 gcc 99 90000000 failed 131000000 it did not work package fedcba9876543210-2"]
    );
    let attempts = "SELECT id, builder, leased_at, ended_at, ending, outcome, failure, exit_code, missing, \
                    logs, bytes, readopted FROM attempts ORDER BY id";
    assert_eq!(
        all(&store, attempts),
        [
            r#"fedcba9876543210-1 board-1 100000000 110000000 lost - - - - {"build.log":17} 0 0"#,
            r#"fedcba9876543210-2 board-2 120000000 130000000 delivered failed package 7 ["libfoo"] {"build.log":32} 532 0"#,
        ]
    );
    assert!(store.open_tries().unwrap().is_empty());
    // Queued once more: another build.
    store.apply(&[Entry::Queued(srpm("gcc", 200))]).unwrap();
    assert_eq!(all(&store, "SELECT state FROM builds ORDER BY id"), ["failed", "queued"]);
}

#[test]
fn only_what_counts_against_somebody_is_a_try() {
    let mut store = memory();
    let kinds = [
        (
            Ending::Delivered,
            Some(FailureKind::Infrastructure),
            Some(TryKind::Failed(FailureKind::Infrastructure)),
        ),
        (
            Ending::Delivered,
            Some(FailureKind::Configuration),
            Some(TryKind::Failed(FailureKind::Configuration)),
        ),
        (Ending::Delivered, Some(FailureKind::Interrupted), Some(TryKind::Failed(FailureKind::Interrupted))),
        (Ending::Delivered, Some(FailureKind::MissingDependency), None),
        (Ending::Lost, None, Some(TryKind::Lost)),
        (Ending::Released, None, None),
        (Ending::Cancelled, None, None),
        (Ending::Interrupted, None, None),
    ];
    for (serial, (ending, kind, _)) in (1..).zip(&kinds) {
        let mut end = AttemptEnd::new(id(serial), at(100 + serial as i64), *ending);
        end.outcome = kind.map(failed);
        store.apply(&[Entry::Leased(leased("f43/a", serial, 50)), Entry::AttemptEnded(end)]).unwrap();
    }
    let faults: Vec<_> = store.open_tries().unwrap().remove(&key("f43/a")).unwrap();
    let expected: Vec<_> = kinds.iter().filter_map(|(.., fault)| *fault).collect();
    assert_eq!(faults.iter().map(|one| one.kind).collect::<Vec<_>>(), expected);
}

#[test]
fn readopted_is_running_again_unless_it_is_over() {
    let mut store = told(&[
        Entry::Leased(leased("a", 1, 100)),
        Entry::AttemptEnded(AttemptEnd::new(id(1), at(110), Ending::Interrupted)),
        Entry::Readopted(leased("a", 1, 120)),
        // Of a server whose history was lost.
        Entry::Readopted(leased("b", 2, 121)),
    ]);
    let sql = "SELECT state, ending, readopted, leased_at FROM builds JOIN attempts ON build = builds.id ORDER BY 4";
    assert_eq!(all(&store, sql), ["running - 1 100000000", "running - 1 121000000"]);
    store.apply(&[Entry::Settled(settled("a", 1, 130, Outcome::Succeeded))]).unwrap();
    store.apply(&[Entry::Readopted(leased("a", 1, 140))]).unwrap();
    assert_eq!(all(&store, sql)[0], "succeeded delivered 1 100000000");
}

/// While nobody looked, a person has put an SRPM aside and then back, and its builder has gone on all the time.
#[test]
fn an_attempt_at_what_was_taken_out_and_has_come_back_is_one_at_the_new_build() {
    let gone = Entry::Withdrawn { key: key("a"), at: at(110), reason: "gone".into() };
    let of_another = Entry::Queued(srpm("f43/a", 115));
    let before = [Entry::Leased(leased("a", 1, 100)), gone, of_another, Entry::Queued(srpm("a", 120))];
    let builds = "SELECT b.state, a.id, a.ending FROM builds b LEFT JOIN attempts a ON a.build = b.id \
                  WHERE b.target IS NULL ORDER BY b.id";
    let events =
        "SELECT e.kind FROM events e JOIN builds b ON b.id = e.build WHERE b.target IS NULL ORDER BY e.id";
    let attempt = id(1);
    let mut store = told(&before);
    assert_eq!(all(&store, builds), [format!("withdrawn {attempt} cancelled"), "queued - -".to_owned()]);
    store.apply(&[Entry::Readopted(leased("a", 1, 130))]).unwrap();
    assert_eq!(all(&store, builds), ["withdrawn - -".to_owned(), format!("running {attempt} -")]);
    let settled = Entry::Settled(settled("a", 1, 140, Outcome::Succeeded));
    let end = ["withdrawn - -".to_owned(), format!("succeeded {attempt} delivered")];
    store.apply(std::slice::from_ref(&settled)).unwrap();
    assert_eq!(all(&store, builds), end);
    let told_of = ["started", "withdrawn", "queued", "started", "succeeded"];
    assert_eq!(all(&store, events), told_of);
    // The history has not heard that the builder went on.
    let mut store = told(&before);
    store.apply(&[settled]).unwrap();
    assert_eq!(all(&store, builds), end);
    // One that has not come back is what its result says.
    let mut store = told(&before[..2]);
    store.apply(&[Entry::Settled(super::settled("a", 1, 140, Outcome::Succeeded))]).unwrap();
    assert_eq!(all(&store, builds), [format!("succeeded {attempt} delivered")]);
}

#[test]
fn what_was_guessed_is_corrected_and_what_is_known_stays() {
    let end = |ending| Entry::AttemptEnded(AttemptEnd::new(id(1), at(110), ending));
    let store = told(&[Entry::Leased(leased("a", 1, 100)), end(Ending::Interrupted), end(Ending::Lost)]);
    assert_eq!(all(&store, "SELECT ending FROM attempts"), ["lost"]);
    let store = told(&[Entry::Leased(leased("a", 1, 100)), end(Ending::Lost), end(Ending::Released)]);
    assert_eq!(all(&store, "SELECT ending FROM attempts"), ["lost"]);
}

/// For a builder that comes back after its lease was lost here.
#[test]
fn of_an_attempt_without_an_end_it_is_known_when_it_began_and_against_what() {
    let store = told(&[Entry::Leased(leased("a", 1, 100))]);
    let given = store.unanswered(10).unwrap();
    assert_eq!(
        given.iter().map(|given| (given.leased_at, given.generation)).collect::<Vec<_>>(),
        [(at(100), 1001)]
    );
}

#[test]
fn a_build_that_settles_ends_what_else_runs_for_it() {
    let mut store = told(&[
        Entry::Leased(leased("a", 1, 100)),
        Entry::Leased(leased("a", 2, 105)),
        Entry::Settled(settled("a", 2, 130, Outcome::Succeeded)),
        Entry::Leased(leased("b", 3, 106)),
        Entry::Withdrawn { key: key("b"), at: at(140), reason: "gone".into() },
    ]);
    let sql = "SELECT id, ending FROM attempts ORDER BY id";
    let boot = "fedcba9876543210";
    assert_eq!(
        all(&store, sql),
        [format!("{boot}-1 stale"), format!("{boot}-2 delivered"), format!("{boot}-3 cancelled")]
    );
    // A late word of what is over changes nothing.
    let before = content(store.connection());
    store.apply(&[Entry::Queued(srpm("a", 99)), Entry::Leased(leased("a", 2, 105))]).unwrap();
    assert_eq!(content(store.connection()), before);
}

#[test]
fn all_bits_of_an_id_and_all_words_survive() {
    for id in [AttemptId { boot: u64::MAX, serial: u64::MAX }, AttemptId { boot: 0, serial: 1 }] {
        let mut store = memory();
        store.apply(&[Entry::Leased(Leased { attempt: id, ..leased("a", 1, 100) })]).unwrap();
        assert_eq!(store.known().unwrap().attempts.into_keys().collect::<Vec<_>>(), [id]);
    }
    let schema = schema::MIGRATIONS.concat();
    let listed = |column: &str| -> std::collections::BTreeSet<&str> {
        // The newest counts.
        let list = schema.split(&format!("CHECK ({column} IN")).last().unwrap().split_once(')').unwrap().0;
        list.split('\'').skip(1).step_by(2).collect()
    };
    assert_eq!(listed("state"), words::<BuildState>());
    assert_eq!(listed("ending"), words::<Ending>());
    for kind in FailureKind::ALL {
        assert_eq!(serde_json::to_string(kind).unwrap(), format!("{:?}", kind.word()), "as in build.json");
    }
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut store = memory();
    let broken = "CREATE TRIGGER no BEFORE INSERT ON attempts BEGIN SELECT raise(ABORT, 'no'); END";
    store.connection().execute_batch(broken).unwrap();
    store.apply(&[Entry::Queued(srpm("a", 1)), Entry::Leased(leased("a", 1, 100))]).unwrap_err();
    assert_eq!(content(store.connection()), [""; 0]);
}

pub(super) fn any_entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![Just("a"), Just("f43/a"), Just("b")];
    (0..12_u8, name, 1..5_u64, 100..140_i64).prop_map(|(what, name, serial, seconds)| match what {
        0 => Entry::Queued(srpm(name, seconds)),
        1 => Entry::Leased(leased(name, serial, seconds)),
        2 => Entry::Readopted(leased(name, serial, seconds)),
        3 => Entry::AttemptEnded(AttemptEnd::new(id(serial), at(seconds), Ending::Lost)),
        4 => Entry::Settled(settled(name, serial, seconds, Outcome::Succeeded)),
        5 => Entry::Settled(settled(name, serial, seconds, failed(FailureKind::Package))),
        6 => Entry::Unearthed(settled(name, serial, seconds, Outcome::Succeeded)),
        7 | 8 => parked(name, serial, seconds),
        10 => {
            let mut record = record(name, serial, seconds, failed(FailureKind::MissingDependency));
            record.parked = true;
            Entry::FoundParked { key: key(name), record: Box::new(record), size: 99 }
        }
        9 => Entry::Happened(Happening {
            at: at(seconds),
            kind: EventKind::BuilderLost,
            text: format!("board-{serial} is lost"),
            builder: Some(format!("board-{serial}").parse().unwrap()),
            target: None,
            generation: None,
        }),
        _ => Entry::Withdrawn { key: key(name), at: at(seconds), reason: "gone".into() },
    })
}

proptest! {
    /// Whatever is told, in whatever order: it is taken, what is told twice counts once, and the
    /// states agree with the attempts.
    #[test]
    fn told_twice_is_told_once(entries in proptest::collection::vec(any_entry(), 0..30)) {
        let (mut once, mut twice) = (memory(), memory());
        for entry in &entries {
            once.apply_at(std::slice::from_ref(entry), at(500)).unwrap();
            twice.apply_at(&[entry.clone(), entry.clone()], at(500)).unwrap();
        }
        prop_assert_eq!(content(once.connection()), content(twice.connection()));
        prop_assert_eq!(told_events(once.connection()), told_events(twice.connection()));
        // Each end of a build is told once, unless it was only thought to be withdrawn.
        let ends = "SELECT b.id FROM builds b WHERE b.state IN ('succeeded', 'failed') AND 1 < (SELECT count(*) \
                    FROM events e WHERE e.build = b.id AND e.kind IN ('succeeded', 'failed', 'held'))";
        prop_assert_eq!(rows(once.connection(), ends), [""; 0]);
        let wrong = "SELECT state, count(*) FROM builds b WHERE (state = 'running') != \
                     EXISTS (SELECT 1 FROM attempts WHERE build = b.id AND ended_at IS NULL) GROUP BY 1";
        prop_assert_eq!(rows(once.connection(), wrong), [""; 0]);
        let open = once.known().unwrap().open;
        prop_assert!(once.parked().unwrap().keys().all(|key| open.contains_key(key)));
        once.settled_since(at(0), 100).unwrap();
        once.durations(100).unwrap();
        once.open_tries().unwrap();
    }
}
