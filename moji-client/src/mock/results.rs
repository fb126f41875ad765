//! Which files of a result directory travel: every regular file with a harmless name, because
//! newer plugins of Mock leave files that no fixed list has.
//!
//! Does not open or judge them; the server decides what it publishes.

use std::io;
use std::path::Path;

use moji_proto::{ArtifactName, NameError};

pub use super::evidence::open_regular;

/// Most files that travel, RPMs before others; those of the largest packages are some hundreds.
pub const FILES_MAX: usize = 4096;

/// Most files of which that is decided: beyond it nobody looks.
const LOOKED_AT: usize = 100_000;

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
    /// What stays behind, by name (made readable), RPMs first; at most [`FILES_MAX`].
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
        if entries.len() == LOOKED_AT {
            break;
        }
    }
    let is_rpm = |name: &std::ffi::OsStr| name.as_encoded_bytes().ends_with(b".rpm");
    entries.sort_by_cached_key(|entry| (!is_rpm(&entry.file_name()), entry.file_name()));
    let mut results = Results::default();
    for entry in entries {
        match look(&entry) {
            Ok(file) if results.files.len() < FILES_MAX => results.files.push(file),
            looked if results.skipped.len() < FILES_MAX => {
                results.skipped.push((readable(&entry), looked.err().unwrap_or(Skip::TooMany)));
            }
            _ => {}
        }
    }
    results.files.sort();
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

    #[test]
    fn rpms_travel_before_other_files() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..FILES_MAX + 5 {
            std::fs::write(dir.path().join(format!("a{n:05}.log")), "").unwrap();
        }
        std::fs::write(dir.path().join("z-1-1.noarch.rpm"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("z-devel-1-1.noarch.rpm")).unwrap();
        let results = list(dir.path()).unwrap();
        assert_eq!(results.files.len(), FILES_MAX);
        assert!(results.files.is_sorted() && results.files.iter().any(|file| file.name.is_rpm()));
        assert_eq!(results.skipped.len(), 7);
        assert!(results.skipped[0].0.ends_with(".rpm"));
    }
}
