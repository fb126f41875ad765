//! Who is let in, and what becomes of the rest.

use std::time::Duration;

use moji_proto::frame::{self, Kind};
use moji_proto::handshake::{Refusal, RefusalCode};
use moji_proto::version::{NEWEST, OLDEST};
use moji_proto::{Registration, Tag, ToBuilder, ToServer, encoding, limits};
use moji_tests::support::simulated::{Peer, ScriptedBuilder, Site, TestServer, registration};
use tokio::time::{Instant, sleep};

use super::Result;

/// A stranger's connection, and a builder that must not notice anything of it.
async fn undisturbed() -> anyhow::Result<(TestServer, ScriptedBuilder)> {
    let server = TestServer::new()?;
    let builder = server.builder("honest", &["f43"], 1).await?;
    Ok((server, builder))
}

/// The builder gets work as if nothing had happened.
async fn still_works(server: &TestServer, builder: &mut ScriptedBuilder, name: &str) -> Result {
    builder.ask(0).await?;
    server.site.put_srpm(name)?;
    let assignment = builder.assignment().await?;
    assert_eq!(assignment.srpm.as_str(), format!("{name}-1-1.src.rpm"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed_after_ten_seconds() -> Result {
    let server = TestServer::new()?;
    let begun = Instant::now();
    let mut silent: ScriptedBuilder = Peer::new(server.connect()?);
    assert!(silent.frame().await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 10);
    let mut builder = server.builder("honest", &["f43"], 1).await?;
    still_works(&server, &mut builder, "after-silence").await
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dribbles_its_hello_is_closed_after_ten_seconds_too() -> Result {
    let server = TestServer::new()?;
    let begun = Instant::now();
    let mut slow: ScriptedBuilder = Peer::new(server.connect()?);
    let hello = frame::encode(Kind::ClientHello, &[b'm'; 900]);
    let mut sent = 0;
    while slow.raw(&hello[sent..=sent]).await.is_ok() {
        sent += 1;
        sleep(Duration::from_secs(1)).await;
    }
    assert!((10..=11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_handshake_without_a_registration_is_closed_after_ten_seconds() -> Result {
    let server = TestServer::new()?;
    let mut silent: ScriptedBuilder = Peer::new(server.connect()?);
    silent.shake_hands(None).await?;
    let begun = Instant::now();
    assert!(silent.frame().await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 10);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_refused_once_late_and_without_disturbing_others() -> Result {
    let secret = |config: &mut moji_server::run::Config| config.password = Some("correct horse".into());
    let server = TestServer::start(Site::new()?, secret);
    let mut honest = server.builder("honest", &["f43"], 1).await?;
    let begun = Instant::now();
    let mut stranger: ScriptedBuilder = Peer::new(server.connect()?);
    let refused = stranger.shake_hands(Some("correct house"));
    let meanwhile = still_works(&server, &mut honest, "meanwhile");
    let (refused, meanwhile) = tokio::join!(refused, meanwhile);
    meanwhile?;
    let refusal = refused.expect_err("let in with a wrong password").downcast::<Refusal>()?;
    assert_eq!(refusal.code, Some(RefusalCode::WrongProof));
    assert!(refusal.reason.contains("password"), "{refusal}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "guessing is quick: {:?}", begun.elapsed());
    assert!(stranger.frame().await.is_err(), "more than one refusal");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_password_to_a_server_without_one_is_never_proved() -> Result {
    let server = TestServer::new()?;
    let entered = Peer::enter(server.connect()?, registration("careful", &["f43"], 1)?, Some("secret")).await;
    let error = entered.expect_err("went on without a proof").to_string();
    assert!(error.contains("does not ask for the password"), "{error}");
    Ok(())
}

fn hello(oldest: u16, newest: u16) -> Vec<u8> {
    let mut body = b"moji".to_vec();
    body.extend(oldest.to_be_bytes());
    body.extend(newest.to_be_bytes());
    body.extend([0x5a; 32]);
    frame::encode(Kind::ClientHello, &body).to_vec()
}

#[tokio::test(start_paused = true)]
async fn too_old_and_too_new_versions_are_told_what_to_update() -> Result {
    let (server, mut builder) = undisturbed().await?;
    let (older, newer) = (OLDEST - 1, NEWEST + 1);
    for (oldest, newest, update) in [(0, older, "update the client"), (newer, 9, "update the server")] {
        let mut peer: ScriptedBuilder = Peer::new(server.connect()?);
        peer.raw(&hello(oldest, newest)).await?;
        let frame = peer.frame().await?;
        assert_eq!(frame.kind, Kind::Refusal);
        let refusal = Refusal::decode(frame.body);
        assert_eq!(refusal.code, Some(RefusalCode::Version));
        assert!(refusal.reason.contains(update), "{refusal}");
        assert!(peer.frame().await.is_err());
    }
    still_works(&server, &mut builder, "after-versions").await
}

#[tokio::test(start_paused = true)]
async fn what_is_no_handshake_closes_the_connection_and_only_that() -> Result {
    let (server, mut builder) = undisturbed().await?;
    let mut oversized = u32::MAX.to_be_bytes().to_vec();
    oversized.push(Kind::ClientHello as u8);
    let ask = encoding::encode(&ToServer::Ask { slot: 0 })?;
    let first: [(&str, Vec<u8>); 6] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: moji\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("an oversized frame", oversized),
        ("work before a hello", frame::encode(Kind::Control, &ask).to_vec()),
        ("data before a hello", [&frame::data_header(1, 3)[..], b"abc"].concat()),
        ("another protocol's hello", frame::encode(Kind::ClientHello, &[b'x'; 40]).to_vec()),
    ];
    for (what, bytes) in first {
        let begun = Instant::now();
        let mut peer: ScriptedBuilder = Peer::new(server.connect()?);
        peer.raw(&bytes).await?;
        while let Ok(frame) = peer.frame().await {
            assert_eq!(frame.kind, Kind::Refusal, "{what}");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{what} was not closed at once");
    }
    still_works(&server, &mut builder, "after-garbage").await
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_breaks_the_protocol_is_told_and_closed_and_only_that_one() -> Result {
    let (server, mut builder) = undisturbed().await?;
    let control = |message: &ToServer| -> anyhow::Result<Vec<u8>> {
        Ok(frame::encode(Kind::Control, &encoding::encode(message)?).to_vec())
    };
    let mut trailing = encoding::encode(&ToServer::Drain)?;
    trailing.push(0);
    let mut oversized = (limits::DATA_BODY as u32 + 2).to_be_bytes().to_vec();
    oversized.push(Kind::Data as u8);
    let again = ToServer::Register(registration("twice", &["f43"], 1)?);
    let wrong: [(&str, Vec<u8>); 8] = [
        ("no message", frame::encode(Kind::Control, &[0xfe, 0xff, 1]).to_vec()),
        ("a message and more", frame::encode(Kind::Control, &trailing).to_vec()),
        ("an oversized frame", oversized),
        ("data nobody announced", [&frame::data_header(5, 3)[..], b"abc"].concat()),
        ("a slot it does not have", control(&ToServer::Ask { slot: 3 })?),
        ("a second registration", control(&again)?),
        ("a second hello", hello(1, 1)),
        ("an unknown kind", vec![0, 0, 0, 2, 99, 0]),
    ];
    for (what, bytes) in wrong {
        let mut peer = server.builder("rude", &["f43"], 3).await?;
        let begun = Instant::now();
        peer.raw(&bytes).await?;
        let heard = peer.to_the_end().await;
        assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{what}: {heard:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{what} was not closed at once");
    }
    still_works(&server, &mut builder, "after-rudeness").await
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_cannot_be_is_refused() -> Result {
    let server = TestServer::new()?;
    let many: Vec<String> = (0..=limits::TARGETS).map(|n| format!("target-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (targets, slots) in [(&["f43"][..], 0), (&["f43"], limits::SLOTS + 1), (&[], 1), (&many, 1)] {
        let entered = server.builder("impossible", targets, slots).await;
        let refusal = entered.expect_err("let in").downcast::<Refusal>()?;
        assert_eq!(refusal.code, Some(RefusalCode::Registration), "{refusal}");
    }
    for (count, fits) in [(limits::TAGS, true), (limits::TAGS + 1, false)] {
        let tags: std::result::Result<_, _> = (0..count).map(|n| Tag::new(format!("tag-{n}"))).collect();
        let tagged = Registration { tags: tags?, ..registration("tagged", &["f43"], 1)? };
        let entered = Peer::enter(server.connect()?, tagged, None).await;
        assert_eq!(entered.is_ok(), fits, "{count}");
        if let Err(refusal) = entered {
            assert!(refusal.to_string().contains("at most 32 tags, not 33"), "{refusal}");
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_answered_and_keep_a_connection() -> Result {
    let server = TestServer::new()?;
    let mut builder = server.builder("alive", &["f43"], 1).await?;
    for _ in 0..100 {
        sleep(Duration::from_secs(29)).await;
        builder.say(ToServer::Heartbeat { disk: None, attempts: Vec::new() }).await?;
        assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    }
    still_works(&server, &mut builder, "after-an-hour").await
}
