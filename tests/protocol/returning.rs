//! Builders that come back with what they hold.

use std::fs;

use anyhow::bail;
use moji_proto::{
    Assignment, AttemptId, HeldAttempt, LogFile, Outcome, Phase, Sha256, StreamMessage, ToBuilder, ToServer,
};
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, built, srpm};

/// An attempt and all that its builder knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) attempt: AttemptId,
    pub(crate) held: HeldAttempt,
}

impl Given {
    pub(crate) fn new(assignment: &Assignment, srpm: &[u8]) -> Self {
        let Assignment { attempt, slot, target, srpm: name, .. } = assignment.clone();
        let sha256 = Sha256::of(srpm);
        let phase = Phase::Building;
        Self { attempt, held: HeldAttempt { attempt, target, srpm: name, sha256, slot: Some(slot), phase } }
    }
}

/// Leases an SRPM of [`Site::put_srpm`] to slot 0.
pub(crate) async fn lease(builder: &mut ScriptedBuilder) -> anyhow::Result<Given> {
    lease_to(builder, 0).await
}

/// The same to another slot.
pub(crate) async fn lease_to(builder: &mut ScriptedBuilder, slot: u16) -> anyhow::Result<Given> {
    let assignment = builder.lease(slot).await?;
    let Some(name) = assignment.srpm.as_str().strip_suffix("-1-1.src.rpm") else { bail!("{assignment:?}") };
    Ok(Given::new(&assignment, &srpm(name, "1", "1", 3_000)))
}

/// A server with SRPMs.
pub(crate) fn server(
    names: &[&str],
    adjust: impl FnOnce(&mut moji_server::run::Config),
) -> anyhow::Result<TestServer> {
    let site = Site::new()?;
    for name in names {
        site.put_srpm(name)?;
    }
    Ok(TestServer::start(site, adjust))
}

/// The same, and a builder that has got the first of them.
pub(crate) async fn leased(
    names: &[&str],
    adjust: impl FnOnce(&mut moji_server::run::Config),
) -> anyhow::Result<(TestServer, ScriptedBuilder, Given)> {
    let server = server(names, adjust)?;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let given = lease(&mut builder).await?;
    // Behind this answer the server knows that the SRPM was sent.
    builder.say(ToServer::Heartbeat { disk: None, attempts: vec![(given.attempt, Phase::Building)] }).await?;
    assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    Ok((server, builder, given))
}

/// Says that it holds an attempt; gives what the server has of its logs.
pub(crate) async fn resume(
    builder: &mut ScriptedBuilder,
    given: &Given,
) -> anyhow::Result<Vec<(LogFile, u64)>> {
    builder.say(ToServer::Hold(given.held.clone())).await?;
    match builder.word().await? {
        ToBuilder::Resume { attempt, logs } if attempt == given.attempt => Ok(logs),
        other => bail!("{other:?} came instead of a resume of {}", given.attempt),
    }
}

/// Says that it holds something; gives the answer.
pub(crate) async fn answer(builder: &mut ScriptedBuilder, held: HeldAttempt) -> anyhow::Result<ToBuilder> {
    builder.say(ToServer::Hold(held)).await?;
    builder.word().await
}

/// Sends a part of a build log, and waits until it is written; the stream stays open.
pub(crate) async fn log(
    server: &TestServer,
    builder: &mut ScriptedBuilder,
    attempt: AttemptId,
    offset: u64,
    text: &str,
) -> anyhow::Result<()> {
    let stream = builder.next_stream();
    builder.say(ToServer::Log { attempt, file: LogFile::Build, offset, stream }).await?;
    builder.data(stream, text.as_bytes()).await?;
    let path = server.site.folders.attempt(attempt).join("build.log");
    let length = offset + text.len() as u64;
    server.until("the log", |_| path.metadata().is_ok_and(|data| data.len() == length)).await
}

/// Delivers, and goes away when so many bytes of it are written.
pub(crate) async fn cut_upload(
    server: &TestServer,
    mut builder: ScriptedBuilder,
    attempt: AttemptId,
    (name, content): (&str, &[u8]),
    at: usize,
) -> anyhow::Result<()> {
    let listed = moji_tests::support::simulated::manifest(&[(name, content)])?;
    builder.deliver_open(attempt, Outcome::Succeeded, &listed, &content[..at]).await?;
    let path = server.site.folders.attempt(attempt).join("results").join(name);
    let is_there = || path.metadata().is_ok_and(|data| data.len() == at as u64);
    server.until("a part of the upload", |_| is_there()).await
}

/// Announces results of which the server has `have` bytes, and sends the rest.
pub(crate) async fn rest_of_upload(
    builder: &mut ScriptedBuilder,
    attempt: AttemptId,
    (name, content): (&str, &[u8]),
    have: usize,
) -> anyhow::Result<()> {
    let listed = moji_tests::support::simulated::manifest(&[(name, content)])?;
    builder.announce(attempt, Outcome::Succeeded, &listed).await?;
    let part = Sha256::of(&content[..have]);
    assert_eq!(builder.word().await?, ToBuilder::Wanted { attempt, offset: have as u64, part });
    let stream = builder.next_stream();
    builder.say(ToServer::Upload { attempt, offset: have as u64, stream }).await?;
    builder.data(stream, &content[have..]).await?;
    builder.say(StreamMessage::End { stream, sha256: None }).await
}

/// A good result of an SRPM.
pub(crate) async fn deliver(
    builder: &mut ScriptedBuilder,
    given: &Given,
    content: &[u8],
) -> anyhow::Result<()> {
    let name = given.held.srpm.as_str();
    let content = built(name.trim_end_matches("-1-1.src.rpm"), content);
    builder.deliver(given.attempt, Outcome::Succeeded, &[(name, &content)]).await
}

/// Whose result is published.
pub(crate) fn published(site: &Site, nvr: &str) -> Option<AttemptId> {
    site.record(nvr)?.attempt.map(|attempt| attempt.id)
}

/// `.held.json` beside an SRPM in FINISHED.
pub(crate) fn held_record(site: &Site, name: &str) -> Option<moji_server::record::BuildRecord> {
    let json = fs::read(site.folders.finished.join(format!("{name}-1-1.src.rpm.held.json"))).ok()?;
    serde_json::from_slice(&json).ok()
}
