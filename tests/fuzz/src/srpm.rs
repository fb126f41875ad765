//! The beginning of an SRPM, whole and while it is being copied.
//!
//! The first two bytes say where the copy stands; the rest is the file.

use std::cell::Cell;
use std::io;
use std::os::unix::fs::FileExt;

use moji_server::dependency::Relations;
use moji_server::source::fuzzing::{Beginning, beginning};

use super::message::assert_name;
use super::{assert_shown, containing_panics, within};

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let Some((cut, file)) = bytes.split_first_chunk() else { return };
    let cut = usize::from(u16::from_le_bytes(*cut)) % (file.len() + 1);
    let whole = read(file);
    match read(file.get(..cut).unwrap_or(file)) {
        // Nothing is refused for ever that was only not there yet.
        Beginning::Bad(reason) => assert!(matches!(whole, Beginning::Bad(_)), "{reason}, but: {whole:?}"),
        // And what follows the headers does not change what they say.
        part @ Beginning::Srpm(..) => assert_eq!(part, whole),
        Beginning::Partial => {}
    }
    match whole {
        Beginning::Srpm(header, _) => {
            assert_name(header.nvr.as_str());
            assert_eq!(header.nvr.as_str(), [header.name, header.version, header.release].join("-"));
            let mut parts = header.nvr.as_str().rsplitn(3, '-');
            assert!(parts.all(|part| !part.is_empty()));
            check_relations(&header.relations);
        }
        Beginning::Bad(reason) => assert_shown(&reason, 2_000),
        Beginning::Partial => {}
    }
}

/// Hints, but bounded ones, in texts that may be shown and read again.
fn check_relations(Relations { build_requires, provides }: &Relations) {
    assert!(build_requires.len() <= 4_096 && provides.len() <= 4_096);
    for requirement in build_requires {
        assert!(!requirement.is_rpmlib());
        assert_shown(&requirement.to_string(), 2_000);
        assert_eq!(requirement.to_string().parse().as_ref(), Ok(requirement));
    }
    for capability in provides.iter() {
        assert_shown(&capability.to_string(), 2_000);
    }
}

fn read(bytes: &[u8]) -> Beginning {
    let file = Watched { bytes, read: Cell::new(0) };
    let length = bytes.len() as u64;
    // An index entry is 16 bytes; what the rpm crate makes of one, some hundred. A requirement is eight at
    // least, and takes some two hundred.
    let most = 64 * length + (64 << 10);
    let beginning = containing_panics(|| within(most, || beginning(&file, length))).unwrap();
    let read = file.read.get();
    assert!(read <= 8 * length + 1024, "{read} bytes are read of a file of {length}");
    beginning
}

/// A file that counts what is read of it.
struct Watched<'a> {
    bytes: &'a [u8],
    read: Cell<u64>,
}

impl FileExt for Watched<'_> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = self.bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(into.len());
        self.read.set(self.read.get() + count as u64);
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        panic!("the file is written")
    }
}
