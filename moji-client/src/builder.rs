//! What runs a build: Mock, or in tests whatever stands for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use moji_proto::{Outcome, RepositoryUrl, TargetName};
use tokio::task::{JoinSet, spawn_blocking};
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
    /// Where the farm's own results are, for BuildRequires; none: the server does not say.
    pub repository: Option<RepositoryUrl>,
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

/// What becomes of the farm's own repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FarmRepository {
    /// Mock is given it. What is on the server has this host in its URL: the one that the server is known by.
    Added {
        /// A name or an address.
        host: String,
    },
    /// Mock's configs have it already.
    InConfigs,
}

/// The real one.
#[derive(Debug)]
pub struct Mock {
    /// The `mock` program.
    pub program: OsString,
    /// The config of each target.
    pub configs: BTreeMap<TargetName, MockConfig>,
    /// Whether builds are given the farm's own repository.
    pub farm_repository: FarmRepository,
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
    /// Slots with a chroot, of this target, that a Mock which could not be ended still holds.
    pub blocked: Mutex<BTreeMap<u16, TargetName>>,
}

impl Builder for Mock {
    fn build(self: Arc<Self>, task: BuildTask, cancel: CancellationToken) -> Building {
        Box::pin(async move {
            let root = self.root(&task.target, task.slot)?;
            self.unblock(task.slot).await?;
            let report = self.run(root, &task, &cancel).await?;
            if let Some(process) = report.left_behind {
                tracing::error!(
                    "process {process} could not be ended: slot {} waits until it is gone",
                    task.slot
                );
                self.blocked
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(task.slot, task.target.clone());
            }
            let classified = spawn_blocking(move || {
                classify(&Evidence::read(report.ended, &task.resultdir, &task.mock_log, report.lowest_free))
            });
            Ok(classified.await?)
        })
    }
}

impl Mock {
    /// Ends and removes what an earlier client of the same work folder left in its chroots: those of all
    /// targets at a time, so that a config which hangs does not add its time to that of the others.
    ///
    /// # Errors
    /// When the command lines cannot be made.
    pub async fn sweep(&self, slots: u16) -> anyhow::Result<()> {
        let mut sweeps = JoinSet::new();
        for target in self.configs.keys() {
            let roots = (0..slots).map(|slot| self.root(target, slot)).collect::<anyhow::Result<Vec<_>>>()?;
            let (environment, log) = (self.environment.clone(), self.cleanup_log.clone());
            let limits = self.limits.clone();
            sweeps.spawn(async move { sweep::sweep(&roots, &environment, &log, &limits).await });
        }
        sweeps.join_all().await;
        Ok(())
    }

    /// The chroot of a slot for a target: always the same, so that the next run cleans what a killed one left.
    fn root(&self, target: &TargetName, slot: u16) -> anyhow::Result<Root> {
        let config = self.configs.get(target).with_context(|| format!("there is no config for {target}"))?;
        let uniqueext = UniqueExt::new(&format!("moji-{}-{slot}", self.id))?;
        Ok(Root::new(&self.program, &config.argument, uniqueext, self.mock_args.clone())?)
    }

    async fn unblock(&self, slot: u16) -> anyhow::Result<()> {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).get(&slot).cloned();
        // Whatever is to be built now: what was left behind takes the slot's share of the machine.
        if let Some(target) = blocked {
            sweep::clear(
                &self.root(&target, slot)?,
                &self.environment,
                &self.cleanup_log,
                &self.limits,
                true,
            )
            .await
            .context("a Mock that could not be ended still holds the chroot of this slot")?;
            self.blocked.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
        }
        Ok(())
    }

    async fn run(&self, root: Root, task: &BuildTask, cancel: &CancellationToken) -> anyhow::Result<Report> {
        let repository = self.repository(task)?;
        let build = Build {
            resultdir: task.resultdir.clone(),
            srpm: task.srpm.clone(),
            add_repos: repository.iter().cloned().collect(),
        };
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
        if let Some(url) = repository {
            let log = job.mock_log.clone();
            spawn_blocking(move || note_repository(&log, &url)).await?.context("cannot write mock.log")?;
        }
        Ok(run(&job, cancel).await)
    }

    /// The farm's own repository, when this build is to be given it.
    fn repository(&self, task: &BuildTask) -> anyhow::Result<Option<String>> {
        match (&self.farm_repository, &task.repository) {
            (FarmRepository::Added { host }, Some(url)) => Ok(Some(url.at(host)?)),
            (FarmRepository::InConfigs, _) | (_, None) => Ok(None),
        }
    }
}

/// The first line of Mock's log: whoever reads it later can build the same again.
fn note_repository(mock_log: &Path, url: &str) -> io::Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(mock_log)?;
    writeln!(log, "moji: BuildRequires also come from {url}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `echo` stands for Mock: what it was called with is in its logs.
    fn echo(at: &Path, farm_repository: FarmRepository) -> Mock {
        let config = |name: &str| MockConfig {
            path: format!("/etc/mock/{name}-config.cfg").into(),
            argument: format!("{name}-config").into(),
            target: name.parse().unwrap(),
        };
        Mock {
            program: "echo".into(),
            configs: ["f42", "f43"].map(|name| (name.parse().unwrap(), config(name))).into(),
            farm_repository,
            mock_args: vec!["--nocheck".into()],
            environment: crate::mock::run::environment(std::env::vars_os()),
            limits: Limits::default(),
            id: "12345678".into(),
            cleanup_log: at.join("cleanup.log"),
            blocked: Mutex::default(),
        }
    }

    /// What the log of a build has in it, below the folder `at`.
    async fn build(at: &Path, target: &str, mock: Mock, repository: Option<RepositoryUrl>) -> String {
        let task = BuildTask {
            slot: 3,
            target: target.parse().unwrap(),
            repository,
            srpm: at.join("a-1-1.src.rpm"),
            resultdir: at.join("result"),
            mock_log: at.join("mock.log"),
        };
        Arc::new(mock).build(task, CancellationToken::new()).await.unwrap();
        let log = fs::read_to_string(at.join("mock.log")).unwrap();
        log.replace(&at.display().to_string(), "AT")
    }

    #[tokio::test]
    async fn builds_are_given_the_farms_repository_unless_their_configs_have_it() {
        let on_server = RepositoryUrl::on_server(8080, "/f43/generations/7/").unwrap();
        let absolute = RepositoryUrl::absolute("https://repo/moji/").unwrap();
        let added = || FarmRepository::Added { host: "2001:db8::7".into() };
        let there = "http://[2001:db8::7]:8080/f43/generations/7/";
        for (farm_repository, url, wanted) in [
            (added(), Some(on_server.clone()), Some(there)),
            (added(), Some(absolute), Some("https://repo/moji/")),
            (added(), None, None),
            (FarmRepository::InConfigs, Some(on_server), None),
        ] {
            let at = tempfile::tempdir().unwrap();
            let log = build(at.path(), "f43", echo(at.path(), farm_repository), url).await;
            let note = wanted.map(|url| format!("moji: BuildRequires also come from {url}\n"));
            let option = wanted.map(|url| format!("--addrepo={url} "));
            let call = format!(
                "-r f43-config --uniqueext=moji-12345678-3 --resultdir=AT/result {}--nocheck --rebuild \
                 AT/a-1-1.src.rpm\n",
                option.unwrap_or_default()
            );
            assert_eq!(log, note.unwrap_or_default() + &call);
        }
    }

    #[tokio::test]
    async fn the_roots_of_all_targets_are_swept() {
        let at = tempfile::tempdir().unwrap();
        echo(at.path(), FarmRepository::InConfigs).sweep(2).await.unwrap();
        let log = fs::read_to_string(at.path().join("cleanup.log")).unwrap();
        let mut lines: Vec<_> = log.lines().collect();
        lines.sort_unstable();
        let wanted = ["f42", "f43"].map(|target| {
            ["0 --clean", "0 --orphanskill", "1 --clean", "1 --orphanskill"]
                .map(|rest| format!("-r {target}-config --uniqueext=moji-12345678-{rest}"))
        });
        assert_eq!(lines, wanted.concat());
    }

    #[tokio::test]
    async fn a_blocked_slot_is_cleared_of_what_blocks_it() {
        let at = tempfile::tempdir().unwrap();
        let mock = echo(at.path(), FarmRepository::InConfigs);
        mock.blocked.lock().unwrap().extend([(3, "f42".parse().unwrap()), (4, "f43".parse().unwrap())]);
        build(at.path(), "f43", mock, None).await;
        let log = fs::read_to_string(at.path().join("cleanup.log")).unwrap();
        let call = "-r f42-config --uniqueext=moji-12345678-3 --";
        assert_eq!(log, format!("{call}orphanskill\n{call}clean\n"));
    }
}
