//! One end of a connection that does what a test says: a builder or a server by script.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use moji_proto::frame::{self, Frame, Kind};
use moji_proto::handshake::{
    Binding, Claim, Client, ClientStep, HandshakeError, Key, PLAINTEXT, Refusal, ServerSecret,
};
use moji_proto::io::FrameReader;
use moji_proto::limits::{DATA_BYTES, MANIFEST_PART};
use moji_proto::operator::ToOperator;
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{
    Assignment, AttemptId, ManifestEntry, Outcome, Registration, Sha256, StreamId, StreamMessage, ToBuilder,
    ToServer, Token, encoding,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};

/// A message that may be about a stream.
pub trait AboutStream {
    /// What it says about it.
    fn about_stream(&self) -> Option<&StreamMessage>;
}

impl AboutStream for ToServer {
    fn about_stream(&self) -> Option<&StreamMessage> {
        if let Self::Stream(message) = self { Some(message) } else { None }
    }
}

impl AboutStream for ToBuilder {
    fn about_stream(&self) -> Option<&StreamMessage> {
        if let Self::Stream(message) = self { Some(message) } else { None }
    }
}

impl AboutStream for ToOperator {
    fn about_stream(&self) -> Option<&StreamMessage> {
        if let Self::Stream(message) = self { Some(message) } else { None }
    }
}

/// A stream that the other side sends, as far as it has come.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its last word.
    pub last: Option<StreamMessage>,
}

/// One end of a connection, moved by a script: says `Out`, hears `In`.
#[derive(Debug)]
pub struct Peer<Io, Out, In> {
    frames: FrameReader<ReadHalf<Io>>,
    write: WriteHalf<Io>,
    /// Streams of the other side.
    pub streams: BTreeMap<StreamId, Heard>,
    /// Own streams that the other side wants no more of.
    pub unwanted: Vec<StreamId>,
    received: BTreeMap<StreamId, u64>,
    waiting: VecDeque<In>,
    last_stream: StreamId,
    out: PhantomData<fn(Out)>,
}

/// Who a scripted builder is.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// It knows no secret.
    Nobody,
    /// It knows the password.
    Password(&'a str),
    /// It has a token. A server with another key it leaves.
    Token(&'a Token),
}

/// A builder that does what a test says.
pub type ScriptedBuilder<Io = DuplexStream> = Peer<Io, ToServer, ToBuilder>;
/// A server that does what a test says.
pub type ScriptedServer<Io = DuplexStream> = Peer<Io, ToBuilder, ToServer>;

impl<Io, Out, In> Peer<Io, Out, In>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    Out: Serialize + From<StreamMessage>,
    In: DeserializeOwned + AboutStream + std::fmt::Debug,
{
    /// On a connection on which nothing was said yet.
    pub fn new(io: Io) -> Self {
        let (read, write) = tokio::io::split(io);
        Self {
            frames: FrameReader::new(read),
            write,
            streams: BTreeMap::new(),
            unwanted: Vec::new(),
            received: BTreeMap::new(),
            waiting: VecDeque::new(),
            last_stream: 0,
            out: PhantomData,
        }
    }

    /// The same connection, on which other messages are spoken from now on.
    pub fn speaking<Said, Heard>(self) -> Peer<Io, Said, Heard> {
        Peer {
            frames: self.frames,
            write: self.write,
            streams: self.streams,
            unwanted: self.unwanted,
            received: self.received,
            waiting: VecDeque::new(),
            last_stream: self.last_stream,
            out: PhantomData,
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await?;
        self.write.flush().await
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn frame(&mut self) -> anyhow::Result<Frame> {
        self.frames.next().await?.context("the connection has ended")
    }

    /// Says something.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn say(&mut self, message: impl Into<Out>) -> anyhow::Result<()> {
        let body = encoding::encode(&message.into())?;
        Ok(self.raw(&frame::encode(Kind::Control, &body)).await?)
    }

    /// How much of an own stream the other side says that it has.
    pub fn received(&self, stream: StreamId) -> u64 {
        self.received.get(&stream).copied().unwrap_or(0)
    }

    /// A number for a stream of its own.
    pub fn next_stream(&mut self) -> StreamId {
        self.last_stream += 1;
        self.last_stream
    }

    /// Sends file bytes.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn data(&mut self, stream: StreamId, bytes: &[u8]) -> anyhow::Result<()> {
        for piece in bytes.chunks(DATA_BYTES) {
            self.raw(&frame::data_header(stream, piece.len())).await?;
            self.raw(piece).await?;
        }
        Ok(())
    }

    /// Ends a stream.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn end(&mut self, stream: StreamId, sha256: Option<Sha256>) -> anyhow::Result<()> {
        self.say(StreamMessage::End { stream, sha256 }).await
    }

    /// Takes one frame; gives its message when it is not about a stream.
    async fn step(&mut self) -> anyhow::Result<Option<In>> {
        let frame = self.frame().await?;
        if frame.kind == Kind::Data {
            let (stream, bytes) = frame::split_data(frame.body)?;
            let heard = self.streams.entry(stream).or_default();
            heard.bytes.extend_from_slice(&bytes);
            let bytes = heard.bytes.len() as u64;
            self.say(StreamMessage::Received { stream, bytes }).await?;
            return Ok(None);
        }
        let message: In = encoding::decode(&frame.body)?;
        match message.about_stream() {
            None => return Ok(Some(message)),
            Some(last @ (StreamMessage::End { stream, .. } | StreamMessage::Abort { stream, .. })) => {
                self.streams.entry(*stream).or_default().last = Some(last.clone());
            }
            Some(StreamMessage::Unwanted { stream }) => self.unwanted.push(*stream),
            Some(StreamMessage::Received { stream, bytes }) => {
                self.received.insert(*stream, *bytes);
            }
        }
        Ok(None)
    }

    /// The next message that is not about streams; what comes on streams is taken meanwhile.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn hear(&mut self) -> anyhow::Result<In> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            if let Some(message) = self.step().await? {
                return Ok(message);
            }
        }
    }

    /// Goes on until something is so; messages wait meanwhile.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn until(&mut self, is_so: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        while !is_so(self) {
            if let Some(message) = self.step().await? {
                self.waiting.push_back(message);
            }
        }
        Ok(())
    }

    /// All of a stream, when its sender said that it is whole.
    ///
    /// # Errors
    /// When it was aborted or the connection has ended.
    pub async fn whole(&mut self, stream: StreamId) -> anyhow::Result<(Vec<u8>, Option<Sha256>)> {
        self.until(|peer| peer.streams.get(&stream).is_some_and(|heard| heard.last.is_some())).await?;
        let heard = self.streams.remove(&stream).unwrap_or_default();
        match heard.last {
            Some(StreamMessage::End { sha256, .. }) => Ok((heard.bytes, sha256)),
            other => bail!("stream {stream} is not whole: {other:?}"),
        }
    }

    /// Reads until the connection ends; gives what was said meanwhile.
    pub async fn to_the_end(&mut self) -> Vec<In> {
        let mut heard = Vec::new();
        while let Ok(message) = self.hear().await {
            heard.push(message);
        }
        heard
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> ScriptedBuilder<Io> {
    /// Handshake and registration.
    ///
    /// # Errors
    /// When the server refuses; a refusal is a [`Refusal`].
    pub async fn enter(io: Io, registration: Registration, password: Option<&str>) -> anyhow::Result<Self> {
        Self::enter_as(io, registration, password.map_or(Who::Nobody, Who::Password), PLAINTEXT).await
    }

    /// The same on a connection to which proofs are tied.
    ///
    /// # Errors
    /// When the server refuses; a refusal is a [`Refusal`].
    pub async fn enter_as(
        io: Io,
        registration: Registration,
        who: Who<'_>,
        binding: Binding,
    ) -> anyhow::Result<Self> {
        let mut peer = Self::new(io);
        peer.introduce(who, binding).await?;
        peer.say(ToServer::Register(registration)).await?;
        let frame = peer.frame().await?;
        if frame.kind == Kind::Refusal {
            return Err(Refusal::decode(frame.body).into());
        }
        match encoding::decode(&frame.body)? {
            ToBuilder::Registered { .. } => Ok(peer),
            other => bail!("{other:?} came instead of a welcome"),
        }
    }

    /// The handshake only.
    ///
    /// # Errors
    /// When the server refuses; a refusal is a [`Refusal`].
    pub async fn shake_hands(&mut self, password: Option<&str>) -> anyhow::Result<()> {
        self.introduce(password.map_or(Who::Nobody, Who::Password), PLAINTEXT).await
    }

    /// The same on a connection to which proofs are tied.
    ///
    /// # Errors
    /// When the server refuses; a refusal is a [`Refusal`].
    pub async fn introduce(&mut self, who: Who<'_>, binding: Binding) -> anyhow::Result<()> {
        let refused = |error: HandshakeError| match error {
            HandshakeError::Refused(refusal) => anyhow::Error::from(refusal),
            error => error.into(),
        };
        let (claim, server) = match who {
            Who::Nobody => (Claim::Nobody, None),
            Who::Password(_) => (Claim::Password, None),
            Who::Token(token) => (Claim::Credential(token.name.clone()), Some(token.server)),
        };
        let (client, hello) = Client::start(&[7; 32], binding, claim);
        self.raw(&hello).await?;
        let answer = self.frame().await?;
        let proof = match (client.server_hello(answer, server).map_err(refused)?, who) {
            (ClientStep::Done(_), _) => None,
            (ClientStep::NeedKey(need), Who::Password(password)) => {
                let key = Key::stretch(password, &need.salt)?;
                Some(need.prove(key))
            }
            (ClientStep::NeedSignature(need), Who::Token(token)) => {
                Some(need.sign(&SigningKey::new(&token.seed)))
            }
            _ => bail!("the server asks for another proof than was offered"),
        };
        if let Some((awaiting, proof)) = proof {
            self.raw(&proof).await?;
            awaiting.finish(self.frame().await?).map_err(refused)?;
        }
        self.frames.handshake_done();
        Ok(())
    }

    /// Asks for work for a slot.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ask(&mut self, slot: u16) -> anyhow::Result<()> {
        self.say(ToServer::Ask { slot }).await
    }

    /// The next message, which must be an assignment; its SRPM is not waited for.
    ///
    /// # Errors
    /// When another message comes, or the connection ends.
    pub async fn assignment(&mut self) -> anyhow::Result<Assignment> {
        match self.word().await? {
            ToBuilder::Assign(assignment) => Ok(assignment),
            other => bail!("{other:?} came instead of an assignment"),
        }
    }

    /// The next message that is about an attempt or says goodbye.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn word(&mut self) -> anyhow::Result<ToBuilder> {
        loop {
            match self.hear().await? {
                ToBuilder::HeartbeatSeen => {}
                other => return Ok(other),
            }
        }
    }

    /// Asks, and receives a whole SRPM.
    ///
    /// # Errors
    /// When something else comes, or the SRPM is damaged.
    pub async fn lease(&mut self, slot: u16) -> anyhow::Result<Assignment> {
        self.ask(slot).await?;
        let assignment = self.assignment().await?;
        let (bytes, sha256) = self.whole(assignment.stream).await?;
        if sha256 != Some(Sha256::of(&bytes)) || assignment.size != bytes.len() as u64 {
            bail!("{} arrived damaged", assignment.srpm);
        }
        Ok(assignment)
    }

    /// Announces a delivery and lists its files.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn announce(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        manifest: &[ManifestEntry],
    ) -> anyhow::Result<()> {
        let bytes = manifest.iter().map(|entry| entry.size).sum();
        self.say(ToServer::Deliver { attempt, outcome, files: manifest.len() as u32, bytes }).await?;
        for entries in manifest.chunks(MANIFEST_PART) {
            self.say(ToServer::Manifest { attempt, entries: entries.to_vec() }).await?;
        }
        Ok(())
    }

    /// Announces a delivery, and sends what the server wants of its bytes; gives the stream, which is
    /// not ended. When the server wants nothing, its answer is the next word, and no stream is open:
    /// what is said about the one that is given then, the server does not mind.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn deliver_open(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        manifest: &[ManifestEntry],
        bytes: &[u8],
    ) -> anyhow::Result<StreamId> {
        self.announce(attempt, outcome, manifest).await?;
        let offset = match self.word().await? {
            ToBuilder::Wanted { attempt: wanted, offset, .. } if wanted == attempt => offset,
            other => {
                self.waiting.push_front(other);
                return Ok(0);
            }
        };
        let stream = self.next_stream();
        self.say(ToServer::Upload { attempt, offset, stream }).await?;
        self.data(stream, bytes.get(offset as usize..).unwrap_or_default()).await?;
        Ok(stream)
    }

    /// Delivers files.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn deliver(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        files: &[(&str, &[u8])],
    ) -> anyhow::Result<()> {
        let bytes: Vec<u8> = files.iter().flat_map(|(_, content)| content.iter().copied()).collect();
        let stream = self.deliver_open(attempt, outcome, &manifest(files)?, &bytes).await?;
        self.end(stream, None).await
    }
}

/// The manifest of files.
///
/// # Errors
/// When a name is none.
pub fn manifest(files: &[(&str, &[u8])]) -> anyhow::Result<Vec<ManifestEntry>> {
    let entry = |(name, content): &(&str, &[u8])| {
        Ok(ManifestEntry { name: name.parse()?, size: content.len() as u64, sha256: Sha256::of(content) })
    };
    files.iter().map(entry).collect()
}

/// What a server needs for the handshake, with a key of its own.
///
/// # Errors
/// Never in practice: the password would have to be gigabytes long.
pub fn server_secret(password: Option<&str>) -> anyhow::Result<ServerSecret> {
    let identity = Arc::new(SigningKey::new(&Seed::new([5; 32])));
    Ok(ServerSecret::new(identity, password, [3; 16])?)
}

impl<Io: AsyncRead + AsyncWrite + Unpin> ScriptedServer<Io> {
    /// Lets a client in: handshake, registration, welcome.
    ///
    /// # Errors
    /// When the client does not do its part.
    pub async fn welcome(io: Io, secret: &ServerSecret) -> anyhow::Result<(Self, Registration)> {
        let mut peer = Self::new(io);
        peer.shake_hands(secret).await?;
        let registration = match peer.hear().await? {
            ToServer::Register(registration) => registration,
            other => bail!("{other:?} came instead of a registration"),
        };
        let (heartbeat_ms, dead_after_ms, software) = (10_000, 30_000, "a test".into());
        peer.say(ToBuilder::Registered { heartbeat_ms, dead_after_ms, software }).await?;
        Ok((peer, registration))
    }

    /// The handshake only.
    ///
    /// # Errors
    /// When the client's proof is wrong, or it gives up.
    pub async fn shake_hands(&mut self, secret: &ServerSecret) -> anyhow::Result<()> {
        self.shake_hands_on(secret, PLAINTEXT).await
    }

    /// The same on a connection to which proofs are tied.
    ///
    /// # Errors
    /// When the client's proof is wrong, or it gives up.
    pub async fn shake_hands_on(&mut self, secret: &ServerSecret, binding: Binding) -> anyhow::Result<()> {
        let hello = self.frame().await?;
        let answer = secret.answer(hello, &[9; 32], &binding, &BTreeMap::new())?;
        self.raw(&answer.hello).await?;
        if answer.wants_proof() {
            let proof = self.frame().await?;
            let answer = answer.check(proof)?;
            self.raw(&answer).await?;
        }
        self.frames.handshake_done();
        Ok(())
    }

    /// The next message but heartbeats, which are answered.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn word(&mut self) -> anyhow::Result<ToServer> {
        loop {
            match self.hear().await? {
                // Who has left already has said things before that, which are still to be heard.
                ToServer::Heartbeat { .. } => drop(self.say(ToBuilder::HeartbeatSeen).await),
                other => return Ok(other),
            }
        }
    }

    /// Gives an SRPM to a slot; the digest that it is sent with is `sha256`.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn assign(
        &mut self,
        serial: u64,
        slot: u16,
        name: &str,
        bytes: &[u8],
        sha256: Sha256,
    ) -> anyhow::Result<AttemptId> {
        let attempt = AttemptId { boot: 0xb007, serial };
        let stream = self.next_stream();
        self.say(ToBuilder::Assign(Assignment {
            attempt,
            slot,
            target: "f43".parse()?,
            srpm: format!("{name}-1-1.src.rpm").parse()?,
            size: bytes.len() as u64,
            stream,
            repository: None,
        }))
        .await?;
        self.data(stream, bytes).await?;
        self.end(stream, Some(sha256)).await?;
        Ok(attempt)
    }

    /// Takes everything until a delivery is whole: the attempt, how it ended, and the bytes of its
    /// files, by name. Slots that ask meanwhile are heard afterwards.
    ///
    /// # Errors
    /// When the connection has ended or something else comes.
    pub async fn delivery(&mut self) -> anyhow::Result<(AttemptId, Outcome, BTreeMap<String, Vec<u8>>)> {
        let (mut entries, mut asks) = (Vec::new(), Vec::new());
        let mut announced = None;
        loop {
            match self.word().await? {
                ToServer::Log { .. } => {}
                ask @ ToServer::Ask { .. } => asks.push(ask),
                ToServer::Deliver { attempt, outcome, files, .. } => {
                    announced = Some((attempt, outcome, files));
                }
                ToServer::Manifest { entries: part, .. } => entries.extend(part),
                other => bail!("{other:?} came in the middle of a delivery"),
            }
            let Some((attempt, outcome, files)) = announced.clone() else { continue };
            if entries.len() < files as usize {
                continue;
            }
            let stream = self.want(attempt, 0, Sha256::of(b"")).await?;
            let (mut bytes, _) = self.whole(stream).await?;
            let mut contents = BTreeMap::new();
            for entry in &entries {
                let rest = bytes.split_off((entry.size as usize).min(bytes.len()));
                contents.insert(entry.name.to_string(), std::mem::replace(&mut bytes, rest));
            }
            self.waiting.extend(asks);
            return Ok((attempt, outcome, contents));
        }
    }

    /// Asks for the results of an attempt from `offset` on; gives their stream.
    ///
    /// # Errors
    /// When the connection has ended or something else comes.
    pub async fn want(&mut self, attempt: AttemptId, offset: u64, part: Sha256) -> anyhow::Result<StreamId> {
        self.say(ToBuilder::Wanted { attempt, offset, part }).await?;
        let mut asks = Vec::new();
        loop {
            match self.word().await? {
                ToServer::Log { .. } => {}
                ask @ ToServer::Ask { .. } => asks.push(ask),
                ToServer::Upload { attempt: uploaded, stream, .. } if uploaded == attempt => {
                    self.waiting.extend(asks);
                    return Ok(stream);
                }
                other => bail!("{other:?} came instead of an upload"),
            }
        }
    }
}
