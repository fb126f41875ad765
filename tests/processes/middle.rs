//! Somebody between a builder and the server, who takes the builder's connections and makes his own.
//!
//! Both ends are the real programs. What he gets to read is kept; in the end nobody may have been let in,
//! and what he has read must hold no secret and nothing but handshakes. What `--plaintext` leaves open to
//! him is tested too: it is no promise, but whoever reads it here knows.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::BytesMut;
use moji_proto::frame::{self, Frame, Kind};
use moji_proto::handshake::{Binding, PLAINTEXT, Refusal, RefusalCode, ServerSecret};
use moji_proto::signing::SigningKey;
use moji_proto::{Sha256, Token, limits};
use moji_server::access::identity::Identity;
use moji_tests::support::peer::{Peer, ScriptedBuilder, Who};
use moji_tests::support::processes::{Farm, Program, tiny, wait_until};
use moji_tests::support::{credentials, tls};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

const PASSWORD: &str = "correct horse battery staple";

/// What he does with a connection.
#[derive(Debug, Clone)]
enum Attack {
    /// He passes every frame on as it is.
    Relay,
    /// The same, but in the server's hello he puts his own key, so that it fits his TLS connection.
    RelayWithHisKey,
    /// He has a token of his own, with which he gets in, and plays the server to the builder: one with
    /// this password, or none.
    PlayServer { token: Option<Token>, password: Option<&'static str> },
    /// He passes on every frame, and changes a letter of the server's first message.
    ChangeLetter,
    /// He passes on every frame, and changes a bit of the server's hello.
    ChangeHello,
}

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

type Read = Arc<Mutex<Vec<(Way, Frame)>>>;

/// The man in the middle.
struct Middle {
    address: SocketAddr,
    read: Read,
    /// What his key is known by.
    key: String,
    runtime: Runtime,
}

/// How he talks to both sides.
#[derive(Clone)]
struct Ways {
    server: SocketAddr,
    /// Without TLS when there is none.
    to_builder: Option<TlsAcceptor>,
    is_tls_to_server: bool,
    key: Arc<SigningKey>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Middle {
    /// With TLS on both sides and a key of his own.
    fn new(farm: &Farm, attack: Attack) -> Self {
        Self::with(farm, attack, &his_folder(farm), [true, true])
    }

    /// With the key in a folder; with TLS to builders and to the server or without.
    fn with(farm: &Farm, attack: Attack, identity: &Path, [to_builder, to_server]: [bool; 2]) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let key = Identity::load_or_make(identity).unwrap().signing_key();
        let name = key.public().fingerprint().to_string();
        let pem = fs::read(identity.join("identity.pem")).unwrap();
        let ways = Ways {
            server: farm.address(),
            to_builder: to_builder.then(|| tls::acceptor(&pem).unwrap()),
            is_tls_to_server: to_server,
            key: Arc::new(key),
        };
        let (runtime, read) = (Runtime::new().unwrap(), Read::default());
        let ears = Arc::clone(&read);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((builder, _)) = listener.accept().await {
                tokio::spawn(between(builder, ways.clone(), attack.clone(), Arc::clone(&ears)));
            }
        });
        Self { address, read, key: name, runtime }
    }

    fn read(&self) -> Vec<(Way, Frame)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// He has read no secret, and nothing but handshakes; of builders only these kinds of frames.
    fn has_read(&self, of_builders: &[Kind], secrets: &[&[u8]]) {
        let read = self.read();
        for (way, Frame { kind, body }) in &read {
            assert!(kind.is_handshake(), "{way:?}: {kind:?}");
            for secret in secrets {
                assert!(!contains(body, secret), "{kind:?} has a secret");
            }
        }
        let up: Vec<_> =
            read.iter().filter(|(way, _)| *way == Way::Up).map(|(_, frame)| frame.kind).collect();
        assert_eq!(up, of_builders);
    }
}

/// One connection of a builder.
async fn between(builder: TcpStream, ways: Ways, attack: Attack, read: Read) -> anyhow::Result<()> {
    let server = TcpStream::connect(ways.server).await?;
    let (server, to_server): (Box<dyn Io>, Binding) = if ways.is_tls_to_server {
        let (stream, binding) = tls::connect(server).await?;
        (Box::new(stream), binding)
    } else {
        (Box::new(server), PLAINTEXT)
    };
    let (builder, to_builder): (Box<dyn Io>, Binding) = match &ways.to_builder {
        Some(acceptor) => {
            let (stream, binding) = tls::accept(acceptor, builder).await?;
            (Box::new(stream), binding)
        }
        None => (Box::new(builder), PLAINTEXT),
    };
    if let Attack::PlayServer { token, password } = &attack {
        let mut inside: ScriptedBuilder<_> = Peer::new(server);
        if let Some(token) = token {
            inside.introduce(Who::Token(token), to_server).await?;
        }
        return play_server(builder, &ways, *password, to_builder, read).await;
    }
    let (from_builder, mut to_builder) = split(builder);
    let (from_server, mut to_server) = split(server);
    let (mut up, mut down) = (Frames::of(from_builder), Frames::of(from_server));
    let his_key = *ways.key.public().as_bytes();
    let upwards = async {
        while let Some(frame) = up.next().await? {
            heard(&read, Way::Up, &frame);
            pass(&mut to_server, &frame).await?;
        }
        anyhow::Ok(())
    };
    let downwards = async {
        while let Some(mut frame) = down.next().await? {
            heard(&read, Way::Down, &frame);
            frame.body = change(&attack, &frame, &his_key).into();
            pass(&mut to_builder, &frame).await?;
        }
        anyhow::Ok(())
    };
    // When one side ends, so does the other.
    tokio::select! {
        ended = upwards => ended,
        ended = downwards => ended,
    }
}

/// What becomes of a frame of the server.
fn change(attack: &Attack, frame: &Frame, his_key: &[u8; 32]) -> Vec<u8> {
    let mut body = frame.body.to_vec();
    match (attack, frame.kind) {
        // Behind "moji", version, wanted, nonce and salt.
        (Attack::RelayWithHisKey, Kind::ServerHello) => body[55..87].copy_from_slice(his_key),
        (Attack::ChangeHello, Kind::ServerHello) => body[39] ^= 1,
        (Attack::ChangeLetter, Kind::Control) => {
            if let Some(at) = body.windows(11).position(|window| window == b"moji-server") {
                body[at + 1] = b'0';
            }
        }
        _ => {}
    }
    body
}

/// He answers the builder as well as he can, and does not go away before it does.
async fn play_server(
    builder: Box<dyn Io>,
    ways: &Ways,
    password: Option<&str>,
    binding: Binding,
    read: Read,
) -> anyhow::Result<()> {
    let secret = ServerSecret::new(Arc::clone(&ways.key), password, [0x33; 16])?;
    let (from_builder, mut to_builder) = split(builder);
    let mut frames = Frames::of(from_builder);
    let hello = frames.next().await?.context("it has said nothing")?;
    heard(&read, Way::Up, &hello);
    let answer = secret.answer(hello, &[9; 32], &binding, &BTreeMap::new())?;
    to_builder.write_all(&answer.hello).await?;
    to_builder.flush().await?;
    let mut is_in = !answer.wants_proof();
    while let Some(frame) = frames.next().await? {
        heard(&read, Way::Up, &frame);
        if !is_in {
            // If he does not know the password he can only guess.
            let guess = frame::encode(Kind::Proof, &[0x11; 32]);
            to_builder.write_all(&answer.check(frame).unwrap_or(guess)).await?;
            to_builder.flush().await?;
            is_in = true;
        }
    }
    Ok(())
}

fn heard(read: &Read, way: Way, frame: &Frame) {
    read.lock().unwrap_or_else(PoisonError::into_inner).push((way, frame.clone()));
}

async fn pass(to: &mut WriteHalf<Box<dyn Io>>, frame: &Frame) -> anyhow::Result<()> {
    to.write_all(&frame::encode(frame.kind, &frame.body)).await?;
    Ok(to.flush().await?)
}

/// Frames of any kind at any time.
struct Frames {
    from: ReadHalf<Box<dyn Io>>,
    buffer: BytesMut,
}

impl Frames {
    fn of(from: ReadHalf<Box<dyn Io>>) -> Self {
        Self { from, buffer: BytesMut::with_capacity(limits::CONTROL_BODY) }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer, false)? {
                return Ok(Some(frame));
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// A farm with a password and an SRPM that waits.
fn farm(arguments: &[&str]) -> (Farm, String) {
    let mut farm = Farm::new();
    let secret = farm.path("password");
    fs::write(&secret, PASSWORD).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.to_str().unwrap().to_owned();
    farm.start_server(&[&["--password-file", &secret], arguments].concat());
    farm.queue_quick("precious");
    farm.wait_queued("precious");
    (farm, secret)
}

/// The key of the server.
fn server_key(farm: &Farm) -> String {
    Identity::load_or_make(&farm.working(".moji")).unwrap().fingerprint().to_string()
}

fn client(farm: &Farm, middle: &Middle, name: &str, arguments: &[&str]) -> Program {
    let command = farm.client_command_for(name, "here", &middle.address.to_string(), arguments);
    Program::start(&format!("client {name}"), command)
}

/// A client that goes through him, and ends because it was not let in; gives what it says.
fn turned_away(farm: &Farm, middle: &Middle, name: &str, arguments: &[&str]) -> String {
    let mut client = client(farm, middle, name, arguments);
    assert_eq!(client.wait_code(), 4);
    assert_eq!(client.count("connected to "), 0);
    client.wait_line("ERROR")
}

/// Nobody was let in, and got nothing. The server has noticed, in these words.
fn nothing_came_of_it(farm: &Farm, says: &str) {
    farm.server().wait_line(says);
    assert_eq!(farm.server().count(" connected from "), 0);
    assert_eq!(farm.hand_outs(), []);
    assert_eq!(farm.where_is(&tiny("precious")), ["SOURCE"]);
}

fn has_all(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

/// Where his key is.
fn his_folder(farm: &Farm) -> PathBuf {
    let folder = farm.path("his");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Has a client remember the server under his address, as if it had been there before him.
fn knows_the_server(farm: &Farm, name: &str, middle: &Middle) {
    fs::create_dir_all(farm.work_dir(name)).unwrap();
    let line = format!("{} {}\n", middle.address, server_key(farm));
    fs::write(farm.work_dir(name).join("known_servers"), line).unwrap();
}

#[test]
fn with_a_password_at_first_contact() {
    let (farm, secret) = farm(&[]);
    let arguments = ["--password-file", &secret];
    let key = server_key(&farm);
    // The hello names a key that is not the one of the connection.
    let middle = Middle::new(&farm, Attack::Relay);
    let line = turned_away(&farm, &middle, "naive", &arguments);
    has_all(&line, &["somebody stands between", &middle.key, &format!("--server-key {key}")]);
    middle.has_read(&[Kind::ClientHello], &[PASSWORD.as_bytes()]);
    nothing_came_of_it(&farm, "refused: ");
    assert!(!farm.work_dir("naive").join("known_servers").exists(), "he is remembered");
    // What it says to do keeps him out.
    let line = turned_away(&farm, &middle, "naive", &[&arguments[..], &["--server-key", &key]].concat());
    has_all(&line, &["somebody stands between", &middle.key, &key, "nothing was sent"]);
    middle.has_read(&[Kind::ClientHello], &[PASSWORD.as_bytes()]);
}

/// His own key in the hello makes the client give its proof, which fits his connection and no other.
#[test]
fn with_a_password_at_first_contact_and_his_own_key_in_the_hello() {
    let (farm, secret) = farm(&[]);
    let middle = Middle::new(&farm, Attack::RelayWithHisKey);
    let line = turned_away(&farm, &middle, "naive", &["--password-file", &secret]);
    has_all(&line, &["refuses the password", "somebody may stand between", &middle.key, "credential list"]);
    middle.has_read(&[Kind::ClientHello, Kind::Proof], &[PASSWORD.as_bytes()]);
    nothing_came_of_it(&farm, "refused: wrong password");
    assert!(!farm.work_dir("naive").join("known_servers").exists(), "he is remembered");
}

#[test]
fn the_builder_knows_the_servers_key() {
    let (farm, secret) = farm(&[]);
    let key = server_key(&farm);
    for attack in [Attack::Relay, Attack::PlayServer { token: None, password: Some(PASSWORD) }] {
        // Even if he knows the password.
        let middle = Middle::new(&farm, attack);
        knows_the_server(&farm, "careful", &middle);
        let line = turned_away(&farm, &middle, "careful", &["--password-file", &secret]);
        has_all(
            &line,
            &["at the first contact", &key, &middle.key, "somebody stands between", "nothing was sent"],
        );
        middle.has_read(&[], &[PASSWORD.as_bytes()]);
        nothing_came_of_it(&farm, "refused: ");
    }
}

/// What a password cannot do: whoever knows it is a server, to somebody who sees a server for the first time.
#[test]
fn he_knows_the_password_at_first_contact() {
    let (farm, secret) = farm(&[]);
    let middle = Middle::new(&farm, Attack::PlayServer { token: None, password: Some(PASSWORD) });
    let client = client(&farm, &middle, "naive", &["--password-file", &secret]);
    client.wait_line(&format!("first contact with {}: remembering its key {}", middle.address, middle.key));
    assert!(middle.read().iter().all(|(_, frame)| !contains(&frame.body, PASSWORD.as_bytes())));
    assert_eq!(farm.hand_outs(), []);
}

#[test]
fn the_builder_has_a_token() {
    let (farm, _) = farm(&[]);
    let token = credentials::give(&farm.working(".moji"), "board", |_| {}).unwrap();
    farm.server().wait_line("the credential board (builder) is good");
    let secret = farm.path("token");
    fs::write(&secret, token.to_secret_text()).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["--password-file", secret.to_str().unwrap()];
    let seed = Sha256(*token.seed.secret_bytes()).to_string();
    let secrets = [token.seed.secret_bytes().as_slice(), seed.as_bytes()];
    for attack in [Attack::Relay, Attack::RelayWithHisKey, Attack::PlayServer { token: None, password: None }]
    {
        let middle = Middle::new(&farm, attack);
        let line = turned_away(&farm, &middle, "owner", &arguments);
        let key = token.server.to_string();
        has_all(&line, &["it should have", &key, &middle.key, "somebody stands between", "nothing was sent"]);
        middle.has_read(&[], &secrets);
        nothing_came_of_it(&farm, "refused: ");
    }
    // Somebody who takes TLS away gets a signature that is good for nothing.
    let middle = Middle::with(&farm, Attack::Relay, &his_folder(&farm), [false, true]);
    let line = turned_away(&farm, &middle, "careless", &[&arguments[..], &["--plaintext"]].concat());
    has_all(&line, &["refuses the token", "somebody may stand between", "without TLS"]);
    middle.has_read(&[Kind::ClientHello, Kind::Proof], &secrets);
    nothing_came_of_it(&farm, "refused: there is no credential board with that token");
}

#[test]
fn he_has_a_token_of_his_own() {
    let (farm, secret) = farm(&[]);
    let his = credentials::give(&farm.working(".moji"), "his", |_| {}).unwrap();
    farm.server().wait_line("the credential his (builder) is good");
    for (password, says, read) in [
        (Some("a guess"), "without being able to give its own", &[Kind::ClientHello, Kind::Proof][..]),
        (None, "does not ask for the password", &[Kind::ClientHello]),
    ] {
        let middle = Middle::new(&farm, Attack::PlayServer { token: Some(his.clone()), password });
        let line = turned_away(&farm, &middle, "naive", &["--password-file", &secret]);
        has_all(&line, &[says, "somebody stands between"]);
        middle.has_read(read, &[PASSWORD.as_bytes()]);
        nothing_came_of_it(&farm, "refused: ");
    }
}

/// Between a builder that was told `--plaintext` and a server that was not.
#[test]
fn he_takes_tls_away() {
    let (farm, secret) = farm(&[]);
    let middle = Middle::with(&farm, Attack::Relay, &his_folder(&farm), [false, true]);
    let line = turned_away(&farm, &middle, "careless", &["--plaintext", "--password-file", &secret]);
    has_all(&line, &["refuses the password", "somebody may stand between", "without TLS"]);
    middle.has_read(&[Kind::ClientHello, Kind::Proof], &[PASSWORD.as_bytes()]);
    nothing_came_of_it(&farm, "refused: wrong password");
}

/// The builder sees no difference then, but what it proves it proves for one connection. Sent again on
/// another one it is worth nothing either.
#[test]
fn he_has_stolen_the_servers_key() {
    let (farm, secret) = farm(&[]);
    let middle = Middle::with(&farm, Attack::Relay, &farm.working(".moji"), [true, true]);
    assert_eq!(middle.key, server_key(&farm));
    knows_the_server(&farm, "unlucky", &middle);
    let line = turned_away(&farm, &middle, "unlucky", &["--password-file", &secret]);
    has_all(&line, &["refuses the password"]);
    middle.has_read(&[Kind::ClientHello, Kind::Proof], &[PASSWORD.as_bytes()]);
    nothing_came_of_it(&farm, "refused: wrong password");

    let mark = farm.server().mark();
    let refusal = middle.runtime.block_on(replay(farm.address(), middle.read())).unwrap();
    assert_eq!(refusal.code, Some(RefusalCode::WrongProof));
    farm.server().wait_line_after(mark, "refused: wrong password");
    assert_eq!(farm.server().count(" connected from "), 0);
}

/// Says on a new connection what a builder has said on another.
async fn replay(server: SocketAddr, read: Vec<(Way, Frame)>) -> anyhow::Result<Refusal> {
    // From elsewhere: the log has one line of a kind for each address in some seconds.
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 2], 0).into())?;
    let (stream, _) = tls::connect(socket.connect(server).await?).await?;
    let mut peer: ScriptedBuilder<_> = Peer::new(stream);
    let mut answer = None;
    for (_, frame) in read.iter().filter(|(way, _)| *way == Way::Up) {
        peer.raw(&frame::encode(frame.kind, &frame.body)).await?;
        answer = Some(peer.frame().await?);
    }
    let answer = answer.context("there was nothing to say")?;
    anyhow::ensure!(answer.kind == Kind::Refusal, "{:?} came", answer.kind);
    Ok(Refusal::decode(answer.body))
}

/// The handshake is as good without TLS as with it. Behind it nothing is: who stands between reads and
/// changes what he likes, and nobody notices.
#[test]
fn plaintext_protects_the_handshake_and_nothing_else() {
    let (farm, secret) = farm(&["--plaintext"]);
    let arguments = ["--plaintext", "--password-file", &secret];
    let middle = Middle::with(&farm, Attack::ChangeHello, &his_folder(&farm), [false, false]);
    let line = turned_away(&farm, &middle, "changed", &arguments);
    has_all(&line, &["refuses the password", "somebody may stand between", "without TLS"]);
    middle.has_read(&[Kind::ClientHello, Kind::Proof], &[PASSWORD.as_bytes()]);
    nothing_came_of_it(&farm, "refused: wrong password");

    let middle = Middle::with(&farm, Attack::ChangeLetter, &his_folder(&farm), [false, false]);
    let client = client(&farm, &middle, "deceived", &arguments);
    client.wait_line("connected to m0ji-server");
    farm.wait_finished(&tiny("precious"));
    wait_until("the last word", || client.count("are delivered") == 1);
    let read = middle.read();
    assert!(read.iter().any(|(_, frame)| contains(&frame.body, b"precious")), "he has not even read it");
    assert!(read.iter().all(|(_, frame)| !contains(&frame.body, PASSWORD.as_bytes())));
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
