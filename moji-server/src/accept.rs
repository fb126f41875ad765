//! Takes connections and gives each a session of its own. A session that panics is a lost
//! connection, not the end of the server. Who has no place is closed at once: nothing here waits for
//! a peer.

mod places;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use moji_proto::handshake::{Refusal, RefusalCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::peer::Peer;
use crate::quiet::Topic;
use crate::scheduler::SessionId;
use crate::session::{FromSession, SessionConfig, serve};
pub use places::Place;
use places::Places;

/// How long accepting rests after an error such as too many open files.
const REST: Duration = Duration::from_millis(200);

/// Where connections come from: a TCP socket, or whatever a test brings.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and who is at its other end.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;

    /// Closes a connection that has no place, with this last word if that costs nothing: it must not
    /// wait.
    fn turn_away(&mut self, io: Self::Io, last_word: &[u8]) {
        let _ = last_word;
        drop(io);
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        if let Err(error) = moji_proto::io::tune(&stream) {
            // It has ended already, which the session will find out too.
            tracing::debug!("{address}: {error}");
        }
        Ok((stream, Peer::at(address)))
    }

    fn turn_away(&mut self, stream: TcpStream, last_word: &[u8]) {
        // Does not block, and fits the buffer of a socket to which nothing was written yet.
        if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(last_word);
        }
    }
}

/// Takes connections until the shutdown, then waits for the sessions to end.
pub(crate) async fn accept(
    mut listener: impl Listener,
    config: Arc<SessionConfig>,
    farm: mpsc::Sender<FromSession>,
    shutdown: CancellationToken,
) {
    let places = Places::new(&config.limits, config.limits.connections_of_this_process());
    let busy = Refusal::new(RefusalCode::Busy, "too many connections: try again later").encode();
    let nobody = Peer::named("the listening socket");
    let mut sessions = JoinSet::new();
    let mut last = 0;
    loop {
        let (io, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = sessions.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    config.quiet.warn(Topic::Accepting, &nobody, format_args!("cannot take a connection: {error}"));
                    // One that was over before it was taken is no reason to let others wait.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        sleep(REST).await;
                    }
                    continue;
                }
            },
        };
        let place = match places.take(peer.origin()) {
            Ok(place) => place,
            Err(full) => {
                listener.turn_away(io, &busy);
                config.quiet.warn(Topic::TurnedAway, &peer, format_args!("closed: {full}"));
                continue;
            }
        };
        last += 1;
        let id = SessionId(last);
        let serving = serve(io, peer, place, id, Arc::clone(&config), farm.clone(), shutdown.clone());
        // Begun here, so that the task that waits for it has no room for all of it too.
        let (serving, farm) = (tokio::spawn(serving), farm.clone());
        sessions.spawn(async move {
            if let Some(reason) =
                serving.await.unwrap_or_else(|error| Some(format!("internal error: {error}")))
            {
                let _ = farm.send(FromSession::Lost(id, reason)).await;
            }
        });
    }
    while sessions.join_next().await.is_some() {}
}
