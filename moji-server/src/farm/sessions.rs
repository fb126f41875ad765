//! What sessions tell the farm.

use jiff::Timestamp;
use moji_proto::{AttemptId, FailureKind, ManifestEntry, Outcome, Sha256};
use tokio::task::spawn_blocking;

use super::{COME_BACK, Connected, Farm};
use crate::BuilderId;
use crate::commit::Delivery;
use crate::payload::Payloads;
use crate::scheduler::{Event, Fate, SessionId};
use crate::session::{FromSession, SessionCommand};

impl Farm {
    pub(super) async fn on_session(&mut self, event: FromSession) {
        match event {
            FromSession::Connected { session, builder, machine, is_local, slots, software, commands } => {
                let name = builder.id.clone();
                if let Err(full) = self.make_place(&name) {
                    tracing::warn!("{name} is sent away: {full}");
                    // Nothing was sent to it before.
                    let _ = commands.try_send(SessionCommand::Close(full));
                    return;
                }
                self.arrived(&name);
                let since = Timestamp::now();
                let connected = Connected { name, machine, is_local, slots, software, since, commands };
                self.sessions.insert(session, connected);
                self.handle(Event::Connected { session, builder }).await;
            }
            FromSession::Phase(session, attempt, phase) => {
                if self.scheduler.lease(attempt).is_some_and(|lease| lease.session == Some(session)) {
                    self.looking.phases.insert(attempt, phase);
                }
            }
            FromSession::Asked(session, slot) => self.handle(Event::Asked { session, slot }).await,
            // Nothing is given out by it yet.
            FromSession::Disk(session, bytes) => self.handle(Event::FreeDisk(session, bytes)).await,
            FromSession::Draining(session) => self.handle(Event::Draining(session)).await,
            FromSession::Lost(session, reason) => self.on_lost(session, &reason).await,
            // The next server answers.
            FromSession::Held(..) if self.stopping => {}
            FromSession::Held(session, held) => {
                if self.scheduler.lease(held.attempt).is_some() {
                    self.looking.phases.insert(held.attempt, held.phase);
                }
                self.on_hold(session, held).await;
            }
            FromSession::SrpmSent(session, attempt, sha256) => self.on_sent(session, attempt, sha256).await,
            FromSession::Released { session, attempt, reason, trouble } => {
                if self.scheduler.may_settle(session, attempt) {
                    tracing::info!("{attempt} was given back: {reason}");
                }
                self.handle(Event::Released { session, attempt, trouble }).await;
            }
            FromSession::TooLarge { session, attempt, reason } => {
                if let Some(lease) = self.scheduler.lease(attempt)
                    && self.scheduler.may_settle(session, attempt)
                {
                    let (key, builder) = (&lease.srpm.key, &lease.builder);
                    tracing::warn!("{key}: the results of {builder} are refused: {reason}");
                }
                self.handle(Event::TooLarge { session, attempt, reason }).await;
            }
            FromSession::Delivered { session, attempt, outcome, manifest, payloads } => {
                self.on_delivered(session, attempt, outcome, manifest, payloads).await;
            }
        }
    }

    /// Whether its credential lets one more builder in. When it does not, a builder may still take the
    /// place of its own last connection, which the server has not missed yet.
    ///
    /// # Errors
    /// Why not, for people.
    fn make_place(&mut self, newcomer: &BuilderId) -> Result<(), String> {
        let has_same = |connected: &&Connected| connected.name.credential == newcomer.credential;
        let most = self.limits.builders_per_credential;
        if self.sessions.values().filter(has_same).count() < most {
            return Ok(());
        }
        let last = self.sessions.iter().find(|(_, connected)| connected.name == *newcomer);
        if let Some(last) = last.map(|(session, _)| *session).and_then(|last| self.sessions.remove(&last)) {
            let _ = last.commands.try_send(SessionCommand::Close(COME_BACK.into()));
            return Ok(());
        }
        let whose = match &newcomer.credential {
            Some(credential) => format!("the credential {credential}"),
            None => "the password".to_owned(),
        };
        let are = if most == 1 { "builder is" } else { "builders are" };
        Err(format!("{most} {are} connected with {whose} (--limit builders-per-credential)"))
    }

    async fn on_lost(&mut self, session: SessionId, reason: &str) {
        self.forget_claims(session).await;
        // One that did not take its commands has been told already.
        let gone = self.sessions.remove(&session);
        if let Some(gone) = &gone {
            tracing::info!("{} is gone: {reason}", gone.name);
        }
        if self.stopping {
            return;
        }
        for lease in self.scheduler.leases().filter(|lease| lease.is_run_by(session)) {
            tracing::warn!("{} was being built by {} as {}", lease.srpm.key, lease.builder, lease.attempt);
        }
        if let Some(gone) = gone {
            self.left(session, gone, reason);
        }
        self.handle(Event::Lost(session)).await;
    }

    /// A builder has the whole SRPM: from now on it can be known again by the digest.
    async fn on_sent(&mut self, session: SessionId, attempt: AttemptId, sha256: Sha256) {
        let is_its_own = self.scheduler.lease(attempt).is_some_and(|lease| lease.session == Some(session));
        let Some(record) = self.given.get_mut(&attempt).filter(|_| is_its_own) else { return };
        record.srpm_sha256 = Some(sha256);
        let (folders, record) = (self.folders.clone(), record.clone());
        let written = spawn_blocking(move || record.write(&folders)).await;
        if let Ok(Err(error)) = written {
            // The digest can be computed once more.
            tracing::debug!("{attempt}: cannot write its lease record: {error}");
        }
    }

    async fn on_delivered(
        &mut self,
        session: SessionId,
        attempt: AttemptId,
        outcome: Outcome,
        manifest: Vec<ManifestEntry>,
        payloads: Payloads,
    ) {
        let outcome = believable(outcome, &manifest);
        // Only for the lease's own session: what a stranger delivers must not take the place of
        // what the holder has delivered.
        if self.scheduler.may_settle(session, attempt) {
            let record = self.given.get(&attempt);
            let machine = self.sessions.get(&session).map(|connected| connected.machine.clone());
            let delivery = Delivery {
                manifest,
                payloads,
                srpm_sha256: record.and_then(|record| record.srpm_sha256),
                machine: machine.unwrap_or_default(),
                leased_at: record.map_or_else(Timestamp::now, |record| record.leased_at),
                delivered_at: Timestamp::now(),
                fate: Fate::Settle,
                repository: record.and_then(|record| record.repository.clone()),
            };
            self.deliveries.insert(attempt, delivery);
        }
        self.handle(Event::Delivered { session, attempt, outcome }).await;
    }
}

/// A builder that says "succeeded" and brings no RPM is not believed.
fn believable(outcome: Outcome, manifest: &[ManifestEntry]) -> Outcome {
    if outcome.is_success() && !manifest.iter().any(|entry| entry.name.is_rpm()) {
        let reason = "the builder said that the build succeeded, but delivered no RPM";
        return Outcome::failed(FailureKind::Infrastructure, reason, Some(0), Vec::new());
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_without_rpms_is_not_believed() {
        let entry =
            |name: &str| ManifestEntry { name: name.parse().unwrap(), size: 3, sha256: Sha256::of(b"abc") };
        let doubted = believable(Outcome::Succeeded, &[entry("build.log")]);
        assert!(matches!(doubted, Outcome::Failed { kind: FailureKind::Infrastructure, .. }));
        let both = [entry("build.log"), entry("a-1-1.noarch.rpm")];
        assert_eq!(believable(Outcome::Succeeded, &both), Outcome::Succeeded);
    }
}
