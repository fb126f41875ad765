//! One lease and its states.

use moji_proto::{AttemptId, BuilderName, FailureKind, Outcome, TargetName};

use super::{Moment, SessionId};
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
    /// The connection that holds it; `None` once that has ended.
    pub session: Option<SessionId>,
    /// The builder's name, for people.
    pub builder: BuilderName,
    /// The builder's slot.
    pub slot: u16,
    /// How far it is.
    pub state: LeaseState,
}

/// How far a lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// The builder works on it.
    Running,
    /// Its connection has ended; it is queued again when the grace period is over.
    Orphaned {
        /// The end of the grace period.
        until: Moment,
    },
    /// All results are here and are being published. Nothing but success ends this state: a build
    /// that is finished is not lost because a disk is full.
    Committing {
        /// How the attempt ended.
        outcome: Outcome,
        /// When to try again, after a failure.
        retry_at: Option<Moment>,
    },
}

impl Lease {
    /// Whether `session` may settle or extend this lease.
    pub fn is_run_by(&self, session: SessionId) -> bool {
        self.session == Some(session) && self.state == LeaseState::Running
    }

    /// Whether its results are being published.
    pub fn is_committing(&self) -> bool {
        matches!(self.state, LeaseState::Committing { .. })
    }

    /// When something has to be done about it.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.state {
            LeaseState::Running => None,
            LeaseState::Orphaned { until } => Some(*until),
            LeaseState::Committing { retry_at, .. } => *retry_at,
        }
    }

    /// Its connection has ended. What is complete is published without it.
    pub(super) fn orphan(&mut self, until: Moment) {
        self.session = None;
        if self.state == LeaseState::Running {
            self.state = LeaseState::Orphaned { until };
        }
    }

    pub(super) fn commit_failed(&mut self, again_at: Moment) {
        if let LeaseState::Committing { retry_at, .. } = &mut self.state {
            *retry_at = Some(again_at);
        }
    }
}

/// Whether an outcome says nothing about the package: it is built again.
pub(super) fn is_nobodys_fault(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { kind: FailureKind::Interrupted, .. })
}
