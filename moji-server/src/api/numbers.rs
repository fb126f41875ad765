//! What is counted since the server's start, from the events.
//!
//! What can be asked for at any time is not counted here, but asked for when somebody wants the numbers.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use moji_proto::api::{Event, EventKind};
use moji_proto::{FailureKind, TargetName};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Api;

/// Builds that are remembered until their repository shows them; later ones are not timed.
const UNPUBLISHED: usize = 10_000;
/// Bounds of how long that takes, in seconds.
const LATENCIES: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0];

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndedLabels {
    outcome: &'static str,
    kind: &'static str,
}

/// The counts.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    pub(crate) attempts: Family<EndedLabels, Counter>,
    pub(crate) delivered_bytes: Counter,
    pub(crate) publish_latency: Histogram,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            delivered_bytes: Counter::default(),
            publish_latency: Histogram::new(LATENCIES),
        }
    }
}

impl Api {
    /// Counts what happens, until the end.
    pub async fn count(self, shutdown: CancellationToken) {
        let mut events = self.events.subscribe();
        let mut unpublished = Unpublished::default();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(event) => self.counted(&event, &mut unpublished).await,
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!("{missed} events are not in the numbers");
                    unpublished = Unpublished::default();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn counted(&self, event: &Arc<Event>, unpublished: &mut Unpublished) {
        for seconds in unpublished.seen(event) {
            self.numbers.publish_latency.observe(seconds);
        }
        let Some(labels) = labels(event) else { return };
        self.numbers.attempts.get_or_create(&labels).inc();
        if let Some(build) = event.build.as_ref().and_then(|build| build.id)
            && let Ok(Some(detail)) = self.history.ask(move |views| views.build(build)).await
        {
            self.numbers.delivered_bytes.inc_by(detail.artifacts.iter().map(|artifact| artifact.size).sum());
        }
    }
}

/// How an attempt ended with this, if one did.
fn labels(event: &Event) -> Option<EndedLabels> {
    event.attempt?;
    let outcome = match event.kind {
        EventKind::Succeeded => "succeeded",
        EventKind::Failed => "failed",
        EventKind::Held => "held",
        EventKind::Ended => "ended",
        // The end of its attempt was told before.
        EventKind::Parked
        | EventKind::Queued
        | EventKind::Started
        | EventKind::Withdrawn
        | EventKind::Published
        | EventKind::BuilderConnected
        | EventKind::BuilderLost
        | EventKind::BuilderBack
        | EventKind::BuilderLeft
        | EventKind::QueueEmpty
        | EventKind::Steered => return None,
    };
    let kind = match event.failure {
        None => "none",
        Some(FailureKind::Package) => "package",
        Some(FailureKind::MissingDependency) => "missing_dependency",
        Some(FailureKind::Infrastructure) => "infrastructure",
        Some(FailureKind::Configuration) => "configuration",
        Some(FailureKind::UnreadableSrpm) => "unreadable_srpm",
        Some(FailureKind::Interrupted) => "interrupted",
    };
    Some(EndedLabels { outcome, kind })
}

/// What has succeeded, and is in no generation yet.
#[derive(Debug, Default)]
struct Unpublished(VecDeque<(Option<TargetName>, Timestamp)>);

impl Unpublished {
    /// How long builds took, in seconds, that are published with this.
    fn seen(&mut self, event: &Event) -> Vec<f64> {
        match event.kind {
            EventKind::Succeeded if self.0.len() < UNPUBLISHED => {
                let target = event.build.as_ref().and_then(|build| build.target.clone());
                self.0.push_back((target, event.at));
                Vec::new()
            }
            EventKind::Published => {
                let (shown, left) =
                    std::mem::take(&mut self.0).into_iter().partition(|(target, _)| *target == event.target);
                self.0 = left;
                let shown: VecDeque<(Option<TargetName>, Timestamp)> = shown;
                shown
                    .iter()
                    .map(|(_, since)| event.at.duration_since(*since).as_secs_f64().max(0.0))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moji_proto::AttemptId;
    use moji_proto::api::EventBuild;

    fn event(kind: EventKind, second: i64, target: Option<&str>) -> Event {
        let target: Option<TargetName> = target.map(|target| target.parse().unwrap());
        let srpm = "foo-1-1.src.rpm".parse().unwrap();
        Event {
            id: 17,
            at: Timestamp::from_second(second).unwrap(),
            kind,
            text: String::new(),
            build: Some(EventBuild { id: None, target: target.clone(), srpm, nvr: None }),
            attempt: Some(AttemptId { boot: 5, serial: 7 }),
            builder: None,
            failure: Some(FailureKind::Configuration),
            reason: None,
            missing: Vec::new(),
            target,
            generation: None,
        }
    }

    #[test]
    fn a_generation_shows_what_its_target_has_built() {
        let mut unpublished = Unpublished::default();
        for (second, target) in [(10, None), (11, Some("f43")), (14, None)] {
            assert!(unpublished.seen(&event(EventKind::Succeeded, second, target)).is_empty());
        }
        assert!(unpublished.seen(&event(EventKind::Failed, 15, None)).is_empty());
        assert_eq!(unpublished.seen(&event(EventKind::Published, 17, None)), [7.0, 3.0]);
        assert!(unpublished.seen(&event(EventKind::Published, 18, None)).is_empty());
        assert_eq!(unpublished.seen(&event(EventKind::Published, 13, Some("f43"))), [2.0]);
    }

    #[test]
    fn only_what_ends_an_attempt_counts_as_one() {
        let of = |kind| labels(&event(kind, 0, None));
        let expected = EndedLabels { outcome: "ended", kind: "configuration" };
        assert_eq!(of(EventKind::Ended), Some(expected));
        assert_eq!(of(EventKind::Parked), None, "its attempt has ended before");
        assert_eq!(of(EventKind::Started), None);
        let refused = Event { attempt: None, ..event(EventKind::Failed, 0, None) };
        assert_eq!(labels(&refused), None, "no attempt was made");
    }
}
