//! The four folders: where things lie, and the renames between them.
//!
//! An SRPM is in exactly one of SOURCE, WORKING and FINISHED at every instant, because it moves
//! only by rename(2). A person may give one file several names, for several targets or to build it
//! again: each is moved for itself. Nothing here decides anything. All of it blocks.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use moji_proto::{AttemptId, Nvr, SrpmName, TargetName};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use crate::crash::{self, Move, Point};
use crate::{BuildKey, commit, durable};

mod lock;

pub use lock::FoldersLock;

/// SOURCE, WORKING, FINISHED, REPO, and the private folder `WORKING/.moji`.
#[derive(Debug, Clone)]
pub struct Folders {
    /// SRPMs that wait.
    pub source: PathBuf,
    /// SRPMs that are leased out.
    pub working: PathBuf,
    /// SRPMs with a final outcome.
    pub finished: PathBuf,
    /// What was built, served as it is.
    pub repo: PathBuf,
}

/// The folders cannot be used; says which, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FoldersError(String);

impl FoldersError {
    /// `text` says which folder, why, and what to do.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl Folders {
    /// `source`, `working`, `finished` and `repo`, beside each other.
    pub fn within(at: &Path) -> Self {
        let [source, working, finished, repo] =
            ["source", "working", "finished", "repo"].map(|name| at.join(name));
        Self { source, working, finished, repo }
    }

    /// The folders' names, for messages.
    fn named(&self) -> [(&'static str, &Path); 4] {
        [
            ("SOURCE", &self.source),
            ("WORKING", &self.working),
            ("FINISHED", &self.finished),
            ("REPO", &self.repo),
        ]
    }

    /// Makes the folders that are missing, and checks that all of them can be used: different from
    /// each other and not inside each other, writable, on one file system (SRPMs and results move
    /// between them by rename(2) only), and none of them used by another server.
    ///
    /// # Errors
    /// Which folder cannot be used, why, and what to do.
    pub fn prepare(&mut self) -> Result<FoldersLock, FoldersError> {
        self.try_prepare().map_err(|error| FoldersError(format!("{error:#}")))
    }

    fn try_prepare(&mut self) -> anyhow::Result<FoldersLock> {
        for (name, path) in self.named() {
            fs::create_dir_all(path)
                .with_context(|| format!("cannot make the folder {name} ({})", path.display()))?;
        }
        for path in [&mut self.source, &mut self.working, &mut self.finished, &mut self.repo] {
            *path = fs::canonicalize(&*path).with_context(|| format!("cannot open {}", path.display()))?;
        }
        self.check_apart()?;
        self.check_one_file_system()?;
        let lock = lock::take(self)?;
        for path in [self.attempts(), self.metadata_private()] {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        self.check_renames()?;
        Ok(lock)
    }

    fn check_apart(&self) -> anyhow::Result<()> {
        for (name, path) in self.named() {
            for (other_name, other) in self.named() {
                if name != other_name && path.starts_with(other) {
                    bail!(
                        "{name} ({}) is {other_name} ({}) or lies inside it: give four folders of their own",
                        path.display(),
                        other.display()
                    );
                }
            }
        }
        Ok(())
    }

    fn check_one_file_system(&self) -> anyhow::Result<()> {
        let device = |path: &Path| -> anyhow::Result<u64> {
            Ok(fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?.dev())
        };
        let expected = device(&self.working)?;
        for (name, path) in self.named() {
            if device(path)? != expected {
                bail!("{}", different_file_systems("WORKING", &self.working, name, path));
            }
        }
        Ok(())
    }

    /// One device number is not enough: rename(2) also refuses to cross the mount points of one
    /// file system. So it is tried, which also shows whether the folders are writable.
    fn check_renames(&self) -> anyhow::Result<()> {
        let probe = format!(".moji-probe-{}", std::process::id());
        let mut at = self.private().join(&probe);
        fs::write(&at, "").with_context(|| not_writable("WORKING", &self.working))?;
        let (mut at_name, mut at_folder) = ("WORKING", self.working.as_path());
        for (name, folder) in self.named() {
            let to = folder.join(&probe);
            let moved = fs::rename(&at, &to);
            if moved.is_err() {
                let _ = fs::remove_file(&at);
            }
            match moved {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    bail!("{}", different_file_systems(at_name, at_folder, name, folder));
                }
                Err(error) => return Err(error).with_context(|| not_writable(name, folder)),
            }
            (at, at_name, at_folder) = (to, name, folder);
        }
        fs::remove_file(&at).with_context(|| not_writable(at_name, at_folder))
    }

    /// Private state: never served, readable for the server only.
    pub fn private(&self) -> PathBuf {
        self.working.join(".moji")
    }

    /// Staging of the attempts.
    pub fn attempts(&self) -> PathBuf {
        self.private().join("attempts")
    }

    /// Staging of one attempt.
    pub fn attempt(&self, attempt: AttemptId) -> PathBuf {
        self.attempts().join(attempt.to_string())
    }

    /// Private state of the metadata.
    pub fn metadata_private(&self) -> PathBuf {
        self.private().join("metadata")
    }

    /// The repository that the results of a build belong to.
    pub fn repository(&self, key: &BuildKey) -> PathBuf {
        match &key.target {
            Some(target) => self.repo.join(target.as_str()),
            None => self.repo.clone(),
        }
    }

    /// Where the artifacts of a build are published.
    pub fn published(&self, key: &BuildKey, nvr: &Nvr) -> PathBuf {
        self.repository(key).join(nvr.as_str())
    }

    /// SOURCE to WORKING.
    ///
    /// # Errors
    /// When it is no longer there, or WORKING cannot be written.
    pub fn lease(&self, key: &BuildKey) -> io::Result<()> {
        move_file(&self.source.join(key.path()), &self.working.join(key.path()))?;
        crash::at(Point::Moved(Move::Leased));
        Ok(())
    }

    /// WORKING back to SOURCE. When SOURCE has something new under that name, the new stays and
    /// the old copy goes: a person has replaced it.
    ///
    /// # Errors
    /// When it is no longer there, or SOURCE cannot be written.
    pub fn requeue(&self, key: &BuildKey) -> io::Result<()> {
        let (from, to) = (self.working.join(key.path()), self.source.join(key.path()));
        make_parent(&to)?;
        match rename_no_replace(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Only an SRPM can be the newer copy of one.
                if to.symlink_metadata()?.is_file() { fs::remove_file(&from) } else { Err(error) }
            }
            other => other,
        }?;
        crash::at(Point::Moved(Move::Requeued));
        Ok(())
    }

    /// WORKING to FINISHED, durably, in place of what an earlier build left there.
    ///
    /// # Errors
    /// When it is no longer there, or FINISHED cannot be written.
    pub fn finish(&self, key: &BuildKey) -> io::Result<()> {
        self.move_to_finished(&self.working, key, Point::Commit(commit::Step::Finished))
    }

    /// FINISHED back to SOURCE. What lies in SOURCE under that name stays.
    ///
    /// # Errors
    /// When it is no longer there, SOURCE has one of that name, or cannot be written.
    pub fn retry(&self, key: &BuildKey) -> io::Result<()> {
        let (from, to) = (self.finished.join(key.path()), self.source.join(key.path()));
        make_parent(&to)?;
        rename_no_replace(&from, &to)?;
        [to.parent(), from.parent()].into_iter().flatten().try_for_each(durable::sync_folder)
    }

    /// SOURCE to FINISHED, for what can never be built.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn refuse(&self, key: &BuildKey) -> io::Result<()> {
        self.move_to_finished(&self.source, key, Point::Moved(Move::Refused))
    }

    fn move_to_finished(&self, from: &Path, key: &BuildKey, moved: Point) -> io::Result<()> {
        let (from, to) = (from.join(key.path()), self.finished.join(key.path()));
        let done = move_file(&from, &to);
        match &done {
            Ok(()) => crash::at(moved),
            // An earlier try may have moved it, and ended with what follows.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return done,
        }
        for folder in [to.parent(), from.parent()].into_iter().flatten() {
            durable::sync_folder(folder)?;
        }
        done
    }

    /// Removes what FINISHED tells of an earlier build of an SRPM that is not there any more. What cannot be removed stays
    /// until the next outcome.
    pub fn forget_outcome(&self, key: &BuildKey) {
        for record in [self.failure_record(key), self.held_record(key)] {
            let _ = fs::remove_file(record);
        }
    }

    /// The failure record of an SRPM in FINISHED.
    pub fn failure_record(&self, key: &BuildKey) -> PathBuf {
        self.beside(key, ".failed.json")
    }

    /// The record of an SRPM in FINISHED that is held.
    pub fn held_record(&self, key: &BuildKey) -> PathBuf {
        self.beside(key, ".held.json")
    }

    fn beside(&self, key: &BuildKey, ending: &str) -> PathBuf {
        let mut path = self.finished.join(key.path()).into_os_string();
        path.push(ending);
        path.into()
    }

    /// The SRPMs in WORKING, sorted.
    ///
    /// # Errors
    /// When WORKING cannot be read.
    pub fn in_working(&self) -> anyhow::Result<Vec<BuildKey>> {
        let mut keys = srpms_in(&self.working, None)?;
        for entry in fs::read_dir(&self.working).context("cannot read WORKING")? {
            let entry = entry.context("cannot read WORKING")?;
            let target = entry.file_name().to_str().and_then(|name| TargetName::new(name).ok());
            if let Some(target) = target.filter(|_| entry.path().is_dir()) {
                keys.extend(srpms_in(&entry.path(), Some(&target))?);
            }
        }
        Ok(keys)
    }
}

/// Who may change what lies in the folders.
#[derive(Debug)]
pub enum Claim {
    /// The caller, as long as it keeps this.
    Ours(FoldersLock),
    /// A server that runs.
    Server,
}

impl Folders {
    /// For programs beside the server: finds the folders without making or writing anything, and takes
    /// them, unless a server has them.
    ///
    /// # Errors
    /// Which folder cannot be used, and why.
    pub fn claim(&mut self) -> Result<Claim, FoldersError> {
        self.try_claim().map_err(|error| FoldersError(format!("{error:#}")))
    }

    fn try_claim(&mut self) -> anyhow::Result<Claim> {
        for path in [&mut self.source, &mut self.working, &mut self.finished, &mut self.repo] {
            *path = fs::canonicalize(&*path).with_context(|| format!("cannot open {}", path.display()))?;
        }
        self.check_apart()?;
        let path = self.private().join("lock");
        let file = fs::File::open(&path).with_context(|| {
            format!(
                "cannot open {}: has a moji-server used these folders, and are you its user?",
                path.display()
            )
        })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Claim::Server),
            // Where locks do not work there is none to respect.
            _ => Ok(Claim::Ours(FoldersLock::of(file))),
        }
    }
}

fn srpms_in(folder: &Path, target: Option<&TargetName>) -> anyhow::Result<Vec<BuildKey>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name().to_str().and_then(|name| SrpmName::new(name).ok());
        if let Some(srpm) = name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            keys.push(BuildKey { target: target.cloned(), srpm });
        }
    }
    keys.sort();
    Ok(keys)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Moves a file, in place of what is there.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    // rename(2) between two names of one file succeeds, does nothing, and leaves both. Without the
    // other one first, so that whatever cuts this short leaves the file where it was.
    if is_one_file(from, to) {
        fs::remove_file(to)?;
    }
    match fs::rename(from, to) {
        // Either the file is gone, or the target's folder is not there yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound && from.symlink_metadata().is_ok() => {
            make_parent(to)?;
            fs::rename(from, to)
        }
        other => other,
    }
}

/// Whether two paths are names of the same file.
fn is_one_file(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (one.symlink_metadata(), other.symlink_metadata()) else { return false };
    one.is_file() && (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// rename(2) that fails when `to` exists; where the file system cannot do that in one step, in two.
pub fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn different_file_systems(name: &str, path: &Path, other_name: &str, other: &Path) -> String {
    format!(
        "{name} ({}) and {other_name} ({}) are not on one file system: files move between the four folders \
         by rename, which works only inside one",
        path.display(),
        other.display()
    )
}

fn not_writable(name: &str, path: &Path) -> String {
    format!("{name} ({}) is not writable for the user that runs moji-server", path.display())
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(at: &Path) -> Folders {
        Folders {
            source: at.join("source"),
            working: at.join("working"),
            finished: at.join("finished"),
            repo: at.join("repo"),
        }
    }

    fn key(target: Option<&str>, srpm: &str) -> BuildKey {
        BuildKey { target: target.map(|t| t.parse().unwrap()), srpm: srpm.parse().unwrap() }
    }

    #[test]
    fn missing_folders_are_made_and_the_private_one_is_private() {
        let at = tempfile::tempdir().unwrap();
        let mut folders = folders(at.path());
        let _lock = folders.prepare().unwrap();
        assert_eq!(fs::metadata(folders.private()).unwrap().mode() & 0o777, 0o700);
        let left: Vec<_> = fs::read_dir(&folders.source).unwrap().collect();
        assert!(left.is_empty(), "the probe was left behind: {left:?}");
    }

    #[test]
    fn a_second_server_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let lock = folders(at.path()).prepare().unwrap();
        let error = folders(at.path()).prepare().unwrap_err().to_string();
        assert!(error.contains("another moji-server"), "{error}");
        drop(lock);
        folders(at.path()).prepare().unwrap();
    }

    #[test]
    fn folders_inside_each_other_are_refused() {
        let at = tempfile::tempdir().unwrap();
        let mut nested = folders(at.path());
        nested.repo = at.path().join("source/repo");
        let error = nested.prepare().unwrap_err().to_string();
        assert!(error.contains("REPO") && error.contains("SOURCE"), "{error}");
    }

    #[test]
    fn two_file_systems_are_refused_by_name() {
        let at = tempfile::tempdir().unwrap();
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
        let mut split = folders(at.path());
        split.finished = other.path().join("finished");
        if fs::metadata(at.path()).unwrap().dev() == fs::metadata(other.path()).unwrap().dev() {
            return;
        }
        let error = split.prepare().unwrap_err().to_string();
        assert!(error.contains("FINISHED") && error.contains("WORKING"), "{error}");
    }

    #[test]
    fn an_srpm_goes_round_and_never_replaces_a_newer_one() {
        let at = tempfile::tempdir().unwrap();
        let mut folders = folders(at.path());
        let _lock = folders.prepare().unwrap();
        for key in [key(None, "a-1-1.src.rpm"), key(Some("f43-arm"), "b-1-1.src.rpm")] {
            let [source, working, finished] =
                [&folders.source, &folders.working, &folders.finished].map(|folder| folder.join(key.path()));
            make_parent(&source).unwrap();
            fs::write(&source, "old").unwrap();
            folders.lease(&key).unwrap();
            assert!(working.exists() && !source.exists());
            folders.requeue(&key).unwrap();
            assert!(!working.exists() && source.exists());
            folders.lease(&key).unwrap();
            fs::write(&source, "new").unwrap();
            folders.requeue(&key).unwrap();
            assert!(!working.exists());
            assert_eq!(fs::read_to_string(&source).unwrap(), "new");
            folders.lease(&key).unwrap();
            folders.finish(&key).unwrap();
            assert!(finished.exists() && !working.exists() && !source.exists());
            assert_eq!(folders.lease(&key).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    /// Where an SRPM lies: in SOURCE, WORKING, FINISHED.
    fn places(folders: &Folders, key: &BuildKey) -> [bool; 3] {
        [&folders.source, &folders.working, &folders.finished].map(|folder| folder.join(key.path()).exists())
    }

    #[test]
    fn a_name_moves_even_onto_another_name_of_its_file() {
        let at = tempfile::tempdir().unwrap();
        let mut folders = folders(at.path());
        let _lock = folders.prepare().unwrap();
        let key = key(Some("f43"), "a-1-1.src.rpm");
        let [source, working, finished] =
            [&folders.source, &folders.working, &folders.finished].map(|folder| folder.join(key.path()));
        for path in [&source, &working, &finished] {
            make_parent(path).unwrap();
        }
        // Built once, and linked back to be built again.
        fs::write(&finished, "a").unwrap();
        fs::hard_link(&finished, &source).unwrap();
        let inode = finished.metadata().unwrap().ino();
        folders.lease(&key).unwrap();
        assert_eq!(places(&folders, &key), [false, true, true]);
        folders.finish(&key).unwrap();
        assert_eq!(places(&folders, &key), [false, false, true]);
        // Linked back while it is built, and the builder is lost.
        fs::hard_link(&finished, &working).unwrap();
        fs::hard_link(&finished, &source).unwrap();
        folders.requeue(&key).unwrap();
        assert_eq!(places(&folders, &key), [true, false, true]);
        folders.refuse(&key).unwrap();
        assert_eq!(places(&folders, &key), [false, false, true]);
        // Leased while another name of it is left over in WORKING.
        fs::hard_link(&finished, &working).unwrap();
        fs::rename(&finished, &source).unwrap();
        folders.lease(&key).unwrap();
        assert_eq!(places(&folders, &key), [false, true, false]);
        let data = working.metadata().unwrap();
        assert_eq!((data.ino(), data.nlink()), (inode, 1));
    }

    #[test]
    fn the_names_for_other_targets_stay() {
        let at = tempfile::tempdir().unwrap();
        let mut folders = folders(at.path());
        let _lock = folders.prepare().unwrap();
        let [one, other] = ["f43", "f44"].map(|target| key(Some(target), "a-1-1.src.rpm"));
        let [source, linked] = [&one, &other].map(|key| folders.source.join(key.path()));
        make_parent(&source).unwrap();
        make_parent(&linked).unwrap();
        fs::write(&source, "a").unwrap();
        fs::hard_link(&source, &linked).unwrap();
        folders.lease(&one).unwrap();
        folders.finish(&one).unwrap();
        assert_eq!(places(&folders, &one), [false, false, true]);
        assert_eq!(places(&folders, &other), [true, false, false]);
        assert_eq!(linked.metadata().unwrap().nlink(), 2);
    }
}
