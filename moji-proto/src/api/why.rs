//! Why a build is where it is.

use serde::{Deserialize, Serialize};

use super::{Build, Excerpt};

/// Why a build is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Why {
    /// The build.
    pub build: Build,
    /// In one line.
    pub summary: String,
    /// The lines of a log that tell why it failed.
    pub excerpt: Option<Excerpt>,
    /// What it needs that is not there.
    pub missing: Vec<Missing>,
    /// For one that waits: its place in the queue of its target, from 1.
    pub place: Option<u64>,
    /// For one that waits: for each builder that is connected, why it does not get it.
    pub builders: Vec<WhyBuilder>,
}

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Missing {
    /// In RPM's notation.
    pub requirement: String,
    /// SRPMs here that are known to bring it.
    pub providers: Vec<MissingProvider>,
}

/// An SRPM that is known to bring something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingProvider {
    /// `[TARGET/]SRPM`.
    pub build: String,
    /// What it is about: `queued`, `parked`, `waiting`, `running`.
    pub state: String,
}

/// Why one builder does not get a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhyBuilder {
    /// The builder.
    pub builder: String,
    /// Each in one line; none: it gets it as soon as it asks.
    pub reasons: Vec<String>,
}
