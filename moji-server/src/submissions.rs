//! SRPMs that people submit over the network: on their way, and into SOURCE.
//!
//! What has arrived stays in `WORKING/.moji/submitted` under its digest, so that an upload which was cut goes on
//! where it stopped. Into SOURCE comes only what is whole, has the digest that was announced and is
//! an SRPM, by one rename(2). All of it blocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use moji_proto::limits::DATA_BYTES;
use moji_proto::{CredentialName, Hasher, Nvr, Sha256};
use tokio_util::sync::CancellationToken;

use crate::BuildKey;
use crate::beneath::{self, Folder};
use crate::commit;
use crate::durable;
use crate::folders::{Folders, rename_no_replace};
use crate::metadata;
use crate::room::{FreeSpace, in_words};
use crate::source::srpm_header;

/// Where they are on their way, below the private folder.
const FOLDER: &str = "submitted";
/// Most that are kept of what was cut, whoever sent it; the oldest goes first.
const CUT_MOST: usize = 64;
/// How long that is kept.
const CUT_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most that are remembered of what was submitted.
const REMEMBERED: usize = 1024;

/// What somebody wants to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Who: a credential, if it needs one.
    pub by: Option<CredentialName>,
    /// Where it is to lie.
    pub key: BuildKey,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256,
}

/// All submissions of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Submissions {
    folders: Arc<Folders>,
    free_space: FreeSpace,
    /// Most bytes of one.
    size_max: u64,
    /// So much stays free for builds.
    min_free: u64,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// What is being received just now, by the name of its file.
    busy: BTreeMap<String, Busy>,
    /// What was submitted last.
    done: VecDeque<Announced>,
}

/// An upload that goes on.
#[derive(Debug)]
struct Busy {
    /// Ends it: its owner is back on another connection.
    over: CancellationToken,
    /// How many bytes are still to come.
    left: u64,
}

/// The same SRPM is being received on another connection, which was told to end.
#[derive(Debug, thiserror::Error)]
#[error("it is being submitted on another connection just now; try again in a moment")]
pub struct Occupied;

/// Somebody's exclusive right to bring one file.
#[derive(Debug)]
pub struct Upload {
    announced: Announced,
    submissions: Submissions,
    over: CancellationToken,
    file: File,
    hasher: Hasher,
    have: u64,
}

/// Whether there is something to be brought.
#[derive(Debug)]
pub enum Begun {
    /// It is queued already: in words.
    Queued(String),
    /// From [`Upload::offset`] on.
    Wanted(Box<Upload>),
}

impl Submissions {
    /// Submissions to these folders. `min_free` stays free on the disk.
    pub fn new(folders: Arc<Folders>, free_space: FreeSpace, size_max: u64, min_free: u64) -> Self {
        Self { folders, free_space, size_max, min_free, known: Arc::default() }
    }

    /// Begins to receive a file. `is_repeat`: this was asked before, and nobody heard the answer.
    ///
    /// # Errors
    /// Why it is not wanted, for people.
    pub fn begin(&self, announced: Announced, is_repeat: bool) -> anyhow::Result<Begun> {
        let Announced { key, size, sha256, .. } = &announced;
        ensure!(
            *size <= self.size_max,
            "{key} has {}, more than {} (--limit submission-size)",
            in_words(*size),
            in_words(self.size_max)
        );
        if is_repeat {
            if self.lock().done.contains(&announced) {
                return Ok(Begun::Queued("queued".into()));
            }
        } else {
            // It is meant once more: what was said of it before counts no longer.
            self.lock().done.retain(|done| *done != announced);
        }
        if let Some(told) = self.is_there(key, *size, *sha256)? {
            return Ok(Begun::Queued(told));
        }
        // An SRPM is in one folder: the one that is there is built again.
        let finished = self.folders.finished.join(key.path());
        if is_same(&finished, *size, *sha256) {
            let nvr = beneath::open_regular(&finished).and_then(|file| srpm_header(&file, *size));
            if self.folders.retry(key).is_ok() {
                self.folders.forget_outcome(key);
                let told = "queued again: it was in FINISHED";
                let nvr = nvr.ok().and_then(Result::ok).filter(|nvr| self.is_published(key, nvr));
                return Ok(Begun::Queued(nvr.map_or_else(|| told.into(), |nvr| only_logs(told, &nvr))));
            }
        }
        let private = Folder::open(&self.folders.private()).context("cannot open the private folder")?;
        let folder = private.make_folder(FOLDER).context("cannot make the folder of submissions")?;
        let over = CancellationToken::new();
        {
            let mut known = self.lock();
            if let Some(busy) = known.busy.get(&name(&announced)) {
                // Its owner is back: the server takes a connection whose other end is gone for alive for a while.
                busy.over.cancel();
                return Err(Occupied.into());
            }
            known.busy.insert(name(&announced), Busy { over: over.clone(), left: *size });
        }
        match self.open(&folder, &announced) {
            Ok((file, hasher, have)) => {
                let (submissions, announced) = (self.clone(), announced);
                Ok(Begun::Wanted(Box::new(Upload { announced, submissions, over, file, hasher, have })))
            }
            Err(error) => {
                self.lock().busy.remove(&name(&announced));
                Err(error)
            }
        }
    }

    /// What is there of it, or nothing of it.
    fn open(&self, folder: &Folder, announced: &Announced) -> anyhow::Result<(File, Hasher, u64)> {
        self.forget_old(folder).context("cannot tidy up the folder of submissions")?;
        let mut file = folder.append(name(announced)).context("cannot write it")?;
        let (mut hasher, mut have) = (Hasher::new(), 0_u64);
        let mut piece = vec![0; DATA_BYTES];
        loop {
            let length = file.read(&mut piece).context("cannot read what is here of it")?;
            let Some(bytes) = piece.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            have += length as u64;
        }
        if have > announced.size {
            file.set_len(0).context("cannot begin it anew")?;
            (hasher, have) = (Hasher::new(), 0);
        }
        let left = announced.size - have;
        if left > 0 && !self.has_room(folder, announced, left) {
            // What others have cut is worth less than what comes now.
            self.forget_cut(folder, |_, _| true).context("cannot make room")?;
            ensure!(
                self.has_room(folder, announced, left),
                "the server's disk is too full for it (--min-free)"
            );
        }
        Ok((file, hasher, have))
    }

    /// Whether the same file waits, or is being built.
    fn is_there(&self, key: &BuildKey, size: u64, sha256: Sha256) -> anyhow::Result<Option<String>> {
        for (folder, same, other) in [
            (&self.folders.source, "it is queued already", "another SRPM of that name waits"),
            (&self.folders.working, "it is being built already", "another SRPM of that name is being built"),
        ] {
            let path = folder.join(key.path());
            match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("cannot look whether it is there"),
                Ok(_) if is_same(&path, size, sha256) => return Ok(Some(same.into())),
                Ok(_) => bail!("{other}: {key} (moji cancel takes it out)"),
            }
        }
        Ok(None)
    }

    fn is_published(&self, key: &BuildKey, nvr: &Nvr) -> bool {
        let published = self.folders.published(key, nvr);
        commit::read_record(&published).is_some_and(|record| record.outcome.is_success())
    }

    /// Whether so many bytes more leave enough room, with all that others still bring.
    fn has_room(&self, folder: &Folder, announced: &Announced, left: u64) -> bool {
        let mut known = self.lock();
        if let Some(busy) = known.busy.get_mut(&name(announced)) {
            busy.left = left;
        }
        let to_come: u64 = known.busy.values().map(|busy| busy.left).fold(0, u64::saturating_add);
        drop(known);
        let free = self.free_space.at(folder.path()).unwrap_or(u64::MAX);
        free >= to_come.saturating_add(self.min_free)
    }

    /// Removes what was cut long ago, and the oldest beyond so many.
    fn forget_old(&self, folder: &Folder) -> io::Result<()> {
        self.forget_cut(folder, |younger, age| younger >= CUT_MOST || age > CUT_AGE)
    }

    /// Removes what was cut and is not being brought: by how many are younger, and its age.
    fn forget_cut(&self, folder: &Folder, is_old: impl Fn(usize, Duration) -> bool) -> io::Result<()> {
        let busy: BTreeSet<String> = self.lock().busy.keys().cloned().collect();
        let mut cut = Vec::new();
        for name in folder.names()? {
            if name.to_str().is_some_and(|name| busy.contains(name)) {
                continue;
            }
            let data = folder.path().join(&name).symlink_metadata()?;
            cut.push((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), name));
        }
        cut.sort();
        for (younger, (modified, name)) in cut.iter().rev().enumerate() {
            if is_old(younger, modified.elapsed().unwrap_or_default()) {
                folder.remove(name)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of an SRPM whose NVR is published already.
pub(crate) fn only_logs(told: &str, nvr: &Nvr) -> String {
    format!("{told}; {nvr} is published already, so only logs will come of it")
}

/// Whether that is a file with these bytes.
fn is_same(path: &Path, size: u64, sha256: Sha256) -> bool {
    let is_file = path.symlink_metadata().is_ok_and(|data| data.is_file() && data.len() == size);
    is_file && metadata::digest(path).ok() == Some(sha256)
}

/// Of whom it is too: what somebody else has sent under its digest may be anything.
fn name(announced: &Announced) -> String {
    match &announced.by {
        Some(by) => format!("{}.{by}", announced.sha256),
        None => announced.sha256.to_string(),
    }
}

impl Upload {
    /// Ends when its owner brings it on another connection.
    pub fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// How many bytes of it are here.
    pub fn offset(&self) -> u64 {
        self.have
    }

    /// Appends what has arrived.
    ///
    /// # Errors
    /// When there is too much of it, or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.have += bytes.len() as u64;
        ensure!(self.have <= self.announced.size, "more bytes came than were announced");
        self.hasher.update(bytes);
        self.file.write_all(bytes).context("cannot write it")?;
        if let Some(busy) = self.submissions.lock().busy.get_mut(&name(&self.announced)) {
            busy.left = self.announced.size - self.have;
        }
        Ok(())
    }

    /// Looks at what has arrived: gives what its header says.
    ///
    /// # Errors
    /// When it is not whole, or not what was announced: then nothing of it is kept; or no SRPM.
    pub fn check(&mut self) -> anyhow::Result<Nvr> {
        let Announced { size, sha256, .. } = self.announced;
        ensure!(self.have == size, "it ended after {} of {size} bytes", self.have);
        if std::mem::replace(&mut self.hasher, Hasher::new()).finish() != sha256 {
            self.discard();
            bail!("it arrived with another digest than was announced");
        }
        match srpm_header(&self.file, size).context("cannot read it")? {
            Ok(nvr) => Ok(nvr),
            Err(reason) => {
                self.discard();
                bail!("it cannot be built: {reason}")
            }
        }
    }

    /// Whether a good result of that NVR is published already: building it again will leave only logs.
    pub fn is_published(&self, nvr: &Nvr) -> bool {
        self.submissions.is_published(&self.announced.key, nvr)
    }

    /// Puts it into SOURCE, durably.
    ///
    /// # Errors
    /// When another one of its name has been put there meanwhile, or the disk does not do it: then nothing of it is kept.
    pub fn queue(self) -> anyhow::Result<()> {
        let Announced { key, size, sha256, .. } = &self.announced;
        let folders = &self.submissions.folders;
        let from = folders.private().join(FOLDER).join(name(&self.announced));
        let to = folders.source.join(key.path());
        if let Err(error) = durable::sync_received(&self.file) {
            // What has come looks as it should, and the next fsync of it would succeed.
            self.discard();
            return Err(error).context("cannot write it, and it is to be sent once more");
        }
        match rename_no_replace(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.submissions.is_there(key, *size, *sha256)?.is_none() {
                    bail!("somebody else moves {key} just now; try again");
                }
                self.discard();
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot move it to {}", to.display()));
            }
        }
        if let Some(folder) = to.parent() {
            durable::sync_folder(folder).context("cannot make it durable")?;
        }
        let mut known = self.submissions.lock();
        if known.done.len() >= REMEMBERED {
            known.done.pop_front();
        }
        known.done.push_back(self.announced.clone());
        Ok(())
    }

    /// It begins anew the next time.
    fn discard(&self) {
        let folder = self.submissions.folders.private().join(FOLDER);
        let removed = Folder::open(&folder).and_then(|folder| folder.remove(name(&self.announced)));
        if let Err(error) = removed {
            tracing::warn!("cannot remove a submission that is not good: {error}");
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.submissions.lock().busy.remove(&name(&self.announced));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash;
    use crate::folders::testing::TempFolders;

    #[test]
    fn what_the_disk_has_not_taken_is_sent_once_more() {
        let folders = TempFolders::new();
        let submissions = Submissions::new(Arc::new(folders.clone()), FreeSpace::of_the_disk(), 1 << 20, 0);
        let key = BuildKey { target: None, srpm: "a-1-1.src.rpm".parse().unwrap() };
        let announced = Announced { by: None, key: key.clone(), size: 4, sha256: Sha256::of(b"srpm") };
        let begin = || match submissions.begin(announced.clone(), false).unwrap() {
            Begun::Wanted(upload) => upload,
            Begun::Queued(told) => panic!("{told}"),
        };
        let mut upload = begin();
        upload.write(b"srpm").unwrap();
        crash::FAILING.set(1);
        upload.queue().unwrap_err();
        assert!(!folders.source.join(key.path()).exists());
        let mut upload = begin();
        assert_eq!(upload.offset(), 0, "it would be taken for durable now");
        upload.write(b"srpm").unwrap();
        upload.queue().unwrap();
        assert_eq!(std::fs::read(folders.source.join(key.path())).unwrap(), b"srpm");
    }
}
