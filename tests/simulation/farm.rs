//! One simulation: hosts on a simulated network, faults as planned, looks in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use moji_client::access::{Access, Secret};
use moji_client::builder::{BuildTask, Builder, Building};
use moji_client::run::{Config, Connector};
use moji_client::work_dir::WorkDir;
use moji_proto::{FailureKind, Outcome};
use moji_tests::support::simulated::{Site, registration, rpm, server_config, srpm};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

use crate::hostile;
use crate::plan::{Again, BuilderPlan, Fault, Package, Plan, Random};
use crate::properties::Properties;

pub(crate) const PORT: u16 = 6789;

/// Virtual time from one step to the next.
const TICK: Duration = Duration::from_millis(50);
/// The whole queue must be built so long after the last fault.
const DRAINED: Duration = Duration::from_secs(1800);
/// How often the folders are looked at.
const LOOK_EVERY: u32 = 5;

/// What was seen from outside, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    pub(crate) fn tell(&self, what: &str) {
        let at = turmoil::sim_elapsed().unwrap_or_default().as_secs_f64();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:09.3} {what}"));
    }

    fn told(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Listening(TcpListener);

impl moji_server::Listener for Listening {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, moji_server::Peer)> {
        let (stream, address) = self.0.accept().await?;
        Ok((stream, moji_server::Peer::at(address)))
    }
}

/// Which SRPMs were built, by name, and which of them for nothing.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    begun: BTreeMap<String, u64>,
    /// Finished, and in an outbox.
    packed: BTreeSet<String>,
    /// Begun once more after that.
    again: Vec<String>,
}

pub(crate) type SharedRuns = Arc<Mutex<Runs>>;

impl Runs {
    pub(crate) fn of(runs: &SharedRuns) -> std::sync::MutexGuard<'_, Self> {
        runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn packed(&mut self, srpm: &str) {
        self.packed.insert(srpm.to_owned());
    }

    /// Gives how often it was begun, this time included.
    fn begin(&mut self, srpm: &str, builder: &str) -> u64 {
        if self.packed.contains(srpm) {
            self.again.push(format!("{srpm} by {builder}"));
        }
        let number = self.begun.entry(srpm.to_owned()).or_default();
        *number += 1;
        *number
    }

    /// # Errors
    /// When something was built a second time that must not be.
    pub(crate) fn check(&self, again: Again) -> anyhow::Result<()> {
        let twice: Vec<_> = self.begun.iter().filter(|(_, number)| **number > 1).collect();
        match again {
            Again::Late => Ok(()),
            Again::Unfinished if self.again.is_empty() => Ok(()),
            Again::Unfinished => bail!("finished builds were built again: {:?}", self.again),
            Again::Never if twice.is_empty() => Ok(()),
            Again::Never => bail!("built more than once, for nothing: {twice:?}"),
        }
    }
}

struct ToServer(Mutex<Random>);

impl Connector for ToServer {
    type Io = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(("server", PORT)).await
    }

    fn server(&self) -> String {
        "the server".into()
    }

    fn jitter(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next() as u32
    }
}

/// Builds as the plan says: takes its time, writes logs, is sometimes killed from outside, and
/// sometimes cannot begin.
struct Worker {
    name: String,
    seed: u64,
    packages: Vec<Package>,
    /// Whether something goes wrong on this machine now and then.
    is_flaky: bool,
    runs: SharedRuns,
    story: Story,
}

impl Worker {
    async fn work(&self, task: &BuildTask) -> anyhow::Result<Outcome> {
        let srpm = task.srpm.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_it = |package: &&Package| format!("{}-1-1.src.rpm", package.name) == srpm;
        let Some(package) = self.packages.iter().find(is_it) else { bail!("nobody planned {srpm}") };
        if fs::read(&task.srpm)? != self::srpm(&package.name, "1", "1", package.payload) {
            bail!("{srpm} is damaged");
        }
        let number = Runs::of(&self.runs).begin(&srpm, &self.name);
        let mut random = Random::new(self.seed, &format!("{srpm} {number}"));
        self.story.tell(&format!("{} builds {srpm} for {}", self.name, task.target));
        if self.is_flaky && number < 4 && random.percent(5) {
            bail!("the disk is full");
        }
        let mut log = fs::File::create(task.resultdir.join("build.log"))?;
        for line in 0..random.between(1, 60) {
            writeln!(log, "line {line} of {}", package.name)?;
            sleep(random.seconds(0, 2)).await;
        }
        if self.is_flaky && number < 4 && random.percent(5) {
            return Ok(Outcome::failed(FailureKind::Interrupted, "killed", Some(-9), Vec::new()));
        }
        if package.outcome.is_success() {
            for (name, content) in built(package) {
                fs::write(task.resultdir.join(name), content)?;
            }
        }
        Ok(package.outcome.clone())
    }
}

/// The RPMs that an honest builder makes.
pub(crate) fn built(package: &Package) -> [(String, Vec<u8>); 2] {
    let Package { name, payload, .. } = package;
    let source = format!("{name}-1-1.src.rpm");
    let binary = rpm(name, "1", "1", &source, payload / 2 + 50);
    [(format!("{name}-1-1.noarch.rpm"), binary), (source, srpm(name, "1", "1", payload / 3 + 20))]
}

impl Builder for Worker {
    fn build(self: Arc<Self>, task: BuildTask, cancel: CancellationToken) -> Building {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.story.tell(&format!("{} was stopped", self.name));
                    Ok(Outcome::failed(FailureKind::Interrupted, "cancelled", None, Vec::new()))
                }
                outcome = self.work(&task) => outcome,
            }
        })
    }
}

/// Runs a plan to its end, and gives what could be seen of it.
///
/// # Errors
/// The property that did not hold, and the end of the story.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Vec<String>> {
    let story = Story::default();
    let ended = simulate(plan, &story);
    let mut told = story.told();
    // What happens in the same instant has no order: real threads do the work of the disk.
    told.sort();
    match ended {
        Ok(records) => {
            told.extend(records);
            Ok(told)
        }
        Err(error) => {
            let last = told.len().saturating_sub(40);
            Err(anyhow!("{error:#}\n{:#?}\n{}", plan.troubles, told[last..].join("\n")))
        }
    }
}

fn simulate(plan: &Plan, story: &Story) -> anyhow::Result<Vec<String>> {
    let site = Arc::new(Site::new()?);
    // By line, and not by the time at which the real clock saw them: or a seed would mean nothing.
    let mut list: Vec<_> = plan.packages.iter().map(|package| package.name.clone()).collect();
    list.sort_by_key(|name| Random::new(plan.seed, name).next());
    let list = list.join("\n");
    for place in ["priority.txt", "f43-arm/priority.txt", "f44-arm/priority.txt"] {
        site.put(place, list.as_bytes())?;
    }
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(100_000))
        .tcp_capacity(4096)
        .build();
    add_server(&mut sim, plan, &site);
    let runs = SharedRuns::default();
    for builder in &plan.builders {
        add_client(&mut sim, plan, builder, &site, &runs, story);
        // The same for each message: how many there are depends on how quick the real disk is, and
        // numbers drawn for each of them would make every seed a new story.
        sim.set_link_latency(builder.name.as_str(), "server", builder.latency);
    }
    if plan.hostile {
        hostile::add(&mut sim, plan);
    }
    let mut properties = Properties::new(plan, Arc::clone(&site), Arc::clone(&runs));
    let mut steps = 0u32;
    let quiet_at = plan.quiet_at();
    loop {
        events(&mut sim, plan, &site, story)?;
        sim.step().map_err(|error| anyhow!("a host failed: {error}"))?;
        steps += 1;
        if steps.is_multiple_of(LOOK_EVERY) {
            properties.look(sim.elapsed())?;
            if sim.elapsed() > quiet_at && properties.is_settled() {
                return properties.at_the_end();
            }
            if sim.elapsed() > quiet_at + DRAINED {
                bail!("the queue is not built {DRAINED:?} after the last fault: {}", properties.left());
            }
        }
    }
}

/// What the plan has for the next step.
fn events(sim: &mut Sim<'_>, plan: &Plan, site: &Site, story: &Story) -> anyhow::Result<()> {
    let (now, next) = (sim.elapsed(), sim.elapsed() + TICK);
    let is_now = |at: Duration| (now..next).contains(&at);
    for package in plan.packages.iter().filter(|package| is_now(package.put_at)) {
        site.put(&package.path(), &srpm(&package.name, "1", "1", package.payload))?;
    }
    for trouble in &plan.troubles {
        let host = trouble.host.as_str();
        if is_now(trouble.from) {
            story.tell(&format!("{now:?} {:?} {host}", trouble.fault));
            match trouble.fault {
                Fault::Crash => sim.crash(host),
                Fault::Partition => sim.partition(host, "server"),
                Fault::Hold => sim.hold(host, "server"),
                Fault::Slow => sim.set_link_latency(host, "server", Duration::from_millis(2_500)),
            }
        }
        if is_now(trouble.to) {
            match trouble.fault {
                // Not one that another crash has already brought back.
                Fault::Crash if sim.is_host_running(host) => {}
                Fault::Crash => sim.bounce(host),
                Fault::Partition => sim.repair(host, "server"),
                Fault::Hold => sim.release(host, "server"),
                Fault::Slow => {
                    let builder = plan.builders.iter().find(|builder| builder.name == host);
                    let latency = builder.map(|builder| builder.latency).unwrap_or_default();
                    sim.set_link_latency(host, "server", latency);
                }
            }
        }
    }
    Ok(())
}

fn add_server(sim: &mut Sim<'_>, plan: &Plan, site: &Arc<Site>) {
    let mut config = server_config(site.folders.clone());
    config.grace = plan.grace;
    config.password = plan.password.map(Into::into);
    config.log_limit = 50_000;
    sim.host("server", move || {
        let config = config.clone();
        async move {
            let listener = Listening(TcpListener::bind(("0.0.0.0", PORT)).await?);
            Ok(moji_server::run::run(config, listener, CancellationToken::new()).await?)
        }
    });
}

fn add_client(
    sim: &mut Sim<'_>,
    plan: &Plan,
    builder: &BuilderPlan,
    site: &Arc<Site>,
    runs: &SharedRuns,
    story: &Story,
) {
    let work = site.path().join("builders").join(&builder.name);
    let worker = Arc::new(Worker {
        name: builder.name.clone(),
        seed: plan.seed,
        packages: plan.packages.clone(),
        is_flaky: plan.again != Again::Never,
        runs: Arc::clone(runs),
        story: story.clone(),
    });
    let (seed, password, plan) = (plan.seed, plan.password, builder.clone());
    sim.host(builder.name.as_str(), move || {
        let (work, worker, plan) = (work.clone(), Arc::clone(&worker), plan.clone());
        async move {
            let mut config = Config::new(registration(&plan.name, &plan.targets, plan.slots)?);
            if let Some(password) = password {
                config.access = Access::plaintext(Secret::Password(password.into()), None);
            }
            config.log_limit = 50_000;
            let connector = ToServer(Mutex::new(Random::new(seed, &plan.name)));
            let work_dir = Arc::new(WorkDir::open(&work)?);
            let (_signals, never) = mpsc::channel(1);
            moji_client::run::run(config, connector, worker, work_dir, never).await?;
            Ok(())
        }
    });
}
