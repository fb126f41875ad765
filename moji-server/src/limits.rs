//! How much strangers and builders may make this server keep, write or do. An operator may change all
//! of them; frames, messages, windows and whatever else both sides must agree on are the protocol's
//! and constants ([`moji_proto::limits`]).
//!
//! Numbers and their names only: who goes beyond a limit is found out where it happens, and said there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use moji_proto::limits::FILES;
use serde::Deserialize;

use crate::options::{duration, size};

/// All limits that an operator may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, of builders and of strangers; never more than half of the open files
    /// that the process may have. Those beyond are closed at once.
    pub connections: usize,
    /// The same from one address; for IPv6 from one /64, which is what one customer has.
    pub connections_per_address: usize,
    /// Strangers at a time: connections that have not registered yet. Beyond that, one from an address
    /// with few of them takes the place of one from the address with the most; else it is closed.
    pub strangers: usize,
    /// The same from one address. Those beyond are closed at once.
    pub strangers_per_address: usize,
    /// How long a stranger may take until it has registered, however busy it looks.
    pub handshake_timeout: Duration,
    /// How long the first wrong password of an address waits for its answer; each further one waits
    /// twice as long.
    pub login_delay: Duration,
    /// The longest of these waits: shorter than the 30 s that a client waits for an answer.
    pub login_delay_max: Duration,
    /// An address without a wrong password for so long is as good as new.
    pub login_memory: Duration,
    /// Addresses whose wrong passwords are remembered; beyond that the oldest is forgotten.
    pub login_addresses: usize,
    /// Builders that may be connected with one credential at a time.
    pub builders_per_credential: usize,
    /// Files in the results of one attempt; never more than [`FILES`], which is the protocol's.
    pub manifest_entries: usize,
    /// Bytes of one artifact. Results with a larger one are refused before a byte of them comes, which
    /// counts against the builder; so it is for the next one.
    pub artifact_size: u64,
    /// Bytes of all results of one attempt.
    pub attempt_size: u64,
    /// Bytes a second of all live logs of one attempt, in the long run: the sender is slowed down.
    pub log_rate: u64,
    /// Bytes of live logs that come at full speed before that.
    pub log_burst: u64,
    /// Control messages a second of one builder, in the long run: it is read more slowly.
    pub message_rate: u64,
    /// Control messages that are taken at full speed before that.
    pub message_burst: u64,
    /// Refused attempts whose results are kept for a person to look at; the oldest goes first.
    pub quarantine_attempts: usize,
    /// Bytes of all of them.
    pub quarantine_size: u64,
    /// Bytes of one SRPM that somebody submits over the network.
    pub submission_size: u64,
    /// Bytes of the metadata of all generations that are kept: the oldest that nobody uses goes first.
    pub generations_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 512,
            strangers: 512,
            strangers_per_address: 64,
            handshake_timeout: Duration::from_secs(10),
            login_delay: Duration::from_secs(1),
            login_delay_max: Duration::from_secs(20),
            login_memory: Duration::from_secs(15 * 60),
            login_addresses: 4096,
            builders_per_credential: 1024,
            manifest_entries: FILES,
            artifact_size: 16 << 30,
            attempt_size: 64 << 30,
            log_rate: 2 << 20,
            log_burst: 16 << 20,
            message_rate: 1000,
            message_burst: 10_000,
            quarantine_attempts: 20,
            quarantine_size: 10 << 30,
            submission_size: 8 << 30,
            generations_size: 4 << 30,
        }
    }
}

/// A value in the configuration file: `4096` or `"4K"`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Written {
    /// A bare number.
    Number(u64),
    /// A text, as on the command line.
    Text(String),
}

/// One limit, as an operator knows it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// What it is when nothing is said, as an operator would write it.
    pub default: &'static str,
    field: fn(&mut Limits) -> Field<'_>,
}

/// What a limit counts.
enum Field<'a> {
    Count(&'a mut usize),
    Rate(&'a mut u64),
    Bytes(&'a mut u64),
    Time(&'a mut Duration),
}

const fn limit(name: &'static str, default: &'static str, field: fn(&mut Limits) -> Field<'_>) -> Limit {
    Limit { name, default, field }
}

/// All of them, in the order of the documentation.
pub const LIMITS: [Limit; 21] = [
    limit("connections", "4096", |limits| Field::Count(&mut limits.connections)),
    limit("connections-per-address", "512", |limits| Field::Count(&mut limits.connections_per_address)),
    limit("strangers", "512", |limits| Field::Count(&mut limits.strangers)),
    limit("strangers-per-address", "64", |limits| Field::Count(&mut limits.strangers_per_address)),
    limit("handshake-timeout", "10s", |limits| Field::Time(&mut limits.handshake_timeout)),
    limit("login-delay", "1s", |limits| Field::Time(&mut limits.login_delay)),
    limit("login-delay-max", "20s", |limits| Field::Time(&mut limits.login_delay_max)),
    limit("login-memory", "15m", |limits| Field::Time(&mut limits.login_memory)),
    limit("login-addresses", "4096", |limits| Field::Count(&mut limits.login_addresses)),
    limit("builders-per-credential", "1024", |limits| Field::Count(&mut limits.builders_per_credential)),
    limit("manifest-entries", "20000", |limits| Field::Count(&mut limits.manifest_entries)),
    limit("artifact-size", "16G", |limits| Field::Bytes(&mut limits.artifact_size)),
    limit("attempt-size", "64G", |limits| Field::Bytes(&mut limits.attempt_size)),
    limit("log-rate", "2M", |limits| Field::Bytes(&mut limits.log_rate)),
    limit("log-burst", "16M", |limits| Field::Bytes(&mut limits.log_burst)),
    limit("message-rate", "1000", |limits| Field::Rate(&mut limits.message_rate)),
    limit("message-burst", "10000", |limits| Field::Rate(&mut limits.message_burst)),
    limit("quarantine-attempts", "20", |limits| Field::Count(&mut limits.quarantine_attempts)),
    limit("quarantine-size", "10G", |limits| Field::Bytes(&mut limits.quarantine_size)),
    limit("submission-size", "8G", |limits| Field::Bytes(&mut limits.submission_size)),
    limit("generations-size", "4G", |limits| Field::Bytes(&mut limits.generations_size)),
];

impl Limits {
    /// What a configuration file and a command line say, the latter as `NAME=VALUE`; the command line
    /// counts.
    ///
    /// # Errors
    /// Which name or value is wrong, and what there is.
    pub fn resolve(file: &BTreeMap<String, Written>, line: &[String]) -> anyhow::Result<Self> {
        let mut limits = Self::default();
        for (name, value) in file {
            let value = match value {
                Written::Text(text) => text.clone(),
                Written::Number(number) => number.to_string(),
            };
            limits.set(name, &value).context("[limits] in the configuration file")?;
        }
        for given in line {
            let set = match given.split_once('=') {
                Some((name, value)) => limits.set(name, value),
                None => Err(anyhow::anyhow!("it is written NAME=VALUE, like connections=1000")),
            };
            set.with_context(|| format!("--limit {given}"))?;
        }
        limits.check()?;
        Ok(limits)
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let Some(limit) = LIMITS.iter().find(|limit| limit.name == name) else {
            let names: Vec<_> = LIMITS.iter().map(|limit| limit.name).collect();
            bail!("there is no limit {name:?}; there are {}", names.join(", "));
        };
        let wrong = |error: String| anyhow::anyhow!("{name}: {error}");
        let number = || format!("{value:?} is no number like {}", limit.default);
        match (limit.field)(self) {
            Field::Count(field) => *field = value.parse().map_err(|_| wrong(number()))?,
            Field::Rate(field) => *field = value.parse().map_err(|_| wrong(number()))?,
            Field::Bytes(field) => *field = size(value).map_err(wrong)?,
            Field::Time(field) => *field = duration(value).map_err(wrong)?,
        }
        Ok(())
    }

    fn check(&mut self) -> anyhow::Result<()> {
        // With the first three of these at 0 the server would be of no use to anybody.
        for limit in LIMITS {
            let may_be = limit.name.starts_with("quarantine") || limit.name == "generations-size";
            let is_zero = match (limit.field)(self) {
                Field::Count(count) => *count == 0 && !may_be,
                Field::Rate(number) | Field::Bytes(number) => *number == 0 && !may_be,
                Field::Time(time) => time.is_zero() && limit.name == "handshake-timeout",
            };
            ensure!(!is_zero, "the limit {} must not be 0", limit.name);
        }
        ensure!(
            self.manifest_entries <= FILES,
            "the limit manifest-entries is {}, and the protocol allows {FILES} at most",
            self.manifest_entries
        );
        Ok(())
    }

    /// How many connections there may be: half of the open files that the process may have is for
    /// SRPMs, logs and results.
    pub(crate) fn connections_of_this_process(&self) -> usize {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX));
        self.connections.min(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, line: &[&str]) -> anyhow::Result<Limits> {
        let line: Vec<_> = line.iter().map(ToString::to_string).collect();
        Limits::resolve(&toml::from_str(file).unwrap(), &line)
    }

    #[test]
    fn the_defaults_are_what_the_table_says() {
        let line: Vec<_> = LIMITS.iter().map(|limit| format!("{}={}", limit.name, limit.default)).collect();
        assert_eq!(Limits::resolve(&BTreeMap::new(), &line).unwrap(), Limits::default());
    }

    /// A name that sets another one's field is found.
    #[test]
    fn each_name_sets_its_own_field_only() {
        let mut seen = std::collections::BTreeSet::new();
        for limit in LIMITS {
            let mut changed = Limits::default();
            changed.set(limit.name, if limit.default.ends_with(['s', 'm']) { "7s" } else { "7" }).unwrap();
            let (before, after) = (format!("{:#?}", Limits::default()), format!("{changed:#?}"));
            let lines: Vec<_> = before.lines().zip(after.lines()).filter(|(a, b)| a != b).collect();
            let [(_, line)] = lines[..] else { panic!("{}: {lines:?}", limit.name) };
            let field = line.trim().split(':').next().unwrap().replace('_', "-");
            assert_eq!(field, limit.name);
            assert!(seen.insert(field));
        }
    }

    #[test]
    fn the_command_line_counts_before_the_file() {
        let limits =
            resolve("connections = 10\nlog-rate = '3M'\nlogin-delay = '2s'", &["connections=20"]).unwrap();
        assert_eq!((limits.connections, limits.log_rate), (20, 3 << 20));
        assert_eq!(limits.login_delay, Duration::from_secs(2));
    }

    #[test]
    fn mistakes_are_named() {
        for (file, line, wanted) in [
            ("", &["colour=3"][..], "there is no limit \"colour\"; there are connections, connections-per-"),
            ("", &["connections"], "--limit connections: it is written NAME=VALUE"),
            ("", &["connections=many"], "\"many\" is no number like 4096"),
            ("", &["log-rate=fast"], "\"fast\" is no size"),
            ("", &["handshake-timeout=5 parsecs"], "no duration"),
            ("", &["connections=0"], "connections must not be 0"),
            ("", &["manifest-entries=20001"], "the protocol allows 20000"),
            ("artifact-size = 'big'", &[], "[limits] in the configuration file: artifact-size"),
            ("speed = 3", &[], "there is no limit \"speed\""),
        ] {
            let error = format!("{:#}", resolve(file, line).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
