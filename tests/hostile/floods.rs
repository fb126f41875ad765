//! Builders that send far too much, or take nothing.

use anyhow::ensure;
use moji_proto::limits::WINDOW;
use moji_proto::{LogFile, Phase, StreamMessage, ToBuilder, ToServer};
use tokio::time::{Duration, Instant, timeout};

use crate::Result;
use crate::scene::{DEN, Scene, is_closed, is_stale};

/// Nobody waits longer than this for a flood that is slowed down, on the paused clock.
const AN_HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn log_without_a_window(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let (attempt, stream) = (assignment.attempt, liar.next_stream());
    liar.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    let piece = vec![b'x'; 256 << 10];
    // Sooner or later its window is full, whatever the server has written meanwhile.
    let mut sent = 0;
    while sent < 200 && liar.data(stream, &piece).await.is_ok() {
        sent += 1;
    }
    ensure!(sent < 200, "50 MiB were taken at once");
    is_closed(liar).await?;
    let log = scene.server.site.folders.attempt(attempt).join("build.log");
    ensure!(std::fs::metadata(log).map_or(0, |data| data.len()) <= 64 << 20, "beyond the limit");
    Ok(())
}

pub(crate) async fn log_with_a_window(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let (attempt, stream) = (assignment.attempt, liar.next_stream());
    liar.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    let (begun, piece) = (Instant::now(), vec![b'x'; 256 << 10]);
    let mut sent = 0;
    while liar.unwanted.is_empty() {
        liar.data(stream, &piece).await?;
        sent += piece.len() as u64;
        let free = sent.saturating_sub(WINDOW - piece.len() as u64);
        timeout(AN_HOUR, liar.until(|peer| peer.received(stream) >= free || !peer.unwanted.is_empty()))
            .await??;
        ensure!(sent <= 70 << 20, "more than the limit was taken");
        if sent % (8 << 20) == 0 {
            liar.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Building)] }).await?;
        }
    }
    // 64 MiB, of which 16 come at once and the others at 2 MiB a second.
    ensure!((20..30).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    Ok(())
}

/// Ten thousand a second are not too many, but their answers are, for somebody who does not read.
pub(crate) async fn heartbeats_whose_answers_nobody_reads(scene: &mut Scene) -> Result {
    let (mut liar, _) = scene.leased().await?;
    let mut said = 0;
    while said < 100_000 && liar.say(ToServer::Heartbeat { disk: None, attempts: Vec::new() }).await.is_ok() {
        said += 1;
    }
    ensure!(said < 100_000, "100,000 answers are kept for it");
    is_closed(liar).await?;
    Ok(())
}

pub(crate) async fn messages_that_are_read(scene: &mut Scene) -> Result {
    let mut liar = scene.liar().await?;
    let begun = Instant::now();
    for _ in 0..30_000 {
        liar.say(StreamMessage::Unwanted { stream: 3 }).await?;
    }
    liar.say(ToServer::Release { attempt: scene.bystander, reason: "end".into(), trouble: false }).await?;
    is_stale(&mut liar, scene.bystander).await?;
    // 10,000 at once, the rest at 1,000 a second.
    ensure!((19..25).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    ensure!(scene.log_lines("is slowed down to 1000 messages a second") == 1, "not said once");
    Ok(())
}

/// Single bytes: each is a write and an answer, and counts for more than a byte.
pub(crate) async fn tiny_frames(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let (attempt, stream) = (assignment.attempt, liar.next_stream());
    liar.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    let begun = Instant::now();
    for sent in 1..=6_000u64 {
        liar.data(stream, b"x").await?;
        if sent % 500 == 0 {
            timeout(AN_HOUR, liar.until(|peer| peer.received(stream) + 500 > sent)).await??;
        }
    }
    timeout(AN_HOUR, liar.until(|peer| peer.received(stream) == 6_000)).await??;
    // 16 MiB are 4,096 pieces, 2 MiB a second are 512.
    ensure!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    // More of them than the window allows ends it.
    for _ in 0..3_000 {
        if liar.data(stream, b"x").await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Takes an SRPM and gives it back, as fast as it can.
pub(crate) async fn take_and_give_back(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let mut attempt = assignment.attempt;
    for taken in 1.. {
        ensure!(taken < 100, "nothing stops it");
        liar.say(ToServer::Release { attempt, reason: "no".into(), trouble: false }).await?;
        liar.ask(0).await?;
        match liar.word().await? {
            ToBuilder::Assign(assignment) => attempt = assignment.attempt,
            ToBuilder::Suspended { seconds, .. } => {
                ensure!(seconds >= 300, "for {seconds} s only");
                break;
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(())
}

/// A large SRPM is on its way to a peer that takes none of it, and asks for more.
pub(crate) async fn a_peer_that_never_reads(scene: &mut Scene) -> Result {
    for n in 0..3 {
        let name = format!("large{n}");
        let srpm = moji_tests::support::simulated::srpm(&name, "1", "1", 8 << 20);
        scene.server.site.put(&format!("{DEN}/{name}-1-1.src.rpm"), &srpm)?;
    }
    let mut liar = scene.liar().await?;
    for slot in 0..3 {
        liar.ask(slot).await?;
    }
    // It says nothing more either, and does not look; the server gives it up.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let working = scene.server.site.folders.working.join(DEN);
    ensure!(moji_tests::support::simulated::names_in(&working).is_empty(), "it has the SRPMs still");
    drop(liar);
    Ok(())
}
