//! The subcommand: options, what is printed, exit codes.

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::{Depth, Difference, Options, Server, check, recheck, repair};
use crate::folders::{Claim, Folders};

const EXAMPLES: &str = "\
Examples:
  Look, also while the server runs:
    moji-server fsck /srv/moji/{source,working,finished,repo}
  Read every file, with the folders from the server's configuration:
    moji-server fsck --digests --config /etc/moji/server.toml
  Mend what is safe, as the server's user while the server is stopped:
    sudo -u moji moji-server fsck --repair --config /etc/moji/server.toml

An RPM, a log or anything else that exists only once is never removed.

Exit codes:
  0  everything agrees, or does so now
  1  differences are left
  2  wrong use
  3  the folders cannot be used; or a server runs, and --repair was given";

/// How long what a running server has in its hands may look wrong: the metadata follow at most 15 s after
/// a result, and createrepo_c takes its time.
const PATIENCE: u32 = 15;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// One repair may show what another has to mend.
const ROUNDS: u32 = 3;

/// The options of `moji-server fsck`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct FsckOptions {
    /// The server's folder SOURCE
    pub source: Option<PathBuf>,
    /// The server's folder WORKING
    pub working: Option<PathBuf>,
    /// The server's folder FINISHED
    pub finished: Option<PathBuf>,
    /// The server's folder REPO
    pub repo: Option<PathBuf>,
    /// Mend what is safe; not while a server runs
    #[arg(long)]
    repair: bool,
    /// Read all artifacts, and compare their digests too, and the metadata with what createrepo_c says
    #[arg(long)]
    digests: bool,
    /// Print an array of JSON objects instead of lines
    #[arg(long)]
    json: bool,
    /// The program that makes the metadata, for --digests and --repair [default: createrepo_c]
    #[arg(long, value_name = "PATH", env = "MOJI_CREATEREPO")]
    pub createrepo: Option<PathBuf>,
    /// The server's configuration file, for what is not given here
    #[arg(long, value_name = "FILE", env = "MOJI_SERVER_CONFIG")]
    pub config: Option<PathBuf>,
}

/// A difference as `--json` prints it.
#[derive(Debug, Serialize)]
struct Line {
    difference: &'static str,
    path: String,
    text: String,
    /// What mends it; absent when only a person can know.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<String>,
    repaired: bool,
}

impl FsckOptions {
    /// Does it, over these folders and with this program.
    pub fn run(&self, mut folders: Folders, createrepo: &Path) -> ExitCode {
        match self.try_run(&mut folders, createrepo) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::from(3)
            }
        }
    }

    /// Whether everything agrees at the end.
    fn try_run(&self, folders: &mut Folders, createrepo: &Path) -> anyhow::Result<bool> {
        let claim = folders.claim()?;
        let server = match claim {
            Claim::Ours(_) => Server::Stopped,
            Claim::Server => Server::Running,
        };
        if self.repair {
            may_repair(folders, server)?;
        }
        let depth = if self.digests { Depth::Digests } else { Depth::Sizes };
        let options = Options { depth, server, createrepo };
        let found = match server {
            Server::Stopped => check(folders, options)?,
            Server::Running => look_often(folders, options)?,
        };
        let mut left = found.clone();
        // What is shown last is everything that was found on the way.
        let mut all = found;
        if self.repair {
            for _ in 0..ROUNDS {
                if left.iter().all(|difference| difference.repair().is_none()) {
                    break;
                }
                for error in repair(folders, createrepo, &left) {
                    tracing::error!("{error:#}");
                }
                left = check(folders, options)?;
                all.extend(left.iter().filter(|one| !all.contains(one)).cloned().collect::<Vec<_>>());
            }
        }
        self.print(&all, &left).context("cannot write to standard output")?;
        Ok(left.is_empty())
    }

    fn print(&self, all: &[Difference], left: &[Difference]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let lines: Vec<Line> = all
                .iter()
                .map(|difference| Line {
                    difference: difference.kind(),
                    path: difference.path().display().to_string(),
                    text: difference.sentence().into_owned(),
                    repair: difference.repair().map(|repair| repair.to_string()),
                    repaired: !left.contains(difference),
                })
                .collect();
            serde_json::to_writer_pretty(&mut out, &lines)?;
            return writeln!(out);
        }
        for difference in all {
            match (difference.repair(), left.contains(difference)) {
                (_, false) => writeln!(out, "{difference} (repaired)")?,
                (Some(repair), true) => writeln!(out, "{difference} (--repair: {repair})")?,
                (None, true) => writeln!(out, "{difference}")?,
            }
        }
        let repairable = left.iter().filter(|difference| difference.repair().is_some()).count();
        match (all.len(), left.len()) {
            (0, _) => writeln!(out, "folders, records, metadata and history agree"),
            (1, 0) => writeln!(out, "1 difference, repaired"),
            (all, 0) => writeln!(out, "{all} differences, all repaired"),
            (all, left) if self.repair => writeln!(out, "{all} differences, {left} are left"),
            (1, _) => writeln!(out, "1 difference; --repair mends {repairable} of it"),
            (all, _) => writeln!(out, "{all} differences; --repair mends {repairable} of them"),
        }
    }
}

fn may_repair(folders: &Folders, server: Server) -> anyhow::Result<()> {
    if server == Server::Running {
        bail!(
            "a moji-server uses {}: stop it first, --repair must not change what it has in its hands",
            folders.working.display()
        );
    }
    let private = folders.private();
    let owner = std::fs::metadata(&private).map(|found| found.uid());
    let owner = owner.with_context(|| format!("cannot look at {}", private.display()))?;
    if owner != rustix::process::geteuid().as_raw() {
        bail!(
            "{} belongs to another user: run --repair as that one, or the server cannot use what it makes",
            private.display()
        );
    }
    Ok(())
}

/// What stays so although a server is at work.
fn look_often(folders: &Folders, options: Options<'_>) -> anyhow::Result<Vec<Difference>> {
    let mut found = check(folders, options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    for _ in 0..PATIENCE {
        if found.is_empty() {
            break;
        }
        runtime.block_on(async { tokio::time::sleep(BETWEEN_LOOKS).await });
        found = recheck(folders, options, &found)?;
    }
    Ok(found)
}
