//! Which RPMs belong to a repository: a walk through its folder.
//!
//! What counts: regular files named `*.rpm` whose name and folders do not begin with a dot, at any
//! depth down to 32 folders. What does not: `repodata`, `generations`, repositories of their own, symbolic links (they may lead
//! outside, or in circles, and inotify does not see behind them), names that a package list cannot
//! hold, and files that are not whole.
//!
//! It deliberately does not know what is published, or when to look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use moji_proto::outcome::plain;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::whole::{self, Verdict};

/// The folder of a repository that holds its metadata.
pub(crate) const REPODATA: &str = "repodata";
/// The folder of a repository that holds its generations, each where it stays.
pub(crate) const GENERATIONS: &str = "generations";
const DEPTH_MAX: usize = 32;
/// An RPM that does not say how long it is counts when it was not written to for so long.
const SETTLED: Duration = Duration::from_secs(10);

/// An RPM and what is cheap to know of it: a change in any of it means that it must be read again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Relative to the repository's folder, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Modification time: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// Tells files apart that were moved over each other.
    pub inode: u64,
}

impl Package {
    /// Whether `createrepo_c --update` would take `self` for `other`, though it may not be: it
    /// compares size and whole seconds only.
    pub(super) fn mistakable_for(&self, other: &Self) -> bool {
        self != other && self.size == other.size && self.modified.0 == other.modified.0
    }
}

/// Why which files are left out, so that it is said once and not at every look.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Why, by path.
    said: BTreeMap<String, String>,
    is_silent: bool,
}

impl Complaints {
    /// Of a look upon which nothing is published: what is half there may be whole then.
    pub(super) fn silent() -> Self {
        Self { is_silent: true, ..Self::default() }
    }

    fn left_out(&mut self, folder: &Path, path: String, why: String) {
        if !self.is_silent && self.said.get(&path) != Some(&why) {
            warn!("left out of the metadata until it changes: {}: {why}", folder.join(&path).display());
            self.said.insert(path, why);
        }
    }
}

/// A walk through one repository.
pub(super) struct Walk<'a> {
    /// The repository's folder.
    pub(super) folder: &'a Path,
    /// Folders directly in it that are repositories of their own.
    pub(super) nested: &'a BTreeSet<String>,
    /// Packages that were found whole before, by path, in order.
    pub(super) known: &'a [Package],
    /// RPMs that `createrepo_c` could not read, by path, in order.
    pub(super) refused: &'a [Package],
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Walk<'_> {
    /// The packages, by path, in order.
    ///
    /// # Errors
    /// When a folder cannot be read, unless it is gone, or closed to the server (which is logged).
    pub(super) fn packages(&self, complaints: &mut Complaints) -> io::Result<Vec<Package>> {
        let mut packages = Vec::new();
        self.folder(String::new(), 0, &mut packages, complaints)?;
        packages.sort();
        let seen: BTreeSet<&str> = packages.iter().map(|p| p.path.as_str()).collect();
        // Forget files that became whole; those that are gone matter little, but must not pile up.
        complaints.said.retain(|path, _| !seen.contains(path.as_str()) && self.folder.join(path).exists());
        Ok(packages)
    }

    /// The same, when only these entries of the folder may be others than `known` says.
    ///
    /// # Errors
    /// As [`packages`](Self::packages).
    pub(super) fn packages_at(
        &self,
        entries: &BTreeSet<String>,
        complaints: &mut Complaints,
    ) -> io::Result<Vec<Package>> {
        let is_there =
            |package: &&Package| !entries.contains(package.path.split('/').next().unwrap_or_default());
        let mut packages: Vec<Package> = self.known.iter().filter(is_there).cloned().collect();
        for entry in entries.iter().filter(|entry| !entry.contains(char::is_control)) {
            match fs::symlink_metadata(self.folder.join(entry)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => self.entry("", entry, 0, found?, &mut packages, complaints)?,
            }
        }
        packages.sort();
        Ok(packages)
    }

    fn folder(
        &self,
        at: String,
        depth: usize,
        into: &mut Vec<Package>,
        complaints: &mut Complaints,
    ) -> io::Result<()> {
        let path = self.folder.join(&at);
        let entries = match fs::read_dir(&path) {
            Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if depth > 0 && error.kind() == io::ErrorKind::PermissionDenied => {
                complaints.left_out(self.folder, at, format!("{error}; give it to the server's user"));
                return Ok(());
            }
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
                if name.as_encoded_bytes().ends_with(b".rpm") {
                    let shown = plain(&entry.path().to_string_lossy());
                    warn!("left out of the metadata: {shown}: its name is not plain text");
                }
                continue;
            };
            match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => self.entry(&at, name, depth, found?, into, complaints)?,
            }
        }
        Ok(())
    }

    /// One entry of the folder `at`.
    fn entry(
        &self,
        at: &str,
        name: &str,
        depth: usize,
        found: fs::Metadata,
        into: &mut Vec<Package>,
        complaints: &mut Complaints,
    ) -> io::Result<()> {
        if name.starts_with('.') || name == REPODATA || (depth == 0 && name == GENERATIONS) {
            return Ok(());
        }
        let inner = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        if found.is_dir() && depth < DEPTH_MAX && !(depth == 0 && self.nested.contains(name)) {
            self.folder(inner, depth + 1, into, complaints)?;
        } else if found.is_file() && name.ends_with(".rpm") {
            into.extend(self.file(inner, &found, complaints));
        }
        Ok(())
    }

    fn file(&self, path: String, found: &fs::Metadata, complaints: &mut Complaints) -> Option<Package> {
        let modified = (found.mtime(), found.mtime_nsec());
        let package = Package { path, size: found.len(), modified, inode: found.ino() };
        let among = |list: &[Package]| {
            list.binary_search_by(|p| p.path.cmp(&package.path))
                .is_ok_and(|at| list.get(at) == Some(&package))
        };
        if among(self.known) {
            return Some(package);
        }
        if among(self.refused) {
            return None;
        }
        let why = match whole::look(&self.folder.join(&package.path)) {
            Ok(Verdict::Whole) => return Some(package),
            Ok(Verdict::Unsized) => {
                let written = u64::try_from(found.mtime()).unwrap_or(0);
                if self.now.abs_diff(written) >= SETTLED.as_secs() {
                    return Some(package);
                }
                "it does not say how long it is, and was written to just now".to_owned()
            }
            Ok(Verdict::Not(why)) => why.to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        complaints.left_out(self.folder, package.path, why);
        None
    }
}

/// The folders directly in `repo` that are repositories of their own: those with a folder `repodata`,
/// and of those in `before` (which had one) all that are still there.
///
/// # Errors
/// When `repo` cannot be read.
pub(super) fn nested(repo: &Path, before: &BTreeSet<String>) -> io::Result<BTreeSet<String>> {
    let mut nested = BTreeSet::new();
    for entry in fs::read_dir(repo)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let hidden = name.starts_with('.') || name == REPODATA || name == GENERATIONS;
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let own = fs::symlink_metadata(entry.path().join(REPODATA)).is_ok_and(|found| found.is_dir());
            if own || before.contains(&name) {
                nested.insert(name);
            }
        }
    }
    Ok(nested)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(path: &str, modified: (i64, i64), inode: u64) -> Package {
        Package { path: path.into(), size: 17, modified, inode }
    }

    #[test]
    fn finds_repositories_of_their_own() {
        let repo = tempfile::tempdir().unwrap();
        let own = ["repodata", "f43/repodata", "generations/repodata", ".x/repodata"];
        for folder in own.into_iter().chain(["foo-1-1", "was", "deep/er/repodata"]) {
            fs::create_dir_all(repo.path().join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("f43", repo.path().join("link")).unwrap();
        let before = ["was", "gone"].map(String::from).into();
        assert_eq!(nested(repo.path(), &before).unwrap(), ["f43", "was"].map(String::from).into());
    }

    #[test]
    fn what_was_found_whole_is_not_read_again_and_the_rest_is_left_out() {
        let repo = tempfile::tempdir().unwrap();
        let names = ["a.rpm", "x/b.rpm", "x/c.rpm.part", ".d.rpm", ".y/e.rpm", "repodata/f.rpm", "own/g.rpm"];
        for name in names.into_iter().chain(["generations/rpms/h.rpm", "generations/7/i.rpm"]) {
            let path = repo.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        std::os::unix::fs::symlink("a.rpm", repo.path().join("h.rpm")).unwrap();
        let nested = BTreeSet::from(["own".to_owned()]);
        let stamp = |name: &str| {
            let found = fs::metadata(repo.path().join(name)).unwrap();
            let modified = (found.mtime(), found.mtime_nsec());
            Package { path: name.into(), size: found.len(), modified, inode: found.ino() }
        };
        let (mut complaints, known) = (Complaints::default(), [stamp("a.rpm"), stamp("x/b.rpm")]);
        let walk = Walk { folder: repo.path(), nested: &nested, known: &[], refused: &[], now: 5 };
        assert_eq!(walk.packages(&mut complaints).unwrap(), []);
        assert_eq!(complaints.said.into_keys().collect::<Vec<_>>(), ["a.rpm", "x/b.rpm"]);
        let (mut complaints, refused) = (Complaints::default(), [stamp("x/b.rpm")]);
        let walk = Walk { known: &known[..1], refused: &refused, ..walk };
        assert_eq!(walk.packages(&mut complaints).unwrap(), known[..1]);
        assert!(complaints.said.is_empty());
    }

    #[test]
    fn knows_what_update_cannot_tell_apart() {
        let old = package("a", (5, 100), 7);
        assert!(package("a", (5, 101), 7).mistakable_for(&old));
        assert!(package("a", (5, 100), 8).mistakable_for(&old));
        assert!(!package("a", (6, 100), 8).mistakable_for(&old));
        assert!(!old.mistakable_for(&old));
    }
}
