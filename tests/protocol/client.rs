//! The other way round: the real client with a builder that does what a test says, against a
//! server that does what a test says.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_client::builder::{BuildTask, Builder, Building};
use moji_client::connection::Unwelcome;
use moji_client::run::{Config, Connector, Signal, Why};
use moji_client::work_dir::WorkDir;
use moji_proto::frame::{self, Kind};
use moji_proto::handshake::{Refusal, RefusalCode, ServerSecret};
use moji_proto::{FailureKind, LogFile, Outcome, Sha256, ToBuilder, ToServer};
use moji_tests::support::simulated::{Peer, ScriptedServer, names_in, registration, rpm, scratch, srpm};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Result;

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
                () = cancel.cancelled() => Ok(interrupted()),
                ending = ended => match ending {
                    Ok(Ending::With(outcome)) => Ok(outcome),
                    Ok(Ending::NotEvenBegun) => bail!("the disk is full"),
                    #[expect(clippy::panic, reason = "what is tested")]
                    Ok(Ending::Panic) => panic!("on purpose"),
                    Err(_) => Ok(interrupted()),
                },
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
    at: TempDir,
    connections: mpsc::UnboundedReceiver<DuplexStream>,
    builds: mpsc::UnboundedReceiver<Begun>,
    signals: mpsc::Sender<Signal>,
    client: JoinHandle<anyhow::Result<Why>>,
    secret: ServerSecret,
}

impl Driven {
    fn new(slots: u16) -> anyhow::Result<Self> {
        Self::start(slots, None, None)
    }

    fn start(slots: u16, password: Option<&str>, exit_when_idle: Option<u64>) -> anyhow::Result<Self> {
        let at = scratch()?;
        let (connect, connections) = mpsc::unbounded_channel();
        let (begin, builds) = mpsc::unbounded_channel();
        let (signals, signalled) = mpsc::channel(2);
        let config = Config {
            registration: registration("driven", &["f43"], slots)?,
            password: password.map(Into::into),
            exit_when_idle: exit_when_idle.map(Duration::from_secs),
            log_limit: 100_000,
        };
        let work_dir = Arc::new(WorkDir::open(&at.path().join("work"))?);
        let builder = Arc::new(ScriptedBuilds(begin));
        let client = moji_client::run::run(config, ToTest(connect), builder, work_dir, signalled);
        let secret = ServerSecret::new(password, [3; 16])?;
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

/// The next message that is not about a live log.
async fn no_log(server: &mut ScriptedServer) -> anyhow::Result<ToServer> {
    loop {
        match server.word().await? {
            ToServer::Log { .. } => {}
            other => return Ok(other),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_asks_for_each_slot_builds_delivers_and_asks_again() -> Result {
    let mut driven = Driven::new(3)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..3).await?;
    let (bytes, sha256) = source("whole");
    let attempt = server.assign(41, 1, "whole", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    assert_eq!((begun.task.slot, begun.task.target.as_str()), (1, "f43"));
    assert!(fs::read(&begun.task.srpm)? == bytes);
    let rpm = rpm("whole", "1", "1", "whole-1-1.src.rpm", 500_000);
    begun.end(Outcome::Succeeded, &[("whole-1-1.noarch.rpm", &rpm), ("build.log", b"fine")])?;
    let (delivered, outcome, files) = server.delivery().await?;
    assert_eq!((delivered, outcome), (attempt, Outcome::Succeeded));
    assert!(files["whole-1-1.noarch.rpm"] == rpm && files["build.log"] == b"fine");
    assert_eq!(driven.left().len(), 2, "the outbox is kept until it is accepted: {:?}", driven.left());
    server.say(ToBuilder::Accepted { attempt }).await?;
    asked(&mut server, [1]).await?;
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn logs_are_live() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("live");
    let attempt = server.assign(42, 0, "live", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    fs::write(begun.task.resultdir.join("build.log"), "+ make\n")?;
    let stream = match server.word().await? {
        ToServer::Log { attempt: of, file: LogFile::Build, offset: 0, stream } if of == attempt => stream,
        other => bail!("{other:?}"),
    };
    server.until(|peer| peer.streams.get(&stream).is_some_and(|heard| heard.bytes == b"+ make\n")).await
}

#[tokio::test(start_paused = true)]
async fn it_reconnects_with_waits_from_a_second_to_half_a_minute_at_least() -> Result {
    let mut driven = Driven::new(1)?;
    let mut waits = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        drop(driven.connection().await?);
        waits.push(begun.elapsed().as_secs());
    }
    // Without jitter: the lower half of 2 s, 4 s … 60 s.
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    drop(driven.server().await?);
    let begun = Instant::now();
    driven.server().await?;
    assert_eq!(begun.elapsed().as_secs(), 1, "a connection that worked begins anew");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_the_hello_is_left_after_half_a_minute() -> Result {
    let mut driven = Driven::new(1)?;
    let _silent = driven.connection().await?;
    let begun = Instant::now();
    let _next = driven.connection().await?;
    assert_eq!(begun.elapsed().as_secs(), 31);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn with_a_password_it_leaves_a_server_that_wants_none() -> Result {
    let mut driven = Driven::start(1, Some("secret"), None)?;
    driven.secret = ServerSecret::new(None, [0; 16])?;
    assert!(driven.server().await.is_err(), "it registered");
    let error = driven.client.await?.expect_err("went on");
    assert!(
        error.is::<Unwelcome>() && format!("{error:#}").contains("does not ask for the password"),
        "{error:#}"
    );
    Ok(())
}

/// Somebody who does not know the password lets everybody in, to get at their packages.
#[tokio::test(start_paused = true)]
async fn it_leaves_a_server_that_does_not_know_the_password() -> Result {
    let mut driven = Driven::start(1, Some("secret"), None)?;
    let mut impostor: ScriptedServer = Peer::new(driven.connection().await?);
    let hello = impostor.frame().await?;
    let answer = driven.secret.answer(hello, &[9; 32], &moji_proto::handshake::PLAINTEXT)?;
    impostor.raw(&answer.hello).await?;
    assert_eq!(impostor.frame().await?.kind, Kind::Proof);
    impostor.raw(&frame::encode(Kind::Proof, &[0x11; 32])).await?;
    assert!(impostor.frame().await.is_err(), "it went on");
    let error = driven.client.await?.expect_err("went on");
    assert!(error.is::<Unwelcome>() && format!("{error:#}").contains("not your server"), "{error:#}");
    Ok(())
}

async fn refuse(io: DuplexStream, code: RefusalCode) -> Result {
    let mut server: ScriptedServer = Peer::new(io);
    server.frame().await?;
    server.raw(&Refusal::new(code, "no, because of the test").encode()).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn refused_at_first_contact_it_ends_and_says_why() -> Result {
    // For a password there is better advice than what the server says.
    let expected =
        [(RefusalCode::WrongPassword, "--password-file"), (RefusalCode::Version, "because of the test")];
    for (code, says) in expected {
        let mut driven = Driven::new(1)?;
        refuse(driven.connection().await?, code).await?;
        let error = driven.client.await?.expect_err("went on");
        assert!(error.is::<Unwelcome>() && format!("{error:#}").contains(says), "{error:#}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn refused_later_or_because_the_server_is_busy_it_goes_on_trying() -> Result {
    let mut driven = Driven::new(1)?;
    for _ in 0..3 {
        refuse(driven.connection().await?, RefusalCode::Busy).await?;
    }
    drop(driven.server().await?);
    for _ in 0..20 {
        refuse(driven.connection().await?, RefusalCode::WrongPassword).await?;
    }
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await
}

#[tokio::test(start_paused = true)]
async fn a_damaged_srpm_is_given_back_and_the_slot_rests() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, _) = source("damaged");
    let attempt = server.assign(43, 1, "damaged", &bytes, Sha256::of(b"another")).await?;
    let begun = Instant::now();
    match server.word().await? {
        ToServer::Release { attempt: released, reason, .. } => {
            assert!(released == attempt && reason.contains("damaged"), "{reason}");
        }
        other => bail!("{other:?}"),
    }
    asked(&mut server, [1]).await?;
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert!(driven.builds.try_recv().is_err(), "a damaged SRPM was built");
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_cannot_begin_gives_the_attempt_back_and_rests() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("unlucky");
    let attempt = server.assign(44, 0, "unlucky", &bytes, sha256).await?;
    let _ = driven.begun().await?.end.send(Ending::NotEvenBegun);
    let released = server.word().await?;
    assert!(
        matches!(&released, ToServer::Release { attempt: a, reason, trouble: true } if *a == attempt && reason.contains("disk"))
    );
    let begun = Instant::now();
    asked(&mut server, [0]).await?;
    assert_eq!(begun.elapsed().as_secs(), 30);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn cancel_and_stale_stop_the_build_and_the_slot_asks_again() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    for serial in [45, 46] {
        let (bytes, sha256) = source("unwanted");
        let attempt = server.assign(serial, 0, "unwanted", &bytes, sha256).await?;
        let begun = driven.begun().await?;
        assert!(!begun.cancel.is_cancelled());
        let reason = "taken away".into();
        let word =
            if serial == 45 { ToBuilder::Cancel { attempt, reason } } else { ToBuilder::Stale { attempt } };
        server.say(word).await?;
        begun.stopped().await?;
        // Nothing is delivered or released: the attempt is over.
        asked(&mut server, [0]).await?;
        assert_eq!(driven.left(), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_the_middle_of_the_srpm_ends_the_attempt() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let stream = server.next_stream();
    let attempt = moji_proto::AttemptId { boot: 5, serial: 47 };
    let assignment = moji_proto::Assignment {
        attempt,
        slot: 0,
        target: "f43".parse()?,
        srpm: "half-1-1.src.rpm".parse()?,
        size: 1_000,
        stream,
    };
    server.say(ToBuilder::Assign(assignment)).await?;
    server.data(stream, &[1; 400]).await?;
    server.say(ToBuilder::Cancel { attempt, reason: "taken away".into() }).await?;
    asked(&mut server, [0]).await?;
    server.until(|peer| peer.unwanted == [stream]).await?;
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn rejected_results_are_delivered_again_and_refused_ones_forgotten() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("again");
    let attempt = server.assign(48, 0, "again", &bytes, sha256).await?;
    driven.begun().await?.end(Outcome::Succeeded, &[("again-1-1.noarch.rpm", b"built")])?;
    let first = server.delivery().await?;
    for _ in 0..2 {
        let begun = Instant::now();
        server.say(ToBuilder::Rejected { attempt, reason: "the disk is full".into(), again: true }).await?;
        assert!(server.delivery().await? == first);
        assert_eq!(begun.elapsed().as_secs(), 15);
    }
    server.say(ToBuilder::Rejected { attempt, reason: "never".into(), again: false }).await?;
    asked(&mut server, [0]).await?;
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

/// The server says that it wants no more bytes, and why it rejected what there was.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_unwanted_in_the_middle_is_delivered_again() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("stopped");
    let attempt = server.assign(49, 0, "stopped", &bytes, sha256).await?;
    let large = vec![7; 6 << 20];
    driven.begun().await?.end(Outcome::Succeeded, &[("stopped-1-1.noarch.rpm", &large)])?;
    let stream = match no_log(&mut server).await? {
        ToServer::Deliver { .. } => {
            assert!(matches!(no_log(&mut server).await?, ToServer::Manifest { .. }));
            server.want(attempt, 0, moji_proto::Sha256::of(b"")).await?
        }
        other => bail!("{other:?}"),
    };
    server.say(moji_proto::StreamMessage::Unwanted { stream }).await?;
    server.say(ToBuilder::Rejected { attempt, reason: "the disk is full".into(), again: true }).await?;
    assert!(server.whole(stream).await.is_err(), "it went on sending");
    let (_, _, files) = server.delivery().await?;
    assert!(files["stopped-1-1.noarch.rpm"] == large);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_stops_the_build_and_the_slot_asks_on_the_next_one() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("lost");
    server.assign(50, 0, "lost", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    drop(server);
    begun.stopped().await?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    assert_eq!(driven.left(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_given_up_after_dead_after() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("silent");
    server.assign(51, 0, "silent", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    let since = Instant::now();
    begun.stopped().await?;
    // And at most three seconds in which it is told.
    assert!((30..=33).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    // Its end is still open: it simply says nothing.
    let mut next = driven.server().await?;
    asked(&mut next, [0]).await?;
    drop(server);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_first_signal_finishes_and_leaves() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, sha256) = source("finish");
    let attempt = server.assign(52, 0, "finish", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(server.word().await?, ToServer::Drain);
    // What crossed the drain on its way is given back.
    let (other, sha256) = source("crossed");
    let crossed = server.assign(53, 1, "crossed", &other, sha256).await?;
    let released = server.word().await?;
    assert!(matches!(&released, ToServer::Release { attempt, .. } if *attempt == crossed), "{released:?}");
    assert!(!begun.cancel.is_cancelled());
    begun.end(Outcome::Succeeded, &[("finish-1-1.noarch.rpm", b"built")])?;
    assert_eq!(server.delivery().await?.0, attempt);
    assert!(
        timeout(Duration::from_secs(5), &mut driven.client).await.is_err(),
        "left before it was accepted"
    );
    server.say(ToBuilder::Accepted { attempt }).await?;
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Told);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_gives_back_and_leaves() -> Result {
    let mut driven = Driven::new(1)?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("given");
    let attempt = server.assign(54, 0, "given", &bytes, sha256).await?;
    let begun = driven.begun().await?;
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(server.word().await?, ToServer::Drain);
    driven.signals.send(Signal::Stop).await?;
    begun.stopped().await?;
    let released = server.word().await?;
    assert!(matches!(&released, ToServer::Release { attempt: a, .. } if *a == attempt), "{released:?}");
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Told);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn told_to_leave_without_a_server_it_leaves() -> Result {
    let mut driven = Driven::new(1)?;
    drop(driven.connection().await?);
    let begun = Instant::now();
    driven.signals.send(Signal::Drain).await?;
    assert_eq!(driven.client.await??, Why::Told);
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_leaves_when_it_was_told_so() -> Result {
    let mut driven = Driven::start(1, None, Some(600))?;
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await?;
    let begun = Instant::now();
    assert!(matches!(server.word().await?, ToServer::Goodbye { .. }));
    assert_eq!(driven.client.await??, Why::Idle);
    assert_eq!(begun.elapsed().as_secs(), 600);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_job_costs_its_attempt_and_not_the_client() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, sha256) = source("panic");
    let attempt = server.assign(55, 0, "panic", &bytes, sha256).await?;
    let _ = driven.begun().await?.end.send(Ending::Panic);
    // The other slot works on, and the attempt is given back, or nobody would ever build it.
    let (other, sha256) = source("other");
    let second = server.assign(56, 1, "other", &other, sha256).await?;
    driven.begun().await?.end(Outcome::Succeeded, &[("other-1-1.noarch.rpm", b"built")])?;
    let mut released = false;
    let begun = Instant::now();
    loop {
        match no_log(&mut server).await? {
            ToServer::Release { attempt: given, .. } => {
                assert_eq!(given, attempt);
                released = true;
            }
            ToServer::Deliver { attempt, .. } => assert_eq!(attempt, second),
            ToServer::Manifest { .. } => server.say(ToBuilder::Accepted { attempt: second }).await?,
            ToServer::Ask { slot: 1 } => {}
            ToServer::Ask { slot: 0 } => break,
            other => bail!("{other:?}"),
        }
    }
    assert!(released, "nobody will ever build what panicked");
    assert_eq!(begun.elapsed().as_secs(), 30);
    Ok(())
}

/// What the protocol says about a client that the server misuses.
#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_protocol_is_left() -> Result {
    let mut driven = Driven::new(1)?;
    for bytes in
        [vec![0; 32], frame::data_header(9, 3).to_vec(), frame::encode(Kind::Control, &[99]).to_vec()]
    {
        let mut server = driven.server().await?;
        asked(&mut server, [0]).await?;
        server.raw(&bytes).await?;
        server.raw(b"abc").await?;
        server.to_the_end().await;
    }
    let mut server = driven.server().await?;
    asked(&mut server, [0]).await
}

#[tokio::test(start_paused = true)]
async fn work_for_a_slot_that_did_not_ask_is_given_back() -> Result {
    let mut driven = Driven::new(2)?;
    let mut server = driven.server().await?;
    asked(&mut server, 0..2).await?;
    let (bytes, sha256) = source("busy");
    server.assign(57, 0, "busy", &bytes, sha256).await?;
    let _begun = driven.begun().await?;
    for (serial, slot) in [(58, 0), (59, 7)] {
        let attempt = server.assign(serial, slot, "surplus", &bytes, sha256).await?;
        let released = server.word().await?;
        assert!(matches!(&released, ToServer::Release { attempt: a, .. } if *a == attempt), "{released:?}");
    }
    sleep(Duration::from_secs(1)).await;
    assert!(driven.builds.try_recv().is_err());
    Ok(())
}
