//! Finished results: made durable here before anything else happens with them. Blocks.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{ArtifactName, Hasher, ManifestEntry, Outcome};
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
    /// From the beginning.
    pub fn new(outbox: PathBuf, parcel: &Parcel) -> Self {
        Self { outbox, left: parcel.manifest.clone().into_iter(), current: None }
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
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a file of the outbox has become shorter",
                ));
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
        let mut reader = ParcelReader::new(outbox.clone(), &parcel);
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
        fs::write(outbox.join("build.log"), "b").unwrap();
        let mut reader = ParcelReader::new(outbox, &parcel);
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
