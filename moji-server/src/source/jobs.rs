//! What runs off the async threads: each job asks the file system, and says what it found.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use moji_proto::TargetName;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::folder::{self, Found, Listing, Spot, Stamp};
use super::intake::{Hint, Reading};
use super::lists::{Content, ListName};
use crate::BuildKey;

/// What a job found out.
pub(super) enum Done {
    Looked { sightings: Vec<Sighting>, all: bool, watcher: Option<RecommendedWatcher> },
    Heads(Vec<(BuildKey, Reading)>),
    List(ListName, Result<Option<(Stamp, Content)>, String>),
}

/// One thing that a look showed.
pub(super) enum Sighting {
    Spot(Spot, Hint, Found),
    Folder(Option<TargetName>, Listing),
    /// The path below SOURCE that could not be looked at, or watched.
    Failed(PathBuf, String),
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
    Done::Looked { sightings, all, watcher }
}

/// The job that reads headers.
pub(super) fn read_srpms(source: &Path, keys: Vec<BuildKey>) -> Done {
    let read = |key: BuildKey| {
        let reading = match folder::read_srpm(source, &key) {
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
