//! What packages require and provide, and which of them fit together, by RPM's rules.
//!
//! Texts are in RPM's notation (`pkgconfig(zlib) >= 1.2`, `/usr/bin/perl`, `(a or b)`): headers and Mock's
//! messages both use it. Pure: it deliberately does not know files, headers, builds or the queue, and
//! not what other repositories hold, so "not provided here" never means "not there".
//!
//! | | |
//! |---|---|
//! | [`Requirement`] | what is wanted: a name, a file, or a combination of such |
//! | [`Capability`] | what a package offers under one name |
//! | [`Provided`] | the packages of one repository, by what they offer |

mod evr;
mod files;
mod parse;
mod provided;
mod published;
mod requirement;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use evr::Evr;
pub use provided::{PackageId, Provided};
pub use published::{FileHash, PackagePath, PublishedPackage};
pub use requirement::{Requirement, Rich};

/// How a version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sense {
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterEqual,
    /// `>`
    Greater,
}

impl Sense {
    /// From a header's flags (`RPMSENSE_LESS` and so on); none: any version.
    pub fn from_flags(flags: u32) -> Option<Self> {
        Some(match flags & 0b1110 {
            0b0010 => Self::Less,
            0b1010 => Self::LessEqual,
            0b1000 => Self::Equal,
            0b1100 => Self::GreaterEqual,
            0b0100 => Self::Greater,
            _ => return None,
        })
    }

    fn less(self) -> bool {
        matches!(self, Self::Less | Self::LessEqual)
    }

    fn equal(self) -> bool {
        matches!(self, Self::LessEqual | Self::Equal | Self::GreaterEqual)
    }

    fn greater(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterEqual)
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Equal => "=",
            Self::GreaterEqual => ">=",
            Self::Greater => ">",
        })
    }
}

/// A range of versions: `>= 1.2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versions {
    /// On which side of [`Versions::evr`], and whether with it.
    pub sense: Sense,
    /// Where the range ends.
    pub evr: Evr,
}

impl Versions {
    /// Whether some version is in both ranges, as `rpmverOverlap` of rpm decides it.
    pub fn overlap(&self, other: &Self) -> bool {
        let (one, two) = (self.sense, other.sense);
        match self.evr.compare_version(&other.evr) {
            std::cmp::Ordering::Less => one.greater() || two.less(),
            std::cmp::Ordering::Greater => one.less() || two.greater(),
            std::cmp::Ordering::Equal => {
                let (here, there) = (self.evr.release(), other.evr.release());
                match (here.is_empty(), there.is_empty()) {
                    (false, false) => match self.evr.compare_release(&other.evr) {
                        std::cmp::Ordering::Less => return one.greater() || two.less(),
                        std::cmp::Ordering::Greater => return one.less() || two.greater(),
                        std::cmp::Ordering::Equal => {}
                    },
                    // Without a release, any release is meant.
                    (false, true) if two.equal() => return true,
                    (true, false) if one.equal() => return true,
                    _ => {}
                }
                one.equal() && two.equal() || one.less() && two.less() || one.greater() && two.greater()
            }
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sense, self.evr)
    }
}

/// What a package provides under one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// A package's name, or any other: `pkgconfig(zlib)`, `libz.so.1()(64bit)`.
    pub name: Arc<str>,
    /// Nearly always `= EVR`. `None` fits every requirement.
    pub versions: Option<Versions>,
}

impl Capability {
    /// Whether it fits a requirement for `versions` of the same name.
    pub fn fits(&self, versions: Option<&Versions>) -> bool {
        match (&self.versions, versions) {
            (Some(here), Some(wanted)) => here.overlap(wanted),
            _ => true,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.versions.as_ref().map_or(Ok(()), |versions| write!(f, " {versions}"))
    }
}

/// What an SRPM's header says of other packages. Hints: written by whoever made the SRPM, and for
/// another distribution perhaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    /// The BuildRequires, without those that rpm itself provides.
    pub build_requires: Vec<Requirement>,
    /// The packages that it is to become, with their versions and no releases: those are the target's.
    /// SRPMs have it since rpm 4.16.
    pub provides: Arc<[Capability]>,
}
