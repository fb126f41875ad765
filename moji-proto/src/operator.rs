//! What people say: the messages of a session that began with [`crate::ToServer::Operate`] instead of a builder's
//! registration. `moji` speaks them.
//!
//! What only reads is a path of the API ([`crate::api`]), answered as over HTTP; what changes something is a message
//! of its own. The order of variants and fields is the wire: see [`crate::version`] before changing anything.

use serde::{Deserialize, Serialize};

use crate::{CredentialName, FailureKind, Sha256, SrpmName, StreamId, StreamMessage, TargetName};

/// Number of a request, chosen by the client; free again when the request is answered to its end.
pub type RequestId = u32;

/// Longest path of a [`FromOperator::Get`], in bytes.
pub const PATH_MAX: usize = 4096;
/// Most requests of one session that are not answered to their end.
pub const REQUESTS: usize = 16;
/// Most things that one message names.
pub const NAMES: usize = 64;
/// Longest such name, in bytes.
pub const NAME_MAX: usize = 384;

/// How a session of a person begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// The program and its version, for people.
    pub software: String,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look, submit SRPMs, and have them tried again.
    Submitter,
    /// Everything.
    Admin,
}

/// What a person's program says to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromOperator {
    /// I am there. Sent every heartbeat interval.
    Heartbeat,
    /// What is at this path of the API? Answered by [`ToOperator::Answer`] and a stream with the body, which may
    /// go on as long as something happens.
    Get {
        /// The request.
        request: RequestId,
        /// Path and query, `/api/v1/builds?state=failed`, at most [`PATH_MAX`] bytes.
        path: String,
    },
    /// Queue this SRPM. Answered by [`ToOperator::Wanted`], then [`ToOperator::Done`] or [`ToOperator::Refused`].
    Submit {
        /// The request.
        request: RequestId,
        /// Its file name.
        srpm: SrpmName,
        /// For which target; none: for any builder.
        target: Option<TargetName>,
        /// Its size in bytes.
        size: u64,
        /// Its digest.
        sha256: Sha256,
        /// Where it goes in priority.txt, if it goes there.
        place: Option<Place>,
        /// This was said before, and the connection was lost before the answer: it may be done.
        is_repeat: bool,
    },
    /// The answer to [`ToOperator::Wanted`]: a stream with the SRPM's bytes from there on.
    Upload {
        /// The request.
        request: RequestId,
        /// Where the stream begins in the SRPM.
        offset: u64,
        /// The stream.
        stream: StreamId,
    },
    /// Do this. Answered by [`ToOperator::Done`] or [`ToOperator::Refused`].
    Act {
        /// The request.
        request: RequestId,
        /// What.
        act: Act,
    },
    /// About streams in either direction.
    Stream(StreamMessage),
    /// I close the connection on purpose.
    Goodbye {
        /// Why, in one line for people.
        reason: String,
    },
}

/// A place in a priority.txt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Before all others.
    First,
    /// Behind all others that stand there.
    Last,
    /// As this entry, counted from 1.
    At(u32),
    /// Not in it.
    Nowhere,
}

/// What a person wants done. A build is named by its number, `[TARGET/]SRPM`, `[TARGET/]NVR` or
/// `[TARGET/]package`; of several builds of that name the newest is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Build these again: failed, held or withdrawn ones; parked ones are tried now.
    Retry {
        /// At most [`NAMES`].
        builds: Vec<String>,
    },
    /// The same for all that failed or are held and were not queued again since.
    RetryFailed {
        /// Only those of this kind.
        kind: Option<FailureKind>,
        /// Only those for this target.
        target: Option<TargetName>,
    },
    /// Take these out of the queue, or from their builders.
    Cancel {
        /// At most [`NAMES`].
        builds: Vec<String>,
    },
    /// Stop these until somebody says `Retry`.
    Hold {
        /// At most [`NAMES`].
        builds: Vec<String>,
        /// Why, in one line.
        reason: Option<String>,
    },
    /// Edit a priority.txt.
    Prioritize {
        /// What is to stand there: a package, an NVR, a file name or a glob.
        entry: String,
        /// Of which target; none: SOURCE's own.
        target: Option<TargetName>,
        /// Where.
        place: Place,
    },
    /// Give a builder no more work, until it is resumed.
    Drain {
        /// Its name, `board-7` or `lab/board-7`.
        builder: String,
        /// Why, in one line.
        reason: Option<String>,
    },
    /// Give a builder work again: it is not drained any more, nor suspended, and its targets are tried again.
    Resume {
        /// Its name.
        builder: String,
    },
    /// Hand nothing out, until [`Self::Unpause`].
    Pause {
        /// Why, in one line.
        reason: Option<String>,
    },
    /// Hand out again.
    Unpause,
}

/// What became of one of the things that a request named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which.
    pub about: String,
    /// Whether it is done.
    pub is_done: bool,
    /// What was done, or why not, in one line.
    pub text: String,
}

/// What the server says to a person's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToOperator {
    /// Welcome; the answer to [`crate::ToServer::Operate`].
    Welcome {
        /// Send a heartbeat this often, in milliseconds.
        heartbeat_ms: u32,
        /// Give the connection up when nothing came over it for this long, in milliseconds.
        dead_after_ms: u32,
        /// The server's program and version, for people.
        software: String,
        /// What this session may do.
        role: Role,
        /// The credential with which it came in; none: anybody may.
        credential: Option<CredentialName>,
    },
    /// The answer to [`FromOperator::Heartbeat`].
    HeartbeatSeen,
    /// The answer to [`FromOperator::Get`].
    Answer {
        /// The request.
        request: RequestId,
        /// As in HTTP (RFC 9110): 200, or what is wrong.
        status: u16,
        /// The body's media type.
        content_type: String,
        /// The stream with the body.
        stream: StreamId,
    },
    /// The answer to [`FromOperator::Submit`]: send it from here on.
    Wanted {
        /// The request.
        request: RequestId,
        /// How many bytes of it are here.
        offset: u64,
    },
    /// It is done, or some of it.
    Done {
        /// The request.
        request: RequestId,
        /// What became of each thing.
        done: Vec<Done>,
    },
    /// Nothing of it is done.
    Refused {
        /// The request.
        request: RequestId,
        /// Why, in one line for people.
        reason: String,
    },
    /// About streams in either direction.
    Stream(StreamMessage),
    /// I close the connection on purpose.
    Goodbye {
        /// Why, in one line for people.
        reason: String,
    },
}

impl From<StreamMessage> for FromOperator {
    fn from(message: StreamMessage) -> Self {
        Self::Stream(message)
    }
}

impl From<StreamMessage> for ToOperator {
    fn from(message: StreamMessage) -> Self {
        Self::Stream(message)
    }
}
