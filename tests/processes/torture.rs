//! Clients and servers are killed at random, and every SRPM is built all the same.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use moji_proto::Outcome;
use moji_tests::support::processes::{DEADLINE, Farm, Program, let_pass, names_in, now, tiny};
use moji_tests::support::repository::wait_for_packages;

const CLIENTS: [(&str, &str); 3] = [("t1", "3"), ("t2", "3"), ("t3", "2")];

const OPTIONS: [&str; 2] = ["--grace", "500ms"];

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

/// Adds what this server has handed out.
fn count_attempts(farm: &Farm, attempts: &mut BTreeMap<String, u32>) {
    for (srpm, _) in farm.hand_outs() {
        *attempts.entry(srpm).or_default() += 1;
    }
}

#[test]
fn every_srpm_is_built_although_clients_and_servers_are_killed() {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = setting("MOJI_SEED", time.as_nanos() as u64);
    let number = setting("MOJI_SRPMS", 30);
    println!("MOJI_SEED={seed} MOJI_SRPMS={number}");
    let mut random = Random(seed | 1);

    let mut farm = Farm::start(&OPTIONS);
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

    let (mut client_kills, mut server_kills) = (0, 0);
    let mut attempts: BTreeMap<String, u32> = BTreeMap::new();
    let done = |farm: &Farm| packages.iter().filter(|(name, _)| farm.finished(tiny(name)).exists()).count();
    let (mut progress, mut since, mut kills_in_a_row) = (0, now(), 0);
    while done(&farm) < packages.len() {
        let_pass(Duration::from_millis(100 + random.below(900)));
        // Without anything finished in between not more than a few, and the last ones are built in
        // peace: or this could go on for ever on a slow machine.
        if kills_in_a_row < 4 && done(&farm) + 4 < packages.len() {
            kills_in_a_row += 1;
            if random.below(8) == 0 {
                count_attempts(&farm, &mut attempts);
                farm.server.as_mut().unwrap().kill();
                server_kills += 1;
                farm.start_server(&OPTIONS);
            } else {
                let (name, slots) = CLIENTS[random.below(3) as usize];
                farm.client_mut(name).kill();
                client_kills += 1;
                let_pass(Duration::from_millis(random.below(200)));
                // Not waited for: the next one to be killed may be one that has just begun.
                let client = Program::start(name, farm.client_command(name, &["--slots", slots]));
                farm.clients.insert(name.to_owned(), client);
            }
        }
        if done(&farm) > progress {
            (progress, since, kills_in_a_row) = (done(&farm), now(), 0);
        }
        assert!(since.elapsed() < DEADLINE, "nothing was finished for {DEADLINE:?}: {progress} are");
    }
    count_attempts(&farm, &mut attempts);
    let took = begin.elapsed();

    for (name, _) in &packages {
        assert_eq!(farm.where_is(&tiny(name)), ["FINISHED"]);
        let folder = format!("{name}-1-1");
        assert_eq!(farm.build_record(&folder).outcome, Outcome::Succeeded, "{name}");
        let besides = names_in(&farm.repo(&folder)).into_iter().find(|name| name.starts_with("attempt-"));
        assert!(besides.is_none(), "{name} was published twice: {besides:?}");
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

    println!(
        "{number} SRPMs, {client_kills} clients and {server_kills} servers killed, {} attempts (at most {} of one SRPM), {:.1} s",
        attempts.values().sum::<u32>(),
        attempts.values().max().unwrap(),
        took.as_secs_f64()
    );
}
