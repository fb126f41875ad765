//! `moji-client`.
fn main() {}
