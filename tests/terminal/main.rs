//! The program `moji` on a terminal, and where there is none: real programs, under tmux.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, like tests")]

mod plain;
mod tmux;
mod top;
