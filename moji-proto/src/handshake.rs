//! The first four frames of a connection: which version, and whether both sides know the password.
//!
//! Pure state: random bytes come in as arguments, frames go in and out. The layouts of the two
//! hellos and of the refusal are fixed for ever, so that programs of any age can tell each other
//! why they cannot talk.
//!
//! The password itself never travels. Both sides stretch it (Argon2id, RFC 9106) with the
//! server's salt and prove with HMAC-SHA256 (RFC 2104) over everything said so far that they know
//! it: the client first, so that somebody who only connects learns nothing. `binding` is where a
//! TLS connection's exporter goes in; on a plain connection it is all zeros.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hmac::{KeyInit as _, Mac as _};
use subtle::ConstantTimeEq as _;

use crate::frame::{self, Frame, Kind};
use crate::version;
use crate::{Hasher, outcome};

const MAGIC: [u8; 4] = *b"moji";

/// Random bytes that make a connection's proofs worthless on any other.
pub type Nonce = [u8; 32];
/// What stretches a password differently on each server run.
pub type Salt = [u8; 16];
/// What ties the proofs to one encrypted connection; zeros on a plain one.
pub type Binding = [u8; 32];
/// The binding of a connection that is not encrypted.
pub const PLAINTEXT: Binding = [0; 32];

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
        mac.update(side.label());
        mac.update(&transcript.0.0);
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
    /// The proof does not fit.
    WrongPassword = 2,
    /// The peer broke the protocol.
    Protocol = 3,
    /// Too many connections, or the server is about to end: try again later.
    Busy = 4,
    /// What the builder says of itself cannot be accepted.
    Registration = 5,
}

impl RefusalCode {
    fn from_number(number: u16) -> Option<Self> {
        [Self::Version, Self::WrongPassword, Self::Protocol, Self::Busy, Self::Registration]
            .into_iter()
            .find(|code| *code as u16 == number)
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
         server it should be; nothing was sent to it"
    )]
    NoPasswordWanted,
    /// The server's own proof does not fit.
    #[error("the server accepted the password without knowing it itself: this is not your server")]
    Impostor,
    /// The server wants a password and we have none.
    #[error("the server asks for a password: give one (see --password-file)")]
    PasswordWanted,
    /// The password cannot be used.
    #[error("the password is too long")]
    Password,
}

impl HandshakeError {
    fn protocol(reason: &str) -> Self {
        Self::Refuse(Refusal::new(RefusalCode::Protocol, reason))
    }
}

fn expect(frame: Frame, kind: Kind) -> Result<Bytes, HandshakeError> {
    if frame.kind == Kind::Refusal {
        return Err(HandshakeError::Refused(Refusal::decode(frame.body)));
    }
    if frame.kind != kind {
        return Err(HandshakeError::protocol(&format!("{kind:?} expected, {:?} came", frame.kind)));
    }
    Ok(frame.body)
}

/// The client's side: [`Client::start`], then [`Client::server_hello`], then [`AwaitProof::finish`]
/// when there is a password.
pub struct Client {
    hello: Bytes,
    binding: Binding,
}

/// What the client does after the server's hello.
pub enum ClientStep {
    /// No password on either side: the handshake is done.
    Done {
        /// The agreed version.
        version: u16,
    },
    /// Stretch the password with this salt (slow, and the same as last time as long as the salt
    /// is), then call [`NeedKey::prove`].
    NeedKey(NeedKey),
}

/// The client needs its key.
pub struct NeedKey {
    version: u16,
    /// The server's salt.
    pub salt: Salt,
    transcript: Transcript,
}

/// The client has proved itself and waits for the server's proof.
pub struct AwaitProof {
    version: u16,
    key: Key,
    transcript: Transcript,
}

impl Client {
    /// The first frame. `nonce` must be random.
    pub fn start(nonce: &Nonce, binding: Binding) -> (Self, Bytes) {
        let mut body = BytesMut::new();
        body.put_slice(&MAGIC);
        body.put_u16(version::OLDEST);
        body.put_u16(version::NEWEST);
        body.put_slice(nonce);
        let hello = body.freeze();
        let frame = frame::encode(Kind::ClientHello, &hello);
        (Self { hello, binding }, frame)
    }

    /// Reads the server's answer.
    ///
    /// # Errors
    /// When the server refuses, is no Moji server, or differs about whether there is a password.
    pub fn server_hello(self, frame: Frame, has_password: bool) -> Result<ClientStep, HandshakeError> {
        let body = expect(frame, Kind::ServerHello)?;
        let hello =
            ServerHello::parse(&body).ok_or_else(|| HandshakeError::protocol("not a server's hello"))?;
        if !(version::OLDEST..=version::NEWEST).contains(&hello.version) {
            return Err(HandshakeError::protocol("the server chose a version that was not offered"));
        }
        match (hello.wants_password, has_password) {
            (false, false) => Ok(ClientStep::Done { version: hello.version }),
            (false, true) => Err(HandshakeError::NoPasswordWanted),
            (true, false) => Err(HandshakeError::PasswordWanted),
            (true, true) => Ok(ClientStep::NeedKey(NeedKey {
                version: hello.version,
                salt: hello.salt,
                transcript: Transcript::new(&self.binding, &self.hello, &body),
            })),
        }
    }
}

impl NeedKey {
    /// The client's proof.
    pub fn prove(self, key: Key) -> (AwaitProof, Bytes) {
        let proof = key.prove(Side::Client, &self.transcript);
        let frame = frame::encode(Kind::Proof, &proof);
        (AwaitProof { version: self.version, key, transcript: self.transcript }, frame)
    }
}

impl AwaitProof {
    /// Checks the server's proof and gives the agreed version.
    ///
    /// # Errors
    /// When the server refuses or does not know the password itself.
    pub fn finish(self, frame: Frame) -> Result<u16, HandshakeError> {
        let proof = expect(frame, Kind::Proof)?;
        if self.key.verify(Side::Server, &self.transcript, &proof) {
            Ok(self.version)
        } else {
            Err(HandshakeError::Impostor)
        }
    }
}

struct ServerHello {
    version: u16,
    wants_password: bool,
    salt: Salt,
}

impl ServerHello {
    fn parse(mut body: &[u8]) -> Option<Self> {
        let mut magic = [0; 4];
        body.try_copy_to_slice(&mut magic).ok()?;
        let version = body.try_get_u16().ok()?;
        let wants_password = body.try_get_u8().ok()? != 0;
        let mut nonce: Nonce = [0; 32];
        body.try_copy_to_slice(&mut nonce).ok()?;
        let mut salt: Salt = [0; 16];
        body.try_copy_to_slice(&mut salt).ok()?;
        (magic == MAGIC).then_some(Self { version, wants_password, salt })
    }
}

/// What a server needs for any number of handshakes.
#[derive(Debug, Clone, Default)]
pub struct ServerSecret {
    /// The stretched password and the salt that it was stretched with; `None`: no password.
    pub key: Option<(Key, Salt)>,
}

/// The server's answer to a client's hello.
pub struct ServerAnswer {
    /// The frame to send.
    pub hello: Bytes,
    /// The agreed version.
    pub version: u16,
    proof: Option<(Key, Transcript)>,
}

impl ServerSecret {
    /// Stretches `password` for this run of a server. `salt` must be random.
    ///
    /// # Errors
    /// As [`Key::stretch`].
    pub fn new(password: Option<&str>, salt: Salt) -> Result<Self, HandshakeError> {
        let key = password.map(|password| Key::stretch(password, &salt)).transpose()?;
        Ok(Self { key: key.map(|key| (key, salt)) })
    }

    /// Answers the client's first frame. `nonce` must be random.
    ///
    /// # Errors
    /// When it is no Moji client, or one of an age with which there is no common version.
    pub fn answer(
        &self,
        frame: Frame,
        nonce: &Nonce,
        binding: &Binding,
    ) -> Result<ServerAnswer, HandshakeError> {
        let client_hello = expect(frame, Kind::ClientHello)?;
        let offered = client_versions(&client_hello)
            .ok_or_else(|| HandshakeError::protocol("not the hello of a Moji client"))?;
        let version = version::agree((version::OLDEST, version::NEWEST), offered)
            .map_err(|reason| HandshakeError::Refuse(Refusal::new(RefusalCode::Version, &reason)))?;
        let mut body = BytesMut::new();
        body.put_slice(&MAGIC);
        body.put_u16(version);
        body.put_u8(u8::from(self.key.is_some()));
        body.put_slice(nonce);
        body.put_slice(&self.key.as_ref().map_or([0; 16], |(_, salt)| *salt));
        let transcript = Transcript::new(binding, &client_hello, &body);
        let proof = self.key.as_ref().map(|(key, _)| (key.clone(), transcript));
        Ok(ServerAnswer { hello: frame::encode(Kind::ServerHello, &body), version, proof })
    }
}

impl ServerAnswer {
    /// Whether the client has to prove itself next.
    pub fn wants_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// Checks the client's proof and gives the server's own.
    ///
    /// # Errors
    /// When it does not fit. Wait a little before the client is told.
    pub fn check(&self, frame: Frame) -> Result<Bytes, HandshakeError> {
        let proof = expect(frame, Kind::Proof)?;
        match &self.proof {
            Some((key, transcript)) if key.verify(Side::Client, transcript, &proof) => {
                Ok(frame::encode(Kind::Proof, &key.prove(Side::Server, transcript)))
            }
            Some(_) => {
                Err(HandshakeError::Refuse(Refusal::new(RefusalCode::WrongPassword, "wrong password")))
            }
            None => Err(HandshakeError::protocol("a proof that nobody asked for")),
        }
    }
}

/// Oldest and newest version in a client's hello; what a newer client adds behind is not looked at.
fn client_versions(mut body: &[u8]) -> Option<(u16, u16)> {
    let mut magic = [0; 4];
    body.try_copy_to_slice(&mut magic).ok()?;
    let oldest = body.try_get_u16().ok()?;
    let newest = body.try_get_u16().ok()?;
    (magic == MAGIC && body.remaining() >= 32 && oldest <= newest).then_some((oldest, newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = [9; 16];

    fn frame_of(bytes: Bytes) -> Frame {
        frame::decode(&mut BytesMut::from(bytes), true).unwrap().unwrap()
    }

    /// Plays a whole handshake and gives what each side made of it.
    fn play(
        server: &ServerSecret,
        password: Option<&str>,
        bindings: [Binding; 2],
    ) -> Result<(u16, u16), HandshakeError> {
        let (client, hello) = Client::start(&[1; 32], bindings[0]);
        let answer = server.answer(frame_of(hello), &[2; 32], &bindings[1])?;
        match client.server_hello(frame_of(answer.hello.clone()), password.is_some())? {
            ClientStep::Done { version } => Ok((version, answer.version)),
            ClientStep::NeedKey(need) => {
                let key = Key::stretch(password.unwrap(), &need.salt)?;
                let (wait, proof) = need.prove(key);
                let proof = answer.check(frame_of(proof))?;
                Ok((wait.finish(frame_of(proof))?, answer.version))
            }
        }
    }

    fn secret(password: &str) -> ServerSecret {
        ServerSecret::new(Some(password), SALT).unwrap()
    }

    #[test]
    fn both_sides_agree_with_the_right_password_or_with_none() {
        let agreed = (version::NEWEST, version::NEWEST);
        assert_eq!(play(&secret("s3cret"), Some("s3cret"), [PLAINTEXT; 2]).unwrap(), agreed);
        assert_eq!(play(&ServerSecret::default(), None, [PLAINTEXT; 2]).unwrap(), agreed);
    }

    #[test]
    fn every_other_combination_fails_for_its_own_reason() {
        let code = |error| match error {
            HandshakeError::Refuse(refusal) => refusal.code,
            other => panic!("{other}"),
        };
        let wrong = play(&secret("s3cret"), Some("guess"), [PLAINTEXT; 2]).unwrap_err();
        assert_eq!(code(wrong), Some(RefusalCode::WrongPassword));
        let relayed = play(&secret("s3cret"), Some("s3cret"), [[1; 32], [2; 32]]).unwrap_err();
        assert_eq!(
            code(relayed),
            Some(RefusalCode::WrongPassword),
            "a relay between two encrypted connections"
        );
        let missing = play(&secret("s3cret"), None, [PLAINTEXT; 2]).unwrap_err();
        assert!(matches!(missing, HandshakeError::PasswordWanted));
        let needless = play(&ServerSecret::default(), Some("s3cret"), [PLAINTEXT; 2]).unwrap_err();
        assert!(matches!(needless, HandshakeError::NoPasswordWanted));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let (client, hello) = Client::start(&[1; 32], PLAINTEXT);
        let answer = secret("other").answer(frame_of(hello), &[2; 32], &PLAINTEXT).unwrap();
        let ClientStep::NeedKey(need) = client.server_hello(frame_of(answer.hello), true).unwrap() else {
            panic!()
        };
        let (wait, proof) = need.prove(Key::stretch("s3cret", &SALT).unwrap());
        // It can only send back what it has: the client's own proof, or anything.
        let error = wait.finish(frame_of(proof)).unwrap_err();
        assert!(matches!(error, HandshakeError::Impostor));
    }

    #[test]
    fn a_proof_is_worthless_on_another_connection() {
        let server = secret("s3cret");
        let (_, hello) = Client::start(&[1; 32], PLAINTEXT);
        let first = server.answer(frame_of(hello.clone()), &[2; 32], &PLAINTEXT).unwrap();
        let second = server.answer(frame_of(hello), &[3; 32], &PLAINTEXT).unwrap();
        let (key, transcript) = first.proof.as_ref().unwrap();
        let proof = frame::encode(Kind::Proof, &key.prove(Side::Client, transcript));
        assert!(first.check(frame_of(proof.clone())).is_ok());
        assert!(second.check(frame_of(proof)).is_err());
    }

    #[test]
    fn peers_of_another_age_are_told_which_side_to_update() {
        let mut body = BytesMut::from(&b"moji\0\x07\0\x09"[..]);
        body.put_slice(&[0; 32]);
        body.put_slice(b"something that version 7 added");
        let frame = Frame { kind: Kind::ClientHello, body: body.freeze() };
        let Err(HandshakeError::Refuse(refusal)) =
            ServerSecret::default().answer(frame, &[0; 32], &PLAINTEXT)
        else {
            panic!()
        };
        assert!(refusal.reason.contains("update the server"), "{refusal}");
        let read = Refusal::decode(frame_of(refusal.encode()).body);
        assert_eq!(read, refusal);
    }

    #[test]
    fn garbage_is_answered_not_believed() {
        for body in
            [&b""[..], b"moji", b"nope\0\x01\0\x01", b"moji\0\x02\0\x01................................"]
        {
            let frame = Frame { kind: Kind::ClientHello, body: Bytes::copy_from_slice(body) };
            assert!(secret("x").answer(frame, &[0; 32], &PLAINTEXT).is_err());
            let frame = Frame { kind: Kind::ServerHello, body: Bytes::copy_from_slice(body) };
            assert!(Client::start(&[0; 32], PLAINTEXT).0.server_hello(frame, true).is_err());
        }
        assert_eq!(Refusal::decode(Bytes::from_static(b"\x7f")).code, None);
    }
}
