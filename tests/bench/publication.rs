//! What it costs to publish one more package beside many: from the RPM in REPO, whole, to the `repomd.xml` that lists it,
//! without the time for which REPO has to be quiet. While it is quiet the server reads the new RPM (with createrepo_c), so
//! that is not in the time, but it is in the processor's. The yardstick is `createrepo_c --update` over the same files:
//! all of it, from the RPM to its end, once with its packages in the order in which it is fast. It makes nothing durable;
//! the server does.
//!
//! The metadata task runs in this process, with the watcher and the settings of the server, but for a quiet time that is
//! short enough to measure often. Packages are small: ten files each, no dependencies.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use moji_server::metadata::{Maker, Metadata, MetadataConfig, Repository, Served};
use moji_tests::support::processes::{let_pass, now};
use moji_tests::support::simulated::rpm_with_files;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::measure::{Spent, processor, thread_processor};
use crate::report::{Goal, Line};

/// Long enough for what is read ahead.
const QUIET: Duration = Duration::from_millis(500);
const FILES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(300);
/// So many publications between two looks at the processor's time, of which that of children is only exact to 10 ms.
const TOGETHER: usize = 3;

/// Measures it beside 10,000 and 50,000 packages.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let sizes: &[(usize, f64)] =
        if settings.is_quick { &[(200, 20.0)] } else { &[(10_000, 20.0), (50_000, 80.0)] };
    for (packages, goal) in sizes {
        let goal = (!settings.is_quick).then_some(Goal::AtMost(*goal));
        lines.extend(beside(settings, *packages, "publication", goal)?);
    }
    Ok(lines)
}

/// How it grows.
pub(super) fn growth(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let sizes: &[usize] = if settings.is_quick { &[100, 200] } else { &[100, 1_000, 5_000, 20_000] };
    for packages in sizes {
        let mut line = beside(settings, *packages, "growth-publication", None)?.into_iter().next();
        // That the other way grows with the square is known.
        line.iter_mut().for_each(|line| line.beside.truncate(1));
        lines.extend(line);
    }
    Ok(lines)
}

/// What was measured beside so many packages, in milliseconds.
#[derive(Default)]
struct Found {
    /// From the RPM in REPO to the `repomd.xml` that lists it.
    visible: Vec<f64>,
    /// And to its generation.
    fixed: Vec<f64>,
    /// The processor's time, of createrepo_c for the new one too.
    processor: Vec<f64>,
    rival: Vec<f64>,
    rival_processor: Vec<f64>,
    /// When it has to find out itself what there is.
    rival_walking: Vec<f64>,
}

fn beside(settings: &Settings, count: usize, key: &str, goal: Option<Goal>) -> anyhow::Result<Vec<Line>> {
    let at = settings.folder.join("publication");
    let _ = fs::remove_dir_all(&at);
    let found = publish(&at, count, settings.rounds)?;
    fs::remove_dir_all(&at)?;
    let (rival, walking) = ("createrepo_c --update", "the same of the folder, in no order");
    let what = format!("one RPM published beside {count}, quiet time apart");
    let line = Line::new(format!("{key}-{count}"), what, "ms").values(found.visible);
    let line = line.limit(rival, found.rival.clone()).limit(walking, found.rival_walking);
    let line = goal.into_iter().fold(line, Line::goal);
    let what = format!("  and its generation kept, {count}");
    let whole = Line::new(format!("{key}-fixed-{count}"), what, "ms").values(found.fixed);
    let what = format!("  all of the processor's time for it, createrepo_c's too, {count}");
    let processor = Line::new(format!("{key}-{count}-cpu"), what, "ms").values(found.processor);
    Ok(vec![line, whole.limit(rival, found.rival), processor.limit(rival, found.rival_processor)])
}

/// One after the other in the same repository, in turn with createrepo_c in another one of the same files.
fn publish(at: &Path, count: usize, rounds: usize) -> anyhow::Result<Found> {
    let (repo, private) = (at.join("repo"), at.join("private"));
    fs::create_dir_all(&private)?;
    for number in 0..count {
        put(&repo, &format!("package-{number}"))?;
    }
    let rival = Rival::new(at, &repo)?;
    let runtime = Runtime::new()?;
    let shutdown = CancellationToken::new();
    let config =
        MetadataConfig { maker: Maker::Native, quiet: QUIET, ..MetadataConfig::new(repo.clone(), private) };
    let (metadata, handle) = Metadata::new(config);
    let mut served = handle.served();
    let task = runtime.spawn(metadata.run(shutdown.clone()));
    wait(&runtime, &mut served, count)?;
    // The first one takes apart what createrepo_c has made.
    one(&runtime, &mut served, &repo, count + 1)?;
    let (mut found, mut there) = (Found::default(), count + 1);
    for round in 0..rounds {
        let before = spent()?;
        for _ in 0..TOGETHER {
            there += 1;
            let (visible, fixed) = one(&runtime, &mut served, &repo, there)?;
            found.visible.push(visible);
            found.fixed.push(fixed);
        }
        found.processor.push((spent()?.saturating_sub(before)).as_secs_f64() * 1e3 / TOGETHER as f64);
        let before = Spent::of("self")?.children;
        found.rival.push(rival.update(&format!("new-{round}"), Packages::Listed)?);
        let used = Spent::of("self")?.children.saturating_sub(before);
        found.rival_processor.push(used.as_secs_f64() * 1e3);
        // Once: it may take minutes.
        if round == 0 {
            found.rival_walking.push(rival.update("newer", Packages::Found)?);
        }
    }
    shutdown.cancel();
    runtime.block_on(task)??;
    Ok(found)
}

/// What this process has used without this thread, which only looks, and its children.
fn spent() -> anyhow::Result<Duration> {
    Ok(processor().saturating_sub(thread_processor()) + Spent::of("self")?.children)
}

/// Publishes one more package, the last of so many: the time until it is visible, and until its generation is kept, both
/// without the quiet time, in milliseconds.
fn one(
    runtime: &Runtime,
    served: &mut watch::Receiver<Served>,
    repo: &Path,
    packages: usize,
) -> anyhow::Result<(f64, f64)> {
    let before = served_file(repo)?;
    let began = now();
    put(repo, &format!("new-{packages}"))?;
    while served_file(repo)? == before {
        ensure!(began.elapsed() < PATIENCE, "it is not published");
        let_pass(Duration::from_micros(100));
    }
    let visible = began.elapsed().saturating_sub(QUIET);
    wait(runtime, served, packages)?;
    let fixed = began.elapsed().saturating_sub(QUIET);
    Ok((visible.as_secs_f64() * 1e3, fixed.as_secs_f64() * 1e3))
}

/// Puts one package where a build's results go, as the server does: in one step.
fn put(repo: &Path, name: &str) -> anyhow::Result<()> {
    let part = repo.join(format!(".{name}"));
    fs::create_dir_all(&part)?;
    let source = format!("{name}-1-1.src.rpm");
    let file = part.join(format!("{name}-1-1.noarch.rpm"));
    fs::write(&file, rpm_with_files([name, "1", "1"], &source, 100, FILES))?;
    fs::rename(part, repo.join(format!("{name}-1-1")))?;
    Ok(())
}

/// Which `repomd.xml` is served.
fn served_file(repo: &Path) -> anyhow::Result<u64> {
    Ok(fs::metadata(repo.join("repodata/repomd.xml"))?.ino())
}

fn wait(runtime: &Runtime, served: &mut watch::Receiver<Served>, packages: usize) -> anyhow::Result<()> {
    let is_there =
        |served: &Served| served.get(&Repository::Main).is_some_and(|main| main.packages >= packages);
    let waiting = async { tokio::time::timeout(PATIENCE, served.wait_for(is_there)).await };
    runtime.block_on(waiting).context("it is not published")??;
    Ok(())
}

/// A repository that `createrepo_c --update` keeps, as a person does it: called for the folder, again and again.
struct Rival {
    repo: PathBuf,
    /// The packages, sorted.
    list: PathBuf,
}

/// How createrepo_c gets to know what there is.
enum Packages {
    /// By a list, in the order that it wants: it sorts by putting one after the other into its place, which takes as
    /// long as it must when they come in order, and with their number's square when they do not.
    Listed,
    /// It looks for itself, and finds them in no order.
    Found,
}

impl Rival {
    /// The same packages as in another repository: hard links.
    fn new(at: &Path, like: &Path) -> anyhow::Result<Self> {
        let rival = Self { repo: at.join("rival"), list: at.join("list") };
        for entry in fs::read_dir(like)? {
            let entry = entry?;
            let there = rival.repo.join(entry.file_name());
            fs::create_dir_all(&there)?;
            for file in fs::read_dir(entry.path())? {
                let file = file?;
                fs::hard_link(file.path(), there.join(file.file_name()))?;
            }
        }
        rival.write_list()?;
        rival.run(&[], Packages::Listed)?;
        Ok(rival)
    }

    fn write_list(&self) -> anyhow::Result<()> {
        let mut list = Vec::new();
        for entry in fs::read_dir(&self.repo)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(package) = name.strip_suffix("-1-1") {
                list.push(format!("{name}/{package}-1-1.noarch.rpm\n"));
            }
        }
        list.sort_unstable();
        Ok(fs::write(&self.list, list.concat())?)
    }

    /// One more package, in milliseconds.
    fn update(&self, name: &str, packages: Packages) -> anyhow::Result<f64> {
        put(&self.repo, name)?;
        self.write_list()?;
        let began = now();
        self.run(&["--update"], packages)?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    /// The files are those that moji makes: no databases.
    fn run(&self, arguments: &[&str], packages: Packages) -> anyhow::Result<()> {
        let mut command = Command::new("createrepo_c");
        command.args(["--quiet", "--no-database", "--general-compress-type=gz", "--checksum", "sha256"]);
        if let Packages::Listed = packages {
            command.arg("--pkglist").arg(&self.list);
        }
        // It warns of each package that is as old as these pretend to be.
        command.args(arguments).arg(&self.repo).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().context("cannot run createrepo_c")?;
        ensure!(status.success(), "createrepo_c has failed");
        Ok(())
    }
}
