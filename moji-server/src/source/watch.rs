//! The task that watches SOURCE: it carries out what [`Intake`] and [`Lists`] decide.
//!
//! One job at a time looks (lists folders, asks for single paths), a few read headers; all of them
//! off the async threads, so that a file system that hangs stops neither the server nor its end.
//! Knows what to do, never what it means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use moji_proto::TargetName;
use moji_proto::outcome::one_line;
use notify::RecommendedWatcher;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::folder::{self, Found, Listing, Spot};
use super::hints::{self, Dirty};
use super::intake::{self, Hint, Intake, Reading};
use super::jobs::{self, Done, Keep, Sighting};
use super::known::Known;
use super::lists::{self, Content, Kind, ListName, Lists};
use super::{SourceConfig, SourceEvent};
use crate::BuildKey;

/// Hints that wait; when there are more, everything is looked at.
const HINTS: usize = 4096;
/// Headers that one job reads.
const READS: usize = 64;
/// Jobs that read headers at the same time.
const READERS: usize = 4;
/// Warnings of one list that are logged.
const WARNINGS: usize = 20;

/// Watches SOURCE until `shutdown`, or until nobody receives the events. Waits while the channel
/// is full; what happens meanwhile is found by looking afterwards.
///
/// # Errors
/// When SOURCE cannot be listed at the start. Later trouble is logged, and tried again.
pub async fn watch(
    config: SourceConfig,
    events: mpsc::Sender<SourceEvent>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let source = std::path::absolute(&config.folder)
        .with_context(|| format!("failed to find {}", config.folder.display()))?;
    let (sender, hinted) = mpsc::channel(HINTS);
    let lost = Arc::new(Notify::new());
    let watcher = config
        .watch
        .then(|| notify::recommended_watcher(hints::listener(source.clone(), sender, lost.clone())));
    let watcher = match watcher.transpose() {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(
                "changes in {} are noticed only every {:?}: {error}",
                source.display(),
                config.rescan
            );
            None
        }
    };
    Watch {
        source: source.into(),
        intake: Intake::new(&config),
        lists: Lists::default(),
        begun: Instant::now(),
        begun_at: jobs::nanos(SystemTime::now()),
        jobs: JoinSet::new(),
        looking: false,
        watcher,
        dirty: Dirty { all: true, spots: BTreeMap::new() },
        reads: VecDeque::new(),
        readers: 0,
        start: Some(Start::default()),
        named: BTreeSet::new(),
        headers: config.headers.map(Into::into),
        known: Known::default(),
        keeping: Keeping::default(),
        events,
    }
    .run(hinted, lost, config.rescan, shutdown)
    .await
}

/// What has to be read before [`SourceEvent::Ready`].
#[derive(Debug, Default)]
struct Start {
    /// Everything was listed once; what is read from now on came later.
    listed: bool,
    srpms: BTreeSet<BuildKey>,
    lists: BTreeSet<ListName>,
}

struct Watch {
    source: Arc<Path>,
    intake: Intake,
    lists: Lists,
    begun: Instant,
    /// The same in nanoseconds since 1970.
    begun_at: i64,
    jobs: JoinSet<Done>,
    looking: bool,
    /// Travels with the job that looks: a folder is watched before it is listed.
    watcher: Option<RecommendedWatcher>,
    dirty: Dirty,
    reads: VecDeque<BuildKey>,
    readers: usize,
    /// `None` after [`SourceEvent::Ready`].
    start: Option<Start>,
    /// Paths below SOURCE that were named in the log; those that are still there at a rescan.
    named: BTreeSet<PathBuf>,
    /// Where headers are kept for the next start.
    headers: Option<Arc<Path>>,
    /// Those that the last server kept, until the start is over.
    known: Known,
    keeping: Keeping,
    events: mpsc::Sender<SourceEvent>,
}

/// What is to be done about the headers that are kept.
#[derive(Debug, Default)]
struct Keeping {
    /// Some were read and are not kept.
    is_behind: bool,
    is_due: bool,
    is_busy: bool,
}

/// What the loop does next.
enum Next {
    Stop,
    Done(Done),
    Hints,
    Lost,
    Rescan,
    Tick,
}

impl Watch {
    async fn run(
        mut self,
        mut hinted: mpsc::Receiver<(Spot, Hint)>,
        lost: Arc<Notify>,
        rescan: Duration,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut hints = Vec::new();
        let mut rescans = tokio::time::interval_at(self.begun + rescan, rescan);
        rescans.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.begin_jobs();
            let deadline =
                [self.intake.next_deadline(), self.lists.next_deadline()].into_iter().flatten().min();
            let tick = tokio::time::sleep_until(self.begun + deadline.unwrap_or_default());
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Stop,
                Some(done) = self.jobs.join_next() => Next::Done(done.context("a look at SOURCE failed")?),
                () = lost.notified() => Next::Lost,
                _ = hinted.recv_many(&mut hints, HINTS), if !hinted.is_closed() => Next::Hints,
                () = tick, if deadline.is_some() => Next::Tick,
                _ = rescans.tick() => Next::Rescan,
            };
            let mut out = Vec::new();
            match next {
                Next::Stop => return Ok(()),
                Next::Done(done) => self.done(done, &mut out)?,
                Next::Hints => {
                    for (spot, hint) in hints.drain(..) {
                        self.dirty.add(spot, hint);
                    }
                }
                Next::Lost => self.dirty.all = true,
                Next::Rescan => (self.dirty.all, self.keeping.is_due) = (true, true),
                Next::Tick => {
                    self.intake(intake::Observation::Tick, &mut out);
                    self.lists(lists::Observation::Tick, &mut out);
                }
            }
            for event in out {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    sent = self.events.send(event) => if sent.is_err() { return Ok(()) },
                }
            }
        }
    }

    fn begin_jobs(&mut self) {
        if !self.looking && !self.dirty.is_empty() {
            self.looking = true;
            let Dirty { all, spots } = std::mem::take(&mut self.dirty);
            let (source, watcher) = (self.source.clone(), self.watcher.take());
            let is_first = self.start.as_ref().is_some_and(|start| !start.listed);
            let headers = self.headers.clone().filter(|_| is_first);
            self.jobs.spawn_blocking(move || match headers {
                Some(headers) => jobs::first_look(&source, spots, watcher, &headers),
                None => jobs::look(&source, all, spots, watcher),
            });
        }
        while self.readers < READERS && !self.reads.is_empty() {
            self.readers += 1;
            let keys: Vec<_> = self.reads.drain(..self.reads.len().min(READS)).collect();
            let source = self.source.clone();
            self.jobs.spawn_blocking(move || jobs::read_srpms(&source, keys));
        }
        self.keep_headers();
    }

    /// Not at each change: after the start, and at rescans.
    fn keep_headers(&mut self) {
        let Keeping { is_behind, is_due, is_busy } = self.keeping;
        let Some(headers) = self.headers.clone().filter(|_| is_behind && is_due && !is_busy) else { return };
        self.keeping = Keeping { is_busy: true, ..Keeping::default() };
        let fresh = jobs::FRESH.as_nanos() as i64;
        let keep = self.intake.heads().map(|(key, stamp, head, read_at)| {
            let read_at = self.begun_at.saturating_add(read_at.as_nanos() as i64);
            Keep { key, stamp, head: head.clone(), is_sure: stamp.ctime.saturating_add(fresh) < read_at }
        });
        let (keep, source): (Vec<_>, _) = (keep.collect(), self.source.clone());
        self.jobs.spawn_blocking(move || jobs::keep(&source, &headers, keep));
    }

    fn done(&mut self, done: Done, out: &mut Vec<SourceEvent>) -> anyhow::Result<()> {
        match done {
            Done::Looked { sightings, all, watcher, known } => {
                self.looking = false;
                self.watcher = watcher;
                if self.start.is_some() && known.len() > 0 {
                    self.known = known;
                }
                self.looked(sightings, all, out)?;
            }
            Done::Heads(heads) => {
                self.readers -= 1;
                self.keeping.is_behind = true;
                for (key, head) in heads {
                    if let Some(start) = &mut self.start {
                        start.srpms.remove(&key);
                    }
                    self.intake(intake::Observation::Head { key, head }, out);
                }
            }
            Done::List(list, content) => {
                if let Some(start) = &mut self.start {
                    start.lists.remove(&list);
                }
                self.lists(lists::Observation::Content { list, content }, out);
            }
            Done::Kept(all) => {
                self.keeping.is_busy = false;
                self.keeping.is_behind |= !all;
            }
        }
        if self.start.as_ref().is_some_and(|s| s.listed && s.srpms.is_empty() && s.lists.is_empty()) {
            self.start = None;
            self.known = Known::default();
            self.keeping.is_due = true;
            out.push(SourceEvent::Ready);
        }
        Ok(())
    }

    fn looked(
        &mut self,
        sightings: Vec<Sighting>,
        all: bool,
        out: &mut Vec<SourceEvent>,
    ) -> anyhow::Result<()> {
        let mut odd = BTreeSet::new();
        for sighting in sightings {
            match sighting {
                Sighting::Spot(Spot::Srpm(key), hint, found) => {
                    let sight = self.srpm_at(&key, found, &mut odd);
                    self.intake(intake::Observation::Srpm { key, sight, hint }, out);
                }
                Sighting::Spot(Spot::List(list), hint, found) => {
                    let sight = if let Found::List(sight) = found { Some(sight) } else { None };
                    self.lists(lists::Observation::Seen { list, sight, hint }, out);
                }
                Sighting::Spot(Spot::Other(path), _, Found::Other(why)) => self.name(path, why, &mut odd),
                Sighting::Spot(Spot::Target(target), _, Found::Other(why)) => {
                    self.name(folder::below(Some(&target)), why, &mut odd);
                }
                Sighting::Spot(..) => {}
                Sighting::Folder(target, listing) => self.listed(target, listing, &mut odd, out),
                Sighting::Failed(path, error) => {
                    if all && path.as_os_str().is_empty() && self.start.as_ref().is_some_and(|s| !s.listed) {
                        anyhow::bail!("failed to list {}: {error}", self.source.display());
                    }
                    self.name(path, &error, &mut odd);
                }
            }
        }
        if all {
            // What is no longer odd is named again when it becomes so again.
            self.named = odd;
            if let Some(start) = &mut self.start {
                start.listed = true;
            }
        }
        Ok(())
    }

    fn listed(
        &mut self,
        target: Option<TargetName>,
        listing: Listing,
        odd: &mut BTreeSet<PathBuf>,
        out: &mut Vec<SourceEvent>,
    ) {
        let Listing { srpms, lists, targets, others } = listing;
        for (path, why) in others {
            self.name(path, why, odd);
        }
        for kind in Kind::ALL {
            let (list, sight) = (ListName { target: target.clone(), kind }, lists.get(&kind).copied());
            self.lists(lists::Observation::Seen { list, sight, hint: Hint::Touched }, out);
        }
        if target.is_none() {
            self.lists(lists::Observation::Targets(targets.clone()), out);
            self.intake(intake::Observation::Targets(targets), out);
        }
        self.intake(intake::Observation::Folder { target, srpms }, out);
    }

    fn srpm_at(
        &mut self,
        key: &BuildKey,
        found: Found,
        odd: &mut BTreeSet<PathBuf>,
    ) -> Option<folder::Sight> {
        match found {
            Found::Srpm(sight) => return Some(sight),
            Found::Other(why) => self.name(key.path(), why, odd),
            _ => {}
        }
        None
    }

    /// Names what is left alone, once.
    fn name(&mut self, path: PathBuf, why: &str, odd: &mut BTreeSet<PathBuf>) {
        if self.named.insert(path.clone()) {
            // Whoever may put files there must not write lines of this log.
            let shown = one_line(&self.source.join(&path).to_string_lossy());
            tracing::warn!("{shown} is left alone: {why}");
        }
        odd.insert(path);
    }

    fn intake(&mut self, observation: intake::Observation, out: &mut Vec<SourceEvent>) {
        for action in self.intake.handle(self.begun.elapsed(), observation) {
            match action {
                intake::Action::Look(key) => self.dirty.add(Spot::Srpm(key), Hint::Touched),
                intake::Action::Read(key) => {
                    if let Some(head) = self.known_head(&key) {
                        self.intake(intake::Observation::Head { key, head }, out);
                        continue;
                    }
                    if let Some(start) = self.start.as_mut().filter(|start| !start.listed) {
                        start.srpms.insert(key.clone());
                    }
                    self.reads.push_back(key);
                }
                intake::Action::Tell(event) => out.push(event),
                intake::Action::Warn(text) => tracing::warn!("{text}"),
            }
        }
    }

    /// What the last server has read, if the file looks as it did.
    fn known_head(&mut self, key: &BuildKey) -> Option<Reading> {
        let stamp = self.intake.stamp_of(key)?;
        Some(Reading::Head(stamp, self.known.take(key, stamp)?))
    }

    fn lists(&mut self, observation: lists::Observation, out: &mut Vec<SourceEvent>) {
        for action in self.lists.handle(self.begun.elapsed(), observation) {
            match action {
                lists::Action::Look(list) => self.dirty.add(Spot::List(list), Hint::Touched),
                lists::Action::Read(list) => {
                    if let Some(start) = self.start.as_mut().filter(|start| !start.listed) {
                        start.lists.insert(list.clone());
                    }
                    let source = self.source.clone();
                    self.jobs.spawn_blocking(move || jobs::read_list(&source, list));
                }
                lists::Action::Tell(list, content) => {
                    log_list(&list, &content);
                    out.push(content.event(list.target));
                }
                lists::Action::Warn(text) => tracing::warn!("{text}"),
            }
        }
    }
}

fn log_list(list: &ListName, content: &Content) {
    let path = list.path();
    let path = path.display();
    tracing::info!("{path}: {} entries", content.len());
    let (warnings, unsaid) = content.warnings();
    for warning in warnings.iter().take(WARNINGS) {
        tracing::warn!("{path}:{}: {}", warning.line, warning.text);
    }
    let more = warnings.len().saturating_sub(WARNINGS) + unsaid;
    if more > 0 {
        tracing::warn!("{path}: {more} more lines are not understood");
    }
}
