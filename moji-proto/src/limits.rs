//! How much either side may make the other keep. All of them are part of the protocol: a peer that
//! goes beyond is disconnected with a sentence that names the limit.

/// Longest body of a frame before the handshake is done, in bytes.
pub const HANDSHAKE_BODY: usize = 1024;
/// Longest control message, encoded, in bytes. bincode is given the same limit.
pub const CONTROL_BODY: usize = 64 * 1024;
/// Most file bytes in one data frame.
pub const DATA_BYTES: usize = 256 * 1024;
/// Longest body of a data frame: the stream's number and the bytes.
pub const DATA_BODY: usize = 4 + DATA_BYTES;
/// How many bytes of one stream may be under way that the receiver has not yet written: with the
/// number of open streams this bounds the receiver's memory, and because the receiver never has to
/// stop reading, a control message is never stuck behind file bytes.
pub const WINDOW: u64 = 2 * 1024 * 1024;
/// How many data frames of one stream may be under way, for streams of very small ones such as live
/// logs: a sender waits before it goes beyond, as it does for [`WINDOW`].
pub const WINDOW_FRAMES: usize = 1024;
/// Most slots of one builder.
pub const SLOTS: u16 = 256;
/// Most targets of one builder.
pub const TARGETS: usize = 64;
/// Most tags of one builder.
pub const TAGS: usize = 32;
/// Most streams that a builder may have open for each of its slots: its logs and its results.
pub const STREAMS_PER_SLOT: usize = 8;
/// Most manifest entries in one message, so that it fits [`CONTROL_BODY`] with the longest names.
pub const MANIFEST_PART: usize = 128;
/// Most files in the results of one attempt.
pub const FILES: usize = 20_000;
/// Most attempts that a builder may hold at a time: what its slots build, and what waits in its
/// outbox. Beyond that they are stale, and the connection goes on.
pub const HOLDS: usize = 1024;
