//! The command line of `moji`. Completions and man pages are made from the same definitions.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use moji_proto::api::{BuildState, EventKind};
use moji_proto::operator::Place;
use moji_proto::{FailureKind, Fingerprint, LogFile, TargetName};

/// What stands below the help of the program itself. Its paragraphs are the man page's, too.
pub(super) const AFTER: &str = "\
A BUILD is its number (moji history), an NVR, an SRPM's file name or a package's name; [TARGET/] before it says for
which target. Of several builds of one name the newest is meant.

Examples:
  moji login repo.example.org                     once; asks for the token that the server's operator has given you
  moji submit --wait foo-1.0-1.src.rpm            exit code 0 when it is built
  moji log -f foo                                 watch it
  moji why foo                                    why it failed, or does not begin
  moji retry --failed --kind infrastructure       everything that was not the packages' own fault

Without a server's address it is localhost:6789. The configuration is ~/.config/moji/config.toml (written by login);
command line before environment (MOJI_SERVER, MOJI_TOKEN_FILE, MOJI_TOKEN) before file. MOJI_TOKEN holds the token
itself: whoever can read this process's environment has it too, so better use a file.

Exit codes:
  0    done; submit --wait: all succeeded
  1    submit --wait: one failed or was cancelled
  2    submit --wait: one is held or parked, and none failed
  3    the server cannot be reached, or does not let you in
  4    the server refuses it, or knows no such thing
  64   wrong use: options, configuration, a file that cannot be read
  74   something on this machine does not work
  141  nobody reads the output any more";

/// See and steer a build farm: a moji-server and its builders
#[derive(Debug, Parser)]
#[command(name = "moji", version, after_help = AFTER, max_term_width = 100)]
#[command(arg_required_else_help = true, propagate_version = true)]
pub struct Options {
    /// Which farm, and how
    #[command(flatten)]
    pub common: Common,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands have.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The farm")]
pub struct Common {
    /// The server; the default port is 6789.
    #[arg(
        help = "The server, as HOST, HOST:PORT or [IPV6]:PORT [env: MOJI_SERVER] [default: localhost:6789]"
    )]
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub server: Option<String>,
    /// A file whose first line is your token; - for standard input [env: MOJI_TOKEN_FILE, or MOJI_TOKEN: the token]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The key that the server must have; a token says it too
    #[arg(long, global = true, value_name = "FINGERPRINT")]
    pub server_key: Option<Fingerprint>,
    /// No TLS: for a link that is safe already; the server needs --plaintext too
    #[arg(long, global = true)]
    pub plaintext: bool,
    /// The configuration file [default: ~/.config/moji/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Colours; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When there are colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, without NO_COLOR
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// As the API's JSON instead of text.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Json {
    /// As JSON, in the form of the API's answer
    #[arg(long)]
    pub json: bool,
}

/// What became of it as JSON instead of text.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DoneJson {
    /// What became of each as JSON: an array of {about, is_done, text}
    #[arg(long)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Queue SRPMs
    Submit(Submit),
    /// The farm on one screen: queue, what runs where, what failed last
    Status(Json),
    /// The farm on one screen, live: keys choose, show logs, retry, hold, drain (? lists them)
    Top,
    /// What waits, in the order in which it is handed out
    Queue(Queue),
    /// A build's log
    Log(Log),
    /// Why a build failed, or does not begin
    Why(Why),
    /// Build again what failed, is held or was withdrawn; try parked ones now
    Retry(Retry),
    /// Take builds out of the queue, or from their builders
    Cancel(Builds),
    /// Stop builds until somebody says retry
    Hold(Hold),
    /// Say what is built first (edits priority.txt)
    Prio(Prio),
    /// Builders, and what they do
    Builders(Json),
    /// Targets, and their queues
    Targets(Json),
    /// Give a builder no more work; what it has it finishes
    Drain(Drain),
    /// Give a builder work again
    Resume(Resume),
    /// Hand nothing out
    Pause(Pause),
    /// Hand out again
    Unpause(DoneJson),
    /// Builds, the newest first
    History(History),
    /// What happens in the farm
    Events(Events),
    /// What became of the queue, and what keeps the rest from being built
    Report(Json),
    /// Say which server is yours, and take its token
    Login(Login),
    /// Completions for a shell
    Completions(Completions),
    /// Man pages: moji(1) to standard output, or all of them into a folder
    Man(Man),
    /// The versions of this program and of the server
    Version(VersionJson),
}

/// `moji version`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct VersionJson {
    /// As JSON: {moji, server, address}
    #[arg(long)]
    pub json: bool,
}

/// `moji submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// The SRPMs' files
    #[arg(required = true, value_name = "SRPM")]
    pub srpms: Vec<PathBuf>,
    /// For which target [default: any builder may build it]
    #[arg(long, short)]
    pub target: Option<TargetName>,
    /// Put it into priority.txt: as the first, the last, or the Nth entry
    #[arg(long, value_name = "first|last|N", value_parser = Places { with_none: false }, hide_possible_values = true)]
    pub priority: Option<Place>,
    /// Wait until they are built, and say what happens
    #[arg(long, short)]
    pub wait: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji queue`.
#[derive(Debug, Args)]
pub struct Queue {
    /// Only of this target; - for SRPMs that any builder may build
    #[arg(long, short)]
    pub target: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: Json,
}

/// Which log of a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum WhichLog {
    /// rpmbuild's
    #[default]
    Build,
    /// The chroot's and the package manager's
    Root,
    /// Mock's phases
    State,
    /// What Mock said on its terminal
    Mock,
}

impl WhichLog {
    /// The log.
    pub fn file(self) -> LogFile {
        match self {
            Self::Build => LogFile::Build,
            Self::Root => LogFile::Root,
            Self::State => LogFile::State,
            Self::Mock => LogFile::Mock,
        }
    }
}

/// `moji log`.
#[derive(Debug, Args)]
pub struct Log {
    /// A build's number, NVR or SRPM, or a package: its newest one; [TARGET/] before it
    pub build: String,
    /// Go on until the build is settled; waits for one that has not begun
    #[arg(long, short)]
    pub follow: bool,
    /// Which log
    #[arg(long, value_name = "LOG", default_value = "build")]
    pub file: WhichLog,
    /// The bytes as they are, with what a terminal obeys; not onto a terminal
    #[arg(long)]
    pub raw: bool,
}

/// `moji why`.
#[derive(Debug, Args)]
pub struct Why {
    /// A build's number, NVR or SRPM, or a package: its newest one; [TARGET/] before it
    pub build: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: Json,
}

/// Some builds.
#[derive(Debug, Args)]
pub struct Builds {
    /// Builds' numbers, NVRs or SRPMs, or packages: the newest one of each; [TARGET/] before it
    #[arg(required = true, value_name = "BUILD")]
    pub builds: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji retry`.
#[derive(Debug, Args)]
pub struct Retry {
    /// Builds' numbers, NVRs or SRPMs, or packages: the newest one of each; [TARGET/] before it
    #[arg(required_unless_present_any = ["failed", "kind"], value_name = "BUILD")]
    pub builds: Vec<String>,
    /// All that failed or are held, and were not queued again since
    #[arg(long, conflicts_with = "builds")]
    pub failed: bool,
    /// The same, only those of this kind
    #[arg(long, conflicts_with = "builds", value_parser = kinds())]
    pub kind: Option<FailureKind>,
    /// The same, only those for this target
    #[arg(long, short, conflicts_with = "builds")]
    pub target: Option<TargetName>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji hold`.
#[derive(Debug, Args)]
pub struct Hold {
    /// Builds' numbers, NVRs or SRPMs, or packages: the newest one of each; [TARGET/] before it
    #[arg(required = true, value_name = "BUILD")]
    pub builds: Vec<String>,
    /// Why, in one line
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji prio`.
#[derive(Debug, Args)]
pub struct Prio {
    /// Where it is to stand; none: nowhere
    #[arg(value_name = "first|last|N|none", value_parser = Places { with_none: true }, hide_possible_values = true)]
    pub place: Place,
    /// What: packages, NVRs, file names or globs
    #[arg(required = true, value_name = "PKG")]
    pub entries: Vec<String>,
    /// In the priority.txt of this target [default: SOURCE's own]
    #[arg(long, short)]
    pub target: Option<TargetName>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// The builder, as in moji builders
    pub builder: String,
    /// Why, in one line
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The builder
    pub builder: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji pause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// Why, in one line
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: DoneJson,
}

/// `moji history`.
#[derive(Debug, Args)]
pub struct History {
    /// Only of this package
    #[arg(value_name = "PKG")]
    pub package: Option<String>,
    /// Only in this state
    #[arg(long, short, value_parser = words::<BuildState>(&BuildState::ALL.map(BuildState::word)))]
    pub state: Option<BuildState>,
    /// Only for this target; - for those that any builder may build
    #[arg(long, short)]
    pub target: Option<String>,
    /// Only by this builder
    #[arg(long, short)]
    pub builder: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Only older ones than this build's number: the next part
    #[arg(long, value_name = "NUMBER")]
    pub before: Option<u64>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub json: Json,
}

/// `moji events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only what came after the event with this id, as the list and --json show them [default: all that is kept;
    /// with --follow what happens from now on]
    #[arg(long, value_name = "ID")]
    pub since: Option<u64>,
    /// Go on, with what happens from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Only of this kind; can be repeated
    #[arg(long, value_parser = words::<EventKind>(&EventKind::ALL.map(EventKind::word)))]
    pub kind: Vec<EventKind>,
    /// One JSON object on each line
    #[arg(long)]
    pub json: bool,
}

/// `moji login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The server.
    #[arg(help = "The server, as HOST, HOST:PORT or [IPV6]:PORT; --server says it as well")]
    #[arg(value_name = "HOST[:PORT]")]
    pub host: Option<String>,
}

/// `moji completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `moji man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder for moji.1, moji-submit.1 …; it is made
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// A value parser that names all words, so that help and completions do, too.
fn words<T>(words: &[&'static str]) -> impl TypedValueParser<Value = T> + use<T>
where
    T: std::str::FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words.iter().copied()).try_map(|word| word.parse::<T>())
}

/// A failure's kinds as they are written here, and as in JSON.
const KINDS: [(&str, &str); 6] = [
    ("package", "package"),
    ("missing-dependency", "missing_dependency"),
    ("infrastructure", "infrastructure"),
    ("configuration", "configuration"),
    ("unreadable-srpm", "unreadable_srpm"),
    ("interrupted", "interrupted"),
];

/// Kinds of failures, with dashes; JSON's words are as good.
fn kinds() -> impl TypedValueParser<Value = FailureKind> {
    let word = |(word, alias): (&'static str, &'static str)| PossibleValue::new(word).alias(alias);
    PossibleValuesParser::new(KINDS.map(word)).try_map(|word| {
        serde_json::from_value::<FailureKind>(serde_json::Value::String(word.replace('-', "_")))
    })
}

/// A place in priority.txt. Its words are offered, and any number is taken.
#[derive(Debug, Clone, Copy)]
struct Places {
    with_none: bool,
}

impl Places {
    fn parse(self, text: &str) -> Result<Place, String> {
        match text {
            "first" => Ok(Place::First),
            "last" => Ok(Place::Last),
            "none" if self.with_none => Ok(Place::Nowhere),
            number => number.parse().ok().filter(|at| *at > 0).map(Place::At).ok_or_else(|| {
                let none = if self.with_none { ", or none" } else { "" };
                format!("it is first, last, or a number from 1 on{none}")
            }),
        }
    }
}

impl TypedValueParser for Places {
    type Value = Place;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Place, clap::Error> {
        let places = *self;
        let parse = move |text: &str| places.parse(text);
        TypedValueParser::parse_ref(&parse, command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words: &[&'static str] =
            if self.with_none { &["first", "last", "none"] } else { &["first", "last"] };
        Some(Box::new(words.iter().map(|word| PossibleValue::new(*word))))
    }
}
