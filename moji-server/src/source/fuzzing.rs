//! What fuzz targets reach of the reading of SRPMs: the same code, and nothing that they could believe
//! and it did not say. Only with the cargo feature `fuzzing`, which no release has.

use std::io;
use std::os::unix::fs::FileExt;

use super::SrpmHeader;
use super::srpm::{Head, read_head};

/// What the beginning of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// It is an SRPM, of so many bytes if it says so.
    Srpm(SrpmHeader, Option<u64>),
    /// It may become one when more is written.
    Partial,
    /// It is none, whatever is appended; the reason.
    Bad(String),
}

/// Reads the beginning of a file of `length` bytes.
///
/// # Errors
/// When reading fails.
pub fn beginning(file: &impl FileExt, length: u64) -> io::Result<Beginning> {
    Ok(match read_head(file, length)? {
        Head::Srpm { header, size } => Beginning::Srpm(header, size),
        Head::Partial { .. } => Beginning::Partial,
        Head::Bad { reason, .. } => Beginning::Bad(reason),
    })
}
