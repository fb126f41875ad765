//! Epoch, version and release.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// `[epoch:]version[-release]`, as it was written.
///
/// Its order, like its equality, is that of the text, so that it can be in sets: `1` and `0:1` are two.
/// Versions are compared by [`Evr::compare`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Evr(Arc<str>);

impl Evr {
    /// Any text is one; what rpm cannot tell apart is equal.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// From what headers keep apart.
    pub fn of(epoch: Option<u32>, version: &str, release: &str) -> Self {
        match epoch {
            Some(epoch) => Self::new(format!("{epoch}:{version}-{release}")),
            None => Self::new(format!("{version}-{release}")),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, &str, &str) {
        let (epoch, rest) = match self.0.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => (epoch, rest),
            _ => ("", &*self.0),
        };
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (if epoch.is_empty() { "0" } else { epoch }, version, release)
    }

    /// The release; empty when there is none.
    pub fn release(&self) -> &str {
        self.parts().2
    }

    /// Any release of this version.
    #[must_use]
    pub fn without_release(&self) -> Self {
        match self.release() {
            "" => self.clone(),
            release => {
                let end = self.0.len() - release.len() - 1;
                Self::new(self.0.get(..end).unwrap_or_default())
            }
        }
    }

    /// Compares as rpm does, with a missing epoch like 0 and a missing release before all others.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.compare_version(other).then_with(|| self.compare_release(other))
    }

    /// Compares epochs and versions.
    pub(super) fn compare_version(&self, other: &Self) -> Ordering {
        let ((epoch, version, _), (other_epoch, other_version, _)) = (self.parts(), other.parts());
        compare(epoch, other_epoch).then_with(|| compare(version, other_version))
    }

    pub(super) fn compare_release(&self, other: &Self) -> Ordering {
        compare(self.release(), other.release())
    }
}

/// `rpmvercmp`.
fn compare(one: &str, two: &str) -> Ordering {
    let version = |text| rpm_version::Evr::new("", text, "");
    version(one).cmp(&version(two))
}

impl fmt::Display for Evr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Evr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
