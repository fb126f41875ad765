//! The beginning of an SRPM file: what it says about the package, and how long the file must be.
//!
//! The `rpm` crate (0.30.2) panics or asks for gigabytes on malformed headers, so nothing reaches
//! it before every length and offset was checked, and a panic that happens all the same is
//! bad input. Reads lead, signature and header, never the payload. Knows nothing of folders,
//! names and time.

use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use moji_proto::Nvr;
use rpm::PackageMetadata;

use crate::dependency::Relations;
use crate::rpm_file::{RpmFile, Stop};
use crate::rpm_relations::{provides, requires};

/// A file that begins with so many zeros may be space that was allocated before it was written.
const ZEROS: usize = 16 << 10;

/// Most requirements, and most capabilities, that are read: they are hints.
pub(super) const RELATIONS_MAX: usize = 4096;

/// What the header of an SRPM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrpmHeader {
    /// Package name.
    pub name: String,
    /// Epoch; `None` when the package has none, which rpm compares like 0.
    pub epoch: Option<u32>,
    /// Version.
    pub version: String,
    /// Release.
    pub release: String,
    /// The three together: where the results will lie.
    pub nvr: Nvr,
    /// What it needs to be built, and what it is to become.
    pub relations: Arc<Relations>,
}

/// What the beginning of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// The headers of an SRPM. `size`: what the whole file must have, in bytes, when it says so.
    Srpm { header: SrpmHeader, size: Option<u64> },
    /// So far it may become an SRPM, when more is written.
    Partial { why: &'static str },
    /// No SRPM, whatever is appended.
    Bad { reason: String, size: Option<u64> },
}

fn bad(reason: impl Into<String>) -> Head {
    Head::Bad { reason: reason.into(), size: None }
}

/// Reads the beginning of a file of `length` bytes. Blocks.
///
/// # Errors
/// When reading fails. Everything that the bytes say is a [`Head`].
pub(super) fn read_head(file: &impl FileExt, length: u64) -> io::Result<Head> {
    match try_read(file, length) {
        Ok(head) => Ok(head),
        Err(Stop::Ends) if length == 0 => Ok(Head::Partial { why: "it is empty" }),
        Err(Stop::Ends) => Ok(Head::Partial { why: "it ends within its RPM header" }),
        Err(Stop::NotRpm) => Ok(bad("it is not an RPM package")),
        Err(Stop::Malformed(reason)) => Ok(bad(reason)),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// The NVR of an SRPM that is there as a whole, of so many bytes; or why it is none. Blocks.
///
/// # Errors
/// When reading fails.
pub fn srpm_header(file: &impl FileExt, length: u64) -> io::Result<Result<Nvr, String>> {
    Ok(match read_head(file, length)? {
        Head::Srpm { size: Some(size), .. } if size != length => {
            Err(format!("it has {length} bytes, and its header says {size}"))
        }
        Head::Srpm { header, .. } => Ok(header.nvr),
        Head::Partial { why } => Err(why.into()),
        Head::Bad { reason, .. } => Err(reason),
    })
}

fn try_read(file: &impl FileExt, length: u64) -> Result<Head, Stop> {
    let (RpmFile { size, .. }, head) = match RpmFile::with_head(file, length) {
        Err(Stop::NotRpm) if begins_with_zeros(file, length)? => {
            return Ok(Head::Partial { why: "it begins with zeros only" });
        }
        rpm => rpm?,
    };
    // The rpm crate: see the top of the file.
    Ok(catch_unwind(AssertUnwindSafe(|| describe(&head, size)))
        .unwrap_or_else(|_| bad("its RPM header is malformed")))
}

fn begins_with_zeros(file: &impl FileExt, length: u64) -> io::Result<bool> {
    let mut bytes = vec![0; ZEROS.min(length as usize)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// What checked headers say.
fn describe(mut head: &[u8], size: Option<u64>) -> Head {
    let Ok(package) = PackageMetadata::parse(&mut head) else {
        return bad("its RPM header is malformed");
    };
    if !package.is_source_package() {
        return Head::Bad { reason: "it is a binary RPM, not a source package".to_owned(), size };
    }
    match (package.get_name(), package.get_version(), package.get_release()) {
        (Ok(name), Ok(version), Ok(release)) => {
            let nvr = format!("{name}-{version}-{release}");
            let nvr = if version.contains('-') || release.contains('-') {
                Err(format!("{version:?} or {release:?} has a dash"))
            } else {
                Nvr::new(nvr).map_err(|error| error.to_string())
            };
            let nvr = match nvr {
                Ok(nvr) => nvr,
                Err(error) => {
                    return Head::Bad { reason: format!("its header gives no usable NVR: {error}"), size };
                }
            };
            let (name, version, release) = (name.to_owned(), version.to_owned(), release.to_owned());
            Head::Srpm {
                header: SrpmHeader {
                    name,
                    epoch: package.get_epoch().ok(),
                    version,
                    release,
                    nvr,
                    relations: Arc::new(relations(&package)),
                },
                size,
            }
        }
        _ => Head::Bad { reason: "its header lacks name, version or release".to_owned(), size },
    }
}

fn relations(package: &PackageMetadata) -> Relations {
    let mut provides = provides(package, RELATIONS_MAX);
    for versions in provides.iter_mut().filter_map(|capability| capability.versions.as_mut()) {
        // The results have the target's `%dist`, so their release is not known yet.
        versions.evr = versions.evr.without_release();
    }
    Relations { build_requires: requires(package, RELATIONS_MAX), provides: provides.into() }
}

#[cfg(test)]
pub(super) fn head_of(bytes: &[u8]) -> Head {
    read_head(&crate::rpm_file::Bytes(bytes), bytes.len() as u64).unwrap()
}
