//! One run for one repository: look, and if the folder differs from what is published, have the
//! metadata made and publish them ([`make`](super::make)). Or only prepare: read what is new, so that less is left to do
//! when it is to be published.
//!
//! It deliberately does not know when to run or what to do after a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::createrepo::MissingProgram;
use super::generations::Generations;
use super::ledger::Ledger;
use super::make::{self, Make};
use super::native::Index;
use super::native::spool::Spool;
use super::packages::{self, Complaints, Package, REPODATA, Walk};
use super::publish::{self, PublishError, Served};
use super::retention::Held;
use super::{Generation, Maker, MetadataConfig, Repository};
use crate::durable;

/// Where one repository's things are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// What is served.
    pub(super) folder: PathBuf,
    /// Private.
    pub(super) ledger: PathBuf,
    /// Private: what is known of the fixed generations.
    register: PathBuf,
    /// Private: where everything lies in the served files.
    pub(super) index: PathBuf,
    /// Private; removed before and after each run.
    pub(super) staging: PathBuf,
}

impl Places {
    /// The folder of what is private.
    pub(super) fn private(&self) -> &Path {
        self.ledger.parent().unwrap_or(&self.ledger)
    }

    pub(super) fn list(&self) -> PathBuf {
        self.staging.join("packages")
    }

    pub(super) fn list_without(&self) -> PathBuf {
        self.staging.join("packages-without")
    }

    pub(super) fn staged(&self) -> PathBuf {
        self.staging.join(REPODATA)
    }
}

/// What is known of a repository between runs, so that it need not be read again. All of it can be found out anew.
pub(super) struct Memory {
    pub(super) ledger: Ledger,
    pub(super) generations: Generations,
    /// Where the packages lie in what is served, once that is known.
    pub(super) index: Option<Index>,
    /// The XML of packages that are not published yet.
    pub(super) spool: Option<Spool>,
    /// Of which packages, by path.
    pub(super) prepared: BTreeMap<String, Package>,
}

impl Memory {
    fn load(places: &Places) -> anyhow::Result<Box<Self>> {
        let ledger = Ledger::load(&places.ledger).context("failed to read the ledger")?;
        let generations = Generations::open(&places.folder, &places.register, now());
        Ok(Box::new(Self { ledger, generations, index: None, spool: None, prepared: BTreeMap::new() }))
    }

    /// Forgets the XML, and where XML lies: what is served is another one now.
    pub(super) fn forget_xml(&mut self) {
        self.index = None;
        self.forget_prepared();
    }

    /// Forgets the XML of what was to be published.
    fn forget_prepared(&mut self) {
        self.spool = None;
        self.prepared.clear();
    }

    /// The spool, made if need be.
    pub(super) fn spool(&mut self, folder: &Path) -> io::Result<&mut Spool> {
        let spool = match self.spool.take() {
            Some(spool) => spool,
            None => Spool::new(folder)?,
        };
        Ok(self.spool.insert(spool))
    }
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Where {
    /// Everywhere.
    Everywhere,
    /// Only at these entries of the folder: what changed, as far as is known.
    At(BTreeSet<String>),
}

impl Where {
    /// More of them than that are everywhere.
    const MOST: usize = 10_000;

    /// Adds an entry; `None`: anything.
    pub(super) fn add(&mut self, entry: Option<String>) {
        match (&mut *self, entry) {
            (Self::Everywhere, _) => {}
            (Self::At(entries), Some(entry)) if entries.len() < Self::MOST => drop(entries.insert(entry)),
            (place, _) => *place = Self::Everywhere,
        }
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// To read what is new.
    Prepare,
    /// To have everything published.
    Publish,
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
    /// From the run before, if that ended well.
    pub(super) memory: Option<Box<Memory>>,
    /// Where something may have changed since.
    pub(super) place: Where,
    pub(super) aim: Aim,
    /// The one before has failed, and it was said why.
    pub(super) is_retry: bool,
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
    /// The repositories of their own: of a run for [`Repository::Main`], unless it panicked, as far as they are known
    /// now. Runs for others do not look.
    pub(super) nested: Option<BTreeSet<String>>,
    /// For the next run.
    pub(super) complaints: Complaints,
    /// For the next run too, unless this one failed.
    pub(super) memory: Option<Box<Memory>>,
    pub(super) aim: Aim,
    /// Who made the metadata, or was to make them last; none when it did not come to that.
    pub(super) maker: Option<Maker>,
    /// What is served now; nothing new when it was only prepared.
    pub(super) result: Result<Option<Reached>, RunError>,
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
pub(super) struct Plan {
    pub(super) memory: Box<Memory>,
    pub(super) number: u64,
    pub(super) packages: Vec<Package>,
    /// What is served now.
    pub(super) served: Option<Served>,
    /// Whether what is served can be built upon.
    pub(super) update: bool,
    /// Whether what is served is what the ledger says.
    pub(super) is_ours: bool,
}

enum Looked {
    /// What is served is of what is there; told of when that is to be published.
    Same(Option<Reached>, Box<Memory>),
    Differs(Box<Plan>),
}

impl Run {
    /// Runs to the end. On `shutdown` a child is ended; a publication that has begun is completed.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Ended {
        let (mut nested, mut complaints, mut maker) = (None, Complaints::default(), None);
        let (aim, is_retry) = (self.aim, self.is_retry);
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
            let (config, repository) = (run.config, run.repository);
            let make = Make { config, repository, places, is_retry, shutdown: &shutdown };
            match (looked?, aim) {
                (Looked::Same(reached, memory), _) => Ok((reached, memory)),
                (Looked::Differs(plan), Aim::Publish) => {
                    make.publish(plan, &mut maker).await.map(|(reached, memory)| (Some(reached), memory))
                }
                (Looked::Differs(plan), Aim::Prepare) if plan.can_be_built_upon() => {
                    make.prepare(plan).await.map(|plan| (None, plan.memory)).map_err(RunError::from)
                }
                // All is read when it is published.
                (Looked::Differs(plan), Aim::Prepare) => Ok((None, plan.memory)),
            }
        };
        let (result, memory) = match result.await {
            Ok((reached, memory)) => (Ok(reached), Some(memory)),
            Err(error) => (Err(error), None),
        };
        Ended { nested, complaints, memory, aim, maker, result }
    }

    fn discover(&mut self) -> Result<(), RunError> {
        if self.repository != Repository::Main {
            return Ok(());
        }
        let config = &self.config;
        let may_be_one = |entry: &String| {
            self.nested.contains(entry) || config.repo.join(entry).join(REPODATA).symlink_metadata().is_ok()
        };
        if let Where::At(entries) = &self.place
            && !entries.iter().any(may_be_one)
        {
            return Ok(());
        }
        let nested = discover(config, &self.nested).context("failed to look for repositories in it")?;
        if nested != self.nested {
            self.place = Where::Everywhere;
        }
        self.nested = nested;
        Ok(())
    }

    fn look(&mut self) -> Result<Looked, RunError> {
        let places = self.config.places(&self.repository);
        let Places { folder, ledger: ledger_path, .. } = &places;
        if !folder.is_dir() {
            return Err(RunError::Gone);
        }
        let private = places.private();
        fs::create_dir_all(private).with_context(|| format!("failed to make {}", private.display()))?;
        let now = now();
        let mut memory = match self.memory.take() {
            Some(mut memory) => {
                // What people have done to the generations shows only there.
                if self.place == Where::Everywhere {
                    memory.generations = Generations::open(folder, &places.register, now);
                }
                memory
            }
            None => {
                self.place = Where::Everywhere;
                Memory::load(&places)?
            }
        };
        let Memory { ledger, generations, .. } = &mut *memory;
        let served = publish::settle(folder, ledger_path, ledger, now, self.config.keep.as_secs())
            .context("failed to tidy up")?;
        let edition = ledger.published.as_ref();
        if let Err(error) = generations.remove(&self.expired, edition.map(|edition| edition.number)) {
            warn!("{}: failed to remove generations that nobody needs: {error}", self.repository);
        }

        let none = BTreeSet::new();
        let main = self.repository == Repository::Main;
        let (known, refused) = edition.map_or((&[][..], &[][..]), |e| (&e.packages, &e.refused));
        let nested = if main { &self.nested } else { &none };
        let walk = Walk { folder, nested, known, refused, now };
        let mut silent = Complaints::silent();
        let complaints = match self.aim {
            Aim::Prepare => &mut silent,
            Aim::Publish => &mut self.complaints,
        };
        let packages = match &self.place {
            Where::At(entries) => walk.packages_at(entries, complaints),
            Where::Everywhere => walk.packages(complaints),
        };
        let packages = packages.context("failed to walk through the folder")?;

        let trusted = self.trust == Trust::Served;
        let is_whole = served.as_ref().is_some_and(|served| served.is_whole(folder));
        if served.is_some() && !is_whole && self.aim == Aim::Publish {
            warn!("{}: its metadata are damaged, and are made anew", self.repository);
        }
        let digest = served.as_ref().map(|served| served.digest);
        let is_ours = is_whole && edition.is_some_and(|edition| Some(edition.repomd) == digest);
        if is_ours && trusted && known == packages {
            memory.forget_prepared();
            let reached = match self.aim {
                Aim::Publish => Some(make::reached(&self.repository, &places, &mut memory, None)?),
                Aim::Prepare => None,
            };
            return Ok(Looked::Same(reached, memory));
        }
        let revision = served.as_ref().and_then(|served| served.repomd.as_ref()?.revision);
        let last = edition.map(|edition| edition.number).max(revision);
        let last = last.max(generations.highest()).unwrap_or(0);
        let (number, update) = (last.saturating_add(1), trusted && is_whole);
        Ok(Looked::Differs(Box::new(Plan { memory, number, packages, served, update, is_ours })))
    }
}

pub(super) fn clear(staging: &Path) -> io::Result<()> {
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
        let [ledger, register, index, staging] =
            ["ledger.json", "generations.json", "index.json", "staging"].map(|name| private.join(name));
        Places { folder, ledger, register, index, staging }
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
#[path = "refresh_tests.rs"]
mod tests;
