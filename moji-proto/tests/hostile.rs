//! Messages from a peer that means harm: nothing it sends makes the decoder panic, take much memory
//! or believe what is not there.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use moji_proto::encoding::{self, EncodingError};
use moji_proto::frame::{self, Frame, Kind};
use moji_proto::handshake::{Claim, Client, PLAINTEXT, Refusal, ServerSecret};
use moji_proto::limits::CONTROL_BODY;
use moji_proto::names::NAME_MAX;
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{CredentialName, StreamMessage, ToBuilder, ToServer, outcome};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

mod samples;

/// The most memory that decoding one message may take at a time: serde believes a vector's length
/// up to 1 MiB, and an empty text of one byte is a `String` of 24, in a vector that doubles.
const MEMORY: u64 = 1024 * 1024 + 24 * 3 * CONTROL_BODY as u64;

/// What the decoder makes of `bytes`, after a look at what it took to find out.
fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, EncodingError> {
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(encoding::decode(bytes)));
    assert!(used.bytes_max <= MEMORY, "{} bytes of memory for {} bytes", used.bytes_max, bytes.len());
    result.unwrap()
}

/// Decodes as everything there is. What is taken for a message must be one: its own encoding says
/// the same.
fn decode_all(bytes: &[u8]) {
    fn check<M: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
        if let Ok(message) = decode::<M>(bytes) {
            // Numbers have longer spellings too, so the bytes may differ, but never in length upwards.
            let again = encoding::encode(&message).unwrap();
            assert!(again.len() <= bytes.len());
            assert_eq!(encoding::decode::<M>(&again).unwrap(), message);
        }
    }
    check::<ToServer>(bytes);
    check::<ToBuilder>(bytes);
    check::<StreamMessage>(bytes);
}

fn golden() -> Vec<Vec<u8>> {
    fn all<M: Serialize>(samples: Vec<(&str, M)>) -> impl Iterator<Item = Vec<u8>> {
        samples.into_iter().map(|(_, message)| encoding::encode(&message).unwrap())
    }
    all(samples::to_server()).chain(all(samples::to_builder())).chain(all(samples::streams())).collect()
}

#[test]
fn every_truncation_is_refused() {
    fn check<M: Serialize + DeserializeOwned + Debug>(samples: Vec<(&str, M)>) {
        for (name, message) in samples {
            let bytes = encoding::encode(&message).unwrap();
            for length in 0..bytes.len() {
                let cut = decode::<M>(&bytes[..length]);
                assert!(matches!(cut, Err(EncodingError::Decode(_))), "{name} cut to {length}: {cut:?}");
            }
        }
    }
    check(samples::to_server());
    check(samples::to_builder());
    check(samples::streams());
}

#[test]
fn every_trailing_byte_is_refused() {
    fn check<M: Serialize + DeserializeOwned + Debug>(samples: Vec<(&str, M)>) {
        for (name, message) in samples {
            let mut bytes = encoding::encode(&message).unwrap();
            for extra in 1..4 {
                bytes.push(0);
                match decode::<M>(&bytes) {
                    Err(EncodingError::Trailing(found)) => assert_eq!(found, extra, "{name}"),
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    }
    check(samples::to_server());
    check(samples::to_builder());
    check(samples::streams());
}

#[test]
fn every_flipped_bit_is_refused_or_another_message() {
    for bytes in golden() {
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            decode_all(&bytes);
        }
    }
}

#[test]
fn every_byte_can_be_a_length_that_lies() {
    for bytes in golden() {
        for at in 0..bytes.len() {
            for length in [0xffff, 1 << 31, 1 << 60, u64::MAX] {
                let lie = [&bytes[..at], &[253], &u64::to_le_bytes(length), &bytes[at + 1..]].concat();
                decode_all(&lie);
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let lie = |head: &[u8], length: u64, tail: usize| {
        [head, &[253], &length.to_le_bytes(), &vec![1; tail]].concat()
    };
    for length in [1 << 60, u64::MAX, 1 << 32, 1 << 20] {
        for tail in [0, 100, CONTROL_BODY - 100] {
            for (what, head) in [
                ("attempts", &[3][..]),
                ("a builder's name", &[0]),
                ("a reason", &[9]),
                ("manifest entries", &[5, 1, 1]),
                ("missing requirements", &[6, 1, 1, 1, 1, 0, 0]),
            ] {
                let result = decode::<ToServer>(&lie(head, length, tail));
                assert!(matches!(result, Err(EncodingError::Decode(_))), "{what}: {result:?}");
            }
        }
    }
}

#[test]
fn the_most_that_fits_takes_a_bounded_amount_of_memory() {
    // As many empty texts as there is room for: the most memory for a byte that this protocol has.
    let count = CONTROL_BODY - 16;
    let head = [&[6, 1, 1, 1, 1, 0, 0, 251][..], &(count as u16).to_le_bytes()].concat();
    let bytes = [&head[..], &vec![0; count], &[0, 0]].concat();
    let message = decode::<ToServer>(&bytes).unwrap();
    let ToServer::Deliver { outcome, .. } = message else { panic!("{message:?}") };
    let moji_proto::Outcome::Failed { missing, .. } = outcome.bounded() else { panic!() };
    assert_eq!(missing.len(), outcome::MISSING_MAX);
    assert!(matches!(decode::<ToServer>(&vec![0; CONTROL_BODY + 1]), Err(EncodingError::Decode(_))));
}

/// `text` as it travels.
fn text(text: &str) -> Vec<u8> {
    encoding::encode(&text).unwrap()
}

/// A registration with one target and one tag.
fn register(builder: &str, target: &str, tag: &str) -> Vec<u8> {
    let (builder, target, tag) = (text(builder), text(target), text(tag));
    [&[0][..], &builder, &[1], &target, &[2], &text("x"), &text("y"), &[3, 4, 5, 1], &tag].concat()
}

/// An assignment with an absolute URL.
fn assign_with(url: &str) -> Vec<u8> {
    [&[1, 1, 2, 3][..], &text("f43"), &text("a-1-1.src.rpm"), &[4, 5, 1, 0], &text(url)].concat()
}

#[test]
fn names_that_break_the_rules_are_refused_inside_messages() {
    let long = format!("{}.rpm", "x".repeat(NAME_MAX));
    let hostile = ["", ".", "..", "../../etc/passwd", "/etc/cron.d/x.rpm", "-rf.rpm", ".x.rpm", "a\0.rpm"];
    let hostile = hostile.into_iter().chain(["a\n.log", "\u{202e}mpr.rpm", "build.json", "x.so", &long]);
    for name in hostile {
        let manifest = [&[5, 1, 2, 1][..], &text(name), &[3], &[0; 32]].concat();
        let refused = decode::<ToServer>(&manifest);
        assert!(matches!(refused, Err(EncodingError::Decode(_))), "artifact {name:?}: {refused:?}");
        let assign = [&[1, 1, 2, 3][..], &text("fedora-43"), &text(name), &[4, 5, 0]].concat();
        let refused = decode::<ToBuilder>(&assign);
        assert!(matches!(refused, Err(EncodingError::Decode(_))), "SRPM {name:?}: {refused:?}");
    }
    for name in ["", "..", "../default", "a/b", "a b", "-x", "a\n", "ä", &"x".repeat(129)] {
        let targets = register("board", name, "big");
        let refused = decode::<ToServer>(&targets);
        assert!(matches!(refused, Err(EncodingError::Decode(_))), "target {name:?}: {refused:?}");
        let refused = decode::<ToServer>(&register(name, "f43", "big"));
        assert!(matches!(refused, Err(EncodingError::Decode(_))), "builder {name:?}: {refused:?}");
        let refused = decode::<ToServer>(&register("board", "f43", name));
        assert!(matches!(refused, Err(EncodingError::Decode(_))), "tag {name:?}: {refused:?}");
    }
    for url in ["", "http://x", "http://x/a b/", "http://x/{{a}}/", "http://a:b@x/", "http://x/\n[a]/", "/x/"]
    {
        let refused = decode::<ToBuilder>(&assign_with(url));
        assert!(matches!(refused, Err(EncodingError::Decode(_))), "repository {url:?}: {refused:?}");
    }
    // The same bytes with harmless names are messages: it was the names.
    let manifest = [&[5, 1, 2, 1][..], &text("a.rpm"), &[3], &[0; 32]].concat();
    assert!(decode::<ToServer>(&manifest).is_ok());
    let assign = [&[1, 1, 2, 3][..], &text("fedora-43"), &text("a-1-1.src.rpm"), &[4, 5, 0]].concat();
    assert!(decode::<ToBuilder>(&assign).is_ok());
    assert!(decode::<ToServer>(&register("board", "f43", "big")).is_ok());
    assert!(decode::<ToBuilder>(&assign_with("http://x/")).is_ok());
}

#[test]
fn what_an_error_quotes_of_a_message_is_one_short_line() {
    let manifest = [&[5, 1, 2, 1][..], &text(&"\n\u{1b}[2J".repeat(60)), &[3], &[0; 32]].concat();
    let error = decode::<ToServer>(&manifest).unwrap_err().to_string();
    assert!(error.len() < outcome::REASON_MAX + 100 && !error.contains(char::is_control), "{error}");
}

#[test]
fn other_values_of_a_type_are_refused() {
    for (what, bytes) in [
        ("a variant that does not exist", &[10][..]),
        ("a slot that is no u16", &[1, 252, 0, 0, 1, 0]),
        ("a phase that does not exist", &[3, 1, 1, 1, 5]),
        ("a log that does not exist", &[4, 1, 1, 4, 1]),
        ("an option that is neither", &[8, 1, 1, 2]),
        ("an integer of a reserved length", &[1, 255]),
        ("a text that is no UTF-8", &[9, 2, 0xc3, 0x28]),
    ] {
        assert!(matches!(decode::<ToServer>(bytes), Err(EncodingError::Decode(_))), "{what}");
    }
    // A boolean is 0 or 1.
    let rejected = [&[4, 1, 2][..], &text("x"), &[2]].concat();
    assert!(matches!(decode::<ToBuilder>(&rejected), Err(EncodingError::Decode(_))));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        decode_all(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_beginning_never_panic(
        which in any::<prop::sample::Index>(), keep in any::<prop::sample::Index>(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let golden = golden();
        let bytes = &golden[which.index(golden.len())];
        decode_all(&[&bytes[..keep.index(bytes.len() + 1)], &tail].concat());
    }

    #[test]
    fn arbitrary_handshakes_never_panic(
        kind in 0usize..4, body in proptest::collection::vec(any::<u8>(), 0..200), good in any::<bool>(),
    ) {
        let kind = [Kind::ClientHello, Kind::ServerHello, Kind::Proof, Kind::Refusal][kind];
        let body = if good { [b"moji\0\x04\0\x04", &body[..]].concat() } else { body };
        let frame = Frame { kind, body: Bytes::from(body) };
        let identity = Arc::new(SigningKey::new(&Seed::new([5; 32])));
        let server = ServerSecret::new(identity, None, [0; 16]).unwrap();
        let _ = server.answer(frame.clone(), &[1; 32], &PLAINTEXT, &BTreeMap::new());
        let board = CredentialName::new("board").unwrap();
        for claim in [Claim::Nobody, Claim::Password, Claim::Credential(board)] {
            let _ = Client::start(&[2; 32], PLAINTEXT, claim).0.server_hello(frame.clone(), None);
        }
        let refusal = Refusal::decode(frame.body);
        prop_assert!(refusal.reason.len() <= outcome::REASON_MAX);
        prop_assert!(!refusal.reason.contains(char::is_control));
        let again = frame::decode(&mut BytesMut::from(&refusal.encode()[..]), true).unwrap().unwrap();
        prop_assert_eq!(Refusal::decode(again.body), refusal);
    }
}
