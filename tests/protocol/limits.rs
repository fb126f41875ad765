//! What happens to those who go beyond a limit, and that nobody else notices.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use moji_proto::handshake::{Refusal, RefusalCode};
use moji_proto::{LogFile, ManifestEntry, Outcome, Sha256, StreamMessage, ToBuilder, ToServer};
use moji_server::Limits;
use moji_tests::support::simulated::{Peer, ScriptedBuilder, Site, TestServer, built, manifest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, sleep, timeout};

use super::Result;

fn server(limits: Limits) -> anyhow::Result<TestServer> {
    Ok(TestServer::start(Site::new()?, |config| config.limits = limits))
}

/// A builder is let in and gets work.
async fn still_works(server: &TestServer, name: &str) -> Result {
    let mut builder = server.builder("honest", &["f43"], 1).await?;
    server.site.put_srpm(name)?;
    let assignment = builder.lease(0).await?;
    ensure!(assignment.srpm.as_str() == format!("{name}-1-1.src.rpm"), "{}", assignment.srpm);
    Ok(())
}

/// Whether a connection was closed within a second.
async fn is_closed(io: DuplexStream) -> bool {
    let mut peer: ScriptedBuilder = Peer::new(io);
    matches!(timeout(Duration::from_secs(1), peer.frame()).await, Ok(Err(_)))
}

#[tokio::test(start_paused = true)]
async fn strangers_of_one_address_are_few_and_others_come_in() -> Result {
    let server = server(Limits { strangers_per_address: 3, ..Limits::default() })?;
    let kept: Vec<_> = (0..3).map(|_| server.connect_from("192.0.2.1:7")).collect::<anyhow::Result<_>>()?;
    assert!(is_closed(server.connect_from("192.0.2.1:7")?).await);
    let mut other: ScriptedBuilder = Peer::new(server.connect_from("192.0.2.2:7")?);
    other.shake_hands(None).await?;
    still_works(&server, "beside-strangers").await?;
    // One that has gone leaves its place to the next.
    drop(kept);
    sleep(Duration::from_millis(10)).await;
    assert!(!is_closed(server.connect_from("192.0.2.1:7")?).await);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_has_registered_is_no_stranger() -> Result {
    let server = server(Limits { strangers: 1, connections: 3, ..Limits::default() })?;
    let _builders = (server.builder("a", &["f43"], 1).await?, server.builder("b", &["f43"], 1).await?);
    let _stranger = server.connect()?;
    assert!(is_closed(server.connect()?).await);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_crowd_cannot_lock_out_somebody_from_elsewhere() -> Result {
    let limits = Limits { strangers: 6, strangers_per_address: 3, ..Limits::default() };
    let server = server(limits)?;
    let crowd = ["192.0.2.1:7", "192.0.2.1:8", "192.0.2.1:9", "192.0.2.2:7", "192.0.2.2:8", "192.0.2.2:9"];
    let crowd: Vec<_> =
        crowd.into_iter().map(|address| server.connect_from(address)).collect::<anyhow::Result<_>>()?;
    let mut newcomer: ScriptedBuilder = Peer::new(server.connect_from("198.51.100.1:7")?);
    newcomer.shake_hands(None).await?;
    let mut closed = 0;
    for io in crowd {
        closed += u32::from(is_closed(io).await);
    }
    assert_eq!(closed, 1, "as many as had to");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn each_wrong_password_waits_longer_and_a_right_one_never() -> Result {
    let server = TestServer::start(Site::new()?, |config| config.password = Some("correct horse".into()));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let mut stranger: ScriptedBuilder = Peer::new(server.connect_from("192.0.2.1:7")?);
        let begun = Instant::now();
        let refused = stranger.shake_hands(Some("correct house")).await;
        let refusal = refused.expect_err("let in with a wrong password").downcast::<Refusal>()?;
        assert_eq!(refusal.code, Some(RefusalCode::WrongProof));
        waits.push(begun.elapsed().as_secs());
    }
    // Longer than a stranger may take, too.
    assert_eq!(waits, [1, 2, 4, 8, 16, 20]);
    let begun = Instant::now();
    let mut friend: ScriptedBuilder = Peer::new(server.connect_from("192.0.2.1:7")?);
    friend.shake_hands(Some("correct horse")).await?;
    assert!(begun.elapsed() < Duration::from_secs(1));
    let mut stranger: ScriptedBuilder = Peer::new(server.connect_from("192.0.2.2:7")?);
    stranger.shake_hands(Some("correct house")).await.expect_err("let in with a wrong password");
    assert_eq!(begun.elapsed().as_secs(), 1, "another address is another stranger");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn results_that_are_too_large_are_refused_before_they_come_and_go_elsewhere() -> Result {
    let limits = Limits { manifest_entries: 2, artifact_size: 1000, attempt_size: 1500, ..Limits::default() };
    let server = server(limits)?;
    let entry = |name: &str, size| {
        anyhow::Ok(ManifestEntry { name: name.parse()?, size, sha256: Sha256::of(b"never seen") })
    };
    let too_much = [
        ("many", vec![entry("a.log", 1)?, entry("b.log", 1)?, entry("c.log", 1)?], "3 files, more than 2"),
        ("large", vec![entry("a.log", 1)?, entry("b.log", 1001)?], "b.log has 1001 B, more than 1000 B"),
        ("heavy", vec![entry("a.log", 800)?, entry("b.log", 800)?], "1.6 KiB, more than 1.5 KiB"),
    ];
    for (name, listed, why) in too_much {
        server.site.put_srpm(name)?;
        let mut wasteful = server.builder(&format!("wasteful-{name}"), &["f43"], 1).await?;
        let attempt = wasteful.lease(0).await?.attempt;
        wasteful.announce(attempt, Outcome::Succeeded, &listed).await?;
        let word = wasteful.word().await?;
        let ToBuilder::Rejected { reason, again: false, .. } = word else {
            anyhow::bail!("{name}: {word:?}")
        };
        assert!(reason.contains(why), "{reason}");
        // The connection goes on, and nothing was staged.
        wasteful.say(ToServer::Heartbeat { disk: None, attempts: Vec::new() }).await?;
        assert_eq!(wasteful.hear().await?, ToBuilder::HeartbeatSeen);
        server.until("nothing is staged", |site| site.staged().is_empty()).await?;
        let mut modest = server.builder("modest", &["f43"], 1).await?;
        let attempt = modest.lease(0).await?.attempt;
        modest
            .deliver(attempt, Outcome::Succeeded, &[(&format!("{name}-1-1.src.rpm"), &built(name, b"small"))])
            .await?;
        assert_eq!(modest.word().await?, ToBuilder::Accepted { attempt });
    }
    Ok(())
}

/// The package is as large as that: nobody builds it for ever, and no builder is suspended for it.
#[tokio::test(start_paused = true)]
async fn a_package_that_is_too_large_for_everybody_is_held_after_three_builds() -> Result {
    let server = server(Limits { artifact_size: 1000, ..Limits::default() })?;
    server.site.put_srpm("whale")?;
    let listed = [ManifestEntry { name: "whale.log".parse()?, size: 1001, sha256: Sha256::of(b"") }];
    let mut builders = Vec::new();
    for n in 0..3 {
        let mut builder = server.builder(&format!("board-{n}"), &["f43"], 1).await?;
        let attempt = builder.lease(0).await?.attempt;
        builder.announce(attempt, Outcome::Succeeded, &listed).await?;
        let word = builder.word().await?;
        assert!(matches!(word, ToBuilder::Rejected { again: false, .. }), "{word:?}");
        builders.push(builder);
    }
    server.until("it is held", |site| site.finished() == ["whale-1-1.src.rpm"]).await?;
    let held = fs::read_to_string(server.site.folders.finished.join("whale-1-1.src.rpm.held.json"))?;
    assert!(held.contains("3 attempts came to nothing"), "{held}");
    server.site.put_srpm("minnow")?;
    for mut builder in builders {
        builder.ask(0).await?;
        if let Ok(word) = timeout(Duration::from_secs(5), builder.word()).await {
            assert!(matches!(word?, ToBuilder::Assign(_)));
            return Ok(());
        }
    }
    anyhow::bail!("nobody gets any work")
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_lists_too_much_at_a_time_is_told_to_wait() -> Result {
    let server = server(Limits::default())?;
    let mut builder = server.builder("hoarder", &["f43"], 1).await?;
    let files = moji_proto::limits::FILES as u32;
    let mut attempts = Vec::new();
    for n in 0..6 {
        server.site.put_srpm(&format!("hoard-{n}"))?;
        let attempt = builder.lease(0).await?.attempt;
        attempts.push(attempt);
        builder.say(ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files, bytes: 4 }).await?;
    }
    let attempt = attempts[5];
    let heard = builder.word().await?;
    assert!(matches!(heard, ToBuilder::Rejected { attempt: about, again: true, .. } if about == attempt));
    // What was on its way already is ignored, and a smaller delivery of the same is taken.
    builder.say(ToServer::Manifest { attempt, entries: manifest(&[("late.log", b"late")])? }).await?;
    builder.say(ToServer::Release { attempt: attempts[0], reason: "enough".into(), trouble: false }).await?;
    builder
        .deliver(attempt, Outcome::Succeeded, &[("hoard-5-1-1.src.rpm", &built("hoard-5", b"five"))])
        .await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_log_is_slowed_down_and_comes_whole() -> Result {
    let limits = Limits { log_burst: 2 << 20, log_rate: 1 << 20, ..Limits::default() };
    let server = TestServer::start(Site::new()?, |config| {
        config.limits = limits;
        config.log_limit = 64 << 20;
    });
    server.site.put_srpm("loud")?;
    let mut builder = server.builder("loud", &["f43"], 1).await?;
    let attempt = builder.lease(0).await?.attempt;
    let stream = builder.next_stream();
    builder.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    let (begun, piece, total) = (Instant::now(), vec![b'x'; 256 << 10], 12 << 20);
    let mut sent = 0;
    while sent < total {
        builder.data(stream, &piece).await?;
        sent += piece.len() as u64;
        // An honest sender waits for its window.
        let free = sent.saturating_sub(moji_proto::limits::WINDOW - piece.len() as u64);
        builder.until(|peer| peer.received(stream) >= free).await?;
    }
    builder.until(|peer| peer.received(stream) >= total).await?;
    let (took, log) = (begun.elapsed(), server.site.folders.attempt(attempt).join("build.log"));
    assert!((9..=11).contains(&took.as_secs()), "10 MiB beyond the burst took {took:?}");
    assert_eq!(std::fs::metadata(log)?.len(), total);
    // Nothing else of this builder waits for it.
    let begun = Instant::now();
    builder.end(stream, None).await?;
    builder.deliver(attempt, Outcome::Succeeded, &[("loud-1-1.src.rpm", &built("loud", b"built"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert!(begun.elapsed() < Duration::from_secs(1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_is_read_slowly_and_nobody_else_waits() -> Result {
    let server = server(Limits { message_burst: 100, message_rate: 10, ..Limits::default() })?;
    let mut loud = server.builder("loud", &["f43"], 1).await?;
    let mut honest = server.builder("honest", &["f43"], 1).await?;
    let begun = Instant::now();
    // The first asks are answered by nothing, so only the reading is measured.
    for _ in 0..300 {
        loud.say(StreamMessage::Unwanted { stream: 9 }).await?;
    }
    loud.say(ToServer::Heartbeat { disk: None, attempts: Vec::new() }).await?;
    server.site.put_srpm("meanwhile")?;
    honest.lease(0).await?;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(loud.hear().await?, ToBuilder::HeartbeatSeen);
    assert!((19..=22).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_password_lets_so_many_builders_in_and_one_that_comes_back_takes_its_own_place() -> Result {
    let server = server(Limits { builders_per_credential: 2, ..Limits::default() })?;
    let mut first = server.builder("first", &["f43"], 1).await?;
    let mut second = server.builder("second", &["f43"], 1).await?;
    let third = server.builder("third", &["f43"], 1).await?.to_the_end().await;
    let [ToBuilder::Goodbye { reason }] = &third[..] else { anyhow::bail!("{third:?}") };
    assert!(reason.contains("2 builders are connected with the password"), "{reason}");
    // The server takes the first connection to be alive.
    let mut again = server.builder("first", &["f43"], 1).await?;
    let ended = first.to_the_end().await;
    let [ToBuilder::Goodbye { reason }] = &ended[..] else { anyhow::bail!("{ended:?}") };
    assert!(reason.contains("come back"), "{reason}");
    server.site.put_srpm("a")?;
    again.lease(0).await?;
    // One that has left makes place, for whoever tries often enough.
    second.say(ToServer::Goodbye { reason: "for today".into() }).await?;
    server.site.put_srpm("b")?;
    let fourth = async {
        while server.builder("fourth", &["f43"], 1).await?.lease(0).await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    };
    timeout(Duration::from_secs(60), fourth).await?
}

/// The time of a stranger includes the handshake of TLS.
#[tokio::test(start_paused = true)]
async fn a_tls_handshake_that_is_never_ended_is_closed_in_time() -> Result {
    let server = TestServer::start(Site::new()?, |config| config.plaintext = false);
    for beginning in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0, 1]] {
        let begun = Instant::now();
        let mut stranger = server.connect()?;
        stranger.write_all(beginning).await?;
        let mut rest = Vec::new();
        timeout(Duration::from_secs(60), stranger.read_to_end(&mut rest)).await??;
        assert!((9..=11).contains(&begun.elapsed().as_secs()), "{beginning:?}: {:?}", begun.elapsed());
    }
    Ok(())
}
