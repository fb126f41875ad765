//! Servers and builders without sockets, Mock and a real clock: scripted peers that speak the
//! protocol message by message, small packages, and folders for them.
//!
//! Nothing here waits in real time. With a paused clock the file system is still real: while a
//! blocking task looks at it, the clock stands still.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use moji_proto::frame::{self, Frame, Kind};
use moji_proto::handshake::{Client, ClientStep, Key, PLAINTEXT, Refusal, ServerSecret};
use moji_proto::io::FrameReader;
use moji_proto::limits::{DATA_BYTES, MANIFEST_PART};
use moji_proto::{
    Assignment, AttemptId, ManifestEntry, Outcome, Registration, Sha256, StreamId, StreamMessage, ToBuilder,
    ToServer, encoding,
};
use moji_server::folders::Folders;
use moji_server::record::BuildRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A temporary folder, in memory where there is one: what is tested is not the disk.
///
/// # Errors
/// When none can be made.
pub fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("moji-test-")
        .tempdir_in("/dev/shm")
        .or_else(|_| tempfile::Builder::new().prefix("moji-test-").tempdir())
}

/// An SRPM as far as its headers go, with `payload` bytes behind them.
pub fn srpm(name: &str, version: &str, release: &str, payload: usize) -> Vec<u8> {
    package(name, version, release, None, payload)
}

/// A binary RPM of the SRPM `source`, for `noarch`.
pub fn rpm(name: &str, version: &str, release: &str, source: &str, payload: usize) -> Vec<u8> {
    package(name, version, release, Some(source), payload)
}

fn package(name: &str, version: &str, release: &str, source: Option<&str>, payload: usize) -> Vec<u8> {
    let text = |text: &str| (6, 1, [text.as_bytes(), b"\0"].concat());
    let mut entries = vec![
        (1000, text(name)),
        (1001, text(version)),
        (1002, text(release)),
        (1004, (9, 1, b"a summary\0".to_vec())),
        (1009, (4, 1, 4711_u32.to_be_bytes().to_vec())),
        (1022, text("noarch")),
    ];
    match source {
        Some(source) => entries.push((1044, text(source))),
        None => entries.push((1106, (4, 1, 1_u32.to_be_bytes().to_vec()))),
    }
    let header = section(&entries);
    let size = (header.len() + payload) as u32;
    let mut bytes = vec![0xed, 0xab, 0xee, 0xdb, 3, 0, 0, u8::from(source.is_none())];
    bytes.resize(78, 0);
    bytes.extend([0, 5]);
    bytes.resize(96, 0);
    bytes.extend(section(&[(1000, (4, 1, size.to_be_bytes().to_vec()))]));
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(header);
    // No zeros: they have a meaning of their own at the start of a file.
    let pattern: Vec<u8> = (1..=251).collect();
    bytes.extend(pattern.iter().cycle().take(payload % 251));
    bytes.extend(pattern.repeat(payload / 251));
    bytes
}

/// Tag, and type, count and bytes of its value.
type Entry = (u32, (u32, u32, Vec<u8>));

fn section(entries: &[Entry]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, (kind, count, value)) in entries {
        data.resize(usize::next_multiple_of(data.len(), if *kind == 4 { 4 } else { 1 }), 0);
        for word in [*tag, *kind, data.len() as u32, *count] {
            index.extend(word.to_be_bytes());
        }
        data.extend(value);
    }
    let mut bytes = vec![0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
    bytes.extend((entries.len() as u32).to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(index);
    bytes.extend(data);
    bytes
}

/// The four folders of a farm in one temporary one.
#[derive(Debug)]
pub struct Site {
    /// The folders.
    pub folders: Folders,
    at: TempDir,
}

impl Site {
    /// Empty folders.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new() -> io::Result<Self> {
        let at = scratch()?;
        let folder = |name: &str| {
            let path = at.path().join(name);
            fs::create_dir(&path).map(|()| path)
        };
        let folders = Folders {
            source: folder("source")?,
            working: folder("working")?,
            finished: folder("finished")?,
            repo: folder("repo")?,
        };
        Ok(Self { folders, at })
    }

    /// The folder that the four are in.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// Puts a file into SOURCE, whole at once, and old enough to be taken at the next look. `path`
    /// is below SOURCE.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let (part, to) = (self.at.path().join("part"), self.folders.source.join(path));
        fs::write(&part, content)?;
        fs::File::options()
            .write(true)
            .open(&part)?
            .set_modified(SystemTime::now() - Duration::from_secs(3600))?;
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::rename(part, to)
    }

    /// Puts `<name>-1-1.src.rpm` into SOURCE.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_srpm(&self, name: &str) -> io::Result<()> {
        self.put(&format!("{name}-1-1.src.rpm"), &srpm(name, "1", "1", 3_000))
    }

    /// SRPMs in SOURCE, below it, sorted.
    pub fn source(&self) -> Vec<String> {
        srpms_in(&self.folders.source)
    }

    /// SRPMs in WORKING.
    pub fn working(&self) -> Vec<String> {
        srpms_in(&self.folders.working)
    }

    /// SRPMs in FINISHED.
    pub fn finished(&self) -> Vec<String> {
        srpms_in(&self.folders.finished)
    }

    /// What is staged: a folder for each attempt.
    pub fn staged(&self) -> Vec<String> {
        names_in(&self.folders.attempts())
    }

    /// `build.json` in a folder below REPO.
    pub fn record(&self, folder: &str) -> Option<BuildRecord> {
        let json = fs::read(self.folders.repo.join(folder).join("build.json")).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// The names in a folder below REPO.
    pub fn published(&self, folder: &str) -> Vec<String> {
        names_in(&self.folders.repo.join(folder))
    }
}

/// The names in a folder, sorted; none when it is not there.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn srpms_in(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        if name.ends_with(".src.rpm") {
            found.push(name);
        } else if path.is_dir() && !name.starts_with('.') {
            let inner = names_in(&path).into_iter().filter(|inner| inner.ends_with(".src.rpm"));
            found.extend(inner.map(|inner| format!("{name}/{inner}")));
        }
    }
    found
}

/// Connections that a test makes by hand.
#[derive(Debug)]
pub struct Connections(mpsc::UnboundedReceiver<DuplexStream>);

impl moji_server::Listener for Connections {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, String)> {
        match self.0.recv().await {
            Some(io) => Ok((io, "a test".into())),
            None => std::future::pending().await,
        }
    }
}

/// The real server over temporary folders and connections in memory.
#[derive(Debug)]
pub struct TestServer {
    /// Its folders.
    pub site: Site,
    /// Ends it.
    pub shutdown: CancellationToken,
    password: Option<String>,
    connect: mpsc::UnboundedSender<DuplexStream>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// How the servers of these tests run: no inotify and no `createrepo_c`, because both live on the
/// real clock.
pub fn server_config(folders: Folders) -> moji_server::run::Config {
    moji_server::run::Config {
        folders,
        password: None,
        heartbeat: Duration::from_secs(10),
        dead_after: Duration::from_secs(30),
        grace: Duration::from_secs(10),
        createrepo: PathBuf::from("/nonexistent/createrepo_c"),
        log_limit: 1 << 20,
        watch: false,
        rescan: Duration::from_secs(1),
    }
}

impl TestServer {
    /// A server over `site`; `adjust` changes how it runs.
    pub fn start(site: Site, adjust: impl FnOnce(&mut moji_server::run::Config)) -> Self {
        let mut config = server_config(site.folders.clone());
        adjust(&mut config);
        let (connect, connections) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let password = config.password.clone();
        let running = moji_server::run::run(config, Connections(connections), shutdown.clone());
        Self { site, password, shutdown, connect, task: tokio::spawn(running) }
    }

    /// The usual server over empty folders.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self::start(Site::new()?, |_| {}))
    }

    /// The client's end of a new connection, on which nothing was said yet.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn connect(&self) -> anyhow::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.connect.send(theirs).map_err(|_| anyhow!("the server has ended"))?;
        Ok(ours)
    }

    /// A builder that was let in.
    ///
    /// # Errors
    /// When it was not.
    pub async fn builder(&self, name: &str, targets: &[&str], slots: u16) -> anyhow::Result<ScriptedBuilder> {
        Peer::enter(self.connect()?, registration(name, targets, slots)?, self.password.as_deref()).await
    }

    /// Waits, on tokio's clock, until something is so.
    ///
    /// # Errors
    /// When it does not become so within some minutes.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Site) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(600);
        while !is_so(&self.site) {
            if Instant::now() > end {
                bail!("never: {what}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Stops the server and waits until it has ended.
    ///
    /// # Errors
    /// When it failed.
    pub async fn stop(self) -> anyhow::Result<Site> {
        self.shutdown.cancel();
        self.task.await??;
        Ok(self.site)
    }
}

/// What a builder says of itself.
///
/// # Errors
/// When a name is none.
pub fn registration(name: &str, targets: &[&str], slots: u16) -> anyhow::Result<Registration> {
    let targets: Result<_, _> = targets.iter().map(|target| target.parse()).collect();
    let (arch, software) = ("aarch64".into(), "a test".into());
    Ok(Registration { name: name.parse()?, targets: targets?, slots, arch, software })
}

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
    waiting: VecDeque<In>,
    last_stream: StreamId,
    out: PhantomData<fn(Out)>,
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
            waiting: VecDeque::new(),
            last_stream: 0,
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
            Some(StreamMessage::Received { .. }) => {}
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
        let mut peer = Self::new(io);
        peer.shake_hands(password).await?;
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
        let refused = |error: moji_proto::handshake::HandshakeError| match error {
            moji_proto::handshake::HandshakeError::Refused(refusal) => anyhow::Error::from(refusal),
            error => error.into(),
        };
        let (client, hello) = Client::start(&[7; 32], PLAINTEXT);
        self.raw(&hello).await?;
        let answer = self.frame().await?;
        match client.server_hello(answer, password.is_some()).map_err(refused)? {
            ClientStep::Done { .. } => {}
            ClientStep::NeedKey(need) => {
                let key = Key::stretch(password.unwrap_or_default(), &need.salt)?;
                let (awaiting, proof) = need.prove(key);
                self.raw(&proof).await?;
                awaiting.finish(self.frame().await?).map_err(refused)?;
            }
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

    /// Announces a delivery, lists its files and sends their bytes; gives its stream, which is not
    /// ended.
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
        let stream = self.next_stream();
        let total = manifest.iter().map(|entry| entry.size).sum();
        let files = manifest.len() as u32;
        self.say(ToServer::Deliver { attempt, outcome, files, bytes: total, stream }).await?;
        for entries in manifest.chunks(MANIFEST_PART) {
            self.say(ToServer::Manifest { attempt, entries: entries.to_vec() }).await?;
        }
        self.data(stream, bytes).await?;
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
        let hello = self.frame().await?;
        let answer = secret.answer(hello, &[9; 32], &PLAINTEXT)?;
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
                ToServer::Heartbeat { .. } => self.say(ToBuilder::HeartbeatSeen).await?,
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
        }))
        .await?;
        self.data(stream, bytes).await?;
        self.end(stream, Some(sha256)).await?;
        Ok(attempt)
    }

    /// Takes everything until a delivery is whole: the attempt, how it ended, and the bytes of its
    /// files, by name.
    ///
    /// # Errors
    /// When the connection has ended or something else comes.
    pub async fn delivery(&mut self) -> anyhow::Result<(AttemptId, Outcome, BTreeMap<String, Vec<u8>>)> {
        let mut entries = Vec::new();
        let mut announced = None;
        loop {
            match self.word().await? {
                ToServer::Log { .. } => {}
                ToServer::Deliver { attempt, outcome, files, stream, .. } => {
                    announced = Some((attempt, outcome, files, stream));
                }
                ToServer::Manifest { entries: part, .. } => entries.extend(part),
                other => bail!("{other:?} came in the middle of a delivery"),
            }
            let Some((attempt, outcome, files, stream)) = announced.clone() else { continue };
            if entries.len() < files as usize {
                continue;
            }
            let (mut bytes, _) = self.whole(stream).await?;
            let mut contents = BTreeMap::new();
            for entry in &entries {
                let rest = bytes.split_off((entry.size as usize).min(bytes.len()));
                contents.insert(entry.name.to_string(), std::mem::replace(&mut bytes, rest));
            }
            return Ok((attempt, outcome, contents));
        }
    }
}
