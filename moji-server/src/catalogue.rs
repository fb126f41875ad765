//! Which RPMs are published, by file name, so that no build publishes other bytes under the name of
//! another build's.
//!
//! Two builds can be published at the same time. So what one of them is about to publish is reserved
//! for it from before it begins until it is settled, however often it has to be tried again.
//!
//! What is published is known from one walk through REPO at the start, and from what the farm publishes
//! since. It is a hint: a person may remove a result at any time, so whoever finds a name here looks at
//! the file. What a person puts into REPO while the server runs is known at the next start only. It
//! deliberately does not know whether anything is good; only [`Rival::stands_in_the_way`] and
//! [`Catalogue::read`] touch the disk, and block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use moji_proto::{ArtifactName, AttemptId, ManifestEntry, Sha256, TargetName};

use crate::folders::Folders;
use crate::lease_record::digest_of;
use crate::metadata::{GENERATIONS, REPODATA};
use crate::record::BuildRecord;
use crate::scheduler::Lease;

/// As deep as the metadata look.
const DEPTH_MAX: usize = 32;

/// A repository: REPO itself, or that of a target.
type Repository = Option<TargetName>;

/// The RPMs of all repositories.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// By repository and file name: the folders below the repository where one lies.
    published: BTreeMap<Repository, BTreeMap<Box<str>, BTreeSet<Box<str>>>>,
    /// What is about to be published.
    reserved: BTreeMap<(Repository, ArtifactName), BTreeMap<AttemptId, Sha256>>,
}

/// A file in REPO with the name of one that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// What is to be published.
    pub entry: ManifestEntry,
    /// The other file.
    pub path: PathBuf,
    /// The same below REPO, for people.
    pub shown: String,
}

/// Another attempt is publishing other bytes under the same name just now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{attempt} is publishing another {name} just now")]
pub struct Busy {
    /// The file's name.
    pub name: ArtifactName,
    /// The other attempt.
    pub attempt: AttemptId,
}

impl Rival {
    /// Whether it is there, with other bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stands_in_the_way(&self) -> io::Result<bool> {
        let is_other = || -> io::Result<bool> {
            let size = self.path.symlink_metadata()?.len();
            Ok(size != self.entry.size || digest_of(&self.path)? != self.entry.sha256)
        };
        match is_other() {
            // A person has removed it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            looked => looked,
        }
    }
}

impl Catalogue {
    /// Walks through REPO.
    ///
    /// # Errors
    /// When REPO itself cannot be read.
    pub fn read(folders: &Folders) -> io::Result<Self> {
        let mut catalogue = Self::default();
        let mut walk = Walk { catalogue: &mut catalogue, repository: None };
        walk.folder(&folders.repo, "", 0)?;
        Ok(catalogue)
    }

    /// Reserves the names of the RPMs of an attempt. Gives what in other folders of its repository has
    /// one of these names.
    ///
    /// # Errors
    /// When another attempt has reserved one of them for other bytes; nothing is reserved then.
    pub fn reserve(
        &mut self,
        folders: &Folders,
        lease: &Lease,
        manifest: &[ManifestEntry],
    ) -> Result<Vec<Rival>, Busy> {
        let (repository, attempt) = (&lease.srpm.key.target, lease.attempt);
        let rpms = || manifest.iter().filter(|entry| entry.name.is_rpm());
        for entry in rpms() {
            let others = self.reserved.get(&(repository.clone(), entry.name.clone()));
            let other = others
                .into_iter()
                .flatten()
                .find(|(other, sha256)| **other != attempt && **sha256 != entry.sha256);
            if let Some((other, _)) = other {
                return Err(Busy { name: entry.name.clone(), attempt: *other });
            }
        }
        let mut rivals = Vec::new();
        let own = lease.srpm.header.nvr.as_str();
        let place = folders.repository(&lease.srpm.key);
        for entry in rpms() {
            let name = (repository.clone(), entry.name.clone());
            self.reserved.entry(name).or_default().insert(attempt, entry.sha256);
            let published = self.published.get(repository).and_then(|names| names.get(entry.name.as_str()));
            // Its own place is the business of the commit.
            for folder in published.into_iter().flatten().filter(|folder| &***folder != own) {
                let path = place.join(&**folder).join(&entry.name);
                let shown = path.strip_prefix(&folders.repo).unwrap_or(&path).display().to_string();
                rivals.push(Rival { entry: entry.clone(), path, shown });
            }
        }
        Ok(rivals)
    }

    /// An attempt is settled: what it has reserved is published, as far as its record says so, or free.
    pub fn settled(&mut self, lease: &Lease, record: Option<&BuildRecord>) {
        let repository = &lease.srpm.key.target;
        self.reserved.retain(|_, attempts| {
            attempts.remove(&lease.attempt);
            !attempts.is_empty()
        });
        let artifacts = record.into_iter().flat_map(|record| &record.artifacts);
        for entry in artifacts.filter(|entry| entry.name.is_rpm()) {
            self.add(repository, entry.name.as_str(), lease.srpm.header.nvr.as_str());
        }
    }

    fn add(&mut self, repository: &Repository, name: &str, folder: &str) {
        let names = self.published.entry(repository.clone()).or_default();
        names.entry(name.into()).or_default().insert(folder.into());
    }
}

/// The walk through one repository. Counts what its metadata would list, whole or not.
struct Walk<'a> {
    catalogue: &'a mut Catalogue,
    repository: Repository,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, at: &str, depth: usize) -> io::Result<()> {
        let mut inner = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') {
                continue;
            }
            if kind.is_file() && name.ends_with(".rpm") {
                self.catalogue.add(&self.repository, &name, at);
            } else if kind.is_dir() && depth < DEPTH_MAX {
                inner.push(name);
            }
        }
        // A folder of REPO with metadata of its own is the repository of a target.
        if depth == 1 && self.repository.is_none() && inner.iter().any(|name| name == REPODATA) {
            return self.nested(path, at);
        }
        // What the generations list lies in REPO too, or did.
        let is_own = |name: &String| name == REPODATA || (at.is_empty() && name == GENERATIONS);
        for name in inner.into_iter().filter(|name| !is_own(name)) {
            let below = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            if let Err(error) = self.folder(&path.join(&name), &below, depth + 1)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(
                    "cannot look for RPMs in {}: {error}; another build may publish one of the same name. Give it to the server's user",
                    path.join(name).display()
                );
            }
        }
        Ok(())
    }

    fn nested(&mut self, path: &Path, name: &str) -> io::Result<()> {
        // What was found directly in it was taken for REPO's.
        if let Some(names) = self.catalogue.published.get_mut(&None) {
            names.retain(|_, folders| {
                folders.remove(name);
                !folders.is_empty()
            });
        }
        // No builds go to a repository whose name is no target's.
        let Ok(target) = TargetName::new(name) else { return Ok(()) };
        Walk { catalogue: self.catalogue, repository: Some(target) }.folder(path, "", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BuildKey;
    use crate::scheduler::{LeaseState, SessionId};
    use crate::source::{QueuedSrpm, SrpmHeader};
    use moji_proto::Outcome;
    use std::slice::from_ref;

    fn folders(at: &Path) -> Folders {
        let folder = |name: &str| {
            fs::create_dir_all(at.join(name)).unwrap();
            at.join(name)
        };
        let (source, working) = (folder("source"), folder("working"));
        Folders { source, working, finished: folder("finished"), repo: folder("repo") }
    }

    fn put(folders: &Folders, path: &str, content: &str) {
        let path = folders.repo.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn lease(serial: u64, nvr: &str, target: Option<&str>) -> Lease {
        let target = target.map(|target| target.parse().unwrap());
        let key = BuildKey { target, srpm: format!("{nvr}.src.rpm").parse().unwrap() };
        let (name, version, release) = ("a".into(), "1".into(), "1".into());
        let nvr = nvr.parse().unwrap();
        let header = SrpmHeader { name, epoch: None, version, release, nvr, relations: Default::default() };
        Lease {
            attempt: AttemptId { boot: 9, serial },
            srpm: QueuedSrpm { key, header, size: 4, queued_at: jiff::Timestamp::UNIX_EPOCH },
            target: "f43-arm".parse().unwrap(),
            session: Some(SessionId(3)),
            builder: "board".parse().unwrap(),
            slot: Some(2),
            since: None,
            late_at: None,
            charged: std::time::Duration::ZERO,
            ended: None,
            generation: 0,
            state: LeaseState::Running { claimed_by: None },
        }
    }

    fn rpm(name: &str, content: &str) -> ManifestEntry {
        let (size, sha256) = (content.len() as u64, Sha256::of(content.as_bytes()));
        ManifestEntry { name: name.parse().unwrap(), size, sha256 }
    }

    fn record(artifacts: &[ManifestEntry]) -> BuildRecord {
        BuildRecord {
            format: crate::record::FORMAT,
            srpm: "a-1-1.src.rpm".parse().unwrap(),
            nvr: None,
            outcome: Outcome::Succeeded,
            attempt: None,
            artifacts: artifacts.to_vec(),
            note: None,
            held: None,
            parked: false,
            retried: false,
        }
    }

    fn in_the_way(rivals: &[Rival]) -> Vec<&str> {
        let rivals = rivals.iter().filter(|rival| rival.stands_in_the_way().unwrap());
        rivals.map(|rival| rival.shown.as_str()).collect()
    }

    #[test]
    fn what_lies_in_other_folders_of_the_same_repository() {
        let at = tempfile::tempdir().unwrap();
        let folders = folders(at.path());
        for path in ["a-1-1/x.rpm", "other-1-1/x.rpm", "by/hand/x.rpm", "x.rpm", ".hidden/x.rpm"] {
            put(&folders, path, "other");
        }
        for path in ["f43/repodata/repomd.xml", "f43/x.rpm", "f43/b-1-1/x.rpm", "f43/b-1-1/build.log"] {
            put(&folders, path, "target's");
        }
        put(&folders, "same-1-1/x.rpm", "mine!");
        std::os::unix::fs::symlink("other-1-1", folders.repo.join("link")).unwrap();
        let mut catalogue = Catalogue::read(&folders).unwrap();
        let manifest = [rpm("x.rpm", "mine!"), rpm("y.rpm", "mine!"), rpm("build.log", "log")];
        let rivals = catalogue.reserve(&folders, &lease(1, "a-1-1", None), &manifest).unwrap();
        assert_eq!(rivals.len(), 4);
        assert_eq!(in_the_way(&rivals), ["x.rpm", "by/hand/x.rpm", "other-1-1/x.rpm"]);
        let rivals = catalogue.reserve(&folders, &lease(2, "a-1-1", Some("f43")), &manifest).unwrap();
        assert_eq!(in_the_way(&rivals), ["f43/x.rpm", "f43/b-1-1/x.rpm"]);
        let rivals = catalogue.reserve(&folders, &lease(3, "a-1-1", Some("f44")), &manifest).unwrap();
        assert_eq!(rivals, []);
        // A person removes it.
        fs::remove_dir_all(folders.repo.join("other-1-1")).unwrap();
        let rivals = catalogue.reserve(&folders, &lease(1, "a-1-1", None), &manifest).unwrap();
        assert_eq!(in_the_way(&rivals), ["x.rpm", "by/hand/x.rpm"]);
    }

    #[test]
    fn a_folder_that_cannot_be_read_does_not_hide_the_rest() {
        let hidden = "h".repeat(190);
        let folders = crate::folders::testing::TempFolders::with_closed(&hidden);
        put(&folders, "z-1-1/x.rpm", "other");
        put(&folders, "b-1-1/x.rpm", "other");
        let mut catalogue = Catalogue::read(&folders).unwrap();
        let manifest = [rpm("x.rpm", "mine!")];
        let rivals = catalogue.reserve(&folders, &lease(1, "a-1-1", None), &manifest).unwrap();
        assert_eq!(in_the_way(&rivals), ["b-1-1/x.rpm", "z-1-1/x.rpm"]);
    }

    #[test]
    fn two_at_a_time_publish_the_same_bytes_or_one_of_them_waits() {
        let at = tempfile::tempdir().unwrap();
        let folders = folders(at.path());
        let mut catalogue = Catalogue::read(&folders).unwrap();
        let [first, second, third] = [(1, "a-1-1", None), (2, "b-1-1", None), (3, "c-1-1", Some("f43"))]
            .map(|(n, nvr, target)| lease(n, nvr, target));
        let [mine, other] = [rpm("x.rpm", "mine"), rpm("x.rpm", "another")];
        catalogue.reserve(&folders, &first, from_ref(&mine)).unwrap();
        let busy = catalogue.reserve(&folders, &second, &[rpm("y.rpm", "y"), other.clone()]).unwrap_err();
        assert_eq!(busy.attempt, first.attempt);
        // Nothing of it was reserved, and other repositories, the same bytes and a second try are no matter.
        catalogue.reserve(&folders, &first, &[mine.clone(), rpm("y.rpm", "mine")]).unwrap();
        catalogue.reserve(&folders, &third, from_ref(&other)).unwrap();
        catalogue.reserve(&folders, &second, from_ref(&mine)).unwrap();
        catalogue.settled(&second, None);
        // The first one comes to nothing.
        catalogue.settled(&first, None);
        assert_eq!(catalogue.reserve(&folders, &second, from_ref(&other)).unwrap(), []);
        // The second one is published.
        put(&folders, "b-1-1/x.rpm", "another");
        catalogue.settled(&second, Some(&record(&[other])));
        let rivals = catalogue.reserve(&folders, &first, &[mine]).unwrap();
        assert_eq!(in_the_way(&rivals), ["b-1-1/x.rpm"]);
    }
}
