//! Texts that want to be more than texts: for a terminal, for a browser, for whoever reads the log.

use anyhow::ensure;
use moji_proto::{FailureKind, LogFile, Outcome, StreamMessage, ToBuilder, ToServer};
use moji_tests::support::simulated::{Peer, ScriptedBuilder, built, manifest, registration};

use crate::Result;
use crate::scene::{DEN, PASSWORD, Scene, is_closed};

/// Colours, a title, a bell, the cursor up, C1 controls, the other direction, a forged line, markup, format
/// strings, a quote for JSON.
const EVIL: &str = "\u{1b}[31m\u{1b}]0;owned\u{7}\u{1b}[1A\u{9b}2J\u{202e}gol\u{2066}\r\n2026-01-01T00:00:00Z  INFO \
     forged\u{0}<script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}%s%n${jndi:x}`id`$(id)\"}],\\";

async fn enter(scene: &Scene) -> anyhow::Result<ScriptedBuilder> {
    let mut registration = registration("liar", &[DEN], 1)?;
    (registration.arch, registration.software) = (EVIL.into(), EVIL.into());
    Peer::enter(scene.server.connect()?, registration, Some(PASSWORD)).await
}

pub(crate) async fn escapes_and_markup_in_every_text(scene: &mut Scene) -> Result {
    let mut liar = enter(scene).await?;
    // A reason for giving back; twice, the second time as a trouble.
    for trouble in [false, true] {
        scene.prey()?;
        let attempt = liar.lease(0).await?.attempt;
        liar.say(ToServer::Release { attempt, reason: EVIL.into(), trouble }).await?;
    }
    let mut other =
        Peer::enter(scene.server.connect()?, registration("other", &[DEN], 1)?, Some(PASSWORD)).await?;
    let other: &mut ScriptedBuilder = &mut other;
    // A log and a delivery that are aborted, and an outcome that is published.
    let assignment = other.lease(0).await?;
    let (attempt, stem) = (assignment.attempt, assignment.srpm.stem().to_owned());
    let stream = other.next_stream();
    other.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    other.data(stream, EVIL.as_bytes()).await?;
    other.say(StreamMessage::Abort { stream, reason: EVIL.into() }).await?;
    let listed = manifest(&[("a.log", b"12345")])?;
    let stream = other.deliver_open(attempt, Outcome::Succeeded, &listed, b"12").await?;
    other.say(StreamMessage::Abort { stream, reason: EVIL.into() }).await?;
    let word = other.word().await?;
    let ToBuilder::Rejected { reason, again: true, .. } = word else { anyhow::bail!("{word:?}") };
    ensure!(!reason.contains(char::is_control), "{reason:?}");
    let kind = FailureKind::MissingDependency;
    let missing = vec![EVIL.to_owned(); 70];
    // As it comes over the wire, not as the constructor makes it.
    let outcome = Outcome::Failed { kind, reason: EVIL.into(), exit_code: Some(1), missing };
    other.deliver(attempt, outcome, &[("build.log", EVIL.as_bytes())]).await?;
    ensure!(other.word().await? == ToBuilder::Accepted { attempt }, "not accepted");
    scene.was_published(&stem);
    let record = scene.server.site.record(&format!("{DEN}/{stem}"));
    ensure!(record.is_some_and(|record| matches!(record.outcome, Outcome::Failed { .. })), "no record");
    other.say(ToServer::Goodbye { reason: EVIL.into() }).await?;
    ensure!(scene.log_lines("forged") > 3, "the texts do not come through at all");
    Ok(())
}

/// A file name may be odd, as long as it stays one name in its folder.
pub(crate) async fn markup_in_file_names(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    let rpm = built("prey1", b"built");
    let odd = [
        "<img src=x onerror=alert(1)>.log",
        "\"}],.log",
        "${jndi:ldap:x}.txt",
        "`id`;$(id) & x|y.log",
        "%s%n.log",
    ];
    let mut files: Vec<(&str, &[u8])> = odd.iter().map(|name| (*name, &b"odd"[..])).collect();
    files.push(("prey1-1-1.src.rpm", &rpm));
    liar.deliver(attempt, Outcome::Succeeded, &files).await?;
    ensure!(liar.word().await? == ToBuilder::Accepted { attempt }, "not accepted");
    scene.was_published("prey1-1-1");
    let names = scene.server.site.published(&format!("{DEN}/prey1-1-1"));
    ensure!(names.len() == files.len() + 1, "{names:?}");
    Ok(())
}

pub(crate) async fn texts_without_end(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    let reason = "x".repeat(60_000);
    liar.say(ToServer::Release { attempt, reason: reason.clone(), trouble: false }).await?;
    liar.say(ToServer::Goodbye { reason: reason.clone() }).await?;
    is_closed(liar).await?;
    let (mut liar, assignment) = scene.leased().await?;
    let (attempt, stem) = (assignment.attempt, assignment.srpm.stem().to_owned());
    let outcome =
        Outcome::Failed { kind: FailureKind::Package, reason, exit_code: None, missing: Vec::new() };
    liar.deliver(attempt, outcome, &[("build.log", b"failed")]).await?;
    ensure!(liar.word().await? == ToBuilder::Accepted { attempt }, "not accepted");
    scene.was_published(&stem);
    let record = std::fs::metadata(scene.server.site.folders.repo.join(DEN).join(stem).join("build.json"))?;
    ensure!(record.len() < 10_000, "{} bytes of build.json", record.len());
    Ok(())
}
