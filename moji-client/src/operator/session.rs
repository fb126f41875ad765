//! One connection of a person's program: requests by their number, answers to whom they belong.
//!
//! Its task is the connection's reader, and never waits for whoever asked: bodies wait in their streams' windows. It
//! knows no request's meaning, and does not connect again when the connection is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use moji_proto::frame::Kind;
use moji_proto::handshake::Refusal;
use moji_proto::io::{
    FrameReader, Incoming, IncomingStream, Outgoing, OutgoingStream, Outgoings, Piece, on_stream_message,
    queues,
};
use moji_proto::operator::{Act, Done, FromOperator, Operate, REQUESTS, RequestId, Role, ToOperator};
use moji_proto::outcome::one_line;
use moji_proto::{CredentialName, ToServer, encoding, frame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::Failure;
use crate::access::{Access, Unwelcome, next};

/// How long handshake and welcome may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long the last words of a connection may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// Requests at a time: the server may count one for a moment longer than this side does.
const AT_A_TIME: usize = REQUESTS / 2;
/// What may wait for the connection's task.
const WAITING: usize = 32;

/// What the server said when it let this session in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The server's program and version.
    pub software: String,
    /// What this session may do.
    pub role: Role,
    /// The credential with which it came in; none: anybody may.
    pub credential: Option<CredentialName>,
}

/// A connection. Cheap to clone; it ends when the last clone is gone, and everything that was asked for with it.
#[derive(Debug, Clone)]
pub struct Session {
    asks: mpsc::Sender<Ask>,
    welcome: Arc<Welcome>,
    ended: watch::Receiver<Option<Failure>>,
    places: Arc<Semaphore>,
}

/// What waits for an answer.
enum Asked {
    Get(oneshot::Sender<Result<Head, Failure>>),
    Act(oneshot::Sender<Result<Vec<Done>, Failure>>),
    Submit(mpsc::Sender<Said>),
}

/// What is wanted of the connection's task.
enum Ask {
    Request(Box<dyn FnOnce(RequestId) -> FromOperator + Send>, Asked),
    Upload { request: RequestId, offset: u64, stream: oneshot::Sender<OutgoingStream<FromOperator>> },
}

/// The beginning of an answer.
struct Head {
    status: u16,
    content_type: String,
    stream: IncomingStream<FromOperator>,
}

/// What the server says to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Send it from this byte on; with the request's number.
    Wanted(RequestId, u64),
    /// It is queued.
    Done(Vec<Done>),
    /// It is not.
    Refused(String),
}

/// An answer to a [`FromOperator::Get`].
#[derive(Debug)]
pub struct Answer {
    /// As in HTTP.
    pub status: u16,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    pub body: Body,
}

/// The body of an answer, which may go on for as long as something happens.
#[derive(Debug)]
pub struct Body {
    stream: IncomingStream<FromOperator>,
    ended: watch::Receiver<Option<Failure>>,
    is_whole: bool,
    _place: OwnedSemaphorePermit,
}

impl Body {
    /// The next bytes; none: that was all. Cancel safe.
    ///
    /// # Errors
    /// When the connection is lost, or the server breaks it off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.is_whole {
            return Ok(None);
        }
        match self.stream.next().await {
            Some(Piece::Data(bytes)) => {
                // When that fails the connection has ended, which the next call says.
                let _ = self.stream.wrote(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Some(Piece::End(_)) => {
                self.is_whole = true;
                Ok(None)
            }
            Some(Piece::Abort(reason)) => {
                Err(Failure::Unreachable(format!("the server stopped in the middle: {reason}")))
            }
            None => Err(why_ended(&self.ended)),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Self::next`]; when it has more than `most` bytes.
    pub async fn all(mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > most {
                return Err(Failure::Refused(format!("the server's answer has more than {most} bytes")));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

fn why_ended(ended: &watch::Receiver<Option<Failure>>) -> Failure {
    ended.borrow().clone().unwrap_or_else(|| Failure::Unreachable("the connection is lost".into()))
}

impl Session {
    /// Greets the server on a fresh connection, and begins a session. The task ends with the connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn begin<Io>(
        io: Io,
        server: &str,
        access: &mut Access,
    ) -> Result<(Self, JoinHandle<()>), Failure>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let greeting = async {
            let (mut frames, mut write) = access.greet(io, server).await?;
            let welcomed = operate(&mut frames, &mut write).await?;
            anyhow::Ok((frames, write, welcomed))
        };
        let greeted = timeout(HANDSHAKE, greeting).await.context("it does not answer");
        let (frames, write, (heartbeat, dead_after, welcome)) =
            greeted.and_then(|greeted| greeted).map_err(|error| match error.is::<Unwelcome>() {
                true => Failure::of_connection(&error),
                false => Failure::of_connection(&error.context(format!("no session with {server}"))),
            })?;
        let (asks, asked) = mpsc::channel(WAITING);
        let (ended_tx, ended) = watch::channel(None);
        let (out, queued) = queues();
        let mut writer = tokio::spawn(queued.write(write));
        let connection = Connection {
            out: out.clone(),
            sending: Outgoings::default(),
            receiving: Incoming::new(REQUESTS * 2),
            asked: BTreeMap::new(),
            last: 0,
        };
        let task = tokio::spawn(async move {
            let end = connection.run(frames, heartbeat, dead_after, asked).await;
            let error = end.err().unwrap_or_else(|| anyhow::anyhow!("this side has ended it"));
            ended_tx.send_replace(Some(Failure::of_connection(&error)));
            drop(out);
            if timeout(GOODBYE, &mut writer).await.is_err() {
                writer.abort();
            }
        });
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        Ok((Self { asks, welcome: Arc::new(welcome), ended, places }, task))
    }

    /// What the server said when it let this session in.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether it can be used still.
    pub fn is_alive(&self) -> bool {
        self.ended.borrow().is_none() && !self.asks.is_closed()
    }

    /// What is at this path of the API.
    ///
    /// # Errors
    /// When the connection ends; any status is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let place = self.place().await?;
        let (answer, answered) = oneshot::channel();
        let path = path.to_owned();
        self.request(move |request| FromOperator::Get { request, path }, Asked::Get(answer)).await?;
        let head = answered.await.map_err(|_| why_ended(&self.ended))??;
        Ok(Answer {
            status: head.status,
            content_type: head.content_type,
            body: Body { stream: head.stream, ended: self.ended.clone(), is_whole: false, _place: place },
        })
    }

    /// Has something done: what became of each thing that it names.
    ///
    /// # Errors
    /// When the server refuses all of it, or the connection ends.
    pub async fn act(&self, act: Act) -> Result<Vec<Done>, Failure> {
        let _place = self.place().await?;
        let (answer, answered) = oneshot::channel();
        self.request(move |request| FromOperator::Act { request, act }, Asked::Act(answer)).await?;
        answered.await.map_err(|_| why_ended(&self.ended))?
    }

    /// Begins a submission with the message that `begin` makes; what the server says to it.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn submit(
        &self,
        begin: impl FnOnce(RequestId) -> FromOperator + Send + 'static,
    ) -> Result<Submission, Failure> {
        let place = self.place().await?;
        let (say, said) = mpsc::channel(4);
        self.request(begin, Asked::Submit(say)).await?;
        Ok(Submission { session: self.clone(), said, _place: place })
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| why_ended(&self.ended))
    }

    async fn request(
        &self,
        message: impl FnOnce(RequestId) -> FromOperator + Send + 'static,
        asked: Asked,
    ) -> Result<(), Failure> {
        self.asks.send(Ask::Request(Box::new(message), asked)).await.map_err(|_| why_ended(&self.ended))
    }
}

/// A submission that is under way.
#[derive(Debug)]
pub struct Submission {
    session: Session,
    said: mpsc::Receiver<Said>,
    _place: OwnedSemaphorePermit,
}

impl Submission {
    /// What the server says next.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn said(&mut self) -> Result<Said, Failure> {
        self.said.recv().await.ok_or_else(|| why_ended(&self.session.ended))
    }

    /// The stream for the SRPM's bytes from `offset` on.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn upload(
        &self,
        request: RequestId,
        offset: u64,
    ) -> Result<OutgoingStream<FromOperator>, Failure> {
        let (stream, opened) = oneshot::channel();
        let ended = || why_ended(&self.session.ended);
        self.session.asks.send(Ask::Upload { request, offset, stream }).await.map_err(|_| ended())?;
        opened.await.map_err(|_| ended())
    }
}

/// Says that this is a person's program: heartbeat interval, the time after which a silent server is given up, and
/// the server's welcome.
async fn operate(
    frames: &mut FrameReader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<(Duration, Duration, Welcome)> {
    let software = concat!("moji ", env!("CARGO_PKG_VERSION")).to_owned();
    let operate = encoding::encode(&ToServer::Operate(Operate { software }))?;
    write.write_all(&frame::encode(Kind::Control, &operate)).await?;
    write.flush().await?;
    let frame = next(frames).await?;
    match frame.kind {
        Kind::Refusal => {
            let refusal = Refusal::decode(frame.body);
            Err(Unwelcome(format!("the server does not let you in: {refusal}")).into())
        }
        Kind::Control => match encoding::decode(&frame.body)? {
            ToOperator::Welcome { heartbeat_ms, dead_after_ms, software, role, credential } => {
                let heartbeat = Duration::from_millis(u64::from(heartbeat_ms).max(10));
                let dead_after = Duration::from_millis(dead_after_ms.into()).max(heartbeat * 2);
                Ok((heartbeat, dead_after, Welcome { software: one_line(&software), role, credential }))
            }
            ToOperator::Goodbye { reason } => bail!("the server says goodbye: {}", one_line(&reason)),
            other => bail!("a welcome was expected, {other:?} came"),
        },
        kind => bail!("a welcome was expected, a {kind:?} frame came"),
    }
}

struct Connection {
    out: Outgoing<FromOperator>,
    sending: Outgoings,
    receiving: Incoming,
    asked: BTreeMap<RequestId, Asked>,
    last: RequestId,
}

impl Connection {
    async fn run(
        mut self,
        mut frames: FrameReader<impl AsyncRead + Unpin>,
        heartbeat: Duration,
        dead_after: Duration,
        mut asks: mpsc::Receiver<Ask>,
    ) -> anyhow::Result<()> {
        let mut heartbeats = interval_at(Instant::now() + heartbeat, heartbeat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dead_at = Instant::now() + dead_after;
        let out = self.out.clone();
        loop {
            tokio::select! {
                biased;
                _ = heartbeats.tick() => self.out.send(&FromOperator::Heartbeat)?,
                ask = asks.recv() => {
                    let Some(ask) = ask else {
                        // Whoever asked is gone.
                        self.out.send(&FromOperator::Goodbye { reason: "done".into() })?;
                        return Ok(());
                    };
                    self.on_ask(ask)?;
                }
                frame = frames.next() => {
                    let frame = frame?.context("the server closed the connection")?;
                    dead_at = Instant::now() + dead_after;
                    match frame.kind {
                        Kind::Data => {
                            let (stream, bytes) = frame::split_data(frame.body)?;
                            self.receiving.on_data(stream, bytes)?;
                        }
                        Kind::Control => self.on_message(encoding::decode(&frame.body)?)?,
                        kind => bail!("a {kind:?} frame after the handshake"),
                    }
                }
                () = out.closed() => bail!("connection lost while writing"),
                () = sleep_until(dead_at) => bail!("nothing came from the server for {dead_after:?}"),
            }
        }
    }

    fn on_ask(&mut self, ask: Ask) -> anyhow::Result<()> {
        match ask {
            Ask::Request(message, asked) => {
                self.last = self.last.wrapping_add(1);
                self.out.send(&message(self.last))?;
                self.asked.insert(self.last, asked);
            }
            Ask::Upload { request, offset, stream: reply } => {
                let stream = self.sending.open(&self.out);
                self.out.send(&FromOperator::Upload { request, offset, stream: stream.id })?;
                // When nobody waits for it any more its drop says that it is over.
                let _ = reply.send(stream);
            }
        }
        Ok(())
    }

    fn on_message(&mut self, message: ToOperator) -> anyhow::Result<()> {
        match message {
            ToOperator::HeartbeatSeen => {}
            ToOperator::Answer { request, status, content_type, stream } => {
                // Nobody waiting for it drops it, which tells the server to stop.
                let stream = self.receiving.open(stream, &self.out)?;
                let content_type = one_line(&content_type);
                if let Some(Asked::Get(answer)) = self.asked.remove(&request) {
                    let _ = answer.send(Ok(Head { status, content_type, stream }));
                }
            }
            ToOperator::Wanted { request, offset } => self.submitted(request, Said::Wanted(request, offset)),
            ToOperator::Done { request, done } => match self.asked.remove(&request) {
                Some(Asked::Act(answer)) => drop(answer.send(Ok(done))),
                Some(Asked::Submit(said)) => drop(said.try_send(Said::Done(done))),
                Some(Asked::Get(_)) | None => {}
            },
            ToOperator::Refused { request, reason } => {
                let reason = one_line(&reason);
                match self.asked.remove(&request) {
                    Some(Asked::Act(answer)) => drop(answer.send(Err(Failure::Refused(reason)))),
                    Some(Asked::Get(answer)) => drop(answer.send(Err(Failure::Refused(reason)))),
                    Some(Asked::Submit(said)) => drop(said.try_send(Said::Refused(reason))),
                    None => {}
                }
            }
            ToOperator::Stream(message) => on_stream_message(&self.sending, &mut self.receiving, message),
            ToOperator::Goodbye { reason } => bail!("the server says goodbye: {}", one_line(&reason)),
            ToOperator::Welcome { .. } => bail!("a second welcome"),
        }
        Ok(())
    }

    fn submitted(&mut self, request: RequestId, what: Said) {
        if let Some(Asked::Submit(said)) = self.asked.get(&request) {
            let _ = said.try_send(what);
        }
    }
}
