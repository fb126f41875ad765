//! Whose fault it was, and what follows.

use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome};

use super::super::blame::{IDLE, MOST_STANDINGS};
use super::super::{Event, FIRST_PAUSE, MOST_RETURNS, RETURNS, STREAK, Try, TryKind};
use super::world::{GRACE, World, failed, key};
use super::{attempt_of, ready};

/// A farm with boards of these names, each of which has asked once.
fn boards(names: &[&str]) -> World {
    let mut world = World::new();
    world.step(41, 0, 0);
    for name in names {
        let session = world.connect(name, &["f43-arm"]);
        world.ask(session, 0);
    }
    world
}

fn builder_of(world: &World, n: usize) -> String {
    world.scheduler.holders(&key(n)).next().map(|lease| lease.builder.to_string()).unwrap_or_default()
}

/// The builder of an SRPM fails, and its slot asks again. Gives the builder's name.
fn fails(world: &mut World, n: usize, kind: FailureKind) -> String {
    let (attempt, name) = (attempt_of(world, n), builder_of(world, n));
    let session = world.memories[&attempt].session.unwrap();
    world.deliver(attempt, failed(kind));
    if !world.committing.contains_key(&attempt) {
        world.ask(session, 0);
    }
    world.check();
    name
}

#[test]
fn what_a_builder_is_to_blame_for_is_tried_elsewhere_and_then_held() {
    let mut world = boards(&["panda", "tegra"]);
    world.drop_srpm(0, 10);
    let tried = [
        fails(&mut world, 0, FailureKind::Infrastructure),
        fails(&mut world, 0, FailureKind::Infrastructure),
        fails(&mut world, 0, FailureKind::Infrastructure),
    ];
    assert_eq!(tried[..2], ["panda", "tegra"]);
    let attempt = *world.committing.keys().next().unwrap();
    world.finish_commit(attempt, true);
    let reason = &world.held[&key(0)];
    assert!(reason.starts_with("3 attempts came to nothing: panda (failed: builder or repository), tegra"));
    world.drop_srpm(0, 20);
    assert!(world.working.contains_key(&key(0)), "put into SOURCE again it begins anew");
}

#[test]
fn on_the_only_builder_it_is_tried_three_times() {
    let mut world = boards(&["panda"]);
    world.drop_srpm(0, 10);
    for _ in 0..3 {
        assert!(world.committing.is_empty());
        fails(&mut world, 0, FailureKind::Infrastructure);
    }
    let attempt = *world.committing.keys().next().unwrap();
    world.finish_commit(attempt, true);
    assert!(world.held[&key(0)].contains("on the only builder"), "{:?}", world.held);
}

#[test]
fn a_builder_that_has_tried_leaves_it_to_one_that_has_not_as_long_as_there_is_one() {
    let mut world = boards(&["panda"]);
    let busy = world.connect("tegra", &["f43-arm"]);
    world.drop_srpm(0, 10);
    fails(&mut world, 0, FailureKind::Infrastructure);
    assert!(world.source.contains_key(&key(0)), "it waits for tegra");
    world.lose(busy);
    assert_eq!(builder_of(&world, 0), "panda");
}

#[test]
fn a_package_that_kills_builders_cannot_kill_a_fourth() {
    let mut world = boards(&["panda", "tegra", "odroid", "rock"]);
    world.drop_srpm(0, 10);
    let mut killed = Vec::new();
    while world.held.is_empty() {
        let attempt = attempt_of(&world, 0);
        killed.push(builder_of(&world, 0));
        let session = world.memories.remove(&attempt).unwrap().session.unwrap();
        world.lose(session);
        world.wait(GRACE);
        world.check();
    }
    assert_eq!(killed, ["panda", "tegra", "odroid"]);
    assert!(world.held[&key(0)].contains("panda (lost), tegra (lost), odroid (lost)"));
}

#[test]
fn losses_count_across_a_restart_and_the_restart_does_not() {
    let mut world = boards(&["panda", "tegra"]);
    world.drop_srpm(0, 10);
    fails(&mut world, 0, FailureKind::Infrastructure);
    fails(&mut world, 0, FailureKind::Infrastructure);
    world.restart();
    world.wait(super::world::PATIENCE);
    assert!(world.held.is_empty());
    world.step(41, 0, 0);
    let session = world.connect("odroid", &["f43-arm"]);
    world.ask(session, 0);
    let attempt = attempt_of(&world, 0);
    world.deliver(attempt, failed(FailureKind::Infrastructure));
    world.finish_commit(attempt, true);
    assert!(world.held.contains_key(&key(0)));
}

#[test]
fn a_server_that_ended_before_it_could_hold_what_killed_builders_does_not_give_it_out_again() {
    let mut world = World::new();
    let lost = |serial, name: &str| Try {
        attempt: AttemptId { boot: 5, serial },
        builder: name.parse().unwrap(),
        kind: TryKind::Lost,
    };
    let tries = vec![lost(1, "panda"), lost(2, "tegra"), lost(3, "odroid")];
    world.tell(Event::Blamed(key(0), tries));
    world.drop_srpm(0, 10);
    assert!(world.held[&key(0)].contains("panda (lost)"));
    world.drop_srpm(0, 20);
    assert!(world.source.contains_key(&key(0)), "a person wants it tried again");
}

#[test]
fn a_builder_with_three_failures_in_a_row_pauses_longer_each_time() {
    let (mut world, session) = ready(&["f43-arm"]);
    let other = world.connect("other", &["f43-arm"]);
    for n in 0..3 {
        world.drop_srpm(n, n as i64);
        world.ask(session, 0);
        let attempt = attempt_of(&world, n);
        world.deliver(attempt, failed(FailureKind::Infrastructure));
    }
    assert_eq!(world.suspended, [FIRST_PAUSE]);
    world.lose(other);
    world.ask(session, 0);
    assert!(world.working.is_empty());
    world.wait(FIRST_PAUSE - Duration::from_millis(1));
    assert!(world.working.is_empty());
    world.wait(Duration::from_millis(1));
    let attempt = attempt_of(&world, 0);
    world.deliver(attempt, failed(FailureKind::Infrastructure));
    assert_eq!(world.suspended, [FIRST_PAUSE, FIRST_PAUSE * 2]);
    // On a new connection it is told how long it has to wait still.
    world.wait(FIRST_PAUSE);
    world.lose(session);
    let session = world.connect("board", &["f43-arm"]);
    assert_eq!(world.suspended, [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE]);
    world.wait(FIRST_PAUSE);
    world.ask(session, 0);
    let good = world.memories.keys().next().copied().unwrap();
    world.deliver(good, Outcome::Succeeded);
    assert!(world.scheduler.blame.streak(&"board".parse().unwrap()) > 0, "it may not be good");
    world.finish_commit(good, true);
    assert_eq!(world.scheduler.blame.streak(&"board".parse().unwrap()), 0);
}

/// A builder delivers what is not good, and its slot asks again. Gives the builder's name.
fn lies(world: &mut World, n: usize) -> String {
    let (attempt, name) = (attempt_of(world, n), builder_of(world, n));
    let session = world.memories[&attempt].session.unwrap();
    world.deliver(attempt, Outcome::Succeeded);
    world.reject(attempt);
    assert!(!world.memories.contains_key(&attempt), "the builder was not told");
    world.ask(session, 0);
    world.check();
    name
}

#[test]
fn what_is_rejected_is_tried_elsewhere_and_then_held() {
    let mut world = boards(&["panda", "tegra"]);
    world.drop_srpm(0, 10);
    let tried = [lies(&mut world, 0), lies(&mut world, 0), lies(&mut world, 0)];
    assert_eq!(tried[..2], ["panda", "tegra"]);
    let reason = &world.held[&key(0)];
    assert!(reason.starts_with("3 attempts came to nothing: panda (results refused), tegra"), "{reason}");
}

#[test]
fn a_builder_with_three_rejections_in_a_row_is_suspended() {
    let mut world = boards(&["panda", "tegra"]);
    for n in 0..3 {
        world.drop_srpm(n, 10);
        assert!(world.suspended.is_empty());
        // Each in vain, for another builder to build.
        let liar = lies(&mut world, n);
        assert_eq!(liar, "panda", "it waits no longer than the other one");
        let good = attempt_of(&world, n);
        assert_eq!(builder_of(&world, n), "tegra");
        let session = world.memories[&good].session.unwrap();
        world.deliver(good, Outcome::Succeeded);
        world.finish_commit(good, true);
        world.ask(session, 0);
        assert!(world.finished.contains(&key(n)));
    }
    assert_eq!(world.suspended, [FIRST_PAUSE]);
}

#[test]
fn what_was_rejected_while_its_builder_was_away_does_not_come_back() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.ask(session, 0);
    let attempt = attempt_of(&world, 0);
    world.deliver(attempt, Outcome::Succeeded);
    world.lose(session);
    world.reject(attempt);
    assert!(world.source.contains_key(&key(0)));
    for _ in 0..2 {
        let session = world.connect("board", &["f43-arm"]);
        let memory = world.memories[&attempt].clone();
        world.hold(session, attempt);
        assert_eq!(world.stale, [attempt]);
        // And neither after a restart: the history knows.
        world.memories.insert(attempt, memory);
        world.stale.clear();
        world.restart();
        world.step(41, 0, 0);
    }
}

#[test]
fn a_rival_that_waits_is_next_when_what_was_published_first_is_rejected() {
    for outcome in [Outcome::Succeeded, failed(FailureKind::Package)] {
        let mut world = boards(&["panda", "tegra"]);
        world.drop_srpm(0, 10);
        let first = attempt_of(&world, 0);
        let session = world.memories[&first].session.unwrap();
        world.lose(session);
        world.wait(GRACE);
        let second = attempt_of(&world, 0);
        let back = world.connect("panda", &["f43-arm"]);
        world.hold(back, first);
        world.deliver(first, Outcome::Succeeded);
        world.deliver(second, outcome.clone());
        world.reject(first);
        world.check();
        assert_eq!(world.committing.keys().collect::<Vec<_>>(), [&second]);
        world.finish_commit(second, true);
        assert!(world.finished.contains(&key(0)));
    }
}

#[test]
fn what_the_server_has_lost_is_delivered_again_and_is_nobodys_fault() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    world.ask(session, 0);
    let attempt = attempt_of(&world, 0);
    for _ in 0..2 * STREAK {
        world.deliver(attempt, Outcome::Succeeded);
        world.lose_results(attempt);
        world.check();
        assert!(world.scheduler.may_settle(session, attempt) && world.working.contains_key(&key(0)));
    }
    assert_eq!((world.scheduler.griefs(&key(0)), world.suspended.len()), (0, 0));
    // Its builder goes, and is back within the grace, and after it.
    for wait in [GRACE / 2, 2 * GRACE] {
        let session = world.memories[&attempt].session.unwrap();
        world.deliver(attempt, Outcome::Succeeded);
        world.lose(session);
        world.lose_results(attempt);
        world.check();
        world.wait(wait);
        assert_eq!(world.working.contains_key(&key(0)), wait < GRACE);
        let session = world.connect("board", &["f43-arm"]);
        world.hold(session, attempt);
        assert!(world.scheduler.may_settle(session, attempt));
    }
    world.deliver(attempt, Outcome::Succeeded);
    world.finish_commit(attempt, true);
    assert!(world.finished.contains(&key(0)) && world.accepted.contains(&attempt));
}

#[test]
fn a_rival_that_waits_is_next_when_what_was_to_be_published_first_is_lost() {
    for (outcome, is_next) in [(Outcome::Succeeded, true), (failed(FailureKind::Package), false)] {
        let mut world = boards(&["panda", "tegra"]);
        world.drop_srpm(0, 10);
        let first = attempt_of(&world, 0);
        world.lose(world.memories[&first].session.unwrap());
        world.wait(GRACE);
        let second = attempt_of(&world, 0);
        let back = world.connect("panda", &["f43-arm"]);
        world.hold(back, first);
        world.deliver(first, Outcome::Succeeded);
        world.deliver(second, outcome);
        world.lose_results(first);
        world.check();
        assert_eq!(world.committing.contains_key(&second), is_next);
        world.deliver(first, Outcome::Succeeded);
        world.finish_commit(if is_next { second } else { first }, true);
        assert!(world.finished.contains(&key(0)));
    }
}

#[test]
fn a_success_that_waits_is_published_though_a_third_one_runs() {
    let mut world = boards(&["panda", "tegra", "odroid"]);
    world.drop_srpm(0, 10);
    let mut attempts = Vec::new();
    for _ in 0..2 {
        let attempt = attempt_of(&world, 0);
        attempts.push(attempt);
        let session = world.memories[&attempt].session.unwrap();
        world.lose(session);
        world.wait(GRACE);
    }
    let third = attempt_of(&world, 0);
    for (name, attempt) in ["panda", "tegra"].iter().zip(&attempts) {
        let back = world.connect(name, &["f43-arm"]);
        world.hold(back, *attempt);
    }
    for attempt in &attempts {
        world.deliver(*attempt, Outcome::Succeeded);
    }
    world.reject(attempts[0]);
    world.check();
    assert_eq!(world.committing.keys().collect::<Vec<_>>(), [&attempts[1]]);
    world.finish_commit(attempts[1], true);
    assert!(world.stale.contains(&third));
}

#[test]
fn what_all_slots_of_a_builder_had_begun_suspends_it_once() {
    let (mut world, session) = ready(&["f43-arm"]);
    for n in 0..3 {
        world.drop_srpm(n, n as i64);
        world.drop_srpm(n + 3, n as i64);
    }
    (0..6).for_each(|slot| world.ask(session, slot));
    let attempts: Vec<_> = world.memories.keys().copied().collect();
    assert_eq!(attempts.len(), 6);
    for attempt in attempts {
        world.deliver(attempt, failed(FailureKind::Infrastructure));
    }
    assert_eq!(world.suspended, [FIRST_PAUSE]);
    world.check();
}

#[test]
fn a_target_whose_configuration_does_not_work_there_is_not_offered_there_again() {
    let (mut world, session) = ready(&["f43-x86", "f43-arm"]);
    world.drop_srpm(6, 10);
    world.ask(session, 0);
    world.deliver(attempt_of(&world, 6), failed(FailureKind::Configuration));
    world.ask(session, 0);
    assert!(world.source.contains_key(&key(6)));
    world.drop_srpm(0, 20);
    let lease = world.scheduler.holders(&key(0)).next().unwrap();
    assert_eq!(lease.target.as_str(), "f43-arm", "the other target works");
    world.lose(session);
    let session = world.connect("board", &["f43-x86", "f43-arm"]);
    world.ask(session, 0);
    world.ask(session, 1);
    assert!(world.working.contains_key(&key(6)), "it may have been mended");
}

#[test]
fn nothing_is_given_back_for_ever() {
    let mut world = boards(&["panda"]);
    world.drop_srpm(0, 10);
    for _ in 1..MOST_RETURNS {
        fails(&mut world, 0, FailureKind::Interrupted);
        assert!(world.committing.is_empty() && world.held.is_empty());
    }
    fails(&mut world, 0, FailureKind::Interrupted);
    assert_eq!(world.committing.len(), 1);
}

#[test]
fn a_builder_that_takes_and_gives_back_is_suspended_at_last() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.drop_srpm(0, 10);
    for given_back in 0..RETURNS * STREAK {
        assert!(world.suspended.is_empty(), "after {given_back}");
        world.ask(session, 0);
        let attempt = attempt_of(&world, 0);
        world.memories.remove(&attempt);
        world.tell(Event::Released { session, attempt, trouble: false });
    }
    assert_eq!(world.suspended, [FIRST_PAUSE]);
    assert!(world.held.is_empty(), "nobody is to blame: the SRPM is not");
    world.ask(session, 0);
    assert!(world.working.is_empty());
    world.check();
}

/// Its standing goes by its name, and names are cheap.
#[test]
fn a_builder_that_gives_back_under_ever_new_names_does_not_go_on_for_ever() {
    let (mut world, session) = ready(&["f43-arm"]);
    world.lose(session);
    world.drop_srpm(0, 10);
    for name in 0..MOST_RETURNS {
        assert!(world.held.is_empty(), "after {name}");
        let session = world.connect(&format!("lab/name{name}"), &["f43-arm"]);
        world.ask(session, 0);
        let attempt = attempt_of(&world, 0);
        world.memories.remove(&attempt);
        world.tell(Event::Released { session, attempt, trouble: false });
        world.lose(session);
        world.check();
    }
    assert!(world.held[&key(0)].starts_with("10 attempts came to nothing: lab/name0 (gave it back), "));
    assert!(world.suspended.is_empty());
}

#[test]
fn who_gave_it_back_without_a_trouble_may_have_it_again() {
    let mut world = boards(&["panda"]);
    let other = world.connect("tegra", &["f43-arm"]);
    world.drop_srpm(0, 10);
    let attempt = attempt_of(&world, 0);
    let session = world.memories.remove(&attempt).unwrap().session.unwrap();
    world.tell(Event::Released { session, attempt, trouble: false });
    assert!(world.source.contains_key(&key(0)) && !world.asking.contains(&(other, 0)));
    world.ask(session, 0);
    assert_eq!(builder_of(&world, 0), "panda", "although another one could");
}

#[test]
fn what_is_remembered_of_builders_is_bounded_and_forgotten() {
    let mut blame = super::super::blame::Blame::default();
    let builder = |n: usize| format!("name{n}").parse().unwrap();
    let bad = builder(MOST_STANDINGS * 3);
    for _ in 0..STREAK {
        blame.failed_on(Duration::ZERO, &bad);
    }
    for n in 0..MOST_STANDINGS + 7 {
        assert_eq!(blame.failed_on(Duration::from_secs(1), &builder(n)), None);
    }
    assert_eq!(blame.remembered(), MOST_STANDINGS);
    assert_eq!(blame.suspended_until(&bad), Some(FIRST_PAUSE), "others have crowded it out");
    blame.end_suspensions(FIRST_PAUSE);
    assert_eq!(blame.streak(&bad), STREAK, "one more failure, and it pauses longer");
    blame.failed_on(FIRST_PAUSE + IDLE - Duration::from_secs(1), &builder(MOST_STANDINGS * 4));
    assert_eq!((blame.remembered(), blame.streak(&bad)), (2, STREAK));
    blame.failed_on(FIRST_PAUSE + IDLE, &builder(MOST_STANDINGS * 5));
    assert_eq!((blame.remembered(), blame.streak(&bad)), (2, 0));
}
