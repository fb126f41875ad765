//! Builders that speak of attempts which are not theirs, not any more, or not what they say.

use anyhow::{bail, ensure};
use moji_proto::{
    AttemptId, HeldAttempt, LogFile, Outcome, Phase, Sha256, StreamMessage, ToBuilder, ToServer,
};
use moji_tests::support::simulated::{ScriptedBuilder, built, manifest};
use tokio::time::{Duration, sleep};

use crate::Result;
use crate::scene::{DEN, Scene, TARGET, is_closed, is_stale};

const FORGED: &[u8] = b"this was never built";

/// Everything that may be said about an attempt, by one who does not hold it.
async fn is_nobodys(liar: &mut ScriptedBuilder, attempt: AttemptId, held: HeldAttempt) -> Result {
    let listed = manifest(&[("bystander-1-1.noarch.rpm", FORGED)])?;
    liar.announce(attempt, Outcome::Succeeded, &listed).await?;
    is_stale(liar, attempt).await?;
    let stream = liar.next_stream();
    liar.say(ToServer::Upload { attempt, offset: 0, stream }).await?;
    liar.data(stream, FORGED).await?;
    liar.end(stream, None).await?;
    is_stale(liar, attempt).await?;
    for file in LogFile::ALL {
        let stream = liar.next_stream();
        liar.say(ToServer::Log { attempt, file, offset: 0, stream }).await?;
        liar.data(stream, FORGED).await?;
        liar.end(stream, None).await?;
        is_stale(liar, attempt).await?;
    }
    for trouble in [false, true] {
        liar.say(ToServer::Release { attempt, reason: "not mine".into(), trouble }).await?;
        is_stale(liar, attempt).await?;
    }
    liar.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Delivering)] }).await?;
    liar.say(ToServer::Hold(held)).await?;
    is_stale(liar, attempt).await
}

fn claim(scene: &Scene, attempt: AttemptId, sha256: Sha256) -> HeldAttempt {
    let srpm = &scene.bystander_srpm;
    let (target, srpm) = (srpm.target.clone(), srpm.srpm.clone());
    HeldAttempt { attempt, target, srpm, sha256, slot: None, phase: Phase::Delivering }
}

fn digest_of_bystanders_srpm(scene: &Scene) -> anyhow::Result<Sha256> {
    let path = scene.server.site.folders.working.join(TARGET).join(scene.bystander_srpm.srpm.as_str());
    Ok(Sha256::of(&std::fs::read(path)?))
}

pub(crate) async fn never_given_ids(scene: &mut Scene) -> Result {
    let mut liar = scene.liar().await?;
    let AttemptId { boot, serial } = scene.bystander;
    for attempt in [(boot, 0), (boot, serial + 1), (boot, u64::MAX), (0, 0), (u64::MAX, u64::MAX)] {
        let attempt = AttemptId { boot: attempt.0, serial: attempt.1 };
        is_nobodys(&mut liar, attempt, claim(scene, attempt, Sha256::of(FORGED))).await?;
    }
    Ok(())
}

/// Even with the right digest: the name of the builder is another one.
pub(crate) async fn another_builders_attempt(scene: &mut Scene) -> Result {
    let mut liar = scene.liar().await?;
    let claim = claim(scene, scene.bystander, digest_of_bystanders_srpm(scene)?);
    is_nobodys(&mut liar, scene.bystander, claim).await
}

pub(crate) async fn an_attempt_of_an_earlier_run(scene: &mut Scene) -> Result {
    let mut liar = scene.liar().await?;
    let attempt = AttemptId { boot: scene.bystander.boot ^ 1, serial: 1 };
    is_nobodys(&mut liar, attempt, claim(scene, attempt, Sha256::of(FORGED))).await?;
    // Of something that is published, and whose digest everybody can compute.
    let srpm = std::fs::read(scene.server.site.folders.finished.join(TARGET).join("published-1-1.src.rpm"))?;
    let held = HeldAttempt {
        attempt,
        target: TARGET.parse()?,
        srpm: "published-1-1.src.rpm".parse()?,
        sha256: Sha256::of(&srpm),
        slot: None,
        phase: Phase::Delivering,
    };
    is_nobodys(&mut liar, attempt, held).await
}

/// A delivery that is right, and published.
async fn published(scene: &mut Scene) -> anyhow::Result<(ScriptedBuilder, AttemptId)> {
    let (mut liar, assignment) = scene.leased().await?;
    let (attempt, stem) = (assignment.attempt, assignment.srpm.stem().to_owned());
    let rpm = built(stem.trim_end_matches("-1-1"), b"built");
    liar.deliver(attempt, Outcome::Succeeded, &[(assignment.srpm.as_str(), &rpm)]).await?;
    ensure!(liar.word().await? == ToBuilder::Accepted { attempt }, "not accepted");
    scene.was_published(&stem);
    Ok((liar, attempt))
}

pub(crate) async fn replayed_deliveries(scene: &mut Scene) -> Result {
    let (mut liar, attempt) = published(scene).await?;
    let folder = scene.server.site.folders.repo.join(DEN).join("prey1-1-1");
    let (name, record) = (folder.join("prey1-1-1.src.rpm"), folder.join("build.json"));
    let before = (std::fs::read(&name)?, std::fs::read(&record)?);
    for outcome in
        [Outcome::Succeeded, Outcome::failed(moji_proto::FailureKind::Package, "no", None, Vec::new())]
    {
        liar.deliver(attempt, outcome, &[("prey1-1-1.noarch.rpm", FORGED)]).await?;
        is_stale(&mut liar, attempt).await?;
    }
    liar.say(ToServer::Release { attempt, reason: "again".into(), trouble: true }).await?;
    is_stale(&mut liar, attempt).await?;
    drop(liar);
    let mut liar = scene.liar().await?;
    liar.deliver(attempt, Outcome::Succeeded, &[("prey1-1-1.noarch.rpm", FORGED)]).await?;
    is_stale(&mut liar, attempt).await?;
    ensure!(before == (std::fs::read(&name)?, std::fs::read(&record)?), "what was published has changed");
    Ok(())
}

pub(crate) async fn replayed_uploads_and_holds(scene: &mut Scene) -> Result {
    // An upload that was not asked for.
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    let stream = liar.next_stream();
    liar.say(ToServer::Upload { attempt, offset: 0, stream }).await?;
    is_closed(liar).await?;
    // A second one for one answer, with other bytes.
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    let listed = manifest(&[("a.log", b"12345")])?;
    liar.deliver_open(attempt, Outcome::Succeeded, &listed, b"123").await?;
    let stream = liar.next_stream();
    liar.say(ToServer::Upload { attempt, offset: 0, stream }).await?;
    is_closed(liar).await?;
    // What this session holds already; and the same claim twice.
    let (mut liar, assignment) = scene.leased().await?;
    let mut held = claim(scene, assignment.attempt, Sha256::of(FORGED));
    liar.say(ToServer::Hold(held.clone())).await?;
    is_closed(liar).await?;
    let mut liar = scene.liar().await?;
    held.attempt.serial += 1000;
    liar.say(ToServer::Hold(held.clone())).await?;
    liar.say(ToServer::Hold(held)).await?;
    is_closed(liar).await?;
    Ok(())
}

pub(crate) async fn wrong_digests(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    let mut listed = manifest(&[("prey1-1-1.noarch.rpm", FORGED)])?;
    listed[0].sha256 = Sha256::of(b"something else");
    for again in [true, true, false] {
        let stream = liar.deliver_open(attempt, Outcome::Succeeded, &listed, FORGED).await?;
        liar.end(stream, None).await?;
        match liar.word().await? {
            ToBuilder::Rejected { again: now, .. } if now == again => {}
            other => bail!("{other:?} came instead of a rejection"),
        }
    }
    liar.deliver(attempt, Outcome::Succeeded, &[("prey1-1-1.noarch.rpm", FORGED)]).await?;
    is_stale(&mut liar, attempt).await
}

pub(crate) async fn results_for_a_cancelled_attempt(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    let listed = manifest(&[("prey1-1-1.noarch.rpm", FORGED)])?;
    let stream = liar.deliver_open(attempt, Outcome::Succeeded, &listed, &FORGED[..7]).await?;
    let folders = &scene.server.site.folders;
    std::fs::remove_file(folders.working.join(DEN).join("prey1-1-1.src.rpm"))?;
    let mut word = ToBuilder::HeartbeatSeen;
    while word == ToBuilder::HeartbeatSeen {
        // The liar keeps its connection, and looks busy.
        sleep(Duration::from_secs(9)).await;
        liar.say(ToServer::Heartbeat { disk: None, attempts: vec![(attempt, Phase::Delivering)] }).await?;
        word = liar.hear().await?;
    }
    ensure!(matches!(word, ToBuilder::Cancel { attempt: about, .. } if about == attempt), "{word:?}");
    liar.data(stream, &FORGED[7..]).await?;
    liar.end(stream, None).await?;
    liar.deliver(attempt, Outcome::Succeeded, &[("prey1-1-1.noarch.rpm", FORGED)]).await?;
    is_stale(&mut liar, attempt).await?;
    liar.say(ToServer::Hold(HeldAttempt {
        attempt,
        target: DEN.parse()?,
        srpm: assignment.srpm,
        sha256: Sha256::of(FORGED),
        slot: None,
        phase: Phase::Delivering,
    }))
    .await?;
    is_stale(&mut liar, attempt).await
}

/// Names are for people; a second one with the same name that cannot tell the SRPM's digest gets
/// nothing, and the first one is not disturbed.
pub(crate) async fn two_sessions_with_one_name(scene: &mut Scene) -> Result {
    let mut double = scene.liar_named("bystander").await?;
    let claim = claim(scene, scene.bystander, Sha256::of(FORGED));
    double.say(ToServer::Hold(claim)).await?;
    is_stale(&mut double, scene.bystander).await?;
    double.deliver(scene.bystander, Outcome::Succeeded, &[("bystander-1-1.noarch.rpm", FORGED)]).await?;
    is_stale(&mut double, scene.bystander).await?;
    double.say(ToServer::Release { attempt: scene.bystander, reason: "mine".into(), trouble: false }).await?;
    is_stale(&mut double, scene.bystander).await?;
    // Two liars with one name, and an attempt of one of them.
    let (mut first, assignment) = scene.leased().await?;
    let mut second = scene.liar().await?;
    second.deliver(assignment.attempt, Outcome::Succeeded, &[("prey1-1-1.noarch.rpm", FORGED)]).await?;
    is_stale(&mut second, assignment.attempt).await?;
    first.say(ToServer::Release { attempt: assignment.attempt, reason: String::new(), trouble: false }).await
}

/// Announces results and never brings them, so that its slots are free: the whole queue would be its.
pub(crate) async fn a_hoard_of_attempts(scene: &mut Scene) -> Result {
    let mut liar = scene.liar().await?;
    let outcome = Outcome::Succeeded;
    let mut attempts = Vec::new();
    for _ in 0..20 {
        scene.prey()?;
        let attempt = liar.lease(0).await?.attempt;
        attempts.push(attempt);
        let files = moji_proto::limits::FILES as u32;
        liar.say(ToServer::Deliver { attempt, outcome: outcome.clone(), files, bytes: 1 << 20 }).await?;
        // What is kept for it has an end.
        let entries = manifest(&[("a.log", b"12"), ("b.log", b"34")])?;
        liar.say(ToServer::Manifest { attempt, entries }).await?;
        liar.say(ToServer::Stream(StreamMessage::Abort { stream: 77, reason: "no such stream".into() }))
            .await?;
        if attempts.len() > 5 {
            let word = liar.word().await?;
            ensure!(matches!(word, ToBuilder::Rejected { again: true, .. }), "{word:?}");
        }
    }
    Ok(())
}
