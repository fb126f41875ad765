//! What runs a build: Mock, or in tests whatever stands for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use moji_proto::{Outcome, TargetName};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::mock::configs::MockConfig;
use crate::mock::run::{Job, Limits, Report, run};
use crate::mock::{Build, Evidence, Root, UniqueExt, classify, sweep};

/// One build, as a slot wants it done.
#[derive(Debug, Clone)]
pub struct BuildTask {
    /// The slot.
    pub slot: u16,
    /// What to build for.
    pub target: TargetName,
    /// The SRPM.
    pub srpm: PathBuf,
    /// An empty folder for what comes out of it.
    pub resultdir: PathBuf,
    /// A file for what Mock itself says.
    pub mock_log: PathBuf,
}

/// A build under way. Errors: it could not even begin, because of this machine.
pub type Building = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + Send>>;

/// Runs builds.
pub trait Builder: Send + Sync + 'static {
    /// Builds; ends early, and leaves no process behind, when `cancel` is cancelled.
    fn build(self: Arc<Self>, task: BuildTask, cancel: CancellationToken) -> Building;
}

/// The real one.
#[derive(Debug)]
pub struct Mock {
    /// The `mock` program.
    pub program: OsString,
    /// The config of each target.
    pub configs: BTreeMap<TargetName, MockConfig>,
    /// What the builder's owner adds to each command line.
    pub mock_args: Vec<String>,
    /// The environment that Mock may see.
    pub environment: Vec<(OsString, OsString)>,
    /// Time limits.
    pub limits: Limits,
    /// Tells the chroots of this client from those of others on the same machine.
    pub id: String,
    /// Where the output of cleaning up goes.
    pub cleanup_log: PathBuf,
    /// Slots whose chroot a Mock that could not be ended still holds.
    pub blocked: Mutex<BTreeSet<u16>>,
}

impl Builder for Mock {
    fn build(self: Arc<Self>, task: BuildTask, cancel: CancellationToken) -> Building {
        Box::pin(async move {
            let root = self.root(&task.target, task.slot)?;
            self.unblock(&root, task.slot).await?;
            let report = self.run(root, &task, &cancel).await?;
            if let Some(process) = report.left_behind {
                tracing::error!(
                    "process {process} could not be ended: slot {} waits until it is gone",
                    task.slot
                );
                self.blocked.lock().unwrap_or_else(PoisonError::into_inner).insert(task.slot);
            }
            let classified = spawn_blocking(move || {
                classify(&Evidence::read(report.ended, &task.resultdir, &task.mock_log, report.lowest_free))
            });
            Ok(classified.await?)
        })
    }
}

impl Mock {
    /// Ends and removes what an earlier client of the same work folder left in its chroots.
    ///
    /// # Errors
    /// When the command lines cannot be made.
    pub async fn sweep(&self, slots: u16) -> anyhow::Result<()> {
        let mut roots = Vec::new();
        for target in self.configs.keys() {
            for slot in 0..slots {
                roots.push(self.root(target, slot)?);
            }
        }
        sweep::sweep(&roots, &self.environment, &self.cleanup_log, &self.limits).await;
        Ok(())
    }

    /// The chroot of a slot: always the same, so that the next run cleans what a killed one left.
    fn root(&self, target: &TargetName, slot: u16) -> anyhow::Result<Root> {
        let config = self.configs.get(target).with_context(|| format!("there is no config for {target}"))?;
        let uniqueext = UniqueExt::new(&format!("moji-{}-{slot}", self.id))?;
        Ok(Root::new(&self.program, &config.argument, uniqueext, self.mock_args.clone())?)
    }

    async fn unblock(&self, root: &Root, slot: u16) -> anyhow::Result<()> {
        let is_blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).contains(&slot);
        if is_blocked {
            sweep::clear(root, &self.environment, &self.cleanup_log, &self.limits, true)
                .await
                .context("a Mock that could not be ended still holds the chroot of this slot")?;
            self.blocked.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
        }
        Ok(())
    }

    async fn run(&self, root: Root, task: &BuildTask, cancel: &CancellationToken) -> anyhow::Result<Report> {
        let build =
            Build { resultdir: task.resultdir.clone(), srpm: task.srpm.clone(), add_repos: Vec::new() };
        let job = Job {
            argv: root.rebuild(&build)?,
            root,
            env: self.environment.clone(),
            mock_log: task.mock_log.clone(),
            cleanup_log: self.cleanup_log.clone(),
            watched: ["root.log", "build.log", "state.log"].map(|log| task.resultdir.join(log)).into(),
            disks: vec![task.resultdir.clone(), Path::new("/var/lib/mock").to_owned()],
            limits: self.limits.clone(),
        };
        Ok(run(&job, cancel).await)
    }
}
