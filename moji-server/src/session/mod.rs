//! One connection of one builder: reads what it says, checks that it may say it, passes on what
//! the farm decides.
//!
//! The session's task is the connection's reader and never waits for a disk or for the peer: file
//! bytes go to tasks with a window, answers to the writer's queue. It knows nothing of the queue
//! and decides nothing about builds; what it knows of attempts is which ones the farm gave it.
//!
//! What a builder writes here goes on where the session before stopped. So a session has ended only
//! when the last of its writes has.

mod commands;
mod deliveries;
mod greet;
mod messages;
mod operator;
mod results;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_proto::frame::Kind;
use moji_proto::handshake::RefusalCode;
use moji_proto::io::{FrameReader, Incoming, Outgoing, Outgoings, queues};
use moji_proto::outcome::one_line;
use moji_proto::{
    AttemptId, HeldAttempt, LogFile, ManifestEntry, Outcome, Phase, RepositoryUrl, Sha256, SrpmName,
    TargetName, ToBuilder, ToServer, encoding, frame, limits,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::BuilderId;
use crate::accept::Place;
use crate::access::Access;
use crate::access::credentials::Credentials;
use crate::bucket::Bucket;
use crate::folders::Folders;
use crate::limits::Limits;
use crate::logins::Logins;
use crate::payload::Payloads;
use crate::peer::Peer;
use crate::quiet::{Quiet, Topic};
use crate::room::FreeSpace;
use crate::scheduler::{Builder, SessionId};
use crate::staging::{Tenancy, TenancyId};
use deliveries::DeliveryState;
use greet::{Greeted, Guest, Known, Pass};
pub use operator::Desk;
use results::{DeliveryError, Files, Have};
use transfer::LogPace;

/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long what was received may take to be written when the connection has ended; then it is given up.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// So many deliveries are compared with what is here at a time: each may read tens of gigabytes.
pub(crate) const PREPARING: usize = 4;

/// What all sessions share.
#[derive(Debug)]
pub struct SessionConfig {
    /// Who may come in.
    pub access: Access,
    /// How often builders say that they live.
    pub heartbeat: Duration,
    /// After how long without a frame a connection is given up.
    pub dead_after: Duration,
    /// What peers may make the server keep or do.
    pub limits: Limits,
    /// Who came with a wrong password.
    pub logins: Logins,
    /// What was said of strangers lately.
    pub(crate) quiet: Quiet,
    /// Most bytes of one live log, in bytes.
    pub log_limit: u64,
    /// Where staging is.
    pub folders: Arc<Folders>,
    /// How much room there is.
    pub free_space: FreeSpace,
    /// For people: answers, and where their SRPMs go.
    pub desk: Desk,
    /// Places for those that read what is here of a delivery.
    pub(crate) preparing: Arc<Semaphore>,
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
        /// What it says that its machine is (`uname -m`).
        machine: String,
        /// Whether it runs on the server's own machine.
        is_local: bool,
        /// How many SRPMs it builds at a time.
        slots: u16,
        /// Its program and version.
        software: String,
        /// Where commands for it go.
        commands: mpsc::Sender<SessionCommand>,
    },
    /// A slot is free.
    Asked(SessionId, u16),
    /// What it does for an attempt has changed.
    Phase(SessionId, AttemptId, Phase),
    /// It takes no more work.
    Draining(SessionId),
    /// So many bytes are free on its disk now. At most once a second, and only what is new.
    Disk(SessionId, u64),
    /// The connection has ended, and everything that came over it is written.
    Lost(SessionId, String),
    /// It was given this attempt on an earlier connection.
    Held(SessionId, HeldAttempt),
    /// It has been sent the whole SRPM of an attempt, which has this digest.
    SrpmSent(SessionId, AttemptId, Sha256),
    /// It gives an attempt back.
    Released {
        /// The session.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        reason: String,
        /// Whether something is wrong with the builder.
        trouble: bool,
    },
    /// Its results are larger than they may be: it was told so, and they do not come.
    TooLarge {
        /// The session.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// What is too large, and which limit says so.
        reason: String,
    },
    /// Results are in staging, each with the size and digest that the manifest says.
    Delivered {
        /// The session.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
        /// What is there.
        manifest: Vec<ManifestEntry>,
        /// What is known of the RPMs there.
        payloads: Payloads,
    },
}

/// What the farm tells a session. Small: each session has a queue with room for many.
#[derive(Debug)]
pub enum SessionCommand {
    /// Hand this to a slot.
    Assign(Box<LeasedSrpm>),
    /// An attempt is its own again.
    Resume(Box<ResumedAttempt>),
    /// What it has delivered of an attempt is lost, for this reason: it is to come again.
    DeliverAgain(Box<ResumedAttempt>, String),
    /// The results are safe.
    Accept(AttemptId),
    /// The results are not good, for this reason, and the lease has ended.
    Reject(AttemptId, String),
    /// It does not hold that attempt.
    Stale(AttemptId),
    /// The lease has ended.
    Cancel(AttemptId, String),
    /// It gets no work for so long, and why.
    Suspend(Duration, String),
    /// Close the connection, and why.
    Close(String),
}

/// An attempt that its builder has kept.
#[derive(Debug)]
pub struct ResumedAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// The slot that works on it; none: its results wait in the outbox.
    pub slot: Option<u16>,
    /// How many bytes of each live log are here.
    pub logs: Vec<(LogFile, u64)>,
    /// Its staging.
    pub(crate) tenancy: Tenancy,
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
    /// The repository with the farm's own results for the target, of one generation; none: the builder is
    /// told of none.
    pub repository: Option<RepositoryUrl>,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its staging.
    pub(crate) tenancy: Tenancy,
}

/// An attempt that the farm gave this session.
#[derive(Debug)]
struct Held {
    /// The slot that works on it; none: it waits in the builder's outbox.
    slot: Option<u16>,
    staging: PathBuf,
    /// The right to write there; what is being written stops when it is dropped.
    tenancy: Tenancy,
    /// The live logs that were announced: each once, or a builder could fill the disk with them.
    logs: BTreeSet<LogFile>,
    log_pace: LogPace,
    /// A delivery was announced: it has ended, and its slot is free.
    has_ended: bool,
    delivery: DeliveryState,
    /// How often its results came with wrong bytes.
    wrong: u32,
    /// How often it gave up in the middle of them.
    aborted: u32,
    /// Heartbeats in a row that did not name it, of those that count.
    unnamed: u32,
    /// What the builder does for it, as the farm was told.
    phase: Option<Phase>,
}

impl Held {
    fn new(slot: Option<u16>, staging: PathBuf, tenancy: Tenancy, limits: &Limits) -> Self {
        Self {
            slot,
            staging,
            tenancy,
            logs: BTreeSet::new(),
            log_pace: LogPace::new(limits),
            has_ended: false,
            delivery: DeliveryState::None,
            wrong: 0,
            aborted: 0,
            unnamed: 0,
            phase: None,
        }
    }

    /// Whether its results are here: from then on the builder may forget it.
    fn is_delivered(&self) -> bool {
        matches!(self.delivery, DeliveryState::Received)
    }

    /// Whether it keeps a slot busy.
    fn is_in(&self, slot: u16) -> bool {
        self.slot == Some(slot) && !self.has_ended
    }
}

/// How a task of a session ended.
enum TaskEnd {
    SrpmSent(AttemptId, anyhow::Result<Sha256>),
    ResultsPrepared(TenancyId, Result<(Box<Files>, Have), DeliveryError>),
    ResultsReceived(TenancyId, Result<Payloads, DeliveryError>),
    LogReceived(TenancyId, LogFile, anyhow::Result<()>),
}

struct Session {
    id: SessionId,
    peer: Peer,
    name: BuilderId,
    slots: u16,
    /// How it was let in, and what tells whether that is still good.
    pass: Pass,
    credentials: watch::Receiver<Arc<Credentials>>,
    config: Arc<SessionConfig>,
    farm: mpsc::Sender<FromSession>,
    out: Outgoing<ToBuilder>,
    sending: Outgoings,
    receiving: Incoming,
    /// Slots that have asked and got nothing yet.
    asked: BTreeSet<u16>,
    held: BTreeMap<AttemptId, Held>,
    /// What the builder says that it holds, with the slot, until the farm has an answer.
    claimed: BTreeMap<AttemptId, Option<u16>>,
    /// How often it has said so.
    claims: usize,
    /// When a heartbeat came last of those that count for what it has forgotten.
    beat: Instant,
    /// The free bytes on its disk that the farm was last told of, and when.
    disk: (u64, Instant),
    /// SRPMs on their way.
    sends: JoinSet<TaskEnd>,
    /// What is being written here.
    writes: JoinSet<TaskEnd>,
    /// Tells those that wait for a disk that it is over.
    ended: CancellationToken,
}

/// Serves one connection until it ends, and says why it ended, in words that fit after "gone: ";
/// `None` when it never became a builder's. Everything that belongs to it has ended then.
pub async fn serve<Io>(
    io: Io,
    peer: Peer,
    place: Place,
    id: SessionId,
    config: Arc<SessionConfig>,
    farm: mpsc::Sender<FromSession>,
    shutdown: CancellationToken,
) -> Option<String>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let greeting = greet::greet(io, &config);
    let greeted = tokio::select! {
        biased;
        () = shutdown.cancelled() => return None,
        () = place.displaced() => Greeted::Displaced,
        greeted = timeout(config.limits.handshake_timeout, greeting) => greeted.unwrap_or(Greeted::Silent),
    };
    let (Guest { builder, registration, pass }, frames, write) = match greeted {
        Greeted::Welcome(Known::Builder(guest), frames, write) => (guest, frames, write),
        Greeted::Welcome(Known::Person(visitor), frames, write) => {
            place.is_known();
            let name = visitor.name();
            let reason = operator::serve(visitor, frames, write, peer, config, shutdown).await;
            tracing::debug!("{name} is gone: {reason}");
            return None;
        }
        Greeted::Refused(refusal, mut write) => {
            let topic = match refusal.code {
                Some(RefusalCode::WrongProof | RefusalCode::Revoked) => Topic::WrongProof,
                _ => Topic::Refused,
            };
            config.quiet.warn(topic, &peer, format_args!("refused: {refusal}"));
            let told = greet::refuse(&mut write, &refusal, &peer, &config);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = place.displaced() => {}
                () = told => {}
            }
            return None;
        }
        Greeted::Lost(error) => {
            config.quiet.warn(Topic::Lost, &peer, format_args!("refused: {error:#}"));
            return None;
        }
        Greeted::Silent => {
            let patience = config.limits.handshake_timeout;
            let what = format_args!("closed: it did not introduce itself in {patience:?}");
            config.quiet.warn(Topic::Silent, &peer, what);
            return None;
        }
        Greeted::Displaced => {
            let what = format_args!("closed: it made place for another one (--limit strangers)");
            config.quiet.warn(Topic::Displaced, &peer, what);
            return None;
        }
    };
    place.is_known();

    let (out, queues) = queues();
    let mut writer = tokio::spawn(queues.write(write));
    // All that it holds may be answered at once.
    let places = 4 * usize::from(registration.slots) + limits::HOLDS + 16;
    let (commands, command_queue) = mpsc::channel(places);
    let name = builder.clone();
    let builder = Builder {
        id: builder,
        targets: registration.targets,
        arch: registration.arch.clone(),
        resources: registration.resources,
        tags: registration.tags,
    };
    tracing::info!(
        "{name} connected from {peer}: slots: {}, {}, {}",
        registration.slots,
        registration.arch,
        registration.software
    );
    let streams = usize::from(registration.slots) * limits::STREAMS_PER_SLOT;
    let mut session = Session {
        id,
        peer,
        name,
        slots: registration.slots,
        pass,
        credentials: config.access.credentials.clone(),
        config,
        farm: farm.clone(),
        out,
        sending: Outgoings::default(),
        receiving: Incoming::new(streams),
        asked: BTreeSet::new(),
        held: BTreeMap::new(),
        claimed: BTreeMap::new(),
        claims: 0,
        beat: Instant::now(),
        disk: (registration.resources.disk, Instant::now()),
        sends: JoinSet::new(),
        writes: JoinSet::new(),
        ended: CancellationToken::new(),
    };
    let connected = FromSession::Connected {
        session: id,
        builder,
        machine: registration.arch,
        is_local: session.peer.is_local(),
        slots: registration.slots,
        software: registration.software,
        commands,
    };
    farm.send(connected).await.ok()?;
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
    session.end().await;
    drop(last_words);
    // Everything that holds the writer's queue is gone: it writes what waits, then ends.
    if timeout(GOODBYE, &mut writer).await.is_err() {
        writer.abort();
    }
    Some(reason)
}

/// How fast a builder's control messages are read.
struct Pace {
    bucket: Bucket,
    paused_until: Option<Instant>,
    was_said: bool,
    most: u64,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        let bucket = Bucket::new(limits.message_rate, limits.message_burst);
        Self { bucket, paused_until: None, was_said: false, most: limits.message_rate }
    }

    fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    fn until(&self) -> Instant {
        self.paused_until.unwrap_or_else(Instant::now)
    }

    fn go_on(&mut self) {
        self.paused_until = None;
    }

    /// One has come. When that is the first one too many: how many a second are allowed.
    fn take_one(&mut self) -> Option<u64> {
        let wait = self.bucket.take(1);
        if wait.is_zero() {
            return None;
        }
        self.paused_until = Some(Instant::now() + wait);
        (!std::mem::replace(&mut self.was_said, true)).then_some(self.most)
    }
}

impl Session {
    /// Says what a builder can cause as often as it likes.
    fn warn(&self, topic: Topic, what: std::fmt::Arguments<'_>) {
        self.config.quiet.warn(topic, &self.peer, format_args!("{} {what}", self.name));
    }

    /// Serves until the connection ends; says why in words that fit after "gone: ".
    async fn run<R: AsyncRead + Unpin>(
        &mut self,
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
        let mut pace = Pace::new(&self.config.limits);
        let out = self.out.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.out.send(&ToBuilder::Goodbye { reason: "the server is stopping".into() })?;
                    return Ok("the server is stopping".into());
                }
                command = commands.recv() => {
                    let command = command.context("it does not take its commands")?;
                    if let SessionCommand::Close(reason) = command {
                        self.out.send(&ToBuilder::Goodbye { reason: reason.clone() })?;
                        return Ok(reason);
                    }
                    self.on_command(command)?;
                }
                Ok(()) = self.credentials.changed() => {
                    self.pass.check(&self.credentials.borrow_and_update().clone())?;
                }
                Some(end) = self.writes.join_next() => self.on_task_end(end.context("a transfer failed")?).await?,
                Some(end) = self.sends.join_next() => self.on_task_end(end.context("a transfer failed")?).await?,
                // Nothing is read meanwhile: the transport makes the builder wait.
                () = sleep_until(pace.until()), if pace.is_paused() => pace.go_on(),
                frame = frames.next(), if !pace.is_paused() => {
                    let Some(frame) = frame? else { return Ok("it closed the connection".into()) };
                    dead_at = Instant::now() + self.config.dead_after;
                    match frame.kind {
                        Kind::Data => {
                            let (stream, bytes) = frame::split_data(frame.body)?;
                            self.receiving.on_data(stream, bytes)?;
                        }
                        Kind::Control => {
                            if let Some(most) = pace.take_one() {
                                let what = format_args!(
                                    "is slowed down to {most} messages a second (--limit message-rate)"
                                );
                                self.warn(Topic::Flood, what);
                            }
                            match encoding::decode(&frame.body)? {
                                ToServer::Goodbye { reason } => return Ok(one_line(&reason)),
                                message => self.on_message(message).await?,
                            }
                        }
                        kind => bail!("a {kind:?} frame after the handshake"),
                    }
                }
                () = out.closed() => bail!("connection lost while writing"),
                () = sleep_until(dead_at) => bail!("nothing came from it for {:?}", self.config.dead_after),
            }
        }
    }

    /// Waits until all that was received is written: the builder's next session goes on there. What takes
    /// too long is stopped, and waited for all the same: the farm is to find nobody at work.
    async fn end(mut self) {
        self.ended.cancel();
        // Streams that end here are cut.
        self.receiving = Incoming::new(0);
        self.sends.shutdown().await;
        // What it would have been told of what is here nobody hears.
        self.held.retain(|_, held| !matches!(held.delivery, DeliveryState::Preparing { .. }));
        let rest = async { while self.writes.join_next().await.is_some() {} };
        if timeout(LAST_WRITES, rest).await.is_err() {
            tracing::warn!("{}: what it has sent is still not written after {LAST_WRITES:?}", self.name);
            self.held.clear();
            while self.writes.join_next().await.is_some() {}
        }
    }

    async fn tell(&self, event: FromSession) -> anyhow::Result<()> {
        self.farm.send(event).await.ok().context("the server is stopping")
    }
}

fn millis(duration: Duration) -> u32 {
    duration.as_millis().try_into().unwrap_or(u32::MAX)
}
