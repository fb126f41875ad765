//! What happens, in the agent's words: signals, what jobs and uploads say, what the server says.

use std::sync::Arc;
use std::time::Duration;

use moji_proto::outcome::one_line;
use moji_proto::{AttemptId, Phase};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{Client, Connector, Signal};
use crate::agent::{Event, JobEnd, Why};
use crate::connection::FromServer;
use crate::delivery::UploadEnd;
use crate::job::{End, Progress};

impl<C: Connector> Client<C> {
    pub(super) fn on_signal(&mut self, signal: Signal) -> Option<Why> {
        let (running, parcels) = (self.running.len(), self.parcels.len());
        match signal {
            Signal::Drain => {
                match (running, parcels) {
                    (0, 0) => tracing::info!("nothing to finish: leaving"),
                    (0, _) => tracing::info!(
                        "delivering the results that wait ({parcels}), then leaving; once more leaves them in the outbox"
                    ),
                    _ => tracing::info!(
                        "finishing what is being built ({running}), then leaving; once more stops it"
                    ),
                }
                self.handle(Event::Drain)
            }
            Signal::Stop => {
                let built = self.running.values().filter(|job| job.phase == Phase::Delivering).count();
                match (running - built, built) {
                    (0, 0) => tracing::info!("leaving at once"),
                    (0, built) => tracing::info!("storing what is built ({built}), then leaving"),
                    (building, 0) => {
                        tracing::info!("stopping what is being built ({building}) and giving it back");
                    }
                    (building, built) => tracing::info!(
                        "stopping what is being built ({building}) and giving it back; storing what is built ({built})"
                    ),
                }
                self.handle(Event::Stop)
            }
        }
    }

    pub(super) fn on_progress(&mut self, slot: u16, progress: Progress) -> Option<Why> {
        let running = self.running.get_mut(&slot)?;
        match progress {
            Progress::Phase(phase) => {
                running.phase = phase;
                tracing::debug!("slot {slot}: {}: {phase}", running.assignment.srpm);
                self.publish_attempts();
                if phase == Phase::Delivering { self.handle(Event::Built(slot)) } else { None }
            }
            Progress::Received(sha256) => {
                running.sha256 = Some(sha256);
                self.handle(Event::Received(slot))
            }
        }
    }

    pub(super) fn on_server(&mut self, event: FromServer) -> Option<Why> {
        match event {
            FromServer::Connected(link) => {
                self.link = Some(link);
                self.ever_connected = true;
                self.handle(Event::Connected)
            }
            FromServer::Assigned(assignment, srpm) => {
                let (slot, attempt) = (assignment.slot, assignment.attempt);
                self.brought.assigned = Some((assignment, srpm));
                let left = self.handle(Event::Assigned { slot, attempt });
                self.brought.assigned = None;
                left
            }
            FromServer::Resumed(attempt, logs) => {
                self.brought.logs = logs;
                self.handle(Event::Resumed(attempt))
            }
            FromServer::Wanted { attempt, offset, part } => {
                if self.parcels.get(&attempt).is_some_and(|parcel| offset > parcel.bytes()) {
                    self.protest("it wants more results than there are");
                    return None;
                }
                self.brought.wanted.insert(attempt, (offset, part));
                self.handle(Event::Wanted(attempt))
            }
            FromServer::Accepted(attempt) => {
                if let Some(running) = self.running_attempt(attempt) {
                    tracing::info!("{} was built already: stopping", running.assignment.srpm);
                }
                self.verdict(attempt, String::new(), Event::Accepted(attempt))
            }
            FromServer::Rejected { attempt, reason, again } => {
                if let Some(parcel) = self.parcels.get(&attempt).filter(|_| again) {
                    tracing::warn!("the results of {} are delivered again soon: {reason}", parcel.srpm);
                }
                self.verdict(attempt, reason, Event::Rejected { attempt, again })
            }
            FromServer::Dropped(attempt, reason) => {
                if let Some(running) = self.running_attempt(attempt) {
                    tracing::warn!("{} is not wanted any more: {reason}", running.assignment.srpm);
                }
                self.verdict(attempt, reason, Event::Dropped(attempt))
            }
            FromServer::Suspended(pause, reason) => {
                self.on_suspended(pause, reason);
                None
            }
        }
    }

    fn on_suspended(&mut self, pause: Duration, reason: String) {
        let until = Instant::now() + pause;
        let is_known =
            self.suspended.as_ref().is_some_and(|(end, why)| *end >= Instant::now() && *why == reason);
        if !is_known {
            tracing::warn!("the server has no work for this builder for {} s: {reason}", pause.as_secs());
        }
        self.suspended = Some((until, reason));
    }

    /// What the server says of results ends their upload, wherever it is.
    fn verdict(&mut self, attempt: AttemptId, reason: String, event: Event) -> Option<Why> {
        if let Some(upload) = self.uploading.remove(&attempt) {
            upload.abort();
        }
        self.brought.wanted.remove(&attempt);
        self.brought.reason = reason;
        self.handle(event)
    }

    pub(super) fn on_job_end(&mut self, ended: Result<(u16, End), JoinError>) -> Option<Why> {
        let (slot, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!("internal error: {error}");
                return None;
            }
        };
        let running = self.running.remove(&slot);
        let end = match end {
            End::Nothing => JobEnd::Nothing,
            End::Trouble(error) => {
                let srpm = running.map(|running| running.assignment.srpm.to_string()).unwrap_or_default();
                tracing::error!("{srpm} is given back: {error:#}");
                self.brought.reason = one_line(&format!("{error:#}"));
                JobEnd::Trouble
            }
            End::Packed(parcel) => {
                let bytes = parcel.bytes();
                self.parcels.insert(parcel.attempt, Arc::new(parcel));
                JobEnd::Packed { bytes }
            }
        };
        let left = self.handle(Event::JobEnded { slot, end });
        self.publish_attempts();
        left
    }

    pub(super) fn on_upload_end(&mut self, ended: Result<(AttemptId, UploadEnd), JoinError>) -> Option<Why> {
        let (attempt, end) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return None,
            Err(error) => {
                tracing::error!("internal error: {error}");
                // A new connection sorts out what was delivered.
                if let Some(link) = &self.link {
                    link.give_up("internal error of the builder".into());
                }
                return None;
            }
        };
        self.uploading.remove(&attempt);
        match end {
            UploadEnd::Said => self.handle(Event::Uploaded(attempt)),
            // The connection's end says more.
            UploadEnd::Lost => None,
            UploadEnd::Broken(error) => {
                self.brought.reason = one_line(&error.to_string());
                self.handle(Event::Broken(attempt))
            }
        }
    }

    pub(super) fn on_look(&mut self, free: Option<u64>) -> Option<Why> {
        self.free = free;
        // What cannot be known must not stop a builder.
        let enough = free.is_none_or(|free| free >= self.config.min_free);
        self.handle(Event::Looked { enough })
    }
}
