//! The beginning of a connection: TLS, handshake and registration, the only things that a stranger can
//! make the server do.

use anyhow::{Context as _, anyhow, bail};
use moji_proto::frame::{Frame, Kind};
use moji_proto::handshake::{Binding, HandshakeError, Refusal, RefusalCode};
use moji_proto::io::FrameReader;
use moji_proto::operator::{self, Operate};
use moji_proto::outcome::one_line;
use moji_proto::{CredentialName, PublicKey, Registration, TargetName, ToServer, encoding, limits};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::{sleep, timeout};

use super::operator::Rights;
use super::{GOODBYE, SessionConfig};
use crate::BuilderId;
use crate::access::Opened;
use crate::access::credentials::{Credential, Credentials, Role};
use crate::peer::Peer;

/// Who was let in.
pub(super) enum Known {
    /// A builder.
    Builder(Guest),
    /// A person's program.
    Person(Visitor),
}

/// A person's program.
pub(super) struct Visitor {
    /// What it says that it is.
    pub(super) software: String,
    pub(super) pass: Pass,
    pub(super) rights: Rights,
}

impl Visitor {
    /// What it is called in the log.
    pub(super) fn name(&self) -> String {
        self.rights.name.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string)
    }
}

/// A builder that was let in.
pub(super) struct Guest {
    pub(super) builder: BuilderId,
    pub(super) registration: Registration,
    pub(super) pass: Pass,
}

/// How somebody was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pass {
    /// Anybody is, or he knows the password.
    Common,
    /// With a credential, and the key that it had then.
    Credential(CredentialName, PublicKey),
}

impl Pass {
    /// Whether it is still worth something.
    ///
    /// # Errors
    /// Why not, for its owner.
    pub(super) fn check<'a>(&self, known: &'a Credentials) -> Result<Option<&'a Credential>, Refusal> {
        let Self::Credential(name, key) = self else { return Ok(None) };
        let credential = known.good(name)?;
        if credential.key != *key {
            // Revoked, and the name was given to another.
            let reason = format!("the credential {name} was revoked");
            return Err(Refusal::new(RefusalCode::Revoked, &reason));
        }
        Ok(Some(credential))
    }
}

/// What is read from a stranger, and what is written to it.
pub(super) type Frames<Io> = FrameReader<ReadHalf<Opened<Io>>>;
type Write<Io> = WriteHalf<Opened<Io>>;

/// How the greeting of a stranger ended.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub(super) enum Greeted<Io> {
    /// It is known, and may come in.
    Welcome(Known, Frames<Io>, Write<Io>),
    /// It cannot be let in, and is to be told why.
    Refused(Refusal, Write<Io>),
    /// The connection is lost, or it has refused us.
    Lost(anyhow::Error),
    /// It has taken too long.
    Silent,
    /// It had to make place for another one.
    Displaced,
}

/// TLS, handshake and registration.
pub(super) async fn greet<Io>(io: Io, config: &SessionConfig) -> Greeted<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let (io, binding) = match config.access.open(io).await {
        Ok(opened) => opened,
        Err(error) => return Greeted::Lost(error),
    };
    let (read, mut write) = split(io);
    let mut frames = FrameReader::new(read);
    match handshake(&mut frames, &mut write, &binding, config).await {
        Ok(Ok(pass)) => match register(&mut frames, &pass, config).await {
            Ok(known) => Greeted::Welcome(known, frames, write),
            Err(error) => {
                // A credential can end at any time.
                let refusal = error
                    .downcast()
                    .unwrap_or_else(|error| Refusal::new(RefusalCode::Registration, &format!("{error:#}")));
                Greeted::Refused(refusal, write)
            }
        },
        Ok(Err(HandshakeError::Refuse(refusal))) => Greeted::Refused(refusal, write),
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
    if refusal.code == Some(RefusalCode::WrongProof) {
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
    binding: &Binding,
    config: &SessionConfig,
) -> anyhow::Result<Result<Pass, HandshakeError>> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| anyhow!("no random numbers: {error}"))?;
    let hello = next(frames).await?;
    let credentials = config.access.credentials.borrow().clone();
    let answer = match config.access.secret.answer(hello, &nonce, binding, credentials.keys()) {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    write.write_all(&answer.hello).await?;
    write.flush().await?;
    let pass = match answer.credential() {
        Some(name) => credentials.keys().get(name).map(|key| Pass::Credential(name.clone(), *key)),
        None => Some(Pass::Common),
    };
    if answer.wants_proof() {
        let proof = next(frames)
            .await
            .context("has that builder the password, or a token, and does it know this server's key?")?;
        let proof = match answer.check(proof) {
            Ok(proof) => proof,
            Err(error) => return Ok(Err(error)),
        };
        // Only somebody who has the token is told that it was good once.
        if let Some(Err(refusal)) = pass.as_ref().map(|pass| pass.check(&credentials)) {
            return Ok(Err(HandshakeError::Refuse(refusal)));
        }
        write.write_all(&proof).await?;
        write.flush().await?;
    }
    frames.handshake_done();
    pass.map(Ok).context("a credential that does not exist was proven")
}

async fn register(
    frames: &mut FrameReader<impl AsyncRead + Unpin>,
    pass: &Pass,
    config: &SessionConfig,
) -> anyhow::Result<Known> {
    let frame = next(frames).await?;
    if frame.kind != Kind::Control {
        bail!("the first message must be a registration");
    }
    let mut registration = match encoding::decode(&frame.body)? {
        ToServer::Register(registration) => registration,
        ToServer::Operate(Operate { software }) => {
            let credentials = config.access.credentials.borrow().clone();
            let rights = rights(pass, &credentials, config)?;
            let software = one_line(&software);
            return Ok(Known::Person(Visitor { software, pass: pass.clone(), rights }));
        }
        _ => bail!("the first message must be a registration"),
    };
    if registration.slots == 0 || registration.slots > limits::SLOTS {
        bail!("a builder has 1 to {} slots, not {}", limits::SLOTS, registration.slots);
    }
    if registration.targets.is_empty() || registration.targets.len() > limits::TARGETS {
        bail!("a builder serves 1 to {} targets, not {}", limits::TARGETS, registration.targets.len());
    }
    if registration.tags.len() > limits::TAGS {
        bail!("a builder has at most {} tags, not {}", limits::TAGS, registration.tags.len());
    }
    let credential = match pass {
        Pass::Common => None,
        Pass::Credential(name, _) => Some(name.clone()),
    };
    let credentials = config.access.credentials.borrow().clone();
    if let Some(credential) = pass.check(&credentials)? {
        check_permission(credential, &registration.targets)?;
    }
    registration.arch = one_line(&registration.arch);
    registration.software = one_line(&registration.software);
    let builder = BuilderId { credential, name: registration.name.clone() };
    Ok(Known::Builder(Guest { builder, registration, pass: pass.clone() }))
}

/// What a person may do. Where anybody may come in, anybody may do everything.
///
/// # Errors
/// That it is nothing, and what to do.
pub(super) fn rights(pass: &Pass, known: &Credentials, config: &SessionConfig) -> anyhow::Result<Rights> {
    let Some(Credential { name, role, targets, .. }) = pass.check(known)? else {
        if config.access.has_password {
            bail!(
                "the password lets builders in, and nobody else: ask the server's operator for a token \
                 (moji-server credential add NAME --role submitter)"
            );
        }
        // Who came in before there was any does not stay.
        if !known.is_empty() {
            bail!("there are credentials now: ask the server's operator for one");
        }
        return Ok(Rights { name: None, role: operator::Role::Admin, targets: Vec::new() });
    };
    let role = match role {
        Role::Builder => bail!(
            "the credential {name} has the role builder: people need one with the role submitter or admin"
        ),
        Role::Submitter => operator::Role::Submitter,
        Role::Admin => operator::Role::Admin,
    };
    Ok(Rights { name: Some(name.clone()), role, targets: targets.clone() })
}

/// Whether a credential lets its owner build for these targets.
fn check_permission(credential: &Credential, targets: &[TargetName]) -> anyhow::Result<()> {
    let Credential { name, role, .. } = credential;
    if *role != Role::Builder {
        bail!("the credential {name} has the role {role}: a builder needs one with the role builder");
    }
    match targets.iter().find(|target| !credential.is_for(target)) {
        None => Ok(()),
        Some(other) => {
            let allowed: Vec<_> = credential.targets.iter().map(TargetName::as_str).collect();
            bail!("the credential {name} is not for {other}, but for {}", allowed.join(", "))
        }
    }
}

async fn next(frames: &mut FrameReader<impl AsyncRead + Unpin>) -> anyhow::Result<Frame> {
    frames.next().await?.context("it closed the connection before it had introduced itself")
}
