//! A server, jobs and a clock around an agent, which do whatever they are told, and check what it
//! does about it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::test_runner::TestCaseError;

use super::super::*;
use super::attempt;

type Checked = Result<(), TestCaseError>;

macro_rules! ensure {
    ($is_so:expr, $($text:tt)+) => {
        if !$is_so {
            return Err(TestCaseError::fail(format!($($text)+)));
        }
    };
}

/// What the server believes of an attempt on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Held { slot: Option<u16> },
    Leased { slot: Option<u16> },
}

#[derive(Debug, Clone, Copy)]
struct Job {
    attempt: AttemptId,
    /// Its SRPM is here.
    whole: bool,
    /// Mock has ended by itself.
    built: bool,
    /// It was told to stop.
    told: bool,
}

impl Job {
    /// Whether it is worth anything: to be held, and not to be given back.
    fn is_on(&self) -> bool {
        self.whole && (self.built || !self.told)
    }
}

pub(super) struct World {
    rules: Rules,
    agent: Agent,
    now: Moment,
    serial: u64,
    connected: bool,
    draining: bool,
    stopped: bool,
    left: u32,
    looking: bool,
    asked: BTreeSet<u16>,
    jobs: BTreeMap<u16, Job>,
    /// What lies in the outbox, in the order in which it came, and its size.
    outbox: Vec<(AttemptId, u64)>,
    believed: BTreeMap<AttemptId, Belief>,
    announced: BTreeSet<AttemptId>,
    wanted: BTreeSet<AttemptId>,
    uploading: BTreeSet<AttemptId>,
    /// Attempts whose results may be removed.
    over: BTreeSet<AttemptId>,
}

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        let mut world = Self {
            rules,
            agent: Agent::new(rules),
            now: Duration::from_secs(5),
            serial: 100,
            connected: false,
            draining: false,
            stopped: false,
            left: 0,
            looking: false,
            asked: BTreeSet::new(),
            jobs: BTreeMap::new(),
            outbox: Vec::new(),
            believed: BTreeMap::new(),
            announced: BTreeSet::new(),
            wanted: BTreeSet::new(),
            uploading: BTreeSet::new(),
            over: BTreeSet::new(),
        };
        for serial in [1, 2] {
            world.outbox.push((attempt(serial), 100));
            let found = Event::Found { attempt: attempt(serial), bytes: 100, age: Duration::from_secs(60) };
            world.agent.handle(world.now, found);
        }
        world
    }

    fn nth<T: Copy>(of: impl IntoIterator<Item = T>, which: usize) -> Option<T> {
        let all: Vec<T> = of.into_iter().collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    /// One thing that can happen now; others are passed over.
    pub(super) fn step(&mut self, choice: u8, which: usize) -> Checked {
        match choice {
            0 | 1 if !self.connected => self.tell(Event::Connected),
            2 if self.connected => self.tell(Event::Disconnected),
            3 | 4 => {
                let Some(slot) = Self::nth(self.asked.clone(), which) else { return Ok(()) };
                self.serial += 1;
                self.tell(Event::Assigned { slot, attempt: attempt(self.serial) })
            }
            5..=7 => {
                // A job that was told to stop receives nothing any more.
                let receiving = self.jobs.iter().filter(|(_, job)| !job.whole && !job.told);
                let Some(slot) = Self::nth(receiving.map(|(slot, _)| *slot), which) else { return Ok(()) };
                self.tell(Event::Received(slot))
            }
            8 => self.end_job(which, |_| JobEnd::Nothing),
            9 => self.end_job(which, |_| JobEnd::Trouble),
            10..=12 => self
                .end_job(which, |whole| if whole { JobEnd::Packed { bytes: 200 } } else { JobEnd::Nothing }),
            13 | 14 => {
                let held = self.believed.iter().filter(|(_, belief)| matches!(belief, Belief::Held { .. }));
                let Some(attempt) = Self::nth(held.map(|(attempt, _)| *attempt), which) else {
                    return Ok(());
                };
                self.tell(Event::Resumed(attempt))
            }
            15 | 16 => {
                let waiting: Vec<_> = self.announced.difference(&self.wanted).copied().collect();
                let Some(attempt) = Self::nth(waiting, which) else { return Ok(()) };
                self.tell(Event::Wanted(attempt))
            }
            17 => {
                let Some(attempt) = Self::nth(self.uploading.clone(), which) else { return Ok(()) };
                self.tell(if which == 5 { Event::Broken(attempt) } else { Event::Uploaded(attempt) })
            }
            18 => {
                let Some(attempt) = Self::nth(self.announced.clone(), which) else { return Ok(()) };
                self.tell(Event::Rejected { attempt, again: which < 3 })
            }
            19 | 20 => {
                let Some(attempt) = Self::nth(self.believed.keys().copied(), which) else { return Ok(()) };
                self.tell(if choice == 19 { Event::Accepted(attempt) } else { Event::Dropped(attempt) })
            }
            21 if self.looking => self.tell(Event::Looked { enough: which < 4 }),
            22 => self.pass([1, 10, 15, 30, 600, 31 * 24 * 3600][which]),
            24 | 25 => {
                // One that was told to stop may have ended just before.
                let building = self.jobs.iter().filter(|(_, job)| job.whole && !job.built);
                let Some(slot) = Self::nth(building.map(|(slot, _)| *slot), which) else { return Ok(()) };
                self.tell(Event::Built(slot))
            }
            23 if which == 0 => self.tell(Event::Drain),
            23 if which == 1 && self.draining => self.tell(Event::Stop),
            _ => Ok(()),
        }
    }

    fn end_job(&mut self, which: usize, end: impl FnOnce(bool) -> JobEnd) -> Checked {
        let Some(slot) = Self::nth(self.jobs.keys().copied(), which) else { return Ok(()) };
        let end = end(self.jobs[&slot].whole);
        self.tell(Event::JobEnded { slot, end })
    }

    /// Time passes; the agent is woken when it wants to be, and not again for the same thing.
    fn pass(&mut self, seconds: u64) -> Checked {
        let end = self.now + Duration::from_secs(seconds);
        let mut at_this_instant = 0;
        for wakes in 0.. {
            let Some(deadline) = self.agent.next_deadline().filter(|deadline| *deadline <= end) else {
                break;
            };
            at_this_instant = if deadline > self.now { 0 } else { at_this_instant + 1 };
            ensure!(at_this_instant < 10, "it is woken again and again");
            // A month has many looks at the disk: in the end it is woken late, which may happen too.
            self.now = if wakes < 100 { self.now.max(deadline) } else { end };
            let effects = self.agent.on_time(self.now);
            self.check(effects, None)?;
            if self.left > 0 {
                return Ok(());
            }
            if self.looking {
                self.tell(Event::Looked { enough: true })?;
            }
        }
        self.now = end;
        Ok(())
    }

    /// Tells the agent, after noting what that means.
    fn tell(&mut self, event: Event) -> Checked {
        if self.left > 0 {
            return Ok(());
        }
        match event {
            Event::Connected => self.connected = true,
            Event::Disconnected => {
                self.connected = false;
                self.asked.clear();
                self.believed.clear();
                for about in [&mut self.announced, &mut self.wanted, &mut self.uploading] {
                    about.clear();
                }
            }
            Event::Assigned { slot, attempt } => {
                self.believed.insert(attempt, Belief::Leased { slot: Some(slot) });
            }
            Event::Received(slot) => self.jobs.get_mut(&slot).into_iter().for_each(|job| job.whole = true),
            Event::Built(slot) => self.jobs.get_mut(&slot).into_iter().for_each(|job| job.built = !job.told),
            Event::JobEnded { slot, end } => {
                let ended = self.jobs.remove(&slot);
                if let (Some(Job { attempt, .. }), JobEnd::Packed { bytes }) = (ended, end) {
                    self.outbox.push((attempt, bytes));
                }
            }
            Event::Resumed(attempt) => {
                if let Some(Belief::Held { slot }) = self.believed.get(&attempt).copied() {
                    self.believed.insert(attempt, Belief::Leased { slot });
                }
            }
            Event::Wanted(attempt) => drop(self.wanted.insert(attempt)),
            Event::Uploaded(attempt) => drop(self.uploading.remove(&attempt)),
            Event::Broken(attempt) => {
                self.over.insert(attempt);
            }
            Event::Accepted(attempt) | Event::Dropped(attempt) => self.settled(attempt),
            Event::Rejected { attempt, again: false } => self.settled(attempt),
            Event::Rejected { attempt, .. } => {
                for about in [&mut self.announced, &mut self.wanted, &mut self.uploading] {
                    about.remove(&attempt);
                }
            }
            Event::Looked { .. } => self.looking = false,
            Event::Drain | Event::Stop => {
                self.draining = true;
                self.asked.clear();
                self.stopped |= event == Event::Stop;
            }
            Event::Found { .. } => {}
        }
        let effects = self.agent.handle(self.now, event);
        self.check(effects, Some(event))
    }

    /// The server has said its last word.
    fn settled(&mut self, attempt: AttemptId) {
        self.over.insert(attempt);
        self.believed.remove(&attempt);
        for about in [&mut self.announced, &mut self.wanted, &mut self.uploading] {
            about.remove(&attempt);
        }
    }

    fn is_leased(&self, attempt: AttemptId) -> bool {
        matches!(self.believed.get(&attempt), Some(Belief::Leased { .. }))
    }

    fn check(&mut self, effects: Vec<Effect>, after: Option<Event>) -> Checked {
        for effect in effects {
            self.check_one(effect, after)
                .map_err(|error| TestCaseError::fail(format!("{effect:?} after {after:?}: {error}")))?;
        }
        // Nobody works on what nobody wants.
        for (slot, Job { attempt, told, .. }) in &self.jobs {
            ensure!(*told || !self.over.contains(attempt), "slot {slot} still works on {attempt}");
        }
        Ok(())
    }

    fn check_one(&mut self, effect: Effect, after: Option<Event>) -> Checked {
        match effect {
            Effect::Hold(attempt) => {
                ensure!(after == Some(Event::Connected) && self.asked.is_empty(), "too late");
                let job = self.jobs.iter().find(|(_, job)| job.attempt == attempt);
                let slot = job.map(|(slot, _)| *slot);
                ensure!(job.is_none_or(|(_, job)| job.is_on()), "it is not worth it");
                ensure!(!self.over.contains(&attempt), "nobody wants it");
                ensure!(slot.is_some() || self.outbox.iter().any(|(kept, _)| *kept == attempt), "not here");
                ensure!(self.believed.insert(attempt, Belief::Held { slot }).is_none(), "twice");
            }
            Effect::Ask(slot) => {
                ensure!(self.connected && !self.draining, "nobody may ask");
                ensure!(!self.jobs.contains_key(&slot) && self.asked.insert(slot), "not free");
                let busy = self.believed.iter().find(|(attempt, belief)| {
                    let (Belief::Held { slot: its } | Belief::Leased { slot: its }) = belief;
                    *its == Some(slot) && !self.announced.contains(attempt)
                });
                ensure!(busy.is_none(), "the server believes it busy with {busy:?}");
                let bytes: u64 = self.outbox.iter().map(|(_, bytes)| bytes).sum();
                ensure!(bytes <= self.rules.outbox_limit, "the outbox is full: {bytes}");
            }
            Effect::Start { slot, attempt } => {
                ensure!(self.asked.remove(&slot), "work that was not asked for");
                let job = Job { attempt, whole: false, built: false, told: false };
                ensure!(self.jobs.insert(slot, job).is_none(), "two jobs");
            }
            Effect::GoOn(slot) => {
                let attempt = self.jobs.get(&slot).map(|job| job.attempt);
                ensure!(attempt.is_some_and(|attempt| self.is_leased(attempt)), "not resumed");
            }
            Effect::Abort(slot) => {
                let Some(job) = self.jobs.get_mut(&slot) else {
                    return Err(TestCaseError::fail("no job"));
                };
                let lost = !job.whole && !self.connected;
                ensure!(lost || self.stopped || self.over.contains(&job.attempt), "for no reason");
                job.told = true;
            }
            Effect::Deliver(attempt) => {
                ensure!(self.is_leased(attempt), "not resumed");
                ensure!(self.outbox.iter().any(|(kept, _)| *kept == attempt), "not packed");
                ensure!(self.announced.insert(attempt), "twice at a time");
                // From now on the slot may ask, whatever becomes of this delivery.
                self.believed.insert(attempt, Belief::Leased { slot: None });
            }
            Effect::Upload(attempt) => {
                ensure!(self.wanted.contains(&attempt) && self.uploading.insert(attempt), "not wanted");
                ensure!(self.uploading.len() <= usize::from(self.rules.slots), "too many at a time");
            }
            Effect::Release { attempt, .. } => {
                ensure!(self.is_leased(attempt), "not this connection's");
                let job = self.jobs.values().find(|job| job.attempt == attempt);
                ensure!(job.is_none_or(|job| !job.built), "it is built");
                if let Some(Event::Assigned { slot, .. }) = after {
                    self.asked.remove(&slot);
                }
                self.settled_by_release(attempt);
            }
            Effect::Discard { attempt, why } => {
                let is_under_way = self.announced.contains(&attempt);
                let is_allowed = self.over.contains(&attempt) || (why == Discarded::TooOld && !is_under_way);
                ensure!(is_allowed, "the server has not spoken");
                let before = self.outbox.len();
                self.outbox.retain(|(kept, _)| *kept != attempt);
                ensure!(self.outbox.len() < before, "not here");
            }
            Effect::Look => {
                ensure!(!std::mem::replace(&mut self.looking, true), "twice at a time");
            }
            Effect::Leave(why) => {
                self.left += 1;
                ensure!(self.left == 1 && why == Why::Told && self.draining, "why?");
                ensure!(self.jobs.is_empty(), "{:?} still run", self.jobs);
            }
            Effect::Protest(why) => return Err(TestCaseError::fail(why)),
            Effect::SayDrain => ensure!(self.connected && self.draining, "to whom?"),
            Effect::Tell(_) => {}
        }
        Ok(())
    }

    fn settled_by_release(&mut self, attempt: AttemptId) {
        self.believed.remove(&attempt);
        for about in [&mut self.announced, &mut self.wanted, &mut self.uploading] {
            about.remove(&attempt);
        }
    }

    /// Told to leave, it leaves: with a server that takes everything, with one that is away, and at
    /// once when it is told twice.
    pub(super) fn leave(&mut self, ending: u8) -> Checked {
        if self.left > 0 {
            return Ok(());
        }
        self.tell(Event::Drain)?;
        match ending {
            0 if !self.connected => self.tell(Event::Connected)?,
            1 if self.connected => self.tell(Event::Disconnected)?,
            2 => self.tell(Event::Stop)?,
            _ => {}
        }
        let kept = self.outbox.len() + self.jobs.values().filter(|job| job.is_on()).count();
        for slot in self.jobs.keys().copied().collect::<Vec<_>>() {
            let end = if self.jobs[&slot].is_on() { JobEnd::Packed { bytes: 10 } } else { JobEnd::Nothing };
            self.tell(Event::JobEnded { slot, end })?;
        }
        if ending == 0 {
            for _ in 0..200 {
                for (attempt, belief) in self.believed.clone() {
                    if matches!(belief, Belief::Held { .. }) {
                        self.tell(Event::Resumed(attempt))?;
                    }
                }
                for attempt in self.announced.difference(&self.wanted).copied().collect::<Vec<_>>() {
                    self.tell(Event::Wanted(attempt))?;
                }
                for attempt in self.uploading.clone() {
                    self.tell(Event::Uploaded(attempt))?;
                    self.tell(Event::Accepted(attempt))?;
                }
                for attempt in self.announced.clone() {
                    if self.wanted.contains(&attempt) && !self.uploading.contains(&attempt) {
                        self.tell(Event::Accepted(attempt))?;
                    }
                }
                if self.left > 0 {
                    break;
                }
                self.pass(15)?;
            }
            let is_empty = self.outbox.is_empty() || self.stopped;
            ensure!(is_empty, "{:?} are left of {kept}", self.outbox);
        } else {
            self.pass(61)?;
        }
        ensure!(self.left == 1, "it does not leave: {:?}", self.agent);
        Ok(())
    }
}
