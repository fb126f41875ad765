//! Attempts that come back, and attempts that compete.

use moji_proto::{AttemptId, FailureKind, Outcome};

use super::super::{Claim, Event, LeaseState, SessionId};
use super::world::{GRACE, PATIENCE, World, failed, key};
use super::{attempt_of, ready};

/// An attempt of `board` whose connection is lost, on a farm with `board` connected again.
fn lost() -> (World, SessionId, AttemptId) {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.ask(session, 0);
    let attempt = attempt_of(&world, 0);
    world.lose(session);
    let session = world.connect("board", &["f43-arm"]);
    (world, session, attempt)
}

/// The same, but another builder was given the SRPM before it came back: its attempt is the second.
fn rivals() -> (World, AttemptId, AttemptId) {
    let (mut world, session, first) = lost();
    world.wait(GRACE);
    let other = world.connect("other", &["f43-arm"]);
    world.ask(other, 0);
    let second = attempt_of(&world, 0);
    world.hold(session, first);
    assert_eq!(world.scheduler.holders(&key(0)).count(), 2);
    world.check();
    (world, first, second)
}

#[test]
fn within_the_grace_an_attempt_goes_on() {
    let (mut world, session, attempt) = lost();
    world.hold(session, attempt);
    world.wait(GRACE * 2);
    assert_eq!(attempt_of(&world, 0), attempt);
    world.deliver(attempt, Outcome::Succeeded);
    world.finish_commit(attempt, true);
    assert!(world.accepted.contains(&attempt) && world.finished.contains(&key(0)));
}

#[test]
fn after_the_grace_it_is_taken_back_from_the_queue_and_was_no_loss() {
    let (mut world, session, attempt) = lost();
    world.wait(GRACE);
    assert!(world.source.contains_key(&key(0)));
    assert!(world.scheduler.blame.has_tried(&key(0), &"board".parse().unwrap()));
    world.hold(session, attempt);
    assert!(world.working.contains_key(&key(0)) && attempt_of(&world, 0) == attempt);
    assert!(!world.scheduler.blame.has_tried(&key(0), &"board".parse().unwrap()));
}

#[test]
fn a_builder_that_was_started_anew_does_not_keep_others_waiting() {
    let (mut world, session, attempt) = lost();
    world.ask(session, 1);
    assert_eq!(attempt_of(&world, 0), attempt, "another slot says nothing about it");
    world.ask(session, 0);
    assert_ne!(attempt_of(&world, 0), attempt);
    assert!(world.scheduler.blame.has_tried(&key(0), &"board".parse().unwrap()), "it was lost");
}

#[test]
fn what_somebody_may_hold_is_given_to_nobody_else_until_that_is_known() {
    let (mut world, session, attempt) = lost();
    world.tell(Event::Reserved(key(0)));
    world.ask(session, 0);
    assert_eq!(attempt_of(&world, 0), attempt);
    world.wait(GRACE);
    assert!(world.source.contains_key(&key(0)), "although a slot waits");
    world.hold(session, attempt);
    world.tell(Event::Unreserved(key(0)));
    assert_eq!(attempt_of(&world, 0), attempt);
}

#[test]
fn an_srpm_that_was_replaced_is_not_taken_back() {
    let (mut world, session, attempt) = lost();
    world.wait(GRACE);
    world.drop_srpm(0, 20);
    world.hold(session, attempt);
    assert!(world.source.contains_key(&key(0)) && !world.memories.contains_key(&attempt));
}

#[test]
fn the_first_good_result_wins_and_the_rival_is_stale() {
    for winner in 0..2 {
        let (mut world, first, second) = rivals();
        let (winner, loser) = if winner == 0 { (first, second) } else { (second, first) };
        world.deliver(winner, Outcome::Succeeded);
        assert!(world.stale.is_empty(), "before it is published nothing is decided");
        world.finish_commit(winner, true);
        assert_eq!(world.stale, [loser]);
        assert!(world.accepted.contains(&winner) && world.scheduler.leases().next().is_none());
    }
}

#[test]
fn a_rival_that_delivers_while_the_other_is_published_waits_and_is_stale() {
    let (mut world, first, second) = rivals();
    world.deliver(first, Outcome::Succeeded);
    world.deliver(second, Outcome::Succeeded);
    assert_eq!(world.committing.len(), 1);
    world.finish_commit(first, true);
    assert_eq!(world.stale, [second]);
}

#[test]
fn one_that_comes_back_when_another_is_being_published_is_stale() {
    let (mut world, session, first) = lost();
    world.wait(GRACE);
    let other = world.connect("other", &["f43-arm"]);
    world.ask(other, 0);
    let second = attempt_of(&world, 0);
    world.deliver(second, Outcome::Succeeded);
    world.hold(session, first);
    assert_eq!(world.stale, [first]);
    assert_eq!(attempt_of(&world, 0), second);
}

#[test]
fn a_failure_waits_for_what_its_rival_does() {
    let (mut world, first, second) = rivals();
    world.deliver(first, failed(FailureKind::Package));
    assert!(world.committing.is_empty());
    world.deliver(second, Outcome::Succeeded);
    world.finish_commit(second, true);
    assert_eq!(world.stale, [first]);

    let (mut world, first, second) = rivals();
    world.deliver(first, failed(FailureKind::Package));
    let session = world.memories[&second].session.unwrap();
    world.lose(session);
    assert!(world.committing.is_empty(), "it may come back");
    world.wait(GRACE);
    assert!(world.committing.contains_key(&first), "nobody can do better any more");
}

#[test]
fn a_builder_that_is_back_before_the_server_noticed_gets_its_attempt_when_the_old_connection_is_closed() {
    let (mut world, old) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.ask(old, 0);
    let attempt = attempt_of(&world, 0);
    let new = world.connect("board", &["f43-arm"]);
    world.hold(new, attempt);
    assert_eq!(world.doomed.first(), Some(&old));
    assert!(world.scheduler.may_settle(old, attempt) && !world.scheduler.may_settle(new, attempt));
    world.lose(old);
    assert!(world.scheduler.may_settle(new, attempt));

    // It is lost again before the old one was closed.
    let third = world.connect("board", &["f43-arm"]);
    world.hold(third, attempt);
    world.lose(third);
    world.lose(new);
    assert!(matches!(world.scheduler.lease(attempt).unwrap().state, LeaseState::Orphaned { .. }));
}

#[test]
fn only_the_builder_of_that_name_gets_an_attempt_back_and_nobody_one_that_was_never_given() {
    let (mut world, _, attempt) = lost();
    let thief = world.connect("thief", &["f43-arm"]);
    let claim = Claim { session: thief, slot: None };
    world.tell(Event::Held { claim, attempt });
    assert!(!world.scheduler.may_settle(thief, attempt));
    world.wait(GRACE);
    let invented = AttemptId { boot: attempt.boot, serial: 99 };
    let target = super::world::target("f43-arm");
    world.tell(Event::Claimed { claim, attempt: invented, key: key(0), target, generation: 0 });
    assert_eq!(world.stale, [attempt, invented]);
    assert!(world.source.contains_key(&key(0)));
}

#[test]
fn what_a_builder_has_kept_is_built_against_what_it_was_given() {
    let (mut world, session, attempt) = lost();
    world.wait(GRACE);
    world.publish(&["something"]);
    world.hold(session, attempt);
    assert_eq!(world.scheduler.lease(attempt).unwrap().generation, 1);
}

#[test]
fn a_restart_of_the_server_costs_nothing_and_is_nobodys_fault() {
    let (mut world, session) = ready(&["f43-arm"]);
    for n in 0..2 {
        world.drop_srpm(n, 10);
        world.ask(session, n as u16);
    }
    let attempts = [attempt_of(&world, 0), attempt_of(&world, 1)];
    world.restart();
    world.step(41, 0, 0);
    let session = world.connect("board", &["f43-arm"]);
    world.ask(session, 2);
    world.hold(session, attempts[0]);
    assert_eq!(attempt_of(&world, 0), attempts[0]);
    world.wait(PATIENCE);
    assert!(!world.scheduler.blame.has_tried(&key(1), &"board".parse().unwrap()));
    assert_ne!(attempt_of(&world, 1), attempts[1], "nobody came for it: it is given out again");
}
