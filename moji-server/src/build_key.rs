//! Which SRPM for which target: the name under which a build is known while it is not finished.

use std::fmt;
use std::path::PathBuf;

use moji_proto::{SrpmName, TargetName};

/// One SRPM for one target. The same in SOURCE, WORKING and FINISHED, where it is also the path:
/// `<srpm>`, or `<target>/<srpm>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildKey {
    /// The target whose folder the SRPM lies in; `None` for an SRPM directly in SOURCE, which any
    /// builder may build.
    pub target: Option<TargetName>,
    /// The SRPM's file name.
    pub srpm: SrpmName,
}

impl BuildKey {
    /// The path of the SRPM below SOURCE, WORKING or FINISHED.
    pub fn path(&self) -> PathBuf {
        match &self.target {
            Some(target) => PathBuf::from(target.as_str()).join(&self.srpm),
            None => PathBuf::from(self.srpm.as_str()),
        }
    }
}

impl fmt::Display for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "{target}/{}", self.srpm),
            None => write!(f, "{}", self.srpm),
        }
    }
}
