//! Carries out what the scheduler decides.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use moji_proto::{AttemptId, FailureKind, Outcome};
use tokio::task::spawn_blocking;

use super::note::Note;
use super::{COME_BACK, Farm, Given, Held, RETRY, Trouble, moves};
use crate::BuildKey;
use crate::commit::Refusal;
use crate::hold;
use crate::scheduler::{Effect, Ending, Event, HoldCause, Lease, MOST_TRIES};
use crate::session::SessionCommand;

impl Farm {
    /// Effects may cause events, whose effects come after those that are decided already.
    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Lease(lease) => {
                    let attempt = lease.attempt;
                    if !self.lease(lease, &mut todo).await {
                        todo.extend(self.scheduler.handle(self.now(), Event::LeaseFailed(attempt)));
                    }
                }
                Effect::Retake(lease) => {
                    let attempt = lease.attempt;
                    if !self.retake(lease, &mut todo).await {
                        todo.extend(self.scheduler.handle(self.now(), Event::RetakeFailed(attempt)));
                    }
                }
                Effect::Backup(lease) => {
                    let attempt = lease.attempt;
                    if !self.back_up(lease).await {
                        todo.extend(self.scheduler.handle(self.now(), Event::LeaseFailed(attempt)));
                    }
                }
                Effect::Woken { srpm, requirement, generation } => {
                    tracing::info!(
                        "{} is queued again: {requirement} is there, in generation {generation}",
                        srpm.key
                    );
                    self.note(Note::Queued(&srpm));
                }
                Effect::Retry { key, package } => self.retry(key, package).await,
                Effect::Resume(lease) => self.resume(lease).await,
                Effect::DeliverAgain { lease, reason } => self.deliver_again(lease, reason).await,
                Effect::Requeue(key) => self.move_to_source(key).await,
                Effect::Commit { lease, outcome, fate } => self.commit(lease, outcome, fate).await,
                Effect::Hold { lease, reason, cause } => {
                    let mut attempts = vec![lease.attempt];
                    attempts.extend(self.staged.get(&lease.srpm.key).into_iter().flatten().rev());
                    self.hold(Held { lease: Box::new(lease), reason, attempts, cause }).await;
                }
                Effect::HoldQueued { key, reason } => {
                    tracing::warn!("{key} is held: {reason}");
                    // With the next moves that are tried again: it waits for nobody.
                    self.troubles.push(Trouble::Refuse(key, Refusal::Held(HoldCause::Tries, reason)));
                }
                Effect::Ended { lease, ending } => {
                    // Its logs may be all that is left of a build that is held.
                    let is_held = todo.iter().any(
                        |effect| matches!(effect, Effect::Hold { lease: held, .. } if held.attempt == lease.attempt),
                    );
                    self.ended(lease, ending, is_held).await;
                }
                Effect::Forget(attempt) => {
                    self.staged.values_mut().for_each(|attempts| _ = attempts.remove(&attempt));
                    self.forget([attempt]).await;
                }
                Effect::Accept { session, attempt } => self.tell(session, SessionCommand::Accept(attempt)),
                Effect::Reject { session, attempt, reason } => {
                    self.tell(session, SessionCommand::Reject(attempt, reason));
                }
                Effect::Stale { session, attempt } => self.tell(session, SessionCommand::Stale(attempt)),
                Effect::Cancel { session, attempt } => {
                    let reason = "a person wants it so".into();
                    self.tell(session, SessionCommand::Cancel(attempt, reason));
                }
                Effect::Suspend { session, pause, streak } => {
                    let reason = format!("{streak} attempts in a row failed through this builder's fault");
                    if let Some(connected) = self.sessions.get(&session) {
                        let pause = pause.as_secs();
                        tracing::warn!("{} gets no work for {pause} s: {reason}", connected.name);
                    }
                    self.tell(session, SessionCommand::Suspend(pause, reason));
                }
                Effect::Disconnect(session) => {
                    self.tell(session, SessionCommand::Close(COME_BACK.into()));
                }
            }
        }
    }

    /// A lease is over. What an attempt has sent that may turn up again stays.
    async fn ended(&mut self, lease: Lease, ending: Ending, is_held: bool) {
        let (attempt, key) = (lease.attempt, &lease.srpm.key);
        let record = self.given.remove(&attempt);
        self.looking.phases.remove(&attempt);
        let delivery = self.deliveries.remove(&attempt);
        self.stagings.vacate(attempt).await;
        let folders = self.folders.clone();
        let logs = spawn_blocking(move || moves::log_sizes(&folders, attempt)).await.unwrap_or_default();
        let bytes = delivery.iter().flat_map(|delivery| &delivery.manifest).map(|entry| entry.size).sum();
        match ending {
            // Its builder may still have it.
            Ending::Lost | Ending::Unclaimed => {
                self.evidence.add(Given::of(&lease, record.as_ref()));
            }
            _ => self.evidence.remove(attempt),
        }
        self.tell_why(&lease, &ending);
        self.note(Note::Ended {
            lease: &lease,
            ending: &ending,
            record: record.as_ref(),
            logs: &logs,
            bytes,
        });
        if is_held || matches!(ending, Ending::Lost | Ending::Unclaimed) {
            self.staged.entry(key.clone()).or_default().insert(attempt);
        } else {
            self.forget([attempt]).await;
        }
    }

    /// One line for the operator about what brought no result.
    fn tell_why(&self, lease: &Lease, ending: &Ending) {
        let (key, builder) = (&lease.srpm.key, &lease.builder);
        let count = match self.scheduler.griefs(key) {
            0 => String::new(),
            tries => format!(" (try {tries} of {MOST_TRIES})"),
        };
        match ending {
            Ending::Failed(Outcome::Failed { kind, reason, .. }) => {
                tracing::warn!(
                    "{key} failed on {builder}, and not through the package ({kind}): {reason}{count}"
                );
                if *kind == FailureKind::Configuration {
                    let target = &lease.target;
                    tracing::warn!("{builder} gets nothing more for {target} until it connects anew");
                }
            }
            Ending::Lost => tracing::warn!("{key}: {builder} was lost with it{count}"),
            Ending::Unclaimed => {
                tracing::info!("{key}: {builder} did not come back with it after the restart")
            }
            // Of what was refused it was said where it lies.
            Ending::Published
            | Ending::Parked
            | Ending::Superseded
            | Ending::Rejected(_)
            | Ending::Failed(_)
            | Ending::Released { .. }
            | Ending::Cancelled => {}
        }
    }

    /// Moves an SRPM to FINISHED that is not tried again.
    pub(super) async fn hold(&mut self, held: Held) {
        // A log that is still open would go on growing where it is published.
        for attempt in &held.attempts {
            self.stagings.vacate(*attempt).await;
        }
        let (folders, moving) = (self.folders.clone(), held.clone());
        let done = spawn_blocking(move || {
            hold::hold(&folders, &moving.lease, (moving.cause, &moving.reason), &moving.attempts)
        })
        .await;
        let Held { lease, reason, cause, .. } = &held;
        let key = lease.srpm.key.clone();
        match done {
            Ok(Ok((record, logs))) => {
                let logs = logs.map(|folder| format!("; logs in {}", folder.display())).unwrap_or_default();
                match cause {
                    HoldCause::Cancelled => {
                        tracing::info!("{key} is {reason}{logs}");
                        self.note(Note::Withdrawn { key: &key, reason: reason.clone() });
                    }
                    HoldCause::Tries | HoldCause::Person => {
                        tracing::warn!(
                            "{key} is held: {reason}{logs}; move it back into SOURCE to try again"
                        );
                        self.note(Note::Settled { key: &key, record: &record });
                    }
                }
                self.settled(&key).await;
            }
            Ok(Err(error)) => {
                tracing::error!("{key} cannot be held, trying again in {RETRY:?}: {error:#}");
                self.troubles.push(Trouble::Hold(held));
            }
            Err(error) => tracing::error!("{key}: {error}"),
        }
    }

    /// An SRPM is settled, or gone: nothing of the attempts at it is needed any more.
    pub(super) async fn settled(&mut self, key: &BuildKey) {
        if let Some(attempts) = self.staged.remove(key) {
            self.forget(attempts).await;
        }
    }

    /// Removes what was staged for attempts.
    pub(super) async fn forget(&mut self, attempts: impl IntoIterator<Item = AttemptId>) {
        let mut staging = Vec::new();
        for attempt in attempts {
            self.stagings.vacate(attempt).await;
            staging.push((attempt, self.folders.attempt(attempt)));
        }
        let removed = spawn_blocking(move || {
            let removed = staging.into_iter().map(|(attempt, folder)| (attempt, remove(&folder), folder));
            removed.collect::<Vec<_>>()
        });
        for (attempt, removed, folder) in removed.await.unwrap_or_default() {
            if let Err(error) = removed {
                tracing::warn!("cannot remove {}: {error}; trying again in {RETRY:?}", folder.display());
                self.troubles.push(Trouble::Forget(attempt));
            }
        }
    }
}

/// Removes a folder, which may be gone already. Blocks.
fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
