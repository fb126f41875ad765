//! What the folders show: which SRPM lies where, and every record of a build.
//!
//! A record is `build.json` in `REPO/<NVR>/` and `REPO/<NVR>/attempt-<id>/`, the same below
//! `REPO/<target>/`, and `<SRPM>.failed.json` or `<SRPM>.held.json` in FINISHED: there the file's name
//! tells failed from held. It reads all of them, or only those that changed since it was last here.
//!
//! It deliberately does not know the database, and judges nothing. All of it blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use moji_proto::names::RESERVED_ARTIFACT;
use moji_proto::{AttemptId, Nvr, SrpmName, TargetName};

use super::store::{Stamp, Stamps};
use crate::BuildKey;
use crate::folders::Folders;
use crate::metadata::{GENERATIONS, REPODATA};
use crate::record::BuildRecord;

/// No honest record is near this size.
const RECORD_MAX: u64 = 16 << 20;
/// What was changed so shortly before it was looked at may change again without a trace: the file
/// system's clock is coarse.
const FRESH_NANOS: i64 = 2_000_000_000;
/// How the folders of further attempts in `REPO/<NVR>` begin.
const ATTEMPT: &str = "attempt-";
/// How the records in FINISHED end.
pub(crate) const FAILED: &str = ".failed.json";
/// The same for builds that are held.
pub(crate) const HELD: &str = ".held.json";

/// The SRPMs of one of the three folders.
pub(crate) type Srpms = BTreeSet<BuildKey>;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// FINISHED, for a build that is held.
    Held,
    /// FINISHED, for a build that failed.
    Failed,
    /// `REPO/<NVR>`.
    Result,
    /// `REPO/<NVR>/attempt-<id>`.
    Further,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file.
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    /// Which build: the target is told by the folder.
    pub(crate) key: BuildKey,
    pub(crate) record: Box<BuildRecord>,
    /// When the file was written.
    pub(crate) modified: Timestamp,
}

impl Found {
    /// When the build ended.
    pub(crate) fn at(&self) -> Timestamp {
        self.record.attempt.as_ref().map_or(self.modified, |attempt| attempt.delivered_at)
    }
}

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) source: Srpms,
    pub(crate) working: Srpms,
    pub(crate) finished: Srpms,
    /// Held and failed ones first, then by path.
    pub(crate) records: Vec<Found>,
    /// Records that cannot be read, and why.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
    /// Folders that cannot be read, and why. What is in them nobody knows.
    pub(crate) closed: BTreeMap<PathBuf, String>,
    /// For the next time.
    pub(crate) stamps: Stamps,
}

/// Looks at everything that does not look as it did (`before`), and at the records of the builds in
/// `wanted` in any case.
///
/// # Errors
/// When one of the four folders cannot be read.
pub(crate) fn survey(
    folders: &Folders,
    before: &Stamps,
    wanted: &BTreeMap<BuildKey, Option<Nvr>>,
) -> io::Result<Survey> {
    // In the direction in which SRPMs move: what moves meanwhile is seen twice rather than never.
    let mut survey = Survey::default();
    survey.source = survey.srpms(&folders.source)?;
    survey.working = survey.srpms(&folders.working)?;
    survey.finished = survey.srpms(&folders.finished)?;
    let results = wanted.iter().filter_map(|(key, nvr)| Some(folders.published(key, nvr.as_ref()?)));
    let wanted_results = results.collect::<BTreeSet<_>>();
    let now = Timestamp::now().as_nanosecond();
    let mut look = Look { folders, before, survey: &mut survey, now: i64::try_from(now).unwrap_or(i64::MAX) };
    for target in targets(&folders.finished).map_err(|error| at(&folders.finished, &error))? {
        look.finished(target.as_ref(), wanted);
    }
    look.repo(&wanted_results)?;
    survey.records.sort_by(|a, b| (a.place, &a.path).cmp(&(b.place, &b.path)));
    survey.unreadable.sort();
    Ok(survey)
}

impl Survey {
    /// The SRPMs in SOURCE, WORKING or FINISHED.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn srpms(&mut self, folder: &Path) -> io::Result<Srpms> {
        let mut found = Vec::new();
        for target in targets(folder).map_err(|error| at(folder, &error))? {
            for name in self.files(&below(folder, target.as_ref())) {
                found.extend(SrpmName::new(name).map(|srpm| BuildKey { target: target.clone(), srpm }));
            }
        }
        // At once, for there may be many.
        Ok(found.into_iter().collect())
    }

    /// What is in a folder: nothing, when it cannot be read, which is remembered.
    fn entries(&mut self, folder: &Path) -> Vec<(String, Metadata)> {
        self.found(folder, entries(folder))
    }

    /// The names of its files, in the same way.
    fn files(&mut self, folder: &Path) -> Vec<String> {
        self.found(folder, files(folder))
    }

    fn found<T>(&mut self, folder: &Path, entries: io::Result<Vec<T>>) -> Vec<T> {
        match entries {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.closed.insert(folder.to_owned(), error.to_string());
                Vec::new()
            }
        }
    }

    /// Whether a build's SRPM, or what tells of the build, may lie where nobody can look.
    pub(crate) fn hides(&self, folders: &Folders, key: &BuildKey) -> bool {
        if self.closed.is_empty() {
            return false;
        }
        let repository = folders.repository(key);
        // As a rule that is its NVR.
        let result = repository.join(key.srpm.stem());
        let srpms = [&folders.source, &folders.working, &folders.finished];
        let mut places = srpms.map(|folder| below(folder, key.target.as_ref())).into_iter();
        places.any(|place| self.closed.contains_key(&place))
            || [repository, result].iter().any(|place| self.closed.contains_key(place))
    }
}

/// An error, with where it was.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The folder itself, and the targets that have a folder in it.
fn targets(folder: &Path) -> io::Result<Vec<Option<TargetName>>> {
    let mut targets = vec![None];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Hardly any file system has to be asked for that: among many SRPMs that counts.
        if entry.file_type().is_ok_and(|found| found.is_dir())
            && let Some(target) = entry.file_name().to_str().and_then(|name| TargetName::new(name).ok())
        {
            targets.push(Some(target));
        }
    }
    targets.sort();
    Ok(targets)
}

fn below(folder: &Path, target: Option<&TargetName>) -> PathBuf {
    target.map_or_else(|| folder.to_owned(), |target| folder.join(target))
}

/// What is in a folder, sorted, without following links; what goes meanwhile is not there.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<(String, Metadata)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.metadata() {
            Ok(metadata) => entries.push((name, metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// The names of the files in a folder, in no order. Nothing is asked of each one, as hardly any file system needs: among
/// many SRPMs that counts.
fn files(folder: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|found| found.is_file()) {
            files.extend(entry.file_name().into_string());
        }
    }
    Ok(files)
}

fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp::from_nanosecond(nanos(metadata).into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn nanos(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// The key of a record in FINISHED, by its name.
pub(crate) fn recorded(name: &str) -> Option<(SrpmName, Place)> {
    let (srpm, place) = match (name.strip_suffix(HELD), name.strip_suffix(FAILED)) {
        (Some(srpm), _) => (srpm, Place::Held),
        (None, Some(srpm)) => (srpm, Place::Failed),
        (None, None) => return None,
    };
    Some((SrpmName::new(srpm).ok()?, place))
}

/// The attempt of a folder in `REPO/<NVR>`, by its name.
pub(crate) fn further_attempt(name: &str) -> Option<AttemptId> {
    name.strip_prefix(ATTEMPT)?.parse().ok()
}

struct Look<'a> {
    folders: &'a Folders,
    before: &'a Stamps,
    survey: &'a mut Survey,
    /// Nanoseconds since 1970.
    now: i64,
}

impl Look<'_> {
    /// Whether something looks as it did when its records were read; remembers how it looks.
    fn is_known(&mut self, place: &str, folder: &Path, path: &Path, metadata: &Metadata) -> bool {
        let Some(path) = path.strip_prefix(folder).ok().and_then(Path::to_str) else { return false };
        let path = format!("{place}/{path}");
        let stamp = Stamp { inode: metadata.ino(), modified: nanos(metadata) };
        let known = self.before.get(&path) == Some(&stamp);
        if stamp.modified.saturating_add(FRESH_NANOS) < self.now {
            self.survey.stamps.insert(path, stamp);
        }
        known
    }

    fn finished(&mut self, target: Option<&TargetName>, wanted: &BTreeMap<BuildKey, Option<Nvr>>) {
        let folder = below(&self.folders.finished, target);
        for name in self.survey.files(&folder) {
            let Some((srpm, place)) = recorded(&name) else { continue };
            let key = BuildKey { target: target.cloned(), srpm };
            let path = folder.join(name);
            let metadata = match path.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        self.survey.closed.insert(folder.clone(), error.to_string());
                    }
                    continue;
                }
            };
            let known = self.is_known("FINISHED", &self.folders.finished.clone(), &path, &metadata);
            if !known || wanted.contains_key(&key) {
                self.record(path, place, key.target);
            }
        }
    }

    fn repo(&mut self, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
        let repo = &self.folders.repo;
        for (name, metadata) in result_folders(repo).map_err(|error| at(repo, &error))? {
            let path = self.folders.repo.join(&name);
            let own = TargetName::new(name).ok().filter(|_| is_repository(&path));
            if let Some(target) = own {
                // A folder of that name may hold results all the same: see `commit`.
                if self.results_in(&path, None) {
                    for (name, metadata) in result_folders(&path).unwrap_or_default() {
                        self.results(&path.join(name), &metadata, Some(&target), wanted);
                    }
                }
            } else {
                self.results(&path, &metadata, None, wanted);
            }
        }
        Ok(())
    }

    fn results(
        &mut self,
        folder: &Path,
        metadata: &Metadata,
        target: Option<&TargetName>,
        wanted: &BTreeSet<PathBuf>,
    ) {
        let known = self.is_known("REPO", &self.folders.repo.clone(), folder, metadata);
        if (!known || wanted.contains(folder)) && !self.results_in(folder, target) {
            // The next time it may be open, and looks as it does now.
            let stamp = folder.strip_prefix(&self.folders.repo).ok().and_then(Path::to_str);
            stamp.map(|path| self.survey.stamps.remove(&format!("REPO/{path}")));
        }
    }

    /// Gives whether it could be read.
    fn results_in(&mut self, folder: &Path, target: Option<&TargetName>) -> bool {
        for (name, metadata) in self.survey.entries(folder) {
            if name == RESERVED_ARTIFACT && metadata.is_file() {
                self.record(folder.join(name), Place::Result, target.cloned());
            } else if metadata.is_dir() && further_attempt(&name).is_some() {
                let path = folder.join(name).join(RESERVED_ARTIFACT);
                self.record(path, Place::Further, target.cloned());
            }
        }
        !self.survey.closed.contains_key(folder)
    }

    fn record(&mut self, path: PathBuf, place: Place, target: Option<TargetName>) {
        match read_record(&path) {
            Ok(Some((record, modified))) => {
                let key = BuildKey { target, srpm: record.srpm.clone() };
                self.survey.records.push(Found { path, place, key, record: Box::new(record), modified });
            }
            Ok(None) => {}
            Err(why) => self.survey.unreadable.push((path, why)),
        }
    }
}

/// The folders in REPO, or in the repository of a target, that may hold results.
pub(crate) fn result_folders(repository: &Path) -> io::Result<Vec<(String, Metadata)>> {
    let mut found = entries(repository)?;
    let is_own = |name: &str| name.starts_with('.') || name == REPODATA || name == GENERATIONS;
    found.retain(|(name, metadata)| metadata.is_dir() && !is_own(name));
    Ok(found)
}

/// Whether a folder in REPO is a repository of its own.
pub(crate) fn is_repository(folder: &Path) -> bool {
    folder.join(REPODATA).symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Reads a record; `None` when it is not there.
fn read_record(path: &Path) -> Result<Option<(BuildRecord, Timestamp)>, String> {
    let read = || -> io::Result<(Vec<u8>, Timestamp)> {
        let file = File::open(path)?;
        let modified = modified(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(RECORD_MAX).read_to_end(&mut bytes)?;
        Ok((bytes, modified))
    };
    match read() {
        Ok((bytes, modified)) => match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some((record, modified))),
            Err(error) => Err(error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
