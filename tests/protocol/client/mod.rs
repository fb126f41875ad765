//! The other way round: the real client with a builder that does what a test says, against a
//! server that does what a test says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_client::access::{Access, Secret, Unwelcome};
use moji_client::builder::{BuildTask, Builder, Building};
use moji_client::run::{Config, Connector, Signal, Why};
use moji_client::work_dir::WorkDir;
use moji_proto::frame::{self, Kind};
use moji_proto::handshake::{PLAINTEXT, Refusal, RefusalCode, ServerSecret};
use moji_proto::{AttemptId, FailureKind, HeldAttempt, LogFile, Outcome, Sha256, ToBuilder, ToServer};
use moji_tests::support::simulated::{
    Peer, ScriptedServer, names_in, registration, rpm, scratch, server_secret, srpm,
};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Result;

mod building;
mod connecting;
mod delivering;
mod holding;
mod leaving;
mod outbox;
mod repository;

/// A build that the client has begun, for the test to end.
struct Begun {
    task: BuildTask,
    cancel: CancellationToken,
    end: oneshot::Sender<Ending>,
}

enum Ending {
    With(Outcome),
    NotEvenBegun,
    Panic,
}

impl Begun {
    /// Waits until the client stops the build.
    async fn stopped(&self) -> Result {
        timeout(Duration::from_secs(300), self.cancel.cancelled()).await.context("it was never stopped")
    }

    /// Writes files into the result folder and ends.
    fn end(self, outcome: Outcome, files: &[(&str, &[u8])]) -> Result {
        for (name, content) in files {
            fs::write(self.task.resultdir.join(name), content)?;
        }
        self.end.send(Ending::With(outcome)).ok().context("nobody waits for this build")
    }
}

struct ScriptedBuilds(mpsc::UnboundedSender<Begun>);

impl Builder for ScriptedBuilds {
    fn build(self: Arc<Self>, task: BuildTask, cancel: CancellationToken) -> Building {
        let (end, ended) = oneshot::channel();
        let told = self.0.send(Begun { task, cancel: cancel.clone(), end });
        Box::pin(async move {
            told.ok().context("the test is over")?;
            let interrupted = || Outcome::failed(FailureKind::Interrupted, "cancelled", None, Vec::new());
            tokio::select! {
                // What has ended by itself cannot be stopped.
                biased;
                ending = ended => match ending {
                    Ok(Ending::With(outcome)) => Ok(outcome),
                    Ok(Ending::NotEvenBegun) => bail!("the disk is full"),
                    #[expect(clippy::panic, reason = "what is tested")]
                    Ok(Ending::Panic) => panic!("on purpose"),
                    Err(_) => Ok(interrupted()),
                },
                () = cancel.cancelled() => Ok(interrupted()),
            }
        })
    }
}

struct ToTest(mpsc::UnboundedSender<DuplexStream>);

impl Connector for ToTest {
    type Io = DuplexStream;

    async fn connect(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.0.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }

    fn server(&self) -> String {
        "a test".into()
    }

    fn jitter(&self) -> u32 {
        0
    }
}

/// The client, and everything that a test moves.
struct Driven {
    at: Arc<TempDir>,
    connections: mpsc::UnboundedReceiver<DuplexStream>,
    builds: mpsc::UnboundedReceiver<Begun>,
    signals: mpsc::Sender<Signal>,
    client: JoinHandle<anyhow::Result<Why>>,
    secret: ServerSecret,
}

impl Driven {
    fn new(slots: u16) -> anyhow::Result<Self> {
        Self::start(slots, |_| {})
    }

    /// `adjust` changes how the client runs.
    fn start(slots: u16, adjust: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        Self::start_at(Arc::new(scratch()?), slots, adjust)
    }

    /// In a folder in which another client has worked.
    fn start_at(at: Arc<TempDir>, slots: u16, adjust: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let (connect, connections) = mpsc::unbounded_channel();
        let (begin, builds) = mpsc::unbounded_channel();
        let (signals, signalled) = mpsc::channel(2);
        let mut config = Config::new(registration("driven", &["f43"], slots)?);
        config.log_limit = 100_000;
        adjust(&mut config);
        let secret = server_secret(None)?;
        let work_dir = Arc::new(WorkDir::open(&at.path().join("work"))?);
        let builder = Arc::new(ScriptedBuilds(begin));
        let client = moji_client::run::run(config, ToTest(connect), builder, work_dir, signalled);
        Ok(Self { at, connections, builds, signals, client: tokio::spawn(client), secret })
    }

    async fn connection(&mut self) -> anyhow::Result<DuplexStream> {
        self.connections.recv().await.context("the client makes no more connections")
    }

    /// Lets the client in.
    async fn server(&mut self) -> anyhow::Result<ScriptedServer> {
        let io = self.connection().await?;
        Ok(ScriptedServer::welcome(io, &self.secret).await?.0)
    }

    /// Lets the client in, which has asked for each of these slots then.
    async fn server_asked(&mut self, slots: impl IntoIterator<Item = u16>) -> anyhow::Result<ScriptedServer> {
        let mut server = self.server().await?;
        asked(&mut server, slots).await?;
        Ok(server)
    }

    /// Gives an SRPM to a slot and waits until its build has begun.
    async fn building(
        &mut self,
        server: &mut ScriptedServer,
        serial: u64,
        slot: u16,
        name: &str,
    ) -> anyhow::Result<(AttemptId, Begun)> {
        let (bytes, sha256) = source(name);
        let attempt = server.assign(serial, slot, name, &bytes, sha256).await?;
        Ok((attempt, self.begun().await?))
    }

    async fn begun(&mut self) -> anyhow::Result<Begun> {
        self.builds.recv().await.context("no more builds")
    }

    /// What the client keeps of attempts.
    fn left(&self) -> Vec<String> {
        let work = self.at.path().join("work");
        let mut left = names_in(&work.join("outbox"));
        left.extend((0..4).flat_map(|slot| names_in(&work.join(format!("slot-{slot}")))));
        left
    }

    /// Waits until it keeps nothing.
    async fn nothing_left(&self) -> Result {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.left().is_empty() {
            if Instant::now() > end {
                bail!("it keeps {:?}", self.left());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// The server hears the client ask for each of its slots.
async fn asked(server: &mut ScriptedServer, slots: impl IntoIterator<Item = u16>) -> Result {
    for slot in slots {
        assert_eq!(server.word().await?, ToServer::Ask { slot });
    }
    Ok(())
}

fn source(name: &str) -> (Vec<u8>, Sha256) {
    let bytes = srpm(name, "1", "1", 400_000);
    let sha256 = Sha256::of(&bytes);
    (bytes, sha256)
}

/// The next message must be that an attempt is held.
async fn held(server: &mut ScriptedServer) -> anyhow::Result<HeldAttempt> {
    match server.word().await? {
        ToServer::Hold(held) => Ok(held),
        other => bail!("{other:?} came instead of a hold"),
    }
}

/// The server takes a delivery that is about to come, and accepts it.
async fn accept(server: &mut ScriptedServer, attempt: AttemptId) -> Result {
    let (delivered, ..) = server.delivery().await?;
    assert_eq!(delivered, attempt);
    server.say(ToBuilder::Accepted { attempt }).await
}

/// Nothing but heartbeats comes for a minute.
async fn nothing_is_said(server: &mut ScriptedServer) -> Result {
    if let Ok(word) = timeout(Duration::from_secs(60), server.word()).await {
        bail!("{word:?}");
    }
    Ok(())
}

/// The next message that is not about a live log.
async fn no_log(server: &mut ScriptedServer) -> anyhow::Result<ToServer> {
    loop {
        match server.word().await? {
            ToServer::Log { .. } => {}
            other => return Ok(other),
        }
    }
}
