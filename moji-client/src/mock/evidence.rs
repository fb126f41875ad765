//! What a run of Mock left behind, read with bounds: the input of [`classify`](super::classify()).
//!
//! Logs come from a build, so they may be of any size (500 MB), hold NULs, broken UTF-8 and lines
//! of megabytes, or not be files at all. This module does not know what any of it means.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// How much of the beginning of a log is read, in bytes.
pub const HEAD: u64 = 256 * 1024;
/// How much of the end of a log is read, in bytes.
pub const TAIL: u64 = 1024 * 1024;

/// How the process that is Mock ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exit(i32),
    /// By this signal, which moji did not send.
    Signal(i32),
    /// Moji ended it: it ran longer than the build's time limit.
    TimedOut,
    /// Moji ended it: no log grew for as long as the watchdog waits.
    Stalled,
    /// Moji ended it, because it was asked to.
    Cancelled,
    /// It could not be started; the text says why.
    NotStarted(String),
}

impl Ended {
    /// The number that an outcome carries: the exit code, or minus the signal's number. `None` when
    /// Mock did not run or when the end was moji's doing.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exit(code) => Some(*code),
            Self::Signal(signal) => Some(signal.saturating_neg()),
            Self::TimedOut | Self::Stalled | Self::Cancelled | Self::NotStarted(_) => None,
        }
    }
}

/// Everything a verdict is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// How Mock ended.
    pub ended: Ended,
    /// `root.log`: the package manager and everything else that Mock called. Empty when absent;
    /// so are the others.
    pub root_log: String,
    /// `build.log`: what rpmbuild said.
    pub build_log: String,
    /// `state.log`: Mock's steps.
    pub state_log: String,
    /// `mock.log`: what Mock said on standard output and standard error.
    pub mock_log: String,
    /// The lowest free space in bytes that was seen *while Mock ran* on the file systems of the
    /// root and of the results, if any was seen. Afterwards is too late: Mock removes the chroot
    /// when a build fails.
    pub lowest_free: Option<u64>,
    /// Whether nothing at all is in the result directory.
    pub result_dir_empty: bool,
}

impl Evidence {
    /// Reads what the run in `resultdir` left, and `mock_log`, the file that Mock's standard output
    /// and error went to. Of each log at most [`HEAD`] bytes of the beginning and [`TAIL`] bytes of
    /// the end; what is no UTF-8 is replaced; what is absent, no regular file or unreadable is
    /// empty (and, unless absent, a warning).
    ///
    /// Blocking: call it where blocking is allowed. It reads 6 MB at most.
    pub fn read(ended: Ended, resultdir: &Path, mock_log: &Path, lowest_free: Option<u64>) -> Self {
        let read = |path: &Path| match read_ends(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a log of Mock");
                String::new()
            }
        };
        Self {
            ended,
            root_log: read(&resultdir.join("root.log")),
            build_log: read(&resultdir.join("build.log")),
            state_log: read(&resultdir.join("state.log")),
            mock_log: read(mock_log),
            lowest_free,
            result_dir_empty: is_empty(resultdir),
        }
    }
}

/// Bytes that an unprivileged user may still write to the file system of `path`; `None` when the
/// kernel does not say. Blocking.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let fs = rustix::fs::statvfs(path).ok()?;
    // Virtual file systems report no blocks at all, which says nothing about room.
    (fs.f_blocks > 0).then(|| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Opens a regular file that a build may have put there: no link is followed, a FIFO cannot block.
///
/// # Errors
/// When it cannot be opened, or is a link or anything else that is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn read_ends(path: &Path) -> io::Result<String> {
    let mut file = open_regular(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= HEAD + TAIL {
        // A log may still grow: the limit holds for what is read, not for what was promised.
        file.take(HEAD + TAIL).read_to_end(&mut bytes)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    file.by_ref().take(HEAD).read_to_end(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let unread = size - HEAD - TAIL;
    text.push_str(&format!("\n[... {unread} bytes not read here ...]\n"));
    bytes.clear();
    file.seek(SeekFrom::Start(size - TAIL))?;
    file.take(TAIL).read_to_end(&mut bytes)?;
    text.push_str(&String::from_utf8_lossy(&bytes));
    Ok(text)
}

fn is_empty(resultdir: &Path) -> bool {
    std::fs::read_dir(resultdir).map_or(true, |mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_huge_log_costs_little() {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("build.log")).unwrap();
        log.write_all_at(b"first\n", 0).unwrap();
        // Sparse: half a gigabyte of NULs between two lines.
        log.write_all_at(b"\nl\xffast\n", 500 << 20).unwrap();
        let read = Evidence::read(Ended::Exit(1), dir.path(), &dir.path().join("mock.log"), None);
        assert!(read.build_log.starts_with("first\n"));
        assert!(read.build_log.ends_with("\nl\u{fffd}ast\n"));
        assert!(read.build_log.len() < 2 << 20);
        assert!(read.root_log.is_empty() && read.mock_log.is_empty());
        assert!(!read.result_dir_empty);
    }

    #[test]
    fn what_is_no_regular_file_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("secret");
        std::fs::write(&outside, "secret").unwrap();
        let results = dir.path().join("results");
        std::fs::create_dir_all(results.join("root.log")).unwrap();
        std::os::unix::fs::symlink(&outside, results.join("build.log")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            results.join("state.log"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let read = Evidence::read(Ended::Exit(1), &results, &outside, None);
        assert_eq!((read.build_log, read.root_log, read.state_log), Default::default());
        assert_eq!(read.mock_log, "secret");
        let read = Evidence::read(Ended::Exit(1), &dir.path().join("gone"), &outside, None);
        assert!(read.result_dir_empty);
    }
}
