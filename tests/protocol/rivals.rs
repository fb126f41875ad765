//! Two builders at one SRPM: one was given up, and has come back.

use std::time::Duration;

use moji_proto::{FailureKind, Outcome, ToBuilder};
use moji_tests::support::simulated::{ScriptedBuilder, TestServer};

use super::Result;
use super::returning::{Given, deliver, lease, leased, published, resume};

struct Rivals {
    server: TestServer,
    /// Was given up, and has its attempt back.
    back: (ScriptedBuilder, Given),
    /// Has got the SRPM meanwhile.
    new: (ScriptedBuilder, Given),
}

async fn rivals(name: &str) -> anyhow::Result<Rivals> {
    let (server, builder, given) =
        leased(&[name], |config| config.dead_after = Duration::from_secs(3600)).await?;
    drop(builder);
    let mut second = server.builder("second", &["f43"], 1).await?;
    let again = lease(&mut second).await?;
    assert_ne!(again.attempt, given.attempt);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(resume(&mut builder, &given).await?, []);
    assert_eq!(server.site.working(), [format!("{name}-1-1.src.rpm")]);
    Ok(Rivals { server, back: (builder, given), new: (second, again) })
}

fn failed(kind: FailureKind) -> Outcome {
    Outcome::failed(kind, "it did not work", Some(1), Vec::new())
}

#[tokio::test(start_paused = true)]
async fn the_first_good_result_wins_and_the_other_builder_stops() -> Result {
    for back_wins in [true, false] {
        let Rivals { server, back, new } = rivals("race").await?;
        let (mut winner, mut loser) = if back_wins { (back, new) } else { (new, back) };
        deliver(&mut winner.0, &winner.1, b"the first").await?;
        assert_eq!(winner.0.word().await?, ToBuilder::Accepted { attempt: winner.1.attempt });
        assert_eq!(loser.0.word().await?, ToBuilder::Stale { attempt: loser.1.attempt });
        deliver(&mut loser.0, &loser.1, b"too late").await?;
        assert_eq!(loser.0.word().await?, ToBuilder::Stale { attempt: loser.1.attempt });
        assert_eq!(published(&server.site, "race-1-1"), Some(winner.1.attempt));
        server.until("nothing is staged", |site| site.staged().is_empty()).await?;
        assert_eq!(server.site.finished(), ["race-1-1.src.rpm"]);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_for_what_the_rival_does() -> Result {
    for rival_succeeds in [true, false] {
        let Rivals { server, mut back, mut new } = rivals("doubtful").await?;
        let log: [(&str, &[u8]); 1] = [("build.log", b"error")];
        back.0.deliver(back.1.attempt, failed(FailureKind::Package), &log).await?;
        server.until("staged", |site| site.staged().len() == 2).await?;
        assert_eq!(published(&server.site, "doubtful-1-1"), None);
        if rival_succeeds {
            deliver(&mut new.0, &new.1, b"built").await?;
            assert_eq!(new.0.word().await?, ToBuilder::Accepted { attempt: new.1.attempt });
            assert_eq!(back.0.word().await?, ToBuilder::Stale { attempt: back.1.attempt });
            assert_eq!(published(&server.site, "doubtful-1-1"), Some(new.1.attempt));
        } else {
            new.0.deliver(new.1.attempt, failed(FailureKind::Infrastructure), &log).await?;
            assert_eq!(new.0.word().await?, ToBuilder::Accepted { attempt: new.1.attempt });
            assert_eq!(back.0.word().await?, ToBuilder::Accepted { attempt: back.1.attempt });
            assert_eq!(published(&server.site, "doubtful-1-1"), Some(back.1.attempt));
        }
        server.until("nothing is staged", |site| site.staged().is_empty()).await?;
        assert_eq!(server.site.finished(), ["doubtful-1-1.src.rpm"]);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn taking_the_srpm_out_of_working_cancels_both() -> Result {
    let Rivals { server, mut back, mut new } = rivals("taken").await?;
    std::fs::remove_file(server.site.folders.working.join("taken-1-1.src.rpm"))?;
    for (builder, given) in [&mut back, &mut new].map(|(builder, given)| (builder, given.attempt)) {
        assert!(matches!(builder.word().await?, ToBuilder::Cancel { attempt, .. } if attempt == given));
    }
    server.until("nothing is staged", |site| site.staged().is_empty()).await
}
