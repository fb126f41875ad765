//! One connection of one builder: reads what it says, checks that it may say it, passes on what
//! the farm decides.
//!
//! The session's task is the connection's reader and never waits for a disk or for the peer: file
//! bytes go to tasks with a window, answers to the writer's queue. It knows nothing of the queue
//! and decides nothing about builds; what it knows of attempts is which ones the farm gave it.

mod greet;
mod results;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use moji_proto::frame::Kind;
use moji_proto::handshake::ServerSecret;
use moji_proto::io::{FrameReader, Incoming, Outgoing, Outgoings, on_stream_message, queues};
use moji_proto::outcome::one_line;
use moji_proto::{
    Assignment, AttemptId, BuilderName, LogFile, ManifestEntry, Outcome, Phase, Sha256, SrpmName, StreamId,
    TargetName, ToBuilder, ToServer, encoding, frame, limits,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::commit::{Delivery, RESULTS};
use crate::folders::Folders;
use crate::scheduler::{Builder, SessionId};
use results::{DeliveryError, Files, Have};

/// How often a delivery with wrong bytes may be tried again.
const DELIVERIES: u32 = 3;
/// An attempt that so many heartbeats in a row do not name is forgotten by its builder. More than
/// one: a heartbeat and an assignment can cross on their way.
const FORGOTTEN: u32 = 3;
/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(3);

/// What all sessions share.
#[derive(Debug)]
pub struct SessionConfig {
    /// Proof of the password.
    pub secret: ServerSecret,
    /// How often builders say that they live.
    pub heartbeat: Duration,
    /// After how long without a frame a connection is given up.
    pub dead_after: Duration,
    /// How long a peer may take until it has registered.
    pub handshake_timeout: Duration,
    /// How long a peer with a wrong password waits for the answer.
    pub refusal_delay: Duration,
    /// Most bytes of one live log, in bytes.
    pub log_limit: u64,
    /// Where staging is.
    pub folders: Arc<Folders>,
}

/// What a session tells the farm.
#[derive(Debug)]
pub enum FromSession {
    /// A builder has registered; commands for it go there.
    Connected {
        /// The new session.
        session: SessionId,
        /// Who it is.
        builder: Builder,
        /// Where commands for it go.
        commands: mpsc::Sender<SessionCommand>,
    },
    /// A slot is free.
    Asked(SessionId, u16),
    /// It takes no more work.
    Draining(SessionId),
    /// The connection has ended.
    Lost(SessionId, String),
    /// It gives an attempt back.
    Released(SessionId, AttemptId, String),
    /// Results are in staging.
    Delivered(SessionId, AttemptId, Outcome, Delivery),
}

/// What the farm tells a session.
#[derive(Debug)]
pub enum SessionCommand {
    /// Hand this to a slot.
    Assign(LeasedSrpm),
    /// The results are safe.
    Accept(AttemptId),
    /// It does not hold that attempt.
    Stale(AttemptId),
    /// The lease has ended.
    Cancel(AttemptId, String),
}

/// An SRPM in WORKING and the attempt that holds it.
#[derive(Debug)]
pub struct LeasedSrpm {
    /// The attempt.
    pub attempt: AttemptId,
    /// The slot that asked.
    pub slot: u16,
    /// What to build for.
    pub target: TargetName,
    /// The file's name.
    pub srpm: SrpmName,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// An attempt that the farm gave this session.
#[derive(Debug)]
struct Held {
    slot: u16,
    staging: PathBuf,
    /// The live logs that were announced: each once, or a builder could fill the disk with them.
    logs: BTreeSet<LogFile>,
    leased_at: Timestamp,
    srpm_sha256: Option<Sha256>,
    delivery: DeliveryState,
    deliveries: u32,
    /// Heartbeats in a row that did not name it.
    unnamed: u32,
}

impl Held {
    /// Whether its results are here: from then on the builder may forget it.
    fn is_delivered(&self) -> bool {
        matches!(self.delivery, DeliveryState::Received)
    }
}

/// How far the delivery of an attempt is.
#[derive(Debug, Default)]
enum DeliveryState {
    /// There is none.
    #[default]
    None,
    /// The manifest is coming.
    Listing { announced: Announced, manifest: Vec<ManifestEntry> },
    /// It is compared with what an earlier upload has brought.
    Preparing { outcome: Outcome, manifest: Vec<ManifestEntry> },
    /// The builder knows what is wanted.
    Wanted { outcome: Outcome, manifest: Vec<ManifestEntry>, files: Box<Files>, have: Have },
    /// The files are coming.
    Receiving { outcome: Outcome, manifest: Vec<ManifestEntry> },
    /// All is here; the farm decides.
    Received,
}

/// What a delivery says of itself.
#[derive(Debug)]
struct Announced {
    outcome: Outcome,
    files: u32,
    bytes: u64,
}

/// How a task of a session ended.
enum TaskEnd {
    SrpmSent(AttemptId, anyhow::Result<Sha256>),
    ResultsPrepared(AttemptId, Result<(Box<Files>, Have), DeliveryError>),
    ResultsReceived(AttemptId, Result<(), DeliveryError>),
    LogReceived(AttemptId, LogFile, anyhow::Result<()>),
}

struct Session {
    id: SessionId,
    name: BuilderName,
    slots: u16,
    config: Arc<SessionConfig>,
    farm: mpsc::Sender<FromSession>,
    out: Outgoing<ToBuilder>,
    sending: Outgoings,
    receiving: Incoming,
    /// Slots that have asked and got nothing yet.
    asked: BTreeSet<u16>,
    held: BTreeMap<AttemptId, Held>,
    tasks: JoinSet<TaskEnd>,
}

/// Serves one connection until it ends, and says why it ended, in words that fit after "gone: ";
/// `None` when it never became a builder's. Everything that belongs to it has ended then.
pub async fn serve<Io>(
    io: Io,
    peer: String,
    id: SessionId,
    config: Arc<SessionConfig>,
    farm: mpsc::Sender<FromSession>,
    shutdown: CancellationToken,
) -> Option<String>
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, mut write) = tokio::io::split(io);
    let mut frames = FrameReader::new(read);
    let greeting = greet::greet(&mut frames, &mut write, &config);
    let greeted = tokio::select! {
        biased;
        () = shutdown.cancelled() => return None,
        greeted = timeout(config.handshake_timeout, greeting) => greeted,
    };
    let registration = match greeted {
        Ok(Ok(registration)) => registration,
        Ok(Err(error)) => {
            tracing::warn!("{peer}: refused: {error:#}");
            return None;
        }
        Err(_) => {
            tracing::warn!("{peer}: closed: it did not introduce itself in {:?}", config.handshake_timeout);
            return None;
        }
    };

    let (out, queues) = queues();
    let mut writer = tokio::spawn(queues.write(write));
    let (commands, command_queue) = mpsc::channel(4 * usize::from(registration.slots) + 16);
    let builder = Builder { name: registration.name.clone(), targets: registration.targets.clone() };
    tracing::info!(
        "{} connected from {peer}: slots: {}, {}, {}",
        registration.name,
        registration.slots,
        registration.arch,
        registration.software
    );
    let streams = usize::from(registration.slots) * limits::STREAMS_PER_SLOT;
    let session = Session {
        id,
        name: registration.name,
        slots: registration.slots,
        config,
        farm: farm.clone(),
        out,
        sending: Outgoings::default(),
        receiving: Incoming::new(streams),
        asked: BTreeSet::new(),
        held: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    farm.send(FromSession::Connected { session: id, builder, commands }).await.ok()?;
    let last_words = session.out.clone();
    let reason = match session.run(frames, command_queue, shutdown).await {
        Ok(reason) => reason,
        Err(error) => {
            let reason = one_line(&format!("{error:#}"));
            // Whoever broke the protocol without meaning to wants to know.
            let _ = last_words.send(&ToBuilder::Goodbye { reason: reason.clone() });
            reason
        }
    };
    drop(last_words);
    // Everything that holds the writer's queue is gone: it writes what waits, then ends.
    if timeout(GOODBYE, &mut writer).await.is_err() {
        writer.abort();
    }
    Some(reason)
}

impl Session {
    /// Serves until the connection ends; says why in words that fit after "gone: ".
    async fn run<R: AsyncRead + Unpin>(
        mut self,
        mut frames: FrameReader<R>,
        mut commands: mpsc::Receiver<SessionCommand>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<String> {
        self.out.send(&ToBuilder::Registered {
            heartbeat_ms: millis(self.config.heartbeat),
            dead_after_ms: millis(self.config.dead_after),
            software: concat!("moji-server ", env!("CARGO_PKG_VERSION")).into(),
        })?;
        let mut dead_at = Instant::now() + self.config.dead_after;
        let out = self.out.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.out.send(&ToBuilder::Goodbye { reason: "the server is stopping".into() })?;
                    return Ok("the server is stopping".into());
                }
                command = commands.recv() => self.on_command(command.context("it does not take its commands")?)?,
                Some(end) = self.tasks.join_next() => self.on_task_end(end.context("a transfer failed")?).await?,
                frame = frames.next() => {
                    let Some(frame) = frame? else { return Ok("it closed the connection".into()) };
                    dead_at = Instant::now() + self.config.dead_after;
                    match frame.kind {
                        Kind::Data => {
                            let (stream, bytes) = frame::split_data(frame.body)?;
                            self.receiving.on_data(stream, bytes)?;
                        }
                        Kind::Control => match encoding::decode(&frame.body)? {
                            ToServer::Goodbye { reason } => return Ok(one_line(&reason)),
                            message => self.on_message(message).await?,
                        },
                        kind => bail!("a {kind:?} frame after the handshake"),
                    }
                }
                () = out.closed() => bail!("connection lost while writing"),
                () = sleep_until(dead_at) => bail!("nothing came from it for {:?}", self.config.dead_after),
            }
        }
    }

    async fn on_message(&mut self, message: ToServer) -> anyhow::Result<()> {
        match message {
            ToServer::Ask { slot } => {
                if slot >= self.slots {
                    bail!("it asks for work for slot {slot} of {}", self.slots);
                }
                // Results that were announced once keep no slot busy, even when they come again.
                let is_busy = self.held.values().any(|held| held.slot == slot && held.deliveries == 0);
                if is_busy || !self.asked.insert(slot) {
                    bail!("it asks for work for slot {slot}, which has some or has asked already");
                }
                self.tell(FromSession::Asked(self.id, slot)).await
            }
            ToServer::Drain => {
                self.asked.clear();
                self.tell(FromSession::Draining(self.id)).await
            }
            ToServer::Heartbeat { attempts } => {
                self.out.send(&ToBuilder::HeartbeatSeen)?;
                self.on_heartbeat(&attempts).await
            }
            ToServer::Log { attempt, file, offset, stream } => self.on_log(attempt, file, offset, stream),
            ToServer::Manifest { attempt, entries } => self.on_manifest(attempt, entries),
            ToServer::Deliver { attempt, outcome, files, bytes } => {
                self.on_deliver(attempt, Announced { outcome: outcome.bounded(), files, bytes })
            }
            ToServer::Upload { attempt, offset, stream } => self.on_upload(attempt, offset, stream),
            ToServer::Hold(held) => Ok(self.out.send(&ToBuilder::Stale { attempt: held.attempt })?),
            ToServer::Release { attempt, reason, .. } => {
                if self.held.remove(&attempt).is_none() {
                    return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
                }
                self.tell(FromSession::Released(self.id, attempt, one_line(&reason))).await
            }
            ToServer::Stream(message) => {
                on_stream_message(&self.sending, &mut self.receiving, message);
                Ok(())
            }
            ToServer::Register(_) => bail!("it registered twice"),
            ToServer::Goodbye { .. } => Ok(()),
        }
    }

    /// A builder that has forgotten an attempt would otherwise keep it as long as it is connected.
    async fn on_heartbeat(&mut self, attempts: &[(AttemptId, Phase)]) -> anyhow::Result<()> {
        for (attempt, phase) in attempts {
            tracing::debug!("{}: {attempt}: {phase}", self.name);
        }
        let mut forgotten = Vec::new();
        for (attempt, held) in &mut self.held {
            let is_known = attempts.iter().any(|(named, _)| named == attempt);
            held.unnamed = if is_known || held.is_delivered() { 0 } else { held.unnamed + 1 };
            if held.unnamed == FORGOTTEN {
                forgotten.push(*attempt);
            }
        }
        for attempt in forgotten {
            self.held.remove(&attempt);
            let reason = "the builder does not name it in its heartbeats any more";
            self.out.send(&ToBuilder::Cancel { attempt, reason: reason.into() })?;
            self.tell(FromSession::Released(self.id, attempt, reason.into())).await?;
        }
        Ok(())
    }

    fn on_log(
        &mut self,
        attempt: AttemptId,
        file: LogFile,
        offset: u64,
        stream: StreamId,
    ) -> anyhow::Result<()> {
        let stream = self.receiving.open(stream, &self.out)?;
        let Some(held) = self.held.get_mut(&attempt) else {
            stream.unwanted()?;
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        };
        if !held.logs.insert(file) {
            bail!("it sends {} of {attempt} a second time", file.file_name());
        }
        let (path, limit) = (held.staging.join(file.file_name()), self.config.log_limit);
        self.tasks.spawn(async move {
            TaskEnd::LogReceived(attempt, file, transfer::receive_log(stream, path, offset, limit).await)
        });
        Ok(())
    }

    fn on_deliver(&mut self, attempt: AttemptId, announced: Announced) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else {
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        };
        if announced.files as usize > limits::FILES {
            bail!("the results of {attempt} have more than {} files", limits::FILES);
        }
        if !matches!(held.delivery, DeliveryState::None) {
            bail!("it delivers {attempt} twice at a time");
        }
        held.deliveries += 1;
        held.delivery = DeliveryState::Listing { announced, manifest: Vec::new() };
        self.prepare_when_listed(attempt)
    }

    fn on_manifest(&mut self, attempt: AttemptId, entries: Vec<ManifestEntry>) -> anyhow::Result<()> {
        // Late parts for an attempt that is over concern nobody.
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let DeliveryState::Listing { announced, manifest, .. } = &mut held.delivery else {
            bail!("it lists files of {attempt} that it does not deliver");
        };
        if manifest.len() + entries.len() > announced.files as usize {
            bail!("it lists more files of {attempt} than it announced");
        }
        manifest.extend(entries);
        self.prepare_when_listed(attempt)
    }

    /// Looks for what is there of a delivery when its manifest is complete.
    fn prepare_when_listed(&mut self, attempt: AttemptId) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let is_complete = matches!(
            &held.delivery,
            DeliveryState::Listing { announced, manifest, .. } if manifest.len() == announced.files as usize
        );
        if !is_complete {
            return Ok(());
        }
        let DeliveryState::Listing { announced, manifest } = std::mem::take(&mut held.delivery) else {
            return Ok(());
        };
        results::check_manifest(&manifest, announced.bytes)?;
        let (folder, listed) = (held.staging.join(RESULTS), manifest.clone());
        held.delivery = DeliveryState::Preparing { outcome: announced.outcome, manifest };
        self.tasks
            .spawn(async move { TaskEnd::ResultsPrepared(attempt, results::prepare(listed, folder).await) });
        Ok(())
    }

    /// Tells the builder from where on its results are wanted.
    fn prepared(&mut self, attempt: AttemptId, files: Box<Files>, have: Have) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let DeliveryState::Preparing { outcome, manifest } = std::mem::take(&mut held.delivery) else {
            return Ok(());
        };
        if have.offset > 0 {
            tracing::info!("{}: the upload of {attempt} goes on at byte {}", self.name, have.offset);
        }
        held.delivery = DeliveryState::Wanted { outcome, manifest, files, have };
        let Have { offset, part, .. } = have;
        Ok(self.out.send(&ToBuilder::Wanted { attempt, offset, part })?)
    }

    fn on_upload(&mut self, attempt: AttemptId, offset: u64, stream: StreamId) -> anyhow::Result<()> {
        let stream = self.receiving.open(stream, &self.out)?;
        let Some(held) = self.held.get_mut(&attempt) else {
            stream.unwanted()?;
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        };
        let DeliveryState::Wanted { outcome, manifest, files, have } = std::mem::take(&mut held.delivery)
        else {
            bail!("it uploads results of {attempt} that were not asked for");
        };
        if offset != have.offset && offset != have.whole {
            bail!("it uploads results of {attempt} from byte {offset} on, not from {}", have.offset);
        }
        held.delivery = DeliveryState::Receiving { outcome, manifest };
        let restart = offset != have.offset;
        self.tasks.spawn(async move {
            TaskEnd::ResultsReceived(attempt, results::receive(stream, files, restart).await)
        });
        Ok(())
    }

    fn on_command(&mut self, command: SessionCommand) -> anyhow::Result<()> {
        match command {
            SessionCommand::Assign(leased) => return self.assign(leased),
            SessionCommand::Accept(attempt) => {
                self.held.remove(&attempt);
                self.out.send(&ToBuilder::Accepted { attempt })?;
            }
            SessionCommand::Stale(attempt) => {
                self.held.remove(&attempt);
                self.out.send(&ToBuilder::Stale { attempt })?;
            }
            SessionCommand::Cancel(attempt, reason) => {
                self.held.remove(&attempt);
                self.out.send(&ToBuilder::Cancel { attempt, reason })?;
            }
        }
        Ok(())
    }

    fn assign(&mut self, leased: LeasedSrpm) -> anyhow::Result<()> {
        let LeasedSrpm { attempt, slot, target, srpm, path, size } = leased;
        let stream = self.sending.open(&self.out);
        self.asked.remove(&slot);
        let held = Held {
            slot,
            staging: self.config.folders.attempt(attempt),
            logs: BTreeSet::new(),
            leased_at: Timestamp::now(),
            srpm_sha256: None,
            delivery: DeliveryState::None,
            deliveries: 0,
            unnamed: 0,
        };
        self.held.insert(attempt, held);
        self.out.send(&ToBuilder::Assign(Assignment {
            attempt,
            slot,
            target,
            srpm,
            size,
            stream: stream.id,
        }))?;
        self.tasks
            .spawn(async move { TaskEnd::SrpmSent(attempt, transfer::send_file(stream, path, size).await) });
        Ok(())
    }

    async fn on_task_end(&mut self, end: TaskEnd) -> anyhow::Result<()> {
        match end {
            TaskEnd::LogReceived(_, _, Ok(())) => Ok(()),
            TaskEnd::LogReceived(attempt, file, Err(error)) => {
                // The log comes once more with the results; a live view is not worth an attempt.
                tracing::warn!("{}: {} of {attempt}: {error:#}", self.name, file.file_name());
                Ok(())
            }
            TaskEnd::SrpmSent(attempt, Ok(digest)) => {
                if let Some(held) = self.held.get_mut(&attempt) {
                    held.srpm_sha256 = Some(digest);
                }
                Ok(())
            }
            TaskEnd::SrpmSent(attempt, Err(error)) => {
                if self.held.remove(&attempt).is_none() {
                    return Ok(());
                }
                self.out.send(&ToBuilder::Cancel { attempt, reason: "the SRPM could not be sent".into() })?;
                let reason = format!("the SRPM could not be sent: {error:#}");
                self.tell(FromSession::Released(self.id, attempt, reason)).await
            }
            TaskEnd::ResultsPrepared(attempt, Ok((files, have))) => self.prepared(attempt, files, have),
            TaskEnd::ResultsPrepared(attempt, Err(error)) => self.delivery_failed(attempt, error).await,
            TaskEnd::ResultsReceived(attempt, Ok(())) => self.delivered(attempt).await,
            TaskEnd::ResultsReceived(attempt, Err(error)) => self.delivery_failed(attempt, error).await,
        }
    }

    async fn delivered(&mut self, attempt: AttemptId) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let state = std::mem::replace(&mut held.delivery, DeliveryState::Received);
        let DeliveryState::Receiving { outcome, manifest } = state else { return Ok(()) };
        let delivery = Delivery {
            manifest,
            srpm_sha256: held.srpm_sha256,
            leased_at: held.leased_at,
            delivered_at: Timestamp::now(),
        };
        self.tell(FromSession::Delivered(self.id, attempt, outcome, delivery)).await
    }

    async fn delivery_failed(&mut self, attempt: AttemptId, error: DeliveryError) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        held.delivery = DeliveryState::None;
        let again = error.is_ours() || held.deliveries < DELIVERIES;
        tracing::warn!("{}: delivery of {attempt} failed: {error}", self.name);
        self.out.send(&ToBuilder::Rejected { attempt, reason: one_line(&error.to_string()), again })?;
        if again {
            return Ok(());
        }
        self.held.remove(&attempt);
        self.tell(FromSession::Released(self.id, attempt, format!("its delivery failed: {error}"))).await
    }

    async fn tell(&self, event: FromSession) -> anyhow::Result<()> {
        self.farm.send(event).await.ok().context("the server is stopping")
    }
}

fn millis(duration: Duration) -> u32 {
    duration.as_millis().try_into().unwrap_or(u32::MAX)
}
