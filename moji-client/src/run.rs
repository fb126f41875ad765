//! The client as one function: the task that owns the agent, its jobs, its outbox and its connection.
//!
//! It decides nothing: what happens becomes an event for the agent (`events`), and what the agent
//! wants is carried out (`carry_out`).

mod carry_out;
mod events;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use moji_proto::io::IncomingStream;
use moji_proto::{Assignment, AttemptId, HeldAttempt, LogFile, Phase, Registration, Sha256, ToServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Secret, Unwelcome, said};
pub use crate::agent::Why;
use crate::agent::{Agent, Event, Rules};
use crate::backoff::Backoff;
use crate::builder::Builder;
use crate::connection::{self, FromServer, Lease, Link, Vitals};
use crate::delivery::UploadEnd;
use crate::disk::FreeSpace;
use crate::job::{End, Progress};
use crate::outbox::Parcel;
use crate::work_dir::WorkDir;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long saying goodbye may take at most.
const LEAVE: Duration = Duration::from_secs(5);
/// How long removing what was delivered may keep a client from leaving.
const REMOVE: Duration = Duration::from_secs(60);
/// Longer waits are not told from waits without an end.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Makes connections to the server: TCP, or whatever a test brings.
pub trait Connector: Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Connects.
    fn connect(&self) -> impl Future<Output = std::io::Result<Self::Io>> + Send;

    /// Where to, for people.
    fn server(&self) -> String;

    /// A random number that spreads the tries to connect. A simulation brings its own, so that a
    /// seed tells the same story again.
    fn jitter(&self) -> u32 {
        random()
    }
}

/// How a client is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it tells the server of itself.
    pub registration: Registration,
    /// How it gets in, and which server it takes for the right one.
    pub access: Access,
    /// Leave when there has been nothing to do for so long.
    pub exit_when_idle: Option<Duration>,
    /// Most bytes of one log.
    pub log_limit: u64,
    /// While more bytes of results than this wait to be delivered, no work is asked for.
    pub outbox_limit: u64,
    /// Results that could not be delivered for so long are removed.
    pub outbox_age: Duration,
    /// With fewer bytes than this free, no work is asked for; 0: never mind.
    pub min_free: u64,
    /// How many bytes are free.
    pub free_space: FreeSpace,
}

impl Config {
    /// The usual; looks at no disk, and speaks without TLS.
    pub fn new(registration: Registration) -> Self {
        Self {
            registration,
            access: Access::plaintext(Secret::None, None),
            exit_when_idle: None,
            log_limit: 256 << 20,
            outbox_limit: 20 << 30,
            outbox_age: Duration::from_secs(30 * 24 * 3600),
            min_free: 0,
            free_space: FreeSpace::new(|| None),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            slots: self.registration.slots,
            exit_when_idle: self.exit_when_idle,
            outbox_limit: self.outbox_limit,
            outbox_age: self.outbox_age,
            needs_room: self.min_free > 0,
        }
    }
}

/// What its owner tells a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Finish, deliver, leave.
    Drain,
    /// Stop Mock, give back, leave.
    Stop,
}

/// Works until it is told to leave or has been idle for long enough.
///
/// # Errors
/// [`Unwelcome`] when the server refuses this builder before it has ever let it in; when the outbox
/// cannot be read. Later the client goes on trying for ever, because a server may be in the middle of
/// being set up anew.
pub async fn run<C: Connector>(
    config: Config,
    connector: C,
    builder: Arc<dyn Builder>,
    work_dir: Arc<WorkDir>,
    mut signals: mpsc::Receiver<Signal>,
) -> anyhow::Result<Why> {
    let (outbox, log_limit) = (Arc::clone(&work_dir), config.log_limit);
    let parcels = spawn_blocking(move || outbox.parcels(log_limit)).await??;
    let mut client = Client::new(config, Arc::new(connector), builder, work_dir);
    client.take_over(parcels);
    let access = client.config.access.clone();
    client.connect(access, Duration::ZERO);
    loop {
        let wake = client.agent.next_deadline().map(|moment| client.instant_of(moment));
        let left = tokio::select! {
            biased;
            Some(signal) = signals.recv() => client.on_signal(signal),
            Some((slot, progress)) = client.progress.recv() => client.on_progress(slot, progress),
            Some(ended) = client.jobs.join_next() => client.on_job_end(ended),
            Some(ended) = client.uploads.join_next() => client.on_upload_end(ended),
            Some(free) = client.looks.join_next() => client.on_look(free.ok().flatten()),
            Some(_) = client.lists.join_next() => None,
            Some(_) = client.removals.join_next() => None,
            Some(event) = client.events.recv() => client.on_server(event),
            ended = &mut client.connection => client.on_disconnect(ended)?,
            () = sleep_until(wake.unwrap_or(client.started)), if wake.is_some() => {
                let effects = client.agent.on_time(client.started.elapsed());
                client.carry_out(effects)
            }
        };
        if let Some(why) = left {
            client.leave().await;
            return Ok(why);
        }
    }
}

type Ended = Result<(Access, anyhow::Error), JoinError>;

/// What a slot works on.
struct Running {
    assignment: Assignment,
    /// Of the SRPM, when it is here.
    sha256: Option<Sha256>,
    phase: Phase,
    cancel: CancellationToken,
    lease: watch::Sender<Option<Lease>>,
}

struct Client<C> {
    config: Config,
    connector: Arc<C>,
    builder: Arc<dyn Builder>,
    work_dir: Arc<WorkDir>,
    started: Instant,
    agent: Agent,
    backoff: Backoff,
    /// The connection, or the wait before the next one.
    connection: JoinHandle<(Access, anyhow::Error)>,
    goodbye: CancellationToken,
    link: Option<Link>,
    ever_connected: bool,
    running: BTreeMap<u16, Running>,
    parcels: BTreeMap<AttemptId, Arc<Parcel>>,
    jobs: JoinSet<(u16, End)>,
    uploads: JoinSet<(AttemptId, UploadEnd)>,
    uploading: BTreeMap<AttemptId, AbortHandle>,
    /// Looks at the disk.
    looks: JoinSet<Option<u64>>,
    /// Lists of results on their way to the server.
    lists: JoinSet<()>,
    /// Results that are just being removed.
    removals: JoinSet<()>,
    free: Option<u64>,
    events_tx: mpsc::Sender<FromServer>,
    events: mpsc::Receiver<FromServer>,
    progress_tx: mpsc::Sender<(u16, Progress)>,
    progress: mpsc::Receiver<(u16, Progress)>,
    attempts: watch::Sender<Vec<(AttemptId, Phase)>>,
    /// Until when the server has no work, and why: said once.
    suspended: Option<(Instant, String)>,
    /// What the event that is being handled brings, for its effects.
    brought: Brought,
}

/// What an event brings that does not concern the agent.
#[derive(Default)]
struct Brought {
    assigned: Option<(Assignment, IncomingStream<ToServer>)>,
    logs: BTreeMap<LogFile, u64>,
    reason: String,
    /// From where on the server wants results: kept until their turn comes.
    wanted: BTreeMap<AttemptId, (u64, Sha256)>,
}

impl<C: Connector> Client<C> {
    fn new(config: Config, connector: Arc<C>, builder: Arc<dyn Builder>, work_dir: Arc<WorkDir>) -> Self {
        let (events_tx, events) = mpsc::channel(64);
        let (progress_tx, progress) = mpsc::channel(64);
        Self {
            agent: Agent::new(config.rules()),
            config,
            connector,
            builder,
            work_dir,
            started: Instant::now(),
            backoff: Backoff::default(),
            connection: tokio::spawn(std::future::pending()),
            goodbye: CancellationToken::new(),
            link: None,
            ever_connected: false,
            running: BTreeMap::new(),
            parcels: BTreeMap::new(),
            jobs: JoinSet::new(),
            uploads: JoinSet::new(),
            uploading: BTreeMap::new(),
            looks: JoinSet::new(),
            lists: JoinSet::new(),
            removals: JoinSet::new(),
            free: None,
            events_tx,
            events,
            progress_tx,
            progress,
            attempts: watch::Sender::new(Vec::new()),
            suspended: None,
            brought: Brought::default(),
        }
    }

    fn instant_of(&self, moment: Duration) -> Instant {
        self.started + moment.min(self.started.elapsed() + FAR_AWAY)
    }

    /// What an earlier client has finished.
    fn take_over(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels {
            let (attempt, bytes, age) = (parcel.attempt, parcel.bytes(), parcel.age(Timestamp::now()));
            tracing::info!("the results of {} ({attempt}) wait to be delivered", parcel.srpm);
            self.parcels.insert(attempt, Arc::new(parcel));
            self.handle(Event::Found { attempt, bytes, age });
        }
        self.publish_attempts();
    }

    /// Connects after a wait, and serves the connection, in a task of its own.
    fn connect(&mut self, access: Access, wait: Duration) {
        let connector = Arc::clone(&self.connector);
        let registration = self.config.registration.clone();
        let free_space = self.config.free_space.clone();
        let (vitals, events) =
            (Vitals { attempts: self.attempts.subscribe(), free_space }, self.events_tx.clone());
        let goodbye = self.goodbye.clone();
        self.connection = tokio::spawn(async move {
            let mut access = access;
            let connecting = async {
                sleep(wait).await;
                anyhow::Ok(timeout(CONNECT, connector.connect()).await.context("no answer")??)
            };
            let connected = tokio::select! {
                biased;
                () = goodbye.cancelled() => return (access, anyhow!("leaving")),
                connected = connecting => connected,
            };
            let ended = match connected {
                Ok(io) => {
                    let server = connector.server();
                    connection::serve(io, &server, &mut access, registration, vitals, events, goodbye).await
                }
                Err(error) => Err(error),
            };
            (access, ended.err().unwrap_or_else(|| anyhow!("closed")))
        });
    }

    fn on_disconnect(&mut self, ended: Ended) -> anyhow::Result<Option<Why>> {
        let (access, error) = match ended {
            Ok(ended) => ended,
            // A panic there is a lost connection here.
            Err(error) => (self.config.access.clone(), error.into()),
        };
        let server = self.connector.server();
        if error.is::<Unwelcome>() && !self.ever_connected {
            return Err(error.context(format!("cannot work for {server}")));
        }
        if self.link.is_some() {
            self.backoff.reset();
        }
        self.unlink();
        let wait = self.backoff.next(self.connector.jitter());
        tracing::warn!(
            "no connection to {server}: {}; next try in {:.1} s",
            said(&error),
            wait.as_secs_f64()
        );
        self.connect(access, wait);
        Ok(self.handle(Event::Disconnected))
    }

    /// Takes away from everybody what they have of the connection.
    fn unlink(&mut self) {
        self.link = None;
        for running in self.running.values() {
            running.lease.send_replace(None);
        }
        // They are aborted. Whatever they still had to say is about a connection that has ended.
        (self.uploads, self.lists) = (JoinSet::new(), JoinSet::new());
        self.uploading.clear();
        self.brought.wanted.clear();
    }

    fn publish_attempts(&self) {
        let running = self.running.values().map(|running| (running.assignment.attempt, running.phase));
        let parcels = self.parcels.keys().map(|attempt| (*attempt, Phase::Delivering));
        self.attempts.send_replace(running.chain(parcels).collect());
    }

    fn running_attempt(&self, attempt: AttemptId) -> Option<&Running> {
        self.running.values().find(|running| running.assignment.attempt == attempt)
    }

    /// What a new connection is told about an attempt.
    fn held(&self, attempt: AttemptId) -> Option<HeldAttempt> {
        if let Some(Running { assignment, sha256, phase, .. }) = self.running_attempt(attempt) {
            let Assignment { target, srpm, slot, .. } = assignment.clone();
            return Some(HeldAttempt {
                attempt,
                target,
                srpm,
                sha256: (*sha256)?,
                slot: Some(slot),
                phase: *phase,
            });
        }
        let parcel = self.parcels.get(&attempt)?;
        let (target, srpm, sha256) = (parcel.target.clone(), parcel.srpm.clone(), parcel.srpm_sha256);
        Some(HeldAttempt { attempt, target, srpm, sha256, slot: None, phase: Phase::Delivering })
    }

    fn handle(&mut self, event: Event) -> Option<Why> {
        let effects = self.agent.handle(self.started.elapsed(), event);
        let left = self.carry_out(effects);
        self.brought.reason.clear();
        left
    }

    /// Says goodbye, as far as that is possible.
    async fn leave(&mut self) {
        if !self.parcels.is_empty() {
            tracing::info!(
                "leaving: results stay in the outbox ({}), and are delivered after the next start",
                self.parcels.len()
            );
        }
        // The writer ends when nobody can say anything any more.
        self.unlink();
        let removals = async { while self.removals.join_next().await.is_some() {} };
        let _ = timeout(REMOVE, removals).await;
        self.goodbye.cancel();
        let _ = timeout(LEAVE, &mut self.connection).await;
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers the waits are only less well spread.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
