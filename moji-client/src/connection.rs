//! One connection to the server: handshake, registration, reader, heartbeats.
//!
//! Its task is the connection's reader. File bytes go to their streams, everything that concerns
//! attempts to the client's task; it decides nothing about them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_proto::frame::Kind;
use moji_proto::io::{
    FrameReader, Incoming, IncomingStream, Outgoing, OutgoingStream, Outgoings, on_stream_message, queues,
};
use moji_proto::outcome::one_line;
use moji_proto::{
    Assignment, AttemptId, LogFile, Phase, Registration, Sha256, StreamId, ToBuilder, ToServer, encoding,
    frame, limits,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Unwelcome, next};
use crate::disk::FreeSpace;

/// How long handshake and registration may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long the disk may take to say how full it is, before the server is told what is known.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How soon after a heartbeat the next one may tell that something else is done now.
const NEWS: Duration = Duration::from_secs(2);
/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long the last word of a connection that has failed may take.
const LAST_WORD: Duration = Duration::from_millis(100);

/// What a connection tells the client's task.
#[derive(Debug)]
pub enum FromServer {
    /// The server has welcomed this builder.
    Connected(Link),
    /// Work for a slot, and the stream that brings it.
    Assigned(Assignment, IncomingStream<ToServer>),
    /// An attempt of an earlier connection is this one's; with how much the server has of its logs.
    Resumed(AttemptId, BTreeMap<LogFile, u64>),
    /// The server says what it wants of the results of an attempt.
    Wanted {
        /// The attempt.
        attempt: AttemptId,
        /// From this byte of all files on.
        offset: u64,
        /// Digest of what it has of the file there.
        part: Sha256,
    },
    /// The results of an attempt are safe.
    Accepted(AttemptId),
    /// A delivery was not good.
    Rejected {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        reason: String,
        /// Whether to deliver again.
        again: bool,
    },
    /// An attempt is not wanted any more; why, for people.
    Dropped(AttemptId, String),
    /// There is no work for so long; why, for people.
    Suspended(Duration, String),
}

/// A connection on which an attempt is held, as its live logs need it.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The connection.
    pub link: Link,
    /// How many bytes of each log the server has.
    pub logs: BTreeMap<LogFile, u64>,
}

/// What others need of a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link {
    /// Messages to the server.
    pub out: Outgoing<ToServer>,
    streams: mpsc::Sender<StreamRequest>,
    given_up: mpsc::Sender<String>,
}

/// Somebody wants a new stream. The connection's task opens it and announces it in one go: the
/// server wants announcements in the order of the streams' numbers.
struct StreamRequest {
    announce: Box<dyn FnOnce(StreamId) -> ToServer + Send>,
    reply: oneshot::Sender<OutgoingStream<ToServer>>,
}

impl std::fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamRequest")
    }
}

impl Link {
    /// Ends the connection; why, for people and for the server.
    pub fn give_up(&self, reason: String) {
        // When one waits already, or the connection has ended, that is enough.
        let _ = self.given_up.try_send(reason);
    }

    /// A new stream, announced by the message that `announce` makes for its number.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open_stream(
        &self,
        announce: impl FnOnce(StreamId) -> ToServer + Send + 'static,
    ) -> anyhow::Result<OutgoingStream<ToServer>> {
        let (reply, stream) = oneshot::channel();
        self.streams
            .send(StreamRequest { announce: Box::new(announce), reply })
            .await
            .ok()
            .context("the connection has ended")?;
        stream.await.context("the connection has ended")
    }
}

/// What a connection tells the server of its builder from time to time.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// What it works on.
    pub attempts: watch::Receiver<Vec<(AttemptId, Phase)>>,
    /// How much room it has.
    pub free_space: FreeSpace,
}

/// Looks at the disk beside the connection, which does not wait for one that does not answer.
struct Looks {
    free_space: FreeSpace,
    running: JoinSet<Option<u64>>,
    last: Option<u64>,
}

impl Looks {
    /// After a first look.
    async fn begin(free_space: FreeSpace) -> Self {
        let mut looks = Self { free_space, running: JoinSet::new(), last: None };
        looks.start();
        let first = timeout(FIRST_LOOK, looks.running.join_next()).await;
        looks.last = first.ok().and_then(looked);
        looks
    }

    fn start(&mut self) {
        let free_space = self.free_space.clone();
        self.running.spawn_blocking(move || free_space.look());
    }

    /// How many bytes were free at the last look; another one begins. Nothing while the last one goes on.
    fn next(&mut self) -> Option<u64> {
        if let Some(ended) = self.running.try_join_next() {
            self.last = looked(Some(ended));
        }
        if !self.running.is_empty() {
            return None;
        }
        self.start();
        self.last
    }
}

fn looked(ended: Option<Result<Option<u64>, JoinError>>) -> Option<u64> {
    ended?.ok().flatten()
}

/// Handshake and registration on a fresh connection, then everything until it ends.
///
/// # Errors
/// Why it ended; [`Unwelcome`] when the next one would end the same way.
pub async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    server: &str,
    access: &mut Access,
    mut registration: Registration,
    vitals: Vitals,
    events: mpsc::Sender<FromServer>,
    goodbye: CancellationToken,
) -> anyhow::Result<()> {
    let slots = registration.slots;
    let Vitals { attempts, free_space } = vitals;
    let greeting = async {
        let (mut frames, mut write) = access.greet(io, server).await?;
        let looks = Looks::begin(free_space).await;
        registration.resources.disk = looks.last.unwrap_or(registration.resources.disk);
        let times = register(&mut frames, &mut write, registration).await?;
        anyhow::Ok((frames, write, times, looks))
    };
    let (frames, write, (heartbeat, dead_after), looks) = tokio::select! {
        biased;
        () = goodbye.cancelled() => return Ok(()),
        greeted = timeout(HANDSHAKE, greeting) => greeted.context("the server does not answer")??,
    };
    let (out, queues) = queues();
    let mut writer = tokio::spawn(queues.write(write));
    let connection = Connection {
        out: out.clone(),
        sending: Outgoings::default(),
        receiving: Incoming::new(usize::from(slots) + 8),
        events,
        looks,
    };
    let ended = connection.run(frames, heartbeat, dead_after, attempts, goodbye).await;
    let patience = match &ended {
        Ok(()) => GOODBYE,
        Err(error) => {
            // A server that broke the protocol without meaning to wants to know. Jobs still hold the
            // connection, and wait to be told that it has ended.
            let _ = out.send(&ToServer::Goodbye { reason: one_line(&format!("{error:#}")) });
            LAST_WORD
        }
    };
    drop(out);
    if timeout(patience, &mut writer).await.is_err() {
        writer.abort();
    }
    ended
}

/// Gives the heartbeat interval and the time after which a silent server is given up.
async fn register(
    frames: &mut FrameReader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
    registration: Registration,
) -> anyhow::Result<(Duration, Duration)> {
    let register = encoding::encode(&ToServer::Register(registration))?;
    write.write_all(&frame::encode(Kind::Control, &register)).await?;
    write.flush().await?;
    let frame = next(frames).await?;
    match frame.kind {
        Kind::Refusal => {
            let refusal = moji_proto::handshake::Refusal::decode(frame.body);
            Err(Unwelcome(format!("the server refuses this builder: {refusal}")).into())
        }
        Kind::Control => match encoding::decode(&frame.body)? {
            ToBuilder::Registered { heartbeat_ms, dead_after_ms, software } => {
                tracing::info!("connected to {}", one_line(&software));
                let heartbeat = Duration::from_millis(u64::from(heartbeat_ms).max(10));
                Ok((heartbeat, Duration::from_millis(dead_after_ms.into()).max(heartbeat * 2)))
            }
            ToBuilder::Goodbye { reason } => bail!("the server says goodbye: {}", one_line(&reason)),
            other => bail!("a welcome was expected, {other:?} came"),
        },
        kind => bail!("a welcome was expected, a {kind:?} frame came"),
    }
}

struct Connection {
    out: Outgoing<ToServer>,
    sending: Outgoings,
    receiving: Incoming,
    events: mpsc::Sender<FromServer>,
    looks: Looks,
}

impl Connection {
    async fn run(
        mut self,
        mut frames: FrameReader<impl AsyncRead + Unpin>,
        heartbeat: Duration,
        dead_after: Duration,
        mut attempts: watch::Receiver<Vec<(AttemptId, Phase)>>,
        goodbye: CancellationToken,
    ) -> anyhow::Result<()> {
        let (streams, mut stream_requests) = mpsc::channel(16);
        let (given_up, mut reasons) = mpsc::channel(1);
        self.tell(FromServer::Connected(Link { out: self.out.clone(), streams, given_up })).await?;
        // Not at once: what is held must have been said before a heartbeat names it.
        let mut heartbeats = interval_at(Instant::now() + heartbeat, heartbeat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut dead_at, mut beat) = (Instant::now() + dead_after, Instant::now());
        // What was told last, and whether that has changed.
        let (mut told, mut is_news) = (Vec::new(), false);
        let out = self.out.clone();
        loop {
            tokio::select! {
                biased;
                () = goodbye.cancelled() => {
                    self.out.send(&ToServer::Goodbye { reason: "the builder is leaving".into() })?;
                    return Ok(());
                }
                Some(reason) = reasons.recv() => bail!("{reason}"),
                _ = heartbeats.tick() => {
                    told = attempts.borrow_and_update().clone();
                    (beat, is_news) = (Instant::now(), false);
                    let disk = self.looks.next();
                    self.out.send(&ToServer::Heartbeat { attempts: told.clone(), disk })?;
                }
                // People look at what is being done: they hear of it before the next heartbeat is due.
                Ok(()) = attempts.changed(), if !is_news => is_news = *attempts.borrow_and_update() != told,
                () = sleep_until(beat + NEWS), if is_news => {
                    told = attempts.borrow_and_update().clone();
                    (beat, is_news) = (Instant::now(), false);
                    self.out.send(&ToServer::Heartbeat { attempts: told.clone(), disk: None })?;
                }
                Some(StreamRequest { announce, reply }) = stream_requests.recv() => {
                    let stream = self.sending.open(&self.out);
                    self.out.send(&announce(stream.id))?;
                    // When nobody waits for it any more its drop says that it is over.
                    let _ = reply.send(stream);
                }
                frame = frames.next() => {
                    let frame = frame?.context("the server closed the connection")?;
                    dead_at = Instant::now() + dead_after;
                    match frame.kind {
                        Kind::Data => {
                            let (stream, bytes) = frame::split_data(frame.body)?;
                            self.receiving.on_data(stream, bytes)?;
                        }
                        Kind::Control => self.on_message(encoding::decode(&frame.body)?).await?,
                        kind => bail!("a {kind:?} frame after the handshake"),
                    }
                }
                () = out.closed() => bail!("connection lost while writing"),
                () = sleep_until(dead_at) => bail!("nothing came from the server for {dead_after:?}"),
            }
        }
    }

    async fn on_message(&mut self, message: ToBuilder) -> anyhow::Result<()> {
        match message {
            ToBuilder::HeartbeatSeen => Ok(()),
            ToBuilder::Assign(assignment) => {
                let stream = self.receiving.open(assignment.stream, &self.out)?;
                self.tell(FromServer::Assigned(assignment, stream)).await
            }
            ToBuilder::Wanted { attempt, offset, part } => {
                self.tell(FromServer::Wanted { attempt, offset, part }).await
            }
            ToBuilder::Resume { attempt, logs } => {
                self.tell(FromServer::Resumed(attempt, logs.into_iter().collect())).await
            }
            ToBuilder::Suspended { seconds, reason } => {
                let pause = Duration::from_secs(seconds.into());
                self.tell(FromServer::Suspended(pause, one_line(&reason))).await
            }
            ToBuilder::Accepted { attempt } => self.tell(FromServer::Accepted(attempt)).await,
            ToBuilder::Rejected { attempt, reason, again } => {
                self.tell(FromServer::Rejected { attempt, reason: one_line(&reason), again }).await
            }
            ToBuilder::Stale { attempt } => {
                self.tell(FromServer::Dropped(attempt, "it is not this builder's any more".into())).await
            }
            ToBuilder::Cancel { attempt, reason } => {
                self.tell(FromServer::Dropped(attempt, one_line(&reason))).await
            }
            ToBuilder::Stream(message) => {
                on_stream_message(&self.sending, &mut self.receiving, message);
                Ok(())
            }
            ToBuilder::Goodbye { reason } => bail!("the server says goodbye: {}", one_line(&reason)),
            ToBuilder::Registered { .. } => bail!("a second welcome"),
        }
    }

    async fn tell(&self, event: FromServer) -> anyhow::Result<()> {
        self.events.send(event).await.ok().context("the client is ending")
    }
}

/// All attempts that a builder may hold fit one heartbeat.
const _: () = assert!(limits::HOLDS * 32 < limits::CONTROL_BODY);
