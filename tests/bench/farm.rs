//! What a whole farm does with builds that take no time: how soon one starts, how many a minute, and what each costs
//! the server. A no-op builder takes Mock's place.
//!
//! The real programs, a server with a password and TLS and one client, which lie beside this one; what a user starts,
//! and nothing in between. It knows of them only what a user sees: files that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use moji_server::metadata::MetadataConfig;
use moji_tests::support::processes::{DEADLINE, Farm, let_pass, now, program};
use moji_tests::support::repository::read_metadata;
use moji_tests::support::simulated::srpm;
use rustix::time::{ClockId, clock_gettime};

use crate::Settings;
use crate::measure::{Spent, median, percentile};
use crate::report::{Goal, Line};

/// Of an SRPM, in bytes.
const PAYLOAD: usize = 20_000;
/// Slots, and how many builds a minute they are to do.
const SLOTS: [(u16, f64); 4] = [(1, 1_500.0), (4, 4_000.0), (8, 6_000.0), (32, 6_000.0)];
/// The one of them of which it is told what the server's time is, and when the metadata list all.
const WHOLE: u16 = 8;
/// How often the disk and the start of a program are tried.
const RAW: usize = 100;
/// How often it is looked whether one SRPM has come.
const LOOK: Duration = Duration::from_millis(1);
/// How often all of them are counted, which takes the processor's time from what is measured.
const COUNT: Duration = Duration::from_millis(10);
/// What a farm has for itself between two SRPMs that find it idle.
const REST: Duration = Duration::from_millis(20);
const PASSWORD: &str = "the benchmark's password";

/// Measures it: on the disk, and in memory, which shows what is left without one.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let mut lines = measure_here(settings)?;
    if let Some(memory) = &settings.memory {
        let there = Settings { folder: memory.clone(), ..settings.clone() };
        lines.extend(measure_here(&there)?.into_iter().map(|line| Line {
            key: format!("{}-memory", line.key),
            what: format!("{}, in memory", line.what),
            ..line
        }));
    }
    Ok(lines)
}

fn measure_here(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let mut lines = hand_outs(settings)?;
    let (mut processor, mut visible) = (Vec::new(), Vec::new());
    for (slots, goal) in SLOTS {
        let (mut rates, mut disk) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            disk.push(durable_files(&settings.folder)?);
            let run = builds(settings, slots)?;
            rates.push(run.a_minute);
            if slots == WHOLE {
                processor.push(run.processor);
                visible.push(run.visible);
            }
        }
        let noun = if slots == 1 { "slot" } else { "slots" };
        let line =
            Line::new(format!("builds-{slots}"), format!("No-op builds with {slots} {noun}"), "a minute");
        let line = line.values(rates).goal(Goal::AtLeast(goal));
        lines.push(line.limit("files created, synced, renamed, folder synced, one after the other", disk));
    }
    let what = format!("From the last of these builds until the metadata list all, {WHOLE} slots");
    let quiet = MetadataConfig::new(PathBuf::new(), PathBuf::new()).quiet;
    let line = Line::new(format!("builds-{WHOLE}-visible"), what, "ms").values(visible);
    lines.push(line.beside("for so long REPO has to be quiet", vec![milliseconds(quiet)]));
    let what = format!("Server's processor time for a build, {WHOLE} slots, metadata included");
    lines.push(Line::new("server-cpu", what, "ms").values(processor).goal(Goal::AtMost(4.0)));
    Ok(lines)
}

/// A farm over folders of its own on the disk that is measured, which are removed with it.
struct Site {
    farm: Farm,
    at: PathBuf,
}

impl Site {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        let at = settings.folder.join("farm");
        fs::create_dir_all(&at)?;
        let mut farm = Farm::apart(Some(&at), Some(&at));
        farm.start_server(&[PASSWORD]);
        Ok(Self { farm, at })
    }

    fn start_client(&mut self, slots: u16) {
        let (builder, slots) = (program("moji-noop"), slots.to_string());
        let mut command =
            self.farm.client_command("builder", &["--mock", &builder.to_string_lossy(), "--slots", &slots]);
        command.env("MOJI_PASSWORD", PASSWORD).env("HOSTMOCK_NOOP_STARTED", self.started());
        self.farm.run_client("builder", command);
    }

    fn started(&self) -> PathBuf {
        self.at.join("started")
    }

    /// SRPMs beside SOURCE.
    fn make(&self, count: usize) -> anyhow::Result<Vec<PathBuf>> {
        let made = self.at.join("made");
        fs::create_dir_all(&made)?;
        let make = |n| {
            let name = format!("noop{n:05}");
            let path = made.join(format!("{name}-1-1.src.rpm"));
            fs::write(&path, srpm(&name, "1", "1", PAYLOAD))?;
            anyhow::Ok(path)
        };
        (0..count).map(make).collect()
    }

    /// Waits until so many SRPMs are in FINISHED; each of them must have its results in REPO then.
    fn wait_finished(&self, count: usize, every: Duration, limit: Duration) -> anyhow::Result<()> {
        wait("the builds to be finished", every, limit, || {
            Ok((fs::read_dir(self.farm.finished(""))?.count() >= count).then_some(()))
        })?;
        for entry in fs::read_dir(self.farm.finished(""))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let nvr = name.strip_suffix(".src.rpm").with_context(|| format!("FINISHED has {name}"))?;
            let published = self.farm.repo(nvr).join(format!("{nvr}.noarch.rpm"));
            ensure!(published.is_file(), "{} is not there", published.display());
        }
        Ok(())
    }

    /// Waits until the metadata list what so many builds brought.
    fn wait_listed(&self, count: usize) -> anyhow::Result<()> {
        let (repo, mut read) = (self.farm.repo(""), None);
        wait("the builds in the metadata", COUNT, DEADLINE, || {
            // Each generation is a new file: one that was read need not be read again.
            let served = fs::metadata(repo.join("repodata/repomd.xml")).ok();
            let served = served.map(|data| (data.ino(), data.ctime(), data.ctime_nsec()));
            if served.is_none() || served == read {
                return Ok(None);
            }
            // What was replaced meanwhile is.
            let Ok(listed) = read_metadata(&repo) else { return Ok(None) };
            read = served;
            let builds: BTreeSet<_> = listed.keys().filter_map(|path| path.split('/').next()).collect();
            Ok((builds.len() >= count).then_some(()))
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nothing may write there any more.
        self.farm.clients.clear();
        self.farm.server = None;
        let _ = fs::remove_dir_all(&self.at);
    }
}

fn wait<T>(
    what: &str,
    every: Duration,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begin = now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begin.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        let_pass(every);
    }
}

/// The clock that the no-op builder writes down.
fn clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// When the builders of SRPMs began, by file name.
fn begins(path: &Path) -> anyhow::Result<BTreeMap<String, Duration>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let begin = |line: &str| {
        let (name, began) = line.split_once(' ').context("half a line")?;
        Ok((name.to_owned(), Duration::from_nanos(began.parse()?)))
    };
    text.lines().map(begin).collect()
}

/// From the rename into SOURCE to the start of its builder, in an idle farm, one after the other.
fn hand_outs(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let (mut middles, mut slowest, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let mut site = Site::new(settings)?;
        site.start_client(1);
        let mut times = Vec::new();
        for (done, path) in site.make(settings.connections)?.into_iter().enumerate() {
            let name = path.file_name().context("an SRPM without a name")?.to_string_lossy().into_owned();
            let begin = clock();
            site.farm.queue(&path);
            site.wait_finished(done + 1, LOOK, DEADLINE)?;
            let began =
                begins(&site.started())?.remove(&name).context("its builder did not say when it began")?;
            times.push(milliseconds(began.saturating_sub(begin)));
            let_pass(REST);
        }
        middles.push(median(&times));
        slowest.push(percentile(&times, 99));
        raw.push(program_start(&site.at)?);
    }
    let beside = "a program started: fork, exec";
    let what = "SRPM renamed into SOURCE until its builder runs, idle farm";
    let line = |key, what: String, values: Vec<f64>, goal| {
        Line::new(key, what, "ms").values(values).goal(goal).limit(beside, raw.clone())
    };
    Ok(vec![
        line("hand-out", what.to_owned(), middles, Goal::AtMost(15.0)),
        line("hand-out-p99", format!("{what}: 99 of 100"), slowest, Goal::AtMost(60.0)),
    ])
}

/// How long the no-op builder takes until it runs, when nobody but this program starts it.
fn program_start(at: &Path) -> anyhow::Result<f64> {
    let at = at.join("raw");
    fs::create_dir_all(&at)?;
    let source = at.join("a-1-1.src.rpm");
    fs::write(&source, srpm("a", "1", "1", PAYLOAD))?;
    let (started, mut times) = (at.join("started"), Vec::new());
    for n in 0..RAW {
        let _ = fs::remove_file(&started);
        let mut command = Command::new(program("moji-noop"));
        command
            .arg(format!("--resultdir={}", at.join(n.to_string()).display()))
            .arg("--rebuild")
            .arg(&source);
        command.env_clear().env("HOSTMOCK_NOOP_STARTED", &started);
        let begin = clock();
        ensure!(command.status()?.success(), "the no-op builder failed");
        let began = begins(&started)?.into_values().next().context("it did not say when it began")?;
        times.push(milliseconds(began.saturating_sub(begin)));
    }
    Ok(median(&times))
}

/// How many files a minute are created, written, synced, renamed and their folder synced.
fn durable_files(at: &Path) -> anyhow::Result<f64> {
    let at = at.join("raw");
    fs::create_dir_all(&at)?;
    let begin = now();
    for n in 0..RAW {
        let (part, path) = (at.join("part"), at.join(n.to_string()));
        let mut file = File::create(&part)?;
        file.write_all(&[7; 4096])?;
        file.sync_all()?;
        fs::rename(part, path)?;
        File::open(&at)?.sync_all()?;
    }
    let a_minute = RAW as f64 * 60.0 / begin.elapsed().as_secs_f64();
    fs::remove_dir_all(at)?;
    Ok(a_minute)
}

struct Run {
    a_minute: f64,
    /// From the end of the last build until the metadata list all, in milliseconds.
    visible: f64,
    /// The server's and that of its children, in milliseconds for each build: from before the first SRPM comes until
    /// the metadata list all.
    processor: f64,
}

/// All SRPMs are queued before the builder comes: from its first build until all are in FINISHED with their results in
/// REPO, and then until the metadata list them.
fn builds(settings: &Settings, slots: u16) -> anyhow::Result<Run> {
    let count = (settings.small / 5).max(usize::from(slots));
    let mut site = Site::new(settings)?;
    let made = site.make(count)?;
    let server = site.farm.server();
    let before = Spent::of(server.id())?.all();
    for path in made {
        site.farm.queue(&path);
    }
    wait("the SRPMs to be queued", COUNT, DEADLINE, || {
        Ok((server.count(" is queued") >= count).then_some(()))
    })?;
    site.start_client(slots);
    site.wait_finished(count, COUNT, DEADLINE * 10)?;
    let end = clock();
    site.wait_listed(count)?;
    let visible = milliseconds(clock().saturating_sub(end));
    let processor = Spent::of(site.farm.server().id())?.all().saturating_sub(before);
    let begins = begins(&site.started())?;
    ensure!(begins.len() == count, "{} of {count} builds began", begins.len());
    let first = begins.into_values().min().unwrap_or_default();
    let taken = end.saturating_sub(first).as_secs_f64();
    let a_minute = count as f64 * 60.0 / taken;
    Ok(Run { a_minute, visible, processor: milliseconds(processor) / count as f64 })
}
