//! How those who look at the farm, and people who steer it, speak with its owner.
//!
//! The farm answers between two of its own events, so each question is cheap, and those that many ask at a time
//! are answered once for all of them. It deliberately decides nothing: what may be asked for is looked at before.

use std::sync::Arc;
use std::time::Duration;

use moji_proto::operator::{Done, Place};
use moji_proto::{CredentialName, TargetName, api};
use tokio::sync::{mpsc, oneshot};

use crate::BuildKey;
use crate::fresh::Fresh;
use crate::metadata::Standings;

/// What may wait for the farm.
const WAITING: usize = 64;
/// How old an answer may be that many get.
const FRESH: Duration = Duration::from_millis(200);

/// The farm at one moment, as its owner knows it. Numbers of builds, and what was settled lately, it does not know:
/// these are none and zero.
#[derive(Debug, Clone)]
pub struct Live {
    /// The server.
    pub server: api::Server,
    /// The queue.
    pub queue: api::QueueCounts,
    /// Since when the oldest waits that could be built now.
    pub oldest_queued: Option<jiff::Timestamp>,
    /// How long it will take.
    pub eta: Option<api::Eta>,
    /// The builders' slots.
    pub slots: api::Slots,
    /// What runs, the oldest first.
    pub running: Vec<api::Running>,
    /// Builders, by name.
    pub builders: Vec<api::Builder>,
    /// Targets, SOURCE itself first.
    pub targets: Vec<api::Target>,
    /// How the metadata of each repository are.
    pub standings: Standings,
}

/// What the farm knows of why a build does not run.
#[derive(Debug, Clone, Default)]
pub struct WhyWaiting {
    /// Whether it lies in SOURCE.
    pub is_queued: bool,
    /// Its place in the queue of its target, from 1.
    pub place: Option<u64>,
    /// Why it is not handed out, in one line; none: it waits for a builder only.
    pub waits_for: Option<String>,
    /// What it needs that is not there.
    pub missing: Vec<api::Missing>,
    /// Why each builder does not get it.
    pub builders: Vec<api::WhyBuilder>,
}

/// What a person wants done, with what is meant looked up: the text that named it, and the build.
#[derive(Debug, Clone)]
pub enum Act {
    /// Queue these again; parked ones are tried now.
    Retry(Vec<(String, BuildKey)>),
    /// Take these out.
    Cancel(Vec<(String, BuildKey)>),
    /// Stop these until somebody says retry; why.
    Hold(Vec<(String, BuildKey)>, Option<String>),
    /// Edit a priority.txt.
    Prioritize(Option<TargetName>, String, Place),
    /// No more work for a builder, by its id.
    Drain(String, Option<String>),
    /// Work again for a builder.
    Resume(String),
    /// Nothing more is handed out.
    Pause(Option<String>),
    /// It is again.
    Unpause,
}

/// A question for the farm, and where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// How it stands.
    Live(oneshot::Sender<Arc<Live>>),
    /// What lies in SOURCE (of one target: `Some(None)` is SOURCE itself), in the order of hand-out, at most so
    /// many; and how many there are.
    Queue(Option<Option<TargetName>>, usize, oneshot::Sender<(Vec<api::Queued>, u64)>),
    /// Why a build does not run.
    Why(BuildKey, oneshot::Sender<WhyWaiting>),
    /// Somebody wants something done.
    Act(Option<CredentialName>, Act, oneshot::Sender<Vec<Done>>),
}

/// The farm, for those who are not it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FarmHandle {
    asks: mpsc::Sender<Ask>,
    last: Fresh<Live>,
}

/// The farm does not answer: the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopping;

impl FarmHandle {
    /// A handle, and what comes through it.
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(WAITING);
        (Self { asks, last: Fresh::default() }, asked)
    }

    /// How the farm stands, or stood a moment ago.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn live(&self) -> Result<Arc<Live>, Stopping> {
        self.last.get(FRESH, self.ask(Ask::Live)).await
    }

    /// What lies in SOURCE, in the order of hand-out, and how much of it there is.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn queue(
        &self,
        target: Option<Option<TargetName>>,
        most: usize,
    ) -> Result<(Vec<api::Queued>, u64), Stopping> {
        self.ask(|answer| Ask::Queue(target, most, answer)).await
    }

    /// Why a build does not run.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn why(&self, key: BuildKey) -> Result<WhyWaiting, Stopping> {
        self.ask(|answer| Ask::Why(key, answer)).await
    }

    /// Has something done, for the owner of a credential.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn act(&self, who: Option<CredentialName>, act: Act) -> Result<Vec<Done>, Stopping> {
        let done = self.ask(|answer| Ask::Act(who, act, answer)).await;
        // Whoever looks next sees what was done.
        self.last.forget().await;
        done
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(question(answer)).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
}
