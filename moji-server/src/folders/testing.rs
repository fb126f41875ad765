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
        let mut folders = Folders::within(at.path());
        let lock = folders.prepare().unwrap();
        Self { folders, lock: Some(lock), _at: at }
    }

    /// Such that `REPO/<name>`, which is there, cannot be read by anybody, root neither, as its path is too long; its name
    /// has some 200 characters.
    pub(crate) fn with_closed(name: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        let mut folders = Folders::within(at.path());
        while folders.repo.as_os_str().len() < 3920 {
            folders.repo.push("d".repeat(60));
        }
        let lock = folders.prepare().unwrap();
        let repo = std::fs::File::open(&folders.repo).unwrap();
        rustix::fs::mkdirat(&repo, name, rustix::fs::Mode::RWXU).unwrap();
        // Long ago: what is new is looked at again in any case.
        let long_ago = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: long_ago, last_modification: long_ago };
        rustix::fs::utimensat(&repo, name, &times, rustix::fs::AtFlags::empty()).unwrap();
        std::fs::read_dir(folders.repo.join(name)).unwrap_err();
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
