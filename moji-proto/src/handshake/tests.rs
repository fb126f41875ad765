use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::signing::Seed;

const SALT: Salt = [9; 16];

fn frame_of(bytes: Bytes) -> Frame {
    frame::decode(&mut BytesMut::from(bytes), true).unwrap().unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::new(&Seed::new([number; 32]))
}

fn secret(password: Option<&str>) -> ServerSecret {
    ServerSecret::new(Arc::new(key(1)), password, SALT).unwrap()
}

fn name(text: &str) -> CredentialName {
    CredentialName::new(text).unwrap()
}

/// The server knows `board` by its key 7.
fn credentials() -> BTreeMap<CredentialName, PublicKey> {
    [(name("board"), key(7).public()), (name("other"), key(8).public())].into()
}

enum Knows<'a> {
    Nothing,
    Password(&'a str),
    Key(&'a str, u8),
}

struct Play<'a> {
    server: ServerSecret,
    credentials: BTreeMap<CredentialName, PublicKey>,
    client: Knows<'a>,
    bindings: [Binding; 2],
    expected: Option<Fingerprint>,
}

impl<'a> Play<'a> {
    fn new(password: Option<&str>, client: Knows<'a>) -> Self {
        Self {
            server: secret(password),
            credentials: BTreeMap::new(),
            client,
            bindings: [PLAINTEXT; 2],
            expected: None,
        }
    }

    /// Plays a whole handshake and gives what each side made of it.
    fn run(self) -> Result<(Agreed, u16), HandshakeError> {
        let claim = match &self.client {
            Knows::Nothing => Claim::Nobody,
            Knows::Password(_) => Claim::Password,
            Knows::Key(credential, _) => Claim::Credential(name(credential)),
        };
        let (client, hello) = Client::start(&[1; 32], self.bindings[0], claim);
        let answer = self.server.answer(frame_of(hello), &[2; 32], &self.bindings[1], &self.credentials)?;
        let (wait, proof) = match client.server_hello(frame_of(answer.hello.clone()), self.expected)? {
            ClientStep::Done(agreed) => return Ok((agreed, answer.version)),
            ClientStep::NeedKey(need) => {
                let Knows::Password(password) = self.client else { panic!() };
                let key = Key::stretch(password, &need.salt)?;
                need.prove(key)
            }
            ClientStep::NeedSignature(need) => {
                let Knows::Key(_, number) = self.client else { panic!() };
                need.sign(&key(number))
            }
        };
        let proof = answer.check(frame_of(proof))?;
        Ok((wait.finish(frame_of(proof))?, answer.version))
    }
}

fn code(error: HandshakeError) -> Option<RefusalCode> {
    match error {
        HandshakeError::Refuse(refusal) => refusal.code,
        other => panic!("{other}"),
    }
}

#[test]
fn both_sides_agree_with_the_right_secret_or_with_none() {
    let agreed = (Agreed { version: version::NEWEST, server: key(1).public() }, version::NEWEST);
    assert_eq!(Play::new(Some("s3cret"), Knows::Password("s3cret")).run().unwrap(), agreed);
    assert_eq!(Play::new(None, Knows::Nothing).run().unwrap(), agreed);
    for password in [None, Some("s3cret")] {
        let expected = Some(key(1).public().fingerprint());
        let play = Play::new(password, Knows::Key("board", 7));
        let play = Play { credentials: credentials(), expected, ..play };
        assert_eq!(play.run().unwrap(), agreed);
    }
}

#[test]
fn a_wrong_missing_or_needless_secret_is_told() {
    let wrong = Play::new(Some("s3cret"), Knows::Password("guess")).run().unwrap_err();
    assert_eq!(code(wrong), Some(RefusalCode::WrongProof));
    let missing = Play::new(Some("s3cret"), Knows::Nothing).run().unwrap_err();
    assert!(matches!(missing, HandshakeError::PasswordWanted));
    let needless = Play::new(None, Knows::Password("s3cret")).run().unwrap_err();
    assert!(matches!(needless, HandshakeError::NoPasswordWanted));
}

#[test]
fn a_credential_is_worth_its_own_name_and_key_only() {
    for (credential, number) in [("board", 8), ("other", 7), ("nobody", 7), ("nobody", 1)] {
        let play = Play::new(Some("s3cret"), Knows::Key(credential, number));
        let error = Play { credentials: credentials(), ..play }.run().unwrap_err();
        assert_eq!(code(error), Some(RefusalCode::WrongProof), "{credential} with the key {number}");
    }
}

/// Otherwise the last revoked credential would open the door.
#[test]
fn where_there_is_a_credential_nobody_comes_in_without_one() {
    for client in [Knows::Nothing, Knows::Password("s3cret")] {
        let play = Play { credentials: credentials(), ..Play::new(None, client) };
        assert_eq!(code(play.run().unwrap_err()), Some(RefusalCode::WrongProof));
    }
}

#[test]
fn nothing_can_be_passed_on_from_one_encrypted_connection_to_another() {
    for client in [Knows::Password("s3cret"), Knows::Key("board", 7)] {
        let play = Play::new(Some("s3cret"), client);
        let relayed = Play { credentials: credentials(), bindings: [[1; 32], [2; 32]], ..play };
        assert_eq!(code(relayed.run().unwrap_err()), Some(RefusalCode::WrongProof));
    }
}

#[test]
fn another_server_gets_no_proof() {
    let expected = Some(key(2).public().fingerprint());
    for client in [Knows::Password("s3cret"), Knows::Key("board", 7), Knows::Nothing] {
        let play = Play { credentials: credentials(), expected, ..Play::new(Some("s3cret"), client) };
        assert!(matches!(play.run().unwrap_err(), HandshakeError::OtherServer { .. }));
    }
}

#[test]
fn a_server_that_cannot_prove_itself_is_found_out() {
    let (client, hello) = Client::start(&[1; 32], PLAINTEXT, Claim::Password);
    let answer = secret(Some("other")).answer(frame_of(hello), &[2; 32], &PLAINTEXT, &credentials()).unwrap();
    let ClientStep::NeedKey(need) = client.server_hello(frame_of(answer.hello), None).unwrap() else {
        panic!()
    };
    let (wait, proof) = need.prove(Key::stretch("s3cret", &SALT).unwrap());
    // It can only send back what it has: the client's own proof, or anything.
    assert!(matches!(wait.finish(frame_of(proof)).unwrap_err(), HandshakeError::Impostor));

    // One that names the right key in its hello, without having it.
    let (client, hello) = Client::start(&[1; 32], PLAINTEXT, Claim::Credential(name("board")));
    let answer = secret(None).answer(frame_of(hello), &[2; 32], &PLAINTEXT, &credentials()).unwrap();
    let expected = Some(key(1).public().fingerprint());
    let ClientStep::NeedSignature(need) = client.server_hello(frame_of(answer.hello), expected).unwrap()
    else {
        panic!()
    };
    let (wait, proof) = need.sign(&key(7));
    assert!(matches!(wait.finish(frame_of(proof)).unwrap_err(), HandshakeError::Impostor));
}

#[test]
fn a_proof_is_worthless_on_another_connection() {
    for (server, claim) in
        [(secret(Some("s3cret")), Claim::Password), (secret(None), Claim::Credential(name("board")))]
    {
        let (client, hello) = Client::start(&[1; 32], PLAINTEXT, claim);
        let answer =
            |nonce| server.answer(frame_of(hello.clone()), &[nonce; 32], &PLAINTEXT, &credentials()).unwrap();
        let (first, second) = (answer(2), answer(3));
        let (_, proof) = match client.server_hello(frame_of(first.hello.clone()), None).unwrap() {
            ClientStep::NeedKey(need) => need.prove(Key::stretch("s3cret", &SALT).unwrap()),
            ClientStep::NeedSignature(need) => need.sign(&key(7)),
            ClientStep::Done(_) => panic!(),
        };
        assert!(first.check(frame_of(proof.clone())).is_ok());
        assert!(second.check(frame_of(proof)).is_err());
    }
}

#[test]
fn peers_of_another_age_are_told_which_side_to_update() {
    let mut body = BytesMut::from(&b"moji\0\x07\0\x09"[..]);
    body.put_slice(&[0; 32]);
    body.put_slice(b"something that version 7 added");
    let frame = Frame { kind: Kind::ClientHello, body: body.freeze() };
    let Err(HandshakeError::Refuse(refusal)) =
        secret(None).answer(frame, &[0; 32], &PLAINTEXT, &BTreeMap::new())
    else {
        panic!()
    };
    assert!(refusal.reason.contains("update the server"), "{refusal}");
    let read = Refusal::decode(frame_of(refusal.encode()).body);
    assert_eq!(read, refusal);
}

#[test]
fn garbage_is_answered_not_believed() {
    let mut bad_name = BytesMut::from(&b"moji\0\x04\0\x04"[..]);
    bad_name.put_slice(&[0; 32]);
    let nothing_behind = bad_name.clone();
    bad_name.put_slice(b"\x03../");
    let mut cut_name = nothing_behind.clone();
    cut_name.put_slice(b"\x09board");
    for body in [
        &b""[..],
        b"moji",
        b"nope\0\x01\0\x01",
        b"moji\0\x02\0\x01................................",
        &nothing_behind,
        &bad_name,
        &cut_name,
    ] {
        let frame = Frame { kind: Kind::ClientHello, body: Bytes::copy_from_slice(body) };
        assert!(secret(Some("x")).answer(frame, &[0; 32], &PLAINTEXT, &credentials()).is_err());
        let frame = Frame { kind: Kind::ServerHello, body: Bytes::copy_from_slice(body) };
        let (client, _) = Client::start(&[0; 32], PLAINTEXT, Claim::Password);
        assert!(client.server_hello(frame, None).is_err());
    }
    assert_eq!(Refusal::decode(Bytes::from_static(b"\x7f")).code, None);
}
