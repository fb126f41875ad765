//! Decides who builds what: the queue, the leases, the slots that wait.
//!
//! A plain state machine: `handle(now, event) -> effects`. It deliberately knows no tokio, no file
//! system, no clock and no wire; the farm task owns it, tells it what happened and carries out
//! what it decides.
//!
//! ```text
//!   Found ──▶ queued ──Lease──▶ running ──Delivered──▶ committing ──Committed──▶ (settled)
//!               ▲                │   │ Lost                 ▲  │ CommitFailed
//!               │                │   ▼                      └──┘ tried again
//!               └──── Requeue ───┴─ orphaned (for the grace period)
//! ```
//!
//! Invariants, checked after each event in the tests:
//! - an SRPM is queued, or leased by exactly one attempt; never both, never lost;
//! - an SRPM that was dropped again under the name of a leased one waits until that one settles;
//! - no slot waits while there is an SRPM that it could build;
//! - only the session that holds a lease can settle it, and only once.

mod lease;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use moji_proto::{AttemptId, BuilderName, Outcome, TargetName};

pub use lease::{Lease, LeaseState};
use queue::Queue;

use crate::BuildKey;
use crate::source::{Priority, QueuedSrpm};

/// A point in time: how long the server runs.
pub type Moment = Duration;

/// How long a commit that failed waits before it is tried again.
pub const COMMIT_RETRY: Duration = Duration::from_secs(15);

/// One connection of a builder. Never used again while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What a builder may be given.
#[derive(Debug, Clone)]
pub struct Builder {
    /// Its name, for people.
    pub name: BuilderName,
    /// What it builds for, the preferred one first.
    pub targets: Vec<TargetName>,
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
    /// A connection has ended, for whatever reason.
    Lost(SessionId),
    /// The SRPM of a lease could not be moved to WORKING.
    LeaseFailed(AttemptId),
    /// A builder gives an attempt back.
    Released {
        /// The builder's connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The results of an attempt are in staging, each with its digest.
    Delivered {
        /// The connection that delivered them.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
    },
    /// The results are published, the SRPM is in FINISHED, all of it durable.
    Committed(AttemptId),
    /// Publishing failed, and may be tried again.
    CommitFailed(AttemptId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Move the SRPM from SOURCE to WORKING, then give it to the slot. When the move fails:
    /// [`Event::LeaseFailed`].
    Lease(Lease),
    /// Move the SRPM from WORKING back to SOURCE.
    Requeue {
        /// The attempt that ended without a result.
        attempt: AttemptId,
        /// Its SRPM.
        key: BuildKey,
    },
    /// Publish the results, move the SRPM to FINISHED. Ends with [`Event::Committed`] or
    /// [`Event::CommitFailed`].
    Commit {
        /// The lease whose results these are.
        lease: Lease,
        /// How it ended.
        outcome: Outcome,
    },
    /// Tell a builder that its results are safe.
    Accept {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a builder that it does not hold an attempt.
    Stale {
        /// Its connection.
        session: SessionId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a builder to stop an attempt, and forget what was staged for it.
    Cancel {
        /// Its connection; `None` when it is not connected.
        session: Option<SessionId>,
        /// The attempt.
        attempt: AttemptId,
    },
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Scheduler {
    boot: u64,
    serial: u64,
    grace: Duration,
    /// Nothing is handed out before the whole queue is known.
    ready: bool,
    queue: Queue,
    leases: BTreeMap<AttemptId, Lease>,
    leased: BTreeMap<BuildKey, AttemptId>,
    /// Dropped into SOURCE while one of the same name is leased.
    again: BTreeMap<BuildKey, QueuedSrpm>,
    builders: BTreeMap<SessionId, Builder>,
    /// Slots without work, in the order in which they asked.
    asks: VecDeque<(SessionId, u16)>,
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
            queue: Queue::default(),
            leases: BTreeMap::new(),
            leased: BTreeMap::new(),
            again: BTreeMap::new(),
            builders: BTreeMap::new(),
            asks: VecDeque::new(),
        }
    }

    /// Takes note of what happened and decides what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        match event {
            Event::Found(srpm) => self.found(srpm),
            Event::Gone(key) => {
                self.queue.remove(&key);
                self.again.remove(&key);
                Vec::new()
            }
            Event::Ready => {
                self.ready = true;
                let asks: Vec<_> = self.asks.drain(..).collect();
                asks.into_iter().flat_map(|(session, slot)| self.asked(session, slot)).collect()
            }
            Event::Withdrawn(key) => self.withdrawn(&key),
            Event::Priority { target, list } => {
                self.queue.set_priority(target, list);
                Vec::new()
            }
            Event::Connected { session, builder } => {
                self.builders.insert(session, builder);
                Vec::new()
            }
            Event::Asked { session, slot } => self.asked(session, slot),
            Event::Draining(session) => {
                self.asks.retain(|(asking, _)| *asking != session);
                Vec::new()
            }
            Event::Lost(session) => self.lost(now, session),
            Event::LeaseFailed(attempt) => self.lease_failed(attempt),
            Event::Released { session, attempt } => self.released(session, attempt),
            Event::Delivered { session, attempt, outcome } => self.delivered(session, attempt, outcome),
            Event::Committed(attempt) => self.committed(attempt),
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
        self.leases.values().filter_map(|lease| lease.deadline()).min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Moment) -> Vec<Effect> {
        let is_due = |lease: &&Lease| lease.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<AttemptId> = self.leases.values().filter(is_due).map(|lease| lease.attempt).collect();
        let mut effects = Vec::new();
        for attempt in due {
            let Some(lease) = self.leases.get_mut(&attempt) else { continue };
            match lease.state.clone() {
                LeaseState::Committing { outcome, retry_at: Some(_) } => {
                    lease.state = LeaseState::Committing { outcome: outcome.clone(), retry_at: None };
                    effects.push(Effect::Commit { lease: lease.clone(), outcome });
                }
                LeaseState::Orphaned { .. } => effects.extend(self.requeue(attempt)),
                LeaseState::Running | LeaseState::Committing { .. } => {}
            }
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
        self.builders.values().any(|builder| builder.targets.contains(target))
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

    /// The attempt that holds an SRPM.
    pub fn holder(&self, key: &BuildKey) -> Option<&Lease> {
        self.leases.get(self.leased.get(key)?)
    }

    fn found(&mut self, srpm: QueuedSrpm) -> Vec<Effect> {
        if self.leased.contains_key(&srpm.key) {
            self.again.insert(srpm.key.clone(), srpm);
            return Vec::new();
        }
        let target = srpm.key.target.clone();
        self.queue.insert(srpm);
        self.serve_new_work(target.as_ref())
    }

    /// New work for `target` has come: the slot that has waited longest gets it.
    fn serve_new_work(&mut self, target: Option<&TargetName>) -> Vec<Effect> {
        let fits = |(session, _): &(SessionId, u16)| {
            let builder = self.builders.get(session);
            builder.is_some_and(|builder| target.is_none_or(|target| builder.targets.contains(target)))
        };
        let Some(position) = self.asks.iter().position(fits) else { return Vec::new() };
        let Some((session, slot)) = self.asks.remove(position) else { return Vec::new() };
        self.asked(session, slot)
    }

    fn asked(&mut self, session: SessionId, slot: u16) -> Vec<Effect> {
        let Some(builder) = self.builders.get(&session) else { return Vec::new() };
        let Some(preferred) = builder.targets.first() else { return Vec::new() };
        let best = if self.ready { self.queue.take_best(&builder.targets) } else { None };
        let Some(srpm) = best else {
            if !self.asks.contains(&(session, slot)) {
                self.asks.push_back((session, slot));
            }
            return Vec::new();
        };
        let target = srpm.key.target.clone().unwrap_or_else(|| preferred.clone());
        self.serial += 1;
        let attempt = AttemptId { boot: self.boot, serial: self.serial };
        let lease = Lease {
            attempt,
            srpm,
            target,
            session: Some(session),
            builder: builder.name.clone(),
            slot,
            state: LeaseState::Running,
        };
        self.leased.insert(lease.srpm.key.clone(), attempt);
        self.leases.insert(attempt, lease.clone());
        vec![Effect::Lease(lease)]
    }

    /// The SRPM was taken away at the last moment; the slot gets the next one.
    fn lease_failed(&mut self, attempt: AttemptId) -> Vec<Effect> {
        let asker = self.leases.get(&attempt).and_then(|lease| Some((lease.session?, lease.slot)));
        let mut effects = self.end_lease(attempt);
        if let Some((session, slot)) = asker {
            effects.extend(self.asked(session, slot));
        }
        effects
    }

    fn lost(&mut self, now: Moment, session: SessionId) -> Vec<Effect> {
        self.builders.remove(&session);
        self.asks.retain(|(asking, _)| *asking != session);
        let until = now + self.grace;
        for lease in self.leases.values_mut().filter(|lease| lease.session == Some(session)) {
            lease.orphan(until);
        }
        if self.grace.is_zero() { self.on_time(now) } else { Vec::new() }
    }

    fn released(&mut self, session: SessionId, attempt: AttemptId) -> Vec<Effect> {
        match self.leases.get(&attempt) {
            Some(lease) if lease.is_run_by(session) => self.requeue(attempt),
            _ => vec![Effect::Stale { session, attempt }],
        }
    }

    fn delivered(&mut self, session: SessionId, attempt: AttemptId, outcome: Outcome) -> Vec<Effect> {
        let Some(lease) = self.leases.get_mut(&attempt).filter(|lease| lease.is_run_by(session)) else {
            return vec![Effect::Stale { session, attempt }];
        };
        if lease::is_nobodys_fault(&outcome) {
            let mut effects = vec![Effect::Accept { session, attempt }];
            effects.extend(self.requeue(attempt));
            return effects;
        }
        lease.state = LeaseState::Committing { outcome: outcome.clone(), retry_at: None };
        vec![Effect::Commit { lease: lease.clone(), outcome }]
    }

    fn committed(&mut self, attempt: AttemptId) -> Vec<Effect> {
        let session = self.leases.get(&attempt).and_then(|lease| lease.session);
        let mut effects = Vec::new();
        effects.extend(session.map(|session| Effect::Accept { session, attempt }));
        effects.extend(self.end_lease(attempt));
        effects
    }

    fn withdrawn(&mut self, key: &BuildKey) -> Vec<Effect> {
        let Some(lease) = self.holder(key).filter(|lease| !lease.is_committing()) else { return Vec::new() };
        let (session, attempt) = (lease.session, lease.attempt);
        let mut effects = vec![Effect::Cancel { session, attempt }];
        effects.extend(self.end_lease(attempt));
        effects
    }

    /// Ends a lease and puts its SRPM back into the queue, unless it was dropped again meanwhile.
    fn requeue(&mut self, attempt: AttemptId) -> Vec<Effect> {
        let Some(lease) = self.leases.get(&attempt) else { return Vec::new() };
        let key = lease.srpm.key.clone();
        self.again.entry(key.clone()).or_insert_with(|| lease.srpm.clone());
        let mut effects = vec![Effect::Requeue { attempt, key }];
        effects.extend(self.end_lease(attempt));
        effects
    }

    /// Ends a lease; what waited for its name is queued.
    fn end_lease(&mut self, attempt: AttemptId) -> Vec<Effect> {
        let Some(lease) = self.leases.remove(&attempt) else { return Vec::new() };
        self.leased.remove(&lease.srpm.key);
        match self.again.remove(&lease.srpm.key) {
            Some(srpm) => self.found(srpm),
            None => Vec::new(),
        }
    }
}
