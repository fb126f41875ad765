//! How leases end without a result: silence, cuts, releases, drains, strangers.

use std::time::Duration;

use moji_proto::{Assignment, AttemptId, LogFile, Outcome, Phase, StreamMessage, ToBuilder, ToServer};
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, built, srpm};
use tokio::time::{Instant, sleep, timeout};

use super::Result;

/// A server with one SRPM, leased whole to a builder.
async fn leased(name: &str, grace: u64) -> anyhow::Result<(TestServer, ScriptedBuilder, AttemptId)> {
    let site = Site::new()?;
    site.put_srpm(name)?;
    let server = TestServer::start(site, |config| config.grace = Duration::from_secs(grace));
    let mut builder = server.builder("first", &["f43"], 2).await?;
    let attempt = builder.lease(0).await?.attempt;
    assert_eq!((server.site.source(), server.site.working()), (vec![], vec![format!("{name}-1-1.src.rpm")]));
    Ok((server, builder, attempt))
}

async fn back_in_source(server: &TestServer, name: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let srpm = vec![format!("{name}-1-1.src.rpm")];
    server.until("back in SOURCE", |site| site.source() == srpm).await?;
    assert!(server.site.working().is_empty());
    assert_eq!(server.site.finished(), Vec::<String>::new());
    Ok(begun.elapsed())
}

/// Nobody will come back with the attempt: nothing of it is kept.
async fn nothing_is_staged(server: &TestServer) -> Result {
    server.until("staging is empty", |site| site.staged().is_empty()).await
}

/// It knows why, and whether the fault is its own: the server waits for its words.
#[tokio::test(start_paused = true)]
async fn a_builder_that_does_not_want_the_rest_of_an_srpm_says_itself_why() -> Result {
    let site = Site::new()?;
    site.put("large-1-1.src.rpm", &srpm("large", "1", "1", 4 << 20))?;
    let server = TestServer::start(site, |_| {});
    let mut builder = server.builder("first", &["f43"], 1).await?;
    builder.ask(0).await?;
    let Assignment { attempt, stream, .. } = builder.assignment().await?;
    builder.say(StreamMessage::Unwanted { stream }).await?;
    builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Receiving)] }).await?;
    let heard = timeout(Duration::from_secs(5), builder.word()).await;
    assert!(heard.is_err(), "{heard:?}");
    assert_eq!(server.site.working(), ["large-1-1.src.rpm"]);
    builder.say(ToServer::Release { attempt, reason: "the disk is full".into(), trouble: true }).await?;
    back_in_source(&server, "large").await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_silent_builder_is_given_up_and_its_srpm_queued_after_the_grace() -> Result {
    let (server, mut builder, _) = leased("quiet", 10).await?;
    let begun = Instant::now();
    let heard = builder.to_the_end().await;
    assert_eq!(begun.elapsed().as_secs(), 30, "{heard:?}");
    sleep(Duration::from_secs(9)).await;
    assert!(server.site.source().is_empty(), "queued before the grace was over");
    let after = back_in_source(&server, "quiet").await?;
    assert!(after < Duration::from_millis(1200), "{after:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_grace_a_lost_srpm_is_queued_at_once_and_handed_on() -> Result {
    let (server, builder, first) = leased("hasty", 0).await?;
    let mut other = server.builder("second", &["f43"], 1).await?;
    other.ask(0).await?;
    let begun = Instant::now();
    drop(builder);
    let assignment = other.assignment().await?;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_ne!(assignment.attempt, first);
    assert_eq!(server.site.working(), ["hasty-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_in_the_middle_of_an_srpm() -> Result {
    let site = Site::new()?;
    site.put("large-1-1.src.rpm", &srpm("large", "1", "1", 5_000_000))?;
    let server = TestServer::start(site, |_| {});
    let mut builder = server.builder("cut", &["f43"], 1).await?;
    builder.ask(0).await?;
    let stream = builder.assignment().await?.stream;
    builder.until(|peer| peer.streams.get(&stream).is_some_and(|heard| heard.bytes.len() > 300_000)).await?;
    drop(builder);
    back_in_source(&server, "large").await?;
    let mut other = server.builder("whole", &["f43"], 1).await?;
    assert_eq!(
        other.lease(0).await?.size,
        server.site.folders.working.join("large-1-1.src.rpm").metadata()?.len()
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_in_the_middle_of_an_upload() -> Result {
    let (server, mut builder, attempt) = leased("upload", 10).await?;
    let rpm = srpm("upload", "1", "1", 600_000);
    let files = [("upload-1-1.src.rpm", &rpm[..]), ("build.log", b"built")];
    let manifest = moji_tests::support::simulated::manifest(&files)?;
    builder.deliver_open(attempt, Outcome::Succeeded, &manifest, &rpm[..500_000]).await?;
    server.until("some of it is staged", |site| !site.staged().is_empty()).await?;
    drop(builder);
    back_in_source(&server, "upload").await?;
    assert_eq!(server.site.published(""), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_hold_an_attempt_is_told_that_it_is_stale() -> Result {
    let (server, mut builder, attempt) = leased("held", 10).await?;
    let mut thief = server.builder("thief", &["f43"], 1).await?;
    let rpm = srpm("held", "1", "1", 99);
    thief.deliver(attempt, Outcome::Succeeded, &[("held-1-1.src.rpm", &rpm)]).await?;
    assert_eq!(thief.word().await?, ToBuilder::Stale { attempt });
    thief.say(ToServer::Release { attempt, reason: "mine".into(), trouble: false }).await?;
    assert_eq!(thief.word().await?, ToBuilder::Stale { attempt });
    let stream = thief.next_stream();
    thief.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    assert_eq!(thief.word().await?, ToBuilder::Stale { attempt });
    assert!(thief.unwanted.contains(&stream), "{:?}", thief.unwanted);
    let made_up = AttemptId { boot: 12, serial: 34 };
    thief.deliver(made_up, Outcome::Succeeded, &[]).await?;
    assert_eq!(thief.word().await?, ToBuilder::Stale { attempt: made_up });
    assert_eq!(server.site.published(""), Vec::<String>::new());
    builder.deliver(attempt, Outcome::Succeeded, &[("held-1-1.src.rpm", &rpm)]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    let record = server.site.record("held-1-1").and_then(|record| record.attempt);
    assert_eq!(record.map(|attempt| attempt.builder.to_string()).as_deref(), Some("first"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_comes_back_late_finds_its_attempt_given_to_another() -> Result {
    let (server, builder, attempt) = leased("late", 10).await?;
    drop(builder);
    back_in_source(&server, "late").await?;
    let mut second = server.builder("second", &["f43"], 1).await?;
    let mut late = server.builder("first", &["f43"], 2).await?;
    let other = second.lease(0).await?.attempt;
    let rpm = srpm("late", "1", "1", 77);
    late.deliver(attempt, Outcome::Succeeded, &[("late-1-1.src.rpm", &rpm)]).await?;
    assert_eq!(late.word().await?, ToBuilder::Stale { attempt });
    second.deliver(other, Outcome::Succeeded, &[("late-1-1.src.rpm", &rpm)]).await?;
    assert_eq!(second.word().await?, ToBuilder::Accepted { attempt: other });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_released_srpm_goes_to_the_next_waiting_slot_at_once() -> Result {
    let (server, mut builder, attempt) = leased("released", 10).await?;
    let mut other = server.builder("second", &["f43"], 1).await?;
    other.ask(0).await?;
    let begun = Instant::now();
    builder.say(ToServer::Release { attempt, reason: "the disk is full".into(), trouble: false }).await?;
    let (again, _) = (other.assignment().await?, begun.elapsed());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(again.attempt != attempt && again.srpm.as_str() == "released-1-1.src.rpm", "{again:?}");
    builder.say(ToServer::Release { attempt, reason: "once more".into(), trouble: false }).await?;
    assert_eq!(builder.word().await?, ToBuilder::Stale { attempt });
    assert_eq!(server.site.working(), ["released-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_attempt_is_nobodys_fault_and_built_again() -> Result {
    let (server, mut builder, attempt) = leased("broken-off", 10).await?;
    let kind = moji_proto::FailureKind::Interrupted;
    let outcome = Outcome::failed(kind, "Mock was killed", Some(-15), Vec::new());
    builder.deliver(attempt, outcome, &[("build.log", b"half")]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    back_in_source(&server, "broken-off").await?;
    nothing_is_staged(&server).await?;
    assert_eq!(server.site.published(""), Vec::<String>::new());
    assert_eq!(builder.lease(0).await?.srpm.as_str(), "broken-off-1-1.src.rpm");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_draining_builder_gets_nothing_more_but_may_finish() -> Result {
    let (server, mut builder, attempt) = leased("last", 10).await?;
    builder.ask(1).await?;
    builder.say(ToServer::Drain).await?;
    // Behind this answer the drain is known.
    builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Building)] }).await?;
    assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    server.site.put_srpm("too-late")?;
    for _ in 0..3 {
        assert!(
            timeout(Duration::from_secs(20), builder.word()).await.is_err(),
            "work for a draining builder"
        );
        builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Building)] }).await?;
    }
    builder.deliver(attempt, Outcome::Succeeded, &[("last-1-1.src.rpm", &built("last", b"built"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(server.site.source(), ["too-late-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_taken_out_of_working_is_cancelled() -> Result {
    let (server, mut builder, attempt) = leased("taken", 10).await?;
    std::fs::remove_file(server.site.folders.working.join("taken-1-1.src.rpm"))?;
    for _ in 0..8 {
        builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Building)] }).await?;
        if let Ok(word) = timeout(Duration::from_secs(10), builder.word()).await {
            assert!(matches!(word?, ToBuilder::Cancel { attempt: a, .. } if a == attempt));
            builder.deliver(attempt, Outcome::Succeeded, &[]).await?;
            assert_eq!(builder.word().await?, ToBuilder::Stale { attempt });
            return Ok(());
        }
    }
    anyhow::bail!("never cancelled")
}

#[tokio::test(start_paused = true)]
async fn what_a_builder_has_forgotten_is_given_out_again() -> Result {
    let (server, mut builder, attempt) = leased("forgotten", 10).await?;
    let named = ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Building)] };
    let unnamed = ToServer::Heartbeat { disk: None, attempts: Vec::new() };
    // Two in a row may have crossed with the assignment.
    for heartbeat in [&unnamed, &unnamed, &named, &unnamed, &unnamed] {
        sleep(Duration::from_secs(5)).await;
        builder.say(heartbeat.clone()).await?;
        assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
        // Those that come sooner only tell what has changed.
        builder.say(unnamed.clone()).await?;
        assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    }
    assert!(server.site.source().is_empty());
    sleep(Duration::from_secs(5)).await;
    builder.say(unnamed).await?;
    assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    match builder.hear().await? {
        ToBuilder::Cancel { attempt: cancelled, .. } => assert_eq!(cancelled, attempt),
        other => panic!("{other:?}"),
    }
    back_in_source(&server, "forgotten").await?;
    nothing_is_staged(&server).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_that_cannot_go_back_is_moved_when_it_can() -> Result {
    let (server, mut builder, attempt) = leased("stuck", 10).await?;
    let source = server.site.folders.source.join("stuck-1-1.src.rpm");
    std::fs::create_dir(&source)?;
    builder.say(ToServer::Release { attempt, reason: "no room".into(), trouble: false }).await?;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(server.site.working(), ["stuck-1-1.src.rpm"]);
    std::fs::remove_dir(&source)?;
    let after = back_in_source(&server, "stuck").await?;
    assert!(after <= Duration::from_secs(6), "{after:?}");
    nothing_is_staged(&server).await?;
    let mut other = server.builder("second", &["f43"], 1).await?;
    assert_eq!(other.lease(0).await?.srpm.as_str(), "stuck-1-1.src.rpm");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_has_work_or_has_asked_may_not_ask() -> Result {
    let (server, mut builder, _) = leased("one", 0).await?;
    server.site.put_srpm("two")?;
    builder.ask(0).await?;
    let heard = builder.to_the_end().await;
    assert!(heard.iter().all(|word| !matches!(word, ToBuilder::Assign(_))), "{heard:?}");
    server.until("given up", |site| site.source().len() == 2).await?;
    let idle = TestServer::start(Site::new()?, |_| {});
    let mut builder = idle.builder("asks-twice", &["f43"], 2).await?;
    builder.ask(1).await?;
    builder.ask(1).await?;
    let heard = builder.to_the_end().await;
    assert!(
        matches!(heard.last(), Some(ToBuilder::Goodbye { reason }) if reason.contains("slot 1")),
        "{heard:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_log_is_sent_once() -> Result {
    let (server, mut builder, attempt) = leased("chatter", 0).await?;
    for stream in [1, 2] {
        builder.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    }
    let heard = builder.to_the_end().await;
    assert!(
        matches!(heard.last(), Some(ToBuilder::Goodbye { reason }) if reason.contains("build.log")),
        "{heard:?}"
    );
    back_in_source(&server, "chatter").await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slot_may_ask_when_its_results_are_announced() -> Result {
    let (server, mut builder, attempt) = leased("uploading", 10).await?;
    server.site.put_srpm("next")?;
    let rpm = built("uploading", b"what was built");
    let files = [("uploading-1-1.src.rpm", &rpm[..])];
    let listed = moji_tests::support::simulated::manifest(&files)?;
    let stream = builder.deliver_open(attempt, Outcome::Succeeded, &listed, &rpm[..300]).await?;
    let next = builder.lease(0).await?;
    assert_eq!(next.srpm.as_str(), "next-1-1.src.rpm");
    builder.data(stream, &rpm[300..]).await?;
    builder.end(stream, None).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    Ok(())
}
