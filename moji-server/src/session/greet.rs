//! The beginning of a connection: handshake and registration, the only things that a stranger can
//! make the server do.

use anyhow::{Context as _, anyhow, bail};
use moji_proto::frame::{Frame, Kind};
use moji_proto::handshake::{HandshakeError, PLAINTEXT, Refusal, RefusalCode};
use moji_proto::io::FrameReader;
use moji_proto::outcome::one_line;
use moji_proto::{Registration, ToServer, encoding, limits};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::{GOODBYE, SessionConfig};
use crate::peer::Peer;

/// How the greeting of a stranger ended.
#[derive(Debug)]
pub(super) enum Greeted {
    /// It is a builder.
    Welcome(Registration),
    /// It cannot be let in, and is to be told why.
    Refused(Refusal),
    /// The connection is lost, or it has refused us.
    Lost(anyhow::Error),
    /// It has taken too long.
    Silent,
    /// It had to make place for another one.
    Displaced,
}

/// Handshake and registration.
pub(super) async fn greet(
    frames: &mut FrameReader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
    config: &SessionConfig,
) -> Greeted {
    match handshake(frames, write, config).await {
        Ok(Ok(())) => match register(frames).await {
            Ok(registration) => Greeted::Welcome(registration),
            Err(error) => Greeted::Refused(Refusal::new(RefusalCode::Registration, &format!("{error:#}"))),
        },
        Ok(Err(HandshakeError::Refuse(refusal))) => Greeted::Refused(refusal),
        Ok(Err(error)) => Greeted::Lost(error.into()),
        Err(error) => Greeted::Lost(error),
    }
}

/// Tells a peer why it is not let in. Whoever has guessed wrong waits for it, beyond the time that a
/// greeting may take.
pub(super) async fn refuse(
    write: &mut (impl AsyncWrite + Unpin),
    refusal: &Refusal,
    peer: &Peer,
    config: &SessionConfig,
) {
    if refusal.code == Some(RefusalCode::WrongPassword) {
        sleep(config.logins.failed(peer)).await;
    }
    let told = async {
        write.write_all(&refusal.encode()).await?;
        write.flush().await?;
        write.shutdown().await
    };
    // One that does not want to know is not waited for.
    let _ = timeout(GOODBYE, told).await;
}

/// Outer errors: the connection is lost. Inner ones: the handshake failed.
async fn handshake(
    frames: &mut FrameReader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
    config: &SessionConfig,
) -> anyhow::Result<Result<(), HandshakeError>> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| anyhow!("no random numbers: {error}"))?;
    // The place where the exporter of a TLS connection goes in.
    let answer = match config.secret.answer(next(frames).await?, &nonce, &PLAINTEXT) {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    write.write_all(&answer.hello).await?;
    write.flush().await?;
    if answer.wants_proof() {
        let proof = next(frames).await.context("does that builder have a password?")?;
        match answer.check(proof) {
            Ok(proof) => write.write_all(&proof).await?,
            Err(error) => return Ok(Err(error)),
        }
        write.flush().await?;
    }
    frames.handshake_done();
    Ok(Ok(()))
}

async fn register(frames: &mut FrameReader<impl AsyncRead + Unpin>) -> anyhow::Result<Registration> {
    let frame = next(frames).await?;
    if frame.kind != Kind::Control {
        bail!("the first message must be a registration");
    }
    let ToServer::Register(mut registration) = encoding::decode(&frame.body)? else {
        bail!("the first message must be a registration");
    };
    if registration.slots == 0 || registration.slots > limits::SLOTS {
        bail!("a builder has 1 to {} slots, not {}", limits::SLOTS, registration.slots);
    }
    if registration.targets.is_empty() || registration.targets.len() > limits::TARGETS {
        bail!("a builder serves 1 to {} targets, not {}", limits::TARGETS, registration.targets.len());
    }
    registration.arch = one_line(&registration.arch);
    registration.software = one_line(&registration.software);
    Ok(registration)
}

async fn next(frames: &mut FrameReader<impl AsyncRead + Unpin>) -> anyhow::Result<Frame> {
    frames.next().await?.context("it closed the connection before it had introduced itself")
}
