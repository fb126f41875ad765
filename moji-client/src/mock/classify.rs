//! Whose fault a failed attempt is, and why, in one line. Pure: no file, no clock.
//!
//! Mock's exit code alone does not say it: a failed `%build` is 1, a broken mirror is 30 like a
//! missing BuildRequires. [`classify`] decides by the code and the logs together:
//!
//! | how Mock ended | and | verdict |
//! |---|---|---|
//! | 0 | state.log ends with `Finish: run`, results are there | succeeded |
//! | 0 | otherwise | builder |
//! | 1, 10, 11, 40 | the disk is full, `Can not copy` in mock.log | builder |
//! | 1, 10, 11 | `Start: rpmbuild` in state.log | package |
//! | 1 | Mock had said `Done`: a step after the build failed | builder |
//! | 1 | state.log stops between `build setup` and rpmbuild | package: its spec does not parse |
//! | 1 | state.log stops before that, or Mock shows a traceback | builder |
//! | 1 | no state.log | unreadable SRPM, the result directory, or a bad option |
//! | 30, 31 | `No matching package`, `nothing provides` … for the build | missing dependency |
//! | 30 | otherwise: repository, disk | builder |
//! | 31, 40 | otherwise | package |
//! | 3, 5, 6, 50 | | configuration |
//! | 7, 129, 141, 143, a signal, time limit, watchdog | Mock had said `Done` | succeeded |
//! | 7, 129, 141, 143, a signal | | builder |
//! | time limit, watchdog | rpmbuild ran | package |
//! | time limit, watchdog | another step ran: a hung dnf or mirror | builder |
//! | cancelled | | interrupted |
//! | anything else | | builder |
//!
//! Decisions that the table hides:
//!
//! - **143 after success.** `INFO: Done(…)` in mock.log comes after the results were copied, and in
//!   state.log only `clean chroot` follows: nothing that could still fail belongs to the build. So
//!   it is a finished build, and finished builds are not lost, whoever stopped Mock. Whether anybody wants them is for
//!   others to know.
//! - **30 with `Finish: run`.** A run with a broken repository left `Done`, RPMs and exit code 30.
//!   An exit code that denies success is believed: the RPMs may have been built against stale
//!   metadata, building once more elsewhere is cheap, and publishing is for ever.
//! - **`--postinstall` failed** (30, `nothing provides X needed by` the package just built): a
//!   missing dependency, with X. The RPMs are there, but what the owner asked for, that they can be
//!   installed, becomes true only when something provides X.
//! - **`nothing provides` before `build setup`** is about the chroot's own packages, and **with a
//!   repository that dnf ignored** about packages that may well exist: both are the builder's or
//!   the repository's, else a broken mirror would park the whole queue.
//! - **A full disk** is gone when Mock ends, because Mock removes the chroot. So the lowest free
//!   space seen during the run counts ([`DISK_LOW`]), beside what logs say. A success counts all the same, unless
//!   build.log shows that rpmbuild could not write what it ran.
//! - **129, 143 and signals** that moji did not send are blamed on the builder rather than on
//!   nobody: whatever kills every build there should get the builder suspended.

mod build_log;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(in crate::mock) mod text;

use moji_proto::outcome::{FailureKind, Outcome, one_line};

use super::evidence::{Ended, Evidence};
use text::{Missing, Step};

/// Below this much free space in bytes, a failed build is not blamed on the package: 128 MiB.
pub const DISK_LOW: u64 = 128 << 20;

/// What Mock says when the results of a build are copied, before it cleans up.
const DONE: &str = "INFO: Done(";

/// How the attempt ended that left `evidence`. Never panics, whatever the texts hold; the texts of
/// the outcome are within the limits of [`Outcome::failed`].
pub fn classify(evidence: &Evidence) -> Outcome {
    match verdict(evidence) {
        Verdict::Succeeded => Outcome::Succeeded,
        Verdict::Failed(kind, reason, missing) => {
            // What was quoted may have been control characters and nothing else.
            let reason =
                if one_line(&reason).is_empty() { "Mock failed without a readable reason" } else { &reason };
            Outcome::failed(kind, reason, evidence.ended.exit_code(), missing)
        }
    }
}

enum Verdict {
    Succeeded,
    Failed(FailureKind, String, Vec<String>),
}

fn failed(kind: FailureKind, reason: impl Into<String>) -> Verdict {
    Verdict::Failed(kind, reason.into(), Vec::new())
}

fn builder(reason: impl Into<String>) -> Verdict {
    failed(FailureKind::Infrastructure, reason)
}

fn package(reason: impl Into<String>) -> Verdict {
    failed(FailureKind::Package, reason)
}

fn verdict(evidence: &Evidence) -> Verdict {
    let state = State::read(&evidence.state_log);
    match &evidence.ended {
        Ended::Cancelled if done(evidence, &state) => Verdict::Succeeded,
        Ended::Cancelled => failed(FailureKind::Interrupted, "cancelled"),
        Ended::NotStarted(why) => builder(format!("Mock could not be started: {why}")),
        Ended::TimedOut => overtime(evidence, &state, "ran longer than the build's time limit"),
        Ended::Stalled => overtime(evidence, &state, "wrote nothing for as long as the watchdog waits"),
        Ended::Signal(signal) => stopped(evidence, &state, *signal, &format!("signal {signal}")),
        Ended::Exit(code) => exited(evidence, &state, *code),
    }
}

fn exited(evidence: &Evidence, state: &State, code: i32) -> Verdict {
    match code {
        0 => ended_well(evidence, state),
        1 if state.is_empty() => before_any_step(evidence),
        1 | 10 | 11 => build_failed(evidence, state, code),
        3 | 5 | 6 | 50 => failed(FailureKind::Configuration, mock_says(evidence, code)),
        7 => stopped(evidence, state, 2, "an interrupt (exit code 7)"),
        129 | 141 | 143 => stopped(evidence, state, code - 128, &format!("a signal (exit code {code})")),
        30 | 31 => packages_failed(evidence, state, code),
        // rpm that has no room to unpack the SRPM says only that it is not installable.
        40 => disk_full(evidence).map_or_else(|| package(mock_says(evidence, code)), builder),
        60 => builder(format!("the chroot is in use: {}", mock_says(evidence, code))),
        // Mock hands on what Python says of a killed child: minus the signal's number, as a byte.
        241 | 247 => killed_child(evidence, 256 - code),
        _ => other(evidence, code),
    }
}

/// 0 and `Finish: run` always came together; one of them alone is no success.
fn ended_well(evidence: &Evidence, state: &State) -> Verdict {
    if !state.finished_run() {
        return builder("Mock ended with 0, but state.log does not end with \"Finish: run\"");
    }
    if evidence.result_dir_empty {
        return builder("Mock ended with 0, but the result directory is empty");
    }
    if is_disk_low(evidence) && build_log::empty_scripts(&evidence.build_log) > 0 {
        return builder(format!(
            "{}, and rpmbuild took a script that it could not write for one that did well",
            low_disk(evidence)
        ));
    }
    Verdict::Succeeded
}

/// Exit code 1, 10 or 11 after the first step.
fn build_failed(evidence: &Evidence, state: &State, code: i32) -> Verdict {
    if let Some(full) = disk_full(evidence) {
        return builder(full);
    }
    let failure = build_log::failure(&evidence.build_log);
    if code == 11 {
        let limit = text::last_error(&evidence.mock_log).unwrap_or("its time limit");
        return package(format!("rpmbuild ran out of time: {limit}"));
    }
    if !failure.reported
        && let Some(error) = traceback(&evidence.mock_log)
    {
        return builder(format!("Mock itself failed: {error}"));
    }
    if code == 1 && mock_said_done(evidence) {
        return builder(format!("Mock failed after the build was finished: {}", mock_says(evidence, code)));
    }
    if state.started("rpmbuild") || code == 10 {
        package(failure.reason("rpmbuild failed"))
    } else if state.started("build setup") {
        package(failure.reason("the spec file does not parse"))
    } else {
        builder(format!("Mock could not make the chroot: {}", mock_says(evidence, code)))
    }
}

/// Exit code 1 without state.log: Mock did not come as far as the first step.
fn before_any_step(evidence: &Evidence) -> Verdict {
    let says = mock_says(evidence, 1);
    let has =
        |needles: &[&str]| text::lines(&evidence.mock_log).any(|l| needles.iter().any(|n| l.contains(n)));
    if has(&["unrecognized arguments", "no such option", "ambiguous option", "expected one argument"]) {
        return failed(FailureKind::Configuration, says);
    }
    if has(&["Cannot find/open srpm"]) {
        // The client put the file there and checked its digest: when it is gone or unreadable for
        // Mock, that is not the package's doing.
        return if has(&["No such file", "Permission denied"]) {
            builder(says)
        } else {
            failed(FailureKind::UnreadableSrpm, says)
        };
    }
    let srpm = ["not a source", "bad srpm", "error reading package header", "not an rpm package", "Bad SRPM"];
    if has(&srpm) && traceback(&evidence.mock_log).is_none() {
        return failed(FailureKind::UnreadableSrpm, says);
    }
    builder(disk_full(evidence).unwrap_or(says))
}

/// Exit code 30 or 31: the package manager, or an external dependency.
fn packages_failed(evidence: &Evidence, state: &State, code: i32) -> Verdict {
    let root = text::last_failed_section(&evidence.root_log);
    let mut output = text::after_command_failed(&evidence.mock_log);
    output.extend(root);
    if let Some(line) = output.iter().find(|line| text::says_disk_full(line)) {
        return builder(format!("disk full on the builder ({})", line.trim()));
    }
    let unavailable = output.iter().copied().find_map(unavailable_repository);
    let missing = text::missing(output.iter().copied());
    let for_the_build = state.is_empty() || state.started("build setup");
    if let Some(first) = missing.first()
        && for_the_build
        && unavailable.is_none()
    {
        let reason = missing_reason(evidence, first, missing.len());
        let names = missing.iter().map(|m| m.requirement.to_owned()).collect();
        return Verdict::Failed(FailureKind::MissingDependency, reason, names);
    }
    if code == 31 {
        return package(mock_says(evidence, code));
    }
    if let Some(repository) = unavailable {
        return builder(repository);
    }
    if state.finished_run() {
        return builder(
            "Mock ended with 30 although its logs say that the build was finished: a repository is broken",
        );
    }
    if is_disk_low(evidence) {
        return builder(low_disk(evidence));
    }
    let error = output.iter().rev().find_map(|line| line.trim().strip_prefix("Error: "));
    let fallback = || output.iter().rev().copied().find(|line| line.chars().any(char::is_alphanumeric));
    match error.or_else(fallback) {
        Some(error) => builder(format!("the package manager failed: {}", error.trim())),
        None => builder(format!("the package manager failed: {}", mock_says(evidence, code))),
    }
}

/// `Mock could not download metadata for repo 'x' …` when a line says so.
fn unavailable_repository(line: &str) -> Option<String> {
    const DOWNLOAD: &str = "Failed to download metadata";
    if let Some((_, rest)) = line.split_once(DOWNLOAD) {
        return Some(format!("Mock could not download metadata{rest}"));
    }
    line.split_once("Ignoring repositories: ")
        .map(|(_, names)| format!("Mock could not download metadata for repo {names}"))
}

fn missing_reason(evidence: &Evidence, first: &Missing<'_>, count: usize) -> String {
    let what = first.requirement;
    let mut reason = match first.needed_by {
        Some(by) => format!("nothing provides {what} needed by {by}"),
        None => format!("no package provides {what}"),
    };
    if text::lines(&evidence.mock_log).any(|line| line.contains("Installation of built packages failed")) {
        reason = format!("the built packages cannot be installed: {reason}");
    }
    if count > 1 {
        reason.push_str(&format!(", and {} more", count - 1));
    }
    reason
}

/// Stopped by a signal or an exit code that means one, and not by moji.
fn stopped(evidence: &Evidence, state: &State, signal: i32, how: &str) -> Verdict {
    if done(evidence, state) {
        return Verdict::Succeeded;
    }
    let name = match signal {
        1 => "SIGHUP, ",
        2 => "SIGINT, ",
        9 => "SIGKILL, ",
        13 => "SIGPIPE, ",
        15 => "SIGTERM, ",
        _ => "",
    };
    let hint = if signal == 9 { "; out of memory?" } else { "" };
    builder(format!("Mock was stopped from outside: {name}{how}{hint}"))
}

/// Stopped by moji's time limit or watchdog.
///
/// The time limit is the package's, as Mock's own (11) is, and so is a silent rpmbuild. But Mock's
/// own limit bounds rpmbuild only; what hangs outside of it is a dnf or a mirror.
fn overtime(evidence: &Evidence, state: &State, what: &str) -> Verdict {
    if done(evidence, state) {
        return Verdict::Succeeded;
    }
    let failure = build_log::failure(&evidence.build_log);
    if failure.section.is_some() && !build_log::waits_for_packages(&evidence.build_log) {
        return package(failure.reason("rpmbuild failed"));
    }
    if let Some(full) = disk_full(evidence) {
        return builder(full);
    }
    let last = state.last_started().unwrap_or("the first step");
    if state.started("rpmbuild") && !build_log::waits_for_packages(&evidence.build_log) {
        package(format!("the build {what}"))
    } else {
        builder(format!("Mock {what}, in {last:?}"))
    }
}

fn killed_child(evidence: &Evidence, signal: i32) -> Verdict {
    if let Some(full) = disk_full(evidence) {
        return builder(full);
    }
    builder(match signal {
        9 => "rpmbuild was killed by signal 9: out of memory on the builder?".to_owned(),
        15 => "rpmbuild was ended by signal 15: mock --orphanskill?".to_owned(),
        _ => format!("rpmbuild was killed by signal {signal}"),
    })
}

fn other(evidence: &Evidence, code: i32) -> Verdict {
    builder(disk_full(evidence).unwrap_or_else(|| mock_says(evidence, code)))
}

/// Whether Mock had finished the build and copied the results when it was stopped: mock.log says
/// `Done` and no error after it, and state.log has nothing but cleaning after the build phase.
/// Both, because a verbose Mock copies the build's own output into mock.log.
fn done(evidence: &Evidence, state: &State) -> bool {
    let mut seen = false;
    for line in text::lines(&evidence.mock_log) {
        if line.starts_with(DONE) {
            seen = true;
        } else if line.starts_with("ERROR: ") {
            seen = false;
        }
    }
    seen && state.only_cleaning_left() && !evidence.result_dir_empty
}

fn mock_said_done(evidence: &Evidence) -> bool {
    text::lines(&evidence.mock_log).any(|line| line.starts_with(DONE))
}

/// What says that a disk of the builder was full, if anything does.
fn disk_full(evidence: &Evidence) -> Option<String> {
    let mock_log =
        || text::lines(&evidence.mock_log).find(|l| text::says_disk_full(l) || l.contains("Can not copy"));
    let root_log = || {
        let section = text::last_failed_section(&evidence.root_log);
        section.into_iter().find(|line| text::says_disk_full(line))
    };
    let line = mock_log().or_else(root_log).map(|line| line.trim().to_owned());
    if let Some(line) = line.or_else(|| build_log::disk_full(&evidence.build_log)) {
        let line: String = line.chars().take(240).collect();
        return Some(format!("disk full on the builder ({line})"));
    }
    is_disk_low(evidence).then(|| low_disk(evidence))
}

fn is_disk_low(evidence: &Evidence) -> bool {
    evidence.lowest_free.is_some_and(|free| free < DISK_LOW)
}

fn low_disk(evidence: &Evidence) -> String {
    let mib = evidence.lowest_free.unwrap_or(0) >> 20;
    format!("disk full on the builder (only {mib} MiB were free while Mock ran)")
}

/// The last line of a Python traceback in Mock's own output.
fn traceback(mock_log: &str) -> Option<&str> {
    let mut lines =
        text::lines(mock_log).skip_while(|line| !line.starts_with("Traceback (most recent call last)"));
    let first = lines.next()?;
    Some(lines.find(|line| !line.is_empty() && !line.starts_with(' ')).unwrap_or(first))
}

fn mock_says(evidence: &Evidence, code: i32) -> String {
    let log = &evidence.mock_log;
    if let Some(error) = text::last_error(log).or_else(|| traceback(log)) {
        return error.to_owned();
    }
    match text::failed_command(log) {
        Some(command) => format!("a command of Mock failed with {code}: {command}"),
        None => format!("Mock ended with {code} and did not say why"),
    }
}

/// What state.log tells.
struct State<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> State<'a> {
    fn read(state_log: &'a str) -> Self {
        // A line a step; a real log has some thirty.
        Self { steps: text::lines(state_log).filter_map(text::step).collect() }
    }

    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether a step began whose name is or begins with `name` (`rpmbuild a-1-1.src.rpm`).
    fn started(&self, name: &str) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Start(started) if is_step(started, name)))
    }

    fn last_started(&self) -> Option<&'a str> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Start(name) => Some(*name),
            Step::Finish(_) => None,
        })
    }

    fn finished_run(&self) -> bool {
        self.steps.last() == Some(&Step::Finish("run"))
    }

    fn only_cleaning_left(&self) -> bool {
        let phase = |step: &Step<'_>| matches!(step, Step::Finish(name) if is_step(name, "build phase"));
        let Some(at) = self.steps.iter().rposition(phase) else { return false };
        self.steps.iter().skip(at + 1).all(|step| {
            matches!(step, Step::Start("clean chroot") | Step::Finish("clean chroot") | Step::Finish("run"))
        })
    }
}

fn is_step(step: &str, name: &str) -> bool {
    step.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests;
