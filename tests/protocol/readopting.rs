//! Attempts outlive their connection: a builder comes back and says what it holds.

use std::time::Duration;

use moji_proto::{AttemptId, HeldAttempt, LogFile, Outcome, Phase, Sha256, ToBuilder, ToServer, limits};
use moji_tests::support::simulated::{built, srpm};
use tokio::time::{sleep, timeout};

use super::Result;
use super::returning::{
    Given, answer, cut_upload, deliver, lease, leased, log, published, rest_of_upload, resume, server,
};

#[tokio::test(start_paused = true)]
async fn within_the_grace_an_attempt_goes_on_as_if_nothing_had_happened() -> Result {
    let (server, mut builder, given) = leased(&["kept"], |_| {}).await?;
    let attempt = given.attempt;
    log(&server, &mut builder, attempt, 0, "+ ./configure\n").await?;
    drop(builder);
    let mut rival = server.builder("rival", &["f43"], 1).await?;
    rival.ask(0).await?;
    sleep(Duration::from_secs(9)).await;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(resume(&mut builder, &given).await?, [(LogFile::Build, 14)]);
    log(&server, &mut builder, attempt, 14, "+ make\n").await?;
    let staged = server.site.folders.attempt(attempt).join("build.log");
    assert_eq!(std::fs::read_to_string(staged)?, "+ ./configure\n+ make\n");
    assert!(timeout(Duration::from_secs(15), rival.word()).await.is_err(), "handed out twice");
    builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Building)] }).await?;
    deliver(&mut builder, &given, b"built").await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    let record = server.site.record("kept-1-1").and_then(|record| record.attempt).expect("no record");
    assert_eq!((record.id, record.srpm_sha256), (attempt, Some(given.held.sha256)));
    assert!(record.leased_at < record.delivered_at);
    assert_eq!(server.site.finished(), ["kept-1-1.src.rpm"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_an_srpm_that_waits_is_taken_back_with_all_that_was_sent() -> Result {
    let (server, mut builder, given) = leased(&["late"], |_| {}).await?;
    let attempt = given.attempt;
    log(&server, &mut builder, attempt, 0, "half").await?;
    let rpm = srpm("late", "1", "1", 600_000);
    let file = ("late-1-1.src.rpm", &rpm[..]);
    cut_upload(&server, builder, attempt, file, 400_000).await?;
    server.until("queued again", |site| site.source() == ["late-1-1.src.rpm"]).await?;
    sleep(Duration::from_secs(3600)).await;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(resume(&mut builder, &given).await?, [(LogFile::Build, 4)]);
    assert_eq!((server.site.source(), server.site.working()), (vec![], vec!["late-1-1.src.rpm".into()]));
    rest_of_upload(&mut builder, attempt, file, 400_000).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(published(&server.site, "late-1-1"), Some(attempt));
    assert_eq!(server.site.staged(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_attempt_has_sent_stays_until_its_srpm_is_settled() -> Result {
    let (server, mut builder, given) = leased(&["staged"], |_| {}).await?;
    log(&server, &mut builder, given.attempt, 0, "something").await?;
    drop(builder);
    let mut other = server.builder("second", &["f43"], 1).await?;
    let again = lease(&mut other).await?;
    assert_eq!(server.site.staged().len(), 2);
    deliver(&mut other, &again, b"built").await?;
    assert_eq!(other.word().await?, ToBuilder::Accepted { attempt: again.attempt });
    server.until("nothing is staged", |site| site.staged().is_empty()).await
}

#[tokio::test(start_paused = true)]
async fn the_old_connection_is_closed_before_the_new_one_goes_on() -> Result {
    let (server, mut old, given) = leased(&["half-open"], |_| {}).await?;
    log(&server, &mut old, given.attempt, 0, "first ").await?;
    let mut new = server.builder("first", &["f43"], 1).await?;
    assert_eq!(resume(&mut new, &given).await?, [(LogFile::Build, 6)]);
    let heard = old.to_the_end().await;
    assert!(
        matches!(&heard[..], [ToBuilder::Goodbye { reason }] if reason.contains("new connection")),
        "{heard:?}"
    );
    log(&server, &mut new, given.attempt, 6, "second").await?;
    deliver(&mut new, &given, b"built").await?;
    assert_eq!(new.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    Ok(())
}

/// Many small pieces, each of which is a write of its own.
#[tokio::test(start_paused = true)]
async fn what_came_before_the_end_is_written_before_the_attempt_goes_on() -> Result {
    let (server, mut builder, given) = leased(&["drained"], |_| {}).await?;
    let (attempt, file) = (given.attempt, LogFile::Build);
    let stream = builder.next_stream();
    builder.say(ToServer::Log { attempt, file, offset: 0, stream }).await?;
    for _ in 0..900 {
        builder.data(stream, b"one line of ten\n").await?;
    }
    drop(builder);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(resume(&mut builder, &given).await?, [(file, 900 * 16)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_word_that_was_lost_is_said_again() -> Result {
    let package = moji_proto::FailureKind::Package;
    for outcome in [Outcome::Succeeded, Outcome::failed(package, "%build failed", Some(1), vec![])] {
        let (server, mut builder, given) = leased(&["told"], |_| {}).await?;
        let attempt = given.attempt;
        builder
            .deliver(
                attempt,
                outcome,
                &[("told-1-1.src.rpm", &built("told", b"built")), ("build.log", b"log")],
            )
            .await?;
        server.until("published", |site| site.finished() == ["told-1-1.src.rpm"]).await?;
        drop(builder);
        let mut stranger = server.builder("stranger", &["f43"], 1).await?;
        assert_eq!(answer(&mut stranger, given.held.clone()).await?, ToBuilder::Stale { attempt });
        let mut builder = server.builder("first", &["f43"], 1).await?;
        assert_eq!(answer(&mut builder, given.held.clone()).await?, ToBuilder::Accepted { attempt });
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_being_published_is_accepted_later() -> Result {
    let (server, mut builder, given) = leased(&["patient"], |config| {
        config.dead_after = Duration::from_secs(3600);
    })
    .await?;
    let blocked = server.site.folders.finished.join("patient-1-1.src.rpm");
    std::fs::create_dir(&blocked)?;
    deliver(&mut builder, &given, b"good").await?;
    server.until("the first try", |site| site.record("patient-1-1").is_some()).await?;
    drop(builder);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let held = HeldAttempt { slot: None, ..given.held.clone() };
    builder.say(ToServer::Hold(held)).await?;
    assert!(timeout(Duration::from_secs(60), builder.word()).await.is_err(), "an answer before its time");
    std::fs::remove_dir(&blocked)?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_what_he_was_not_given_is_stale_and_harms_nothing() -> Result {
    let (server, mut honest, given) = leased(&["mine", "late"], |config| {
        config.dead_after = Duration::from_secs(3600);
    })
    .await?;
    let held = given.held.clone();
    let waiting = srpm("late", "1", "1", 3_000);
    let mut stranger = server.builder("stranger", &["f43"], 1).await?;
    let mut namesake = server.builder("first", &["f43"], 1).await?;
    assert_eq!(answer(&mut stranger, held.clone()).await?, ToBuilder::Stale { attempt: given.attempt });
    let lies = [
        HeldAttempt { sha256: Sha256::of(b"another"), ..held.clone() },
        HeldAttempt { srpm: "late-1-1.src.rpm".parse()?, sha256: Sha256::of(&waiting), ..held.clone() },
        HeldAttempt { target: "f99".parse()?, ..held.clone() },
        // Of this server run, and not given yet.
        HeldAttempt {
            attempt: AttemptId { serial: given.attempt.serial + 7, ..given.attempt },
            srpm: "late-1-1.src.rpm".parse()?,
            sha256: Sha256::of(&waiting),
            ..held.clone()
        },
        // Of another one: an SRPM that was never here, and one with other content.
        HeldAttempt {
            attempt: AttemptId { boot: 17, serial: 4 },
            srpm: "unheard-of-1-1.src.rpm".parse()?,
            ..held.clone()
        },
        HeldAttempt {
            attempt: AttemptId { boot: 17, serial: 5 },
            srpm: "late-1-1.src.rpm".parse()?,
            ..held.clone()
        },
    ];
    for lie in lies {
        let attempt = lie.attempt;
        assert_eq!(answer(&mut namesake, lie.clone()).await?, ToBuilder::Stale { attempt }, "{lie:?}");
    }
    assert_eq!(server.site.working(), ["mine-1-1.src.rpm"]);
    assert_eq!(server.site.staged().len(), 1, "{:?}", server.site.staged());
    deliver(&mut honest, &given, b"built").await?;
    assert_eq!(honest.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    assert_eq!(honest.lease(0).await?.srpm.as_str(), "late-1-1.src.rpm");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_holds_more_than_it_can_is_told_so() -> Result {
    let (server, mut honest, given) = leased(&["one"], |_| {}).await?;
    let mut greedy = server.builder("greedy", &["f43"], 1).await?;
    for serial in 0..limits::HOLDS as u64 + 5 {
        let attempt = AttemptId { boot: 99, serial };
        let held = HeldAttempt { attempt, slot: None, ..given.held.clone() };
        let stale = answer(&mut greedy, HeldAttempt { sha256: Sha256::of(b"no"), ..held }).await?;
        assert_eq!(stale, ToBuilder::Stale { attempt });
    }
    // Now even what might be true.
    let attempt = AttemptId { boot: 99, serial: 1 << 40 };
    let held = HeldAttempt { attempt, slot: None, ..given.held.clone() };
    assert_eq!(answer(&mut greedy, held).await?, ToBuilder::Stale { attempt });
    deliver(&mut honest, &given, b"built").await?;
    assert_eq!(honest.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slot_holds_one_attempt() -> Result {
    let (server, builder, given) = leased(&["one"], |_| {}).await?;
    drop(builder);
    let other = AttemptId { boot: 3, serial: 3 };
    for wrong in [
        vec![ToServer::Ask { slot: 0 }, ToServer::Hold(given.held.clone())],
        vec![ToServer::Hold(given.held.clone()), ToServer::Ask { slot: 0 }],
        vec![ToServer::Hold(given.held.clone()), ToServer::Hold(given.held.clone())],
        vec![
            ToServer::Hold(given.held.clone()),
            ToServer::Hold(HeldAttempt { attempt: other, ..given.held.clone() }),
        ],
        vec![ToServer::Hold(HeldAttempt { slot: Some(1), ..given.held.clone() })],
    ] {
        let mut builder = server.builder("first", &["f43"], 1).await?;
        for message in wrong {
            builder.say(message).await?;
        }
        let heard = builder.to_the_end().await;
        assert!(matches!(heard.last(), Some(ToBuilder::Goodbye { .. })), "{heard:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_that_was_replaced_is_not_the_one_that_was_given() -> Result {
    let (server, builder, given) = leased(&["changed"], |_| {}).await?;
    drop(builder);
    server.until("queued again", |site| site.source() == ["changed-1-1.src.rpm"]).await?;
    server.site.put("changed-1-1.src.rpm", &srpm("changed", "1", "1", 2_000))?;
    // The next look at SOURCE.
    sleep(Duration::from_secs(3)).await;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let told = answer(&mut builder, given.held.clone()).await?;
    assert_eq!(told, ToBuilder::Stale { attempt: given.attempt });
    let next = builder.lease(0).await?;
    assert_ne!(next.attempt, given.attempt);
    Ok(())
}

/// Where the SRPM lies in the folder of a target, and where it does not.
#[tokio::test(start_paused = true)]
async fn srpms_of_a_target_are_taken_back_too() -> Result {
    let server = server(&[], |_| {})?;
    let bytes = srpm("aimed", "1", "1", 900);
    server.site.put("f43/aimed-1-1.src.rpm", &bytes)?;
    let mut builder = server.builder("first", &["f42", "f43"], 1).await?;
    let assignment = builder.lease(0).await?;
    let given = Given::new(&assignment, &bytes);
    drop(builder);
    server.until("queued again", |site| site.source() == ["f43/aimed-1-1.src.rpm"]).await?;
    let mut builder = server.builder("first", &["f42", "f43"], 1).await?;
    let elsewhere = HeldAttempt { target: "f42".parse()?, ..given.held.clone() };
    let attempt = given.attempt;
    assert_eq!(answer(&mut builder, elsewhere).await?, ToBuilder::Stale { attempt });
    resume(&mut builder, &given).await?;
    assert_eq!(server.site.working(), ["f43/aimed-1-1.src.rpm"]);
    deliver(&mut builder, &given, b"built").await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(published(&server.site, "f43/aimed-1-1"), Some(attempt));
    Ok(())
}

/// Who knows an SRPM's digest does not hold it for that: an id that nobody was given is no lease, and
/// keeps nobody from the SRPM.
#[tokio::test(start_paused = true)]
async fn an_invented_attempt_is_stale_whatever_its_digest() -> Result {
    let (server, mut honest, given) = leased(&["mine", "late"], |config| {
        config.dead_after = Duration::from_secs(3600);
    })
    .await?;
    let waiting = Sha256::of(&srpm("late", "1", "1", 3_000));
    let mut liar = server.builder("liar", &["f43"], 1).await?;
    for (serial, (name, sha256)) in [("mine", given.held.sha256), ("late", waiting)].into_iter().enumerate() {
        for boot in [17, given.attempt.boot ^ 1] {
            let attempt = AttemptId { boot, serial: serial as u64 };
            let srpm = format!("{name}-1-1.src.rpm").parse()?;
            let held = HeldAttempt { attempt, srpm, sha256, slot: None, ..given.held.clone() };
            assert_eq!(answer(&mut liar, held).await?, ToBuilder::Stale { attempt });
        }
    }
    assert_eq!(server.site.working(), ["mine-1-1.src.rpm"]);
    assert_eq!(server.site.staged().len(), 1, "{:?}", server.site.staged());
    deliver(&mut honest, &given, b"built").await?;
    assert_eq!(honest.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    assert_eq!(honest.lease(0).await?.srpm.as_str(), "late-1-1.src.rpm");
    Ok(())
}

/// One that was given back is over, although it was given once.
#[tokio::test(start_paused = true)]
async fn what_was_given_back_does_not_come_back() -> Result {
    let (server, mut builder, given) = leased(&["returned"], |_| {}).await?;
    let attempt = given.attempt;
    builder.say(ToServer::Release { attempt, reason: "no".into(), trouble: false }).await?;
    server.until("queued again", |site| site.source() == ["returned-1-1.src.rpm"]).await?;
    assert_eq!(answer(&mut builder, given.held.clone()).await?, ToBuilder::Stale { attempt });
    drop(builder);
    let server = moji_tests::support::simulated::TestServer::start(server.stop().await?, |_| {});
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(answer(&mut builder, given.held).await?, ToBuilder::Stale { attempt });
    assert_eq!(server.site.source(), ["returned-1-1.src.rpm"]);
    Ok(())
}
