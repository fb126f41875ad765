//! The server's side: [`ServerSecret::answer`], then [`ServerAnswer::check`] when it wants to know who is
//! there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

/// What a server needs for any number of handshakes.
#[derive(Debug, Clone)]
pub struct ServerSecret {
    /// The server's own key.
    pub identity: Arc<SigningKey>,
    /// The stretched password and the salt that it was stretched with; `None`: no password.
    password: Option<(Key, Salt)>,
}

/// The server's answer to a client's hello.
pub struct ServerAnswer {
    /// The frame to send.
    pub hello: Bytes,
    /// The agreed version.
    pub version: u16,
    check: Check,
    transcript: Transcript,
    identity: Arc<SigningKey>,
}

/// What a client has to prove.
enum Check {
    Nothing,
    Password(Key),
    /// With the credential's key; none: there is no such credential.
    Credential(CredentialName, Option<PublicKey>),
}

impl ServerSecret {
    /// Stretches `password` for this run of a server. `salt` must be random.
    ///
    /// # Errors
    /// As [`Key::stretch`].
    pub fn new(
        identity: Arc<SigningKey>,
        password: Option<&str>,
        salt: Salt,
    ) -> Result<Self, HandshakeError> {
        let key = password.map(|password| Key::stretch(password, &salt)).transpose()?;
        Ok(Self { identity, password: key.map(|key| (key, salt)) })
    }

    /// Whether there is a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Answers the client's first frame. `nonce` must be random. `credentials` are those that were ever
    /// given out: whoever has none of them is let in only when there are none, and no password.
    ///
    /// # Errors
    /// When it is no Moji client, one of an age with which there is no common version, or one without a
    /// credential where there is no password.
    pub fn answer(
        &self,
        frame: Frame,
        nonce: &Nonce,
        binding: &Binding,
        credentials: &BTreeMap<CredentialName, PublicKey>,
    ) -> Result<ServerAnswer, HandshakeError> {
        let body = expect(frame, Kind::ClientHello)?;
        let no_hello = || HandshakeError::protocol("not the hello of a Moji client");
        let client = ClientHello::parse(body.clone()).ok_or_else(no_hello)?;
        let version = version::agree((version::OLDEST, version::NEWEST), client.versions)
            .map_err(|reason| HandshakeError::Refuse(Refusal::new(RefusalCode::Version, &reason)))?;
        let (wants, salt, check) = match (client.credential().ok_or_else(no_hello)?, &self.password) {
            (Some(name), _) => {
                let key = credentials.get(&name).copied();
                (Wants::Credential, [0; 16], Check::Credential(name, key))
            }
            (None, Some((key, salt))) => (Wants::Password, *salt, Check::Password(key.clone())),
            (None, None) if credentials.is_empty() => (Wants::Anybody, [0; 16], Check::Nothing),
            (None, None) => {
                let reason = "this server asks for a token, and has no password";
                return Err(HandshakeError::Refuse(Refusal::new(RefusalCode::WrongProof, reason)));
            }
        };
        let hello = ServerHello { version, wants, salt, key: self.identity.public() }.encode(nonce);
        let transcript = Transcript::new(binding, &body, &hello);
        Ok(ServerAnswer {
            hello: frame::encode(Kind::ServerHello, &hello),
            version,
            check,
            transcript,
            identity: Arc::clone(&self.identity),
        })
    }
}

impl ServerAnswer {
    /// Whether the client has to prove itself next.
    pub fn wants_proof(&self) -> bool {
        !matches!(self.check, Check::Nothing)
    }

    /// The credential that the client says it has.
    pub fn credential(&self) -> Option<&CredentialName> {
        match &self.check {
            Check::Credential(name, _) => Some(name),
            Check::Nothing | Check::Password(_) => None,
        }
    }

    /// Checks the client's proof and gives the server's own.
    ///
    /// # Errors
    /// When it does not fit. Wait a little before the client is told.
    pub fn check(&self, frame: Frame) -> Result<Bytes, HandshakeError> {
        let proof = expect(frame, Kind::Proof)?;
        let wrong = |reason: &str| Err(HandshakeError::Refuse(Refusal::new(RefusalCode::WrongProof, reason)));
        match &self.check {
            Check::Nothing => Err(HandshakeError::protocol("a proof that nobody asked for")),
            Check::Password(key) if key.verify(Side::Client, &self.transcript, &proof) => {
                Ok(frame::encode(Kind::Proof, &key.prove(Side::Server, &self.transcript)))
            }
            Check::Password(_) => wrong("wrong password"),
            Check::Credential(name, known) => {
                // For a name that does not exist it takes as long, and fails as well.
                let key = known.unwrap_or(self.identity.public());
                let is_right = key.verify(&Side::Client.message(&self.transcript), &proof);
                if known.is_none() || !is_right {
                    return wrong(&format!("there is no credential {name} with that token"));
                }
                let proof = self.identity.sign(&Side::Server.message(&self.transcript));
                Ok(frame::encode(Kind::Proof, &proof))
            }
        }
    }
}
