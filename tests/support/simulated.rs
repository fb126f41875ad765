//! Servers and builders without sockets, Mock and a real clock: the real server over connections in
//! memory, small packages, and folders for them.
//!
//! Nothing here waits in real time. With a paused clock the file system is still real: while a
//! blocking task looks at it, the clock stands still.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, bail};
use moji_proto::{Registration, Resources, Sha256};
use moji_server::Peer as Caller;
use moji_server::folders::Folders;
use moji_server::metadata::Maker;
use moji_server::record::BuildRecord;
use moji_server::room::FreeSpace;
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use super::peer::{Peer, ScriptedBuilder, ScriptedServer, Who, manifest, server_secret};

/// A temporary folder, in memory where there is one: what is tested is not the disk.
///
/// # Errors
/// When none can be made.
pub fn scratch() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("moji-test-")
        .tempdir_in("/dev/shm")
        .or_else(|_| tempfile::Builder::new().prefix("moji-test-").tempdir())
}

/// An SRPM as far as its headers go, with `payload` bytes behind them.
pub fn srpm(name: &str, version: &str, release: &str, payload: usize) -> Vec<u8> {
    package("noarch", [name, version, release], None, &pattern(payload), Vec::new())
}

/// An SRPM with what people write into one: what it needs (`name` or `name >= version`), what it becomes, and a
/// description and a list of changes as long as usual.
pub fn srpm_with_needs([name, version, release]: [&str; 3], needs: &[String], becomes: &[String]) -> Vec<u8> {
    const CHANGES: u32 = 40;
    let strings = |texts: Vec<&str>| {
        let bytes = texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
        (8, texts.len() as u32, bytes)
    };
    let numbers = |numbers: Vec<u32>| {
        let count = numbers.len() as u32;
        (4, count, numbers.into_iter().flat_map(u32::to_be_bytes).collect())
    };
    let parts: Vec<_> = needs.iter().map(|need| need.split_once(" >= ").unwrap_or((need, ""))).collect();
    let at_least = |version: &str| if version.is_empty() { 0 } else { 4 | 8 };
    let became = format!("{version}-{release}");
    let entries = vec![
        (1005, (9, 1, [&pattern(1_000)[..], b"\0"].concat())),
        (1047, strings(becomes.iter().map(String::as_str).collect())),
        (1048, numbers(parts.iter().map(|(_, version)| at_least(version)).collect())),
        (1049, strings(parts.iter().map(|(name, _)| *name).collect())),
        (1050, strings(parts.iter().map(|(_, version)| *version).collect())),
        (1080, numbers((0..CHANGES).map(|n| 1_700_000_000 - n * 1_000_000).collect())),
        (1081, strings(vec!["Some Body <somebody@example.org> - 1.2.3-4"; CHANGES as usize])),
        (1082, strings(vec!["- rebuilt for what all of the others were rebuilt for"; CHANGES as usize])),
        (1112, numbers(vec![8; becomes.len()])),
        (1113, strings(vec![&became; becomes.len()])),
    ];
    package("noarch", [name, version, release], None, &pattern(500), entries)
}

/// A binary RPM of the SRPM `source`, for `noarch`.
pub fn rpm(name: &str, version: &str, release: &str, source: &str, payload: usize) -> Vec<u8> {
    rpm_for("noarch", name, version, release, source, payload)
}

/// The same for an architecture.
pub fn rpm_for(
    arch: &str,
    name: &str,
    version: &str,
    release: &str,
    source: &str,
    payload: usize,
) -> Vec<u8> {
    package(arch, [name, version, release], Some(source), &pattern(payload), Vec::new())
}

/// The same for `noarch`, with a list of files, as many as wanted: its header is as long as that of a
/// package that somebody has built.
pub fn rpm_with_files(
    [name, version, release]: [&str; 3],
    source: &str,
    payload: usize,
    files: usize,
) -> Vec<u8> {
    let strings = |one: &dyn Fn(usize) -> String| {
        let bytes = (0..files).flat_map(|n| [one(n).as_bytes(), b"\0"].concat()).collect();
        (8, files as u32, bytes)
    };
    let zeros = |width: usize| vec![0; width * files];
    let list = vec![
        (1028, (4, files as u32, zeros(4))),
        (1030, (3, files as u32, zeros(2))),
        (1034, (4, files as u32, zeros(4))),
        (1035, strings(&|n| Sha256::of(&n.to_be_bytes()).to_string())),
        (1039, strings(&|_| "root".into())),
        (1040, strings(&|_| "root".into())),
        (1116, (4, files as u32, zeros(4))),
        (1117, strings(&|n| format!("a-file-with-a-name-{n}"))),
        (1118, (8, 1, format!("/usr/share/{name}/\0").into_bytes())),
    ];
    package("noarch", [name, version, release], Some(source), &pattern(payload), list)
}

/// The least that a build of [`Site::put_srpm`]'s `<name>-1-1.src.rpm` brings, under the same name: the
/// SRPM, rebuilt. `content` tells one from another.
pub fn built(name: &str, content: &[u8]) -> Vec<u8> {
    package("noarch", [name, "1", "1"], None, content, Vec::new())
}

fn pattern(length: usize) -> Vec<u8> {
    // No zeros: they have a meaning of their own at the start of a file.
    let pattern: Vec<u8> = (1..=251).collect();
    let mut bytes: Vec<u8> = pattern.iter().cycle().take(length % 251).copied().collect();
    bytes.extend(pattern.repeat(length / 251));
    bytes
}

/// What stands before the payload of a `noarch` RPM: for one whose payload is too long to be held in memory.
pub fn rpm_head(nvr: [&str; 3], source: &str, payload: usize, digest: Sha256) -> Vec<u8> {
    head("noarch", nvr, Some(source), (payload, digest), Vec::new())
}

/// `more` are entries of its header beside the usual ones.
fn package(arch: &str, nvr: [&str; 3], source: Option<&str>, payload: &[u8], more: Vec<Entry>) -> Vec<u8> {
    let mut bytes = head(arch, nvr, source, (payload.len(), Sha256::of(payload)), more);
    bytes.extend(payload);
    bytes
}

fn head(
    arch: &str,
    [name, version, release]: [&str; 3],
    source: Option<&str>,
    (length, digest): (usize, Sha256),
    more: Vec<Entry>,
) -> Vec<u8> {
    let text = |text: &str| (6, 1, [text.as_bytes(), b"\0"].concat());
    let mut entries = vec![
        (1000, text(name)),
        (1001, text(version)),
        (1002, text(release)),
        (1004, (9, 1, b"a summary\0".to_vec())),
        (1009, (4, 1, 4711_u32.to_be_bytes().to_vec())),
        (1022, text(arch)),
    ];
    match source {
        Some(source) => entries.push((1044, text(source))),
        None => entries.push((1106, (4, 1, 1_u32.to_be_bytes().to_vec()))),
    }
    entries.push((5092, (8, 1, format!("{digest}\0").into_bytes())));
    entries.extend(more);
    let header = section(&entries);
    let size = (header.len() + length) as u32;
    let digest = text(&Sha256::of(&header).to_string());
    let mut bytes = vec![0xed, 0xab, 0xee, 0xdb, 3, 0, 0, u8::from(source.is_none())];
    bytes.resize(78, 0);
    bytes.extend([0, 5]);
    bytes.resize(96, 0);
    bytes.extend(section(&[(273, digest), (1000, (4, 1, size.to_be_bytes().to_vec()))]));
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(header);
    bytes
}

/// Tag, and type, count and bytes of its value.
type Entry = (u32, (u32, u32, Vec<u8>));

fn section(entries: &[Entry]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, (kind, count, value)) in entries {
        data.resize(
            usize::next_multiple_of(
                data.len(),
                match kind {
                    3 => 2,
                    4 => 4,
                    _ => 1,
                },
            ),
            0,
        );
        for word in [*tag, *kind, data.len() as u32, *count] {
            index.extend(word.to_be_bytes());
        }
        data.extend(value);
    }
    let mut bytes = vec![0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
    bytes.extend((entries.len() as u32).to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(index);
    bytes.extend(data);
    bytes
}

/// The four folders of a farm in one temporary one.
#[derive(Debug)]
pub struct Site {
    /// The folders.
    pub folders: Folders,
    at: TempDir,
}

impl Site {
    /// Empty folders.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new() -> io::Result<Self> {
        let at = scratch()?;
        let folder = |name: &str| {
            let path = at.path().join(name);
            fs::create_dir(&path).map(|()| path)
        };
        let folders = Folders {
            source: folder("source")?,
            working: folder("working")?,
            finished: folder("finished")?,
            repo: folder("repo")?,
        };
        Ok(Self { folders, at })
    }

    /// The folder that the four are in.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// Puts a file into SOURCE, whole at once, and old enough to be taken at the next look. `path`
    /// is below SOURCE.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let (part, to) = (self.at.path().join("part"), self.folders.source.join(path));
        fs::write(&part, content)?;
        fs::File::options()
            .write(true)
            .open(&part)?
            .set_modified(SystemTime::now() - Duration::from_secs(3600))?;
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::rename(part, to)
    }

    /// Puts `<name>-1-1.src.rpm` into SOURCE.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_srpm(&self, name: &str) -> io::Result<()> {
        self.put(&format!("{name}-1-1.src.rpm"), &srpm(name, "1", "1", 3_000))
    }

    /// SRPMs in SOURCE, below it, sorted.
    pub fn source(&self) -> Vec<String> {
        srpms_in(&self.folders.source)
    }

    /// SRPMs in WORKING.
    pub fn working(&self) -> Vec<String> {
        srpms_in(&self.folders.working)
    }

    /// SRPMs in FINISHED.
    pub fn finished(&self) -> Vec<String> {
        srpms_in(&self.folders.finished)
    }

    /// What is staged: a folder for each attempt.
    pub fn staged(&self) -> Vec<String> {
        names_in(&self.folders.attempts())
    }

    /// `build.json` in a folder below REPO.
    pub fn record(&self, folder: &str) -> Option<BuildRecord> {
        let json = fs::read(self.folders.repo.join(folder).join("build.json")).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// The names in a folder below REPO.
    pub fn published(&self, folder: &str) -> Vec<String> {
        let mut names = names_in(&self.folders.repo.join(folder));
        // Not of any build: it comes whenever nothing moves.
        names.retain(|name| !name.starts_with("report."));
        names
    }
}

/// The names in a folder, sorted; none when it is not there.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn srpms_in(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        if name.ends_with(".src.rpm") {
            found.push(name);
        } else if path.is_dir() && !name.starts_with('.') {
            let inner = names_in(&path).into_iter().filter(|inner| inner.ends_with(".src.rpm"));
            found.extend(inner.map(|inner| format!("{name}/{inner}")));
        }
    }
    found
}

/// Connections that a test makes by hand.
#[derive(Debug)]
pub struct Connections(mpsc::UnboundedReceiver<(DuplexStream, Caller)>);

impl moji_server::Listener for Connections {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Caller)> {
        match self.0.recv().await {
            Some(connection) => Ok(connection),
            None => std::future::pending().await,
        }
    }
}

/// The real server over temporary folders and connections in memory.
#[derive(Debug)]
pub struct TestServer {
    /// Its folders.
    pub site: Site,
    /// Ends it.
    pub shutdown: CancellationToken,
    password: Option<String>,
    connect: mpsc::UnboundedSender<(DuplexStream, Caller)>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// How the servers of these tests run: no inotify and no `createrepo_c`, because both live on the
/// real clock.
pub fn server_config(folders: Folders) -> moji_server::run::Config {
    moji_server::run::Config {
        folders,
        password: None,
        plaintext: true,
        heartbeat: Duration::from_secs(10),
        dead_after: Duration::from_secs(30),
        grace: Duration::from_secs(10),
        rules: Default::default(),
        patience: Duration::from_secs(60),
        min_free: 0,
        free_space: FreeSpace::of_the_disk(),
        createrepo: PathBuf::from("/nonexistent/createrepo_c"),
        metadata: Maker::Native,
        log_limit: 1 << 20,
        limits: moji_server::Limits::default(),
        watch: false,
        rescan: Duration::from_secs(1),
        keep_generations: Duration::from_secs(2 * 24 * 60 * 60),
        http: None,
        outgoing: Vec::new(),
        repository_urls: moji_server::repository_url::RepositoryUrls::default(),
    }
}

impl TestServer {
    /// A server over `site`; `adjust` changes how it runs.
    pub fn start(site: Site, adjust: impl FnOnce(&mut moji_server::run::Config)) -> Self {
        let mut config = server_config(site.folders.clone());
        adjust(&mut config);
        let (connect, connections) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let password = config.password.clone();
        let running = moji_server::run::run(config, Connections(connections), shutdown.clone());
        Self { site, password, shutdown, connect, task: tokio::spawn(running) }
    }

    /// The usual server over empty folders.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self::start(Site::new()?, |_| {}))
    }

    /// The client's end of a new connection, on which nothing was said yet.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn connect(&self) -> anyhow::Result<DuplexStream> {
        self.connect_as(Caller::named("a test"))
    }

    /// The same from an address, `192.0.2.1:5`.
    ///
    /// # Errors
    /// When it is none, or the server has ended.
    pub fn connect_from(&self, address: &str) -> anyhow::Result<DuplexStream> {
        self.connect_as(Caller::at(address.parse()?))
    }

    fn connect_as(&self, peer: Caller) -> anyhow::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.connect.send((theirs, peer)).map_err(|_| anyhow!("the server has ended"))?;
        Ok(ours)
    }

    /// A builder that was let in.
    ///
    /// # Errors
    /// When it was not.
    pub async fn builder(&self, name: &str, targets: &[&str], slots: u16) -> anyhow::Result<ScriptedBuilder> {
        Peer::enter(self.connect()?, registration(name, targets, slots)?, self.password.as_deref()).await
    }

    /// Waits, on tokio's clock, until something is so.
    ///
    /// # Errors
    /// When it does not become so within some minutes.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Site) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(600);
        while !is_so(&self.site) {
            if Instant::now() > end {
                bail!("never: {what}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Stops the server and waits until it has ended.
    ///
    /// # Errors
    /// When it failed.
    pub async fn stop(self) -> anyhow::Result<Site> {
        self.shutdown.cancel();
        self.task.await??;
        Ok(self.site)
    }
}

/// What a builder says of itself.
///
/// # Errors
/// When a name is none.
pub fn registration(name: &str, targets: &[&str], slots: u16) -> anyhow::Result<Registration> {
    let targets: Result<_, _> = targets.iter().map(|target| target.parse()).collect();
    let (arch, software) = ("aarch64".into(), "a test".into());
    let resources = Resources { cores: 2, memory: 4 << 30, disk: 50 << 30 };
    Ok(Registration {
        name: name.parse()?,
        targets: targets?,
        slots,
        arch,
        software,
        resources,
        tags: Vec::new(),
    })
}
