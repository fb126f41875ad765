//! The report: when the queue is empty or nothing can move, REPO gets a page that says what became of it; and while
//! builds go on, the log says now and then how long they will take.
//!
//! A *campaign* is what is reported on: it begins when something is queued in a farm in which nothing has moved for a
//! while, and goes on until nothing has moved for a while again, over restarts. What is parked belongs to each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use moji_proto::TargetName;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::note::Note;
use super::{Farm, settled_providers};
use crate::BuildKey;
use crate::durable;
use crate::folders::Folders;
use crate::history::{Parks, Recorder, SettledBuild};
use crate::report::{
    self, Cycle, Missing, Parked, Provider, ProviderState, Report, Standing, TargetReport, Waiting,
};
use crate::scheduler::{self, Outlook, Wait};

/// How often it is looked at whether there is something to report.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// What is queued after nothing has moved for so long is reported on for itself.
const REST: Duration = Duration::from_secs(30 * 60);
/// How often the log says how long the queue will take.
const ESTIMATE: Duration = Duration::from_secs(10 * 60);
/// Most builds of a report.
const MOST: usize = 20_000;
/// The file that remembers a campaign.
const FILE: &str = "campaign.json";

/// What is reported on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// When it began.
    began: Timestamp,
    /// Since when nothing moves in it.
    #[serde(default)]
    rested_at: Option<Timestamp>,
}

impl Campaign {
    /// The one that a server before this one had begun. Blocks.
    pub fn read(folders: &Folders) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path(folders)).ok()?).ok()
    }

    /// Whether nothing has moved for so long that what comes now is another one.
    fn is_over(&self) -> bool {
        let rest = |since: Timestamp| Timestamp::now().duration_since(since);
        self.rested_at.is_some_and(|since| rest(since).unsigned_abs() > REST)
    }

    fn write(self, folders: &Folders) -> anyhow::Result<()> {
        let path = path(folders);
        durable::write_whole(&path, &serde_json::to_vec(&self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn path(folders: &Folders) -> PathBuf {
    folders.private().join(FILE)
}

/// What is to be reported.
#[derive(Debug)]
pub(super) struct Reporting {
    campaign: Option<Campaign>,
    /// Something has happened since the last report.
    is_due: bool,
    /// The campaign has just begun.
    is_new: bool,
    /// What is on disk of it is not what it is.
    is_unsaved: bool,
    estimated_at: Instant,
    writing: JoinSet<()>,
}

impl Reporting {
    pub(super) fn new(campaign: Option<Campaign>) -> Self {
        Self {
            campaign,
            is_due: false,
            is_new: false,
            is_unsaved: false,
            estimated_at: Instant::now(),
            writing: JoinSet::new(),
        }
    }

    /// What is worth a report.
    pub(super) fn took_note(&mut self, what: &Note<'_>) {
        match what {
            Note::Queued(srpm) => {
                self.campaign.take_if(|campaign| campaign.is_over());
                self.is_new |= self.campaign.is_none();
                // Of those that waited already at the start it is part too.
                let begun = Campaign { began: srpm.queued_at, rested_at: None };
                let campaign = self.campaign.get_or_insert(begun);
                self.is_unsaved |= self.is_new || campaign.rested_at.take().is_some();
            }
            Note::Leased(..) | Note::Settled { .. } | Note::Parked { .. } | Note::Withdrawn { .. } => {
                self.is_due = true;
            }
            Note::Ended { .. } | Note::Readopted(..) | Note::Provided { .. } | Note::Happened { .. } => {}
        }
    }

    /// A report is written.
    pub(super) async fn written(&mut self) -> Option<()> {
        self.writing.join_next().await.map(drop)
    }
}

impl Farm {
    /// Writes a report, if there is something to report and nothing moves.
    pub(super) async fn report(&mut self) {
        let Some(campaign) = self.reporting.campaign.filter(|_| self.ready) else { return };
        if std::mem::take(&mut self.reporting.is_new) {
            self.scheduler.begin_campaign();
        }
        if std::mem::take(&mut self.reporting.is_unsaved) {
            let folders = Arc::clone(&self.folders);
            if let Ok(Err(error)) = spawn_blocking(move || campaign.write(&folders)).await {
                tracing::debug!("a restart would begin another campaign: {error:#}");
            }
        }
        let moves = self.scheduler.moves() || !self.publishing.is_idle();
        if moves {
            self.estimate();
        }
        if moves || !self.reporting.is_due || !self.reporting.writing.is_empty() {
            return;
        }
        self.reporting.is_due = false;
        let outlook = self.scheduler.outlook();
        let (folders, history) = (Arc::clone(&self.folders), self.history.clone());
        let critical_path = self.scheduler.critical_path();
        self.reporting.writing.spawn(async move {
            let wrote = spawn_blocking(move || write(&folders, &history, campaign, &outlook, critical_path));
            match wrote.await {
                Ok(Ok(told)) => tracing::info!("{told}"),
                Ok(Err(error)) => tracing::warn!("there is no report: {error:#}"),
                Err(error) => tracing::error!("there is no report: {error}"),
            }
        });
        self.reporting.campaign = Some(Campaign { rested_at: Some(Timestamp::now()), ..campaign });
        self.reporting.is_unsaved = true;
    }

    /// How long the queue will take, in a line of the log.
    fn estimate(&mut self) {
        if self.reporting.estimated_at.elapsed() < ESTIMATE {
            return;
        }
        self.reporting.estimated_at = Instant::now();
        let eta = self.scheduler.eta(self.now(), self.scheduler.slots());
        let (queued, running) = (self.scheduler.queued(), self.scheduler.leases().count());
        let words =
            |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
        let (low, expected, high) = (words(eta.low), words(eta.expected), words(eta.high));
        tracing::info!("{queued} SRPMs wait, {running} are built: about {expected} left ({low} to {high})");
    }
}

/// Blocks. Gives a line for the log.
fn write(
    folders: &Folders,
    history: &Recorder,
    campaign: Campaign,
    outlook: &Outlook,
    critical_path: Duration,
) -> anyhow::Result<String> {
    let since = campaign.began;
    let told = history.ask(move |store| Ok((store.settled_since(since, MOST)?, store.parked()?)));
    let (settled, parked) = told.context("the history cannot be asked")?;
    let settled = last_of_each(settled, outlook);
    let mut report = assemble(&settled, &parked, outlook, critical_path);
    settled_providers::add(folders, &settled, &mut report);
    report::read_excerpts(&folders.repo, &mut report);
    report::write(&folders.repo, &report).context("cannot write it into REPO")?;
    let counts = &report.totals.counts;
    let mut parts = vec![format!("{} built", counts.built)];
    let rest = [
        (counts.failed, "failed"),
        (counts.held, "held"),
        (counts.parked, "parked"),
        (counts.waiting, "waiting"),
    ];
    parts.extend(rest.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    if counts.cycles > 0 {
        parts.push(format!("cycles: {}", counts.cycles));
    }
    let what = if report.standing == Standing::Empty { "the queue is empty" } else { "nothing can move" };
    Ok(format!("{what}: {}; see {}", parts.join(", "), folders.repo.join(report::HTML).display()))
}

/// An SRPM that was built twice, or waits to be built again, is one SRPM.
fn last_of_each(settled: Vec<SettledBuild>, outlook: &Outlook) -> Vec<SettledBuild> {
    let waits: BTreeSet<&BuildKey> = outlook.waiting.iter().map(|(key, _)| key).collect();
    let mut seen = BTreeSet::new();
    let mut last: Vec<_> = settled.into_iter().rev().collect();
    last.retain(|build| !waits.contains(&build.key) && seen.insert(build.key.clone()));
    last.reverse();
    last
}

/// Pure.
fn assemble(settled: &[SettledBuild], parks: &Parks, outlook: &Outlook, critical_path: Duration) -> Report {
    let mut targets: BTreeMap<Option<TargetName>, TargetReport> = BTreeMap::new();
    fn of<'a>(
        targets: &'a mut BTreeMap<Option<TargetName>, TargetReport>,
        target: &Option<TargetName>,
    ) -> &'a mut TargetReport {
        targets.entry(target.clone()).or_insert_with(|| TargetReport::new(target.clone()))
    }
    for build in settled {
        of(&mut targets, &build.key.target).settled(build);
    }
    let states: BTreeMap<&BuildKey, ProviderState> = outlook
        .waiting
        .iter()
        .map(|(key, wait)| {
            (
                key,
                if matches!(wait, Wait::Parked(_)) { ProviderState::Parked } else { ProviderState::Waiting },
            )
        })
        .collect();
    let missing = |missing: &[scheduler::Missing]| -> Vec<Missing> {
        let missing = missing.iter().map(|one| {
            let state = |key| states.get(key).copied().unwrap_or(ProviderState::Queued);
            let providers =
                one.providers.iter().map(|key| Provider { srpm: key.srpm.clone(), state: state(key) });
            let missing = Missing::of(one.requirement.to_string(), providers.collect());
            Missing { is_there: one.is_there, ..missing }
        });
        missing.collect()
    };
    for (key, wait) in &outlook.waiting {
        let target = of(&mut targets, &key.target);
        match wait {
            Wait::Parked(what) => {
                let park = parks.get(key);
                target.parked(Parked {
                    srpm: key.srpm.clone(),
                    since: park.map(|park| park.since),
                    attempts: park.map_or(1, |park| park.tries),
                    missing: missing(what),
                });
            }
            Wait::For(what) => {
                target.waiting(Waiting { srpm: key.srpm.clone(), needs: missing(what) });
            }
            Wait::None => {}
        }
    }
    for key in &outlook.unbuildable {
        of(&mut targets, &key.target).waiting(Waiting { srpm: key.srpm.clone(), needs: Vec::new() });
    }
    for cycle in &outlook.cycles {
        let target = cycle.steps.first().and_then(|(key, _)| key.target.clone());
        let steps = cycle
            .steps
            .iter()
            .map(|(key, requirement)| (key.srpm.stem().to_owned(), requirement.to_string()));
        of(&mut targets, &target).cycle(Cycle::new(steps));
    }
    let is_over = outlook.waiting.is_empty() && outlook.unbuildable.is_empty();
    let standing = if is_over { Standing::Empty } else { Standing::Stuck };
    Report::new(Timestamp::now(), standing, targets.into_values().collect(), critical_path.as_secs())
}
