//! What a builder says. Whatever settles, extends or feeds an attempt must come from the session that
//! holds it; anything else is answered with `Stale`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use moji_proto::io::on_stream_message;
use moji_proto::outcome::one_line;
use moji_proto::{AttemptId, HeldAttempt, LogFile, Phase, StreamId, ToBuilder, ToServer, limits};
use tokio::time::Instant;

use super::deliveries::Announced;
use super::{FromSession, Session, TaskEnd, transfer};

/// An attempt that so many heartbeats in a row do not name is forgotten by its builder. More than
/// one: a heartbeat and an assignment can cross on their way.
const FORGOTTEN: u32 = 3;

/// How often the farm hears of a builder's disk at most.
const DISK_EVERY: Duration = Duration::from_secs(1);

impl Session {
    pub(super) async fn on_message(&mut self, message: ToServer) -> anyhow::Result<()> {
        match message {
            ToServer::Ask { slot } => {
                self.check_slot(slot)?;
                if self.is_busy(slot) || !self.asked.insert(slot) {
                    bail!("it asks for work for slot {slot}, which has some or has asked already");
                }
                if self.held.len() >= limits::HOLDS {
                    bail!("it asks for work, and has delivered none of {} attempts", self.held.len());
                }
                self.tell(FromSession::Asked(self.id, slot)).await
            }
            ToServer::Drain => {
                self.asked.clear();
                self.tell(FromSession::Draining(self.id)).await
            }
            ToServer::Heartbeat { attempts, disk } => {
                if attempts.len() > limits::HOLDS {
                    bail!("it names {} attempts in a heartbeat, more than {}", attempts.len(), limits::HOLDS);
                }
                self.out.send(&ToBuilder::HeartbeatSeen)?;
                self.on_disk(disk).await?;
                self.on_heartbeat(&attempts).await
            }
            ToServer::Log { attempt, file, offset, stream } => self.on_log(attempt, file, offset, stream),
            ToServer::Manifest { attempt, entries } => self.on_manifest(attempt, entries).await,
            ToServer::Deliver { attempt, outcome, files, bytes } => {
                self.on_deliver(attempt, Announced { outcome: outcome.bounded(), files, bytes }).await
            }
            ToServer::Upload { attempt, offset, stream } => self.on_upload(attempt, offset, stream),
            ToServer::Hold(held) => self.on_hold(held).await,
            ToServer::Release { attempt, reason, trouble } => {
                if self.held.remove(&attempt).is_none() {
                    return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
                }
                self.release(attempt, one_line(&reason), trouble).await
            }
            ToServer::Stream(message) => {
                on_stream_message(&self.sending, &mut self.receiving, message);
                Ok(())
            }
            ToServer::Register(_) | ToServer::Operate(_) => bail!("it introduced itself twice"),
            ToServer::Goodbye { .. } => Ok(()),
        }
    }

    fn check_slot(&self, slot: u16) -> anyhow::Result<()> {
        if slot >= self.slots {
            bail!("it has slots 0 to {}, and speaks of slot {slot}", self.slots - 1);
        }
        Ok(())
    }

    /// Whether an attempt is in a slot, or said to be.
    fn is_busy(&self, slot: u16) -> bool {
        self.held.values().any(|held| held.is_in(slot))
            || self.claimed.values().any(|claimed| *claimed == Some(slot))
    }

    /// It was given an attempt on an earlier connection. The farm knows whether it may keep it.
    async fn on_hold(&mut self, held: HeldAttempt) -> anyhow::Result<()> {
        let attempt = held.attempt;
        if self.held.contains_key(&attempt) || self.claimed.contains_key(&attempt) {
            bail!("it says twice that it holds {attempt}");
        }
        if let Some(slot) = held.slot {
            self.check_slot(slot)?;
            if self.is_busy(slot) || self.asked.contains(&slot) {
                bail!("it holds {attempt} in slot {slot}, which has other work or has asked for some");
            }
        }
        self.claims += 1;
        if self.claims > limits::HOLDS {
            if self.claims == limits::HOLDS + 1 {
                tracing::warn!("{}: it says that it holds more than {} attempts", self.name, limits::HOLDS);
            }
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        }
        // Not only what it has registered for: results for another target may wait in its outbox.
        let known = self.credentials.borrow().clone();
        if self.pass.check(&known)?.is_some_and(|credential| !credential.is_for(&held.target)) {
            tracing::warn!(
                "{}: it holds {attempt} for {}, which its credential is not for",
                self.name,
                held.target
            );
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        }
        self.claimed.insert(attempt, held.slot);
        self.tell(FromSession::Held(self.id, held)).await
    }

    /// The farm hears of it at a pace that it can stand, however fast heartbeats come.
    async fn on_disk(&mut self, disk: Option<u64>) -> anyhow::Result<()> {
        let (told, when) = self.disk;
        match disk.filter(|free| *free != told && when.elapsed() >= DISK_EVERY) {
            None => Ok(()),
            Some(free) => {
                self.disk = (free, Instant::now());
                self.tell(FromSession::Disk(self.id, free)).await
            }
        }
    }

    /// A builder that has forgotten an attempt would otherwise keep it as long as it is connected.
    async fn on_heartbeat(&mut self, attempts: &[(AttemptId, Phase)]) -> anyhow::Result<()> {
        for (attempt, phase) in attempts {
            if let Some(held) = self.held.get_mut(attempt).filter(|held| held.phase != Some(*phase)) {
                held.phase = Some(*phase);
                self.tell(FromSession::Phase(self.id, *attempt, *phase)).await?;
            }
        }
        // Those that come sooner only tell what has changed: on a slow line many may be under way.
        if self.beat.elapsed() < self.config.heartbeat / 2 {
            return Ok(());
        }
        self.beat = Instant::now();
        let named: BTreeSet<_> = attempts.iter().map(|(attempt, _)| *attempt).collect();
        let mut forgotten = Vec::new();
        for (attempt, held) in &mut self.held {
            let is_known = named.contains(attempt);
            held.unnamed = if is_known || held.is_delivered() { 0 } else { held.unnamed + 1 };
            if held.unnamed == FORGOTTEN {
                forgotten.push(*attempt);
            }
        }
        for attempt in forgotten {
            self.held.remove(&attempt);
            let reason = "the builder does not name it in its heartbeats any more";
            self.out.send(&ToBuilder::Cancel { attempt, reason: reason.into() })?;
            self.release(attempt, reason.into(), false).await?;
        }
        Ok(())
    }

    fn on_log(
        &mut self,
        attempt: AttemptId,
        file: LogFile,
        offset: u64,
        stream: StreamId,
    ) -> anyhow::Result<()> {
        let stream = self.receiving.open(stream, &self.out)?;
        let Some(held) = self.held.get_mut(&attempt) else {
            stream.unwanted()?;
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        };
        if !held.logs.insert(file) {
            bail!("it sends {} of {attempt} a second time", file.file_name());
        }
        let log = transfer::Log {
            path: held.staging.join(file.file_name()),
            offset,
            limit: self.config.log_limit,
            about: format!("{}: {} of {attempt}", self.name, file.file_name()),
            pace: held.log_pace.clone(),
        };
        let (tenancy, work, ended) = (held.tenancy.id(), held.tenancy.work(), self.ended.clone());
        self.writes.spawn(async move {
            TaskEnd::LogReceived(tenancy, file, transfer::receive_log(stream, log, work, ended).await)
        });
        Ok(())
    }

    /// The attempt is not this session's any more; the farm decides what becomes of it.
    pub(super) async fn release(
        &self,
        attempt: AttemptId,
        reason: String,
        trouble: bool,
    ) -> anyhow::Result<()> {
        self.tell(FromSession::Released { session: self.id, attempt, reason, trouble }).await
    }
}
