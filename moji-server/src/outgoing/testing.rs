//! A log of events in memory, and a web server that does as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::api::{Event, EventBuild, EventKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::event_log::EventLog;
use crate::history::StoreError;

/// Waits until something is true of what is watched.
pub(super) async fn until<T>(watched: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) {
    let deadline = Duration::from_secs(30);
    tokio::time::timeout(deadline, watched.wait_for(wanted)).await.expect("in time").unwrap();
}

/// An event of that kind.
pub(super) fn event(id: u64, kind: EventKind) -> Event {
    Event {
        id,
        at: Timestamp::now(),
        kind,
        text: format!("text of {id}"),
        build: Some(EventBuild {
            id: Some(id + 1000),
            target: Some("f43".parse().unwrap()),
            srpm: "foo-1-1.src.rpm".parse().unwrap(),
            nvr: None,
        }),
        attempt: None,
        builder: Some("board-7".into()),
        failure: None,
        reason: Some("it broke".into()),
        missing: Vec::new(),
        target: None,
        generation: None,
    }
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    cursors: BTreeMap<String, u64>,
    /// Each change of a cursor.
    changes: Vec<u64>,
}

/// What a history does, in memory.
#[derive(Debug, Clone)]
pub(super) struct MemoryLog {
    state: Arc<Mutex<State>>,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    cursor: watch::Sender<u64>,
}

impl MemoryLog {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(8).0, cursor: watch::channel(0).0 }
    }

    /// It happens.
    pub(super) fn add(&self, event: Event) {
        self.state.lock().unwrap().events.push(event.clone());
        let _ = self.events.send(Arc::new(event));
    }

    /// Waits until a sink is so far.
    pub(super) async fn wait_delivered(&self, id: u64) {
        until(&mut self.cursor.subscribe(), |cursor| *cursor >= id).await;
    }

    pub(super) fn set(&self, sink: &str, id: u64) {
        self.state.lock().unwrap().cursors.insert(sink.to_owned(), id);
    }

    pub(super) fn cursor(&self, sink: &str) -> Option<u64> {
        self.state.lock().unwrap().cursors.get(sink).copied()
    }

    pub(super) fn changes(&self) -> Vec<u64> {
        self.state.lock().unwrap().changes.clone()
    }
}

impl EventLog for MemoryLog {
    async fn after(&self, id: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let state = self.state.lock().unwrap();
        Ok(state.events.iter().filter(|event| event.id > id).take(limit as usize).cloned().collect())
    }

    async fn newest(&self) -> Result<u64, StoreError> {
        Ok(self.state.lock().unwrap().events.last().map_or(0, |event| event.id))
    }

    fn keep_only(&self, _: BTreeSet<String>) {}

    async fn delivered(&self, sink: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.cursor(sink))
    }

    async fn set_delivered(&self, sink: &str, id: u64) -> bool {
        self.set(sink, id);
        self.state.lock().unwrap().changes.push(id);
        self.cursor.send_replace(id);
        true
    }
}

/// A request that came in.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn id(&self) -> u64 {
        self.headers["x-moji-event-id"].parse().unwrap()
    }

    pub(super) async fn read(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            bytes.push(io.read_u8().await.ok()?);
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let (line, rest) = head.split_once("\r\n").unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        let headers: BTreeMap<_, _> = rest.split("\r\n").map(header).collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        io.read_exact(&mut body).await.ok()?;
        Some(Self { line: line.to_owned(), headers, body })
    }
}

/// What a server does with a request.
pub(super) enum Answer {
    /// These bytes, then the end.
    Bytes(String),
    /// Nothing, and it stays open.
    Hang,
    /// 200, and a body without end.
    Endless,
    /// The connection is cut.
    Cut,
}

/// An answer with that status.
pub(super) fn status(line: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nok"))
}

/// A web server on loopback.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: watch::Receiver<Vec<Request>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers each request as `answer` says, which is told how many came before.
    pub(super) async fn start(answer: impl Fn(&Request, usize) -> Answer + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub(super) async fn at(
        address: SocketAddr,
        answer: impl Fn(&Request, usize) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen_tx, seen) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut hanging = Vec::new();
            loop {
                let (mut io, _) = listener.accept().await.unwrap();
                let Some(request) = Request::read(&mut io).await else { continue };
                let answer = answer(&request, seen_tx.borrow().len());
                seen_tx.send_modify(|seen| seen.push(request));
                match answer {
                    Answer::Bytes(bytes) => drop(io.write_all(bytes.as_bytes()).await),
                    Answer::Hang => hanging.push(io),
                    Answer::Endless => drop(tokio::spawn(endless(io))),
                    Answer::Cut => drop(io),
                }
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.borrow().clone()
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.seen.borrow().iter().map(Request::id).collect()
    }

    pub(super) async fn wait_seen(&mut self, count: usize) {
        until(&mut self.seen, |seen| seen.len() >= count).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn endless(mut io: TcpStream) {
    let _ = io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    while io.write_all(&[b'x'; 4096]).await.is_ok() {}
}
