//! What builders cost that only wait: memory, and the processor's time. The server is the real program, with its own
//! heartbeat and without a password; the builders are the client's connections in this process, with TLS, each of which
//! has asked for work.

use std::time::Duration;

use anyhow::{anyhow, bail};
use moji_client::access::{Access, KnownServers, Secret};
use moji_client::connection::{self, FromServer, Link, Vitals};
use moji_client::disk::FreeSpace;
use moji_proto::ToServer;
use moji_tests::support::processes::{Farm, let_pass, now};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::handshake::registration;
use crate::measure::{Memory, Spent};
use crate::report::{Goal, Line};

/// How many connect at a time: the server lets few strangers wait.
const AT_A_TIME: usize = 32;

/// What the server has used with so many builders.
struct Waiting {
    builders: usize,
    /// MB.
    memory: f64,
    /// Percent of a core.
    processor: f64,
}

/// With all builders.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let builders = settings.builders;
    let mut waiting = Vec::new();
    for _ in 0..settings.rounds {
        waiting.extend(wait(settings, &[0, builders])?);
    }
    let none: Vec<_> = waiting.iter().filter(|one| one.builders == 0).map(|one| one.memory).collect();
    let all: Vec<_> = waiting.iter().filter(|one| one.builders > 0).collect();
    let memory = Line::new("idle-memory", format!("{builders} idle builders: the server's memory"), "MB")
        .values(all.iter().map(|one| one.memory).collect())
        .goal(Goal::AtMost(40.0))
        .beside("without a builder", none);
    let processor =
        Line::new("idle-cpu", format!("{builders} idle builders: the server's processor"), "% of a core")
            .values(all.iter().map(|one| one.processor).collect())
            .goal(Goal::AtMost(1.0));
    Ok(vec![memory, processor])
}

/// With more and more builders.
pub(super) fn growth(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let counts: Vec<_> = [1, 10, 100, 1000].into_iter().filter(|count| *count <= settings.builders).collect();
    let line = |what: &str, of: &str, count, unit, value| {
        Line::new(
            format!("growth-idle-{what}-{count}"),
            format!("{count} idle builders: the server's {of}"),
            unit,
        )
        .values(vec![value])
    };
    let waiting = wait(settings, &counts)?;
    Ok(waiting
        .iter()
        .flat_map(|Waiting { builders, memory, processor }| {
            [
                line("memory", "memory", builders, "MB", *memory),
                line("cpu", "processor", builders, "% of a core", *processor),
            ]
        })
        .collect())
}

/// One server, to which more and more builders come.
fn wait(settings: &Settings, counts: &[usize]) -> anyhow::Result<Vec<Waiting>> {
    moji_server::run::raise_open_files();
    let farm =
        Farm::start(&["--limit", "connections-per-address=4096", "--limit", "strangers-per-address=512"]);
    let (address, pid) = (farm.address(), farm.server().id());
    let known = KnownServers::new(&farm.path(""));
    let runtime = Runtime::new()?;
    let (mut builders, mut found) = (JoinSet::new(), Vec::new());
    // What came in vain ends with an error that nobody waits for otherwise.
    let mut here = Vec::new();
    for count in counts.iter().copied() {
        runtime.block_on(async {
            while here.len() < count {
                let mut coming = JoinSet::new();
                for number in here.len()..count.min(here.len() + AT_A_TIME) {
                    let (welcome, welcomed) = mpsc::channel(16);
                    let access = Access::encrypted(Secret::None, None, known.clone());
                    builders.spawn(serve(address, access, number, welcome));
                    coming.spawn(ask(welcomed));
                }
                while let Some(one) = coming.join_next().await {
                    here.push(one??);
                }
            }
            anyhow::Ok(())
        })?;
        // Beyond the time in which connecting is forgotten.
        let_pass(Duration::from_secs(2));
        let (begin, before) = (now(), Spent::of(pid)?.all());
        let_pass(settings.idle);
        let used = Spent::of(pid)?.all().saturating_sub(before).as_secs_f64();
        let processor = used / begin.elapsed().as_secs_f64() * 100.0;
        let memory = Memory::of(pid)?.now as f64 * 1024.0 / 1e6;
        found.push(Waiting { builders: count, memory, processor });
        if let Some(ended) = runtime.block_on(async { builders.try_join_next() }) {
            bail!("a builder has gone: {:?}", ended?);
        }
    }
    // They would otherwise complain that the server is killed.
    builders.abort_all();
    Ok(found)
}

/// A builder's connection, until it ends.
async fn serve(
    address: std::net::SocketAddr,
    mut access: Access,
    number: usize,
    events: mpsc::Sender<FromServer>,
) -> anyhow::Result<()> {
    let io = TcpStream::connect(address).await?;
    moji_proto::io::tune(&io)?;
    let registration = registration(&format!("builder-{number}"))?;
    let (_attempts, attempts) = watch::channel(Vec::new());
    let vitals = Vitals { attempts, free_space: FreeSpace::new(|| None) };
    let goodbye = CancellationToken::new();
    connection::serve(io, &address.to_string(), &mut access, registration, vitals, events, goodbye).await?;
    Err(anyhow!("the server has closed the connection"))
}

/// Waits for the welcome, and asks for work. What is given must be kept: without it the connection ends.
async fn ask(mut events: mpsc::Receiver<FromServer>) -> anyhow::Result<(Link, mpsc::Receiver<FromServer>)> {
    match events.recv().await {
        Some(FromServer::Connected(link)) => {
            link.out.send(&ToServer::Ask { slot: 0 })?;
            Ok((link, events))
        }
        other => Err(anyhow!("{other:?} came instead of a welcome")),
    }
}
