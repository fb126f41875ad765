//! One server for each folder: locks that end with the process that has them, however it ends.
//!
//! WORKING is locked by a file in its private folder, in which the server says who it is. The other three are locked
//! themselves, as flock(2) can: nothing lies there that whoever serves, lists or mirrors them would find. All of it blocks.
//!
//! It deliberately does not know what the folders are for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use moji_proto::outcome::one_line;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

use super::{Folders, not_writable};

/// Held as long as a server uses the folders.
#[derive(Debug)]
pub struct FoldersLock(#[expect(dead_code, reason = "closing the files gives the locks up")] Vec<File>);

impl FoldersLock {
    /// One that was taken.
    pub(super) fn of(file: File) -> Self {
        Self(vec![file])
    }
}

/// Whether a lock was to be had.
enum Got {
    Ours,
    Anothers,
    /// The file system cannot lock that: no reason to refuse work.
    Nobodys(Errno),
}

fn get(file: &File) -> Got {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Got::Ours,
        Err(Errno::WOULDBLOCK) => Got::Anothers,
        Err(error) => Got::Nobodys(error),
    }
}

/// Makes the private folder, readable for nobody else, and locks all four.
pub(super) fn take(folders: &Folders) -> anyhow::Result<FoldersLock> {
    let mut locks = vec![working(folders)?];
    let mut unlocked = Vec::new();
    for (name, path) in folders.named() {
        if path == folders.working {
            continue;
        }
        let folder = File::open(path).with_context(|| {
            format!("{name} ({}) is not readable for the user that runs moji-server", path.display())
        })?;
        match get(&folder) {
            Got::Ours => locks.push(folder),
            Got::Anothers => {
                let who = holder_of(&folder).map_or_else(String::new, |pid| format!(" (process {pid})"));
                bail!(
                    "another moji-server{who} already uses {name} ({}), with another WORKING: each server \
                     needs four folders of its own",
                    path.display()
                );
            }
            Got::Nobodys(error) => unlocked.push((name, error)),
        }
    }
    if let Some((_, error)) = unlocked.first() {
        let names: Vec<_> = unlocked.iter().map(|(name, _)| *name).collect();
        // Network file systems lock files, if anything.
        tracing::info!("cannot lock {}: {error}; make sure that no other server uses them", names.join(", "));
    }
    Ok(FoldersLock(locks))
}

fn working(folders: &Folders) -> anyhow::Result<File> {
    let private = folders.private();
    fs::create_dir_all(&private).with_context(|| not_writable("WORKING", &folders.working))?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).with_context(|| {
        format!("cannot make {} private: does it belong to another user?", private.display())
    })?;
    let path = private.join("lock");
    // What another one has written there is still wanted.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match get(&file) {
        Got::Ours => {}
        Got::Anothers => {
            let who = owner_in(&file).map_or_else(String::new, |owner| format!(" ({owner})"));
            bail!("another moji-server{who} already uses WORKING ({})", folders.working.display());
        }
        Got::Nobodys(error) => {
            tracing::warn!("cannot lock {}: {error}; make sure that only one server uses it", path.display())
        }
    }
    // Only for what the next one is told.
    if let Err(error) = write_owner(&file) {
        tracing::debug!("cannot write into {}: {error}", path.display());
    }
    Ok(file)
}

fn write_owner(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    let host = rustix::system::uname();
    writeln!(file, "process {} on {}", std::process::id(), host.nodename().to_string_lossy())
}

fn owner_in(file: &File) -> Option<String> {
    let mut text = String::new();
    file.take(512).read_to_string(&mut text).ok()?;
    Some(one_line(&text)).filter(|text| !text.is_empty())
}

/// Which process of this machine has locked a folder, as far as the kernel tells.
fn holder_of(folder: &File) -> Option<u32> {
    let found = folder.metadata().ok()?;
    let locks = fs::read_to_string(Path::new("/proc/locks")).ok()?;
    holder(&locks, &format!("{:02x}:{:02x}:{}", major(found.dev()), minor(found.dev()), found.ino()))
}

/// The same by the lines of `/proc/locks`: `1: FLOCK ADVISORY WRITE 4711 08:01:2147 0 EOF`.
fn holder(locks: &str, wanted: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_flock = words.next() == Some("FLOCK");
        let mut words = words.skip(2);
        let (pid, place) = (words.next()?, words.next()?);
        if is_flock && place == wanted { pid.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_has_a_lock() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 08:01:777 0 EOF\n\
                     cut\n\
                     4: FLOCK  ADVISORY  WRITE 14 08:01:77 0 EOF\n";
        assert_eq!(holder(locks, "08:01:77"), Some(14));
        assert_eq!(holder(locks, "08:02:77"), None);
        assert_eq!(holder(&locks.replace("14", "-1"), "08:01:77"), None);
    }

    #[test]
    fn whoever_has_any_of_the_folders_is_the_only_one() {
        let at = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| Folders::within(&at.path().join(name)));
        let lock = one.clone().prepare().unwrap();
        let me = format!("(process {}", std::process::id());
        for (name, shared) in [
            ("SOURCE", Folders { source: one.source.clone(), ..other.clone() }),
            ("FINISHED", Folders { finished: one.finished.clone(), ..other.clone() }),
            ("REPO", Folders { repo: one.repo.clone(), ..other.clone() }),
            ("WORKING", Folders { working: one.working.clone(), ..other.clone() }),
        ] {
            let error = shared.clone().prepare().unwrap_err().to_string();
            let says = format!("already uses {name} ({}", at.path().canonicalize().unwrap().display());
            assert!(error.starts_with("another moji-server") && error.contains(&says), "{error}");
            // Also by another name. The kernel's lines know no file systems that lie over others.
            assert!(name != "WORKING" || error.contains(&me), "{error}");
            // Twice: the first one has not made it forget who it is.
            assert_eq!(shared.clone().prepare().unwrap_err().to_string(), error);
        }
        std::os::unix::fs::symlink(&one.repo, at.path().join("link")).unwrap();
        let linked = Folders { repo: at.path().join("link"), ..other.clone() };
        assert!(linked.clone().prepare().unwrap_err().to_string().contains("REPO"));
        // Nothing of it is left where others look, and what was refused has kept nothing.
        for folder in [&one.source, &one.finished, &one.repo] {
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        }
        drop(other.clone().prepare().unwrap());
        drop(lock);
        drop(linked.clone().prepare().unwrap());
    }

    #[test]
    fn an_flock_on_a_folder_is_found() {
        let at = tempfile::tempdir().unwrap();
        let folder = File::open(at.path()).unwrap();
        assert_eq!(holder_of(&folder), None);
        assert!(matches!(get(&folder), Got::Ours));
        // Some file systems have other numbers there: then nobody is named.
        let found = holder_of(&folder);
        assert!(found.is_none() || found == Some(std::process::id()), "{found:?}");
    }
}
