//! Moji's builder: takes SRPMs from a `moji-server`, builds them with Mock, delivers the results.

pub mod mock;
