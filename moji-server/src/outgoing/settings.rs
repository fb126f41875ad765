//! Which programs and web servers are told of what: from the command line and the configuration file.
//!
//! It deliberately runs nothing and connects to nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use moji_proto::api::EventKind;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::url::HookUrl;
use crate::out_of_sight::read_secret;

/// What is told unless it is said otherwise.
pub(super) const USUAL: [EventKind; 10] = [
    EventKind::Queued,
    EventKind::Started,
    EventKind::Succeeded,
    EventKind::Failed,
    EventKind::Parked,
    EventKind::Held,
    EventKind::Published,
    EventKind::BuilderLost,
    EventKind::BuilderBack,
    EventKind::QueueEmpty,
];

/// The options.
#[derive(Debug, Default, Args)]
pub struct OutgoingOptions {
    /// A program to run for each event: JSON on its standard input, MOJI_EVENT, MOJI_TEXT and more in its environment;
    /// may be repeated
    #[arg(long, value_name = "PROGRAM")]
    on_event: Vec<PathBuf>,
    /// A URL to which each event is posted as JSON; may be repeated. One that is a secret belongs into the
    /// configuration file, because ps shows this one
    #[arg(long, value_name = "URL")]
    webhook: Vec<HookUrl>,
    /// A file whose first line is the key that webhooks are signed with (HMAC-SHA256) [default: not signed]
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// Only such events: queued, started, ended, succeeded, failed, parked, held, withdrawn, published,
    /// builder_connected, builder_lost, builder_back, builder_left, queue_empty, steered [default: all but ended,
    /// withdrawn, builder_connected, builder_left, steered]
    #[arg(long, value_name = "KIND[,KIND…]", value_delimiter = ',')]
    event: Vec<EventKind>,
}

/// The same in the configuration file, where each receiver can have events and a key of its own.
#[derive(Debug, Default)]
pub struct Written {
    /// Programs.
    pub on_event: Vec<WrittenProgram>,
    /// Web servers.
    pub webhook: Vec<WrittenHook>,
    /// The key of those that have none of their own.
    pub webhook_secret_file: Option<PathBuf>,
    /// The events of those that have none of their own.
    pub event: Vec<EventKind>,
}

/// A program, as a text or as a table.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a program is a path, or a table with program and events")]
pub enum WrittenProgram {
    /// Its path.
    Path(PathBuf),
    /// Its path, and what it is told of.
    Table(ProgramTable),
}

/// `[[on-event]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProgramTable {
    program: PathBuf,
    #[serde(default)]
    events: Vec<EventKind>,
}

/// A web server, as a text or as a table.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a webhook is a URL, http://… or https://…, or a table with url, secret-file and events"
)]
pub enum WrittenHook {
    /// Its URL.
    Url(HookUrl),
    /// Its URL, its key, and what it is told of.
    Table(HookTable),
}

/// `[[webhook]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HookTable {
    url: HookUrl,
    secret_file: Option<PathBuf>,
    #[serde(default)]
    events: Vec<EventKind>,
}

/// Who is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Receiver {
    /// A program.
    Program(PathBuf),
    /// A web server, and the key that it knows us by.
    Webhook(HookUrl, Option<String>),
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(path) => write!(f, "--on-event {}", path.display()),
            Self::Webhook(url, _) => write!(f, "--webhook {url}"),
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({self})")
    }
}

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    /// Who.
    pub receiver: Receiver,
    /// Of what.
    pub kinds: BTreeSet<EventKind>,
}

impl SinkConfig {
    /// What the history knows it by: the same after a restart, another one for another URL or path; the URL, which may
    /// be a secret, cannot be read off it.
    pub(super) fn name(&self) -> String {
        let (kind, what) = match &self.receiver {
            Receiver::Program(path) => ("program", path.as_os_str().as_encoded_bytes().to_vec()),
            Receiver::Webhook(url, _) => ("webhook", url.whole().into_bytes()),
        };
        let digest = digest(&SHA256, &what);
        let digits = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}"));
        format!("{kind}-{}", digits.collect::<String>())
    }
}

impl OutgoingOptions {
    /// Those of the command line and those of the file. What the command line says of keys and events counts for those
    /// of the file that say nothing themselves.
    ///
    /// # Errors
    /// A key that cannot be read, a receiver that is there twice, a key without webhooks.
    pub fn resolve(self, file: Written) -> anyhow::Result<Vec<SinkConfig>> {
        let secret_file = self.webhook_secret_file.or(file.webhook_secret_file);
        let key = secret_file.as_deref().map(read_key).transpose()?;
        let usual = if self.event.is_empty() { file.event } else { self.event };
        let kinds = |own: Vec<EventKind>| match (own.is_empty(), usual.is_empty()) {
            (false, _) => own.into_iter().collect(),
            (true, false) => usual.iter().copied().collect(),
            (true, true) => USUAL.into_iter().collect(),
        };
        let mut sinks = Vec::new();
        for program in file.on_event.into_iter().chain(self.on_event.into_iter().map(WrittenProgram::Path)) {
            let (path, events) = match program {
                WrittenProgram::Path(path) => (path, Vec::new()),
                WrittenProgram::Table(table) => (table.program, table.events),
            };
            sinks.push(SinkConfig { receiver: Receiver::Program(where_it_is(&path)?), kinds: kinds(events) });
        }
        for hook in file.webhook.into_iter().chain(self.webhook.into_iter().map(WrittenHook::Url)) {
            let (url, own, events) = match hook {
                WrittenHook::Url(url) => (url, None, Vec::new()),
                WrittenHook::Table(table) => (table.url, table.secret_file, table.events),
            };
            let key = own.as_deref().map(read_key).transpose()?.or_else(|| key.clone());
            sinks.push(SinkConfig { receiver: Receiver::Webhook(url, key), kinds: kinds(events) });
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = sinks.iter().find(|sink| !names.insert(sink.name())) {
            bail!("{} is there twice", twice.receiver);
        }
        Ok(sinks)
    }
}

/// A name without a folder is looked up in `PATH` each time; else the working directory of now counts.
fn where_it_is(program: &Path) -> anyhow::Result<PathBuf> {
    if !program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(program.to_owned());
    }
    std::path::absolute(program).with_context(|| format!("--on-event {}", program.display()))
}

fn read_key(path: &Path) -> anyhow::Result<String> {
    read_secret(path, "webhook secret")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        outgoing: OutgoingOptions,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct File {
        on_event: Vec<WrittenProgram>,
        webhook: Vec<WrittenHook>,
        webhook_secret_file: Option<PathBuf>,
        event: Vec<EventKind>,
    }

    fn resolve(line: &[&str], file: &str) -> anyhow::Result<Vec<SinkConfig>> {
        let line = Line::try_parse_from(["moji-server"].iter().chain(line))?;
        let File { on_event, webhook, webhook_secret_file, event } = toml::from_str(file)?;
        line.outgoing.resolve(Written { on_event, webhook, webhook_secret_file, event })
    }

    /// Receiver, key, how many kinds.
    fn outline(sinks: Vec<SinkConfig>) -> Vec<(String, Option<String>, usize)> {
        let key = |sink: &SinkConfig| match &sink.receiver {
            Receiver::Webhook(_, key) => key.clone(),
            Receiver::Program(_) => None,
        };
        sinks.iter().map(|sink| (sink.receiver.to_string(), key(sink), sink.kinds.len())).collect()
    }

    #[test]
    fn receivers_of_line_and_file_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("key {name}\nrest")).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let file = format!(
            "on-event = ['blink', {{ program = '/bin/x', events = ['held'] }}]\nevent = ['failed', 'held']\n\
             webhook-secret-file = {:?}\n[[webhook]]\nurl = 'https://h/a'\nsecret-file = {:?}\nevents = ['queued', \
             'held', 'parked']\n[[webhook]]\nurl = 'http://h/b'\n",
            key("common"),
            key("own"),
        );
        let sink =
            |receiver: &str, key: Option<&str>, kinds| (receiver.to_owned(), key.map(str::to_owned), kinds);
        assert_eq!(
            outline(resolve(&["--webhook", "http://h"], &file).unwrap()),
            [
                sink("--on-event blink", None, 2),
                sink("--on-event /bin/x", None, 1),
                sink("--webhook https://h/…", Some("key own"), 3),
                sink("--webhook http://h/…", Some("key common"), 2),
                sink("--webhook http://h/", Some("key common"), 2),
            ]
        );
        let line = ["--event", "failed,held,queued,parked", "--webhook-secret-file", &key("line")];
        let sinks = outline(resolve(&line, &file).unwrap());
        assert_eq!(sinks[3], sink("--webhook http://h/…", Some("key line"), 4), "the line comes first");
        assert_eq!(
            sinks[2],
            sink("--webhook https://h/…", Some("key own"), 3),
            "what a table says itself counts"
        );
        let usual = resolve(&["--on-event", "x"], "webhook = ['http://h']").unwrap();
        assert!(usual.iter().all(|sink| sink.kinds == USUAL.into()), "{usual:?}");
        assert!(resolve(&[], "").unwrap().is_empty());
        let relative = resolve(&["--on-event", "./x"], "").unwrap();
        assert!(matches!(&relative[0].receiver, Receiver::Program(path) if path.is_absolute()));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, file, wanted) in [
            (&["--event", "failed,fialed"][..], "", "no kind of event: queued, started"),
            (&["--webhook", "h"], "", "neither with http:// nor with https://"),
            (&["--webhook", "http://h", "--webhook", "http://h"], "", "--webhook http://h/ is there twice"),
            (&["--on-event", "x"], "on-event = ['x']", "--on-event x is there twice"),
            (&["--webhook-secret-file", "/nonexistent/k"], "", "webhook secret file /nonexistent/k"),
            (&[], "webhook = ['ftp://h']", "a webhook is"),
            (&[], "[[webhook]]\nurl = 'http://h'\ncolour = 'red'", "a webhook is"),
            (&[], "on-event = [3]", "a program is"),
            (&[], "event = ['fialed']", "fialed"),
        ] {
            let error = format!("{:#}", resolve(line, file).unwrap_err());
            assert!(error.contains(wanted), "{line:?} {file}: {error}");
        }
    }

    #[test]
    fn nothing_prints_a_key() {
        let receiver = Receiver::Webhook("http://h/secret".parse().unwrap(), Some("secret".into()));
        assert!(!format!("{receiver} {receiver:?}").contains("secret"));
    }

    #[test]
    fn the_help_names_all_kinds() {
        use clap::CommandFactory as _;
        let help = Line::command().render_long_help().to_string();
        let words: Vec<_> = help.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).collect();
        for kind in EventKind::ALL {
            assert!(words.contains(&kind.word()), "{}", kind.word());
        }
    }
}
