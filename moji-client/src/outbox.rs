//! Finished results: made durable here before anything else happens with them. Blocks.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{ArtifactName, Hasher, ManifestEntry, Outcome, Sha256};
use serde::{Deserialize, Serialize};

use crate::crash::{self, Point};
use crate::mock::{logs, results};

/// A finished attempt in the outbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parcel {
    /// How it ended.
    pub outcome: Outcome,
    /// Its files, in the order in which they travel.
    pub manifest: Vec<ManifestEntry>,
}

/// The file that makes a folder of the outbox complete; written last.
const PARCEL: &str = "parcel.json";

/// Moves what an attempt left into the outbox: logs cut to `log_limit` bytes, every file that may
/// travel with its size and digest, all of it durable.
///
/// # Errors
/// When the disk is full or something cannot be read.
pub fn pack(
    resultdir: &Path,
    mock_log: &Path,
    outbox: &Path,
    outcome: Outcome,
    log_limit: u64,
) -> anyhow::Result<Parcel> {
    let cannot = |what: &Path| format!("cannot put {} into the outbox", what.display());
    match fs::rename(mock_log, resultdir.join("mock.log")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| cannot(mock_log));
        }
        _ => {}
    }
    crash::at(Point::LogMoved);
    let _ = fs::remove_dir_all(outbox);
    outbox.parent().map_or(Ok(()), fs::create_dir_all).with_context(|| cannot(resultdir))?;
    fs::rename(resultdir, outbox).with_context(|| cannot(resultdir))?;
    crash::at(Point::ResultsMoved);
    let found = results::list(outbox).with_context(|| cannot(resultdir))?;
    for (name, why) in &found.skipped {
        tracing::info!("{name} stays behind: {why:?}");
    }
    let mut manifest = Vec::new();
    for file in found.files {
        let path = outbox.join(&file.name);
        if file.name.as_str().ends_with(".log") {
            logs::cap_log(&path, log_limit).with_context(|| cannot(&path))?;
        }
        manifest.push(describe(&path, file.name).with_context(|| cannot(&path))?);
    }
    crash::at(Point::FilesSynced);
    let parcel = Parcel { outcome, manifest };
    write_durably(&outbox.join(PARCEL), &serde_json::to_vec_pretty(&parcel)?)
        .with_context(|| cannot(outbox))?;
    crash::at(Point::ParcelWritten);
    File::open(outbox).and_then(|folder| folder.sync_all()).with_context(|| cannot(outbox))?;
    crash::at(Point::Packed);
    Ok(parcel)
}

/// Size and digest of a file, which is durable afterwards.
fn describe(path: &Path, name: ArtifactName) -> io::Result<ManifestEntry> {
    let file = results::open_regular(path)?;
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; DATA_BYTES]);
    loop {
        let length = (&file).read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size += length as u64;
    }
    file.sync_all()?;
    Ok(ManifestEntry { name, size, sha256: hasher.finish() })
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

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let part: PathBuf = path.with_extension("part");
    fs::write(&part, content)?;
    File::open(&part)?.sync_all()?;
    fs::rename(&part, path)
}

/// The bytes of a parcel's files, one after the other.
#[derive(Debug)]
pub struct ParcelReader {
    outbox: PathBuf,
    left: std::vec::IntoIter<ManifestEntry>,
    current: Option<(File, u64)>,
}

impl ParcelReader {
    /// From byte `offset` of all files on; when `part` is not the digest of what stands before it in
    /// its file, from the beginning of that file on. Gives where it begins.
    ///
    /// # Errors
    /// When a file cannot be read, or there are not so many bytes.
    pub fn resume(outbox: PathBuf, parcel: &Parcel, offset: u64, part: Sha256) -> io::Result<(Self, u64)> {
        let mut reader = Self { outbox, left: parcel.manifest.clone().into_iter(), current: None };
        let mut before = offset;
        while let Some(entry) = reader.left.as_slice().first().filter(|entry| entry.size <= before) {
            before -= entry.size;
            reader.left.next();
        }
        if before == 0 {
            return Ok((reader, offset));
        }
        let entry = reader.left.next().ok_or_else(|| too_short("the results are"))?;
        let mut file = results::open_regular(&reader.outbox.join(&entry.name))?;
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
                let path = self.outbox.join(&entry.name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use moji_proto::Sha256;

    #[test]
    fn a_parcel_holds_what_may_travel_and_reads_as_one() {
        let at = tempfile::tempdir().unwrap();
        let (resultdir, mock_log, outbox) =
            (at.path().join("result"), at.path().join("mock.log"), at.path().join("outbox/7"));
        fs::create_dir(&resultdir).unwrap();
        let files: [(&str, &[u8]); 4] = [
            ("a-1-1.noarch.rpm", &[1; 700_000]),
            ("build.log", b"built"),
            ("empty.log", b""),
            ("evil;.sh", b"no"),
        ];
        for (name, content) in files {
            fs::write(resultdir.join(name), content).unwrap();
        }
        fs::write(&mock_log, "INFO").unwrap();
        let parcel = pack(&resultdir, &mock_log, &outbox, Outcome::Succeeded, 1 << 20).unwrap();
        let names: Vec<_> = parcel.manifest.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a-1-1.noarch.rpm", "build.log", "empty.log", "mock.log"]);
        assert_eq!(parcel.manifest[1].sha256, Sha256::of(b"built"));
        let nothing = Sha256::of(b"");
        let (mut reader, from) = ParcelReader::resume(outbox.clone(), &parcel, 0, nothing).unwrap();
        assert_eq!(from, 0);
        let mut all = Vec::new();
        loop {
            let piece = reader.next_piece().unwrap();
            if piece.is_empty() {
                break;
            }
            all.extend(piece);
        }
        assert_eq!(all.len() as u64, parcel.manifest.iter().map(|entry| entry.size).sum::<u64>());
        assert!(all.ends_with(b"builtINFO"));
        let starts = [
            (5, Sha256::of(&[1; 5]), 5),
            (5, nothing, 0),
            (700_002, Sha256::of(b"bu"), 700_002),
            (700_002, Sha256::of(b"bo"), 700_000),
            (700_005, nothing, 700_005),
            (700_009, nothing, 700_009),
        ];
        for (offset, part, begins) in starts {
            let (mut reader, from) = ParcelReader::resume(outbox.clone(), &parcel, offset, part).unwrap();
            assert_eq!(from, begins, "{offset}");
            assert!(all[from as usize..].starts_with(&reader.next_piece().unwrap()), "{offset}");
        }
        assert!(ParcelReader::resume(outbox.clone(), &parcel, 700_010, nothing).is_err());
        fs::write(outbox.join("build.log"), "b").unwrap();
        let (mut reader, _) = ParcelReader::resume(outbox, &parcel, 0, nothing).unwrap();
        assert!(std::iter::from_fn(|| Some(reader.next_piece())).take(5).any(|piece| piece.is_err()));
    }

    #[test]
    fn a_long_log_is_cut() {
        let at = tempfile::tempdir().unwrap();
        let resultdir = at.path().join("result");
        fs::create_dir(&resultdir).unwrap();
        fs::write(resultdir.join("build.log"), vec![b'x'; 100_000]).unwrap();
        let outbox = at.path().join("outbox");
        let parcel = pack(&resultdir, &at.path().join("none"), &outbox, Outcome::Succeeded, 10_000).unwrap();
        assert!(parcel.manifest[0].size <= 10_000, "{parcel:?}");
        assert_eq!(parcel.manifest[0].size, fs::metadata(outbox.join("build.log")).unwrap().len());
    }
}
