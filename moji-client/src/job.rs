//! One attempt in a slot, from the SRPM's first byte until its results are in the outbox.
//!
//! Once the SRPM is here a job needs no connection: what it has of one, for the live logs, comes and
//! goes. It does not know what becomes of the results.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use moji_proto::io::{IncomingStream, Piece};
use moji_proto::limits::DATA_BYTES;
use moji_proto::{Assignment, FailureKind, Hasher, LogFile, Outcome, Phase, Sha256, SrpmName, ToServer};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::builder::{BuildTask, Builder};
use crate::connection::Lease;
use crate::crash::{self, Point};
use crate::disk::{FreeSpace, readable};
use crate::mock::logs::PhaseParser;
use crate::outbox::{self, Files, Finished, Parcel};
use crate::tail::{Tail, read_from};
use crate::work_dir::WorkDir;

/// How long to wait before results that did not fit on the disk are packed again.
const PACK_AGAIN: Duration = Duration::from_secs(15);

/// How long the last lines of the live logs may take when Mock has ended.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How often state.log is looked at for the phase.
const PHASE_EVERY: Duration = Duration::from_secs(1);

/// Everything that a job needs.
pub struct Job {
    /// What to build.
    pub assignment: Assignment,
    /// The SRPM as it comes.
    pub srpm: IncomingStream<ToServer>,
    /// The connection over which live logs may be sent, while there is one.
    pub lease: watch::Receiver<Option<Lease>>,
    /// Where it is told how far the job is.
    pub progress: mpsc::Sender<(u16, Progress)>,
    /// Ends the job early.
    pub cancel: CancellationToken,
    /// What builds.
    pub builder: Arc<dyn Builder>,
    /// Where to work.
    pub work_dir: Arc<WorkDir>,
    /// Most bytes of one log.
    pub log_limit: u64,
    /// How much room there is.
    pub free_space: FreeSpace,
    /// So much of it is to stay, in bytes; 0: it does not matter.
    pub min_free: u64,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another phase has begun.
    Phase(Phase),
    /// The SRPM is here, whole; its digest.
    Received(Sha256),
}

/// How a job ended. Nothing of it is left in the slot's folder.
#[derive(Debug)]
pub enum End {
    /// It was cancelled, or its connection ended while the SRPM came.
    Nothing,
    /// Something is wrong with this machine.
    Trouble(anyhow::Error),
    /// The results are in the outbox.
    Packed(Parcel),
}

/// Why there are no results.
enum Stop {
    Cancelled,
    Trouble(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

impl Job {
    /// Does all of it. What is left in the slot's folder is the caller's to remove.
    pub async fn run(mut self) -> End {
        let folder = self.work_dir.attempt(self.assignment.slot, self.assignment.attempt);
        match self.attempt(&folder).await {
            Ok(parcel) => End::Packed(parcel),
            Err(Stop::Cancelled) => End::Nothing,
            Err(Stop::Trouble(_)) if self.cancel.is_cancelled() => End::Nothing,
            Err(Stop::Trouble(error)) => End::Trouble(error),
        }
    }

    async fn attempt(&mut self, folder: &Path) -> Result<Parcel, Stop> {
        let (resultdir, mock_log) = (folder.join(outbox::RESULT), folder.join(outbox::MOCK_LOG));
        let made = resultdir.clone();
        spawn_blocking(move || fs::create_dir_all(&made))
            .await?
            .with_context(|| format!("cannot make {}", resultdir.display()))?;
        let srpm = folder.join(&self.assignment.srpm);
        let srpm_sha256 = self.receive(&srpm).await?;
        crash::at(Point::Received);
        self.tell(Progress::Received(srpm_sha256)).await;
        let task = BuildTask {
            slot: self.assignment.slot,
            target: self.assignment.target.clone(),
            repository: self.assignment.repository.clone(),
            srpm,
            resultdir: resultdir.clone(),
            mock_log: mock_log.clone(),
        };
        let outcome = self.build(task).await?;
        crash::at(Point::Built);
        match &outcome {
            Outcome::Succeeded => tracing::info!("{} is built", self.assignment.srpm),
            Outcome::Failed { kind, reason, .. } => {
                tracing::warn!("{} failed ({kind}): {reason}", self.assignment.srpm);
            }
        }
        let Assignment { attempt, srpm, target, .. } = self.assignment.clone();
        let finished_at = Timestamp::now();
        let finished = Finished { attempt, srpm, srpm_sha256, target, outcome, finished_at };
        let (to, log_limit) = (self.work_dir.outbox(finished.attempt), self.log_limit);
        let passed = |step: outbox::Step| {
            crash::at(step.into());
            Ok(())
        };
        let (at, noted) = (folder.to_owned(), finished.clone());
        // Without it a client that is killed while it packs has the SRPM built again; no more.
        if let Ok(Err(error)) = spawn_blocking(move || outbox::note_finished(&at, &noted)).await {
            tracing::debug!("{}: cannot note that it has ended: {error}", self.assignment.srpm);
        }
        let useless = (!finished.outcome.is_success()).then(|| resultdir.clone());
        let pack = move |files| {
            outbox::pack(&resultdir, &mock_log, &to, finished.clone(), (files, log_limit), passed)
        };
        packed_at_last(&self.assignment.srpm, &self.cancel, pack, useless).await
    }

    async fn tell(&self, progress: Progress) {
        let _ = self.progress.send((self.assignment.slot, progress)).await;
    }

    /// The SRPM into a file, checked against its size and digest.
    async fn receive(&mut self, path: &Path) -> Result<Sha256, Stop> {
        self.tell(Progress::Phase(Phase::Receiving)).await;
        self.check_room().await?;
        let created = path.to_owned();
        let mut file =
            spawn_blocking(move || File::create_new(created)).await?.context("cannot store the SRPM")?;
        let (mut hasher, mut size) = (Hasher::new(), 0);
        loop {
            let piece = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Stop::Cancelled),
                piece = self.srpm.next() => piece,
            };
            match piece {
                Some(Piece::Data(bytes)) => {
                    let length = bytes.len() as u64;
                    size += length;
                    if size > self.assignment.size {
                        Err(anyhow!("more bytes came than the SRPM has"))?;
                    }
                    let written = spawn_blocking(move || {
                        hasher.update(&bytes);
                        file.write_all(&bytes).map(|()| (file, hasher))
                    });
                    (file, hasher) = written.await?.context("cannot store the SRPM")?;
                    // The connection's end is seen at the next piece.
                    let _ = self.srpm.wrote(length);
                }
                Some(Piece::End(sha256)) => {
                    let digest = hasher.finish();
                    if size != self.assignment.size || sha256 != Some(digest) {
                        Err(anyhow!("the SRPM arrived damaged"))?;
                    }
                    return Ok(digest);
                }
                Some(Piece::Abort(reason)) => Err(anyhow!("the server cannot send the SRPM: {reason}"))?,
                None => return Err(Stop::Cancelled),
            }
        }
    }

    /// A server that is hostile, or knows no better, must not fill the disk.
    async fn check_room(&self) -> anyhow::Result<()> {
        if self.min_free == 0 {
            return Ok(());
        }
        let (free_space, min_free, size) = (self.free_space.clone(), self.min_free, self.assignment.size);
        let room = spawn_blocking(move || free_space.look()).await?.map(|free| free.saturating_sub(min_free));
        match room.filter(|room| *room < size) {
            None => Ok(()),
            Some(room) => {
                bail!(
                    "the SRPM has {}, and there is room for {} (--min-free)",
                    readable(size),
                    readable(room)
                )
            }
        }
    }

    /// Mock, with its logs followed and its phase told.
    async fn build(&self, task: BuildTask) -> Result<Outcome, Stop> {
        self.tell(Progress::Phase(Phase::Preparing)).await;
        let ended = CancellationToken::new();
        let mut tails = JoinSet::new();
        for file in LogFile::ALL {
            let path = match file {
                LogFile::Mock => task.mock_log.clone(),
                _ => task.resultdir.join(file.file_name()),
            };
            // Half of the limit: that much stays the same when the log is cut in the end.
            let tail = Tail { attempt: self.assignment.attempt, file, path, limit: self.log_limit / 2 };
            tails.spawn(tail.follow(self.lease.clone(), ended.clone()));
        }
        let state_log = task.resultdir.join(LogFile::State.file_name());
        let building = Arc::clone(&self.builder).build(task, self.cancel.clone());
        let outcome = tokio::select! {
            outcome = building => outcome,
            never = self.watch_phase(state_log) => never,
        };
        let was_stopped = matches!(&outcome, Ok(Outcome::Failed { kind: FailureKind::Interrupted, .. }));
        if outcome.is_ok() && !was_stopped {
            // At once: from now on a signal does not give it back.
            self.tell(Progress::Phase(Phase::Delivering)).await;
        }
        ended.cancel();
        // On a slow line the live view may be far behind: the logs come once more with the results.
        let _ = timeout(LAST_LINES, async { while tails.join_next().await.is_some() {} }).await;
        if was_stopped { Err(Stop::Cancelled) } else { Ok(outcome?) }
    }

    /// Tells each new phase; never ends.
    async fn watch_phase(&self, state_log: PathBuf) -> anyhow::Result<Outcome> {
        let mut parser = PhaseParser::new();
        let mut seen = 0;
        loop {
            sleep(PHASE_EVERY).await;
            let Ok(new) = read_from(state_log.clone(), seen, DATA_BYTES as u64).await else { continue };
            seen += new.len() as u64;
            if let Some(phase) = parser.push(&new) {
                self.tell(Progress::Phase(phase)).await;
            }
        }
    }
}

/// The results into the outbox. A build that has ended is not thrown away because the disk is full:
/// it is packed again and again until there is room, or nobody wants it. The RPMs of a failure make
/// room first: `useless` is where they are.
async fn packed_at_last(
    srpm: &SrpmName,
    cancel: &CancellationToken,
    pack: impl Fn(Files) -> anyhow::Result<Parcel> + Clone + Send + 'static,
    mut useless: Option<PathBuf>,
) -> Result<Parcel, Stop> {
    let (mut has_failed, mut files) = (false, Files::AsBuilt);
    loop {
        let pack = pack.clone();
        match spawn_blocking(move || pack(files)).await? {
            Ok(parcel) => {
                if has_failed {
                    tracing::info!("the results of {srpm} are stored now");
                }
                return Ok(parcel);
            }
            Err(error) if outbox::is_disk_trouble(&error) => {
                if outbox::was_not_taken(&error) {
                    files = Files::Copied;
                }
                if let Some(resultdir) = useless.take() {
                    tracing::warn!("{srpm} has failed, and its RPMs are removed to make room: {error:#}");
                    spawn_blocking(move || outbox::drop_rpms(&resultdir)).await?;
                    continue;
                }
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::error!(
                        "{srpm} has ended, but its results cannot be stored; trying again every {} s: {error:#}",
                        PACK_AGAIN.as_secs()
                    );
                }
            }
            Err(error) => return Err(Stop::Trouble(error)),
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Stop::Cancelled),
            () = sleep(PACK_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Fails with `error` each time, and counts.
    fn fails(
        error: i32,
    ) -> (Arc<AtomicUsize>, impl Fn(Files) -> anyhow::Result<Parcel> + Clone + Send + 'static) {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        let pack = move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Err(io::Error::from_raw_os_error(error)).context("cannot pack build.log")
        };
        (tries, pack)
    }

    #[tokio::test(start_paused = true)]
    async fn results_that_find_no_room_are_packed_until_nobody_wants_them() {
        let (tries, pack) = fails(rustix::io::Errno::NOSPC.raw_os_error());
        let (srpm, cancel) = ("a-1-1.src.rpm".parse().unwrap(), CancellationToken::new());
        let packing = packed_at_last(&srpm, &cancel, pack, None);
        assert!(timeout(PACK_AGAIN * 4 + Duration::from_secs(1), packing).await.is_err(), "it gave up");
        assert_eq!(tries.load(Ordering::SeqCst), 5);
        cancel.cancel();
        let (_, pack) = fails(rustix::io::Errno::DQUOT.raw_os_error());
        assert!(matches!(packed_at_last(&srpm, &cancel, pack, None).await, Err(Stop::Cancelled)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_the_disk_has_not_taken_is_copied_from_then_on() {
        let at = tempfile::tempdir().unwrap();
        let (resultdir, tries) = (at.path().join("result"), Arc::new(Mutex::new(Vec::new())));
        fs::create_dir(&resultdir).unwrap();
        fs::write(resultdir.join("build.log"), "built").unwrap();
        let (folder, seen) = (at.path().to_owned(), Arc::clone(&tries));
        let pack = move |files| {
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.push(files);
                seen.len()
            };
            if count == 1 || count == 3 {
                return Err(io::Error::from_raw_os_error(28).into());
            }
            crash::FAILING.set(u64::from(count == 2));
            let finished = Finished {
                attempt: moji_proto::AttemptId { boot: 7, serial: 17 },
                srpm: "a-1-1.src.rpm".parse()?,
                srpm_sha256: Sha256::of(b"an SRPM"),
                target: "f43".parse()?,
                outcome: Outcome::Succeeded,
                finished_at: Timestamp::UNIX_EPOCH,
            };
            let to = folder.join("outbox").join(finished.attempt.to_string());
            outbox::pack(&resultdir, &folder.join("mock.log"), &to, finished, (files, 1_000), |_| Ok(()))
        };
        let (srpm, cancel) = ("a-1-1.src.rpm".parse().unwrap(), CancellationToken::new());
        let packed = packed_at_last(&srpm, &cancel, pack, None).await;
        assert!(packed.is_ok());
        // Full, not taken, full, taken.
        let expected = [Files::AsBuilt, Files::AsBuilt, Files::Copied, Files::Copied];
        assert_eq!(*tries.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn results_that_cannot_be_read_are_trouble_at_once() {
        let (tries, pack) = fails(rustix::io::Errno::ACCESS.raw_os_error());
        let (srpm, cancel) = ("a-1-1.src.rpm".parse().unwrap(), CancellationToken::new());
        assert!(matches!(packed_at_last(&srpm, &cancel, pack, None).await, Err(Stop::Trouble(_))));
        assert_eq!(tries.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rpms_of_a_failure_make_room_at_once() {
        let at = tempfile::tempdir().unwrap();
        for name in ["half-1-1.noarch.rpm", "build.log"] {
            fs::write(at.path().join(name), "x").unwrap();
        }
        let (tries, pack) = fails(28);
        let (srpm, cancel) = ("half-1-1.src.rpm".parse().unwrap(), CancellationToken::new());
        let packing = packed_at_last(&srpm, &cancel, pack, Some(at.path().to_owned()));
        let ended = timeout(PACK_AGAIN / 2, packing).await;
        assert!(ended.is_err() && tries.load(Ordering::SeqCst) == 2);
        assert!(!at.path().join("half-1-1.noarch.rpm").exists() && at.path().join("build.log").exists());
    }
}
