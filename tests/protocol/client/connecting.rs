//! Finding the server, and being let in or not.

use super::*;

fn with_password() -> Access {
    Access::plaintext(Secret::Password("secret".into()), None)
}

#[tokio::test(start_paused = true)]
async fn it_reconnects_at_once_and_then_after_a_quarter_of_a_minute_at_most() -> Result {
    let mut driven = Driven::new(1)?;
    let mut waits = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        drop(driven.connection().await?);
        waits.push(begun.elapsed().as_millis() / 100);
    }
    // Without jitter: the lower half of 0.6 s, 1.2 s … 15 s.
    assert_eq!(waits, [0, 3, 6, 12, 24, 48, 75, 75, 75]);
    drop(driven.server().await?);
    let begun = Instant::now();
    driven.server().await?;
    assert_eq!(begun.elapsed().as_millis() / 100, 3, "a connection that worked begins anew");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_the_hello_is_left_after_half_a_minute() -> Result {
    let mut driven = Driven::new(1)?;
    let _silent = driven.connection().await?;
    let begun = Instant::now();
    let _next = driven.connection().await?;
    assert_eq!(begun.elapsed().as_secs(), 30);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn with_a_password_it_leaves_a_server_that_wants_none() -> Result {
    let mut driven = Driven::start(1, |config| config.access = with_password())?;
    assert!(driven.server().await.is_err(), "it registered");
    let error = driven.client.await?.expect_err("went on");
    assert!(
        error.is::<Unwelcome>() && format!("{error:#}").contains("does not ask for the password"),
        "{error:#}"
    );
    Ok(())
}

/// Somebody who does not know the password lets everybody in, to get at their packages.
#[tokio::test(start_paused = true)]
async fn it_leaves_a_server_that_does_not_know_the_password() -> Result {
    let mut driven = Driven::start(1, |config| config.access = with_password())?;
    driven.secret = server_secret(Some("secret"))?;
    let mut impostor: ScriptedServer = Peer::new(driven.connection().await?);
    let hello = impostor.frame().await?;
    let answer = driven.secret.answer(hello, &[9; 32], &PLAINTEXT, &BTreeMap::new())?;
    impostor.raw(&answer.hello).await?;
    assert_eq!(impostor.frame().await?.kind, Kind::Proof);
    impostor.raw(&frame::encode(Kind::Proof, &[0x11; 32])).await?;
    assert!(impostor.frame().await.is_err(), "it went on");
    let error = driven.client.await?.expect_err("went on");
    assert!(error.is::<Unwelcome>() && format!("{error:#}").contains("not your server"), "{error:#}");
    Ok(())
}

async fn refuse(io: DuplexStream, code: RefusalCode) -> Result {
    let mut server: ScriptedServer = Peer::new(io);
    server.frame().await?;
    server.raw(&Refusal::new(code, "no, because of the test").encode()).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn refused_at_first_contact_it_ends_and_says_why() -> Result {
    // For a password there is better advice than what the server says.
    let expected =
        [(RefusalCode::WrongProof, "--password-file"), (RefusalCode::Version, "because of the test")];
    for (code, says) in expected {
        let mut driven = Driven::new(1)?;
        refuse(driven.connection().await?, code).await?;
        let error = driven.client.await?.expect_err("went on");
        assert!(error.is::<Unwelcome>() && format!("{error:#}").contains(says), "{error:#}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn refused_later_or_because_the_server_is_busy_it_goes_on_trying() -> Result {
    let mut driven = Driven::new(1)?;
    for _ in 0..3 {
        refuse(driven.connection().await?, RefusalCode::Busy).await?;
    }
    drop(driven.server().await?);
    for _ in 0..20 {
        refuse(driven.connection().await?, RefusalCode::WrongProof).await?;
    }
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await
}

/// What the protocol says about a client that the server misuses.
#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_protocol_is_left() -> Result {
    let mut driven = Driven::new(1)?;
    for bytes in
        [vec![0; 32], frame::data_header(9, 3).to_vec(), frame::encode(Kind::Control, &[99]).to_vec()]
    {
        let mut server = driven.server().await?;
        asked(&mut server, [0]).await?;
        server.raw(&bytes).await?;
        server.raw(b"abc").await?;
        server.to_the_end().await;
    }
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_given_up_after_dead_after() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server_asked(0..2).await?;
    let (attempt, begun) = driven.building(&mut server, 51, 0, "silent").await?;
    let since = Instant::now();
    let mut next = driven.server().await?;
    assert!((30..=31).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    // Its end is still open: it simply says nothing. The build goes on.
    assert_eq!(held(&mut next).await?.attempt, attempt);
    assert!(!begun.cancel.is_cancelled());
    drop(server);
    Ok(())
}

/// What it says about attempts must fit what it was told.
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_what_was_not_said_is_left_and_nothing_is_lost() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server_asked([0]).await?;
    let (attempt, begun) = driven.building(&mut server, 61, 0, "nonsense").await?;
    let nothing = Sha256::of(b"");
    let wanted = |offset| ToBuilder::Wanted { attempt, offset, part: nothing };
    let nonsense = [
        (ToBuilder::Resume { attempt, logs: Vec::new() }, "it was not offered"),
        (wanted(0), "it was not offered"),
    ];
    for (word, says) in nonsense {
        server.say(word).await?;
        let said = server.to_the_end().await;
        let goodbye = |word: &ToServer| matches!(word, ToServer::Goodbye { reason } if reason.contains(says));
        assert!(said.iter().any(goodbye), "{said:?}");
        server = driven.server().await?;
        assert_eq!(held(&mut server).await?.attempt, attempt);
        server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
        // It has arrived when something behind it was answered.
        sleep(Duration::from_secs(1)).await;
    }
    begun.end(Outcome::Succeeded, &[("nonsense-1-1.noarch.rpm", &[7; 1000])])?;
    assert!(matches!(no_log(&mut server).await?, ToServer::Deliver { bytes: 1000, .. }));
    server.say(wanted(1001)).await?;
    let said = server.to_the_end().await;
    let more = |word: &ToServer| matches!(word, ToServer::Goodbye { reason } if reason.contains("more results than"));
    assert!(said.iter().any(more), "{said:?}");
    let mut server = driven.server().await?;
    assert_eq!(held(&mut server).await?.slot, None);
    server.say(ToBuilder::Resume { attempt, logs: Vec::new() }).await?;
    accept(&mut server, attempt).await?;
    driven.nothing_left().await
}
