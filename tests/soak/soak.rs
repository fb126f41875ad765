//! The farm that is soaked: SRPMs in, faults on, and programs that end are started again, as an init
//! system would do it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moji_server::record::BuildRecord;
use moji_tests::support::disk::SmallDisk;
use moji_tests::support::processes::{Farm, Program, TARGET, hostmock, let_pass, names_in, now};
use moji_tests::support::proxy::Proxy;
use rustix::process::Signal;

use crate::faults::{Fault, Remedy};
use crate::random::Random;
use crate::runs::{self, uptime};
use crate::supply::{Kind, Srpm, supply};

const OPTIONS: [&str; 6] = ["--grace", GRACE, "--heartbeat", "500ms", "--dead-after", "3s"];
/// Whoever is away for longer may find his SRPM given to another, finished or not.
const GRACE: &str = "30s";
/// How many SRPMs wait in SOURCE.
const QUEUED: usize = 8;
/// For so long nothing may be finished at the end: longer than any rest of server and client together.
const PATIENCE: Duration = Duration::from_secs(150);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) faults_for: Duration,
    /// Of each client.
    pub(crate) slots: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Server,
    Client(usize),
}

/// A disk, and when it was full, in seconds of uptime.
pub(crate) struct Disk {
    disk: SmallDisk,
    pub(crate) full_since: Option<f64>,
    pub(crate) was_full: Vec<(f64, f64)>,
}

impl Disk {
    fn mount(bytes: u64) -> Option<Self> {
        Some(Self { disk: SmallDisk::mount(bytes)?, full_since: None, was_full: Vec::new() })
    }

    fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(crate) fn fill(&mut self, left: u64) {
        self.full_since = Some(uptime());
        self.disk.fill(left);
    }

    pub(crate) fn make_room(&mut self) {
        if let Some(since) = self.full_since.take() {
            self.disk.make_room();
            self.was_full.push((since, uptime()));
        }
    }
}

/// A program that was told to end, and when it is to be started again.
struct Leaving {
    told: Signal,
    back_at: Instant,
}

pub(crate) struct Soak {
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) remedies: Vec<(Instant, Remedy)>,
    leaving: BTreeMap<Who, Leaving>,
    /// All SRPMs that were queued.
    pub(crate) queued: BTreeMap<String, Kind>,
    pub(crate) cancelled: BTreeSet<String>,
    pub(crate) withdrawn: BTreeSet<String>,
    /// SRPMs that were held, each time.
    pub(crate) held: Vec<String>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// What was not in the outbox when its client was killed, by attempt.
    pub(crate) unpacked: BTreeSet<String>,
    /// What programs that have ended had logged, by name.
    pub(crate) logs: BTreeMap<String, Vec<String>>,
    pub(crate) problems: Vec<String>,
    /// What was done, with the time.
    journal: Vec<String>,
    pub(crate) aside: PathBuf,
    /// Before the disks: it ends what has files open there.
    pub(crate) farm: Farm,
    pub(crate) servers_disk: Option<Disk>,
    pub(crate) builders_disk: Option<Disk>,
}

impl Soak {
    /// A farm with server and clients, all running.
    pub(crate) fn new(settings: Settings) -> Self {
        let minutes = settings.faults_for.as_secs() / 60;
        // Builders with less than 128 MiB blame themselves for what fails.
        let servers_disk = Disk::mount((1000 + minutes * 100) << 20);
        let builders_disk = Disk::mount(1 << 30);
        let path = |disk: &Option<Disk>| disk.as_ref().map(|disk| disk.path().to_owned());
        let farm = Farm::apart(path(&servers_disk).as_deref(), path(&builders_disk).as_deref());
        let aside = farm.source("").parent().unwrap().join("aside");
        fs::create_dir(&aside).unwrap();
        let mut soak = Self {
            random: Random::new(settings.seed, "faults"),
            settings,
            proxies: Vec::new(),
            remedies: Vec::new(),
            leaving: BTreeMap::new(),
            queued: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            held: Vec::new(),
            faults: BTreeMap::new(),
            unpacked: BTreeSet::new(),
            logs: BTreeMap::new(),
            problems: Vec::new(),
            journal: Vec::new(),
            aside,
            farm,
            servers_disk,
            builders_disk,
        };
        let mock = runs::wrapper(&soak.farm.path("runs"), &hostmock());
        fs::write(soak.farm.path("mock"), mock).unwrap();
        fs::set_permissions(soak.farm.path("mock"), fs::Permissions::from_mode(0o755)).unwrap();
        soak.farm.start_server(&OPTIONS);
        for client in 0..soak.settings.slots.len() {
            soak.proxies.push(Proxy::new(soak.farm.address()));
            soak.start(Who::Client(client));
        }
        soak
    }

    fn say(&mut self, text: String) {
        self.journal.push(format!("{:.2} {text}", uptime()));
    }

    pub(crate) fn name(who: Who) -> String {
        match who {
            Who::Server => "server".into(),
            Who::Client(number) => format!("t{number}"),
        }
    }

    fn program(&mut self, who: Who) -> Option<&mut Program> {
        match who {
            Who::Server => self.farm.server.as_mut(),
            Who::Client(_) => self.farm.clients.get_mut(&Self::name(who)),
        }
    }

    /// What it was told, as long as it has not been started again.
    pub(crate) fn told(&self, who: Who) -> Option<Signal> {
        self.leaving.get(&who).map(|leaving| leaving.told)
    }

    fn start(&mut self, who: Who) {
        self.say(format!("start {}", Self::name(who)));
        match who {
            Who::Server => self.farm.start_server(&OPTIONS),
            Who::Client(number) => {
                let (name, mock) = (Self::name(who), self.farm.path("mock"));
                let arguments = ["--slots", &self.settings.slots[number], "--mock", mock.to_str().unwrap()];
                let proxy = self.proxies[number].address().to_string();
                let command = self.farm.client_command_for(&name, TARGET, &proxy, &arguments);
                // Not waited for: it may not be let in for a while.
                self.farm.clients.insert(name.clone(), Program::start(&name, command));
            }
        }
    }

    /// Sends a signal to a program that runs.
    pub(crate) fn signal(&mut self, who: Who, signal: Signal) -> bool {
        let back_at = now() + Duration::from_millis(self.random.below(1500));
        let Some(program) = self.program(who) else { return false };
        if program.ended().is_some() {
            return false;
        }
        program.signal(signal);
        if signal == Signal::KILL || signal == Signal::TERM {
            // A second SIGTERM, or a kill while it drains, is told too.
            self.leaving.insert(who, Leaving { told: signal, back_at });
        }
        self.say(format!("{signal:?} to {}", Self::name(who)));
        true
    }

    /// Takes note of programs that have ended, and starts them again.
    fn supervise(&mut self) {
        let clients = (0..self.settings.slots.len()).map(Who::Client);
        for who in clients.chain([Who::Server]) {
            let ended = self.program(who).and_then(Program::ended);
            if let Some(status) = ended {
                self.on_end(who, status);
            }
            let is_gone = self.program(who).is_none();
            if is_gone && self.leaving.get(&who).is_some_and(|leaving| leaving.back_at <= now()) {
                self.leaving.remove(&who);
                self.start(who);
            }
        }
    }

    fn on_end(&mut self, who: Who, status: std::process::ExitStatus) {
        let name = Self::name(who);
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        self.say(format!("{name} ended: {status}"));
        self.collect(who);
        let disk = if who == Who::Server { &self.servers_disk } else { &self.builders_disk };
        let full = disk.as_ref().is_some_and(|disk| disk.full_since.is_some());
        match self.leaving.get(&who) {
            Some(leaving) if killed == (leaving.told == Signal::KILL) && (killed || status.success()) => {}
            // It was killed before it could end.
            Some(_) if killed => {}
            _ if full => {
                let back_at = now() + Duration::from_secs(1);
                self.leaving.insert(who, Leaving { told: Signal::TERM, back_at });
            }
            _ => {
                self.problems.push(format!("{name} ended by itself: {status}"));
                self.leaving.insert(who, Leaving { told: Signal::TERM, back_at: now() });
            }
        }
        if killed && let Who::Client(_) = who {
            self.note_unpacked(&name);
        }
    }

    /// Puts away a program that has ended, with its log.
    fn collect(&mut self, who: Who) {
        let name = Self::name(who);
        let program = match who {
            Who::Server => self.farm.server.take(),
            Who::Client(_) => self.farm.clients.remove(&name),
        };
        if let Some(program) = program {
            program.wait_log();
            self.logs.entry(name).or_default().extend(program.lines());
        }
    }

    /// Attempts of a killed client that were not in its outbox, whole.
    fn note_unpacked(&mut self, client: &str) {
        let work = self.farm.work_dir(client);
        for attempt in self.farm.attempts_of(client) {
            let attempt = attempt.file_name().unwrap().to_string_lossy().into_owned();
            if !work.join("outbox").join(&attempt).join("parcel.json").exists() {
                self.unpacked.insert(attempt);
            }
        }
    }

    /// Queues it; false when there is no room for it now.
    fn queue(&mut self, srpm: &Srpm) -> bool {
        let name = srpm.path.file_name().unwrap().to_string_lossy().into_owned();
        // By way of the disk of SOURCE, because half a copy on a full disk would be a person's trouble.
        let aside = self.aside.join(&name);
        if fs::copy(&srpm.path, &aside).is_err() {
            let _ = fs::remove_file(aside);
            return false;
        }
        fs::remove_file(&srpm.path).unwrap();
        fs::rename(aside, self.farm.source(&name)).unwrap();
        self.queued.insert(name, srpm.kind);
        true
    }

    /// What came to grief three times, with builders that are killed so often, a person has tried again.
    fn retry_held(&mut self) {
        for name in names_in(&self.farm.finished("")) {
            let Some(srpm) = name.strip_suffix(".held.json") else { continue };
            let reason = fs::read_to_string(self.farm.finished(&name)).unwrap_or_default();
            if fs::rename(self.farm.finished(srpm), self.farm.source(srpm)).is_ok() {
                let _ = fs::remove_file(self.farm.finished(&name));
                self.say(format!("{srpm} was held and is tried again: {reason}"));
                self.held.push(srpm.to_owned());
            }
        }
    }

    fn tick(&mut self) {
        let_pass(LOOK);
        self.supervise();
        self.retry_held();
        let (due, later) = std::mem::take(&mut self.remedies).into_iter().partition(|(at, _)| *at <= now());
        self.remedies = later;
        for (_, remedy) in due {
            self.say(format!("end of {remedy:?}"));
            self.end(remedy);
        }
    }

    /// Soaks, and lets everything settle.
    pub(crate) fn run(&mut self) {
        // Logs, metadata and staging want their share of the disk too.
        let big = 200 + self.settings.faults_for.as_secs() * 40 / 60;
        let srpms = supply(&self.farm.path("specs"), self.settings.seed, big << 20);
        // Often enough that each kind comes in a short run, and seldom enough that builds get through.
        let between = if self.settings.faults_for < Duration::from_secs(60) { 900 } else { 3000 };
        let (begin, mut next, mut deck) = (now(), now() + Duration::from_secs(1), Vec::new());
        let mut pending = None;
        while begin.elapsed() < self.settings.faults_for {
            self.tick();
            let waiting = names_in(&self.farm.source("")).iter().filter(|name| !self.is_parked(name)).count();
            if waiting < QUEUED {
                let srpm = pending.take().or_else(|| srpms.try_recv().ok());
                pending = srpm.filter(|srpm| !self.queue(srpm));
            }
            if now() < next {
                continue;
            }
            if deck.is_empty() {
                deck = Fault::ALL.to_vec();
                self.random.shuffle(&mut deck);
            }
            // One that cannot be done now comes a little later.
            for at in (0..deck.len()).rev() {
                let fault = deck[at];
                self.say(format!("{fault:?}"));
                if self.begin(fault) {
                    deck.remove(at);
                    *self.faults.entry(fault).or_default() += 1;
                    break;
                }
                let disks = matches!(fault, Fault::FillServersDisk | Fault::FillBuildersDisk);
                if disks && self.servers_disk.is_none() {
                    deck.remove(at);
                }
            }
            next = now() + Duration::from_millis(between / 3 + self.random.below(between));
        }
        drop(srpms);
        self.settle();
    }

    fn settle(&mut self) {
        self.say("the end of all faults".into());
        for (_, remedy) in std::mem::take(&mut self.remedies) {
            self.end(remedy);
        }
        self.proxies.iter().for_each(Proxy::let_go);
        let (mut left, mut since) = (usize::MAX, now());
        loop {
            self.tick();
            let all_run = self.leaving.is_empty();
            let unfinished = self.unfinished();
            if all_run && unfinished.is_empty() {
                return;
            }
            if unfinished.len() < left {
                (left, since) = (unfinished.len(), now());
            }
            if since.elapsed() > PATIENCE {
                let problem = format!("nothing was finished for {PATIENCE:?}; left: {unfinished:?}");
                return self.problems.push(problem);
            }
        }
    }

    /// SRPMs that are to come to FINISHED, or to be parked.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let names = self.queued.keys().filter(|name| !self.withdrawn.contains(*name));
        names.filter(|name| !self.farm.finished(name).exists() && !self.is_parked(name)).cloned().collect()
    }

    /// Whether an SRPM waits in SOURCE for what nobody has.
    pub(crate) fn is_parked(&self, name: &str) -> bool {
        let record = self.farm.repo(name.trim_end_matches(".src.rpm")).join("build.json");
        let record = fs::read(record).ok().and_then(|json| serde_json::from_slice::<BuildRecord>(&json).ok());
        self.farm.source(name).exists() && record.is_some_and(|record| record.parked)
    }

    /// Ends clients and server as their owners would, and collects their logs.
    pub(crate) fn stop(&mut self) {
        let clients = (0..self.settings.slots.len()).map(Who::Client);
        for who in clients.chain([Who::Server]) {
            let Some(program) = self.program(who) else { continue };
            program.signal(Signal::TERM);
            let status = program.wait_end();
            if !status.success() {
                self.problems.push(format!("{} ended with {status} at SIGTERM", Self::name(who)));
            }
            self.collect(who);
        }
    }

    /// Writes everything that helps to find out what went wrong.
    pub(crate) fn keep_logs(&mut self, folder: &Path) {
        let clients = (0..self.settings.slots.len()).map(Who::Client);
        clients.chain([Who::Server]).for_each(|who| self.collect(who));
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
        for (name, lines) in &self.logs {
            fs::write(folder.join(format!("{name}.log")), lines.join("\n")).unwrap();
        }
        fs::write(folder.join("faults.log"), self.journal.join("\n")).unwrap();
        let _ = fs::copy(self.farm.path("runs"), folder.join("mock-runs.log"));
        keep_results(&self.farm.repo(""), &folder.join("repo"));
        let names = |folder: PathBuf| if folder.exists() { names_in(&folder) } else { Vec::new() };
        let (source, working, finished) =
            (self.farm.source(""), self.farm.working(""), self.farm.finished(""));
        let staged = names(self.farm.working(".moji/attempts"));
        let text = [("SOURCE", names(source)), ("WORKING", names(working)), ("staged", staged)]
            .into_iter()
            .chain([("FINISHED", names(finished)), ("REPO", names(self.farm.repo("")))])
            .map(|(name, names)| format!("{name}:\n  {}\n", names.join("\n  ")));
        fs::write(folder.join("folders.txt"), text.collect::<String>()).unwrap();
    }
}

/// What is told of each build, without the RPMs, and without logs that are long on purpose.
fn keep_results(repo: &Path, folder: &Path) {
    for build in names_in(repo).iter().filter(|build| repo.join(build).is_dir()) {
        for file in names_in(&repo.join(build)).iter().filter(|file| !file.ends_with(".rpm")) {
            let from = repo.join(build).join(file);
            if from.metadata().is_ok_and(|data| data.is_file() && data.len() < 100_000) {
                fs::create_dir_all(folder.join(build)).unwrap();
                fs::copy(&from, folder.join(build).join(file)).unwrap();
            }
        }
    }
}
