//! Makes the metadata that a look has found to be due, and publishes them: natively, where the next generation takes
//! over what has not changed, or by `createrepo_c` alone.
//!
//! Native is for when what is served is of this server and can be taken apart; whenever it fails, `createrepo_c` makes
//! everything, as it does with `--metadata createrepo_c`. It deliberately does not know when to run.

mod natively;
mod room;
mod serve;
mod wholly;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::createrepo::{self, Call, CallError};
use super::ledger;
use super::packages::Package;
use super::publish::Staged;
use super::refresh::{Memory, Places, Plan, Reached, RunError, clear};
use super::{Maker, MetadataConfig, Repository};
use serve::Next;
pub(super) use serve::reached;

/// With fewer bytes free than that, a failure is likely to be for want of room: metadata of ten thousand
/// packages take some megabytes.
const ALMOST_FULL: u64 = 8 << 20;
/// XML that is made before it is wanted has no more bytes than that.
const PREPARED_MAX: u64 = 256 << 20;

/// What is served now, and what is known of it.
type Published = (Reached, Box<Memory>);

/// Why nothing was published.
pub(super) struct Failed {
    /// What may be made in another way.
    plan: Option<Box<Plan>>,
    error: RunError,
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        Self { plan: None, error }
    }
}

impl From<Failed> for RunError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// For one repository.
pub(super) struct Make<'a> {
    pub(super) config: Arc<MetadataConfig>,
    pub(super) repository: Repository,
    pub(super) places: Places,
    /// What went wrong was said when it began.
    pub(super) is_retry: bool,
    pub(super) shutdown: &'a CancellationToken,
}

impl Make<'_> {
    /// Makes and publishes what the plan says. `maker` is told who is at it.
    pub(super) async fn publish(
        self,
        mut plan: Box<Plan>,
        maker: &mut Option<Maker>,
    ) -> Result<Published, RunError> {
        if self.config.maker == Maker::Native && plan.can_be_built_upon() {
            *maker = Some(Maker::Native);
            match self.natively(plan).await {
                Ok(published) => return Ok(published),
                Err(Failed { plan: Some(given_back), error: RunError::Other(error) }) => {
                    plan = self.instead(given_back, error).await?;
                }
                Err(failed) => return Err(failed.error),
            }
        }
        *maker = Some(Maker::Createrepo);
        self.wholly(plan).await
    }

    /// What `createrepo_c` is to make instead, when native has failed.
    ///
    /// # Errors
    /// When there is no room: then there is none for a longer way either.
    async fn instead(&self, mut plan: Box<Plan>, error: anyhow::Error) -> Result<Box<Plan>, RunError> {
        let places = self.places.clone();
        let looked = spawn_blocking(move || {
            let no_room = room::missing(&error, &places, plan.served.as_ref());
            plan.memory.forget_xml();
            (plan, error, no_room)
        });
        let (plan, error, no_room) = looked.await.context("looking for room panicked")?;
        if let Some(no_room) = no_room {
            return Err(error.context(no_room).into());
        }
        let (this, but) =
            (&self.repository, "all metadata are made by createrepo_c this time, which takes longer");
        match self.is_retry {
            false => warn!("{this}: {but}: {error:#}"),
            true => debug!("{this}: {but}: {error:#}"),
        }
        Ok(plan)
    }

    /// Reads the XML of the plan's packages that is not there yet. Those that `createrepo_c` cannot read have none then.
    pub(super) async fn prepare(&self, plan: Box<Plan>) -> Result<Box<Plan>, Failed> {
        let places = self.places.clone();
        let (plan, wanted) = blocking("staging", plan, move |plan| {
            let wanted = plan.wanted();
            if !wanted.is_empty() {
                stage(&places, &wanted).context("failed to prepare the staging folder")?;
            }
            Ok(wanted)
        })
        .await?;
        if wanted.is_empty() {
            return Ok(plan);
        }
        let list = self.places.list();
        match self.createrepo(&self.call(&list, plan.number, false)).await {
            Ok(said) => debug!("{}: createrepo_c said: {}", self.repository, said.whole()),
            Err(error) => return Err(Failed { plan: Some(plan), error }),
        }
        let places = self.places.clone();
        let taken = blocking("taking in new packages", plan, move |plan| plan.take_in(&places, wanted));
        taken.await.map(|(plan, ())| plan)
    }

    /// Has only what is new read, and takes over the rest.
    async fn natively(&self, plan: Box<Plan>) -> Result<Published, Failed> {
        let plan = self.prepare(plan).await?;
        let places = self.places.clone();
        let (plan, made) =
            blocking("making the metadata", plan, move |plan| natively::make(&places, plan)).await?;
        let (repository, places) = (self.repository.clone(), self.places.clone());
        let published = spawn_blocking(move || {
            let natively::Made { made, unreadable, gone } = made;
            let (index, staged) = (Some((made.index, gone)), Staged::Beside(&made.repomd));
            serve::publish(&repository, &places, *plan, Next { staged, unreadable, index })
        });
        Ok(published.await.context("publishing panicked").map_err(RunError::from)??)
    }

    /// Has `createrepo_c` make everything, from what is served if that may be used.
    async fn wholly(self, plan: Box<Plan>) -> Result<Published, RunError> {
        let places = self.places.clone();
        let (plan, mistakable) = blocking("staging", plan, move |plan| {
            wholly::stage(&places, plan).context("failed to prepare the staging folder")
        })
        .await?;
        let (list, without) = (self.places.list(), self.places.list_without());
        if plan.update && mistakable {
            // Published without them first, they cannot be taken for what they were.
            self.createrepo(&self.call(&without, plan.number, true)).await?;
        }
        let said = self.createrepo(&self.call(&list, plan.number, plan.update)).await?;
        let Self { repository, places, .. } = self;
        spawn_blocking(move || wholly::publish(&repository, &places, *plan, &said))
            .await
            .context("publishing panicked")?
    }

    fn call<'a>(&'a self, list: &'a Path, revision: u64, update: bool) -> Call<'a> {
        let Places { folder, staging, .. } = &self.places;
        Call { folder, list, output: staging, revision, update }
    }

    async fn createrepo(&self, call: &Call<'_>) -> Result<createrepo::Said, RunError> {
        let MetadataConfig { createrepo: program, time_limit, .. } = &*self.config;
        match createrepo::run(program, call, *time_limit, self.shutdown).await {
            Ok(said) => Ok(said),
            Err(CallError::Missing(missing)) => Err(RunError::Missing(missing)),
            Err(CallError::Stopped) => Err(RunError::Stopped),
            Err(error) => {
                if let CallError::Failed(_, said) = &error {
                    debug!("{}: {} said: {}", self.repository, program.display(), said.whole());
                }
                let staging = self.places.staging.clone();
                let full = spawn_blocking(move || full(&staging)).await.unwrap_or_default();
                Err(anyhow!(error).context(format!("{} failed{full}", program.display())).into())
            }
        }
    }
}

/// Does with a plan what blocks. When that fails, the plan is still there.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    mut plan: Box<Plan>,
    act: impl FnOnce(&mut Plan) -> anyhow::Result<T> + Send + 'static,
) -> Result<(Box<Plan>, T), Failed> {
    let acted = spawn_blocking(move || {
        let done = act(&mut plan);
        (plan, done)
    });
    match acted.await {
        Ok((plan, Ok(done))) => Ok((plan, done)),
        Ok((plan, Err(error))) => Err(Failed { plan: Some(plan), error: error.into() }),
        Err(error) => Err(RunError::from(anyhow!(error).context(format!("{what} panicked"))).into()),
    }
}

/// An empty staging folder, but for a list of packages.
fn stage(places: &Places, packages: &[Package]) -> io::Result<()> {
    clear(&places.staging)?;
    fs::create_dir(&places.staging)?;
    fs::write(places.list(), lines(packages))
}

/// The paths of packages, one a line.
pub(super) fn lines<'a>(packages: impl IntoIterator<Item = &'a Package>) -> String {
    packages.into_iter().flat_map(|package| [package.path.as_str(), "\n"]).collect()
}

impl Plan {
    /// Whether most of what is served can be taken over as it is.
    pub(super) fn can_be_built_upon(&self) -> bool {
        self.update && self.is_ours
    }

    /// The packages whose XML has to be read. Forgets the XML of what was prepared and has changed since: nothing may be
    /// taken for what was at its place before.
    fn wanted(&mut self) -> Vec<Package> {
        let Memory { ledger, spool, prepared, .. } = &mut *self.memory;
        let before = ledger.published.as_ref().map(|edition| edition.packages.as_slice());
        let (added, _) = ledger::difference(before.unwrap_or_default(), &self.packages);
        prepared.retain(|_, package| added.binary_search(&&*package).is_ok());
        if let Some(spool) = spool {
            spool.keep(|path| prepared.contains_key(path));
        }
        added.into_iter().filter(|package| !prepared.contains_key(&package.path)).cloned().collect()
    }

    /// Takes in what `createrepo_c` has staged of packages.
    fn take_in(&mut self, places: &Places, wanted: Vec<Package>) -> anyhow::Result<()> {
        let memory = &mut self.memory;
        let spool = memory.spool(places.private())?;
        spool
            .take_in(&places.staged())
            .context("cannot take in what createrepo_c has read of new packages")?;
        memory.prepared.extend(wanted.into_iter().map(|package| (package.path.clone(), package)));
        // It has been read. What is left of it is removed before the next run too.
        let _ = clear(&places.staging);
        Ok(())
    }
}

impl Memory {
    /// Too much was made before it was wanted.
    pub(super) fn is_full(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.size() > PREPARED_MAX)
    }
}

fn is_listed(packages: &[Package], path: &str) -> bool {
    packages.binary_search_by(|package| package.path.as_str().cmp(path)).is_ok()
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
