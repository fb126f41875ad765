//! What the command line, the environment and the configuration file say. Command line before
//! environment before file before default.

mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use moji_proto::limits::{SLOTS, TAGS};
use moji_proto::{BuilderName, DEFAULT_PORT, Fingerprint, Tag};
use serde::Deserialize;

pub use self::targets::WantedTarget;
use self::targets::{Configs, from_table, wanted};
use crate::access::Secret;
use crate::out_of_sight::{self, Again, read_password};

const EXAMPLES: &str = "\
Examples:
  Build for a server that asks for a password, two SRPMs at a time:
    moji-client --password-file /etc/moji/password --slots 2 repo.example.org fedora-43-aarch64
  A builder that leaves when the queue has been empty for ten minutes (a VM, a CI job):
    moji-client --exit-when-idle 10m repo.example.org fedora-43-x86_64
  For two targets, the second with a config of another name, on a machine with much memory:
    moji-client --tag big --target fedora-42-x86_64=f42-local repo.example.org fedora-43-x86_64
  Without Mock, to try it out (isolates nothing):
    moji-client --mock scripts/hostmock localhost ./demo.cfg

The first SIGTERM or SIGINT lets running builds finish and deliver, the second stops them and gives
them back. Results that cannot be delivered stay in the work folder, for the next start.

Exit codes:
  0  left because it was told to, or because it was idle for long enough
  1  failed while running
  2  wrong use: options, configuration file, password
  3  Mock, its config or the work folder cannot be used
  4  the server refuses this builder (password, token, version), or has another key than before

RUST_LOG=debug shows more.";

/// Takes SRPMs from a moji-server, builds them with Mock and delivers the results
///
/// Connects to the server (and again, for ever, when the connection is lost), asks for an SRPM for
/// each free slot and builds it with `mock -r MOCK_CONFIG`. What Mock's config lacks may come from the
/// farm's own repository: the server says where that is, and Mock is given it as --addrepo.
#[derive(Debug, Parser)]
#[command(name = "moji-client", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Options {
    /// The server, as HOST, HOST:PORT or [IPV6]:PORT; the default port is 6789
    #[arg(value_name = "HOST[:PORT]")]
    server: Option<String>,
    /// The Mock config to build with: a name, as for mock -r, or the path of a .cfg file; several with commas
    /// between them, the preferred one first
    #[arg(value_name = "MOCK_CONFIG[,MOCK_CONFIG...]")]
    mock_config: Option<String>,
    /// The server's password, or a token; better use --password-file, because ps shows this one
    password: Option<String>,

    /// A file whose first line is the server's password, or a token from moji-server credential add;
    /// - for standard input; MOJI_PASSWORD works too
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// The key that the server must have, instead of the one that is remembered of it; it is
    /// remembered then
    #[arg(long, value_name = "FINGERPRINT")]
    server_key: Option<Fingerprint>,
    /// No TLS: for a link that is safe already, or for debugging; the server needs --plaintext too
    #[arg(long)]
    plaintext: bool,
    /// Serve this target with a Mock config of another name; can be repeated, and comes after those of
    /// MOCK_CONFIG
    #[arg(long, value_name = "NAME=CONFIG", value_parser = WantedTarget::named)]
    target: Vec<WantedTarget>,
    /// A name for what this builder is good for, which SRPMs can ask for; can be repeated
    #[arg(long, value_name = "NAME")]
    tag: Vec<Tag>,
    /// Do not give Mock the farm's own repository: its configs have it already
    #[arg(long)]
    no_addrepo: bool,
    /// How many SRPMs to build at a time [default: 1]
    #[arg(long, value_name = "N", env = "MOJI_SLOTS")]
    slots: Option<u16>,
    /// What this builder is called [default: the host name]
    #[arg(long, env = "MOJI_NAME")]
    name: Option<String>,
    /// Where to work; needs room for the results [default: /var/lib/moji-client for root, else
    /// ~/.local/state/moji-client]
    #[arg(long, value_name = "DIR", env = "MOJI_WORK_DIR")]
    work_dir: Option<PathBuf>,
    /// The Mock program [default: mock]
    #[arg(long, value_name = "PATH", env = "MOJI_MOCK")]
    mock: Option<PathBuf>,
    /// An argument to add to each call of Mock; can be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    mock_arg: Vec<String>,
    /// A build that takes longer is ended and has failed [default: 24h]
    #[arg(long, value_name = "DURATION", env = "MOJI_BUILD_TIMEOUT", value_parser = duration)]
    build_timeout: Option<Duration>,
    /// A build that writes nothing for so long is ended and has failed [default: 4h]
    #[arg(long, value_name = "DURATION", env = "MOJI_STALL_TIMEOUT", value_parser = duration)]
    stall_timeout: Option<Duration>,
    /// Most bytes of one log, with K, M or G; a longer one loses its middle [default: 256M]
    #[arg(long, value_name = "SIZE", env = "MOJI_LOG_LIMIT", value_parser = size)]
    log_limit: Option<u64>,
    /// While more results than this wait to be delivered, ask for no work [default: 20G]
    #[arg(long, value_name = "SIZE", env = "MOJI_OUTBOX_LIMIT", value_parser = size)]
    outbox_limit: Option<u64>,
    /// Results that could not be delivered for so long are removed [default: 30d]
    #[arg(long, value_name = "DURATION", env = "MOJI_OUTBOX_AGE", value_parser = duration)]
    outbox_age: Option<Duration>,
    /// With less room than this on the disk, ask for no work; 0: never mind [default: 2G]
    #[arg(long, value_name = "SIZE", env = "MOJI_MIN_FREE", value_parser = size)]
    min_free: Option<u64>,
    /// Leave when the queue has had nothing for this long
    #[arg(long, value_name = "DURATION", env = "MOJI_EXIT_WHEN_IDLE", num_args = 0..=1,
          default_missing_value = "1m", value_parser = duration)]
    exit_when_idle: Option<Duration>,
    /// A TOML file with any of these options
    #[arg(long, value_name = "FILE", env = "MOJI_CLIENT_CONFIG")]
    config: Option<PathBuf>,
}

/// The configuration file: the same names as on the command line.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    server: Option<String>,
    mock_config: Option<Configs>,
    targets: BTreeMap<String, String>,
    tags: Vec<Tag>,
    no_addrepo: bool,
    password: Option<String>,
    password_file: Option<PathBuf>,
    server_key: Option<String>,
    plaintext: bool,
    slots: Option<u16>,
    name: Option<String>,
    work_dir: Option<PathBuf>,
    mock: Option<PathBuf>,
    mock_arg: Vec<String>,
    build_timeout: Option<String>,
    stall_timeout: Option<String>,
    log_limit: Option<String>,
    outbox_limit: Option<String>,
    outbox_age: Option<String>,
    min_free: Option<String>,
    exit_when_idle: Option<String>,
}

/// Everything that a client needs to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's host name or address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// What to build for, the preferred one first.
    pub targets: Vec<WantedTarget>,
    /// What it is good for.
    pub tags: Vec<Tag>,
    /// Mock is not to be given the farm's own repository.
    pub no_addrepo: bool,
    /// The server's password, or a token.
    pub secret: Secret,
    /// The key that the server must have.
    pub server_key: Option<Fingerprint>,
    /// No TLS.
    pub plaintext: bool,
    /// How many SRPMs to build at a time.
    pub slots: u16,
    /// What this builder is called.
    pub name: BuilderName,
    /// Where to work.
    pub work_dir: PathBuf,
    /// The Mock program.
    pub mock: PathBuf,
    /// What to add to each call of Mock.
    pub mock_args: Vec<String>,
    /// When to end a build.
    pub build_timeout: Duration,
    /// When to end a silent build.
    pub stall_timeout: Duration,
    /// Most bytes of one log.
    pub log_limit: u64,
    /// Most bytes of results that wait, while work is asked for.
    pub outbox_limit: u64,
    /// How long results wait at most.
    pub outbox_age: Duration,
    /// How many bytes must be free; 0: never mind.
    pub min_free: u64,
    /// When to leave.
    pub exit_when_idle: Option<Duration>,
}

/// What the options' defaults come from.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// `MOJI_PASSWORD`.
    pub password: Option<String>,
    /// The host name.
    pub host_name: String,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// Whether the client runs as root.
    pub is_root: bool,
}

impl Options {
    /// How to start anew, so that nobody sees the password that this start was given.
    ///
    /// # Errors
    /// When the password can be none.
    pub fn out_of_sight(&self) -> anyhow::Result<Option<Again>> {
        let on_line_of = |arguments: &[OsString]| {
            let all = std::iter::once("moji-client".into()).chain(arguments.iter().cloned());
            Self::try_parse_from(all).ok().map(|options| options.password)
        };
        if self.password.is_some() {
            tracing::warn!("the password on the command line can be seen with ps: use --password-file");
        }
        let arguments = std::env::args_os().skip(1).collect();
        let given = (self.password.as_deref(), self.password_file.is_some());
        Again::plan(arguments, given, std::env::var_os(out_of_sight::VARIABLE), on_line_of)
    }

    /// All sources together.
    ///
    /// # Errors
    /// What is wrong with an option, or missing.
    pub fn settings(self, around: Surroundings) -> anyhow::Result<Settings> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        let password = match (self.password, self.password_file) {
            (Some(password), _) => Some(password),
            (None, Some(path)) => Some(read_password(&path)?),
            (None, None) => match (around.password, file.password_file, file.password) {
                (Some(password), ..) => Some(password),
                (None, Some(path), _) => Some(read_password(&path)?),
                (None, None, password) => password,
            },
        };
        let secret = password.as_deref().map_or(Ok(Secret::None), Secret::new)?;
        let server_key = match (self.server_key, file.server_key) {
            (Some(key), _) => Some(key),
            (None, Some(key)) => Some(key.parse().context("server-key in the configuration file")?),
            (None, None) => None,
        };
        let server = self
            .server
            .or(file.server)
            .context("the server is missing: moji-client HOST[:PORT] MOCK_CONFIG (see moji-client --help)")?;
        let (host, port) = host_and_port(&server)?;
        let targets = match (self.mock_config, self.target) {
            (None, none) if none.is_empty() => wanted(file.mock_config, from_table(file.targets)?)?,
            (line, named) => wanted(line.map(Configs::Line), named)?,
        };
        let tags: BTreeSet<_> = if self.tag.is_empty() { file.tags } else { self.tag }.into_iter().collect();
        if tags.len() > TAGS {
            bail!("--tag: a builder has at most {TAGS} tags, not {}", tags.len());
        }
        let slots = self.slots.or(file.slots).unwrap_or(1);
        if slots == 0 || slots > SLOTS {
            bail!("--slots {slots}: a builder has 1 to {SLOTS} slots");
        }
        let name = self.name.or(file.name).unwrap_or(around.host_name);
        let name = BuilderName::new(name).context("this builder needs another name (see --name)")?;
        let mock_args = if self.mock_arg.is_empty() { file.mock_arg } else { self.mock_arg };
        Ok(Settings {
            host,
            port,
            targets,
            tags: tags.into_iter().collect(),
            no_addrepo: self.no_addrepo || file.no_addrepo,
            secret,
            server_key,
            plaintext: self.plaintext || file.plaintext,
            slots,
            name,
            work_dir: self
                .work_dir
                .or(file.work_dir)
                .or_else(|| default_work_dir(&around.home, around.is_root))
                .context("there is no home folder to work in: give --work-dir")?,
            mock: self.mock.or(file.mock).unwrap_or_else(|| "mock".into()),
            mock_args,
            build_timeout: parsed("build-timeout", self.build_timeout, file.build_timeout, duration)?
                .unwrap_or(Duration::from_secs(24 * 3600)),
            stall_timeout: parsed("stall-timeout", self.stall_timeout, file.stall_timeout, duration)?
                .unwrap_or(Duration::from_secs(4 * 3600)),
            log_limit: parsed("log-limit", self.log_limit, file.log_limit, size)?.unwrap_or(256 << 20),
            outbox_limit: parsed("outbox-limit", self.outbox_limit, file.outbox_limit, size)?
                .unwrap_or(20 << 30),
            outbox_age: parsed("outbox-age", self.outbox_age, file.outbox_age, duration)?
                .unwrap_or(Duration::from_secs(30 * 24 * 3600)),
            min_free: parsed("min-free", self.min_free, file.min_free, size)?.unwrap_or(2 << 30),
            exit_when_idle: parsed("exit-when-idle", self.exit_when_idle, file.exit_when_idle, duration)?,
        })
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
            out_of_sight::warn_if_open(path, &file);
        }
        Ok(read)
    }
}

/// What the command line or the environment says, else the file.
fn parsed<T>(
    name: &str,
    here: Option<T>,
    there: Option<String>,
    parse: fn(&str) -> Result<T, String>,
) -> anyhow::Result<Option<T>> {
    match (here, there) {
        (Some(here), _) => Ok(Some(here)),
        (None, Some(there)) => match parse(&there) {
            Ok(value) => Ok(Some(value)),
            Err(error) => bail!("{name} in the configuration file: {error}"),
        },
        (None, None) => Ok(None),
    }
}

fn default_work_dir(home: &Option<PathBuf>, is_root: bool) -> Option<PathBuf> {
    if is_root {
        return Some("/var/lib/moji-client".into());
    }
    home.as_ref().map(|home| home.join(".local/state/moji-client"))
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address.
/// Host and port of a server.
pub(crate) fn host_and_port(text: &str) -> anyhow::Result<(String, u16)> {
    let wrong = || format!("{text:?} is not HOST, HOST:PORT or [IPV6]:PORT");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').with_context(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    // A URL is none.
    if host.is_empty() || text.contains('/') {
        bail!(wrong());
    }
    let port =
        port.map_or(Ok(DEFAULT_PORT), str::parse).ok().filter(|port| *port != 0).with_context(wrong)?;
    Ok((host.to_owned(), port))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration like 20s or 5m: {error}"))
}

/// A size in bytes, written as `4096`, `64K`, `256M` or `4G`.
fn size(text: &str) -> Result<u64, String> {
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

    fn settings(arguments: &[&str]) -> anyhow::Result<Settings> {
        let around = Surroundings {
            password: None,
            host_name: "board-7.example.org".into(),
            home: Some("/home/mo".into()),
            is_root: false,
        };
        Options::try_parse_from(["moji-client"].iter().chain(arguments))?.settings(around)
    }

    #[test]
    fn the_old_command_line_works() {
        let settings = settings(&["repo.example.org", "fedora-43-armv7hl", "pw"]).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("repo.example.org", 6789));
        assert_eq!(settings.secret, Secret::Password("pw".into()));
        assert_eq!(settings.name.as_str(), "board-7.example.org");
        assert_eq!(settings.work_dir, Path::new("/home/mo/.local/state/moji-client"));
        assert_eq!((settings.slots, settings.exit_when_idle), (1, None));
        assert_eq!((settings.outbox_limit, settings.min_free), (20 << 30, 2 << 30));
    }

    #[test]
    fn idle_with_and_without_a_duration() {
        let idle = |arguments: &[&str]| settings(arguments).unwrap().exit_when_idle;
        assert_eq!(idle(&["h", "c", "--exit-when-idle"]), Some(Duration::from_secs(60)));
        assert_eq!(idle(&["--exit-when-idle", "10m", "h", "c"]), Some(Duration::from_secs(600)));
        assert_eq!(idle(&["--exit-when-idle=5s", "h", "c"]), Some(Duration::from_secs(5)));
    }

    #[test]
    fn addresses() {
        let parse = |text| host_and_port(text).ok();
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(parse("a.b:70"), is("a.b", 70));
        assert_eq!(parse("[::1]:70"), is("::1", 70));
        assert_eq!(parse("[fe80::1]"), is("fe80::1", 6789));
        assert_eq!(parse("fe80::1"), is("fe80::1", 6789));
        for text in ["", ":70", "a:", "a:0", "a:70000", "a:b", "[::1", "[]:7", "http://a", "http://a:80/"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_file_fills_what_the_command_line_leaves_open() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.toml");
        fs::write(
            &file,
            "server = 'from-file:1234'\nmock-config = 'f43'\nslots = 4\nmock-arg = ['--enablerepo=x']\n\
             stall-timeout = '2h'\noutbox-limit = '5G'\noutbox-age = '2d'\nmin-free = '0'\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let all = settings(&["--config", file]).unwrap();
        assert_eq!((all.host.as_str(), all.port, all.slots), ("from-file", 1234, 4));
        assert_eq!(
            (all.stall_timeout, all.build_timeout),
            (Duration::from_secs(7200), Duration::from_secs(86400))
        );
        assert_eq!(all.mock_args, ["--enablerepo=x"]);
        assert_eq!(
            (all.outbox_limit, all.outbox_age, all.min_free),
            (5 << 30, Duration::from_secs(2 * 86400), 0)
        );
        let some = settings(&["--config", file, "--slots", "2", "--mock-arg", "--nocheck", "here"]).unwrap();
        assert_eq!((some.host.as_str(), configs(&some), some.slots), ("here", vec!["f43"], 2));
        assert_eq!(some.mock_args, ["--nocheck"]);
    }

    fn configs(settings: &Settings) -> Vec<&str> {
        settings.targets.iter().map(|target| target.config.as_str()).collect()
    }

    #[test]
    fn targets_and_tags() {
        let given = settings(&[
            "--target=f42=old",
            "--tag",
            "ssd",
            "h",
            "f43,./f41.cfg",
            "--tag=big",
            "--tag=ssd",
            "--no-addrepo",
        ]);
        let given = given.unwrap();
        assert_eq!(configs(&given), ["f43", "./f41.cfg", "old"]);
        assert_eq!(given.targets[2].name, Some("f42".parse().unwrap()));
        assert_eq!(given.tags, ["big", "ssd"].map(|tag| tag.parse().unwrap()));
        assert!(given.no_addrepo);
        let usual = settings(&["h", "f43"]).unwrap();
        assert!(usual.tags.is_empty() && !usual.no_addrepo);
    }

    #[test]
    fn targets_and_tags_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.toml");
        let path = file.to_str().unwrap().to_owned();
        let with = |text: &str, arguments: &[&str]| {
            fs::write(&file, format!("server = 'h'\n{text}")).unwrap();
            settings(&[&["--config", &path], arguments].concat())
        };
        let table = "tags = ['big']\nno-addrepo = true\n[targets]\nf42 = 'old'\nf40 = './x.cfg'\n";
        let all = with(&format!("mock-config = 'f43,f44'\n{table}"), &[]).unwrap();
        assert_eq!(configs(&all), ["f43", "f44", "./x.cfg", "old"]);
        assert!(all.no_addrepo && all.tags == ["big".parse().unwrap()]);
        // A list is not taken apart.
        assert_eq!(configs(&with("mock-config = ['a,b.cfg', 'c']", &[]).unwrap()), ["a,b.cfg", "c"]);
        assert_eq!(configs(&with(table, &[]).unwrap()), ["./x.cfg", "old"]);
        // The command line says all of it, or nothing.
        assert_eq!(configs(&with(table, &["--target", "f39=x"]).unwrap()), ["x"]);
        assert_eq!(with(table, &["--tag", "small"]).unwrap().tags, ["small".parse().unwrap()]);
        for (text, wanted) in [
            ("mock-config = 7", "a list of texts"),
            ("[targets]\n'../x' = 'a'", "[targets]"),
            ("[targets]\nx = ''", "not NAME=CONFIG"),
            ("mock-config = ['x']\n[targets]\nx = 'a'", "given twice"),
            ("mock-config = 'x'\ntags = ['a b']", "a tag"),
        ] {
            let error = format!("{:#}", with(text, &[]).unwrap_err());
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, wanted) in [
            (&["h"][..], "Mock config is missing"),
            (&["h", "c", "--slots", "0"], "1 to 256 slots"),
            (&["h", "c", "--name", "../x"], "another name"),
            (&["h:x", "c"], "HOST:PORT"),
            (&["h", "c,c"], "given twice"),
            (&["h", "c", "--target", "x"], "NAME=CONFIG"),
            (&["h", "c", "--tag", "a b"], "a tag"),
            (&["--exit-when-idle", "localhost", "c"], "no duration"),
        ] {
            let error = format!("{:#}", settings(arguments).unwrap_err());
            assert!(error.contains(wanted), "{arguments:?}: {error}");
        }
    }
}
