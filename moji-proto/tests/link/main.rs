//! Two ends of a connection over memory, on a clock that stands still: a wait that nobody ends is a
//! time-out at once, so a dead lock fails instead of hanging.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is how a test fails"
)]

mod connection;
mod memory;
mod streams;

use bytes::Bytes;
use moji_proto::frame::{self, Kind};
use moji_proto::io::{
    FrameReader, Incoming, IncomingStream, Outgoing, Outgoings, Piece, StreamError, queues,
};
use moji_proto::{Hasher, LogFile, Sha256, StreamId, StreamMessage, ToServer, encoding};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// What both ends of these tests say; the direction makes no difference here.
pub(crate) type Message = ToServer;
pub(crate) type Reader = FrameReader<ReadHalf<DuplexStream>>;

/// The two halves of a connection whose writer runs.
pub(crate) fn halves(io: DuplexStream) -> (Outgoing<Message>, Reader) {
    let (read, write) = tokio::io::split(io);
    (writer(write), reader(read))
}

pub(crate) fn writer(write: WriteHalf<DuplexStream>) -> Outgoing<Message> {
    let (out, queues) = queues();
    tokio::spawn(queues.write(write));
    out
}

pub(crate) fn reader(read: ReadHalf<DuplexStream>) -> Reader {
    let mut reader = FrameReader::new(read);
    reader.handshake_done();
    reader
}

/// One end of a connection as a session would run it: a task reads and passes on.
pub(crate) struct End {
    pub(crate) out: Outgoing<Message>,
    pub(crate) outgoings: std::sync::Arc<std::sync::Mutex<Outgoings>>,
    /// Streams that the peer announced.
    pub(crate) streams: mpsc::UnboundedReceiver<IncomingStream<Message>>,
    /// Everything else that the peer said.
    pub(crate) said: mpsc::UnboundedReceiver<Message>,
    /// Ends with the connection, or with what the peer did wrong.
    pub(crate) reading: tokio::task::JoinHandle<Result<(), StreamError>>,
}

impl End {
    pub(crate) fn pair(buffer: usize) -> (Self, Self) {
        let (a, b) = tokio::io::duplex(buffer);
        (Self::new(a, 8), Self::new(b, 8))
    }

    pub(crate) fn new(io: DuplexStream, most: usize) -> Self {
        let (out, mut reader) = halves(io);
        let outgoings = std::sync::Arc::<std::sync::Mutex<Outgoings>>::default();
        let ((to_streams, streams), (to_said, said)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let mut dispatch =
            Dispatch { incoming: Incoming::new(most), to_streams, to_said, outgoings: outgoings.clone() };
        let to_peer = out.clone();
        let reading = tokio::spawn(async move {
            while let Some(frame) = reader.next().await.unwrap() {
                match frame.kind {
                    Kind::Data => {
                        let (id, bytes) = frame::split_data(frame.body).unwrap();
                        dispatch.incoming.on_data(id, bytes)?;
                    }
                    Kind::Control => dispatch.on(encoding::decode(&frame.body).unwrap(), &to_peer)?,
                    kind => panic!("{kind:?}"),
                }
            }
            Ok(())
        });
        Self { out, outgoings, streams, said, reading }
    }

    /// Announces a stream and opens it.
    pub(crate) fn announce(&self) -> moji_proto::io::OutgoingStream<Message> {
        let stream = self.outgoings.lock().unwrap().open(&self.out);
        self.out.send(&log(stream.id)).unwrap();
        stream
    }
}

struct Dispatch {
    incoming: Incoming,
    outgoings: std::sync::Arc<std::sync::Mutex<Outgoings>>,
    to_streams: mpsc::UnboundedSender<IncomingStream<Message>>,
    to_said: mpsc::UnboundedSender<Message>,
}

impl Dispatch {
    fn on(&mut self, message: Message, out: &Outgoing<Message>) -> Result<(), StreamError> {
        match message {
            Message::Log { stream, .. } => {
                let _ = self.to_streams.send(self.incoming.open(stream, out)?);
            }
            Message::Stream(StreamMessage::Received { stream, bytes }) => {
                self.outgoings.lock().unwrap().on_received(stream, bytes);
            }
            Message::Stream(StreamMessage::Unwanted { stream }) => {
                self.outgoings.lock().unwrap().on_unwanted(stream);
            }
            Message::Stream(StreamMessage::End { stream, sha256 }) => {
                self.incoming.on_last(stream, Piece::End(sha256));
            }
            Message::Stream(StreamMessage::Abort { stream, reason }) => {
                self.incoming.on_last(stream, Piece::Abort(reason));
            }
            other => {
                let _ = self.to_said.send(other);
            }
        }
        Ok(())
    }
}

/// The message that announces a stream here.
pub(crate) fn log(stream: StreamId) -> Message {
    let attempt = moji_proto::AttemptId { boot: 7, serial: u64::from(stream) + 50 };
    Message::Log { attempt, file: LogFile::Build, offset: 0, stream }
}

pub(crate) fn ask(slot: u16) -> Message {
    Message::Ask { slot }
}

/// A piece of bytes that differ, `number`th of its kind.
pub(crate) fn bytes(number: u64, size: usize) -> Bytes {
    (0..size as u64).map(|i| (number.wrapping_mul(31) + i % 251) as u8).collect::<Vec<_>>().into()
}

/// Takes a stream to its end, as a writer to a disk would.
pub(crate) async fn take(mut stream: IncomingStream<Message>) -> Option<(u64, Sha256, Piece)> {
    let (mut count, mut hasher) = (0, Hasher::new());
    loop {
        match stream.next().await? {
            Piece::Data(bytes) => {
                count += bytes.len() as u64;
                hasher.update(&bytes);
                stream.wrote(bytes.len() as u64).ok()?;
            }
            last => return Some((count, hasher.finish(), last)),
        }
    }
}

/// What `future` gives, unless everything stands still.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(std::time::Duration::from_secs(3600), future).await.expect("everything stands still")
}
