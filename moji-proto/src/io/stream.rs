//! Streams of file bytes with a window: the sender is never more than [`limits::WINDOW`] bytes
//! ahead of what the receiver has written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::link::{Outgoing, WriteError};
use crate::limits::{DATA_BYTES, WINDOW, WINDOW_FRAMES};
use crate::message::{StreamId, StreamMessage};
use crate::{Sha256, outcome};

/// Tells the receiver's progress every so many bytes: often enough that a window never runs dry,
/// seldom enough that it costs nothing.
const REPORT_EVERY: u64 = WINDOW / 8;

/// Streams that this side sends, by number: where the peer's reports go.
#[derive(Debug, Default)]
pub struct Outgoings {
    last: StreamId,
    progress: BTreeMap<StreamId, watch::Sender<Progress>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    received: u64,
    unwanted: bool,
}

/// One stream that this side sends.
#[derive(Debug)]
pub struct OutgoingStream<M> {
    /// Its number.
    pub id: StreamId,
    sent: u64,
    progress: watch::Receiver<Progress>,
    out: Outgoing<M>,
}

/// Why a stream stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection ended.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The receiver wants no more of it.
    #[error("the receiver does not want the stream any more")]
    Unwanted,
    /// The peer broke the rules of streams: the connection cannot go on.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
}

impl Outgoings {
    /// A new stream; its number is one higher than the last one's.
    pub fn open<M>(&mut self, out: &Outgoing<M>) -> OutgoingStream<M> {
        self.last = self.last.wrapping_add(1);
        // Streams whose sender is gone are of no interest to anyone.
        self.progress.retain(|_, progress| !progress.is_closed());
        let (sender, progress) = watch::channel(Progress::default());
        self.progress.insert(self.last, sender);
        OutgoingStream { id: self.last, sent: 0, progress, out: out.clone() }
    }

    /// Takes a report of the receiver. Reports about streams that have ended are late, not wrong.
    pub fn on_received(&self, stream: StreamId, bytes: u64) {
        if let Some(progress) = self.progress.get(&stream) {
            progress.send_modify(|now| now.received = now.received.max(bytes));
        }
    }

    /// The receiver wants no more of a stream.
    pub fn on_unwanted(&self, stream: StreamId) {
        if let Some(progress) = self.progress.get(&stream) {
            progress.send_modify(|now| now.unwanted = true);
        }
    }
}

impl<M: Serialize + From<StreamMessage>> OutgoingStream<M> {
    /// Sends the next bytes, in frames of at most [`DATA_BYTES`], as fast as the window allows.
    ///
    /// # Errors
    /// When the connection ended or the receiver wants no more.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(DATA_BYTES));
            let end = self.sent + piece.len() as u64;
            self.wait_for(|now| end.saturating_sub(now.received) <= WINDOW).await?;
            self.out.send_data(self.id, piece).await?;
            self.sent = end;
        }
        Ok(())
    }

    /// Waits until the receiver has written everything that was sent.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn all_received(&mut self) -> Result<(), StreamError> {
        let sent = self.sent;
        self.wait_for(|now| now.received >= sent).await
    }

    async fn wait_for(&mut self, enough: impl Fn(&Progress) -> bool) -> Result<(), StreamError> {
        let progress = self.progress.wait_for(|now| now.unwanted || enough(now)).await;
        if progress.map_err(|_| WriteError::Closed)?.unwanted { Err(StreamError::Unwanted) } else { Ok(()) }
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Says that this was all, with the digest of all bytes where the receiver cannot know it.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn end(self, sha256: Option<Sha256>) -> Result<(), WriteError> {
        self.out.send_ordered(&StreamMessage::End { stream: self.id, sha256 }.into()).await
    }

    /// Gives the stream up.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn abort(self, reason: &str) -> Result<(), WriteError> {
        let reason = outcome::one_line(reason);
        self.out.send_ordered(&StreamMessage::Abort { stream: self.id, reason }.into()).await
    }
}

/// What comes on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes.
    Data(Bytes),
    /// That was all; the digest of all bytes, where the sender gave one.
    End(Option<Sha256>),
    /// The sender gave up.
    Abort(String),
}

/// Streams that this side receives, by number: where the reader puts what comes.
#[derive(Debug)]
pub struct Incoming {
    most: usize,
    last: StreamId,
    open: BTreeMap<StreamId, Sink>,
}

#[derive(Debug)]
struct Sink {
    pieces: mpsc::Sender<Piece>,
    received: u64,
    written: Arc<AtomicU64>,
}

/// One stream that this side receives.
#[derive(Debug)]
pub struct IncomingStream<M> {
    id: StreamId,
    pieces: mpsc::Receiver<Piece>,
    written: Arc<AtomicU64>,
    reported: u64,
    out: Outgoing<M>,
}

impl Incoming {
    /// At most `most` streams at a time.
    pub fn new(most: usize) -> Self {
        Self { most, last: 0, open: BTreeMap::new() }
    }

    /// A stream that the peer announces.
    ///
    /// # Errors
    /// When the number was used before or too many are open.
    pub fn open<M>(&mut self, id: StreamId, out: &Outgoing<M>) -> Result<IncomingStream<M>, StreamError> {
        if id <= self.last {
            return Err(StreamError::Protocol("a stream's number was used twice"));
        }
        self.last = id;
        // A sink whose reader is gone stays while its sender may still be sending: it must not
        // look like a stream that was never announced.
        if self.open.len() >= self.most {
            return Err(StreamError::Protocol("too many streams at a time"));
        }
        let (sender, pieces) = mpsc::channel(WINDOW_FRAMES);
        let written = Arc::new(AtomicU64::new(0));
        self.open.insert(id, Sink { pieces: sender, received: 0, written: Arc::clone(&written) });
        Ok(IncomingStream { id, pieces, written, reported: 0, out: out.clone() })
    }

    /// Bytes of a stream. Never waits.
    ///
    /// # Errors
    /// When the stream was never announced or the sender goes beyond its window.
    pub fn on_data(&mut self, id: StreamId, bytes: Bytes) -> Result<(), StreamError> {
        let Some(sink) = self.open.get_mut(&id) else {
            return Err(StreamError::Protocol("bytes for a stream that is not open"));
        };
        sink.received += bytes.len() as u64;
        if sink.pieces.is_closed() {
            return Ok(());
        }
        if sink.received.saturating_sub(sink.written.load(Ordering::Acquire)) > WINDOW {
            return Err(StreamError::Protocol("more bytes than the window allows"));
        }
        match sink.pieces.try_send(Piece::Data(bytes)) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(StreamError::Protocol("too many small frames on one stream"))
            }
            // The receiver has lost interest.
            Err(mpsc::error::TrySendError::Closed(_)) | Ok(()) => Ok(()),
        }
    }

    /// A stream's last word. For one that is not open there is nobody who could care.
    pub fn on_last(&mut self, id: StreamId, piece: Piece) {
        if let Some(sink) = self.open.remove(&id) {
            // When there is no room for it the channel's end says the same: not whole.
            let _ = sink.pieces.try_send(piece);
        }
    }
}

impl<M: Serialize + From<StreamMessage>> IncomingStream<M> {
    /// The next piece; `None` when the connection ended before the stream did.
    pub async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }

    /// The next piece if it is there already.
    pub fn try_next(&mut self) -> Option<Piece> {
        self.pieces.try_recv().ok()
    }

    /// Says that so many bytes more are written, which lets the sender go on.
    ///
    /// # Errors
    /// When the connection ended.
    pub fn wrote(&mut self, bytes: u64) -> Result<(), WriteError> {
        let written = self.written.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // The last bytes before a pause are reported too: somebody may wait for exactly these.
        if written - self.reported >= REPORT_EVERY || self.pieces.is_empty() {
            self.reported = written;
            self.out.send(&StreamMessage::Received { stream: self.id, bytes: written }.into())?;
        }
        Ok(())
    }

    /// Tells the sender to stop.
    ///
    /// # Errors
    /// When the connection ended.
    pub fn unwanted(self) -> Result<(), WriteError> {
        self.out.send(&StreamMessage::Unwanted { stream: self.id }.into())
    }
}
