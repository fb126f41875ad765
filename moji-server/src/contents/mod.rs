//! Follows what the repositories contain, for whoever decides what can be built: a task that reads the
//! RPMs which are new in a generation, and tells what came and what went.
//!
//! REPO is the only truth: an RPM that a person put there counts like one that was built. What is
//! remembered is the listing that was told last, so each RPM is read once, and after a restart once more.
//!
//! It deliberately does not know builds, the queue, or what a dependency means to either.

mod package;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::beneath::Folder;
use crate::dependency::{PackagePath, PublishedPackage};
use crate::metadata::{Generation, Package, Repository, Served};

/// How many RPMs are read between two looks at whether the server stops.
const PIECE: usize = 64;

/// What a repository's generation brought, compared with what was told of it before. The first one of
/// each repository comes even if it is empty: from then on it is known what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryChange {
    /// Which repository.
    pub repository: Repository,
    /// Its generation that contains this; 0 for a repository that is gone: the next one counts from 1.
    pub generation: u64,
    /// What came. Take it in after what went: a package that was replaced in its place is in both.
    pub added: Vec<PublishedPackage>,
    /// What went, and perhaps files that never were a package.
    pub removed: Vec<PackagePath>,
}

/// What was told of a repository.
#[derive(Debug)]
struct Told {
    generation: u64,
    listing: Arc<[Package]>,
    /// Of the listing, what the disk did not give: it is tried again with the next generation.
    unread: BTreeSet<String>,
}

/// Tells `to` of each generation of the repositories in `repo`. Ends on `shutdown`, and when nobody
/// publishes or listens any more.
pub async fn follow(
    repo: PathBuf,
    mut served: watch::Receiver<Served>,
    to: mpsc::Sender<RepositoryChange>,
    shutdown: CancellationToken,
) {
    let following = async {
        let mut told = BTreeMap::new();
        loop {
            let now = served.borrow_and_update().clone();
            for change in forget(&mut told, &now) {
                to.send(change).await.ok()?;
            }
            for (repository, generation) in now {
                let before = told.get(&repository);
                if before.is_some_and(|told: &Told| told.generation == generation.number) {
                    continue;
                }
                let (change, now) = change(&repo, before, generation).await;
                told.insert(repository, now);
                to.send(change).await.ok()?;
            }
            served.changed().await.ok()?;
        }
    };
    // Nothing is lost that the next start would not read again.
    let _: Option<Option<()>> = shutdown.run_until_cancelled(following).await;
}

/// Repositories that are gone, with everything in them.
fn forget(told: &mut BTreeMap<Repository, Told>, now: &Served) -> Vec<RepositoryChange> {
    let known: Vec<_> = told.keys().filter(|repository| !now.contains_key(repository)).cloned().collect();
    let gone = known.into_iter().filter_map(|repository| told.remove_entry(&repository));
    let change = |(repository, Told { listing, .. }): (Repository, Told)| {
        let removed = listing.iter().map(path).collect();
        RepositoryChange { repository, generation: 0, added: Vec::new(), removed }
    };
    gone.map(change).collect()
}

fn path(package: &Package) -> PackagePath {
    PackagePath::new(package.path.as_str())
}

async fn change(repo: &Path, before: Option<&Told>, now: Generation) -> (RepositoryChange, Told) {
    let Generation { repository, number: generation, listing, .. } = now;
    let folder = match &repository {
        Repository::Main => repo.to_owned(),
        Repository::Nested(name) => repo.join(name),
    };
    let (new, removed) = difference(before, &listing);
    let (mut added, mut unread) = (Vec::new(), BTreeSet::new());
    for piece in new.chunks(PIECE) {
        let (folder, paths) = (folder.clone(), piece.to_vec());
        match spawn_blocking(move || read(&folder, paths)).await {
            Ok(read) => {
                added.extend(read.packages);
                unread.extend(read.failed);
            }
            Err(error) => {
                error!("reading the packages of {repository} panicked: {error}");
                unread.extend(piece.iter().cloned());
            }
        }
    }
    debug!("{repository}: generation {generation}: {} came, {} went", added.len(), removed.len());
    let told = Told { generation, listing, unread };
    (RepositoryChange { repository, generation, added, removed }, told)
}

/// The paths to read, and those to forget. Listings are in the order of their paths.
fn difference(before: Option<&Told>, now: &[Package]) -> (Vec<String>, Vec<PackagePath>) {
    let old = before.map_or(&[][..], |told| &told.listing);
    let find =
        |list: &[Package], path: &str| list.binary_search_by(|package| package.path.as_str().cmp(path)).ok();
    let same = |package: &&Package| find(old, &package.path).and_then(|at| old.get(at)) == Some(*package);
    let unread = |package: &&Package| before.is_some_and(|told| told.unread.contains(&package.path));
    let new = now.iter().filter(|package| !same(package) || unread(package));
    let stays = |package: &&Package| find(now, &package.path).and_then(|at| now.get(at)) == Some(*package);
    let gone = old.iter().filter(|package| !stays(package));
    (new.map(|package| package.path.clone()).collect(), gone.map(path).collect())
}

/// What reading some files gave.
#[derive(Debug, Default)]
struct Read {
    packages: Vec<PublishedPackage>,
    /// Those that the disk did not give.
    failed: Vec<String>,
}

fn read(folder: &Path, paths: Vec<String>) -> Read {
    let mut read = Read::default();
    let opened = Folder::open(folder);
    for path in paths {
        let file =
            || opened.as_ref().map_err(|error| error.kind().into()).map(|folder| folder.open_file(&path));
        match file().and_then(|file| package::read(&file?, &path)) {
            Ok(Ok(package)) => read.packages.push(package),
            Ok(Err(why)) => debug!("provides nothing: {}: {why}", folder.join(&path).display()),
            // It is not in the next generation.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!("not known what it provides: cannot read {}: {error}", folder.join(&path).display());
                read.failed.push(path);
            }
        }
    }
    read
}
