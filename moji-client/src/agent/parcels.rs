//! The finished results that wait in the outbox, as far as decisions go: which are announced, which
//! are sent now, which wait, and how much they are together.

use std::time::Duration;

use moji_proto::AttemptId;

use super::words::{Discarded, Effect, GivenBack, Moment};

/// How long to wait before a delivery that the server could not take is tried again.
pub const AGAIN: Duration = Duration::from_secs(15);
/// While more parcels than this wait, no slot asks for work: with what the slots build, all of them
/// can be held on a new connection.
pub const MOST: usize = 256;

/// One finished attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) attempt: AttemptId,
    pub(super) bytes: u64,
    pub(super) expires: Moment,
    /// The slot that the server believes to be busy with it: until it is announced, that one asks for
    /// nothing.
    pub(super) slot: Option<u16>,
    /// Whether the server could not take it the last time.
    pub(super) refused: bool,
    pub(super) state: State,
}

/// How far the delivery of a parcel is, on this connection.
///
/// ```text
///   Apart ──Hold──▶ Held ──Resume──▶ Announced ──Wanted──▶ Wanted ──(a place)──▶ Uploading ──▶ Sent
///     ▲                                  ▲                                                      │
///     └── the connection is lost ──      └────────── Pausing ◀────────── Rejected, again ───────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was said about it.
    Apart,
    /// The server knows that it is here.
    Held,
    /// The server was told what it consists of.
    Announced,
    /// The server wants it.
    Wanted,
    /// Its bytes are on their way.
    Uploading,
    /// They are all sent.
    Sent,
    /// The server could not take it.
    Pausing { until: Moment },
}

impl State {
    /// Whether the server is told about it in this moment, and may be expected to answer.
    fn is_under_way(self) -> bool {
        matches!(self, Self::Announced | Self::Wanted | Self::Uploading | Self::Sent)
    }
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct Parcels(Vec<Parcel>);

impl Parcels {
    pub(super) fn push(&mut self, parcel: Parcel) {
        self.0.push(parcel);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get_mut(&mut self, attempt: AttemptId) -> Option<&mut Parcel> {
        self.0.iter_mut().find(|parcel| parcel.attempt == attempt)
    }

    pub(super) fn remove(&mut self, attempt: AttemptId) -> Option<Parcel> {
        let at = self.0.iter().position(|parcel| parcel.attempt == attempt)?;
        Some(self.0.remove(at))
    }

    /// Whether so much waits that nothing should be added.
    pub(super) fn is_more_than(&self, limit: u64) -> bool {
        let bytes = self.0.iter().fold(0_u64, |sum, parcel| sum.saturating_add(parcel.bytes));
        bytes > limit || self.0.len() > MOST
    }

    /// Whether the server believes a slot to be busy with one of them.
    pub(super) fn occupy(&self, slot: u16) -> bool {
        self.0.iter().any(|parcel| parcel.slot == Some(slot))
    }

    /// Whether the server is expected to take one of them.
    pub(super) fn are_getting_on(&self) -> bool {
        self.0.iter().any(|parcel| parcel.state.is_under_way() && !parcel.refused)
    }

    pub(super) fn connected(&mut self, effects: &mut Vec<Effect>) {
        for parcel in &mut self.0 {
            parcel.state = State::Held;
            effects.push(Effect::Hold(parcel.attempt));
        }
    }

    pub(super) fn disconnected(&mut self) {
        for parcel in &mut self.0 {
            (parcel.state, parcel.slot) = (State::Apart, None);
        }
    }

    /// Removes what has waited for too long and is not just being delivered.
    pub(super) fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.0.retain(|parcel| {
            if !parcel.may_expire() || parcel.expires > now {
                return true;
            }
            let attempt = parcel.attempt;
            if matches!(parcel.state, State::Pausing { .. }) {
                effects.push(Effect::Release { attempt, why: GivenBack::TooOld });
            }
            effects.push(Effect::Discard { attempt, why: Discarded::TooOld });
            false
        });
    }

    /// Announces what has paused, and sends what is wanted, oldest first, at most `places` at a time.
    pub(super) fn deliver(&mut self, now: Moment, places: usize, effects: &mut Vec<Effect>) {
        for parcel in &mut self.0 {
            if matches!(parcel.state, State::Pausing { until } if until <= now) {
                effects.push(parcel.announce());
            }
        }
        let uploading = self.0.iter().filter(|parcel| parcel.state == State::Uploading).count();
        let wanted = self.0.iter_mut().filter(|parcel| parcel.state == State::Wanted);
        for parcel in wanted.take(places.saturating_sub(uploading)) {
            parcel.state = State::Uploading;
            effects.push(Effect::Upload(parcel.attempt));
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        let due = |parcel: &Parcel| match parcel.state {
            State::Pausing { until } => Some(until.min(parcel.expires)),
            _ => parcel.may_expire().then_some(parcel.expires),
        };
        self.0.iter().filter_map(due).min()
    }
}

impl Parcel {
    /// Not while it is being delivered, nor while a slot depends on what the server says of it.
    fn may_expire(&self) -> bool {
        !self.state.is_under_way() && self.slot.is_none()
    }

    /// Tells the server of it; from then on its slot may ask for work.
    pub(super) fn announce(&mut self) -> Effect {
        (self.state, self.slot) = (State::Announced, None);
        Effect::Deliver(self.attempt)
    }
}
