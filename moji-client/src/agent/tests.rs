use proptest::prelude::*;

use super::*;

mod world;

use world::World;

const NOW: Moment = Duration::from_secs(100);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn attempt(serial: u64) -> AttemptId {
    AttemptId { boot: 7, serial }
}

fn rules(slots: u16) -> Rules {
    Rules { slots, exit_when_idle: None, outbox_limit: 1_000, outbox_age: 30 * DAY, needs_room: false }
}

fn connected(slots: u16) -> Agent {
    let mut agent = Agent::new(rules(slots));
    let asks: Vec<_> = (0..slots).map(Effect::Ask).collect();
    assert_eq!(agent.handle(NOW, Event::Connected), asks);
    agent
}

/// With an attempt in a slot, whose SRPM is here.
fn working(slots: u16, slot: u16, serial: u64) -> Agent {
    let mut agent = connected(slots);
    let attempt = attempt(serial);
    assert_eq!(agent.handle(NOW, Event::Assigned { slot, attempt }), [Effect::Start { slot, attempt }]);
    assert_eq!(agent.handle(NOW, Event::Received(slot)), []);
    agent
}

fn packed(slot: u16, bytes: u64) -> Event {
    Event::JobEnded { slot, end: JobEnd::Packed { bytes } }
}

fn ended(slot: u16) -> Event {
    Event::JobEnded { slot, end: JobEnd::Nothing }
}

#[test]
fn a_slot_works_announces_its_results_and_asks_again_while_they_are_sent() {
    let mut agent = working(2, 1, 5);
    let five = attempt(5);
    assert_eq!(agent.handle(NOW, packed(1, 10)), [Effect::Deliver(five), Effect::Ask(1)]);
    assert_eq!(agent.handle(NOW, Event::Wanted(five)), [Effect::Upload(five)]);
    assert_eq!(agent.handle(NOW, Event::Uploaded(five)), []);
    let discard = Effect::Discard { attempt: five, why: Discarded::Accepted };
    assert_eq!(agent.handle(NOW, Event::Accepted(five)), [discard]);
}

#[test]
fn what_has_its_srpm_outlives_the_connection_and_what_has_not_does_not() {
    let mut agent = working(2, 1, 5);
    agent.handle(NOW, Event::Assigned { slot: 0, attempt: attempt(6) });
    assert_eq!(agent.handle(NOW, Event::Disconnected), [Effect::Abort(0)]);
    assert_eq!(agent.handle(NOW, ended(0)), []);
    let again = agent.handle(NOW, Event::Connected);
    assert_eq!(again, [Effect::Hold(attempt(5)), Effect::Ask(0)]);
    assert_eq!(agent.handle(NOW, Event::Resumed(attempt(5))), [Effect::GoOn(1)]);
    assert_eq!(agent.handle(NOW, packed(1, 10)), [Effect::Deliver(attempt(5)), Effect::Ask(1)]);
}

#[test]
fn results_that_are_ready_before_the_answer_wait_for_it_and_so_does_their_slot() {
    let mut agent = working(1, 0, 5);
    agent.handle(NOW, Event::Disconnected);
    agent.handle(NOW, Event::Connected);
    assert_eq!(agent.handle(NOW, packed(0, 10)), [], "the server believes the slot to be busy");
    let resumed = agent.handle(NOW, Event::Resumed(attempt(5)));
    assert_eq!(resumed, [Effect::Deliver(attempt(5)), Effect::Ask(0)]);
}

#[test]
fn an_attempt_that_fails_before_the_answer_is_given_back_after_it() {
    let mut agent = working(1, 0, 5);
    agent.handle(NOW, Event::Disconnected);
    agent.handle(NOW, Event::Connected);
    assert_eq!(agent.handle(NOW, Event::JobEnded { slot: 0, end: JobEnd::Trouble }), []);
    assert_eq!(agent.on_time(NOW + REST), [], "the server believes the slot to be busy");
    let release = Effect::Release { attempt: attempt(5), why: GivenBack::Trouble };
    assert_eq!(agent.handle(NOW + REST, Event::Resumed(attempt(5))), [release, Effect::Ask(0)]);
}

#[test]
fn parcels_are_offered_oldest_first_and_sent_as_many_at_a_time_as_there_are_slots() {
    let mut agent = Agent::new(rules(2));
    for serial in [9, 4, 6] {
        agent.handle(NOW, Event::Found { attempt: attempt(serial), bytes: 1, age: DAY });
    }
    let held = agent.handle(NOW, Event::Connected);
    let holds = [9, 4, 6].map(|serial| Effect::Hold(attempt(serial)));
    assert_eq!(held[..3], holds);
    for serial in [6, 4, 9] {
        let resumed = agent.handle(NOW, Event::Resumed(attempt(serial)));
        assert_eq!(resumed, [Effect::Deliver(attempt(serial))]);
    }
    assert_eq!(agent.handle(NOW, Event::Wanted(attempt(6))), [Effect::Upload(attempt(6))]);
    assert_eq!(agent.handle(NOW, Event::Wanted(attempt(4))), [Effect::Upload(attempt(4))]);
    assert_eq!(agent.handle(NOW, Event::Wanted(attempt(9))), []);
    assert_eq!(agent.handle(NOW, Event::Uploaded(attempt(4))), [Effect::Upload(attempt(9))]);
}

#[test]
fn rejected_results_are_announced_again_after_a_pause_and_refused_ones_removed() {
    let mut agent = working(1, 0, 5);
    let five = attempt(5);
    agent.handle(NOW, packed(0, 10));
    assert_eq!(agent.handle(NOW, Event::Rejected { attempt: five, again: true }), []);
    assert_eq!(agent.next_deadline(), Some(NOW + AGAIN));
    assert_eq!(agent.on_time(NOW + AGAIN), [Effect::Deliver(five)]);
    let discard = Effect::Discard { attempt: five, why: Discarded::Refused };
    assert_eq!(agent.handle(NOW, Event::Rejected { attempt: five, again: false }), [discard]);
}

#[test]
fn a_full_outbox_stops_the_asking_until_there_is_room() {
    let mut agent = working(2, 0, 5);
    let full = agent.handle(NOW, packed(0, 1_001));
    assert_eq!(full, [Effect::Deliver(attempt(5)), Effect::Tell(Notice::OutboxFull)]);
    let accepted = agent.handle(NOW, Event::Accepted(attempt(5)));
    let discard = Effect::Discard { attempt: attempt(5), why: Discarded::Accepted };
    assert_eq!(accepted, [discard, Effect::Tell(Notice::OutboxRoomy), Effect::Ask(0)]);
}

#[test]
fn results_that_are_too_old_are_removed_but_not_while_they_are_sent() {
    let mut agent = Agent::new(rules(1));
    agent.handle(NOW, Event::Found { attempt: attempt(1), bytes: 1, age: 29 * DAY });
    agent.handle(NOW, Event::Found { attempt: attempt(2), bytes: 1, age: 29 * DAY });
    assert_eq!(agent.next_deadline(), Some(NOW + DAY));
    agent.handle(NOW, Event::Connected);
    agent.handle(NOW, Event::Resumed(attempt(2)));
    let discard = |serial| Effect::Discard { attempt: attempt(serial), why: Discarded::TooOld };
    assert_eq!(agent.on_time(NOW + DAY), [discard(1)]);
    assert_eq!(agent.next_deadline(), None);
    let rejected = agent.handle(NOW + DAY, Event::Rejected { attempt: attempt(2), again: true });
    let release = Effect::Release { attempt: attempt(2), why: GivenBack::TooOld };
    assert_eq!(rejected, [release, discard(2)]);
    // The server gives back what is not here any more.
    let release = Effect::Release { attempt: attempt(1), why: GivenBack::Forgotten };
    assert_eq!(agent.handle(NOW + DAY, Event::Resumed(attempt(1))), [release]);
}

#[test]
fn without_room_on_the_disk_nobody_asks_and_what_comes_is_given_back() {
    let mut agent = Agent::new(Rules { needs_room: true, ..rules(2) });
    assert_eq!(agent.handle(NOW, Event::Connected), [Effect::Look]);
    let enough = Event::Looked { enough: true };
    assert_eq!(agent.handle(NOW, enough), [Effect::Ask(0), Effect::Ask(1)]);
    assert_eq!(agent.next_deadline(), Some(NOW + LOOK_EVERY));
    assert_eq!(agent.on_time(NOW + LOOK_EVERY), [Effect::Look]);
    let low = agent.handle(NOW + LOOK_EVERY, Event::Looked { enough: false });
    assert_eq!(low, [Effect::Tell(Notice::DiskLow)]);
    let now = NOW + LOOK_EVERY;
    let release = Effect::Release { attempt: attempt(3), why: GivenBack::NoRoom };
    assert_eq!(agent.handle(now, Event::Assigned { slot: 1, attempt: attempt(3) }), [release]);
    let now = now + LOOK_EVERY;
    assert_eq!(agent.on_time(now), [Effect::Look]);
    let roomy = agent.handle(now, enough);
    assert_eq!(roomy, [Effect::Tell(Notice::DiskRoomy), Effect::Ask(1)]);
}

#[test]
fn after_trouble_a_slot_rests() {
    let mut agent = working(1, 0, 5);
    let release = Effect::Release { attempt: attempt(5), why: GivenBack::Trouble };
    assert_eq!(agent.handle(NOW, Event::JobEnded { slot: 0, end: JobEnd::Trouble }), [release]);
    assert_eq!(agent.next_deadline(), Some(NOW + REST));
    assert_eq!(agent.on_time(NOW + REST), [Effect::Ask(0)]);
}

#[test]
fn the_first_signal_lets_the_build_finish_and_the_second_does_not() {
    let mut agent = working(2, 0, 5);
    assert_eq!(agent.handle(NOW, Event::Drain), [Effect::SayDrain]);
    let late = agent.handle(NOW, Event::Assigned { slot: 1, attempt: attempt(6) });
    assert_eq!(late, [Effect::Release { attempt: attempt(6), why: GivenBack::Surplus }]);
    let release = Effect::Release { attempt: attempt(5), why: GivenBack::Stopped };
    assert_eq!(agent.handle(NOW, Event::Stop), [Effect::Abort(0), release]);
    assert_eq!(agent.handle(NOW, Event::Stop), []);
    assert_eq!(agent.handle(NOW, ended(0)), [Effect::Leave(Why::Told)]);
}

#[test]
fn what_is_built_is_not_given_back_but_kept() {
    let packing = || {
        let mut agent = working(1, 0, 5);
        assert_eq!(agent.handle(NOW, Event::Built(0)), []);
        agent.handle(NOW, Event::Drain);
        assert_eq!(agent.handle(NOW, Event::Stop), [Effect::Abort(0)], "for it may wait for room");
        assert_eq!(agent.handle(NOW, Event::Stop), []);
        agent
    };
    let mut agent = packing();
    assert_eq!(agent.handle(NOW, packed(0, 10)), [Effect::Deliver(attempt(5)), Effect::Leave(Why::Told)]);
    // There was no room.
    let mut agent = packing();
    let release = Effect::Release { attempt: attempt(5), why: GivenBack::Stopped };
    assert_eq!(agent.handle(NOW, ended(0)), [release, Effect::Leave(Why::Told)]);
    // Another connection, and another server that has it from there.
    let mut agent = packing();
    agent.handle(NOW, Event::Disconnected);
    assert_eq!(agent.handle(NOW, Event::Connected), [Effect::Hold(attempt(5)), Effect::SayDrain]);
    assert_eq!(agent.handle(NOW, Event::Dropped(attempt(5))), [Effect::Abort(0)]);
    let discard = Effect::Discard { attempt: attempt(5), why: Discarded::Dropped };
    assert_eq!(agent.handle(NOW, packed(0, 10)), [discard, Effect::Leave(Why::Told)]);
}

#[test]
fn a_draining_builder_delivers_and_does_not_wait_for_ever() {
    let drained = || {
        let mut agent = working(1, 0, 5);
        agent.handle(NOW, Event::Drain);
        assert_eq!(agent.handle(NOW, packed(0, 10)), [Effect::Deliver(attempt(5))]);
        agent
    };
    let mut agent = drained();
    let accepted = agent.handle(NOW, Event::Accepted(attempt(5)));
    assert_eq!(accepted.last(), Some(&Effect::Leave(Why::Told)));
    // An upload may take as long as it takes; only a server that is away is not waited for.
    let mut agent = drained();
    assert_eq!(agent.next_deadline().filter(|deadline| *deadline < NOW + DAY), None);
    agent.handle(NOW, Event::Disconnected);
    assert_eq!(agent.on_time(NOW + STRANDED), [Effect::Leave(Why::Told)]);
    // Nor one that takes nothing.
    let mut agent = drained();
    let mut now = NOW;
    let left = loop {
        agent.handle(now, Event::Rejected { attempt: attempt(5), again: true });
        now += AGAIN;
        let effects = agent.on_time(now);
        if effects != [Effect::Deliver(attempt(5))] {
            break effects;
        }
    };
    assert!(left.contains(&Effect::Leave(Why::Told)), "{left:?}");
    assert_eq!(now, NOW + STRANDED);
}

#[test]
fn an_idle_builder_leaves_when_it_was_told_so_but_not_while_it_is_cut_off_or_has_results() {
    let idle = Some(Duration::from_secs(60));
    let mut agent = Agent::new(Rules { exit_when_idle: idle, ..rules(1) });
    let at = |agent: &Agent| agent.next_deadline().filter(|deadline| *deadline < NOW + DAY);
    assert_eq!(at(&agent), None);
    agent.handle(NOW, Event::Connected);
    assert_eq!(at(&agent), Some(NOW + Duration::from_secs(60)));
    agent.handle(NOW, Event::Disconnected);
    assert_eq!(at(&agent), None);
    agent.handle(NOW * 2, Event::Connected);
    agent.handle(NOW * 2, Event::Assigned { slot: 0, attempt: attempt(5) });
    agent.handle(NOW * 2, Event::Received(0));
    assert_eq!(at(&agent), None);
    agent.handle(NOW * 3, packed(0, 1));
    assert_eq!(at(&agent), None);
    agent.handle(NOW * 4, Event::Accepted(attempt(5)));
    let deadline = NOW * 4 + Duration::from_secs(60);
    assert_eq!(agent.next_deadline(), Some(deadline));
    assert_eq!(agent.on_time(deadline), [Effect::Leave(Why::Idle)]);
}

#[test]
fn a_server_that_talks_nonsense_is_contradicted() {
    let protests = |effects: Vec<Effect>| matches!(effects[..], [Effect::Protest(_)]);
    let mut agent = working(2, 0, 5);
    assert!(protests(agent.handle(NOW, Event::Resumed(attempt(5)))));
    assert!(protests(agent.handle(NOW, Event::Wanted(attempt(5)))));
    agent.handle(NOW, packed(0, 1));
    agent.handle(NOW, Event::Wanted(attempt(5)));
    assert!(protests(agent.handle(NOW, Event::Wanted(attempt(5)))));
    assert_eq!(agent.handle(NOW, Event::Wanted(attempt(77))), [], "it may have been given back just now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens in whatever order: see [`World`] for what must be so after each event; and a
    /// builder that is told to leave, leaves, whether or not there is a server.
    #[test]
    fn nothing_is_lost_and_nothing_said_too_early(
        choices in proptest::collection::vec((0u8..26, 0usize..6), 0..160),
        ending in 0u8..3,
        needs_room in any::<bool>(),
    ) {
        let mut world = World::new(Rules { needs_room, ..rules(3) });
        for (choice, which) in choices {
            world.step(choice, which)?;
        }
        world.leave(ending)?;
    }
}
