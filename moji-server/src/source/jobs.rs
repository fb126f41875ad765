//! What runs off the async threads: each job asks the file system, and says what it found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moji_proto::TargetName;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::folder::{self, Found, Listing, Spot, Stamp};
use super::intake::{Hint, Reading};
use super::known::{self, Known};
use super::lists::{Content, ListName};
use super::srpm::Head;
use crate::BuildKey;
use crate::beneath::Folder;
use crate::durable;

/// What was changed so shortly before it was read may have changed again without a trace: the file system's clock is
/// coarse.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// What a job found out.
pub(super) enum Done {
    Looked {
        sightings: Vec<Sighting>,
        all: bool,
        watcher: Option<RecommendedWatcher>,
        known: Known,
    },
    Heads(Vec<(BuildKey, Reading)>),
    List(ListName, Result<Option<(Stamp, Content)>, String>),
    /// The headers are kept; whether all of them are.
    Kept(bool),
}

/// The header of an SRPM, to be kept for the next start.
pub(super) struct Keep {
    pub(super) key: BuildKey,
    pub(super) stamp: Stamp,
    pub(super) head: Head,
    /// It was read [`FRESH`] after it had changed, or later.
    pub(super) is_sure: bool,
}

/// One thing that a look showed.
pub(super) enum Sighting {
    Spot(Spot, Hint, Found),
    Folder(Option<TargetName>, Listing),
    /// The path below SOURCE that could not be looked at, or watched.
    Failed(PathBuf, String),
}

/// The job that looks first of all, and reads `headers` meanwhile, if they are kept.
pub(super) fn first_look(
    source: &Path,
    spots: BTreeMap<Spot, Hint>,
    watcher: Option<RecommendedWatcher>,
    headers: &Path,
) -> Done {
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| kept(headers));
        let mut done = look(source, true, spots, watcher);
        if let Done::Looked { known, .. } = &mut done {
            *known = reading.join().unwrap_or_default();
        }
        done
    })
}

/// The job that looks.
pub(super) fn look(
    source: &Path,
    all: bool,
    mut spots: BTreeMap<Spot, Hint>,
    mut watcher: Option<RecommendedWatcher>,
) -> Done {
    let mut sightings = Vec::new();
    let mut list = |target: Option<TargetName>, sightings: &mut Vec<Sighting>| {
        let path = folder::below(target.as_ref());
        if let Some(watcher) = &mut watcher {
            // Again at each rescan: the folder may be another one under the same name.
            match watcher.watch(&source.join(&path), RecursiveMode::NonRecursive) {
                // What is not there needs no watch.
                Ok(()) | Err(notify::Error { kind: notify::ErrorKind::PathNotFound, .. }) => {}
                Err(error) => {
                    let error = format!("it cannot be watched, changes show at a rescan only: {error}");
                    sightings.push(Sighting::Failed(path.clone(), error));
                }
            }
        }
        match folder::list(source, target.as_ref()) {
            Ok(listing) => {
                let targets = listing.targets.clone();
                sightings.push(Sighting::Folder(target, listing));
                targets
            }
            Err(error) if target.is_some() && folder::is_nothing(&error) => {
                sightings.push(Sighting::Folder(target, Listing::default()));
                BTreeSet::new()
            }
            Err(error) => {
                sightings.push(Sighting::Failed(path, format!("it cannot be listed: {error}")));
                BTreeSet::new()
            }
        }
    };
    if all {
        for target in list(None, &mut sightings) {
            spots.remove(&Spot::Target(target.clone()));
            list(Some(target), &mut sightings);
        }
    }
    for (spot, hint) in spots {
        let found = folder::look(source, &spot);
        match (spot, found) {
            (Spot::Target(target), Ok(Found::Folder | Found::Nothing)) => {
                list(Some(target), &mut sightings);
            }
            (spot, Ok(found)) => sightings.push(Sighting::Spot(spot, hint, found)),
            // What cannot be asked for is named when its folder is listed.
            (spot, Err(error)) => tracing::debug!("{spot:?}: {error}"),
        }
    }
    Done::Looked { sightings, all, watcher, known: Known::default() }
}

/// The headers that were kept; none when there is something else.
fn kept(headers: &Path) -> Known {
    let known = match fs::read(headers) {
        Ok(bytes) => Known::parse(&bytes),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{} cannot be read, all headers are: {error}", headers.display());
            }
            return Known::default();
        }
    };
    known.unwrap_or_else(|| {
        tracing::info!("{} is damaged or of another version: all headers are read", headers.display());
        Known::default()
    })
}

/// The job that keeps headers for the next start. What is lost with it is only time.
pub(super) fn keep(source: &Path, headers: &Path, mut srpms: Vec<Keep>) -> Done {
    let count = srpms.len();
    srpms.retain_mut(|one| one.is_sure || read_again(source, one));
    let bytes = known::write(srpms.iter().map(|one| (&one.key, one.stamp, &one.head)));
    match durable::write_private(headers, &bytes) {
        Ok(()) => Done::Kept(srpms.len() == count),
        Err(error) => {
            tracing::debug!("{} cannot be written: {error}", headers.display());
            Done::Kept(false)
        }
    }
}

/// Whether it is known now what is in it.
fn read_again(source: &Path, one: &mut Keep) -> bool {
    if nanos(SystemTime::now()) < one.stamp.ctime.saturating_add(FRESH.as_nanos() as i64) {
        return false;
    }
    match folder::read_srpm(source, &one.key) {
        Ok(Some((stamp, head))) if stamp == one.stamp => {
            one.head = head;
            true
        }
        _ => false,
    }
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The job that reads headers.
pub(super) fn read_srpms(source: &Path, keys: Vec<BuildKey>) -> Done {
    let opened = Folder::open(source);
    let read = |key: BuildKey| {
        // Once for all of them, but for the error, which is each one's.
        let read = match &opened {
            Ok(source) => folder::read_srpm_in(source, &key),
            Err(_) => folder::read_srpm(source, &key),
        };
        let reading = match read {
            Ok(Some((stamp, head))) => Reading::Head(stamp, head),
            Ok(None) => Reading::Changed,
            Err(error) if is_replaced(&error) => Reading::Changed,
            Err(error) => Reading::Failed(error.to_string()),
        };
        (key, reading)
    };
    Done::Heads(keys.into_iter().map(read).collect())
}

/// The job that reads a list.
pub(super) fn read_list(source: &Path, list: ListName) -> Done {
    let content = match folder::read_list(source, &list) {
        Ok(content) => Ok(content),
        Err(error) if is_replaced(&error) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    Done::List(list, content)
}

/// Since it was looked at, the file went, or something else took its place.
fn is_replaced(error: &io::Error) -> bool {
    folder::is_nothing(error)
        || error.kind() == io::ErrorKind::InvalidInput
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}
