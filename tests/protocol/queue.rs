//! Who gets what, and when.

use std::time::Duration;

use moji_proto::{Outcome, Phase, ToBuilder, ToServer};
use moji_tests::support::simulated::{Site, TestServer, built, srpm};
use tokio::time::{Instant, sleep, timeout};

use super::Result;

/// The look at SOURCE is the only thing that takes time: no queue is ever polled.
#[tokio::test(start_paused = true)]
async fn a_waiting_slot_gets_an_srpm_in_the_moment_in_which_it_is_seen() -> Result {
    let begun = Instant::now();
    let server = TestServer::start(Site::new()?, |config| config.rescan = Duration::from_secs(7));
    let mut builder = server.builder("eager", &["f43"], 1).await?;
    builder.ask(0).await?;
    sleep(Duration::from_secs(16)).await;
    server.site.put_srpm("moment")?;
    builder.assignment().await?;
    assert_eq!(begun.elapsed(), Duration::from_secs(21), "the third look is 21 s after the start");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_asks_when_there_is_work_gets_it_at_once() -> Result {
    let site = Site::new()?;
    site.put_srpm("ready")?;
    let server = TestServer::start(site, |_| {});
    let mut builder = server.builder("eager", &["f43"], 1).await?;
    let begun = Instant::now();
    builder.lease(0).await?;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_slot_that_has_waited_longest_is_served_first_and_one_srpm_serves_one() -> Result {
    let server = TestServer::new()?;
    let mut first = server.builder("first", &["f43"], 1).await?;
    first.ask(0).await?;
    sleep(Duration::from_millis(10)).await;
    let mut second = server.builder("second", &["f43"], 1).await?;
    second.ask(0).await?;
    sleep(Duration::from_millis(10)).await;
    server.site.put_srpm("only")?;
    first.assignment().await?;
    assert!(timeout(Duration::from_secs(20), second.word()).await.is_err());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn priority_is_respected_also_when_it_changes_while_srpms_wait() -> Result {
    let site = Site::new()?;
    for name in ["alpha", "beta", "gamma", "delta"] {
        site.put_srpm(name)?;
    }
    site.put("priority.txt", b"gamma\n# a comment\nd*a\n")?;
    let server = TestServer::start(site, |_| {});
    let mut builder = server.builder("worker", &["f43"], 4).await?;
    let mut order = Vec::new();
    for slot in 0..2 {
        order.push(builder.lease(slot).await?.srpm.to_string());
    }
    assert_eq!(order, ["gamma-1-1.src.rpm", "delta-1-1.src.rpm"]);
    server.site.put("priority.txt", b"beta-1-1\n")?;
    sleep(Duration::from_secs(3)).await;
    for slot in 2..4 {
        order.push(builder.lease(slot).await?.srpm.to_string());
    }
    assert_eq!(order[2..], ["beta-1-1.src.rpm", "alpha-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn srpms_of_a_target_go_only_to_its_builders_and_results_to_its_repository() -> Result {
    let site = Site::new()?;
    site.put("f43-arm/aimed-1-1.src.rpm", &srpm("aimed", "1", "1", 900))?;
    let server = TestServer::start(site, |_| {});
    let mut other = server.builder("other", &["f42-arm", "f44-arm"], 1).await?;
    other.ask(0).await?;
    assert!(timeout(Duration::from_secs(5), other.word()).await.is_err(), "work for another target");
    let mut fitting = server.builder("fitting", &["f42-arm", "f43-arm"], 1).await?;
    let assignment = fitting.lease(0).await?;
    assert_eq!(assignment.target.as_str(), "f43-arm");
    assert_eq!(server.site.working(), ["f43-arm/aimed-1-1.src.rpm"]);
    let attempt = assignment.attempt;
    fitting.deliver(attempt, Outcome::Succeeded, &[("aimed-1-1.src.rpm", &built("aimed", b"built"))]).await?;
    assert_eq!(fitting.word().await?, ToBuilder::Accepted { attempt });
    let site = &server.site;
    assert_eq!(site.published("f43-arm/aimed-1-1"), ["aimed-1-1.src.rpm", "build.json"]);
    assert_eq!(site.published(""), ["f43-arm"]);
    assert!(site.folders.repo.join("f43-arm/repodata").is_dir(), "its RPMs would be in the metadata of REPO");
    assert_eq!(site.finished(), ["f43-arm/aimed-1-1.src.rpm"]);
    site.put_srpm("anyone")?;
    assert_eq!(other.assignment().await?.target.as_str(), "f42-arm", "the preferred target");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_that_is_none_goes_to_finished_with_the_reason() -> Result {
    let server = TestServer::new()?;
    server.site.put("nonsense-1-1.src.rpm", b"this is no RPM at all, but long enough to be looked at")?;
    server.until("refused", |site| site.finished() == ["nonsense-1-1.src.rpm"]).await?;
    let record = server.site.folders.finished.join("nonsense-1-1.src.rpm.failed.json");
    assert!(std::fs::read_to_string(record)?.contains("unreadable_srpm"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_dropped_again_while_it_is_built_is_built_again() -> Result {
    let site = Site::new()?;
    site.put_srpm("again")?;
    let server = TestServer::start(site, |_| {});
    let mut builder = server.builder("worker", &["f43"], 2).await?;
    let first = builder.lease(0).await?;
    builder.ask(1).await?;
    server.site.put("again-1-1.src.rpm", &srpm("again", "1", "1", 4_000))?;
    for _ in 0..3 {
        assert!(timeout(Duration::from_secs(10), builder.word()).await.is_err(), "built twice at a time");
        builder
            .say(ToServer::Heartbeat { disk: None, attempts: vec![(first.attempt, Phase::Building)] })
            .await?;
    }
    let attempt = first.attempt;
    builder.deliver(attempt, Outcome::Succeeded, &[("again-1-1.src.rpm", &built("again", b"built"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    let second = builder.assignment().await?;
    assert!(second.size > first.size && second.attempt != attempt, "{second:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_broken_srpm_that_cannot_be_moved_is_moved_when_it_can() -> Result {
    let site = Site::new()?;
    site.put("broken-1-1.src.rpm", b"this is no RPM at all")?;
    let blocked = site.folders.finished.join("broken-1-1.src.rpm");
    std::fs::create_dir_all(&blocked)?;
    let server = TestServer::start(site, |_| {});
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.site.source(), ["broken-1-1.src.rpm"]);
    std::fs::remove_dir(&blocked)?;
    server.until("moved to FINISHED", |site| site.source().is_empty() && blocked.is_file()).await?;
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    server.site.put_srpm("good")?;
    assert_eq!(builder.lease(0).await?.srpm.as_str(), "good-1-1.src.rpm");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_replaces_a_broken_srpm_that_cannot_be_moved_is_built() -> Result {
    let site = Site::new()?;
    site.put("mended-1-1.src.rpm", b"this is no RPM at all")?;
    let blocked = site.folders.finished.join("mended-1-1.src.rpm");
    std::fs::create_dir_all(&blocked)?;
    let server = TestServer::start(site, |_| {});
    sleep(Duration::from_secs(60)).await;
    server.site.put("mended-1-1.src.rpm", &srpm("mended", "1", "1", 900))?;
    sleep(Duration::from_secs(60)).await;
    std::fs::remove_dir(&blocked)?;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.site.source(), ["mended-1-1.src.rpm"]);
    let mut builder = server.builder("worker", &["f43"], 1).await?;
    assert_eq!(builder.lease(0).await?.srpm.as_str(), "mended-1-1.src.rpm");
    Ok(())
}
