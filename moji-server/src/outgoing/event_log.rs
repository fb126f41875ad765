//! Where sinks find what happened, and write down how far they are.
//!
//! It deliberately does not know who is told.

use std::collections::BTreeSet;
use std::future::Future;

use moji_proto::api::Event;
use tokio::task::spawn_blocking;

use crate::history::{Reader, Recorder, StoreError};

/// Events that are written down, and a cursor for each sink. Cheap to clone.
pub trait EventLog: Clone + Send + Sync + 'static {
    /// What happened after the event with that id, oldest first, at most so many.
    fn after(&self, id: u64, limit: u32) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;

    /// The id of the newest event; 0: there is none.
    fn newest(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// These are all the sinks there are: nothing needs to be kept for others.
    fn keep_only(&self, sinks: BTreeSet<String>);

    /// Up to which event a sink was told; `None`: it is new.
    fn delivered(&self, sink: &str) -> impl Future<Output = Result<Option<u64>, StoreError>> + Send;

    /// Writes that down, and says whether it is written now. When it is not, events are told twice at worst.
    fn set_delivered(&self, sink: &str, id: u64) -> impl Future<Output = bool> + Send;
}

/// The history as such a log.
#[derive(Debug, Clone)]
pub struct HistoryLog {
    reader: Reader,
    recorder: Recorder,
}

impl HistoryLog {
    /// Over a history.
    pub fn new(reader: Reader, recorder: Recorder) -> Self {
        Self { reader, recorder }
    }
}

impl EventLog for HistoryLog {
    async fn after(&self, id: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.reader.ask(move |views| Ok(views.events(id, &[], limit)?.events)).await
    }

    async fn newest(&self) -> Result<u64, StoreError> {
        self.reader.ask(|views| Ok(views.events(u64::MAX, &[], 1)?.newest)).await
    }

    fn keep_only(&self, sinks: BTreeSet<String>) {
        self.recorder.keep_sinks(sinks);
    }

    async fn delivered(&self, sink: &str) -> Result<Option<u64>, StoreError> {
        let sink = sink.to_owned();
        self.reader.ask(move |views| views.delivered(&sink)).await
    }

    async fn set_delivered(&self, sink: &str, id: u64) -> bool {
        let (recorder, sink) = (self.recorder.clone(), sink.to_owned());
        let written = spawn_blocking(move || {
            recorder.delivered(&sink, id);
            recorder.ask(move |store| store.delivered(&sink)).flatten()
        });
        written.await.is_ok_and(|written| written >= Some(id))
    }
}
