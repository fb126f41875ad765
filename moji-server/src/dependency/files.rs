//! Who has which file: an index that takes twelve bytes a file.
//!
//! Two sorted columns, which are costly to insert into; so what is new waits in a set until it is a
//! sixteenth of all; what was removed stays until it is an eighth.

use std::collections::{BTreeMap, BTreeSet};

use super::{FileHash, PackageId};

/// So few are not worth a merge, nor a look at all.
const FEW: usize = 4096;

/// Files and the packages that have them.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// In order, and beside each its owner's serial.
    paths: Vec<u64>,
    owners: Vec<u32>,
    /// Not in the columns yet.
    recent: BTreeSet<(u64, u32)>,
    /// The packages that are there. A serial is not used again: what was removed may still be in the
    /// columns.
    serials: BTreeMap<u32, PackageId>,
    next: u32,
    /// How many that are in the columns were removed.
    removed: usize,
}

impl Files {
    /// Takes in a package's files, each once; gives the serial to remove them by.
    pub(super) fn add(&mut self, id: PackageId, files: &[FileHash]) -> u32 {
        let serial = self.next;
        self.next = self.next.wrapping_add(1);
        self.serials.insert(serial, id);
        self.recent.extend(files.iter().map(|FileHash(path)| (*path, serial)));
        if self.recent.len() > FEW.max(self.paths.len() / 16) {
            self.merge();
        }
        serial
    }

    /// Forgets a package that had `count` files.
    pub(super) fn remove(&mut self, serial: u32, count: usize) {
        self.serials.remove(&serial);
        self.removed += count;
        if self.removed > FEW.max(self.paths.len() / 8) || self.serials.is_empty() {
            self.sweep();
        }
    }

    /// The packages that have a file.
    pub(super) fn owners(&self, FileHash(path): FileHash) -> impl Iterator<Item = PackageId> {
        let from = self.paths.partition_point(|other| *other < path);
        let rest = self.paths.get(from..).unwrap_or_default();
        let run = rest.iter().take_while(|other| **other == path).count();
        let run = self.owners.get(from..from + run).unwrap_or_default();
        let recent = self.recent.range((path, 0)..=(path, u32::MAX)).map(|(_, serial)| serial);
        run.iter().chain(recent).filter_map(|serial| self.serials.get(serial).copied())
    }

    /// How many files it keeps, with those that were removed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.paths.len() + self.recent.len()
    }

    /// Takes what waits into the columns: from their ends, so that it needs no second copy of them.
    fn merge(&mut self) {
        let (mut from, more) = (self.paths.len(), self.recent.len());
        self.paths.reserve_exact(more);
        self.owners.reserve_exact(more);
        self.paths.resize(from + more, 0);
        self.owners.resize(from + more, 0);
        let mut to = self.paths.len();
        for (path, owner) in std::mem::take(&mut self.recent).into_iter().rev() {
            let after = self.paths.get(..from).map_or(0, |old| old.partition_point(|other| *other <= path));
            self.paths.copy_within(after..from, to - (from - after));
            self.owners.copy_within(after..from, to - (from - after));
            to -= from - after + 1;
            from = after;
            if let (Some(a), Some(b)) = (self.paths.get_mut(to), self.owners.get_mut(to)) {
                (*a, *b) = (path, owner);
            }
        }
    }

    /// Drops what was removed.
    fn sweep(&mut self) {
        let Self { paths, owners, recent, serials, .. } = self;
        recent.retain(|(_, owner)| serials.contains_key(owner));
        let stays: Vec<bool> = owners.iter().map(|owner| serials.contains_key(owner)).collect();
        let (mut path, mut owner) = (stays.iter(), stays.iter());
        paths.retain(|_| path.next() == Some(&true));
        owners.retain(|_| owner.next() == Some(&true));
        self.removed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many more than wait, with files that several packages have.
    #[test]
    fn every_file_has_its_owners_however_many_there_are() {
        let mut files = Files::default();
        let path = |package: u32, n: u32| {
            FileHash(u64::from(package * 31 + n * 17).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        };
        let mut expected = BTreeSet::new();
        let mut serials = Vec::new();
        for package in 0..300 {
            let mut own: Vec<_> = (0..100).map(|n| path(package, n)).collect();
            own.sort();
            own.dedup();
            serials.push((files.add(PackageId(package), &own), own.len()));
            expected.extend(own.into_iter().map(|file| (file, PackageId(package))));
        }
        assert!(files.paths.len() > 3 * FEW && files.paths.is_sorted());
        for gone in (0..300).step_by(2) {
            let (serial, count) = serials[gone as usize];
            files.remove(serial, count);
            expected.retain(|(_, id)| *id != PackageId(gone));
        }
        assert!(files.len() < 20_000, "{}", files.len());
        let all: BTreeSet<_> = (0..300).flat_map(|package| (0..100).map(move |n| path(package, n))).collect();
        let found: BTreeSet<_> =
            all.iter().flat_map(|file| files.owners(*file).map(move |id| (*file, id))).collect();
        assert_eq!(found, expected);
        for package in (1..300).step_by(2) {
            let (serial, count) = serials[package as usize];
            files.remove(serial, count);
        }
        assert_eq!(files.len(), 0);
    }
}
