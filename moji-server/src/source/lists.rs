//! When a `priority.txt` is read again: the pure part of the watch, for the lists.
//!
//! Editors truncate and write, or rename the old file away and create a new one: in between the
//! list is empty or not there, and nobody may see that. So it is read when its writer closed it or
//! it was renamed to its name, or when it stayed as it is for a while. Time is a [`Duration`]
//! since some start. Knows no file system, clock or task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::TargetName;

use super::folder::{Sight, Stamp};
use super::intake::Hint;
use super::{Priority, SourceEvent};

/// How long a list must stay as it is when nothing tells that its writer is done.
const STILL: Duration = Duration::from_millis(100);
/// The same for one that is empty or not there.
const EMPTY: Duration = Duration::from_millis(500);

/// In whose folder a list lies; `None`: in SOURCE itself.
type Place = Option<TargetName>;

/// What was seen.
#[derive(Debug)]
pub(super) enum Observation {
    /// It was looked at; `None`: it is not there.
    Seen { place: Place, sight: Option<Sight>, hint: Hint },
    /// SOURCE was listed: these are the target folders.
    Targets(BTreeSet<TargetName>),
    /// The answer to [`Action::Read`]. `None`: it changed while it was read.
    Content { place: Place, content: Result<Option<(Stamp, Priority)>, String> },
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Look whether it is there, with [`Hint::Touched`].
    Look(Place),
    /// Read it. Answered exactly once.
    Read(Place),
    Tell(SourceEvent),
    /// For the log.
    Warn(String),
}

/// All lists in SOURCE. There are few: one for each target.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: BTreeMap<Place, List>,
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
            Observation::Seen { place, sight, hint } => {
                self.seen(now, place, sight, hint, &mut actions);
            }
            Observation::Targets(targets) => {
                let gone = |place: &&Place| place.as_ref().is_some_and(|target| !targets.contains(target));
                actions.extend(self.lists.keys().filter(gone).cloned().map(Action::Look));
            }
            Observation::Content { place, content } => {
                let Some(list) = self.lists.get_mut(&place) else { return actions };
                list.reading = false;
                match content {
                    Ok(Some((stamp, content))) if list.stamp == Some(stamp) => {
                        list.unreadable = false;
                        list.told = list.stamp;
                        let event = SourceEvent::Priority { target: place, list: content };
                        actions.push(Action::Tell(event));
                    }
                    Ok(_) => list.deadline = Some(now + STILL),
                    Err(error) => {
                        if !std::mem::replace(&mut list.unreadable, true) {
                            actions.push(Action::Warn(format!(
                                "{} cannot be read: {error}; the list that was read last stays in force",
                                path(&place)
                            )));
                        }
                    }
                }
            }
            Observation::Tick => {
                for (place, list) in &mut self.lists {
                    if list.deadline.is_some_and(|at| at <= now) {
                        list.deadline = None;
                        actions.push(Action::Look(place.clone()));
                    }
                }
            }
        }
        actions
    }

    fn seen(
        &mut self,
        now: Duration,
        place: Place,
        sight: Option<Sight>,
        hint: Hint,
        actions: &mut Vec<Action>,
    ) {
        if sight.is_none() && !self.lists.contains_key(&place) {
            return;
        }
        let list = self.lists.entry(place.clone()).or_insert_with(|| List::new(now, sight));
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
            actions.push(Action::Read(place));
        } else {
            let told = list.told.is_some();
            self.lists.remove(&place);
            if told {
                let list = Priority::default();
                actions.push(Action::Tell(SourceEvent::Priority { target: place, list }));
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

fn path(place: &Place) -> String {
    match place {
        Some(target) => format!("{target}/{}", super::folder::PRIORITY),
        None => super::folder::PRIORITY.to_owned(),
    }
}
