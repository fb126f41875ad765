//! Tables, and what must hold whatever was learnt.

use proptest::prelude::*;

use super::*;

fn class(text: &str) -> BuilderClass {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample(package: &str, on: &str, size: u64, seconds: u64) -> Sample {
    Sample { package: package.to_owned(), class: class(on), size: Some(size), took: secs(seconds) }
}

fn learnt(samples: &[(&str, &str, u64, u64)]) -> Estimates {
    Estimates::from_history(samples.iter().map(|(name, on, size, took)| sample(name, on, *size, *took)))
}

fn guess(estimates: &Estimates, package: &str, on: &str, size: u64) -> (u64, Basis) {
    let expected = estimates.expect(package, Some(&class(on)), size);
    (expected.time.as_secs(), expected.basis)
}

#[test]
fn a_class_is_an_architecture_and_about_so_many_cores() {
    let table = [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 4), (6, 8), (11, 8), (12, 16), (96, 128)];
    for (cores, about) in table {
        assert_eq!(BuilderClass::new("x86_64", cores).to_string(), format!("x86_64/{about}"), "{cores}");
    }
    assert_eq!(BuilderClass::new("a\u{1b}[31m/../b", u32::MAX).to_string(), "a31mb/1024");
    assert_eq!(BuilderClass::unknown(), class("unknown/1"));
    for text in ["", "aarch64", "aarch64/3", "aarch64/x", "a b/4", "/4", "aarch64/4/4"] {
        assert!(text.parse::<BuilderClass>().is_err(), "{text:?}");
    }
    assert_eq!(serde_json::to_string(&class("aarch64/4")).unwrap(), r#""aarch64/4""#);
}

#[test]
fn what_is_known_best_decides() {
    let nothing = Estimates::default();
    assert_eq!(guess(&nothing, "gcc", "aarch64/4", 1 << 20), (60, Basis::Default));
    let estimates = learnt(&[
        // Twice as long on the small board.
        ("bash", "aarch64/4", 10_000_000, 100),
        ("bash", "x86_64/8", 10_000_000, 50),
        ("tar", "aarch64/4", 4_000_000, 60),
        ("tar", "x86_64/8", 4_000_000, 30),
        ("gcc", "x86_64/8", 90_000_000, 1000),
    ]);
    assert_eq!(guess(&estimates, "bash", "aarch64/4", 0), (100, Basis::History));
    assert_eq!(guess(&estimates, "gcc", "aarch64/4", 0), (2000, Basis::OtherClass));
    // Nothing compares these classes.
    assert_eq!(guess(&estimates, "gcc", "s390x/2", 0), (1000, Basis::OtherClass));
    assert_eq!(guess(&estimates, "zlib", "aarch64/4", 0), (60, Basis::Default));
    let of = |size| guess(&estimates, "zlib", "aarch64/4", size).0;
    assert!(of(100) < of(1_000_000) && of(1_000_000) < of(100_000_000), "{}", of(1_000_000));
    // Four times the size, twice the time.
    assert_eq!((of(40_000_000) as f64 / of(10_000_000) as f64).round() as u64, 2);
    assert_eq!(estimates.expect("gcc", None, 0).time, secs(1000));
}

#[test]
fn the_median_of_the_last_five_attempts() {
    let took = [5000, 10, 11, 12, 900, 13];
    let estimates = Estimates::from_history(took.map(|took| sample("a", "x86_64/4", 0, took)));
    assert_eq!(guess(&estimates, "a", "x86_64/4", 0), (12, Basis::History));
    let two = learnt(&[("a", "x86_64/4", 0, 10), ("a", "x86_64/4", 0, 20)]);
    assert_eq!(guess(&two, "a", "x86_64/4", 0), (15, Basis::History));
}

#[test]
fn the_spread_is_that_of_the_last_guesses() {
    let cold = learnt(&[("a", "x86_64/4", 0, 100)]).expect("a", Some(&class("x86_64/4")), 0);
    assert_eq!((cold.low, cold.high), (secs(80), secs(130)));
    // Each second attempt is exactly as long as the first one.
    let mut steady = Estimates::default();
    for n in 0..20 {
        for _ in 0..2 {
            steady.learn(&sample(&format!("p{n}"), "x86_64/4", 0, 100));
        }
    }
    let sure = steady.expect("p3", Some(&class("x86_64/4")), 0);
    assert_eq!((sure.low, sure.time, sure.high), (secs(100), secs(100), secs(100)));
    // Sizes say little here: of five, two take a tenth of the middle, two ten times as long.
    let mut wild = Estimates::default();
    for n in 0..60 {
        let took = [10, 10, 100, 1000, 1000][n % 5];
        wild.learn(&sample(&format!("p{n}"), "x86_64/4", 1_000_000, took));
    }
    let unsure = wild.expect("new", Some(&class("x86_64/4")), 1_000_000);
    assert_eq!(unsure.basis, Basis::Size);
    assert!(unsure.low < unsure.time / 2 && unsure.high > unsure.time * 2, "{unsure:?}");
}

#[test]
fn what_was_learnt_longest_ago_goes() {
    let mut estimates = Estimates::default();
    for n in 0..=PACKAGES_MAX {
        estimates.learn(&sample(&format!("p{n}"), "x86_64/4", 0, 7));
    }
    assert_eq!(estimates.packages.len(), PACKAGES_MAX);
    assert_eq!(guess(&estimates, "p0", "x86_64/4", 0).1, Basis::Default);
    assert_eq!(guess(&estimates, "p1", "x86_64/4", 0), (7, Basis::History));
    let mut estimates = Estimates::default();
    for n in 0..=CLASSES_MAX {
        estimates.learn(&sample("all", &format!("arch{n}/4"), 1000, 7));
    }
    estimates.learn(&sample("one", "arch0/4", 1000, 7));
    assert_eq!(estimates.classes.len(), CLASSES_MAX);
    assert_eq!(guess(&estimates, "all", "arch1/4", 0).1, Basis::OtherClass);
    assert_eq!(guess(&estimates, "one", "arch0/4", 0).1, Basis::History);
    assert!(estimates.ratios.len() < CLASSES_MAX * CLASSES_MAX);
    assert!(estimates.pace.len() <= CLASSES_MAX + 1);
}

fn expected(low: u64, time: u64, high: u64) -> Expectation {
    Expectation { time: secs(time), low: secs(low), high: secs(high), basis: Basis::Size }
}

#[test]
fn when_the_queue_is_empty() {
    let eta = |remaining: &[Expectation], slots, path| {
        let Eta { low, expected, high } = eta(remaining.iter().copied(), slots, secs(path));
        (low.as_secs(), expected.as_secs(), high.as_secs())
    };
    assert_eq!(eta(&[], 4, 0), (0, 0, 0));
    // One build: no number of slots helps.
    assert_eq!(eta(&[expected(50, 100, 300)], 4, 0), (50, 100, 300));
    // A hundred of them, each off by half: together by a twentieth.
    let hundred = [expected(50, 100, 150); 100];
    assert_eq!(eta(&hundred, 10, 0), (950, 1000, 1050));
    assert_eq!(eta(&hundred, 0, 0), (9500, 10_000, 10_500), "no slot counts as one");
    assert_eq!(eta(&hundred, 10, 5000), (5000, 5000, 5000));
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let classes = prop_oneof![Just("x86_64/4"), Just("aarch64/4"), Just("aarch64/8")];
    let size = prop_oneof![Just(None), any::<u64>().prop_map(Some), (1..10_000_000_u64).prop_map(Some)];
    let took = prop_oneof![any::<u64>(), 0..10_000_u64].prop_map(Duration::from_millis);
    (0..4_u8, classes, size, took).prop_map(|(package, on, size, took)| Sample {
        package: format!("p{package}"),
        class: class(on),
        size,
        took,
    })
}

fn any_expectation() -> impl Strategy<Value = Expectation> {
    (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c)| {
        let mut times = [a, b, c];
        times.sort_unstable();
        expected(times[0].into(), times[1].into(), times[2].into())
    })
}

proptest! {
    /// Whatever was learnt: an answer, in order, the same each time; and a larger SRPM of which no more is
    /// known is not expected to take less.
    #[test]
    fn there_is_always_an_answer(
        samples in proptest::collection::vec(any_sample(), 0..40),
        sizes in (any::<u64>(), any::<u64>()),
        package in 0..6_u8,
    ) {
        let estimates = Estimates::from_history(samples.clone());
        let again = Estimates::from_history(samples);
        let package = format!("p{package}");
        for on in [None, Some(class("x86_64/4")), Some(class("s390x/1"))] {
            let first = estimates.expect(&package, on.as_ref(), sizes.0);
            prop_assert!(first.low <= first.time && first.time <= first.high && first.time > Duration::ZERO);
            prop_assert_eq!(first, again.expect(&package, on.as_ref(), sizes.0));
            let (small, large) = (sizes.0.min(sizes.1).max(1), sizes.0.max(sizes.1));
            let (small, large) =
                (estimates.expect("new", on.as_ref(), small), estimates.expect("new", on.as_ref(), large.max(1)));
            prop_assert!(small.time <= large.time);
        }
    }

    /// More work is not done sooner, more slots do not take longer, and a longer path is not shorter.
    #[test]
    fn an_eta_is_monotone(
        remaining in proptest::collection::vec(any_expectation(), 0..30),
        more in any_expectation(),
        slots in 0..50_usize,
        path in any::<u32>(),
    ) {
        let path = secs(path.into());
        let all = |remaining: &[Expectation], slots, path| eta(remaining.iter().copied(), slots, path);
        let one = all(&remaining, slots, path);
        prop_assert!(one.low <= one.expected && one.expected <= one.high && one.expected >= path);
        let mut longer = remaining.clone();
        longer.push(more);
        for (lesser, greater) in [
            (one, all(&longer, slots, path)),
            (all(&remaining, slots + 1, path), one),
            (one, all(&remaining, slots, path + secs(1))),
        ] {
            prop_assert!(lesser.expected <= greater.expected);
            prop_assert!(lesser.high <= greater.high);
            // A square root is rounded.
            prop_assert!(lesser.low <= greater.low + Duration::from_millis(1));
        }
    }
}
