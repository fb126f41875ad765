//! Whether there is room on the disk for metadata that are made anew. Where native fails for want of room the longer way
//! fails too, and the reason that is told is to be this one, and not what the files look like that were cut off.
//!
//! It deliberately does not know who has failed, nor how.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::super::packages::REPODATA;
use super::super::publish::Served;
use super::super::refresh::{Places, clear};
use crate::room;

/// What the least repository needs: some small files and folders, at each of the two places.
const LEAST: u64 = 256 << 10;

/// Why there is no room.
#[derive(Debug)]
pub(super) struct NoRoom(String);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why everything cannot be made anew, when that is for want of room. Blocks. What is staged is gone then.
pub(super) fn missing(error: &anyhow::Error, places: &Places, served: Option<&Served>) -> Option<NoRoom> {
    let _ = clear(&places.staging);
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let said = causes.into_iter().find(|cause| room::is_full(cause));
    match said {
        Some(said) => Some(no_room(places.private(), said)),
        // createrepo_c does not tell, and may even end as if all were well.
        None => try_to_get(places.private(), needed(places, served)).err(),
    }
}

/// A copy of what is served, and what comes in its place.
fn needed(places: &Places, served: Option<&Served>) -> u64 {
    let names = served.map(Served::names).unwrap_or_default();
    let repodata = places.folder.join(REPODATA);
    let sizes = names.iter().map(|name| fs::metadata(repodata.join(name)).map_or(0, |found| found.len()));
    sizes.fold(LEAST, |sum, size| sum.saturating_add(size.saturating_mul(2)))
}

/// Whether so many bytes are to be had on a folder's disk. They are taken for a moment, because a quota shows only so, but never
/// the last ones: others write too.
fn try_to_get(folder: &Path, bytes: u64) -> Result<(), NoRoom> {
    if free(folder).is_some_and(|free| free < bytes) {
        return Err(no_room(folder, &io::ErrorKind::StorageFull.into()));
    }
    let taken = tempfile::tempfile_in(folder)
        .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?));
    match taken {
        Err(error) if room::is_full(&error) => Err(no_room(folder, &error)),
        // Not every file system can do that.
        _ => Ok(()),
    }
}

fn free(folder: &Path) -> Option<u64> {
    room::FreeSpace::of_the_disk().at(folder).ok()
}

fn no_room(folder: &Path, error: &io::Error) -> NoRoom {
    let (free, folder) = (free(folder), folder.display());
    NoRoom(match (error.kind(), free) {
        (io::ErrorKind::QuotaExceeded, _) => format!("the quota is used up on the disk of {folder}"),
        (_, Some(free)) => {
            format!("no space left on the disk of {folder}, {} are free", room::in_words(free))
        }
        (_, None) => format!("no space left on the disk of {folder}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{MetadataConfig, Repository};
    use anyhow::anyhow;

    fn places(at: &Path) -> Places {
        let places = MetadataConfig::new(at.join("repo"), at.join("private")).places(&Repository::Main);
        fs::create_dir_all(places.private()).unwrap();
        fs::create_dir_all(places.folder.join(REPODATA)).unwrap();
        places
    }

    #[test]
    fn what_a_full_disk_has_said_is_told_and_other_trouble_is_left_to_createrepo_c() {
        let at = tempfile::tempdir().unwrap();
        let places = places(at.path());
        let cut_off = || anyhow!(io::Error::from(io::ErrorKind::UnexpectedEof)).context("taking in");
        assert!(missing(&cut_off(), &places, None).is_none());
        for (code, says) in [
            (rustix::io::Errno::NOSPC, "no space left on the disk of "),
            (rustix::io::Errno::DQUOT, "the quota"),
        ] {
            let error = anyhow!(io::Error::from(code)).context("making").context("more");
            let why = missing(&error, &places, None).unwrap().to_string();
            assert!(why.starts_with(says) && why.contains("private/main"), "{why}");
        }
        // Nothing is left of the look.
        assert_eq!(fs::read_dir(places.private()).unwrap().count(), 0);
    }

    #[test]
    fn more_than_there_is_cannot_be_had() {
        let at = tempfile::tempdir().unwrap();
        let places = places(at.path());
        let free = free(at.path()).unwrap();
        let why = try_to_get(places.private(), free.saturating_mul(2)).unwrap_err().to_string();
        assert!(why.contains("no space left on the disk of ") && why.contains(" are free"), "{why}");
        try_to_get(places.private(), LEAST).unwrap();
    }

    #[test]
    fn what_is_served_is_needed_twice() {
        let at = tempfile::tempdir().unwrap();
        let places = places(at.path());
        let text = "<repomd><data type=\"primary\"><location href=\"repodata/p.gz\"/></data></repomd>";
        fs::write(places.folder.join(REPODATA).join("p.gz"), [7; 5000]).unwrap();
        assert_eq!(needed(&places, Some(&Served::of(text.into()))), LEAST + 10_000);
        assert_eq!(needed(&places, None), LEAST);
    }
}
