//! Answers for those who look: how the farm stands, what waits and why.
//!
//! All of it is put together when somebody asks. What costs more than a walk over the queue is kept for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use moji_proto::api::{self, BuilderState, EventKind, QueueCounts};
use moji_proto::outcome::one_line;
use moji_proto::{AttemptId, Phase, TargetName};
use tokio::time::Instant;

use super::note::Note;
use super::presence::Away;
use super::repositories::out_of_date;
use super::{Connected, Farm};
use crate::BuildKey;
use crate::contents::RepositoryChange;
use crate::farm_handle::{Ask, Live, WhyWaiting};
use crate::scheduler::{Builder, Lease, LeaseState, Missing, Seen, Wait, WhyNot};

/// How long an estimate is good enough.
const ESTIMATE: Duration = Duration::from_secs(5);
/// Most packages that a text names.
const NAMED: usize = 5;

/// What is kept for those who look.
#[derive(Debug)]
pub(super) struct Looking {
    pub(super) phases: BTreeMap<AttemptId, Phase>,
    started_at: Timestamp,
    estimate: Option<(Instant, Option<api::Eta>)>,
    /// Something has waited or run since it was said that nothing does.
    had_work: bool,
}

impl Default for Looking {
    fn default() -> Self {
        Self { phases: BTreeMap::new(), started_at: Timestamp::now(), estimate: None, had_work: false }
    }
}

impl Looking {
    /// Work may come and be done between two looks.
    pub(super) fn took_note(&mut self, what: &Note<'_>) {
        self.had_work |= matches!(what, Note::Queued(_) | Note::Leased(..) | Note::Readopted(..));
    }
}

impl Farm {
    pub(super) async fn on_ask(&mut self, ask: Ask) {
        // Who does not wait for the answer any more does not need it.
        match ask {
            Ask::Live(answer) => drop(answer.send(Arc::new(self.live()))),
            Ask::Queue(target, most, answer) => drop(answer.send(self.in_order(target, most))),
            Ask::Why(key, answer) => drop(answer.send(self.why(&key))),
            Ask::Act(who, act, answer) => drop(answer.send(self.act(who, act).await)),
        }
    }

    fn live(&mut self) -> Live {
        let (queued, parked, ready) =
            (self.scheduler.queued(), self.scheduler.parked(), self.scheduler.ready());
        let running = self.running();
        let queue = counts(ready, parked, queued, running.len());
        let slots = api::Slots {
            total: self.sessions.values().map(|on| u64::from(on.slots)).sum(),
            busy: running.iter().filter(|one| is_busy(one)).count() as u64,
        };
        let eta = self.eta();
        let standings = self.standings();
        Live {
            server: api::Server {
                software: concat!("moji-server ", env!("CARGO_PKG_VERSION")).into(),
                started_at: self.looking.started_at,
                paused: self.steering.paused().cloned(),
                is_full: self.space.is_full(),
                out_of_date: out_of_date(&standings),
            },
            queue,
            oldest_queued: self.scheduler.oldest_ready(),
            eta,
            slots,
            builders: self.builders(&running),
            targets: self.targets(),
            running,
            standings,
        }
    }

    /// How long all of it will take, as far as that can be told.
    fn eta(&mut self) -> Option<api::Eta> {
        if let Some((at, eta)) = &self.looking.estimate
            && at.elapsed() < ESTIMATE
        {
            return *eta;
        }
        // What nobody who is connected can build has no end that could be told.
        let is_work = self.scheduler.moves();
        let slots = self.scheduler.slots();
        let eta = (is_work && slots > 0).then(|| {
            let eta = self.scheduler.eta(self.now(), slots);
            api::Eta { low: eta.low.as_secs(), expected: eta.expected.as_secs(), high: eta.high.as_secs() }
        });
        self.looking.estimate = Some((Instant::now(), eta));
        eta
    }

    fn running(&self) -> Vec<api::Running> {
        let mut running: Vec<_> = self.scheduler.leases().map(|lease| self.running_of(lease)).collect();
        running.sort_by_key(|one| (one.since, one.attempt));
        running
    }

    fn running_of(&self, lease: &Lease) -> api::Running {
        let since = self.given.get(&lease.attempt).map(|record| record.leased_at);
        api::Running {
            attempt: lease.attempt,
            build: None,
            srpm: lease.srpm.key.srpm.clone(),
            target: lease.target.clone(),
            builder: lease.builder.to_string(),
            slot: lease.slot,
            since: since.unwrap_or_else(|| self.moment(lease.since.unwrap_or_default())),
            phase: self.looking.phases.get(&lease.attempt).copied(),
            expected_seconds: self.scheduler.expected(&lease.srpm).map(|time| time.as_secs()),
            is_orphaned: matches!(lease.state, LeaseState::Orphaned { .. }),
            is_publishing: matches!(lease.state, LeaseState::Committing { .. } | LeaseState::Deferred { .. }),
        }
    }

    fn moment(&self, moment: Duration) -> Timestamp {
        let age = SignedDuration::try_from(self.now().saturating_sub(moment)).unwrap_or_default();
        Timestamp::now().checked_sub(age).unwrap_or_default()
    }

    fn builders(&self, running: &[api::Running]) -> Vec<api::Builder> {
        let mut attempts: BTreeMap<&str, Vec<AttemptId>> = BTreeMap::new();
        for one in running {
            attempts.entry(&one.builder).or_default().push(one.attempt);
        }
        let mut all = BTreeMap::new();
        for away in self.presence.away() {
            let builder = self.away(away, attempts.get(away.builder.id.to_string().as_str()));
            all.insert(builder.id.clone(), builder);
        }
        for seen in self.scheduler.builders(self.now()) {
            let Some(on) = self.sessions.get(&seen.session) else { continue };
            let id = seen.builder.id.to_string();
            let builder = self.connected(seen, on, attempts.get(id.as_str()));
            all.insert(id, builder);
        }
        all.into_values().collect()
    }

    fn connected(&self, seen: Seen<'_>, on: &Connected, attempts: Option<&Vec<AttemptId>>) -> api::Builder {
        let drained = self.steering.drained(&seen.builder.id);
        let has_work = attempts.is_some();
        let state = match () {
            () if drained.is_some() => BuilderState::Drained,
            () if seen.is_draining => BuilderState::Draining,
            () if seen.suspended.is_some() => BuilderState::Suspended,
            () if has_work => BuilderState::Building,
            () => BuilderState::Idle,
        };
        api::Builder {
            state,
            broken_targets: seen.broken.iter().cloned().collect(),
            slots: on.slots,
            connected_at: Some(on.since),
            suspended_seconds: seen.suspended.map(|time| time.as_secs()),
            software: on.software.clone(),
            attempts: attempts.cloned().unwrap_or_default(),
            ..self.described(seen.builder)
        }
    }

    fn away(&self, away: &Away, attempts: Option<&Vec<AttemptId>>) -> api::Builder {
        api::Builder {
            slots: away.slots,
            software: away.software.clone(),
            attempts: attempts.cloned().unwrap_or_default(),
            ..self.described(&away.builder)
        }
    }

    /// What a builder said of itself, as of one that is away.
    fn described(&self, builder: &Builder) -> api::Builder {
        let known = |number: u64| Some(number).filter(|number| *number > 0);
        api::Builder {
            id: builder.id.to_string(),
            state: BuilderState::Away,
            arch: builder.arch.clone(),
            targets: builder.targets.clone(),
            broken_targets: Vec::new(),
            tags: builder.tags.iter().map(ToString::to_string).collect(),
            cores: Some(builder.resources.cores).filter(|cores| *cores > 0),
            memory: known(builder.resources.memory),
            disk: known(builder.resources.disk),
            slots: 0,
            connected_at: None,
            suspended_seconds: None,
            drained: self.steering.drained(&builder.id).cloned(),
            software: String::new(),
            attempts: Vec::new(),
        }
    }

    fn targets(&self) -> Vec<api::Target> {
        let (mut running, mut builders) = (BTreeMap::new(), BTreeMap::new());
        for lease in self.scheduler.leases() {
            *running.entry(lease.srpm.key.target.as_ref()).or_insert(0_usize) += 1;
        }
        for seen in self.scheduler.builders(self.now()) {
            // SOURCE itself is for each of them.
            let served: BTreeSet<_> = seen.builder.targets.iter().map(Some).chain([None]).collect();
            for target in served {
                *builders.entry(target).or_insert(0_u64) += 1;
            }
        }
        let mut names: BTreeSet<Option<&TargetName>> = self.scheduler.targets().chain([None]).collect();
        names.extend(running.keys().chain(builders.keys()));
        let told = names.into_iter().map(|name| {
            let (ready, parked, all) = self.scheduler.counts(name);
            api::Target {
                name: name.cloned(),
                queue: counts(ready, parked, all, running.get(&name).copied().unwrap_or_default()),
                builders: builders.get(&name).copied().unwrap_or_default(),
                day: api::History::default(),
                generation: self.scheduler.generation(name),
            }
        });
        told.collect()
    }

    fn in_order(&self, wanted: Option<Option<TargetName>>, most: usize) -> (Vec<api::Queued>, u64) {
        let targets: Vec<_> = self.scheduler.targets().map(|target| target.cloned()).collect();
        let (mut queued, mut total) = (Vec::new(), 0);
        for target in targets.iter().filter(|target| wanted.as_ref().is_none_or(|wanted| wanted == *target)) {
            total += self.scheduler.counts(target.as_ref()).2 as u64;
            for (place, srpm) in self.scheduler.in_order(target.as_ref(), most).take(most) {
                let waits_for = self.waits_for(&srpm.key);
                queued.push(api::Queued {
                    place,
                    target: target.clone(),
                    srpm: srpm.key.srpm.clone(),
                    size: srpm.size,
                    queued_at: srpm.queued_at,
                    expected_seconds: self.scheduler.expected(srpm).map(|time| time.as_secs()),
                    waits_for,
                    is_parked: self.scheduler.is_parked(&srpm.key),
                });
            }
        }
        // The first of each target, then the second; what waits comes last.
        queued.sort_by_key(|one| one.place.unwrap_or(u64::MAX));
        queued.truncate(most);
        (queued, total)
    }

    fn waits_for(&self, key: &BuildKey) -> Option<String> {
        match self.scheduler.wait_of(key)? {
            Wait::None => None,
            Wait::For(missing) => Some(one_line(&format!("it waits for {}", named(&missing)))),
            Wait::Parked(missing) => Some(one_line(&format!("it misses {}", named(&missing)))),
        }
    }

    fn why(&self, key: &BuildKey) -> WhyWaiting {
        let is_queued = self.scheduler.is_queued(key);
        let missing = match self.scheduler.wait_of(key) {
            Some(Wait::For(missing) | Wait::Parked(missing)) => missing,
            Some(Wait::None) | None => Vec::new(),
        };
        let missing = missing.iter().map(|one| api::Missing {
            requirement: one_line(&one.requirement.to_string()),
            providers: one.providers.iter().map(|key| self.provider(key)).collect(),
        });
        let missing = missing.collect();
        let reasons = |why: &WhyNot| one_line(&why.to_string());
        let builders = match is_queued {
            true => self.scheduler.why_not(self.now(), key),
            false => Vec::new(),
        };
        // It waits for nothing but a builder, and there is none.
        let is_alone = self.scheduler.place_of(key).is_some()
            && !builders.iter().any(|(_, why)| why.iter().all(|why| *why == WhyNot::Busy));
        let alone = is_alone.then(|| "no builder that is connected can take it".to_owned());
        let builders = builders.into_iter().map(|(builder, why)| api::WhyBuilder {
            builder: builder.to_string(),
            reasons: why.iter().map(reasons).collect(),
        });
        WhyWaiting {
            is_queued,
            place: self.scheduler.place_of(key),
            waits_for: self.stopped().or_else(|| self.waits_for(key)).or(alone).filter(|_| is_queued),
            missing,
            builders: builders.collect(),
        }
    }

    /// Why nothing at all is handed out.
    fn stopped(&self) -> Option<String> {
        if let Some(paused) = self.steering.paused() {
            let by = paused.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
            let why = paused.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            return Some(one_line(&format!("the queue is paused{by}{why} (moji unpause)")));
        }
        self.space.is_full().then(|| "the server's disk is full (--min-free)".to_owned())
    }

    fn provider(&self, key: &BuildKey) -> api::MissingProvider {
        let state = match self.scheduler.wait_of(key) {
            _ if self.scheduler.holders(key).next().is_some() => "running",
            Some(Wait::Parked(_)) => "parked",
            Some(Wait::For(_)) => "waiting",
            Some(Wait::None) => "queued",
            None => "published",
        };
        api::MissingProvider { build: key.to_string(), state: state.into() }
    }

    /// Another generation is served.
    pub(super) fn published(&mut self, target: Option<TargetName>, change: &RepositoryChange) {
        // At the first look at an empty repository there is nothing to be told.
        if change.added.is_empty() && change.removed.is_empty() {
            return;
        }
        let of = target.as_ref().map(|target| format!(" of {target}")).unwrap_or_default();
        let (came, went) = (change.added.len(), change.removed.len());
        let went = if went > 0 { format!(", {went} gone") } else { String::new() };
        let noun = if came == 1 { "package" } else { "packages" };
        let text = format!("generation {}{of} is served: {came} {noun} new{went}", change.generation);
        let generation = Some((target, change.generation));
        self.note(Note::Happened { kind: EventKind::Published, text, builder: None, generation });
    }

    /// Says once when nothing waits any more, but for what is parked, and nothing runs.
    pub(super) fn look_for_end(&mut self) {
        let (queued, parked) = (self.scheduler.queued(), self.scheduler.parked());
        let is_work =
            self.scheduler.leases().next().is_some() || queued > parked || !self.publishing.is_idle();
        if is_work || !std::mem::take(&mut self.looking.had_work) {
            return;
        }
        let text = match parked {
            0 => "the queue is empty".to_owned(),
            some => format!("the queue is empty, but for what is parked: {some}"),
        };
        self.note(Note::Happened { kind: EventKind::QueueEmpty, text, builder: None, generation: None });
    }
}

/// Whether it keeps a slot busy: when its results are on their way the slot is free, and what is lost has none.
fn is_busy(one: &api::Running) -> bool {
    let is_delivering = one.phase == Some(Phase::Delivering);
    one.slot.is_some() && !one.is_publishing && !one.is_orphaned && !is_delivering
}

fn counts(ready: usize, parked: usize, all: usize, running: usize) -> QueueCounts {
    QueueCounts {
        ready: ready as u64,
        waiting: all.saturating_sub(ready + parked) as u64,
        parked: parked as u64,
        running: running as u64,
    }
}

fn named(missing: &[Missing]) -> String {
    let mut names: Vec<_> = missing.iter().take(NAMED).map(|one| one.requirement.to_string()).collect();
    if missing.len() > NAMED {
        names.push(format!("{} more", missing.len() - NAMED));
    }
    names.join(", ")
}
