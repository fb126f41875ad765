//! `moji` against a small server of its own: the connection, the commands, what they print and end with.
#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests fail by panicking")]

mod connection;
mod output;
mod program;
mod server;
mod uploads;
