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
//! good ([`Event::Rejected`]), and the attempt ends like one that failed through its builder's fault. Or they may be
//! lost ([`Event::ResultsLost`]), and it runs again until its builder has delivered once more.
//!
//! Invariants, checked after each event in the tests:
//! - an SRPM is queued, or leased by at least one attempt; never both, never lost;
//! - an SRPM that was dropped again under the name of a leased one waits until that one settles;
//! - no slot waits while there is an SRPM that it could build;
//! - only the session that holds a lease can settle it, and only once;
//! - at most one attempt at an SRPM is being published;
//! - an SRPM that came to grief [`MOST_TRIES`] times is not given out again.

mod asks;
mod backup;
mod blame;
mod event;
mod handout;
mod lease;
mod outlook;
mod plan;
mod queue;
mod readopt;
mod retry;
mod settle;
mod steer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::{AttemptId, TargetName};

pub use blame::{FIRST_PAUSE, LONGEST_PAUSE, MOST_RETURNS, MOST_TRIES, RETURNS, STREAK, Try, TryKind};
pub use event::{Builder, Effect, Ending, Event, HoldCause};
pub use lease::{Claim, Fate, Lease, LeaseState};
pub use outlook::{Outlook, WhyNot};
pub use plan::{COMING, Cycle, Missing, STUCK, Wait};
pub use steer::Seen;

use crate::dependency::Requirement;
use crate::estimates::{BuilderClass, Estimates, Expectation};
use crate::source::{Demand, QueuedSrpm};
use crate::{BuildKey, BuilderId};
use asks::Asks;
use blame::Blame;
use queue::Queue;
use retry::Failures;

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
    /// Nothing is handed out while a person wants it so.
    paused: bool,
    /// Builders that a person wants to get no work.
    drained: BTreeSet<BuilderId>,
    rules: Rules,
    estimates: Estimates,
    queue: Queue,
    /// What a server before this one has parked, until it is found in SOURCE.
    parked: BTreeMap<BuildKey, (Vec<Requirement>, u64)>,
    failures: Failures,
    /// Repositories of which it is not known yet what they have: nothing that may need it is handed out, for so long.
    unread: BTreeMap<Option<TargetName>, Moment>,
    /// What was given to a second builder.
    backed_up: BTreeSet<BuildKey>,
    /// Since when nobody has what a kind of SRPM asks for.
    untaken_since: BTreeMap<(Option<TargetName>, Demand), Moment>,
    /// When it was looked last whether a late build can be begun a second time.
    backups_looked_at: Option<Moment>,
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

/// What the operator has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Shares of the builders, by target (none: SOURCE itself). What is not named has 1.
    pub weights: BTreeMap<Option<TargetName>, u32>,
    /// A build that takes so many times as long as expected is begun a second time on a builder that has
    /// nothing else to do; 0: never.
    pub backup_after: u32,
    /// Whether builds that failed are tried once more when what they used has been built anew.
    pub retry_on_change: bool,
    /// Whether builders are told where the repositories are.
    pub tells_repository: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { weights: BTreeMap::new(), backup_after: 2, retry_on_change: false, tells_repository: true }
    }
}

/// A connected builder.
#[derive(Debug)]
struct Registered {
    builder: Builder,
    draining: bool,
    /// Targets whose configuration does not work there: not offered until it registers anew.
    broken: BTreeSet<TargetName>,
}

impl Registered {
    fn class(&self) -> BuilderClass {
        BuilderClass::new(&self.builder.arch, self.builder.resources.cores.into())
    }
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
            paused: false,
            drained: BTreeSet::new(),
            rules: Rules::default(),
            estimates: Estimates::default(),
            queue: Queue::gathering(),
            parked: BTreeMap::new(),
            failures: Failures::default(),
            unread: BTreeMap::new(),
            backed_up: BTreeSet::new(),
            untaken_since: BTreeMap::new(),
            backups_looked_at: None,
            leases: BTreeMap::new(),
            leased: BTreeMap::new(),
            again: BTreeMap::new(),
            reserved: BTreeMap::new(),
            blame: Blame::default(),
            builders: BTreeMap::new(),
            asks: Asks::default(),
        }
    }

    /// The same farm by other rules than the usual.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.queue.set_weights(&rules.weights);
        self.rules = rules;
        self
    }

    /// Takes note of what happened and decides what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let mut effects = self.decide(now, event);
        effects.extend(self.serve_fresh(now));
        effects
    }

    fn decide(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        match event {
            Event::Found(srpm) => self.found(now, srpm),
            Event::Gone(key) => self.gone(now, &key),
            Event::Ready => {
                self.ready = true;
                self.queue.begin(now);
                self.serve_all(now)
            }
            Event::Room(room) => {
                self.room = room;
                self.serve_all(now)
            }
            Event::Paused(paused) => {
                self.paused = paused;
                self.serve_all(now)
            }
            Event::Drained(builder, drained) => self.set_drained(now, builder, drained),
            Event::Pardoned(builder) => self.pardoned(now, &builder),
            Event::TryNow(key) => self.try_now(now, &key),
            Event::Stop { key, reason, cause } => self.stop(now, &key, &reason, cause),
            Event::Withdrawn(key) => self.withdrawn(now, &key),
            Event::Priority { target, list } => {
                self.queue.set_priority(target, list);
                Vec::new()
            }
            Event::Unread { target, until } => {
                self.unread.insert(target, until);
                Vec::new()
            }
            Event::Requires { target, list } => {
                self.queue.set_requires(target, list);
                Vec::new()
            }
            Event::Contents { target, change } => self.contents(now, target.as_ref(), *change),
            Event::Estimates(estimates) => {
                self.estimates = *estimates;
                Vec::new()
            }
            Event::Products { target, package, provides } => {
                self.queue.learn(target.as_ref(), &package, provides);
                Vec::new()
            }
            Event::Parked { key, missing, generation } => {
                self.parked.insert(key, (missing, generation));
                Vec::new()
            }
            Event::Failed { key, used, generation } => {
                self.failures.add(key, used, generation);
                Vec::new()
            }
            Event::Look => {
                self.look_for_untakeable(now);
                Vec::new()
            }
            Event::FreeDisk(session, bytes) => self.free_disk(now, session, bytes),
            Event::Restored { lease, patience } => self.restored(now, *lease, patience),
            Event::Blamed(key, tries) => {
                self.blame.restore(key, tries);
                Vec::new()
            }
            Event::Connected { session, builder } => self.connected(now, session, builder),
            Event::Asked { session, slot } => {
                let mut effects = self.forgotten_in(now, session, slot);
                effects.extend(self.asked(now, session, slot));
                effects
            }
            Event::Draining(session) => self.draining(now, session),
            Event::Lost(session) => self.lost(now, session),
            Event::LeaseFailed(attempt) => self.lease_failed(now, attempt),
            Event::RetakeFailed(attempt) => self.retake_failed(now, attempt),
            Event::Reserved(key) => {
                *self.reserved.entry(key).or_default() += 1;
                Vec::new()
            }
            Event::Unreserved(key) => self.unreserved(now, &key),
            Event::Held { claim, attempt } => self.held(claim, attempt),
            Event::Claimed { claim, attempt, key, target, generation } => {
                self.claimed(now, claim, attempt, &key, (target, generation))
            }
            Event::Released { session, attempt, trouble } => self.released(now, session, attempt, trouble),
            Event::Delivered { session, attempt, outcome } => self.delivered(now, session, attempt, outcome),
            Event::Committed { attempt, rpms } => self.committed(now, attempt, rpms),
            Event::TooLarge { session, attempt, reason } => self.too_large(now, session, attempt, &reason),
            Event::ResultsLost { attempt, reason } => self.results_lost(now, attempt, reason),
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
        // Before the whole queue is known, what waits may still find what it waits for.
        let queue = self.ready.then(|| self.queue.next_deadline()).flatten();
        let others = [self.blame.next_deadline(), queue, self.next_backup()];
        leases.chain(others.into_iter().flatten()).chain(self.unread.values().copied()).min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Moment) -> Vec<Effect> {
        let is_due = |lease: &&Lease| lease.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<AttemptId> = self.leases.values().filter(is_due).map(|lease| lease.attempt).collect();
        let mut effects = Vec::new();
        for attempt in due {
            let Some(lease) = self.leases.get_mut(&attempt) else { continue };
            match &mut lease.state {
                LeaseState::Committing { outcome, fate, retry_at } => {
                    *retry_at = None;
                    let (outcome, fate) = (outcome.clone(), fate.clone());
                    effects.push(Effect::Commit { lease: lease.clone(), outcome, fate });
                }
                LeaseState::Orphaned { is_loss, .. } => {
                    let is_loss = *is_loss;
                    effects.extend(self.given_up(now, attempt, is_loss));
                }
                LeaseState::Running { .. } | LeaseState::Deferred { .. } => {}
            }
        }
        let unread = self.unread.len();
        self.unread.retain(|_, until| *until > now);
        if self.blame.end_suspensions(now) || self.unread.len() < unread {
            effects.extend(self.serve_all(now));
        }
        if self.ready {
            self.queue.on_time(now);
        }
        effects.extend(self.serve_fresh(now));
        effects.extend(self.begin_backups(now));
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

    /// Whether an SRPM was parked by a server before this one, and has not been found yet.
    pub fn was_parked(&self, key: &BuildKey) -> bool {
        self.parked.contains_key(key)
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

    /// How long an SRPM takes on a builder, or on any.
    fn expect(&self, srpm: &QueuedSrpm, class: Option<&BuilderClass>) -> Expectation {
        self.estimates.expect(&srpm.header.name, class, srpm.size)
    }

    /// What kind of machine a connected builder is.
    pub fn class_of(&self, session: SessionId) -> Option<BuilderClass> {
        self.builders.get(&session).map(Registered::class)
    }

    /// What an SRPM waits for; none when it is not in SOURCE.
    pub fn wait_of(&self, key: &BuildKey) -> Option<Wait> {
        self.queue.wait_of(key)
    }

    fn begin_lease(&mut self, lease: Lease) {
        self.leased.entry(lease.srpm.key.clone()).or_default().insert(lease.attempt);
        self.leases.insert(lease.attempt, lease);
    }
}
