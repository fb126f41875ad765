//! What reaches REPO and FINISHED, and what never does.

use std::fs;
use std::time::Duration;

use moji_proto::{AttemptId, FailureKind, Outcome, ToBuilder, ToServer};
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, built, rpm, srpm};
use tokio::time::{Instant, timeout};

use super::Result;

fn failed(reason: &str) -> Outcome {
    Outcome::failed(FailureKind::Package, reason, Some(1), Vec::new())
}

/// Leases the SRPM, delivers and is accepted.
async fn build(
    builder: &mut ScriptedBuilder,
    outcome: Outcome,
    files: &[(&str, &[u8])],
) -> anyhow::Result<AttemptId> {
    let attempt = builder.lease(0).await?.attempt;
    builder.deliver(attempt, outcome, files).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    Ok(attempt)
}

async fn farm(name: &str) -> anyhow::Result<(TestServer, ScriptedBuilder)> {
    let site = Site::new()?;
    site.put_srpm(name)?;
    let server = TestServer::start(site, |_| {});
    let builder = server.builder("worker", &["f43"], 1).await?;
    Ok((server, builder))
}

/// FINISHED back to SOURCE, as a person does it to have something built again.
fn queue_again(site: &Site, name: &str) -> std::io::Result<()> {
    let srpm = format!("{name}-1-1.src.rpm");
    fs::rename(site.folders.finished.join(&srpm), site.folders.source.join(&srpm))
}

#[tokio::test(start_paused = true)]
async fn accepted_means_published_and_finished() -> Result {
    let (server, mut builder) = farm("good").await?;
    let rpm = rpm("good", "1", "1", "good-1-1.src.rpm", 70_000);
    let source = built("good", b"the source");
    let files = [
        ("good-1-1.src.rpm", &source[..]),
        ("good-1-1.noarch.rpm", &rpm[..]),
        ("build.log", b"it works"),
        ("empty.log", b""),
    ];
    let attempt = build(&mut builder, Outcome::Succeeded, &files).await?;
    let site = &server.site;
    let names = ["build.json", "build.log", "empty.log", "good-1-1.noarch.rpm", "good-1-1.src.rpm"];
    assert_eq!(site.published("good-1-1"), names);
    assert!(fs::read(site.folders.repo.join("good-1-1/good-1-1.noarch.rpm"))? == rpm);
    let record = site.record("good-1-1").expect("no record");
    assert_eq!((record.outcome, record.artifacts.len()), (Outcome::Succeeded, 4));
    let told = record.attempt.expect("no attempt");
    assert_eq!((told.id, told.builder.name.as_str(), told.target.as_str()), (attempt, "worker", "f43"));
    assert_eq!(
        (site.finished(), site.source(), site.working()),
        (vec!["good-1-1.src.rpm".into()], vec![], vec![])
    );
    assert_eq!(site.staged(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_recorded_beside_the_srpm() -> Result {
    let (server, mut builder) = farm("bad").await?;
    build(&mut builder, failed("no such header"), &[("build.log", b"error"), ("bad-1-1.src.rpm", b"s")])
        .await?;
    let site = &server.site;
    assert_eq!(site.published("bad-1-1"), ["build.json", "build.log"]);
    assert_eq!(site.finished(), ["bad-1-1.src.rpm"]);
    let beside = fs::read(site.folders.finished.join("bad-1-1.src.rpm.failed.json"))?;
    assert_eq!(beside, fs::read(site.folders.repo.join("bad-1-1/build.json"))?);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_failure_never_takes_the_place_of_a_good_result() -> Result {
    let (server, mut builder) = farm("kept").await?;
    let rpm = srpm("kept", "1", "1", 500);
    build(&mut builder, Outcome::Succeeded, &[("kept-1-1.src.rpm", &rpm)]).await?;
    let good = server.site.record("kept-1-1");
    queue_again(&server.site, "kept")?;
    let attempt = build(&mut builder, failed("a test broke"), &[("build.log", b"broken")]).await?;
    let site = &server.site;
    assert_eq!(site.record("kept-1-1"), good);
    assert!(fs::read(site.folders.repo.join("kept-1-1/kept-1-1.src.rpm"))? == rpm);
    assert_eq!(site.published(&format!("kept-1-1/attempt-{attempt}")), ["build.json", "build.log"]);
    assert_eq!(site.finished(), ["kept-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_second_success_leaves_the_first_and_says_so() -> Result {
    let (server, mut builder) = farm("first").await?;
    build(&mut builder, Outcome::Succeeded, &[("first-1-1.src.rpm", &built("first", b"the first"))]).await?;
    queue_again(&server.site, "first")?;
    let files: [(&str, &[u8]); 2] =
        [("first-1-1.src.rpm", &built("first", b"the second")), ("build.log", b"again")];
    let attempt = build(&mut builder, Outcome::Succeeded, &files).await?;
    let site = &server.site;
    assert_eq!(
        fs::read(site.folders.repo.join("first-1-1/first-1-1.src.rpm"))?,
        built("first", b"the first")
    );
    let beside = format!("first-1-1/attempt-{attempt}");
    assert_eq!(site.published(&beside), ["build.json", "build.log"]);
    let note = site.record(&beside).and_then(|record| record.note).unwrap_or_default();
    assert!(note.contains("was published before"), "{note}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_success_takes_the_place_of_a_failure() -> Result {
    let (server, mut builder) = farm("mended").await?;
    build(&mut builder, failed("typo"), &[("build.log", b"error"), ("root.log", b"root")]).await?;
    queue_again(&server.site, "mended")?;
    build(&mut builder, Outcome::Succeeded, &[("mended-1-1.src.rpm", &built("mended", b"good"))]).await?;
    let site = &server.site;
    assert_eq!(site.published("mended-1-1"), ["build.json", "mended-1-1.src.rpm"]);
    assert!(!site.folders.finished.join("mended-1-1.src.rpm.failed.json").exists());
    Ok(())
}

/// In the place of the SRPM in FINISHED there is a folder: the last step of publishing fails, also
/// for root.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_published_now_is_published_later() -> Result {
    let (server, mut builder) = farm("patient").await?;
    let blocked = server.site.folders.finished.join("patient-1-1.src.rpm");
    fs::create_dir(&blocked)?;
    let attempt = builder.lease(0).await?.attempt;
    let begun = Instant::now();
    builder
        .deliver(attempt, Outcome::Succeeded, &[("patient-1-1.src.rpm", &built("patient", b"good"))])
        .await?;
    assert!(timeout(Duration::from_secs(20), builder.word()).await.is_err(), "accepted, but not published");
    assert_eq!(server.site.working(), ["patient-1-1.src.rpm"]);
    builder.say(ToServer::Heartbeat { disk: None, attempts: Vec::new() }).await?;
    fs::remove_dir(&blocked)?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(begun.elapsed().as_secs(), 30, "tried every 15 s");
    assert_eq!(server.site.finished(), ["patient-1-1.src.rpm"]);
    assert_eq!(server.site.published(""), ["patient-1-1"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_published_without_its_builder() -> Result {
    let (server, mut builder) = farm("orphan").await?;
    let blocked = server.site.folders.finished.join("orphan-1-1.src.rpm");
    fs::create_dir(&blocked)?;
    let attempt = builder.lease(0).await?.attempt;
    builder
        .deliver(attempt, Outcome::Succeeded, &[("orphan-1-1.src.rpm", &built("orphan", b"good"))])
        .await?;
    server.until("the first try", |site| site.record("orphan-1-1").is_some()).await?;
    drop(builder);
    // Far longer than the grace: a finished build is not queued again.
    assert!(timeout(Duration::from_secs(100), std::future::pending::<()>()).await.is_err());
    assert_eq!((server.site.source(), server.site.working()), (vec![], vec!["orphan-1-1.src.rpm".into()]));
    fs::remove_dir(&blocked)?;
    server.until("finished", |site| site.finished() == ["orphan-1-1.src.rpm"]).await
}

/// Needs no clock: the commit has begun when its `build.json` is there.
#[tokio::test(start_paused = true)]
async fn a_publication_under_way_is_finished_before_the_server_ends() -> Result {
    let (server, mut builder) = farm("closing").await?;
    let attempt = builder.lease(0).await?.attempt;
    let names: Vec<String> = (0..200).map(|n| format!("part-{n}.log")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"a log"[..])).collect();
    let rpm = built("closing", b"good");
    files.push(("closing-1-1.src.rpm", &rpm));
    builder.deliver(attempt, Outcome::Succeeded, &files).await?;
    let staged = server.site.folders.attempt(attempt).join("results/build.json.part");
    let published = server.site.folders.repo.join("closing-1-1/build.json");
    while !staged.exists() && !published.exists() {
        tokio::task::yield_now().await;
    }
    let site = server.stop().await?;
    assert_eq!((site.finished(), site.working()), (vec!["closing-1-1.src.rpm".into()], vec![]));
    assert_eq!(site.record("closing-1-1").map(|record| record.artifacts.len()), Some(201));
    Ok(())
}
