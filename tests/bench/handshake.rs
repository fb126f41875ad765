//! A connection from nothing to the server's welcome: TCP, TLS, proofs, registration.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use moji_client::access::{Access, KnownServers, Secret};
use moji_client::connection::{self, FromServer, Vitals};
use moji_client::disk::FreeSpace;
use moji_proto::handshake::Key;
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{Registration, Resources, Token};
use moji_server::access::credentials::{Credential, Credentials, Role};
use moji_server::access::identity::Identity;
use moji_tests::support::processes::now;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::measure::{Watch, median, percentile, processor};
use crate::report::Table;
use crate::roles::{PASSWORD, Server, TARGET, Wire, folders};

/// How a builder gets in.
struct Kind {
    name: &'static str,
    wire: Wire,
    access: Access,
    /// Whether the stretched password is forgotten after each connection.
    is_first: bool,
    samples: Samples,
}

/// In milliseconds.
#[derive(Default)]
struct Samples {
    wall: Vec<f64>,
    client: Vec<f64>,
    server: Vec<f64>,
}

/// Each kind of connection in turn, many times.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Table> {
    let at = settings.folder.join("handshake");
    let (tls, plaintext) = (at.join(Wire::Tls.name()), at.join(Wire::Plaintext.name()));
    let [tls_token, plaintext_token] = [token(&tls)?, token(&plaintext)?];
    let mut servers = [Server::start(&tls, Wire::Tls)?, Server::start(&plaintext, Wire::Plaintext)?];
    let kind = |name, wire, secret: Secret, is_first| {
        let access = match wire {
            Wire::Tls => Access::encrypted(secret, None, KnownServers::new(&at)),
            Wire::Plaintext => Access::plaintext(secret, None),
        };
        Kind { name, wire, access, is_first, samples: Samples::default() }
    };
    let password = || Secret::Password(PASSWORD.to_owned());
    let mut kinds = [
        kind("TLS, password, the client's first", Wire::Tls, password(), true),
        kind("TLS, password, again", Wire::Tls, password(), false),
        kind("TLS, token", Wire::Tls, Secret::Token(tls_token), false),
        kind("plaintext, password, again", Wire::Plaintext, password(), false),
        kind("plaintext, token", Wire::Plaintext, Secret::Token(plaintext_token), false),
    ];
    let runtime = Runtime::new()?;
    let [tls, plaintext] = &mut servers;
    let mut stretching = Vec::new();
    // The first round is not counted: it makes what is made once.
    for round in 0..=settings.connections {
        let watch = Watch::start();
        Key::stretch(PASSWORD, &[7; 16])?;
        stretching.push(watch.read());
        for kind in &mut kinds {
            let server = if kind.wire == Wire::Tls { &mut *tls } else { &mut *plaintext };
            let mut forgetful = kind.access.clone();
            let access = if kind.is_first { &mut forgetful } else { &mut kind.access };
            let ((server_before, _), client_before) = (server.used()?, processor());
            let wall = runtime
                .block_on(connect(server.address, access, format!("builder-{round}")))
                .with_context(|| kind.name)?;
            let client = processor() - client_before;
            let server = server.used()?.0 - server_before;
            if round > 0 {
                let Samples { wall: walls, client: clients, server: servers } = &mut kind.samples;
                for (samples, time) in [(walls, wall), (clients, client), (servers, server)] {
                    samples.push(millis(time));
                }
            }
        }
    }
    let mut rows: Vec<_> = kinds.iter().map(row).collect();
    let [wall, client] = [stretching.iter().map(|used| millis(used.wall)).collect::<Vec<_>>(), {
        stretching.iter().map(|used| millis(used.processor)).collect()
    }];
    let alone = vec![Some(median(&wall)), Some(percentile(&wall, 95)), Some(median(&client)), None];
    rows.push(("Argon2 alone (in the first)".to_owned(), alone));
    fs::remove_dir_all(&at)?;
    Ok(Table {
        key: "handshake".to_owned(),
        title: format!("From connecting to the welcome, {} connections each, in turn", settings.connections),
        columns: vec!["median ms", "95% ms", "client CPU", "server CPU"],
        rows,
        note: "CPU: ms of the processor, median, the end of the connection too".to_owned(),
    })
}

fn row(kind: &Kind) -> (String, Vec<Option<f64>>) {
    let Samples { wall, client, server } = &kind.samples;
    let numbers = [median(wall), percentile(wall, 95), median(client), median(server)];
    (kind.name.to_owned(), numbers.map(Some).to_vec())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A builder's token for a server that is not started yet.
fn token(at: &Path) -> anyhow::Result<Token> {
    let folders = folders(at);
    fs::create_dir_all(&folders.working)?;
    fs::DirBuilder::new().mode(0o700).create(folders.private())?;
    let server = Identity::load_or_make(&folders.private())?.fingerprint();
    let (seed, name): (_, moji_proto::CredentialName) = (Seed::new([42; 32]), "board".parse()?);
    let credential = Credential {
        name: name.clone(),
        role: Role::Builder,
        targets: Vec::new(),
        key: SigningKey::new(&seed).public(),
        added: Timestamp::now(),
        expires: None,
        revoked: None,
    };
    Credentials::new(vec![credential]).write(&folders.private())?;
    Ok(Token { server, name, seed })
}

/// What a builder says of itself.
pub(super) fn registration(name: &str) -> anyhow::Result<Registration> {
    let (arch, software) = ("x86_64".to_owned(), "scripts/bench".to_owned());
    Ok(Registration {
        name: name.parse()?,
        targets: vec![TARGET.parse()?],
        slots: 1,
        arch,
        software,
        resources: Resources::default(),
        tags: Vec::new(),
    })
}

/// Connects, and leaves again. Gives how long it took to be welcome.
async fn connect(address: SocketAddr, access: &mut Access, name: String) -> anyhow::Result<Duration> {
    let (events_tx, mut events) = mpsc::channel(16);
    let (_attempts, attempts) = watch::channel(Vec::new());
    let goodbye = CancellationToken::new();
    let vitals = Vitals { attempts, free_space: FreeSpace::new(|| None) };
    let registration = registration(&name)?;
    let begin = now();
    let io = TcpStream::connect(address).await?;
    moji_proto::io::tune(&io)?;
    let server = address.to_string();
    let serving = connection::serve(io, &server, access, registration, vitals, events_tx, goodbye.clone());
    let mut serving = Box::pin(serving);
    let took = tokio::select! {
        biased;
        event = events.recv() => match event {
            Some(FromServer::Connected(_)) => begin.elapsed(),
            other => return Err(anyhow!("{other:?} came instead of a welcome")),
        },
        ended = &mut serving => return Err(anyhow!("no welcome: {ended:?}")),
    };
    goodbye.cancel();
    serving.await?;
    Ok(took)
}
