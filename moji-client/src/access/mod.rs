//! How a builder, or a person's program, gets in, and how it knows that the server is the right one.
//!
//! A server is known by its key. Which key it must have says, in this order: `--server-key`, the token,
//! what was remembered at the first contact. A client never falls back to a connection without TLS.

mod greet;
mod known;
mod secret;
mod tls;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use moji_proto::frame::Frame;
use moji_proto::handshake::{
    Agreed, AwaitProof, Binding, Claim, Client, ClientStep, HandshakeError, Key, PLAINTEXT, Refusal,
    RefusalCode, Salt,
};
use moji_proto::io::ReadAhead;
use moji_proto::signing::SigningKey;
use moji_proto::{Fingerprint, PublicKey};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use webpki::EndEntityCert;

pub(crate) use greet::next;
pub use known::KnownServers;
pub use secret::Secret;

/// A connection, encrypted or not.
pub(crate) type Opened<Io> = Either<Io, TlsStream<ReadAhead<Io>>>;

/// The server will not let this program in, or is not the right one, and trying again does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unwelcome(pub(crate) String);

/// How to get in.
#[derive(Debug, Clone)]
pub struct Access {
    secret: Secret,
    plaintext: bool,
    /// The key that the server must have, whatever is known of it.
    server_key: Option<Fingerprint>,
    /// Where keys are remembered; none: nowhere.
    known: Option<KnownServers>,
    /// The stretched password, which is slow to make.
    stretched: Option<(Salt, Key)>,
    /// What to call this side, and where its secret comes from.
    words: Words,
}

/// How one of the programs speaks of itself to the people who run it.
#[derive(Debug, Clone, Copy)]
struct Words {
    this: &'static str,
    program: &'static str,
    secret: &'static str,
    other_key: &'static str,
}

const BUILDER: Words = Words {
    this: "this builder",
    program: "the builder",
    secret: "--password-file",
    other_key: "start once with: moji-client --server-key",
};
const PERSON: Words = Words {
    this: "this machine",
    program: "moji",
    secret: "moji login",
    other_key: "say it: moji login --server-key",
};
/// What the TLS library says of a peer that was killed or cut off; a link to its manual follows.
const CLOSED: &str = "peer closed connection without sending TLS close_notify";

/// What is known of a server's key before the handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    key: Option<Fingerprint>,
    is_remembered: bool,
}

impl Access {
    /// With TLS, to a server that must have `server_key`, or else the key that was remembered of it.
    pub fn encrypted(secret: Secret, server_key: Option<Fingerprint>, known: KnownServers) -> Self {
        Self { secret, plaintext: false, server_key, known: Some(known), stretched: None, words: BUILDER }
    }

    /// Without TLS, and without knowing any server: for links that are safe already. A
    /// token, or `server_key`, still says which key it must have.
    pub fn plaintext(secret: Secret, server_key: Option<Fingerprint>) -> Self {
        Self { secret, plaintext: true, server_key, known: None, stretched: None, words: BUILDER }
    }

    /// For a person's program, which remembers nothing: its token, or `server_key`, says which key the server must
    /// have, and to a server that wants neither nothing secret is sent.
    pub fn of_person(secret: Secret, server_key: Option<Fingerprint>, plaintext: bool) -> Self {
        Self { secret, plaintext, server_key, known: None, stretched: None, words: PERSON }
    }

    /// The key that `server` must have.
    ///
    /// # Errors
    /// When what is remembered cannot be read.
    pub(crate) async fn expected(&self, server: &str) -> anyhow::Result<Expected> {
        if let Some(key) = self.server_key.or(self.secret.server()) {
            return Ok(Expected { key: Some(key), is_remembered: false });
        }
        let Some(known) = self.known.clone() else {
            return Ok(Expected { key: None, is_remembered: false });
        };
        let server = server.to_owned();
        let key = spawn_blocking(move || known.key_of(&server)).await??;
        Ok(Expected { key, is_remembered: key.is_some() })
    }

    /// The TLS handshake, if there is to be one; what ties proofs to this connection, and the key that the
    /// server has shown. Nothing is sent to a server with another key than the expected one.
    ///
    /// # Errors
    /// [`Unwelcome`] when it has another key; when it speaks no TLS 1.3.
    pub(crate) async fn open<Io>(
        &self,
        io: Io,
        server: &str,
        expected: Expected,
    ) -> anyhow::Result<(Opened<Io>, Binding, Option<Fingerprint>)>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        if self.plaintext {
            return Ok((Either::Left(io), PLAINTEXT, expected.key));
        }
        let (stream, binding, found) = tls::connect(io).await?;
        match expected.key {
            Some(key) if key != found => Err(self.other_key(server, expected, key, found).into()),
            _ => Ok((Either::Right(stream), binding, Some(found))),
        }
    }

    /// Begins the handshake.
    pub(crate) fn begin(&self, binding: Binding) -> anyhow::Result<(Client, Bytes)> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| anyhow!("no random numbers: {error}"))?;
        let claim = match &self.secret {
            Secret::None => Claim::Nobody,
            Secret::Password(_) => Claim::Password,
            Secret::Token(token) => Claim::Credential(token.name.clone()),
        };
        Ok(Client::start(&nonce, binding, claim))
    }

    /// Answers the server's hello: what is agreed, or the proof to send.
    pub(crate) async fn prove(
        &mut self,
        client: Client,
        hello: Frame,
        expected: Option<Fingerprint>,
    ) -> anyhow::Result<Result<Agreed, (AwaitProof, Bytes)>> {
        match client.server_hello(hello, expected)? {
            ClientStep::Done(agreed) => Ok(Ok(agreed)),
            ClientStep::NeedKey(need) => {
                let key = self.key(need.salt).await?;
                Ok(Err(need.prove(key)))
            }
            ClientStep::NeedSignature(need) => match &self.secret {
                Secret::Token(token) => Ok(Err(need.sign(&SigningKey::new(&token.seed)))),
                Secret::None | Secret::Password(_) => bail!("there is no token"),
            },
        }
    }

    async fn key(&mut self, salt: Salt) -> anyhow::Result<Key> {
        if let Some((known, key)) = &self.stretched
            && *known == salt
        {
            return Ok(key.clone());
        }
        let Secret::Password(password) = self.secret.clone() else { bail!("there is no password") };
        let key = spawn_blocking(move || Key::stretch(&password, &salt)).await??;
        self.stretched = Some((salt, key.clone()));
        Ok(key)
    }

    /// Remembers the server that has let this builder in. When that cannot be written, it is said, and the
    /// next contact is like the first.
    pub(crate) async fn remember(&self, server: &str, expected: Expected, agreed: Agreed) {
        let Some(known) = self.known.clone().filter(|_| !expected.is_remembered) else {
            return;
        };
        let (server, key) = (server.to_owned(), agreed.server.fingerprint());
        let is_new = expected.key.is_none();
        let remembered = spawn_blocking(move || {
            known.remember(&server, key).map(|()| {
                if is_new {
                    tracing::info!("first contact with {server}: remembering its key {key}");
                }
            })
        });
        if let Err(error) = remembered.await.unwrap_or_else(|error| Err(error.into())) {
            tracing::warn!("the server's key is not remembered: {error:#}");
        }
    }

    /// Tells what will be repeated from bad luck. `key` is the one that the server has shown, if any.
    pub(crate) fn judge(
        &self,
        server: &str,
        expected: Expected,
        key: Option<Fingerprint>,
        error: anyhow::Error,
    ) -> anyhow::Error {
        let Some(handshake) = error.downcast_ref::<HandshakeError>() else { return error };
        let between = self.between(server, expected, key);
        let Words { this, secret, .. } = self.words;
        let reason = match handshake {
            HandshakeError::Refused(refusal) => match (refusal.code, &self.secret) {
                (Some(RefusalCode::WrongProof), Secret::Password(_)) => {
                    format!("the server refuses the password: {refusal} (see {secret}){between}")
                }
                (Some(RefusalCode::WrongProof), Secret::None) => {
                    format!("the server refuses {this}: {refusal}; give one (see {secret})")
                }
                (Some(RefusalCode::WrongProof), Secret::Token(_)) => {
                    format!("the server refuses the token: {refusal}{between}")
                }
                (Some(RefusalCode::Version | RefusalCode::Revoked | RefusalCode::Protocol), _) => {
                    self.refused(refusal)
                }
                _ => return anyhow!(self.refused(refusal)),
            },
            // Two keys on one connection: it ends at the first, and what is said comes from the second.
            HandshakeError::OtherServer { expected: key, found } if expected.key != Some(*key) => format!(
                "this connection to {server} has the key {key}, but who answers on it has {found}: somebody \
                 stands between the server and {this}; nothing was sent. If {found} is the server's key \
                 (moji-server credential list), --server-key {found} keeps others out"
            ),
            HandshakeError::OtherServer { expected: key, found } => {
                return self.other_key(server, expected, *key, *found).into();
            }
            HandshakeError::PasswordWanted if secret != BUILDER.secret => {
                format!("the server lets nobody in without a token: {secret} takes one")
            }
            HandshakeError::NoPasswordWanted
            | HandshakeError::Impostor
            | HandshakeError::PasswordWanted
            | HandshakeError::Password => handshake.to_string(),
            HandshakeError::Refuse(_) => return error,
        };
        Unwelcome(reason).into()
    }

    /// What the server has against this side; its advice is for builders.
    fn refused(&self, refusal: &Refusal) -> String {
        let Words { this, program, .. } = self.words;
        format!("the server refuses {this}: {refusal}")
            .replace("start the builder", &format!("start {program}"))
    }

    /// What else may be the reason that a right secret is refused: its proof is worthless on any other
    /// connection, so whoever passes it on is refused in the place of its owner.
    fn between(&self, server: &str, expected: Expected, key: Option<Fingerprint>) -> String {
        let somebody =
            format!("; if it is the right one, somebody may stand between {server} and {}", self.words.this);
        match (self.plaintext, expected.key, key) {
            (true, ..) => format!("{somebody}, on a connection without TLS"),
            (false, None, Some(key)) => {
                format!(
                    "{somebody}: its operator knows whether {key} is its key (moji-server credential list)"
                )
            }
            // It has shown the key that it should have.
            (false, ..) => String::new(),
        }
    }

    fn other_key(&self, server: &str, expected: Expected, key: Fingerprint, found: Fingerprint) -> Unwelcome {
        let known = if expected.is_remembered { "it had at the first contact" } else { "it should have" };
        let Words { this, other_key, .. } = self.words;
        Unwelcome(format!(
            "{server} has the key {found}, and not the one that {known}, {key}. Either the server was set up \
             anew, or somebody stands between it and {this}; nothing was sent. Its operator can compare \
             (moji-server credential list). If the key is right, {other_key} {found} … (with a token of the old \
             server: ask for a new one)"
        ))
    }
}

/// Why a connection ended, for people.
pub(crate) fn said(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let Some((before, after)) = text.split_once(CLOSED) else { return text };
    let after = match after.strip_prefix(": http") {
        Some(link) => link.find(char::is_whitespace).and_then(|end| link.get(end..)).unwrap_or_default(),
        None => after,
    };
    format!("{before}the server closed the connection{after}")
}

/// When TLS fails, for people.
fn no_tls(error: std::io::Error) -> anyhow::Error {
    anyhow::Error::from(error)
        .context("no TLS connection (does the server run with --plaintext, or is it no moji-server?)")
}

/// The server's key in a certificate.
fn key_of(certificate: &[u8]) -> anyhow::Result<Fingerprint> {
    let certificate = CertificateDer::from(certificate);
    let parsed = EndEntityCert::try_from(&certificate).context("the server's certificate is damaged")?;
    PublicKey::from_spki(&parsed.subject_public_key_info())
        .map(|key| key.fingerprint())
        .context("the server's key is not an Ed25519 key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_went_away_is_not_explained_with_a_link() {
        let link = "https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        let error = anyhow!("{CLOSED}: {link}").context("no session with a:1");
        assert_eq!(said(&error), "no session with a:1: the server closed the connection");
        assert_eq!(said(&anyhow!("{CLOSED}: {link} (2)")), "the server closed the connection (2)");
        assert_eq!(said(&anyhow!("other").context("why")), "why: other");
    }

    #[test]
    fn advice_names_the_program_that_gets_it() {
        let reason = "this server expects TLS: start the builder without --plaintext".into();
        let error = || HandshakeError::Refused(Refusal { code: Some(RefusalCode::Protocol), reason });
        let access = Access::of_person(Secret::None, None, true);
        let expected = Expected { key: None, is_remembered: false };
        let text = access.judge("a:1", expected, None, error().into()).to_string();
        assert!(text.starts_with("the server refuses this machine: "), "{text}");
        assert!(text.ends_with("start moji without --plaintext"), "{text}");
    }
}
