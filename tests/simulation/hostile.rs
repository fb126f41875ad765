//! Peers that do not do what they should: one lies, one is late. Whatever they do, nothing of it
//! may be published. They leave when the faults end.

use std::time::Duration;

use anyhow::{bail, ensure};
use moji_proto::{AttemptId, HeldAttempt, LogFile, Outcome, Phase, Sha256, ToBuilder, ToServer};
use moji_tests::support::simulated::{Peer, ScriptedBuilder, manifest, registration};
use tokio::time::sleep;
use turmoil::Sim;
use turmoil::net::TcpStream;

use crate::farm::PORT;
use crate::plan::{FAULTS, Plan, Random};

const FORGED: &[u8] = b"this was never built";

pub(crate) fn add(sim: &mut Sim<'_>, plan: &Plan) {
    for (name, act) in [("liar", Act::Lie), ("latecomer", Act::ComeLate)] {
        let (seed, password) = (plan.seed, plan.password);
        sim.host(name, move || async move {
            let mut random = Random::new(seed, name);
            while turmoil::sim_elapsed().is_some_and(|now| now < Duration::from_secs(FAULTS)) {
                // Whatever goes wrong for it is its own fault; only a success would be wrong.
                if let Err(error) = one(name, act, password, &mut random).await
                    && error.is::<Believed>()
                {
                    return Err(error.to_string().into());
                }
                sleep(random.seconds(1, 20)).await;
            }
            Ok(())
        });
        sim.set_link_latency(name, "server", Duration::from_millis(70));
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Lie,
    ComeLate,
}

#[derive(Debug, thiserror::Error)]
#[error("the server believed a lie about {0}")]
struct Believed(AttemptId);

async fn enter(name: &str, password: Option<&str>) -> anyhow::Result<ScriptedBuilder<TcpStream>> {
    let io = TcpStream::connect(("server", PORT)).await?;
    Peer::enter(io, registration(name, &["f43-arm", "f44-arm"], 1)?, password).await
}

async fn one(name: &str, act: Act, password: Option<&str>, random: &mut Random) -> anyhow::Result<()> {
    let mut peer = enter(name, password).await?;
    let entered = async {
        let attempt = peer.lease(0).await?.attempt;
        anyhow::Ok((peer, attempt))
    };
    // Without work it leaves again: it must be gone when the faults end.
    let (mut peer, attempt) = tokio::time::timeout(Duration::from_secs(25), entered).await??;
    match act {
        Act::Lie => match random.between(1, 5) {
            5 => nonsense(&mut peer, attempt).await,
            1 => wrong_digests(&mut peer, attempt).await,
            2 => foreign_attempts(&mut peer, attempt).await,
            3 => claim_of_others(&mut peer, attempt, random).await,
            _ => flood(&mut peer, attempt).await,
        },
        Act::ComeLate => {
            // Sleeps with its eyes open: the connection stays, and nothing comes over it.
            sleep(Duration::from_secs(random.between(31, 70))).await;
            let _ = forge(&mut peer, attempt).await;
            drop(peer);
            let mut peer = enter(name, password).await?;
            forge(&mut peer, attempt).await?;
            stale(&mut peer, attempt).await
        }
    }
}

async fn forge(peer: &mut ScriptedBuilder<TcpStream>, attempt: AttemptId) -> anyhow::Result<()> {
    peer.deliver(attempt, Outcome::Succeeded, &[("forged-1-1.noarch.rpm", FORGED)]).await
}

async fn stale(peer: &mut ScriptedBuilder<TcpStream>, about: AttemptId) -> anyhow::Result<()> {
    match peer.word().await? {
        ToBuilder::Stale { attempt } if attempt == about => Ok(()),
        ToBuilder::Accepted { attempt } => Err(Believed(attempt).into()),
        other => bail!("{other:?}"),
    }
}

async fn wrong_digests(peer: &mut ScriptedBuilder<TcpStream>, attempt: AttemptId) -> anyhow::Result<()> {
    let mut listed = manifest(&[("forged-1-1.noarch.rpm", FORGED)])?;
    listed[0].sha256 = Sha256::of(b"something else");
    loop {
        let stream = peer.deliver_open(attempt, Outcome::Succeeded, &listed, FORGED).await?;
        peer.end(stream, None).await?;
        match peer.word().await? {
            ToBuilder::Rejected { again: true, .. } => {}
            ToBuilder::Rejected { .. } => return Ok(()),
            ToBuilder::Accepted { attempt } => return Err(Believed(attempt).into()),
            other => bail!("{other:?}"),
        }
    }
}

/// All digests are right, and the file is no RPM.
async fn nonsense(peer: &mut ScriptedBuilder<TcpStream>, attempt: AttemptId) -> anyhow::Result<()> {
    forge(peer, attempt).await?;
    loop {
        match peer.word().await? {
            ToBuilder::Rejected { again: false, .. } => return Ok(()),
            ToBuilder::Suspended { .. } => {}
            ToBuilder::Accepted { attempt } => return Err(Believed(attempt).into()),
            other => bail!("{other:?}"),
        }
    }
}

/// Ids are easily guessed: what others hold has a number close to one's own.
async fn foreign_attempts(peer: &mut ScriptedBuilder<TcpStream>, own: AttemptId) -> anyhow::Result<()> {
    for serial in own.serial.saturating_sub(6)..own.serial + 3 {
        let attempt = AttemptId { serial, ..own };
        if attempt != own {
            forge(peer, attempt).await?;
            stale(peer, attempt).await?;
            peer.say(ToServer::Release { attempt, reason: "not mine".into(), trouble: false }).await?;
            stale(peer, attempt).await?;
        }
    }
    peer.say(ToServer::Release { attempt: own, reason: "enough".into(), trouble: false }).await
}

/// Says that it holds what others hold, and what nobody holds.
async fn claim_of_others(
    peer: &mut ScriptedBuilder<TcpStream>,
    own: AttemptId,
    random: &mut Random,
) -> anyhow::Result<()> {
    for serial in own.serial.saturating_sub(6)..own.serial + 3 {
        let attempt = AttemptId { serial, ..own };
        if attempt == own {
            continue;
        }
        let package = random.between(1, 14);
        peer.say(ToServer::Hold(HeldAttempt {
            attempt,
            target: "f43-arm".parse()?,
            srpm: format!("package-{package}-1-1.src.rpm").parse()?,
            sha256: Sha256::of(FORGED),
            slot: None,
            phase: Phase::Delivering,
        }))
        .await?;
        match peer.word().await? {
            // What was published under that number is published.
            ToBuilder::Stale { attempt: about } | ToBuilder::Accepted { attempt: about } => {
                ensure!(about == attempt, "{about} instead of {attempt}");
            }
            ToBuilder::Resume { attempt, .. } => return Err(Believed(attempt).into()),
            other => bail!("{other:?}"),
        }
    }
    // And away with the one that was given: a loss.
    Ok(())
}

async fn flood(peer: &mut ScriptedBuilder<TcpStream>, attempt: AttemptId) -> anyhow::Result<()> {
    let stream = peer.next_stream();
    peer.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    for _ in 0..20 {
        peer.data(stream, &[b'z'; 40_000]).await?;
    }
    peer.until(|peer| peer.unwanted.contains(&stream)).await?;
    peer.end(stream, None).await?;
    ensure!(!peer.unwanted.is_empty(), "nobody stopped it");
    // And away, without a word.
    Ok(())
}
