//! The client as one function: the task that owns the agent, its jobs and its connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use moji_proto::io::IncomingStream;
use moji_proto::{Assignment, AttemptId, Phase, Registration, ToServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use crate::agent::Why;
use crate::agent::{Agent, Effect, Event};
use crate::backoff::Backoff;
use crate::builder::Builder;
use crate::connection::{self, FromServer, Link, Proof, Unwelcome};
use crate::job::{Job, Verdict};
use crate::work_dir::WorkDir;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long leaving may take at most.
const LEAVE: Duration = Duration::from_secs(5);

/// Makes connections to the server: TCP, or whatever a test brings.
pub trait Connector: Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + 'static;

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
    /// What the server must know too.
    pub password: Option<String>,
    /// Leave when there has been nothing to do for so long.
    pub exit_when_idle: Option<Duration>,
    /// Most bytes of one log.
    pub log_limit: u64,
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
/// [`Unwelcome`] when the server refuses this builder before it has ever let it in. Later the
/// client goes on trying for ever, because a server may be in the middle of being set up anew.
pub async fn run<C: Connector>(
    config: Config,
    connector: C,
    builder: Arc<dyn Builder>,
    work_dir: Arc<WorkDir>,
    mut signals: mpsc::Receiver<Signal>,
) -> anyhow::Result<Why> {
    let mut client = Client::new(config, Arc::new(connector), builder, work_dir);
    let proof = Proof::new(client.config.password.clone());
    client.connect(proof, Duration::ZERO);
    loop {
        let deadline = client.agent.next_deadline().map(|moment| client.started + moment);
        let left = tokio::select! {
            biased;
            Some(signal) = signals.recv() => client.on_signal(signal),
            Some(ended) = client.jobs.join_next() => client.on_job_end(ended),
            Some((slot, phase)) = client.phases.recv() => client.on_phase(slot, phase),
            Some(event) = client.events.recv() => client.on_server(event),
            ended = &mut client.connection => client.on_disconnect(ended)?,
            () = sleep_until(deadline.unwrap_or(client.started)), if deadline.is_some() => {
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

type Ended = Result<(Proof, anyhow::Error), tokio::task::JoinError>;

struct Running {
    assignment: Assignment,
    phase: Phase,
    cancel: CancellationToken,
    verdicts: mpsc::Sender<Verdict>,
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
    connection: JoinHandle<(Proof, anyhow::Error)>,
    goodbye: CancellationToken,
    link: Option<Link>,
    ever_connected: bool,
    /// What is just being assigned.
    assigned: Option<(Assignment, IncomingStream<ToServer>)>,
    running: BTreeMap<u16, Running>,
    jobs: JoinSet<(u16, bool)>,
    events_tx: mpsc::Sender<FromServer>,
    events: mpsc::Receiver<FromServer>,
    phases_tx: mpsc::Sender<(u16, Phase)>,
    phases: mpsc::Receiver<(u16, Phase)>,
    attempts: watch::Sender<Vec<(AttemptId, Phase)>>,
}

impl<C: Connector> Client<C> {
    fn new(config: Config, connector: Arc<C>, builder: Arc<dyn Builder>, work_dir: Arc<WorkDir>) -> Self {
        let (events_tx, events) = mpsc::channel(64);
        let (phases_tx, phases) = mpsc::channel(64);
        Self {
            agent: Agent::new(config.registration.slots, config.exit_when_idle),
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
            assigned: None,
            running: BTreeMap::new(),
            jobs: JoinSet::new(),
            events_tx,
            events,
            phases_tx,
            phases,
            attempts: watch::Sender::new(Vec::new()),
        }
    }

    /// Connects after a wait, and serves the connection, in a task of its own.
    fn connect(&mut self, proof: Proof, wait: Duration) {
        let connector = Arc::clone(&self.connector);
        let registration = self.config.registration.clone();
        let (attempts, events) = (self.attempts.subscribe(), self.events_tx.clone());
        let goodbye = self.goodbye.clone();
        self.connection = tokio::spawn(async move {
            let mut proof = proof;
            let connecting = async {
                sleep(wait).await;
                anyhow::Ok(timeout(CONNECT, connector.connect()).await.context("no answer")??)
            };
            let connected = tokio::select! {
                biased;
                () = goodbye.cancelled() => return (proof, anyhow!("leaving")),
                connected = connecting => connected,
            };
            let ended = match connected {
                Ok(io) => connection::serve(io, &mut proof, registration, attempts, events, goodbye).await,
                Err(error) => Err(error),
            };
            (proof, ended.err().unwrap_or_else(|| anyhow!("closed")))
        });
    }

    fn on_disconnect(&mut self, ended: Ended) -> anyhow::Result<Option<Why>> {
        let (proof, error) = match ended {
            Ok(ended) => ended,
            // A panic there is a lost connection here.
            Err(error) => (Proof::new(self.config.password.clone()), error.into()),
        };
        let server = self.connector.server();
        if error.is::<Unwelcome>() && !self.ever_connected {
            return Err(error.context(format!("cannot work for {server}")));
        }
        if self.link.take().is_some() {
            self.backoff.reset();
        }
        let wait = self.backoff.next(self.connector.jitter());
        tracing::warn!("no connection to {server}: {error:#}; next try in {:.0} s", wait.as_secs_f64());
        self.connect(proof, wait);
        Ok(self.handle(Event::Disconnected))
    }

    fn on_signal(&mut self, signal: Signal) -> Option<Why> {
        match signal {
            Signal::Drain => {
                match self.running.len() {
                    0 => tracing::info!("nothing to finish: leaving"),
                    running => tracing::info!(
                        "finishing what is being built ({running}), then leaving; once more stops it"
                    ),
                }
                self.handle(Event::Drain)
            }
            Signal::Stop => {
                tracing::info!("stopping what is being built ({}) and giving it back", self.running.len());
                self.handle(Event::Stop)
            }
        }
    }

    fn on_phase(&mut self, slot: u16, phase: Phase) -> Option<Why> {
        if let Some(running) = self.running.get_mut(&slot) {
            running.phase = phase;
            tracing::debug!("slot {slot}: {}: {phase}", running.assignment.srpm);
        }
        self.publish_attempts();
        None
    }

    fn publish_attempts(&self) {
        let attempts =
            self.running.values().map(|running| (running.assignment.attempt, running.phase)).collect();
        self.attempts.send_replace(attempts);
    }

    fn on_server(&mut self, event: FromServer) -> Option<Why> {
        match event {
            FromServer::Connected(link) => {
                self.link = Some(link);
                self.ever_connected = true;
                self.handle(Event::Connected)
            }
            FromServer::Assigned(assignment, srpm) => {
                let (slot, attempt) = (assignment.slot, assignment.attempt);
                self.assigned = Some((assignment, srpm));
                let left = self.handle(Event::Assigned { slot, attempt });
                self.assigned = None;
                left
            }
            FromServer::Wanted { attempt, offset, part } => {
                self.verdict(attempt, Verdict::Wanted { offset, part })
            }
            FromServer::Accepted(attempt) => self.verdict(attempt, Verdict::Accepted),
            FromServer::Rejected { attempt, reason, again: true } => {
                self.verdict(attempt, Verdict::Again(reason))
            }
            FromServer::Rejected { attempt, reason, again: false } => {
                self.verdict(attempt, Verdict::Refused(reason))
            }
            FromServer::Dropped(attempt, reason) => {
                if let Some(running) =
                    self.running.values().find(|running| running.assignment.attempt == attempt)
                {
                    tracing::warn!("{} is not wanted any more: {reason}", running.assignment.srpm);
                }
                self.handle(Event::Dropped(attempt))
            }
        }
    }

    /// A verdict about an attempt that is no longer here concerns nobody.
    fn verdict(&mut self, attempt: AttemptId, verdict: Verdict) -> Option<Why> {
        let running = self.running.values().find(|running| running.assignment.attempt == attempt)?;
        let _ = running.verdicts.try_send(verdict);
        None
    }

    fn on_job_end(&mut self, ended: Result<(u16, bool), tokio::task::JoinError>) -> Option<Why> {
        let (slot, trouble) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!("internal error: {error}");
                return None;
            }
        };
        self.running.remove(&slot);
        self.publish_attempts();
        self.handle(Event::JobEnded { slot, trouble })
    }

    fn handle(&mut self, event: Event) -> Option<Why> {
        let effects = self.agent.handle(self.started.elapsed(), event);
        self.carry_out(effects)
    }

    /// Gives the reason when the last effect is to leave.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Option<Why> {
        for effect in effects {
            match effect {
                Effect::Ask(slot) => self.say(&ToServer::Ask { slot }),
                Effect::SayDrain => self.say(&ToServer::Drain),
                Effect::Release { attempt, reason } => {
                    self.say(&ToServer::Release { attempt, reason: reason.into(), trouble: false });
                }
                Effect::Start { slot, .. } => self.start(slot),
                Effect::Abort(slot) => {
                    if let Some(running) = self.running.get(&slot) {
                        running.cancel.cancel();
                    }
                }
                Effect::Leave(why) => return Some(why),
            }
        }
        None
    }

    /// What cannot be said because the connection has ended is not missed: its end says more.
    fn say(&self, message: &ToServer) {
        if let Some(link) = &self.link {
            let _ = link.out.send(message);
        }
    }

    fn start(&mut self, slot: u16) {
        let Some(((assignment, srpm), link)) = self.assigned.take().zip(self.link.clone()) else { return };
        tracing::info!("building {} for {} in slot {slot}", assignment.srpm, assignment.target);
        let (verdicts_tx, verdicts) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        let (out, attempt) = (link.out.clone(), assignment.attempt);
        let job = Job {
            assignment: assignment.clone(),
            srpm,
            link,
            verdicts,
            phases: self.phases_tx.clone(),
            cancel: cancel.clone(),
            builder: Arc::clone(&self.builder),
            work_dir: Arc::clone(&self.work_dir),
            log_limit: self.config.log_limit,
        };
        self.running
            .insert(slot, Running { assignment, phase: Phase::Receiving, cancel, verdicts: verdicts_tx });
        self.jobs.spawn(async move {
            let ended = tokio::spawn(job.run()).await;
            // A panic in a job is trouble of this machine, and its slot goes on. Nobody else would
            // give the attempt back.
            if ended.is_err() {
                let reason = "internal error of the builder".into();
                let _ = out.send(&ToServer::Release { attempt, reason, trouble: true });
            }
            (slot, ended.unwrap_or(true))
        });
        self.publish_attempts();
    }

    /// Says goodbye, as far as that is possible.
    async fn leave(&mut self) {
        // The writer ends when nobody can say anything any more.
        self.link = None;
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
