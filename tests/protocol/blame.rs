//! Whose fault it was: what is tried again, where, how often; what is held, and who is suspended.

use std::fs;
use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome, Phase, ToBuilder, ToServer};
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, built};
use tokio::time::{Instant, sleep, timeout};

use super::Result;
use super::returning::{Given, answer, deliver, held_record, lease, leased, log, server};

fn patient(config: &mut moji_server::run::Config) {
    config.dead_after = Duration::from_secs(100_000);
}

fn failed(kind: FailureKind, reason: &str) -> Outcome {
    Outcome::failed(kind, reason, Some(30), Vec::new())
}

/// Leases, fails so, and is told that this is known.
async fn fail(builder: &mut ScriptedBuilder, kind: FailureKind) -> anyhow::Result<Given> {
    let given = lease(builder).await?;
    fail_with(builder, &given, kind).await?;
    Ok(given)
}

async fn fail_with(builder: &mut ScriptedBuilder, given: &Given, kind: FailureKind) -> Result {
    let log: [(&str, &[u8]); 1] = [("root.log", b"no mirror")];
    builder.deliver(given.attempt, failed(kind, "the mirror is broken"), &log).await?;
    accepted(builder, given.attempt).await
}

/// The server has what it wanted; that the builder is suspended for it may come first.
async fn accepted(builder: &mut ScriptedBuilder, given: AttemptId) -> Result {
    loop {
        match builder.word().await? {
            ToBuilder::Suspended { .. } => {}
            ToBuilder::Accepted { attempt } if attempt == given => return Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    }
}

async fn is_held(server: &TestServer, name: &str) -> anyhow::Result<String> {
    let srpm = [format!("{name}-1-1.src.rpm")];
    server.until("held", |site| site.finished() == srpm && site.working().is_empty()).await?;
    server.until("nothing is staged", |site| site.staged().is_empty()).await?;
    let record = held_record(&server.site, name).expect("no record of it");
    assert!(!record.outcome.is_success());
    Ok(record.held.expect("no reason"))
}

#[tokio::test(start_paused = true)]
async fn what_fails_through_no_fault_of_its_own_is_tried_elsewhere_and_then_held() -> Result {
    let server = server(&["unlucky"], patient)?;
    let mut builders = Vec::new();
    for name in ["anna", "bert", "cora"] {
        builders.push(server.builder(name, &["f43"], 1).await?);
    }
    for builder in &mut builders {
        builder.ask(0).await?;
    }
    let mut tried = Vec::new();
    for _ in 0..3 {
        // Whoever gets it has not had it before.
        let mut got = None;
        for (n, builder) in builders.iter_mut().enumerate() {
            if let Ok(assignment) = timeout(Duration::from_secs(2), builder.assignment()).await {
                assert!(got.replace((n, assignment?)).is_none(), "handed out twice");
            }
        }
        let (n, assignment) = got.expect("nobody got it");
        assert!(!tried.contains(&n), "{n} has had it: {tried:?}");
        tried.push(n);
        let builder = &mut builders[n];
        builder.whole(assignment.stream).await?;
        let log: [(&str, &[u8]); 1] = [("root.log", b"no mirror")];
        let attempt = assignment.attempt;
        let outcome = failed(FailureKind::Infrastructure, "the mirror is broken");
        builder.deliver(attempt, outcome, &log).await?;
        assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
        builder.ask(0).await?;
    }
    let reason = is_held(&server, "unlucky").await?;
    assert!(["anna", "bert", "cora"].iter().all(|name| reason.contains(name)), "{reason}");
    // The last failure is published with its logs, like any other.
    assert_eq!(server.site.published("unlucky-1-1"), ["build.json", "root.log"]);
    assert_eq!(server.site.record("unlucky-1-1"), held_record(&server.site, "unlucky"));
    assert!(!server.site.folders.finished.join("unlucky-1-1.src.rpm.failed.json").exists());
    for builder in &mut builders {
        assert!(timeout(Duration::from_secs(5), builder.word()).await.is_err(), "a fourth try");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_only_builder_gets_it_three_times() -> Result {
    let server = server(&["alone"], patient)?;
    let mut builder = server.builder("only", &["f43"], 1).await?;
    let mut last = None;
    for _ in 0..3 {
        last = Some(fail(&mut builder, FailureKind::Infrastructure).await?);
    }
    let reason = is_held(&server, "alone").await?;
    assert!(reason.contains("the only builder there was"), "{reason}");
    // A failure that was published as held is known again.
    let last = last.expect("no attempt");
    drop(builder);
    let mut builder = server.builder("only", &["f43"], 1).await?;
    assert!(matches!(builder.word().await?, ToBuilder::Suspended { .. }));
    let told = answer(&mut builder, last.held.clone()).await?;
    assert_eq!(told, ToBuilder::Accepted { attempt: last.attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_success_without_an_rpm_is_not_believed() -> Result {
    let server = server(&["empty"], patient)?;
    let mut builder = server.builder("only", &["f43"], 1).await?;
    for _ in 0..3 {
        let attempt = lease(&mut builder).await?.attempt;
        builder.deliver(attempt, Outcome::Succeeded, &[("build.log", b"trust me")]).await?;
        accepted(&mut builder, attempt).await?;
    }
    is_held(&server, "empty").await?;
    let outcome = held_record(&server.site, "empty").map(|record| record.outcome);
    assert!(
        matches!(&outcome, Some(Outcome::Failed { kind: FailureKind::Infrastructure, reason, .. }) if reason.contains("no RPM")),
        "{outcome:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_package_that_kills_builders_kills_three() -> Result {
    let server = server(&["poison"], patient)?;
    for victim in ["anna", "bert", "cora"] {
        let mut builder = server.builder(victim, &["f43"], 1).await?;
        let given = lease(&mut builder).await?;
        log(&server, &mut builder, given.attempt, 0, &format!("the last words of {victim}")).await?;
    }
    let reason = is_held(&server, "poison").await?;
    assert!(["anna", "bert", "cora"].iter().all(|name| reason.contains(name)), "{reason}");
    // What the last one had said is all that there is.
    let log = fs::read_to_string(server.site.folders.repo.join("poison-1-1/build.log"))?;
    assert_eq!(log, "the last words of cora");
    assert_eq!(server.site.record("poison-1-1").map(|record| record.attempt), Some(None));
    let mut next = server.builder("dora", &["f43"], 1).await?;
    next.ask(0).await?;
    assert!(timeout(Duration::from_secs(600), next.word()).await.is_err(), "a fourth victim");
    // A person may want it all the same.
    let srpm = "poison-1-1.src.rpm";
    fs::rename(server.site.folders.finished.join(srpm), server.site.folders.source.join(srpm))?;
    let assignment = next.assignment().await?;
    next.whole(assignment.stream).await?;
    next.deliver(assignment.attempt, Outcome::Succeeded, &[("poison-1-1.src.rpm", &built("poison", b"x"))])
        .await?;
    assert_eq!(next.word().await?, ToBuilder::Accepted { attempt: assignment.attempt });
    assert_eq!(held_record(&server.site, "poison"), None);
    assert_eq!(server.site.published("poison-1-1"), ["build.json", "poison-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_everybody_gives_back_is_held_with_the_last_log() -> Result {
    let server = server(&["unwanted"], patient)?;
    for n in 0..10 {
        let mut builder = server.builder(&format!("builder{n}"), &["f43"], 1).await?;
        let attempt = lease(&mut builder).await?.attempt;
        log(&server, &mut builder, attempt, 0, &format!("no room on {n}")).await?;
        builder.say(ToServer::Release { attempt, reason: "no room".into(), trouble: true }).await?;
    }
    is_held(&server, "unwanted").await?;
    let log = fs::read_to_string(server.site.folders.repo.join("unwanted-1-1/build.log"))?;
    assert_eq!(log, "no room on 9");
    Ok(())
}

/// A log that is published does not grow any more, whoever still sends it.
#[tokio::test(start_paused = true)]
async fn the_log_of_what_is_held_is_closed() -> Result {
    let server = server(&["grows"], patient)?;
    let mut builder = server.builder("chatty", &["f43"], 1).await?;
    for _ in 0..3 {
        let attempt = lease(&mut builder).await?.attempt;
        log(&server, &mut builder, attempt, 0, "no room").await?;
        builder.deliver(attempt, Outcome::Succeeded, &[("grows-1-1.src.rpm", b"no RPM")]).await?;
        loop {
            match builder.word().await? {
                ToBuilder::Suspended { .. } => {}
                ToBuilder::Rejected { again: false, .. } => break,
                other => anyhow::bail!("{other:?}"),
            }
        }
    }
    is_held(&server, "grows").await?;
    let published = server.site.folders.repo.join("grows-1-1/build.log");
    assert_eq!(fs::read_to_string(&published)?, "no room");
    // Streams are numbered: each attempt had one for its log and one for its results.
    builder.data(5, b", and more to say").await?;
    builder.say(ToServer::Heartbeat { disk: None, attempts: Vec::new() }).await?;
    while builder.hear().await? != ToBuilder::HeartbeatSeen {}
    sleep(Duration::from_secs(60)).await;
    assert_eq!(fs::read_to_string(&published)?, "no room");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_held_now_is_held_later() -> Result {
    let server = server(&["stuck"], patient)?;
    let blocked = server.site.folders.finished.join("stuck-1-1.src.rpm.held.json");
    fs::create_dir(&blocked)?;
    for victim in ["anna", "bert", "cora"] {
        let mut builder = server.builder(victim, &["f43"], 1).await?;
        let given = lease(&mut builder).await?;
        log(&server, &mut builder, given.attempt, 0, victim).await?;
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.site.working(), ["stuck-1-1.src.rpm"]);
    fs::remove_dir(&blocked)?;
    is_held(&server, "stuck").await?;
    assert_eq!(fs::read_to_string(server.site.folders.repo.join("stuck-1-1/build.log"))?, "cora");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_held_srpm_leaves_a_good_result_alone() -> Result {
    let (server, mut builder, given) = leased(&["good"], patient).await?;
    deliver(&mut builder, &given, b"good").await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    let before = server.site.record("good-1-1");
    let srpm = "good-1-1.src.rpm";
    fs::rename(server.site.folders.finished.join(srpm), server.site.folders.source.join(srpm))?;
    for victim in ["anna", "bert", "cora"] {
        let mut builder = server.builder(victim, &["f43"], 1).await?;
        let given = lease(&mut builder).await?;
        log(&server, &mut builder, given.attempt, 0, victim).await?;
    }
    is_held(&server, "good").await?;
    assert_eq!(server.site.record("good-1-1"), before);
    assert_eq!(server.site.published("good-1-1"), ["build.json", "good-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_builder_on_which_everything_fails_is_suspended_and_told() -> Result {
    let server = server(&["one", "two", "three", "four"], patient)?;
    let mut bad = server.builder("bad", &["f43"], 1).await?;
    let _other = server.builder("good", &["f43"], 1).await?;
    for _ in 0..2 {
        fail(&mut bad, FailureKind::Infrastructure).await?;
    }
    let given = lease(&mut bad).await?;
    bad.deliver(given.attempt, failed(FailureKind::Infrastructure, "no disk"), &[]).await?;
    let words = [bad.word().await?, bad.word().await?];
    let begun = Instant::now();
    let is = |wanted: fn(&ToBuilder) -> bool| words.iter().any(wanted);
    assert!(is(|word| matches!(word, ToBuilder::Accepted { .. })), "{words:?}");
    assert!(is(|word| matches!(word, ToBuilder::Suspended { seconds: 300, .. })), "{words:?}");
    bad.ask(0).await?;
    assert!(timeout(Duration::from_secs(299), bad.word()).await.is_err(), "work for a suspended builder");
    // Not by coming back either.
    drop(bad);
    let mut bad = server.builder("bad", &["f43"], 1).await?;
    assert!(matches!(bad.word().await?, ToBuilder::Suspended { seconds: 0..=1, .. }));
    bad.ask(0).await?;
    assert_eq!(bad.assignment().await?.srpm.as_str(), "four-1-1.src.rpm");
    assert_eq!(begun.elapsed().as_secs(), 300);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_work_on_a_builder_is_not_offered_there_again() -> Result {
    let site = Site::new()?;
    for name in ["one", "two"] {
        let srpm = moji_tests::support::simulated::srpm(name, "1", "1", 3_000);
        site.put(&format!("f43/{name}-1-1.src.rpm"), &srpm)?;
    }
    let server = TestServer::start(site, patient);
    let mut builder = server.builder("odd", &["f42", "f43"], 1).await?;
    fail(&mut builder, FailureKind::Configuration).await?;
    builder.ask(0).await?;
    assert!(timeout(Duration::from_secs(600), builder.word()).await.is_err(), "offered again");
    // Another target is another matter, and so is another connection.
    server.site.put_srpm("any")?;
    let assignment = builder.assignment().await?;
    assert_eq!((assignment.srpm.as_str(), assignment.target.as_str()), ("any-1-1.src.rpm", "f42"));
    let mut mended = server.builder("odd", &["f43"], 1).await?;
    lease(&mut mended).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_builder_gives_back_in_trouble_counts_against_the_builder() -> Result {
    let server = server(&["one"], patient)?;
    let mut bad = server.builder("bad", &["f43"], 1).await?;
    for _ in 0..3 {
        let attempt = lease(&mut bad).await?.attempt;
        bad.say(ToServer::Release { attempt, reason: "no space left".into(), trouble: true }).await?;
    }
    assert!(matches!(bad.word().await?, ToBuilder::Suspended { .. }));
    assert_eq!(server.site.finished(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_drain_a_stop_and_a_cancel_count_for_nothing() -> Result {
    let (server, mut builder, given) = leased(&["innocent"], patient).await?;
    let mut given = given;
    for _ in 0..4 {
        builder
            .say(ToServer::Release { attempt: given.attempt, reason: "draining".into(), trouble: false })
            .await?;
        given = lease(&mut builder).await?;
    }
    builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(given.attempt, Phase::Building)] }).await?;
    let mut server = server;
    for _ in 0..4 {
        drop(builder);
        server = TestServer::start(server.stop().await?, patient);
        builder = server.builder("first", &["f43"], 1).await?;
        given = lease(&mut builder).await?;
    }
    deliver(&mut builder, &given, b"built").await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    Ok(())
}
