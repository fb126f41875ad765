//! How soon a server with a long queue gives out the first build, and how soon a new priority.txt counts.
//!
//! A start is timed from the start of the program until a builder that was waiting for it is told what to build: cold with
//! empty folders but for SOURCE, and warm after a server before it.

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::Settings;
use crate::queue::{Queue, Served, enter, file_of};
use crate::report::{Goal, Line};
use moji_tests::support::processes::now;

/// How often a list is edited for each start.
const EDITS: usize = 5;

/// Measures it.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let queue = Queue::make(&settings.folder.join("start"), settings.queued)?;
    let runtime = runtime()?;
    let (mut headers, mut cold, mut warm, mut edits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        headers.push(queue.read_headers()?);
        queue.forget()?;
        let server = runtime.block_on(queue.serve("cold"))?;
        cold.push(server.first);
        queue.wait_kept();
        server.stop()?;
        let mut server = runtime.block_on(queue.serve("warm"))?;
        warm.push(server.first);
        for number in 0..EDITS {
            // What has an even number needs nobody, and nobody, or hardly anybody, needs the last ones.
            edits.push(runtime.block_on(edit(
                &queue,
                &mut server,
                (settings.queued - 2 * (number + 1)) & !1,
            ))?);
        }
        queue.prefer_nothing()?;
        server.stop()?;
    }
    let count = settings.queued;
    let read = format!("reading {count} headers, one thread");
    Ok(vec![
        Line::new("start-cold", format!("start with {count} SRPMs, cold"), "ms")
            .values(cold)
            .goal(Goal::AtMost(1500.0))
            .beside(read.clone(), headers.clone()),
        Line::new("start-warm", format!("start with {count} SRPMs, headers known"), "ms")
            .values(warm)
            .goal(Goal::AtMost(300.0))
            .beside(read, headers),
        Line::new("priority-edit", format!("priority.txt to hand-out, {count} SRPMs"), "ms")
            .values(edits)
            .goal(Goal::AtMost(50.0)),
    ])
}

/// What waits for the server.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// From the rename of a priority.txt that names one SRPM until that one is given out, while a builder asks all the time;
/// in milliseconds.
async fn edit(queue: &Queue, server: &mut Served, number: usize) -> anyhow::Result<f64> {
    let stream = TcpStream::connect(server.address).await?;
    let mut builder = enter(stream, &format!("asking-{number}")).await?;
    let wanted = file_of(number);
    let begin = now();
    queue.prefer(number)?;
    for slot in 0..moji_proto::limits::SLOTS {
        builder.ask(slot).await?;
        if builder.assignment().await?.srpm.as_str() == wanted {
            let took = begin.elapsed().as_secs_f64() * 1e3;
            // What it holds stays so.
            server.others.push(builder);
            return Ok(took);
        }
    }
    anyhow::bail!("{wanted} was not given out")
}
