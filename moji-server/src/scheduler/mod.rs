//! Decides who builds what: the queue, the leases, the slots that wait.
//!
//! A plain state machine: `handle(now, event) -> effects`. It deliberately knows no tokio, no file
//! system, no clock and no wire; the farm task owns it, tells it what happened and carries out
//! what it decides.
//!
//! ```text
//!                                   ┌── Held, Claimed ──┐
//!                                   ▼                   │
//!   Found ─▶ queued ──Lease──▶ running ──Lost──▶ orphaned (for the grace period)
//!              ▲                │   │                │
//!              │     no result  │   │ Delivered      │ nobody came back
//!              ├──── Requeue ───┤   ▼                ▼
//!              │                │  committing ─▶ Committed (settled)
//!              └────────────────┴──── or, too often ──▶ held (settled)
//! ```
//!
//! An attempt that was given up and turns up again is taken back when its SRPM is still queued
//! ([`Effect::Retake`]). When another builder has it by then, both may finish: the first good result
//! is published, and the rival is told [`Effect::Stale`]. A failure waits as [`LeaseState::Deferred`]
//! for what the rival does.
//!
//! A success counts when it is published and not before: until then its results may be found not to be
//! good ([`Event::Rejected`]), and the attempt ends like one that failed through its builder's fault.
//!
//! Invariants, checked after each event in the tests:
//! - an SRPM is queued, or leased by at least one attempt; never both, never lost;
//! - an SRPM that was dropped again under the name of a leased one waits until that one settles;
//! - no slot waits while there is an SRPM that it could build;
//! - only the session that holds a lease can settle it, and only once;
//! - at most one attempt at an SRPM is being published;
//! - an SRPM that came to grief [`MOST_TRIES`] times is not given out again.

mod asks;
mod blame;
mod event;
mod handout;
mod lease;
mod queue;
mod readopt;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::{AttemptId, TargetName};

pub use blame::{FIRST_PAUSE, LONGEST_PAUSE, MOST_RETURNS, MOST_TRIES, RETURNS, STREAK, Try, TryKind};
pub use event::{Builder, Effect, Ending, Event};
pub use lease::{Claim, Lease, LeaseState};

use crate::BuildKey;
use crate::source::QueuedSrpm;
use asks::Asks;
use blame::Blame;
use queue::Queue;

/// A point in time: how long the server runs.
pub type Moment = Duration;

/// How long a commit that failed waits before it is tried again.
pub const COMMIT_RETRY: Duration = Duration::from_secs(15);

/// One connection of a builder. Never used again while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The scheduler's state.
#[derive(Debug)]
pub struct Scheduler {
    boot: u64,
    serial: u64,
    grace: Duration,
    /// Nothing is handed out before the whole queue is known.
    ready: bool,
    /// Nothing is handed out while the disk is full.
    room: bool,
    queue: Queue,
    leases: BTreeMap<AttemptId, Lease>,
    leased: BTreeMap<BuildKey, BTreeSet<AttemptId>>,
    /// Dropped into SOURCE while one of the same name is leased.
    again: BTreeMap<BuildKey, QueuedSrpm>,
    /// SRPMs that a builder may have already, and how many say so.
    reserved: BTreeMap<BuildKey, usize>,
    blame: Blame,
    builders: BTreeMap<SessionId, Registered>,
    asks: Asks,
}

/// A connected builder.
#[derive(Debug)]
struct Registered {
    builder: Builder,
    draining: bool,
    /// Targets whose configuration does not work there: not offered until it registers anew.
    broken: BTreeSet<TargetName>,
}

impl Scheduler {
    /// An empty farm. `boot` is this server run's random part of all attempt ids; `grace` is how
    /// long a lease outlives its connection.
    pub fn new(boot: u64, grace: Duration) -> Self {
        Self {
            boot,
            serial: 0,
            grace,
            ready: false,
            room: true,
            queue: Queue::default(),
            leases: BTreeMap::new(),
            leased: BTreeMap::new(),
            again: BTreeMap::new(),
            reserved: BTreeMap::new(),
            blame: Blame::default(),
            builders: BTreeMap::new(),
            asks: Asks::default(),
        }
    }

    /// Takes note of what happened and decides what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        match event {
            Event::Found(srpm) => self.found(srpm),
            Event::Gone(key) => self.gone(&key),
            Event::Ready => {
                self.ready = true;
                self.serve_all()
            }
            Event::Room(room) => {
                self.room = room;
                self.serve_all()
            }
            Event::Withdrawn(key) => self.withdrawn(&key),
            Event::Priority { target, list } => {
                self.queue.set_priority(target, list);
                Vec::new()
            }
            Event::Restored { lease, patience } => self.restored(now, *lease, patience),
            Event::Blamed(key, tries) => {
                self.blame.restore(key, tries);
                Vec::new()
            }
            Event::Connected { session, builder } => self.connected(now, session, builder),
            Event::Asked { session, slot } => {
                let mut effects = self.forgotten_in(session, slot);
                effects.extend(self.asked(session, slot));
                effects
            }
            Event::Draining(session) => self.draining(session),
            Event::Lost(session) => self.lost(now, session),
            Event::LeaseFailed(attempt) => self.lease_failed(attempt),
            Event::RetakeFailed(attempt) => self.retake_failed(attempt),
            Event::Reserved(key) => {
                *self.reserved.entry(key).or_default() += 1;
                Vec::new()
            }
            Event::Unreserved(key) => self.unreserved(&key),
            Event::Held { claim, attempt } => self.held(claim, attempt),
            Event::Claimed { claim, attempt, key, target } => self.claimed(claim, attempt, &key, target),
            Event::Released { session, attempt, trouble } => self.released(now, session, attempt, trouble),
            Event::Delivered { session, attempt, outcome } => self.delivered(now, session, attempt, outcome),
            Event::Committed(attempt) => self.committed(attempt),
            Event::TooLarge { session, attempt, reason } => self.too_large(now, session, attempt, &reason),
            Event::Rejected { attempt, reason } => self.rejected(now, attempt, &reason),
            Event::CommitFailed(attempt) => {
                if let Some(lease) = self.leases.get_mut(&attempt) {
                    lease.commit_failed(now + COMMIT_RETRY);
                }
                Vec::new()
            }
        }
    }

    /// When [`Self::on_time`] has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        let leases = self.leases.values().filter_map(|lease| lease.deadline());
        leases.chain(self.blame.next_deadline()).min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Moment) -> Vec<Effect> {
        let is_due = |lease: &&Lease| lease.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<AttemptId> = self.leases.values().filter(is_due).map(|lease| lease.attempt).collect();
        let mut effects = Vec::new();
        for attempt in due {
            let Some(lease) = self.leases.get_mut(&attempt) else { continue };
            match &mut lease.state {
                LeaseState::Committing { outcome, held, retry_at } => {
                    *retry_at = None;
                    let (outcome, held) = (outcome.clone(), held.clone());
                    effects.push(Effect::Commit { lease: lease.clone(), outcome, held });
                }
                LeaseState::Orphaned { is_loss, .. } => {
                    let is_loss = *is_loss;
                    effects.extend(self.given_up(attempt, is_loss));
                }
                LeaseState::Running { .. } | LeaseState::Deferred { .. } => {}
            }
        }
        if self.blame.end_suspensions(now) {
            effects.extend(self.serve_all());
        }
        effects
    }

    /// SRPMs that wait for a builder.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.again.len()
    }

    /// Whether an SRPM waits for a builder.
    pub fn is_queued(&self, key: &BuildKey) -> bool {
        self.queue.contains(key) || self.again.contains_key(key)
    }

    /// Whether a builder is connected that builds for a target.
    pub fn has_builder_for(&self, target: &TargetName) -> bool {
        self.builders.values().any(|registered| registered.builder.targets.contains(target))
    }

    /// The leases, by attempt.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// One lease.
    pub fn lease(&self, attempt: AttemptId) -> Option<&Lease> {
        self.leases.get(&attempt)
    }

    /// Whether a session holds an attempt and has not delivered it yet.
    pub fn may_settle(&self, session: SessionId, attempt: AttemptId) -> bool {
        self.lease(attempt).is_some_and(|lease| lease.is_run_by(session))
    }

    /// How many attempts at an SRPM that is not settled count for [`MOST_TRIES`].
    pub fn griefs(&self, key: &BuildKey) -> usize {
        self.blame.griefs(key)
    }

    /// The attempts that hold an SRPM.
    pub fn holders(&self, key: &BuildKey) -> impl Iterator<Item = &Lease> {
        let attempts = self.leased.get(key).into_iter().flatten();
        attempts.filter_map(|attempt| self.leases.get(attempt))
    }

    fn begin_lease(&mut self, lease: Lease) {
        self.leased.entry(lease.srpm.key.clone()).or_default().insert(lease.attempt);
        self.leases.insert(lease.attempt, lease);
    }
}
