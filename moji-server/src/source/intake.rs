//! When an SRPM in SOURCE counts: the pure part of the watch, for SRPMs.
//!
//! ```text
//!            Seen            whole, quiet               Seen: other stamp
//!   (none) ───────▶ waiting ───────────────▶ found ───────────────────────┐
//!              ▲       │  as it is for too long, or no SRPM ▶ broken      │
//!              └───────┴────────────────────────────────────────┴◀────────┘
//! ```
//!
//! *Whole* is what the RPM itself says: its headers parse, and the size of the file is the one
//! they give. *Quiet*: its writer closed it or it was renamed to its name, or it stayed as it is
//! for a while. Time is a [`Duration`] since some start. Knows no file system, clock or task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::{SrpmName, TargetName};

use super::folder::{Sight, Stamp};
use super::srpm::Head;
use super::{QueuedSrpm, SourceConfig, SourceEvent};
use crate::BuildKey;

/// A file that is being written is not read again sooner than this.
const PAUSE: Duration = Duration::from_millis(50);
/// What is no SRPM at all is broken sooner than what may become one.
const BAD_AFTER: Duration = Duration::from_secs(5);

/// What inotify said about a file, beyond that one should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// It, or its attributes, may have changed.
    Touched,
    /// It came or went; what was said before was about another file.
    Appeared,
    /// Somebody writes to it.
    Written,
    /// Its writer closed it, or it was renamed to its name.
    Closed,
}

impl Hint {
    /// What two hints about the same path, one after the other, say together.
    pub(super) fn then(self, later: Self) -> Self {
        if later == Self::Touched { self } else { later }
    }
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Observation {
    /// An SRPM's path was looked at; `None`: no regular file is there.
    Srpm { key: BuildKey, sight: Option<Sight>, hint: Hint },
    /// A folder was listed.
    Folder { target: Option<TargetName>, srpms: BTreeMap<SrpmName, Sight> },
    /// SOURCE was listed: these are the target folders.
    Targets(BTreeSet<TargetName>),
    /// The answer to [`Action::Read`].
    Head { key: BuildKey, head: Reading },
    /// Time has passed.
    Tick,
}

/// What came of reading a file's headers.
#[derive(Debug)]
pub(super) enum Reading {
    Head(Stamp, Head),
    /// It changed while it was read.
    Changed,
    /// It cannot be opened or read.
    Failed(String),
}

/// What to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Look at the path of this SRPM, with [`Hint::Touched`].
    Look(BuildKey),
    /// Read its headers. Answered exactly once.
    Read(BuildKey),
    Tell(SourceEvent),
    /// For the log.
    Warn(String),
}

/// All SRPMs in SOURCE.
#[derive(Debug)]
pub(super) struct Intake {
    settle: Duration,
    broken_after: Duration,
    files: BTreeMap<Option<TargetName>, BTreeMap<SrpmName, File>>,
    due: BTreeSet<(Duration, BuildKey)>,
}

/// What the receiver of the events was told last about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Found(Stamp),
    Changing,
    Broken(Stamp),
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    /// When it was first seen with this stamp, and the age of its mtime then.
    since: Duration,
    age: Duration,
    /// Its writer closed it.
    closed: bool,
    /// Somebody was seen writing to it, and not closing it.
    writing: bool,
    head: Option<(Stamp, Head)>,
    /// An [`Action::Read`] is not answered yet.
    reading: bool,
    read_at: Option<Duration>,
    /// It was named in the log as unreadable.
    unreadable: bool,
    told: Told,
    deadline: Option<Duration>,
}

/// What is to be done about a file as it is now.
enum Verdict {
    /// Nothing, until it changes.
    Settled,
    /// Look again then, if it does not change before.
    Wait(Duration),
    Read,
    Whole(QueuedSrpm),
    Broken(String),
}

impl Intake {
    pub(super) fn new(config: &SourceConfig) -> Self {
        Self {
            settle: config.settle,
            broken_after: config.broken_after,
            files: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// When a [`Observation::Tick`] is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How an SRPM looked last.
    pub(super) fn stamp_of(&self, key: &BuildKey) -> Option<Stamp> {
        Some(self.files.get(&key.target)?.get(&key.srpm)?.stamp)
    }

    /// What is known of all that are whole, how they looked then, and when they were read.
    pub(super) fn heads(&self) -> impl Iterator<Item = (BuildKey, Stamp, &Head, Duration)> {
        let files =
            self.files.iter().flat_map(|(target, files)| files.iter().map(move |file| (target, file)));
        files.filter_map(|(target, (srpm, file))| {
            let (read, head) = file.head.as_ref().filter(|(read, _)| file.told == Told::Found(*read))?;
            Some((BuildKey { target: target.clone(), srpm: srpm.clone() }, *read, head, file.read_at?))
        })
    }

    pub(super) fn handle(&mut self, now: Duration, observation: Observation) -> Vec<Action> {
        let mut actions = Vec::new();
        match observation {
            Observation::Srpm { key, sight: Some(sight), hint } => {
                self.seen(now, key, sight, hint, &mut actions);
            }
            Observation::Srpm { key, sight: None, .. } => self.gone(key, &mut actions),
            Observation::Folder { target, srpms } => {
                // One that is not in the listing is looked at again: it may have come meanwhile.
                for name in self.files.get(&target).into_iter().flat_map(BTreeMap::keys) {
                    if !srpms.contains_key(name) {
                        let key = BuildKey { target: target.clone(), srpm: name.clone() };
                        actions.push(Action::Look(key));
                    }
                }
                for (srpm, sight) in srpms {
                    let key = BuildKey { target: target.clone(), srpm };
                    self.seen(now, key, sight, Hint::Touched, &mut actions);
                }
            }
            Observation::Targets(targets) => {
                for (target, files) in &self.files {
                    if target.as_ref().is_some_and(|target| !targets.contains(target)) {
                        actions.extend(files.keys().map(|name| {
                            Action::Look(BuildKey { target: target.clone(), srpm: name.clone() })
                        }));
                    }
                }
            }
            Observation::Head { key, head } => self.read(now, key, head, &mut actions),
            Observation::Tick => {
                while self.due.first().is_some_and(|(at, _)| *at <= now) {
                    let Some((_, key)) = self.due.pop_first() else { break };
                    if let Some(file) = self.file(&key) {
                        file.deadline = None;
                    }
                    actions.push(Action::Look(key));
                }
            }
        }
        actions
    }

    fn file(&mut self, key: &BuildKey) -> Option<&mut File> {
        self.files.get_mut(&key.target)?.get_mut(&key.srpm)
    }

    fn gone(&mut self, key: BuildKey, actions: &mut Vec<Action>) {
        let Some(files) = self.files.get_mut(&key.target) else { return };
        let Some(file) = files.remove(&key.srpm) else { return };
        if files.is_empty() {
            self.files.remove(&key.target);
        }
        if let Some(at) = file.deadline {
            self.due.remove(&(at, key.clone()));
        }
        if file.told != Told::Nothing {
            actions.push(Action::Tell(SourceEvent::Gone(key)));
        }
    }

    fn seen(&mut self, now: Duration, key: BuildKey, sight: Sight, hint: Hint, actions: &mut Vec<Action>) {
        let files = self.files.entry(key.target.clone()).or_default();
        // Without a look-up by a clone: a rescan sees every file.
        let file = match files.get_mut(&key.srpm) {
            Some(file) => file,
            None => files.entry(key.srpm.clone()).or_insert(File::new(now, sight)),
        };
        if file.stamp == sight.stamp && hint == Hint::Touched && file.is_settled() {
            return;
        }
        file.saw(now, sight, hint);
        self.judge(now, key, actions);
    }

    fn read(&mut self, now: Duration, key: BuildKey, reading: Reading, actions: &mut Vec<Action>) {
        // It may be gone, and another may be there in its place, even one that is being read: that
        // one is then read once more.
        let Some(file) = self.file(&key) else { return };
        file.reading = false;
        file.read_at = Some(now);
        match reading {
            Reading::Head(stamp, head) => {
                file.unreadable = false;
                let same = stamp == file.stamp;
                file.head = Some((stamp, head));
                if same {
                    self.judge(now, key, actions);
                } else {
                    self.look_at(now + PAUSE, key);
                }
            }
            Reading::Changed => self.look_at(now + PAUSE, key),
            Reading::Failed(error) => {
                (file.head, file.read_at) = (None, None);
                if !std::mem::replace(&mut file.unreadable, true) {
                    actions.push(Action::Warn(format!(
                        "{key} cannot be read: {error}; trying again when it changes, and now and then"
                    )));
                }
                if let Told::Found(_) = file.told {
                    file.told = Told::Changing;
                    actions.push(Action::Tell(SourceEvent::Changing(key)));
                }
            }
        }
    }

    fn judge(&mut self, now: Duration, key: BuildKey, actions: &mut Vec<Action>) {
        let (settle, broken_after) = (self.settle, self.broken_after);
        let Some(file) = self.file(&key) else { return };
        let verdict = file.verdict(now, &key, settle, broken_after);
        match verdict {
            Verdict::Settled => {}
            Verdict::Read => {
                file.reading = true;
                actions.push(Action::Read(key));
            }
            Verdict::Wait(until) => {
                if let Told::Found(stamp) = file.told
                    && (file.writing || !stamp.is_like(&file.stamp))
                {
                    file.told = Told::Changing;
                    actions.push(Action::Tell(SourceEvent::Changing(key.clone())));
                }
                self.look_at(until, key);
            }
            Verdict::Whole(srpm) => {
                file.told = Told::Found(file.stamp);
                actions.push(Action::Tell(SourceEvent::Found(srpm)));
            }
            Verdict::Broken(reason) => {
                file.told = Told::Broken(file.stamp);
                actions.push(Action::Tell(SourceEvent::Broken { key, reason }));
            }
        }
    }

    fn look_at(&mut self, at: Duration, key: BuildKey) {
        let Some(file) = self.file(&key) else { return };
        if let Some(before) = file.deadline.replace(at) {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((at, key));
    }
}

impl File {
    fn new(now: Duration, sight: Sight) -> Self {
        Self {
            stamp: sight.stamp,
            since: now,
            age: sight.age,
            closed: false,
            writing: false,
            head: None,
            reading: false,
            read_at: None,
            unreadable: false,
            told: Told::Nothing,
            deadline: None,
        }
    }

    fn saw(&mut self, now: Duration, sight: Sight, hint: Hint) {
        if sight.stamp != self.stamp {
            self.writing &= sight.stamp.file == self.stamp.file;
            // A chmod, or what happens to another name of the file, leaves the content alone.
            if !sight.stamp.is_like(&self.stamp) {
                (self.closed, self.since, self.age) = (false, now, sight.age);
            }
            self.stamp = sight.stamp;
        }
        match hint {
            Hint::Closed => (self.closed, self.writing) = (true, false),
            Hint::Written => (self.closed, self.writing) = (false, true),
            Hint::Touched | Hint::Appeared => {}
        }
    }

    fn is_settled(&self) -> bool {
        matches!(self.told, Told::Found(stamp) | Told::Broken(stamp) if stamp == self.stamp)
    }

    /// For how long it has stayed as it is. The age of the mtime says nothing about a file that
    /// somebody has open: he may write at any place, or set the mtime.
    fn still(&self, now: Duration) -> Duration {
        let seen = now.saturating_sub(self.since);
        if self.writing { seen } else { seen.saturating_add(self.age) }
    }

    /// How long it must stay as it is to count as quiet.
    fn patience(&self, settle: Duration, size_known: bool) -> Duration {
        match (size_known, self.closed, self.writing) {
            (true, true, _) => Duration::ZERO,
            // Its size is right, but its writer is not done: all of its space was allocated first.
            (_, _, true) => settle * 10,
            (true, false, false) => settle,
            // Nothing but time tells whether it is whole.
            (false, _, false) => settle * 3,
        }
    }

    fn verdict(&self, now: Duration, key: &BuildKey, settle: Duration, broken_after: Duration) -> Verdict {
        if self.is_settled() || self.reading {
            return Verdict::Settled;
        }
        // Even if it only seems to grow: between two looks it may have been truncated and written
        // anew. Not again at each write; at once when the writer is done.
        let Some((_, head)) = self.head.as_ref().filter(|(read, _)| *read == self.stamp) else {
            let next = self.read_at.map_or(now, |at| at + PAUSE);
            return if self.closed || next <= now { Verdict::Read } else { Verdict::Wait(next) };
        };
        let size = self.stamp.size;
        // By the mtime's age nothing is broken: the rest of a copy may come after a restart.
        let unfinished = |reason: String, patience: Duration| {
            let end = self.since + patience;
            if end <= now { Verdict::Broken(reason) } else { Verdict::Wait(end) }
        };
        let when_quiet = |size_known: bool, then: Verdict| {
            let patience = self.patience(settle, size_known);
            let still = self.still(now);
            if still >= patience { then } else { Verdict::Wait(now + (patience - still)) }
        };
        match head {
            Head::Srpm { header, size: whole } if whole.is_none_or(|whole| whole == size) => {
                let (header, queued_at) = (header.clone(), self.stamp.changed_at());
                let srpm = QueuedSrpm { key: key.clone(), header, size, queued_at };
                when_quiet(whole.is_some(), Verdict::Whole(srpm))
            }
            Head::Srpm { size: whole, .. } => {
                let whole = whole.unwrap_or_default();
                let reason = if size < whole {
                    format!("it has {size} of {whole} bytes: its copy stopped before the end")
                } else {
                    format!("it has {size} bytes, {} more than its header says", size - whole)
                };
                unfinished(reason, broken_after)
            }
            Head::Partial { why } => unfinished(format!("{why} ({size} bytes)"), broken_after),
            Head::Bad { reason, size: Some(whole) } if *whole == size => {
                when_quiet(true, Verdict::Broken(reason.clone()))
            }
            Head::Bad { reason, .. } => unfinished(reason.clone(), broken_after.min(BAD_AFTER)),
        }
    }
}
