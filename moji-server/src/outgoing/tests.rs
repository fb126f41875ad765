//! Sinks over a log in memory, with real sockets and real programs.

mod programs;
mod webhooks;

use std::collections::BTreeSet;
use std::time::Duration;

use moji_proto::api::EventKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::settings::{Receiver, SinkConfig, USUAL};
use super::sink::{Sink, Way};
use super::testing::MemoryLog;

/// A sink that runs.
struct Running {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Running {
    /// Starts it with short waits; `change` may change more.
    async fn start(receiver: Receiver, log: &MemoryLog, change: impl FnOnce(&mut Way)) -> Self {
        let config = SinkConfig { receiver, kinds: USUAL.into_iter().collect() };
        let shutdown = CancellationToken::new();
        let mut sink = Sink::new(config, log.clone(), log.events.subscribe(), shutdown.clone());
        sink.pace = Pace::beginning_with(Duration::from_millis(2));
        change(&mut sink.way);
        sink.open().await;
        Self { task: tokio::spawn(sink.run()), shutdown }
    }

    /// Stops it in order.
    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("in time").unwrap();
    }

    /// Stops it as kill -9 does.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[test]
fn a_sink_is_the_same_after_a_restart_and_with_other_events() {
    let sink = |url: &str, kinds: &[EventKind]| {
        let kinds: BTreeSet<_> = kinds.iter().copied().collect();
        SinkConfig { receiver: Receiver::Webhook(url.parse().unwrap(), None), kinds }.name()
    };
    let name = sink("http://h/secret", &[EventKind::Failed]);
    assert_eq!(name, sink("http://h/secret", &[]));
    assert_ne!(name, sink("http://h/other", &[]));
    assert!(!name.contains("secret") && name.len() == "webhook-".len() + 16);
    let program = SinkConfig { receiver: Receiver::Program("/a".into()), kinds: BTreeSet::new() };
    // What the history of a running farm has: to change it would send all sinks back to now.
    assert_eq!(program.name(), "program-6a50dc8584134c7d");
}
