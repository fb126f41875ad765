//! Which files of a result directory travel: every regular file with a harmless name, because
//! newer plugins of Mock leave files that no fixed list has.
//!
//! Does not open or judge them; the server decides what it publishes.

use std::io;
use std::path::Path;

use moji_proto::{ArtifactName, NameError};

pub use super::evidence::open_regular;

/// Most files that travel. Beyond it nobody looks at them any more; the RPMs of the largest
/// packages are some hundreds.
pub const FILES_MAX: usize = 4096;

/// A file that travels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResultFile {
    /// Its name in the result directory.
    pub name: ArtifactName,
    /// Its size in bytes, when it was listed.
    pub size: u64,
}

/// Why something stays behind.
#[derive(Debug, thiserror::Error)]
pub enum Skip {
    /// Its name is none for an artifact.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its name is not UTF-8.
    #[error("its name is not UTF-8")]
    NotText,
    /// It is a folder, a link, a socket …
    #[error("it is no regular file")]
    NotAFile,
    /// It cannot be looked at.
    #[error("it cannot be looked at: {0}")]
    Unreadable(#[source] io::Error),
    /// There are too many files.
    #[error("there are more than {FILES_MAX} files")]
    TooMany,
}

/// What a result directory holds.
#[derive(Debug, Default)]
pub struct Results {
    /// What travels, sorted by name.
    pub files: Vec<ResultFile>,
    /// What stays behind, by name (made readable), sorted; at most [`FILES_MAX`].
    pub skipped: Vec<(String, Skip)>,
}

/// Lists `resultdir`. Blocking. Open the files with [`open_regular`]: the directory belongs to the
/// user who ran the build, and what was a file may be a link by then.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(resultdir: &Path) -> io::Result<Results> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(resultdir)? {
        entries.push(entry?);
        if entries.len() > 2 * FILES_MAX {
            break;
        }
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut results = Results::default();
    for entry in entries {
        match look(&entry) {
            Ok(_) if results.files.len() == FILES_MAX => {
                results.skipped.push((readable(&entry), Skip::TooMany));
            }
            Ok(file) => results.files.push(file),
            Err(skip) if results.skipped.len() < FILES_MAX => results.skipped.push((readable(&entry), skip)),
            Err(_) => {}
        }
    }
    Ok(results)
}

fn look(entry: &std::fs::DirEntry) -> Result<ResultFile, Skip> {
    // Of the entry itself: a link is not followed.
    let metadata = entry.metadata().map_err(Skip::Unreadable)?;
    if !metadata.is_file() {
        return Err(Skip::NotAFile);
    }
    let name = entry.file_name().into_string().map_err(|_| Skip::NotText)?;
    Ok(ResultFile { name: ArtifactName::new(name)?, size: metadata.len() })
}

fn readable(entry: &std::fs::DirEntry) -> String {
    moji_proto::outcome::one_line(&entry.file_name().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn regular_files_with_harmless_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &[u8]| dir.path().join(std::ffi::OsStr::from_bytes(name));
        for name in
            ["state.log", "b-1-1.x86_64.rpm", "a-1-1.src.rpm", "expanded-spec.txt", ".hidden.log", "x.so"]
        {
            std::fs::write(path(name.as_bytes()), name).unwrap();
        }
        std::fs::write(path(b"a\xff.log"), "").unwrap();
        std::fs::write(path(b"a\nb.log"), "").unwrap();
        std::fs::create_dir(path(b"dir.log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path(b"link.log")).unwrap();
        let results = list(dir.path()).unwrap();
        let names: Vec<_> = results.files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        let expected = ["a-1-1.src.rpm", "b-1-1.x86_64.rpm", "expanded-spec.txt", "state.log"];
        assert_eq!(names, expected.map(|name| (name, name.len() as u64)));
        let skipped: Vec<_> = results.skipped.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        assert_eq!(skipped.len(), 6, "{skipped:?}");
        assert!(skipped.contains(&"link.log: it is no regular file".to_owned()), "{skipped:?}");
        assert!(skipped.iter().all(|line| !line.contains('\n')), "{skipped:?}");
    }
}
