//! What was begun for an attempt stops when the attempt ends.

use std::fs;
use std::time::Duration;

use moji_proto::{AttemptId, LogFile, Outcome, Phase, StreamMessage, ToBuilder, ToServer, limits};
use moji_tests::support::simulated::manifest;
use tokio::time::timeout;

use super::Result;
use super::returning::leased;

fn patient(config: &mut moji_server::run::Config) {
    config.dead_after = Duration::from_secs(100_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_not_written_any_more() -> Result {
    let (server, mut builder, given) = leased(&["given-back"], patient).await?;
    let attempt = given.attempt;
    let live = builder.next_stream();
    builder.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream: live }).await?;
    builder.data(live, b"one line").await?;
    let listed = manifest(&[("a.log", b"12345"), ("b.log", b"67890")])?;
    let upload = builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"123").await?;
    builder.say(ToServer::Release { attempt, reason: "no room".into(), trouble: false }).await?;
    let both = builder.until(|peer| [live, upload].iter().all(|stream| peer.unwanted.contains(stream)));
    timeout(Duration::from_secs(60), both).await??;
    for stream in [live, upload] {
        builder.data(stream, b"4567890").await?;
    }
    server.until("queued again", |site| site.source() == ["given-back-1-1.src.rpm"]).await?;
    server.until("staging is empty", |site| site.staged().is_empty()).await
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_now_is_removed_later() -> Result {
    let (server, mut builder, given) = leased(&["stubborn"], patient).await?;
    let attempt = given.attempt;
    let staging = server.site.folders.attempt(attempt);
    // Nothing that can be removed as a folder.
    fs::remove_dir_all(&staging)?;
    fs::write(&staging, "")?;
    builder.say(ToServer::Release { attempt, reason: "no room".into(), trouble: false }).await?;
    server.until("queued again", |site| site.source() == ["stubborn-1-1.src.rpm"]).await?;
    fs::remove_file(&staging)?;
    fs::create_dir(&staging)?;
    server.until("staging is empty", |site| site.staged().is_empty()).await
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_aborted_again_and_again_is_given_up() -> Result {
    let (server, mut builder, given) = leased(&["half-hearted"], patient).await?;
    let attempt = given.attempt;
    let listed = manifest(&[("a.log", b"12345")])?;
    for _ in 0..20 {
        let stream = builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"123").await?;
        builder.say(StreamMessage::Abort { stream, reason: "not today".into() }).await?;
        let word = builder.word().await?;
        let ToBuilder::Rejected { again, .. } = word else { anyhow::bail!("{word:?}") };
        if !again {
            return server.until("queued again", |site| site.source() == ["half-hearted-1-1.src.rpm"]).await;
        }
    }
    anyhow::bail!("it goes on for ever")
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_names_no_more_than_may_be_held() -> Result {
    let (_server, mut builder, given) = leased(&["alive"], patient).await?;
    let boot = given.attempt.boot;
    let mut attempts: Vec<_> =
        (0..limits::HOLDS as u64).map(|serial| (AttemptId { boot, serial }, Phase::Delivering)).collect();
    builder.say(ToServer::Heartbeat { disk: None, attempts: attempts.clone() }).await?;
    assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    attempts.push((given.attempt, Phase::Building));
    builder.say(ToServer::Heartbeat { disk: None, attempts }).await?;
    let heard = builder.to_the_end().await;
    assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{heard:?}");
    Ok(())
}
