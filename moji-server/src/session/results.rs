//! The results of an attempt on their way into staging, beginning where an earlier upload was cut.
//!
//! What is there already is worth something only as far as the manifest says so: every byte of it is
//! read again. So nothing has to be remembered about an upload, and it does not matter how it ended,
//! nor whether the server has ended meanwhile.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use moji_proto::io::{Batch, IncomingStream, Last};
use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, ManifestEntry, Sha256, ToBuilder};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::beneath::Folder;
use crate::commit::{RESULTS, UNPUBLISHED};
use crate::durable;
use crate::payload::{Arriving, Payloads};
use crate::room::{FreeSpace, in_words};
use crate::staging::{AtWork, Over};
use crate::unsynced::UNSYNCED;

/// Pieces that are written in one go when they are there already: a part of the window, so that the others come
/// meanwhile.
const BATCH: usize = 2;
/// When so many bytes of a file have come, the disk is to begin with them: what is left for the end, which the builder
/// waits for, is little then.
const WRITE_BACK: u64 = 8 << 20;
/// What takes less time than another thread to begin.
const LITTLE: usize = 16 * 1024;
/// An upload must leave so much room: for logs, records, and the metadata.
const RESERVE: u64 = 4 << 20;

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
    /// The server has no place for what would come.
    #[error("the server's disk is full: {} would come, {} are free", in_words(*.needed), in_words(*.free))]
    NoRoom {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The connection ended.
    #[error("the connection ended")]
    Cut,
    /// The files are not the session's any more.
    #[error(transparent)]
    Over(#[from] Over),
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

/// What an earlier upload has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Have {
    /// Bytes of all files, in the manifest's order.
    pub(super) offset: u64,
    /// How many of them belong to whole files.
    pub(super) whole: u64,
    /// The digest of the others: the first part of one file.
    pub(super) part: Sha256,
}

/// Finds out how much of a manifest's files lies in an attempt's staging, which is made when it is missing,
/// and whether there is room for the rest. What does not belong there is removed. Waits for a place first.
///
/// # Errors
/// When the disk is full, or cannot be read or written, or the work is stopped.
pub(super) async fn prepare(
    manifest: Vec<ManifestEntry>,
    staging: PathBuf,
    free_space: FreeSpace,
    places: Arc<Semaphore>,
    work: AtWork,
) -> Result<(Box<Files>, Have), DeliveryError> {
    let total: u64 = manifest.iter().map(|entry| entry.size).sum();
    let over = work.over();
    let place = tokio::select! {
        biased;
        () = over.cancelled() => return Err(Over.into()),
        place = places.acquire_owned() => place.map_err(|_| DeliveryError::Cut)?,
    };
    let prepared = spawn_blocking(move || {
        let _place = place;
        work.check()?;
        let folder = open_results(&staging).map_err(|error| disk(&staging, error))?;
        let (mut files, have) = Files::prepare(manifest, folder, work)?;
        let needed = total.saturating_sub(have.offset);
        match free_space.at(files.folder.path()) {
            // Rather not begun than given up half-way, with nothing left for anybody else.
            Ok(free) if needed > 0 && free < needed.saturating_add(RESERVE) => {
                Err(DeliveryError::NoRoom { needed, free })
            }
            _ => {
                files.work.rest();
                Ok((Box::new(files), have))
            }
        }
    });
    prepared.await.map_err(|_| DeliveryError::Cut)?
}

/// The folder of the results. A commit that the last server began has put files aside that were not to be
/// published: they belong to the results all the same, and what is right may be decided anew. What the disk has
/// not taken may look as it should as long as it is in memory: that is not used.
fn open_results(staging: &Path) -> io::Result<Folder> {
    let staging = Folder::make(staging)?;
    staging.remove(UNSYNCED)?;
    let results = staging.make_folder(RESULTS)?;
    let aside = match staging.folder(UNPUBLISHED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(results),
        aside => aside?,
    };
    for name in aside.names()? {
        aside.rename(&name, &results, &name)?;
    }
    staging.remove(UNPUBLISHED)?;
    Ok(results)
}

/// Receives what is left of the files, each checked against its size and digest. With `restart` the
/// part of a file that is here is not used. Gives what is known of the payloads of RPMs.
///
/// # Errors
/// Whose fault it is that this failed. What has arrived whole stays, and counts the next time.
pub(super) async fn receive(
    mut stream: IncomingStream<ToBuilder>,
    mut files: Box<Files>,
    work: AtWork,
    restart: bool,
) -> Result<Payloads, DeliveryError> {
    let over = work.over();
    files.work = work;
    if restart {
        let restarted = spawn_blocking(move || files.restart().map(|()| files));
        files = restarted.await.map_err(|_| DeliveryError::Cut)??;
    }
    let mut arriving = files.arriving();
    loop {
        let batch = tokio::select! {
            biased;
            () = over.cancelled() => return Err(Over.into()),
            batch = stream.next_batch(BATCH) => batch,
        };
        let (length, Batch { pieces, last }) = (batch.bytes(), batch);
        let same = pieces.clone();
        let writing = spawn_blocking(move || {
            let written = pieces.iter().try_for_each(|bytes| files.write(bytes));
            (files, written)
        });
        let (written, followed) = tokio::join!(writing, follow(arriving, same));
        let (Ok((returned, written)), Ok(followed)) = (written, followed) else {
            return Err(DeliveryError::Cut);
        };
        (files, arriving) = (returned, followed);
        if let Err(error) = written {
            let _ = stream.unwanted();
            return Err(error);
        }
        match last {
            None => stream.wrote(length).map_err(|_| DeliveryError::Cut)?,
            Some(Last::End(_)) => {
                files.finish()?;
                return Ok(arriving.finish());
            }
            Some(Last::Abort(reason)) => return Err(DeliveryError::Aborted(reason)),
            Some(Last::Cut) => return Err(DeliveryError::Cut),
        }
    }
}

/// Follows what has come. The digest of a payload costs as much as all the rest, so another processor may do that.
async fn follow(mut arriving: Arriving, pieces: Vec<Bytes>) -> Result<Arriving, JoinError> {
    let is_little = pieces.iter().map(Bytes::len).sum::<usize>() <= LITTLE;
    let following = move || {
        pieces.iter().for_each(|bytes| arriving.update(bytes));
        arriving
    };
    if is_little { Ok(following()) } else { spawn_blocking(following).await }
}

/// The files of a manifest, written one after the other, as long as they may be. Blocks.
#[derive(Debug)]
pub(super) struct Files {
    folder: Folder,
    left: std::vec::IntoIter<ManifestEntry>,
    current: Option<CurrentFile>,
    work: AtWork,
}

#[derive(Debug)]
struct CurrentFile {
    entry: ManifestEntry,
    file: File,
    hasher: Hasher,
    left: u64,
    /// Up to where the disk has been told to begin.
    begun: u64,
}

impl Files {
    fn prepare(
        manifest: Vec<ManifestEntry>,
        folder: Folder,
        work: AtWork,
    ) -> Result<(Self, Have), DeliveryError> {
        let mut files = Self { folder, left: manifest.into_iter(), current: None, work };
        let mut have = Have { offset: 0, whole: 0, part: Sha256::of(b"") };
        let mut of_use = BTreeSet::new();
        while files.current.is_none()
            && let Some(entry) = files.left.next()
        {
            of_use.insert(OsString::from(entry.name.as_str()));
            let path = files.folder.path().join(&entry.name);
            let mut current = CurrentFile::open(&files.folder, entry, &files.work)?;
            if current.is_whole() {
                have.whole += current.entry.size;
                continue;
            }
            if current.left == 0 {
                current.restart().map_err(|error| disk(&path, error))?;
            }
            have.part = current.hasher.clone().finish();
            have.offset = current.entry.size - current.left;
            files.current = Some(current);
        }
        have.offset += have.whole;
        files.remove_others(&of_use)?;
        // An empty file with the digest of something else will never be right.
        files.advance()?;
        Ok((files, have))
    }

    /// An upload goes from front to back: files behind the first one that is not whole are of no use.
    fn remove_others(&self, of_use: &BTreeSet<OsString>) -> Result<(), DeliveryError> {
        let cannot = |error| disk(self.folder.path(), error);
        // A commit that was cut has left an earlier failure here, which may have had logs in a folder.
        for name in self.folder.names().map_err(cannot)?.iter().filter(|name| !of_use.contains(*name)) {
            self.work.check()?;
            self.folder.remove(name).map_err(cannot)?;
        }
        Ok(())
    }

    /// What follows the bytes that are still to come.
    fn arriving(&self) -> Arriving {
        let mut arriving = Arriving::default();
        if let Some(CurrentFile { entry, left, .. }) = &self.current {
            arriving.expect(entry.name.clone(), entry.size, entry.size - left);
        }
        for entry in self.left.as_slice() {
            arriving.expect(entry.name.clone(), entry.size, 0);
        }
        arriving
    }

    /// Forgets the part of the current file that is here.
    fn restart(&mut self) -> Result<(), DeliveryError> {
        self.work.check()?;
        let Some(current) = &mut self.current else { return Ok(()) };
        current.restart().map_err(|error| disk(&self.folder.path().join(&current.entry.name), error))
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), DeliveryError> {
        while !bytes.is_empty() {
            self.work.check()?;
            let Some(current) = &mut self.current else {
                return Err(DeliveryError::WrongBytes("more bytes came than the manifest has".into()));
            };
            let (now, later) = bytes.split_at(bytes.len().min(current.left.try_into().unwrap_or(usize::MAX)));
            current
                .file
                .write_all(now)
                .map_err(|error| disk(&self.folder.path().join(&current.entry.name), error))?;
            current.hasher.update(now);
            current.left -= now.len() as u64;
            current.begin_to_write();
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
            self.current = Some(CurrentFile::open(&self.folder, entry, &self.work)?);
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

impl CurrentFile {
    /// A file with what is there of it; made when it is missing.
    fn open(folder: &Folder, entry: ManifestEntry, work: &AtWork) -> Result<Self, DeliveryError> {
        let path = folder.path().join(&entry.name);
        let cannot = |error| disk(&path, error);
        work.check()?;
        let file = folder.append(&entry.name).map_err(cannot)?;
        let mut current = Self { left: entry.size, begun: 0, entry, file, hasher: Hasher::new() };
        let here = current.file.metadata().map_err(cannot)?.len();
        if here > current.entry.size {
            current.restart().map_err(cannot)?;
        }
        if here == 0 {
            return Ok(current);
        }
        let mut buffer = vec![0; DATA_BYTES.min(current.left.try_into().unwrap_or(DATA_BYTES))];
        loop {
            work.check()?;
            let length = current.file.read(&mut buffer).map_err(cannot)?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
            current.hasher.update(bytes);
            current.left = current.left.saturating_sub(length as u64);
        }
        Ok(current)
    }

    fn is_whole(&self) -> bool {
        self.left == 0 && self.hasher.clone().finish() == self.entry.sha256
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.hasher = Hasher::new();
        (self.left, self.begun) = (self.entry.size, 0);
        Ok(())
    }

    /// Has the disk begin with what the kernel would keep until somebody waits for it. Nothing is waited for here, and
    /// no error heard: that is told once, and belongs to whoever makes the file durable.
    fn begin_to_write(&mut self) {
        let come = self.entry.size - self.left;
        if come - self.begun >= WRITE_BACK {
            durable::begin_to_write(&self.file, self.begun..come);
            self.begun = come;
        }
    }
}

fn disk(path: &Path, error: io::Error) -> DeliveryError {
    DeliveryError::Disk(path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::staging::{Stagings, Tenancy};

    async fn tenancy() -> Tenancy {
        Stagings::default().let_to(moji_proto::AttemptId { boot: 5, serial: 17 }).await
    }

    fn places(many: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(many))
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_place_it_waits_until_it_is_over() {
        let at = tempfile::tempdir().unwrap();
        let (tenancy, staging) = (tenancy().await, at.path().join("1"));
        let preparing =
            prepare(Vec::new(), staging.clone(), FreeSpace::of_the_disk(), places(0), tenancy.work());
        tokio::pin!(preparing);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), &mut preparing).await;
        assert!(waited.is_err() && !staging.exists());
        drop(tenancy);
        assert!(matches!(preparing.await, Err(DeliveryError::Over(_))));
    }

    /// The session keeps it until the builder sends, and may itself be waiting for the farm meanwhile.
    #[tokio::test(start_paused = true)]
    async fn what_is_prepared_keeps_nobody_waiting() {
        let (at, mut stagings) = (tempfile::tempdir().unwrap(), Stagings::default());
        let tenancy = stagings.let_to(moji_proto::AttemptId { boot: 5, serial: 17 }).await;
        let (staging, room) = (at.path().join("1"), FreeSpace::of_the_disk());
        let prepared = prepare(Vec::new(), staging, room, places(1), tenancy.work()).await.unwrap();
        let vacated = stagings.vacate(tenancy.id().attempt);
        tokio::time::timeout(std::time::Duration::from_secs(60), vacated).await.expect("the farm waits");
        drop(prepared);
    }

    /// Nothing is removed, made or emptied in a folder that is somebody else's by now.
    #[tokio::test]
    async fn what_is_over_does_not_touch_the_files() {
        let entry =
            |name: &str| ManifestEntry { name: name.parse().unwrap(), size: 3, sha256: Sha256::of(b"log") };
        let manifest = || vec![entry("a.log"), entry("b.log"), entry("c.log")];
        let at = tempfile::tempdir().unwrap();
        let (staging, results) = (at.path().join("1"), at.path().join("1/results"));
        let tenancy = tenancy().await;
        let (mut files, _) =
            prepare(manifest(), staging.clone(), FreeSpace::of_the_disk(), places(1), tenancy.work())
                .await
                .unwrap();
        files.write(b"logl").unwrap();
        let late = tenancy.work();
        drop(tenancy);
        for name in ["build.json", "b.log"] {
            fs::write(results.join(name), "of the next one").unwrap();
        }
        assert!(matches!(files.write(b"oglog"), Err(DeliveryError::Over(_))));
        assert!(matches!(files.restart(), Err(DeliveryError::Over(_))));
        let prepared = prepare(manifest(), staging, FreeSpace::of_the_disk(), places(1), late).await;
        assert!(matches!(prepared, Err(DeliveryError::Over(_))), "{prepared:?}");
        assert!(!results.join("c.log").exists());
        for name in ["build.json", "b.log"] {
            assert_eq!(fs::read(results.join(name)).unwrap(), b"of the next one");
        }
    }

    #[tokio::test]
    async fn what_the_disk_has_not_taken_comes_once_more() {
        let manifest =
            vec![ManifestEntry { name: "build.log".parse().unwrap(), size: 3, sha256: Sha256::of(b"log") }];
        let (at, tenancy) = (tempfile::tempdir().unwrap(), tenancy().await);
        let (outside, staging) = (at.path().join("outside"), at.path().join("1"));
        let aside = staging.join(UNSYNCED);
        for is_link in [false, true] {
            let folder = if is_link { &outside } else { &aside };
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("build.log"), "log").unwrap();
            if is_link {
                symlink(&outside, &aside).unwrap();
            }
            let (room, work) = (FreeSpace::of_the_disk(), tenancy.work());
            let (_, have) = prepare(manifest.clone(), staging.clone(), room, places(1), work).await.unwrap();
            assert_eq!(have.offset, 0, "it is used");
            assert!(aside.symlink_metadata().is_err());
        }
        assert_eq!(fs::read(outside.join("build.log")).unwrap(), b"log");
    }

    /// Whatever stands where a result belongs: it is not read, not written, not emptied.
    #[tokio::test]
    async fn an_upload_goes_through_no_link() {
        let manifest = || {
            vec![ManifestEntry { name: "build.log".parse().unwrap(), size: 3, sha256: Sha256::of(b"log") }]
        };
        let tenancy = tenancy().await;
        let at = tempfile::tempdir().unwrap();
        let (secret, staging) = (at.path().join("secret"), at.path().join("attempts/1"));
        fs::write(&secret, "longer than the log").unwrap();
        for link in ["results/build.log", "results", "unpublished", ""] {
            fs::create_dir_all(staging.join("results")).unwrap();
            let link = staging.join(link);
            let _ = fs::remove_dir_all(link.components().as_path());
            symlink(
                if link.ends_with("build.log") { &secret } else { at.path() },
                link.components().as_path(),
            )
            .unwrap();
            let prepared =
                prepare(manifest(), staging.clone(), FreeSpace::of_the_disk(), places(1), tenancy.work())
                    .await;
            assert!(matches!(prepared, Err(DeliveryError::Disk(..))), "{link:?}: {prepared:?}");
            assert_eq!(fs::read(&secret).unwrap(), b"longer than the log");
            assert_eq!(fs::read_dir(at.path()).unwrap().count(), 2, "{link:?}");
            fs::remove_dir_all(at.path().join("attempts")).unwrap();
        }
        fs::create_dir(at.path().join("attempts")).unwrap();
        let (_, have) =
            prepare(manifest(), staging, FreeSpace::of_the_disk(), places(1), tenancy.work()).await.unwrap();
        assert_eq!(have.offset, 0);
    }
}
