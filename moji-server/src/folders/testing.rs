//! Folders for tests: prepared, locked, and gone with the last of them.

use std::ops::Deref;

use super::{Folders, FoldersLock};

/// The four folders in a temporary one.
pub(crate) struct TempFolders {
    folders: Folders,
    lock: Option<FoldersLock>,
    _at: tempfile::TempDir,
}

impl TempFolders {
    pub(crate) fn new() -> Self {
        let at = tempfile::tempdir().unwrap();
        let [source, working, finished, repo] =
            ["source", "working", "finished", "repo"].map(|name| at.path().join(name));
        let mut folders = Folders { source, working, finished, repo };
        let lock = folders.prepare().unwrap();
        Self { folders, lock: Some(lock), _at: at }
    }

    /// Their server has ended.
    pub(crate) fn unlock(&mut self) {
        self.lock = None;
    }
}

impl Deref for TempFolders {
    type Target = Folders;

    fn deref(&self) -> &Folders {
        &self.folders
    }
}
