//! What the scheduler is told, and what it wants done.

use std::collections::BTreeSet;
use std::time::Duration;

use moji_proto::{AttemptId, Outcome, Resources, Tag, TargetName};

use super::{Claim, Fate, Lease, Moment, SessionId, Try};
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, Requirement};
use crate::estimates::Estimates;

use crate::source::{Priority, QueuedSrpm, Requires};
use crate::{BuildKey, BuilderId};

/// What a builder may be given.
#[derive(Debug, Clone)]
pub struct Builder {
    /// Who it is. Only the same builder may take its attempts up again.
    pub id: BuilderId,
    /// What it builds for, the preferred one first.
    pub targets: Vec<TargetName>,
    /// Its machine architecture, as `uname -m` says.
    pub arch: String,
    /// What one build on it may use, as it said when it registered.
    pub resources: Resources,
    /// What SRPMs may ask for by name.
    pub tags: Vec<Tag>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A whole SRPM lies in SOURCE; new, or new content under a known name.
    Found(QueuedSrpm),
    /// An SRPM is no longer in SOURCE, or not whole any more, and it was not a lease that took it.
    Gone(BuildKey),
    /// Everything that lay in SOURCE at the start has been found: the order of the queue is known.
    Ready,
    /// A leased SRPM is no longer in WORKING: a person took it away.
    Withdrawn(BuildKey),
    /// A priority.txt has changed.
    Priority {
        /// Whose: that of a target, or SOURCE's own.
        target: Option<TargetName>,
        /// What it says now.
        list: Priority,
    },
    /// The server has begun, and what a repository has will be told: until then nothing is built with it.
    Unread {
        /// Of which target.
        target: Option<TargetName>,
        /// It is not waited for any longer.
        until: Moment,
    },
    /// A requires.txt has changed.
    Requires {
        /// Whose: that of a target, or SOURCE's own.
        target: Option<TargetName>,
        /// What it says now.
        list: Requires,
    },
    /// Another generation of a target's repository, or of REPO itself, is served.
    Contents {
        /// Whose.
        target: Option<TargetName>,
        /// What is new in it.
        change: Box<RepositoryChange>,
    },
    /// At the start: how long builds took.
    Estimates(Box<Estimates>),
    /// At the start: what a package's last good build provided.
    Products {
        /// In which repository.
        target: Option<TargetName>,
        /// The package's name.
        package: String,
        /// What it provided.
        provides: Vec<Capability>,
    },
    /// At the start: an SRPM was parked.
    Parked {
        /// Which.
        key: BuildKey,
        /// For lack of these.
        missing: Vec<Requirement>,
        /// The generation that the attempt had.
        generation: u64,
    },
    /// A build failed, and may be tried once more when what it used is built anew.
    Failed {
        /// Which; it is in FINISHED.
        key: BuildKey,
        /// The packages that were installed for it.
        used: BTreeSet<String>,
        /// The generation that the attempt had.
        generation: u64,
    },
    /// A person wants nothing more handed out, or wants it again.
    Paused(bool),
    /// A person wants a builder to get no more work, or to get it again.
    Drained(BuilderId, bool),
    /// A person has looked at a builder: what went wrong on it does not count any more.
    Pardoned(BuilderId),
    /// A person wants an SRPM that lies in SOURCE tried now, as if it were put there once more.
    TryNow(BuildKey),
    /// A person wants an SRPM taken from its builders, and held. Nothing happens when its results are being
    /// published.
    Stop {
        /// Which; it is leased.
        key: BuildKey,
        /// Why, in one line for people.
        reason: String,
        /// What the person wants.
        cause: HoldCause,
    },
    /// Some time has passed: what may be given out, and nobody takes.
    Look,
    /// A builder has so many bytes free now.
    FreeDisk(SessionId, u64),
    /// At the start: a lease that the last server gave, whose SRPM is in WORKING. Its builder has
    /// until then to say that it holds it.
    Restored {
        /// The lease, as it was.
        lease: Box<Lease>,
        /// How long its builder may take to say that it holds it.
        patience: Duration,
    },
    /// At the start: what went wrong with an SRPM that is not settled.
    Blamed(BuildKey, Vec<Try>),
    /// Whether there is room on the disk for more work. There is, until it is said that there is not.
    Room(bool),
    /// A builder has registered.
    Connected {
        /// Its connection.
        session: SessionId,
        /// Who it is.
        builder: Builder,
    },
    /// A slot is free.
    Asked {
        /// The builder's connection.
        session: SessionId,
        /// The slot.
        slot: u16,
    },
    /// A builder takes no more work.
    Draining(SessionId),
    /// A connection has ended, for whatever reason, and everything that it wrote is written.
    Lost(SessionId),
    /// The SRPM of a lease could not be moved to WORKING.
    LeaseFailed(AttemptId),
    /// The SRPM of an attempt that is taken back could not be moved to WORKING.
    RetakeFailed(AttemptId),
    /// A builder says that it holds an attempt at an SRPM, and it is not known yet whether that is so:
    /// nobody else gets the SRPM meanwhile.
    Reserved(BuildKey),
    /// It is known now.
    Unreserved(BuildKey),
    /// A builder says that it holds an attempt that has a lease.
    Held {
        /// Who says so.
        claim: Claim,
        /// The attempt.
        attempt: AttemptId,
    },
    /// A builder says that it holds an attempt that has no lease, and was given the SRPM that lies
    /// in SOURCE or WORKING now: its digest was compared.
    Claimed {
        /// Who says so.
        claim: Claim,
        /// The attempt.
        attempt: AttemptId,
        /// The SRPM.
        key: BuildKey,
        /// What it builds it for.
        target: TargetName,
        /// The generation of the repository that it was given; 0: none, or not known.
        generation: u64,
    },
    /// A builder gives an attempt back.
    Released {
        /// The builder's connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// Whether the builder is to blame.
        trouble: bool,
    },
    /// The results of an attempt are in staging, each with its digest.
    Delivered {
        /// The connection that delivered them.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended. A success has RPMs: that was checked.
        outcome: Outcome,
    },
    /// The results are published, the SRPM is in FINISHED (or in SOURCE, when it is parked), all of it
    /// durable.
    Committed {
        /// The attempt.
        attempt: AttemptId,
        /// Whether there are RPMs among what was published.
        rpms: bool,
    },
    /// Publishing failed, and may be tried again.
    CommitFailed(AttemptId),
    /// The results are not here any more, and nothing of them was published. It is nobody's fault: their builder has
    /// them until it hears the last word.
    ResultsLost {
        /// The attempt.
        attempt: AttemptId,
        /// Why, in one line for people.
        reason: String,
    },
    /// A builder has results that are larger than they may be, and was told so.
    TooLarge {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// What is too large, in one line for people.
        reason: String,
    },
    /// The results are not good, and nothing of them was published.
    Rejected {
        /// The attempt.
        attempt: AttemptId,
        /// Why, in one line for people.
        reason: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Move the SRPM from SOURCE to WORKING, then give it to the slot. When the move fails:
    /// [`Event::LeaseFailed`].
    Lease(Lease),
    /// Move the SRPM from SOURCE to WORKING, then tell the session as in [`Effect::Resume`]. When
    /// the move fails: [`Event::RetakeFailed`].
    Retake(Lease),
    /// Give an SRPM that is in WORKING, with another builder, to this one too. When that cannot be done:
    /// [`Event::LeaseFailed`].
    Backup(Lease),
    /// What a parked build waited for has come; it is queued. For the log.
    Woken {
        /// Which.
        srpm: QueuedSrpm,
        /// What has come.
        requirement: Requirement,
        /// In which generation.
        generation: u64,
    },
    /// Move an SRPM that failed from FINISHED to SOURCE, unless that was done before: what it used has
    /// been built anew.
    Retry {
        /// Which.
        key: BuildKey,
        /// What has been built anew: a package.
        package: String,
    },
    /// Tell a builder that an attempt is its own again.
    Resume(Lease),
    /// Have the builder deliver once more, and forget what it has delivered.
    DeliverAgain {
        /// The lease; it is the session's again.
        lease: Lease,
        /// Why.
        reason: String,
    },
    /// Move the SRPM from WORKING back to SOURCE.
    Requeue(BuildKey),
    /// Look at the results, publish them, move the SRPM to FINISHED. Ends with [`Event::Committed`],
    /// [`Event::CommitFailed`], [`Event::ResultsLost`] or [`Event::Rejected`].
    Commit {
        /// The lease whose results these are.
        lease: Lease,
        /// How it ended.
        outcome: Outcome,
        /// What becomes of the SRPM.
        fate: Fate,
    },
    /// Move the SRPM from WORKING to FINISHED as held: there are no results.
    Hold {
        /// The last lease; it has ended.
        lease: Lease,
        /// Why.
        reason: String,
        /// Who wants it so.
        cause: HoldCause,
    },
    /// Move the SRPM from SOURCE to FINISHED as held: a server before this one saw too many attempts
    /// come to nothing.
    HoldQueued {
        /// The SRPM; it is not queued.
        key: BuildKey,
        /// Why.
        reason: String,
    },
    /// A lease has ended: record it, and remove what was staged for it, unless it is
    /// [`Ending::Lost`]: what an attempt that turns up again has uploaded already is not sent twice.
    Ended {
        /// The lease, as it was last.
        lease: Lease,
        /// How.
        ending: Ending,
    },
    /// Remove what was staged for an attempt that was lost: its SRPM is settled.
    Forget(AttemptId),
    /// Tell a builder that its results are safe.
    Accept {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a builder that its results are not good, and that the attempt is over.
    Reject {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        reason: String,
    },
    /// Tell a builder that it does not hold an attempt.
    Stale {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a builder to stop an attempt, because a person wants it so.
    Cancel {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a builder that it gets no work for a while.
    Suspend {
        /// Its connection.
        session: SessionId,
        /// How long.
        pause: Duration,
        /// Attempts in a row that failed through its fault.
        streak: u32,
    },
    /// Close a connection whose builder has come back on a new one; ends with [`Event::Lost`].
    Disconnect(SessionId),
}

/// Why an SRPM is not tried again before a person wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldCause {
    /// Too many attempts came to nothing.
    Tries,
    /// A person wants it held.
    Person,
    /// A person has cancelled it: it is out of the queue.
    Cancelled,
}

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Its results are published.
    Published,
    /// Its logs are published, and its SRPM is parked.
    Parked,
    /// Another attempt at the same SRPM was published.
    Superseded,
    /// Its builder vanished and did not come back in time.
    Lost,
    /// The server had ended meanwhile, and nobody took it up again.
    Unclaimed,
    /// It failed, not through the package; the SRPM is tried again or held.
    Failed(Outcome),
    /// It was delivered as a success, and is not good, for this reason.
    Rejected(String),
    /// The builder gave it back.
    Released {
        /// Whether because of a trouble of its own.
        trouble: bool,
    },
    /// A person has taken the SRPM out of WORKING.
    Cancelled,
}
