//! Carries out what the agent has decided.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use moji_proto::{AttemptId, Phase, ToServer};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Client, Connector, Running};
use crate::agent::{Discarded, Effect, GivenBack, Notice, Why};
use crate::connection::Lease;
use crate::crash::{self, Point};
use crate::delivery;
use crate::disk::readable;
use crate::job::{End, Job};
use crate::outbox;

impl<C: Connector> Client<C> {
    /// Gives the reason when the last effect is to leave.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Option<Why> {
        for effect in effects {
            match effect {
                Effect::Hold(attempt) => {
                    if let Some(held) = self.held(attempt) {
                        tracing::debug!("{} ({attempt}) is held", held.srpm);
                        self.say(&ToServer::Hold(held));
                    }
                }
                Effect::Ask(slot) => self.say(&ToServer::Ask { slot }),
                Effect::SayDrain => self.say(&ToServer::Drain),
                Effect::Start { slot, .. } => self.start(slot),
                Effect::GoOn(slot) => self.go_on(slot),
                Effect::Abort(slot) => {
                    if let Some(running) = self.running.get(&slot) {
                        running.cancel.cancel();
                    }
                }
                Effect::Deliver(attempt) => self.deliver(attempt),
                Effect::Upload(attempt) => self.upload(attempt),
                Effect::Release { attempt, why } => self.release(attempt, why),
                Effect::Discard { attempt, why } => self.discard(attempt, why),
                Effect::Protest(mistake) => self.protest(mistake),
                Effect::Look => {
                    let free_space = self.config.free_space.clone();
                    self.looks.spawn_blocking(move || free_space.look());
                }
                Effect::Tell(notice) => self.tell(notice),
                Effect::Leave(why) => return Some(why),
            }
        }
        None
    }

    /// What cannot be said because the connection has ended is not missed: its end says more.
    fn say(&self, message: &ToServer) {
        if let Some(link) = &self.link {
            let _ = link.out.send(message);
        }
    }

    pub(super) fn protest(&self, mistake: &'static str) {
        if let Some(link) = &self.link {
            link.give_up(format!("the server breaks the protocol: {mistake}"));
        }
    }

    fn start(&mut self, slot: u16) {
        let Some(((assignment, srpm), link)) = self.brought.assigned.take().zip(self.link.clone()) else {
            return;
        };
        tracing::info!("building {} for {} in slot {slot}", assignment.srpm, assignment.target);
        let cancel = CancellationToken::new();
        let (lease_tx, lease) = watch::channel(Some(Lease { link, logs: Default::default() }));
        let folder = self.work_dir.attempt(slot, assignment.attempt);
        let job = Job {
            assignment: assignment.clone(),
            srpm,
            lease,
            progress: self.progress_tx.clone(),
            cancel: cancel.clone(),
            builder: Arc::clone(&self.builder),
            work_dir: Arc::clone(&self.work_dir),
            log_limit: self.config.log_limit,
            free_space: self.config.free_space.clone(),
            min_free: self.config.min_free,
        };
        let running = Running { assignment, sha256: None, phase: Phase::Receiving, cancel, lease: lease_tx };
        self.running.insert(slot, running);
        self.jobs.spawn(async move {
            // A panic in a job is trouble of this machine, and its slot goes on.
            let ended = AbortOnDropHandle::new(tokio::spawn(job.run())).await;
            remove(folder, outbox::remove_slot).await;
            crash::at(Point::SlotRemoved);
            (slot, ended.unwrap_or_else(|_| End::Trouble(anyhow!("internal error of the builder"))))
        });
        self.publish_attempts();
    }

    /// Live logs go on over this connection, from where the server has them.
    fn go_on(&mut self, slot: u16) {
        let logs = std::mem::take(&mut self.brought.logs);
        if let Some((running, link)) = self.running.get(&slot).zip(self.link.clone()) {
            tracing::info!("{} is still this builder's: going on", running.assignment.srpm);
            running.lease.send_replace(Some(Lease { link, logs }));
        }
    }

    /// Announces results at once, so that their slot may ask for work behind it; the list of files
    /// stays in line with other bulk.
    fn deliver(&mut self, attempt: AttemptId) {
        let Some((parcel, link)) = self.parcels.get(&attempt).cloned().zip(self.link.clone()) else { return };
        self.say(&delivery::announcement(attempt, &parcel));
        self.lists.spawn(async move {
            // Only the end of the connection can stop it, which says more.
            let _ = delivery::list(&link, attempt, &parcel).await;
        });
    }

    fn upload(&mut self, attempt: AttemptId) {
        let Some(wanted) = self.brought.wanted.remove(&attempt) else { return };
        let Some((parcel, link)) = self.parcels.get(&attempt).cloned().zip(self.link.clone()) else { return };
        if wanted.0 > 0 {
            tracing::info!("the upload of the results of {} goes on at byte {}", parcel.srpm, wanted.0);
        }
        let folder = self.work_dir.outbox(attempt);
        let upload = self
            .uploads
            .spawn(async move { (attempt, delivery::upload(link, attempt, &parcel, folder, wanted).await) });
        self.uploading.insert(attempt, upload);
    }

    fn release(&mut self, attempt: AttemptId, why: GivenBack) {
        let (reason, trouble) = match why {
            GivenBack::Stopped => ("the builder was stopped".into(), false),
            GivenBack::Surplus => ("the slot takes no work (any more)".into(), false),
            GivenBack::NoRoom => ("there is too little room on the builder's disk".into(), false),
            GivenBack::Trouble if !self.brought.reason.is_empty() => (self.brought.reason.clone(), true),
            GivenBack::Trouble => ("something was wrong with the builder".into(), true),
            GivenBack::Broken => ("the builder cannot read its results any more".into(), true),
            GivenBack::TooOld => ("the results have waited for too long".into(), false),
            GivenBack::Forgotten => ("the builder does not have it any more".into(), false),
        };
        self.say(&ToServer::Release { attempt, reason, trouble });
    }

    fn discard(&mut self, attempt: AttemptId, why: Discarded) {
        let Some(parcel) = self.parcels.remove(&attempt) else { return };
        let (srpm, reason) = (&parcel.srpm, &self.brought.reason);
        match why {
            Discarded::Accepted => tracing::info!("the results of {srpm} are delivered"),
            Discarded::Refused => tracing::error!("the server refuses the results of {srpm}: {reason}"),
            Discarded::Dropped => tracing::warn!(
                "{srpm} is not wanted any more, and its results are removed ({attempt}): {reason}"
            ),
            Discarded::Broken => tracing::error!(
                "the results of {srpm} ({attempt}) are lost, and the server has it built again: {reason}"
            ),
            Discarded::TooOld => tracing::warn!(
                "the results of {srpm} ({attempt}) are removed: they could not be delivered for {} (see --outbox-age)",
                humantime::format_duration(self.config.outbox_age)
            ),
        }
        if let Some(upload) = self.uploading.remove(&attempt) {
            upload.abort();
        }
        self.brought.wanted.remove(&attempt);
        let folder = self.work_dir.outbox(attempt);
        crash::at(Point::Settled);
        self.removals.spawn(async move {
            remove(folder, outbox::remove).await;
            crash::at(Point::Removed);
        });
        self.publish_attempts();
    }

    fn tell(&self, notice: Notice) {
        let waiting = self.parcels.values().map(|parcel| parcel.bytes()).fold(0, u64::saturating_add);
        let outbox =
            format!("{} of results wait to be delivered ({})", readable(waiting), self.parcels.len());
        let min_free = readable(self.config.min_free);
        match notice {
            Notice::OutboxFull => tracing::warn!(
                "{outbox}: no work is asked for until they are at most {} (see --outbox-limit)",
                readable(self.config.outbox_limit)
            ),
            Notice::OutboxRoomy => tracing::info!("{outbox}: work is asked for again"),
            Notice::DiskLow => tracing::warn!(
                "only {} are free: no work is asked for until there are {min_free} (see --min-free)",
                readable(self.free.unwrap_or(0))
            ),
            Notice::DiskRoomy => tracing::info!(
                "{} are free: work is asked for again",
                self.free.map_or("enough".into(), readable)
            ),
        }
    }
}

/// Removes a folder, if it is there.
async fn remove(folder: PathBuf, how: fn(&std::path::Path) -> io::Result<()>) {
    let removed = spawn_blocking(move || match how(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
        _ => {}
    });
    let _ = removed.await;
}
