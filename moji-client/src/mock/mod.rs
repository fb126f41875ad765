//! Mock: what a builder must know to run it, watch it, stop it and say why it failed.
//!
//! | file | job |
//! |---|---|
//! | [`command`] | argument lists, from pure functions |
//! | [`run`] | one supervised run: limits, watchdog, cancel, cleaning up |
//! | [`sweep`] | roots that an earlier, killed client left |
//! | [`evidence`] | bounded reading of what a run left |
//! | [`mod@classify`] | how the attempt ended and whose fault it is: pure |
//! | [`logs`] | the phase out of state.log; logs cut to a limit |
//! | [`results`] | which files of a result directory travel |
//! | [`configs`] | finding a Mock config, and Mock itself |
//!
//! Facts about Mock's behaviour (exit codes, signals, what is left where) were measured with
//! Mock 6.7; the cases in `tests/mock-cases` are what these measurements left.
//!
//! Deliberately absent: the server, leases, slots and the outbox. Nothing here reads the process
//! environment or the home folder by itself: callers pass them in.

mod child;
pub mod classify;
pub mod command;
pub mod configs;
pub mod evidence;
pub mod logs;
pub mod results;
pub mod run;
pub mod sweep;

pub use classify::classify;
pub use command::{Argv, Build, Root, UniqueExt};
pub use evidence::{Ended, Evidence};
