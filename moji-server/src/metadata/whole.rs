//! Whether a file is a whole RPM, by the lengths that its headers give: a person's half-done copy
//! must not get into the metadata.
//!
//! It deliberately does not know what else is in the headers: `createrepo_c` reads them, and leaves
//! out what it cannot read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::rpm_file::{RpmFile, Stop};

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
    Ok(match RpmFile::read(file, length) {
        Ok(RpmFile { size: None, .. }) => Verdict::Unsized,
        Ok(RpmFile { size: Some(size), .. }) if size == length => Verdict::Whole,
        Ok(RpmFile { size: Some(size), .. }) if size > length => {
            Verdict::Not("it is shorter than its headers say")
        }
        Ok(_) => Verdict::Not("it is longer than its headers say"),
        Err(Stop::NotRpm) => Verdict::Not("it does not begin like an RPM"),
        Err(Stop::Ends) => Verdict::Not("it ends within its headers"),
        Err(Stop::Malformed(_)) => Verdict::Not("its headers are damaged"),
        Err(Stop::Io(error)) => return Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpm_file::Bytes;
    use crate::source::testing::{Fake, SizeTag};

    fn verdict(bytes: &[u8]) -> Verdict {
        super::verdict(&Bytes(bytes), bytes.len() as u64).unwrap()
    }

    fn rpm(size: SizeTag) -> Vec<u8> {
        Fake { size, source: false, payload: 10, ..Fake::new("foo", "1", "2") }.bytes()
    }

    #[test]
    fn whole_is_exactly_as_long_as_the_headers_say() {
        for bytes in [SizeTag::Size, SizeTag::LongSize, SizeTag::Payload].map(rpm) {
            assert_eq!(verdict(&bytes), Verdict::Whole);
            for length in 0..bytes.len() {
                assert!(matches!(verdict(&bytes[..length]), Verdict::Not(_)), "{length} of {}", bytes.len());
            }
            assert!(matches!(verdict(&[bytes, vec![0]].concat()), Verdict::Not(_)));
        }
    }

    #[test]
    fn without_a_length_only_the_headers_count() {
        let bytes = rpm(SizeTag::None);
        assert_eq!(verdict(&bytes), Verdict::Unsized);
        assert_eq!(verdict(&bytes[..bytes.len() - 10]), Verdict::Unsized);
        assert!(matches!(verdict(&bytes[..bytes.len() - 11]), Verdict::Not(_)));
    }

    #[test]
    fn what_is_damaged_or_no_rpm() {
        let mut bytes = rpm(SizeTag::Size);
        bytes[104..112].fill(0xff);
        assert_eq!(verdict(&bytes), Verdict::Not("its headers are damaged"));
        assert_eq!(verdict(b"<html>"), Verdict::Not("it does not begin like an RPM"));
    }
}
