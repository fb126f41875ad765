//! `moji top`: the farm on a full screen, live.
//!
//! `state`, `keys` and `log` decide what is shown and wanted, `draw` makes a grid of cells of it; they are pure.
//! `link` asks the server, `screen` has the terminal, `run` brings them together.

mod draw;
mod keys;
mod link;
mod log;
mod run;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod text;

pub use run::run;
