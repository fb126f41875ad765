//! One attempt on one slot, from the SRPM's first byte to the server's last word.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use moji_proto::io::{IncomingStream, OutgoingStream, Piece};
use moji_proto::limits::{DATA_BYTES, MANIFEST_PART};
use moji_proto::{Assignment, Hasher, LogFile, Outcome, Phase, Sha256, ToServer};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::builder::{BuildTask, Builder};
use crate::connection::Link;
use crate::crash::{self, Point};
use crate::mock::logs::PhaseParser;
use crate::outbox::{self, Parcel, ParcelReader};
use crate::tail::{Tail, read_from};
use crate::work_dir::WorkDir;

/// How long to wait before a delivery that the server could not take is tried again.
const AGAIN: Duration = Duration::from_secs(15);

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
    /// The connection that it came over.
    pub link: Link,
    /// The server's answers to deliveries.
    pub verdicts: mpsc::Receiver<Verdict>,
    /// Where the phase is told.
    pub phases: mpsc::Sender<(u16, Phase)>,
    /// Ends the job early.
    pub cancel: CancellationToken,
    /// What builds.
    pub builder: Arc<dyn Builder>,
    /// Where to work.
    pub work_dir: Arc<WorkDir>,
    /// Most bytes of one log.
    pub log_limit: u64,
}

/// What the server says to a delivery.
#[derive(Debug)]
pub enum Verdict {
    /// Send from here on; with the digest of what the server has of the file there.
    Wanted {
        /// Byte of all files.
        offset: u64,
        /// Digest of a part of one file.
        part: Sha256,
    },
    /// It is safe.
    Accepted,
    /// Deliver again.
    Again(String),
    /// It will never be good.
    Refused(String),
}

/// Why a job stopped before it had delivered.
#[derive(Debug)]
enum Stop {
    /// It was cancelled, or its connection ended.
    Cancelled,
    /// Something is wrong with this machine.
    Trouble(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Trouble(error.into())
    }
}

impl Job {
    /// Does all of it. Nothing is left in the work folder afterwards. Gives whether it ended
    /// because of a trouble of this machine.
    pub async fn run(mut self) -> bool {
        let attempt = self.assignment.attempt;
        let folder = self.work_dir.attempt(self.assignment.slot, attempt);
        let ended = self.attempt(&folder).await;
        let outbox = self.work_dir.outbox(attempt);
        let removed = spawn_blocking(move || {
            for folder in [folder, outbox] {
                match fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!("cannot remove {}: {error}", folder.display());
                    }
                    _ => {}
                }
                crash::at(Point::SlotRemoved);
            }
        });
        let _ = removed.await;
        match ended {
            Ok(()) => false,
            Err(Stop::Cancelled) => false,
            Err(Stop::Trouble(_)) if self.cancel.is_cancelled() => false,
            // Seen here before the client's task has seen it and cancelled this job.
            Err(Stop::Trouble(_)) if self.link.has_ended() => false,
            Err(Stop::Trouble(error)) => {
                tracing::error!("{} is given back: {error:#}", self.assignment.srpm);
                let reason = moji_proto::outcome::one_line(&format!("{error:#}"));
                let _ = self.link.out.send(&ToServer::Release { attempt, reason, trouble: true });
                true
            }
        }
    }

    async fn attempt(&mut self, folder: &Path) -> Result<(), Stop> {
        let (resultdir, mock_log) = (folder.join("result"), folder.join("mock.log"));
        let made = resultdir.clone();
        spawn_blocking(move || fs::create_dir_all(&made))
            .await?
            .with_context(|| format!("cannot make {}", resultdir.display()))?;
        let srpm = folder.join(&self.assignment.srpm);
        self.receive(&srpm).await?;
        crash::at(Point::Received);
        let task = BuildTask {
            slot: self.assignment.slot,
            target: self.assignment.target.clone(),
            srpm,
            resultdir: resultdir.clone(),
            mock_log: mock_log.clone(),
        };
        let outcome = self.build(task).await?;
        crash::at(Point::Built);
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match &outcome {
            Outcome::Succeeded => tracing::info!("{} is built", self.assignment.srpm),
            Outcome::Failed { kind, reason, .. } => {
                tracing::warn!("{} failed ({kind}): {reason}", self.assignment.srpm);
            }
        }
        self.tell(Phase::Delivering).await;
        let (outbox, limit) = (self.work_dir.outbox(self.assignment.attempt), self.log_limit);
        let packed = outbox.clone();
        let parcel =
            spawn_blocking(move || outbox::pack(&resultdir, &mock_log, &packed, outcome, limit)).await??;
        self.deliver(&parcel, &outbox).await?;
        crash::at(Point::Settled);
        Ok(())
    }

    async fn tell(&self, phase: Phase) {
        let _ = self.phases.send((self.assignment.slot, phase)).await;
    }

    /// The SRPM into a file, checked against its size and digest.
    async fn receive(&mut self, path: &Path) -> Result<(), Stop> {
        self.tell(Phase::Receiving).await;
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
                        Err(anyhow::anyhow!("more bytes came than the SRPM has"))?;
                    }
                    let written = spawn_blocking(move || {
                        hasher.update(&bytes);
                        file.write_all(&bytes).map(|()| (file, hasher))
                    });
                    (file, hasher) = written.await?.context("cannot store the SRPM")?;
                    self.srpm.wrote(length)?;
                }
                Some(Piece::End(sha256)) => {
                    if size != self.assignment.size || sha256 != Some(hasher.finish()) {
                        Err(anyhow::anyhow!("the SRPM arrived damaged"))?;
                    }
                    return Ok(());
                }
                Some(Piece::Abort(reason)) => {
                    Err(anyhow::anyhow!("the server cannot send the SRPM: {reason}"))?
                }
                None => return Err(Stop::Cancelled),
            }
        }
    }

    /// Mock, with its logs followed and its phase told.
    async fn build(&self, task: BuildTask) -> Result<Outcome, Stop> {
        self.tell(Phase::Preparing).await;
        let ended = CancellationToken::new();
        let mut tails = JoinSet::new();
        for file in LogFile::ALL {
            let path = match file {
                LogFile::Mock => task.mock_log.clone(),
                _ => task.resultdir.join(file.file_name()),
            };
            // Half of the limit: that much stays the same when the log is cut in the end.
            let tail = Tail { attempt: self.assignment.attempt, file, path, limit: self.log_limit / 2 };
            tails.spawn(tail.follow(self.link.clone(), ended.clone()));
        }
        let state_log = task.resultdir.join(LogFile::State.file_name());
        let building = Arc::clone(&self.builder).build(task, self.cancel.clone());
        let outcome = tokio::select! {
            outcome = building => outcome,
            never = self.watch_phase(state_log) => never,
        };
        ended.cancel();
        // On a slow line the live view may be far behind: the logs come once more with the results.
        let _ = timeout(LAST_LINES, async { while tails.join_next().await.is_some() {} }).await;
        Ok(outcome?)
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
                self.tell(phase).await;
            }
        }
    }

    /// Delivers until the server has said its last word.
    async fn deliver(&mut self, parcel: &Parcel, outbox: &Path) -> Result<(), Stop> {
        let cancel = self.cancel.clone();
        loop {
            let verdict = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Stop::Cancelled),
                // Whatever ends the connection also cancels this job.
                sent = self.send(parcel, outbox) => sent?,
            };
            crash::at(Point::Sent);
            let verdict = match verdict {
                Some(verdict) => Some(verdict),
                None => tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(Stop::Cancelled),
                    verdict = self.verdicts.recv() => verdict,
                },
            };
            match verdict {
                Some(Verdict::Wanted { .. }) => Err(anyhow::anyhow!("the server wants the results twice"))?,
                Some(Verdict::Accepted) => return Ok(()),
                Some(Verdict::Refused(reason)) => {
                    tracing::error!("the server refuses the results of {}: {reason}", self.assignment.srpm);
                    return Ok(());
                }
                Some(Verdict::Again(reason)) => {
                    tracing::warn!(
                        "the results of {} are delivered again soon: {reason}",
                        self.assignment.srpm
                    );
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return Err(Stop::Cancelled),
                        () = sleep(AGAIN) => {}
                    }
                }
                None => return Err(Stop::Cancelled),
            }
        }
    }

    /// Announces the results and sends what the server wants of them; its verdict comes later, or
    /// is given because it wanted nothing.
    async fn send(&mut self, parcel: &Parcel, outbox: &Path) -> anyhow::Result<Option<Verdict>> {
        let attempt = self.assignment.attempt;
        let (outcome, bytes) = (parcel.outcome.clone(), parcel.manifest.iter().map(|entry| entry.size).sum());
        let files = parcel.manifest.len().try_into().context("too many files")?;
        let out = &self.link.out;
        out.send_ordered(&ToServer::Deliver { attempt, outcome, files, bytes }).await?;
        for entries in parcel.manifest.chunks(MANIFEST_PART) {
            out.send_ordered(&ToServer::Manifest { attempt, entries: entries.to_vec() }).await?;
        }
        let (offset, part) = match self.verdicts.recv().await.context("the connection has ended")? {
            Verdict::Wanted { offset, part } => (offset, part),
            verdict => return Ok(Some(verdict)),
        };
        let (outbox, parcel) = (outbox.to_owned(), parcel.clone());
        let begun = spawn_blocking(move || ParcelReader::resume(outbox, &parcel, offset, part));
        let (reader, offset) = begun.await?.context("cannot read the outbox")?;
        let announce = move |stream| ToServer::Upload { attempt, offset, stream };
        let mut stream = self.link.open_stream(announce).await?;
        match send_files(&mut stream, reader).await {
            Ok(()) => stream.end(None).await?,
            // The verdict says why.
            Err(SendError::Stream(moji_proto::io::StreamError::Unwanted)) => {
                stream.abort("the server wants no more").await?;
            }
            Err(SendError::Stream(error)) => return Err(error.into()),
            Err(SendError::Read(error)) => {
                stream.abort(&error.to_string()).await?;
                bail!("cannot read the outbox: {error}")
            }
        }
        Ok(None)
    }
}

enum SendError {
    Stream(moji_proto::io::StreamError),
    Read(io::Error),
}

async fn send_files(
    stream: &mut OutgoingStream<ToServer>,
    mut reader: ParcelReader,
) -> Result<(), SendError> {
    loop {
        let read = spawn_blocking(move || (reader.next_piece(), reader));
        let piece;
        (piece, reader) = read.await.map_err(|error| SendError::Read(io::Error::other(error)))?;
        let piece = piece.map_err(SendError::Read)?;
        if piece.is_empty() {
            return Ok(());
        }
        stream.send(Bytes::from(piece)).await.map_err(SendError::Stream)?;
        crash::at(Point::PieceSent);
    }
}

#[cfg(test)]
mod tests {
    use moji_proto::AttemptId;
    use moji_proto::io::{Incoming, queues};

    use super::*;
    use crate::builder::Building;

    /// Succeeds at once.
    struct Quick;

    impl Builder for Quick {
        fn build(self: Arc<Self>, task: BuildTask, _: CancellationToken) -> Building {
            Box::pin(async move {
                fs::write(task.resultdir.join("build.log"), "done")?;
                Ok(Outcome::Succeeded)
            })
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_no_trouble_of_this_machine() {
        let at = tempfile::tempdir().unwrap();
        let (out, _queues) = queues();
        let (mut incoming, id, srpm) = (Incoming::new(4), 7, b"the bytes of an SRPM");
        let stream = incoming.open(id, &out).unwrap();
        incoming.on_data(id, Bytes::from_static(srpm)).unwrap();
        incoming.on_last(id, Piece::End(Some(moji_proto::Sha256::of(srpm))));
        let assignment = Assignment {
            attempt: AttemptId { boot: 3, serial: 5 },
            slot: 2,
            target: "f43".parse().unwrap(),
            srpm: "a-1-1.src.rpm".parse().unwrap(),
            size: srpm.len() as u64,
            stream: id,
        };
        let job = Job {
            assignment,
            srpm: stream,
            link: Link::of_an_ended_connection(out),
            verdicts: mpsc::channel(1).1,
            phases: mpsc::channel(8).0,
            cancel: CancellationToken::new(),
            builder: Arc::new(Quick),
            work_dir: Arc::new(WorkDir::open(at.path()).unwrap()),
            log_limit: 1000,
        };
        assert!(!job.run().await, "the slot would rest, although nothing is wrong here");
    }
}
