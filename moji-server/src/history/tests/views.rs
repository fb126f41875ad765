//! What pages ask, over histories that are known.

use moji_proto::api::{self, BuildState as State, Event};
use proptest::prelude::*;

use super::stories::any_entry;
use super::*;
use crate::history::{BuildFilter, Views};

fn views(store: SqliteStore) -> Views {
    Views::new(store.into_connection())
}

fn told(entries: &[Entry]) -> Views {
    let mut store = SqliteStore::new_at(memory().into_connection(), at(400));
    store.apply_at(entries, at(401)).unwrap();
    views(store)
}

/// Builds 1 to 7: a good one after a lost attempt, a failed and a held one, one that waits, one that runs, one
/// that was taken out, and the first one's package once more, for another target.
fn small() -> Views {
    let mut held = settled("f43/held", 4, 220, failed(FailureKind::Infrastructure));
    held.verdict = Verdict::Held;
    let mut lost = AttemptEnd::new(id(1), at(110), Ending::Lost);
    lost.logs = BTreeMap::from([("build.log".to_owned(), 17), ("../x".to_owned(), 1)]);
    told(&[
        Entry::Queued(srpm("good", 90)),
        Entry::Leased(leased("good", 1, 100)),
        Entry::AttemptEnded(lost),
        Entry::Leased(leased("good", 2, 120)),
        Entry::Settled(settled("good", 2, 150, Outcome::Succeeded)),
        Entry::Leased(leased("f43/bad", 3, 180)),
        Entry::Settled(settled("f43/bad", 3, 200, failed(FailureKind::Package))),
        Entry::Leased(leased("f43/held", 4, 210)),
        Entry::Settled(held),
        Entry::Leased(leased("a_waits", 5, 230)),
        parked("a_waits", 5, 240),
        Entry::Leased(leased("runs", 6, 250)),
        Entry::Leased(leased("gone", 7, 260)),
        Entry::Withdrawn { key: key("gone"), at: at(270), reason: "taken out".into() },
        Entry::Leased(leased("f44/good", 8, 280)),
        Entry::Settled(settled("f44/good", 8, 330, Outcome::Succeeded)),
    ])
}

fn filter() -> BuildFilter {
    BuildFilter { limit: 50, ..BuildFilter::default() }
}

fn ids(views: &Views, filter: &BuildFilter) -> Vec<u64> {
    views.builds(filter).unwrap().items.iter().map(|build| build.id).collect()
}

#[test]
fn builds_in_outline() {
    let mut views = small();
    let all = views.at_one_moment(at(300), |views| views.builds(&filter())).unwrap();
    assert_eq!((all.next, all.total), (None, Some(7)));
    let good = api::Build {
        id: 1,
        target: None,
        srpm: "good-1-1.src.rpm".parse().unwrap(),
        nvr: Some("good-1-1".parse().unwrap()),
        package: Some("good".into()),
        state: State::Succeeded,
        queued_at: at(90),
        settled_at: Some(at(151)),
        attempts: 2,
        attempt: Some(id(2)),
        builder: Some("board-2".into()),
        took_seconds: Some(30),
        failure: None,
        reason: None,
        missing: Vec::new(),
    };
    assert_eq!(all.items[6], good);
    let line = |build: &api::Build| {
        let api::Build { id, state, took_seconds, failure, reason, missing, .. } = build;
        let failure = failure.map(|kind| kind.to_string()).unwrap_or_default();
        let (took, reason) = (took_seconds.unwrap_or(0), reason.clone().unwrap_or_default());
        format!("{id} {state} {took} {failure} {reason} {}", missing.join(","))
    };
    let lines: Vec<_> = all.items.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "7 succeeded 50   ",
            "6 withdrawn 10  taken out ",
            "5 running 50   ",
            "4 parked 10   lib5 >= 2,pkgconfig(x)",
            "3 held 10 builder or repository it did not work libfoo",
            "2 failed 20 package it did not work libfoo",
            "1 succeeded 30   ",
        ]
    );
}

#[test]
fn builds_by_what_they_are() {
    let views = small();
    let of = |change: fn(&mut BuildFilter)| {
        let mut filter = filter();
        change(&mut filter);
        ids(&views, &filter)
    };
    assert_eq!(of(|all| all.states = vec![State::Failed, State::Held, State::Failed]), [3, 2]);
    assert_eq!(of(|all| all.target = Some(None)), [6, 5, 4, 1]);
    assert_eq!(of(|all| all.target = Some(Some("f43".parse().unwrap()))), [3, 2]);
    assert_eq!(of(|all| all.package = Some("good".into())), [7, 1]);
    assert_eq!(of(|all| all.builder = Some("board-2".into())), [1]);
    assert_eq!(of(|all| all.builder = Some("board-1".into())), [0_u64; 0], "it settled nothing");
    assert_eq!(of(|all| all.failure = Some(FailureKind::Infrastructure)), [3]);
    assert_eq!(of(|all| all.search = Some("OOD-1".into())), [7, 1]);
    assert_eq!(of(|all| all.search = Some("A_W".into())), [4]);
    assert_eq!(of(|all| all.search = Some("_".into())), [4], "not a pattern");
    assert_eq!(of(|all| all.search = Some("%".into())), [0_u64; 0]);
    assert_eq!(of(|all| all.search = Some("\\".into())), [0_u64; 0]);
    assert_eq!(of(|all| all.before = Some(3)), [2, 1]);
    let last = views.settled_last(&[State::Failed, State::Held], 10).unwrap();
    assert_eq!(last.iter().map(|build| build.id).collect::<Vec<_>>(), [3, 2]);
    let last = views.settled_last(&[], 3).unwrap();
    assert_eq!(last.iter().map(|build| build.id).collect::<Vec<_>>(), [7, 3, 2]);
}

#[test]
fn a_build_with_all_that_is_known() {
    let mut views = small();
    let good = views.at_one_moment(at(300), |views| views.build(1)).unwrap().unwrap();
    assert_eq!((good.build.id, good.size, good.sha256), (1, Some(99), Some(Sha256::of(b"srpm"))));
    let names: Vec<_> = good.artifacts.iter().map(|file| (file.name.as_str(), file.size)).collect();
    assert_eq!(names, [("build.log", 32), ("x.noarch.rpm", 500)]);
    assert_eq!(good.artifacts[1].sha256, Sha256::of(b"x.noarch.rpm"));
    let attempts: Vec<_> = good.attempts.iter().map(|attempt| attempt.id).collect();
    assert_eq!(attempts, [id(2), id(1)]);
    let (second, first) = (&good.attempts[0], &good.attempts[1]);
    assert_eq!(
        (first.ending.as_deref(), first.succeeded, first.generation),
        (Some("lost"), None, Some(1001))
    );
    assert_eq!((first.leased_at, first.ended_at), (at(100), Some(at(110))));
    let logs: Vec<_> = first.logs.iter().map(|log| (log.name.as_str(), log.bytes)).collect();
    assert_eq!(logs, [("build.log", 17)], "what is no name is left out");
    assert_eq!((second.builder.as_str(), second.succeeded), ("board-2", Some(true)));

    let bad = views.attempt(id(3)).unwrap().unwrap();
    assert_eq!((bad.build, &bad.key), (2, &key("f43/bad")));
    assert_eq!((bad.attempt.exit_code, bad.attempt.failure), (Some(7), Some(FailureKind::Package)));
    assert_eq!((bad.attempt.target.as_str(), &*bad.attempt.missing), ("f43-arm", &["libfoo".to_owned()][..]));
    assert_eq!(views.attempt(id(99)).unwrap(), None);
    assert_eq!(views.build(99).unwrap(), None);
    assert_eq!(views.numbers(&[id(99), id(8), id(1)]).unwrap(), BTreeMap::from([(id(8), 7), (id(1), 1)]));
}

#[test]
fn a_build_by_what_people_call_it() {
    let views = small();
    let find = |reference: &str| views.find(reference).unwrap().map(|(id, _)| id);
    assert_eq!(views.find("3").unwrap(), Some((3, key("f43/held"))));
    assert_eq!(find(&id(1).to_string()), Some(1));
    assert_eq!(find(&id(99).to_string()), None);
    for name in ["good", "good-1-1", "good-1-1.src.rpm"] {
        assert_eq!(find(name), Some(7), "{name}: the newest");
        assert_eq!(find(&format!("f44/{name}")), Some(7));
        assert_eq!(find(&format!("f43/{name}")), None);
        assert_eq!(find(&format!("no target at all/{name}")), None);
    }
    for wrong in ["", "/", "99", "f43/", "/good", "goo", "good%", "18446744073709551616", "f43/bad/x"] {
        assert_eq!(find(wrong), None, "{wrong:?}");
    }
    // Its header could not be read; and a package that is a number.
    let mut torn = srpm("torn", 300);
    torn.nvr = None;
    let views = told(&[Entry::Queued(torn), Entry::Queued(srpm("7", 300))]);
    assert_eq!(views.find("torn-1-1").unwrap(), Some((1, key("torn"))));
    assert_eq!(views.find("7").unwrap(), Some((2, key("7"))));
}

#[test]
fn sums_of_the_farm() {
    let views = small();
    let history = |succeeded, failed, held| api::History { succeeded, failed, held };
    let now = at(201 + 3600);
    let throughput = views.throughput(now).unwrap();
    assert_eq!((throughput.hour, throughput.day), (history(1, 1, 1), history(2, 1, 1)));
    let target = |name: &str| Some(name.parse().unwrap());
    let day = BTreeMap::from([
        (None, history(1, 0, 0)),
        (target("f43"), history(0, 1, 1)),
        (target("f44"), history(1, 0, 0)),
    ]);
    assert_eq!(views.day_of_targets(now).unwrap(), day);
    assert_eq!(views.throughput(at(1_000_000)).unwrap(), api::Throughput::default());
}

#[test]
fn packages() {
    let views = small();
    let lines = |search, skip, limit| {
        let page = views.packages(search, skip, limit).unwrap();
        let line = |one: &api::Package| format!("{} {} {}", one.name, one.builds, one.last.id);
        (page.items.iter().map(line).collect::<Vec<_>>(), page.next, page.total)
    };
    let first = ["a_waits 1 4", "bad 1 2", "gone 1 6"].map(String::from).to_vec();
    assert_eq!(lines(None, 0, 3), (first, Some(3), Some(6)));
    let second = ["good 2 7", "held 1 3", "runs 1 5"].map(String::from).to_vec();
    assert_eq!(lines(None, 3, 3), (second, None, Some(6)));
    assert_eq!(lines(Some("OO"), 0, 3), (vec!["good 2 7".to_owned()], None, Some(1)));
    assert_eq!(lines(Some("_"), 0, 3), (vec!["a_waits 1 4".to_owned()], None, Some(1)));

    let good = views.package("good", None).unwrap().unwrap();
    assert_eq!(good.builds.iter().map(|build| build.id).collect::<Vec<_>>(), [7, 1]);
    let took = |took: &api::Took| (took.at, took.seconds, took.builder.clone());
    let expected = [(at(150), 30, "board-2".to_owned()), (at(330), 50, "board-8".to_owned())];
    assert_eq!(good.durations.iter().map(took).collect::<Vec<_>>(), expected);
    let one = views.package("good", Some(&"f44".parse().unwrap())).unwrap().unwrap();
    assert_eq!((one.builds.len(), one.durations.len()), (1, 1));
    assert_eq!(views.package("goo", None).unwrap(), None);
}

#[test]
fn what_a_builder_did() {
    let mut entries = Vec::new();
    // Attempt by attempt: who, which package, and how long it took.
    let attempts = [
        ("slow", "x", 40),
        ("quick", "x", 20),
        ("quick", "x", 20),
        ("third", "x", 10),
        ("slow", "y", 90),
        ("third", "y", 30),
    ];
    for (serial, (builder, package, took)) in (1..).zip(attempts) {
        let mut lease = leased(package, serial, 1000 * serial as i64);
        lease.builder = builder.parse().unwrap();
        let mut end = settled(package, serial, 1000 * serial as i64 + took, Outcome::Succeeded);
        end.record.attempt.as_mut().unwrap().builder = builder.parse().unwrap();
        entries.extend([Entry::Leased(lease), Entry::Settled(end)]);
    }
    for (serial, ending) in [(20, Ending::Lost), (21, Ending::Released)] {
        let lease = Leased { builder: "slow".parse().unwrap(), ..leased("z", serial, 9000) };
        entries.extend([
            Entry::Leased(lease),
            Entry::AttemptEnded(AttemptEnd::new(id(serial), at(9100), ending)),
        ]);
    }
    let mut bad = settled("z", 22, 9200, failed(FailureKind::Package));
    bad.record.attempt.as_mut().unwrap().builder = "slow".parse().unwrap();
    entries.push(Entry::Settled(bad));
    let views = told(&entries);
    let (totals, builds) = views.builder("slow", at(10_000)).unwrap();
    let expected = api::BuilderTotals {
        attempts: 5,
        succeeded: 2,
        lost: 1,
        failed: vec![(FailureKind::Package, 1)],
        // x: 40 against 10, 20, 20; y: 90 against 30.
        percent_of_others: Some(300),
    };
    assert_eq!(totals, expected);
    assert_eq!(
        builds.iter().map(|build| build.package.clone().unwrap()).collect::<Vec<_>>(),
        ["z", "y", "x"]
    );
    assert_eq!(views.builder("quick", at(10_000)).unwrap().0.percent_of_others, Some(50));
    let month = at(10_000 + 31 * 24 * 3600);
    assert_eq!(views.builder("slow", month).unwrap().0, api::BuilderTotals::default());
    assert_eq!(views.builder("nobody", at(10_000)).unwrap(), (api::BuilderTotals::default(), Vec::new()));
}

#[test]
fn what_can_be_tried_again() {
    let views = told(&[
        Entry::Settled(settled("a", 1, 100, failed(FailureKind::Package))),
        Entry::Settled(settled("f43/a", 2, 110, failed(FailureKind::Package))),
        Entry::Settled(settled("b", 3, 120, failed(FailureKind::Infrastructure))),
        Entry::Settled(settled("good", 4, 130, Outcome::Succeeded)),
        // Twice: the last one counts. And once more, so it waits already.
        Entry::Settled(settled("c", 5, 140, failed(FailureKind::Package))),
        Entry::Queued(srpm("c", 150)),
        Entry::Settled(settled("c", 6, 160, failed(FailureKind::Configuration))),
        Entry::Queued(srpm("b", 170)),
    ]);
    let all = |kind, target: Option<&str>| {
        let target = target.map(|target| target.parse().unwrap());
        views.retryable(kind, target.as_ref()).unwrap()
    };
    assert_eq!(all(None, None), [key("a"), key("f43/a"), key("c")]);
    assert_eq!(all(Some(FailureKind::Package), None), [key("a"), key("f43/a")]);
    assert_eq!(all(Some(FailureKind::Infrastructure), None), []);
    assert_eq!(all(None, Some("f43")), [key("f43/a")]);
}

#[test]
fn events_after_one_and_of_some_kinds() {
    let views = small();
    let events = |since, kinds: &[EventKind], limit| {
        let found = views.events(since, kinds, limit).unwrap();
        let ids = found.events.iter().map(|event: &Event| event.id - 400_000).collect::<Vec<_>>();
        (ids, found.oldest, found.newest)
    };
    let (first, last) = (400_000, 400_015);
    assert_eq!(events(0, &[], 3), (vec![0, 1, 2], first, last));
    assert_eq!(events(400_013, &[], 100), (vec![14, 15], first, last));
    assert_eq!(events(last, &[], 100), (vec![], first, last));
    let ends = [EventKind::Held, EventKind::Failed, EventKind::Held];
    assert_eq!(events(0, &ends, 100), (vec![6, 8], first, last));
    assert_eq!(events(0, &ends, 1), (vec![6], first, last));
    assert_eq!(events(400_006, &ends, 100), (vec![8], first, last));
    assert_eq!(told(&[]).events(0, &[], 10).unwrap(), crate::history::Events::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Page by page it is the same as one big page, of which a person takes what fits.
    #[test]
    fn pages_are_parts_of_the_whole(
        entries in proptest::collection::vec(any_entry(), 0..60),
        limit in 1..4_u32,
        states in proptest::sample::subsequence(State::ALL.to_vec(), 0..3),
        target in proptest::option::of(prop_oneof![Just(None), Just(Some("f43"))]),
        package in proptest::option::of(prop_oneof![Just("a"), Just("b")]),
        builder in proptest::option::of(Just("board-2")),
        failure in proptest::option::of(Just(FailureKind::Package)),
        search in proptest::option::of(prop_oneof![Just("A-1"), Just("B"), Just("%")]),
    ) {
        let views = told(&entries);
        let target = target.map(|target| target.map(|target| target.parse().unwrap()));
        let wanted = BuildFilter {
            states, target, failure, before: None, limit,
            package: package.map(String::from),
            builder: builder.map(String::from),
            search: search.map(String::from),
        };
        let fits = |build: &api::Build| {
            (wanted.states.is_empty() || wanted.states.contains(&build.state))
                && wanted.target.as_ref().is_none_or(|target| *target == build.target)
                && wanted.package.as_ref().is_none_or(|_| build.package == wanted.package)
                && wanted.builder.as_ref().is_none_or(|_| {
                    // Settled by it, not only tried.
                    build.builder == wanted.builder
                        && !matches!(build.state, State::Queued | State::Parked | State::Running | State::Withdrawn)
                })
                && wanted.failure.is_none_or(|_| build.failure == wanted.failure)
                && wanted.search.as_ref().is_none_or(|text| {
                    build.srpm.as_str().to_lowercase().contains(&text.to_lowercase())
                })
        };
        let whole = views.builds(&BuildFilter { limit: 500, ..BuildFilter::default() }).unwrap().items;
        let expected: Vec<_> = whole.into_iter().filter(fits).collect();
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = views.builds(&BuildFilter { before, ..wanted.clone() }).unwrap();
            prop_assert!(page.items.len() <= limit as usize);
            prop_assert!(page.total.is_none_or(|total| total == expected.len() as u64));
            found.extend(page.items);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        prop_assert_eq!(found, expected);
    }
}

/// Asks all that can be asked, and says how long each took.
fn ask_all(views: &mut Views, now: Timestamp) -> Vec<(String, std::time::Duration)> {
    let mut times = Vec::new();
    let mut time = |what: &str, ask: &dyn Fn(&Views)| {
        let mut best = std::time::Duration::MAX;
        for _ in 0..3 {
            let begin = tokio::time::Instant::now();
            views
                .at_one_moment(now, |views| {
                    ask(views);
                    Ok(())
                })
                .unwrap();
            best = best.min(begin.elapsed());
        }
        times.push((what.to_owned(), best));
    };
    let board = || Some("board-3".to_owned());
    let f43 = || "f43".parse().unwrap();
    let filters: [(&str, BuildFilter); 12] = [
        ("all", filter()),
        ("500", BuildFilter { limit: 500, ..filter() }),
        ("page 200", BuildFilter { before: Some(10_000), ..filter() }),
        ("failed, held", BuildFilter { states: vec![State::Failed, State::Held], ..filter() }),
        ("succeeded", BuildFilter { states: vec![State::Succeeded], ..filter() }),
        (
            "failed for f43",
            BuildFilter { states: vec![State::Failed], target: Some(Some(f43())), ..filter() },
        ),
        ("of a target", BuildFilter { target: Some(None), ..filter() }),
        ("of a package", BuildFilter { package: Some("p7".into()), ..filter() }),
        ("of a builder", BuildFilter { builder: board(), ..filter() }),
        ("of a kind", BuildFilter { failure: Some(FailureKind::Package), ..filter() }),
        ("search", BuildFilter { search: Some("P1999".into()), ..filter() }),
        ("search in vain", BuildFilter { search: Some("nothing".into()), ..filter() }),
    ];
    for (what, filter) in filters {
        time(&format!("builds: {what}"), &|views| drop(views.builds(&filter).unwrap()));
    }
    time("settled last", &|views| drop(views.settled_last(&[], 10).unwrap()));
    time("build", &|views| drop(views.build(10_000).unwrap()));
    for what in ["10000", "p7-1-1", "f43/p7-1-1.src.rpm", "p7", "nothing"] {
        time(&format!("find {what}"), &|views| drop(views.find(what).unwrap()));
    }
    time("find an attempt", &|views| drop(views.find(&id(500).to_string()).unwrap()));
    time("attempt", &|views| drop(views.attempt(id(500)).unwrap()));
    time("numbers of 100", &|views| drop(views.numbers(&(1..100).map(id).collect::<Vec<_>>()).unwrap()));
    time("throughput", &|views| assert!(views.throughput(now).is_ok()));
    time("day of targets", &|views| drop(views.day_of_targets(now).unwrap()));
    time("packages", &|views| drop(views.packages(None, 0, 50).unwrap()));
    time("packages, search", &|views| drop(views.packages(Some("19"), 0, 50).unwrap()));
    time("package", &|views| drop(views.package("p7", None).unwrap()));
    time("builder", &|views| drop(views.builder("board-3", now).unwrap()));
    time("retryable", &|views| drop(views.retryable(None, None).unwrap()));
    time("retryable, kind", &|views| drop(views.retryable(Some(FailureKind::Package), None).unwrap()));
    time("events", &|views| drop(views.events(500, &[], 500).unwrap()));
    let rare = [EventKind::Held, EventKind::QueueEmpty];
    time("events, kinds", &|views| drop(views.events(500, &rare, 500).unwrap()));
    time("delivered", &|views| assert!(views.delivered("mail").is_ok()));
    times
}

/// No question goes through all builds, attempts or events, but for those that say so.
#[test]
fn questions_are_answered_by_an_index() {
    let mut views = small();
    ask_all(&mut views, at(300));
    let plans = views.plans();
    assert!(plans.len() > 25, "{}", plans.len());
    for (sql, plan) in plans {
        let goes_through: Vec<_> = plan.split("; ").filter(|step| step.starts_with("SCAN")).collect();
        let may = |step: &&str| {
            let table = step.split(' ').nth(1).unwrap_or_default();
            let is_small = (table == "b" && sql.contains("LIMIT ?")) || table == "wanted";
            let by_name = table == "builds" && sql.contains("LIKE");
            // By number from the newest one, as many as a page has; or counted by an index.
            let in_order = table == "builds" && sql.contains("WHERE id < ?");
            let counted = sql == "SELECT count(*) FROM builds WHERE 1" && step.contains("COVERING INDEX");
            is_small || by_name || in_order || counted
        };
        let wrong: Vec<_> = goes_through.iter().filter(|step| !may(step)).collect();
        assert!(wrong.is_empty(), "{sql}\n{plan}");
        let sorts = plan.contains("USE TEMP B-TREE FOR ORDER BY");
        let short = sql.contains("attempts a WHERE a.build")
            || sql.contains("f.name")
            || sql.contains("(?2 IS NULL")
            || sql.contains("wanted.key");
        assert!(!sorts || short, "{sql}\n{plan}");
    }
}

/// 20,000 builds and 100,000 attempts in 30 days: `cargo test -p moji-server --lib views_at_full_size -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn views_at_full_size() {
    let farm = Farm::new();
    let mut store = SqliteStore::new_at(schema::open(&farm.path()).unwrap().0, at(0));
    let (mut serial, mut time, mut entries) = (0, 0, Vec::new());
    let begin = tokio::time::Instant::now();
    for n in 0..20_000_u64 {
        let name = format!("{}p{}", ["", "f43/", "f44/"][n as usize % 3], n % 2500);
        for last in [false, false, false, false, true] {
            serial += 1;
            time += 25;
            let builder: crate::BuilderId = format!("board-{}", serial % 7).parse().unwrap();
            entries.push(Entry::Leased(Leased { builder: builder.clone(), ..leased(&name, serial, time) }));
            if !last {
                entries.push(Entry::AttemptEnded(AttemptEnd::new(id(serial), at(time + 1), Ending::Lost)));
                continue;
            }
            let outcome = if n % 10 == 0 { failed(FailureKind::Package) } else { Outcome::Succeeded };
            let mut end = settled(&name, serial, time + 15 + (serial % 5) as i64, outcome);
            end.record.attempt.as_mut().unwrap().builder = builder;
            entries.push(Entry::Settled(end));
        }
        if n % 50 == 49 {
            store.apply_at(&entries, at(time)).unwrap();
            entries.clear();
        }
    }
    println!("written in {:?}", begin.elapsed());
    drop(store);
    let mut views = Views::new(schema::open_to_ask(&farm.path()).unwrap());
    for (what, took) in ask_all(&mut views, at(time)) {
        println!("{:8.2} ms  {what}", took.as_secs_f64() * 1000.0);
    }
    for (sql, plan) in views.plans() {
        println!("{sql}\n    {plan}");
    }
    let begin = tokio::time::Instant::now();
    schema::open_to_ask(&farm.path()).unwrap();
    println!("{:8.2} ms  open", begin.elapsed().as_secs_f64() * 1000.0);
}
