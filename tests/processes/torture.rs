//! Clients are killed at random, and every SRPM is built all the same.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use moji_proto::Outcome;
use moji_tests::support::processes::{DEADLINE, Farm, let_pass, names_in, now, tiny};
use moji_tests::support::repository::wait_for_packages;

const CLIENTS: [(&str, &str); 3] = [("t1", "3"), ("t2", "3"), ("t3", "2")];

/// A small generator of random numbers (xorshift): the seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn every_srpm_is_built_once_although_clients_are_killed() {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = setting("MOJI_SEED", time.as_nanos() as u64);
    let number = setting("MOJI_SRPMS", 30);
    println!("MOJI_SEED={seed} MOJI_SRPMS={number}");
    let mut random = Random(seed | 1);

    let mut farm = Farm::start(&["--grace", "500ms"]);
    for (name, slots) in CLIENTS {
        farm.start_client(name, &["--slots", slots]);
    }
    let packages: Vec<_> = (0..number)
        .map(|n| (format!("torture{n}"), format!("sleep {}.{}", random.below(2), random.below(10))))
        .collect();
    let packages: Vec<_> = packages.iter().map(|(name, script)| (name.as_str(), script.as_str())).collect();
    let begin = now();
    for srpm in farm.tiny_srpms(&packages) {
        farm.queue(&srpm);
    }

    let mut kills = 0;
    let done = |farm: &Farm| packages.iter().filter(|(name, _)| farm.finished(tiny(name)).exists()).count();
    let (mut progress, mut since) = (0, now());
    while done(&farm) < packages.len() {
        let_pass(Duration::from_millis(300 + random.below(1500)));
        let (name, slots) = CLIENTS[random.below(3) as usize];
        // The last few are built in peace, or this could go on for ever.
        if done(&farm) + 4 < packages.len() {
            farm.client_mut(name).kill();
            kills += 1;
            let_pass(Duration::from_millis(random.below(300)));
            farm.start_client(name, &["--slots", slots]);
        }
        if done(&farm) > progress {
            (progress, since) = (done(&farm), now());
        }
        assert!(since.elapsed() < DEADLINE, "nothing was finished for {DEADLINE:?}: {progress} are");
    }
    let took = begin.elapsed();

    for (name, _) in &packages {
        assert_eq!(farm.where_is(&tiny(name)), ["FINISHED"]);
        let folder = format!("{name}-1-1");
        assert_eq!(farm.build_record(&folder).outcome, Outcome::Succeeded, "{name}");
        let besides = names_in(&farm.repo(&folder)).into_iter().find(|name| name.starts_with("attempt-"));
        assert_eq!(besides, None, "{name} was published twice");
    }
    let expected: Vec<_> = packages
        .iter()
        .flat_map(|(name, _)| ["noarch", "src"].map(|arch| format!("{name}-1-1/{name}-1-1.t3.{arch}.rpm")))
        .collect();
    wait_for_packages(&farm.repo(""), &expected);
    assert!(names_in(&farm.source("")).is_empty());
    assert_eq!(names_in(&farm.working("")), [".moji"]);
    assert!(names_in(&farm.working(".moji/attempts")).is_empty());
    farm.wait_no_build_processes();

    let mut attempts: BTreeMap<String, u32> = BTreeMap::new();
    for (srpm, _) in farm.hand_outs() {
        *attempts.entry(srpm).or_default() += 1;
    }
    println!(
        "{number} SRPMs, {kills} clients killed, {} attempts (at most {} of one SRPM), {:.1} s",
        attempts.values().sum::<u32>(),
        attempts.values().max().unwrap(),
        took.as_secs_f64()
    );
}
