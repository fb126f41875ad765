//! Writing so that it is still there after a power cut: fsync of the file, rename, fsync of the
//! folder, in this order. All of it blocks: call it off the async threads.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::beneath::{self, Folder};

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
    written?;
    folder.sync()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

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
