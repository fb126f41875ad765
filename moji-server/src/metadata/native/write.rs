//! Writes one file of several gzip members: what is as it was is copied, packed as it is.

use std::borrow::Cow;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use flate2::Compression;
use flate2::read::GzEncoder;
use moji_proto::digest::Hasher;

use super::super::rewrite::Written;
use super::index::Member;

const PIECE: usize = 256 * 1024;
/// How hard to press: as the other repositories do; a group takes some milliseconds.
const LEVEL: u32 = 6;

/// One member.
pub(super) enum Part<'a> {
    /// As it lies in the old file.
    Old(Member),
    /// To be packed.
    Text(Cow<'a, [u8]>),
}

/// A file that was written.
pub(super) struct File {
    pub(super) written: Written,
    /// Where each part lies.
    pub(super) members: Vec<Member>,
}

/// Writes a durable file that everyone can read, in place of what has its name: a member for the head, one for each
/// part, one for the end. The parts are asked for one after the other, because all texts together may be too much for
/// the memory.
///
/// # Errors
/// When that fails, or a part cannot be had.
pub(super) fn file<'a>(
    path: &Path,
    old: Option<&std::fs::File>,
    head: &str,
    parts: impl Iterator<Item = anyhow::Result<Part<'a>>>,
    end: &str,
) -> anyhow::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    let mut to =
        Packed { to: BufWriter::with_capacity(PIECE, &file), hasher: Hasher::new(), size: 0, open: 0 };
    to.text(head.as_bytes())?;
    let (mut members, mut piece, mut parts) = (Vec::new(), vec![0; PIECE], parts.peekable());
    while let Some(part) = parts.next() {
        match part? {
            Part::Text(text) => members.push(to.text(&text)?),
            Part::Old(first) => {
                // Neighbours that were neighbours are copied in one go.
                let (mut from, begin, mut end) = (first.offset, first.offset, first.offset + first.size);
                let shift = to.size;
                let mut run = vec![first];
                while let Some(Ok(Part::Old(next))) =
                    parts.next_if(|part| matches!(part, Ok(Part::Old(next)) if next.offset == end))
                {
                    end += next.size;
                    run.push(next);
                }
                let old = old.context("there is no old file")?;
                while from < end {
                    let length = usize::try_from(end - from).unwrap_or(PIECE).min(PIECE);
                    let piece = piece.get_mut(..length).unwrap_or_default();
                    old.read_exact_at(piece, from)?;
                    to.put(piece)?;
                    from += length as u64;
                }
                for member in run {
                    to.open += member.open;
                    members.push(Member { offset: member.offset - begin + shift, ..member });
                }
            }
        }
    }
    to.text(end.as_bytes())?;
    let Packed { to, hasher, size, open } = to;
    to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let written = Written { size, sha256: hasher.finish(), open_size: open, open_sha256: None };
    Ok(File { written, members })
}

/// Counts and digests what goes into the file.
struct Packed<W: Write> {
    to: W,
    hasher: Hasher,
    size: u64,
    open: u64,
}

impl<W: Write> Packed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn text(&mut self, text: &[u8]) -> io::Result<Member> {
        let packed = packed(text)?;
        let member = Member { offset: self.size, size: packed.len() as u64, open: text.len() as u64 };
        self.put(&packed)?;
        self.open += member.open;
        Ok(member)
    }
}

fn packed(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    GzEncoder::new(text, Compression::new(LEVEL)).read_to_end(&mut packed)?;
    Ok(packed)
}
