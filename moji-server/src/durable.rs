//! Writing so that it is still there after a power cut: fsync of the file, rename, fsync of the
//! folder, in this order. All of it blocks: call it off the async threads.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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
/// old content or the new, never a part. Uses `<path>.part` on the way.
///
/// # Errors
/// When any step fails; the old content is then still in place.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, 0o666)
}

/// The same for what nobody but the server's user may read.
///
/// # Errors
/// As [`write_whole`].
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, 0o600)
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let created = File::options().write(true).create(true).truncate(true).mode(mode).open(&part);
    let written = created.and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written?;
    path.parent().map_or(Ok(()), sync_folder)
}
