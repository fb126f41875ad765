//! A binary package in a repository, as far as others can depend on it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use moji_proto::Sha256;

use super::{Capability, Evr};

/// Where a package lies, below its repository, with `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackagePath(Arc<str>);

impl PackagePath {
    /// Any text is one.
    pub fn new(path: impl Into<Arc<str>>) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for PackagePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PackagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Stands for the path of a file: a repository has millions of them, and few are ever asked for. That
/// two paths share one is unlikely, and costs a build that is tried in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileHash(pub(super) u64);

impl FileHash {
    /// For a path from the root.
    pub fn of(path: &str) -> Self {
        let Sha256([a, b, c, d, e, f, g, h, ..]) = Sha256::of(path.as_bytes());
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// A binary package in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPackage {
    /// Where it lies.
    pub path: PackagePath,
    /// Its name.
    pub name: Box<str>,
    /// Its version.
    pub evr: Evr,
    /// Its architecture.
    pub arch: Box<str>,
    /// The file name of the SRPM that it was built from.
    pub source: Option<Box<str>>,
    /// What it provides; its own name is among it.
    pub provides: Vec<Capability>,
    /// Its files, in order.
    pub files: Vec<FileHash>,
}

impl PublishedPackage {
    /// The name of the package that it was built from, of `name-version-release.src.rpm`.
    pub fn source_name(&self) -> Option<&str> {
        self.source.as_deref()?.rsplitn(3, '-').nth(2)
    }
}
