//! What the farm decides, told to the builder.

use moji_proto::io::StreamError;
use moji_proto::outcome::one_line;
use moji_proto::{Assignment, ToBuilder};

use crate::staging::{Tenancy, TenancyId};

use super::deliveries::DeliveryState;
use super::{FromSession, Held, LeasedSrpm, ResumedAttempt, Session, SessionCommand, TaskEnd, transfer};

impl Session {
    pub(super) fn on_command(&mut self, command: SessionCommand) -> anyhow::Result<()> {
        match command {
            SessionCommand::Assign(leased) => return self.assign(*leased),
            SessionCommand::Resume(resumed) => return self.resume(*resumed),
            SessionCommand::DeliverAgain(resumed, reason) => return self.deliver_again(*resumed, &reason),
            SessionCommand::Accept(attempt) => {
                self.forget(attempt);
                self.out.send(&ToBuilder::Accepted { attempt })?;
            }
            SessionCommand::Stale(attempt) => {
                self.forget(attempt);
                self.out.send(&ToBuilder::Stale { attempt })?;
            }
            SessionCommand::Reject(attempt, reason) => {
                // On this connection it may have asked for it only, and delivered on another.
                let has_delivered = self.held.contains_key(&attempt);
                self.forget(attempt);
                self.out.send(&match has_delivered {
                    true => ToBuilder::Rejected { attempt, reason: one_line(&reason), again: false },
                    false => ToBuilder::Stale { attempt },
                })?;
            }
            SessionCommand::Cancel(attempt, reason) => {
                self.forget(attempt);
                self.out.send(&ToBuilder::Cancel { attempt, reason })?;
            }
            SessionCommand::Suspend(pause, reason) => {
                let seconds = pause.as_secs().try_into().unwrap_or(u32::MAX);
                self.out.send(&ToBuilder::Suspended { seconds, reason: one_line(&reason) })?;
            }
            // The session ends before it comes here.
            SessionCommand::Close(_) => {}
        }
        Ok(())
    }

    fn forget(&mut self, attempt: moji_proto::AttemptId) {
        self.held.remove(&attempt);
        self.claimed.remove(&attempt);
    }

    fn holds(&mut self, tenancy: Tenancy, slot: Option<u16>) {
        let attempt = tenancy.id().attempt;
        let staging = self.config.folders.attempt(attempt);
        self.held.insert(attempt, Held::new(slot, staging, tenancy, &self.config.limits));
    }

    fn assign(&mut self, leased: LeasedSrpm) -> anyhow::Result<()> {
        let LeasedSrpm { attempt, slot, target, srpm, repository, path, size, tenancy } = leased;
        let stream = self.sending.open(&self.out);
        self.asked.remove(&slot);
        self.holds(tenancy, Some(slot));
        self.out.send(&ToBuilder::Assign(Assignment {
            attempt,
            slot,
            target,
            srpm,
            size,
            stream: stream.id,
            repository,
        }))?;
        let srpm = transfer::ToSend { working: self.config.folders.working.clone(), path, size };
        self.sends.spawn(async move { TaskEnd::SrpmSent(attempt, transfer::send_file(stream, srpm).await) });
        Ok(())
    }

    fn resume(
        &mut self,
        ResumedAttempt { attempt, slot, logs, tenancy }: ResumedAttempt,
    ) -> anyhow::Result<()> {
        self.claimed.remove(&attempt);
        self.holds(tenancy, slot);
        Ok(self.out.send(&ToBuilder::Resume { attempt, logs })?)
    }

    fn deliver_again(&mut self, resumed: ResumedAttempt, reason: &str) -> anyhow::Result<()> {
        let attempt = resumed.attempt;
        // On this connection it may have asked for it only, and delivered on another.
        let Some(held) = self.held.get_mut(&attempt) else { return self.resume(resumed) };
        (held.tenancy, held.delivery) = (resumed.tenancy, DeliveryState::None);
        Ok(self.out.send(&ToBuilder::Rejected { attempt, reason: one_line(reason), again: true })?)
    }

    pub(super) async fn on_task_end(&mut self, end: TaskEnd) -> anyhow::Result<()> {
        match end {
            // What was begun before it gave the attempt back, whether it has it again or not.
            TaskEnd::LogReceived(tenancy, ..)
            | TaskEnd::ResultsPrepared(tenancy, _)
            | TaskEnd::ResultsReceived(tenancy, _)
                if !self.is_tenant(tenancy) =>
            {
                Ok(())
            }
            TaskEnd::LogReceived(_, _, Ok(())) => Ok(()),
            TaskEnd::LogReceived(TenancyId { attempt, .. }, file, Err(error)) => {
                // The log comes once more with the results; a live view is not worth an attempt.
                tracing::warn!("{}: {} of {attempt}: {error:#}", self.name, file.file_name());
                Ok(())
            }
            TaskEnd::SrpmSent(attempt, Ok(digest)) => {
                self.tell(FromSession::SrpmSent(self.id, attempt, digest)).await
            }
            // It says itself why, and whether something is wrong with it.
            TaskEnd::SrpmSent(_, Err(error)) if is_unwanted(&error) => Ok(()),
            TaskEnd::SrpmSent(attempt, Err(error)) => {
                if self.held.remove(&attempt).is_none() {
                    return Ok(());
                }
                self.out.send(&ToBuilder::Cancel { attempt, reason: "the SRPM could not be sent".into() })?;
                self.release(attempt, format!("the SRPM could not be sent: {error:#}"), false).await
            }
            TaskEnd::ResultsPrepared(tenancy, Ok((files, have))) => {
                self.prepared(tenancy.attempt, files, have)
            }
            TaskEnd::ResultsReceived(tenancy, Ok(payloads)) => {
                self.delivered(tenancy.attempt, payloads).await
            }
            TaskEnd::ResultsPrepared(tenancy, Err(error)) | TaskEnd::ResultsReceived(tenancy, Err(error)) => {
                self.delivery_failed(tenancy.attempt, error).await
            }
        }
    }

    fn is_tenant(&self, tenancy: TenancyId) -> bool {
        self.held.get(&tenancy.attempt).is_some_and(|held| held.tenancy.id() == tenancy)
    }
}

/// Whether the builder has stopped an SRPM on its way.
fn is_unwanted(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StreamError::Unwanted))
}
