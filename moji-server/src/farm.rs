//! The one task that owns the queue and the leases: it tells the scheduler what happened, and
//! carries out what the scheduler decides, one effect after the other.
//!
//! Nothing else moves SRPMs between the folders. It never waits for a session: a builder that
//! does not take its commands is disconnected.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use moji_proto::{AttemptId, BuilderName, Outcome};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::BuildKey;
use crate::commit::{self, Delivery, Published};
use crate::folders::Folders;
use crate::scheduler::{Effect, Event, Lease, Moment, Scheduler, SessionId};
use crate::session::{FromSession, LeasedSrpm, SessionCommand};
use crate::source::{QueuedSrpm, SourceEvent};
use crate::working::WorkingWatch;

/// How long publications that are under way may take when the server stops.
const STOP: Duration = Duration::from_secs(30);

/// How often all leases are compared with WORKING, for what its watcher has missed.
const CHECK_WORKING: Duration = Duration::from_secs(60);

/// How often a move that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The owner of the queue.
pub struct Farm {
    scheduler: Scheduler,
    folders: Arc<Folders>,
    started: Instant,
    sessions: BTreeMap<SessionId, Connected>,
    /// What lay in SOURCE at the start is known.
    ready: bool,
    /// What was delivered and is not published yet.
    deliveries: BTreeMap<AttemptId, Delivery>,
    commits: JoinSet<(AttemptId, anyhow::Result<Published>)>,
    working: WorkingWatch,
    troubles: Vec<Trouble>,
}

/// A move that failed, to be tried again: a disk may be full, a folder not writable.
enum Trouble {
    /// From SOURCE to WORKING.
    Lease(QueuedSrpm),
    /// From WORKING back to SOURCE.
    Requeue(BuildKey),
    /// From SOURCE to FINISHED, with the reason why it cannot be built.
    Refuse(BuildKey, String),
}

/// A builder that is connected.
struct Connected {
    name: BuilderName,
    commands: mpsc::Sender<SessionCommand>,
}

/// Where the farm hears of what happens.
pub struct FarmInputs {
    /// The watcher of SOURCE.
    pub source: mpsc::Receiver<SourceEvent>,
    /// The sessions.
    pub sessions: mpsc::Receiver<FromSession>,
    /// SRPMs that may have been taken out of WORKING.
    pub working: mpsc::Receiver<BuildKey>,
}

impl Farm {
    /// A farm over folders that were prepared. `boot` must be random; `grace` is how long a lease
    /// outlives its connection.
    pub fn new(folders: Arc<Folders>, boot: u64, grace: Duration, working: WorkingWatch) -> Self {
        Self {
            scheduler: Scheduler::new(boot, grace),
            folders,
            started: Instant::now(),
            sessions: BTreeMap::new(),
            ready: false,
            deliveries: BTreeMap::new(),
            commits: JoinSet::new(),
            working,
            troubles: Vec::new(),
        }
    }

    /// Runs until the shutdown; publications that are under way are finished first.
    pub async fn run(mut self, mut inputs: FarmInputs, shutdown: CancellationToken) {
        let mut check_working = interval(CHECK_WORKING);
        check_working.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.scheduler.next_deadline().map(|moment| self.started + moment);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = self.commits.join_next() => self.on_commit(ended).await,
                Some(event) = inputs.sessions.recv() => self.on_session(event).await,
                Some(event) = inputs.source.recv() => self.on_source(event).await,
                Some(key) = inputs.working.recv() => self.check_lease(&key).await,
                _ = check_working.tick() => self.check_leases().await,
                _ = retry.tick(), if !self.troubles.is_empty() => self.try_again().await,
                () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => {
                    let effects = self.scheduler.on_time(self.now());
                    self.carry_out(effects).await;
                }
            }
        }
        let rest = async { while self.commits.join_next().await.is_some() {} };
        if timeout(STOP, rest).await.is_err() {
            tracing::warn!("stopped while results were being published; they will be built again");
        }
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }

    async fn handle(&mut self, event: Event) {
        let effects = self.scheduler.handle(self.now(), event);
        self.carry_out(effects).await;
    }

    async fn on_source(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Found(srpm) => {
                // The start is told in one line, and an SRPM that comes back from a builder was told.
                if self.ready && !self.scheduler.is_queued(&srpm.key) {
                    match &srpm.key.target {
                        Some(target) if !self.scheduler.has_builder_for(target) => {
                            tracing::info!("{} is queued; no builder for {target} is connected", srpm.key);
                        }
                        _ => tracing::info!("{} is queued", srpm.key),
                    }
                }
                self.handle(Event::Found(srpm)).await;
            }
            SourceEvent::Gone(key) => {
                // It may be back already, or never have been away: only the folder knows.
                if !exists(self.folders.source.join(key.path())).await {
                    if self.scheduler.is_queued(&key) {
                        tracing::info!("{key} was taken out of the queue");
                    }
                    self.handle(Event::Gone(key)).await;
                }
            }
            SourceEvent::Changing(key) => self.handle(Event::Gone(key)).await,
            SourceEvent::Ready => {
                self.ready = true;
                match self.scheduler.queued() {
                    1 => tracing::info!("1 SRPM is queued"),
                    many => tracing::info!("{many} SRPMs are queued"),
                }
                self.handle(Event::Ready).await;
            }
            SourceEvent::Broken { key, reason } => self.refuse(key, reason).await,
            SourceEvent::Priority { target, list } => {
                self.handle(Event::Priority { target, list }).await;
            }
        }
    }

    async fn refuse(&mut self, key: BuildKey, reason: String) {
        tracing::warn!("{key} cannot be built: {reason}");
        self.move_to_finished(key, reason).await;
    }

    async fn move_to_finished(&mut self, key: BuildKey, reason: String) {
        let folders = Arc::clone(&self.folders);
        let (refused, why) = (key.clone(), reason.clone());
        match spawn_blocking(move || commit::refuse(&folders, &refused, &why)).await {
            Ok(Ok(())) => self.handle(Event::Gone(key)).await,
            Ok(Err(error)) => {
                // One that a person has taken away or replaced meanwhile needs nothing any more.
                if exists(self.folders.source.join(key.path())).await {
                    tracing::warn!("trying again in {RETRY:?}: {error:#}");
                    self.troubles.push(Trouble::Refuse(key, reason));
                }
            }
            Err(error) => tracing::error!("{key}: {error}"),
        }
    }

    async fn try_again(&mut self) {
        for trouble in std::mem::take(&mut self.troubles) {
            match trouble {
                Trouble::Lease(srpm) => self.handle(Event::Found(srpm)).await,
                // It is leased again only after it was back in SOURCE.
                Trouble::Requeue(key) if self.scheduler.holders(&key).next().is_none() => {
                    self.move_to_source(key).await
                }
                Trouble::Requeue(_) => {}
                Trouble::Refuse(key, reason) => self.move_to_finished(key, reason).await,
            }
        }
    }

    async fn on_session(&mut self, event: FromSession) {
        match event {
            FromSession::Connected { session, builder, commands } => {
                self.sessions.insert(session, Connected { name: builder.name.clone(), commands });
                self.handle(Event::Connected { session, builder }).await;
            }
            FromSession::Asked(session, slot) => self.handle(Event::Asked { session, slot }).await,
            FromSession::Draining(session) => self.handle(Event::Draining(session)).await,
            FromSession::Lost(session, reason) => self.on_lost(session, &reason).await,
            FromSession::Released(session, attempt, reason) => {
                tracing::info!("{attempt} was given back: {reason}");
                self.handle(Event::Released { session, attempt, trouble: false }).await;
            }
            FromSession::Delivered(session, attempt, outcome, delivery) => {
                // Only for the lease's own session: what a stranger delivers must not take the
                // place of what the holder has delivered.
                if self.scheduler.may_settle(session, attempt) {
                    self.deliveries.insert(attempt, delivery);
                }
                self.handle(Event::Delivered { session, attempt, outcome }).await;
            }
        }
    }

    async fn on_lost(&mut self, session: SessionId, reason: &str) {
        let held: Vec<_> = self.scheduler.leases().filter(|lease| lease.session == Some(session)).collect();
        // One that did not take its commands has been told already.
        if let Some(Connected { name, .. }) = self.sessions.remove(&session) {
            tracing::info!("{name} is gone: {reason}");
        }
        for lease in held {
            tracing::warn!("{} was being built by {} as {}", lease.srpm.key, lease.builder, lease.attempt);
        }
        self.handle(Event::Lost(session)).await;
    }

    async fn on_commit(
        &mut self,
        ended: Result<(AttemptId, anyhow::Result<Published>), tokio::task::JoinError>,
    ) {
        let (attempt, published) = match ended {
            Ok(ended) => ended,
            // Never in practice; the lease stays, and its SRPM in WORKING until the next start.
            Err(error) => return tracing::error!("a publication broke off: {error}"),
        };
        let name = self.scheduler.lease(attempt).map(|lease| lease.srpm.key.to_string()).unwrap_or_default();
        match published {
            Ok(Published { outcome, folder, note }) => {
                self.deliveries.remove(&attempt);
                match &outcome {
                    Outcome::Succeeded => tracing::info!("{name} succeeded: {}", folder.display()),
                    Outcome::Failed { kind, reason, .. } => {
                        tracing::warn!("{name} failed ({kind}): {reason}; logs in {}", folder.display());
                    }
                }
                if let Some(note) = note {
                    tracing::warn!("{name}: {note}");
                }
                self.handle(Event::Committed(attempt)).await;
            }
            Err(error) => {
                tracing::error!("{name} is built but could not be published, trying again soon: {error:#}");
                self.handle(Event::CommitFailed(attempt)).await;
            }
        }
    }

    async fn check_leases(&mut self) {
        let leased: Vec<_> = self.scheduler.leases().map(|lease| lease.srpm.key.clone()).collect();
        for key in leased {
            self.check_lease(&key).await;
        }
    }

    /// A person may have taken the SRPM out of WORKING: that cancels the attempt.
    async fn check_lease(&mut self, key: &BuildKey) {
        let holder = self.scheduler.holders(key).find(|lease| !lease.is_committing());
        if let Some(attempt) = holder.map(|lease| lease.attempt)
            && !exists(self.folders.working.join(key.path())).await
        {
            tracing::warn!("{key} was taken out of WORKING: {attempt} is cancelled");
            self.handle(Event::Withdrawn(key.clone())).await;
        }
    }

    /// Effects may cause events, whose effects come after those that are decided already.
    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = std::collections::VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Lease(lease) => {
                    let attempt = lease.attempt;
                    if !self.lease(lease).await {
                        todo.extend(self.scheduler.handle(self.now(), Event::LeaseFailed(attempt)));
                    }
                }
                Effect::Requeue(key) => self.move_to_source(key).await,
                Effect::Commit { lease, outcome, .. } => self.commit(lease, outcome),
                Effect::Accept { session, attempt } => self.tell(session, SessionCommand::Accept(attempt)),
                Effect::Stale { session, attempt } => self.tell(session, SessionCommand::Stale(attempt)),
                Effect::Cancel { session, attempt } => {
                    let reason = "the SRPM was taken out of WORKING".into();
                    self.tell(session, SessionCommand::Cancel(attempt, reason));
                }
                Effect::Ended { lease, .. } => self.forget(lease.attempt).await,
                Effect::Forget(attempt) => self.forget(attempt).await,
                Effect::Retake(_)
                | Effect::Resume(_)
                | Effect::Hold { .. }
                | Effect::Suspend { .. }
                | Effect::Disconnect(_) => {}
            }
        }
    }

    /// Whether the SRPM is in WORKING now and its builder told.
    async fn lease(&mut self, lease: Lease) -> bool {
        let (folders, key) = (Arc::clone(&self.folders), lease.srpm.key.clone());
        let moved = spawn_blocking(move || folders.lease(&key)).await;
        let key = &lease.srpm.key;
        match moved.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                tracing::error!(
                    "cannot move {key} from SOURCE to WORKING: {error}; make both folders writable for the \
                     server's user; trying again in {RETRY:?}"
                );
                self.troubles.push(Trouble::Lease(lease.srpm));
                return false;
            }
        }
        self.working.entered(key);
        tracing::info!("{key} goes to {} as {} for {}", lease.builder, lease.attempt, lease.target);
        if let Some(session) = lease.session {
            let leased = LeasedSrpm {
                attempt: lease.attempt,
                slot: lease.slot.unwrap_or_default(),
                target: lease.target.clone(),
                srpm: key.srpm.clone(),
                path: self.folders.working.join(key.path()),
                size: lease.srpm.size,
            };
            self.tell(session, SessionCommand::Assign(leased));
        }
        true
    }

    /// What is back in SOURCE the watcher finds, if the scheduler does not know of it already.
    async fn move_to_source(&mut self, key: BuildKey) {
        let (folders, moving) = (Arc::clone(&self.folders), key.clone());
        match spawn_blocking(move || folders.requeue(&moving)).await {
            Ok(Ok(())) => tracing::info!("{key} is queued again"),
            // A person has taken it away.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) => {
                tracing::error!(
                    "cannot move {key} from WORKING back to SOURCE: {error}; make both folders writable for \
                     the server's user; trying again in {RETRY:?}"
                );
                self.troubles.push(Trouble::Requeue(key));
            }
            Err(error) => tracing::error!("{key}: {error}"),
        }
    }

    /// Removes what was staged for an attempt that ended without a result.
    async fn forget(&mut self, attempt: AttemptId) {
        self.deliveries.remove(&attempt);
        let staging = self.folders.attempt(attempt);
        let _ = spawn_blocking(move || std::fs::remove_dir_all(staging)).await;
    }

    fn commit(&mut self, lease: Lease, outcome: Outcome) {
        let attempt = lease.attempt;
        let Some(delivery) = self.deliveries.get(&attempt).cloned() else {
            return tracing::error!("{attempt} is to be published, but nothing was delivered");
        };
        let folders = Arc::clone(&self.folders);
        self.commits.spawn_blocking(move || (attempt, commit::commit(&folders, &lease, outcome, &delivery)));
    }

    /// A session that does not take its commands is dropped: closing its queue ends it.
    fn tell(&mut self, session: SessionId, command: SessionCommand) {
        if let Some(Connected { name, commands }) = self.sessions.get(&session)
            && commands.try_send(command).is_err()
        {
            tracing::warn!("{name} does not take its commands and is disconnected");
            self.sessions.remove(&session);
        }
    }
}

/// Whether there is an entry at a path; when that cannot be found out, it is taken to be there.
async fn exists(path: std::path::PathBuf) -> bool {
    let looked = spawn_blocking(move || path.symlink_metadata()).await;
    !matches!(looked, Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound)
}
