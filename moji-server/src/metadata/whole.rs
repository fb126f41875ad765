//! Whether a file is a whole RPM, by its lead and the lengths that its headers give: a person's
//! half-done copy must not get into the metadata.
//!
//! It reads some hundred bytes to some KiB, whatever the file claims, and allocates no more. It
//! deliberately does not know what is in the headers beyond lengths: `createrepo_c` reads those,
//! and leaves out what it cannot read. Format: <https://rpm-software-management.github.io/rpm/manual/format_v4.html>
//! and `format_v6.html` there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const LEAD: u64 = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// rpm's own bounds: `HEADER_TAGS_MAX`, and `HEADER_DATA_MAX` (256 MiB; nothing of that size is read).
const ENTRIES_MAX: u32 = 0xffff;
const DATA_MAX: u32 = 0x0fff_ffff;
/// In the signature header: bytes after it, main header and payload (32 and 64 bits).
const SIG_SIZE: u32 = 1000;
const SIG_LONGSIZE: u32 = 270;
/// In the main header of RPM 6: bytes of the compressed payload.
const PAYLOADSIZE: u32 = 5112;
const INT32: u32 = 4;
const INT64: u32 = 5;

/// What a look at a file showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As long as its headers say.
    Whole,
    /// Headers are whole, but none gives the length of the payload (old RPMs): time has to tell.
    Unsized,
    /// Not an RPM, or not yet; the text completes "left out of the metadata: …".
    Not(&'static str),
}

/// Looks at the file at `path`.
///
/// # Errors
/// When it cannot be opened or read.
pub(super) fn look(path: &Path) -> io::Result<Verdict> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    verdict(&file, length)
}

fn verdict(file: &impl FileExt, length: u64) -> io::Result<Verdict> {
    match check(file, length) {
        Ok(verdict) => Ok(verdict),
        Err(Stop::Not(why)) => Ok(Verdict::Not(why)),
        Err(Stop::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Verdict::Not("it ends within its headers"))
        }
        Err(Stop::Io(error)) => Err(error),
    }
}

enum Stop {
    Not(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn check(file: &impl FileExt, length: u64) -> Result<Verdict, Stop> {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0)?;
    if magic != LEAD_MAGIC {
        return Err(Stop::Not("it does not begin like an RPM"));
    }
    let signature = Header::read(file, LEAD)?;
    let main_at = signature.end.next_multiple_of(8);
    let rest = match signature.number(file, SIG_LONGSIZE)? {
        Some(size) => Some(size),
        None => signature.number(file, SIG_SIZE)?,
    };
    let main = Header::read(file, main_at)?;
    let end = match rest {
        Some(size) => Some(main_at.saturating_add(size)),
        None => main.number(file, PAYLOADSIZE)?.map(|size| main.end.saturating_add(size)),
    };
    match end {
        Some(end) if end == length => Ok(Verdict::Whole),
        Some(end) if end > length => Err(Stop::Not("it is shorter than its headers say")),
        Some(_) => Err(Stop::Not("it is longer than its headers say")),
        None if main.end <= length => Ok(Verdict::Unsized),
        None => Err(Stop::Not("it ends within its headers")),
    }
}

/// Where a header's index and data are.
struct Header {
    entries: u32,
    index: u64,
    data: u64,
    end: u64,
}

impl Header {
    fn read(file: &impl FileExt, at: u64) -> Result<Self, Stop> {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, at)?;
        let [entries, bytes] = words(file, at + 8)?;
        if magic != HEADER_MAGIC || entries > ENTRIES_MAX || bytes > DATA_MAX {
            return Err(Stop::Not("its headers are damaged"));
        }
        let (index, data) = (at + 16, at + 16 + u64::from(entries) * 16);
        Ok(Self { entries, index, data, end: data + u64::from(bytes) })
    }

    /// The first number of the entry `tag`, if there is such an entry.
    fn number(&self, file: &impl FileExt, tag: u32) -> Result<Option<u64>, Stop> {
        for entry in 0..self.entries {
            let [this, kind, offset, _count] = words(file, self.index + u64::from(entry) * 16)?;
            let at = self.data + u64::from(offset);
            match (this == tag, kind) {
                (true, INT32) => return words(file, at).map(|[n]| Some(n.into())),
                (true, INT64) => {
                    return words(file, at).map(|[high, low]| Some(u64::from(high) << 32 | u64::from(low)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An RPM with a signature header of `signature` and a main header of `main` entries
    /// (tag, type, value), and ten bytes of payload.
    fn rpm(signature: &[(u32, u32, u64)], main: &[(u32, u32, u64)]) -> Vec<u8> {
        let mut bytes = LEAD_MAGIC.to_vec();
        bytes.resize(96, 0);
        for entries in [signature, main] {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let data: Vec<u8> = entries
                .iter()
                .flat_map(|e| {
                    if e.1 == INT32 {
                        (e.2 as u32).to_be_bytes().to_vec()
                    } else {
                        e.2.to_be_bytes().to_vec()
                    }
                })
                .chain([7])
                .collect();
            bytes.extend(HEADER_MAGIC);
            bytes.extend([0; 4]);
            bytes.extend((entries.len() as u32).to_be_bytes());
            bytes.extend((data.len() as u32).to_be_bytes());
            let mut offset = 0;
            for (tag, kind, _) in entries {
                for word in [*tag, *kind, offset, 1] {
                    bytes.extend(word.to_be_bytes());
                }
                offset += if *kind == INT32 { 4 } else { 8 };
            }
            bytes.extend(data);
        }
        bytes.extend([9; 10]);
        bytes
    }

    struct Bytes<'a>(&'a [u8]);

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

    fn verdict(bytes: &[u8]) -> Verdict {
        super::verdict(&Bytes(bytes), bytes.len() as u64).unwrap()
    }

    /// Main header: 16 + 1 × 16 + 4 + 1 bytes, then 10 of payload.
    const AFTER_SIGNATURE: u64 = 47;

    fn samples() -> Vec<Vec<u8>> {
        let other = (1000, INT32, 4711);
        vec![
            rpm(&[(SIG_SIZE, INT32, AFTER_SIGNATURE)], &[other]),
            rpm(&[(62, INT32, 3), (SIG_LONGSIZE, INT64, AFTER_SIGNATURE)], &[other]),
            rpm(&[(62, INT32, 3)], &[other, (PAYLOADSIZE, INT64, 10)]),
        ]
    }

    #[test]
    fn whole_is_exactly_as_long_as_the_headers_say() {
        for bytes in samples() {
            assert_eq!(verdict(&bytes), Verdict::Whole);
            for length in 0..bytes.len() {
                assert!(matches!(verdict(&bytes[..length]), Verdict::Not(_)), "{length} of {}", bytes.len());
            }
            assert!(matches!(verdict(&[bytes, vec![0]].concat()), Verdict::Not(_)));
        }
    }

    #[test]
    fn without_a_length_only_the_headers_count() {
        let bytes = rpm(&[(62, INT32, 3)], &[(1000, INT32, 1)]);
        assert_eq!(verdict(&bytes), Verdict::Unsized);
        assert!(matches!(verdict(&bytes[..bytes.len() - 11]), Verdict::Not(_)));
    }

    #[test]
    fn hostile_lengths_are_refused_cheaply() {
        for bytes in samples() {
            for at in 0..bytes.len() {
                for value in [0, 0xff, bytes[at] ^ 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    let _ = verdict(&bytes);
                }
            }
        }
        let mut bytes = samples().remove(0);
        bytes[104..112].fill(0xff);
        assert_eq!(verdict(&bytes), Verdict::Not("its headers are damaged"));
    }
}
