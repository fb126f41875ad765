//! What became of the queue: what was built, what was not and why, what waits and for whom.
//!
//! Plain data with three forms: text for a terminal or a journal, JSON (the data as they are here) and one
//! HTML page. [`write()`] puts all three into REPO.
//!
//! Who fills it says what is true: it deliberately does not know the scheduler or the history's database,
//! decides nothing, and believes none of its texts to be harmless.

mod excerpt;
mod html;
mod providers;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod words;
mod write;

use jiff::Timestamp;
use moji_proto::{FailureKind, Nvr, SrpmName, TargetName};
use serde::{Deserialize, Serialize};

use crate::BuilderId;
use crate::history::{SettledBuild, Verdict};

pub use excerpt::{Excerpt, excerpt, excerpt_of};
pub use html::html;
pub use providers::{Cycle, Edge, Missing, Provider, ProviderState};
pub use text::text;
pub use write::{HTML, JSON, TEXT, read_excerpts, write};

/// Version of the JSON's form.
pub const FORMAT: u32 = 1;
/// Longest list in text and HTML; the rest is counted.
const SHOWN_MAX: usize = 1000;
/// Longest list that is kept at all, and in JSON.
const KEPT_MAX: usize = 20_000;

/// What became of the queue.
///
/// In JSON: times as RFC 3339, durations in whole seconds, absent values left out, lists of at most 20,000
/// entries each (`counts` has the numbers of all). A change of its form is a new `format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was made.
    pub written_at: Timestamp,
    /// Whether something is left.
    pub standing: Standing,
    /// All targets together.
    pub totals: Totals,
    /// Each target.
    pub targets: Vec<TargetReport>,
}

/// Why a report is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing is left.
    Empty,
    /// What is left waits for what does not come by itself.
    Stuck,
    /// Somebody asked; builds go on.
    Running,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Succeeded.
    pub built: u64,
    /// Failed for good.
    pub failed: u64,
    /// Not tried again until a person wants it.
    pub held: u64,
    /// Waiting for requirements that nothing provides.
    pub parked: u64,
    /// Waiting for an SRPM that is expected to provide something.
    pub waiting: u64,
    /// Dependency cycles.
    pub cycles: u64,
}

impl Counts {
    /// SRPMs, each for one target.
    pub fn srpms(&self) -> u64 {
        self.built + self.failed + self.held + self.parked + self.waiting
    }

    fn add(&mut self, other: &Self) {
        let Self { built, failed, held, parked, waiting, cycles } = other;
        self.built += built;
        self.failed += failed;
        self.held += held;
        self.parked += parked;
        self.waiting += waiting;
        self.cycles += cycles;
    }
}

/// All targets together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many of each.
    pub counts: Counts,
    /// Attempts at all of them. Divided by the number of SRPMs: 1 is the best there can be.
    pub attempts: u64,
    /// From the first to the last that is told of.
    pub wall_seconds: u64,
    /// How long all attempts took together.
    pub busy_seconds: u64,
    /// How long the longest chain of builds takes that must wait for each other: no number of builders
    /// is faster.
    pub critical_path_seconds: u64,
}

/// What became of one target's SRPMs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Which; absent for SRPMs that any builder may build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// Since when the first of them had waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// When the last of them was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How many of each, also of those that the lists have no room for.
    pub counts: Counts,
    /// Attempts at all of them.
    pub attempts: u64,
    /// How long these took together.
    pub busy_seconds: u64,
    /// Succeeded.
    pub built: Vec<Built>,
    /// Failed for good.
    pub failed: Vec<Failed>,
    /// Not tried again until a person wants it.
    pub held: Vec<Failed>,
    /// Waiting for requirements that nothing provides.
    pub parked: Vec<Parked>,
    /// Packages that need each other.
    pub cycles: Vec<Cycle>,
    /// Waiting for an SRPM that is expected to provide something.
    pub waiting: Vec<Waiting>,
}

/// A build that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The SRPM.
    pub srpm: SrpmName,
    /// How many attempts it took.
    pub attempts: u32,
    /// How long the good one took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Who built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<BuilderId>,
}

/// A build that failed, or is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The SRPM.
    pub srpm: SrpmName,
    /// Whose fault it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FailureKind>,
    /// Why, in a line.
    pub reason: String,
    /// The lines of build.log that tell more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
    /// How many attempts there were.
    pub attempts: u32,
    /// Who made the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<BuilderId>,
    /// The folder with its logs, below REPO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
}

/// A build that waits for what nothing provides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The SRPM.
    pub srpm: SrpmName,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How many attempts have shown it.
    pub attempts: u32,
    /// What it misses, and who would provide it.
    pub missing: Vec<Missing>,
}

/// A build that waits for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The SRPM.
    pub srpm: SrpmName,
    /// What it needs, and who is expected to provide it; nothing when no builder that is connected can take it.
    pub needs: Vec<Missing>,
}

impl Report {
    /// Of these targets, with all sums.
    pub fn new(
        written_at: Timestamp,
        standing: Standing,
        targets: Vec<TargetReport>,
        critical_path_seconds: u64,
    ) -> Self {
        let mut totals = Totals { critical_path_seconds, ..Totals::default() };
        for target in &targets {
            totals.counts.add(&target.counts);
            totals.attempts += target.attempts;
            totals.busy_seconds += target.busy_seconds;
        }
        let began = targets.iter().filter_map(|target| target.began).min();
        let ended = targets.iter().filter_map(|target| target.ended).max();
        if let (Some(began), Some(ended)) = (began, ended) {
            totals.wall_seconds = u64::try_from(began.duration_until(ended).as_secs()).unwrap_or(0);
        }
        Self { format: FORMAT, written_at, standing, totals, targets }
    }
}

impl TargetReport {
    /// Of a target (`None`: of the SRPMs directly in SOURCE) of which nothing is told yet.
    pub fn new(target: Option<TargetName>) -> Self {
        Self { target, ..Self::default() }
    }

    /// Takes in a build that is settled, as the history tells it.
    pub fn settled(&mut self, build: &SettledBuild) {
        let SettledBuild { key, verdict, attempts, queued_at, settled_at, took, busy, .. } = build;
        self.began = Some(self.began.map_or(*queued_at, |began| began.min(*queued_at)));
        self.ended = Some(self.ended.map_or(*settled_at, |ended| ended.max(*settled_at)));
        self.attempts += u64::from(*attempts);
        self.busy_seconds += busy.as_secs();
        match verdict {
            Verdict::Succeeded => {
                let built = Built {
                    srpm: key.srpm.clone(),
                    attempts: *attempts,
                    seconds: took.map(|took| took.as_secs()),
                    builder: build.builder.clone(),
                };
                put(&mut self.built, &mut self.counts.built, built);
            }
            Verdict::Failed => put(&mut self.failed, &mut self.counts.failed, Failed::of(build)),
            Verdict::Held => put(&mut self.held, &mut self.counts.held, Failed::of(build)),
        }
    }

    /// Takes in a build that is parked.
    pub fn parked(&mut self, parked: Parked) {
        self.attempts += u64::from(parked.attempts);
        put(&mut self.parked, &mut self.counts.parked, parked);
    }

    /// Takes in a build that waits for another one.
    pub fn waiting(&mut self, waiting: Waiting) {
        put(&mut self.waiting, &mut self.counts.waiting, waiting);
    }

    /// Takes in a cycle.
    pub fn cycle(&mut self, cycle: Cycle) {
        put(&mut self.cycles, &mut self.counts.cycles, cycle);
    }
}

fn put<T>(list: &mut Vec<T>, count: &mut u64, entry: T) {
    *count += 1;
    if list.len() < KEPT_MAX {
        list.push(entry);
    }
}

impl Failed {
    /// As the history tells it, with the folder where its logs usually are.
    fn of(build: &SettledBuild) -> Self {
        let folder = |nvr: &Nvr| match &build.key.target {
            Some(target) => format!("{target}/{nvr}"),
            None => nvr.to_string(),
        };
        Self {
            srpm: build.key.srpm.clone(),
            kind: build.failure,
            reason: build.reason.clone().unwrap_or_default(),
            excerpt: None,
            attempts: build.attempts,
            builder: build.builder.clone(),
            logs: build.nvr.as_ref().filter(|_| build.attempts > 0).map(folder),
        }
    }
}
