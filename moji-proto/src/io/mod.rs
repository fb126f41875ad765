//! Frames and streams over any `AsyncRead` and `AsyncWrite`.
//!
//! Each connection has one reader and one writer, in tasks of their own: a single loop for both
//! would stand still when both ends have much to send. The writer takes from two queues, control
//! before bulk. The reader never waits for a disk: what a stream may have under way is bounded by
//! its window, so there is always a place for it. Together this is why a heartbeat is never stuck
//! behind a 4 GiB RPM.

mod ahead;
mod link;
mod socket;
mod stream;

pub use ahead::ReadAhead;
pub use link::{FrameReader, Outgoing, Queues, ReadError, WriteError, queues};
pub use socket::tune;
pub use stream::{
    Batch, Incoming, IncomingStream, Last, OutgoingStream, Outgoings, Piece, StreamError, on_stream_message,
};
