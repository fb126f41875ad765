//! The program `moji`: how people see the farm and steer it, over the protocol's own port.
//!
//! [`farm`] is the way to the server, [`session`] one connection of it. [`commands`] ask and act, and [`output`] makes
//! text of the answers. What is written here decides nothing about the farm, and knows no folder of it.

pub mod commands;
pub mod config;
pub mod events;
pub mod failure;
pub mod farm;
pub mod options;
pub mod output;
pub mod session;
pub mod sse;
pub mod top;

pub use failure::Failure;
pub use farm::{Dial, Farm};
pub use session::{Answer, Body, Session, Welcome};
