//! Streams of file bytes with a window: the sender is never more than [`WINDOW`] bytes, and never
//! more than [`WINDOW_FRAMES`] frames, ahead of what the receiver has written.
//!
//! Every stream has a last word. A sender that goes away without one is spoken for: its drop says
//! `Abort`. The receiver's drop says `Unwanted`. Otherwise the peer would wait for ever, and a number
//! would stay taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::link::{OnDrop, Outgoing, WriteError};
use crate::limits::{DATA_BYTES, WINDOW, WINDOW_FRAMES};
use crate::message::{StreamId, StreamMessage};
use crate::{Sha256, outcome};

/// Tells the receiver's progress every so many bytes: often enough that a window never runs dry,
/// seldom enough that it costs nothing.
const REPORT_EVERY: u64 = WINDOW / 8;
/// Pieces smaller than this are copied before they wait: they share their memory with whatever was
/// read together with them, and a peer that mixes single bytes with large frames for nobody would
/// make each byte keep a quarter of a megabyte.
const COPY_BELOW: usize = 64 * 1024;

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

/// One stream that this side sends. Ends with [`Self::end`] or [`Self::abort`]; dropped before, it
/// tells the receiver that the stream is not whole.
#[derive(Debug)]
pub struct OutgoingStream<M> {
    /// Its number.
    pub id: StreamId,
    sent: u64,
    /// Where each frame ends that the receiver has not yet written.
    under_way: VecDeque<u64>,
    progress: watch::Receiver<Progress>,
    out: Outgoing<M>,
    last_word: OnDrop,
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
    pub fn open<M: Serialize + From<StreamMessage>>(&mut self, out: &Outgoing<M>) -> OutgoingStream<M> {
        self.last = self.last.wrapping_add(1);
        // Streams whose sender is gone are of no interest to anyone.
        self.progress.retain(|_, progress| !progress.is_closed());
        let (sender, progress) = watch::channel(Progress::default());
        self.progress.insert(self.last, sender);
        let reason = "the sender stopped in the middle of it".to_owned();
        let last_word = out.on_drop(&StreamMessage::Abort { stream: self.last, reason }.into());
        OutgoingStream {
            id: self.last,
            sent: 0,
            under_way: VecDeque::new(),
            progress,
            out: out.clone(),
            last_word,
        }
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
    /// Sends the next bytes, in frames of at most [`DATA_BYTES`], as fast as the window allows. Not
    /// cancel safe: nobody knows how much of `bytes` was sent then, so drop the stream.
    ///
    /// # Errors
    /// When the connection ended or the receiver wants no more.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(DATA_BYTES));
            let end = self.sent + piece.len() as u64;
            let mut needed = end.saturating_sub(WINDOW);
            if self.under_way.len() >= WINDOW_FRAMES {
                needed = needed.max(self.under_way.front().copied().unwrap_or(0));
            }
            let progress = self.received(needed).await?;
            if progress.unwanted {
                return Err(StreamError::Unwanted);
            }
            while self.under_way.front().is_some_and(|end| *end <= progress.received) {
                self.under_way.pop_front();
            }
            self.out.send_data(self.id, piece).await?;
            self.under_way.push_back(end);
            self.sent = end;
        }
        Ok(())
    }

    /// Waits until the receiver has written everything that was sent. One that then wants no more
    /// has what it needs.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn all_received(&mut self) -> Result<(), StreamError> {
        let progress = self.received(self.sent).await?;
        if progress.received >= self.sent { Ok(()) } else { Err(StreamError::Unwanted) }
    }

    /// Waits until the receiver has written at least so many bytes, or wants no more.
    async fn received(&mut self, needed: u64) -> Result<Progress, WriteError> {
        let progress = self.progress.wait_for(|now| now.unwanted || now.received >= needed).await;
        progress.map(|progress| *progress).map_err(|_| WriteError::Closed)
    }

    /// Waits until the receiver wants no more, or the connection ends. Cancel safe.
    pub async fn unwanted(&mut self) {
        // An error: nobody can say so any more.
        let _ = self.progress.wait_for(|now| now.unwanted).await;
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
        let stream = self.id;
        self.last(StreamMessage::End { stream, sha256 }).await
    }

    /// Gives the stream up.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn abort(self, reason: &str) -> Result<(), WriteError> {
        let (stream, reason) = (self.id, outcome::one_line(reason));
        self.last(StreamMessage::Abort { stream, reason }).await
    }

    async fn last(mut self, word: StreamMessage) -> Result<(), WriteError> {
        self.out.send_ordered(&word.into()).await?;
        self.last_word.disarm();
        Ok(())
    }
}

/// Passes on what the peer says about streams in either direction.
pub fn on_stream_message(sending: &Outgoings, receiving: &mut Incoming, message: StreamMessage) {
    match message {
        StreamMessage::Received { stream, bytes } => sending.on_received(stream, bytes),
        StreamMessage::Unwanted { stream } => sending.on_unwanted(stream),
        StreamMessage::End { stream, sha256 } => receiving.on_last(stream, Piece::End(sha256)),
        StreamMessage::Abort { stream, reason } => {
            receiving.on_last(stream, Piece::Abort(outcome::one_line(&reason)));
        }
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

/// How a stream is over.
#[derive(Debug, PartialEq, Eq)]
pub enum Last {
    /// That was all; the digest of all bytes, where the sender gave one.
    End(Option<Sha256>),
    /// The sender gave up.
    Abort(String),
    /// The connection ended before the stream did.
    Cut,
}

/// What has come on a stream, to be written together.
#[derive(Debug)]
pub struct Batch {
    /// Bytes, in their order.
    pub pieces: Vec<Bytes>,
    /// What came behind them, when that was the last.
    pub last: Option<Last>,
}

impl Batch {
    /// Bytes of all pieces.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
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

/// One stream that this side receives. Dropped before its last word, it tells the sender to stop.
#[derive(Debug)]
pub struct IncomingStream<M> {
    id: StreamId,
    pieces: mpsc::Receiver<Piece>,
    written: Arc<AtomicU64>,
    reported: u64,
    out: Outgoing<M>,
    unwanted: OnDrop,
}

impl Incoming {
    /// At most `most` streams at a time.
    pub fn new(most: usize) -> Self {
        Self { most, last: 0, open: BTreeMap::new() }
    }

    /// A stream that the peer announces.
    ///
    /// # Errors
    /// When the number does not count up or too many are open.
    pub fn open<M: Serialize + From<StreamMessage>>(
        &mut self,
        id: StreamId,
        out: &Outgoing<M>,
    ) -> Result<IncomingStream<M>, StreamError> {
        if id <= self.last {
            return Err(StreamError::Protocol("a stream's number was used twice or is out of order"));
        }
        self.last = id;
        // A sink whose reader is gone counts until its sender has said its last word: the sender
        // is told to stop, and one that does not must not get places without end.
        if self.open.len() >= self.most {
            return Err(StreamError::Protocol("too many streams at a time"));
        }
        // The last word has a place of its own: a stream that filled its window must not look cut.
        let (sender, pieces) = mpsc::channel(WINDOW_FRAMES + 1);
        let written = Arc::new(AtomicU64::new(0));
        self.open.insert(id, Sink { pieces: sender, received: 0, written: Arc::clone(&written) });
        let unwanted = out.on_drop(&StreamMessage::Unwanted { stream: id }.into());
        Ok(IncomingStream { id, pieces, written, reported: 0, out: out.clone(), unwanted })
    }

    /// Bytes of a stream. Never waits. Bytes for a stream that has ended are dropped: a sender that
    /// goes away says so ahead of what it has queued.
    ///
    /// # Errors
    /// When the stream was never announced, the sender goes beyond its window, or there are none.
    pub fn on_data(&mut self, id: StreamId, bytes: Bytes) -> Result<(), StreamError> {
        if id > self.last || id == 0 {
            return Err(StreamError::Protocol("bytes for a stream that was never announced"));
        }
        if bytes.is_empty() {
            return Err(StreamError::Protocol("a data frame without bytes"));
        }
        let Some(sink) = self.open.get_mut(&id) else { return Ok(()) };
        if sink.pieces.is_closed() {
            return Ok(());
        }
        sink.received = sink.received.saturating_add(bytes.len() as u64);
        if sink.received.saturating_sub(sink.written.load(Ordering::Acquire)) > WINDOW {
            return Err(StreamError::Protocol("more bytes than the window allows"));
        }
        if sink.pieces.capacity() <= 1 && !sink.pieces.is_closed() {
            return Err(StreamError::Protocol("more frames than the window allows"));
        }
        let bytes = if bytes.len() < COPY_BELOW { Bytes::copy_from_slice(&bytes) } else { bytes };
        // It has room, so it can only fail because the receiver has lost interest meanwhile.
        let _ = sink.pieces.try_send(Piece::Data(bytes));
        Ok(())
    }

    /// A stream's last word. For one that is not open there is nobody who could care.
    pub fn on_last(&mut self, id: StreamId, piece: Piece) {
        if let Some(sink) = self.open.remove(&id) {
            // Its place is kept for it, so nobody reads the stream any more when this fails.
            let _ = sink.pieces.try_send(piece);
        }
    }
}

impl<M: Serialize + From<StreamMessage>> IncomingStream<M> {
    /// The next piece; `None` when the connection ended before the stream did, and after the last
    /// word. Cancel safe.
    pub async fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await;
        self.passed(piece)
    }

    /// Waits for the next piece, and takes what is there behind it, at most so many pieces. Cancel safe.
    pub async fn next_batch(&mut self, most: usize) -> Batch {
        let mut batch = Batch { pieces: Vec::new(), last: None };
        let mut next = self.next().await;
        loop {
            match next {
                Some(Piece::Data(bytes)) => batch.pieces.push(bytes),
                Some(Piece::End(sha256)) => batch.last = Some(Last::End(sha256)),
                Some(Piece::Abort(reason)) => batch.last = Some(Last::Abort(reason)),
                None => batch.last = Some(Last::Cut),
            }
            if batch.last.is_some() || batch.pieces.len() >= most {
                return batch;
            }
            next = self.try_next();
            if next.is_none() {
                return batch;
            }
        }
    }

    /// The next piece if it is there already.
    pub fn try_next(&mut self) -> Option<Piece> {
        let piece = self.pieces.try_recv().ok();
        self.passed(piece)
    }

    fn passed(&mut self, piece: Option<Piece>) -> Option<Piece> {
        if matches!(piece, Some(Piece::End(_) | Piece::Abort(_))) {
            // A sender that has ended cannot be stopped.
            self.unwanted.disarm();
        }
        piece
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

    /// Tells the sender to stop, as dropping does.
    ///
    /// # Errors
    /// When the connection ended.
    pub fn unwanted(mut self) -> Result<(), WriteError> {
        self.unwanted.disarm();
        self.out.send(&StreamMessage::Unwanted { stream: self.id }.into())
    }
}
