//! Both sides of the handshake, with a peer that does not know the secret.
//!
//! The first byte says who is attacked: the server, the client, or both by somebody between them who
//! changes one byte. The rest is what is sent, in frames.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use moji_proto::frame::{self, Frame};
use moji_proto::handshake::{
    AwaitProof, Claim, Client, ClientStep, HandshakeError, Key, Nonce, PLAINTEXT, Refusal, Salt,
};
use moji_proto::handshake::{ServerAnswer, ServerSecret};
use moji_proto::outcome::REASON_MAX;
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::version::{NEWEST, OLDEST};
use moji_proto::{CredentialName, PublicKey};

use super::assert_shown;

const NONCES: [Nonce; 2] = [[1; 32], [2; 32]];
const SALT: Salt = [3; 16];
/// Stretching it once is slow enough.
static KEY: LazyLock<Key> = LazyLock::new(|| Key::stretch("s3cret", &SALT).unwrap());
static CLOSED: LazyLock<ServerSecret> = LazyLock::new(|| secret(Some("s3cret")));
static OPEN: LazyLock<ServerSecret> = LazyLock::new(|| secret(None));

fn secret(password: Option<&str>) -> ServerSecret {
    let identity = Arc::new(SigningKey::new(&Seed::new([4; 32])));
    ServerSecret::new(identity, password, SALT).unwrap()
}

/// The key of the one credential.
fn board() -> SigningKey {
    SigningKey::new(&Seed::new([5; 32]))
}

fn credentials() -> BTreeMap<CredentialName, PublicKey> {
    [(CredentialName::new("board-7").unwrap(), board().public())].into()
}

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let claim = match how & 9 {
        0 => Claim::Nobody,
        1 => Claim::Password,
        _ => Claim::Credential(CredentialName::new("board-7").unwrap()),
    };
    match how >> 1 & 3 {
        0 => server(claim != Claim::Nobody, frames(bytes)),
        1 => client(claim, frames(bytes)),
        _ if claim == Claim::Nobody => between(Claim::Password, bytes),
        _ => between(claim, bytes),
    }
}

fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame> {
    let mut buffer = BytesMut::from(bytes);
    std::iter::from_fn(move || frame::decode(&mut buffer, true).ok().flatten())
}

/// The one frame that a side has sent.
fn sent(bytes: Bytes) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    let frame = frame::decode(&mut buffer, true).unwrap().unwrap();
    assert!(buffer.is_empty());
    frame
}

fn answer(is_closed: bool, frame: Frame) -> Result<ServerAnswer, HandshakeError> {
    match is_closed {
        true => CLOSED.answer(frame, &NONCES[1], &PLAINTEXT, &credentials()),
        false => OPEN.answer(frame, &NONCES[1], &PLAINTEXT, &BTreeMap::new()),
    }
}

fn server(is_closed: bool, mut frames: impl Iterator<Item = Frame>) {
    let Some(hello) = frames.next() else { return };
    match answer(is_closed, hello) {
        Ok(answer) => {
            assert!((OLDEST..=NEWEST).contains(&answer.version));
            assert_eq!(answer.wants_proof(), is_closed || answer.credential().is_some());
            sent(answer.hello.clone());
            frames.for_each(|frame| refused(answer.check(frame)));
        }
        error => refused(error),
    }
}

/// Gives the client's proof, if it got so far.
fn prove(step: ClientStep) -> Option<(AwaitProof, Bytes)> {
    match step {
        ClientStep::Done(_) => None,
        ClientStep::NeedKey(need) => Some(need.prove(KEY.clone())),
        ClientStep::NeedSignature(need) => Some(need.sign(&board())),
    }
}

fn client(claim: Claim, mut frames: impl Iterator<Item = Frame>) {
    let has_secret = claim != Claim::Nobody;
    let (client, hello) = Client::start(&NONCES[0], PLAINTEXT, claim);
    sent(hello);
    let Some(hello) = frames.next() else { return };
    // A server that may have any key: one with another than it should is never answered.
    match client.server_hello(hello, None) {
        Ok(ClientStep::Done(agreed)) => {
            assert!(!has_secret && (OLDEST..=NEWEST).contains(&agreed.version));
        }
        Ok(step) => {
            assert!(has_secret);
            let (wait, proof) = prove(step).unwrap();
            sent(proof);
            if let Some(frame) = frames.next() {
                refused(wait.finish(frame));
            }
        }
        error => refused(error),
    }
}

/// Two honest sides agree, unless somebody changes a byte: then neither is content.
fn between(claim: Claim, bytes: &[u8]) {
    let Some([which, at, change, ..]) = bytes.first_chunk::<3>() else { return };
    let mut number = 0;
    let mut carry = |bytes| {
        let Frame { kind, body } = sent(bytes);
        let mut body = body.to_vec();
        let length = body.len().max(1);
        if number == which % 4
            && let Some(byte) = body.get_mut(usize::from(*at) % length)
        {
            *byte ^= change;
        }
        number += 1;
        Frame { kind, body: body.into() }
    };
    let mut play = || {
        let (client, hello) = Client::start(&NONCES[0], PLAINTEXT, claim.clone());
        let answer = answer(true, carry(hello))?;
        let step = client.server_hello(carry(answer.hello.clone()), None)?;
        let Some((wait, proof)) = prove(step) else { panic!("the client goes on without a proof") };
        let proof = answer.check(carry(proof))?;
        wait.finish(carry(proof))
    };
    match play() {
        Ok(agreed) => assert!(*change == 0 && agreed.version == NEWEST, "frame {which}, byte {at}"),
        error => {
            assert!(*change != 0);
            refused(error);
        }
    }
}

/// Whoever does not know the secret gets nothing but a sentence.
fn refused<T>(result: Result<T, HandshakeError>) {
    let Err(error) = result else { panic!("it let somebody in") };
    assert_shown(&error.to_string(), REASON_MAX + 100);
    if let HandshakeError::Refuse(refusal) | HandshakeError::Refused(refusal) = error {
        assert_shown(&refusal.reason, REASON_MAX);
        assert_eq!(Refusal::decode(sent(refusal.encode()).body), refusal);
    }
}
