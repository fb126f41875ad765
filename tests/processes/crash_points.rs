//! Server and client are killed after every single step, and everything is as it should be after the
//! next start. What a crash leaves stands in the tables beside the steps: `moji_server::commit::Step`,
//! `metadata::Step`, `crash::Move` and `moji_client::crash::Point`.

use std::fs;
use std::process::Command;
use std::thread;

use moji_client::crash::Point as ClientPoint;
use moji_proto::Outcome;
use moji_server::commit::Step;
use moji_server::crash::{Move, Point};
use moji_server::metadata::Step as PublicationStep;
use moji_tests::support::processes::{Farm, Program, TARGET, names_in, outcome_of, tiny, wait_until};
use moji_tests::support::published::check_results;
use moji_tests::support::repository::{read_metadata, wait_for_packages};

/// How many farms a test has at a time: most of the time each waits for something.
const LANES: usize = 4;

/// Does something with each item, some at a time, in threads with the items' names.
fn for_each<T: Copy + Send>(items: impl IntoIterator<Item = T>, name: fn(T) -> String, test: fn(T)) {
    let items: Vec<T> = items.into_iter().collect();
    for items in items.chunks(LANES) {
        thread::scope(|scope| {
            for item in items.iter().copied() {
                thread::Builder::new().name(name(item)).spawn_scoped(scope, move || test(item)).unwrap();
            }
        });
    }
}

fn crashing(mut command: Command, point: &str) -> Command {
    command.env("MOJI_CRASH_AT", point);
    command
}

/// What is built before and when the crash comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Success,
    Failure,
    /// A success where a failure stood.
    SuccessAfterFailure,
    /// A failure where a failure stood.
    FailureAfterFailure,
    /// A success for a target with a repository of its own.
    Target,
}

impl Story {
    fn succeeds(self) -> bool {
        !matches!(self, Self::Failure | Self::FailureAfterFailure)
    }

    fn fails_before(self) -> bool {
        matches!(self, Self::SuccessAfterFailure | Self::FailureAfterFailure)
    }
}

/// A farm with one SRPM that succeeds as soon as a file is there.
struct Stage {
    farm: Farm,
    story: Story,
    srpm: String,
}

const OPTIONS: [&str; 2] = ["--grace", "0s"];

impl Stage {
    /// Folders only.
    fn new(story: Story) -> Self {
        let farm = Farm::new();
        let folder = if story == Story::Target { format!("{TARGET}/") } else { String::new() };
        Self { farm, story, srpm: format!("{folder}{}", tiny("step")) }
    }

    fn server_command(&self) -> Command {
        let mut command = self.farm.server_command(&OPTIONS);
        command.args(["--listen", &self.farm.address.map_or("127.0.0.1:0".into(), |at| at.to_string())]);
        command
    }

    /// Queues the SRPM and lets it end as the story says. The servers and clients are running.
    fn play(&self) {
        let ready = self.farm.path("ready");
        let srpm = self.farm.tiny_srpms(&[("step", &format!("test -e {}", ready.display()))]).remove(0);
        fs::create_dir_all(self.farm.source(TARGET)).unwrap();
        if self.story.succeeds() && !self.story.fails_before() {
            fs::write(&ready, "").unwrap();
        }
        fs::rename(srpm, self.farm.source(&self.srpm)).unwrap();
        if self.story.fails_before() {
            self.farm.wait_finished(&self.srpm);
            if self.story.succeeds() {
                fs::write(&ready, "").unwrap();
            }
            fs::rename(self.farm.finished(&self.srpm), self.farm.source(&self.srpm)).unwrap();
        }
    }

    /// As a power cut may do it: then the next server does not wait for a builder that was never told.
    fn lose_lease_records(&self) {
        for attempt in names_in(&self.farm.working(".moji/attempts")) {
            let _ = fs::remove_file(self.farm.working(".moji/attempts").join(attempt).join("lease.json"));
        }
    }

    /// Nothing that can be seen from outside is half-done.
    fn assert_nothing_half(&self) {
        for repository in [self.farm.repo(""), self.farm.repo(TARGET)] {
            if repository.join("repodata/repomd.xml").exists() {
                read_metadata(&repository).unwrap();
            }
            if repository.exists() {
                check_results(&repository).unwrap();
            }
        }
        assert_eq!(self.farm.where_is(&self.srpm).len(), 1, "{:?}", self.farm.where_is(&self.srpm));
    }

    /// Everything is as if nothing had happened.
    fn assert_settled(&self) {
        let farm = &self.farm;
        farm.wait_finished(&self.srpm);
        let (repository, other) = match self.story {
            Story::Target => (farm.repo(TARGET), Some(farm.repo(""))),
            _ => (farm.repo(""), None),
        };
        let packages = ["step-1-1/step-1-1.t3.noarch.rpm", "step-1-1/step-1-1.t3.src.rpm"];
        let packages = if self.story.succeeds() { &packages[..] } else { &[] };
        wait_for_packages(&repository, packages);
        if let Some(other) = other {
            wait_for_packages(&other, &[""; 0]);
        }
        let results = check_results(&repository).unwrap();
        assert_eq!(results.len(), 1, "{:?}", results.keys());
        let record = &results["step-1-1"];
        assert_eq!(record.outcome == Outcome::Succeeded, self.story.succeeds(), "{record:?}");
        let failure = format!("{}.failed.json", self.srpm);
        assert_eq!(farm.finished(&failure).exists(), !self.story.succeeds());
        if !self.story.succeeds() {
            assert_eq!(&farm.failure_record(&self.srpm), record);
        }
        wait_until("the end of all attempts", || names_in(&farm.working(".moji/attempts")).is_empty());
        assert!(srpms_below(farm.source("")).is_empty() && srpms_below(farm.working("")).is_empty());
        let folder = if self.story == Story::Target { "nested/here" } else { "main" };
        wait_until("an empty staging of the metadata", || {
            let names = names_in(&farm.working(".moji/metadata").join(folder));
            let is_kept =
                |name: &String| ["generations.json", "index.json", "ledger.json"].contains(&name.as_str());
            names.len() >= 2 && names.iter().all(is_kept)
        });
    }

    fn assert_client_is_empty(&self, client: &str) {
        wait_until("an empty work folder", || self.farm.attempts_of(client).is_empty());
        let outbox = self.farm.work_dir(client).join("outbox");
        wait_until("an empty outbox", || !outbox.exists() || names_in(&outbox).is_empty());
        self.farm.wait_no_build_processes();
    }
}

/// SRPMs in a folder and in the folders of targets in it.
fn srpms_below(folder: std::path::PathBuf) -> Vec<String> {
    let mut found = names_in(&folder);
    if folder.join(TARGET).exists() {
        found.extend(names_in(&folder.join(TARGET)));
    }
    found.retain(|name| name.ends_with(".src.rpm"));
    found
}

#[test]
fn a_point_that_does_not_exist_is_refused() {
    let mut farm = Farm::start(&[]);
    let built = "the programs were built without the feature crash-points: run scripts/test";
    for (command, some) in [
        (farm.server_command(&["--listen", "127.0.0.1:0"]), "commit-staged"),
        (farm.client_command("b1", &[]), "moved-durably"),
    ] {
        let (code, said) = outcome_of(crashing(command, "nowhere"));
        assert_eq!(code, 2, "{built}: {said}");
        assert!(said.contains("there is no such point") && said.contains(some), "{said}");
    }
    farm.server.as_mut().unwrap().kill();
}

/// The server dies in a commit after `step`, and the next one finds what it left.
fn commit_dies((step, story): (Step, Story)) {
    let mut stage = Stage::new(story);
    let passing = if story.fails_before() && step != Step::RepositoryMade { 2 } else { 1 };
    let point = format!("{}:{passing}", Point::Commit(step).name());
    stage.farm.run_server(crashing(stage.server_command(), &point));
    stage.farm.start_client("b1", &[]);
    stage.play();
    stage.farm.server.as_mut().unwrap().wait_crash();
    let mut handed_out = stage.farm.hand_outs().len() - usize::from(story.fails_before());
    stage.assert_nothing_half();
    stage.farm.run_server(stage.server_command());
    stage.assert_settled();
    handed_out += stage.farm.hand_outs().len();
    assert_eq!(handed_out, 1, "it was built again");
    stage.assert_client_is_empty("b1");
}

fn commit_dies_after_each_step(story: Story) {
    let steps = Step::ALL.iter().copied();
    let steps = steps.filter(|step| *step != Step::RepositoryMade || story == Story::Target);
    let name = |(step, story)| format!("{story:?} {step:?}");
    for_each(steps.map(|step| (step, story)), name, commit_dies);
}

#[test]
fn a_success_survives_the_server_at_each_step() {
    commit_dies_after_each_step(Story::Success);
}

#[test]
fn a_failure_survives_the_server_at_each_step() {
    commit_dies_after_each_step(Story::Failure);
}

#[test]
fn a_success_after_a_failure_survives_the_server_at_each_step() {
    commit_dies_after_each_step(Story::SuccessAfterFailure);
}

#[test]
fn a_failure_after_a_failure_survives_the_server_at_each_step() {
    commit_dies_after_each_step(Story::FailureAfterFailure);
}

#[test]
fn a_targets_success_survives_the_server_at_each_step() {
    commit_dies_after_each_step(Story::Target);
}

/// The server dies while it publishes metadata: the first ones, and those of a build.
fn publication_dies((step, story): (PublicationStep, Option<Story>)) {
    let mut stage = Stage::new(story.unwrap_or(Story::Success));
    let point = Point::Publication(step).name();
    let Some(_) = story else {
        let mut server = Program::start("the server", crashing(stage.server_command(), &point));
        server.wait_crash();
        stage.farm.run_server(stage.server_command());
        wait_for_packages(&stage.farm.repo(""), &[""; 0]);
        return;
    };
    stage.farm.run_server(stage.server_command());
    wait_for_packages(&stage.farm.repo(""), &[""; 0]);
    stage.farm.server.as_mut().unwrap().kill();
    stage.farm.run_server(crashing(stage.server_command(), &point));
    stage.farm.start_client("b1", &[]);
    stage.play();
    stage.farm.server.as_mut().unwrap().wait_crash();
    stage.assert_nothing_half();
    stage.farm.run_server(stage.server_command());
    stage.assert_settled();
}

#[test]
fn metadata_survive_the_server_at_each_step() {
    let stories = [None, Some(Story::Success), Some(Story::Target)];
    let steps = PublicationStep::ALL.iter().flat_map(|step| stories.map(|story| (*step, story)));
    for_each(steps, |(step, story)| format!("{story:?} {step:?}"), publication_dies);
}

/// The server dies right after it has moved an SRPM, before it has told anybody.
fn move_dies((moved, story): (Move, Story)) {
    let mut stage = Stage::new(story);
    let point = Point::Moved(moved).name();
    match moved {
        Move::Leased => {
            stage.farm.run_server(crashing(stage.server_command(), &point));
            stage.farm.start_client("b1", &[]);
            stage.play();
        }
        Move::Requeued => {
            stage.farm.run_server(crashing(stage.server_command(), &point));
            let crashing = crashing(stage.farm.client_command("b1", &[]), &ClientPoint::Received.name());
            stage.farm.run_client("b1", crashing);
            stage.play();
            stage.farm.client_mut("b1").wait_crash();
        }
        Move::RefusalRecorded | Move::Refused => {
            stage.farm.run_server(crashing(stage.server_command(), &point));
            fs::write(stage.farm.source(&stage.srpm), "no RPM at all").unwrap();
        }
    }
    stage.farm.server.as_mut().unwrap().wait_crash();
    stage.assert_nothing_half();
    stage.lose_lease_records();
    stage.farm.run_server(stage.server_command());
    if matches!(moved, Move::Leased | Move::Requeued) {
        stage.farm.start_client("b2", &[]);
        stage.assert_settled();
    } else {
        stage.farm.wait_finished(&stage.srpm);
        let record = stage.farm.failure_record(&stage.srpm);
        assert!(record.nvr.is_none() && !record.outcome.is_success(), "{record:?}");
    }
}

#[test]
fn moves_survive_the_server_at_each_step() {
    let moves = Move::ALL.iter().copied();
    let told = moves.flat_map(|moved| {
        let other =
            if matches!(moved, Move::Leased | Move::Requeued) { Story::Target } else { Story::Success };
        [(moved, Story::Success), (moved, other)]
    });
    for_each(told, |(moved, story)| format!("{story:?} {moved:?}"), move_dies);
}

/// A server that dies while it puts back what its predecessor had leased.
#[test]
fn putting_back_survives_the_server() {
    let mut stage = Stage::new(Story::Success);
    stage.farm.run_server(crashing(stage.server_command(), &Point::Moved(Move::Leased).name()));
    stage.farm.start_client("b1", &[]);
    stage.play();
    stage.farm.server.as_mut().unwrap().wait_crash();
    assert_eq!(stage.farm.where_is(&stage.srpm), ["WORKING"]);
    stage.lose_lease_records();
    let command = crashing(stage.server_command(), &Point::Moved(Move::Requeued).name());
    Program::start("the server", command).wait_crash();
    assert_eq!(stage.farm.where_is(&stage.srpm), ["SOURCE"]);
    stage.farm.run_server(stage.server_command());
    stage.assert_settled();
}

/// The client dies after a step of its attempt, and the next one on that machine finds what it left.
fn client_dies((point, story): (ClientPoint, Story)) {
    let mut stage = Stage::new(story);
    stage.farm.run_server(stage.server_command());
    stage.farm.run_client("b1", crashing(stage.farm.client_command("b1", &[]), &point.name()));
    stage.play();
    stage.farm.client_mut("b1").wait_crash();
    stage.assert_nothing_half();
    stage.farm.start_client("b1", &[]);
    stage.assert_settled();
    // What has ended is packed by whoever comes next, and not built again.
    let builds = if point < ClientPoint::LogMoved { 2 } else { 1 };
    let handed_out = stage.farm.hand_outs().len();
    assert_eq!(handed_out, builds, "{point:?}");
    stage.assert_client_is_empty("b1");
}

#[test]
fn a_success_survives_the_client_at_each_step() {
    let points = ClientPoint::ALL.iter().map(|point| (*point, Story::Success));
    for_each(points, |(point, _)| point.name(), client_dies);
}

#[test]
fn a_failure_survives_the_client_at_each_step() {
    let points = ClientPoint::ALL.iter().map(|point| (*point, Story::Failure));
    for_each(points, |(point, _)| point.name(), client_dies);
}
