//! How what a server does grows with the queue and with the builders. Only measured when it is asked for.

use crate::Settings;
use crate::idle;
use crate::publication;
use crate::queue::Queue;
use crate::report::Line;
use crate::scheduling::decision;
use crate::start::runtime;

const QUEUED: [usize; 4] = [100, 1_000, 5_000, 20_000];
const BUILDERS: [usize; 4] = [1, 10, 100, 1_000];

/// Measures all of it.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for queued in QUEUED.into_iter().filter(|queued| *queued <= settings.queued) {
        for builders in BUILDERS.into_iter().filter(|builders| *builders <= settings.builders) {
            lines.push(decisions(queued, builders, settings.rounds)?);
        }
        lines.extend(starts(queued, settings)?);
    }
    lines.extend(idle::growth(settings)?);
    lines.extend(publication::growth(settings)?);
    Ok(lines)
}

fn decisions(queued: usize, builders: usize, rounds: usize) -> anyhow::Result<Line> {
    let times: Result<Vec<_>, _> = (0..rounds).map(|_| decision(queued, builders, true)).collect();
    let what = format!("hand-out decision, {queued} SRPMs, {builders} builders");
    Ok(Line::new(format!("growth-decision-{queued}-{builders}"), what, "us").values(times?))
}

/// The first hand-out after a start, cold and warm, and the memory of the server.
fn starts(queued: usize, settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let queue = Queue::make(&settings.folder.join(format!("growth-{queued}")), queued)?;
    let runtime = runtime()?;
    let (mut cold, mut warm, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        queue.forget()?;
        let server = runtime.block_on(queue.serve("cold"))?;
        cold.push(server.first);
        queue.wait_kept();
        server.stop()?;
        let server = runtime.block_on(queue.serve("warm"))?;
        warm.push(server.first);
        memory.push(server.peak()?);
        server.stop()?;
    }
    let line = |key: &str, what: &str, unit, values| {
        Line::new(format!("growth-{key}-{queued}"), format!("{what}, {queued} SRPMs"), unit).values(values)
    };
    Ok(vec![
        line("start", "start, cold", "ms", cold),
        line("start-warm", "start, headers known", "ms", warm),
        line("memory", "the server's memory at most", "MiB", memory),
    ])
}
