//! A queue that converges by itself: many SRPMs that need each other, in the worst order, for two targets.
//!
//! `MOJI_PACKAGES` says how many builds; a third of them are the same SRPMs once more, linked for the second target.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_proto::FailureKind;
use moji_server::report::{Missing, ProviderState, Report, Standing, TargetReport};
use moji_tests::support::processes::{DEADLINE, Farm, let_pass, names_in, now, wait_until};

use model::{Fate, Package};

const TARGETS: [&str; 2] = ["here", "there"];
const SEED: u64 = 20_260_517;
/// Queues of this size are not the usual wait.
const LONG: Duration = DEADLINE.saturating_mul(8);

fn builds() -> usize {
    std::env::var("MOJI_PACKAGES").map_or(150, |number| number.parse().unwrap())
}

fn of_target<'a>(packages: &'a [Package], target: &str) -> Vec<&'a Package> {
    packages.iter().filter(|package| package.is_linked || target == TARGETS[0]).collect()
}

/// Makes the SRPMs of the packages, outside of SOURCE.
fn make(farm: &Farm, packages: &[Package]) -> Vec<PathBuf> {
    let write = |package: &Package| {
        let path = farm.path(format!("specs/{}.spec", package.name));
        fs::write(&path, package.spec()).unwrap();
        path
    };
    let specs: Vec<_> = packages.iter().map(write).collect();
    farm.make_srpms(&specs, &[])
}

/// Queues them for their targets, what others need last, so that the server never knows who provides what.
fn queue_reversed(farm: &Farm, packages: &[Package], srpms: &[PathBuf]) {
    for (package, srpm) in packages.iter().zip(srpms).rev() {
        for target in TARGETS.iter().filter(|target| package.is_linked || **target == TARGETS[0]) {
            fs::hard_link(srpm, farm.source(target).join(package.srpm())).unwrap();
        }
        fs::remove_file(srpm).unwrap();
    }
}

/// A farm with four builders and two targets, and the SRPMs that are to come.
fn farm(packages: &[Package]) -> (Farm, Vec<PathBuf>) {
    let mut farm = Farm::new();
    farm.write_config("there");
    farm.start_server_with_repo(&[]);
    let srpms = make(&farm, packages);
    TARGETS.iter().for_each(|target| fs::create_dir(farm.source(target)).unwrap());
    start_builders(&mut farm);
    (farm, srpms)
}

fn start_builders(farm: &mut Farm) {
    let server = farm.address().to_string();
    let there = format!("there={}", farm.path("configs/there.cfg").display());
    for (name, target) in [("b1", "here"), ("b2", "here"), ("b3", "there"), ("b4", "here")] {
        // The last one builds for both.
        let arguments: &[&str] = if name == "b4" { &["--target", &there] } else { &[] };
        let client = farm.client_command_for(name, target, &server, arguments);
        farm.run_client(name, client);
    }
}

/// Waits until the server has written a report after which nothing moves.
fn wait_report(farm: &Farm, srpms: usize) -> Report {
    let begin = now();
    loop {
        let report = fs::read(farm.repo("report.json"));
        let report = report.ok().map(|json| serde_json::from_slice::<Report>(&json).unwrap());
        if let Some(report) = report.filter(|report| report.totals.counts.srpms() == srpms as u64) {
            return report;
        }
        assert!(begin.elapsed() < LONG, "no report of {srpms} SRPMs");
        let_pass(Duration::from_millis(50));
    }
}

/// The package of an SRPM's name.
fn package_of(srpm: &str) -> &str {
    srpm.rsplitn(3, '-').nth(2).unwrap()
}

/// Where an SRPM was given out: how often each.
fn attempts(lines: &[String]) -> BTreeMap<String, usize> {
    let mut attempts = BTreeMap::new();
    for (before, _) in lines.iter().filter_map(|line| line.split_once(" goes to ")) {
        *attempts.entry(before.rsplit(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    attempts
}

/// No SRPM was tried more often than what it lacked came, and once.
fn check_attempts(packages: &[Package], lines: &[String]) {
    let attempts = attempts(lines);
    for target in TARGETS {
        for package in of_target(packages, target) {
            let srpm = format!("{target}/{}", package.srpm());
            let tried = attempts.get(&srpm).copied().unwrap_or_default();
            let line = format!(" {srpm} is queued again: ");
            // Or while the attempt went on.
            let meanwhile = format!(" {srpm} lacked ");
            let came = lines.iter().filter(|said| {
                said.contains(&line) || (said.contains(&meanwhile) && said.ends_with("; it is queued again"))
            });
            let came = came.count();
            assert!(
                tried <= 1 + came,
                "{srpm} was tried {tried} times, and what it lacked came {came} times"
            );
            let can_lack = model::can_lack(package, packages).len();
            assert!(came <= can_lack, "{srpm}: what it lacked came {came} times, of {can_lack}");
        }
    }
}

fn check_report(farm: &Farm, packages: &[Package], report: &Report) {
    assert_eq!(report.standing, Standing::Stuck);
    for target in TARGETS {
        let told = report.targets.iter().find(|told| is_of(told, target)).unwrap();
        check_target(farm, packages, told, target);
    }
    let cycles = report.targets.iter().flat_map(|target| &target.cycles);
    let edges = cycles.map(|cycle| {
        let edges = cycle.edges.iter().map(|edge| (edge.package.clone(), edge.requirement.clone()));
        edges.collect::<Vec<_>>()
    });
    assert_eq!(edges.collect::<Vec<_>>(), [ring()]);
}

fn is_of(report: &TargetReport, target: &str) -> bool {
    report.target.as_ref().is_some_and(|name| name.as_str() == target)
}

fn names<'a>(srpms: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    srpms.map(|srpm| package_of(srpm).to_owned()).collect()
}

/// What the report says, in the words of the model.
fn told(report: &TargetReport) -> Fate {
    let texts = |missing: &[Missing]| missing.iter().map(|one| one.requirement.clone()).collect();
    let parked = report.parked.iter().map(|parked| (parked.srpm.as_str(), texts(&parked.missing)));
    let waiting = report.waiting.iter().map(|waiting| (waiting.srpm.as_str(), texts(&waiting.needs)));
    Fate {
        built: names(report.built.iter().map(|built| built.srpm.as_str())),
        failed: names(report.failed.iter().map(|failed| failed.srpm.as_str())),
        lacking: parked.chain(waiting).map(|(srpm, texts)| (package_of(srpm).to_owned(), texts)).collect(),
    }
}

/// Each result says which generation it was built with, and Mock was given that and no other.
fn check_generations(farm: &Farm, target: &str, nvr: &str) {
    let below = format!("{target}/{nvr}");
    let attempt = farm.build_record(&below).attempt.unwrap();
    let log = fs::read_to_string(farm.repo(&below).join("mock.log")).unwrap();
    let Some(generation) = attempt.repository.map(|used| used.generation) else {
        // Nothing was published yet.
        assert!(!log.contains("--addrepo"), "{below}: {log}");
        return;
    };
    let first = log.lines().next().unwrap_or_default();
    let wanted = format!("{target}/generations/{generation}/");
    assert!(first.contains(&wanted), "{below}: {wanted} is not in {first:?}");
    assert_eq!(log.matches("/generations/").count(), log.matches(&wanted).count(), "{below}: {log}");
}

/// Who would provide what is missing.
fn check_providers(packages: &[Package], fate: &Fate, missing: &[(&str, &Missing)]) {
    let state_of = |name: &str| {
        if fate.built.contains(name) {
            ProviderState::Built
        } else if fate.failed.contains(name) {
            ProviderState::Failed
        } else {
            ProviderState::Parked
        }
    };
    for (srpm, missing) in missing {
        let package = packages.iter().find(|package| package.name == package_of(srpm)).unwrap();
        let need = package.needs.iter().find(|need| need.text == missing.requirement).unwrap();
        let known = need.known_of.iter().filter(|name| {
            fate.built.contains(*name) || fate.failed.contains(*name) || fate.lacking.contains_key(*name)
        });
        let wanted: Vec<_> = known.map(|name| (name.clone(), state_of(name))).collect();
        let given: Vec<_> = missing
            .providers
            .iter()
            .map(|provider| (package_of(provider.srpm.as_str()).to_owned(), provider.state))
            .collect();
        assert_eq!(given, wanted, "{srpm} lacks {}", missing.requirement);
    }
}

fn check_target(farm: &Farm, packages: &[Package], report: &TargetReport, target: &str) {
    let of_target = of_target(packages, target);
    let fate = model::fate(&of_target);
    assert_eq!(told(report), fate, "{target}");
    for package in &of_target {
        let place = match (fate.built.contains(&package.name), fate.failed.contains(&package.name)) {
            (false, false) => "SOURCE",
            _ => "FINISHED",
        };
        assert_eq!(farm.where_is(&format!("{target}/{}", package.srpm())), [place]);
        if fate.built.contains(&package.name) {
            check_generations(farm, target, &package.nvr());
        }
    }
    for failed in &report.failed {
        let package = packages.iter().find(|package| package.srpm() == failed.srpm.as_str()).unwrap();
        assert_eq!(failed.kind, Some(FailureKind::Package));
        let excerpt = failed.excerpt.as_ref().unwrap();
        assert!(excerpt.lines.iter().any(|line| line.contains(&package.error_line())), "{excerpt:?}");
    }
    let parked =
        report.parked.iter().flat_map(|one| one.missing.iter().map(|miss| (one.srpm.as_str(), miss)));
    check_providers(packages, &fate, &parked.collect::<Vec<_>>());
}

fn ring() -> Vec<(String, String)> {
    let edges = [("x", "moji-t-ring-y"), ("y", "moji-t-ring-z >= 1"), ("z", "moji-t-ring-x")];
    edges.map(|(name, needs)| (format!("moji-t-ring-{name}-1-1"), needs.to_owned())).to_vec()
}

fn generations(repo: &Path) -> usize {
    names_in(&repo.join("generations")).iter().filter(|name| name.parse::<u64>().is_ok()).count()
}

#[test]
fn a_queue_in_the_worst_order_converges_and_the_report_names_the_rest() {
    let packages = model::packages(builds(), 12, SEED);
    let (farm, srpms) = farm(&packages);
    let begin = now();
    queue_reversed(&farm, &packages, &srpms);
    let report = wait_report(&farm, builds());
    let wall = begin.elapsed();

    let attempts = attempts(&farm.server().lines());
    let (sum, worst) = (attempts.values().sum::<usize>(), attempts.values().max().unwrap());
    let text = fs::read_to_string(farm.repo("report.txt")).unwrap();
    println!("{text}");
    println!(
        "{} builds, {sum} attempts: {:.2} each, {worst} at most; {wall:.1?} and a critical path of {} s, generations: {:?}",
        builds(),
        sum as f64 / builds() as f64,
        report.totals.critical_path_seconds,
        TARGETS.map(|target| generations(&farm.repo(target))),
    );
    assert_eq!(report.totals.attempts, sum as u64);
    check_report(&farm, &packages, &report);
    check_attempts(&packages, &farm.server().lines());
}

#[test]
fn a_server_that_dies_in_the_middle_tries_nothing_more_often_and_its_report_is_whole() {
    const BUILDS: usize = 45;
    let packages = model::packages(BUILDS, 4, SEED);
    let (mut farm, srpms) = farm(&packages);
    queue_reversed(&farm, &packages, &srpms);
    // Things are built and not in the metadata yet, parked, being built, and queued.
    wait_until("a few builds, and a few that are parked", || {
        farm.server().count(" is parked until ") >= 2 && farm.server().count(" succeeded: ") >= 16
    });
    farm.server.as_mut().unwrap().kill();
    farm.server().wait_log();
    let mut lines = farm.server().lines();
    assert!(attempts(&lines).len() < BUILDS, "too late to be the middle");
    farm.start_server_with_repo(&[]);
    let report = wait_report(&farm, BUILDS);
    lines.extend(farm.server().lines());
    assert_eq!(report.totals.attempts, attempts(&lines).values().sum::<usize>() as u64);
    check_report(&farm, &packages, &report);
    check_attempts(&packages, &lines);
}
