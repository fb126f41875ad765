//! SRPMs between the folders, with the records of their leases.

use std::io;

use moji_proto::{AttemptId, LogFile, RepositoryUrl};
use std::collections::VecDeque;
use tokio::task::spawn_blocking;

use super::note::Note;
use super::{Farm, RETRY, Trouble, exists};
use crate::BuildKey;
use crate::commit::{self, Refusal};
use crate::folders::Folders;
use crate::lease_record::{FileIdentity, LeaseRecord};
use crate::record::RepositoryUsed;
use crate::room::is_full;
use crate::scheduler::{Effect, Event, HoldCause, Lease};
use crate::session::{LeasedSrpm, ResumedAttempt, SessionCommand};

/// Why an SRPM is not in WORKING.
enum Unmoved {
    /// A person was faster.
    Gone,
    /// The disk is full, or a folder cannot be written.
    Disk(io::Error),
}

impl Farm {
    /// Whether the SRPM is in WORKING now and its builder told.
    pub(super) async fn lease(&mut self, lease: Lease, todo: &mut VecDeque<Effect>) -> bool {
        let (url, used) = self.repository_for(&lease).await;
        let Some(record) = self.move_to_working(&lease, None, used, todo).await else {
            self.forget([lease.attempt]).await;
            return false;
        };
        let (key, builder) = (&lease.srpm.key, &lease.builder);
        tracing::info!("{key} goes to {builder} as {} for {}", lease.attempt, lease.target);
        self.assign(lease, record, url).await;
        true
    }

    /// The same for one that another builder is late with: it is in WORKING already.
    pub(super) async fn back_up(&mut self, lease: Lease) -> bool {
        let (folders, leased) = (self.folders.clone(), lease.clone());
        let (url, used) = self.repository_for(&lease).await;
        let recorded = spawn_blocking(move || {
            let file = FileIdentity::of(&folders.working.join(leased.srpm.key.path()))?;
            let record = LeaseRecord::new(&leased, file, used);
            record.write(&folders).map(|()| record)
        });
        let (key, builder) = (&lease.srpm.key, &lease.builder);
        match recorded.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(record) => {
                let others = self.scheduler.holders(key).filter(|other| other.attempt != lease.attempt);
                let late: Vec<_> = others.map(|other| other.builder.to_string()).collect();
                tracing::info!(
                    "{key} takes {} longer than expected: it goes to {builder} too, as {}",
                    late.join(" and "),
                    lease.attempt
                );
                self.assign(lease, record, url).await;
                true
            }
            Err(error) => {
                tracing::debug!("{key} does not go to {builder} too: {error}");
                self.forget([lease.attempt]).await;
                false
            }
        }
    }

    /// Tells a builder that an SRPM in WORKING is its own.
    async fn assign(&mut self, lease: Lease, record: LeaseRecord, repository: Option<RepositoryUrl>) {
        let class = lease.session.and_then(|session| self.scheduler.class_of(session));
        self.note(Note::Leased(&lease, &record, class));
        self.given.insert(lease.attempt, record);
        let key = &lease.srpm.key;
        if let Some(session) = lease.session {
            let leased = LeasedSrpm {
                attempt: lease.attempt,
                slot: lease.slot.unwrap_or_default(),
                target: lease.target.clone(),
                srpm: key.srpm.clone(),
                repository,
                path: self.folders.working.join(key.path()),
                size: lease.srpm.size,
                tenancy: self.stagings.let_to(lease.attempt).await,
            };
            self.tell(session, SessionCommand::Assign(Box::new(leased)));
        }
    }

    /// The same for an SRPM that its builder has already.
    pub(super) async fn retake(&mut self, lease: Lease, todo: &mut VecDeque<Effect>) -> bool {
        let known = self.given.get(&lease.attempt).cloned();
        let Some(record) = self.move_to_working(&lease, known, None, todo).await else {
            // When it is still there, it is not the builder's fault: it may ask again.
            if let Some(session) = lease.session
                && exists(self.folders.source.join(lease.srpm.key.path())).await
            {
                let reason = "the server cannot write in its folders just now";
                self.tell(session, SessionCommand::Close(reason.into()));
            }
            return false;
        };
        self.given.insert(lease.attempt, record);
        self.resume(lease).await;
        true
    }

    /// SOURCE to WORKING. The record first: whoever finds the SRPM in WORKING finds out whose it is.
    async fn move_to_working(
        &mut self,
        lease: &Lease,
        known: Option<LeaseRecord>,
        used: Option<RepositoryUsed>,
        todo: &mut VecDeque<Effect>,
    ) -> Option<LeaseRecord> {
        let (folders, leased) = (self.folders.clone(), lease.clone());
        let moved = spawn_blocking(move || move_to_working(&folders, &leased, known, used)).await;
        let key = &lease.srpm.key;
        match moved.unwrap_or_else(|error| Err(Unmoved::Disk(io::Error::other(error)))) {
            Ok(record) => {
                self.working.entered(key);
                Some(record)
            }
            Err(Unmoved::Gone) => {
                self.note(Note::Withdrawn { key, reason: "taken out of SOURCE".into() });
                self.settled(key).await;
                None
            }
            Err(Unmoved::Disk(error)) => {
                if !is_full(&error) {
                    tracing::error!(
                        "cannot move {key} from SOURCE to WORKING: {error}; make both folders writable for \
                         the server's user; trying again in {RETRY:?}"
                    );
                } else if self.space.is_full_now() {
                    tracing::error!("nothing is handed out: the disk of WORKING is full; make room");
                    // First of all: the slot would get one SRPM after the other.
                    let effects = self.scheduler.handle(self.now(), Event::Room(false));
                    todo.extend(effects);
                }
                self.troubles.push(Trouble::Lease(lease.srpm.clone()));
                None
            }
        }
    }

    /// Tells a builder that an attempt is its own again.
    pub(super) async fn resume(&mut self, lease: Lease) {
        let attempt = lease.attempt;
        if let Some(attempts) = self.staged.get_mut(&lease.srpm.key) {
            attempts.remove(&attempt);
        }
        if let Some(record) = self.given.get_mut(&attempt) {
            (record.slot, record.queued_at) = (lease.slot, lease.srpm.queued_at);
        }
        // Nothing that came over an earlier connection grows any more.
        let tenancy = self.stagings.let_to(attempt).await;
        let (folders, record) = (self.folders.clone(), self.given.get(&attempt).cloned());
        let logs = spawn_blocking(move || {
            if let Some(Err(error)) = record.map(|record| record.write(&folders)) {
                // The next server would compare digests instead.
                tracing::debug!("{attempt}: cannot write its lease record: {error}");
            }
            log_sizes(&folders, attempt)
        });
        let logs = logs.await.unwrap_or_default();
        tracing::info!("{} goes on with {} as {attempt}", lease.builder, lease.srpm.key);
        let class = lease.session.and_then(|session| self.scheduler.class_of(session));
        self.note(Note::Readopted(&lease, self.given.get(&attempt).cloned().as_ref(), class));
        if let Some(session) = lease.session {
            let resumed = ResumedAttempt { attempt, slot: lease.slot, logs, tenancy };
            self.tell(session, SessionCommand::Resume(Box::new(resumed)));
        }
    }

    /// Has a builder deliver once more what is lost here.
    pub(super) async fn deliver_again(&mut self, lease: Lease, reason: String) {
        let attempt = lease.attempt;
        self.deliveries.remove(&attempt);
        let tenancy = self.stagings.let_to(attempt).await;
        if let Some(session) = lease.session {
            // Of the live logs nothing is wanted any more.
            let resumed = ResumedAttempt { attempt, slot: None, logs: Vec::new(), tenancy };
            self.tell(session, SessionCommand::DeliverAgain(Box::new(resumed), reason));
        }
    }

    /// What is back in SOURCE the watcher finds, if the scheduler does not know of it already.
    pub(super) async fn move_to_source(&mut self, key: BuildKey) {
        let (folders, moving) = (self.folders.clone(), key.clone());
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

    /// SOURCE to FINISHED, for what cannot be built.
    pub(super) async fn move_to_finished(&mut self, key: BuildKey, refusal: Refusal) {
        let folders = self.folders.clone();
        let (refused, why) = (key.clone(), refusal.clone());
        match spawn_blocking(move || commit::refuse(&folders, &refused, &why)).await {
            Ok(Ok(record)) => {
                match refusal {
                    Refusal::Held(HoldCause::Cancelled, reason) => {
                        self.note(Note::Withdrawn { key: &key, reason })
                    }
                    _ => self.note(Note::Settled { key: &key, record: &record }),
                }
                self.handle(Event::Gone(key.clone())).await;
                self.settled(&key).await;
            }
            Ok(Err(error)) => {
                // One that a person has taken away or replaced meanwhile needs nothing any more.
                if exists(self.folders.source.join(key.path())).await {
                    tracing::warn!("trying again in {RETRY:?}: {error:#}");
                    self.troubles.push(Trouble::Refuse(key, refusal));
                }
            }
            Err(error) => tracing::error!("{key}: {error}"),
        }
    }
}

/// Blocks.
fn move_to_working(
    folders: &Folders,
    lease: &Lease,
    known: Option<LeaseRecord>,
    used: Option<RepositoryUsed>,
) -> Result<LeaseRecord, Unmoved> {
    let key = &lease.srpm.key;
    let gone_or = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unmoved::Gone,
        _ => Unmoved::Disk(error),
    };
    // One that could not be moved back to SOURCE is where it belongs already.
    if let Some(record) = &known
        && FileIdentity::of(&folders.working.join(key.path())).is_ok_and(|file| file.is_like(&record.file))
    {
        return Ok(record.clone());
    }
    let file = FileIdentity::of(&folders.source.join(key.path())).map_err(gone_or)?;
    let record = known.unwrap_or_else(|| LeaseRecord::new(lease, file, used));
    record.write(folders).map_err(Unmoved::Disk)?;
    folders.lease(key).map_err(gone_or)?;
    Ok(record)
}

/// How many bytes are here of each live log of an attempt. Blocks.
pub(super) fn log_sizes(folders: &Folders, attempt: AttemptId) -> Vec<(LogFile, u64)> {
    let staging = folders.attempt(attempt);
    let size = |log: LogFile| staging.join(log.file_name()).symlink_metadata().map(|data| data.len());
    LogFile::ALL.into_iter().filter_map(|log| Some((log, size(log).ok()?))).collect()
}
