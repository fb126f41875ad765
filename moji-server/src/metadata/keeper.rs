//! The task that owns the repositories: hints, nudges and time in, runs out.
//!
//! It deliberately does not know how a run is done, and reads no file itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc, watch as state};
use tokio::task::{Id, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::coalescer::{Coalescer, rest};
use super::createrepo::check_program;
use super::packages::Complaints;
use super::refresh::{self, Ended, Reached, Run, RunError, Trust};
use super::retention::{self, Held, Policy};
use super::watch::{Hint, Hints};
use super::{Handle, InUse, MetadataConfig, Repository, Served};

/// How many runs of different repositories may go on at once.
const RUNS_MAX: usize = 2;
const NUDGES_MAX: usize = 64;

/// The task, not started yet.
pub struct Metadata {
    config: MetadataConfig,
    nudges: mpsc::Receiver<Repository>,
    served: state::Sender<Served>,
    in_use: state::Receiver<Option<InUse>>,
}

impl Metadata {
    /// The task and the way to talk to it. Nothing is touched yet.
    pub fn new(config: MetadataConfig) -> (Self, Handle) {
        let (sender, nudges) = mpsc::channel(NUDGES_MAX);
        let (served, receiver) = state::channel(Served::new());
        let (used, in_use) = state::channel(None);
        let handle = Handle { nudges: sender, served: receiver, in_use: used };
        (Self { config, nudges, served, in_use }, handle)
    }

    /// Keeps the metadata until `shutdown`; then ends children, completes publications that have
    /// begun, and returns. Failures while it runs are logged and tried again.
    ///
    /// # Errors
    /// When REPO or the private folder cannot be used at all, at the start.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { mut config, nudges, served, in_use } = self;
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
    failures: u32,
    complaints: Complaints,
    /// What was said of the fixed generation.
    unfixed: Option<String>,
    /// The fixed generations that there are.
    held: Vec<Held>,
}

struct Keeper {
    config: Arc<MetadataConfig>,
    served: state::Sender<Served>,
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

/// What woke the task.
enum Woke {
    Shutdown,
    Ended(Result<(Id, Ended), tokio::task::JoinError>),
    Nudge(Repository),
    Hint(Hint),
    Rescan,
    Due,
}

impl Keeper {
    async fn until_shutdown(&mut self, mut hints: Hints, mut nudges: mpsc::Receiver<Repository>) {
        let every = self.config.rescan.max(Duration::from_millis(1));
        let mut rescan = interval_at(Instant::now() + every, every);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut nudges_open = true;
        loop {
            let due = self.begin_due();
            let woke = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Woke::Shutdown,
                Some(ended) = self.runs.join_next_with_id() => Woke::Ended(ended),
                nudge = nudges.recv(), if nudges_open => match nudge {
                    Some(repository) => Woke::Nudge(repository),
                    None => { nudges_open = false; continue }
                },
                hint = hints.next() => Woke::Hint(hint),
                _ = rescan.tick() => Woke::Rescan,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Woke::Due,
            };
            match woke {
                Woke::Shutdown => break,
                Woke::Ended(ended) => self.on_ended(ended),
                Woke::Nudge(repository) => self.on_change(&repository),
                Woke::Hint(Hint::Entry(name)) => self.on_change(&Repository::Nested(name)),
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

    /// A repository of its own that is not known (yet) is part of REPO: the run of that finds it.
    fn on_change(&mut self, repository: &Repository) {
        let now = self.now();
        let known = if self.kept.contains_key(repository) { repository } else { &Repository::Main };
        if let Some(kept) = self.kept.get_mut(known) {
            kept.coalescer.on_change(now);
        }
    }

    fn on_change_anywhere(&mut self) {
        let now = self.now();
        self.kept.values_mut().for_each(|kept| kept.coalescer.on_change(now));
    }

    fn rescan(&mut self) {
        self.kept.values_mut().filter(|kept| kept.coalescer.is_idle()).for_each(|kept| kept.coalescer.ask());
    }

    /// Starts the runs that are due; gives the time at which the next one will be.
    fn begin_due(&mut self) -> Option<Instant> {
        let now = self.now();
        let nested: BTreeSet<String> = self.nested();
        let due = self.kept.values().any(|kept| kept.coalescer.deadline().is_some_and(|at| at <= now));
        let mut expired = if due { self.expired() } else { BTreeMap::new() };
        for (repository, kept) in &mut self.kept {
            if !kept.coalescer.begin(now) {
                continue;
            }
            debug!("{repository}: looking");
            let run = Run {
                config: Arc::clone(&self.config),
                repository: repository.clone(),
                nested: nested.clone(),
                complaints: std::mem::take(&mut kept.complaints),
                trust: Trust::Served,
                expired: expired.remove(repository).unwrap_or_default(),
            };
            let (permits, shutdown) = (Arc::clone(&self.permits), self.shutdown.clone());
            let task = self.runs.spawn(async move {
                let _permit = permits.acquire_owned().await;
                run.run(shutdown).await
            });
            self.running.push((task.id(), repository.clone()));
        }
        let next = self.kept.values().filter_map(|kept| kept.coalescer.deadline()).min();
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
        let result = match ended {
            Some(ended) => {
                if let Some(kept) = self.kept.get_mut(&repository) {
                    kept.complaints = ended.complaints;
                }
                if let Some(nested) = ended.nested {
                    self.set_nested(&nested);
                }
                ended.result
            }
            None => Err(RunError::Other(anyhow::anyhow!("it panicked"))),
        };
        match result {
            Ok(Reached { generation, unfixed, held }) => {
                if let Some(kept) = self.kept.get_mut(&repository) {
                    kept.coalescer.done();
                    kept.failures = 0;
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
            Err(error) => self.on_failure(&repository, &error),
        }
    }

    fn on_failure(&mut self, repository: &Repository, error: &RunError) {
        let now = self.now();
        let Some(kept) = self.kept.get_mut(repository) else { return };
        match error {
            RunError::Stopped => return kept.coalescer.done(),
            RunError::Gone if *repository != Repository::Main => {
                kept.coalescer.done();
                return self.on_change(&Repository::Main);
            }
            RunError::Overtaken => {
                info!("{repository}: {error}: once more");
                return kept.coalescer.failed(now, Duration::from_millis(100));
            }
            _ => {}
        }
        kept.failures = kept.failures.saturating_add(1);
        let mut jitter = [0];
        let _ = getrandom::fill(&mut jitter);
        let [jitter] = jitter;
        let rest = rest(kept.failures, self.config.rest, self.config.rest_at_most, jitter);
        kept.coalescer.failed(now, rest);
        let again = humantime::format_duration(Duration::from_secs(rest.as_secs().max(1)));
        match error {
            RunError::Missing(missing) => {
                warn!("{repository}: the metadata are out of date: {missing}. Trying again in {again}")
            }
            RunError::Other(error) => error!(
                "{repository}: the metadata are out of date, those from before are still served: {error:#}. Trying again in {again}"
            ),
            error => error!("{repository}: the metadata are out of date: {error}. Trying again in {again}"),
        }
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
        let complaints = Complaints::default();
        let kept = Kept { coalescer, failures: 0, complaints, unfixed: None, held: Vec::new() };
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
