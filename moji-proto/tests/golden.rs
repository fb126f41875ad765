//! The bytes of protocol version 5. When this test fails, the wire has changed, and peers of other
//! versions misunderstand each other: see `src/version.rs` for what belongs to such a change.
//!
//! `golden.txt` holds one line for each message and frame. The proofs in it were also computed with
//! other programs (an Argon2id, an HMAC and an Ed25519 that are not those of this crate).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use moji_proto::frame::{self, Frame, Kind};
use moji_proto::handshake::{self, Claim, Client, ClientStep, Key, Refusal, RefusalCode, ServerSecret};
use moji_proto::operator::{Act, FromOperator, Place, Role, ToOperator};
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{
    CredentialName, FailureKind, LogFile, Outcome, Phase, RepositoryUrl, StreamMessage, ToBuilder, ToServer,
    encoding,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod samples;
use samples::{hex, variants};

const GOLDEN: &str = include_str!("golden.txt");

#[test]
fn no_byte_of_the_wire_has_changed() {
    let now: String = [
        lines("ToServer", samples::to_server()),
        lines("ToBuilder", samples::to_builder()),
        lines("FromOperator", samples::from_operator()),
        lines("ToOperator", samples::to_operator()),
        lines("StreamMessage", samples::streams()),
        lines("Phase", named(&samples::PHASES)),
        lines("LogFile", named(&LogFile::ALL)),
        frames(),
    ]
    .concat();
    for (golden, now) in GOLDEN.lines().zip(now.lines()) {
        assert_eq!(golden, now, "golden.txt against this program");
    }
    assert_eq!(GOLDEN, now, "a line more or less");
}

#[test]
fn every_variant_has_golden_bytes() {
    covers::<ToServer>(&samples::to_server());
    covers::<ToBuilder>(&samples::to_builder());
    covers::<FromOperator>(&samples::from_operator());
    covers::<ToOperator>(&samples::to_operator());
    let acts: Vec<_> = samples::from_operator()
        .into_iter()
        .filter_map(|(name, message)| match message {
            FromOperator::Act { act, .. } => Some((name, act)),
            _ => None,
        })
        .collect();
    let places = acts.iter().filter_map(|(name, act)| match act {
        Act::Prioritize { place, .. } => Some((*name, *place)),
        _ => None,
    });
    covers::<Place>(&places.collect::<Vec<_>>());
    covers::<Act>(&acts);
    let roles = samples::to_operator().into_iter().filter_map(|(name, message)| match message {
        ToOperator::Welcome { role, .. } => Some((name, role)),
        _ => None,
    });
    covers::<Role>(&roles.collect::<Vec<_>>());
    covers::<StreamMessage>(&samples::streams());
    covers::<RepositoryUrl>(&samples::repositories());
    covers::<Phase>(&named(&samples::PHASES));
    covers::<LogFile>(&named(&LogFile::ALL));
    let outcomes: Vec<_> = samples::to_server()
        .into_iter()
        .filter_map(|(name, message)| match message {
            ToServer::Deliver { outcome, .. } => Some((name, outcome)),
            _ => None,
        })
        .collect();
    covers::<Outcome>(&outcomes);
    let kinds: Vec<_> = outcomes
        .into_iter()
        .filter_map(|(name, outcome)| match outcome {
            Outcome::Failed { kind, .. } => Some((name, kind)),
            Outcome::Succeeded => None,
        })
        .collect();
    covers::<FailureKind>(&kinds);
}

/// Whether each of the enum's variants is among the samples. A message begins with its variant's
/// number, and none has so many that this takes more than a byte.
fn covers<E: Serialize + DeserializeOwned>(samples: &[(&'static str, E)]) {
    let seen: BTreeSet<usize> =
        samples.iter().map(|(_, sample)| usize::from(encoding::encode(sample).unwrap()[0])).collect();
    for (number, (name, _)) in variants::<E>().into_iter().enumerate() {
        assert!(seen.contains(&number), "{name} has no golden bytes: add an example to samples/mod.rs");
    }
}

fn named<E: Copy + DeserializeOwned>(values: &[E]) -> Vec<(&'static str, E)> {
    variants::<E>().iter().map(|(name, _)| *name).zip(values.iter().copied()).collect()
}

fn lines<M>(kind: &str, samples: Vec<(&'static str, M)>) -> String
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let line = |(name, message): (&str, M)| {
        let bytes = encoding::encode(&message).unwrap();
        assert_eq!(encoding::decode::<M>(&bytes).unwrap(), message);
        format!("{kind} {name} = {}\n", hex(&bytes))
    };
    samples.into_iter().map(line).collect()
}

fn frames() -> String {
    let count = |first: u8| std::array::from_fn(|i| first + i as u8);
    let (client_nonce, server_nonce) = (count(0), count(0x20));
    let salt: handshake::Salt = std::array::from_fn(|i| 0x40 + i as u8);
    let mut lines = String::new();
    let mut note = |name: &str, bytes: &Bytes| {
        lines += &format!("frame {name} = {}\n", hex(bytes));
        frame::decode(&mut BytesMut::from(&bytes[..]), false).unwrap().unwrap()
    };

    let identity = Arc::new(SigningKey::new(&Seed::new(count(0x80))));
    let secret = |password| ServerSecret::new(Arc::clone(&identity), password, salt).unwrap();
    let nobody = BTreeMap::new();
    let (_, hello) = Client::start(&client_nonce, handshake::PLAINTEXT, Claim::Nobody);
    let hello = note("ClientHello", &hello);
    let answer = secret(None).answer(hello.clone(), &server_nonce, &handshake::PLAINTEXT, &nobody).unwrap();
    note("ServerHello without a password", &answer.hello);

    for (name, binding) in [("plain", handshake::PLAINTEXT), ("bound", count(0x60))] {
        let answer =
            secret(Some("pass wörd")).answer(hello.clone(), &server_nonce, &binding, &nobody).unwrap();
        let server_hello = note(&format!("ServerHello, {name}"), &answer.hello);
        let (client, _) = Client::start(&client_nonce, binding, Claim::Password);
        let ClientStep::NeedKey(need) = client.server_hello(server_hello, None).unwrap() else { panic!() };
        let (wait, proof) = need.prove(Key::stretch("pass wörd", &salt).unwrap());
        let proof = answer.check(note(&format!("Proof of the client, {name}"), &proof)).unwrap();
        let agreed = wait.finish(note(&format!("Proof of the server, {name}"), &proof)).unwrap();
        assert_eq!(agreed.version, moji_proto::version::NEWEST);
    }

    let board = CredentialName::new("board-7").unwrap();
    let credential = SigningKey::new(&Seed::new(count(0xa0)));
    let known = [(board.clone(), credential.public())].into();
    let (client, hello) = Client::start(&client_nonce, count(0x60), Claim::Credential(board));
    let hello = note("ClientHello, credential", &hello);
    let answer = secret(Some("pass wörd")).answer(hello, &server_nonce, &count(0x60), &known).unwrap();
    let hello = note("ServerHello, credential", &answer.hello);
    let expected = Some(identity.public().fingerprint());
    let ClientStep::NeedSignature(need) = client.server_hello(hello, expected).unwrap() else { panic!() };
    let (wait, proof) = need.sign(&credential);
    let proof = answer.check(note("Proof of the client, credential", &proof)).unwrap();
    wait.finish(note("Proof of the server, credential", &proof)).unwrap();

    for code in RefusalCode::ALL {
        let refusal = Refusal::new(code, "no, because…");
        let frame = note(&format!("Refusal {code:?}"), &refusal.encode());
        assert_eq!(Refusal::decode(frame.body), refusal);
    }

    let control = encoding::encode(&ToServer::Ask { slot: 4 }).unwrap();
    note("Control", &frame::encode(Kind::Control, &control));
    let data = [&frame::data_header(0x0102_0304, 3)[..], b"abc"].concat();
    let Frame { kind, body } = note("Data", &data.into());
    assert_eq!(kind, Kind::Data);
    assert_eq!(frame::split_data(body).unwrap(), (0x0102_0304, Bytes::from_static(b"abc")));
    lines
}
