//! Asking the file system: what a path in SOURCE is, what a folder holds, what a file says.
//!
//! All of it blocks and keeps nothing. It does not know what was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use moji_proto::{SrpmName, TargetName};
use rustix::fs::{Mode, OFlags};

use super::entries::MAX_SIZE;
use super::lists::{Content, Kind, ListName};
use super::srpm::{self, Head};
use crate::BuildKey;
use crate::beneath::Folder;
use crate::metadata::{GENERATIONS, REPODATA};

/// When this differs, the file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Device and inode.
    pub(super) file: (u64, u64),
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) mtime: i64,
    pub(super) ctime: i64,
}

/// A file as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) stamp: Stamp,
    /// Time since the mtime; zero when that lies in the future.
    pub(super) age: Duration,
}

impl Stamp {
    fn of(data: &Metadata) -> Self {
        let nanos = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            file: (data.dev(), data.ino()),
            size: data.len(),
            mtime: nanos(data.mtime(), data.mtime_nsec()),
            ctime: nanos(data.ctime(), data.ctime_nsec()),
        }
    }

    /// Whether nothing but the ctime differs: then the content is the same, unless somebody set its
    /// mtime back. Other names of a file change its ctime when they come, move or go.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { ctime: other.ctime, ..*self } == *other
    }

    pub(super) fn changed_at(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(self.ctime.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl Sight {
    fn of(data: &Metadata) -> Self {
        let age = data.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        Self { stamp: Stamp::of(data), age: age.unwrap_or_default() }
    }
}

/// What a path in SOURCE may be, by its name alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// SOURCE itself.
    Root,
    /// A target's folder, or a file that is called like one.
    Target(TargetName),
    List(ListName),
    Srpm(BuildKey),
    /// The path below SOURCE of something that moji does not use.
    Other(PathBuf),
}

impl Spot {
    /// `path` is below SOURCE. `None` for what is not to be named: too deep, or by its name of no
    /// interest to anybody.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let mut names = path.components().map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let Some(first) = names.next() else { return Some(Self::Root) };
        let (target, name) = match (names.next(), names.next()) {
            (None, _) => (None, first?),
            (Some(name), None) => (Some(target_called(first?.to_str()?)?), name?),
            _ => return None,
        };
        let Some(name) = name.to_str() else { return Some(Self::Other(path.to_owned())) };
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.file_name() == name) {
            return Some(Self::List(ListName { target, kind }));
        }
        let temporary = name.starts_with(['.', '#'])
            || [".part", "~", ".swp"].iter().any(|end| name.ends_with(end))
            || name == "lost+found";
        if temporary {
            return None;
        }
        if let Ok(srpm) = SrpmName::new(name) {
            return Some(Self::Srpm(BuildKey { target, srpm }));
        }
        match target_called(name) {
            Some(name) if target.is_none() => Some(Self::Target(name)),
            _ => Some(Self::Other(path.to_owned())),
        }
    }
}

/// The target of a folder's name: not a name that means something else in REPO.
fn target_called(name: &str) -> Option<TargetName> {
    TargetName::new(name).ok().filter(|_| name != REPODATA && name != GENERATIONS)
}

/// The path below SOURCE of a target's folder, or of SOURCE itself.
pub(super) fn below(target: Option<&TargetName>) -> PathBuf {
    target.map_or_else(PathBuf::new, |target| PathBuf::from(target.as_str()))
}

/// What lies in one folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) srpms: BTreeMap<SrpmName, Sight>,
    pub(super) lists: BTreeMap<Kind, Sight>,
    /// Target folders, in SOURCE itself.
    pub(super) targets: BTreeSet<TargetName>,
    /// What is there but not used, and why.
    pub(super) others: Vec<(PathBuf, &'static str)>,
}

/// Lists SOURCE or a target's folder.
///
/// # Errors
/// When the folder cannot be read to its end: then nobody may conclude that a file is gone.
pub(super) fn list(source: &Path, target: Option<&TargetName>) -> io::Result<Listing> {
    let folder = below(target);
    let mut listing = Listing::default();
    for entry in fs::read_dir(source.join(&folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let Some(spot) = Spot::of(&path) else { continue };
        let found = match spot {
            // From the folder that is open: most of a long queue is this.
            Spot::Srpm(_) => found(&spot, entry.metadata())?,
            _ => look(source, &spot)?,
        };
        match found {
            Found::Srpm(sight) => {
                if let Spot::Srpm(key) = spot {
                    listing.srpms.insert(key.srpm, sight);
                }
            }
            Found::List(sight) => {
                if let Spot::List(list) = spot {
                    listing.lists.insert(list.kind, sight);
                }
            }
            Found::Folder => {
                if let Spot::Target(target) = spot {
                    listing.targets.insert(target);
                }
            }
            Found::Other(why) => listing.others.push((path, why)),
            Found::Nothing => {}
        }
    }
    Ok(listing)
}

/// What is at a [`Spot`].
#[derive(Debug)]
pub(super) enum Found {
    Srpm(Sight),
    List(Sight),
    /// A target's folder.
    Folder,
    /// Something that is left alone, and why.
    Other(&'static str),
    Nothing,
}

/// Looks at one path, without following a symlink (except that of a list, which may well lie in
/// somebody's git checkout).
///
/// # Errors
/// When the file system does not say; that nothing is there is no error.
pub(super) fn look(source: &Path, spot: &Spot) -> io::Result<Found> {
    let (path, follow) = match spot {
        Spot::Root => (PathBuf::new(), true),
        Spot::Target(target) => (below(Some(target)), false),
        Spot::List(list) => (list.path(), true),
        Spot::Srpm(key) => (key.path(), false),
        Spot::Other(path) => (path.clone(), false),
    };
    let path = source.join(path);
    found(spot, if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) })
}

/// What that is, by what the file system says.
fn found(spot: &Spot, data: io::Result<Metadata>) -> io::Result<Found> {
    let data = match data {
        Ok(data) => data,
        Err(error) if is_nothing(&error) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    Ok(match spot {
        Spot::Srpm(_) if data.is_file() => Found::Srpm(Sight::of(&data)),
        Spot::Srpm(_) if data.is_symlink() => {
            Found::Other("a symlink cannot be moved like an SRPM: move, copy or hard-link the file itself")
        }
        Spot::Srpm(_) if data.is_dir() => Found::Other("it is a folder"),
        Spot::Srpm(_) => Found::Other("it is no regular file"),
        Spot::List(_) if data.is_file() => Found::List(Sight::of(&data)),
        Spot::List(_) => Found::Other("it is no regular file"),
        Spot::Target(_) if data.is_dir() => Found::Folder,
        Spot::Other(path) if path.to_string_lossy().ends_with(".src.rpm") => {
            Found::Other("its name has characters that no SRPM has, or is too long")
        }
        Spot::Other(path) if data.is_dir() && path.components().count() == 1 => {
            Found::Other("a folder with this name cannot be a target's")
        }
        // What lies deeper than a target's folder is nobody's business, but a folder there is.
        Spot::Other(_) | Spot::Target(_) => Found::Other("it is no SRPM"),
        Spot::Root => Found::Nothing,
    })
}

/// The error of asking for a path where there is nothing.
pub(super) fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Reads the headers of an SRPM, and says which file it was. `None` when it was written to
/// meanwhile: what was read then belongs to neither content.
///
/// # Errors
/// When it cannot be opened or read.
pub(super) fn read_srpm(source: &Path, key: &BuildKey) -> io::Result<Option<(Stamp, Head)>> {
    read_srpm_in(&Folder::open(source)?, key)
}

/// The same in a SOURCE that is open.
pub(super) fn read_srpm_in(source: &Folder, key: &BuildKey) -> io::Result<Option<(Stamp, Head)>> {
    let file = source.open_file(key.path())?;
    let stamp = Stamp::of(&file.metadata()?);
    let head = srpm::read_head(&Ahead::read(&file)?, stamp.size)?;
    let same = Stamp::of(&file.metadata()?) == stamp;
    Ok(same.then_some((stamp, head)))
}

/// Most headers end before it.
const AHEAD: usize = 16 << 10;

/// A file whose beginning was read at once: a header is looked at in ten small pieces.
struct Ahead<'a> {
    file: &'a File,
    beginning: Vec<u8>,
}

impl<'a> Ahead<'a> {
    fn read(file: &'a File) -> io::Result<Self> {
        let mut beginning = vec![0; AHEAD];
        let length = file.read_at(&mut beginning, 0)?;
        beginning.truncate(length);
        Ok(Self { file, beginning })
    }
}

impl FileExt for Ahead<'_> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let from =
            usize::try_from(offset).ok().and_then(|from| self.beginning.get(from..)?.get(..into.len()));
        match from {
            Some(from) => {
                into.copy_from_slice(from);
                Ok(from.len())
            }
            None => self.file.read_at(into, offset),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Reads a list, and says which file it was; `None` as above.
///
/// # Errors
/// When it cannot be opened or read.
pub(super) fn read_list(source: &Path, list: &ListName) -> io::Result<Option<(Stamp, Content)>> {
    // The one path here whose links are followed. A FIFO or device does not block it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(source.join(list.path()), flags, Mode::empty())?);
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let stamp = Stamp::of(&data);
    let mut bytes = Vec::new();
    // One byte more, so that the parser sees that it is too long.
    (&file).take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    let same = Stamp::of(&file.metadata()?) == stamp;
    Ok(same.then(|| (stamp, Content::parse(list.kind, &bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_repository_is_no_target() {
        let of = |path: &str| Spot::of(Path::new(path));
        assert!(
            matches!(of("f43"), Some(Spot::Target(_)))
                && matches!(of("f43/a-1-1.src.rpm"), Some(Spot::Srpm(_)))
        );
        for name in ["generations", "repodata"] {
            assert_eq!(of(name), Some(Spot::Other(name.into())));
            assert_eq!(of(&format!("{name}/a-1-1.src.rpm")), None);
            assert_eq!(of(&format!("{name}/priority.txt")), None);
        }
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("generations")).unwrap();
        let listing = list(source.path(), None).unwrap();
        assert!(listing.targets.is_empty());
        let why = "a folder with this name cannot be a target's";
        assert_eq!(listing.others, [(PathBuf::from("generations"), why)]);
    }
}
