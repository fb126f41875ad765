//! One lease and its states.

use std::time::Duration;

use moji_proto::{AttemptId, Outcome, TargetName};

use super::{Moment, SessionId};
use crate::BuilderId;
use crate::dependency::Requirement;
use crate::source::QueuedSrpm;

/// A builder's right to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The attempt.
    pub attempt: AttemptId,
    /// What is built.
    pub srpm: QueuedSrpm,
    /// What it is built for.
    pub target: TargetName,
    /// The connection that holds it; `None` while there is none.
    pub session: Option<SessionId>,
    /// The builder. Nobody else may take the attempt up again.
    pub builder: BuilderId,
    /// The builder's slot; `None` when its results wait in the builder's outbox.
    pub slot: Option<u16>,
    /// When it began; none when a server before this one gave it.
    pub since: Option<Moment>,
    /// When it takes so long that it is worth a second start elsewhere.
    pub late_at: Option<Moment>,
    /// What its target was charged for it: how long it was expected to take.
    pub charged: Duration,
    /// When its results were here.
    pub ended: Option<Moment>,
    /// The generation of the repository that the build finds; 0: none, or not known.
    pub generation: u64,
    /// How far it is.
    pub state: LeaseState,
}

/// What becomes of an SRPM when the results of an attempt are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It has succeeded or failed.
    Settle,
    /// It is held, for this reason.
    Hold(String),
    /// It waits in SOURCE until a generation brings what was missing.
    Park(Vec<Requirement>),
}

/// How far a lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// The builder works on it.
    Running {
        /// The same builder holds it on a new connection, which gets it when the old one has ended.
        /// The server takes a connection whose other end is gone for alive for a while.
        claimed_by: Option<Claim>,
    },
    /// Its connection has ended; it is queued again when the time is over.
    Orphaned {
        /// Until when its builder may take it up again.
        until: Moment,
        /// Whether the builder is to blame: not when it was the server that has ended.
        is_loss: bool,
    },
    /// It has ended, and another attempt at the same SRPM is being published, or still runs and may
    /// do better than this failure.
    Deferred {
        /// How it ended.
        outcome: Outcome,
    },
    /// All results are here and are being published. Only that ends this state, or that they are not
    /// good: a build that is finished is not lost because a disk is full.
    Committing {
        /// How the attempt ended.
        outcome: Outcome,
        /// What becomes of the SRPM.
        fate: Fate,
        /// When to try again, after a failure.
        retry_at: Option<Moment>,
    },
}

/// Who wants an attempt back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The new connection.
    pub session: SessionId,
    /// See [`Lease::slot`].
    pub slot: Option<u16>,
}

impl Lease {
    /// Whether `session` may settle, feed or extend this lease.
    pub fn is_run_by(&self, session: SessionId) -> bool {
        self.session == Some(session) && self.is_running()
    }

    /// Whether a connected builder works on it.
    pub fn is_running(&self) -> bool {
        matches!(self.state, LeaseState::Running { .. })
    }

    /// Whether its results are being published.
    pub fn is_committing(&self) -> bool {
        matches!(self.state, LeaseState::Committing { .. })
    }

    /// Whether it may still bring a result.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, LeaseState::Running { .. } | LeaseState::Orphaned { .. })
    }

    /// When something has to be done about it.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.state {
            LeaseState::Running { .. } | LeaseState::Deferred { .. } => None,
            LeaseState::Orphaned { until, .. } => Some(*until),
            LeaseState::Committing { retry_at, .. } => *retry_at,
        }
    }

    pub(super) fn commit_failed(&mut self, again_at: Moment) {
        if let LeaseState::Committing { retry_at, .. } = &mut self.state {
            *retry_at = Some(again_at);
        }
    }

    /// A session that wanted it back does not any more.
    pub(super) fn drop_claim(&mut self, session: SessionId) {
        if let LeaseState::Running { claimed_by } = &mut self.state
            && claimed_by.is_some_and(|claim| claim.session == session)
        {
            *claimed_by = None;
        }
    }

    /// It has delivered. The word about that goes to whoever holds it last.
    pub(super) fn has_ended(&mut self, state: LeaseState) {
        if let LeaseState::Running { claimed_by: Some(claim) } = self.state {
            self.session = Some(claim.session);
        }
        self.state = state;
    }

    /// A session works on it from now on.
    pub(super) fn resume(&mut self, claim: Claim) {
        self.session = Some(claim.session);
        self.slot = claim.slot;
        self.state = LeaseState::Running { claimed_by: None };
    }
}
