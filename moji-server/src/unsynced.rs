//! Results that the disk has not taken: put aside, and copied before anything relies on them.
//!
//! A failed fsync is told once, and the next one of the same file succeeds whatever became of the data (fsync(2), EIO;
//! see [`durable`](crate::durable)). So the folder of the results is renamed to [`UNSYNCED`] beside it, which needs no room and
//! is all that is remembered. The next try of the commit moves each file back as a new one: written anew, it is an fsync
//! of its own that tells whether it is on the disk. What is not what was delivered any more is of no use.
//!
//! | a crash after | leaves | then |
//! |---|---|---|
//! | a failed fsync, and before the rename | the results, of which some may not be on the disk | the next server compares them with the manifest when its builder is back. Only here, for the length of an fsync, is one believed that should not be |
//! | the rename | all in `unsynced` | the next server removes it: its builder delivers once more |
//! | some copies | the whole ones in `results`, the others in `unsynced`, one of these perhaps half copied too | the same; in the same server, what is in `unsynced` is copied, from its first byte on |
//! | the last one | an `unsynced` without results, or none | the next try goes on to publish |
//!
//! Each file is removed when its copy is whole, so that of one file at most there is a second one. The copies are as
//! durable as an upload that has just ended: that is the business of the commit. All of it blocks.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, ManifestEntry};

use crate::beneath::{self, Folder};
use crate::commit::RESULTS;
use crate::durable::SyncError;

/// The folder in an attempt's staging folder for results that are to be copied.
pub(crate) const UNSYNCED: &str = "unsynced";

/// What is there of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// All that was.
    Whole,
    /// Something is not what was delivered any more, for this reason. The builder has it.
    Lost(String),
}

/// Puts the results in a staging folder aside if that is why they could not be made durable; gives the error back.
pub(crate) fn put_aside(staging: &Path, error: anyhow::Error) -> anyhow::Error {
    if !matches!(error.downcast_ref(), Some(SyncError::NotTaken(_))) {
        return error;
    }
    let renamed = open(staging).and_then(|staging| staging.rename(RESULTS, &staging, UNSYNCED));
    match renamed {
        Ok(()) => error,
        // A disk that does not rename this does not rename them into REPO.
        Err(renaming) => error.context(format!("and they cannot be put aside: {renaming}")),
    }
}

/// Writes what was put aside anew, each file checked for its size and digest. Most often there is nothing. Safe to call
/// again after it failed.
///
/// # Errors
/// When the disk is full or cannot be written.
pub(crate) fn renew(staging: &Path, manifest: &[ManifestEntry]) -> anyhow::Result<Renewed> {
    let cannot = || format!("cannot copy the results in {}, which the disk has not taken", staging.display());
    let opened = open(staging).and_then(|staging| staging.folder(UNSYNCED).map(|aside| (staging, aside)));
    let (staging, aside) = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Renewed::Whole),
        opened => opened.with_context(cannot)?,
    };
    let results = staging.make_folder(RESULTS).with_context(cannot)?;
    for entry in manifest {
        let from = match aside.open_file(&entry.name) {
            // It is copied, or was not to be published.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            from => from.with_context(cannot)?,
        };
        results.remove(&entry.name).with_context(cannot)?;
        let copied = copy(from, &results, entry).with_context(cannot);
        if !matches!(copied, Ok(Renewed::Whole)) {
            // It needs room, and is begun anew anyway.
            let _ = results.remove(&entry.name);
            return copied;
        }
        aside.remove(&entry.name).with_context(cannot)?;
    }
    staging.remove(UNSYNCED).with_context(cannot)?;
    Ok(Renewed::Whole)
}

/// Through memory: a copy that the file system makes may share the blocks that were never written.
fn copy(mut from: File, to: &Folder, entry: &ManifestEntry) -> io::Result<Renewed> {
    let mut file = to.create_new(&entry.name)?;
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; DATA_BYTES]);
    loop {
        let length = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // It is not in memory any more, and not on the disk.
            Err(error) => return Ok(Renewed::Lost(format!("{} cannot be read back: {error}", entry.name))),
            Ok(length) => length,
        };
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        size += length as u64;
        if size > entry.size {
            break;
        }
        hasher.update(bytes);
        file.write_all(bytes)?;
    }
    Ok(match size == entry.size && hasher.finish() == entry.sha256 {
        true => Renewed::Whole,
        false => Renewed::Lost(format!("{} is not on the disk as it came", entry.name)),
    })
}

/// A link in its place is not followed.
fn open(staging: &Path) -> io::Result<Folder> {
    let (parent, name) = beneath::split(staging)?;
    Folder::open(parent)?.folder(name)
}

#[cfg(test)]
#[path = "unsynced_tests.rs"]
mod tests;
