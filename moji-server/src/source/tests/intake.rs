use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::SrpmName;
use proptest::prelude::*;

use crate::BuildKey;
use crate::source::folder::{Sight, Stamp};
use crate::source::intake::{Action, Hint, Intake, Observation, Reading};
use crate::source::srpm::{Head, head_of};
use crate::source::testing::{Fake, SizeTag};
use crate::source::{SourceConfig, SourceEvent};

/// Size of the header part of the made-up SRPM, and of all of it.
const HEADER: u64 = 100;
const WHOLE: u64 = 1_000;

fn key(n: usize) -> BuildKey {
    BuildKey { target: None, srpm: SrpmName::new(format!("p{n}-1-1.src.rpm")).unwrap() }
}

/// What a file in the simulated folder is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Srpm,
    Unsized,
    Garbage,
}

#[derive(Debug, Clone, Copy)]
struct Disk {
    kind: Kind,
    stamp: Stamp,
    /// When it was written to last.
    written: Duration,
    /// Somebody has it open, and will write more.
    open: bool,
}

impl Disk {
    /// The bytes are written one after the other, so the size tells. Without a size in the header
    /// a writer that pauses for long cannot be told from one that is done.
    fn is_whole(&self) -> bool {
        match self.kind {
            Kind::Srpm => self.stamp.size == WHOLE,
            Kind::Unsized => self.stamp.size >= HEADER,
            Kind::Garbage => false,
        }
    }

    fn head(&self) -> Head {
        let size = match self.kind {
            Kind::Garbage if self.stamp.size > 0 => {
                return Head::Bad { reason: "garbage".to_owned(), size: None };
            }
            Kind::Srpm => Some(WHOLE),
            _ => None,
        };
        if self.stamp.size < HEADER {
            return Head::Partial { why: "short" };
        }
        let tag = if size.is_some() { SizeTag::Size } else { SizeTag::None };
        let bytes = Fake { size: tag, ..Fake::new("p", "1", "1") }.bytes();
        match head_of(&bytes) {
            Head::Srpm { header, .. } => Head::Srpm { header, size },
            other => other,
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// A writer begins: create, or truncate what is there.
    Create(Kind),
    Write(u64),
    Close,
    MoveIn(Kind, u64),
    /// A hard link to a file that was written long ago.
    Link(Kind),
    Remove,
    Chmod,
    Wait(u64),
    /// The events of the next operations are lost.
    Lose(bool),
    Rescan,
    /// Carry out this one of the actions that wait.
    Act(usize),
}

fn ops() -> impl Strategy<Value = Vec<(usize, Op)>> {
    let kind = prop_oneof![4 => Just(Kind::Srpm), 1 => Just(Kind::Unsized), 1 => Just(Kind::Garbage)];
    let size = prop_oneof![Just(0), Just(50), Just(HEADER), Just(500), Just(WHOLE), Just(1_100)];
    let op = prop_oneof![
        3 => kind.clone().prop_map(Op::Create),
        6 => (0_u64..1_100).prop_map(Op::Write),
        4 => Just(Op::Write(WHOLE)),
        4 => Just(Op::Close),
        3 => (kind.clone(), size).prop_map(|(kind, size)| Op::MoveIn(kind, size)),
        2 => kind.prop_map(Op::Link),
        2 => Just(Op::Remove),
        1 => Just(Op::Chmod),
        4 => (0_u64..2_000).prop_map(Op::Wait),
        1 => (2_000_u64..80_000).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Lose),
        2 => Just(Op::Rescan),
        12 => (0_usize..8).prop_map(Op::Act),
    ];
    proptest::collection::vec((0_usize..2, op), 1..60)
}

/// The folder, what waits to be done, and what the receiver of the events knows.
struct World {
    intake: Intake,
    now: Duration,
    disk: BTreeMap<BuildKey, Disk>,
    changes: u64,
    waiting: Vec<Waiting>,
    lose: bool,
    queued: BTreeMap<BuildKey, i64>,
    broken: BTreeMap<BuildKey, i64>,
    /// ctimes of what was announced: each is one state of one file.
    found: BTreeSet<i64>,
    broke: BTreeSet<i64>,
    /// ctimes at which a file was complete.
    complete: BTreeSet<i64>,
}

enum Waiting {
    Look(BuildKey, Hint),
    Read(BuildKey),
}

impl World {
    fn new() -> Self {
        Self {
            intake: Intake::new(&SourceConfig::new("/nowhere")),
            // Before that, the files were written that are linked in.
            now: Duration::from_secs(100_000),
            disk: BTreeMap::new(),
            changes: 0,
            waiting: Vec::new(),
            lose: false,
            queued: BTreeMap::new(),
            broken: BTreeMap::new(),
            found: BTreeSet::new(),
            broke: BTreeSet::new(),
            complete: BTreeSet::new(),
        }
    }

    fn put(
        &mut self,
        key: &BuildKey,
        inode: Option<u64>,
        size: u64,
        kind: Kind,
        open: bool,
        written: Duration,
    ) {
        self.changes += 1;
        let ctime = self.changes as i64;
        let stamp =
            Stamp { file: (1, inode.unwrap_or(self.changes)), size, mtime: written.as_nanos() as i64, ctime };
        let disk = Disk { kind, stamp, written, open };
        if disk.is_whole() {
            self.complete.insert(ctime);
        }
        self.disk.insert(key.clone(), disk);
    }

    fn hint(&mut self, key: &BuildKey, hint: Hint) {
        if !self.lose {
            self.waiting.push(Waiting::Look(key.clone(), hint));
        }
    }

    fn op(&mut self, key: &BuildKey, op: Op) -> Result<(), TestCaseError> {
        let before = self.disk.get(key).copied();
        let inode = before.map(|d| d.stamp.file.1);
        match op {
            Op::Create(kind) => {
                self.put(key, inode, 0, kind, true, self.now);
                self.hint(key, if before.is_some() { Hint::Written } else { Hint::Appeared });
            }
            Op::Write(more) => {
                if let Some(disk) = before.filter(|d| d.open) {
                    let size = (disk.stamp.size + more).min(if more == WHOLE { WHOLE } else { 1_100 });
                    self.put(key, inode, size, disk.kind, true, self.now);
                    self.hint(key, Hint::Written);
                }
            }
            Op::Close => {
                if let Some(disk) = self.disk.get_mut(key).filter(|d| d.open) {
                    disk.open = false;
                    self.hint(key, Hint::Closed);
                }
            }
            Op::MoveIn(kind, size) => {
                self.put(key, None, size, kind, false, self.now);
                self.hint(key, Hint::Closed);
            }
            Op::Link(kind) => {
                self.put(key, None, WHOLE, kind, false, Duration::ZERO);
                self.hint(key, Hint::Appeared);
            }
            Op::Remove => {
                if self.disk.remove(key).is_some() {
                    self.hint(key, Hint::Appeared);
                }
            }
            Op::Chmod => {
                if let Some(disk) = before {
                    self.put(key, inode, disk.stamp.size, disk.kind, disk.open, disk.written);
                    self.hint(key, Hint::Touched);
                }
            }
            Op::Wait(ms) => self.wait(Duration::from_millis(ms))?,
            Op::Lose(lose) => self.lose = lose,
            Op::Rescan => self.rescan()?,
            Op::Act(n) => self.act(n)?,
        }
        Ok(())
    }

    fn sight(&self, key: &BuildKey) -> Option<Sight> {
        let disk = self.disk.get(key)?;
        Some(Sight { stamp: disk.stamp, age: self.now.saturating_sub(disk.written) })
    }

    fn rescan(&mut self) -> Result<(), TestCaseError> {
        let listing = self.listing();
        self.observe(listing)
    }

    fn listing(&self) -> Observation {
        let srpms = self.disk.keys().map(|key| (key.srpm.clone(), self.sight(key).unwrap())).collect();
        Observation::Folder { target: None, srpms }
    }

    fn wait(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let end = self.now + time;
        while let Some(at) = self.intake.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.observe(Observation::Tick)?;
            prop_assert!(
                self.intake.next_deadline().is_none_or(|next| next > self.now),
                "a tick is never useless"
            );
            self.act_all()?;
        }
        self.now = end;
        Ok(())
    }

    fn act(&mut self, n: usize) -> Result<(), TestCaseError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let observation = match self.waiting.remove(n % self.waiting.len()) {
            Waiting::Look(key, hint) => Observation::Srpm { sight: self.sight(&key), key, hint },
            Waiting::Read(key) => {
                let head = match self.disk.get(&key) {
                    Some(disk) => Reading::Head(disk.stamp, disk.head()),
                    None => Reading::Changed,
                };
                Observation::Head { key, head }
            }
        };
        self.observe(observation)
    }

    fn act_all(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            if self.waiting.is_empty() {
                return Ok(());
            }
            self.act(0)?;
        }
        Err(TestCaseError::fail("it goes on for ever"))
    }

    fn observe(&mut self, observation: Observation) -> Result<(), TestCaseError> {
        for action in self.intake.handle(self.now, observation) {
            match action {
                Action::Look(key) => self.waiting.push(Waiting::Look(key, Hint::Touched)),
                Action::Read(key) => self.waiting.push(Waiting::Read(key)),
                Action::Warn(text) => prop_assert!(false, "{}", text),
                Action::Tell(event) => self.tell(event)?,
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: SourceEvent) -> Result<(), TestCaseError> {
        match event {
            SourceEvent::Found(srpm) => {
                let ctime = srpm.queued_at.as_nanosecond() as i64;
                prop_assert!(self.found.insert(ctime), "found twice: {:?}", srpm);
                prop_assert!(self.complete.contains(&ctime), "never whole: {:?}", srpm);
                self.broken.remove(&srpm.key);
                self.queued.insert(srpm.key, ctime);
            }
            SourceEvent::Changing(key) => {
                prop_assert!(self.queued.remove(&key).is_some(), "{} was not queued", key);
            }
            SourceEvent::Gone(key) => {
                self.queued.remove(&key);
                self.broken.remove(&key);
            }
            SourceEvent::Broken { key, .. } => {
                self.queued.remove(&key);
                if let Some(disk) = self.disk.get(&key) {
                    // The file may have changed since; what is there now was then never broken.
                    let ctime = disk.stamp.ctime;
                    prop_assert!(!self.found.contains(&ctime), "found, then broken: {:?}", disk);
                    self.broke.insert(ctime);
                    self.broken.insert(key, ctime);
                }
            }
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    }

    /// All writers stop, nothing is lost any more: what the receiver knows is what is there.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.lose = false;
        for key in [key(0), key(1)] {
            self.op(&key, Op::Close)?;
        }
        self.act_all()?;
        self.rescan()?;
        self.act_all()?;
        self.wait(Duration::from_secs(200))?;
        for (key, disk) in &self.disk {
            let ctime = disk.stamp.ctime;
            if disk.is_whole() {
                prop_assert_eq!(self.queued.get(key), Some(&ctime), "{:?}", disk);
            } else {
                prop_assert_eq!(self.queued.get(key), None, "{:?}", disk);
                prop_assert_eq!(self.broken.get(key), Some(&ctime), "{:?}", disk);
            }
        }
        for key in self.queued.keys() {
            prop_assert!(self.disk.contains_key(key), "{} is gone", key);
        }
        prop_assert_eq!(self.intake.next_deadline(), None);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever happens in whatever order: what is found was whole, each state of a file once, and
    /// in the end the receiver knows what is there.
    #[test]
    fn what_is_whole_is_found_and_nothing_else(ops in ops()) {
        play(ops)?;
    }
}

fn play(ops: impl IntoIterator<Item = (usize, Op)>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for (n, op) in ops {
        world.op(&key(n), op)?;
    }
    world.settle()
}

/// Nobody looked while it was empty, so it seems to be the first copy, a little longer: but it has
/// other headers, and is not broken for want of what the first ones promised.
#[test]
fn half_a_copy_is_replaced_in_place_by_a_shorter_srpm() {
    let half = [Op::MoveIn(Kind::Srpm, HEADER), Op::Act(0), Op::Act(0)];
    let other = [Op::Create(Kind::Unsized), Op::Write(HEADER + 1)];
    play(half.into_iter().chain(other).map(|op| (0, op))).unwrap();
}

#[test]
fn an_unreadable_file_is_named_once_and_tried_again() {
    let mut world = World::new();
    world.put(&key(0), None, WHOLE, Kind::Srpm, false, Duration::ZERO);
    let sight = world.sight(&key(0));
    for round in 0..3 {
        let seen = Observation::Srpm { key: key(0), sight, hint: Hint::Touched };
        let actions = world.intake.handle(world.now, seen);
        assert!(matches!(&actions[..], [Action::Read(_)]), "{actions:?}");
        let head = Reading::Failed("denied".to_owned());
        let actions = world.intake.handle(world.now, Observation::Head { key: key(0), head });
        assert_eq!(actions.len(), usize::from(round == 0), "{actions:?}");
    }
    assert_eq!(world.intake.next_deadline(), None);
    world.settle().unwrap();
}

/// Not even before the first reading that nothing disturbed.
#[test]
fn a_file_that_is_written_is_not_read_at_each_write() {
    let mut world = World::new();
    let mut reads = 0;
    for n in 1..=1_000 {
        world.put(&key(0), Some(1), n, Kind::Srpm, true, world.now);
        let seen = Observation::Srpm { key: key(0), sight: world.sight(&key(0)), hint: Hint::Written };
        for action in world.intake.handle(world.now, seen) {
            if let Action::Read(key) = action {
                reads += 1;
                let head = Reading::Changed;
                assert!(world.intake.handle(world.now, Observation::Head { key, head }).is_empty());
            }
        }
        world.now += Duration::from_millis(1);
    }
    assert_eq!(reads, 20);
}

/// Its name for another target is leased, finished, removed: that changes the ctime only.
#[test]
fn what_happens_to_another_name_of_a_file_takes_none_out_of_the_queue() {
    let now = World::new().now;
    for written in [Duration::ZERO, now, now * 2] {
        for hint in [Hint::Closed, Hint::Touched] {
            let mut world = World::new();
            world.put(&key(0), Some(1), WHOLE, Kind::Srpm, false, written);
            world.hint(&key(0), hint);
            world.act_all().unwrap();
            world.wait(Duration::from_secs(2)).unwrap();
            assert!(world.queued.contains_key(&key(0)));
            for pause in [0, 1, 49, 50, 51, 0, 2_000] {
                world.wait(Duration::from_millis(pause)).unwrap();
                world.put(&key(0), Some(1), WHOLE, Kind::Srpm, false, written);
                world.rescan().unwrap();
                world.act_all().unwrap();
                assert!(world.queued.contains_key(&key(0)), "{written:?} {hint:?} {pause}");
            }
            world.settle().unwrap();
        }
    }
}

/// A rescan of 20,000 SRPMs each minute must cost next to nothing.
#[test]
fn a_rescan_of_what_is_known_does_nothing() {
    let mut world = World::new();
    for (n, kind) in [(0, Kind::Srpm), (1, Kind::Garbage)] {
        world.put(&key(n), None, WHOLE, kind, false, Duration::ZERO);
    }
    world.settle().unwrap();
    let listing = world.listing();
    let actions = world.intake.handle(world.now, listing);
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(world.intake.next_deadline(), None);
}
