//! Tier 1: each rule of the protocol, with the real server against scripted builders and the real
//! client against a scripted server. Connections are in memory and the clock is tokio's, paused:
//! hours pass in milliseconds. Folders and files are real.
#![expect(clippy::indexing_slicing, clippy::expect_used, reason = "tests fail by panicking")]

mod blame;
mod client;
mod credentials;
mod delivering;
mod greeting;
mod leases;
mod limits;
mod people;
mod publishing;
mod queue;
mod readopting;
mod refusing;
mod restarting;
mod returning;
mod rivals;
mod room;
mod stopping;
mod unsynced;

type Result = anyhow::Result<()>;
