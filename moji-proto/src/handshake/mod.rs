//! The first four frames of a connection: which version, and who is there.
//!
//! Pure state: random bytes come in as arguments, frames go in and out. The layouts of the two
//! hellos up to their nonces and of the refusal are fixed for ever, so that programs of any age can
//! tell each other why they cannot talk.
//!
//! No secret ever travels. A client that knows the password stretches it (Argon2id, RFC 9106) with the
//! server's salt, and both sides prove with HMAC-SHA256 (RFC 2104) over everything said so far that they
//! know it. A client with a credential signs that (Ed25519, RFC 8032), and the server signs with its own
//! key. The client goes first, so that somebody who only connects learns nothing. `binding` ties the
//! proofs to one TLS connection: somebody between two of them can pass nothing on.

mod client;
mod server;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hmac::{KeyInit as _, Mac as _};
use subtle::ConstantTimeEq as _;

pub use client::{Agreed, AwaitProof, Claim, Client, ClientStep, NeedKey, NeedSignature};
pub use server::{ServerAnswer, ServerSecret};

use crate::frame::{self, Frame, Kind};
use crate::signing::{PublicKey, SigningKey};
use crate::version;
use crate::{CredentialName, Fingerprint, Hasher, outcome};

const MAGIC: [u8; 4] = *b"moji";

/// Random bytes that make a connection's proofs worthless on any other.
pub type Nonce = [u8; 32];
/// What stretches a password differently on each server run.
pub type Salt = [u8; 16];
/// What ties the proofs to one encrypted connection; zeros on a plain one.
pub type Binding = [u8; 32];
/// The binding of a connection that is not encrypted.
pub const PLAINTEXT: Binding = [0; 32];
/// The label with which a TLS connection exports its [`Binding`] (RFC 8446, section 7.5), without a
/// context.
pub const TLS_EXPORTER: &[u8] = b"EXPORTER-moji-binding";
/// What both sides of a TLS connection say that they speak over it (RFC 7301).
pub const TLS_PROTOCOL: &[u8] = b"moji";

/// A stretched password.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// Stretches `password`: Argon2id with 19 MiB, 2 passes, 1 lane. Takes tens of milliseconds
    /// on a PC and some hundred on a small board, so keep the key as long as the salt is the same.
    ///
    /// # Errors
    /// When the password is longer than Argon2 allows (4 GiB).
    pub fn stretch(password: &str, salt: &Salt) -> Result<Self, HandshakeError> {
        let refused = |_| HandshakeError::Password;
        let params = argon2::Params::new(19 * 1024, 2, 1, Some(32)).map_err(refused)?;
        let mut key = [0; 32];
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(password.as_bytes(), salt, &mut key)
            .map_err(refused)?;
        Ok(Self(key))
    }

    fn prove(&self, side: Side, transcript: &Transcript) -> [u8; 32] {
        let mut mac = match hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        mac.update(&side.message(transcript));
        mac.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    fn verify(&self, side: Side, transcript: &Transcript, proof: &[u8]) -> bool {
        self.prove(side, transcript)[..].ct_eq(proof).into()
    }
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"moji client proof\0",
            Self::Server => b"moji server proof\0",
        }
    }

    /// What a side signs, or makes an HMAC of.
    fn message(self, transcript: &Transcript) -> Vec<u8> {
        [self.label(), &transcript.0.0].concat()
    }
}

/// Digest of everything that both sides have said.
struct Transcript(crate::Sha256);

impl Transcript {
    fn new(binding: &Binding, client_hello: &[u8], server_hello: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        for part in [&binding[..], client_hello, server_hello] {
            hasher.update(&(part.len() as u32).to_be_bytes());
            hasher.update(part);
        }
        Self(hasher.finish())
    }
}

/// Why a side refuses a connection. The number travels; the sentence beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum RefusalCode {
    /// No common version.
    Version = 1,
    /// The proof does not fit: a wrong password or token, or none.
    WrongProof = 2,
    /// The peer broke the protocol.
    Protocol = 3,
    /// Too many connections, or the server is about to end: try again later.
    Busy = 4,
    /// What the builder says of itself cannot be accepted.
    Registration = 5,
    /// The credential was revoked, or has expired.
    Revoked = 6,
}

impl RefusalCode {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Version, Self::WrongProof, Self::Protocol, Self::Busy, Self::Registration, Self::Revoked];

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u16 == number)
    }
}

/// "No, because …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// For programs; `None` for a code that a newer peer made up.
    pub code: Option<RefusalCode>,
    /// For people: one line.
    pub reason: String,
}

impl Refusal {
    /// A refusal with a sentence for people, cut to one line.
    pub fn new(code: RefusalCode, reason: &str) -> Self {
        Self { code: Some(code), reason: outcome::one_line(reason) }
    }

    /// As a frame.
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u16(self.code.map_or(0, |code| code as u16));
        body.put_slice(self.reason.as_bytes());
        frame::encode(Kind::Refusal, &body)
    }

    /// From a frame's body; whatever it holds, it is a refusal.
    pub fn decode(mut body: Bytes) -> Self {
        let code = body.try_get_u16().ok().and_then(RefusalCode::from_number);
        Self { code, reason: outcome::one_line(&String::from_utf8_lossy(&body)) }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer said no.
    #[error("refused by the peer: {0}")]
    Refused(Refusal),
    /// We say no; the peer is to be told.
    #[error("{0}")]
    Refuse(Refusal),
    /// The server does not want a password although we have one.
    #[error(
        "the server does not ask for the password that was given: it runs without one, or it is not the \
         server it should be, or somebody stands between it and this builder; nothing was sent to it"
    )]
    NoPasswordWanted,
    /// The server's own proof does not fit.
    #[error(
        "the server accepted the proof without being able to give its own: this is not your server, or somebody \
         stands between it and this builder"
    )]
    Impostor,
    /// The server wants a password and we have none.
    #[error("the server asks for a password or a token: give one (see --password-file)")]
    PasswordWanted,
    /// The server has another key than the one that is known of it.
    #[error("the server has the key {found}, and should have {expected}")]
    OtherServer {
        /// The key that it should have.
        expected: Fingerprint,
        /// The key that it has, or says that it has.
        found: Fingerprint,
    },
    /// The password cannot be used.
    #[error("the password is too long")]
    Password,
}

impl HandshakeError {
    fn protocol(reason: &str) -> Self {
        Self::Refuse(Refusal::new(RefusalCode::Protocol, reason))
    }
}

/// The body of a frame that must be of a kind.
fn expect(frame: Frame, kind: Kind) -> Result<Bytes, HandshakeError> {
    if frame.kind == Kind::Refusal {
        return Err(HandshakeError::Refused(Refusal::decode(frame.body)));
    }
    if frame.kind != kind {
        return Err(HandshakeError::protocol(&format!("{kind:?} expected, {:?} came", frame.kind)));
    }
    Ok(frame.body)
}

struct ClientHello {
    versions: (u16, u16),
    /// What stands behind the nonce.
    rest: Bytes,
}

impl ClientHello {
    fn encode(nonce: &Nonce, credential: Option<&CredentialName>) -> Bytes {
        let name = credential.map_or("", CredentialName::as_str);
        let mut body = BytesMut::new();
        body.put_slice(&MAGIC);
        body.put_u16(version::OLDEST);
        body.put_u16(version::NEWEST);
        body.put_slice(nonce);
        body.put_u8(name.len() as u8);
        body.put_slice(name.as_bytes());
        body.freeze()
    }

    /// What programs of any age understand of it.
    fn parse(mut body: Bytes) -> Option<Self> {
        let mut magic = [0; 4];
        body.try_copy_to_slice(&mut magic).ok()?;
        let versions = (body.try_get_u16().ok()?, body.try_get_u16().ok()?);
        let mut nonce: Nonce = [0; 32];
        body.try_copy_to_slice(&mut nonce).ok()?;
        (magic == MAGIC && versions.0 <= versions.1).then_some(Self { versions, rest: body })
    }

    /// The credential that it names, since version 3; what a newer client adds behind is not looked at.
    fn credential(&self) -> Option<Option<CredentialName>> {
        let (length, rest) = self.rest.split_first()?;
        let name = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        if name.is_empty() { Some(None) } else { CredentialName::new(name).ok().map(Some) }
    }
}

/// Who a server wants to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Wants {
    Anybody = 0,
    Password = 1,
    Credential = 2,
}

struct ServerHello {
    version: u16,
    wants: Wants,
    salt: Salt,
    key: PublicKey,
}

impl ServerHello {
    fn encode(&self, nonce: &Nonce) -> Bytes {
        let mut body = BytesMut::new();
        body.put_slice(&MAGIC);
        body.put_u16(self.version);
        body.put_u8(self.wants as u8);
        body.put_slice(nonce);
        body.put_slice(&self.salt);
        body.put_slice(self.key.as_bytes());
        body.freeze()
    }

    fn parse(mut body: &[u8]) -> Option<Self> {
        let mut magic = [0; 4];
        body.try_copy_to_slice(&mut magic).ok()?;
        let version = body.try_get_u16().ok()?;
        let wants = match body.try_get_u8().ok()? {
            0 => Wants::Anybody,
            1 => Wants::Password,
            2 => Wants::Credential,
            _ => return None,
        };
        let mut nonce: Nonce = [0; 32];
        body.try_copy_to_slice(&mut nonce).ok()?;
        let mut salt: Salt = [0; 16];
        body.try_copy_to_slice(&mut salt).ok()?;
        let mut key = [0; 32];
        body.try_copy_to_slice(&mut key).ok()?;
        (magic == MAGIC).then_some(Self { version, wants, salt, key: PublicKey::new(key) })
    }
}

#[cfg(test)]
mod tests;
