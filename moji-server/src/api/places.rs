//! Where the files of a build's attempts lie: in REPO when they are published, in staging before.
//!
//! It blocks. `commit` decides what lies where; here it is only found again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use moji_proto::api::LogInfo;
use moji_proto::{ArtifactName, AttemptId, LogFile, Nvr};

use crate::beneath::Folder;
use crate::commit::{RESULTS, read_record};
use crate::folders::Folders;
use crate::http::{REPO, encoded};
use crate::unsynced::UNSYNCED;
use crate::{BuildKey, record::BuildRecord};

/// The places of one build.
#[derive(Debug)]
pub(super) struct Places<'a> {
    folders: &'a Folders,
    /// `[<target>/]<NVR>`, below REPO; none: the SRPM could not be read, so nothing of it is published.
    published: Option<PathBuf>,
    /// Whose results lie there, and not in a folder inside.
    owner: Option<AttemptId>,
}

impl<'a> Places<'a> {
    pub(super) fn of(folders: &'a Folders, key: &BuildKey, nvr: Option<&Nvr>) -> Self {
        let below = |nvr: &Nvr| match &key.target {
            Some(target) => Path::new(target.as_str()).join(nvr.as_str()),
            None => PathBuf::from(nvr.as_str()),
        };
        let published = nvr.map(below);
        let record = published.as_ref().and_then(|below| read_record(&folders.repo.join(below)));
        let owner = record.and_then(|record: BuildRecord| record.attempt).map(|attempt| attempt.id);
        Self { folders, published, owner }
    }

    /// The folder with what an attempt has published, below REPO; it may not be there.
    fn folder(&self, attempt: AttemptId) -> Option<PathBuf> {
        let published = self.published.as_ref()?;
        match self.owner == Some(attempt) {
            true => Some(published.clone()),
            false => Some(published.join(format!("attempt-{attempt}"))),
        }
    }

    /// Where that is served.
    pub(super) fn url(&self, attempt: AttemptId) -> Option<String> {
        let folder = self.folder(attempt)?;
        if self.owner != Some(attempt) {
            Folder::open(&self.folders.repo).ok()?.folder(&folder).ok()?;
        }
        let parts = folder.iter().map(|part| encoded(part.as_encoded_bytes()) + "/");
        Some(std::iter::once(REPO.to_owned()).chain(parts).collect())
    }

    /// A published file of an attempt.
    pub(super) fn open_published(&self, attempt: AttemptId, name: &ArtifactName) -> io::Result<File> {
        let folder = self.folder(attempt).ok_or(io::ErrorKind::NotFound)?;
        Folder::open(&self.folders.repo)?.open_file(folder.join(name))
    }

    /// A log of an attempt, wherever it is.
    pub(super) fn open_log(&self, attempt: AttemptId, name: &ArtifactName) -> io::Result<File> {
        self.open_published(attempt, name).or_else(|_| open_staged(self.folders, attempt, name))
    }

    /// The logs of an attempt.
    pub(super) fn logs(&self, attempt: AttemptId) -> Vec<LogInfo> {
        let names = LogFile::ALL.iter().filter_map(|log| ArtifactName::new(log.file_name()).ok());
        let found = names.filter_map(|name| {
            let bytes = self.open_log(attempt, &name).ok()?.metadata().ok()?.len();
            Some(LogInfo { name, bytes })
        });
        found.collect()
    }
}

/// A log that comes in, or lies with results that are not published yet.
pub(super) fn open_staged(folders: &Folders, attempt: AttemptId, name: &ArtifactName) -> io::Result<File> {
    let staging = Folder::open(&folders.attempts())?.folder(attempt.to_string())?;
    let open_in = |folder| staging.open_file(Path::new(folder).join(name));
    staging.open_file(name).or_else(|_| open_in(RESULTS)).or_else(|_| open_in(UNSYNCED))
}
