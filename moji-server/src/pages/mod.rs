//! What people see in a browser: each page made from the same answers that the API gives as JSON.
//!
//! Pure: answers and a time go in, markup comes out. Everything is complete without a script; with one, the elements
//! marked `data-live` are kept up to date (assets/moji.js). Whatever a package or a builder is called or says, it is
//! text: maud escapes it, and what stands in an address goes through `link`. It deliberately does not know HTTP,
//! the farm or the history.

pub mod assets;
mod build;
mod builder;
mod builds;
mod frame;
mod link;
mod log;
mod overview;
mod package;
mod parts;
mod queue;
mod report;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod words;

pub use build::build;
pub use builder::{builder, builders};
pub use builds::builds;
pub use frame::{Frame, problem};
pub use log::{LogPart, log};
pub use overview::overview;
pub use package::{package, packages};
pub use queue::queue;
pub use report::report;
pub use target::{target, targets};

pub use maud::Markup;

/// What a browser lets a page do: nothing is loaded from elsewhere, and nothing in a page is a script or a style.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                          img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
