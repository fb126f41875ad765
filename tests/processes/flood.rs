//! Ten thousand connections of nobody, from many addresses of the loopback network, at the real program;
//! a farm that goes on meanwhile, and how much memory that takes.

use std::io::Read as _;
use std::net::SocketAddr;

use moji_tests::support::processes::{Farm, Program, now, tiny, wait_until};
use tokio::net::{TcpSocket, TcpStream};

/// How many connections are tried.
const TRIED: usize = 10_000;

/// A figure of the process in KiB, `VmHWM` for instance: the most memory that it ever had.
fn kib(program: &Program, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The first message of a TLS client that knows what to say. The server answers with its certificate, and
/// waits with all that it has to remember of a handshake.
fn client_hello() -> Vec<u8> {
    let mut config =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    config.alpn_protocols = vec![moji_proto::handshake::TLS_PROTOCOL.to_vec()];
    let name = "moji".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Connects from so many addresses, begins a handshake on every other connection, and keeps as many open
/// as there may be.
async fn connections(server: SocketAddr, tried: usize, addresses: usize) -> Vec<TcpStream> {
    let (mut open, hello) = (Vec::new(), client_hello());
    for n in 0..tried {
        let socket = TcpSocket::new_v4().unwrap();
        let from = SocketAddr::from(([127, 0, 1, (n % addresses) as u8 + 1], 0));
        socket.bind(from).unwrap();
        let Ok(stream) = socket.connect(server).await else { continue };
        if n % 2 == 0 {
            let _ = stream.writable().await;
            let _ = stream.try_write(&hello);
        }
        open.push(stream);
    }
    open
}

/// Whether the server has not closed it.
fn is_open(stream: &mut std::net::TcpStream) -> bool {
    let mut buffer = [0; 256];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Waits until the server has closed what is too much, and gives how many are left.
fn flood(farm: &Farm, tried: usize, addresses: usize, most: usize) -> Vec<std::net::TcpStream> {
    let server = farm.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let streams = runtime.block_on(connections(server, tried, addresses));
    let mut streams: Vec<_> = streams.into_iter().map(|stream| stream.into_std().unwrap()).collect();
    wait_until("the server to close what is too much", || {
        streams.retain_mut(is_open);
        streams.len() <= most
    });
    streams
}

#[test]
fn ten_thousand_strangers_cost_little_and_the_farm_goes_on() {
    moji_server::run::raise_open_files();
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_quick("before");
    farm.wait_finished(&tiny("before"));
    let (before, lines, begun) = (kib(farm.server(), "VmHWM"), farm.server().mark(), now());
    let meanwhile = farm.tiny_srpms(&[("meanwhile", "echo quick")]).remove(0);
    let open = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&farm, TRIED, 16, 512).len());
        farm.queue(&meanwhile);
        farm.wait_finished(&tiny("meanwhile"));
        flooding.join().unwrap()
    });
    let took = begun.elapsed();
    // Somebody who comes while all places for strangers are taken.
    let kept = flood(&farm, 600, 16, 512);
    farm.start_client("b2", &[]);
    drop(kept);
    let (after, said) = (kib(farm.server(), "VmHWM"), farm.server().mark() - lines);
    eprintln!(
        "{TRIED} connections in {took:?}: {open} were open at the end; the server had at most {before} KiB \
         before and {after} KiB after, and wrote {said} lines"
    );
    assert!(open > 0, "nobody was let in");
    assert!(after < before + 32 * 1024, "from {before} to {after} KiB");
    assert!(said < 150, "{said} lines of log");
    farm.server().wait_line("have not introduced themselves yet");
}

/// Memory with as many connections as the defaults allow, all from strangers: every other one has TLS's
/// state and buffers, some 30 KiB.
#[test]
fn four_thousand_open_connections_fit() {
    moji_server::run::raise_open_files();
    let limits = [
        "strangers=4000",
        "strangers-per-address=4000",
        "connections-per-address=4000",
        "handshake-timeout=60s",
    ];
    let arguments: Vec<&str> = limits.into_iter().flat_map(|limit| ["--limit", limit]).collect();
    let mut farm = Farm::start(&arguments);
    let before = kib(farm.server(), "VmHWM");
    let mut kept = flood(&farm, 4_500, 16, 4_000);
    let open = kept.len();
    let after = kib(farm.server(), "VmHWM");
    eprintln!("{open} connections of strangers at a time: from {before} to {after} KiB");
    assert!(open > 3_000, "{open} are open");
    assert!(after < before + 96 * 1024, "from {before} to {after} KiB");
    kept.clear();
    farm.start_client("b1", &[]);
    farm.queue_quick("after");
    farm.wait_finished(&tiny("after"));
}
