//! A TCP proxy between a client and the server, which a test makes cut, stall, crawl and refuse.
//!
//! Two threads a connection, one for each direction. Nothing of what passes is looked at.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::processes::let_pass;

/// How often a thread that waits for bytes looks whether it is to do something else.
const LOOK: Duration = Duration::from_millis(20);
const PIECE: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client: results, logs, heartbeats.
    Up,
    /// From the server: SRPMs, orders.
    Down,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As if a program had ended: everything that was sent arrives.
    Fin,
    /// As if a machine had crashed and come back.
    Reset,
}

/// What passed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were made to the server.
    pub connections: u64,
    /// Bytes from clients.
    pub up: u64,
    /// Bytes from the server.
    pub down: u64,
}

/// What the proxy does with connections.
#[derive(Debug, Default)]
struct Orders {
    refuse: bool,
    stall: bool,
    latency: Duration,
    /// Bytes a second in each direction of each connection.
    rate: Option<u64>,
    /// The bytes that may still pass before everything is cut.
    cut_after: Option<(Direction, u64)>,
    links: Vec<Arc<Link>>,
}

/// A connection with both its ends.
#[derive(Debug, Default)]
struct Link {
    cut: Mutex<Option<Cut>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    orders: Mutex<Orders>,
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    ended: AtomicBool,
}

/// The proxy. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy to `server`, which need not run.
    pub fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, [connections, up, down]) = (Mutex::default(), Default::default());
        let shared =
            Arc::new(Shared { server, orders, connections, up, down, ended: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.connect(client);
            }
        });
        Self { address, shared }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What passed so far.
    pub fn counts(&self) -> Counts {
        let Shared { connections, up, down, .. } = &*self.shared;
        let [connections, up, down] = [connections, up, down].map(|count| count.load(Ordering::SeqCst));
        Counts { connections, up, down }
    }

    /// Ends all connections now.
    pub fn cut(&self, cut: Cut) {
        self.shared.orders().cut(cut);
    }

    /// Resets all connections as soon as so many bytes more have passed in a direction.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.orders().cut_after = Some((direction, bytes));
    }

    /// Resets whoever connects, or lets them in again. What is connected stays.
    pub fn refuse(&self, refuse: bool) {
        self.shared.orders().refuse = refuse;
    }

    /// Forwards nothing, not even the end of a connection: half-open links. What came meanwhile is
    /// forwarded when the stall ends.
    pub fn stall(&self, stall: bool) {
        self.shared.orders().stall = stall;
    }

    /// Forwards at most so many bytes a second in each direction.
    pub fn limit(&self, rate: Option<u64>) {
        self.shared.orders().rate = rate;
    }

    /// Holds everything back for so long.
    pub fn delay(&self, latency: Duration) {
        self.shared.orders().latency = latency;
    }

    /// Forwards everything at once, to everybody, again.
    pub fn let_go(&self) {
        let mut orders = self.shared.orders();
        *orders = Orders { links: std::mem::take(&mut orders.links), ..Orders::default() };
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.let_go();
        self.cut(Cut::Reset);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Orders {
    fn cut(&mut self, cut: Cut) {
        for link in self.links.drain(..) {
            *link.cut.lock().unwrap_or_else(PoisonError::into_inner) = Some(cut);
        }
    }
}

impl Link {
    fn cut(&self) -> Option<Cut> {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let server = if self.orders().refuse { None } else { TcpStream::connect(self.server).ok() };
        let Some(server) = server else { return reset(&client) };
        let link = Arc::new(Link::default());
        self.orders().links.push(Arc::clone(&link));
        self.connections.fetch_add(1, Ordering::SeqCst);
        for end in [&client, &server] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(LOOK)).unwrap();
            end.set_write_timeout(Some(LOOK)).unwrap();
        }
        let up = (client.try_clone().unwrap(), server.try_clone().unwrap(), Direction::Up);
        for (from, to, direction) in [up, (server, client, Direction::Down)] {
            let (shared, link) = (Arc::clone(self), Arc::clone(&link));
            thread::spawn(move || shared.forward(&link, &from, &to, direction));
        }
    }

    /// Forwards one direction until the connection ends.
    fn forward(&self, link: &Link, mut from: &TcpStream, mut to: &TcpStream, direction: Direction) {
        let mut buffer = vec![0; PIECE];
        loop {
            if self.wait_or_cut(link, from, to) {
                return;
            }
            let length = match from.read(&mut buffer) {
                Err(error) if is_timeout(&error) => continue,
                // By the other direction's thread.
                Ok(0) if link.cut().is_some() => continue,
                Ok(0) => return drop(to.shutdown(Shutdown::Write)),
                Ok(length) => length,
                // The other direction finds its own end.
                Err(_) => return reset(to),
            };
            let (latency, rate) = {
                let orders = self.orders();
                (orders.latency, orders.rate)
            };
            let pace =
                rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(length as f64 / rate as f64));
            let_pass(latency + pace);
            let mut piece = buffer.get(..length).unwrap_or_default();
            while !piece.is_empty() {
                if self.wait_or_cut(link, from, to) {
                    return;
                }
                match to.write(self.may_pass(piece, direction)) {
                    Err(error) if is_timeout(&error) => {}
                    Ok(written) => {
                        self.passed(written as u64, direction);
                        piece = piece.get(written..).unwrap_or_default();
                    }
                    Err(_) => return reset(from),
                }
            }
        }
    }

    /// Waits as long as everything stalls; true when the connection was cut.
    fn wait_or_cut(&self, link: &Link, from: &TcpStream, to: &TcpStream) -> bool {
        loop {
            match link.cut() {
                Some(Cut::Fin) => {
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    return true;
                }
                Some(Cut::Reset) => {
                    reset(from);
                    reset(to);
                    return true;
                }
                None if self.orders().stall => let_pass(LOOK),
                None => return false,
            }
        }
    }

    /// As much of a piece as may pass before the cut.
    fn may_pass<'a>(&self, piece: &'a [u8], direction: Direction) -> &'a [u8] {
        match self.orders().cut_after {
            Some((which, left)) if which == direction => {
                let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX)).max(1);
                piece.get(..length).unwrap_or(piece)
            }
            _ => piece,
        }
    }

    fn passed(&self, length: u64, direction: Direction) {
        let count = if direction == Direction::Up { &self.up } else { &self.down };
        count.fetch_add(length, Ordering::SeqCst);
        let mut orders = self.orders();
        if let Some((which, left)) = &mut orders.cut_after
            && *which == direction
        {
            *left = left.saturating_sub(length);
            if *left == 0 {
                orders.cut_after = None;
                orders.cut(Cut::Reset);
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Makes the last close of this socket a reset, and ends the thread that reads from it.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Read);
}
