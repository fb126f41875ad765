//! The bytes of a parcel, as they travel: all files one after the other, from any byte on. Blocks.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, ManifestEntry, Sha256};

use super::Parcel;
use crate::mock::results;

/// The bytes of a parcel's files, one after the other.
#[derive(Debug)]
pub struct ParcelReader {
    folder: PathBuf,
    left: std::vec::IntoIter<ManifestEntry>,
    current: Option<(File, u64)>,
}

impl ParcelReader {
    /// From byte `offset` of all files on; when `part` is not the digest of what stands before it in
    /// its file, from the beginning of that file on. Gives where it begins.
    ///
    /// # Errors
    /// When a file cannot be read, or there are not so many bytes.
    pub fn resume(folder: PathBuf, parcel: &Parcel, offset: u64, part: Sha256) -> io::Result<(Self, u64)> {
        let mut reader = Self { folder, left: parcel.manifest.clone().into_iter(), current: None };
        let mut before = offset;
        while let Some(entry) = reader.left.as_slice().first().filter(|entry| entry.size <= before) {
            before -= entry.size;
            reader.left.next();
        }
        if before == 0 {
            return Ok((reader, offset));
        }
        let entry = reader.left.next().ok_or_else(|| too_short("the results are"))?;
        let mut file = results::open_regular(&reader.folder.join(&entry.name))?;
        let fits = digest_of(&mut file, before)? == part;
        let begin = if fits { before } else { 0 };
        file.seek(SeekFrom::Start(begin))?;
        reader.current = Some((file, entry.size - begin));
        Ok((reader, offset - before + begin))
    }

    /// The next bytes, as many as fit one frame, across the files' borders; empty at the end.
    ///
    /// # Errors
    /// When a file cannot be read or is shorter than its manifest says.
    pub fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(DATA_BYTES);
        while piece.len() < DATA_BYTES {
            let Some((file, left)) = &mut self.current else {
                let Some(entry) = self.left.next() else { break };
                let path = self.folder.join(&entry.name);
                self.current = Some((results::open_regular(&path)?, entry.size));
                continue;
            };
            let room = (DATA_BYTES - piece.len()) as u64;
            let read = file.take((*left).min(room)).read_to_end(&mut piece)? as u64;
            *left -= read;
            if *left == 0 {
                self.current = None;
            } else if read == 0 {
                return Err(too_short("a file of the outbox has become"));
            }
        }
        Ok(piece)
    }
}

/// The digest of the next `length` bytes.
fn digest_of(file: &mut File, length: u64) -> io::Result<Sha256> {
    let (mut hasher, mut left, mut buffer) = (Hasher::new(), length, vec![0; DATA_BYTES]);
    while left > 0 {
        let read = file.take(left).read(&mut buffer)?;
        let bytes = buffer.get(..read).filter(|bytes| !bytes.is_empty());
        hasher.update(bytes.ok_or_else(|| too_short("a file of the outbox has become"))?);
        left -= read as u64;
    }
    Ok(hasher.finish())
}

fn too_short(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{what} shorter than the manifest says"))
}
