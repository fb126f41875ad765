//! Logs while they are written and afterwards: the phase out of state.log, and logs cut to a limit.
//!
//! Does not know where logs are streamed to, nor what build.log and root.log say.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use moji_proto::Phase;

use super::classify::text::{Step, step};
use super::evidence::open_regular;

/// The default limit of [`cap_log`], in bytes.
pub const LOG_MAX: u64 = 256 << 20;
/// Longest line of state.log that is looked at; the rest of a longer one is skipped.
const LINE_MAX: usize = 4096;
/// How much is copied at once, in bytes.
const PIECE: usize = 256 * 1024;

/// Finds the phase of a build in what is appended to state.log, piece by piece. Phases only go
/// forward: `--postinstall` makes a second chroot, but the build is not "preparing" again.
#[derive(Debug, Default)]
pub struct PhaseParser {
    line: Vec<u8>,
    phase: Option<Phase>,
}

impl PhaseParser {
    /// A parser at the beginning of state.log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The phase so far; `None` before Mock's first step.
    pub fn phase(&self) -> Option<Phase> {
        self.phase
    }

    /// Takes the next bytes of state.log. Returns the phase when it changed with these.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Phase> {
        let before = self.phase;
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let found = phase_of(&String::from_utf8_lossy(&line));
                self.phase = self.phase.max(found);
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
        }
        if self.phase == before { None } else { self.phase }
    }
}

fn phase_of(line: &str) -> Option<Phase> {
    let Some(Step::Start(name)) = step(line) else { return None };
    match name.split_whitespace().next() {
        Some("rpmbuild") => Some(Phase::Building),
        _ if name.starts_with("build setup") => Some(Phase::InstallingBuildRequires),
        _ if name == "chroot init" => Some(Phase::Preparing),
        _ => None,
    }
}

/// What [`cap_log`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capped {
    /// The log is within the limit and was not touched.
    Whole {
        /// Its size in bytes.
        size: u64,
    },
    /// The log was rewritten.
    Cut {
        /// How many bytes of its beginning are what they were.
        head: u64,
        /// How many bytes were left out.
        removed: u64,
    },
}

/// Rewrites a log that is longer than `limit` bytes: half the limit from its beginning, a line that
/// says how much was cut, and the end; together at most `limit` bytes (a little more for limits
/// below a line's length). The beginning is byte for byte what it was, so that whatever was
/// streamed of it, up to half the limit, stays a beginning of the file.
///
/// Blocking; copies in pieces of 256 KiB into a hidden file in the same folder, which is then
/// renamed. Mock must have ended.
///
/// # Errors
/// When the log is no regular file, or cannot be read or replaced. It is as it was then.
pub fn cap_log(path: &Path, limit: u64) -> io::Result<Capped> {
    let mut log = open_regular(path)?;
    let metadata = log.metadata()?;
    let size = metadata.len();
    if size <= limit {
        return Ok(Capped::Whole { size });
    }
    let head = limit / 2;
    // The line's length depends on a number in it, so leave room for the longest number.
    let line_max = cut_line(u64::MAX, limit).len() as u64;
    let tail = (limit - head).saturating_sub(line_max);
    let removed = size - head - tail;

    let folder = path.parent().unwrap_or(Path::new("."));
    let mut temp = tempfile::NamedTempFile::new_in(folder)?;
    copy(&mut log, temp.as_file_mut(), head)?;
    temp.write_all(cut_line(removed, limit).as_bytes())?;
    log.seek(SeekFrom::Start(size - tail))?;
    copy(&mut log, temp.as_file_mut(), tail)?;
    temp.as_file().set_permissions(metadata.permissions())?;
    temp.persist(path).map_err(|error| error.error)?;
    Ok(Capped::Cut { head, removed })
}

fn cut_line(removed: u64, limit: u64) -> String {
    format!("\n[... {removed} bytes cut here: the log was longer than the limit of {limit} bytes ...]\n")
}

/// Copies `count` bytes, with bounded memory.
fn copy(from: &mut File, to: &mut File, count: u64) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    let mut left = count;
    while left > 0 {
        piece.clear();
        Read::take(&mut *from, left.min(PIECE as u64)).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the log became shorter"));
        }
        to.write_all(&piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn phases_of_a_measured_build() {
        let log = include_bytes!("../../tests/mock-cases/postinstall-failed/state.log");
        // All splits at one place, byte by byte: the same phases in the same order.
        for piece in [1, 7, 64, log.len()] {
            let mut parser = PhaseParser::new();
            let phases: Vec<_> = log.chunks(piece).filter_map(|bytes| parser.push(bytes)).collect();
            let all = vec![Phase::Preparing, Phase::InstallingBuildRequires, Phase::Building];
            assert_eq!(phases, if piece == log.len() { vec![Phase::Building] } else { all });
        }
    }

    #[test]
    fn names_that_only_look_like_phases() {
        let mut parser = PhaseParser::new();
        assert_eq!(
            parser.push(b"x - Finish: rpmbuild a\nx - Start: build phase for a\nStart: rpmbuild\n"),
            None
        );
        assert_eq!(parser.push(b"x - Start: rpmbuilder a\nx - Start: clean chroot\n"), None);
        assert_eq!(parser.push(&[b'x'; 10_000]), None);
        assert!(parser.line.len() <= LINE_MAX);
        assert_eq!(parser.push(b"\nx - Start: rpmbuild a"), None);
        assert_eq!(parser.push(b"\n"), Some(Phase::Building));
    }

    proptest! {
        #[test]
        fn a_cut_log_keeps_its_ends(size in 0..4000usize, limit in 0..4000u64) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("build.log");
            let bytes: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let capped = cap_log(&path, limit).unwrap();
            let now = std::fs::read(&path).unwrap();
            match capped {
                Capped::Whole { size } => {
                    prop_assert!(size <= limit);
                    prop_assert_eq!(now, bytes);
                }
                Capped::Cut { head, removed } => {
                    prop_assert!(size as u64 > limit);
                    prop_assert_eq!(head, limit / 2);
                    prop_assert!(now.starts_with(&bytes[..head as usize]));
                    let kept_tail = size - head as usize - removed as usize;
                    prop_assert!(now.ends_with(&bytes[size - kept_tail..]));
                    prop_assert!(now.len() as u64 <= limit.max(2 * 130));
                    let line = format!("{removed} bytes cut here");
                    prop_assert!(String::from_utf8_lossy(&now).contains(&line));
                }
            }
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_huge_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("build.log");
        let log = File::create(&path).unwrap();
        log.write_all_at(b"end\n", 600 << 20).unwrap();
        log.set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
        let Capped::Cut { head, .. } = cap_log(&path, 3 << 20).unwrap() else { panic!() };
        assert_eq!(head, 3 << 19);
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(metadata.len() <= 3 << 20);
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), vec![0; 100]).unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("build.log")).unwrap();
        assert!(cap_log(&dir.path().join("build.log"), 10).is_err());
        assert_eq!(std::fs::metadata(dir.path().join("secret")).unwrap().len(), 100);
    }
}
