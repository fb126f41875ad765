//! What `moji top` shows and does, without a terminal: golden screens, and keys.
//!
//! `MOJI_BLESS=1` writes the screens anew.

mod fixtures;
mod keys;
mod screens;
