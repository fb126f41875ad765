//! The digests of RPMs' payloads, taken while they come: who verifies them later need not read everything again.
//!
//! Pure: bytes in, digests out. It looks at the lengths of the two headers and at nothing else, and says nothing of a
//! file in which they make no sense. Whether a payload is what its header says is decided by [`crate::verify`], which
//! takes a digest from here only if it begins where the header ends.

use std::collections::{BTreeMap, VecDeque};

use moji_proto::{ArtifactName, Hasher, Sha256};

use crate::rpm_file::{INTRO, LEAD, header_end};

/// The digest of a file from one of its bytes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadDigest {
    /// Which byte.
    pub from: u64,
    /// The digest.
    pub sha256: Sha256,
}

/// What is known of the RPMs of a delivery. One that is not named is to be read.
pub type Payloads = BTreeMap<ArtifactName, PayloadDigest>;

/// Follows the bytes of files that come one after the other.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    files: VecDeque<Arrival>,
    known: Payloads,
}

/// A file on its way.
#[derive(Debug)]
struct Arrival {
    name: ArtifactName,
    size: u64,
    /// How much of it has come.
    at: u64,
    wanted: Wanted,
}

/// What is to be done with the next bytes of a file.
#[derive(Debug)]
enum Wanted {
    Nothing,
    /// The beginning of a header, which says how long that is: where it lies, and what has come of it.
    Intro {
        header: Header,
        from: u64,
        seen: Vec<u8>,
    },
    Payload {
        from: u64,
        hasher: Hasher,
    },
}

#[derive(Debug, Clone, Copy)]
enum Header {
    Signature,
    Main,
}

impl Arriving {
    /// A file comes behind those that were named before; `here` says how much of it is here already.
    pub(crate) fn expect(&mut self, name: ArtifactName, size: u64, here: u64) {
        let wanted = match name.is_rpm() && here == 0 {
            true => Wanted::Intro { header: Header::Signature, from: LEAD, seen: Vec::new() },
            // What is here was not followed.
            false => Wanted::Nothing,
        };
        self.files.push_back(Arrival { name, size, at: here, wanted });
    }

    /// Takes what comes next.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while let Some(file) = self.files.front_mut() {
            let left = usize::try_from(file.size - file.at).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(left));
            file.update(now);
            bytes = later;
            if file.at < file.size {
                return;
            }
            if let Some(Arrival { name, size, wanted: Wanted::Payload { from, hasher }, .. }) =
                self.files.pop_front()
                && from <= size
            {
                self.known.insert(name, PayloadDigest { from, sha256: hasher.finish() });
            }
        }
    }

    /// What is known of the files that have come whole.
    pub(crate) fn finish(self) -> Payloads {
        self.known
    }
}

impl Arrival {
    fn update(&mut self, bytes: &[u8]) {
        while let Wanted::Intro { from, .. } | Wanted::Payload { from, .. } = &self.wanted {
            let skip = usize::try_from(from.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let wanted = bytes.get(skip..).unwrap_or_default();
            match &mut self.wanted {
                Wanted::Nothing => break,
                Wanted::Payload { hasher, .. } => {
                    hasher.update(wanted);
                    break;
                }
                Wanted::Intro { header, from, seen } => {
                    seen.extend(wanted.iter().take(INTRO as usize - seen.len()));
                    let Ok(intro) = <[u8; INTRO as usize]>::try_from(&seen[..]) else { break };
                    self.wanted = header.next(*from, &intro);
                }
            }
        }
        self.at += bytes.len() as u64;
    }
}

impl Header {
    /// What comes after this one, which lies at `from` and begins with `intro`.
    fn next(self, from: u64, intro: &[u8; INTRO as usize]) -> Wanted {
        match (self, header_end(from, intro)) {
            (_, None) => Wanted::Nothing,
            // Padded to a multiple of 8 bytes.
            (Self::Signature, Some(end)) => {
                Wanted::Intro { header: Self::Main, from: end.next_multiple_of(8), seen: Vec::new() }
            }
            (Self::Main, Some(from)) => Wanted::Payload { from, hasher: Hasher::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rpm_file::{Bytes, RpmFile};
    use crate::source::testing::{Fake, SizeTag};

    fn name(text: &str) -> ArtifactName {
        text.parse().unwrap()
    }

    fn files() -> Vec<(ArtifactName, Vec<u8>)> {
        let rpm = |size, payload| Fake { size, payload, ..Fake::new("foo", "1", "2") }.bytes();
        vec![
            (name("build.log"), b"\xed\xab\xee\xdb is a log".to_vec()),
            (name("a-1-1.noarch.rpm"), rpm(SizeTag::Size, 1000)),
            (name("not-1-1.noarch.rpm"), vec![0; 300]),
            (name("short-1-1.noarch.rpm"), rpm(SizeTag::Size, 10)[..150].to_vec()),
            (name("b-1-1.noarch.rpm"), rpm(SizeTag::LongSize, 0)),
            (name("empty-1-1.noarch.rpm"), Vec::new()),
            (name("c-1-1.noarch.rpm"), rpm(SizeTag::Payload, 77)),
        ]
    }

    fn arriving(files: &[(ArtifactName, Vec<u8>)]) -> Arriving {
        let mut arriving = Arriving::default();
        files.iter().for_each(|(name, bytes)| arriving.expect(name.clone(), bytes.len() as u64, 0));
        arriving
    }

    /// As the outline of the whole file says.
    fn expected(files: &[(ArtifactName, Vec<u8>)]) -> Payloads {
        let digest = |(name, bytes): &(ArtifactName, Vec<u8>)| {
            let outline = RpmFile::read(&Bytes(bytes), bytes.len() as u64).ok().filter(|_| name.is_rpm())?;
            let from = outline.main.end;
            Some((name.clone(), PayloadDigest { from, sha256: Sha256::of(&bytes[from as usize..]) }))
        };
        files.iter().filter_map(digest).collect()
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_digests_are_those_of_the_payloads(
            cuts in proptest::collection::vec(1_usize..400, 1..20),
        ) {
            let files = files();
            let all: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            let (mut arriving, mut rest) = (arriving(&files), &all[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                arriving.update(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let known = arriving.finish();
            prop_assert_eq!(known.len(), 3);
            prop_assert_eq!(known, expected(&files));
        }
    }

    #[test]
    fn of_a_file_that_was_here_in_part_or_did_not_come_whole_nothing_is_known() {
        let files = files();
        let mut resumed = Arriving::default();
        let (a, bytes) = &files[1];
        resumed.expect(a.clone(), bytes.len() as u64, 5);
        resumed.expect(name("b-1-1.noarch.rpm"), bytes.len() as u64, 0);
        resumed.update(&bytes[5..]);
        resumed.update(&bytes[..bytes.len() - 1]);
        assert_eq!(resumed.finish(), Payloads::new());
    }

    #[test]
    fn headers_that_claim_more_than_the_file_has_and_bytes_beyond_the_last_file_harm_nobody() {
        let (a, mut bytes) = files().remove(1);
        bytes[96 + 8..96 + 16].fill(0xff);
        let mut arriving = arriving(&[(a, bytes.clone())]);
        arriving.update(&bytes);
        arriving.update(b"more than was announced");
        assert_eq!(arriving.finish(), Payloads::new());
    }
}
