//! Tier 2: a real server and real clients on a simulated network and a simulated clock. A seed
//! decides everything: packages, build times, outcomes, crashes, partitions, connections that are
//! held, slow links. Liars and latecomers join in.
//!
//! `MOJI_SEEDS` is how many seeds each test runs, `MOJI_SEED` runs one seed only: a failing seed is
//! printed with the command that runs it again. The story of a seed is the same each time but for
//! the order of what happens in the same instant: file work is done by real threads.
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]

mod farm;
mod hostile;
mod plan;
mod properties;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;

/// Seeds of each test when nobody says otherwise.
const SEEDS: u64 = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs seeds of one kind of story; the first that fails fails the test.
fn run_seeds(test: &str, first: u64, plan: fn(u64) -> Plan) {
    if std::env::var_os("MOJI_SEED").is_some() && std::env::var_os("RUST_LOG").is_some() {
        moji_server::log::start();
    }
    let seeds = match number("MOJI_SEED") {
        Some(seed) => seed..=seed,
        None => first..=first + number("MOJI_SEEDS").unwrap_or(SEEDS) - 1,
    };
    for seed in seeds {
        let ended = catch_unwind(AssertUnwindSafe(|| farm::run(&plan(seed))));
        let reason = match ended {
            Ok(Ok(_)) => continue,
            Ok(Err(reason)) => format!("{reason:#}"),
            Err(_) => "it panicked, see above".into(),
        };
        let replay = format!("MOJI_SEED={seed} cargo test -p moji-tests --test simulation {test}");
        assert!(reason.is_empty(), "seed {seed}: {reason}\nonce more: {replay}");
    }
}

#[test]
fn calm() {
    run_seeds("calm", 1_000, Plan::calm);
}

#[test]
fn crashes() {
    run_seeds("crashes", 2_000, Plan::crashes);
}

#[test]
fn bad_network() {
    run_seeds("bad_network", 3_000, Plan::bad_network);
}

#[test]
fn everything_at_once() {
    run_seeds("everything_at_once", 4_000, Plan::everything);
}

#[test]
fn everything_at_once_and_hostile_peers() {
    run_seeds("everything_at_once_and_hostile_peers", 5_000, Plan::hostile);
}

#[test]
fn short_faults() {
    run_seeds("short_faults", 6_000, Plan::short_faults);
}

#[test]
fn short_crashes() {
    run_seeds("short_crashes", 7_000, Plan::short_crashes);
}

/// A seed tells the same story each time, as far as it can be seen from outside.
#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in [1_001, 3_002, 4_003] {
        let plan = if seed < 2_000 { Plan::calm(seed) } else { Plan::everything(seed) };
        let told = [farm::run(&plan), farm::run(&plan)].map(|story| story.expect("it failed"));
        let [first, second] = &told;
        let differs = first.iter().zip(second).position(|(a, b)| a != b);
        let differs = differs.map(|at| (at, &first[at], &second[at]));
        assert!(first == second, "seed {seed}: {differs:?} of {} and {}", first.len(), second.len());
    }
}
