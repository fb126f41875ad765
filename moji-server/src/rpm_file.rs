//! The outline of an RPM file: where its two headers lie, and how long it says that it is.
//!
//! The outline takes few reads and at most 1 MiB of memory, whatever the file claims; [`Header::check`] then says whether what is in a header may be handed to the `rpm` crate. It
//! deliberately does not know what is in the headers beyond lengths, nor what a file that is too
//! short or too long means to its caller. The format:
//! <https://rpm-software-management.github.io/rpm/manual/format_v4.html> and `format_v6.html` there.

use std::io;
use std::os::unix::fs::FileExt;

/// Bytes before the signature header.
pub(crate) const LEAD: u64 = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// How a header begins: magic, reserved bytes, number of index entries, size of the data.
pub(crate) const INTRO: u64 = 16;
const INDEX_ENTRY: u64 = 16;
/// Most bytes of lead and headers that are read. The header of a kernel SRPM has 0.5 MB.
const MAX_HEAD: u64 = 64 << 20;
/// rpm's own bounds: entries of a signature header (`hdrblobRead` of lib/header.c), `HEADER_TAGS_MAX`, and `HEADER_DATA_MAX` (256 MiB; nothing of that size is read).
const SIGNATURE_ENTRIES_MAX: u32 = 32;
const ENTRIES_MAX: u32 = 0xffff;
const DATA_MAX: u32 = 0x0fff_ffff;
/// In the signature header: bytes after it, main header and payload (32 and 64 bits).
const SIG_SIZE: u32 = 1000;
const SIG_LONGSIZE: u32 = 270;
/// In the main header of RPM 6: bytes of the compressed payload.
const PAYLOADSIZE: u32 = 5112;
const INT32: usize = 4;
const INT64: usize = 5;

/// A file with whole headers.
#[derive(Debug)]
pub(crate) struct RpmFile {
    pub(crate) signature: Header,
    pub(crate) main: Header,
    /// What the whole file must have, in bytes; `None`: neither header says (old RPMs).
    pub(crate) size: Option<u64>,
}

/// Why a file has no outline.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It does not begin like an RPM.
    NotRpm,
    /// It ends within its headers.
    Ends,
    /// The text says which header is wrong, and how.
    Malformed(String),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Ends } else { Self::Io(error) }
    }
}

impl RpmFile {
    /// Reads the outline of a file of `length` bytes. Blocks.
    pub(crate) fn read(file: &impl FileExt, length: u64) -> Result<Self, Stop> {
        // Of a file that has less than four bytes, those that are there.
        let mut magic = LEAD_MAGIC;
        let (there, _) = magic.split_at_mut(length.min(4) as usize);
        file.read_exact_at(there, 0)?;
        if magic != LEAD_MAGIC {
            return Err(Stop::NotRpm);
        }
        let signature = Header::read(file, LEAD, "signature", SIGNATURE_ENTRIES_MAX)?;
        // The signature is padded to a multiple of 8 bytes.
        let main = Header::read(file, signature.end.next_multiple_of(8), "header", ENTRIES_MAX)?;
        if main.end > length {
            return Err(Stop::Ends);
        }
        let after_signature = match signature.number(file, SIG_LONGSIZE)? {
            Some(size) => Some(size),
            None => signature.number(file, SIG_SIZE)?,
        };
        let size = match after_signature {
            Some(size) => Some(main.at.saturating_add(size)),
            None => main.number(file, PAYLOADSIZE)?.map(|size| main.end.saturating_add(size)),
        };
        Ok(Self { signature, main, size })
    }

    /// The outline, and the beginning of the file up to the payload, in which both headers are sound
    /// enough for the `rpm` crate (0.30.2); it panics on some all the same. Blocks.
    pub(crate) fn with_head(file: &impl FileExt, length: u64) -> Result<(Self, Vec<u8>), Stop> {
        let outline = Self::read(file, length)?;
        if outline.main.end > MAX_HEAD {
            return Err(outline.main.malformed(&format!("it ends at byte {}", outline.main.end)));
        }
        let mut head = vec![0; outline.main.end as usize];
        file.read_exact_at(&mut head, 0)?;
        outline.signature.check(&head)?;
        outline.main.check(&head)?;
        Ok((outline, head))
    }
}

/// Where a header ends that begins so at a byte of a file; nothing, if that is none.
pub(crate) fn header_end(at: u64, intro: &[u8; INTRO as usize]) -> Option<u64> {
    let (magic, rest) = intro.split_first_chunk::<4>()?;
    let (entries, bytes) = (word(rest, 4), word(rest, 8));
    (*magic == HEADER_MAGIC).then_some(at + INTRO + entries as u64 * INDEX_ENTRY + bytes as u64)
}

/// Where a header lies.
#[derive(Debug)]
pub(crate) struct Header {
    /// For messages: which of the two it is.
    what: &'static str,
    at: u64,
    index: u64,
    data: u64,
    pub(crate) end: u64,
}

impl Header {
    fn read(file: &impl FileExt, at: u64, what: &'static str, most: u32) -> Result<Self, Stop> {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, at)?;
        let [entries, bytes] = words(file, at + 8)?;
        let index = at + INTRO;
        let data = index + u64::from(entries) * INDEX_ENTRY;
        let header = Self { what, at, index, data, end: data + u64::from(bytes) };
        if magic != HEADER_MAGIC {
            return Err(header.malformed("it has no magic number"));
        }
        if entries == 0 || entries > most || bytes > DATA_MAX {
            return Err(header.malformed(&format!("{entries} entries, {bytes} bytes")));
        }
        Ok(header)
    }

    fn malformed(&self, why: &str) -> Stop {
        Stop::Malformed(format!("its RPM {} is malformed: {why}", self.what))
    }

    /// The first number of the entry `tag`, if there is such an entry.
    fn number(&self, file: &impl FileExt, tag: u32) -> Result<Option<u64>, Stop> {
        let mut index = vec![0; (self.data - self.index) as usize];
        file.read_exact_at(&mut index, self.index)?;
        let is_it =
            |entry: &&[u8]| word(entry, 0) == tag as usize && [INT32, INT64].contains(&word(entry, 4));
        let Some(entry) = index.chunks_exact(INDEX_ENTRY as usize).find(is_it) else { return Ok(None) };
        let (is_short, at) = (word(entry, 4) == INT32, self.data + word(entry, 8) as u64);
        if at + if is_short { 4 } else { 8 } > self.end {
            return Err(self.malformed("an entry lies outside"));
        }
        let number = if is_short {
            words(file, at).map(|[n]| n.into())
        } else {
            words(file, at).map(|[high, low]| u64::from(high) << 32 | u64::from(low))
        };
        number.map(Some)
    }
}

impl Header {
    /// Whether every entry lies within the data, and all together are not more than the data: entries
    /// over the same bytes would make a small file take gigabytes of memory. `head` is the file's
    /// beginning up to the end of this header.
    fn check(&self, head: &[u8]) -> Result<(), Stop> {
        let part = |from: u64, to: u64| head.get(from as usize..to as usize).ok_or(Stop::Ends);
        let (index, data) = (part(self.index, self.data)?, part(self.data, self.end)?);
        let mut total = 0_usize;
        for entry in index.chunks_exact(INDEX_ENTRY as usize) {
            let (kind, offset, count) = (word(entry, 4), word(entry, 8), word(entry, 12));
            let Some(rest) = data.get(offset..) else {
                return Err(self.malformed("an entry lies outside"));
            };
            let size = match kind {
                0 => Some(0),
                1 | 2 | 7 => Some(count),
                3 => count.checked_mul(2),
                4 => count.checked_mul(4),
                5 => count.checked_mul(8),
                6 if count != 1 => None,
                6 | 8 | 9 => strings(rest, count),
                _ => return Err(self.malformed("an entry has an unknown type")),
            };
            let Some(size) = size.filter(|size| *size <= rest.len()) else {
                return Err(self.malformed("an entry ends outside"));
            };
            total = total.saturating_add(size);
            if total > data.len() {
                return Err(self.malformed("an entry overlaps another"));
            }
        }
        Ok(())
    }

    /// Whether each tag has one entry: with two, programs that read the file may take either.
    pub(crate) fn check_once(&self, head: &[u8]) -> Result<(), Stop> {
        let index = head.get(self.index as usize..self.data as usize).ok_or(Stop::Ends)?;
        let mut tags: Vec<_> = index.chunks_exact(INDEX_ENTRY as usize).map(|entry| word(entry, 0)).collect();
        tags.sort_unstable();
        match tags.is_sorted_by(|tag, next| tag < next) {
            true => Ok(()),
            false => Err(self.malformed("a tag has two entries")),
        }
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

/// At most four big-endian words.
fn words<const N: usize>(file: &impl FileExt, at: u64) -> Result<[u32; N], Stop> {
    let mut bytes = [0; 16];
    let (wanted, _) = bytes.as_mut_slice().split_at_mut(N * 4);
    file.read_exact_at(wanted, at)?;
    let mut words = [0; N];
    for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*four);
    }
    Ok(words)
}

/// A file in memory.
#[cfg(test)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

#[cfg(test)]
impl FileExt for Bytes<'_> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = self.0.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        unreachable!("nothing writes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::testing::{Fake, SizeTag};

    fn outline(bytes: &[u8]) -> Result<RpmFile, Stop> {
        RpmFile::read(&Bytes(bytes), bytes.len() as u64)
    }

    fn samples() -> [Vec<u8>; 4] {
        [SizeTag::Size, SizeTag::LongSize, SizeTag::Payload, SizeTag::None]
            .map(|size| Fake { size, payload: 10, ..Fake::new("foo", "1", "2") }.bytes())
    }

    #[test]
    fn the_size_is_where_one_of_three_tags_says() {
        let sizes = samples().map(|bytes| (outline(&bytes).unwrap().size, bytes.len() as u64));
        let [sig, long, payload, none] = sizes.map(|(size, is)| size.map(|size| size == is));
        assert_eq!([sig, long, payload, none], [Some(true), Some(true), Some(true), None]);
    }

    #[test]
    fn it_ends_within_its_headers() {
        for bytes in samples() {
            let headers = bytes.len() - 10;
            for length in 0..headers {
                assert!(matches!(outline(&bytes[..length]), Err(Stop::Ends)), "{length} of {headers}");
            }
            assert_eq!(outline(&bytes[..headers]).unwrap().main.end, headers as u64);
        }
    }

    #[test]
    fn what_does_not_begin_like_an_rpm() {
        for bytes in [b"<".as_slice(), b"<html>404", b"\xed\xab\xee\xdc", &[0; 200]] {
            assert!(matches!(outline(bytes), Err(Stop::NotRpm)), "{bytes:?}");
        }
    }

    #[test]
    fn hostile_lengths_are_refused_cheaply() {
        for bytes in samples() {
            for at in 0..bytes.len() {
                for value in [0, 0xff, bytes[at] ^ 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    let _ = outline(&bytes);
                }
            }
        }
        let [mut bytes, ..] = samples();
        bytes[104..112].fill(0xff);
        let stop = outline(&bytes).unwrap_err();
        let Stop::Malformed(text) = stop else { panic!("{stop:?}") };
        assert_eq!(text, "its RPM signature is malformed: 4294967295 entries, 4294967295 bytes");
        // The size lies behind the data of its header.
        let [mut bytes, ..] = samples();
        bytes[112 + 8..112 + 12].fill(0x7f);
        assert!(matches!(outline(&bytes), Err(Stop::Malformed(_))));
    }
}
