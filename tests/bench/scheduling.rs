//! What a decision of the scheduler costs: a queue of packages that need each other, and many builders. The yardstick is
//! the same queue without any needs.
//!
//! Pure: no disk, no network. What a hand-out costs beside it (a rename, a record, a message) is not in it.

use std::sync::Arc;
use std::time::Duration;

use moji_proto::{AttemptId, Outcome, Resources, SrpmName};
use moji_server::BuildKey;
use moji_server::contents::RepositoryChange;
use moji_server::dependency::{Capability, Evr, PackagePath, PublishedPackage, Relations};
use moji_server::metadata::Repository;
use moji_server::scheduler::{Builder, Effect, Event, Scheduler, SessionId};
use moji_server::source::{QueuedSrpm, SrpmHeader};

use crate::Settings;
use crate::measure::{Watch, median, percentile};
use crate::report::{Goal, Line, Table};

/// What every package needs, and the repository has.
const COMMON: usize = 6;
/// What it needs of others in the queue, at most.
const NEEDS: usize = 4;
/// How many hand-outs tell what one costs.
const DECISIONS: usize = 2_000;
/// So deep is the longest chain.
const DEPTH: usize = 40;

/// The farm, and what it cost.
struct Farm {
    scheduler: Scheduler,
    now: Duration,
    srpms: Vec<QueuedSrpm>,
    given: Vec<(AttemptId, usize, SessionId, u16)>,
    hand_outs: Vec<f64>,
    ends: Vec<f64>,
    generations: Vec<f64>,
    generation: u64,
    tries: usize,
}

/// What one decision costs while the queue is as long as it is at first.
pub(super) fn decide(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let Settings { queued, builders, rounds, .. } = *settings;
    let (mut times, mut base) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        times.push(decision(queued, builders, true)?);
        base.push(decision(queued, builders, false)?);
    }
    let what = format!("hand-out decision, {queued} SRPMs, {builders} builders");
    Ok(vec![
        Line::new("hand-out-decision", what, "us")
            .values(times)
            .goal(Goal::AtMost(50.0))
            .beside("the same queue without needs", base),
    ])
}

/// Of so many queued SRPMs to one of so many builders: the median of [`DECISIONS`], in microseconds.
pub(super) fn decision(queued: usize, builders: usize, needs: bool) -> anyhow::Result<f64> {
    let (mut farm, _) = Farm::begin(queued, builders, needs)?;
    farm.connect_all(builders);
    farm.build(DECISIONS.min(queued))?;
    Ok(median(&farm.hand_outs))
}

/// Measures both queues, from the first SRPM to the last.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    let mut base = 0.0;
    for (name, needs) in [("without needs", false), ("that need each other", true)] {
        let (mut farm, arriving) = Farm::begin(settings.queued, settings.builders, needs)?;
        let first = farm.connect_all(settings.builders);
        let all = Watch::start();
        farm.build(usize::MAX)?;
        let all = all.read().wall.as_secs_f64();
        let time = median(&farm.hand_outs);
        if !needs {
            base = time;
        }
        let each = |seconds: f64| seconds * 1e6 / settings.queued as f64;
        rows.push((
            format!("{} SRPMs {name}", settings.queued),
            [
                time,
                time / base,
                percentile(&farm.hand_outs, 99),
                median(&farm.ends),
                median(&farm.generations),
                each(arriving),
                first,
                each(all),
                farm.tries as f64 / settings.queued as f64,
            ]
            .map(Some)
            .to_vec(),
        ));
    }
    Ok(Table {
        key: "scheduling".to_owned(),
        title: format!("The scheduler, with {} builders of one slot", settings.builders),
        columns: vec![
            "us/ask", "ratio", "99 %", "us/end", "us/gener.", "us/arrival", "ms/first all", "us/SRPM", "tries",
        ],
        rows,
        note: "ask: a slot asks and gets an SRPM (median, 99 %); end: results to published; gener.: a generation of \
               100 results; arrival: an SRPM comes into the queue; first all: the first SRPM for every builder; SRPM: all \
               of it from arrival to the end, for each; tries: attempts for each"
            .to_owned(),
    })
}

fn name_of(number: usize) -> String {
    format!("package-{number}")
}

/// The worst order: what others need comes last.
fn srpm(number: usize, count: usize, needs: bool) -> anyhow::Result<QueuedSrpm> {
    let level = number * DEPTH / count;
    let width = count / DEPTH;
    // Of the next level, spread, some of them by many.
    let of_others = (0..NEEDS).filter(|_| level + 1 < DEPTH).map(|n| {
        let spread = (number * 7919 + n * 104_729) % width.max(1);
        (level + 1) * width + if n == 0 { spread % 10 } else { spread }
    });
    let mut build_requires: Vec<_> = (0..COMMON).map(|n| format!("common-{n}")).collect();
    build_requires.extend(of_others.map(|other| format!("{}-devel >= 1", name_of(other))));
    let relations = Relations {
        build_requires: match needs {
            true => build_requires.iter().filter_map(|text| text.parse().ok()).collect(),
            false => Vec::new(),
        },
        provides: [capability(&name_of(number)), capability(&format!("{}-devel", name_of(number)))].into(),
    };
    let srpm = SrpmName::new(format!("{}-1-1.src.rpm", name_of(number)))?;
    let header = SrpmHeader {
        name: name_of(number),
        epoch: None,
        version: "1".into(),
        release: "1".into(),
        nvr: srpm.stem().parse()?,
        relations: Arc::new(relations),
    };
    let queued_at = jiff::Timestamp::from_second(number as i64)?;
    let size = 10_000 + (number as u64 * 7919) % 1_000_000;
    Ok(QueuedSrpm { key: BuildKey { target: None, srpm }, header, size, queued_at })
}

fn capability(name: &str) -> Capability {
    Capability { name: name.into(), versions: None }
}

fn package(number: usize) -> PublishedPackage {
    let name = format!("{}-devel", name_of(number));
    PublishedPackage {
        path: PackagePath::new(format!("{}-1-1/{name}-1-1.noarch.rpm", name_of(number))),
        evr: Evr::new("1-1"),
        arch: "noarch".into(),
        source: Some(format!("{}-1-1.src.rpm", name_of(number)).into()),
        provides: vec![capability(&name), capability(&name_of(number))],
        files: Vec::new(),
        name: name.into(),
    }
}

impl Farm {
    /// Gives also how long the queue took to come in, in seconds.
    fn begin(count: usize, builders: usize, needs: bool) -> anyhow::Result<(Self, f64)> {
        let srpms: Vec<_> = (0..count).map(|number| srpm(number, count, needs)).collect::<Result<_, _>>()?;
        let mut farm = Self {
            scheduler: Scheduler::new(1, Duration::from_secs(10)),
            now: Duration::ZERO,
            srpms,
            given: Vec::with_capacity(builders),
            hand_outs: Vec::new(),
            ends: Vec::new(),
            generations: Vec::new(),
            generation: 0,
            tries: 0,
        };
        let common = (0..COMMON).map(|n| PublishedPackage {
            provides: vec![capability(&format!("common-{n}"))],
            ..package(count + n)
        });
        farm.generation(common.collect());
        farm.generations.clear();
        let watch = Watch::start();
        for srpm in farm.srpms.clone() {
            farm.tell(Event::Found(srpm));
        }
        farm.tell(Event::Ready);
        Ok((farm, watch.read().wall.as_secs_f64()))
    }

    /// Every builder connects and asks; in milliseconds for all of them.
    fn connect_all(&mut self, builders: usize) -> f64 {
        let watch = Watch::start();
        for number in 0..builders {
            let session = SessionId(number as u64);
            let Ok(id) = format!("board-{number}").parse() else { continue };
            let Ok(target) = "f43".parse() else { continue };
            let builder = Builder {
                id,
                targets: vec![target],
                arch: "aarch64".into(),
                resources: Resources { cores: 4, memory: 4 << 30, disk: 100 << 30 },
                tags: Vec::new(),
            };
            self.tell(Event::Connected { session, builder });
            self.ask(session, 0);
        }
        watch.read().wall.as_secs_f64() * 1e3
    }

    fn ask(&mut self, session: SessionId, slot: u16) {
        let (watch, before) = (Watch::start(), self.given.len());
        self.tell(Event::Asked { session, slot });
        if self.given.len() > before {
            self.hand_outs.push(watch.read().wall.as_secs_f64() * 1e6);
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.scheduler.handle(self.now, event);
        self.take_leases(effects);
    }

    fn take_leases(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Lease(lease) = effect
                && let (Some(session), Some(slot)) = (lease.session, lease.slot)
            {
                let number = lease.srpm.header.name.rsplit('-').next().and_then(|number| number.parse().ok());
                self.given.push((lease.attempt, number.unwrap_or_default(), session, slot));
                self.tries += 1;
            }
        }
    }

    fn generation(&mut self, added: Vec<PublishedPackage>) {
        self.generation += 1;
        let change = RepositoryChange {
            repository: Repository::Main,
            generation: self.generation,
            added,
            removed: Vec::new(),
        };
        let watch = Watch::start();
        self.tell(Event::Contents { target: None, change: Box::new(change) });
        self.generations.push(watch.read().wall.as_secs_f64() * 1e6);
    }

    /// Every build succeeds, whatever it needs; a hundred of them come into each generation. Ends when nothing is
    /// left, or when so many were given out.
    fn build(&mut self, most: usize) -> anyhow::Result<()> {
        let mut coming = Vec::new();
        while self.hand_outs.len() < most {
            for (attempt, number, session, slot) in std::mem::take(&mut self.given) {
                self.now += Duration::from_millis(10);
                let watch = Watch::start();
                self.tell(Event::Delivered { session, attempt, outcome: Outcome::Succeeded });
                self.tell(Event::Committed { attempt, rpms: true });
                self.ends.push(watch.read().wall.as_secs_f64() * 1e6);
                coming.push(package(number));
                self.ask(session, slot);
                if coming.len() >= 100 {
                    self.generation(std::mem::take(&mut coming));
                }
            }
            if self.given.is_empty() {
                self.generation(std::mem::take(&mut coming));
            }
            if self.given.is_empty() {
                let effects = self.scheduler.on_time(self.now);
                self.take_leases(effects);
            }
            if self.given.is_empty() {
                anyhow::ensure!(self.scheduler.queued() == 0, "{} are never built", self.scheduler.queued());
                return Ok(());
            }
        }
        Ok(())
    }
}
