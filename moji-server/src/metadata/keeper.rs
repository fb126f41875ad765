//! The task that owns the repositories: hints, nudges and time in, runs out.
//!
//! It deliberately does not know how a run is done, and reads no file itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch as state};
use tokio::task::{Id, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::coalescer::{Coalescer, rest};
use super::createrepo::check_program;
use super::packages::Complaints;
use super::refresh::{self, Aim, Ended, Memory, Reached, Run, RunError, Trust, Where};
use super::retention::{self, Held, Policy};
use super::standing::{Follower, Over, Say};
use super::watch::{Hint, Hints};
use super::{Handle, InUse, Maker, MetadataConfig, Nudge, Repository, Served, Standings};

/// How many runs of different repositories may go on at once.
const RUNS_MAX: usize = 2;
const NUDGES_MAX: usize = 64;

/// The task, not started yet.
pub struct Metadata {
    config: MetadataConfig,
    nudges: mpsc::Receiver<Nudge>,
    served: state::Sender<Served>,
    standings: state::Sender<Standings>,
    in_use: state::Receiver<Option<InUse>>,
}

impl Metadata {
    /// The task and the way to talk to it. Nothing is touched yet.
    pub fn new(config: MetadataConfig) -> (Self, Handle) {
        let (sender, nudges) = mpsc::channel(NUDGES_MAX);
        let (served, receiver) = state::channel(Served::new());
        let (standings, told) = state::channel(Standings::new());
        let (used, in_use) = state::channel(None);
        let handle = Handle { nudges: sender, served: receiver, standings: told, in_use: used };
        (Self { config, nudges, served, standings, in_use }, handle)
    }

    /// Keeps the metadata until `shutdown`; then ends children, completes publications that have
    /// begun, and returns. Failures while it runs are logged and tried again.
    ///
    /// # Errors
    /// When REPO or the private folder cannot be used at all, at the start.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { mut config, nudges, served, standings, in_use } = self;
        if let Err(missing) = check_program(&config.createrepo) {
            warn!("builds go on, but dnf will not see them: {missing}");
        }
        let start = spawn_blocking(move || {
            let absolute = |path: &Path| {
                path.canonicalize().with_context(|| format!("failed to find the folder {}", path.display()))
            };
            config.repo = absolute(&config.repo)?;
            config.private = absolute(&config.private)?;
            // Watch first and look then, so that nothing falls between.
            let hints = if config.watch { watch(&config) } else { Hints::none() };
            let nested = refresh::discover(&config, &BTreeSet::new())
                .and_then(|nested| refresh::remove_leftovers(&config, &nested).map(|()| nested))
                .with_context(|| {
                    format!("failed to use {} and {}", config.repo.display(), config.private.display())
                })?;
            anyhow::Ok((config, hints, nested))
        });
        let (config, hints, nested) = start.await.context("the start panicked")??;
        let mut keeper = Keeper {
            config: Arc::new(config),
            served,
            standings,
            in_use,
            shutdown,
            origin: Instant::now(),
            kept: BTreeMap::new(),
            runs: JoinSet::new(),
            running: Vec::new(),
            permits: Arc::new(Semaphore::new(RUNS_MAX)),
        };
        keeper.keep(Repository::Main);
        keeper.set_nested(&nested);
        keeper.until_shutdown(hints, nudges).await;
        Ok(())
    }
}

fn watch(config: &MetadataConfig) -> Hints {
    Hints::watch(&config.repo).unwrap_or_else(|error| {
        let every = humantime::format_duration(config.rescan);
        warn!(
            "cannot watch {} ({error}): looking every {every} instead. \
             If watches are used up, raise the sysctl fs.inotify.max_user_watches",
            config.repo.display()
        );
        Hints::none()
    })
}

/// What is known of one repository between runs.
struct Kept {
    coalescer: Coalescer,
    follower: Follower,
    complaints: Complaints,
    /// What was said of the fixed generation.
    unfixed: Option<String>,
    /// The fixed generations that there are.
    held: Vec<Held>,
    /// What the last run knew, if it ended well; none while one runs.
    memory: Option<Box<Memory>>,
    /// Where something has changed that no run has taken in.
    place: Where,
    preparing: Preparing,
}

/// Reading what is new while the repository is not quiet yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preparing {
    /// Nothing to read.
    Done,
    /// Something changed; not before that.
    Due(Duration),
    /// Something changed meanwhile.
    Running { again: bool },
}

struct Keeper {
    config: Arc<MetadataConfig>,
    served: state::Sender<Served>,
    standings: state::Sender<Standings>,
    in_use: state::Receiver<Option<InUse>>,
    shutdown: CancellationToken,
    /// The coalescers' times count from here.
    origin: Instant,
    kept: BTreeMap<Repository, Kept>,
    runs: JoinSet<Ended>,
    /// Which task runs for which repository, in case it panics.
    running: Vec<(Id, Repository)>,
    permits: Arc<Semaphore>,
}

impl Kept {
    /// Only what is known to have changed is worth reading before it is published.
    fn can_prepare(&self) -> bool {
        let is_told = self.place != Where::Everywhere && self.place != Where::At(BTreeSet::new());
        is_told && self.memory.as_ref().is_some_and(|memory| !memory.is_full())
    }

    /// When there is something to begin.
    fn due(&self) -> Option<Duration> {
        let prepare = match self.preparing {
            Preparing::Running { .. } => return None,
            Preparing::Due(at) if self.can_prepare() => Some(at),
            _ => None,
        };
        [self.coalescer.deadline(), prepare].into_iter().flatten().min()
    }
}

/// What woke the task.
enum Woke {
    Shutdown,
    Ended(Result<(Id, Ended), tokio::task::JoinError>),
    Nudge(Nudge),
    Hint(Hint),
    Rescan,
    Due,
}

impl Keeper {
    async fn until_shutdown(&mut self, mut hints: Hints, mut nudges: mpsc::Receiver<Nudge>) {
        let every = self.config.rescan.max(Duration::from_millis(1));
        let mut rescan = interval_at(Instant::now() + every, every);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut nudges_open = true;
        loop {
            let due = self.begin_due();
            self.tell();
            let woke = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Woke::Shutdown,
                Some(ended) = self.runs.join_next_with_id() => Woke::Ended(ended),
                nudge = nudges.recv(), if nudges_open => match nudge {
                    Some(nudge) => Woke::Nudge(nudge),
                    None => { nudges_open = false; continue }
                },
                hint = hints.next() => Woke::Hint(hint),
                _ = rescan.tick() => Woke::Rescan,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Woke::Due,
            };
            match woke {
                Woke::Shutdown => break,
                Woke::Ended(ended) => self.on_ended(ended),
                Woke::Nudge(Nudge { repository: Repository::Nested(name), entry }) => {
                    self.on_change(name, entry)
                }
                Woke::Nudge(Nudge { repository: Repository::Main, entry: Some(entry) }) => {
                    self.on_change(entry, None)
                }
                Woke::Nudge(Nudge { repository: Repository::Main, entry: None }) => {
                    self.changed(&Repository::Main, None)
                }
                Woke::Hint(Hint::Entry(name, inner)) => self.on_change(name, inner),
                Woke::Hint(Hint::Anywhere) => self.on_change_anywhere(),
                Woke::Rescan => self.rescan(),
                Woke::Due => {}
            }
        }
        while let Some(ended) = self.runs.join_next_with_id().await {
            self.on_ended(ended);
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Something changed in or at an entry of REPO, and if it is a folder, there in or at `inner`. A repository of its own
    /// that is not known (yet) is part of REPO: the run of that finds it.
    fn on_change(&mut self, entry: String, inner: Option<String>) {
        let nested = Repository::Nested(entry.clone());
        if self.kept.contains_key(&nested) {
            self.changed(&nested, inner);
        } else {
            self.changed(&Repository::Main, Some(entry));
        }
    }

    fn changed(&mut self, repository: &Repository, entry: Option<String>) {
        let now = self.now();
        if let Some(kept) = self.kept.get_mut(repository) {
            kept.coalescer.on_change(now);
            kept.follower.on_change(Timestamp::now());
            kept.place.add(entry);
            match &mut kept.preparing {
                Preparing::Done if self.config.maker == Maker::Native => kept.preparing = Preparing::Due(now),
                Preparing::Running { again } => *again = true,
                Preparing::Done | Preparing::Due(_) => {}
            }
        }
    }

    fn on_change_anywhere(&mut self) {
        let now = self.now();
        for kept in self.kept.values_mut() {
            kept.coalescer.on_change(now);
            kept.follower.on_change(Timestamp::now());
            kept.place = Where::Everywhere;
        }
    }

    fn rescan(&mut self) {
        for kept in self.kept.values_mut().filter(|kept| kept.coalescer.is_idle()) {
            kept.coalescer.ask();
            kept.place = Where::Everywhere;
        }
    }

    /// Starts the runs that are due; gives the time at which the next one will be.
    fn begin_due(&mut self) -> Option<Instant> {
        let now = self.now();
        let nested: BTreeSet<String> = self.nested();
        let due = self.kept.values().any(|kept| kept.coalescer.deadline().is_some_and(|at| at <= now));
        let mut expired = if due { self.expired() } else { BTreeMap::new() };
        let mut begun = Vec::new();
        for (repository, kept) in &mut self.kept {
            let aim = match kept.preparing {
                Preparing::Running { .. } => continue,
                _ if kept.coalescer.begin(now) => Aim::Publish,
                Preparing::Due(at) if at <= now && kept.can_prepare() => Aim::Prepare,
                _ => continue,
            };
            let place = match aim {
                Aim::Publish => {
                    kept.follower.begin(Timestamp::now());
                    std::mem::replace(&mut kept.place, Where::At(BTreeSet::new()))
                }
                Aim::Prepare => kept.place.clone(),
            };
            kept.preparing = match aim {
                Aim::Prepare => Preparing::Running { again: false },
                Aim::Publish => Preparing::Done,
            };
            debug!("{repository}: looking");
            let run = Run {
                config: Arc::clone(&self.config),
                repository: repository.clone(),
                nested: nested.clone(),
                complaints: std::mem::take(&mut kept.complaints),
                trust: Trust::Served,
                expired: if aim == Aim::Publish {
                    expired.remove(repository).unwrap_or_default()
                } else {
                    BTreeSet::new()
                },
                memory: kept.memory.take(),
                place,
                aim,
                is_retry: kept.follower.failures() > 0,
            };
            begun.push((repository.clone(), run));
        }
        for (repository, run) in begun {
            let (permits, shutdown) = (Arc::clone(&self.permits), self.shutdown.clone());
            let task = self.runs.spawn(async move {
                let _permit = permits.acquire_owned().await;
                run.run(shutdown).await
            });
            self.running.push((task.id(), repository));
        }
        let next = self.kept.values().filter_map(Kept::due).min();
        next.map(|next| self.origin + next)
    }

    fn on_ended(&mut self, ended: Result<(Id, Ended), tokio::task::JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Some(ended)),
            Err(error) => {
                error!("a look at a repository panicked: {error}");
                (error.id(), None)
            }
        };
        let Some(at) = self.running.iter().position(|(running, _)| *running == id) else { return };
        let (_, repository) = self.running.swap_remove(at);
        let now = self.now();
        let mut maker = None;
        let result = match ended {
            Some(ended) => {
                maker = ended.maker;
                if let Some(kept) = self.kept.get_mut(&repository) {
                    kept.complaints = ended.complaints;
                    kept.memory = ended.memory;
                }
                // A run for REPO tells which there are, also when it failed or had no need to look for them.
                if let Some(nested) = ended.nested {
                    self.set_nested(&nested);
                }
                if ended.aim == Aim::Prepare {
                    return self.on_prepared(&repository, ended.result.err(), now);
                }
                ended.result
            }
            None => Err(RunError::Other(anyhow::anyhow!("it panicked"))),
        };
        match result {
            Ok(None) => {}
            Ok(Some(Reached { generation, unfixed, held })) => {
                if let Some(kept) = self.kept.get_mut(&repository) {
                    kept.coalescer.done();
                    if let Some(Over { failures, seconds }) = kept.follower.done(Timestamp::now()) {
                        let after = humantime::format_duration(Duration::from_secs(seconds));
                        let by = maker.map_or_else(String::new, |maker| format!(" by {maker}"));
                        info!(
                            "{repository}: the metadata are up to date again{by}, after {failures} failed tries in {after}"
                        );
                    }
                    kept.held = held;
                    // Once, and not at every look.
                    if let Some(why) = unfixed.as_ref().filter(|_| kept.unfixed != unfixed) {
                        warn!("{repository}: {why}");
                    }
                    kept.unfixed = unfixed;
                }
                self.served.send_if_modified(|served| {
                    served.insert(repository, generation.clone()).is_none_or(|before| before != generation)
                });
            }
            Err(error) => self.on_failure(&repository, maker, &error),
        }
    }

    /// What came meanwhile is read after a rest, or by the run that publishes it.
    fn on_prepared(&mut self, repository: &Repository, error: Option<RunError>, now: Duration) {
        let Some(kept) = self.kept.get_mut(repository) else { return };
        kept.preparing = match kept.preparing {
            Preparing::Running { again: true } => Preparing::Due(now.saturating_add(self.config.quiet / 4)),
            _ => Preparing::Done,
        };
        if let Some(error) = error {
            // The run that publishes says what is wrong.
            debug!("{repository}: nothing is prepared: {error}");
            kept.preparing = Preparing::Done;
            kept.place = Where::Everywhere;
        }
    }

    fn on_failure(&mut self, repository: &Repository, maker: Option<Maker>, error: &RunError) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(repository) else { return };
        kept.place = Where::Everywhere;
        kept.preparing = Preparing::Done;
        match error {
            RunError::Stopped => return kept.coalescer.done(),
            RunError::Gone if *repository != Repository::Main => {
                kept.coalescer.done();
                kept.follower.again();
                return self.changed(&Repository::Main, None);
            }
            RunError::Overtaken => {
                info!("{repository}: {error}: once more");
                kept.follower.again();
                return kept.coalescer.failed(now, Duration::from_millis(100));
            }
            _ => {}
        }
        let reason = match error {
            RunError::Other(error) => format!("{error:#}"),
            error => error.to_string(),
        };
        let say = kept.follower.failed(maker, reason.clone());
        let mut jitter = [0];
        let _ = getrandom::fill(&mut jitter);
        let [jitter] = jitter;
        let rest = rest(kept.follower.failures(), self.config.rest, self.config.rest_at_most, jitter);
        kept.coalescer.failed(now, rest);
        let again = humantime::format_duration(Duration::from_secs(rest.as_secs().max(1)));
        let by = maker.map_or_else(String::new, |maker| format!(" ({maker})"));
        let (begun, still) = ("the metadata are out of date", "the metadata are still out of date");
        let old = "those from before are still served";
        // Once, and not at every try: whoever watches the farm sees how it goes on.
        match (say, error) {
            (Say::Begun, RunError::Missing(_)) => {
                warn!("{repository}: {begun}: {reason}. Trying again until it goes well, first in {again}");
            }
            (Say::Begun, _) => error!(
                "{repository}: {begun}, {old}{by}: {reason}. Trying again until it goes well, first in {again}"
            ),
            (Say::Other, _) => error!("{repository}: {still}{by}: {reason}. Trying again in {again}"),
            (Say::Nothing, _) => debug!("{repository}: {still}{by}: {reason}. Trying again in {again}"),
        }
    }

    /// Tells how it stands.
    fn tell(&self) {
        self.standings.send_if_modified(|told| {
            let is_same = told.len() == self.kept.len()
                && self
                    .kept
                    .iter()
                    .all(|(name, kept)| told.get(name).is_some_and(|told| *told == kept.follower.standing()));
            if !is_same {
                let now = self.kept.iter().map(|(name, kept)| (name.clone(), kept.follower.standing()));
                *told = now.collect();
            }
            !is_same
        });
    }

    /// The fixed generations that nobody needs.
    fn expired(&self) -> BTreeMap<Repository, BTreeSet<u64>> {
        let in_use = self.in_use.borrow();
        let Some(in_use) = in_use.as_ref() else { return BTreeMap::new() };
        let config = &self.config;
        let policy = Policy {
            keep: config.keep_generations.as_secs(),
            size: config.generations_size,
            grace: config.generations_grace.as_secs(),
        };
        let held = self.kept.iter().map(|(repository, kept)| (repository.clone(), kept.held.clone()));
        retention::expired(&held.collect(), in_use, policy, refresh::now())
    }

    fn keep(&mut self, repository: Repository) {
        let mut coalescer = Coalescer::new(self.config.quiet, self.config.at_most);
        coalescer.ask();
        // What has changed before is not known: it counts from here.
        let mut follower = Follower::default();
        follower.on_change(Timestamp::now());
        let complaints = Complaints::default();
        let kept = Kept {
            coalescer,
            follower,
            complaints,
            unfixed: None,
            held: Vec::new(),
            memory: None,
            place: Where::Everywhere,
            preparing: Preparing::Done,
        };
        self.kept.insert(repository, kept);
    }

    fn nested(&self) -> BTreeSet<String> {
        let name = |repository: &Repository| match repository {
            Repository::Nested(name) => Some(name.clone()),
            Repository::Main => None,
        };
        self.kept.keys().filter_map(name).collect()
    }

    /// Takes in which repositories of their own there are now.
    fn set_nested(&mut self, nested: &BTreeSet<String>) {
        let before = self.nested();
        for name in nested.difference(&before) {
            info!("REPO/{name} is a repository of its own");
            self.keep(Repository::Nested(name.clone()));
        }
        for name in before.difference(nested) {
            let repository = Repository::Nested(name.clone());
            // While a run for it goes on it stays, so that there are never two.
            if self.running.iter().all(|(_, running)| *running != repository) {
                info!("REPO/{name} is gone");
                self.kept.remove(&repository);
                self.served.send_if_modified(|served| served.remove(&repository).is_some());
            }
        }
    }
}
