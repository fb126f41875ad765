//! One connection of a person's program, `moji`: what it asks is answered as over HTTP, what it wants done is
//! checked against its role and handed to the farm.
//!
//! Its task is the connection's reader and never waits: each request is a task of its own, and there are few at a
//! time. It decides nothing about builds.

mod acts;
mod answers;
mod submitting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::bail;
use axum::Router;
use moji_proto::frame::Kind;
use moji_proto::io::{FrameReader, Incoming, IncomingStream, Outgoing, Outgoings, on_stream_message, queues};
use moji_proto::operator::{FromOperator, PATH_MAX, REQUESTS, RequestId, Role, ToOperator};
use moji_proto::outcome::one_line;
use moji_proto::{CredentialName, TargetName, encoding, frame};
use tokio::io::{AsyncRead, AsyncWrite, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::greet::{Frames, Pass, Visitor};
use super::{GOODBYE, SessionConfig, millis};
use crate::access::Opened;
use crate::access::credentials::Credentials;
use crate::api::Api;
use crate::peer::Peer;
use crate::quiet::Topic;
use crate::submissions::Submissions;
use answers::Answered;
use submitting::Submitting;

/// What all sessions of people share.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Answers.
    pub api: Api,
    /// The same as over HTTP.
    pub router: Router,
    /// Where SRPMs go.
    pub submissions: Submissions,
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) name: Option<CredentialName>,
    pub(super) role: Role,
    /// For these targets only; empty: for all.
    pub(super) targets: Vec<TargetName>,
}

impl Rights {
    /// Whether somebody may touch what is for a target (none: for any builder).
    fn is_for(&self, target: Option<&TargetName>) -> bool {
        self.targets.is_empty() || target.is_some_and(|target| self.targets.contains(target))
    }
}

/// How a task of a session ended.
enum TaskEnd {
    /// There is an answer, whose body is to be sent.
    Answered(Answered),
    /// A request is answered to its end.
    Over(RequestId),
}

struct Session {
    name: String,
    peer: Peer,
    pass: Pass,
    rights: Rights,
    credentials: watch::Receiver<Arc<Credentials>>,
    config: Arc<SessionConfig>,
    desk: Desk,
    out: Outgoing<ToOperator>,
    sending: Outgoings,
    receiving: Incoming,
    /// Requests that are not answered to their end.
    open: BTreeSet<RequestId>,
    /// Those that wait for the bytes of an SRPM.
    uploads: BTreeMap<RequestId, mpsc::Sender<(u64, IncomingStream<ToOperator>)>>,
    tasks: JoinSet<TaskEnd>,
}

/// Serves a person until the connection ends; says why it ended, in words that fit after "gone: ".
pub(super) async fn serve<Io>(
    visitor: Visitor,
    frames: Frames<Io>,
    write: WriteHalf<Opened<Io>>,
    peer: Peer,
    config: Arc<SessionConfig>,
    shutdown: CancellationToken,
) -> String
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Visitor { software, pass, rights } = visitor;
    let name = rights.name.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
    tracing::debug!("{name} looks in from {peer}: {software}");
    let (out, queues) = queues();
    let mut writer = tokio::spawn(queues.write(write));
    let mut session = Session {
        name,
        peer,
        pass,
        rights,
        credentials: config.access.credentials.clone(),
        desk: config.desk.clone(),
        config,
        out,
        sending: Outgoings::default(),
        receiving: Incoming::new(REQUESTS),
        open: BTreeSet::new(),
        uploads: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    let last_words = session.out.clone();
    let reason = match session.run(frames, shutdown).await {
        Ok(reason) => reason,
        Err(error) => {
            let reason = one_line(&format!("{error:#}"));
            let _ = last_words.send(&ToOperator::Goodbye { reason: reason.clone() });
            reason
        }
    };
    // Streams that end here are cut; what has arrived of an SRPM stays.
    session.receiving = Incoming::new(0);
    session.uploads.clear();
    session.tasks.shutdown().await;
    drop((session, last_words));
    if timeout(GOODBYE, &mut writer).await.is_err() {
        writer.abort();
    }
    reason
}

impl Session {
    async fn run<R: AsyncRead + Unpin>(
        &mut self,
        mut frames: FrameReader<R>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<String> {
        self.out.send(&ToOperator::Welcome {
            heartbeat_ms: millis(self.config.heartbeat),
            dead_after_ms: millis(self.config.dead_after),
            software: concat!("moji-server ", env!("CARGO_PKG_VERSION")).into(),
            role: self.rights.role,
            credential: self.rights.name.clone(),
        })?;
        let mut dead_at = Instant::now() + self.config.dead_after;
        let mut pace = super::Pace::new(&self.config.limits);
        let out = self.out.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.out.send(&ToOperator::Goodbye { reason: "the server is stopping".into() })?;
                    return Ok("the server is stopping".into());
                }
                Ok(()) = self.credentials.changed() => {
                    // Revoked, or with another role: what was allowed may not be any more.
                    let known = self.credentials.borrow_and_update().clone();
                    if super::greet::rights(&self.pass, &known, &self.config)? != self.rights {
                        bail!("the credential has changed; connect again");
                    }
                }
                Some(end) = self.tasks.join_next() => match end {
                    Ok(TaskEnd::Answered(answered)) => self.answer(answered)?,
                    Ok(TaskEnd::Over(request)) => {
                        self.open.remove(&request);
                        self.uploads.remove(&request);
                    }
                    Err(error) => bail!("a request failed: {error}"),
                },
                // Nothing is read meanwhile: the transport makes the peer wait.
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
                                    "{} is slowed down to {most} messages a second (--limit message-rate)",
                                    self.name
                                );
                                self.config.quiet.warn(Topic::Flood, &self.peer, what);
                            }
                            match encoding::decode(&frame.body)? {
                                FromOperator::Goodbye { reason } => return Ok(one_line(&reason)),
                                message => self.on_message(message)?,
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

    fn on_message(&mut self, message: FromOperator) -> anyhow::Result<()> {
        match message {
            FromOperator::Heartbeat => self.out.send(&ToOperator::HeartbeatSeen)?,
            FromOperator::Get { request, path } => {
                if path.len() > PATH_MAX {
                    bail!("it asks for a path of {} bytes, more than {PATH_MAX}", path.len());
                }
                if self.begins(request)? {
                    let router = self.desk.router.clone();
                    self.tasks
                        .spawn(async move { TaskEnd::Answered(answers::get(router, request, &path).await) });
                }
            }
            FromOperator::Submit { request, srpm, target, size, sha256, place, is_repeat } => {
                if self.begins(request)? {
                    let (to_task, uploads) = mpsc::channel(1);
                    self.uploads.insert(request, to_task);
                    let submitting = Submitting {
                        request,
                        rights: self.rights.clone(),
                        desk: self.desk.clone(),
                        out: self.out.clone(),
                        uploads,
                        who: self.name.clone(),
                    };
                    self.tasks.spawn(async move {
                        submitting.run((srpm, target), (size, sha256), place, is_repeat).await;
                        TaskEnd::Over(request)
                    });
                }
            }
            FromOperator::Upload { request, offset, stream } => {
                let stream = self.receiving.open(stream, &self.out)?;
                match self.uploads.remove(&request) {
                    // The place is free: each gets one.
                    Some(upload) => drop(upload.try_send((offset, stream))),
                    None => stream.unwanted()?,
                }
            }
            FromOperator::Act { request, act } => {
                if self.begins(request)? {
                    let (desk, rights, out) = (self.desk.clone(), self.rights.clone(), self.out.clone());
                    let who = self.name.clone();
                    self.tasks.spawn(async move {
                        acts::act(&desk, &rights, &who, &out, request, act).await;
                        TaskEnd::Over(request)
                    });
                }
            }
            FromOperator::Stream(message) => on_stream_message(&self.sending, &mut self.receiving, message),
            FromOperator::Goodbye { .. } => {}
        }
        Ok(())
    }

    /// Whether a request may begin; one too many is refused.
    fn begins(&mut self, request: RequestId) -> anyhow::Result<bool> {
        if self.open.contains(&request) {
            bail!("it uses the number {request} for two requests at a time");
        }
        if self.open.len() >= REQUESTS {
            let reason = format!("more than {REQUESTS} requests at a time");
            self.out.send(&ToOperator::Refused { request, reason })?;
            return Ok(false);
        }
        self.open.insert(request);
        Ok(true)
    }

    /// Announces an answer, and begins to send its body.
    fn answer(&mut self, answered: Answered) -> anyhow::Result<()> {
        let stream = self.sending.open(&self.out);
        let Answered { request, status, content_type, body } = answered;
        self.out.send(&ToOperator::Answer { request, status, content_type, stream: stream.id })?;
        self.tasks.spawn(async move {
            answers::send(body, stream).await;
            TaskEnd::Over(request)
        });
        Ok(())
    }
}
