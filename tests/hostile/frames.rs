//! Frames and messages in the wrong order, twice, too large, or none at all.

use anyhow::ensure;
use moji_proto::frame::{self, Kind};
use moji_proto::handshake::Refusal;
use moji_proto::{AttemptId, LogFile, Outcome, Phase, ToBuilder, ToServer, encoding, limits};
use moji_tests::support::simulated::{Peer, ScriptedBuilder, manifest, registration};
use tokio::io::AsyncWriteExt as _;

use crate::Result;
use crate::scene::{DEN, PASSWORD, Scene, is_closed};

fn control(message: &ToServer) -> anyhow::Result<Vec<u8>> {
    Ok(frame::encode(Kind::Control, &encoding::encode(message)?).to_vec())
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    [&frame::data_header(stream, bytes.len())[..], bytes].concat()
}

/// Each of these, with a lease of its own, ends the connection.
async fn each_closes(
    scene: &mut Scene,
    sequences: &[&dyn Fn(AttemptId) -> anyhow::Result<Vec<Vec<u8>>>],
) -> Result {
    for (n, sequence) in sequences.iter().enumerate() {
        let (mut liar, assignment) = scene.leased().await?;
        for bytes in sequence(assignment.attempt)? {
            // It may be closed before all is said.
            let _ = liar.raw(&bytes).await;
        }
        let heard = is_closed(liar).await?;
        ensure!(!heard.iter().any(|word| matches!(word, ToBuilder::Accepted { .. })), "{n}: {heard:?}");
    }
    Ok(())
}

fn deliver(attempt: AttemptId) -> ToServer {
    ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 1, bytes: 2 }
}

fn listing(attempt: AttemptId) -> anyhow::Result<ToServer> {
    Ok(ToServer::Manifest { attempt, entries: manifest(&[("a.log", b"12")])? })
}

fn log(attempt: AttemptId, stream: u32) -> ToServer {
    ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }
}

pub(crate) async fn reordered(scene: &mut Scene) -> Result {
    each_closes(
        scene,
        &[
            &|attempt| Ok(vec![control(&listing(attempt)?)?, control(&deliver(attempt))?]),
            &|attempt| {
                let upload = ToServer::Upload { attempt, offset: 0, stream: 1 };
                Ok(vec![control(&upload)?, control(&deliver(attempt))?, control(&listing(attempt)?)?])
            },
            &|attempt| Ok(vec![data(1, b"early"), control(&log(attempt, 1))?]),
            &|attempt| Ok(vec![control(&log(attempt, 5))?, control(&log(attempt, 4))?]),
            &|attempt| Ok(vec![control(&log(attempt, 0))?]),
            &|attempt| {
                let upload = ToServer::Upload { attempt, offset: 1, stream: 1 };
                Ok(vec![control(&deliver(attempt))?, control(&listing(attempt)?)?, control(&upload)?])
            },
            &|_| Ok(vec![control(&ToServer::Register(registration("again", &[DEN], 1)?))?]),
        ],
    )
    .await
}

pub(crate) async fn duplicated(scene: &mut Scene) -> Result {
    each_closes(
        scene,
        &[
            &|attempt| Ok(vec![control(&deliver(attempt))?, control(&deliver(attempt))?]),
            &|attempt| {
                let part = control(&listing(attempt)?)?;
                Ok(vec![control(&deliver(attempt))?, part.clone(), part])
            },
            &|attempt| Ok(vec![control(&log(attempt, 1))?, control(&log(attempt, 1))?]),
            &|attempt| Ok(vec![control(&log(attempt, 1))?, control(&log(attempt, 2))?]),
            &|_| Ok(vec![control(&ToServer::Ask { slot: 1 })?, control(&ToServer::Ask { slot: 1 })?]),
            &|_| Ok(vec![control(&ToServer::Ask { slot: 0 })?]),
            &|attempt| {
                let mut twice = manifest(&[("a.log", b"12"), ("a.log", b"12")])?;
                twice[1].size = 3;
                let deliver = ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 2, bytes: 5 };
                Ok(vec![control(&deliver)?, control(&ToServer::Manifest { attempt, entries: twice })?])
            },
        ],
    )
    .await
}

pub(crate) async fn oversized_frames(scene: &mut Scene) -> Result {
    let header = |kind: u8, length: u32| [&length.to_be_bytes()[..], &[kind]].concat();
    each_closes(
        scene,
        &[
            &|_| Ok(vec![header(16, u32::MAX)]),
            &|_| Ok(vec![header(16, limits::CONTROL_BODY as u32 + 2)]),
            &|_| Ok(vec![header(17, u32::MAX)]),
            &|_| Ok(vec![header(17, limits::DATA_BODY as u32 + 2)]),
            &|_| Ok(vec![header(1, 1026)]),
            &|_| Ok(vec![header(4, 2000)]),
            &|_| Ok(vec![header(16, 0)]),
            &|_| Ok(vec![header(17, 1)]),
            &|_| Ok(vec![header(99, 5)]),
            &|_| Ok(vec![header(0, 5)]),
        ],
    )
    .await
}

pub(crate) async fn oversized_lists(scene: &mut Scene) -> Result {
    let deliver = |attempt, files, bytes| {
        control(&ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files, bytes })
    };
    each_closes(
        scene,
        &[
            &|attempt| Ok(vec![deliver(attempt, limits::FILES as u32 + 1, 1)?]),
            &|attempt| Ok(vec![deliver(attempt, u32::MAX, u64::MAX)?]),
            &|attempt| Ok(vec![deliver(attempt, 1, 3)?, control(&listing(attempt)?)?]),
            &|attempt| {
                let entries = manifest(&[("a.log", b"12"), ("b.log", b"34")])?;
                Ok(vec![deliver(attempt, 1, 2)?, control(&ToServer::Manifest { attempt, entries })?])
            },
            &|attempt| {
                let mut entries = manifest(&[("a.log", b"12"), ("b.log", b"34")])?;
                entries.iter_mut().for_each(|entry| entry.size = u64::MAX);
                Ok(vec![deliver(attempt, 2, 1)?, control(&ToServer::Manifest { attempt, entries })?])
            },
            &|_| Ok(vec![control(&ToServer::Ask { slot: u16::MAX })?]),
            // More streams than its slots may have.
            &|attempt| {
                let logs = (1..=1 + 4 * limits::STREAMS_PER_SLOT as u32)
                    .map(|stream| control(&log(AttemptId { boot: attempt.boot ^ 1, ..attempt }, stream)));
                logs.collect()
            },
        ],
    )
    .await?;
    // A heartbeat may name as many as may be held; all of them are nobody's.
    let mut liar = scene.liar().await?;
    let attempts =
        (0..limits::HOLDS as u64).map(|serial| (AttemptId { boot: 1, serial }, Phase::Building)).collect();
    liar.say(ToServer::Heartbeat { disk: None, attempts }).await?;
    ensure!(liar.hear().await? == ToBuilder::HeartbeatSeen, "no answer");
    // More than that, as many as fit a frame.
    let attempts = (0..9_000).map(|serial| (AttemptId { boot: 1, serial }, Phase::Building)).collect();
    liar.say(ToServer::Heartbeat { disk: None, attempts }).await?;
    is_closed(liar).await?;
    // More results than the operator allows: refused for good, before a byte comes.
    let (mut liar, assignment) = scene.leased().await?;
    let attempt = assignment.attempt;
    liar.say(ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 1, bytes: u64::MAX }).await?;
    let word = liar.word().await?;
    ensure!(matches!(word, ToBuilder::Rejected { again: false, .. }), "{word:?}");
    Ok(())
}

/// Numbers of elements and lengths of texts that are not there: nothing may be allocated by them.
pub(crate) async fn lengths_that_lie(scene: &mut Scene) -> Result {
    let huge = [253, 255, 255, 255, 255, 255, 255, 255, 255];
    let message = |front: &[u8]| frame::encode(Kind::Control, &[front, &huge].concat()).to_vec();
    each_closes(
        scene,
        &[
            &|_| Ok(vec![message(&[3])]),
            &|_| Ok(vec![message(&[5, 1, 1])]),
            &|_| Ok(vec![message(&[5, 1, 1, 1])]),
            &|_| Ok(vec![message(&[7, 1, 1])]),
            &|_| Ok(vec![message(&[9])]),
            &|_| Ok(vec![message(&[0])]),
            &|_| Ok(vec![message(&[])]),
            &|_| Ok(vec![frame::encode(Kind::Control, &[3, 0, 0]).to_vec()]),
            &|_| Ok(vec![frame::encode(Kind::Control, &[]).to_vec()]),
            &|_| Ok(vec![frame::encode(Kind::Control, &[200]).to_vec()]),
        ],
    )
    .await
}

pub(crate) async fn oversized_registrations(scene: &mut Scene) -> Result {
    let many: Vec<String> = (0..2000).map(|n| format!("target-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut talkative = registration("liar", &[DEN], 1)?;
    talkative.arch = "a".repeat(30_000);
    talkative.software = "s".repeat(30_000);
    for (slots, targets) in [(0, &[DEN][..]), (u16::MAX, &[DEN]), (257, &[DEN]), (1, &[]), (1, &many)] {
        let registration = registration("liar", targets, slots)?;
        let entered = Peer::enter(scene.server.connect()?, registration, Some(PASSWORD)).await;
        let entered: anyhow::Result<ScriptedBuilder> = entered;
        ensure!(entered.is_err_and(|error| error.is::<Refusal>()), "let in: {slots} slots");
    }
    let _let_in: ScriptedBuilder = Peer::enter(scene.server.connect()?, talkative, Some(PASSWORD)).await?;
    Ok(())
}

pub(crate) async fn garbage_after_the_handshake(scene: &mut Scene) -> Result {
    let noise: Vec<u8> = (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    each_closes(
        scene,
        &[
            &|_| Ok(vec![noise.clone()]),
            &|_| Ok(vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()]),
            &|_| Ok(vec![vec![0; 4096]]),
            &|_| Ok(vec![frame::encode(Kind::Control, &noise[..9_000]).to_vec()]),
            &|_| Ok(vec![frame::encode(Kind::ClientHello, &[b'm'; 40]).to_vec()]),
            &|_| Ok(vec![frame::encode(Kind::Proof, &[7; 32]).to_vec()]),
        ],
    )
    .await
}

/// Half a frame, and then nothing: for ever, or because the connection has ended.
pub(crate) async fn cut_in_the_middle(scene: &mut Scene) -> Result {
    let (mut liar, assignment) = scene.leased().await?;
    let whole = control(&deliver(assignment.attempt))?;
    liar.raw(&whole[..whole.len() - 1]).await?;
    is_closed(liar).await?;
    let (mut liar, assignment) = scene.leased().await?;
    liar.raw(&control(&deliver(assignment.attempt))?[..3]).await?;
    drop(liar);
    let mut io = scene.server.connect()?;
    io.write_all(&[0, 0, 0]).await?;
    drop(io);
    Ok(())
}
