//! Decides what a builder does with its slots and its outbox: hold, ask, work, deliver, stop, leave.
//!
//! A plain state machine: `handle(now, event) -> effects`. It deliberately knows no tokio, no file
//! system, no clock and no Mock; the client's task owns it and carries out what it decides.
//!
//! ```text
//!   idle ──Ask──▶ asked ──Assigned──▶ receiving ──Received──▶ working ──Built──▶ packing ──JobEnded──▶ idle (or
//!     ▲             │                    │ Dropped, Stop,        │ Dropped,        │ Dropped    resting, after
//!     └─Disconnected┘                    ▼ Disconnected          ▼ Stop            ▼               trouble here)
//!                                        └───────────────▶ ending ◀───────────────┘ ──JobEnded──▶ idle
//! ```
//!
//! What a slot works on outlives the connection, and so do the results, which become a parcel in the
//! outbox (`parcels`). On each new connection both are held first; nothing else is said about an
//! attempt before the server has resumed it.

mod parcels;
mod room;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use moji_proto::AttemptId;

use parcels::{Parcel, Parcels, State};
use room::Room;

pub use parcels::{AGAIN, MOST};
pub use room::LOOK_EVERY;
pub use words::{Discarded, Effect, Event, GivenBack, JobEnd, Moment, Notice, Rules, Why};

/// How long a slot asks for no work after a trouble of this machine, such as a full disk.
pub const REST: Duration = Duration::from_secs(30);
/// A builder that was told to leave and has only results left, which nobody takes, leaves them in the
/// outbox after so long.
pub const STRANDED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Idle,
    Asked,
    /// Its SRPM is coming: all is lost with the connection.
    Receiving(AttemptId),
    Working(AttemptId, Standing),
    /// Mock has ended: what came of it is made durable. Nobody else need build that, whoever stops this builder.
    Packing(AttemptId, Standing),
    /// Its job is being stopped. `keep`: results that are ready all the same are worth offering. `held`: the server was
    /// told on this connection that it is held, and has not answered.
    Ending {
        attempt: AttemptId,
        keep: bool,
        held: bool,
    },
    Resting {
        until: Moment,
    },
}

/// How an attempt stands on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing was said about it.
    Apart,
    /// The server was told that it is held, and has not answered.
    Held,
    /// It is this connection's.
    Ours,
}

/// An attempt that ended without results after it was held and before the server's answer.
#[derive(Debug, Clone, Copy)]
struct Gone {
    attempt: AttemptId,
    /// The slot that the server believes to be busy with it.
    slot: u16,
    why: GivenBack,
}

/// The state of a builder.
#[derive(Debug)]
pub struct Agent {
    rules: Rules,
    slots: Vec<Slot>,
    parcels: Parcels,
    gone: Vec<Gone>,
    room: Room,
    connected: bool,
    draining: bool,
    stopped: bool,
    left: bool,
    outbox_is_full: bool,
    /// Since when every slot has been waiting for work in vain.
    idle_since: Option<Moment>,
    /// Since when only results are left, and nobody takes them, although it should leave.
    stranded_since: Option<Moment>,
}

impl Agent {
    /// A builder that is not connected.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            slots: vec![Slot::Idle; rules.slots.into()],
            parcels: Parcels::default(),
            gone: Vec::new(),
            room: Room::new(rules.needs_room),
            connected: false,
            draining: false,
            stopped: false,
            left: false,
            outbox_is_full: false,
            idle_since: None,
            stranded_since: None,
        }
    }

    /// Takes note of what happened and decides what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Found { attempt, bytes, age } => {
                let left = self.rules.outbox_age.saturating_sub(age);
                self.pack(attempt, bytes, now.saturating_add(left), State::Apart, None);
            }
            Event::Connected => self.connected(&mut effects),
            Event::Disconnected => self.disconnected(&mut effects),
            Event::Assigned { slot, attempt } => self.assigned(slot, attempt, &mut effects),
            Event::Received(slot) => {
                if let Some(state) = self.slots.get_mut(usize::from(slot))
                    && let Slot::Receiving(attempt) = *state
                {
                    *state = Slot::Working(attempt, Standing::Ours);
                }
            }
            Event::Built(slot) => {
                if let Some(state) = self.slots.get_mut(usize::from(slot))
                    && let Slot::Working(attempt, standing) = *state
                {
                    *state = Slot::Packing(attempt, standing);
                }
            }
            Event::JobEnded { slot, end } => self.job_ended(now, slot, end, &mut effects),
            Event::Resumed(attempt) => self.resumed(attempt, &mut effects),
            Event::Wanted(attempt) => self.wanted(attempt, &mut effects),
            Event::Uploaded(attempt) => {
                if let Some(parcel) = self.parcels.get_mut(attempt)
                    && parcel.state == State::Uploading
                {
                    parcel.state = State::Sent;
                }
            }
            Event::Broken(attempt) => {
                if let Some(parcel) = self.parcels.remove(attempt) {
                    if !matches!(parcel.state, State::Apart | State::Held) {
                        effects.push(Effect::Release { attempt, why: GivenBack::Broken });
                    }
                    effects.push(Effect::Discard { attempt, why: Discarded::Broken });
                }
            }
            Event::Accepted(attempt) => self.over(attempt, Discarded::Accepted, &mut effects),
            Event::Dropped(attempt) => self.over(attempt, Discarded::Dropped, &mut effects),
            Event::Rejected { attempt, again } => self.rejected(now, attempt, again, &mut effects),
            Event::Looked { enough } => self.room.looked(now, enough, &mut effects),
            Event::Drain => self.drain(&mut effects),
            Event::Stop => self.stop(&mut effects),
        }
        self.settle(now, &mut effects);
        effects
    }

    /// When [`Self::on_time`] has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        let rests = self.slots.iter().filter_map(|slot| match slot {
            Slot::Resting { until } => Some(*until),
            _ => None,
        });
        let (wanting, asked) = self.waiting();
        rests
            .chain(self.parcels.next_deadline())
            .chain(self.room.next_look(wanting, asked))
            .chain(self.idle_deadline())
            .chain(self.stranded_since.map(|since| since + STRANDED))
            .min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.settle(now, &mut effects);
        effects
    }

    fn idle_deadline(&self) -> Option<Moment> {
        Some(self.idle_since?.saturating_add(self.rules.exit_when_idle?))
    }

    /// Says what is held, before anything else.
    fn connected(&mut self, effects: &mut Vec<Effect>) {
        self.connected = true;
        for slot in &mut self.slots {
            if let Slot::Working(attempt, standing) | Slot::Packing(attempt, standing) = slot {
                *standing = Standing::Held;
                effects.push(Effect::Hold(*attempt));
            }
        }
        self.parcels.connected(effects);
        if self.draining {
            effects.push(Effect::SayDrain);
        }
    }

    fn disconnected(&mut self, effects: &mut Vec<Effect>) {
        self.connected = false;
        self.gone.clear();
        self.parcels.disconnected();
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            match *slot {
                Slot::Asked => *slot = Slot::Idle,
                Slot::Receiving(attempt) => {
                    *slot = Slot::Ending { attempt, keep: false, held: false };
                    effects.push(Effect::Abort(number));
                }
                Slot::Working(attempt, _) => *slot = Slot::Working(attempt, Standing::Apart),
                Slot::Packing(attempt, _) => *slot = Slot::Packing(attempt, Standing::Apart),
                Slot::Ending { attempt, keep, .. } => *slot = Slot::Ending { attempt, keep, held: false },
                Slot::Idle | Slot::Resting { .. } => {}
            }
        }
    }

    fn assigned(&mut self, slot: u16, attempt: AttemptId, effects: &mut Vec<Effect>) {
        match self.slots.get_mut(usize::from(slot)) {
            Some(state @ Slot::Asked) if self.room.is_low() => {
                *state = Slot::Idle;
                effects.push(Effect::Release { attempt, why: GivenBack::NoRoom });
            }
            Some(state @ Slot::Asked) => {
                *state = Slot::Receiving(attempt);
                effects.push(Effect::Start { slot, attempt });
            }
            _ => effects.push(Effect::Release { attempt, why: GivenBack::Surplus }),
        }
    }

    fn job_ended(&mut self, now: Moment, slot: u16, end: JobEnd, effects: &mut Vec<Effect>) {
        let Some(state) = self.slots.get_mut(usize::from(slot)) else { return };
        let ended = std::mem::replace(state, Slot::Idle);
        let (attempt, standing) = match ended {
            Slot::Receiving(attempt) => (attempt, Standing::Ours),
            Slot::Working(attempt, standing) | Slot::Packing(attempt, standing) => (attempt, standing),
            Slot::Ending { attempt, keep, held } => {
                match end {
                    JobEnd::Packed { bytes } if keep => {
                        let expires = now.saturating_add(self.rules.outbox_age);
                        let (state, slot) =
                            if held { (State::Held, Some(slot)) } else { (State::Apart, None) };
                        self.pack(attempt, bytes, expires, state, slot);
                    }
                    JobEnd::Packed { .. } => {
                        effects.push(Effect::Discard { attempt, why: Discarded::Dropped });
                    }
                    JobEnd::Nothing | JobEnd::Trouble => {}
                }
                return;
            }
            Slot::Idle | Slot::Asked | Slot::Resting { .. } => return *state = ended,
        };
        let why = match end {
            JobEnd::Packed { bytes } => {
                let expires = now.saturating_add(self.rules.outbox_age);
                let (state, slot) = match standing {
                    Standing::Apart => (State::Apart, None),
                    Standing::Held | Standing::Ours => (State::Held, Some(slot)),
                };
                self.pack(attempt, bytes, expires, state, slot);
                if standing == Standing::Ours
                    && let Some(parcel) = self.parcels.get_mut(attempt)
                {
                    effects.push(parcel.announce());
                }
                return;
            }
            JobEnd::Nothing if self.stopped => GivenBack::Stopped,
            JobEnd::Nothing => GivenBack::Forgotten,
            JobEnd::Trouble => {
                *state = Slot::Resting { until: now + REST };
                GivenBack::Trouble
            }
        };
        match standing {
            // The server gives it out again when it is not held on the next connection.
            Standing::Apart => {}
            Standing::Held => self.gone.push(Gone { attempt, slot, why }),
            Standing::Ours => effects.push(Effect::Release { attempt, why }),
        }
    }

    fn pack(&mut self, attempt: AttemptId, bytes: u64, expires: Moment, state: State, slot: Option<u16>) {
        self.parcels.push(Parcel { attempt, bytes, expires, slot, refused: false, state });
    }

    fn resumed(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        const TWICE: &str = "it gives an attempt back that it was not offered";
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            match slot {
                Slot::Working(held, standing) | Slot::Packing(held, standing) if *held == attempt => {
                    return effects.push(match standing {
                        Standing::Held => {
                            *standing = Standing::Ours;
                            Effect::GoOn(number)
                        }
                        Standing::Apart | Standing::Ours => Effect::Protest(TWICE),
                    });
                }
                Slot::Ending { attempt: ending, held, .. } if *ending == attempt => {
                    *held = false;
                    return effects.push(Effect::Release { attempt, why: GivenBack::Stopped });
                }
                _ => {}
            }
        }
        if let Some(parcel) = self.parcels.get_mut(attempt) {
            let is_held = parcel.state == State::Held;
            return effects.push(if is_held { parcel.announce() } else { Effect::Protest(TWICE) });
        }
        let at = self.gone.iter().position(|gone| gone.attempt == attempt);
        let why = at.map_or(GivenBack::Forgotten, |at| self.gone.remove(at).why);
        effects.push(Effect::Release { attempt, why });
    }

    fn wanted(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let is_worked_on = self
            .slots
            .iter()
            .any(|slot| matches!(slot, Slot::Working(held, _) | Slot::Packing(held, _) if *held == attempt));
        match self.parcels.get_mut(attempt) {
            Some(parcel) if parcel.state == State::Announced => parcel.state = State::Wanted,
            None if !is_worked_on => {}
            _ => effects.push(Effect::Protest("it wants results that it was not offered")),
        }
    }

    /// The server's last word about an attempt.
    fn over(&mut self, attempt: AttemptId, why: Discarded, effects: &mut Vec<Effect>) {
        self.gone.retain(|gone| gone.attempt != attempt);
        if self.parcels.remove(attempt).is_some() {
            effects.push(Effect::Discard { attempt, why });
        }
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            match slot {
                Slot::Receiving(busy) | Slot::Working(busy, _) | Slot::Packing(busy, _)
                    if *busy == attempt =>
                {
                    *slot = Slot::Ending { attempt, keep: false, held: false };
                    effects.push(Effect::Abort(number));
                }
                Slot::Ending { attempt: ending, keep, .. } if *ending == attempt => *keep = false,
                _ => {}
            }
        }
    }

    fn rejected(&mut self, now: Moment, attempt: AttemptId, again: bool, effects: &mut Vec<Effect>) {
        let Some(parcel) = self.parcels.get_mut(attempt) else { return };
        match parcel.state {
            State::Apart | State::Held => {
                effects.push(Effect::Protest("it rejects results that it was not offered"));
            }
            _ if again => (parcel.state, parcel.refused) = (State::Pausing { until: now + AGAIN }, true),
            _ => {
                self.parcels.remove(attempt);
                effects.push(Effect::Discard { attempt, why: Discarded::Refused });
            }
        }
    }

    fn drain(&mut self, effects: &mut Vec<Effect>) {
        if !self.draining && self.connected {
            effects.push(Effect::SayDrain);
        }
        self.draining = true;
        for slot in &mut self.slots {
            if *slot == Slot::Asked {
                *slot = Slot::Idle;
            }
        }
    }

    /// Stops all jobs, and gives back what is this connection's. What is not, the server takes back
    /// by itself. What is built already is packed first, if there is room for it.
    fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.drain(effects);
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let mut given_back = Vec::new();
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            let (attempt, standing) = match *slot {
                Slot::Receiving(attempt) => (attempt, Standing::Ours),
                Slot::Working(attempt, standing) => (attempt, standing),
                Slot::Packing(..) => {
                    effects.push(Effect::Abort(number));
                    continue;
                }
                _ => continue,
            };
            *slot = Slot::Ending { attempt, keep: true, held: standing == Standing::Held };
            effects.push(Effect::Abort(number));
            if standing == Standing::Ours {
                given_back.push(Effect::Release { attempt, why: GivenBack::Stopped });
            }
        }
        effects.append(&mut given_back);
    }

    /// What follows from any change, and from time passing.
    fn settle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for slot in &mut self.slots {
            if matches!(slot, Slot::Resting { until } if *until <= now || self.draining) {
                *slot = Slot::Idle;
            }
        }
        self.parcels.expire(now, effects);
        self.parcels.deliver(now, self.slots.len(), effects);
        let is_full = self.parcels.is_more_than(self.rules.outbox_limit);
        if is_full != self.outbox_is_full {
            self.outbox_is_full = is_full;
            effects.push(Effect::Tell(if is_full { Notice::OutboxFull } else { Notice::OutboxRoomy }));
        }
        let (wanting, asked) = self.waiting();
        self.room.look(now, wanting, asked, effects);
        if wanting && self.room.allows(now) {
            self.ask(effects);
        }
        self.leave_when_done(now, effects);
    }

    fn wants_to_ask(&self, slot: Slot, number: u16) -> bool {
        slot == Slot::Idle
            && self.connected
            && !self.draining
            && !self.outbox_is_full
            && !self.parcels.occupy(number)
            && !self.gone.iter().any(|gone| gone.slot == number)
    }

    /// Whether a slot wants to ask, and whether one has asked.
    fn waiting(&self) -> (bool, bool) {
        let wanting = self.slots.iter().zip(0..).any(|(slot, number)| self.wants_to_ask(*slot, number));
        (wanting, self.slots.contains(&Slot::Asked))
    }

    fn ask(&mut self, effects: &mut Vec<Effect>) {
        for number in 0..self.rules.slots {
            let Some(slot) = self.slots.get(usize::from(number)) else { continue };
            if self.wants_to_ask(*slot, number)
                && let Some(slot) = self.slots.get_mut(usize::from(number))
            {
                *slot = Slot::Asked;
                effects.push(Effect::Ask(number));
            }
        }
    }

    fn leave_when_done(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let all = |state| self.slots.iter().all(|slot| *slot == state);
        let is_idle = self.connected && all(Slot::Asked) && self.parcels.is_empty();
        self.idle_since = is_idle.then(|| self.idle_since.unwrap_or(now));
        let is_stranded = self.draining && all(Slot::Idle) && !self.parcels.are_getting_on();
        self.stranded_since = is_stranded.then(|| self.stranded_since.unwrap_or(now));
        let is_done = self.draining && all(Slot::Idle) && (self.stopped || self.parcels.is_empty());
        let why = if is_done || self.stranded_since.is_some_and(|since| since + STRANDED <= now) {
            Why::Told
        } else if self.idle_deadline().is_some_and(|deadline| deadline <= now) {
            Why::Idle
        } else {
            return;
        };
        if !std::mem::replace(&mut self.left, true) {
            effects.push(Effect::Leave(why));
        }
    }
}
