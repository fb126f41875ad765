//! The proxy of the tests does what tests rely on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use moji_tests::support::processes::{now, wait_until};
use moji_tests::support::proxy::{Cut, Direction, Proxy};

/// A server that sends back what it gets.
fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Proxy::new(address)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn there_and_back(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    String::from_utf8(back).unwrap()
}

#[test]
fn everything_passes_and_is_counted() {
    let proxy = echo();
    let mut streams = [connect(&proxy), connect(&proxy)];
    for stream in &mut streams {
        assert_eq!(there_and_back(stream, "hello"), "hello");
    }
    // What has just passed is counted a moment later.
    wait_until("the counts", || {
        let counts = proxy.counts();
        (counts.connections, counts.up, counts.down) == (2, 10, 10)
    });
}

#[test]
fn a_cut_ends_every_connection_and_no_later_one() {
    let proxy = echo();
    for (cut, expected) in [(Cut::Fin, None), (Cut::Reset, Some(ErrorKind::ConnectionReset))] {
        let mut streams = [connect(&proxy), connect(&proxy)];
        for stream in &mut streams {
            there_and_back(stream, "hello");
        }
        proxy.cut(cut);
        for stream in &mut streams {
            let ended = stream.read(&mut [0; 8]);
            assert_eq!(ended.as_ref().err().map(|error| error.kind()), expected, "{ended:?}");
        }
        assert_eq!(there_and_back(&mut connect(&proxy), "again"), "again");
    }
}

#[test]
fn it_cuts_after_so_many_bytes() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    there_and_back(&mut stream, "hello");
    proxy.cut_after(Direction::Up, 10_000);
    let written = stream.write_all(&[7; 1_000_000]).and_then(|()| stream.read_to_end(&mut Vec::new()));
    assert!(written.is_err());
    assert_eq!(proxy.counts().up, 10_005);
    assert_eq!(there_and_back(&mut connect(&proxy), "again"), "again");
}

#[test]
fn a_refusal_keeps_what_is_connected() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    there_and_back(&mut stream, "hello");
    proxy.refuse(true);
    let refused = connect(&proxy).read(&mut [0; 8]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset);
    there_and_back(&mut stream, "hello");
    proxy.let_go();
    there_and_back(&mut connect(&proxy), "hello");
    assert_eq!(proxy.counts().connections, 2);
}

#[test]
fn a_stall_holds_everything_and_loses_nothing() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    there_and_back(&mut stream, "hello");
    proxy.stall(true);
    stream.write_all(b"held").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut second = connect(&proxy);
    wait_until("the second connection", || proxy.counts().connections == 2);
    second.write_all(b"too").unwrap();
    proxy.stall(false);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (stream, text) in [(&mut stream, "held"), (&mut second, "too")] {
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text.as_bytes());
    }
}

#[test]
fn it_is_slow_when_told() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    proxy.limit(Some(20_000));
    let begin = now();
    there_and_back(&mut stream, &"x".repeat(10_000));
    assert!(begin.elapsed() > Duration::from_millis(400), "{:?}", begin.elapsed());
    proxy.limit(None);
    proxy.delay(Duration::from_millis(150));
    let begin = now();
    there_and_back(&mut stream, "hello");
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
}
