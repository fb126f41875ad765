//! What the command line, the environment and the configuration file say, made into one
//! [`Config`]. Command line before environment before file before default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use moji_proto::api::EventKind;
use moji_proto::{DEFAULT_PORT, TargetName};
use serde::Deserialize;

use crate::access;
use crate::access::command::CredentialOptions;
use crate::folders::Folders;
use crate::fsck::command::FsckOptions;
use crate::limits::{Limits, Written};
use crate::metadata::Maker;
use crate::out_of_sight::{self, Again, read_password};
use crate::outgoing::{OutgoingOptions, Written as WrittenOutgoing, WrittenHook, WrittenProgram};
use crate::repository_url::{RepoUrl, RepositoryUrls};
use crate::room::FreeSpace;
use crate::run::Config;
use crate::scheduler::Rules;

const EXAMPLES: &str = "\
Examples:
  Try it out, for builders on this machine only:
    moji-server source working finished repo
  For builders everywhere that know the password:
    moji-server --password-file /etc/moji/password /srv/moji/{source,working,finished,repo}
  A token for one builder, instead of the password (see moji-server credential --help):
    moji-server credential add board-7 --role builder --working /srv/moji/working
  The same from a file (every option can stand there, with its long name):
    moji-server --config /etc/moji/server.toml
  Whether everything is as it should be (see moji-server fsck --help):
    moji-server fsck --config /etc/moji/server.toml

Queue something:          mv foo-1.0-1.src.rpm /srv/moji/source/
Build it before others:   echo foo >> /srv/moji/source/priority.txt
See what is going on:     ls /srv/moji/working

Exit codes:
  0  stopped by SIGTERM or SIGINT; builders keep what they build for the next start
  1  failed while running, or ended at once by a second signal
  2  wrong use: options, configuration file, password
  3  the four folders cannot be used
  4  the address cannot be listened on

RUST_LOG=debug shows more.";

/// Hands SRPMs to builders and publishes what they built as a dnf repository
///
/// SRPMs that are dropped into SOURCE are handed to builders (moji-client) that ask for work, in
/// the order of SOURCE/priority.txt. Results are published in REPO/NVR/ and the dnf metadata in
/// REPO/repodata is kept consistent with them. The four folders must be on one file system; they
/// are created when they are missing.
#[derive(Debug, Parser)]
#[command(name = "moji-server", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Options {
    /// Something else than to serve
    #[command(subcommand)]
    pub command: Option<Command>,

    /// SRPMs that wait; priority.txt in it says what comes first
    source: Option<PathBuf>,
    /// SRPMs that are being built; private state lies in WORKING/.moji
    working: Option<PathBuf>,
    /// SRPMs with a final outcome
    finished: Option<PathBuf>,
    /// What was built, for httpd and dnf
    repo: Option<PathBuf>,
    /// The password of the builders; better use --password-file, because ps shows this one
    password: Option<String>,

    /// Where to listen; without a password or credentials only a loopback address is accepted
    /// [default: port 6789, on all addresses with a password or credentials, else on 127.0.0.1]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Serve pages, an API and REPO (at /repo/) by plain HTTP, read-only and for everybody who can connect;
    /// off: not at all [default: 127.0.0.1:6780]
    #[arg(long, value_name = "ADDR:PORT", env = "MOJI_HTTP")]
    http: Option<String>,
    /// The URL under which builders find REPO, if something else than --http serves it [default: none]
    #[arg(long, value_name = "URL", env = "MOJI_REPO_URL")]
    repo_url: Option<String>,
    /// How long a generation of the repository can still be had after the next one, beside those that
    /// builds run against; 0s: no longer than that [default: 2d]
    #[arg(long, value_name = "DURATION", env = "MOJI_KEEP_GENERATIONS", value_parser = duration)]
    keep_generations: Option<Duration>,
    /// Share of the builders for a target that others want too, 1 if not given; may be repeated; "." is
    /// SOURCE itself. In the configuration file they stand in a table [weight]
    #[arg(long, value_name = "TARGET=N", value_parser = weight)]
    weight: Vec<Weight>,
    /// Begin a build a second time, on a builder that has nothing else to do, when it takes N times as long
    /// as expected: the first good result counts; 0: never [default: 2]
    #[arg(long, value_name = "N", env = "MOJI_BACKUP_ATTEMPTS")]
    backup_attempts: Option<u32>,
    /// Try a build that failed in %build once more when a package that it used has been built anew
    #[arg(long)]
    retry_failed_on_change: bool,
    /// A file whose first line is the password of the builders, - for standard input; MOJI_PASSWORD
    /// works too
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// No TLS: for a link that is safe already, or for debugging; builders need --plaintext too
    #[arg(long)]
    plaintext: bool,
    /// How often builders say that they live [default: 20s]
    #[arg(long, value_name = "DURATION", env = "MOJI_HEARTBEAT", value_parser = duration)]
    heartbeat: Option<Duration>,
    /// A builder that says nothing for this long is given up [default: 90s]
    #[arg(long, value_name = "DURATION", env = "MOJI_DEAD_AFTER", value_parser = duration)]
    dead_after: Option<Duration>,
    /// How long an SRPM stays with a builder whose connection is lost; 0s: not at all
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOJI_GRACE", value_parser = duration)]
    grace: Option<Duration>,
    /// Hand nothing out with less room on the disk of WORKING, with K, M or G; 0: whatever there is
    /// [default: 1G]
    #[arg(long, value_name = "SIZE", env = "MOJI_MIN_FREE", value_parser = size)]
    min_free: Option<u64>,
    /// The program that makes the metadata [default: createrepo_c]
    #[arg(long, value_name = "PATH", env = "MOJI_CREATEREPO")]
    createrepo: Option<PathBuf>,
    /// Who makes the metadata: native reads only new packages with createrepo_c and takes over the rest
    /// as it is; createrepo_c goes through all of it each time [default: native]
    #[arg(long, value_name = "MAKER", env = "MOJI_METADATA")]
    metadata: Option<Maker>,
    /// Most bytes of a live log of one build, with K, M or G [default: 256M]
    #[arg(long, value_name = "SIZE", env = "MOJI_LOG_LIMIT", value_parser = size)]
    log_limit: Option<u64>,
    /// Another limit against strangers and builders; may be repeated. In the configuration file they
    /// stand in a table [limits]
    ///
    /// The names: connections, connections-per-address, strangers, strangers-per-address (those that have
    /// not introduced themselves yet), handshake-timeout, login-delay, login-delay-max, login-memory,
    /// login-addresses (wrong passwords), builders-per-credential, manifest-entries, artifact-size,
    /// attempt-size (results), log-rate, log-burst (live logs, bytes a second), message-rate,
    /// message-burst, quarantine-attempts, quarantine-size, submission-size,
    /// generations-size. README.md says what each of
    /// them does.
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
    #[command(flatten)]
    outgoing: OutgoingOptions,
    /// A TOML file with any of these options
    #[arg(long, value_name = "FILE", env = "MOJI_SERVER_CONFIG")]
    config: Option<PathBuf>,
}

/// What the program does beside serving. A folder of such a name is written `./fsck`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks that folders, records, metadata and history agree
    ///
    /// Says each difference on a line of its own, and how many there are. While a server runs, what is
    /// in motion looks wrong for a moment: then it looks again, for up to half a minute, and says what
    /// stays so.
    Fsck(FsckOptions),
    /// Adds, lists and revokes credentials: tokens for builders and people
    ///
    /// A running server sees what has changed within a second. Run it as the server's user.
    Credential(CredentialOptions),
}

impl CredentialOptions {
    /// The server's folder WORKING: from the options, else from the configuration file.
    ///
    /// # Errors
    /// What is wrong with the file, or missing.
    pub fn resolve(&self) -> anyhow::Result<PathBuf> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        access::command::working(self.working.clone(), file.working)
    }
}

impl FsckOptions {
    /// The folders, and the program that makes the metadata: from the options, else from the
    /// configuration file.
    ///
    /// # Errors
    /// What is wrong with the file, or missing.
    pub fn resolve(&self) -> anyhow::Result<(Folders, PathBuf)> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        let folder = |name: &str, here: &Option<PathBuf>, there: Option<PathBuf>| {
            here.clone().or(there).with_context(|| {
                format!("{name} is missing: moji-server fsck SOURCE WORKING FINISHED REPO, or --config FILE")
            })
        };
        let folders = Folders {
            source: folder("SOURCE", &self.source, file.source)?,
            working: folder("WORKING", &self.working, file.working)?,
            finished: folder("FINISHED", &self.finished, file.finished)?,
            repo: folder("REPO", &self.repo, file.repo)?,
        };
        let createrepo = self.createrepo.clone().or(file.createrepo);
        Ok((folders, createrepo.unwrap_or_else(|| "createrepo_c".into())))
    }
}

/// A target, or SOURCE itself, and its share.
type Weight = (Option<TargetName>, u32);

/// `TARGET=N`.
fn weight(text: &str) -> Result<Weight, String> {
    let (target, number) = text.split_once('=').ok_or("it is not TARGET=N, like fedora-43-aarch64=3")?;
    let number = number.parse().ok().filter(|number| (1..=1000).contains(number));
    let number = number.ok_or("a weight is a number from 1 to 1000")?;
    let target = match target {
        "." => None,
        name => Some(TargetName::new(name).map_err(|error| error.to_string())?),
    };
    Ok((target, number))
}

/// The command line's before the file's.
fn weights(
    file: &BTreeMap<String, u32>,
    here: Vec<Weight>,
) -> anyhow::Result<BTreeMap<Option<TargetName>, u32>> {
    let there = file.iter().map(|(target, number)| weight(&format!("{target}={number}")));
    let there = there.collect::<Result<Vec<_>, _>>();
    let there = there.map_err(|error| anyhow::anyhow!("weight in the configuration file: {error}"))?;
    Ok(there.into_iter().chain(here).collect())
}

/// The configuration file: the same names as on the command line.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    source: Option<PathBuf>,
    working: Option<PathBuf>,
    finished: Option<PathBuf>,
    repo: Option<PathBuf>,
    password: Option<String>,
    listen: Option<String>,
    http: Option<String>,
    repo_url: Option<String>,
    keep_generations: Option<String>,
    weight: BTreeMap<String, u32>,
    backup_attempts: Option<u32>,
    retry_failed_on_change: bool,
    password_file: Option<PathBuf>,
    plaintext: bool,
    heartbeat: Option<String>,
    dead_after: Option<String>,
    grace: Option<String>,
    min_free: Option<String>,
    createrepo: Option<PathBuf>,
    metadata: Option<Maker>,
    log_limit: Option<String>,
    limits: BTreeMap<String, Written>,
    on_event: Vec<WrittenProgram>,
    webhook: Vec<WrittenHook>,
    webhook_secret_file: Option<PathBuf>,
    event: Vec<EventKind>,
}

/// Where to serve HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Http {
    /// Nowhere.
    Off,
    /// At this address, unless somebody else does that.
    Default(SocketAddr),
    /// At the first of these that works.
    At(Vec<SocketAddr>),
}

impl Http {
    fn read(text: Option<&str>) -> anyhow::Result<Self> {
        match text {
            None => Ok(Self::Default(HTTP)),
            Some("off") => Ok(Self::Off),
            Some(text) => addresses(text).map(Self::At).with_context(|| {
                format!("--http {text}: neither off nor ADDRESS:PORT, like 0.0.0.0:8080 or [::]:8080")
            }),
        }
    }
}

/// Where HTTP is served when nothing is said.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6780);

/// Everything that a server needs to know, and where to listen.
#[derive(Debug)]
pub struct Settings {
    /// How to run.
    pub config: Config,
    /// Addresses to listen on: the first that works.
    pub listen: Vec<SocketAddr>,
    /// Where to serve HTTP.
    pub http: Http,
    /// Where the operator says that REPO is served.
    pub repo_url: Option<RepoUrl>,
    /// Whether a password or a credential is needed.
    pub is_closed: bool,
}

impl Options {
    /// How to start anew, so that nobody sees the password that this start was given.
    ///
    /// # Errors
    /// When the password can be none.
    pub fn out_of_sight(&self) -> anyhow::Result<Option<Again>> {
        let on_line_of = |arguments: &[OsString]| {
            let all = std::iter::once("moji-server".into()).chain(arguments.iter().cloned());
            Self::try_parse_from(all).ok().map(|options| options.password)
        };
        if self.password.is_some() {
            tracing::warn!("the password on the command line can be seen with ps: use --password-file");
        }
        let arguments = std::env::args_os().skip(1).collect();
        let given = (self.password.as_deref(), self.password_file.is_some());
        Again::plan(arguments, given, std::env::var_os(out_of_sight::VARIABLE), on_line_of)
    }

    /// All sources together. `environment_password` is `MOJI_PASSWORD`.
    ///
    /// # Errors
    /// What is wrong with an option, or missing.
    pub fn settings(self, environment_password: Option<String>) -> anyhow::Result<Settings> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        let folder = |name: &str, here: Option<PathBuf>, there: Option<PathBuf>| {
            here.or(there).with_context(|| {
                format!(
                    "{name} is missing: moji-server SOURCE WORKING FINISHED REPO (see moji-server --help)"
                )
            })
        };
        let time =
            |name: &str, here: Option<Duration>, there: Option<String>, default: u64| match (here, there) {
                (Some(here), _) => Ok(here),
                (None, Some(there)) => duration(&there)
                    .map_err(|error| anyhow::anyhow!("{name} in the configuration file: {error}")),
                (None, None) => Ok(Duration::from_secs(default)),
            };
        let password = match (self.password, self.password_file) {
            (Some(password), _) => Some(password),
            (None, Some(path)) => Some(read_password(&path)?),
            (None, None) => match (environment_password, file.password_file, file.password) {
                (Some(password), ..) => Some(password),
                (None, Some(path), _) => Some(read_password(&path)?),
                (None, None, password) => password,
            },
        };
        if password.as_ref().is_some_and(String::is_empty) {
            bail!("the password is empty");
        }
        let heartbeat = time("heartbeat", self.heartbeat, file.heartbeat, 20)?;
        let dead_after = time("dead-after", self.dead_after, file.dead_after, 90)?;
        if heartbeat.is_zero() || dead_after <= heartbeat {
            bail!(
                "--dead-after ({dead_after:?}) must be longer than --heartbeat ({heartbeat:?}), which must not be 0"
            );
        }
        let folders = Folders {
            source: folder("SOURCE", self.source, file.source)?,
            working: folder("WORKING", self.working, file.working)?,
            finished: folder("FINISHED", self.finished, file.finished)?,
            repo: folder("REPO", self.repo, file.repo)?,
        };
        let is_closed = password.is_some() || access::has_credentials(&folders.private())?;
        let listen = listen_addresses(self.listen.or(file.listen).as_deref(), is_closed)?;
        let bytes = |name: &str, here: Option<u64>, there: Option<String>, default: u64| match (here, there) {
            (Some(here), _) => Ok(here),
            (None, Some(there)) => {
                size(&there).map_err(|error| anyhow::anyhow!("{name} in the configuration file: {error}"))
            }
            (None, None) => Ok(default),
        };
        let http = Http::read(self.http.or(file.http).as_deref())?;
        let repo_url = self.repo_url.or(file.repo_url);
        let repo_url =
            repo_url.map(|url| url.parse().with_context(|| format!("--repo-url {url}"))).transpose()?;
        let keep = time("keep-generations", self.keep_generations, file.keep_generations, 2 * 24 * 60 * 60)?;
        let rules = Rules {
            weights: weights(&file.weight, self.weight)?,
            backup_after: self.backup_attempts.or(file.backup_attempts).unwrap_or(2),
            retry_on_change: self.retry_failed_on_change || file.retry_failed_on_change,
            tells_repository: true,
        };
        let outgoing = self.outgoing.resolve(WrittenOutgoing {
            on_event: file.on_event,
            webhook: file.webhook,
            webhook_secret_file: file.webhook_secret_file,
            event: file.event,
        })?;
        let config = Config {
            folders,
            password,
            plaintext: self.plaintext || file.plaintext,
            heartbeat,
            dead_after,
            grace: time("grace", self.grace, file.grace, 10)?,
            createrepo: self.createrepo.or(file.createrepo).unwrap_or_else(|| "createrepo_c".into()),
            metadata: self.metadata.or(file.metadata).unwrap_or(Maker::Native),
            log_limit: bytes("log-limit", self.log_limit, file.log_limit, 256 << 20)?,
            limits: Limits::resolve(&file.limits, &self.limit)?,
            rules,
            patience: Duration::from_secs(60),
            min_free: bytes("min-free", self.min_free, file.min_free, 1 << 30)?,
            free_space: FreeSpace::of_the_disk(),
            watch: true,
            rescan: Duration::from_secs(60),
            keep_generations: keep,
            http: None,
            outgoing,
            repository_urls: RepositoryUrls::new(repo_url.clone(), None),
        };
        Ok(Settings { config, listen, http, repo_url, is_closed })
    }
}

impl ConfigFile {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read the configuration file {}", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(cannot)?;
        let read: Self = toml::from_str(&text)
            .with_context(|| format!("the configuration file {} is wrong", path.display()))?;
        if read.password.is_some() {
            out_of_sight::warn_if_open(path, &file, "password");
        }
        Ok(read)
    }
}

fn listen_addresses(listen: Option<&str>, is_closed: bool) -> anyhow::Result<Vec<SocketAddr>> {
    let Some(listen) = listen else {
        let address = |ip: IpAddr| SocketAddr::new(ip, DEFAULT_PORT);
        return Ok(if is_closed {
            // The IPv6 one takes IPv4 too; some machines have no IPv6.
            vec![address(Ipv6Addr::UNSPECIFIED.into()), address(Ipv4Addr::UNSPECIFIED.into())]
        } else {
            vec![address(Ipv4Addr::LOCALHOST.into())]
        });
    };
    let addresses: Vec<SocketAddr> = match listen.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, DEFAULT_PORT)],
        Err(_) => addresses(listen).with_context(|| {
            format!("--listen {listen}: not ADDRESS:PORT, like 127.0.0.1:6789 or [::1]:6789")
        })?,
    };
    if let Some(open) = addresses.iter().find(|address| !is_closed && !address.ip().is_loopback()) {
        bail!(
            "--listen {open}: without a password only a loopback address is accepted, or anybody could put \
             packages into the repository; give a password (--password-file), add a credential \
             (moji-server credential add), or listen on 127.0.0.1"
        );
    }
    Ok(addresses)
}

fn addresses(text: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(text.to_socket_addrs()?.collect())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration like 20s or 5m: {error}"))
}

/// A size in bytes, written as `4096`, `64K`, `256M` or `4G`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size like 4096, 64K, 256M or 4G");
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at), 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    let number: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(arguments: &[&str], environment: Option<&str>) -> anyhow::Result<Settings> {
        let arguments = ["moji-server"].iter().chain(arguments);
        Options::try_parse_from(arguments)?.settings(environment.map(Into::into))
    }

    const FOLDERS: [&str; 4] = ["a", "b", "c", "d"];

    #[test]
    fn the_old_command_line_works() {
        let settings = settings(&["a", "b", "c", "d", "pw"], None).unwrap();
        assert_eq!(settings.config.password.as_deref(), Some("pw"));
        assert_eq!(settings.config.folders.repo, Path::new("d"));
        assert!(
            settings.listen.iter().all(|address| address.ip().is_unspecified() && address.port() == 6789)
        );
    }

    #[test]
    fn without_a_password_only_loopback() {
        let open = settings(&[&FOLDERS[..], &["--listen", "0.0.0.0:7000"]].concat(), None).unwrap_err();
        assert!(open.to_string().contains("only a loopback address"), "{open}");
        assert!(settings(&FOLDERS, None).unwrap().listen.iter().all(|address| address.ip().is_loopback()));
        assert!(settings(&[&FOLDERS[..], &["--listen", "[::1]:0"]].concat(), None).is_ok());
        assert!(settings(&[&FOLDERS[..], &["--listen", "0.0.0.0:7000"]].concat(), Some("pw")).is_ok());
    }

    #[test]
    fn command_line_before_environment_before_file_before_default() {
        let folder = tempfile::tempdir().unwrap();
        let (config, secret) = (folder.path().join("server.toml"), folder.path().join("secret"));
        fs::write(&secret, "from the password file\nsecond line\n").unwrap();
        fs::write(
            &config,
            "source = 'fs'\nworking = 'fw'\nfinished = 'ff'\nrepo = 'fr'\npassword = 'from the file'\n\
             grace = '0s'\nheartbeat = '5s'\nlog-limit = '64K'\nmin-free = '3M'\nkeep-generations = '5h'\n\
             http = '127.0.0.1:8080'\nrepo-url = 'http://h/r/'\n[limits]\nstrangers = 7\n",
        )
        .unwrap();
        let config = ["--config", config.to_str().unwrap()];
        let from_file = settings(&config, None).unwrap().config;
        assert_eq!(from_file.folders.working, Path::new("fw"));
        assert_eq!(from_file.password.as_deref(), Some("from the file"));
        assert_eq!((from_file.grace, from_file.heartbeat), (Duration::ZERO, Duration::from_secs(5)));
        assert_eq!((from_file.dead_after, from_file.log_limit), (Duration::from_secs(90), 65536));
        assert_eq!((from_file.min_free, from_file.limits.strangers), (3 << 20, 7));
        assert_eq!(from_file.keep_generations, Duration::from_secs(5 * 60 * 60));
        let main = from_file.repository_urls.of(&crate::metadata::Repository::Main, None, false);
        assert_eq!(main.map(|url| url.to_string()).as_deref(), Some("http://h/r/"));
        let http = |more: &[&str]| settings(&[&config[..], more].concat(), None).unwrap().http;
        let at = |address: &str| Http::At(vec![address.parse().unwrap()]);
        assert_eq!(http(&[]), at("127.0.0.1:8080"));
        assert_eq!(http(&["--http", "[::]:81"]), at("[::]:81"));
        assert_eq!(http(&["--http", "off"]), Http::Off);
        assert_eq!(settings(&FOLDERS, None).unwrap().http, Http::Default("127.0.0.1:6780".parse().unwrap()));
        let from_environment = settings(&config, Some("from the environment")).unwrap().config;
        assert_eq!(from_environment.password.as_deref(), Some("from the environment"));
        let more = ["x", "--grace", "3m", "--min-free", "0", "--password-file", secret.to_str().unwrap()];
        let from_line =
            settings(&[&config[..], &more].concat(), Some("from the environment")).unwrap().config;
        assert_eq!(from_line.folders.source, Path::new("x"));
        assert_eq!((from_line.grace, from_line.min_free), (Duration::from_secs(180), 0));
        assert_eq!(from_line.password.as_deref(), Some("from the password file"));
    }

    #[test]
    fn the_help_names_all_limits() {
        use clap::CommandFactory as _;
        let help = Options::command().render_long_help().to_string();
        let words: Vec<_> = help.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).collect();
        for limit in crate::limits::LIMITS {
            assert!(words.contains(&limit.name), "{}", limit.name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.toml");
        let config = ["--config", file.to_str().unwrap()];
        for (content, wanted) in
            [("colour = 'red'", "colour"), ("grace = '5 parsecs'", "grace"), ("= x", "server.toml")]
        {
            fs::write(&file, content).unwrap();
            let error = format!("{:#}", settings(&[&FOLDERS[..], &config].concat(), None).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        for (arguments, wanted) in [
            (&["a", "b"][..], "FINISHED is missing"),
            (&["a", "b", "c", "d", "--heartbeat", "90s"], "must be longer"),
            (&["a", "b", "c", "d", "--password-file", "/nonexistent/x"], "/nonexistent/x"),
            (&["a", "b", "c", "d", ""], "password is empty"),
            (&["a", "b", "c", "d", "--listen", "nowhere"], "--listen nowhere"),
            (&["a", "b", "c", "d", "--http", "8080"], "--http 8080"),
            (&["a", "b", "c", "d", "--repo-url", "http://h/$x"], "--repo-url http://h/$x"),
            (&["a", "b", "c", "d", "--log-limit", "99999999999G"], "no size"),
            (&["a", "b", "c", "d", "--limit", "speed=3"], "there is no limit \"speed\""),
        ] {
            let error = format!("{:#}", settings(arguments, None).unwrap_err());
            assert!(error.contains(wanted), "{arguments:?}: {error}");
        }
    }
}
