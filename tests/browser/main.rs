//! The web pages in a real browser. They want chromium and chromedriver: `scripts/install-deps --with browser`.
//!
//! What pages look like and what their script does is tested over a farm that is made up; what they show of builds
//! that run, over a real one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

mod browser;
mod looks;
mod made_up;
mod real;
mod script;
mod site;
