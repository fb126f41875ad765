//! Those who only connect, and know no password.

use anyhow::ensure;
use moji_proto::frame::{self, Kind};
use moji_proto::handshake::{Refusal, RefusalCode};
use moji_proto::{ToServer, encoding};
use moji_tests::support::simulated::{Peer, ScriptedBuilder};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Duration, Instant, sleep};

use crate::Result;
use crate::scene::{Scene, is_closed};

/// A byte a second from a hundred connections of two addresses: each is closed after ten seconds, however
/// busy it is.
pub(crate) async fn slow_loris(scene: &mut Scene) -> Result {
    let hello = frame::encode(Kind::ClientHello, &[b'm'; 900]);
    let begun = Instant::now();
    let mut peers: Vec<ScriptedBuilder> = Vec::new();
    for n in 0..100 {
        let address = format!("192.0.2.{}:{}", n % 2, 1000 + n);
        peers.push(Peer::new(scene.server.connect_from(&address)?));
    }
    for byte in hello.iter() {
        let mut open = Vec::new();
        for mut peer in peers {
            if peer.raw(&[*byte]).await.is_ok() {
                open.push(peer);
            }
        }
        peers = open;
        if peers.is_empty() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    ensure!(peers.is_empty() && begun.elapsed() <= Duration::from_secs(12), "{:?}", begun.elapsed());
    let lines = scene.log_lines("it did not introduce itself");
    ensure!((1..=4).contains(&lines), "{lines} lines about 100 strangers");
    Ok(())
}

pub(crate) async fn garbage_before_the_handshake(scene: &mut Scene) -> Result {
    let noise: Vec<u8> = (0..2_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let ask = encoding::encode(&ToServer::Ask { slot: 0 })?;
    let first = [
        noise,
        b"GET / HTTP/1.1\r\nHost: \x1b[31mmoji\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 64],
        vec![255; 64],
        frame::encode(Kind::Control, &ask).to_vec(),
        frame::encode(Kind::Proof, &[0; 32]).to_vec(),
        frame::encode(Kind::ServerHello, &[0; 60]).to_vec(),
        frame::encode(Kind::ClientHello, &[0; 40]).to_vec(),
        frame::encode(Kind::ClientHello, b"").to_vec(),
        frame::encode(Kind::Refusal, b"\0\x02\x1b[2Jno").to_vec(),
    ];
    for bytes in first {
        let mut peer: ScriptedBuilder = Peer::new(scene.server.connect()?);
        let begun = Instant::now();
        peer.raw(&bytes).await?;
        while let Ok(frame) = peer.frame().await {
            ensure!(frame.kind == Kind::Refusal, "{bytes:?}: {frame:?}");
        }
        ensure!(begun.elapsed() <= Duration::from_secs(10), "{bytes:?} was not closed");
    }
    Ok(())
}

/// Far more connections than there are places for strangers, and nobody else notices.
pub(crate) async fn a_crowd_that_says_nothing(scene: &mut Scene) -> Result {
    let mut crowd = Vec::new();
    for n in 0..3_000u32 {
        crowd.push(scene.server.connect_from(&format!("198.51.100.{}:9", n % 40))?);
    }
    sleep(Duration::from_millis(100)).await;
    // In the middle of it somebody from elsewhere comes in.
    let mut friend: ScriptedBuilder = Peer::new(scene.server.connect_from("203.0.113.7:9")?);
    friend.shake_hands(Some(crate::scene::PASSWORD)).await?;
    sleep(Duration::from_secs(11)).await;
    for mut io in crowd {
        let mut rest = Vec::new();
        ensure!(io.read_to_end(&mut rest).await? == 0, "something was said to a stranger");
    }
    let lines = scene.log_lines("198.51.");
    ensure!((1..100).contains(&lines), "{lines} lines about 3,000 strangers");
    Ok(())
}

pub(crate) async fn guesses(scene: &mut Scene) -> Result {
    let begun = Instant::now();
    for guess in ["123456", "correct house", "", "moji", "admin", "\u{1b}[31m"] {
        let mut stranger: ScriptedBuilder = Peer::new(scene.server.connect_from("192.0.2.9:9")?);
        let refused = stranger.shake_hands(Some(guess)).await;
        let refusal = match refused {
            Ok(()) => anyhow::bail!("let in with {guess:?}"),
            Err(error) => error.downcast::<Refusal>()?,
        };
        ensure!(refusal.code == Some(RefusalCode::WrongProof), "{refusal}");
        is_closed(stranger).await?;
    }
    ensure!(begun.elapsed() >= Duration::from_secs(1 + 2 + 4 + 8 + 16 + 20), "{:?}", begun.elapsed());
    Ok(())
}

/// The handshake is begun, and the server waits for a proof, or for a registration.
pub(crate) async fn hello_and_then_nothing(scene: &mut Scene) -> Result {
    let mut hello = b"moji".to_vec();
    hello.extend(moji_proto::version::OLDEST.to_be_bytes());
    hello.extend(moji_proto::version::NEWEST.to_be_bytes());
    hello.extend([9; 32]);
    // No credential.
    hello.push(0);
    let mut silent: ScriptedBuilder = Peer::new(scene.server.connect()?);
    silent.raw(&frame::encode(Kind::ClientHello, &hello)).await?;
    ensure!(silent.frame().await?.kind == Kind::ServerHello, "no answer");
    let mut undecided: ScriptedBuilder = Peer::new(scene.server.connect()?);
    undecided.shake_hands(Some(crate::scene::PASSWORD)).await?;
    let begun = Instant::now();
    is_closed(undecided).await?;
    ensure!(silent.frame().await.is_err(), "it is open still");
    ensure!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
    // A proof that is sent twice, for another connection.
    let mut replay: ScriptedBuilder = Peer::new(scene.server.connect()?);
    replay.raw(&frame::encode(Kind::ClientHello, &hello)).await?;
    replay.frame().await?;
    replay.raw(&frame::encode(Kind::Proof, &[5; 32])).await?;
    replay.raw(&frame::encode(Kind::Proof, &[5; 32])).await?;
    ensure!(replay.frame().await?.kind == Kind::Refusal, "no refusal");
    Ok(())
}
