//! What only moji's own writing can have left: staging of attempts, parts of files, probes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moji_proto::names::RESERVED_ARTIFACT;
use moji_proto::{AttemptId, TargetName};

use super::Server;
use super::difference::{Difference, Discardable};
use crate::folders::Folders;
use crate::history::{FAILED, HELD, Inspected, entries, is_repository, result_folders};
use crate::lease_record::{FileIdentity, LeaseRecord};
use crate::metadata::UNFINISHED;

/// How the files begin with which a starting server tries whether it may rename.
const PROBE: &str = ".moji-probe-";
const PART: &str = ".part";

pub(super) fn check(
    folders: &Folders,
    inspected: &Inspected,
    server: Server,
    found: &mut Vec<Difference>,
) -> io::Result<()> {
    // Those of a running server are its own business.
    if server == Server::Stopped {
        attempts(folders, inspected, found)?;
    }
    leftovers(folders, &inspected.survey.closed, found)
}

fn attempts(folders: &Folders, inspected: &Inspected, found: &mut Vec<Difference>) -> io::Result<()> {
    for (name, metadata) in there(&folders.attempts())? {
        let path = folders.attempts().join(&name);
        match name.parse() {
            Ok(attempt) if metadata.is_dir() => {
                if !may_come_back(folders, attempt)
                    && let Some(content) = orphaned(&path, attempt, inspected)?
                {
                    found.push(Difference::OrphanedStaging { path, content });
                }
            }
            _ => found.push(Difference::Stray { path }),
        }
    }
    Ok(())
}

/// Whether the SRPM that an attempt was given still waits or is built: its builder may have it, and an
/// upload that was cut goes on from what is here.
fn may_come_back(folders: &Folders, attempt: AttemptId) -> bool {
    let Some(record) = LeaseRecord::read(folders, attempt) else { return false };
    [&folders.working, &folders.source].into_iter().any(|folder| {
        FileIdentity::of(&folder.join(record.key().path())).is_ok_and(|file| record.file.is_like(&file))
    })
}

/// Whether an attempt is over, as far as anything tells; and then, whether its staging may go.
fn orphaned(path: &Path, attempt: AttemptId, inspected: &Inspected) -> io::Result<Option<Discardable>> {
    let Inspected { survey, known, .. } = inspected;
    let record = survey
        .records
        .iter()
        .find(|found| found.record.attempt.as_ref().is_some_and(|of_record| of_record.id == attempt));
    let key = known.attempts.get(&attempt).map(|known| &known.key).or(record.map(|found| &found.key));
    let is_over = match key {
        Some(key) => !survey.working.contains(key),
        None => survey.working.is_empty(),
    };
    if !is_over {
        return Ok(None);
    }
    let content = match record.is_none() && holds_rpms(path)? {
        true => Discardable::OnlyHere,
        false => Discardable::Yes,
    };
    Ok(Some(content))
}

/// Logs of an attempt that is over are parts of what its builder has; RPMs may be all that is left.
fn holds_rpms(folder: &Path) -> io::Result<bool> {
    for (name, metadata) in there(folder)? {
        if metadata.is_dir() && holds_rpms(&folder.join(&name))? || name.ends_with(".rpm") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A folder that may be gone.
fn there(folder: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    match entries(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        entries => entries,
    }
}

/// Whether a name is that of an unfinished record.
pub(super) fn is_part(name: &str) -> bool {
    let record = name.strip_suffix(PART);
    record.is_some_and(|name| name == RESERVED_ARTIFACT || name.ends_with(FAILED) || name.ends_with(HELD))
}

fn leftovers(
    folders: &Folders,
    closed: &BTreeMap<PathBuf, String>,
    found: &mut Vec<Difference>,
) -> io::Result<()> {
    let mut look = |folder: &Path, is_leftover: &dyn Fn(&str) -> bool| -> io::Result<()> {
        // It is told of elsewhere.
        if closed.contains_key(folder) {
            return Ok(());
        }
        let entries = there(folder)?.into_iter();
        let entries = entries.filter(|(name, metadata)| metadata.is_file() && is_leftover(name));
        found.extend(entries.map(|(name, _)| Difference::Leftover { path: folder.join(name) }));
        Ok(())
    };
    let is_probe = |name: &str| name.starts_with(PROBE);
    let is_private = |name: &str| is_probe(name) || name.ends_with(PART);
    let is_unfinished = |name: &str| name.starts_with(UNFINISHED);
    for folder in [&folders.source, &folders.working, &folders.repo] {
        look(folder, &is_probe)?;
    }
    look(&folders.finished, &|name| is_probe(name) || is_part(name))?;
    for (name, metadata) in there(&folders.finished)? {
        if metadata.is_dir() && TargetName::new(name.as_str()).is_ok() {
            look(&folders.finished.join(name), &is_part)?;
        }
    }
    look(&folders.private(), &is_private)?;
    look(&folders.metadata_private().join("main"), &is_private)?;
    let nested = folders.metadata_private().join("nested");
    for (name, _) in there(&nested)? {
        look(&nested.join(name), &is_private)?;
    }
    look(&folders.repo.join("repodata"), &is_unfinished)?;
    for (name, _) in result_folders(&folders.repo)? {
        let folder = folders.repo.join(name);
        look(&folder, &is_part)?;
        if is_repository(&folder) && !closed.contains_key(&folder) {
            look(&folder.join("repodata"), &is_unfinished)?;
            for (name, _) in result_folders(&folder)? {
                look(&folder.join(name), &is_part)?;
            }
        }
    }
    Ok(())
}
