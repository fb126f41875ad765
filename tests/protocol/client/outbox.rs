//! Results that wait: over restarts, and within limits.

use std::sync::atomic::{AtomicU64, Ordering};

use moji_client::disk::FreeSpace;

use super::*;

/// A client that was stopped with results in its outbox and a build that was not finished.
async fn stopped_with_results(name: &str) -> anyhow::Result<(Arc<TempDir>, AttemptId)> {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server_asked(0..2).await?;
    let (attempt, begun) = driven.building(&mut server, 80, 0, name).await?;
    begun.end(Outcome::Succeeded, &[("a-1-1.noarch.rpm", &[9; 3_000]), ("build.log", b"log")])?;
    while !matches!(no_log(&mut server).await?, ToServer::Ask { slot: 0 }) {}
    let (_, _unfinished) = driven.building(&mut server, 81, 1, "unfinished").await?;
    // As a power cut would end it.
    driven.client.abort();
    assert!(driven.client.await.is_err_and(|error| error.is_cancelled()));
    Ok((driven.at, attempt))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_starts_again_offers_its_results_and_nothing_else() -> Result {
    let (at, attempt) = stopped_with_results("kept").await?;
    for _ in 0..2 {
        let mut driven = Driven::start_at(Arc::clone(&at), 1, |_| {})?;
        assert_eq!(driven.left(), [attempt.to_string()]);
        let mut server = driven.server().await?;
        let offered = held(&mut server).await?;
        assert_eq!((offered.attempt, offered.slot), (attempt, None));
        assert_eq!((offered.srpm.as_str(), offered.sha256), ("kept-1-1.src.rpm", source("kept").1));
        asked(&mut server, [0]).await?;
        driven.client.abort();
        assert!(driven.client.await.is_err());
    }
    let mut driven = Driven::start_at(at, 1, |_| {})?;
    let mut server = driven.server().await?;
    held(&mut server).await?;
    server.say(ToBuilder::Resume { attempt, logs: vec![(LogFile::Build, 1)] }).await?;
    let (_, outcome, files) = server.delivery().await?;
    assert_eq!((outcome, files["a-1-1.noarch.rpm"].len()), (Outcome::Succeeded, 3_000));
    server.say(ToBuilder::Accepted { attempt }).await?;
    driven.nothing_left().await?;
    assert!(driven.builds.try_recv().is_err());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn results_whose_files_have_changed_are_removed() -> Result {
    let (at, attempt) = stopped_with_results("damaged").await?;
    fs::write(at.path().join(format!("work/outbox/{attempt}/build.log")), "another")?;
    let mut driven = Driven::start_at(at, 1, |_| {})?;
    driven.server_asked([0]).await?;
    driven.nothing_left().await
}

/// A file that is lost while the results wait is found when they are sent.
#[tokio::test(start_paused = true)]
async fn results_that_cannot_be_read_any_more_are_given_back() -> Result {
    let (at, attempt) = stopped_with_results("broken").await?;
    let mut driven = Driven::start_at(at, 1, |_| {})?;
    let mut server = driven.server().await?;
    held(&mut server).await?;
    server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
    fs::remove_file(driven.at.path().join(format!("work/outbox/{attempt}/build.log")))?;
    assert!(server.delivery().await.is_err(), "the upload is whole");
    let released = server.word().await?;
    let is_it = matches!(&released, ToServer::Release { attempt: a, trouble: true, .. } if *a == attempt);
    assert!(is_it, "{released:?}");
    // What the server says to the stream that was cut concerns nobody.
    server.say(ToBuilder::Rejected { attempt, reason: "it was cut".into(), again: true }).await?;
    driven.nothing_left().await
}

#[tokio::test(start_paused = true)]
async fn with_too_much_in_the_outbox_nobody_asks() -> Result {
    let mut driven = Driven::start(2, |config| config.outbox_limit = 5_000)?;
    let mut server = driven.server_asked(0..2).await?;
    for (serial, slot, size) in [(82, 0, 3_000), (83, 1, 2_500)] {
        let (_, begun) = driven.building(&mut server, serial, slot, "much").await?;
        begun.end(Outcome::Succeeded, &[("much-1-1.noarch.rpm", &vec![1; size])])?;
    }
    let mut said = Vec::new();
    while said.iter().filter(|word| matches!(word, ToServer::Manifest { .. })).count() < 2 {
        said.push(no_log(&mut server).await?);
    }
    // The first one's slot has asked, because there was room; and gets something to do.
    assert!(
        said.contains(&ToServer::Ask { slot: 0 }) && !said.contains(&ToServer::Ask { slot: 1 }),
        "{said:?}"
    );
    nothing_is_said(&mut server).await?;
    server.say(ToBuilder::Accepted { attempt: AttemptId { boot: 0xb007, serial: 82 } }).await?;
    asked(&mut server, [1]).await
}

#[tokio::test(start_paused = true)]
async fn results_that_nobody_takes_are_removed_when_they_are_too_old() -> Result {
    let mut driven = Driven::start(1, |config| config.outbox_age = Duration::from_secs(40))?;
    let mut server = driven.server_asked([0]).await?;
    let (attempt, begun) = driven.building(&mut server, 84, 0, "old").await?;
    begun.end(Outcome::Succeeded, &[("old-1-1.noarch.rpm", b"built")])?;
    let since = Instant::now();
    loop {
        match no_log(&mut server).await? {
            ToServer::Manifest { .. } => {
                let reason = "the disk is full".into();
                server.say(ToBuilder::Rejected { attempt, reason, again: true }).await?;
            }
            ToServer::Release { attempt: released, .. } => break assert_eq!(released, attempt),
            _ => {}
        }
    }
    assert!((40..45).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    driven.nothing_left().await
}

#[tokio::test(start_paused = true)]
async fn with_too_little_room_nobody_asks() -> Result {
    let free = Arc::new(AtomicU64::new(99));
    let seen = Arc::clone(&free);
    let mut driven = Driven::start(2, |config| {
        config.min_free = 100;
        config.free_space = FreeSpace::new(move || Some(seen.load(Ordering::SeqCst)));
    })?;
    let mut server = driven.server().await?;
    nothing_is_said(&mut server).await?;
    free.store(100, Ordering::SeqCst);
    let since = Instant::now();
    asked(&mut server, 0..2).await?;
    assert!(since.elapsed() <= Duration::from_secs(10), "{:?}", since.elapsed());
    // It becomes full while nothing is done: what comes is given back, and is nobody's fault.
    free.store(5, Ordering::SeqCst);
    sleep(Duration::from_secs(15)).await;
    let (bytes, sha256) = source("unlucky");
    let attempt = server.assign(85, 1, "unlucky", &bytes, sha256).await?;
    let released = server.word().await?;
    let is_it = matches!(&released, ToServer::Release { attempt: a, trouble: false, .. } if *a == attempt);
    assert!(is_it, "{released:?}");
    nothing_is_said(&mut server).await?;
    free.store(500, Ordering::SeqCst);
    asked(&mut server, [1]).await?;
    assert!(driven.builds.try_recv().is_err());
    Ok(())
}
