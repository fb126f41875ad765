//! Small disks that can be full: a tmpfs of a given size. Only root can mount one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, like tests")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// What a file on such a disk is rounded up to.
pub const PAGE: u64 = 4096;

/// A small disk. It is unmounted when this is dropped, also when a test panics, but not when it is
/// killed: `moji-disk-*` in the folder for temporary files is then left mounted.
#[derive(Debug)]
pub struct SmallDisk {
    at: TempDir,
}

impl SmallDisk {
    /// A disk of so many bytes, or nothing, said aloud, when this user may not mount one. That root
    /// cannot mount one fails the test: a skipped test would look like a good one.
    pub fn mount(bytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED for lack of rights: only root can mount a small disk for this test");
            return None;
        }
        let at = tempfile::Builder::new().prefix("moji-disk-").tempdir().unwrap();
        let options = CString::new(format!("size={bytes},mode=755")).unwrap();
        if let Err(error) = mount("moji-test", at.path(), "tmpfs", MountFlags::empty(), options.as_c_str()) {
            panic!("root cannot mount a tmpfs ({error}): in a container, allow it with --cap-add SYS_ADMIN");
        }
        Some(Self { at })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// How many bytes are free.
    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).unwrap();
        found.f_bavail * found.f_frsize
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills it up, but for `left` bytes.
    pub fn fill(&self, left: u64) {
        let _ = fs::remove_file(self.ballast());
        let mut ballast = File::create(self.ballast()).unwrap();
        let zeros = vec![0; 1 << 20];
        // Others may write at the same time, so it ends when there is no room, however little was written.
        // What is free is read once a turn: between two looks it may fall below what is to be left.
        while let Some(room @ 1..) = self.free().checked_sub(left) {
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(zeros.len());
            match ballast.write_all(zeros.get(..length).unwrap_or_default()) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                written => written.unwrap(),
            }
        }
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a file may still be open in a process that is about to end.
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.path().display());
        }
    }
}
