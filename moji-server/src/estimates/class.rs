//! Which builders are about as fast: those of one architecture with about as many cores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of an architecture: they come from builders.
const ARCH_MAX: usize = 32;
/// Most cores that are told apart.
const CORES_MAX: u32 = 1024;

/// Builders that are about as fast as each other. Written `aarch64/4`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuilderClass {
    arch: String,
    /// A power of two.
    cores: u32,
}

/// Not a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an architecture and a number of cores like aarch64/4")]
pub struct ClassError(String);

impl BuilderClass {
    /// The class of such a builder: cores are rounded to a power of two, and of an odd architecture
    /// nothing is kept but letters, digits, `_` and `-`.
    pub fn new(arch: &str, cores: u32) -> Self {
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let arch: String = arch.chars().filter(is_plain).take(ARCH_MAX).collect();
        let arch = if arch.is_empty() { "unknown".to_owned() } else { arch };
        Self { arch, cores: rounded(cores) }
    }

    /// That of builders that did not say what they are.
    pub fn unknown() -> Self {
        Self::new("", 1)
    }

    /// The architecture.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// About how many cores: a power of two.
    pub fn cores(&self) -> u32 {
        self.cores
    }
}

/// The power of two that is nearest as a factor: 3 is 4, 5 is 4, 6 is 8.
fn rounded(cores: u32) -> u32 {
    let cores = cores.clamp(1, CORES_MAX);
    let below = 1 << cores.ilog2();
    if cores * cores > 2 * below * below { 2 * below } else { below }
}

impl fmt::Display for BuilderClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.arch, self.cores)
    }
}

impl FromStr for BuilderClass {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, ClassError> {
        let class = text.split_once('/').and_then(|(arch, cores)| Some(Self::new(arch, cores.parse().ok()?)));
        class.filter(|class| class.to_string() == text).ok_or_else(|| ClassError(text.to_owned()))
    }
}

impl TryFrom<String> for BuilderClass {
    type Error = ClassError;

    fn try_from(text: String) -> Result<Self, ClassError> {
        text.parse()
    }
}

impl From<BuilderClass> for String {
    fn from(class: BuilderClass) -> Self {
        class.to_string()
    }
}
