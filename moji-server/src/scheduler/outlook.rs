//! What is to be expected, and why a build waits: for people. Decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use moji_proto::TargetName;

use super::{Cycle, Lease, Moment, Registered, STUCK, Scheduler, SessionId, Wait};
use crate::estimates::{Eta, eta};
use crate::source::{Demand, Lack};
use crate::{BuildKey, BuilderId};

/// Why a builder does not get an SRPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// It builds for other targets.
    Target,
    /// The configuration of the target does not work there.
    Configuration,
    /// It takes no more work.
    Draining,
    /// A person wants it to get no work.
    Drained,
    /// It gets no work for so long: too much went wrong on it.
    Suspended(Duration),
    /// It has too little of something.
    Lacks(Vec<Lack>),
    /// It has tried it in vain, and another builder has not.
    Tried,
    /// It has not asked for work: its slots are busy, or its disk is full.
    Busy,
}

impl std::fmt::Display for WhyNot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Target => f.write_str("builds for other targets"),
            Self::Configuration => f.write_str("its configuration of the target does not work"),
            Self::Draining => f.write_str("takes no more work: its owner stops it"),
            Self::Drained => f.write_str("gets no work: it is drained (moji resume)"),
            Self::Suspended(time) => {
                write!(f, "gets no work for {} s: too much went wrong on it (moji resume)", time.as_secs())
            }
            Self::Lacks(lacks) => {
                let lacks: Vec<_> = lacks.iter().map(ToString::to_string).collect();
                write!(f, "has too little: {}", lacks.join(", "))
            }
            Self::Tried => f.write_str("has tried it in vain, and others have not"),
            Self::Busy => f.write_str("is busy"),
        }
    }
}

/// The farm at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// SRPMs in SOURCE that wait for others or are parked, and for what.
    pub waiting: Vec<(BuildKey, Wait)>,
    /// Builds that need each other.
    pub cycles: Vec<Cycle>,
    /// SRPMs in SOURCE that could be built, and that no builder which is connected can take.
    pub unbuildable: Vec<BuildKey>,
}

impl Registered {
    /// What a builder has too little of.
    pub(super) fn lacks(&self, demand: &Demand) -> Vec<Lack> {
        demand.lacks(&self.builder.resources, &self.builder.tags)
    }

    /// Whether it builds for a target (none: for any), and has enough of everything.
    pub(super) fn takes(&self, target: Option<&TargetName>, demand: &Demand) -> bool {
        let fits = |own: &TargetName| target.is_none_or(|wanted| wanted == own) && !self.broken.contains(own);
        self.builder.targets.iter().any(fits) && self.lacks(demand).is_empty()
    }
}

impl Scheduler {
    /// Whether something will happen without anybody doing anything: a build runs, or can be given to a
    /// builder that is connected, or is on its way into the metadata.
    pub fn moves(&self) -> bool {
        self.leases().next().is_some()
            || self.queue.moves()
            || self.queue.classes().any(|(target, demand)| self.is_taken(target, demand))
    }

    /// Whether a builder that is connected takes SRPMs of this kind, or will when it is not suspended any more.
    fn is_taken(&self, target: Option<&TargetName>, demand: &Demand) -> bool {
        let takes = |on: &Registered| {
            !on.draining && !self.drained.contains(&on.builder.id) && on.takes(target, demand)
        };
        self.builders.values().any(takes)
    }

    /// What builders for its target are connected for, and none of them has enough for, for a while: nobody needs to
    /// wait for that.
    pub(super) fn look_for_untakeable(&mut self, now: Moment) {
        let has_target = |target: Option<&TargetName>| {
            self.builders.values().any(|on| on.takes(target, &Demand::default()))
        };
        let kinds = self.queue.classes().filter(|(target, demand)| {
            !demand.is_nothing() && has_target(*target) && !self.is_taken(*target, demand)
        });
        let kinds: BTreeSet<_> = kinds.map(|(target, demand)| (target.cloned(), demand.clone())).collect();
        self.untaken_since.retain(|kind, _| kinds.contains(kind));
        for kind in kinds {
            self.untaken_since.entry(kind).or_insert(now);
        }
        let long = self.untaken_since.iter().filter(|(_, since)| **since + STUCK <= now);
        let keys = long.flat_map(|((target, demand), _)| self.queue.in_class(target.as_ref(), demand));
        let keys: BTreeSet<BuildKey> = keys.collect();
        self.queue.set_untakeable(now, &keys);
    }

    /// How many SRPMs are parked.
    pub fn parked(&self) -> usize {
        self.queue.parked()
    }

    /// SRPMs in SOURCE that may be given out now.
    pub fn ready(&self) -> usize {
        self.queue.ready()
    }

    /// What waits, and why.
    pub fn outlook(&self) -> Outlook {
        let waits = |key: &BuildKey| self.wait_of(key).filter(|wait| *wait != Wait::None);
        let keys = self.queue.entries().map(|(srpm, _)| &srpm.key);
        let waiting = keys.filter_map(|key| Some((key.clone(), waits(key)?)));
        let left = self.queue.classes().filter(|(target, demand)| !self.is_taken(*target, demand));
        let unbuildable = left.flat_map(|(target, demand)| self.queue.in_class(target, demand));
        Outlook {
            waiting: waiting.collect(),
            cycles: self.queue.cycles(),
            unbuildable: unbuildable.collect(),
        }
    }

    /// Whether builders for its target are connected, and none of them has what an SRPM in SOURCE asks for.
    pub fn asks_too_much(&self, key: &BuildKey) -> bool {
        let Some(demand) = self.queue.demand_of(key) else { return false };
        let wanted = |target: &TargetName| key.target.as_ref().is_none_or(|wanted| wanted == target);
        let mut builders =
            self.builders.values().filter(|on| on.builder.targets.iter().any(wanted)).peekable();
        builders.peek().is_some() && builders.all(|on| !on.lacks(demand).is_empty())
    }

    /// The longest chain of builds that needed each other, of those that were published since
    /// [`Self::begin_campaign`].
    pub fn critical_path(&self) -> Duration {
        self.queue.longest_chain()
    }

    /// A new queue begins: what was built before is no part of it.
    pub fn begin_campaign(&mut self) {
        self.queue.forget_chains();
    }

    /// How many slots there are, as far as they can be seen: those that build, and those that ask.
    pub fn slots(&self) -> usize {
        self.asks.len() + self.leases().filter(|lease| lease.is_running()).count()
    }

    /// How long all that is queued and running will still take on `slots`, without what is parked.
    pub fn eta(&self, now: Moment, slots: usize) -> Eta {
        let queued = self.queue.entries().filter(|(srpm, _)| !self.queue.is_parked(&srpm.key));
        let queued = queued.map(|(srpm, _)| self.expect(srpm, None));
        let running = self.leases().filter(|lease| lease.is_running()).map(|lease| self.rest_of(now, lease));
        let all: Vec<_> = queued.chain(running).collect();
        eta(all, slots, self.queue.longest_path())
    }

    fn rest_of(&self, now: Moment, lease: &Lease) -> crate::estimates::Expectation {
        let mut rest = self.expect(&lease.srpm, None);
        let done = lease.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        for time in [&mut rest.time, &mut rest.low, &mut rest.high] {
            *time = time.saturating_sub(done);
        }
        // What takes longer than was thought is not done at any moment: of such builds half are after half that time.
        if rest.time.is_zero() {
            (rest.time, rest.high) = (done / 2, rest.high.max(done * 2));
        }
        rest
    }

    /// For each builder that is connected, why it does not get an SRPM that lies in SOURCE; nothing for those that
    /// would get it.
    pub fn why_not(&self, now: Moment, key: &BuildKey) -> Vec<(BuilderId, Vec<WhyNot>)> {
        let asking: BTreeSet<SessionId> = self.asks.sessions().into_values().collect();
        let builders = self.builders.iter().map(|(session, on)| {
            let mut why = self.why_not_on(now, key, on);
            if why.is_empty() && !asking.contains(session) {
                why.push(WhyNot::Busy);
            }
            (on.builder.id.clone(), why)
        });
        builders.collect()
    }

    fn why_not_on(&self, now: Moment, key: &BuildKey, on: &Registered) -> Vec<WhyNot> {
        let mut why = Vec::new();
        let wanted = |target: &&TargetName| key.target.as_ref().is_none_or(|wanted| wanted == *target);
        let mut targets = on.builder.targets.iter().filter(wanted).peekable();
        if targets.peek().is_none() {
            why.push(WhyNot::Target);
        } else if targets.all(|target| on.broken.contains(target)) {
            why.push(WhyNot::Configuration);
        }
        if on.draining {
            why.push(WhyNot::Draining);
        }
        if self.drained.contains(&on.builder.id) {
            why.push(WhyNot::Drained);
        }
        if let Some(until) = self.blame.suspended_until(&on.builder.id) {
            why.push(WhyNot::Suspended(until.saturating_sub(now)));
        }
        let lacks = self.queue.demand_of(key).map(|demand| on.lacks(demand)).unwrap_or_default();
        if !lacks.is_empty() {
            why.push(WhyNot::Lacks(lacks));
        }
        if self.leaves(key, &on.builder.id) {
            why.push(WhyNot::Tried);
        }
        why
    }
}
