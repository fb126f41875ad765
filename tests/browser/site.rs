//! A small web server that shows pages over what a test made up, and says that something has happened when the test
//! wants it. One connection, one request.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use moji_server::pages::{Markup, POLICY, assets};

#[derive(Default)]
struct Shown {
    pages: BTreeMap<String, String>,
    /// Streams of server-sent events that browsers have open, by path.
    streams: Vec<(String, TcpStream)>,
    /// What was asked for, in order.
    asked: Vec<String>,
}

/// The server. It ends with the test's process.
pub(crate) struct Site {
    address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
}

impl Site {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self { address: listener.local_addr().unwrap(), shown: Arc::default() };
        let shown = Arc::clone(&site.shown);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shown = Arc::clone(&shown);
                std::thread::spawn(move || answer(stream, &shown));
            }
        });
        site
    }

    /// Shows a page at a path, from now on.
    pub(crate) fn show(&self, path: &str, page: Markup) {
        self.shown.lock().unwrap().pages.insert(path.to_owned(), page.into_string());
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends an event to whoever listens there; says how many did.
    pub(crate) fn send(&self, path: &str, event: &str) -> usize {
        let mut shown = self.shown.lock().unwrap();
        shown.streams.retain_mut(|(at, stream)| at != path || stream.write_all(event.as_bytes()).is_ok());
        shown.streams.iter().filter(|(at, _)| at == path).count()
    }

    /// How often something was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.shown.lock().unwrap().asked.iter().filter(|one| *one == path).count()
    }
}

fn answer(stream: TcpStream, shown: &Mutex<Shown>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.by_ref().find(|line| line.is_empty());
    let target = request.split(' ').nth(1).unwrap_or("/");
    let path = target.split('?').next().unwrap_or("/").to_owned();
    let mut shown = shown.lock().unwrap();
    shown.asked.push(path.clone());
    let mut stream = stream;
    if path == "/events" || path.ends_with("/lines") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\nretry: 200\n\n";
        if stream.write_all(head.as_bytes()).is_ok() {
            shown.streams.push((path, stream));
        }
        return;
    }
    let (status, kind, body) = match (shown.pages.get(&path), assets::at(&path)) {
        (Some(page), _) => ("200 OK", "text/html; charset=utf-8", page.as_bytes().to_vec()),
        (_, Some(asset)) => ("200 OK", asset.kind, asset.content.to_vec()),
        _ => ("404 Not Found", "text/plain", b"nothing is there".to_vec()),
    };
    drop(shown);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Security-Policy: {POLICY}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}
