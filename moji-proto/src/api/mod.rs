//! What the server tells of the farm, as JSON: over HTTP below [`BASE`], and to `moji` over the protocol's own
//! port ([`crate::operator::FromOperator::Get`]).
//!
//! Plain data, the same for the program that writes it and the one that reads it. A reader ignores fields that it
//! does not know; a field is never given another meaning, and never taken away within one version. Every text in
//! it is one harmless line ([`crate::outcome::one_line`]), but what comes from a package is still only text.

mod build;
mod event;
mod farm;
mod why;

pub use build::{
    Artifact, Attempt, Build, BuildDetail, BuildState, Excerpt, LogInfo, Package, PackageDetail,
};
pub use event::{Event, EventBuild, EventKind};
pub use farm::{
    Builder, BuilderDetail, BuilderState, BuilderTotals, Eta, History, OutOfDate, Overview, QueueCounts,
    Queued, Running, Server, Slots, Steered, Target, Throughput, Took,
};
pub use why::{Missing, MissingProvider, Why, WhyBuilder};

use serde::{Deserialize, Serialize};

/// Where all of it is.
pub const BASE: &str = "/api/v1";

/// Most entries of a page, whatever was asked for.
pub const PAGE_MAX: u32 = 500;
/// Entries of a page when nothing was asked for.
pub const PAGE: u32 = 50;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to give as `before` (of events: `since`) for the next part; none: there is no more.
    pub next: Option<u64>,
    /// How many there are in all parts, where that is known.
    pub total: Option<u64>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// In one line for people: what is wrong, and what to do.
    pub error: String,
}
