//! When to look at the disk, and what follows: with too little room nobody asks for work.

use std::time::Duration;

use super::words::{Effect, Moment, Notice};

/// How often the disk is looked at while a slot waits for work.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a look counts for those who want to ask.
const FRESH: Duration = Duration::from_secs(1);

/// What is known of the disk.
#[derive(Debug)]
pub(super) struct Room {
    /// Whether it matters.
    matters: bool,
    looked_at: Option<Moment>,
    looking: bool,
    low: bool,
}

impl Room {
    pub(super) fn new(matters: bool) -> Self {
        Self { matters, looked_at: None, looking: false, low: false }
    }

    pub(super) fn is_low(&self) -> bool {
        self.low
    }

    pub(super) fn looked(&mut self, now: Moment, enough: bool, effects: &mut Vec<Effect>) {
        (self.looking, self.looked_at) = (false, Some(now));
        if self.low == enough {
            self.low = !enough;
            effects.push(Effect::Tell(if self.low { Notice::DiskLow } else { Notice::DiskRoomy }));
        }
    }

    /// Whether a slot may ask for work now.
    pub(super) fn allows(&self, now: Moment) -> bool {
        !self.matters || (!self.low && self.looked_at.is_some_and(|at| now < at + FRESH))
    }

    /// Looks when it is time. `wanting`: a slot wants to ask; `asked`: one has.
    pub(super) fn look(&mut self, now: Moment, wanting: bool, asked: bool, effects: &mut Vec<Effect>) {
        let is_due = if wanting && !self.low {
            !self.allows(now)
        } else {
            self.next_look(wanting, asked).is_some_and(|due| due <= now)
        };
        if self.matters && !self.looking && is_due {
            self.looking = true;
            effects.push(Effect::Look);
        }
    }

    /// When the next look is due.
    pub(super) fn next_look(&self, wanting: bool, asked: bool) -> Option<Moment> {
        if !self.matters || self.looking || !(wanting || asked) {
            return None;
        }
        self.looked_at.map(|at| at + LOOK_EVERY)
    }
}
