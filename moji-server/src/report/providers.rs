//! What is missing, who would provide it, and who waits for whom in a circle.

use moji_proto::SrpmName;
use serde::{Deserialize, Serialize};

/// A requirement that a build misses or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// In RPM's notation: `pkgconfig(zlib) >= 1.2`.
    pub requirement: String,
    /// The SRPMs that would provide it; empty when none is known.
    pub providers: Vec<Provider>,
    /// The repository has it, although the attempt did not find it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_there: bool,
}

impl Missing {
    /// A requirement of which it is not known who would provide it.
    pub fn unknown(requirement: impl Into<String>) -> Self {
        Self { requirement: requirement.into(), providers: Vec::new(), is_there: false }
    }

    /// A requirement that these would provide.
    pub fn of(requirement: impl Into<String>, providers: Vec<Provider>) -> Self {
        Self { requirement: requirement.into(), providers, is_there: false }
    }
}

/// An SRPM that would provide something, or something like it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// The SRPM.
    pub srpm: SrpmName,
    /// What is with it.
    pub state: ProviderState,
}

/// What is with an SRPM that would provide something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    /// Its turn comes.
    Queued,
    /// It waits for another one itself.
    Waiting,
    /// It misses something itself.
    Parked,
    /// A builder has it.
    Running,
    /// It failed.
    Failed,
    /// It waits for a person.
    Held,
    /// It was built, but what it provides is not what is asked for: another version.
    Built,
    /// It was built, and what it provided is not in the repository any more.
    Removed,
}

/// Packages that need each other in a circle, so that none can be the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycle {
    /// Each needs something of the next one, the last one of the first.
    pub edges: Vec<Edge>,
}

/// One package of a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The package's name.
    pub package: String,
    /// What it needs of the next one.
    pub requirement: String,
}

impl Cycle {
    /// Of packages, each with what it needs of the next one. It is written from the package whose name
    /// comes first, so that the same cycle is the same text.
    pub fn new(edges: impl IntoIterator<Item = (String, String)>) -> Self {
        let edges = edges.into_iter().map(|(package, requirement)| Edge { package, requirement });
        let mut edges: Vec<Edge> = edges.collect();
        let first = edges.iter().enumerate().min_by(|(_, a), (_, b)| a.package.cmp(&b.package));
        let first = first.map_or(0, |(at, _)| at);
        edges.rotate_left(first);
        Self { edges }
    }
}
