//! People on the protocol's port: what they see, submit and steer, and what they may not.

use std::fs;
use std::time::Duration;

use moji_proto::operator::{Act, FromOperator, Place, REQUESTS, Role, ToOperator};
use moji_proto::{FailureKind, HeldAttempt, Outcome, Phase, Sha256, StreamMessage, ToBuilder, ToServer, api};
use moji_server::access::credentials as access;
use moji_tests::support::credentials;
use moji_tests::support::person::{Person, Submission};
use moji_tests::support::simulated::{Site, TestServer, Who, built, srpm};
use tokio::time::{Instant, sleep, timeout};

use super::Result;
use super::returning::lease;

const DEADLINE: Duration = Duration::from_secs(60);
/// In which nothing must come that is not to come.
const QUIET: Duration = Duration::from_millis(300);

/// A server that anybody may use, on the real clock: the history is written beside it.
fn open_server(site: Site) -> TestServer {
    TestServer::start(site, |config| config.rescan = Duration::from_millis(20))
}

async fn anybody(server: &TestServer) -> anyhow::Result<Person> {
    Person::enter(server.connect()?, Who::Nobody).await
}

/// The newest build of that name, when it is in one of these states.
async fn build_in(person: &mut Person, name: &str, states: &[api::BuildState]) -> anyhow::Result<api::Build> {
    let end = Instant::now() + DEADLINE;
    loop {
        let (status, body) = person.get(&format!("/api/v1/find?build={name}")).await?;
        if status == 200 {
            let build: api::Build = serde_json::from_str(&body)?;
            if states.contains(&build.state) {
                return Ok(build);
            }
        }
        anyhow::ensure!(Instant::now() < end, "{name} never came to {states:?}: {status} {body}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn overview(person: &mut Person) -> anyhow::Result<api::Overview> {
    let end = Instant::now() + DEADLINE;
    loop {
        let (status, body) = person.get("/api/v1/overview").await?;
        if status == 200 {
            return Ok(serde_json::from_str(&body)?);
        }
        anyhow::ensure!(Instant::now() < end, "{status} {body}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn one(name: &str) -> Vec<String> {
    vec![name.into()]
}

#[tokio::test]
async fn what_the_api_tells_is_told_on_the_port_too_and_nothing_else() -> Result {
    let site = Site::new()?;
    site.put_srpm("shown")?;
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    assert_eq!(person.role, Role::Admin, "where anybody may come in, anybody may do everything");
    build_in(&mut person, "shown", &[api::BuildState::Queued]).await?;
    let farm = overview(&mut person).await?;
    assert_eq!((farm.queue.ready, farm.slots.total), (1, 0));
    for path in
        ["/", "/repo/", "/api/v2/overview", "api/v1/overview", "/api/v1/nothing", "http://x/api/v1/overview"]
    {
        let (status, body) = person.get(path).await?;
        assert!(matches!(status, 400 | 404), "{path}: {status} {body}");
    }
    Ok(())
}

#[tokio::test]
async fn an_srpm_is_submitted_and_an_upload_that_was_cut_goes_on() -> Result {
    let server = open_server(Site::new()?);
    let content = srpm("brought", "1", "1", 900_000);
    let wanted = Submission::new("brought-1-1.src.rpm", content.clone())?;
    let mut first = anybody(&server).await?;
    let (request, offset) = first.announce(&wanted).await?;
    assert_eq!(offset, Some(0));
    let stream = first.connection.next_stream();
    first.connection.say(FromOperator::Upload { request, offset: 0, stream }).await?;
    first.connection.data(stream, &content[..600_000]).await?;
    first.connection.until(|connection| connection.received(stream) == 600_000).await?;
    drop(first);
    assert!(server.site.source().is_empty(), "half of it is in SOURCE");

    let mut second = anybody(&server).await?;
    let end = Instant::now() + DEADLINE;
    // The first session ends in its own time.
    let offset = loop {
        match second.announce(&wanted).await {
            Ok((_, offset)) => break offset,
            Err(busy) => {
                assert!(Instant::now() < end && busy.to_string().contains("another connection"), "{busy}")
            }
        }
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(offset, Some(600_000), "what was written is asked for again");
    drop(second);
    let mut third = anybody(&server).await?;
    let told = loop {
        match third.submit(&wanted).await {
            Ok(told) => break told,
            Err(busy) => {
                assert!(Instant::now() < end && busy.to_string().contains("another connection"), "{busy}")
            }
        }
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(told, "queued");
    assert_eq!(fs::read(server.site.path().join("source/brought-1-1.src.rpm"))?, content);
    assert_eq!(fs::read_dir(server.site.folders.private().join("submitted"))?.count(), 0);
    // Said twice, it is there once; another one of its name does not take its place.
    assert_eq!(third.submit(&wanted).await?, "it is queued already");
    let other = Submission::new("brought-1-1.src.rpm", srpm("brought", "1", "1", 7))?;
    let refused = third.submit(&other).await.unwrap_err().to_string();
    assert!(refused.contains("another SRPM of that name waits"), "{refused}");
    assert_eq!(fs::read(server.site.path().join("source/brought-1-1.src.rpm"))?, content);
    Ok(())
}

#[tokio::test]
async fn what_was_answered_into_the_void_is_not_built_twice() -> Result {
    let server = open_server(Site::new()?);
    let mut wanted = Submission::new("again-1-1.src.rpm", srpm("again", "1", "1", 99))?;
    let mut person = anybody(&server).await?;
    assert_eq!(person.submit(&wanted).await?, "queued");
    // It is settled before the client is back.
    fs::remove_file(server.site.path().join("source/again-1-1.src.rpm"))?;
    wanted.is_repeat = true;
    let (_, offset) = person.announce(&wanted).await?;
    assert_eq!(offset, None, "it is wanted once more");
    assert!(server.site.source().is_empty());
    wanted.is_repeat = false;
    assert_eq!(person.submit(&wanted).await?, "queued", "who means it gets it");
    Ok(())
}

#[tokio::test]
async fn what_is_no_srpm_or_not_what_was_announced_does_not_reach_source() -> Result {
    let server = open_server(Site::new()?);
    let mut person = anybody(&server).await?;
    let mut cut = srpm("cut", "1", "1", 500);
    cut.truncate(cut.len() - 100);
    let garbage = Submission::new("garbage-1-1.src.rpm", b"not an SRPM".repeat(99))?;
    for (wanted, reason) in [
        (garbage.clone(), "cannot be built: it is not an RPM package"),
        (Submission::new("cut-1-1.src.rpm", cut)?, "cannot be built: it has"),
    ] {
        let refused = person.submit(&wanted).await.unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    // Other bytes than were announced; fewer; more.
    let good = srpm("good", "1", "1", 300);
    let wanted = Submission::new("good-1-1.src.rpm", good.clone())?;
    let flipped: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
    for (sent, reason) in [
        (flipped, "another digest"),
        (good[..100].to_vec(), "it ended after 100"),
        ([&good[100..], b"more"].concat(), "more bytes came"),
    ] {
        let (request, offset) = person.announce(&wanted).await?;
        let stream = person.connection.next_stream();
        let offset = offset.unwrap_or_default();
        person.connection.say(FromOperator::Upload { request, offset, stream }).await?;
        person.connection.data(stream, &sent).await?;
        person.connection.end(stream, None).await?;
        let refused = person.answer(request).await?.unwrap_err();
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
    let mut far = wanted.clone();
    far.target = Some("nowhere".parse()?);
    let refused = person.submit(&far).await.unwrap_err().to_string();
    assert!(refused.contains("no builder for nowhere is connected"), "{refused}");
    assert!(server.site.source().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_paused_queue_hands_nothing_out_also_after_a_restart() -> Result {
    let server = open_server(Site::new()?);
    let mut person = anybody(&server).await?;
    person.does(Act::Pause { reason: Some("mass\u{1b}[2J rebuild".into()) }).await?;
    let again = person.act(Act::Pause { reason: None }).await?.unwrap();
    assert!(!again[0].is_done && again[0].text.contains("already"), "{again:?}");
    server.site.put_srpm("waits")?;
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    builder.ask(0).await?;
    build_in(&mut person, "waits", &[api::BuildState::Queued]).await?;
    assert!(timeout(QUIET, builder.word()).await.is_err(), "handed out");
    let (_, why) = person.get("/api/v1/find?build=waits").await?;
    let id = serde_json::from_str::<api::Build>(&why)?.id;
    let (_, why) = person.get(&format!("/api/v1/builds/{id}/why")).await?;
    assert!(why.contains("the queue is paused: mass [2J rebuild"), "{why}");

    drop(builder);
    let server = open_server(server.stop().await?);
    let mut person = anybody(&server).await?;
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    builder.ask(0).await?;
    build_in(&mut person, "waits", &[api::BuildState::Queued]).await?;
    assert!(timeout(QUIET, builder.word()).await.is_err(), "handed out after a restart");
    assert!(overview(&mut person).await?.server.paused.is_some());
    person.does(Act::Unpause).await?;
    timeout(DEADLINE, builder.assignment()).await??;
    Ok(())
}

#[tokio::test]
async fn a_drained_builder_gets_nothing_and_keeps_what_it_has() -> Result {
    let site = Site::new()?;
    site.put_srpm("first")?;
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    let mut builder = server.builder("worker", &["f43"], 2).await?;
    let given = builder.lease(0).await?;
    let told = person.does(Act::Drain { builder: "worker".into(), reason: None }).await?;
    assert!(told.contains("still builds 1"), "{told}");
    server.site.put_srpm("second")?;
    builder.ask(1).await?;
    build_in(&mut person, "second", &[api::BuildState::Queued]).await?;
    assert!(timeout(QUIET, builder.word()).await.is_err(), "it got more");
    let (attempt, rpm) = (given.attempt, built("first", b"built"));
    builder.deliver(attempt, Outcome::Succeeded, &[("first-1-1.src.rpm", &rpm)]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    person.does(Act::Resume { builder: "worker".into() }).await?;
    assert_eq!(timeout(DEADLINE, builder.assignment()).await??.srpm.as_str(), "second-1-1.src.rpm");
    let unknown = person.act(Act::Drain { builder: "nobody".into(), reason: None }).await?.unwrap();
    assert!(!unknown[0].is_done && unknown[0].text.contains("no such builder"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn builds_are_cancelled_held_and_tried_again() -> Result {
    let site = Site::new()?;
    for name in ["running", "queued", "kept"] {
        site.put_srpm(name)?;
    }
    site.put("priority.txt", b"running\nqueued\n")?;
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    let mut builder = server.builder("worker", &["f43"], 2).await?;
    let given = builder.lease(0).await?;
    assert_eq!(given.srpm.as_str(), "running-1-1.src.rpm");
    for name in ["queued", "kept"] {
        build_in(&mut person, name, &[api::BuildState::Queued]).await?;
    }
    let first = build_in(&mut person, "running", &[api::BuildState::Running]).await?;

    let builds = vec!["running-1-1".into(), "queued-1-1.src.rpm".into(), "none".into()];
    let done = person.act(Act::Cancel { builds }).await?.unwrap();
    let said: Vec<_> = done.iter().map(|done| (done.about.as_str(), done.is_done)).collect();
    assert_eq!(
        said,
        [("none", false), ("running-1-1.src.rpm", true), ("queued-1-1.src.rpm", true)],
        "{done:?}"
    );
    assert!(matches!(builder.word().await?, ToBuilder::Cancel { attempt, .. } if attempt == given.attempt));
    let hold = Act::Hold { builds: one("kept"), reason: Some("wait for\nglibc".into()) };
    person.does(hold).await?;
    for (name, state) in [
        ("running", api::BuildState::Withdrawn),
        ("queued", api::BuildState::Withdrawn),
        ("kept", api::BuildState::Held),
    ] {
        let build = build_in(&mut person, name, &[state]).await?;
        let reason = build.reason.unwrap_or_default();
        assert!(
            reason.starts_with(if name == "kept" { "held by a person: wait for glibc" } else { "cancelled" }),
            "{reason}"
        );
    }
    assert_eq!(server.site.finished().iter().filter(|name| name.ends_with(".src.rpm")).count(), 3);
    assert!(server.site.source().iter().all(|name| name == "priority.txt"), "{:?}", server.site.source());
    assert!(server.site.working().is_empty());

    // A restart finds the same: what was cancelled is not held.
    drop(builder);
    let server = open_server(server.stop().await?);
    let mut person = anybody(&server).await?;
    build_in(&mut person, "queued", &[api::BuildState::Withdrawn]).await?;
    build_in(&mut person, "kept", &[api::BuildState::Held]).await?;
    let all = Act::RetryFailed { kind: Some(FailureKind::Package), target: None };
    let done = person.act(all).await?.unwrap();
    assert!(done[0].text.contains("nothing has failed"), "{done:?}");
    // Nor is what a person holds one of those that failed: whoever lets it go names it.
    let done = person.act(Act::RetryFailed { kind: None, target: None }).await?.unwrap();
    assert!(done[0].text.contains("nothing has failed"), "{done:?}");
    person.does(Act::Retry { builds: one("kept") }).await?;
    build_in(&mut person, "kept", &[api::BuildState::Queued]).await?;
    let record = server.site.path().join("finished/kept-1-1.src.rpm.held.json");
    assert!(!record.exists(), "of what is queued FINISHED tells nothing");
    person.does(Act::Retry { builds: one("running") }).await?;
    build_in(&mut person, "running", &[api::BuildState::Queued]).await?;
    let again = person.act(Act::Retry { builds: one("running") }).await?.unwrap();
    assert!(!again[0].is_done && again[0].text.contains("queued already"), "{again:?}");
    // An old build's number does nothing to a newer one, and what was cancelled is in one folder when submitted.
    let old = person.act(Act::Cancel { builds: one(&first.id.to_string()) }).await?.unwrap();
    assert!(!old[0].is_done, "{old:?}");
    let queued = server.site.path().join("finished/queued-1-1.src.rpm");
    let content = fs::read(&queued)?;
    person.submit(&Submission::new("queued-1-1.src.rpm", content)?).await?;
    build_in(&mut person, "queued", &[api::BuildState::Queued]).await?;
    assert!(!queued.exists(), "it is in two folders");
    Ok(())
}

#[tokio::test]
async fn an_srpm_that_is_to_be_first_is_handed_out_first() -> Result {
    let site = Site::new()?;
    site.put("large-1-1.src.rpm", &srpm("large", "1", "1", 90_000))?;
    site.put("priority.txt", b"# ours\nlarge\n")?;
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    let mut wanted = Submission::new("urgent-1-1.src.rpm", srpm("urgent", "1", "1", 9))?;
    wanted.place = Some(Place::First);
    let told = person.submit(&wanted).await?;
    assert!(told.contains("urgent-1-1.src.rpm is first now"), "{told}");
    build_in(&mut person, "urgent", &[api::BuildState::Queued]).await?;
    let list = server.site.path().join("source/priority.txt");
    assert_eq!(fs::read_to_string(&list)?, "# ours\nurgent-1-1.src.rpm\nlarge\n");
    // The list is read at its next look.
    let end = Instant::now() + DEADLINE;
    loop {
        let (_, queue) = person.get("/api/v1/queue").await?;
        let queue: api::Page<api::Queued> = serde_json::from_str(&queue)?;
        if queue.items.first().is_some_and(|first| first.srpm.as_str() == "urgent-1-1.src.rpm") {
            break;
        }
        assert!(Instant::now() < end, "{queue:?}");
        sleep(Duration::from_millis(10)).await;
    }
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    assert_eq!(builder.lease(0).await?.srpm.as_str(), "urgent-1-1.src.rpm");
    // One that waits already gets its place too.
    let mut large = Submission::new("large-1-1.src.rpm", srpm("large", "1", "1", 90_000))?;
    large.place = Some(Place::First);
    assert!(person.submit(&large).await?.starts_with("it is queued already; "));
    assert_eq!(fs::read_to_string(&list)?, "# ours\nlarge-1-1.src.rpm\nurgent-1-1.src.rpm\nlarge\n");
    let nowhere = Act::Prioritize { entry: "large-1-1.src.rpm".into(), target: None, place: Place::Nowhere };
    person.does(nowhere).await?;
    let nowhere = Act::Prioritize { entry: "urgent-1-1.src.rpm".into(), target: None, place: Place::Nowhere };
    person.does(nowhere).await?;
    assert_eq!(fs::read_to_string(&list)?, "# ours\nlarge\n");
    Ok(())
}

/// What is promised to those who wait for events: who comes and goes, and when all is done.
#[tokio::test]
async fn builders_that_come_and_go_and_the_end_of_the_queue_are_told_once() -> Result {
    let site = Site::new()?;
    site.put_srpm("told")?;
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    let given = builder.lease(0).await?;
    drop(builder);
    until_told(&mut person, api::EventKind::BuilderLost).await?;
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    until_told(&mut person, api::EventKind::BuilderBack).await?;
    let held = HeldAttempt {
        attempt: given.attempt,
        target: given.target,
        srpm: given.srpm,
        sha256: Sha256::of(&srpm("told", "1", "1", 3_000)),
        slot: Some(0),
        phase: Phase::Building,
    };
    builder.say(ToServer::Hold(held)).await?;
    let attempt = given.attempt;
    assert!(
        matches!(builder.word().await?, ToBuilder::Resume { attempt: resumed, .. } if resumed == attempt)
    );
    builder.deliver(attempt, Outcome::Succeeded, &[("told-1-1.src.rpm", &built("told", b"built"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    builder.say(ToServer::Goodbye { reason: "done".into() }).await?;
    until_told(&mut person, api::EventKind::BuilderLeft).await?;
    let all = until_told(&mut person, api::EventKind::QueueEmpty).await?;
    let mut kinds: Vec<_> = all.iter().map(|event| event.kind.word()).collect();
    kinds.sort_unstable();
    let once = [
        "builder_back",
        "builder_connected",
        "builder_left",
        "builder_lost",
        "queue_empty",
        "queued",
        "started",
        "succeeded",
    ];
    assert_eq!(kinds, once);
    // Whoever submits what is published already hears what comes of it.
    let again = fs::read(server.site.path().join("finished/told-1-1.src.rpm"))?;
    let again = Submission::new("told-1-1.src.rpm", again)?;
    let said = person.submit(&again).await?;
    assert!(said.contains("was in FINISHED; told-1-1 is published already, so only logs"), "{said}");
    build_in(&mut person, "told", &[api::BuildState::Queued]).await?;
    assert_eq!(server.site.source(), ["told-1-1.src.rpm"]);
    Ok(())
}

/// All that was told up to the first event of a kind.
async fn until_told(person: &mut Person, kind: api::EventKind) -> anyhow::Result<Vec<api::Event>> {
    let end = Instant::now() + DEADLINE;
    loop {
        let (_, body) = person.get("/api/v1/events?limit=500").await?;
        let page: api::Page<api::Event> = serde_json::from_str(&body)?;
        if page.items.iter().any(|event| event.kind == kind) {
            return Ok(page.items);
        }
        anyhow::ensure!(Instant::now() < end, "{kind:?} was never told: {body}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn roles_and_targets_of_credentials_count() -> Result {
    let site = Site::new()?;
    let private = site.folders.private();
    site.put("f43/inside-1-1.src.rpm", &srpm("inside", "1", "1", 9))?;
    site.put("f44/outside-1-1.src.rpm", &srpm("outside", "1", "1", 9))?;
    let submitter = credentials::give(&private, "alice", |credential| {
        credential.role = access::Role::Submitter;
        credential.targets = vec!["f43".parse().expect("a target")];
    })?;
    let admin = credentials::give(&private, "boss", |credential| credential.role = access::Role::Admin)?;
    let board = credentials::give(&private, "board", |_| {})?;
    let server = TestServer::start(site, |config| {
        config.rescan = Duration::from_millis(20);
        config.password = Some("secret".into());
    });
    for (who, reason) in [
        (Who::Password("secret"), "the password lets builders in"),
        (Who::Token(&board), "has the role builder"),
    ] {
        let refused = Person::enter(server.connect()?, who).await.err().expect("let in").to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    let mut alice = Person::enter(server.connect()?, Who::Token(&submitter)).await?;
    assert_eq!(alice.role, Role::Submitter);
    for act in [
        Act::Pause { reason: None },
        Act::Unpause,
        Act::Drain { builder: "x".into(), reason: None },
        Act::Resume { builder: "x".into() },
        Act::Cancel { builds: one("inside") },
        Act::Hold { builds: one("inside"), reason: None },
        Act::Prioritize { entry: "inside".into(), target: None, place: Place::First },
    ] {
        let refused = alice.act(act.clone()).await?.expect_err("it was allowed");
        assert!(refused.contains("role admin"), "{act:?}: {refused}");
    }
    for (target, place, reason) in [
        (None, None, "only for f43"),
        (Some("f44"), None, "only for f43"),
        (Some("f43"), Some(Place::First), "role admin"),
    ] {
        let mut wanted = Submission::new("new-1-1.src.rpm", srpm("new", "1", "1", 9))?;
        wanted.target = target.map(str::parse).transpose()?;
        wanted.place = place;
        let refused = alice.submit(&wanted).await.unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    let mut boss = Person::enter(server.connect()?, Who::Token(&admin)).await?;
    build_in(&mut boss, "outside", &[api::BuildState::Queued]).await?;
    for name in ["inside", "outside"] {
        boss.does(Act::Hold { builds: one(name), reason: None }).await?;
        let held = build_in(&mut boss, name, &[api::BuildState::Held]).await?;
        assert_eq!(held.reason.as_deref(), Some("held by boss"));
    }
    let done = alice.act(Act::Retry { builds: vec!["inside".into(), "outside".into()] }).await?.unwrap();
    let said: Vec<_> = done.iter().map(|done| (done.about.as_str(), done.is_done)).collect();
    assert_eq!(said, [("inside", false), ("outside", false)], "{done:?}");
    assert!(done[0].text.contains("held by boss; only an admin"), "{done:?}");
    let mut again = Submission::new("inside-1-1.src.rpm", srpm("inside", "1", "1", 9))?;
    again.target = Some("f43".parse()?);
    let refused = alice.submit(&again).await.unwrap_err().to_string();
    assert!(refused.contains("only an admin"), "{refused}");
    boss.does(Act::Retry { builds: one("inside") }).await?;
    build_in(&mut boss, "inside", &[api::BuildState::Queued]).await?;

    // Whoever loses his role loses his session.
    credentials::change(&private, &submitter.name, |credential| credential.role = access::Role::Builder)?;
    let last = timeout(DEADLINE, alice.connection.to_the_end()).await?;
    assert!(matches!(last.last(), Some(ToOperator::Goodbye { .. })), "{last:?}");
    Ok(())
}

#[tokio::test]
async fn requests_are_few_at_a_time_and_an_unread_answer_keeps_nothing() -> Result {
    let server = open_server(Site::new()?);
    let mut person = anybody(&server).await?;
    // Streams that never end by themselves.
    for _ in 0..REQUESTS {
        let request = person.request();
        person.connection.say(FromOperator::Get { request, path: "/events".into() }).await?;
    }
    let mut answered = Vec::new();
    for _ in 0..REQUESTS {
        match person.connection.hear().await? {
            ToOperator::Answer { status: 200, request, stream, .. } => answered.push((request, stream)),
            other => panic!("{other:?}"),
        }
    }
    let refused = person.act(Act::Unpause).await?.expect_err("one too many");
    assert!(refused.contains("requests at a time"), "{refused}");
    // One that is not wanted any more makes room, although nothing happens in it.
    let [(_, stream), (request, _), ..] = answered[..] else { panic!("{answered:?}") };
    person.connection.say(FromOperator::Stream(StreamMessage::Unwanted { stream })).await?;
    // Sooner than the stream says anything by itself, which is every 15 s.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match person.act(Act::Unpause).await? {
            Ok(_) => break,
            Err(refused) => assert!(Instant::now() < end, "{refused}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
    // The same number twice is a mistake.
    person.connection.say(FromOperator::Get { request, path: "/events".into() }).await?;
    let last = timeout(DEADLINE, person.connection.to_the_end()).await?;
    assert!(
        matches!(last.last(), Some(ToOperator::Goodbye { reason }) if reason.contains("two requests")),
        "{last:?}"
    );
    Ok(())
}

/// Of builders that are not connected only those are shown that were lost with work: a goodbye is not a death.
#[tokio::test]
async fn a_builder_that_has_left_is_not_away() -> Result {
    let site = Site::new()?;
    site.put_srpm("lost")?;
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    let mut worker = server.builder("worker", &["f43"], 1).await?;
    lease(&mut worker).await?;
    let idle = server.builder("idle", &["f43"], 1).await?;
    let shown = async |person: &mut Person| -> anyhow::Result<Vec<(String, api::BuilderState)>> {
        Ok(overview(person).await?.builders.into_iter().map(|builder| (builder.id, builder.state)).collect())
    };
    let both =
        [("idle".to_owned(), api::BuilderState::Idle), ("worker".to_owned(), api::BuilderState::Building)];
    assert_eq!(shown(&mut person).await?, both);
    drop((worker, idle));
    let lost = [("worker".to_owned(), api::BuilderState::Away)];
    let end = Instant::now() + DEADLINE;
    while shown(&mut person).await? != lost {
        anyhow::ensure!(Instant::now() < end, "{:?}", shown(&mut person).await?);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The history is written a moment later than the leases, which tell of themselves.
#[tokio::test]
async fn an_attempt_is_known_although_the_last_server_did_not_write_it_down() -> Result {
    let site = Site::new()?;
    site.put_srpm("begun")?;
    let server = open_server(site);
    let mut worker = server.builder("worker", &["f43"], 1).await?;
    let given = lease(&mut worker).await?;
    let site = server.stop().await?;
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(site.folders.working.join(format!(".moji/history.sqlite{end}")));
    }
    let server = open_server(site);
    let mut person = anybody(&server).await?;
    let build = build_in(&mut person, "begun", &[api::BuildState::Running]).await?;
    assert_eq!((build.attempts, build.attempt), (1, Some(given.attempt)));
    Ok(())
}
