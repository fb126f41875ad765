//! Webhooks.

use std::process::Stdio;
use std::time::Duration;

use moji_proto::api::{Event, EventKind};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::super::testing::{Answer, MemoryLog, Request, Server, event, status};
use super::*;
use crate::outgoing::webhook::Webhook;

fn hook(server: &Server) -> Receiver {
    Receiver::Webhook(format!("http://{}/hook?a=b", server.address).parse().unwrap(), Some("the key".into()))
}

fn name(server: &Server) -> String {
    SinkConfig { receiver: hook(server), kinds: BTreeSet::new() }.name()
}

#[tokio::test]
async fn a_new_sink_begins_with_what_happens_from_now_on_and_goes_on_after_a_restart() {
    let (log, mut server) = (MemoryLog::new(), Server::start(|_, _| status("200 OK")).await);
    log.add(event(7, EventKind::Failed));
    let running = Running::start(hook(&server), &log, |_| ()).await;
    assert_eq!(log.cursor(&name(&server)), Some(7), "written before anything was delivered");
    log.add(event(11, EventKind::Queued));
    server.wait_seen(1).await;
    running.stop().await;
    for (id, kind) in [(12, EventKind::Started), (13, EventKind::Ended), (15, EventKind::Failed)] {
        log.add(event(id, kind));
    }
    let running = Running::start(hook(&server), &log, |_| ()).await;
    log.wait_delivered(15).await;
    running.stop().await;
    assert_eq!(server.ids(), [11, 12, 15], "in order, once, and no kind that is not wanted");
}

#[tokio::test]
async fn a_request_says_what_happened() {
    let (log, mut server) = (MemoryLog::new(), Server::start(|_, _| status("204 No Content")).await);
    let running = Running::start(hook(&server), &log, |_| ()).await;
    let mut told = event(21, EventKind::Held);
    told.text = "two\nlines \u{1b}[31m </script> \"\0".into();
    log.add(told.clone());
    server.wait_seen(1).await;
    running.stop().await;
    let request = server.seen().remove(0);
    assert_eq!(request.line, "POST /hook?a=b HTTP/1.1");
    let header = |name: &str| request.headers[name].as_str();
    assert_eq!(header("host"), server.address.to_string());
    assert_eq!((header("x-moji-event"), header("x-moji-event-id")), ("held", "21"));
    assert_eq!(header("content-type"), "application/json");
    assert!(header("user-agent").starts_with("moji-server/"));
    assert_eq!(serde_json::from_slice::<Event>(&request.body).unwrap(), told);
    assert!(!request.body.iter().any(u8::is_ascii_control), "JSON writes them as escapes");
    assert_eq!(python_signature(&request).await, header("x-moji-signature"));
}

/// As README tells receivers to compute it.
async fn python_signature(request: &Request) -> String {
    const PROGRAM: &str = "import hashlib, hmac, sys\n\
        signed = sys.argv[1].encode() + b'.' + sys.stdin.buffer.read()\n\
        print('sha256=' + hmac.new(b'the key', signed, hashlib.sha256).hexdigest())";
    let mut child = tokio::process::Command::new("python3")
        .args(["-c", PROGRAM, &request.headers["x-moji-timestamp"]])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&request.body).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn without_a_key_there_is_no_signature() {
    let (log, mut server) = (MemoryLog::new(), Server::start(|_, _| status("200 OK")).await);
    let url = format!("http://{}", server.address).parse().unwrap();
    let running = Running::start(Receiver::Webhook(url, None), &log, |_| ()).await;
    log.add(event(3, EventKind::Held));
    server.wait_seen(1).await;
    running.stop().await;
    assert_eq!(server.seen()[0].line, "POST / HTTP/1.1");
    assert!(!server.seen()[0].headers.contains_key("x-moji-signature"));
}

#[tokio::test]
async fn a_receiver_that_does_not_work_is_asked_again_with_the_same_event() {
    let answers = |_: &Request, before| match before {
        0 => status("500 Internal Server Error"),
        1 => Answer::Cut,
        2 => Answer::Hang,
        3 => Answer::Bytes("no HTTP\r\n\r\n".into()),
        4 => Answer::Bytes("HTTP/1.1 200 OK\r\nX: ".to_owned() + &"x".repeat(1 << 20)),
        5 => status("429 Too Many Requests"),
        _ => status("200 OK"),
    };
    let (log, server) = (MemoryLog::new(), Server::start(answers).await);
    let short = |way: &mut Way| {
        let Way::Webhook(webhook) = way else { panic!() };
        webhook.times.whole = Duration::from_millis(300);
    };
    let running = Running::start(hook(&server), &log, short).await;
    log.add(event(5, EventKind::Queued));
    log.add(event(6, EventKind::Failed));
    log.wait_delivered(6).await;
    running.stop().await;
    assert_eq!(server.ids(), [5, 5, 5, 5, 5, 5, 5, 6]);
    assert_eq!(log.changes(), [0, 5, 6], "the cursor moves after success only");
}

#[tokio::test]
async fn what_is_refused_is_given_up_and_the_next_has_its_turn() {
    let answers = |request: &Request, _| match request.id() {
        31 => status("422 Unprocessable Content"),
        32 => Answer::Bytes("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".into()),
        _ => status("201 Created"),
    };
    let (log, server) = (MemoryLog::new(), Server::start(answers).await);
    let running = Running::start(hook(&server), &log, |_| ()).await;
    for id in 31..=33 {
        log.add(event(id, EventKind::Failed));
    }
    log.wait_delivered(33).await;
    running.stop().await;
    let count = |wanted| server.ids().into_iter().filter(|id| *id == wanted).count();
    assert_eq!([31, 32, 33].map(count), [10, 10, 1]);
    assert!(
        server.seen().iter().all(|request| request.line.starts_with("POST /hook")),
        "no redirect is followed"
    );
}

#[tokio::test]
async fn nothing_is_lost_while_nobody_listens() {
    let log = MemoryLog::new();
    let (receiver, address) = {
        let server = Server::start(|_, _| status("200 OK")).await;
        (hook(&server), server.address)
    };
    let running = Running::start(receiver, &log, |_| ()).await;
    // More than a subscriber may be behind.
    for id in 1..=250 {
        log.add(event(id, EventKind::Started));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(log.changes(), [0]);
    let server = Server::at(address, |_, _| status("200 OK")).await;
    log.wait_delivered(250).await;
    running.stop().await;
    assert_eq!(server.ids(), (1..=250).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (log, server) = (MemoryLog::new(), Server::start(|_, _| Answer::Endless).await);
    let running = Running::start(hook(&server), &log, |_| ()).await;
    log.add(event(4, EventKind::Parked));
    log.wait_delivered(4).await;
    running.stop().await;
    assert_eq!(server.ids(), [4]);
}

#[tokio::test]
async fn what_was_not_answered_before_the_end_is_told_again() {
    let answers = |_: &Request, before| if before == 1 { Answer::Hang } else { status("200 OK") };
    let (log, mut server) = (MemoryLog::new(), Server::start(answers).await);
    let running = Running::start(hook(&server), &log, |_| ()).await;
    log.add(event(8, EventKind::Queued));
    log.add(event(9, EventKind::Failed));
    server.wait_seen(2).await;
    log.wait_delivered(8).await;
    running.kill().await;
    let running = Running::start(hook(&server), &log, |_| ()).await;
    log.wait_delivered(9).await;
    running.stop().await;
    assert_eq!(server.ids(), [8, 9, 9]);
}

#[tokio::test]
async fn a_sink_that_waits_stops_at_once() {
    let (log, mut server) = (
        MemoryLog::new(),
        Server::start(|_, _| {
            Answer::Bytes("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3000\r\n\r\n".into())
        })
        .await,
    );
    let running = Running::start(hook(&server), &log, |_| ()).await;
    log.add(event(8, EventKind::Queued));
    server.wait_seen(1).await;
    tokio::time::timeout(Duration::from_secs(4), running.stop()).await.expect("not after 50 minutes");
    assert_eq!((server.ids(), log.changes()), (vec![8], vec![0]));
}

/// A receiver with TLS, for a name; gives its certificate.
async fn secure_server(name: &str) -> (u16, CertificateDer<'static>, JoinHandle<Request>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let Ok(mut io) = acceptor.accept(io).await else { continue };
            let Some(request) = Request::read(&mut io).await else { continue };
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            let _ = io.shutdown().await;
            return request;
        }
    });
    (port, certificate, task)
}

#[tokio::test]
async fn https_is_spoken_with_whom_the_certificates_name() {
    for (name, trusted, wanted) in
        [("localhost", true, true), ("localhost", false, false), ("other", true, false)]
    {
        let (port, certificate, server) = secure_server(name).await;
        let mut webhook = Webhook::new(format!("https://localhost:{port}/x").parse().unwrap(), None);
        let mut roots = rustls::RootCertStore::empty();
        if trusted {
            roots.add(certificate).unwrap();
        }
        webhook.trust(roots);
        let given = webhook.give(&event(2, EventKind::Held)).await;
        assert_eq!(given.is_ok(), wanted, "{name} {trusted}: {given:?}");
        if wanted {
            assert_eq!(server.await.unwrap().id(), 2);
        } else {
            let why = given.unwrap_err().why;
            assert!(why.contains("certificate"), "{why}");
            server.abort();
        }
    }
}
