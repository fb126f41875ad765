//! Signals, and having nothing to do.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_first_signal_finishes_and_leaves() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, sha256) = source("finish");
    let attempt = server.assign(52, 0, "finish", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(server.word().await?, ToServer::Drain);
    // What crossed the drain on its way is given back.
    let (other, sha256) = source("crossed");
    let crossed = server.assign(53, 1, "crossed", &other, sha256).await?;
    let released = server.word().await?;
    assert!(matches!(&released, ToServer::Release { attempt, .. } if *attempt == crossed), "{released:?}");
    assert!(!begun.cancel.is_cancelled());
    begun.end(Outcome::Succeeded, &[("finish-1-1.noarch.rpm", b"built")])?;
    assert_eq!(server.delivery().await?.0, attempt);
    assert!(
        timeout(Duration::from_secs(5), &mut driven.client).await.is_err(),
        "left before it was accepted"
    );
    server.say(ToBuilder::Accepted { attempt }).await?;
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Told);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_gives_back_and_leaves() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("given");
    let attempt = server.assign(54, 0, "given", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(server.word().await?, ToServer::Drain);
    driven.signals.send(Signal::Stop).await?;
    begun.stopped().await?;
    let released = server.word().await?;
    assert!(matches!(&released, ToServer::Release { attempt: a, .. } if *a == attempt), "{released:?}");
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Told);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn told_to_leave_without_a_server_it_leaves() -> Result {
    let mut driven = Driven::new(1)?;
    drop(driven.connection().await?);
    let begun = Instant::now();
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(driven.client.await??, Why::Told);
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_leaves_when_it_was_told_so() -> Result {
    let mut driven = Driven::start(1, |config| config.exit_when_idle = Some(Duration::from_secs(600)))?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let begun = Instant::now();
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Idle);
    assert_eq!(begun.elapsed().as_secs(), 600);
    Ok(())
}

/// Told to leave while the server is away: the build is finished, and its results stay.
#[tokio::test(start_paused = true)]
async fn told_to_leave_while_the_server_is_away_it_finishes_and_keeps_the_results() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let (attempt, begun) = driven.building(&mut server, 90, 0, "stranded").await?;
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(server.word().await?, ToServer::Drain);
    drop(server);
    // From now on every connection is lost again.
    let mut connections = driven.connections;
    tokio::spawn(async move { while connections.recv().await.is_some() {} });
    sleep(Duration::from_secs(3600)).await;
    assert!(!driven.client.is_finished(), "it did not finish its build");
    begun.end(Outcome::Succeeded, &[("stranded-1-1.noarch.rpm", b"built")])?;
    let since = Instant::now();
    assert_eq!(driven.client.await??, Why::Told);
    assert!((60..65).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    let mut driven = Driven::start_at(driven.at, 1, |_| {})?;
    let mut server = driven.server().await?;
    assert_eq!(held(&mut server).await?.attempt, attempt);
    Ok(())
}

/// Told to leave with results that wait for their answer: it takes the next connection for them.
#[tokio::test(start_paused = true)]
async fn told_to_leave_it_delivers_over_the_next_connection_first() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let (attempt, begun) = driven.building(&mut server, 91, 0, "later").await?;
    drop(server);
    driven.signals.send(Signal::Drain).await?;
    let mut server = driven.server().await?;
    assert_eq!(held(&mut server).await?.attempt, attempt);
    assert_eq!(server.word().await?, ToServer::Drain);
    server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
    begun.end(Outcome::Succeeded, &[("later-1-1.noarch.rpm", b"built")])?;
    accept(&mut server, attempt).await?;
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Told);
    assert_eq!(names_in(&driven.at.path().join("work/outbox")), Vec::<String>::new());
    Ok(())
}

/// The second signal stops the build and leaves the results of an earlier one where they are.
#[tokio::test(start_paused = true)]
async fn the_second_signal_keeps_the_outbox() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server_asked(0..2).await?;
    let (ready, begun) = driven.building(&mut server, 92, 0, "ready").await?;
    begun.end(Outcome::Succeeded, &[("ready-1-1.noarch.rpm", b"built")])?;
    while !matches!(no_log(&mut server).await?, ToServer::Ask { slot: 0 }) {}
    let (attempt, begun) = driven.building(&mut server, 93, 1, "stopped").await?;
    driven.signals.send(Signal::Drain).await?;
    driven.signals.send(Signal::Stop).await?;
    // A third one may come when it has left already.
    let _ = driven.signals.send(Signal::Stop).await;
    begun.stopped().await?;
    let said = server.to_the_end().await;
    let is_release = |word: &&ToServer| matches!(word, ToServer::Release { .. });
    let released: Vec<_> = said.iter().filter(is_release).collect();
    assert!(matches!(released[..], [ToServer::Release { attempt: a, trouble: false, .. }] if *a == attempt));
    assert!(matches!(said.last(), Some(ToServer::Goodbye { .. })), "{said:?}");
    assert_eq!(driven.client.await??, Why::Told);
    assert_eq!(names_in(&driven.at.path().join("work/outbox")), [ready.to_string()]);
    assert_eq!(names_in(&driven.at.path().join("work/slot-1")), Vec::<String>::new());
    Ok(())
}

/// The server was told that it is given back. If it comes to nothing elsewhere, it is here.
#[tokio::test(start_paused = true)]
async fn what_ends_when_the_second_signal_comes_is_kept() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked(0..1).await?;
    let (attempt, begun) = driven.building(&mut server, 94, 0, "both").await?;
    driven.signals.send(Signal::Drain).await?;
    driven.signals.send(Signal::Stop).await?;
    begun.end(Outcome::Succeeded, &[("both-1-1.noarch.rpm", b"built")])?;
    let said = server.to_the_end().await;
    assert!(matches!(said.last(), Some(ToServer::Goodbye { .. })), "{said:?}");
    assert_eq!(driven.client.await??, Why::Told);
    assert_eq!(names_in(&driven.at.path().join("work/outbox")), [attempt.to_string()]);
    Ok(())
}
