//! Builds and attempts, joined from the history, what runs, and the files in REPO and staging.

use std::sync::Arc;

use moji_proto::AttemptId;
use moji_proto::api::{Attempt, Build, BuildDetail, BuildState, Excerpt, Page, Running};
use tokio::task::spawn_blocking;

use super::farm::{bounded, quoted};
use super::places::Places;
use super::{Api, ApiError};
use crate::BuildKey;
use crate::history::{BuildFilter, FoundAttempt, StoreError, Views};

impl Api {
    /// Builds, the newest first.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn builds(&self, filter: BuildFilter) -> Result<Page<Build>, ApiError> {
        let filter = BuildFilter { limit: bounded(filter.limit), ..filter };
        Ok(self.history.ask(move |views| views.builds(&filter)).await?)
    }

    /// The build that is meant, in outline: by its number, an attempt's id, `[TARGET/]SRPM`, `[TARGET/]NVR` or
    /// `[TARGET/]package`.
    ///
    /// # Errors
    /// When there is none, or the history cannot be read.
    pub async fn find(&self, reference: &str) -> Result<Build, ApiError> {
        Ok(self.known(reference).await?.1.build)
    }

    /// A build with all that is known of it.
    ///
    /// # Errors
    /// When there is none, or the history cannot be read.
    pub async fn build(&self, reference: &str) -> Result<BuildDetail, ApiError> {
        let (key, mut detail) = self.known(reference).await?;
        let running = self.running().await;
        for attempt in &mut detail.attempts {
            put_running(attempt, &running, detail.build.id);
        }
        let (folders, shows_excerpt) = (Arc::clone(&self.folders), shows_excerpt(&detail.build));
        let excerpts = Arc::clone(&self.excerpts);
        let read = spawn_blocking(move || {
            let places = Places::of(&folders, &key, detail.build.nvr.as_ref());
            for attempt in &mut detail.attempts {
                attempt.logs = places.logs(attempt.id);
            }
            if let Some(attempt) = detail.build.attempt {
                detail.folder = places.url(attempt);
                if shows_excerpt {
                    detail.excerpt = excerpts.of(&places, attempt);
                }
            }
            detail
        });
        read.await.map_err(|error| ApiError::Unavailable(format!("the files cannot be looked at: {error}")))
    }

    /// One attempt.
    ///
    /// # Errors
    /// When there is none, or the history cannot be read.
    pub async fn attempt(&self, id: AttemptId) -> Result<Attempt, ApiError> {
        let (found, nvr) = self.known_attempt(id).await?;
        let FoundAttempt { build, key, mut attempt } = found;
        put_running(&mut attempt, &self.running().await, build);
        let folders = Arc::clone(&self.folders);
        let read = spawn_blocking(move || {
            attempt.logs = Places::of(&folders, &key, nvr.as_ref()).logs(id);
            attempt
        });
        read.await.map_err(|error| ApiError::Unavailable(format!("the files cannot be looked at: {error}")))
    }

    /// What the history knows of a build.
    pub(super) async fn known(&self, reference: &str) -> Result<(BuildKey, BuildDetail), ApiError> {
        let owned = reference.to_owned();
        let found = self.history.ask(move |views| known(views, &owned)).await?;
        found.ok_or_else(|| {
            ApiError::NotFound(format!(
                "no build is known by {}: say its number, the id of an attempt, [TARGET/]SRPM, [TARGET/]NVR or \
                 [TARGET/]package",
                quoted(reference)
            ))
        })
    }

    /// What the history knows of an attempt, and the NVR of its build.
    pub(super) async fn known_attempt(
        &self,
        id: AttemptId,
    ) -> Result<(FoundAttempt, Option<moji_proto::Nvr>), ApiError> {
        let asked = self.history.ask(move |views| {
            let Some(found) = views.attempt(id)? else { return Ok(None) };
            let nvr = views.build(found.build)?.and_then(|detail| detail.build.nvr);
            Ok(Some((found, nvr)))
        });
        asked.await?.ok_or_else(|| ApiError::NotFound(format!("there was no attempt {id}")))
    }

    /// What runs; nothing when the farm does not answer: what is known else is still worth telling.
    pub(super) async fn running(&self) -> Vec<Running> {
        self.farm.live().await.map(|live| live.running.clone()).unwrap_or_default()
    }

    /// The lines that tell why a build failed.
    pub(super) async fn excerpt(&self, key: BuildKey, build: &Build) -> Option<Excerpt> {
        let attempt = build.attempt.filter(|_| shows_excerpt(build))?;
        let (folders, excerpts) = (Arc::clone(&self.folders), Arc::clone(&self.excerpts));
        let nvr = build.nvr.clone();
        let read = spawn_blocking(move || excerpts.of(&Places::of(&folders, &key, nvr.as_ref()), attempt));
        read.await.ok().flatten()
    }
}

fn known(views: &Views, reference: &str) -> Result<Option<(BuildKey, BuildDetail)>, StoreError> {
    let Some((id, key)) = views.find(reference)? else { return Ok(None) };
    Ok(views.build(id)?.map(|detail| (key, detail)))
}

fn put_running(attempt: &mut Attempt, running: &[Running], build: u64) {
    let found = running.iter().find(|running| running.attempt == attempt.id);
    attempt.running = found.map(|running| Running { build: Some(build), ..running.clone() });
}

fn shows_excerpt(build: &Build) -> bool {
    matches!(build.state, BuildState::Failed | BuildState::Held | BuildState::Parked)
}
