//! `scripts/bench`: what builds that take no time, publications, transfers, starts, builders that wait, handshakes, looks
//! into RPMs and decisions of the scheduler cost, each beside a yardstick that was measured in the same run. It judges
//! nothing: a number is good or bad only beside another one.
//!
//! Where only a server's part counts the program is its own server: what a process uses is asked of the process itself, so
//! the server, and whatever has a peak of memory to tell, is this program once more, in another role.

mod delivering;
mod farm;
mod growth;
mod handshake;
mod idle;
mod measure;
mod publication;
mod queue;
mod raw;
mod report;
mod roles;
mod scheduling;
mod selection;
mod start;
mod transfer;
mod verification;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use report::Report;
use selection::{Part, Selection};

/// What is measured, and how much of it.
#[derive(Clone)]
struct Settings {
    /// Only to see that it works.
    is_quick: bool,
    /// Where files may lie.
    folder: PathBuf,
    /// The same in memory, if there is room.
    memory: Option<PathBuf>,
    /// Connections of each kind.
    connections: usize,
    /// Bytes of the one large artifact.
    large: usize,
    /// How many small packages.
    small: usize,
    /// How many SRPMs are queued.
    queued: usize,
    /// For how many builders.
    builders: usize,
    /// How long idle builders are watched.
    idle: Duration,
    /// How often all but the handshakes is measured.
    rounds: usize,
}

impl Settings {
    fn new(is_quick: bool, folder: PathBuf, memory: Option<PathBuf>) -> Self {
        match is_quick {
            false => Self {
                is_quick,
                folder,
                memory,
                connections: 200,
                large: 1 << 30,
                small: 2_000,
                queued: 20_000,
                builders: 1_000,
                idle: Duration::from_secs(30),
                rounds: 3,
            },
            true => Self {
                is_quick,
                folder,
                memory,
                connections: 10,
                large: 16 << 20,
                small: 100,
                queued: 1_000,
                builders: 50,
                idle: Duration::from_secs(2),
                rounds: 1,
            },
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let ["role", role @ ..] = &words[..] {
        return roles::play(role);
    }
    let (mut is_quick, mut is_json, mut folder, mut memory) = (false, false, None, None);
    let (mut names, mut save) = (Vec::new(), None);
    let mut left = words.into_iter();
    while let Some(word) = left.next() {
        match word {
            "--quick" => is_quick = true,
            "--json" => is_json = true,
            "--folder" => folder = left.next().map(PathBuf::from),
            "--memory" => memory = left.next().map(PathBuf::from),
            "--save" => save = Some(left.next().context("--save: where?")?),
            // What cargo bench says.
            "--bench" => {}
            option if option.starts_with('-') => bail!("unknown option '{option}': run scripts/bench"),
            name => names.push(name),
        }
    }
    let settings = Settings::new(is_quick, folder.context("--folder: where? Run scripts/bench")?, memory);
    let report = measure(&settings, &Selection::new(&names)?)?;
    let json = serde_json::to_string_pretty(&report.json())?;
    if let Some(path) = save {
        fs::write(path, format!("{json}\n")).with_context(|| format!("failed to write {path}"))?;
    }
    match is_json {
        true => println!("{json}"),
        false => print!("{report}"),
    }
    Ok(())
}

/// What was asked for.
fn measure(settings: &Settings, selection: &Selection<'_>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for part in Part::ALL.into_iter().filter(|part| selection.wants(*part)) {
        let (mut lines, mut tables) = (Vec::new(), Vec::new());
        let with_tables = selection.wants_whole(part);
        match part {
            Part::Farm => lines = farm::measure(settings)?,
            Part::Idle => lines = idle::measure(settings)?,
            Part::Start => lines = start::measure(settings)?,
            Part::Publication => lines = publication::measure(settings)?,
            Part::Handshake => tables.push(handshake::measure(settings)?),
            Part::Transfer => lines = transfer::measure(settings)?,
            Part::Verification => tables.push(verification::measure(settings)?),
            Part::Scheduling => {
                lines = scheduling::decide(settings)?;
                if with_tables {
                    tables.push(scheduling::measure(settings)?);
                }
            }
            Part::Growth => lines = growth::measure(settings)?,
        }
        let unknown = lines.iter().find(|line| !part.has(&line.key));
        if let (true, Some(line)) = (settings.is_quick, unknown) {
            bail!("{} is not in the list of {}: --only does not know it", line.key, part.name());
        }
        lines.retain(|line| selection.shows(part, &line.key));
        report.lines(lines);
        tables.into_iter().for_each(|table| report.add(table));
    }
    ensure!(!report.is_empty(), "nothing of what was measured has such a name");
    Ok(report)
}
