//! `scripts/bench`: what a handshake, a transfer, a look into RPMs and a decision of the scheduler cost, each
//! beside a yardstick that was measured in the same run. It judges nothing: a number is good or bad only beside another one.
//!
//! The program is its own server: what a process uses is asked of the process itself, so the server,
//! and whatever has a peak of memory to tell, is this program once more, in another role.

mod handshake;
mod measure;
mod report;
mod roles;
mod scheduling;
mod transfer;
mod verification;

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use report::Report;

/// What can be measured alone.
const PARTS: [&str; 4] = ["handshake", "transfer", "verification", "scheduling"];

/// What is measured, and how much of it.
struct Settings {
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
    /// How often all but the handshakes is measured.
    rounds: usize,
}

impl Settings {
    fn new(is_quick: bool, folder: PathBuf, memory: Option<PathBuf>) -> Self {
        match is_quick {
            false => Self {
                folder,
                memory,
                connections: 200,
                large: 1 << 30,
                small: 2_000,
                queued: 20_000,
                builders: 1_000,
                rounds: 3,
            },
            true => Self {
                folder,
                memory,
                connections: 10,
                large: 16 << 20,
                small: 100,
                queued: 1_000,
                builders: 50,
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
    let mut parts = Vec::new();
    let mut left = words.into_iter();
    while let Some(word) = left.next() {
        match word {
            "--quick" => is_quick = true,
            "--json" => is_json = true,
            "--folder" => folder = left.next().map(PathBuf::from),
            "--memory" => memory = left.next().map(PathBuf::from),
            // What cargo bench says.
            "--bench" => {}
            part if PARTS.contains(&part) => parts.push(part),
            other => bail!("unknown option '{other}': run scripts/bench"),
        }
    }
    let settings = Settings::new(is_quick, folder.context("--folder: where? Run scripts/bench")?, memory);
    let wants = |part| parts.is_empty() || parts.contains(&part);
    let mut report = Report::default();
    if wants("handshake") {
        report.add(handshake::measure(&settings)?);
    }
    if wants("transfer") {
        report.add(transfer::measure("disk", &settings.folder, &settings)?);
        if let Some(memory) = &settings.memory {
            report.add(transfer::measure("memory", memory, &settings)?);
        }
    }
    if wants("verification") {
        report.add(verification::measure(&settings)?);
    }
    if wants("scheduling") {
        report.add(scheduling::measure(&settings)?);
    }
    match is_json {
        true => println!("{}", serde_json::to_string_pretty(&report.json())?),
        false => print!("{report}"),
    }
    Ok(())
}
