//! A server that does what a test tells it, over a pipe in memory or over TCP.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use moji_client::access::{Access, Secret};
use moji_client::operator::Farm;
use moji_client::run::Connector;
use moji_proto::frame::{self, Kind};
use moji_proto::handshake::{PLAINTEXT, Refusal, RefusalCode, ServerSecret};
use moji_proto::io::{
    FrameReader, Incoming, IncomingStream, Outgoing, Outgoings, Piece, on_stream_message, queues,
};
use moji_proto::operator::{Done, FromOperator, RequestId, Role, ToOperator};
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{CredentialName, PublicKey, ToServer, Token, encoding};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Connects to a server in memory.
pub(crate) struct Pipe(mpsc::Sender<DuplexStream>);

impl Connector for Pipe {
    type Io = DuplexStream;

    async fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(64 * 1024);
        self.0.send(theirs).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }

    fn server(&self) -> String {
        "memory:6789".into()
    }

    fn jitter(&self) -> u32 {
        0
    }
}

/// A farm whose connections come out of the other end.
pub(crate) fn farm() -> (Farm, mpsc::Receiver<DuplexStream>) {
    let (connections, accepted) = mpsc::channel(1);
    (Farm::new(Pipe(connections), Access::of_person(Secret::None, None, true)), accepted)
}

fn identity() -> SigningKey {
    SigningKey::new(&Seed::new([7; 32]))
}

/// What lets anna in.
pub(crate) fn token() -> Token {
    let name = "anna".parse().unwrap();
    Token { server: identity().public().fingerprint(), name, seed: Seed::new([9; 32]) }
}

/// The server's end of a session.
pub(crate) struct Peer {
    pub(crate) out: Outgoing<ToOperator>,
    asked: mpsc::Receiver<(FromOperator, Option<IncomingStream<ToOperator>>)>,
    sending: Arc<Mutex<Outgoings>>,
    held: VecDeque<Box<dyn std::any::Any + Send>>,
    tasks: [JoinHandle<()>; 2],
}

impl Peer {
    /// Lets somebody in.
    pub(crate) async fn welcome(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::greet(io, None, BTreeMap::new()).await.expect("it was welcome")
    }

    /// Lets the owner of [`token`] in, and nobody else.
    pub(crate) async fn welcome_anna(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let key = SigningKey::new(&token().seed).public();
        Self::greet(io, None, [(token().name, key)].into()).await.expect("it was welcome")
    }

    /// Lets nobody in.
    pub(crate) async fn refuse(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, reason: &str) {
        assert!(Self::greet(io, Some(reason), BTreeMap::new()).await.is_none());
    }

    async fn greet(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        refused: Option<&str>,
        credentials: BTreeMap<CredentialName, PublicKey>,
    ) -> Option<Self> {
        let (read, mut write) = split(io);
        let mut frames = FrameReader::new(read);
        let secret = ServerSecret::new(Arc::new(identity()), None, [3; 16]).unwrap();
        let hello = frames.next().await.unwrap().unwrap();
        let answer = secret.answer(hello, &[5; 32], &PLAINTEXT, &credentials).unwrap();
        write.write_all(&answer.hello).await.unwrap();
        if answer.wants_proof() {
            let proof = frames.next().await.unwrap().unwrap();
            write.write_all(&answer.check(proof).unwrap()).await.unwrap();
        }
        frames.handshake_done();
        let operate = frames.next().await.unwrap().unwrap();
        let ToServer::Operate(operate) = encoding::decode(&operate.body).unwrap() else { panic!() };
        assert!(operate.software.starts_with("moji "));
        if let Some(reason) = refused {
            write.write_all(&Refusal::new(RefusalCode::Registration, reason).encode()).await.unwrap();
            write.shutdown().await.unwrap();
            return None;
        }
        let (out, queued) = queues();
        out.send(&ToOperator::Welcome {
            heartbeat_ms: 1000,
            dead_after_ms: 5000,
            software: "moji-server 9".into(),
            role: Role::Admin,
            credential: Some("anna".parse().unwrap()),
        })
        .unwrap();
        let writer = tokio::spawn(async move { drop(queued.write(write).await) });
        let sending = Arc::new(Mutex::new(Outgoings::default()));
        let (ask, asked) = mpsc::channel(64);
        let pump = tokio::spawn(pump(frames, out.clone(), Arc::clone(&sending), ask));
        Some(Self { out, asked, sending, held: VecDeque::new(), tasks: [writer, pump] })
    }

    /// What is asked next; none: the session has ended.
    pub(crate) async fn next(&mut self) -> Option<FromOperator> {
        let (asked, stream) = self.asked.recv().await?;
        self.held.extend(stream.map(|stream| Box::new(stream) as Box<dyn std::any::Any + Send>));
        Some(asked)
    }

    /// The path of the next question.
    pub(crate) async fn path(&mut self) -> (RequestId, String) {
        match self.next().await {
            Some(FromOperator::Get { request, path }) => (request, path),
            other => panic!("a question was expected, {other:?} came"),
        }
    }

    /// Answers with all of this.
    pub(crate) async fn answer(&mut self, request: RequestId, status: u16, body: &str) {
        let parts = [Bytes::copy_from_slice(body.as_bytes())];
        self.begin_answer(request, status, parts).await.end(None).await.unwrap();
    }

    /// Answers with this, and perhaps more.
    pub(crate) async fn begin_answer(
        &mut self,
        request: RequestId,
        status: u16,
        parts: impl IntoIterator<Item = Bytes>,
    ) -> moji_proto::io::OutgoingStream<ToOperator> {
        let mut stream = self.sending.lock().unwrap().open(&self.out);
        let content_type = "application/json".into();
        self.out.send(&ToOperator::Answer { request, status, content_type, stream: stream.id }).unwrap();
        for part in parts {
            stream.send(part).await.unwrap();
        }
        stream
    }

    /// An upload that was begun: at which byte.
    pub(crate) async fn upload(&mut self) -> (u64, IncomingStream<ToOperator>) {
        match self.asked.recv().await {
            Some((FromOperator::Upload { offset, .. }, Some(stream))) => (offset, stream),
            other => panic!("an upload was expected, {other:?} came"),
        }
    }

    pub(crate) fn done(&self, request: RequestId, about: &str, is_done: bool) {
        let done = vec![Done { about: about.into(), is_done, text: "a text\u{1b}[2J".into() }];
        self.out.send(&ToOperator::Done { request, done }).unwrap();
    }

    /// The connection is gone, without a word.
    pub(crate) fn cut(self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn pump(
    mut frames: FrameReader<impl AsyncRead + Unpin>,
    out: Outgoing<ToOperator>,
    sending: Arc<Mutex<Outgoings>>,
    ask: mpsc::Sender<(FromOperator, Option<IncomingStream<ToOperator>>)>,
) {
    let mut receiving = Incoming::new(32);
    while let Ok(Some(frame)) = frames.next().await {
        if frame.kind == Kind::Data {
            let (stream, bytes) = frame::split_data(frame.body).unwrap();
            receiving.on_data(stream, bytes).unwrap();
            continue;
        }
        match encoding::decode(&frame.body).unwrap() {
            FromOperator::Heartbeat => out.send(&ToOperator::HeartbeatSeen).unwrap(),
            FromOperator::Stream(message) => {
                on_stream_message(&sending.lock().unwrap(), &mut receiving, message);
            }
            FromOperator::Goodbye { .. } => return,
            message => {
                let stream = match &message {
                    FromOperator::Upload { stream, .. } => Some(receiving.open(*stream, &out).unwrap()),
                    _ => None,
                };
                if ask.send((message, stream)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// All that comes on a stream until its end, or until there is so much of it.
pub(crate) async fn received(stream: &mut IncomingStream<ToOperator>, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < most {
        match stream.next().await {
            Some(Piece::Data(bytes)) => {
                stream.wrote(bytes.len() as u64).unwrap();
                all.extend_from_slice(&bytes);
            }
            Some(Piece::End(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    all
}
