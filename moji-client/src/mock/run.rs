//! One supervised run of Mock: started, watched, ended, cleaned up.
//!
//! What Mock does with signals decides how it is ended (measured with 6.7):
//!
//! - SIGTERM: Mock kills everything in its chroot, also what ignores SIGTERM, and exits with 143
//!   within 0.3 s. It leaves the chroot (0.5 GB).
//! - SIGKILL: rpmbuild lives on, in a session of its own.
//! - A caller that is not root gets EPERM while Mock runs as root (unpacking, dnf, cleaning), and
//!   `mock --orphanskill` works for it only during rpmbuild.
//!
//! Hence the ladder of [`run`]: SIGTERM; after a grace, or at once after EPERM, `--orphanskill`;
//! after another grace SIGKILL; and all of it again until Mock has ended, because a phase in which
//! nothing is allowed comes to an end (nearly always: see [`Limits::stop_timeout`]). After SIGKILL `--orphanskill` again, and in the end `--clean`.
//!
//! Deliberately unknown here: what is built, what the logs mean (see [`classify`](super::classify()))
//! and who cancels and why.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use super::child::environment;
use super::child::{Output, Process, describe, ended, run_briefly};
use super::command::{Argv, Root};
use super::evidence::{Ended, free_bytes};
use super::sweep::clear;

/// How long the last look at a disk may take, when Mock has ended: a dead network file system does
/// not answer.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// What to run and how to watch it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The command: [`Root::rebuild`].
    pub argv: Argv,
    /// The root it uses, to clean up after it.
    pub root: Root,
    /// The whole environment of Mock: [`environment`].
    pub env: Vec<(OsString, OsString)>,
    /// Where Mock's standard output and error are appended: its only place for messages about
    /// configs, SRPMs and locks.
    pub mock_log: PathBuf,
    /// Where the output of `--orphanskill` and `--clean` is appended. Another file than
    /// [`mock_log`](Self::mock_log), which says how the build went.
    pub cleanup_log: PathBuf,
    /// Files whose growth is a sign of life, beside [`mock_log`](Self::mock_log). They need not
    /// exist yet.
    pub watched: Vec<PathBuf>,
    /// Paths on the file systems whose free space is watched: the results' and the roots'.
    pub disks: Vec<PathBuf>,
    /// Time limits.
    pub limits: Limits,
}

/// Time limits of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From start to end; `None`: any time. Mock's own `--rpmbuild_timeout` bounds rpmbuild only:
    /// a hung dnf would hang for ever.
    pub build_timeout: Option<Duration>,
    /// How long no watched file may change; `None`: any time.
    pub stall_timeout: Option<Duration>,
    /// How long each step of the ladder may take effect.
    pub grace: Duration,
    /// How long the ladder is climbed again and again before Mock is left behind.
    pub stop_timeout: Duration,
    /// How long cleaning up may take altogether.
    pub clean_timeout: Duration,
}

impl Default for Limits {
    /// No limit for the build, 10 s grace, 30 min until Mock is left behind, 5 min to clean up.
    fn default() -> Self {
        Self {
            build_timeout: None,
            stall_timeout: None,
            grace: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(30 * 60),
            clean_timeout: Duration::from_secs(300),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How Mock ended.
    pub ended: Ended,
    /// The lowest free space in bytes that was seen on [`Job::disks`].
    pub lowest_free: Option<u64>,
    /// The process id of a Mock that could not be ended, when there is one. Its root stays locked:
    /// give the slot nothing to build before [`clear`] succeeds on it.
    pub left_behind: Option<u32>,
}

impl Report {
    fn without_mock(ended: Ended) -> Self {
        Self { ended, lowest_free: None, left_behind: None }
    }
}

/// Runs Mock until it ends, `cancel` is cancelled or a limit is reached; in the latter cases ends
/// it, and cleans its root when it was stopped by anyone.
///
/// When this returns, no process of the run is alive, even when a phase in which Mock must not be
/// signalled takes long (a warning each round says so). The one exception is a Mock that hangs in
/// such a phase for [`Limits::stop_timeout`]: waiting for ever would keep the build's lease alive
/// for ever, so it is left behind and [`Report::left_behind`] says so. A process that ended by
/// itself before it was stopped counts as ended by itself.
///
/// Dropping the future sends SIGTERM to Mock, which then ends its chroot's processes, and waits
/// for nothing; the root is cleaned by the next run on it or by [`sweep`](super::sweep::sweep).
pub async fn run(job: &Job, cancel: &CancellationToken) -> Report {
    if cancel.is_cancelled() {
        return Report::without_mock(Ended::Cancelled);
    }
    let started =
        Output::append(&job.mock_log).and_then(|output| Process::start(&job.argv, &job.env, output));
    let mut mock = match started {
        Ok(mock) => mock,
        Err(error) => {
            return Report::without_mock(Ended::NotStarted(describe(&job.argv, &error)));
        }
    };
    info!(pid = mock.id(), root = job.root.uniqueext().as_str(), "Mock started");
    let mut watch = Watch::new(job);
    let mut left_behind = None;
    let ended = match supervise(&mut mock, job, cancel, &mut watch).await {
        End::ByItself(status) => {
            let ended = ended(status);
            match ended {
                // Nobody ended what ran in the chroot.
                Ended::Signal(_) => clean_up(job, true).await,
                // Mock did, but left the chroot.
                Ended::Exit(129 | 141 | 143) => clean_up(job, false).await,
                _ => {}
            }
            ended
        }
        End::Stop(why) => {
            info!(pid = mock.id(), ?why, "stopping Mock");
            match stop(&mut mock, job).await {
                Stopped::Ended { orphans } => clean_up(job, orphans).await,
                Stopped::Not => left_behind = Some(mock.id()),
            }
            why
        }
    };
    // A short build may be over before a look has seen the disk that filled up under it.
    let _ = timeout(LAST_LOOK, watch.look_once_more()).await;
    Report { ended, lowest_free: watch.lowest_free, left_behind }
}

enum End {
    ByItself(io::Result<ExitStatus>),
    Stop(Ended),
}

async fn supervise(mock: &mut Process, job: &Job, cancel: &CancellationToken, watch: &mut Watch) -> End {
    let deadline = job.limits.build_timeout.and_then(|time| Instant::now().checked_add(time));
    let mut tick = tokio::time::interval(watch.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stalled = watch.stalled_at();
        tokio::select! {
            biased;
            status = mock.wait() => return End::ByItself(status),
            () = cancel.cancelled() => return End::Stop(Ended::Cancelled),
            () = at(deadline) => return End::Stop(Ended::TimedOut),
            () = watch.looked(), if watch.looking.is_some() => {}
            () = at(stalled) => return End::Stop(Ended::Stalled),
            _ = tick.tick(), if watch.looking.is_none() => watch.look(),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

enum Stopped {
    /// Mock has ended; whether processes of its chroot may have survived it.
    Ended { orphans: bool },
    /// Mock runs on.
    Not,
}

/// The ladder.
async fn stop(mock: &mut Process, job: &Job) -> Stopped {
    let grace = job.limits.grace;
    let begin = Instant::now();
    // Mock that ends by a signal did not run its handler, which ends what is in the chroot.
    let stopped =
        |status: io::Result<ExitStatus>| Stopped::Ended { orphans: !matches!(ended(status), Ended::Exit(_)) };
    loop {
        // With EPERM there is nothing to wait for.
        let sent = mock.signal(Signal::TERM);
        if sent != Err(Errno::PERM)
            && let Some(status) = mock.wait_for(grace).await
        {
            return stopped(status);
        }
        debug!(pid = mock.id(), ?sent, "SIGTERM did not end Mock");
        orphanskill(job).await;
        if let Some(status) = mock.wait_for(grace).await {
            return stopped(status);
        }
        let sent = mock.signal(Signal::KILL);
        if let Some(status) = mock.wait_for(grace).await {
            return stopped(status);
        }
        if begin.elapsed() >= job.limits.stop_timeout {
            error!(pid = mock.id(), ?sent, "Mock cannot be ended; leaving it behind, root and slot with it");
            return Stopped::Not;
        }
        warn!(pid = mock.id(), ?sent, "Mock cannot be ended in this phase, trying again");
    }
}

async fn orphanskill(job: &Job) {
    let argv = job.root.orphanskill();
    let output = Output::append(&job.cleanup_log);
    // It takes a second or two; a hung one must not keep the ladder from its next step.
    let limit = job.limits.grace.saturating_mul(3);
    let how = run_briefly(&argv, &job.env, output, limit, job.limits.grace).await;
    debug!(?how, "mock --orphanskill");
}

async fn clean_up(job: &Job, orphans: bool) {
    let cleared = clear(&job.root, &job.env, &job.cleanup_log, &job.limits, orphans).await;
    if let Err(error) = cleared {
        warn!(root = job.root.uniqueext().as_str(), %error, "a stopped build's root is not clean");
    }
}

/// What was last seen of one file: its size and the time of its last change.
type Seen = Option<(u64, Option<SystemTime>)>;

/// Signs of life and free space, looked at in a thread that may block: a dead network file system
/// must not stop the supervision.
struct Watch {
    files: Vec<PathBuf>,
    disks: Vec<PathBuf>,
    stall_timeout: Option<Duration>,
    tick: Duration,
    seen: Vec<Seen>,
    last_change: Instant,
    lowest_free: Option<u64>,
    looking: Option<JoinHandle<(Vec<Seen>, Option<u64>)>>,
}

impl Watch {
    fn new(job: &Job) -> Self {
        let mut files = job.watched.clone();
        files.push(job.mock_log.clone());
        // A twentieth of the watchdog's time is precise enough for it; the disk can fill quickly.
        let tick = job.limits.stall_timeout.map_or(Duration::from_secs(1), |time| time / 20);
        Self {
            seen: vec![None; files.len()],
            files,
            disks: job.disks.clone(),
            stall_timeout: job.limits.stall_timeout,
            tick: tick.clamp(Duration::from_millis(5), Duration::from_secs(1)),
            last_change: Instant::now(),
            lowest_free: None,
            looking: None,
        }
    }

    /// When the run counts as stalled, if nothing changes. A tick later than the limit says, so
    /// that what was written just before it has been seen.
    fn stalled_at(&self) -> Option<Instant> {
        self.last_change.checked_add(self.stall_timeout?.checked_add(self.tick)?)
    }

    fn look(&mut self) {
        let (files, disks) = (self.files.clone(), self.disks.clone());
        self.looking = Some(tokio::task::spawn_blocking(move || {
            let seen = files.iter().map(|file| look_at(file)).collect();
            let free = disks.iter().filter_map(|disk| free_bytes(disk)).min();
            (seen, free)
        }));
    }

    /// A look that begins now, and not before.
    async fn look_once_more(&mut self) {
        self.looked().await;
        self.look();
        self.looked().await;
    }

    /// Waits for the look that is under way. Cancel safe.
    async fn looked(&mut self) {
        let Some(looking) = &mut self.looking else { return };
        let result = looking.await;
        self.looking = None;
        let Ok((seen, free)) = result else { return };
        if seen != self.seen {
            self.seen = seen;
            self.last_change = Instant::now();
        }
        self.lowest_free = self.lowest_free.into_iter().chain(free).min();
    }
}

fn look_at(file: &Path) -> Seen {
    let metadata = std::fs::symlink_metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}
