//! A farm of real processes: `moji-server` and `moji-client` over real sockets, hostmock in place
//! of Mock, everything in one temporary folder.
//!
//! Nothing here sleeps to let something happen: a test waits for a line of a log or for a
//! condition, both with a deadline. When a test fails, the logs of all programs are printed; when
//! it ends, whatever of its processes is left is killed.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use moji_server::record::BuildRecord;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// No condition takes this long unless it never comes true.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What all builders of a test build for, unless it says otherwise.
pub const TARGET: &str = "here";

/// The time. Tests of real processes run on the real clock.
#[expect(clippy::disallowed_methods, reason = "real processes, real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass, where that is what is tested ("within a second", a slow copy). Not for waiting
/// until something has happened: that is [`wait_for`].
#[expect(clippy::disallowed_methods, reason = "real processes, real time")]
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Looks until there is something, and gives it.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        let_pass(Duration::from_millis(10));
    }
}

/// Looks until something is true.
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait_for(what, || look().then_some(()));
}

/// The repository's top folder.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The script that stands for Mock.
pub fn hostmock() -> PathBuf {
    top().join("scripts/hostmock")
}

/// A program of this workspace, beside the test's own executable. Panics when it is not there or
/// older than its sources: testing yesterday's program is worse than not testing.
pub fn program(name: &str) -> PathBuf {
    const BUILD: &str = "run scripts/test, or cargo build --workspace --bins --all-features";
    let executable = std::env::current_exe().unwrap();
    let path = executable.ancestors().nth(2).unwrap().join(name);
    let built = fs::metadata(&path).and_then(|data| data.modified());
    let Ok(built) = built else { panic!("{} is not there: {BUILD}", path.display()) };
    // What the program was made from, as cargo wrote it down: `program: source source …`.
    let sources = fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    for source in sources.split_whitespace().skip(1) {
        let changed = fs::metadata(source).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        assert!(changed <= built, "{} is older than {source}: {BUILD}", path.display());
    }
    path
}

/// What a program wrote to its standard error so far.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running program with its log. Killed when it is dropped; then its log is printed when the test
/// has failed, or when `MOJI_SHOW_LOGS` is set.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: Arc<Log>,
}

impl Program {
    /// Starts it; its standard error is its log, its standard output is thrown away.
    pub fn start(name: &str, command: Command) -> Self {
        Self::start_with(name, command, Stdio::null())
    }

    /// The same with a standard input.
    pub fn start_with(name: &str, mut command: Command, input: Stdio) -> Self {
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (log, stderr) = (Arc::new(Log::default()), child.stderr.take().unwrap());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                writer.lock().0.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                writer.more.notify_all();
                line.clear();
            }
            writer.lock().1 = true;
            writer.more.notify_all();
        });
        Self { name: name.to_owned(), child, log }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.log.lock().0.clone()
    }

    /// How many lines there are: a mark for [`Self::wait_line_after`].
    pub fn mark(&self) -> usize {
        self.log.lock().0.len()
    }

    /// How many lines hold a text.
    pub fn count(&self, text: &str) -> usize {
        self.log.lock().0.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line that holds `text`, and gives it.
    pub fn wait_line(&self, text: &str) -> String {
        self.wait_line_after(0, text)
    }

    /// The same among the lines after a mark.
    pub fn wait_line_after(&self, mark: usize, text: &str) -> String {
        self.wait_any_after(mark, &[text])
    }

    /// The same for a line that holds any of the texts.
    pub fn wait_any_after(&self, mark: usize, texts: &[&str]) -> String {
        let begin = now();
        let mut log = self.log.lock();
        loop {
            let wanted = |line: &&String| texts.iter().any(|text| line.contains(text));
            if let Some(line) = log.0.iter().skip(mark).find(wanted) {
                return line.clone();
            }
            let left = DEADLINE.saturating_sub(begin.elapsed());
            if left.is_zero() || log.1 {
                let why =
                    if log.1 { "has ended without".to_owned() } else { format!("waited {DEADLINE:?} for") };
                drop(log);
                panic!("{}: {why} a line with {texts:?}", self.name);
            }
            log = self.log.more.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it ends by itself, and until its log is complete.
    pub fn wait_end(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let status = wait_for(&format!("the end of {name}"), || self.child.try_wait().unwrap());
        wait_until(&format!("the end of the log of {name}"), || self.log.lock().1);
        status
    }

    /// Waits until it is killed by SIGKILL, which nothing here has sent: by a crash point.
    pub fn wait_crash(&mut self) {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.wait_end();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{} ended with {status}", self.name);
    }

    /// As [`Self::wait_end`]; gives its exit code.
    pub fn wait_code(&mut self) -> i32 {
        let status = self.wait_end();
        status.code().unwrap_or_else(|| panic!("{} ended with {status}", self.name))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits a moment for the rest of the log of a program that has ended; processes that it left behind
    /// may keep that open.
    pub fn wait_log(&self) {
        let begin = now();
        while !self.log.lock().1 && begin.elapsed() < Duration::from_secs(1) {
            let_pass(Duration::from_millis(5));
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() || std::env::var_os("MOJI_SHOW_LOGS").is_some() {
            let lines = self.lines();
            eprintln!("---- log of {} ({} lines)", self.name, lines.len());
            for line in lines.iter().skip(lines.len().saturating_sub(400)) {
                eprintln!("{line}");
            }
        }
    }
}

/// A spec file whose build runs a script; it has one empty folder to package.
pub fn tiny_spec(name: &str, build: &str) -> String {
    format!(
        "Name: {name}\nVersion: 1\nRelease: 1%{{?dist}}\nSummary: A package for tests\nLicense: MIT\n\
         BuildArch: noarch\n%description\nA package for tests.\n%prep\n%build\n{build}\n%install\n\
         mkdir -p %{{buildroot}}/usr/share/{name}\n%files\n/usr/share/{name}\n"
    )
}

/// The file name of the SRPM of a [`tiny_spec`].
pub fn tiny(name: &str) -> String {
    format!("{name}-1-1.src.rpm")
}

/// Four folders, a server, clients by name, and everything they start.
#[derive(Debug)]
pub struct Farm {
    /// The server, while it runs.
    pub server: Option<Program>,
    /// The clients that were started, ended ones too until they are started again.
    pub clients: BTreeMap<String, Program>,
    /// Where the server listens; the same after a restart.
    pub address: Option<SocketAddr>,
    root: TempDir,
    /// Where the four folders are.
    folders: PathBuf,
    /// Where clients work.
    builders: PathBuf,
}

impl Default for Farm {
    fn default() -> Self {
        Self::new()
    }
}

impl Farm {
    /// Folders only; the four are made by the server.
    pub fn new() -> Self {
        Self::apart(None, None)
    }

    /// The same with the four folders, or with the work folders of all clients, elsewhere: on small
    /// disks, for instance, each of one farm only.
    pub fn apart(folders: Option<&Path>, builders: Option<&Path>) -> Self {
        let root = tempfile::Builder::new().prefix("moji-farm-").tempdir().unwrap();
        let [folders, builders] =
            [folders, builders].map(|elsewhere| elsewhere.unwrap_or(root.path()).to_owned());
        for folder in ["configs", "specs", "gates", "home"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let farm = Self { server: None, clients: BTreeMap::new(), address: None, root, folders, builders };
        farm.write_config(TARGET);
        farm
    }

    /// A farm with its server.
    pub fn start(arguments: &[&str]) -> Self {
        let mut farm = Self::new();
        farm.start_server(arguments);
        farm
    }

    /// Adds a Mock config: a target.
    pub fn write_config(&self, target: &str) {
        let arch = rustix::system::uname().machine().to_string_lossy().into_owned();
        let config = format!("config_opts['target_arch'] = '{arch}'\nconfig_opts['dist'] = '.t3'\n");
        fs::write(self.config(target), config).unwrap();
    }

    /// A path in the farm's own folder.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    fn config(&self, target: &str) -> PathBuf {
        self.path(format!("configs/{target}.cfg"))
    }

    /// A path in SOURCE.
    pub fn source(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folders.join("source").join(below)
    }

    /// A path in WORKING.
    pub fn working(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folders.join("working").join(below)
    }

    /// A path in FINISHED.
    pub fn finished(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folders.join("finished").join(below)
    }

    /// A path in REPO.
    pub fn repo(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folders.join("repo").join(below)
    }

    /// The server's address; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// A command that sees nothing of who runs the tests.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MOJI_") || name == "RUST_LOG" || name == "JOURNAL_STREAM" {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path("home")).current_dir(self.root.path());
        command
    }

    /// `moji-server` with its four folders and `arguments`.
    pub fn server_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&program("moji-server"));
        command.args([self.source(""), self.working(""), self.finished(""), self.repo("")]).args(arguments);
        if !arguments.contains(&"--http") {
            // Farms of other tests would be in the way.
            command.args(["--http", "off"]);
        }
        if !arguments.contains(&"--min-free") {
            // The disks of tests are small.
            command.args(["--min-free", "0"]);
        }
        command
    }

    /// `moji-server fsck` over the same folders.
    pub fn fsck_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&program("moji-server"));
        command.arg("fsck").args(arguments);
        command.args([self.source(""), self.working(""), self.finished(""), self.repo("")]);
        command
    }

    /// `moji-server credential` for the same server.
    pub fn credential_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&program("moji-server"));
        command.arg("credential").args(arguments).arg("--working").arg(self.working(""));
        command
    }

    /// Starts the server (again), and waits until it listens. A second start listens where the
    /// first did.
    pub fn start_server(&mut self, arguments: &[&str]) {
        let listen = self.address.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        let mut command = self.server_command(arguments);
        command.args(["--listen", &listen]);
        self.run_server(command);
    }

    /// The same, and builders are told where they find REPO.
    pub fn start_server_with_repo(&mut self, arguments: &[&str]) {
        let url = self.repo_url();
        let arguments: Vec<_> = ["--repo-url", &url].iter().chain(arguments).copied().collect();
        self.start_server(&arguments);
    }

    /// The URL of REPO.
    pub fn repo_url(&self) -> String {
        format!("file://{}/", self.folders.join("repo").display())
    }

    /// Runs a command that becomes the server, and waits until it listens and has seen its folders.
    pub fn run_server(&mut self, command: Command) {
        let server = Program::start("the server", command);
        let line = server.wait_line("listening on ");
        let address = line.split("listening on ").nth(1).unwrap().split_whitespace().next().unwrap();
        self.address = Some(address.parse().unwrap());
        server.wait_any_after(0, &["SRPMs are queued", " 1 SRPM is queued"]);
        self.server = Some(server);
    }

    /// The running server.
    pub fn server(&self) -> &Program {
        self.server.as_ref().unwrap()
    }

    /// `moji-client` with hostmock, a work folder of its own and `arguments`.
    pub fn client_command(&self, name: &str, arguments: &[&str]) -> Command {
        self.client_command_for(name, TARGET, &self.address().to_string(), arguments)
    }

    /// The same for another target or address.
    pub fn client_command_for(&self, name: &str, target: &str, server: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(&program("moji-client"));
        command.env("HOSTMOCK_BASEDIR", self.builders.join("roots"));
        command.args(["--name", name, "--work-dir"]).arg(self.work_dir(name));
        if !arguments.contains(&"--mock") {
            command.arg("--mock").arg(hostmock());
        }
        if !arguments.contains(&"--min-free") {
            command.args(["--min-free", "0"]);
        }
        command.args(arguments).arg(server).arg(self.config(target));
        command
    }

    /// Where a client works.
    pub fn work_dir(&self, name: &str) -> PathBuf {
        self.builders.join(format!("work-{name}"))
    }

    /// Starts a client (again), and waits until the server has let it in.
    pub fn start_client(&mut self, name: &str, arguments: &[&str]) {
        let command = self.client_command(name, arguments);
        self.run_client(name, command);
    }

    /// Runs a command that becomes a client, and waits until the server has let it in.
    pub fn run_client(&mut self, name: &str, command: Command) {
        let client = Program::start(&format!("client {name}"), command);
        client.wait_line("connected to ");
        self.clients.insert(name.to_owned(), client);
    }

    /// A client.
    pub fn client(&self, name: &str) -> &Program {
        &self.clients[name]
    }

    /// A client, to wait for its end or kill it.
    pub fn client_mut(&mut self, name: &str) -> &mut Program {
        self.clients.get_mut(name).unwrap()
    }

    /// Makes SRPMs with `scripts/make-srpm`, outside of SOURCE.
    pub fn make_srpms(&self, specs: &[PathBuf], arguments: &[&str]) -> Vec<PathBuf> {
        let mut command = Command::new(top().join("scripts/make-srpm"));
        command.args(specs).args(arguments).arg("-o").arg(self.path("srpms"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
    }

    /// Makes the SRPMs of `tests/specs/`.
    pub fn example_srpms(&self, names: &[&str], arguments: &[&str]) -> Vec<PathBuf> {
        let specs: Vec<_> = names.iter().map(|name| top().join(format!("tests/specs/{name}.spec"))).collect();
        self.make_srpms(&specs, arguments)
    }

    /// Makes the SRPM of a spec file.
    pub fn srpm_of(&self, name: &str, spec: &str) -> PathBuf {
        let path = self.path(format!("specs/{name}.spec"));
        fs::write(&path, spec).unwrap();
        self.make_srpms(&[path], &[]).remove(0)
    }

    /// Makes SRPMs whose builds run scripts.
    pub fn tiny_srpms(&self, packages: &[(&str, &str)]) -> Vec<PathBuf> {
        let write = |(name, build): &(&str, &str)| {
            let path = self.path(format!("specs/{name}.spec"));
            fs::write(&path, tiny_spec(name, build)).unwrap();
            path
        };
        let specs: Vec<_> = packages.iter().map(write).collect();
        self.make_srpms(&specs, &[])
    }

    /// Moves an SRPM into SOURCE.
    pub fn queue(&self, srpm: &Path) {
        let to = self.source(srpm.file_name().unwrap());
        match fs::rename(srpm, &to) {
            // Half a copy is not taken.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                fs::copy(srpm, to).unwrap();
                fs::remove_file(srpm).unwrap();
            }
            moved => moved.unwrap(),
        }
    }

    /// Queues an SRPM that builds at once.
    pub fn queue_quick(&self, name: &str) {
        for srpm in self.tiny_srpms(&[(name, "echo quick")]) {
            self.queue(&srpm);
        }
    }

    /// An SRPM whose build says `waiting at the gate` and then waits until [`Self::open`].
    pub fn gated_srpm(&self, name: &str) -> PathBuf {
        let gate = self.gate(name);
        let script = format!(
            "echo waiting at the gate\nwhile ! test -e {}; do sleep 0.02; done\necho through the gate",
            gate.display()
        );
        self.tiny_srpms(&[(name, &script)]).remove(0)
    }

    /// Queues a [`Self::gated_srpm`].
    pub fn queue_gated(&self, name: &str) {
        self.queue(&self.gated_srpm(name));
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.path(format!("gates/{name}"))
    }

    /// Lets the builds of a gated SRPM go on.
    pub fn open(&self, name: &str) {
        fs::write(self.gate(name), "").unwrap();
    }

    /// Waits until a gated build of this client waits at its gate; gives the attempt's folder.
    pub fn wait_at_gate(&self, client: &str, name: &str) -> PathBuf {
        wait_for(&format!("{client} to build {name}"), || {
            self.attempts_of(client).into_iter().find(|attempt| {
                let log = fs::read_to_string(attempt.join("result/build.log")).unwrap_or_default();
                attempt.join(tiny(name)).exists() && log.contains("waiting at the gate")
            })
        })
    }

    /// What waits in a builder's outbox.
    pub fn parcels_of(&self, name: &str) -> Vec<PathBuf> {
        folders(&self.work_dir(name).join("outbox"))
    }

    /// The folders of a client's running attempts, each with its SRPM and `result/`.
    pub fn attempts_of(&self, client: &str) -> Vec<PathBuf> {
        let slots = folders(&self.work_dir(client)).into_iter();
        slots.filter(|slot| !slot.ends_with("outbox")).flat_map(|slot| folders(&slot)).collect()
    }

    /// Waits until the server has taken notice of a tiny SRPM.
    pub fn wait_queued(&self, name: &str) {
        self.server().wait_line(&format!(" {} is queued", tiny(name)));
    }

    /// Waits until an SRPM is in FINISHED, and in neither other folder.
    pub fn wait_finished(&self, srpm: &str) {
        wait_until(&format!("{srpm} in FINISHED"), || self.finished(srpm).exists());
        assert_eq!(self.where_is(srpm), ["FINISHED"]);
    }

    /// In which of the three folders an SRPM is.
    pub fn where_is(&self, srpm: &str) -> Vec<&'static str> {
        [("SOURCE", self.source(srpm)), ("WORKING", self.working(srpm)), ("FINISHED", self.finished(srpm))]
            .into_iter()
            .filter(|(_, path)| path.symlink_metadata().is_ok())
            .map(|(name, _)| name)
            .collect()
    }

    /// What stands in `build.json` of a published build.
    pub fn build_record(&self, below_repo: &str) -> BuildRecord {
        read_record(&self.repo(below_repo).join("build.json"))
    }

    /// What stands in FINISHED about an SRPM that failed.
    pub fn failure_record(&self, srpm: &str) -> BuildRecord {
        read_record(&self.finished(format!("{srpm}.failed.json")))
    }

    /// Which SRPMs went to which builder, in this order, as the server said.
    pub fn hand_outs(&self) -> Vec<(String, String)> {
        let lines = self.server().lines();
        let words = lines.iter().filter_map(|line| line.split_once(" goes to "));
        words
            .map(|(before, after)| {
                (last_word(before).to_owned(), after.split_whitespace().next().unwrap().to_owned())
            })
            .collect()
    }

    fn processes(&self) -> Vec<(u32, String)> {
        processes_of(&[self.root.path(), &self.builders])
    }

    /// What runs of Mock and of builds, as `pid command line`: everything whose environment names
    /// this farm's folder, except the clients themselves.
    pub fn build_processes(&self) -> Vec<String> {
        let clients: Vec<u32> = self.clients.values().map(Program::id).collect();
        let mut found = self.processes();
        // The server reads what is new with createrepo_c whenever something is.
        found.retain(|(pid, command)| !clients.contains(pid) && !command.starts_with("createrepo_c "));
        found.into_iter().map(|(pid, command)| format!("{pid} {command}")).collect()
    }

    /// Waits until no process of a build is left.
    pub fn wait_no_build_processes(&self) {
        wait_for("the end of all processes of builds", || self.build_processes().is_empty().then_some(()));
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.server = None;
        self.clients.clear();
        // What clients left behind, hostmock's builds among it: each round may find new children.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for (pid, _) in left {
                if let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let_pass(Duration::from_millis(10));
        }
        eprintln!("processes of {} do not die", self.root.path().display());
    }
}

/// Processes whose environment names one of the folders. Zombies have none.
fn processes_of(folders: &[&Path]) -> Vec<(u32, String)> {
    let needles: Vec<_> = folders.iter().map(|folder| folder.as_os_str().as_encoded_bytes()).collect();
    let names = |environment: &[u8], needle: &[u8]| environment.windows(needle.len()).any(|at| at == needle);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let is_server =
            || fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.ends_with("moji-server"));
        if needles.iter().any(|needle| names(&environment, needle)) && !is_server() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

fn read_record(path: &Path) -> BuildRecord {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn last_word(text: &str) -> &str {
    text.split_whitespace().next_back().unwrap_or_default()
}

/// The names in a folder, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs a program to its end: its exit code and its standard error.
pub fn outcome_of(command: Command) -> (i32, String) {
    let mut program = Program::start("a program", command);
    let code = program.wait_code();
    (code, program.lines().join("\n"))
}

/// Whether a folder is on another file system than another.
///
/// # Errors
/// When one cannot be looked at.
pub fn are_apart(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(one)?.dev() != fs::metadata(other)?.dev())
}
