//! The results of attempts: announced, listed, compared with what is here, received, handed on.

use anyhow::bail;
use moji_proto::outcome::one_line;
use moji_proto::{AttemptId, ManifestEntry, Outcome, StreamId, ToBuilder, limits};

use super::results::{self, DeliveryError, Files, Have};
use super::{FromSession, Session, TaskEnd};
use crate::limits::Limits;
use crate::payload::Payloads;
use crate::quiet::Topic;
use crate::room::in_words;

/// How often a delivery may come with wrong bytes.
const DELIVERIES: u32 = 3;
/// How often it may be given up in the middle: each time what is here of it is read again. From then on
/// that is as good as wrong bytes.
const ABORTS: u32 = 6;
/// Entries of manifests that are kept for one builder at a time, some tens of megabytes; the next delivery
/// has to wait. Far more than builds leave.
const LISTED: usize = 5 * limits::FILES;

/// How far the delivery of an attempt is.
#[derive(Debug, Default)]
pub(super) enum DeliveryState {
    /// There is none.
    #[default]
    None,
    /// The manifest is coming.
    Listing { announced: Announced, manifest: Vec<ManifestEntry> },
    /// It is compared with what an earlier upload has brought.
    Preparing { outcome: Outcome, manifest: Vec<ManifestEntry> },
    /// The builder knows what is wanted.
    Wanted { outcome: Outcome, manifest: Vec<ManifestEntry>, files: Box<Files>, have: Have },
    /// The files are coming.
    Receiving { outcome: Outcome, manifest: Vec<ManifestEntry> },
    /// All is here; the farm decides.
    Received,
    /// The server has no memory for the manifest just now, which may be coming all the same.
    Postponed,
}

impl DeliveryState {
    /// Entries of a manifest that are kept for it.
    fn listed(&self) -> usize {
        match self {
            Self::None | Self::Received | Self::Postponed => 0,
            Self::Listing { announced, .. } => announced.files as usize,
            Self::Preparing { manifest, .. }
            | Self::Wanted { manifest, .. }
            | Self::Receiving { manifest, .. } => manifest.len(),
        }
    }
}

/// What a delivery says of itself.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) outcome: Outcome,
    pub(super) files: u32,
    pub(super) bytes: u64,
}

impl Session {
    pub(super) async fn on_deliver(
        &mut self,
        attempt: AttemptId,
        announced: Announced,
    ) -> anyhow::Result<()> {
        let listed: usize = self.held.values().map(|held| held.delivery.listed()).sum();
        let Some(held) = self.held.get_mut(&attempt) else {
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        };
        if announced.files as usize > limits::FILES {
            bail!("the results of {attempt} have more than {} files", limits::FILES);
        }
        if !matches!(held.delivery, DeliveryState::None | DeliveryState::Postponed) {
            bail!("it delivers {attempt} twice at a time");
        }
        held.has_ended = true;
        let Limits { manifest_entries, attempt_size, .. } = self.config.limits;
        if announced.files as usize > manifest_entries {
            let what = format!("{} files, more than {manifest_entries}", announced.files);
            return self.too_large(attempt, what, "manifest-entries").await;
        }
        if announced.bytes > attempt_size {
            let what = format!("{}, more than {}", in_words(announced.bytes), in_words(attempt_size));
            return self.too_large(attempt, what, "attempt-size").await;
        }
        if listed + announced.files as usize > LISTED {
            held.delivery = DeliveryState::Postponed;
            let reason = "too many files are being delivered at a time: try again later".into();
            return Ok(self.out.send(&ToBuilder::Rejected { attempt, reason, again: true })?);
        }
        held.delivery = DeliveryState::Listing { announced, manifest: Vec::new() };
        self.prepare_when_listed(attempt).await
    }

    /// Results that are larger than they may be are not wanted, not now and not later: the next builder
    /// may do better. `limit` is the one to change, if they are as they should be.
    async fn too_large(&mut self, attempt: AttemptId, what: String, limit: &str) -> anyhow::Result<()> {
        self.held.remove(&attempt);
        let reason = format!("larger than the server's limits allow: {what} (--limit {limit})");
        self.out.send(&ToBuilder::Rejected { attempt, reason: one_line(&reason), again: false })?;
        self.tell(FromSession::TooLarge { session: self.id, attempt, reason }).await
    }

    pub(super) async fn on_manifest(
        &mut self,
        attempt: AttemptId,
        entries: Vec<ManifestEntry>,
    ) -> anyhow::Result<()> {
        // Late parts for an attempt that is over concern nobody.
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        if matches!(held.delivery, DeliveryState::Postponed) {
            return Ok(());
        }
        let DeliveryState::Listing { announced, manifest, .. } = &mut held.delivery else {
            bail!("it lists files of {attempt} that it does not deliver");
        };
        if manifest.len() + entries.len() > announced.files as usize {
            bail!("it lists more files of {attempt} than it announced");
        }
        manifest.extend(entries);
        self.prepare_when_listed(attempt).await
    }

    /// Looks for what is there of a delivery when its manifest is complete.
    async fn prepare_when_listed(&mut self, attempt: AttemptId) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let is_complete = matches!(
            &held.delivery,
            DeliveryState::Listing { announced, manifest, .. } if manifest.len() == announced.files as usize
        );
        if !is_complete {
            return Ok(());
        }
        let DeliveryState::Listing { announced, manifest } = std::mem::take(&mut held.delivery) else {
            return Ok(());
        };
        results::check_manifest(&manifest, announced.bytes)?;
        let most = self.config.limits.artifact_size;
        if let Some(entry) = manifest.iter().find(|entry| entry.size > most) {
            let what = format!("{} has {}, more than {}", entry.name, in_words(entry.size), in_words(most));
            return self.too_large(attempt, what, "artifact-size").await;
        }
        let (staging, listed) = (held.staging.clone(), manifest.clone());
        let (tenancy, work) = (held.tenancy.id(), held.tenancy.work());
        held.delivery = DeliveryState::Preparing { outcome: announced.outcome, manifest };
        let (free_space, places) = (self.config.free_space.clone(), self.config.preparing.clone());
        self.writes.spawn(async move {
            TaskEnd::ResultsPrepared(
                tenancy,
                results::prepare(listed, staging, free_space, places, work).await,
            )
        });
        Ok(())
    }

    /// Tells the builder from where on its results are wanted.
    pub(super) fn prepared(
        &mut self,
        attempt: AttemptId,
        files: Box<Files>,
        have: Have,
    ) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let DeliveryState::Preparing { outcome, manifest } = std::mem::take(&mut held.delivery) else {
            return Ok(());
        };
        if have.offset > 0 {
            tracing::info!("{}: the upload of {attempt} goes on at byte {}", self.name, have.offset);
        }
        held.delivery = DeliveryState::Wanted { outcome, manifest, files, have };
        let Have { offset, part, .. } = have;
        Ok(self.out.send(&ToBuilder::Wanted { attempt, offset, part })?)
    }

    pub(super) fn on_upload(
        &mut self,
        attempt: AttemptId,
        offset: u64,
        stream: StreamId,
    ) -> anyhow::Result<()> {
        let stream = self.receiving.open(stream, &self.out)?;
        let Some(held) = self.held.get_mut(&attempt) else {
            stream.unwanted()?;
            return Ok(self.out.send(&ToBuilder::Stale { attempt })?);
        };
        let DeliveryState::Wanted { outcome, manifest, files, have } = std::mem::take(&mut held.delivery)
        else {
            bail!("it uploads results of {attempt} that were not asked for");
        };
        if offset != have.offset && offset != have.whole {
            bail!("it uploads results of {attempt} from byte {offset} on, not from {}", have.offset);
        }
        held.delivery = DeliveryState::Receiving { outcome, manifest };
        let restart = offset != have.offset;
        let (tenancy, work) = (held.tenancy.id(), held.tenancy.work());
        self.writes.spawn(async move {
            TaskEnd::ResultsReceived(tenancy, results::receive(stream, files, work, restart).await)
        });
        Ok(())
    }

    pub(super) async fn delivered(&mut self, attempt: AttemptId, payloads: Payloads) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        let state = std::mem::replace(&mut held.delivery, DeliveryState::Received);
        let DeliveryState::Receiving { outcome, manifest } = state else { return Ok(()) };
        self.tell(FromSession::Delivered { session: self.id, attempt, outcome, manifest, payloads }).await
    }

    pub(super) async fn delivery_failed(
        &mut self,
        attempt: AttemptId,
        error: DeliveryError,
    ) -> anyhow::Result<()> {
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        if matches!(error, DeliveryError::Over(_)) {
            // The farm needs the files for something else, whose reason comes first where there is one.
            self.held.remove(&attempt);
            self.out.send(&ToBuilder::Stale { attempt })?;
            return self.release(attempt, format!("its delivery was stopped: {error}"), false).await;
        }
        held.delivery = DeliveryState::None;
        // A cut, or a full disk here, says nothing against the builder.
        held.aborted += u32::from(matches!(error, DeliveryError::Aborted(_)));
        held.wrong += u32::from(match error {
            DeliveryError::WrongBytes(_) => true,
            DeliveryError::Aborted(_) => held.aborted > ABORTS,
            _ => false,
        });
        let again = held.wrong < DELIVERIES;
        self.warn(Topic::Delivery, format_args!("failed in its delivery of {attempt}: {error}"));
        self.out.send(&ToBuilder::Rejected { attempt, reason: one_line(&error.to_string()), again })?;
        if again {
            return Ok(());
        }
        self.held.remove(&attempt);
        self.release(attempt, format!("its delivery failed: {error}"), true).await
    }
}
