//! The farm as a whole: overview, queue, builders, targets, the report, events.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::api::{
    BuildState, Builder, BuilderDetail, EventKind, Overview, PAGE, PAGE_MAX, Package, PackageDetail, Page,
    Queued, Running, Target,
};
use moji_proto::{AttemptId, TargetName, outcome};
use tokio::task::spawn_blocking;

use super::{Api, ApiError};
use crate::beneath::Folder;
use crate::farm_handle::Live;
use crate::history::Events;
use crate::report;

/// How old an overview may be: all browsers ask for it at each event.
const FRESH: Duration = Duration::from_millis(500);
/// How old a report may be: one of a large queue is large.
const FRESH_REPORT: Duration = Duration::from_secs(2);
/// How many builds an overview shows of each sort.
const NEWEST: u32 = 10;
/// No report is longer: its lists have 20,000 entries at most.
const REPORT_MAX: u64 = 64 << 20;

impl Api {
    /// The farm at a glance, half a second old at most.
    ///
    /// # Errors
    /// When the farm or the history does not answer.
    pub async fn overview(&self) -> Result<Arc<Overview>, ApiError> {
        self.overview.get(FRESH, async { self.make_overview().await.map(Arc::new) }).await
    }

    /// Something was done: whoever looks next sees it.
    pub async fn forget_overview(&self) {
        self.overview.forget().await;
    }

    async fn make_overview(&self) -> Result<Overview, ApiError> {
        let live = self.farm.live().await?;
        let attempts: Vec<AttemptId> = live.running.iter().map(|running| running.attempt).collect();
        let asked = self.history.ask(move |views| {
            Ok((
                views.throughput(Timestamp::now())?,
                views.settled_last(&[], NEWEST)?,
                views.settled_last(&[BuildState::Failed, BuildState::Held], NEWEST)?,
                views.numbers(&attempts)?,
            ))
        });
        let (throughput, newest, failures, numbers) = asked.await?;
        let Live { server, queue, eta, slots, running, builders, .. } = live.as_ref().clone();
        Ok(Overview {
            server,
            queue,
            eta,
            throughput,
            slots,
            running: numbered(running, &numbers),
            builders,
            newest,
            failures,
        })
    }

    /// What lies in SOURCE, of one target (`Some(None)`: SOURCE itself) or of all, in the order of hand-out.
    ///
    /// # Errors
    /// When the farm does not answer.
    pub async fn queue(
        &self,
        target: Option<Option<TargetName>>,
        limit: u32,
    ) -> Result<Page<Queued>, ApiError> {
        let most = usize::try_from(bounded(limit)).unwrap_or(usize::MAX);
        let (items, total) = self.farm.queue(target, most).await?;
        Ok(Page { items, next: None, total: Some(total) })
    }

    /// Packages by name, those with `search` in it.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn packages(
        &self,
        search: Option<String>,
        skip: u64,
        limit: u32,
    ) -> Result<Page<Package>, ApiError> {
        let asked = self.history.ask(move |views| views.packages(search.as_deref(), skip, bounded(limit)));
        Ok(asked.await?)
    }

    /// A package, only of one target's builds when one is given.
    ///
    /// # Errors
    /// When there is none of that name, or the history cannot be read.
    pub async fn package(&self, name: &str, target: Option<TargetName>) -> Result<PackageDetail, ApiError> {
        let owned = name.to_owned();
        let found = self.history.ask(move |views| views.package(&owned, target.as_ref())).await?;
        found.ok_or_else(|| ApiError::NotFound(format!("no package {} was ever queued", quoted(name))))
    }

    /// The builders that are connected, or were lost with work.
    ///
    /// # Errors
    /// When the farm does not answer.
    pub async fn builders(&self) -> Result<Vec<Builder>, ApiError> {
        Ok(self.farm.live().await?.builders.clone())
    }

    /// A builder, connected or not.
    ///
    /// # Errors
    /// When nobody of that name was ever seen, or farm or history do not answer.
    pub async fn builder(&self, id: &str) -> Result<BuilderDetail, ApiError> {
        let live = self.farm.live().await?;
        let running: Vec<Running> =
            live.running.iter().filter(|running| running.builder == id).cloned().collect();
        let attempts: Vec<AttemptId> = running.iter().map(|running| running.attempt).collect();
        let owned = id.to_owned();
        let asked = self.history.ask(move |views| {
            let (totals, builds) = views.builder(&owned, Timestamp::now())?;
            Ok((totals, builds, views.numbers(&attempts)?))
        });
        let (totals, builds, numbers) = asked.await?;
        let builder = live.builders.iter().find(|builder| builder.id == id).cloned();
        if builder.is_none() && totals.attempts == 0 && builds.is_empty() && running.is_empty() {
            return Err(ApiError::NotFound(format!("no builder {} was ever seen", quoted(id))));
        }
        let running = numbered(running, &numbers);
        Ok(BuilderDetail { id: id.to_owned(), builder, totals, running, builds })
    }

    /// The targets, SOURCE itself first.
    ///
    /// # Errors
    /// When farm or history do not answer.
    pub async fn targets(&self) -> Result<Vec<Target>, ApiError> {
        let live = self.farm.live().await?;
        let days = self.history.ask(|views| views.day_of_targets(Timestamp::now())).await?;
        let mut targets = live.targets.clone();
        for target in &mut targets {
            target.day = days.get(&target.name).copied().unwrap_or_default();
        }
        Ok(targets)
    }

    /// The newest report, some seconds old at most.
    ///
    /// # Errors
    /// When there is none yet, or it cannot be read.
    pub async fn report(&self) -> Result<Arc<serde_json::Value>, ApiError> {
        self.report.get(FRESH_REPORT, async { self.read_report().await.map(Arc::new) }).await
    }

    async fn read_report(&self) -> Result<serde_json::Value, ApiError> {
        let folders = Arc::clone(&self.folders);
        let read = spawn_blocking(move || {
            let mut json = Vec::new();
            Folder::open(&folders.repo)?.open_file(report::JSON)?.take(REPORT_MAX).read_to_end(&mut json)?;
            Ok::<_, std::io::Error>(serde_json::from_slice(&json)?)
        });
        match read.await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(ApiError::NotFound(
                "there is no report yet: it is written when the queue is empty, or nothing in it can move"
                    .into(),
            )),
            Ok(Err(error)) => {
                Err(ApiError::Unavailable(format!("the report in REPO cannot be read: {error}")))
            }
            Err(error) => Err(ApiError::Unavailable(format!("the report cannot be read: {error}"))),
        }
    }

    /// What happened after `since`, of these kinds (none: of all).
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn events(&self, since: u64, kinds: Vec<EventKind>, limit: u32) -> Result<Events, ApiError> {
        Ok(self.history.ask(move |views| views.events(since, &kinds, bounded(limit))).await?)
    }
}

/// How much of a list is given when so much is asked for.
pub(super) fn bounded(limit: u32) -> u32 {
    if limit == 0 { PAGE } else { limit.min(PAGE_MAX) }
}

/// What somebody has asked for, in an answer to him.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", outcome::one_line(text))
}

/// With the numbers that the history has for these attempts.
fn numbered(mut running: Vec<Running>, numbers: &BTreeMap<AttemptId, u64>) -> Vec<Running> {
    for running in &mut running {
        running.build = numbers.get(&running.attempt).copied();
    }
    running
}
