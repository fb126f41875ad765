//! What the packages of one repository provide, indexed.
//!
//! Ten thousand packages with a million files take some 40 MB: a name is kept once, a file as twelve
//! bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::files::Files;
use super::{FileHash, PublishedPackage, Requirement, Rich};

/// A package in one [`Provided`]; the caller's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub u32);

/// The packages of one repository.
#[derive(Debug, Default)]
pub struct Provided {
    packages: BTreeMap<PackageId, Kept>,
    by_name: BTreeMap<Arc<str>, Owners>,
    files: Files,
}

#[derive(Debug)]
struct Kept {
    /// Without its files, and with its capabilities in order.
    package: PublishedPackage,
    /// Stands for it in the index of files.
    serial: u32,
    /// How many files it has.
    files: usize,
}

impl Provided {
    /// Takes in a package, in place of one that had the same id.
    pub fn add(&mut self, id: PackageId, mut package: PublishedPackage) {
        self.remove(id);
        package.provides.sort();
        package.provides.dedup();
        package.provides.shrink_to_fit();
        for capability in &mut package.provides {
            match self.by_name.get_key_value(&*capability.name) {
                Some((name, _)) => capability.name = Arc::clone(name),
                None => {
                    self.by_name.insert(Arc::clone(&capability.name), Owners::default());
                }
            }
            if let Some(owners) = self.by_name.get_mut(&*capability.name) {
                owners.insert(id);
            }
            if let Some(versions) = &mut capability.versions
                && versions.evr == package.evr
            {
                versions.evr = package.evr.clone();
            }
        }
        let mut files = std::mem::take(&mut package.files);
        files.sort();
        files.dedup();
        let serial = self.files.add(id, &files);
        self.packages.insert(id, Kept { package, serial, files: files.len() });
    }

    /// Forgets a package, and gives back what is known of it besides its files.
    pub fn remove(&mut self, id: PackageId) -> Option<PublishedPackage> {
        let Kept { package, serial, files } = self.packages.remove(&id)?;
        for capability in &package.provides {
            if let Some(owners) = self.by_name.get_mut(&*capability.name) {
                owners.remove(id);
                if owners.is_empty() {
                    self.by_name.remove(&*capability.name);
                }
            }
        }
        self.files.remove(serial, files);
        Some(package)
    }

    /// Whether the packages here satisfy all of it. Other repositories may have what is not here; so
    /// what a new package changes is to be asked of [`Requirement::helped_by`] or
    /// [`Provided::providers`].
    pub fn satisfies(&self, requirement: &Requirement) -> bool {
        let Requirement::Rich(rich) = requirement else {
            return self.owners(requirement).next().is_some();
        };
        match &**rich {
            Rich::All(parts) => parts.iter().all(|part| self.satisfies(part)),
            Rich::Any(parts) => parts.iter().any(|part| self.satisfies(part)),
            Rich::With(_) | Rich::Without(..) => self.providers(requirement).next().is_some(),
            Rich::If { wanted, otherwise, .. } | Rich::Unless { wanted, otherwise, .. } => {
                self.satisfies(wanted) || otherwise.as_ref().is_some_and(|part| self.satisfies(part))
            }
        }
    }

    /// The packages that help ([`Requirement::helped_by`]), by id.
    pub fn providers(&self, requirement: &Requirement) -> impl Iterator<Item = PackageId> {
        let mut found = BTreeSet::new();
        requirement.leaves(&mut |leaf| found.extend(self.owners(leaf)));
        if matches!(requirement, Requirement::Rich(_)) {
            found.retain(|id| requirement.helped(&|leaf| self.has(*id, leaf)));
        }
        found.into_iter()
    }

    /// A package. Its files are in the index, and not in it.
    pub fn package(&self, id: PackageId) -> Option<&PublishedPackage> {
        self.packages.get(&id).map(|kept| &kept.package)
    }

    /// All packages, by id, like [`Provided::package`].
    pub fn packages(&self) -> impl Iterator<Item = (PackageId, &PublishedPackage)> {
        self.packages.iter().map(|(id, kept)| (*id, &kept.package))
    }

    /// The packages that satisfy a requirement that is no combination. One may come twice.
    fn owners(&self, leaf: &Requirement) -> impl Iterator<Item = PackageId> {
        let named = leaf.name().and_then(|name| self.by_name.get(name));
        let named = named.into_iter().flat_map(Owners::iter).filter(|id| self.provides(*id, leaf));
        let path = if let Requirement::File(path) = leaf { Some(FileHash::of(path)) } else { None };
        named.chain(path.into_iter().flat_map(|path| self.files.owners(path)))
    }

    /// Whether a package satisfies a requirement that is no combination.
    fn has(&self, id: PackageId, leaf: &Requirement) -> bool {
        let owns = |path| self.files.owners(FileHash::of(path)).any(|owner| owner == id);
        self.provides(id, leaf) || matches!(leaf, Requirement::File(path) if owns(path))
    }

    /// The same, by its capabilities alone.
    fn provides(&self, id: PackageId, leaf: &Requirement) -> bool {
        let Some(name) = leaf.name() else { return false };
        let provides = self.packages.get(&id).map_or(&[][..], |kept| &kept.package.provides);
        let from = provides.partition_point(|capability| &*capability.name < name);
        let same = provides.iter().skip(from).take_while(|capability| &*capability.name == name);
        same.into_iter().any(|capability| leaf.fits(capability))
    }

    /// How many names and files are in the indexes.
    #[cfg(test)]
    pub(super) fn indexed(&self) -> (usize, usize) {
        (self.by_name.len(), self.files.len())
    }
}

/// The packages that provide a name: mostly one.
#[derive(Debug, Default)]
enum Owners {
    #[default]
    None,
    One(PackageId),
    /// In order.
    Many(Box<[PackageId]>),
}

impl Owners {
    fn as_slice(&self) -> &[PackageId] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    fn iter(&self) -> impl Iterator<Item = PackageId> {
        self.as_slice().iter().copied()
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn insert(&mut self, id: PackageId) {
        if let Err(at) = self.as_slice().binary_search(&id) {
            let (before, after) = self.as_slice().split_at(at);
            *self = Self::from([before, &[id], after].concat());
        }
    }

    fn remove(&mut self, id: PackageId) {
        if self.as_slice().contains(&id) {
            *self = Self::from(self.iter().filter(|other| *other != id).collect::<Vec<_>>());
        }
    }
}

impl From<Vec<PackageId>> for Owners {
    fn from(ids: Vec<PackageId>) -> Self {
        match ids.as_slice() {
            [] => Self::None,
            [one] => Self::One(*one),
            _ => Self::Many(ids.into()),
        }
    }
}
