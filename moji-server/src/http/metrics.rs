//! `/metrics`: numbers for Prometheus (OpenMetrics). What stands is asked for when somebody wants it; what adds up
//! is counted in [`crate::api`].

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use moji_proto::api::{BuilderState, Running, Target};
use moji_proto::{Phase, TargetName};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use tokio::task::spawn_blocking;

use super::answer::problem;
use super::process::{self, Process};
use super::sse::STREAMS;
use crate::api::{Api, ApiError};
use crate::farm_handle::Live;
use crate::metadata::{Repository, Standings};

/// Targets with numbers of their own; the others are added up.
const TARGETS: usize = 200;

/// Labels of a number.
type Labels = Vec<(&'static str, String)>;
type Numbers = Family<Labels, Gauge>;

/// Numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, content_type = "application/openmetrics-text", body = String),
    (status = 503, body = moji_proto::api::Problem)))]
pub(super) async fn serve(State(api): State<Api>) -> Result<Response<Body>, ApiError> {
    let live = api.farm.live().await?;
    // A history that cannot be read has no newest event, and the rest counts all the same.
    let newest = api.events(u64::MAX >> 1, Vec::new(), 1).await.map(|known| known.newest).ok();
    let streams = STREAMS.saturating_sub(api.streams.available_permits());
    let process = spawn_blocking(process::read).await.ok().flatten();
    let mut registry = Registry::default();
    farm(&mut registry, &live);
    counted(&mut registry, &api);
    if let Some(newest) = newest {
        let help = "Id of the newest event of the history";
        registry.register("moji_history_event_id", help, ConstGauge::new(signed(newest)));
    }
    let help = "Readers that follow events or logs over HTTP";
    registry.register("moji_http_streams", help, ConstGauge::new(signed(streams as u64)));
    if let Some(process) = process {
        of_process(&mut registry, &process);
    }
    Ok(encoded(&registry).unwrap_or_else(|error| {
        problem(StatusCode::INTERNAL_SERVER_ERROR, format!("the numbers cannot be written: {error}"))
    }))
}

fn encoded(registry: &Registry) -> Result<Response<Body>, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn set(numbers: &Numbers, labels: &[(&'static str, &str)], value: u64) {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    numbers.get_or_create(&labels).inc_by(signed(value));
}

/// Sets a number, unless it is higher.
fn raise(numbers: &Numbers, labels: &[(&'static str, &str)], value: u64) {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let gauge = numbers.get_or_create(&labels);
    gauge.set(gauge.get().max(signed(value)));
}

fn since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(then.duration_until(now).as_secs()).unwrap_or(0)
}

/// What stands in the farm.
fn farm(registry: &mut Registry, live: &Live) {
    let now = Timestamp::now();
    let queue = Numbers::default();
    let generations = Numbers::default();
    for (at, target) in live.targets.iter().enumerate() {
        let name = label(at, target);
        let counts = target.queue;
        for (state, count) in [
            ("ready", counts.ready),
            ("waiting", counts.waiting),
            ("parked", counts.parked),
            ("running", counts.running),
        ] {
            set(&queue, &[("target", name), ("state", state)], count);
        }
        if at < TARGETS {
            set(&generations, &[("target", name)], target.generation);
        }
    }
    registry.register("moji_queue", "SRPMs that are not settled, by state and target", queue);
    registry.register("moji_generation", "Generation of a target's repository that is served", generations);
    let oldest = live.oldest_queued.map_or(0, |oldest| since(oldest, now));
    let help = "Age of the oldest SRPM that could be built now; 0: there is none";
    let oldest = ConstGauge::new(signed(oldest));
    registry.register_with_unit("moji_oldest_ready_srpm_age", help, Unit::Seconds, oldest);
    leases(registry, &live.running, now);
    metadata(registry, &live.standings, now);
    let builders = Numbers::default();
    for state in STATES {
        let count = live.builders.iter().filter(|builder| builder.state == state).count();
        set(&builders, &[("state", state.word())], count as u64);
    }
    registry.register("moji_builders", "Builders, by state", builders);
    let slots = Numbers::default();
    set(&slots, &[("state", "busy")], live.slots.busy);
    set(&slots, &[("state", "free")], live.slots.total.saturating_sub(live.slots.busy));
    registry.register("moji_slots", "Slots of builders that are connected", slots);
    let help = "Whether nothing is handed out, because a person wants it so";
    registry.register("moji_paused", help, ConstGauge::new(i64::from(live.server.paused.is_some())));
    let help = "Whether nothing is handed out, because the disk is full";
    registry.register("moji_disk_full", help, ConstGauge::new(i64::from(live.server.is_full)));
}

const STATES: [BuilderState; 6] = [
    BuilderState::Idle,
    BuilderState::Building,
    BuilderState::Draining,
    BuilderState::Drained,
    BuilderState::Suspended,
    BuilderState::Away,
];

fn label(at: usize, target: &Target) -> &str {
    match &target.name {
        _ if at >= TARGETS => "other",
        Some(name) => name.as_str(),
        None => "-",
    }
}

/// Whether the repositories follow what is put into them.
fn metadata(registry: &mut Registry, standings: &Standings, now: Timestamp) {
    let (failed, age) = (Numbers::default(), Numbers::default());
    for (at, (repository, standing)) in standings.iter().enumerate() {
        let name = match repository {
            _ if at >= TARGETS => "other",
            Repository::Main => "-",
            // A person can call a folder anything.
            Repository::Nested(name) if TargetName::new(name.as_str()).is_err() => "other",
            Repository::Nested(name) => name,
        };
        let labels = [("repository", name)];
        // Of many, the worst.
        let failures = standing.trouble.as_ref().map_or(0, |trouble| trouble.failures.into());
        raise(&failed, &labels, failures);
        // What waits since less than a second waits, too.
        raise(&age, &labels, standing.since.map_or(0, |oldest| since(oldest, now).max(1)));
    }
    let help = "Tries to make a repository's metadata that have failed, one after the other; 0: the last one went well";
    registry.register("moji_metadata_failed_tries", help, failed);
    let help = "Age of the oldest change in a repository that is in no generation yet; 0: there is none";
    registry.register_with_unit("moji_metadata_oldest_change_age", help, Unit::Seconds, age);
}

fn leases(registry: &mut Registry, running: &[Running], now: Timestamp) {
    let (count, oldest, total) = (Numbers::default(), Numbers::default(), Numbers::default());
    for phase in PHASES {
        let of: Vec<u64> = running
            .iter()
            .filter(|running| running.phase == phase)
            .map(|running| since(running.since, now))
            .collect();
        let labels = [("phase", phase_word(phase))];
        set(&count, &labels, of.len() as u64);
        set(&oldest, &labels, of.iter().max().copied().unwrap_or(0));
        set(&total, &labels, of.iter().sum());
    }
    registry.register("moji_leases", "Attempts that run, by what their builders do", count);
    let help = "Age of the oldest of these";
    registry.register_with_unit("moji_oldest_lease_age", help, Unit::Seconds, oldest);
    registry.register_with_unit("moji_lease_age_sum", "Ages of these, added up", Unit::Seconds, total);
    let orphaned = running.iter().filter(|running| running.is_orphaned).count();
    let help = "Attempts that run whose builder is not connected";
    registry.register("moji_orphaned_leases", help, ConstGauge::new(signed(orphaned as u64)));
}

const PHASES: [Option<Phase>; 6] = [
    None,
    Some(Phase::Receiving),
    Some(Phase::Preparing),
    Some(Phase::InstallingBuildRequires),
    Some(Phase::Building),
    Some(Phase::Delivering),
];

fn phase_word(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "unknown",
        Some(Phase::Receiving) => "receiving",
        Some(Phase::Preparing) => "preparing",
        Some(Phase::InstallingBuildRequires) => "installing_build_requires",
        Some(Phase::Building) => "building",
        Some(Phase::Delivering) => "delivering",
    }
}

/// What adds up since the server's start.
fn counted(registry: &mut Registry, api: &Api) {
    let numbers = Arc::clone(&api.numbers);
    let help = "Attempts that have ended, by what became of their build and whose fault it was";
    registry.register("moji_attempts_ended", help, numbers.attempts.clone());
    let help = "Bytes of results that builders delivered and that are published";
    registry.register_with_unit("moji_delivered", help, Unit::Bytes, numbers.delivered_bytes.clone());
    let help = "From the success of a build to the generation that has it";
    let latency = numbers.publish_latency.clone();
    registry.register_with_unit("moji_publish_latency", help, Unit::Seconds, latency);
}

/// The names are those that all programs use for it.
fn of_process(registry: &mut Registry, process: &Process) {
    let help = "When the process began, since 1970";
    let started = ConstGauge::new(process.started);
    registry.register_with_unit("process_start_time", help, Unit::Seconds, started);
    let help = "Memory that is in use";
    let resident = ConstGauge::new(signed(process.resident));
    registry.register_with_unit("process_resident_memory", help, Unit::Bytes, resident);
    let help = "Time on all processors";
    registry.register_with_unit("process_cpu", help, Unit::Seconds, ConstCounter::new(process.cpu));
    registry.register("process_open_fds", "Open files", ConstGauge::new(signed(process.open_files)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Standing, Trouble};

    #[test]
    fn there_are_not_more_targets_than_is_good() {
        let targets = (0..300).map(|number| Target {
            name: (number > 0).then(|| format!("t{number}").parse().unwrap()),
            queue: moji_proto::api::QueueCounts { ready: number, ..Default::default() },
            builders: 0,
            day: moji_proto::api::History::default(),
            generation: 7,
        });
        let live = Live {
            server: moji_proto::api::Server {
                software: String::new(),
                started_at: Timestamp::UNIX_EPOCH,
                paused: None,
                is_full: true,
                out_of_date: Vec::new(),
            },
            queue: moji_proto::api::QueueCounts::default(),
            oldest_queued: None,
            eta: None,
            slots: moji_proto::api::Slots { total: 5, busy: 3 },
            running: Vec::new(),
            builders: Vec::new(),
            targets: targets.collect(),
            standings: Standings::new(),
        };
        let mut registry = Registry::default();
        farm(&mut registry, &live);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let others: u64 = (200..300).sum();
        for line in [
            "moji_queue{target=\"-\",state=\"ready\"} 0\n",
            "moji_queue{target=\"t199\",state=\"ready\"} 199\n",
            &format!("moji_queue{{target=\"other\",state=\"ready\"}} {others}\n"),
            "moji_slots{state=\"free\"} 2\n",
            "moji_disk_full 1\n",
            "moji_oldest_ready_srpm_age_seconds 0\n",
            "moji_leases{phase=\"unknown\"} 0\n",
            "moji_builders{state=\"away\"} 0\n",
            "# HELP moji_queue ",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("t200"), "{text}");
    }

    #[test]
    fn what_waits_to_be_published_and_why_is_told_of_each_repository() {
        let now = Timestamp::now();
        let standing = |seconds: i64, failures: u32| Standing {
            since: Some(now - jiff::SignedDuration::from_secs(seconds)),
            trouble: (failures > 0).then(|| Trouble { failures, maker: None, reason: "full".into() }),
        };
        let mut standings = Standings::from([
            (Repository::Main, standing(90, 3)),
            (Repository::Nested("a-well".into()), Standing::default()),
            (Repository::Nested("b-new".into()), standing(0, 0)),
            (Repository::Nested("c\n\"odd".into()), standing(0, 0)),
        ]);
        // The least one of the rest must not hide the worst.
        let rest =
            (0..250).map(|n| (Repository::Nested(format!("r{n:03}")), standing(700 - n, 250 - n as u32)));
        standings.extend(rest);
        let mut registry = Registry::default();
        metadata(&mut registry, &standings, now);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "moji_metadata_failed_tries{repository=\"-\"} 3\n",
            "moji_metadata_failed_tries{repository=\"a-well\"} 0\n",
            "moji_metadata_failed_tries{repository=\"other\"} 54\n",
            "moji_metadata_oldest_change_age_seconds{repository=\"-\"} 90\n",
            "moji_metadata_oldest_change_age_seconds{repository=\"a-well\"} 0\n",
            "moji_metadata_oldest_change_age_seconds{repository=\"b-new\"} 1\n",
            "moji_metadata_oldest_change_age_seconds{repository=\"other\"} 504\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("r196") && !text.contains("odd"), "{text}");
    }
}
