//! Writing so that it is still there after a power cut: fsync of the file, rename, fsync of the
//! folder, in this order. All of it blocks: call it off the async threads.
//!
//! A failed fsync of a file is not simply tried again. fsync(2) tells of an error once: the kernel takes the pages for
//! written then, so that the next fsync of the same file succeeds although its data are not on the disk (errseq_t,
//! Linux 4.13). What has failed is written to a new file, or thrown away.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use rustix::fs::{Advice, fadvise};

use crate::beneath::{self, Folder};
use crate::crash;

/// A longer file fills the disk's queue by itself.
const SMALL: u64 = 1 << 20;
/// Files that are open at a time.
const OPEN_MAX: usize = 64;

/// Makes the entries of a folder durable (what was created, renamed or removed in it).
///
/// # Errors
/// When the folder cannot be opened or fsync(2) fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the content of a file durable.
///
/// # Errors
/// When the file cannot be opened or fsync(2) fails.
pub fn sync_file(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()
}

/// So many threads make files durable at a time, of which the file system then does many in one go: one after the
/// other, each waits for the disk alone.
const AT_A_TIME: usize = 8;
/// For fewer files than this a thread costs more than it saves.
const WORTH_A_THREAD: usize = 4;

/// Does something that waits for the disk with each of many files, with several at a time.
///
/// # Errors
/// The first one; others may have been done then.
fn each<T: Sync>(files: &[T], durable: impl Fn(&T) -> io::Result<()> + Sync) -> io::Result<()> {
    let share = files.len().div_ceil(AT_A_TIME).max(WORTH_A_THREAD);
    let all = &|some: &[T]| some.iter().try_for_each(&durable);
    let (first, others) = files.split_at(share.min(files.len()));
    thread::scope(|scope| {
        let begin = |some| (some, thread::Builder::new().spawn_scoped(scope, move || all(some)));
        let others: Vec<_> = others.chunks(share).map(begin).collect();
        let first = all(first);
        let panicked = |_| Err(io::Error::other("a thread has panicked"));
        others.into_iter().fold(first, |done, (some, thread)| {
            // Without another thread it takes longer.
            done.and(thread.map_or_else(|_| all(some), |thread| thread.join().unwrap_or_else(panicked)))
        })
    })
}

/// Puts `content` at `path` as a whole: a reader, or a server that starts after a crash, finds the
/// old content or the new, never a part. Uses `<path>.part` on the way; a link of that name, which people
/// may have put there, is removed and not followed.
///
/// # Errors
/// When any step fails; the old content is then still in place.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let (folder, name) = beneath::split(path)?;
    write_whole_in(&Folder::open(folder)?, name, content)
}

/// The same for what nobody but the server's user may read.
///
/// # Errors
/// As [`write_whole`].
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let (folder, name) = beneath::split(path)?;
    write_in(&Folder::open(folder)?, name, content, Some(0o600))
}

/// The same in an opened folder.
///
/// # Errors
/// As [`write_whole`].
pub fn write_whole_in(folder: &Folder, name: &OsStr, content: &[u8]) -> io::Result<()> {
    write_in(folder, name, content, None)
}

fn write_in(folder: &Folder, name: &OsStr, content: &[u8], mode: Option<u32>) -> io::Result<()> {
    put_in(folder, name, content, mode)?;
    folder.sync()
}

/// The same, and the file's name is durable only when the caller has synced the folder: for one that is synced
/// anyway before anybody relies on it.
///
/// # Errors
/// As [`write_whole`].
pub(crate) fn put_in(folder: &Folder, name: &OsStr, content: &[u8], mode: Option<u32>) -> io::Result<()> {
    let mut part = name.to_owned();
    part.push(".part");
    folder.remove(&part)?;
    let written = folder.create_new(&part).and_then(|mut file| {
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        folder.rename(&part, folder, name)
    });
    if written.is_err() {
        let _ = folder.remove(&part);
    }
    written
}

/// Why files are not durable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// One cannot be opened: nothing was lost, and the same files can be synced later.
    #[error("one of them cannot be opened")]
    Open(#[source] io::Error),
    /// fsync(2) failed. It is told once: these files must not be synced again as if nothing had been.
    #[error("the disk has not taken all of it")]
    NotTaken(#[source] io::Error),
}

/// Makes the content of a file durable that was delivered or submitted.
///
/// # Errors
/// When fsync(2) fails: the file is not to be used any more.
pub(crate) fn sync_received(file: &File) -> io::Result<()> {
    crash::in_sync()?;
    file.sync_all()
}

/// Makes the content of many files durable, each opened by `open`.
///
/// File systems with a journal write it once for all that is under way, but an fsync of one file does not begin
/// to write another one: file after file, each waits for a journal of its own. So all of some are on their way to
/// the disk before the first one is waited for. That is a hint to the kernel, and no more: what counts is that
/// every file is synced, as it would be without.
///
/// # Errors
/// When one cannot be opened or fsync(2) fails.
pub(crate) fn sync_files<T>(files: &[T], open: impl Fn(&T) -> io::Result<File>) -> Result<(), SyncError> {
    for some in files.chunks(OPEN_MAX) {
        let opened = some.iter().map(&open).collect::<io::Result<Vec<_>>>().map_err(SyncError::Open)?;
        for file in &opened {
            let size = file.metadata().map_err(SyncError::Open)?.len();
            if size <= SMALL {
                begin_to_write(file, 0..size);
            }
        }
        crash::in_sync().and_then(|()| each(&opened, File::sync_all)).map_err(SyncError::NotTaken)?;
    }
    Ok(())
}

/// Has the disk begin with a part of a file. A hint: nothing is durable by it, and an error is left for the fsync.
pub(crate) fn begin_to_write(file: &File, part: Range<u64>) {
    // Linux begins to write what is dirty. What is clean it may forget.
    let length = NonZero::new(part.end.saturating_sub(part.start));
    let _ = fadvise(file, part.start, length, Advice::DontNeed);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_is_done_once_and_no_error_is_lost() {
        for count in [0_usize, 1, 4, 5, 33, 1000] {
            let numbers: Vec<_> = (0..count).collect();
            let done = std::sync::Mutex::new(Vec::new());
            each(&numbers, |number| {
                done.lock().unwrap().push(*number);
                Ok(())
            })
            .unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, numbers);
            for bad in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|_| count > 0) {
                let failed =
                    |number: &usize| if *number == bad { Err(io::Error::other("full")) } else { Ok(()) };
                assert_eq!(each(&numbers, failed).unwrap_err().to_string(), "full", "{bad} of {count}");
            }
        }
    }

    #[test]
    fn every_file_is_synced_whichever_it_is_of_how_many() {
        let memory = || rustix::fs::memfd_create("synced", rustix::fs::MemfdFlags::CLOEXEC).map(File::from);
        let count = 2 * OPEN_MAX + 3;
        let files: Vec<_> = (0..count).collect();
        sync_files(&files, |_| Ok(memory()?)).unwrap();
        for bad in 0..count {
            // A pipe cannot be synced: so the error tells that somebody has tried.
            let open = |file: &usize| match *file == bad {
                true => Ok(File::from(std::os::fd::OwnedFd::from(io::pipe()?.0))),
                false => Ok(memory()?),
            };
            let SyncError::NotTaken(error) = sync_files(&files, open).unwrap_err() else { panic!("{bad}") };
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}: {error}");
            let open =
                |file: &usize| if *file == bad { Err(io::Error::other("gone")) } else { Ok(memory()?) };
            let SyncError::Open(error) = sync_files(&files, open).unwrap_err() else { panic!("{bad}") };
            assert_eq!(error.to_string(), "gone", "{bad}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let at = tempfile::tempdir().unwrap();
        let (secret, record) = (at.path().join("secret"), at.path().join("a.failed.json"));
        fs::write(&secret, "secret").unwrap();
        symlink("secret", at.path().join("a.failed.json.part")).unwrap();
        symlink("secret", &record).unwrap();
        write_whole(&record, b"first").unwrap();
        write_whole(&record, b"second").unwrap();
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!((record.is_symlink(), fs::read(&record).unwrap()), (false, b"second".to_vec()));
        assert_eq!(fs::read_dir(at.path()).unwrap().count(), 2);
    }
}
