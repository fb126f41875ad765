//! The one task that owns the queue and the leases: it tells the scheduler what happened, and
//! carries out what the scheduler decides, one effect after the other.
//!
//! Nothing else moves SRPMs between the folders. It never waits for a session: a builder that
//! does not take its commands is disconnected.

mod claims;
mod effects;
mod evidence;
mod looking;
mod moves;
mod note;
mod presence;
mod publishing;
mod rebuilt;
mod reporting;
mod repositories;
mod sessions;
mod settled_providers;
mod space;
mod steering;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use looking::Looking;
use moji_proto::AttemptId;
use presence::Presence;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::credentials::Credentials;
use crate::catalogue::Catalogue;
use crate::commit::{Delivery, Refusal};
use crate::contents::RepositoryChange;
use crate::farm_handle::Ask;
use crate::folders::Folders;
use crate::history::{Entry, Recorder, Waiting};
use crate::lease_record::LeaseRecord;
use crate::left_behind::LeftBehind;
use crate::limits::Limits;
use crate::metadata;
use crate::quarantine::Bounds;
use crate::repository_url::RepositoryUrls;
use crate::room::FreeSpace;
use crate::scheduler::{Event, HoldCause, Lease, Moment, Rules, Scheduler, SessionId};
use crate::session::{FromSession, SessionCommand};
use crate::source::{QueuedSrpm, SourceEvent};
use crate::staging::Stagings;
use crate::working::WorkingWatch;
use crate::{BuildKey, BuilderId};
use claims::{Claims, WantedBack};
pub(crate) use evidence::EVIDENCE;
use evidence::Evidence;
pub use evidence::Given;
use note::Note;
use publishing::Publishing;
pub use reporting::Campaign;
use reporting::Reporting;
use repositories::Repositories;
use space::Space;
pub use steering::Steering;

/// How long publications that are under way may take when the server stops.
const STOP: Duration = Duration::from_secs(30);

/// How often all leases are compared with WORKING, for what its watcher has missed.
const CHECK_WORKING: Duration = Duration::from_secs(60);

/// How long after the start builds wait for the first look at their repository, which may fail again and again.
const UNREAD: Duration = Duration::from_secs(30);

/// What has come into SOURCE, at most so much of it at a time.
const SOURCE_BURST: usize = 64;

/// How often a move that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often the room on the disk is looked at.
const CHECK_ROOM: Duration = Duration::from_secs(5);

/// Why a builder's last connection is closed.
const COME_BACK: &str = "it has come back on a new connection";

/// How a farm is to run.
#[derive(Debug)]
pub struct FarmConfig {
    /// Its folders, which were prepared.
    pub folders: Arc<Folders>,
    /// This server run's random part of all attempt ids.
    pub boot: u64,
    /// How long a lease outlives its connection.
    pub grace: Duration,
    /// What the operator has decided.
    pub rules: Rules,
    /// How long a lease outlives the server that gave it.
    pub patience: Duration,
    /// Nothing is handed out with less room on the disk, in bytes.
    pub min_free: u64,
    /// How much room there is.
    pub free_space: FreeSpace,
    /// Who is told what happens.
    pub history: Recorder,
    /// The metadata of the repositories.
    pub repositories: metadata::Handle,
    /// Where builders find them.
    pub repository_urls: RepositoryUrls,
    /// What a server before this one had begun to report on.
    pub campaign: Option<Campaign>,
    /// What people wanted of the servers before this one.
    pub steering: Steering,
    /// What is published already.
    pub catalogue: Catalogue,
    /// The credentials as they are now: nothing is published for one that was revoked.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// How many builders one credential lets in, and how much of what was refused is kept.
    pub limits: Limits,
}

/// The owner of the queue.
pub struct Farm {
    scheduler: Scheduler,
    folders: Arc<Folders>,
    patience: Duration,
    started: Instant,
    sessions: BTreeMap<SessionId, Connected>,
    presence: Presence,
    steering: Steering,
    looking: Looking,
    /// What lay in SOURCE at the start is known.
    ready: bool,
    /// Until then: what the history knows to wait, with the bytes of its SRPMs.
    waited: Waiting,
    /// What the history is told in one, while that is gathered.
    together: Option<Vec<Entry>>,
    /// Until then: what the history does not know to wait.
    arrivals: Vec<Entry>,
    /// Whether builds that failed are tried once more when what they used has been built anew.
    retry_on_change: bool,
    /// The server ends: what is leased stays leased, for the next one.
    stopping: bool,
    /// What is known of each attempt that has a lease.
    given: BTreeMap<AttemptId, LeaseRecord>,
    /// Who writes in which of them.
    stagings: Stagings,
    /// What was staged for attempts that were given up, until their SRPM is settled.
    staged: BTreeMap<BuildKey, BTreeSet<AttemptId>>,
    /// What was delivered and is not published yet.
    deliveries: BTreeMap<AttemptId, Delivery>,
    publishing: Publishing,
    claims: Claims,
    /// Which attempts without a lease may turn up again.
    evidence: Evidence,
    space: Space,
    working: WorkingWatch,
    limits: Limits,
    history: Recorder,
    repositories: Repositories,
    reporting: Reporting,
    troubles: Vec<Trouble>,
}

/// What failed, to be tried again: a disk may be full, a folder not writable.
enum Trouble {
    /// From SOURCE to WORKING.
    Lease(QueuedSrpm),
    /// From WORKING back to SOURCE.
    Requeue(BuildKey),
    /// From SOURCE to FINISHED, with the reason why it cannot be built.
    Refuse(BuildKey, Refusal),
    /// From WORKING to FINISHED as held.
    Hold(Held),
    /// Whether an attempt is what its builder says that it is.
    Claim(WantedBack),
    /// What was staged for an attempt, to be removed.
    Forget(AttemptId),
}

/// An SRPM that is not tried again before a person wants it.
#[derive(Debug, Clone)]
struct Held {
    /// The last lease; it has ended.
    lease: Box<Lease>,
    reason: String,
    /// Those whose logs would help.
    attempts: Vec<AttemptId>,
    /// Who wants it so.
    cause: HoldCause,
}

/// A builder that is connected.
struct Connected {
    name: BuilderId,
    machine: String,
    is_local: bool,
    slots: u16,
    software: String,
    since: Timestamp,
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
    /// What comes into the repositories, and goes.
    pub contents: mpsc::Receiver<RepositoryChange>,
    /// Those who look, and people who steer.
    pub asks: mpsc::Receiver<Ask>,
}

impl Farm {
    /// A farm without leases.
    pub fn new(config: FarmConfig, working: WorkingWatch) -> Self {
        Self {
            scheduler: Scheduler::new(config.boot, config.grace).with_rules(config.rules.clone()),
            folders: config.folders,
            patience: config.patience,
            started: Instant::now(),
            sessions: BTreeMap::new(),
            presence: Presence::default(),
            steering: config.steering,
            looking: Looking::default(),
            ready: false,
            waited: Waiting::new(),
            together: None,
            arrivals: Vec::new(),
            retry_on_change: config.rules.retry_on_change,
            stopping: false,
            given: BTreeMap::new(),
            stagings: Stagings::default(),
            staged: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            publishing: Publishing::new(config.catalogue, Bounds::of(&config.limits), config.credentials),
            limits: config.limits,
            claims: Claims::default(),
            evidence: Evidence::default(),
            space: Space::new(config.min_free, config.free_space),
            working,
            history: config.history,
            repositories: Repositories::new(config.repositories, config.repository_urls),
            reporting: Reporting::new(config.campaign),
            troubles: Vec::new(),
        }
    }

    /// Runs from what the last server left behind until `stopping`, and then on until `shutdown`, when
    /// all sessions have ended; publications that are under way are finished first.
    pub async fn run(
        mut self,
        left: LeftBehind,
        mut inputs: FarmInputs,
        stopping: CancellationToken,
        shutdown: CancellationToken,
    ) {
        self.begin(left).await;
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut check_working, mut retry, mut check_room) =
            (every(CHECK_WORKING), every(RETRY), every(CHECK_ROOM));
        let mut report = every(reporting::LOOK);
        loop {
            let deadline = self.scheduler.next_deadline().map(|moment| self.started + moment);
            if self.ready {
                self.claims.look(&self.folders);
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                // What time brings, and what is the server's own, before what others can make much of:
                // sessions that never rest must not keep it waiting.
                () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => {
                    let effects = self.scheduler.on_time(self.now());
                    self.carry_out(effects).await;
                }
                _ = check_room.tick() => {
                    self.check_room().await;
                    // What has ended meanwhile needs its generation no more.
                    self.say_what_is_in_use();
                    self.look_for_twins();
                }
                _ = check_working.tick() => {
                    self.check_leases().await;
                    self.handle(Event::Look).await;
                }
                _ = report.tick() => {
                    self.report().await;
                    self.look_for_end();
                }
                Some(()) = self.reporting.written() => {}
                _ = retry.tick(), if !self.troubles.is_empty() => self.try_again().await,
                Some(ended) = self.publishing.next() => self.on_commit(ended).await,
                Some(looked) = self.claims.next() => self.on_claim(looked).await,
                Some(change) = inputs.contents.recv() => self.on_contents(change).await,
                Some(event) = inputs.source.recv() => {
                    self.on_source(event).await;
                    // The queue that is there at a start comes one by one: all the rest waits for some of it at most,
                    // and nothing is given out before all of it is known.
                    let burst = if self.ready { 0 } else { SOURCE_BURST };
                    for event in std::iter::from_fn(|| inputs.source.try_recv().ok()).take(burst) {
                        self.on_source(event).await;
                    }
                }
                Some(key) = inputs.working.recv() => self.check_lease(&key).await,
                Some(event) = inputs.sessions.recv() => self.on_session(event).await,
                // Behind what builders say: however many look, builds go on.
                Some(ask) = inputs.asks.recv() => self.on_ask(ask).await,
            }
        }
        self.end(inputs.sessions, shutdown).await;
    }

    async fn begin(&mut self, left: LeftBehind) {
        for key in left.put_back {
            tracing::info!("{key} was being built when the last server ended; it is queued again");
        }
        let srpms: BTreeSet<_> = left.leases.iter().map(|(lease, _)| lease.srpm.key.clone()).collect();
        match srpms.len() {
            0 => {}
            1 => tracing::info!(
                "1 SRPM was being built when the last server ended; waiting {:?} for its builder",
                self.patience
            ),
            many => tracing::info!(
                "{many} SRPMs were being built when the last server ended; waiting {:?} for their builders",
                self.patience
            ),
        }
        srpms.iter().for_each(|key| self.working.entered(key));
        self.steer_as_before().await;
        self.staged = left.staged;
        left.unanswered.into_iter().for_each(|given| self.evidence.add(given));
        self.remember(left.remembered).await;
        for failed in left.failed {
            self.failed(failed).await;
        }
        // The one place where what went wrong before this server comes from.
        for (key, tries) in left.tries {
            self.handle(Event::Blamed(key, tries)).await;
        }
        self.tell_restored(&left.leases);
        for (lease, record) in left.leases {
            self.given.insert(lease.attempt, record);
            self.handle(Event::Restored { lease: Box::new(lease), patience: self.patience }).await;
        }
        // What was published last may not be in the metadata yet, and a build without it would be for nothing.
        let until = self.now() + UNREAD;
        for target in left.repositories {
            self.handle(Event::Unread { target, until }).await;
        }
        self.check_room().await;
    }

    /// The rest of the sessions' words: what was delivered whole is still published, and whatever was
    /// leased stays so, for its builder and the next server.
    async fn end(&mut self, mut sessions: mpsc::Receiver<FromSession>, shutdown: CancellationToken) {
        self.stopping = true;
        self.handle(Event::Room(false)).await;
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.publishing.next() => self.on_commit(ended).await,
                Some(event) = sessions.recv() => self.on_session(event).await,
                () = shutdown.cancelled() => break,
            }
        }
        let rest = async {
            while let Some(ended) = self.publishing.next().await {
                self.on_commit(ended).await;
            }
        };
        if timeout(STOP, rest).await.is_err() {
            tracing::warn!("stopped while results were being published; the next start goes on with that");
        }
        match self.scheduler.leases().count() {
            0 => {}
            1 => tracing::info!("1 attempt is left to the next server"),
            many => tracing::info!("{many} attempts are left to the next server"),
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
            SourceEvent::Found(srpm) => self.found(srpm).await,
            SourceEvent::Gone(key) => {
                // It may be back already, or never have been away: only the folder knows.
                if !exists(self.folders.source.join(key.path())).await {
                    if self.scheduler.is_queued(&key) {
                        tracing::info!("{key} was taken out of the queue");
                        self.note(Note::Withdrawn { key: &key, reason: "taken out of SOURCE".into() });
                        self.settled(&key).await;
                    }
                    self.handle(Event::Gone(key)).await;
                }
            }
            SourceEvent::Changing(key) => self.handle(Event::Gone(key)).await,
            SourceEvent::Ready => {
                self.ready = true;
                self.waited = Waiting::new();
                let queued = self.scheduler.queued();
                let parked = match self.scheduler.parked() {
                    0 => String::new(),
                    some => format!(", {some} of them parked"),
                };
                let noun = if queued == 1 { "SRPM is" } else { "SRPMs are" };
                tracing::info!("{queued} {noun} queued{parked}");
                self.handle(Event::Ready).await;
                self.tell_arrivals();
                self.say_what_is_in_use();
            }
            SourceEvent::Broken { key, reason } => {
                tracing::warn!("{key} cannot be built: {reason}");
                self.move_to_finished(key, Refusal::Unreadable(reason)).await;
            }
            SourceEvent::Priority { target, list } => {
                self.handle(Event::Priority { target, list }).await;
            }
            SourceEvent::Requires { target, list } => {
                self.handle(Event::Requires { target, list }).await;
            }
        }
    }

    async fn found(&mut self, srpm: QueuedSrpm) {
        // What is given out again at once the watcher still sees in SOURCE.
        if self.scheduler.holders(&srpm.key).next().is_some()
            && !exists(self.folders.source.join(srpm.key.path())).await
        {
            return;
        }
        // What is just being parked is back, and is told of when it is.
        let is_parking = self.scheduler.holders(&srpm.key).any(Lease::is_committing);
        let (key, is_new) = (srpm.key.clone(), !is_parking && !self.scheduler.is_queued(&srpm.key));
        if is_new {
            // The start is told in one line, and an SRPM that comes back from a builder was told.
            if self.ready {
                match &srpm.key.target {
                    Some(target) if !self.scheduler.has_builder_for(target) => {
                        tracing::info!("{} is queued; no builder for {target} is connected", srpm.key);
                    }
                    _ => tracing::info!("{} is queued", srpm.key),
                }
            }
            // The history knows that it is parked, or waits, and that it goes on to.
            let is_known = self.waited.remove(&key) == Some(srpm.size);
            if !is_known && !self.scheduler.was_parked(&srpm.key) {
                self.note(Note::Queued(&srpm));
            }
        }
        self.handle(Event::Found(srpm)).await;
        if self.ready && is_new && self.scheduler.asks_too_much(&key) {
            tracing::info!("{key} waits: no builder that is connected has what requires.txt asks for");
        }
    }

    async fn try_again(&mut self) {
        for trouble in std::mem::take(&mut self.troubles) {
            match trouble {
                Trouble::Lease(srpm) => self.handle(Event::Found(srpm)).await,
                // It is leased again only after it was back in SOURCE.
                Trouble::Requeue(key) if self.scheduler.holders(&key).next().is_none() => {
                    self.move_to_source(key).await;
                }
                Trouble::Requeue(_) => {}
                Trouble::Refuse(key, refusal) => {
                    // What has taken its place meanwhile was not refused, nor was what is leased.
                    let is_there = exists(self.folders.source.join(key.path())).await;
                    if is_there && !self.scheduler.is_queued(&key) {
                        self.move_to_finished(key, refusal).await;
                    }
                }
                Trouble::Hold(held) => self.hold(held).await,
                Trouble::Claim(wanted) => self.claims.add(wanted),
                // Its builder may have come back with it.
                Trouble::Forget(attempt) if self.scheduler.lease(attempt).is_none() => {
                    self.forget([attempt]).await;
                }
                Trouble::Forget(_) => {}
            }
        }
    }

    async fn check_room(&mut self) {
        if let Some(has_room) = self.space.look(&self.folders.working).await {
            self.handle(Event::Room(has_room)).await;
        }
    }

    async fn check_leases(&mut self) {
        let leased: BTreeSet<_> = self.scheduler.leases().map(|lease| lease.srpm.key.clone()).collect();
        for key in leased {
            self.check_lease(&key).await;
        }
    }

    /// A person may have taken the SRPM out of WORKING: that cancels the attempt.
    async fn check_lease(&mut self, key: &BuildKey) {
        if self.scheduler.holders(key).next().is_none()
            || self.scheduler.holders(key).any(Lease::is_committing)
            || exists(self.folders.working.join(key.path())).await
        {
            return;
        }
        for lease in self.scheduler.holders(key) {
            tracing::warn!("{key} was taken out of WORKING: {} is cancelled", lease.attempt);
        }
        self.note(Note::Withdrawn { key, reason: "taken out of WORKING".into() });
        self.handle(Event::Withdrawn(key.clone())).await;
        self.settled(key).await;
    }

    /// A session that does not take its commands is dropped: closing its queue ends it.
    fn tell(&mut self, session: SessionId, command: SessionCommand) {
        if let Some(Connected { name, commands, .. }) = self.sessions.get(&session)
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

/// What went wrong, when `act` panics: whoever waits for it must hear of its end.
fn without_panic<T>(act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(anyhow::anyhow!("internal error: it panicked; the log has the place")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let error = without_panic::<()>(|| panic!("planned")).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(without_panic(|| Ok(17)).unwrap(), 17);
    }
}
