//! The two halves of a connection: frames in, frames out.

use std::io;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::encoding::{self, EncodingError};
use crate::frame::{self, Frame, FrameError, Kind};
use crate::limits;
use crate::message::StreamId;

/// Control messages that may wait for the writer. Far more than an honest peer ever causes; when
/// they are used up the peer has stopped reading.
const CONTROL_QUEUE: usize = 1024;
/// Data frames that may wait for the writer.
const BULK_QUEUE: usize = 2;
/// Control messages are written together up to about this many bytes.
const BATCH: usize = 16 * 1024;

/// Room for reading when nothing is known of the next frame. Little: a connection on which nothing but heartbeats
/// come keeps it, and what was read of a large frame is copied to where the rest of it will be.
const READ: usize = 1024;

/// Reading from a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The transport failed.
    #[error("connection lost")]
    Io(#[from] io::Error),
    /// The connection ended in the middle of a frame.
    #[error("connection lost in the middle of a frame")]
    Truncated,
    /// What came is no frame.
    #[error("protocol error")]
    Frame(#[from] FrameError),
}

/// Takes frames off a byte stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    handshake_only: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that accepts nothing but handshake frames, until [`Self::handshake_done`].
    pub fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new(), handshake_only: true }
    }

    /// From now on every kind of frame is welcome.
    pub fn handshake_done(&mut self) {
        self.handshake_only = false;
    }

    /// The next frame; `None` when the peer has closed the connection between two frames. Cancel
    /// safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// When the connection is lost or the peer does not speak this protocol.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer, self.handshake_only)? {
                return Ok(Some(frame));
            }
            // For a frame whose header is known the decoder has made room already; more would copy
            // what is there of it. Before the handshake a peer can make us keep no more than one
            // small frame.
            if self.buffer.capacity() - self.buffer.len() < 64 {
                self.buffer.reserve(if self.handshake_only { limits::HANDSHAKE_BODY } else { READ });
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// So much waits already that the peer must have stopped reading.
    #[error("the peer does not read what it is sent")]
    Stuck,
    /// The message is too large.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
}

/// What bulk consists of.
enum Bulk {
    Data {
        stream: StreamId,
        bytes: Bytes,
    },
    /// A control message that must not overtake the data before it.
    Ordered(Bytes),
}

/// Handle to a connection's writer. Cheap to clone.
pub struct Outgoing<M> {
    control: mpsc::Sender<Bytes>,
    bulk: mpsc::Sender<Bulk>,
    messages: std::marker::PhantomData<fn(M)>,
}

impl<M> Clone for Outgoing<M> {
    fn clone(&self) -> Self {
        Self { control: self.control.clone(), bulk: self.bulk.clone(), messages: self.messages }
    }
}

impl<M> std::fmt::Debug for Outgoing<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outgoing")
    }
}

/// What waits for a connection's writer.
pub struct Queues {
    control: mpsc::Receiver<Bytes>,
    bulk: mpsc::Receiver<Bulk>,
}

/// The two ends of a connection's queues.
pub fn queues<M>() -> (Outgoing<M>, Queues) {
    let (control, control_rx) = mpsc::channel(CONTROL_QUEUE);
    let (bulk, bulk_rx) = mpsc::channel(BULK_QUEUE);
    (
        Outgoing { control, bulk, messages: std::marker::PhantomData },
        Queues { control: control_rx, bulk: bulk_rx },
    )
}

impl<M: Serialize> Outgoing<M> {
    /// Queues a message ahead of all bulk. Never waits.
    ///
    /// # Errors
    /// When the connection has ended, the peer does not read, or the message is too large.
    pub fn send(&self, message: &M) -> Result<(), WriteError> {
        let frame = frame::encode(Kind::Control, &encoding::encode(message)?);
        self.control.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Stuck,
            mpsc::error::TrySendError::Closed(_) => WriteError::Closed,
        })
    }

    /// Queues a message behind the bulk that was queued before it; waits for room.
    ///
    /// # Errors
    /// When the connection has ended or the message is too large.
    pub async fn send_ordered(&self, message: &M) -> Result<(), WriteError> {
        let frame = frame::encode(Kind::Control, &encoding::encode(message)?);
        self.bulk.send(Bulk::Ordered(frame)).await.map_err(|_| WriteError::Closed)
    }

    /// Queues file bytes, at most [`limits::DATA_BYTES`]; waits for room.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(super) async fn send_data(&self, stream: StreamId, bytes: Bytes) -> Result<(), WriteError> {
        self.bulk.send(Bulk::Data { stream, bytes }).await.map_err(|_| WriteError::Closed)
    }

    /// What sends `message` when it is dropped, unless it is taken back: how a stream whose owner
    /// is gone, by an error, a panic or a cancelled task, tells the peer.
    pub(super) fn on_drop(&self, message: &M) -> OnDrop {
        // Such a message is small: it cannot fail to be encoded.
        let frame = encoding::encode(message).ok().map(|body| frame::encode(Kind::Control, &body));
        OnDrop { frame, control: self.control.clone() }
    }

    /// Waits until the writer has ended.
    pub async fn closed(&self) {
        self.control.closed().await;
    }
}

/// Sends one control message when it is dropped.
#[derive(Debug)]
pub(super) struct OnDrop {
    frame: Option<Bytes>,
    control: mpsc::Sender<Bytes>,
}

impl OnDrop {
    /// There is nothing to be sent any more.
    pub(super) fn disarm(&mut self) {
        self.frame = None;
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            // Without a connection nobody waits for it; with a full queue the connection is lost.
            let _ = self.control.try_send(frame);
        }
    }
}

impl Queues {
    /// Writes what is queued until every [`Outgoing`] is gone, then closes the connection: the
    /// body of a connection's writer task. Control comes first.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn write(mut self, mut io: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut batch = BytesMut::new();
        loop {
            tokio::select! {
                biased;
                Some(frame) = self.control.recv() => {
                    // Small messages that wait together travel together.
                    batch.extend_from_slice(&frame);
                    while batch.len() < BATCH && let Ok(frame) = self.control.try_recv() {
                        batch.extend_from_slice(&frame);
                    }
                    io.write_all(&batch).await?;
                    batch.clear();
                }
                Some(bulk) = self.bulk.recv() => match bulk {
                    Bulk::Ordered(frame) => io.write_all(&frame).await?,
                    Bulk::Data { stream, bytes } => {
                        io.write_all(&frame::data_header(stream, bytes.len())).await?;
                        io.write_all(&bytes).await?;
                    }
                },
                else => break,
            }
            if self.control.is_empty() && self.bulk.is_empty() {
                io.flush().await?;
            }
        }
        io.shutdown().await
    }
}
