//! `moji-server`.
fn main() {}
