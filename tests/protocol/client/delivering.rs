//! What the server says to results.

use super::*;

#[tokio::test(start_paused = true)]
async fn rejected_results_are_delivered_again_and_refused_ones_forgotten() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("again");
    let attempt = server.assign(48, 0, "again", &bytes, sha256).await?;
    driven.begun().await?.end(Outcome::Succeeded, &[("again-1-1.noarch.rpm", b"built")])?;
    let first = server.delivery().await?;
    for _ in 0..2 {
        let begun = Instant::now();
        server.say(ToBuilder::Rejected { attempt, reason: "the disk is full".into(), again: true }).await?;
        assert!(server.delivery().await? == first);
        assert_eq!(begun.elapsed().as_secs(), 15);
    }
    asked(&mut server, [0]).await?;
    server.say(ToBuilder::Rejected { attempt, reason: "never".into(), again: false }).await?;
    driven.nothing_left().await
}

/// The server says that it wants no more bytes, and why it rejected what there was.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_unwanted_in_the_middle_is_delivered_again() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("stopped");
    let attempt = server.assign(49, 0, "stopped", &bytes, sha256).await?;
    let large = vec![7; 6 << 20];
    driven.begun().await?.end(Outcome::Succeeded, &[("stopped-1-1.noarch.rpm", &large)])?;
    let stream = match no_log(&mut server).await? {
        ToServer::Deliver { .. } => {
            while !matches!(no_log(&mut server).await?, ToServer::Manifest { .. }) {}
            server.want(attempt, 0, moji_proto::Sha256::of(b"")).await?
        }
        other => bail!("{other:?}"),
    };
    server.say(moji_proto::StreamMessage::Unwanted { stream }).await?;
    server.say(ToBuilder::Rejected { attempt, reason: "the disk is full".into(), again: true }).await?;
    assert!(server.whole(stream).await.is_err(), "it went on sending");
    let (_, _, files) = server.delivery().await?;
    assert!(files["stopped-1-1.noarch.rpm"] == large);
    Ok(())
}
