//! The client's side: [`Client::start`], [`Client::server_hello`], then [`AwaitProof::finish`] when the
//! server wants to know who is there.

use super::*;

/// What a client says of itself in its first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It knows no secret.
    Nobody,
    /// It knows the password.
    Password,
    /// It has the token of this credential.
    Credential(CredentialName),
}

/// A client that waits for the server's hello.
pub struct Client {
    hello: Bytes,
    binding: Binding,
    claim: Claim,
}

/// What a client knows when the handshake is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The version of the messages.
    pub version: u16,
    /// The server's key. Over TLS it is proven; on a plain connection only with a password or a token.
    pub server: PublicKey,
}

/// What the client does after the server's hello.
pub enum ClientStep {
    /// Anybody is let in: the handshake is done.
    Done(Agreed),
    /// Stretch the password with this salt (slow, and the same as last time as long as the salt
    /// is), then call [`NeedKey::prove`].
    NeedKey(NeedKey),
    /// Sign with the credential's key: [`NeedSignature::sign`].
    NeedSignature(NeedSignature),
}

/// The client needs its stretched password.
pub struct NeedKey {
    /// The server's salt.
    pub salt: Salt,
    agreed: Agreed,
    transcript: Transcript,
}

/// The client needs its credential's key.
pub struct NeedSignature {
    agreed: Agreed,
    transcript: Transcript,
}

/// The client has proved itself and waits for the server's proof.
pub struct AwaitProof {
    agreed: Agreed,
    /// The stretched password; with a credential there is none, and the server signs.
    key: Option<Key>,
    transcript: Transcript,
}

impl Client {
    /// The first frame. `nonce` must be random.
    pub fn start(nonce: &Nonce, binding: Binding, claim: Claim) -> (Self, Bytes) {
        let credential = match &claim {
            Claim::Credential(name) => Some(name),
            Claim::Nobody | Claim::Password => None,
        };
        let hello = ClientHello::encode(nonce, credential);
        let frame = frame::encode(Kind::ClientHello, &hello);
        (Self { hello, binding, claim }, frame)
    }

    /// Reads the server's answer. `expected` is the key that the server must have: the one of the TLS
    /// connection, else the one that the token or a person names, if any.
    ///
    /// # Errors
    /// When the server refuses, is no Moji server, has another key, or differs about who may come in.
    pub fn server_hello(
        self,
        frame: Frame,
        expected: Option<Fingerprint>,
    ) -> Result<ClientStep, HandshakeError> {
        let body = expect(frame, Kind::ServerHello)?;
        let hello =
            ServerHello::parse(&body).ok_or_else(|| HandshakeError::protocol("not a server's hello"))?;
        if !(version::OLDEST..=version::NEWEST).contains(&hello.version) {
            return Err(HandshakeError::protocol("the server chose a version that was not offered"));
        }
        let found = hello.key.fingerprint();
        if let Some(expected) = expected
            && expected != found
        {
            return Err(HandshakeError::OtherServer { expected, found });
        }
        let agreed = Agreed { version: hello.version, server: hello.key };
        let transcript = Transcript::new(&self.binding, &self.hello, &body);
        match (hello.wants, self.claim) {
            (Wants::Anybody, Claim::Nobody) => Ok(ClientStep::Done(agreed)),
            (Wants::Anybody, _) => Err(HandshakeError::NoPasswordWanted),
            (Wants::Password, Claim::Password) => {
                Ok(ClientStep::NeedKey(NeedKey { salt: hello.salt, agreed, transcript }))
            }
            (Wants::Credential, Claim::Credential(_)) => {
                Ok(ClientStep::NeedSignature(NeedSignature { agreed, transcript }))
            }
            (_, Claim::Nobody) => Err(HandshakeError::PasswordWanted),
            _ => Err(HandshakeError::protocol("the server asks for another proof than was offered")),
        }
    }
}

impl NeedKey {
    /// The client's proof.
    pub fn prove(self, key: Key) -> (AwaitProof, Bytes) {
        let proof = key.prove(Side::Client, &self.transcript);
        let frame = frame::encode(Kind::Proof, &proof);
        (AwaitProof { agreed: self.agreed, key: Some(key), transcript: self.transcript }, frame)
    }
}

impl NeedSignature {
    /// The client's proof.
    pub fn sign(self, key: &SigningKey) -> (AwaitProof, Bytes) {
        let proof = key.sign(&Side::Client.message(&self.transcript));
        let frame = frame::encode(Kind::Proof, &proof);
        (AwaitProof { agreed: self.agreed, key: None, transcript: self.transcript }, frame)
    }
}

impl AwaitProof {
    /// Checks the server's proof.
    ///
    /// # Errors
    /// When the server refuses, or cannot prove itself.
    pub fn finish(self, frame: Frame) -> Result<Agreed, HandshakeError> {
        let proof = expect(frame, Kind::Proof)?;
        let is_right = match &self.key {
            Some(key) => key.verify(Side::Server, &self.transcript, &proof),
            None => self.agreed.server.verify(&Side::Server.message(&self.transcript), &proof),
        };
        if is_right { Ok(self.agreed) } else { Err(HandshakeError::Impostor) }
    }
}
