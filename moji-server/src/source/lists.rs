//! When a `priority.txt` or `requires.txt` is read again: the pure part of the watch, for the lists.
//!
//! Editors truncate and write, or rename the old file away and create a new one: in between the
//! list is empty or not there, and nobody may see that. So it is read when its writer closed it or
//! it was renamed to its name, or when it stayed as it is for a while. Time is a [`Duration`]
//! since some start. Knows no file system, clock or task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use moji_proto::TargetName;

use super::folder::{Sight, Stamp, below};
use super::intake::Hint;
use super::{Priority, Requires, SourceEvent, Warning};

/// How long a list must stay as it is when nothing tells that its writer is done.
const STILL: Duration = Duration::from_millis(100);
/// The same for one that is empty or not there.
const EMPTY: Duration = Duration::from_millis(500);

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Priority,
    Requires,
}

/// Which list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListName {
    /// In whose folder it lies; `None`: in SOURCE itself.
    pub(super) target: Option<TargetName>,
    pub(super) kind: Kind,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Priority, Self::Requires];

    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Priority => "priority.txt",
            Self::Requires => "requires.txt",
        }
    }
}

impl ListName {
    /// The path below SOURCE.
    pub(super) fn path(&self) -> PathBuf {
        below(self.target.as_ref()).join(self.kind.file_name())
    }
}

/// What a list says.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Priority(Priority),
    Requires(Requires),
}

impl Content {
    /// One of this kind. When the list is gone, that of no bytes.
    pub(super) fn parse(kind: Kind, bytes: &[u8]) -> Self {
        match kind {
            Kind::Priority => Self::Priority(Priority::parse(bytes)),
            Kind::Requires => Self::Requires(Requires::parse(bytes)),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Priority(list) => list.len(),
            Self::Requires(list) => list.len(),
        }
    }

    /// What was not understood, and how much more there is.
    pub(super) fn warnings(&self) -> (&[Warning], usize) {
        match self {
            Self::Priority(list) => (list.warnings(), list.unsaid()),
            Self::Requires(list) => (list.warnings(), list.unsaid()),
        }
    }

    pub(super) fn event(self, target: Option<TargetName>) -> SourceEvent {
        match self {
            Self::Priority(list) => SourceEvent::Priority { target, list },
            Self::Requires(list) => SourceEvent::Requires { target, list },
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Observation {
    /// It was looked at; `None`: it is not there.
    Seen { list: ListName, sight: Option<Sight>, hint: Hint },
    /// SOURCE was listed: these are the target folders.
    Targets(BTreeSet<TargetName>),
    /// The answer to [`Action::Read`]. `None`: it changed while it was read.
    Content { list: ListName, content: Result<Option<(Stamp, Content)>, String> },
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Look whether it is there, with [`Hint::Touched`].
    Look(ListName),
    /// Read it. Answered exactly once.
    Read(ListName),
    Tell(ListName, Content),
    /// For the log.
    Warn(String),
}

/// All lists in SOURCE. There are few: one of each kind for each target.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: BTreeMap<ListName, List>,
}

#[derive(Debug)]
struct List {
    /// `None`: it is not there.
    stamp: Option<Stamp>,
    /// When it was first seen so, and the age of its mtime then.
    since: Duration,
    age: Duration,
    closed: bool,
    writing: bool,
    reading: bool,
    unreadable: bool,
    /// What the receiver of the events has.
    told: Option<Stamp>,
    deadline: Option<Duration>,
}

impl Lists {
    /// When a [`Observation::Tick`] is due.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.lists.values().filter_map(|list| list.deadline).min()
    }

    pub(super) fn handle(&mut self, now: Duration, observation: Observation) -> Vec<Action> {
        let mut actions = Vec::new();
        match observation {
            Observation::Seen { list, sight, hint } => self.seen(now, list, sight, hint, &mut actions),
            Observation::Targets(targets) => {
                let gone =
                    |name: &&ListName| name.target.as_ref().is_some_and(|target| !targets.contains(target));
                actions.extend(self.lists.keys().filter(gone).cloned().map(Action::Look));
            }
            Observation::Content { list: name, content } => {
                let Some(list) = self.lists.get_mut(&name) else { return actions };
                list.reading = false;
                match content {
                    Ok(Some((stamp, content))) if list.stamp == Some(stamp) => {
                        list.unreadable = false;
                        list.told = list.stamp;
                        actions.push(Action::Tell(name, content));
                    }
                    Ok(_) => list.deadline = Some(now + STILL),
                    Err(error) => {
                        if !std::mem::replace(&mut list.unreadable, true) {
                            actions.push(Action::Warn(format!(
                                "{} cannot be read: {error}; the list that was read last stays in force",
                                name.path().display()
                            )));
                        }
                    }
                }
            }
            Observation::Tick => {
                for (name, list) in &mut self.lists {
                    if list.deadline.is_some_and(|at| at <= now) {
                        list.deadline = None;
                        actions.push(Action::Look(name.clone()));
                    }
                }
            }
        }
        actions
    }

    fn seen(
        &mut self,
        now: Duration,
        name: ListName,
        sight: Option<Sight>,
        hint: Hint,
        actions: &mut Vec<Action>,
    ) {
        if sight.is_none() && !self.lists.contains_key(&name) {
            return;
        }
        let list = self.lists.entry(name.clone()).or_insert_with(|| List::new(now, sight));
        list.saw(now, sight, hint);
        if list.reading || (list.stamp == list.told && list.stamp.is_some()) {
            return;
        }
        let wait = list.wait(now);
        if wait > Duration::ZERO {
            list.deadline = Some(now + wait);
        } else if list.stamp.is_some() {
            list.deadline = None;
            list.reading = true;
            actions.push(Action::Read(name));
        } else {
            let told = list.told.is_some();
            self.lists.remove(&name);
            if told {
                let nothing = Content::parse(name.kind, b"");
                actions.push(Action::Tell(name, nothing));
            }
        }
    }
}

impl List {
    fn new(now: Duration, sight: Option<Sight>) -> Self {
        Self {
            stamp: sight.map(|sight| sight.stamp),
            since: now,
            age: sight.map_or(Duration::ZERO, |sight| sight.age),
            closed: false,
            writing: false,
            reading: false,
            unreadable: false,
            told: None,
            deadline: None,
        }
    }

    fn saw(&mut self, now: Duration, sight: Option<Sight>, hint: Hint) {
        let stamp = sight.map(|sight| sight.stamp);
        if stamp != self.stamp {
            let age = sight.map_or(Duration::ZERO, |sight| sight.age);
            (self.stamp, self.since, self.age, self.closed) = (stamp, now, age, false);
            self.deadline = None;
        }
        match hint {
            Hint::Closed => (self.closed, self.writing) = (true, false),
            Hint::Written => (self.closed, self.writing) = (false, true),
            Hint::Appeared => self.writing = false,
            Hint::Touched => {}
        }
    }

    /// How long it must still stay as it is.
    fn wait(&self, now: Duration) -> Duration {
        let patience = match self.stamp {
            Some(_) if self.closed => return Duration::ZERO,
            Some(stamp) if stamp.size > 0 => STILL,
            _ => EMPTY,
        };
        let age = if self.writing { Duration::ZERO } else { self.age };
        patience.saturating_sub(now.saturating_sub(self.since).saturating_add(age))
    }
}
