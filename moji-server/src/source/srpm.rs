//! The beginning of an SRPM file: what it says about the package, and how long the file must be.
//!
//! The `rpm` crate (0.30.2) panics or asks for gigabytes on malformed headers, so nothing reaches
//! it before every length and offset was checked here, and a panic that happens all the same is
//! bad input. Reads lead, signature and header, never the payload. Knows nothing of folders,
//! names and time. The format: <https://rpm-software-management.github.io/rpm/manual/format_v4.html>.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use moji_proto::Nvr;
use rpm::{IndexSignatureTag, IndexTag, PackageMetadata};

/// Size of the lead, in bytes.
const LEAD: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
/// What a header section begins with; the fourth byte is its version.
const SECTION_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// Magic, reserved bytes, number of index entries, size of the data.
const SECTION_INTRO: usize = 16;
const INDEX_ENTRY: usize = 16;
/// Most index entries of a section (rpm's own limit), and its biggest size in bytes. The header of
/// a kernel SRPM has 0.5 MB.
const MAX_ENTRIES: usize = 0xffff;
const MAX_SECTION: usize = 64 << 20;
/// Read at once: more than the headers of most SRPMs, less than a page fault's worth of payload.
const FIRST_READ: usize = 16 << 10;

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

/// Reads the beginning of `file`. Blocks.
///
/// # Errors
/// When reading fails. Everything that the bytes say is a [`Head`].
pub(super) fn read_head(file: &File) -> io::Result<Head> {
    let mut bytes = Vec::new();
    let mut wanted = FIRST_READ;
    loop {
        let ended = extend(file, &mut bytes, wanted)?;
        match parse(&bytes) {
            Parsed::Done(head) => return Ok(head),
            Parsed::Need { .. } if ended => return Ok(partial(&bytes)),
            Parsed::Need { size } => wanted = size,
        }
    }
}

/// Reads until `bytes` has `wanted` bytes; `true` when the file ended before. Grows with what was
/// read: a length in a header alone must not take 64 MiB of memory.
fn extend(file: &File, bytes: &mut Vec<u8>, wanted: usize) -> io::Result<bool> {
    const PIECE: usize = 1 << 20;
    while bytes.len() < wanted {
        let at = bytes.len();
        bytes.resize(wanted.min(at + PIECE), 0);
        let read = file.read_at(bytes.get_mut(at..).unwrap_or_default(), at as u64);
        bytes.truncate(at + read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

fn partial(bytes: &[u8]) -> Head {
    let why = match bytes {
        [] => "it is empty",
        _ if bytes.iter().all(|b| *b == 0) => "it begins with zeros only",
        _ => "it ends within its RPM header",
    };
    Head::Partial { why }
}

/// How far the parser came with the bytes it has.
enum Parsed {
    /// It must see the first `size` bytes of the file, which is more than it has.
    Need {
        size: usize,
    },
    Done(Head),
}

/// Reads lead, signature and header from the first bytes of a file.
fn parse(bytes: &[u8]) -> Parsed {
    if bytes.iter().all(|b| *b == 0) {
        // Space that was allocated before the content was written.
        return if bytes.len() < FIRST_READ {
            Parsed::Need { size: FIRST_READ }
        } else {
            Parsed::Done(partial(bytes))
        };
    }
    if !bytes.iter().zip(LEAD_MAGIC).all(|(is, wanted)| *is == wanted) {
        return Parsed::Done(bad("it is not an RPM package"));
    }
    let sections = || {
        let signature = Section::find(bytes, LEAD, "signature")?;
        // The signature is padded to a multiple of 8 bytes.
        let header = Section::find(bytes, signature.end().next_multiple_of(8), "header")?;
        signature.check(bytes)?;
        header.check(bytes)?;
        Ok((signature, header))
    };
    match sections() {
        Err(Stop::Need(size)) => Parsed::Need { size },
        Err(Stop::Bad(reason)) => Parsed::Done(bad(reason)),
        Ok((_, header)) => {
            let head = bytes.get(..header.end()).unwrap_or_default();
            // The rpm crate: see the top of the file.
            let head = catch_unwind(AssertUnwindSafe(|| describe(head, &header)))
                .unwrap_or_else(|_| bad("its RPM header is malformed"));
            Parsed::Done(head)
        }
    }
}

/// Why a section cannot be read now.
enum Stop {
    Need(usize),
    Bad(String),
}

/// Where a section (signature or header) lies.
struct Section {
    what: &'static str,
    at: usize,
    entries: usize,
    data: usize,
}

impl Section {
    fn find(bytes: &[u8], at: usize, what: &'static str) -> Result<Self, Stop> {
        let Some(intro) = bytes.get(at..at + SECTION_INTRO) else {
            return Err(Stop::Need(at + SECTION_INTRO));
        };
        if intro.get(..4) != Some(&SECTION_MAGIC) {
            return Err(Stop::Bad(format!("its RPM {what} is malformed: it has no magic number")));
        }
        let (entries, data) = (word(intro, 8), word(intro, 12));
        if entries == 0 || entries > MAX_ENTRIES || data > MAX_SECTION {
            return Err(Stop::Bad(format!("its RPM {what} is malformed: {entries} entries, {data} bytes")));
        }
        let section = Self { what, at, entries, data };
        // The padding too, so that the next section's place is within what was asked for.
        let end = section.end().next_multiple_of(8);
        if what == "signature" && bytes.len() < end { Err(Stop::Need(end)) } else { Ok(section) }
    }

    fn data_at(&self) -> usize {
        self.at + SECTION_INTRO + self.entries * INDEX_ENTRY
    }

    fn end(&self) -> usize {
        self.data_at() + self.data
    }

    /// Whether every entry lies within the data, and all together are not more than the data:
    /// entries over the same bytes would make a small file take gigabytes of memory.
    fn check(&self, bytes: &[u8]) -> Result<(), Stop> {
        let (Some(index), Some(data)) =
            (bytes.get(self.at + SECTION_INTRO..self.data_at()), bytes.get(self.data_at()..self.end()))
        else {
            return Err(Stop::Need(self.end()));
        };
        let malformed =
            |why: &str| Err(Stop::Bad(format!("its RPM {} is malformed: an entry {why}", self.what)));
        let mut total = 0_usize;
        for entry in index.chunks_exact(INDEX_ENTRY) {
            let (kind, offset, count) = (word(entry, 4), word(entry, 8), word(entry, 12));
            let Some(rest) = data.get(offset..) else {
                return malformed("lies outside");
            };
            let size = match kind {
                0 => Some(0),
                1 | 2 | 7 => Some(count),
                3 => count.checked_mul(2),
                4 => count.checked_mul(4),
                5 => count.checked_mul(8),
                6 if count != 1 => None,
                6 | 8 | 9 => strings(rest, count),
                _ => return malformed("has an unknown type"),
            };
            let Some(size) = size.filter(|size| *size <= rest.len()) else {
                return malformed("ends outside");
            };
            total = total.saturating_add(size);
            if total > self.data {
                return malformed("overlaps another");
            }
        }
        Ok(())
    }
}

/// Size of `count` strings that end with a NUL each.
fn strings(bytes: &[u8], count: usize) -> Option<usize> {
    let mut size = 0;
    for _ in 0..count {
        size += bytes.get(size..)?.iter().position(|b| *b == 0)? + 1;
    }
    Some(size)
}

/// The big-endian 32 bit number at `at`; 0 when it is not there, which no caller lets happen.
fn word(bytes: &[u8], at: usize) -> usize {
    let word = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    word.unwrap_or(0) as usize
}

/// What checked headers say.
fn describe(head: &[u8], section: &Section) -> Head {
    let mut input = head;
    let Ok(package) = PackageMetadata::parse(&mut input) else {
        return bad("its RPM header is malformed");
    };
    let size = whole_size(&package, section);
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
                header: SrpmHeader { name, epoch: package.get_epoch().ok(), version, release, nvr },
                size,
            }
        }
        _ => Head::Bad { reason: "its header lacks name, version or release".to_owned(), size },
    }
}

/// What the whole file must have, in bytes: version 4 packages give the size of header and payload
/// in the signature, version 6 packages that of the payload in the header; others do not say.
fn whole_size(package: &PackageMetadata, header: &Section) -> Option<u64> {
    let signature = &package.signature;
    let header_and_payload = signature
        .get_entry_data_as_u64(IndexSignatureTag::RPMSIGTAG_LONGSIZE)
        .or_else(|_| signature.get_entry_data_as_u32(IndexSignatureTag::RPMSIGTAG_SIZE).map(u64::from));
    if let Ok(size) = header_and_payload {
        return (header.at as u64).checked_add(size);
    }
    let payload = package.header.get_entry_data_as_u64(IndexTag::RPMTAG_PAYLOADSIZE).ok()?;
    (header.end() as u64).checked_add(payload)
}

#[cfg(test)]
pub(super) fn head_of(bytes: &[u8]) -> Head {
    match parse(bytes) {
        Parsed::Done(head) => head,
        Parsed::Need { .. } => partial(bytes),
    }
}
