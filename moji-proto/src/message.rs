//! What server and builder say to each other once the handshake is done.
//!
//! The order of variants and fields is the wire: see [`crate::version`] before changing anything.

use serde::{Deserialize, Serialize};

use crate::operator::Operate;
use crate::{
    ArtifactName, AttemptId, BuilderName, Outcome, Phase, RepositoryUrl, Sha256, SrpmName, Tag, TargetName,
};

/// Number of a stream of file bytes. Chosen by the side that sends the bytes, counting up from 1;
/// both directions count for themselves.
pub type StreamId = u32;

/// One file of an attempt's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// Its name in `REPO/<NVR>/`.
    pub name: ArtifactName,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// Which of Mock's logs a live stream shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogFile {
    /// `root.log`: the chroot and the package manager.
    Root,
    /// `build.log`: rpmbuild.
    Build,
    /// `state.log`: the phases.
    State,
    /// `mock.log`: what Mock writes to its standard error.
    Mock,
}

impl LogFile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Build, Self::State, Self::Mock];

    /// The file's name, the same on the builder, in staging and in `REPO/<NVR>/`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Root => "root.log",
            Self::Build => "build.log",
            Self::State => "state.log",
            Self::Mock => "mock.log",
        }
    }
}

/// What a builder says to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToServer {
    /// The first message of a session: who I am.
    Register(Registration),
    /// This slot is free, because it has no attempt or has announced its results: send an SRPM for it
    /// as soon as there is one. Answered by exactly one [`ToBuilder::Assign`], at once or whenever
    /// there is work.
    Ask {
        /// Which slot, counting from 0.
        slot: u16,
    },
    /// I take no more work: forget what I asked for.
    Drain,
    /// I am alive, and this is what I do. Sent every heartbeat interval.
    Heartbeat {
        /// The attempts this builder works on.
        attempts: Vec<(AttemptId, Phase)>,
        /// How many bytes are free where [`Resources::disk`] says; none: that is not known.
        disk: Option<u64>,
    },
    /// A stream with what a log of a running attempt receives begins.
    Log {
        /// The attempt.
        attempt: AttemptId,
        /// Which log.
        file: LogFile,
        /// Where in the log the stream's first byte stands: what the server has of it already.
        offset: u64,
        /// The stream that will carry its bytes.
        stream: StreamId,
    },
    /// The next part of the manifest that a [`ToServer::Deliver`] has announced.
    Manifest {
        /// The attempt.
        attempt: AttemptId,
        /// The next entries, at most [`crate::limits::MANIFEST_PART`].
        entries: Vec<ManifestEntry>,
    },
    /// The attempt has ended, and its results are durable here. Their manifest follows; the answer
    /// to all of it is [`ToBuilder::Wanted`], or the end of the lease.
    Deliver {
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
        /// Number of the manifest's entries.
        files: u32,
        /// Sum of their sizes.
        bytes: u64,
    },
    /// I give this attempt back without a result.
    Release {
        /// The attempt.
        attempt: AttemptId,
        /// Why, in one line for people.
        reason: String,
        /// Whether something is wrong with the builder; otherwise it is nobody's fault.
        trouble: bool,
    },
    /// About streams in either direction.
    Stream(StreamMessage),
    /// I close the connection on purpose.
    Goodbye {
        /// Why, in one line for people.
        reason: String,
    },
    /// I was given this attempt on an earlier connection, and hold it still. Answered by
    /// [`ToBuilder::Resume`], [`ToBuilder::Accepted`] or [`ToBuilder::Stale`]; late, when its results
    /// are being published just now.
    Hold(HeldAttempt),
    /// The answer to [`ToBuilder::Wanted`]: a stream with the bytes of all files of the manifest, one
    /// after the other in its order, without anything between them, begins at `offset`.
    Upload {
        /// The attempt.
        attempt: AttemptId,
        /// The first byte's place in all of them: what the server has, or, when the digest of that
        /// did not fit, the beginning of the file that is not whole.
        offset: u64,
        /// The stream.
        stream: StreamId,
    },
    /// The first message of a session, in the place of [`ToServer::Register`]: I am no builder, and what follows
    /// is [`crate::operator::FromOperator`], answered by [`crate::operator::ToOperator`].
    Operate(Operate),
}

/// An attempt that a builder has kept although its connection, or the server, had ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAttempt {
    /// The attempt's id.
    pub attempt: AttemptId,
    /// What it builds for.
    pub target: TargetName,
    /// The SRPM's file name.
    pub srpm: SrpmName,
    /// The digest of the SRPM that it was given.
    pub sha256: Sha256,
    /// The slot that works on it; none when its results wait in the outbox.
    pub slot: Option<u16>,
    /// What is being done.
    pub phase: Phase,
}

/// Who a builder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name, for people; not unique.
    pub name: BuilderName,
    /// What it builds for.
    pub targets: Vec<TargetName>,
    /// How many SRPMs it builds at a time.
    pub slots: u16,
    /// Its machine architecture, as `uname -m` says.
    pub arch: String,
    /// Its program and version, for people.
    pub software: String,
    /// What its builds may use.
    pub resources: Resources,
    /// What SRPMs may ask for by name; at most [`crate::limits::TAGS`].
    pub tags: Vec<Tag>,
}

/// What a builder has for one build. An SRPM's demand is per build, and slots share a machine: of cores and
/// memory this is what is left when every slot builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The machine's cores divided by the builder's slots, but at least 1; 0: unknown.
    pub cores: u16,
    /// The machine's memory in bytes divided by the builder's slots; 0: unknown.
    pub memory: u64,
    /// Bytes that are free on the disk of the work folder, or on that of Mock's roots when that has less.
    /// All slots share it. 0: unknown.
    pub disk: u64,
}

/// What the server says to a builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToBuilder {
    /// Welcome; the answer to [`ToServer::Register`].
    Registered {
        /// Send a heartbeat this often, in milliseconds.
        heartbeat_ms: u32,
        /// Give a connection up when nothing came over it for this long, in milliseconds.
        dead_after_ms: u32,
        /// The server's program and version, for people.
        software: String,
    },
    /// Build this: the lease of an attempt begins.
    Assign(Assignment),
    /// The answer to [`ToServer::Heartbeat`].
    HeartbeatSeen,
    /// The results are published and durable: the builder may forget the attempt.
    Accepted {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The delivery was not good. The lease goes on when `again`: deliver once more, after a pause.
    /// Otherwise it has ended, and the builder forgets the attempt.
    Rejected {
        /// The attempt.
        attempt: AttemptId,
        /// Why, in one line for people.
        reason: String,
        /// Whether to deliver again.
        again: bool,
    },
    /// This session does not hold that attempt (any more): stop it and forget it.
    Stale {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The lease has ended: stop Mock, clean up, deliver nothing.
    Cancel {
        /// The attempt.
        attempt: AttemptId,
        /// Why, in one line for people.
        reason: String,
    },
    /// About streams in either direction.
    Stream(StreamMessage),
    /// I close the connection on purpose: come back later.
    Goodbye {
        /// Why, in one line for people.
        reason: String,
    },
    /// The answer to [`ToServer::Hold`]: the attempt is this session's. Go on, and send each log from
    /// where the server has it.
    Resume {
        /// The attempt.
        attempt: AttemptId,
        /// How many bytes the server has of each live log; nothing of those that are not named.
        logs: Vec<(LogFile, u64)>,
    },
    /// The answer to [`ToServer::Deliver`] and its manifest: send the results from here on.
    Wanted {
        /// The attempt.
        attempt: AttemptId,
        /// How many bytes of all files, in the manifest's order, the server has.
        offset: u64,
        /// The digest of what it has of the file that `offset` is in the middle of; of nothing when
        /// it is at the beginning of one.
        part: Sha256,
    },
    /// This builder gets no work for a while, although it may ask: too much went wrong on it.
    Suspended {
        /// For how long, in seconds.
        seconds: u32,
        /// Why, in one line for people.
        reason: String,
    },
}

/// One attempt, handed to one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The attempt's id.
    pub attempt: AttemptId,
    /// The slot that asked.
    pub slot: u16,
    /// What to build for: one of the builder's targets.
    pub target: TargetName,
    /// The SRPM's file name.
    pub srpm: SrpmName,
    /// Its size in bytes.
    pub size: u64,
    /// The stream that carries it; its digest comes with the stream's end.
    pub stream: StreamId,
    /// The repository with the farm's own results for this target, where BuildRequires may come from, too.
    pub repository: Option<RepositoryUrl>,
}

/// What both sides say about streams of file bytes. The bytes themselves travel in data frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMessage {
    /// From the receiver: so many bytes of the stream are written. The sender may be
    /// [`crate::limits::WINDOW`] bytes ahead of this.
    Received {
        /// The stream.
        stream: StreamId,
        /// Bytes since its beginning.
        bytes: u64,
    },
    /// From the sender: that was all.
    End {
        /// The stream.
        stream: StreamId,
        /// The digest of all its bytes, where the receiver has no other way to know it.
        sha256: Option<Sha256>,
    },
    /// From the sender: the stream ends here, and is not whole.
    Abort {
        /// The stream.
        stream: StreamId,
        /// Why, in one line for people.
        reason: String,
    },
    /// From the receiver: I drop what comes on this stream; stop sending.
    Unwanted {
        /// The stream.
        stream: StreamId,
    },
}

impl From<StreamMessage> for ToServer {
    fn from(message: StreamMessage) -> Self {
        Self::Stream(message)
    }
}

impl From<StreamMessage> for ToBuilder {
    fn from(message: StreamMessage) -> Self {
        Self::Stream(message)
    }
}
