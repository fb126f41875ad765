//! Takes connections and gives each a session of its own. A session that panics is a lost
//! connection, not the end of the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::scheduler::SessionId;
use crate::session::{FromSession, SessionConfig, serve};

/// Most connections at a time, of builders and of strangers.
const CONNECTIONS: u64 = 4096;

/// How long accepting rests after an error such as too many open files.
const REST: Duration = Duration::from_millis(200);

/// Where connections come from: a TCP socket, or whatever a test brings.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and the peer's address for people.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, String)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, String)> {
        let (stream, address) = TcpListener::accept(self).await?;
        moji_proto::io::tune(&stream)?;
        Ok((stream, address.to_string()))
    }
}

/// Takes connections until the shutdown, then waits for the sessions to end.
pub(crate) async fn accept(
    mut listener: impl Listener,
    config: Arc<SessionConfig>,
    farm: mpsc::Sender<FromSession>,
    shutdown: CancellationToken,
) {
    let connections = connections();
    let places = Arc::new(Semaphore::new(connections));
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
                    tracing::warn!("cannot take a connection: {error}");
                    sleep(REST).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("{peer}: refused: {connections} connections are open");
            continue;
        };
        last += 1;
        let id = SessionId(last);
        let serving = serve(io, peer, id, Arc::clone(&config), farm.clone(), shutdown.clone());
        let farm = farm.clone();
        sessions.spawn(async move {
            let _place = place;
            let ended = tokio::spawn(serving).await;
            if let Some(reason) = ended.unwrap_or_else(|error| Some(format!("internal error: {error}"))) {
                let _ = farm.send(FromSession::Lost(id, reason)).await;
            }
        });
    }
    while sessions.join_next().await.is_some() {}
}

/// Half of the open files that the process may have: the other half is for SRPMs, logs and results.
fn connections() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS.min(files / 2).try_into().unwrap_or(usize::MAX)
}
