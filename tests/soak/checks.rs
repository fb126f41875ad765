//! What must be so when all faults have ended, and what is told about the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use moji_server::record::BuildRecord;
use moji_tests::support::processes::names_in;
use moji_tests::support::published::check_results;
use moji_tests::support::repository::wait_for_packages;

use crate::faults::Fault;
use crate::runs::{self, Run};
use crate::soak::Soak;

/// Further runs that are told one by one; of more, only how many there are of each reason.
const TOLD: usize = 40;

pub(crate) struct Report {
    seed: u64,
    faults: BTreeMap<Fault, u64>,
    srpms: usize,
    withdrawn: usize,
    held: Vec<String>,
    succeeded: usize,
    failed: usize,
    attempts: usize,
    runs: usize,
    lost: Vec<String>,
    twice: Vec<String>,
    rebuilt: Vec<String>,
    /// For each further run of an SRPM: which, and why.
    again: Vec<(String, String)>,
    pub(crate) problems: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.faults.values().sum();
        writeln!(f, "seed {}: {faults} faults", self.seed)?;
        for fault in Fault::ALL {
            let count = self.faults.get(&fault).copied().unwrap_or_default();
            writeln!(f, "  {count:4} × {}", fault.name())?;
        }
        let Self { srpms, withdrawn, succeeded, failed, attempts, runs, .. } = self;
        writeln!(f, "{srpms} SRPMs, {withdrawn} withdrawn, {succeeded} succeeded, {failed} failed")?;
        writeln!(f, "{attempts} attempts, {runs} runs of Mock")?;
        writeln!(f, "held and tried again by a person {} {:?}", self.held.len(), self.held)?;
        writeln!(f, "lost {} {:?}", self.lost.len(), self.lost)?;
        writeln!(f, "accepted twice {} {:?}", self.twice.len(), self.twice)?;
        writeln!(f, "finished builds that were rebuilt {}", self.rebuilt.len())?;
        self.rebuilt.iter().take(TOLD).try_for_each(|text| writeln!(f, "  {text}"))?;
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, reason) in &self.again {
            *reasons.entry(reason.split(": ").next().unwrap_or_default()).or_default() += 1;
        }
        writeln!(f, "run again {}", self.again.len())?;
        for (reason, count) in reasons {
            writeln!(f, "  {count:4} × {reason}")?;
        }
        self.again.iter().take(TOLD).try_for_each(|(srpm, reason)| writeln!(f, "  {srpm}: {reason}"))
    }
}

/// Stops everything and looks at what there is.
pub(crate) fn check(soak: &mut Soak) -> Report {
    let mut problems = std::mem::take(&mut soak.problems);
    let lost = lost(soak);
    let results = check_results(&soak.farm.repo("")).unwrap_or_else(|error| {
        problems.push(error);
        BTreeMap::new()
    });
    problems.extend(wrong_results(soak, &results));
    let rpms = results.iter().flat_map(|(folder, record)| {
        let rpms = record.artifacts.iter().filter(|artifact| artifact.name.is_rpm());
        rpms.map(move |artifact| format!("{folder}/{}", artifact.name))
    });
    wait_for_packages(&soak.farm.repo(""), &rpms.collect::<Vec<_>>());
    soak.stop();
    problems.append(&mut soak.problems);
    problems.extend(leftovers(soak));
    problems.extend(fsck(soak));
    let server = soak.logs.get("server").cloned().unwrap_or_default();
    let handed_out: Vec<_> = server.iter().filter_map(|line| line.split_once(" goes to ")).collect();
    let ids: BTreeSet<_> = handed_out.iter().filter_map(|(_, to)| to.split(" as ").nth(1)).collect();
    if ids.len() != handed_out.len() {
        problems.push(format!("{} attempts have only {} ids", handed_out.len(), ids.len()));
    }
    let twice = accepted_twice(soak, &results, &server);
    let runs = runs::read(&soak.farm.path("runs"));
    let rebuilt = rebuilt(soak, &runs);
    if !lost.is_empty() || !twice.is_empty() {
        problems.push(format!("lost {}, accepted twice {}", lost.len(), twice.len()));
    }
    if !rebuilt.is_empty() {
        problems.push(format!("{} finished builds were rebuilt: {rebuilt:#?}", rebuilt.len()));
    }
    let settled = || results.iter().filter(|(folder, _)| !folder.contains('/'));
    let succeeded = settled().filter(|(_, record)| record.outcome.is_success()).count();
    Report {
        seed: soak.settings.seed,
        faults: soak.faults.clone(),
        srpms: soak.queued.len(),
        withdrawn: soak.withdrawn.len(),
        held: soak.held.clone(),
        succeeded,
        failed: settled().count() - succeeded,
        attempts: handed_out.len(),
        runs: runs.values().map(Vec::len).sum(),
        lost,
        twice,
        rebuilt,
        again: again(soak, &runs, &server),
        problems,
    }
}

/// SRPMs that are not in FINISHED, or in another folder too.
fn lost(soak: &Soak) -> Vec<String> {
    let kept = soak.queued.keys().filter(|name| !soak.withdrawn.contains(*name));
    let is_where_it_belongs = |name: &&String| {
        soak.farm.where_is(name) == [if soak.is_parked(name) { "SOURCE" } else { "FINISHED" }]
    };
    kept.filter(|name| !is_where_it_belongs(name)).cloned().collect()
}

/// Results that are missing, or are not those of the SRPM.
fn wrong_results(soak: &Soak, results: &BTreeMap<String, BuildRecord>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, kind) in soak.queued.iter().filter(|(name, _)| !soak.withdrawn.contains(*name)) {
        let Some(record) = results.get(name.trim_end_matches(".src.rpm")) else {
            wrong.push(format!("{name}: nothing is published"));
            continue;
        };
        if record.srpm.as_str() != name || !kind.expects(&record.outcome) {
            wrong.push(format!("{name}: {record:?}"));
        }
        let failure = soak.farm.finished(format!("{name}.failed.json")).exists();
        // One that was built again by a person's wish may have failed beside a good result.
        let is_failure = !record.outcome.is_success() && !record.parked;
        if failure != is_failure && !soak.cancelled.contains(name) {
            wrong.push(format!("{name}: {:?}, and a failure record: {failure}", record.outcome));
        }
    }
    for folder in results.keys().map(|folder| folder.split('/').next().unwrap_or_default()) {
        if !soak.queued.contains_key(&format!("{folder}.src.rpm")) {
            wrong.push(format!("{folder} is published, but was never queued"));
        }
    }
    wrong
}

/// What is still there after everybody has gone.
fn leftovers(soak: &Soak) -> Vec<String> {
    let mut left = Vec::new();
    let mut expect = |what: &str, found: Vec<String>| {
        if !found.is_empty() {
            left.push(format!("{what}: {found:?}"));
        }
    };
    let but = |folder: std::path::PathBuf, kept: &str| -> Vec<String> {
        names_in(&folder).into_iter().filter(|name| name != kept && !soak.is_parked(name)).collect()
    };
    expect("left in SOURCE", but(soak.farm.source(""), "priority.txt"));
    expect("left in WORKING", but(soak.farm.working(""), ".moji"));
    expect("left in staging", names_in(&soak.farm.working(".moji/attempts")));
    expect("processes are left", soak.farm.build_processes());
    for client in 0..soak.settings.slots.len() {
        let client = format!("t{client}");
        let attempts = soak.farm.attempts_of(&client);
        expect("left by clients", attempts.iter().map(|path| path.display().to_string()).collect());
        let outbox = soak.farm.work_dir(&client).join("outbox");
        expect("left in an outbox", if outbox.exists() { names_in(&outbox) } else { Vec::new() });
    }
    left
}

/// What `moji-server fsck` finds.
fn fsck(soak: &Soak) -> Option<String> {
    let said = soak.farm.fsck_command(&[]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (!said.status.success())
        .then(|| format!("fsck, {}: {}\n{}", said.status, text(&said.stdout), text(&said.stderr)))
}

/// SRPMs with two results, though no person had them built again.
fn accepted_twice(soak: &Soak, results: &BTreeMap<String, BuildRecord>, server: &[String]) -> Vec<String> {
    let mut accepted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for record in results.values() {
        let attempt = record.attempt.as_ref().map(|attempt| attempt.id.to_string()).unwrap_or_default();
        accepted.entry(record.srpm.as_str()).or_default().insert(attempt);
    }
    let mut twice: BTreeSet<String> =
        accepted.iter().filter(|(_, ids)| ids.len() > 1).map(|(name, _)| (*name).to_owned()).collect();
    // Each acceptance is told once, by the server that did it or by the one that completed it.
    for name in soak.queued.keys() {
        let told =
            [" succeeded: ", " failed (", " had been published when"].map(|what| format!(" {name}{what}"));
        let lines = server.iter().filter(|line| told.iter().any(|told| line.contains(told)));
        if lines.count() > 1 {
            twice.insert(name.clone());
        }
    }
    twice.retain(|name| !soak.cancelled.contains(name));
    twice.into_iter().collect()
}

/// Runs whose client knew that Mock had ended and had the results safe, and after which another began.
fn rebuilt(soak: &Soak, runs: &BTreeMap<String, Vec<Run>>) -> Vec<String> {
    let mut rebuilt = Vec::new();
    for (name, runs) in runs.iter().filter(|(name, _)| !soak.cancelled.contains(*name)) {
        for run in runs {
            let Some(end) = run.finished() else { continue };
            let safe = !soak.unpacked.contains(&run.attempt) && !was_full(soak, run.start, end);
            if let Some(next) = runs.iter().find(|next| next.start > end).filter(|_| safe) {
                rebuilt.push(format!("{name}: {} and then {}", run.attempt, next.attempt));
            }
        }
    }
    rebuilt
}

/// Whether the builders' disk was full while something ran, or soon after.
fn was_full(soak: &Soak, start: f64, end: f64) -> bool {
    let disk = soak.builders_disk.as_ref();
    disk.is_some_and(|disk| disk.was_full.iter().any(|(from, to)| *from < end + 5.0 && *to > start))
}

/// Why SRPMs were run more than once.
fn again(soak: &Soak, runs: &BTreeMap<String, Vec<Run>>, server: &[String]) -> Vec<(String, String)> {
    let mut again = Vec::new();
    for (name, runs) in runs {
        for run in runs.iter().take(runs.len() - 1) {
            again.push((name.clone(), reason(soak, name, run, server)));
        }
    }
    again
}

/// Why an attempt was not the last one; as far as the first colon a kind of reason.
fn reason(soak: &Soak, name: &str, run: &Run, server: &[String]) -> String {
    let attempt = &run.attempt;
    let state = match run.finished() {
        Some(_) if soak.unpacked.contains(attempt) => "its client was killed before it had packed",
        Some(_) => "Mock had ended",
        None if soak.unpacked.contains(attempt) => "its client was killed while building",
        None => "Mock was running",
    };
    let after = |text: &str| server.iter().find_map(|line| line.split_once(text).map(|(_, rest)| rest));
    if let Some(why) = after(&format!("{attempt} was given back: ")) {
        return format!("given back, {state}: {attempt}: {why}");
    }
    if after(&format!("was taken out of WORKING: {attempt} ")).is_some() {
        return format!("cancelled by a person, {state}: {attempt}");
    }
    let lost = format!("{name} was being built by ");
    let told = |line: &String| line.contains(&lost) && line.ends_with(&format!("as {attempt}"));
    if let Some(at) = server.iter().position(told) {
        let gone = server[..at].iter().rev().find_map(|line| line.split_once(" is gone: "));
        let why = gone.map(|(_, why)| why).unwrap_or_default();
        return format!("its connection was lost, {state}: {attempt}: {why}");
    }
    if let Some(why) = after(&format!("{name} failed on ")) {
        return format!("failed through no fault of the package, {state}: {attempt}: {why}");
    }
    if after(&format!("{name} was being built when the last server ended")).is_some() {
        return format!("the server was restarted, {state}: {attempt}");
    }
    if soak.cancelled.contains(name) {
        return format!("queued again by a person, {state}: {attempt}");
    }
    format!("unexplained, {state}: {attempt}")
}
