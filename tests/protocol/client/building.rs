//! From an assignment to the results.

use std::sync::atomic::{AtomicU64, Ordering};

use moji_client::disk::FreeSpace;

use super::*;

#[tokio::test(start_paused = true)]
async fn it_asks_for_each_slot_builds_delivers_and_asks_again() -> Result {
    let mut driven = Driven::new(3)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..3).await?;
    let (bytes, sha256) = source("whole");
    let attempt = server.assign(41, 1, "whole", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    assert_eq!((begun.task.slot, begun.task.target.as_str()), (1, "f43"));
    assert!(fs::read(&begun.task.srpm)? == bytes);
    let rpm = rpm("whole", "1", "1", "whole-1-1.src.rpm", 500_000);
    begun.end(Outcome::Succeeded, &[("whole-1-1.noarch.rpm", &rpm), ("build.log", b"fine")])?;
    let (delivered, outcome, files) = server.delivery().await?;
    assert_eq!((delivered, outcome), (attempt, Outcome::Succeeded));
    assert!(files["whole-1-1.noarch.rpm"] == rpm && files["build.log"] == b"fine");
    assert_eq!(driven.left(), [attempt.to_string()], "the outbox is kept until it is accepted");
    asked(&mut server, [1]).await?;
    server.say(ToBuilder::Accepted { attempt }).await?;
    driven.nothing_left().await
}

/// The slot is free when its results are durable, and says so behind the words that announce them.
#[tokio::test(start_paused = true)]
async fn the_next_build_runs_while_the_results_of_the_last_are_sent() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let (first, begun) = driven.building(&mut server, 60, 0, "first").await?;
    begun.end(Outcome::Succeeded, &[("first-1-1.noarch.rpm", b"built")])?;
    assert!(matches!(no_log(&mut server).await?, ToServer::Deliver { attempt, .. } if attempt == first));
    let next = [no_log(&mut server).await?, no_log(&mut server).await?];
    assert!(next.contains(&ToServer::Ask { slot: 0 }), "{next:?}");
    let (second, begun) = driven.building(&mut server, 61, 0, "second").await?;
    begun.end(Outcome::Succeeded, &[("second-1-1.noarch.rpm", b"built")])?;
    assert!(matches!(no_log(&mut server).await?, ToServer::Deliver { attempt, .. } if attempt == second));
    for attempt in [first, second] {
        server.say(ToBuilder::Accepted { attempt }).await?;
    }
    driven.nothing_left().await
}

#[tokio::test(start_paused = true)]
async fn logs_are_live() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("live");
    let attempt = server.assign(42, 0, "live", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    fs::write(begun.task.resultdir.join("build.log"), "+ make\n")?;
    let stream = match server.word().await? {
        ToServer::Log { attempt: of, file: LogFile::Build, offset: 0, stream } if of == attempt => stream,
        other => bail!("{other:?}"),
    };
    server.until(|peer| peer.streams.get(&stream).is_some_and(|heard| heard.bytes == b"+ make\n")).await
}

#[tokio::test(start_paused = true)]
async fn a_damaged_srpm_is_given_back_and_the_slot_rests() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, _) = source("damaged");
    let attempt = server.assign(43, 1, "damaged", &bytes, Sha256::of(b"another")).await?;
    let begun = Instant::now();
    match server.word().await? {
        ToServer::Release { attempt: released, reason, .. } => {
            assert!(released == attempt && reason.contains("damaged"), "{reason}");
        }
        other => bail!("{other:?}"),
    }
    asked(&mut server, [1]).await?;
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert!(driven.builds.try_recv().is_err(), "a damaged SRPM was built");
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

/// Else a server could fill the disk.
#[tokio::test(start_paused = true)]
async fn an_srpm_that_does_not_fit_is_given_back_before_it_comes() -> Result {
    let (bytes, sha256) = source("large");
    let free = Arc::new(AtomicU64::new(100 + bytes.len() as u64 - 1));
    let seen = Arc::clone(&free);
    let mut driven = Driven::start(1, |config| {
        config.min_free = 100;
        config.free_space = FreeSpace::new(move || Some(seen.load(Ordering::SeqCst)));
    })?;
    let mut server = driven.server_asked([0]).await?;
    let attempt = server.assign(47, 0, "large", &bytes, sha256).await?;
    match server.word().await? {
        ToServer::Release { attempt: of, reason, trouble: true } if of == attempt => {
            assert!(reason.contains("--min-free"), "{reason}");
        }
        other => bail!("{other:?}"),
    }
    assert!(driven.builds.try_recv().is_err());
    driven.nothing_left().await?;
    free.fetch_add(1, Ordering::SeqCst);
    asked(&mut server, [0]).await?;
    driven.building(&mut server, 48, 0, "large").await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_cannot_begin_gives_the_attempt_back_and_rests() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("unlucky");
    let attempt = server.assign(44, 0, "unlucky", &bytes, sha256).await?;
    let _ = driven.begun().await?.end.send(Ending::NotEvenBegun);
    let released = server.word().await?;
    assert!(
        matches!(&released, ToServer::Release { attempt: a, reason, trouble: true } if *a == attempt && reason.contains("disk"))
    );
    let begun = Instant::now();
    asked(&mut server, [0]).await?;
    assert_eq!(begun.elapsed().as_secs(), 30);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn cancel_and_stale_stop_the_build_and_the_slot_asks_again() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    for serial in [45, 46] {
        let (bytes, sha256) = source("unwanted");
        let attempt = server.assign(serial, 0, "unwanted", &bytes, sha256).await?;
        let begun = driven.begun().await?;
        assert!(!begun.cancel.is_cancelled());
        let reason = "taken away".into();
        let word =
            if serial == 45 { ToBuilder::Cancel { attempt, reason } } else { ToBuilder::Stale { attempt } };
        server.say(word).await?;
        begun.stopped().await?;
        // Nothing is delivered or released: the attempt is over.
        asked(&mut server, [0]).await?;
        assert_eq!(driven.left(), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_the_middle_of_the_srpm_ends_the_attempt() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let stream = server.next_stream();
    let attempt = moji_proto::AttemptId { boot: 5, serial: 47 };
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
    server.say(ToBuilder::Cancel { attempt, reason: "taken away".into() }).await?;
    asked(&mut server, [0]).await?;
    server.until(|peer| peer.unwanted == [stream]).await?;
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_job_costs_its_attempt_and_not_the_client() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, sha256) = source("panic");
    let attempt = server.assign(55, 0, "panic", &bytes, sha256).await?;
    let _ = driven.begun().await?.end.send(Ending::Panic);
    // The other slot works on, and the attempt is given back, or nobody would ever build it.
    let (other, sha256) = source("other");
    let second = server.assign(56, 1, "other", &other, sha256).await?;
    driven.begun().await?.end(Outcome::Succeeded, &[("other-1-1.noarch.rpm", b"built")])?;
    let mut released = false;
    let begun = Instant::now();
    loop {
        match no_log(&mut server).await? {
            ToServer::Release { attempt: given, .. } => {
                assert_eq!(given, attempt);
                released = true;
            }
            ToServer::Deliver { attempt, .. } => assert_eq!(attempt, second),
            ToServer::Manifest { .. } => server.say(ToBuilder::Accepted { attempt: second }).await?,
            ToServer::Ask { slot: 1 } => {}
            ToServer::Ask { slot: 0 } => break,
            other => bail!("{other:?}"),
        }
    }
    assert!(released, "nobody will ever build what panicked");
    assert_eq!(begun.elapsed().as_secs(), 30);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn work_for_a_slot_that_did_not_ask_is_given_back() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, sha256) = source("busy");
    server.assign(57, 0, "busy", &bytes, sha256).await?;
    let _begun = driven.begun().await?;
    for (serial, slot) in [(58, 0), (59, 7)] {
        let attempt = server.assign(serial, slot, "surplus", &bytes, sha256).await?;
        let released = server.word().await?;
        assert!(matches!(&released, ToServer::Release { attempt: a, .. } if *a == attempt), "{released:?}");
    }
    sleep(Duration::from_secs(1)).await;
    assert!(driven.builds.try_recv().is_err());
    Ok(())
}

/// A server may be the builder's enemy too: whatever it calls an SRPM, nothing is written outside of a
/// slot's folder, and nothing is built.
#[tokio::test(start_paused = true)]
async fn no_name_of_a_server_leaves_the_slot() -> Result {
    let mut driven = Driven::new(1)?;
    let all = |at: &std::path::Path| names_in(at);
    let harmless = ToBuilder::Assign(moji_proto::Assignment {
        attempt: AttemptId { boot: 0xb007, serial: 9 },
        slot: 0,
        target: "f43".parse()?,
        srpm: "aaaaaaaaaaaaaaaa.src.rpm".parse()?,
        size: 4,
        stream: 1,
        repository: None,
    });
    let body = moji_proto::encoding::encode(&harmless)?;
    let at = body.windows(16).position(|bytes| bytes == [b'a'; 16]).context("no name in it")?;
    // Each as long as the harmless one, so that nothing else of the message changes.
    let names = [
        "../../../escaped",
        "/../../../../tmp",
        "..\\..\\..\\escaped",
        ".hidden-and-more",
        "-rf-------------",
        "a/bbbbbbbbbbbbbb",
        "a\u{1b}[2Jbbbbbbbbbbb",
        "{{ 7*7 }}{% x %}",
    ];
    for name in names {
        let name = name.get(..16).context("too short")?;
        let mut server = driven.server_asked([0]).await?;
        let mut hostile = body.clone();
        hostile[at..at + 16].copy_from_slice(name.as_bytes());
        server.raw(&frame::encode(Kind::Control, &hostile)).await?;
        server.raw(&frame::data_header(1, 4)).await?;
        server.raw(b"evil").await?;
        let words = server.to_the_end().await;
        assert!(matches!(words.last(), Some(ToServer::Goodbye { .. })), "{name:?} is taken: {words:?}");
        assert_eq!(driven.left(), Vec::<String>::new(), "{name:?}");
        assert_eq!(all(driven.at.path()), ["work"], "{name:?}");
        assert!(driven.builds.try_recv().is_err(), "{name:?} was built");
    }
    // It was the name.
    let mut server = driven.server_asked([0]).await?;
    driven.building(&mut server, 9, 0, "good").await?.1.end(Outcome::Succeeded, &[])
}
