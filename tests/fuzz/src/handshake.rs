//! Both sides of the handshake, with a peer that does not know the secret.
//!
//! The first byte says who is attacked: the server, the client, or both by somebody between them who
//! changes one byte. The rest is what is sent, in frames.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use moji_proto::frame::{self, Frame};
use moji_proto::handshake::{Client, ClientStep, HandshakeError, Key, Nonce, PLAINTEXT, Refusal, Salt};
use moji_proto::handshake::{ServerAnswer, ServerSecret};
use moji_proto::outcome::REASON_MAX;
use moji_proto::version::{NEWEST, OLDEST};

use super::assert_shown;

const NONCES: [Nonce; 2] = [[1; 32], [2; 32]];
const SALT: Salt = [3; 16];
/// Stretching it once is slow enough.
static SECRET: LazyLock<Key> = LazyLock::new(|| Key::stretch("s3cret", &SALT).unwrap());

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let has_password = how & 1 == 1;
    match how >> 1 & 3 {
        0 => server(has_password, frames(bytes)),
        1 => client(has_password, frames(bytes)),
        _ => between(bytes),
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

fn secret(has_password: bool) -> ServerSecret {
    ServerSecret { key: has_password.then(|| (SECRET.clone(), SALT)) }
}

fn answer(secret: &ServerSecret, frame: Frame) -> Result<ServerAnswer, HandshakeError> {
    secret.answer(frame, &NONCES[1], &PLAINTEXT)
}

fn server(has_password: bool, mut frames: impl Iterator<Item = Frame>) {
    let Some(hello) = frames.next() else { return };
    match answer(&secret(has_password), hello) {
        Ok(answer) => {
            assert!((OLDEST..=NEWEST).contains(&answer.version));
            assert_eq!(answer.wants_proof(), has_password);
            sent(answer.hello.clone());
            frames.for_each(|frame| refused(answer.check(frame)));
        }
        error => refused(error),
    }
}

fn client(has_password: bool, mut frames: impl Iterator<Item = Frame>) {
    let (client, hello) = Client::start(&NONCES[0], PLAINTEXT);
    sent(hello);
    let Some(hello) = frames.next() else { return };
    match client.server_hello(hello, has_password) {
        Ok(ClientStep::Done { version }) => assert!(!has_password && (OLDEST..=NEWEST).contains(&version)),
        Ok(ClientStep::NeedKey(need)) => {
            assert!(has_password);
            let (wait, proof) = need.prove(SECRET.clone());
            sent(proof);
            if let Some(frame) = frames.next() {
                refused(wait.finish(frame));
            }
        }
        error => refused(error),
    }
}

/// Two honest sides agree, unless somebody changes a byte: then neither is content.
fn between(bytes: &[u8]) {
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
        let (client, hello) = Client::start(&NONCES[0], PLAINTEXT);
        let answer = answer(&secret(true), carry(hello))?;
        let ClientStep::NeedKey(need) = client.server_hello(carry(answer.hello.clone()), true)? else {
            panic!("the client goes on without a proof");
        };
        let (wait, proof) = need.prove(SECRET.clone());
        let proof = answer.check(carry(proof))?;
        wait.finish(carry(proof))
    };
    match play() {
        Ok(version) => assert!(*change == 0 && version == NEWEST, "frame {which}, byte {at}"),
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
