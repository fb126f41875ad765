//! `moji-server fsck`: whether folders, records, metadata and history agree, and mending what is safe.
//!
//! [`check`] looks and changes nothing; [`repair`] mends those differences for which there is only one
//! right answer, and never removes an RPM, a log or anything else that exists only once. All of it blocks.
//!
//! It deliberately does not know the scheduler or any builder: what a running server has in its hands
//! looks wrong for a moment, which is why the caller looks twice then.

pub mod command;
mod difference;
mod repair;
mod results;
mod srpms;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

pub use difference::{Area, Difference, Discardable, Repair, Spot};
pub use repair::repair;

use crate::folders::Folders;
use crate::history::{Entry, FileState, Inspected, When, inspect};
use crate::metadata::{self, MetadataConfig};

/// How to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options<'a> {
    /// How files are compared with what is said of them.
    pub depth: Depth,
    /// Who else uses the folders.
    pub server: Server,
    /// What describes packages once more, to compare digests.
    pub createrepo: &'a Path,
}

/// How files are compared with what is said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// By their sizes.
    Sizes,
    /// By their digests too, for which all of them must be read.
    Digests,
}

/// Whether a server uses the folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// One does: what it has in its hands is left out.
    Running,
    /// None does.
    Stopped,
}

/// Everything that disagrees, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub fn check(folders: &Folders, options: Options<'_>) -> anyhow::Result<Vec<Difference>> {
    look(folders, options, &Area::ALL.into())
}

/// What of `before` is still so: for what a running server may have had in its hands.
///
/// # Errors
/// When a folder cannot be read.
pub fn recheck(
    folders: &Folders,
    options: Options<'_>,
    before: &[Difference],
) -> anyhow::Result<Vec<Difference>> {
    let mut still = look(folders, options, &before.iter().map(Difference::area).collect())?;
    still.retain(|difference| before.contains(difference));
    Ok(still)
}

fn look(folders: &Folders, options: Options<'_>, areas: &BTreeSet<Area>) -> anyhow::Result<Vec<Difference>> {
    let mut found = Vec::new();
    if areas.iter().any(|area| *area != Area::Metadata) {
        let when = match options.server {
            Server::Running => When::Running,
            Server::Stopped => When::Quiet,
        };
        let inspected = inspect(folders, when)?;
        if areas.contains(&Area::Folders) {
            srpms::check(folders, &inspected.survey, &mut found).context("cannot compare SRPMs")?;
            staging::check(folders, &inspected, options.server, &mut found)
                .context("cannot look for leftovers")?;
        }
        if areas.contains(&Area::Results) {
            results::check(&inspected.survey, options.depth, &mut found).context("cannot read REPO")?;
        }
        if areas.contains(&Area::History) {
            history(folders, inspected, &mut found);
        }
    }
    if areas.contains(&Area::Metadata) {
        let config = MetadataConfig {
            createrepo: options.createrepo.to_owned(),
            ..MetadataConfig::new(folders.repo.clone(), folders.metadata_private())
        };
        let disagreements = metadata::inspect(&config, options.depth == Depth::Digests)
            .context("cannot compare the metadata with REPO")?;
        found.extend(disagreements.into_iter().map(|(repository, path, what)| Difference::Metadata {
            repository,
            path,
            what,
        }));
    }
    found.sort_by_cached_key(|difference| (difference.area(), difference.path(), difference.kind()));
    Ok(found)
}

fn history(folders: &Folders, inspected: Inspected, found: &mut Vec<Difference>) {
    let Inspected { lacks, file, known, .. } = inspected;
    let path = crate::history::path(folders);
    let file_path = path.clone();
    match file {
        FileState::Sound => {}
        // Nothing was built yet, and the next start makes it.
        FileState::Missing if lacks.is_empty() => {}
        FileState::Missing => {
            return found.push(Difference::NoHistory { path: file_path, builds: lacks.len() });
        }
        FileState::Older(version) => found.push(Difference::OldHistory { path: file_path, version }),
        FileState::Newer(why) => found.push(Difference::NewHistory { path: file_path, why }),
        FileState::Broken(why) => found.push(Difference::BrokenHistory { path: file_path, why }),
        FileState::Unavailable(why) => found.push(Difference::UnusableHistory { path: file_path, why }),
    }
    found.extend(lacks.into_iter().filter_map(|entry| {
        let path = path.clone();
        match entry {
            Entry::Unearthed(settled) => {
                let attempt = settled.record.attempt.as_ref().map(|attempt| attempt.id);
                Some(Difference::UnknownToHistory { path, key: settled.key, attempt })
            }
            Entry::FoundParked { key, record, .. } => {
                let attempt = record.attempt.map(|attempt| attempt.id);
                Some(Difference::UnknownToHistory { path, key, attempt })
            }
            Entry::Settled(settled) => Some(Difference::OpenInHistory { path, key: settled.key }),
            Entry::Withdrawn { key, .. } => Some(Difference::OpenInHistory { path, key }),
            Entry::AttemptEnded(end) => {
                let key = known.attempts.get(&end.attempt).filter(|attempt| attempt.build.is_open());
                let key = key.map(|attempt| attempt.key.clone())?;
                Some(Difference::RunningInHistory { path, key, attempt: end.attempt })
            }
            Entry::Queued(_)
            | Entry::Leased(_)
            | Entry::Readopted(_)
            | Entry::Parked(_)
            | Entry::Together(_)
            | Entry::Provided { .. }
            | Entry::Happened(_) => None,
        }
    }));
}
