//! One sink: the task that gives events to one receiver, one after the other.
//!
//! The cursor is written down after an event was delivered, so a server that ends between the two delivers it twice:
//! the receiver knows by the id. It deliberately does not know how a receiver is reached.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::api::Event;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::event_log::EventLog;
use super::pace::{InTrouble, Next, Pace, Trouble};
use super::settings::{Receiver, SinkConfig};
use super::webhook::Webhook;
use super::{LAST, program};

/// Events that are read at once.
const PAGE: u32 = 100;
/// How often to look without having been told of anything: the history may not have been there before.
const LOOK: Duration = Duration::from_secs(60);
/// How many pages are looked through to count those that wait, for a line of the log.
const COUNTED: u32 = 20;

/// How a receiver is reached.
pub(super) enum Way {
    Program(std::path::PathBuf, Duration),
    Webhook(Box<Webhook>),
}

impl Way {
    async fn give(&self, event: &Event) -> Result<(), Trouble> {
        match self {
            Self::Program(path, limit) => program::give(path, event, *limit).await,
            Self::Webhook(webhook) => webhook.give(event).await,
        }
    }
}

/// A receiver, and how far it is.
pub(super) struct Sink<L> {
    config: SinkConfig,
    name: String,
    pub(super) way: Way,
    log: L,
    events: broadcast::Receiver<Arc<Event>>,
    shutdown: CancellationToken,
    pub(super) pace: Pace,
    /// The last event that is settled; `None`: the history could not say yet.
    cursor: Option<u64>,
    /// The cursor that is written down.
    written: Option<u64>,
}

/// The server stops.
struct Stopped;

impl<L: EventLog> Sink<L> {
    pub(super) fn new(
        config: SinkConfig,
        log: L,
        events: broadcast::Receiver<Arc<Event>>,
        shutdown: CancellationToken,
    ) -> Self {
        let way = match &config.receiver {
            Receiver::Program(path) => Way::Program(path.clone(), program::LIMIT),
            Receiver::Webhook(url, key) => {
                let key = key.as_ref().map(String::as_bytes);
                Way::Webhook(Box::new(Webhook::new(url.clone(), key)))
            }
        };
        let (name, pace) = (config.name(), Pace::default());
        Self { config, name, way, log, events, shutdown, pace, cursor: None, written: None }
    }

    /// Finds out where to begin. Not being able to is said by the history, and tried again.
    pub(super) async fn open(&mut self) {
        let Ok(known) = self.log.delivered(&self.name).await else { return };
        match known {
            Some(id) => (self.cursor, self.written) = (Some(id), Some(id)),
            None => {
                let Ok(newest) = self.log.newest().await else { return };
                self.cursor = Some(newest);
                // Or a server that ends before the first delivery would leave it new, and what happened untold.
                self.save().await;
            }
        }
    }

    /// Gives events until the server stops.
    pub(super) async fn run(mut self) {
        loop {
            // What was told of before this look is found by it.
            self.events = self.events.resubscribe();
            let told = self.give_all().await;
            if told.is_err() || self.wait().await.is_err() {
                break;
            }
        }
        self.save().await;
    }

    /// Gives all that has happened and was not told.
    async fn give_all(&mut self) -> Result<(), Stopped> {
        if self.cursor.is_none() {
            self.open().await;
        }
        while let Some(cursor) = self.cursor {
            // The history says itself when it cannot be read.
            let Ok(page) = self.log.after(cursor, PAGE).await else { break };
            if page.is_empty() {
                break;
            }
            for event in page {
                if self.config.kinds.contains(&event.kind) {
                    self.give(&event).await?;
                    self.cursor = Some(event.id);
                    self.save().await;
                } else {
                    self.cursor = Some(event.id);
                }
            }
        }
        Ok(())
    }

    /// Until something has happened that is to be told, or for some time.
    async fn wait(&mut self) -> Result<(), Stopped> {
        let kinds = &self.config.kinds;
        let events = &mut self.events;
        let heard = async {
            loop {
                match events.recv().await {
                    Ok(event) if !kinds.contains(&event.kind) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    // The history is closed: the server stops.
                    Err(RecvError::Closed) => return std::future::pending().await,
                }
            }
        };
        let idle = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(Stopped),
            () = heard => false,
            () = sleep(LOOK) => true,
        };
        if idle {
            // What was passed over need not be read again.
            self.save().await;
        }
        Ok(())
    }

    /// Gives one event until it is taken or given up.
    async fn give(&mut self, event: &Event) -> Result<(), Stopped> {
        loop {
            if self.pace.is_hopeless(age(event)) {
                self.pace.given_up();
                return Ok(());
            }
            let trouble = match self.give_once(event).await? {
                Ok(()) => {
                    if let Some(trouble) = self.pace.delivered() {
                        self.say_it_works(event, trouble).await;
                    }
                    return Ok(());
                }
                Err(trouble) => trouble,
            };
            let (next, is_news) = self.pace.failed(trouble.kind, age(event), jitter());
            let (receiver, id, why) = (&self.config.receiver, event.id, &trouble.why);
            if is_news {
                tracing::warn!("{receiver}: event {id} ({}) cannot be delivered: {why}", event.kind.word());
            } else {
                tracing::debug!("{receiver}: event {id}: {why}");
            }
            match next {
                Next::Again(wait) => tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return Err(Stopped),
                    () = sleep(wait) => {}
                },
                Next::GiveUp => {
                    if self.pace.given_up() == 1 {
                        let receiver = &self.config.receiver;
                        tracing::warn!("{receiver}: event {id} is given up: {why}. More of them are counted");
                    }
                    return Ok(());
                }
            }
        }
    }

    /// One try. None is begun when the server stops; one that is under way has a moment.
    async fn give_once(&self, event: &Event) -> Result<Result<(), Trouble>, Stopped> {
        if self.shutdown.is_cancelled() {
            return Err(Stopped);
        }
        let cut = async {
            self.shutdown.cancelled().await;
            sleep(LAST).await;
        };
        tokio::select! {
            biased;
            given = self.way.give(event) => Ok(given),
            () = cut => Err(Stopped),
        }
    }

    async fn say_it_works(&self, event: &Event, trouble: InTrouble) {
        let waiting = self.waiting(event.id).await;
        let (receiver, InTrouble { given_up }) = (&self.config.receiver, trouble);
        match given_up {
            0 => tracing::info!("{receiver} works again; {waiting} events wait for it"),
            _ => tracing::warn!(
                "{receiver} works again; {waiting} events wait for it, {given_up} were given up"
            ),
        }
    }

    /// How many events wait behind that one, for people.
    async fn waiting(&self, mut id: u64) -> String {
        let mut count = 0;
        for _ in 0..COUNTED {
            let page = self.log.after(id, PAGE).await.unwrap_or_default();
            let Some(last) = page.last() else { return count.to_string() };
            id = last.id;
            count += page.iter().filter(|event| self.config.kinds.contains(&event.kind)).count();
        }
        format!("{count} or more")
    }

    async fn save(&mut self) {
        if let Some(cursor) = self.cursor.filter(|cursor| self.written != Some(*cursor)) {
            let is_written = self.log.set_delivered(&self.name, cursor).await;
            self.written = is_written.then_some(cursor).or(self.written);
        }
    }
}

/// By the clock on the wall; a clock that was put back makes nothing old.
fn age(event: &Event) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(event.at)).unwrap_or_default()
}

fn jitter() -> u32 {
    let mut bytes = [0; 4];
    // Without it, sinks come back in step, which only costs.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
