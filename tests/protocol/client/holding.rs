//! A lost connection ends nothing: what is whole goes on, and is offered on the next one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use moji_client::disk::FreeSpace;

use super::*;

/// The live log `file` of an attempt from `offset` on, as the server hears it begin.
async fn log_begins(
    server: &mut ScriptedServer,
    attempt: AttemptId,
    log: LogFile,
    from: u64,
) -> anyhow::Result<moji_proto::StreamId> {
    match server.word().await? {
        ToServer::Log { attempt: of, file, offset, stream } if of == attempt && file == log => {
            assert_eq!(offset, from);
            Ok(stream)
        }
        other => bail!("{other:?} came instead of a log"),
    }
}

fn append(begun: &Begun, log: &str, text: &str) -> Result {
    use std::io::Write as _;
    let path = begun.task.resultdir.join(log);
    Ok(fs::File::options().create(true).append(true).open(path)?.write_all(text.as_bytes())?)
}

async fn has(server: &mut ScriptedServer, stream: moji_proto::StreamId, bytes: &[u8]) -> Result {
    let is_so = |peer: &ScriptedServer| peer.streams.get(&stream).is_some_and(|heard| heard.bytes == bytes);
    timeout(Duration::from_secs(60), server.until(is_so)).await.context("the log does not go on")?
}

#[tokio::test(start_paused = true)]
async fn a_build_goes_on_without_a_connection_and_its_logs_go_on_where_the_server_has_them() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server_asked(0..2).await?;
    let (attempt, begun) = driven.building(&mut server, 50, 1, "lost").await?;
    append(&begun, "build.log", "one\n")?;
    let stream = log_begins(&mut server, attempt, LogFile::Build, 0).await?;
    has(&mut server, stream, b"one\n").await?;
    drop(server);
    append(&begun, "build.log", "two\n")?;
    append(&begun, "root.log", "root\n")?;
    append(&begun, "state.log", &"s".repeat(60_000))?;
    let mut server = driven.server().await?;
    let expected = HeldAttempt {
        attempt,
        target: "f43".parse()?,
        srpm: "lost-1-1.src.rpm".parse()?,
        sha256: source("lost").1,
        slot: Some(1),
        phase: moji_proto::Phase::Preparing,
    };
    assert_eq!(held(&mut server).await?, expected);
    asked(&mut server, [0]).await?;
    nothing_is_said(&mut server).await?;
    // Of the state log it has more than is ever sent.
    let logs = vec![(LogFile::Build, 2), (LogFile::State, 55_000)];
    server.say(ToBuilder::Resume { attempt, logs }).await?;
    let mut begun_at = BTreeMap::new();
    while let Ok(word) = timeout(Duration::from_secs(5), server.word()).await {
        let ToServer::Log { file, offset, stream, .. } = word? else { bail!("no log") };
        begun_at.insert(file, (offset, stream));
    }
    let files: Vec<_> = begun_at.iter().map(|(file, (offset, _))| (*file, *offset)).collect();
    assert_eq!(files, [(LogFile::Root, 0), (LogFile::Build, 2)]);
    let [root, build] = [LogFile::Root, LogFile::Build].map(|file| begun_at[&file].1);
    has(&mut server, build, b"e\ntwo\n").await?;
    has(&mut server, root, b"root\n").await?;
    append(&begun, "build.log", "three\n")?;
    has(&mut server, build, b"e\ntwo\nthree\n").await?;
    assert!(!begun.cancel.is_cancelled());
    begun.end(Outcome::Succeeded, &[("lost-1-1.noarch.rpm", b"built")])?;
    let (delivered, _, files) = server.delivery().await?;
    assert_eq!((delivered, files["build.log"].as_slice()), (attempt, &b"one\ntwo\nthree\n"[..]));
    asked(&mut server, [1]).await?;
    server.say(ToBuilder::Accepted { attempt }).await?;
    driven.nothing_left().await?;
    assert!(driven.builds.try_recv().is_err(), "it was built twice");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_that_was_still_coming_is_forgotten() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let stream = server.next_stream();
    let attempt = AttemptId { boot: 5, serial: 47 };
    let assignment = moji_proto::Assignment {
        attempt,
        slot: 0,
        target: "f43".parse()?,
        srpm: "half-1-1.src.rpm".parse()?,
        size: 1_000,
        stream,
        repository: None,
    };
    server.say(ToBuilder::Assign(assignment)).await?;
    server.data(stream, &[1; 400]).await?;
    // It has taken them.
    sleep(Duration::from_secs(1)).await;
    drop(server);
    let mut server = driven.server_asked([0]).await?;
    nothing_is_said(&mut server).await?;
    driven.nothing_left().await
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_about_an_attempt_before_it_is_resumed() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server_asked(0..2).await?;
    let (attempt, begun) = driven.building(&mut server, 62, 0, "early").await?;
    drop(server);
    let mut server = driven.server().await?;
    assert_eq!(held(&mut server).await?.slot, Some(0));
    asked(&mut server, [1]).await?;
    begun.end(Outcome::Succeeded, &[("early-1-1.noarch.rpm", b"built"), ("build.log", b"log")])?;
    nothing_is_said(&mut server).await?;
    server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
    assert!(matches!(server.word().await?, ToServer::Deliver { .. }));
    let next = [server.word().await?, server.word().await?];
    assert!(next.contains(&ToServer::Ask { slot: 0 }), "{next:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn heartbeats_name_what_is_built_and_what_waits() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server_asked(0..2).await?;
    let (waiting, begun) = driven.building(&mut server, 63, 0, "waiting").await?;
    begun.end(Outcome::Succeeded, &[])?;
    while !matches!(no_log(&mut server).await?, ToServer::Ask { slot: 0 }) {}
    let (built, _begun) = driven.building(&mut server, 64, 1, "built").await?;
    let named = loop {
        if let ToServer::Heartbeat { attempts, .. } = server.hear().await? {
            server.say(ToBuilder::HeartbeatSeen).await?;
            break attempts;
        }
    };
    use moji_proto::Phase::{Delivering, Preparing};
    assert_eq!(named, [(built, Preparing), (waiting, Delivering)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_how_full_the_disk_is() -> Result {
    let free = Arc::new(AtomicU64::new(700));
    let seen = Arc::clone(&free);
    let mut driven = Driven::start(1, |config| {
        config.free_space = FreeSpace::new(move || match seen.load(Ordering::SeqCst) {
            0 => None,
            free => Some(free),
        });
    })?;
    for at_first in [700, 600] {
        free.store(at_first, Ordering::SeqCst);
        let io = driven.connection().await?;
        let (mut server, registration) = ScriptedServer::welcome(io, &driven.secret).await?;
        assert_eq!(registration.resources.disk, at_first, "as it is on this connection");
        for (now, wanted) in [(500, Some(500)), (400, Some(400)), (0, None)] {
            free.store(now, Ordering::SeqCst);
            // The look that a heartbeat begins is told by the next one.
            for _ in 0..2 {
                while !matches!(server.hear().await?, ToServer::Heartbeat { .. }) {}
                server.say(ToBuilder::HeartbeatSeen).await?;
            }
            let ToServer::Heartbeat { disk, .. } = server.hear().await? else { bail!("no heartbeat") };
            server.say(ToBuilder::HeartbeatSeen).await?;
            assert_eq!(disk, wanted);
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn results_that_were_ready_without_a_server_are_held_before_anything_is_asked() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let (attempt, begun) = driven.building(&mut server, 65, 0, "ready").await?;
    drop(server);
    let away = driven.connection().await?;
    begun.end(Outcome::Succeeded, &[("ready-1-1.noarch.rpm", b"built")])?;
    while driven.left().len() != 1 {
        sleep(Duration::from_millis(100)).await;
    }
    drop(away);
    let mut server = driven.server().await?;
    let offered = held(&mut server).await?;
    let phase = moji_proto::Phase::Delivering;
    assert_eq!((offered.attempt, offered.slot, offered.phase), (attempt, None, phase));
    asked(&mut server, [0]).await?;
    nothing_is_said(&mut server).await?;
    server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
    accept(&mut server, attempt).await?;
    driven.nothing_left().await
}

/// How a delivery is announced, for comparison.
async fn announced(server: &mut ScriptedServer) -> anyhow::Result<Vec<ToServer>> {
    let mut words = Vec::new();
    while words.len() < 2 {
        match no_log(server).await? {
            ToServer::Ask { .. } => {}
            word => words.push(word),
        }
    }
    Ok(words)
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_was_cut_goes_on_where_it_stopped() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let (attempt, begun) = driven.building(&mut server, 66, 0, "cut").await?;
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    begun.end(Outcome::Succeeded, &[("build.log", b"a log"), ("cut-1-1.noarch.rpm", &large)])?;
    let all = [b"a log".as_slice(), &large].concat();
    let first = announced(&mut server).await?;
    let stream = server.want(attempt, 0, Sha256::of(b"")).await?;
    server.until(|peer| peer.streams.get(&stream).is_some_and(|heard| heard.bytes.len() > 1_000_000)).await?;
    drop(server);
    // The server has lost the last bytes, and finds those before them good, or damaged.
    for (part, begins) in [(Sha256::of(&large[..900_000]), 900_005), (Sha256::of(b"other"), 5)] {
        let mut server = driven.server().await?;
        assert_eq!(held(&mut server).await?.slot, None);
        asked(&mut server, [0]).await?;
        server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
        assert_eq!(announced(&mut server).await?, first);
        server.say(ToBuilder::Wanted { attempt, offset: 900_005, part }).await?;
        let stream = match server.word().await? {
            ToServer::Upload { offset, stream, .. } => {
                assert_eq!(offset, begins);
                stream
            }
            other => bail!("{other:?}"),
        };
        let (rest, _) = server.whole(stream).await?;
        assert!(rest == all[begins as usize..], "{} bytes came", rest.len());
    }
    let mut server = driven.server().await?;
    held(&mut server).await?;
    server.say(ToBuilder::Accepted { attempt }).await?;
    driven.nothing_left().await
}

/// The answers that end an attempt, to one that is being built and to one whose results wait.
#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_want_any_more_is_stopped_and_removed() -> Result {
    let mut driven = Driven::new(1)?;
    let reason = String::from("taken away");
    for (serial, packed) in (70..).zip([false, true].repeat(3)) {
        let mut server = driven.server_asked([0]).await?;
        let (attempt, begun) = driven.building(&mut server, serial, 0, "unwanted").await?;
        drop(server);
        let away = driven.connection().await?;
        let cancel = begun.cancel.clone();
        let mut begun = Some(begun);
        if packed && let Some(begun) = begun.take() {
            begun.end(Outcome::Succeeded, &[("unwanted-1-1.noarch.rpm", b"built")])?;
            while !driven.at.path().join(format!("work/outbox/{attempt}/parcel.json")).exists() {
                sleep(Duration::from_millis(100)).await;
            }
        }
        drop(away);
        let mut server = driven.server().await?;
        assert_eq!(held(&mut server).await?.attempt, attempt);
        if packed {
            asked(&mut server, [0]).await?;
        }
        server
            .say(match serial % 3 {
                0 => ToBuilder::Stale { attempt },
                1 => ToBuilder::Cancel { attempt, reason: reason.clone() },
                _ => ToBuilder::Accepted { attempt },
            })
            .await?;
        driven.nothing_left().await?;
        assert_eq!(cancel.is_cancelled(), !packed);
        if !packed {
            asked(&mut server, [0]).await?;
        }
        nothing_is_said(&mut server).await?;
    }
    Ok(())
}
