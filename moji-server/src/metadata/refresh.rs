//! One run for one repository: look, and if the folder differs from what is published, have the
//! metadata made and publish them.
//!
//! It deliberately does not know when to run or what to do after a failure.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use moji_proto::Sha256;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::createrepo::{self, Call, CallError, MissingProgram, Said};
use super::generations::{Fixed, Generations};
use super::ledger::{Edition, Ledger};
use super::packages::{self, Complaints, Package, REPODATA, Walk};
use super::publish::{self, Publication, PublishError};
use super::repomd::{self, REPOMD, Repomd};
use super::retention::Held;
use super::{Generation, MetadataConfig, Repository};
use crate::crash::{self, Point};
use crate::durable;

/// With fewer bytes free than that, a failure is likely to be for want of room: metadata of ten thousand
/// packages take some megabytes.
const ALMOST_FULL: u64 = 8 << 20;

/// Where one repository's things are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// What is served.
    pub(super) folder: PathBuf,
    /// Private.
    pub(super) ledger: PathBuf,
    /// Private: what is known of the fixed generations.
    register: PathBuf,
    /// Private; removed before and after each run.
    staging: PathBuf,
}

impl Places {
    fn list(&self) -> PathBuf {
        self.staging.join("packages")
    }

    fn list_without(&self) -> PathBuf {
        self.staging.join("packages-without")
    }

    fn staged(&self) -> PathBuf {
        self.staging.join(REPODATA)
    }
}

/// A run. What it remembers between runs of one repository moves in and out of it.
pub(super) struct Run {
    /// The settings.
    pub(super) config: Arc<MetadataConfig>,
    /// Which repository.
    pub(super) repository: Repository,
    /// The repositories of their own in REPO that were known when it started; for
    /// [`Repository::Main`], found anew.
    pub(super) nested: BTreeSet<String>,
    /// What was said before.
    pub(super) complaints: Complaints,
    /// What is served may be used: that is the usual.
    pub(super) trust: Trust,
    /// Generations that nobody needs any more.
    pub(super) expired: BTreeSet<u64>,
}

/// Whether what is served is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// As far as sizes and the ledger tell.
    Served,
    /// No: every package is to be read again.
    Nothing,
}

/// How a run went.
pub(super) struct Ended {
    /// The repositories of their own, if this run looked for them.
    pub(super) nested: Option<BTreeSet<String>>,
    /// For the next run.
    pub(super) complaints: Complaints,
    /// What is served now.
    pub(super) result: Result<Reached, RunError>,
}

/// A generation that matches the folder.
pub(super) struct Reached {
    pub(super) generation: Generation,
    /// Why it cannot be had where it stays, or not all of it.
    pub(super) unfixed: Option<String>,
    /// The fixed generations that there are.
    pub(super) held: Vec<Held>,
}

/// Why a run did not get to a generation that matches the folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Missing(MissingProgram),
    #[error("stopped")]
    Stopped,
    /// Try again at once: this is nobody's fault.
    #[error("{}", PublishError::Overtaken)]
    Overtaken,
    /// The repository's folder is gone.
    #[error("its folder is gone")]
    Gone,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What to make, when the folder differs from what is published.
struct Plan {
    ledger: Ledger,
    generations: Generations,
    number: u64,
    packages: Vec<Package>,
    follows: Option<Sha256>,
    /// Whether what is served can be built upon.
    update: bool,
    /// Paths of packages that `--update` would take for unchanged, though they may not be.
    reread: BTreeSet<String>,
}

enum Looked {
    Same(Box<Reached>),
    Differs(Box<Plan>),
}

impl Run {
    /// Runs to the end. On `shutdown` a child is ended; a publication that has begun is completed.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Ended {
        let (mut nested, mut complaints) = (None, Complaints::default());
        let result = async {
            let looked = spawn_blocking(move || {
                let nested = self.discover();
                let looked = nested.and_then(|()| self.look());
                (self, looked)
            });
            let (run, looked) = looked.await.context("looking at the folder panicked")?;
            nested = (run.repository == Repository::Main).then(|| run.nested.clone());
            complaints = run.complaints;
            let places = run.config.places(&run.repository);
            match looked? {
                Looked::Same(reached) => Ok(*reached),
                Looked::Differs(plan) => make(run.config, run.repository, places, *plan, &shutdown).await,
            }
        };
        let result = result.await;
        Ended { nested, complaints, result }
    }

    fn discover(&mut self) -> Result<(), RunError> {
        if self.repository == Repository::Main {
            self.nested =
                discover(&self.config, &self.nested).context("failed to look for repositories in it")?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<Looked, RunError> {
        let Places { folder, ledger: ledger_path, .. } = &self.config.places(&self.repository);
        if !folder.is_dir() {
            return Err(RunError::Gone);
        }
        let private = ledger_path.parent().unwrap_or(ledger_path);
        fs::create_dir_all(private).with_context(|| format!("failed to make {}", private.display()))?;
        let now = now();
        let mut ledger = Ledger::load(ledger_path).context("failed to read the ledger")?;
        let follows = publish::settle(folder, ledger_path, &mut ledger, now, self.config.keep.as_secs())
            .context("failed to tidy up")?;

        let edition = ledger.published.as_ref();
        let register = &self.config.places(&self.repository).register;
        let mut generations = Generations::open(folder, register, now);
        if let Err(error) = generations.remove(&self.expired, edition.map(|edition| edition.number)) {
            warn!("{}: failed to remove generations that nobody needs: {error}", self.repository);
        }

        let none = BTreeSet::new();
        let main = self.repository == Repository::Main;
        let (known, refused) =
            ledger.published.as_ref().map_or((&[][..], &[][..]), |e| (&e.packages, &e.refused));
        let nested = if main { &self.nested } else { &none };
        let packages = Walk { folder, nested, known, refused, now }
            .packages(&mut self.complaints)
            .context("failed to walk through the folder")?;

        let served = publish::served_whole(folder).context("failed to look at its repodata")?;
        let trusted = self.trust == Trust::Served;
        let edition =
            ledger.published.as_ref().filter(|edition| Some(edition.repomd) == follows && served.is_some());
        if let Some(edition) = edition.filter(|edition| trusted && edition.packages == packages) {
            return Ok(Looked::Same(Box::new(reached(self.repository.clone(), edition, &mut generations))));
        }
        let revision = publish::served_revision(folder).context("failed to read repomd.xml")?;
        let last = ledger.published.as_ref().map(|edition| edition.number).max(revision);
        let last = last.max(generations.highest()).unwrap_or(0);
        let before = ledger.published.as_ref().map(|edition| edition.packages.as_slice()).unwrap_or_default();
        let (number, update, reread) =
            (last.saturating_add(1), trusted && served.is_some(), mistakable(before, &packages));
        Ok(Looked::Differs(Box::new(Plan { ledger, generations, number, packages, follows, update, reread })))
    }
}

/// The packages that `createrepo_c --update` cannot tell from what they were `before`.
fn mistakable(before: &[Package], now: &[Package]) -> BTreeSet<String> {
    let mistakable = now.iter().filter(|package| {
        let old = before.binary_search_by(|p| p.path.cmp(&package.path)).ok().and_then(|at| before.get(at));
        old.is_some_and(|old| package.mistakable_for(old))
    });
    mistakable.map(|package| package.path.clone()).collect()
}

async fn make(
    config: Arc<MetadataConfig>,
    repository: Repository,
    places: Places,
    plan: Plan,
    shutdown: &CancellationToken,
) -> Result<Reached, RunError> {
    let (places, plan) = spawn_blocking(move || stage(&places, &plan).map(|()| (places, plan)))
        .await
        .context("staging panicked")?
        .context("failed to prepare the staging folder")?;
    let (list, without, number) = (places.list(), places.list_without(), plan.number);
    let mut call = Call {
        folder: &places.folder,
        list: &list,
        output: &places.staging,
        revision: number,
        update: plan.update,
    };
    let program = &config.createrepo;
    if plan.update && !plan.reread.is_empty() {
        // Published without them first, they cannot be taken for what they were.
        call.list = &without;
        if let Err(error) = createrepo::run(program, &call, config.time_limit, shutdown).await {
            return Err(call_error(program, &places, error).await);
        }
        call.list = &list;
    }
    let said = match createrepo::run(program, &call, config.time_limit, shutdown).await {
        Ok(said) => said,
        Err(error) => return Err(call_error(program, &places, error).await),
    };
    spawn_blocking(move || finish(repository, &places, plan, &said)).await.context("publishing panicked")?
}

async fn call_error(program: &Path, places: &Places, error: CallError) -> RunError {
    match error {
        CallError::Missing(missing) => RunError::Missing(missing),
        CallError::Stopped => RunError::Stopped,
        error => {
            let staging = places.staging.clone();
            let full = spawn_blocking(move || full(&staging)).await.unwrap_or_default();
            anyhow!(error).context(format!("{} failed{full}", program.display())).into()
        }
    }
}

/// What completes "failed" when a folder's disk is full: `createrepo_c` speaks of a "file operation
/// error" then, or says nothing.
fn full(folder: &Path) -> String {
    let Ok(found) = rustix::fs::statvfs(folder) else { return String::new() };
    match found.f_bavail.saturating_mul(found.f_frsize) {
        free if free < ALMOST_FULL => {
            format!(", no space left on the disk of {} ({} KiB)", folder.display(), free / 1024)
        }
        _ => String::new(),
    }
}

/// An empty staging folder, with the package list, and with a copy of what is served if that may be reused.
fn stage(places: &Places, plan: &Plan) -> io::Result<()> {
    clear(&places.staging)?;
    fs::create_dir(&places.staging)?;
    let list = |packages: &mut dyn Iterator<Item = &Package>| -> String {
        packages.flat_map(|package| [package.path.as_str(), "\n"]).collect()
    };
    fs::write(places.list(), list(&mut plan.packages.iter()))?;
    let mut without = plan.packages.iter().filter(|package| !plan.reread.contains(&package.path));
    fs::write(places.list_without(), list(&mut without))?;
    if plan.update {
        let (from, to) = (places.folder.join(REPODATA), places.staged());
        fs::create_dir(&to)?;
        let text = fs::read(from.join(REPOMD))?;
        for name in Repomd::parse(&text).map(|repomd| repomd.names()).unwrap_or_default() {
            fs::copy(from.join(&name), to.join(&name))?;
        }
        fs::write(to.join(REPOMD), text)?;
    }
    Ok(())
}

fn finish(repository: Repository, places: &Places, plan: Plan, said: &Said) -> Result<Reached, RunError> {
    let Plan { mut ledger, mut generations, number, packages, follows, .. } = plan;
    debug!("{repository}: createrepo_c said: {said}");
    let folder = &places.folder;
    let before = ledger.published.as_ref().map(|edition| edition.refused.as_slice()).unwrap_or_default();
    let still = before.iter().filter(|package| !packages.iter().any(|p| p.path == package.path));
    let still: Vec<Package> = still.filter(|package| folder.join(&package.path).exists()).cloned().collect();
    let (packages, mut refused) = separate(folder, &places.staged(), packages, said);
    for package in &refused {
        let file = folder.join(&package.path);
        warn!("left out of the metadata until it changes: {}: createrepo_c cannot read it", file.display());
    }
    refused.extend(still);
    refused.sort();
    let count = packages.len();
    let edition = Edition {
        number,
        repomd: Sha256::of(b""),
        files: Vec::new(),
        packages,
        refused,
        replaces: Vec::new(),
    };
    let staged = places.staged();
    let publication = Publication { folder, staged: &staged, ledger: &places.ledger, follows, now: now() };
    let passed = |step| {
        crash::at(Point::Publication(step));
        Ok(())
    };
    publish::publish(&publication, &mut ledger, edition, passed).map_err(|error| match error {
        PublishError::Overtaken => RunError::Overtaken,
        // A createrepo_c that had no room left may have ended with 0.
        error => anyhow!(error).context(format!("failed to publish{}", full(&places.staging))).into(),
    })?;
    // What is left of it is removed before the next run too.
    let _ = clear(&places.staging);
    info!("{repository}: generation {number} is published, {count} packages");
    let edition = ledger.published.as_ref().context("the ledger does not know what was published")?;
    Ok(reached(repository, edition, &mut generations))
}

/// Tells of an edition that is served, once it can be had where it stays. That it cannot is no reason to
/// serve an older one.
fn reached(repository: Repository, edition: &Edition, generations: &mut Generations) -> Reached {
    let made = generations.make(edition, now());
    let fixed = made.is_ok();
    let unfixed = match made {
        Ok(Fixed { loose: None }) => None,
        Ok(Fixed { loose: Some((count, why)) }) => Some(format!(
            "{count} packages of generation {} can have no link, and are missing in it once they go: {why}",
            edition.number
        )),
        Err(error) => Some(format!("generation {} is served, but not kept: {error:#}", edition.number)),
    };
    let listing: Arc<[Package]> = edition.packages.as_slice().into();
    let generation =
        Generation { repository, number: edition.number, packages: listing.len(), listing, fixed };
    Reached { generation, unfixed, held: generations.held() }
}

/// Parts the packages into those that the staged metadata list and those that `createrepo_c` could
/// not read. It says so only by leaving them out. A package that is gone meanwhile is in neither.
fn separate(
    folder: &Path,
    staged: &Path,
    packages: Vec<Package>,
    said: &Said,
) -> (Vec<Package>, Vec<Package>) {
    let repomd = fs::read(staged.join(REPOMD)).ok().and_then(|text| Repomd::parse(&text).ok());
    let primary = repomd.and_then(|repomd| repomd.files.into_iter().find(|file| file.kind == "primary"));
    let Some(primary) = primary.map(|file| staged.join(file.name)) else { return (packages, Vec::new()) };
    let listed = repomd::package_count(&primary).unwrap_or(packages.len());
    if listed == packages.len() {
        return (packages, Vec::new());
    }
    warn!("createrepo_c lists {listed} of {} packages; it said: {said}", packages.len());
    let locations = repomd::package_locations(&primary).unwrap_or_default();
    let (found, missing): (Vec<_>, Vec<_>) = packages.into_iter().partition(|p| locations.contains(&p.path));
    if found.len() == listed {
        let missing = missing.into_iter().filter(|package| folder.join(&package.path).exists()).collect();
        (found, missing)
    } else {
        // It writes locations in a way that is not known here: blame none.
        let mut packages = [found, missing].concat();
        packages.sort();
        (packages, Vec::new())
    }
}

fn clear(staging: &Path) -> io::Result<()> {
    match fs::remove_dir_all(staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl MetadataConfig {
    pub(super) fn nested_private(&self) -> PathBuf {
        self.private.join("nested")
    }

    pub(super) fn places(&self, repository: &Repository) -> Places {
        let (folder, private) = match repository {
            Repository::Main => (self.repo.clone(), self.private.join("main")),
            Repository::Nested(name) => (self.repo.join(name), self.nested_private().join(name)),
        };
        let (ledger, register) = (private.join("ledger.json"), private.join("generations.json"));
        Places { folder, ledger, register, staging: private.join("staging") }
    }
}

/// The folders in REPO that are repositories of their own: those with a `repodata`, and those that
/// had one (`before`, or a ledger says so) and lost it. Forgets the ledgers of folders that are gone.
pub(super) fn discover(config: &MetadataConfig, before: &BTreeSet<String>) -> io::Result<BTreeSet<String>> {
    let private = config.nested_private();
    fs::create_dir_all(&private)?;
    let mut had = before.clone();
    for entry in fs::read_dir(&private)? {
        had.extend(entry?.file_name().into_string());
    }
    let nested = packages::nested(&config.repo, &had)?;
    for gone in had.difference(&nested) {
        clear(&private.join(gone))?;
        durable::sync_folder(&private)?;
    }
    Ok(nested)
}

/// Removes what runs that were cut short left in the private folder.
pub(super) fn remove_leftovers(config: &MetadataConfig, nested: &BTreeSet<String>) -> io::Result<()> {
    clear(&config.places(&Repository::Main).staging)?;
    nested.iter().try_for_each(|name| clear(&config.places(&Repository::Nested(name.clone())).staging))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_update_would_overlook_is_found() {
        let package = |path: &str, inode| Package { path: path.into(), size: 5, modified: (7, 8), inode };
        let before = [package("a", 1), package("c", 2)];
        assert!(mistakable(&before, &before).is_empty());
        assert!(mistakable(&before, &[package("b", 3), package("c", 2)]).is_empty());
        assert_eq!(
            mistakable(&before, &[package("a", 1), package("c", 9)]),
            BTreeSet::from(["c".to_owned()])
        );
    }
}
