//! What a build or a package wants.

use std::fmt;
use std::sync::Arc;

use super::{Capability, FileHash, Versions};

/// A requirement. Any text can be read as one ([`std::str::FromStr`]), and its `Display` is RPM's notation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// Something of this name, in any of these versions.
    Plain {
        /// The capability's name.
        name: Arc<str>,
        /// `None`: any.
        versions: Option<Versions>,
    },
    /// A file, or something that is called like it.
    File(
        /// Its path, from the root.
        Arc<str>,
    ),
    /// A combination.
    Rich(Box<Rich>),
}

/// A combination of requirements.
///
/// Whether a condition of `if` or `unless` holds in a build's chroot is decided by packages of other
/// repositories too, which nobody knows here. So it counts as open: both what is wanted and what is
/// wanted otherwise help.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rich {
    /// `(a and b)`: all.
    All(Vec<Requirement>),
    /// `(a or b)`: any.
    Any(Vec<Requirement>),
    /// `(a with b)`: all, of one package.
    With(Vec<Requirement>),
    /// `(a without b)`: the first, of a package that does not fit the second.
    Without(Requirement, Requirement),
    /// `(a if b)`, `(a if b else c)`.
    If {
        /// `a`.
        wanted: Requirement,
        /// `b`.
        condition: Requirement,
        /// `c`.
        otherwise: Option<Requirement>,
    },
    /// `(a unless b)`, `(a unless b else c)`.
    Unless {
        /// `a`.
        wanted: Requirement,
        /// `b`.
        condition: Requirement,
        /// `c`.
        otherwise: Option<Requirement>,
    },
}

impl Requirement {
    /// Something of this name, whatever its version: the file, when it begins with `/`.
    pub fn any(name: impl Into<Arc<str>>) -> Self {
        Self::versioned(name, None)
    }

    /// Something of this name in one of these versions. Only an unversioned one can be a file's.
    pub fn versioned(name: impl Into<Arc<str>>, versions: Option<Versions>) -> Self {
        let name = name.into();
        match versions {
            None if name.starts_with('/') => Self::File(name),
            versions => Self::Plain { name, versions },
        }
    }

    /// Whether it is for a feature of rpm itself (`rpmlib(…)`), which no package provides. Not so
    /// `config(foo)`: that is an ordinary capability of the package `foo`.
    pub fn is_rpmlib(&self) -> bool {
        matches!(self, Self::Plain { name, .. } if name.starts_with("rpmlib("))
    }

    /// Every name of a capability, or path of a file, whose appearance could help: what to look a
    /// requirement up by. What begins with `/` is to be looked up as a file's path too.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names = Vec::new();
        self.leaves(&mut |leaf| names.extend(leaf.name()));
        names.into_iter()
    }

    /// The requirements for one name each that can help.
    pub(super) fn leaves<'a>(&'a self, found: &mut impl FnMut(&'a Self)) {
        let Self::Rich(rich) = self else { return found(self) };
        match &**rich {
            Rich::All(parts) | Rich::Any(parts) | Rich::With(parts) => {
                parts.iter().for_each(|part| part.leaves(found));
            }
            Rich::Without(wanted, _) => wanted.leaves(found),
            Rich::If { wanted, otherwise, .. } | Rich::Unless { wanted, otherwise, .. } => {
                wanted.leaves(found);
                otherwise.iter().for_each(|part| part.leaves(found));
            }
        }
    }

    /// The name or path, when it is for one.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Plain { name, .. } | Self::File(name) => Some(name),
            Self::Rich(_) => None,
        }
    }

    /// Whether one package with these capabilities and files (in order) helps: it satisfies the
    /// requirement, or a part of it that may be all that is missing. This is what wakes a parked build.
    pub fn helped_by(&self, provides: &[Capability], files: &[FileHash]) -> bool {
        self.helped(&|leaf| {
            let capability = |capability: &Capability| leaf.fits(capability);
            let file =
                || matches!(leaf, Self::File(path) if files.binary_search(&FileHash::of(path)).is_ok());
            provides.iter().any(capability) || file()
        })
    }

    /// The same, for a package that `leaf` answers for.
    pub(super) fn helped(&self, leaf: &impl Fn(&Self) -> bool) -> bool {
        let Self::Rich(rich) = self else { return leaf(self) };
        match &**rich {
            Rich::All(parts) | Rich::Any(parts) => parts.iter().any(|part| part.helped(leaf)),
            Rich::With(parts) => parts.iter().all(|part| part.helped(leaf)),
            Rich::Without(wanted, not) => wanted.helped(leaf) && !not.helped(leaf),
            Rich::If { wanted, otherwise, .. } | Rich::Unless { wanted, otherwise, .. } => {
                wanted.helped(leaf) || otherwise.as_ref().is_some_and(|part| part.helped(leaf))
            }
        }
    }

    /// Whether a capability fits; never a combination.
    pub(super) fn fits(&self, capability: &Capability) -> bool {
        match self {
            Self::Plain { name, versions } => *name == capability.name && capability.fits(versions.as_ref()),
            Self::File(path) => *path == capability.name,
            Self::Rich(_) => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { name, versions: None } | Self::File(name) => f.write_str(name),
            Self::Plain { name, versions: Some(versions) } => write!(f, "{name} {versions}"),
            Self::Rich(rich) => write!(f, "({rich})"),
        }
    }
}

impl fmt::Display for Rich {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, word, condition, otherwise) = match self {
            Self::All(parts) => return joined(f, parts, " and "),
            Self::Any(parts) => return joined(f, parts, " or "),
            Self::With(parts) => return joined(f, parts, " with "),
            Self::Without(wanted, not) => return write!(f, "{wanted} without {not}"),
            Self::If { wanted, condition, otherwise } => (wanted, "if", condition, otherwise),
            Self::Unless { wanted, condition, otherwise } => (wanted, "unless", condition, otherwise),
        };
        write!(f, "{wanted} {word} {condition}")?;
        otherwise.as_ref().map_or(Ok(()), |otherwise| write!(f, " else {otherwise}"))
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Requirement], word: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        f.write_str(if at == 0 { "" } else { word })?;
        fmt::Display::fmt(part, f)?;
    }
    Ok(())
}
