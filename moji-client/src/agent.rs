//! Decides what the builder's slots do: ask, work, stop, rest, leave.
//!
//! A plain state machine: `handle(now, event) -> effects`. It deliberately knows no tokio, no file
//! system, no clock and no Mock; the client's task owns it and carries out what it decides.
//!
//! ```text
//!   idle ──Ask──▶ asked ──Assigned──▶ busy ──JobEnded──▶ idle (or resting, after trouble here)
//!     ▲             │                  │ Dropped, Disconnected, Stop
//!     └─Disconnected┘                  ▼
//!                                   ending ──JobEnded──▶ idle
//! ```
//!
//! A lost connection ends what is being built: taking attempts up again on a new connection is
//! where [`Event::Disconnected`] will change.

use std::time::Duration;

use moji_proto::AttemptId;

/// A point in time: how long the client runs.
pub type Moment = Duration;

/// How long a slot asks for no work after a trouble of this machine, such as a full disk.
pub const REST: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The server has welcomed this builder.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The server gives an SRPM to a slot.
    Assigned {
        /// The slot.
        slot: u16,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The server wants no more of an attempt.
    Dropped(AttemptId),
    /// A slot's job has ended, and nothing of it is left.
    JobEnded {
        /// The slot.
        slot: u16,
        /// Whether it ended because of a trouble of this machine.
        trouble: bool,
    },
    /// Finish what is being built, deliver it, leave: the first signal.
    Drain,
    /// Stop what is being built, give it back, leave: the second signal.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask the server for work for a slot.
    Ask(u16),
    /// Tell the server that this builder takes no more work.
    SayDrain,
    /// Begin a slot's job.
    Start {
        /// The slot.
        slot: u16,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Stop a slot's job; it ends with [`Event::JobEnded`].
    Abort(u16),
    /// Give an attempt back to the server.
    Release {
        /// The attempt.
        attempt: AttemptId,
        /// Why, for people.
        reason: &'static str,
    },
    /// End the program.
    Leave(Why),
}

/// Why a builder leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was told to.
    Told,
    /// There was nothing to do for long enough.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Idle,
    Asked,
    Busy(AttemptId),
    Ending(AttemptId),
    Resting { until: Moment },
}

/// The state of a builder.
#[derive(Debug)]
pub struct Agent {
    slots: Vec<Slot>,
    connected: bool,
    draining: bool,
    left: bool,
    exit_when_idle: Option<Duration>,
    /// Since when every slot has been waiting for work in vain.
    idle_since: Option<Moment>,
}

impl Agent {
    /// A builder that is not connected. With `exit_when_idle` it leaves when it has been connected
    /// and without any work for so long.
    pub fn new(slots: u16, exit_when_idle: Option<Duration>) -> Self {
        Self {
            slots: vec![Slot::Idle; slots.into()],
            connected: false,
            draining: false,
            left: false,
            exit_when_idle,
            idle_since: None,
        }
    }

    /// Takes note of what happened and decides what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Connected => self.connected = true,
            Event::Disconnected => {
                self.connected = false;
                self.abort_where(|_| true, &mut effects);
            }
            Event::Assigned { slot, attempt } => self.assigned(slot, attempt, &mut effects),
            Event::Dropped(attempt) => {
                self.abort_where(|busy| busy == attempt, &mut effects);
            }
            Event::JobEnded { slot, trouble } => {
                if let Some(state) = self.slots.get_mut(usize::from(slot)) {
                    *state = if trouble { Slot::Resting { until: now + REST } } else { Slot::Idle };
                }
            }
            Event::Drain => self.drain(&mut effects),
            Event::Stop => {
                self.drain(&mut effects);
                for attempt in self.abort_where(|_| true, &mut effects) {
                    effects.push(Effect::Release { attempt, reason: "the builder was stopped" });
                }
            }
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
        rests.chain(self.idle_deadline()).min()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.idle_deadline().is_some_and(|deadline| deadline <= now) && !self.left {
            self.left = true;
            effects.push(Effect::Leave(Why::Idle));
        }
        for slot in &mut self.slots {
            if matches!(slot, Slot::Resting { until } if *until <= now) {
                *slot = Slot::Idle;
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    fn idle_deadline(&self) -> Option<Moment> {
        Some(self.idle_since? + self.exit_when_idle?)
    }

    fn assigned(&mut self, slot: u16, attempt: AttemptId, effects: &mut Vec<Effect>) {
        match self.slots.get_mut(usize::from(slot)) {
            Some(state @ Slot::Asked) => {
                *state = Slot::Busy(attempt);
                effects.push(Effect::Start { slot, attempt });
            }
            _ => effects.push(Effect::Release { attempt, reason: "the slot takes no work (any more)" }),
        }
    }

    fn drain(&mut self, effects: &mut Vec<Effect>) {
        if !self.draining && self.connected {
            effects.push(Effect::SayDrain);
        }
        self.draining = true;
        for slot in &mut self.slots {
            if matches!(slot, Slot::Asked | Slot::Resting { .. }) {
                *slot = Slot::Idle;
            }
        }
    }

    /// Stops the jobs whose attempts fit, and gives these attempts.
    fn abort_where(&mut self, fits: impl Fn(AttemptId) -> bool, effects: &mut Vec<Effect>) -> Vec<AttemptId> {
        let mut aborted = Vec::new();
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            if let Slot::Busy(attempt) = *slot
                && fits(attempt)
            {
                *slot = Slot::Ending(attempt);
                effects.push(Effect::Abort(number));
                aborted.push(attempt);
            }
        }
        aborted
    }

    /// What follows from any change: slots ask, or the builder leaves.
    fn settle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            if !self.connected && *slot == Slot::Asked {
                *slot = Slot::Idle;
            }
            if self.connected && !self.draining && *slot == Slot::Idle {
                *slot = Slot::Asked;
                effects.push(Effect::Ask(number));
            }
        }
        if self.draining && !self.left && self.slots.iter().all(|slot| *slot == Slot::Idle) {
            self.left = true;
            effects.push(Effect::Leave(Why::Told));
        }
        let idle = self.connected && self.slots.iter().all(|slot| *slot == Slot::Asked);
        self.idle_since = idle.then(|| self.idle_since.unwrap_or(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Moment = Duration::from_secs(100);

    fn attempt(serial: u64) -> AttemptId {
        AttemptId { boot: 7, serial }
    }

    fn connected(slots: u16) -> Agent {
        let mut agent = Agent::new(slots, None);
        let asks: Vec<_> = (0..slots).map(Effect::Ask).collect();
        assert_eq!(agent.handle(NOW, Event::Connected), asks);
        agent
    }

    #[test]
    fn a_slot_asks_works_and_asks_again() {
        let mut agent = connected(2);
        let start = Effect::Start { slot: 1, attempt: attempt(5) };
        assert_eq!(agent.handle(NOW, Event::Assigned { slot: 1, attempt: attempt(5) }), [start]);
        assert_eq!(agent.handle(NOW, Event::JobEnded { slot: 1, trouble: false }), [Effect::Ask(1)]);
    }

    #[test]
    fn after_trouble_a_slot_rests() {
        let mut agent = connected(1);
        agent.handle(NOW, Event::Assigned { slot: 0, attempt: attempt(5) });
        assert_eq!(agent.handle(NOW, Event::JobEnded { slot: 0, trouble: true }), []);
        assert_eq!(agent.next_deadline(), Some(NOW + REST));
        assert_eq!(agent.on_time(NOW + REST), [Effect::Ask(0)]);
    }

    #[test]
    fn the_first_signal_lets_the_build_finish_and_the_second_does_not() {
        let mut agent = connected(2);
        agent.handle(NOW, Event::Assigned { slot: 0, attempt: attempt(5) });
        assert_eq!(agent.handle(NOW, Event::Drain), [Effect::SayDrain]);
        let late = agent.handle(NOW, Event::Assigned { slot: 1, attempt: attempt(6) });
        assert!(
            matches!(late[..], [Effect::Release { attempt, .. }] if attempt == self::attempt(6)),
            "{late:?}"
        );
        let stop = agent.handle(NOW, Event::Stop);
        assert!(
            matches!(stop[..], [Effect::Abort(0), Effect::Release { attempt, .. }] if attempt == self::attempt(5))
        );
        assert_eq!(
            agent.handle(NOW, Event::JobEnded { slot: 0, trouble: false }),
            [Effect::Leave(Why::Told)]
        );
    }

    #[test]
    fn an_idle_builder_leaves_when_it_was_told_so_but_not_while_it_is_cut_off() {
        let mut agent = Agent::new(1, Some(Duration::from_secs(60)));
        assert_eq!(agent.next_deadline(), None);
        agent.handle(NOW, Event::Connected);
        assert_eq!(agent.next_deadline(), Some(NOW + Duration::from_secs(60)));
        agent.handle(NOW, Event::Disconnected);
        assert_eq!(agent.next_deadline(), None);
        agent.handle(NOW * 2, Event::Connected);
        agent.handle(NOW * 2, Event::Assigned { slot: 0, attempt: attempt(5) });
        assert_eq!(agent.next_deadline(), None);
        agent.handle(NOW * 3, Event::JobEnded { slot: 0, trouble: false });
        let deadline = NOW * 3 + Duration::from_secs(60);
        assert_eq!(agent.next_deadline(), Some(deadline));
        assert_eq!(agent.on_time(deadline), [Effect::Leave(Why::Idle)]);
    }

    proptest! {
        /// Whatever happens in whatever order: a slot has one job at a time, is not asked for
        /// while it has one, and the builder leaves once, with no job left.
        #[test]
        fn slots_are_never_given_two_jobs(
            choices in proptest::collection::vec((0u8..9, 0u16..3), 0..200),
        ) {
            let mut agent = Agent::new(3, None);
            let (mut serial, mut left) = (0, 0);
            let mut running: [Option<AttemptId>; 3] = [None; 3];
            let mut asked = [false; 3];
            for (choice, slot) in choices {
                let at = usize::from(slot);
                let event = match choice {
                    0 => Event::Connected,
                    1 => Event::Disconnected,
                    2 | 3 => { serial += 1; Event::Assigned { slot, attempt: attempt(serial) } }
                    4 => Event::Dropped(running[at].unwrap_or(attempt(999))),
                    5 | 6 if running[at].is_some() => {
                        running[at] = None;
                        Event::JobEnded { slot, trouble: choice == 6 }
                    }
                    7 => Event::Drain,
                    8 => Event::Stop,
                    _ => continue,
                };
                if event == Event::Disconnected {
                    asked = [false; 3];
                }
                for effect in agent.handle(NOW, event) {
                    match effect {
                        Effect::Ask(slot) => {
                            prop_assert!(!asked[usize::from(slot)] && running[usize::from(slot)].is_none());
                            asked[usize::from(slot)] = true;
                        }
                        Effect::Start { slot, attempt } => {
                            prop_assert!(asked[usize::from(slot)], "work that was not asked for");
                            prop_assert_eq!(running[usize::from(slot)], None);
                            asked[usize::from(slot)] = false;
                            running[usize::from(slot)] = Some(attempt);
                        }
                        Effect::Leave(_) => {
                            left += 1;
                            prop_assert!(running.iter().all(Option::is_none));
                        }
                        Effect::Abort(slot) => prop_assert!(running[usize::from(slot)].is_some()),
                        Effect::SayDrain | Effect::Release { .. } => {}
                    }
                }
            }
            prop_assert!(left <= 1);
        }
    }
}
