//! What was published last in one repository and what may be deleted when: a file in the private folder, so that it
//! survives a restart. What is about to be published is noted in another one beside it, which names only the packages that
//! come and go: that has to be written before, and is to cost little.
//!
//! It is a help, not the truth: without it the served folder is read again and one generation more
//! is published. It deliberately does not touch the served folder.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moji_proto::Sha256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::packages::Package;
use crate::durable;

/// The file's content.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The generation that is served, as far as is known.
    pub(super) published: Option<Edition>,
    /// One that is about to be served: whether it is, `repomd.xml` tells.
    pub(super) pending: Option<Edition>,
    /// Files in `repodata` of earlier generations.
    pub(super) superseded: Vec<Superseded>,
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edition {
    /// The generation's number, the revision in `repomd.xml`.
    pub(super) number: u64,
    /// The digest of its `repomd.xml`.
    pub(super) repomd: Sha256,
    /// The names of the files that its `repomd.xml` names.
    pub(super) files: Vec<String>,
    /// The packages it was made from, by path.
    pub(super) packages: Vec<Package>,
    /// RPMs that `createrepo_c` could not read, by path: not tried again until they change.
    pub(super) refused: Vec<Package>,
    /// The files that were named by what it replaces.
    pub(super) replaces: Vec<String>,
}

/// A file of an earlier generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Superseded {
    /// Its name in `repodata`.
    pub(super) name: String,
    /// Since when no generation names it, in seconds since 1970; 0 when none ever did.
    pub(super) since: u64,
}

/// What is about to be published, compared with what is.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    /// The `repomd.xml` of the generation that it follows: of another one this says nothing.
    follows: Option<Sha256>,
    /// Without its packages.
    edition: Edition,
    added: Vec<Package>,
    removed: Vec<String>,
}

impl Ledger {
    /// Reads the files. A missing or damaged one is an empty ledger.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let mut ledger = read::<Self>(path)?.unwrap_or_default();
        if let Some(Pending { follows, mut edition, added, removed }) = read(&pending_path(path))?
            && follows == ledger.published.as_ref().map(|published| published.repomd)
        {
            let before = ledger.published.as_ref().map(|published| published.packages.as_slice());
            edition.packages = changed(before.unwrap_or_default(), &added, &removed);
            ledger.pending = Some(edition);
        }
        Ok(ledger)
    }

    /// Writes everything durably, whole or not at all.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        durable::write_whole(path, &serde_json::to_vec(self)?)?;
        match fs::remove_file(pending_path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // One that comes back follows another generation.
            _ => Ok(()),
        }
    }

    /// Writes only what is pending: the rest has been saved.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn save_pending(&self, path: &Path) -> io::Result<()> {
        let Some(edition) = &self.pending else { return self.save(path) };
        let published = self.published.as_ref();
        let before = published.map(|published| published.packages.as_slice()).unwrap_or_default();
        let (added, removed) = difference(before, &edition.packages);
        let edition = Edition {
            packages: Vec::new(),
            files: edition.files.clone(),
            refused: edition.refused.clone(),
            replaces: edition.replaces.clone(),
            ..*edition
        };
        let added = added.into_iter().cloned().collect();
        let removed = removed.into_iter().map(str::to_owned).collect();
        let pending =
            Pending { follows: published.map(|published| published.repomd), edition, added, removed };
        durable::write_whole(&pending_path(path), &serde_json::to_vec(&pending)?)
    }

    /// Settles what a crash left open: `served` is the digest of the `repomd.xml` that is there.
    pub(super) fn settle(&mut self, served: Option<Sha256>, now: u64) {
        if self.pending.as_ref().is_some_and(|pending| Some(pending.repomd) == served) {
            self.promote(now);
        } else if let Some(pending) = self.pending.take() {
            self.supersede(&pending.files, 0);
        }
    }

    /// The pending generation is served now: those before it are superseded.
    pub(super) fn promote(&mut self, now: u64) {
        let Some(new) = self.pending.take() else { return };
        let old = self.published.replace(new.clone()).map(|old| old.files).unwrap_or_default();
        self.supersede(&old, now);
        self.supersede(&new.replaces, now);
        self.superseded.retain(|file| !new.files.contains(&file.name));
    }

    fn supersede(&mut self, files: &[String], since: u64) {
        let current = self.published.as_ref().map(|edition| edition.files.as_slice()).unwrap_or_default();
        for name in files {
            if !current.contains(name) && !self.superseded.iter().any(|file| file.name == *name) {
                self.superseded.push(Superseded { name: name.clone(), since });
            }
        }
    }

    /// Takes out the names of the files that were superseded at least `keep` seconds before `now`.
    /// A clock that went back starts the time anew.
    pub(super) fn take_expired(&mut self, now: u64, keep: u64) -> Vec<String> {
        let mut expired = Vec::new();
        self.superseded.retain_mut(|file| {
            file.since = file.since.min(now);
            let old = file.since == 0 || now - file.since >= keep;
            if old {
                expired.push(file.name.clone());
            }
            !old
        });
        expired
    }
}

fn pending_path(path: &Path) -> PathBuf {
    path.with_extension("pending.json")
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(serde_json::from_slice(&bytes)
        .inspect_err(|error| {
            warn!("{} is damaged ({error}): the metadata will be made anew", path.display());
        })
        .ok())
}

/// Which packages are new or others, and the paths of those that are gone. Both lists are in the order of their paths.
pub(super) fn difference<'a>(before: &'a [Package], now: &'a [Package]) -> (Vec<&'a Package>, Vec<&'a str>) {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (before.peek(), now.peek()) {
            (None, None) => return (added, removed),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(&new.path),
        };
        match order {
            Ordering::Less => removed.extend(before.next().map(|old| old.path.as_str())),
            Ordering::Greater => added.extend(now.next()),
            Ordering::Equal => {
                let (old, new) = (before.next(), now.next());
                added.extend(new.filter(|new| Some(*new) != old));
            }
        }
    }
}

/// A list after such a difference.
fn changed(before: &[Package], added: &[Package], removed: &[String]) -> Vec<Package> {
    let gone: BTreeSet<&str> =
        removed.iter().map(String::as_str).chain(added.iter().map(|new| new.path.as_str())).collect();
    let stays = before.iter().filter(|package| !gone.contains(package.path.as_str()));
    let mut packages: Vec<_> = stays.chain(added).cloned().collect();
    packages.sort();
    packages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn package(path: u8, inode: u64) -> Package {
        Package { path: format!("{path:03}"), size: 5, modified: (7, 8), inode }
    }

    proptest! {
        #[test]
        fn what_is_pending_is_told_by_its_difference(
            before in proptest::collection::btree_map(0..30_u8, 0..3_u64, 0..20),
            now in proptest::collection::btree_map(0..30_u8, 0..3_u64, 0..20),
        ) {
            let list = |map: std::collections::BTreeMap<u8, u64>| -> Vec<_> {
                map.into_iter().map(|(path, inode)| package(path, inode)).collect()
            };
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger.json");
            let published = Edition { packages: list(before), ..edition(3, &["a"]) };
            let mut ledger = Ledger { published: Some(published), ..Ledger::default() };
            ledger.save(&path).unwrap();
            ledger.pending = Some(Edition { packages: list(now), ..edition(4, &["b"]) });
            ledger.save_pending(&path).unwrap();
            prop_assert_eq!(&Ledger::load(&path).unwrap(), &ledger);
            // A crash before the note is removed.
            let note = fs::read(pending_path(&path)).unwrap();
            ledger.promote(9);
            ledger.save(&path).unwrap();
            fs::write(pending_path(&path), note).unwrap();
            prop_assert_eq!(Ledger::load(&path).unwrap(), ledger);
        }
    }

    fn edition(number: u64, files: &[&str]) -> Edition {
        let files = files.iter().map(|name| (*name).to_owned()).collect();
        let repomd = Sha256::of(&number.to_be_bytes());
        Edition { number, repomd, files, packages: Vec::new(), refused: Vec::new(), replaces: Vec::new() }
    }

    fn superseded(ledger: &Ledger) -> Vec<(&str, u64)> {
        ledger.superseded.iter().map(|file| (file.name.as_str(), file.since)).collect()
    }

    #[test]
    fn a_pending_generation_is_what_repomd_says_it_is() {
        let mut begun = Ledger { published: Some(edition(3, &["a", "b"])), ..Ledger::default() };
        begun.pending =
            Some(Edition { replaces: vec!["foreign".into(), "b".into()], ..edition(4, &["b", "c"]) });

        let mut switched = begun.clone();
        switched.settle(Some(edition(4, &[]).repomd), 70);
        assert_eq!(switched.published.as_ref().map(|e| e.number), Some(4));
        assert_eq!(superseded(&switched), [("a", 70), ("foreign", 70)]);

        begun.settle(Some(edition(3, &[]).repomd), 70);
        assert_eq!(begun.published.as_ref().map(|e| e.number), Some(3));
        assert_eq!((begun.pending.is_none(), superseded(&begun)), (true, vec![("c", 0)]));
    }

    #[test]
    fn superseded_files_expire_and_come_back_when_named_again() {
        let mut ledger = Ledger { published: Some(edition(1, &["a", "b"])), ..Ledger::default() };
        ledger.pending = Some(edition(2, &["c"]));
        ledger.promote(100);
        ledger.pending = Some(edition(3, &["a"]));
        ledger.promote(130);
        assert_eq!(superseded(&ledger), [("b", 100), ("c", 130)]);
        assert_eq!(ledger.take_expired(159, 60), [""; 0]);
        assert_eq!(ledger.take_expired(160, 60), ["b"]);
        assert_eq!(ledger.take_expired(20, 60), [""; 0], "the clock went back");
        assert_eq!(superseded(&ledger), [("c", 20)]);
    }

    #[test]
    fn survives_on_disk_and_damage_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        assert_eq!(Ledger::load(&path).unwrap(), Ledger::default());
        let ledger = Ledger { published: Some(edition(9, &["x"])), ..Ledger::default() };
        ledger.save(&path).unwrap();
        assert_eq!(Ledger::load(&path).unwrap(), ledger);
        fs::write(&path, b"{").unwrap();
        assert_eq!(Ledger::load(&path).unwrap(), Ledger::default());
    }
}
