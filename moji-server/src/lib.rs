//! Moji's server: hands SRPMs from a folder to builders, and publishes what they built as a dnf
//! repository.

pub mod build_key;
pub mod durable;
pub mod metadata;
pub mod source;

pub use build_key::BuildKey;
