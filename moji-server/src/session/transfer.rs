//! File bytes between the wire and the disk, in tasks of their own: each piece is read or written
//! on a blocking thread, and no thread is held in between.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use moji_proto::io::{IncomingStream, OutgoingStream, Piece};
use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, ManifestEntry, Sha256, ToBuilder};
use tokio::task::spawn_blocking;

/// Pieces that are written in one go when they are there already.
const BATCH: usize = 8;

/// Why results could not be received.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    /// The server's own disk.
    #[error("the server cannot write {0}: {1}")]
    Disk(String, io::Error),
    /// Other bytes came than the manifest says.
    #[error("{0}")]
    WrongBytes(String),
    /// The builder gave up.
    #[error("the builder gave up: {0}")]
    Aborted(String),
    /// The connection ended.
    #[error("the connection ended")]
    Cut,
}

impl DeliveryError {
    /// Whether the builder did nothing wrong.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Disk(..))
    }
}

/// Sends a file of `size` bytes, and gives its digest.
///
/// # Errors
/// When it cannot be read, has another size, or the connection ends.
pub(super) async fn send_file(
    mut stream: OutgoingStream<ToBuilder>,
    path: PathBuf,
    size: u64,
) -> anyhow::Result<Sha256> {
    match send_bytes(&mut stream, path, size).await {
        Ok(digest) => {
            stream.end(Some(digest)).await?;
            Ok(digest)
        }
        Err(error) => {
            stream.abort(&format!("{error:#}")).await?;
            Err(error)
        }
    }
}

async fn send_bytes(
    stream: &mut OutgoingStream<ToBuilder>,
    path: PathBuf,
    size: u64,
) -> anyhow::Result<Sha256> {
    let opened =
        spawn_blocking(move || File::open(&path).with_context(|| format!("cannot open {}", path.display())));
    let (mut file, mut hasher) = (opened.await??, Hasher::new());
    loop {
        let read = spawn_blocking(move || {
            let mut piece = Vec::with_capacity(DATA_BYTES);
            (&file).take(DATA_BYTES as u64).read_to_end(&mut piece)?;
            hasher.update(&piece);
            io::Result::Ok((piece, file, hasher))
        });
        let piece;
        (piece, file, hasher) = read.await?.context("cannot read the SRPM")?;
        if piece.is_empty() {
            if stream.sent() != size {
                bail!("it had {size} bytes and now has {}: it was changed meanwhile", stream.sent());
            }
            return Ok(hasher.finish());
        }
        stream.send(Bytes::from(piece)).await?;
    }
}

/// Appends what comes to a log file, up to `limit` bytes; then the sender is told to stop.
///
/// # Errors
/// When the file cannot be written.
pub(super) async fn receive_log(
    mut stream: IncomingStream<ToBuilder>,
    path: PathBuf,
    limit: u64,
) -> anyhow::Result<()> {
    let mut room = limit;
    let opened = spawn_blocking(move || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::options().append(true).create(true).open(&path)
    });
    let mut file = opened.await?.context("cannot open it")?;
    while let Some(Piece::Data(mut bytes)) = stream.next().await {
        bytes.truncate(room.try_into().unwrap_or(usize::MAX));
        let length = bytes.len() as u64;
        file = spawn_blocking(move || file.write_all(&bytes).map(|()| file))
            .await?
            .context("cannot write it")?;
        room -= length;
        if room == 0 {
            stream.unwanted()?;
            break;
        }
        stream.wrote(length)?;
    }
    Ok(())
}

/// Whether a manifest is what the delivery says, with every name once.
///
/// # Errors
/// A sentence about what does not fit; the peer has broken the protocol then.
pub(super) fn check_manifest(manifest: &[ManifestEntry], bytes: u64) -> anyhow::Result<()> {
    let names: BTreeSet<_> = manifest.iter().map(|entry| &entry.name).collect();
    let total = manifest.iter().try_fold(0u64, |sum, entry| sum.checked_add(entry.size));
    if names.len() != manifest.len() || total != Some(bytes) {
        bail!(
            "a delivery of {} files with {bytes} bytes whose manifest has {} names and {} bytes",
            manifest.len(),
            names.len(),
            total.map_or("far too many".into(), |total| total.to_string())
        );
    }
    Ok(())
}

/// Receives the files of a manifest into a new folder, each checked against its size and digest.
///
/// # Errors
/// Whose fault it is that this failed; the folder may hold anything then.
pub(super) async fn receive_results(
    mut stream: IncomingStream<ToBuilder>,
    manifest: Vec<ManifestEntry>,
    folder: PathBuf,
) -> Result<(), DeliveryError> {
    let begun = spawn_blocking(move || Files::begin(manifest, folder));
    let mut files = match begun.await.map_err(|_| DeliveryError::Cut)? {
        Ok(files) => files,
        Err(error) => {
            let _ = stream.unwanted();
            return Err(error);
        }
    };
    loop {
        let mut batch = Vec::new();
        let mut last = None;
        match stream.next().await {
            Some(Piece::Data(bytes)) => batch.push(bytes),
            other => last = Some(other),
        }
        while last.is_none() && batch.len() < BATCH {
            match stream.try_next() {
                Some(Piece::Data(bytes)) => batch.push(bytes),
                Some(piece) => last = Some(Some(piece)),
                None => break,
            }
        }
        let length: usize = batch.iter().map(Bytes::len).sum();
        let written = spawn_blocking(move || {
            let written = batch.iter().try_for_each(|bytes| files.write(bytes));
            (files, written)
        });
        let (returned, written) = written.await.map_err(|_| DeliveryError::Cut)?;
        files = returned;
        if let Err(error) = written {
            let _ = stream.unwanted();
            return Err(error);
        }
        match last {
            None => stream.wrote(length as u64).map_err(|_| DeliveryError::Cut)?,
            Some(Some(Piece::End(_))) => return files.finish(),
            Some(Some(Piece::Abort(reason))) => return Err(DeliveryError::Aborted(reason)),
            Some(Some(Piece::Data(_)) | None) => return Err(DeliveryError::Cut),
        }
    }
}

/// The files of a manifest, written one after the other. Blocks.
struct Files {
    folder: PathBuf,
    left: std::vec::IntoIter<ManifestEntry>,
    current: Option<CurrentFile>,
}

struct CurrentFile {
    entry: ManifestEntry,
    file: File,
    hasher: Hasher,
    left: u64,
}

impl Files {
    fn begin(manifest: Vec<ManifestEntry>, folder: PathBuf) -> Result<Self, DeliveryError> {
        // What an earlier delivery left is worth nothing.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| disk(&folder, error))?;
        let mut files = Self { folder, left: manifest.into_iter(), current: None };
        files.advance()?;
        Ok(files)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), DeliveryError> {
        while !bytes.is_empty() {
            let Some(current) = &mut self.current else {
                return Err(DeliveryError::WrongBytes("more bytes came than the manifest has".into()));
            };
            let (now, later) = bytes.split_at(bytes.len().min(current.left.try_into().unwrap_or(usize::MAX)));
            current
                .file
                .write_all(now)
                .map_err(|error| disk(&self.folder.join(&current.entry.name), error))?;
            current.hasher.update(now);
            current.left -= now.len() as u64;
            bytes = later;
            self.advance()?;
        }
        Ok(())
    }

    /// Goes on to the next file as long as the current one is complete.
    fn advance(&mut self) -> Result<(), DeliveryError> {
        while self.current.as_ref().is_none_or(|current| current.left == 0) {
            if let Some(CurrentFile { entry, hasher, .. }) = self.current.take() {
                let digest = hasher.finish();
                if digest != entry.sha256 {
                    return Err(DeliveryError::WrongBytes(format!(
                        "{} arrived with the digest {digest}, its manifest says {}",
                        entry.name, entry.sha256
                    )));
                }
            }
            let Some(entry) = self.left.next() else { return Ok(()) };
            let path = self.folder.join(&entry.name);
            let file = File::create_new(&path).map_err(|error| disk(&path, error))?;
            self.current = Some(CurrentFile { left: entry.size, entry, file, hasher: Hasher::new() });
        }
        Ok(())
    }

    fn finish(self) -> Result<(), DeliveryError> {
        match self.current {
            None => Ok(()),
            Some(current) => Err(DeliveryError::WrongBytes(format!(
                "the delivery ended {} bytes before the end of {}",
                current.left, current.entry.name
            ))),
        }
    }
}

fn disk(path: &Path, error: io::Error) -> DeliveryError {
    DeliveryError::Disk(path.display().to_string(), error)
}
