//! Events out: what happens in the farm is told to programs of the operator (`--on-event`) and to web servers
//! (`--webhook`), each event at least once, in order.
//!
//! ```text
//! history: rows of events ──▶ sink: next event after its cursor ──▶ program | webhook
//!            ▲                     │ delivered, or given up
//!            └──────── cursor ─────┘
//! ```
//!
//! The history is the queue: nothing is kept here beside one page of it, so a receiver that is away for days costs no
//! memory, and whatever ends the server, the next one goes on at the cursor. Each sink is a task of its own and waits
//! for nobody: a program that hangs does not keep a webhook from its events, and none of them the farm.
//!
//! It deliberately does not know how events come about, nor what receivers do with them.

mod event_log;
mod pace;
mod program;
mod settings;
mod sink;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod url;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use moji_proto::api::Event;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use event_log::{EventLog, HistoryLog};
pub use settings::{OutgoingOptions, Receiver, SinkConfig, Written, WrittenHook, WrittenProgram};
pub use url::HookUrl;

use sink::Sink;

/// How long a delivery that is under way may still take when the server stops. What is cut is delivered once more.
const LAST: Duration = Duration::from_secs(5);

/// The sinks that are open, before and while they run.
#[derive(Debug)]
pub struct Outgoing {
    tasks: JoinSet<()>,
}

impl Outgoing {
    /// Opens and starts them. To be called before anything happens: a sink that is new is told what happens from now
    /// on, one that is known what has happened since it was told last. `events` says that there is something new.
    pub async fn start<L: EventLog>(
        sinks: Vec<SinkConfig>,
        log: L,
        events: &broadcast::Sender<Arc<Event>>,
        shutdown: &CancellationToken,
    ) -> Self {
        let mut tasks = JoinSet::new();
        log.keep_only(sinks.iter().map(SinkConfig::name).collect());
        for config in sinks {
            let mut sink = Sink::new(config, log.clone(), events.subscribe(), shutdown.clone());
            sink.open().await;
            tasks.spawn(sink.run());
        }
        Self { tasks }
    }

    /// Waits until all have stopped; they must have been told to.
    pub async fn stopped(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!("telling of events has ended: {error}; the next start goes on");
            }
        }
    }
}
