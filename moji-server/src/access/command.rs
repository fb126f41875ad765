//! `moji-server credential`: adds, lists and revokes credentials, also while the server runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{CredentialName, TargetName, Token};
use serde::Serialize;

use super::credentials::{self, Credential, Credentials, Role};
use super::identity::{Identity, check_owner};

const EXAMPLES: &str = "\
Examples:
  A builder's token, into a file that is then copied to the builder:
    sudo -u moji moji-server credential add board-7 --role builder --config /etc/moji/server.toml >token
  One for two targets, for 30 days:
    moji-server credential add laptop --role builder --targets fedora-43-x86_64,fedora-44-x86_64 \\
      --expires 30d --working /srv/moji/working
  Put somebody out, within a second:
    moji-server credential revoke board-7 --working /srv/moji/working

A token is printed once, and not kept. It goes where the password goes: moji-client --password-file.

Exit codes:
  0  done
  1  it could not be done
  2  wrong use";

/// The options of `moji-server credential`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct CredentialOptions {
    #[command(subcommand)]
    command: Command,
    /// The server's folder WORKING
    #[arg(long, value_name = "DIR", global = true)]
    pub working: Option<PathBuf>,
    /// The server's configuration file, for where WORKING is
    #[arg(long, value_name = "FILE", env = "MOJI_SERVER_CONFIG", global = true)]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Make a credential and print its token, once
    Add {
        /// What it is called: for a builder that of the machine, say
        name: CredentialName,
        /// What it is for
        #[arg(long)]
        role: Role,
        /// For these targets only, separated by commas [default: for all]
        #[arg(long, value_name = "TARGET", value_delimiter = ',')]
        targets: Vec<TargetName>,
        /// Until when: a duration like 30d, a date, or a time like 2027-01-31T12:00:00Z
        /// [default: for ever]
        #[arg(long, value_name = "WHEN", value_parser = moment)]
        expires: Option<Timestamp>,
    },
    /// Print the server's fingerprint and all credentials
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a credential worthless; its sessions end within a second
    Revoke {
        /// Which
        name: CredentialName,
    },
}

#[derive(Serialize)]
struct Listing<'a> {
    server: String,
    credentials: Vec<&'a Credential>,
}

impl CredentialOptions {
    /// Does what the command says. `working` is the server's folder WORKING.
    pub fn run(self, working: &Path) -> ExitCode {
        match self.command.run(working) {
            Ok(output) => {
                // A reader that has gone away is no failure.
                let _ = std::io::Write::write_all(&mut std::io::stdout(), output.as_bytes());
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::from(1)
            }
        }
    }
}

impl Command {
    /// Gives what is to be printed.
    fn run(self, working: &Path) -> anyhow::Result<String> {
        if !working.is_dir() {
            bail!("{} is no folder: give the server's folder WORKING", working.display());
        }
        let private = check_owner(working, matches!(self, Self::Add { .. }))?;
        let identity = Identity::load_or_make(&private)?;
        let _lock = credentials::lock(&private)?;
        let mut credentials = Credentials::read(&private)?;
        let now = Timestamp::now();
        match self {
            Self::Add { name, role, targets, expires } => {
                if let Some(expires) = expires
                    && expires <= now
                {
                    bail!("--expires: {expires:.0} is over");
                }
                let mut seed = [0; 32];
                getrandom::fill(&mut seed)
                    .map_err(|error| anyhow!("no random numbers from the system: {error}"))?;
                let seed = Seed::new(seed);
                let key = SigningKey::new(&seed).public();
                let was_empty = credentials.is_empty();
                let added =
                    Credential { name: name.clone(), role, targets, key, added: now, expires, revoked: None };
                credentials.add(added)?;
                credentials.write(&private)?;
                tracing::info!("added the credential {name} ({role}); its token is not shown again");
                if was_empty {
                    tracing::info!(
                        "it is the first one: from now on nobody gets in without a token or the password; a \
                         server that listens on loopback only listens everywhere after its next start"
                    );
                }
                let token = Token { server: identity.fingerprint(), name, seed };
                Ok(format!("{}\n", token.to_secret_text()))
            }
            Self::List { json: true } => {
                let listing = Listing {
                    server: identity.fingerprint().to_string(),
                    credentials: credentials.all().collect(),
                };
                Ok(format!("{}\n", serde_json::to_string_pretty(&listing)?))
            }
            Self::List { json: false } => Ok(table(&identity, &credentials)),
            Self::Revoke { name } => {
                if credentials.revoke(&name, now)? {
                    credentials.write(&private)?;
                    Ok(format!("{name} is revoked\n"))
                } else {
                    Ok(format!("{name} was revoked before\n"))
                }
            }
        }
    }
}

fn table(identity: &Identity, credentials: &Credentials) -> String {
    let mut lines = vec![format!("server key: {}", identity.fingerprint())];
    if credentials.is_empty() {
        lines.push("no credentials".to_owned());
    }
    let targets_of = |one: &Credential| match &one.targets[..] {
        [] => "all targets".to_owned(),
        some => some.iter().map(TargetName::as_str).collect::<Vec<_>>().join(","),
    };
    let width = |text: &dyn Fn(&Credential) -> usize| credentials.all().map(text).max().unwrap_or_default();
    let (names, all_targets) = (width(&|one| one.name.as_str().len()), width(&|one| targets_of(one).len()));
    for one in credentials.all() {
        let state = match (one.revoked, one.expires) {
            (Some(when), _) => format!("revoked at {when:.0}"),
            (None, Some(when)) if credentials.good(&one.name).is_err() => format!("expired at {when:.0}"),
            (None, Some(when)) => format!("until {when:.0}"),
            (None, None) => "good".to_owned(),
        };
        let (name, role, targets) = (one.name.as_str(), one.role, targets_of(one));
        lines.push(format!("{name:names$}  {role:9}  {targets:all_targets$}  {state}"));
    }
    lines.join("\n") + "\n"
}

/// A moment in the future, or a duration from now.
fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no duration like 30d, no date and no time like 2027-01-31T12:00:00Z");
    if let Ok(duration) = humantime::parse_duration(text) {
        return Timestamp::now().checked_add(duration).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let date: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
    Ok(midnight.timestamp())
}

/// The folder WORKING: as given, else as the configuration file says.
pub(crate) fn working(given: Option<PathBuf>, configured: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    given.or(configured).context("where is the server? give --working DIR, or --config FILE")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: CredentialOptions,
    }

    fn run(working: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let arguments = ["credential"].iter().chain(arguments);
        <Line as clap::Parser>::try_parse_from(arguments)?.options.command.run(working)
    }

    #[test]
    fn a_token_is_printed_once_and_its_public_half_is_kept() {
        let working = tempfile::tempdir().unwrap();
        let add = ["add", "board-7", "--role", "builder", "--targets", "a-1-x86_64,b-2-armv7hl"];
        let token: Token = run(working.path(), &add).unwrap().trim_end().parse().unwrap();
        assert_eq!(token.name.as_str(), "board-7");
        let private = working.path().join(".moji");
        let credentials = Credentials::read(&private).unwrap();
        let known = credentials.good(&token.name).unwrap();
        assert_eq!(known.key, SigningKey::new(&token.seed).public());
        assert_eq!((known.role, known.targets.len()), (Role::Builder, 2));
        assert_eq!(token.server, Identity::load_or_make(&private).unwrap().fingerprint());
        let secret = token.to_secret_text();
        let secret = secret.rsplit('.').next().unwrap();
        for entry in std::fs::read_dir(private).unwrap() {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!content.windows(64).any(|text| text == secret.as_bytes()));
        }
        assert!(run(working.path(), &add).unwrap_err().to_string().contains("already"));
    }

    #[test]
    fn the_list_says_what_each_is_worth() {
        let working = tempfile::tempdir().unwrap();
        assert!(run(working.path(), &["list"]).unwrap_err().to_string().contains("no server has used"));
        assert!(!working.path().join(".moji").exists(), "who only looks makes nothing");
        std::fs::DirBuilder::new().mode(0o700).create(working.path().join(".moji")).unwrap();
        assert!(run(working.path(), &["list"]).unwrap().contains("no credentials"));
        run(working.path(), &["add", "board", "--role", "builder", "--expires", "2090-01-02"]).unwrap();
        run(working.path(), &["add", "boss", "--role", "admin"]).unwrap();
        assert_eq!(run(working.path(), &["revoke", "boss"]).unwrap(), "boss is revoked\n");
        assert_eq!(run(working.path(), &["revoke", "boss"]).unwrap(), "boss was revoked before\n");
        assert!(run(working.path(), &["revoke", "nobody"]).unwrap_err().to_string().contains("list"));
        let list = run(working.path(), &["list"]).unwrap();
        let lines: Vec<_> = list.lines().collect();
        assert!(lines[0].starts_with("server key: sha256:"), "{list}");
        assert_eq!(lines[1], "board  builder    all targets  until 2090-01-02T00:00:00Z");
        assert!(
            lines[2].contains("boss   admin") && lines[2].contains("all targets  revoked at 2"),
            "{list}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&run(working.path(), &["list", "--json"]).unwrap()).unwrap();
        assert_eq!(json["credentials"][1]["name"], "boss");
    }

    #[test]
    fn times_are_durations_dates_or_times_and_in_the_future() {
        for text in ["30d", "1h 30m", "2090-01-02", "2090-01-02T03:04:05Z"] {
            assert!(moment(text).unwrap() > Timestamp::now(), "{text}");
        }
        for text in ["", "soon", "2090-13-01", "30"] {
            assert!(moment(text).unwrap_err().contains("is no duration"), "{text}");
        }
        let working = tempfile::tempdir().unwrap();
        let late = ["add", "board", "--role", "builder", "--expires", "2020-01-02"];
        assert!(run(working.path(), &late).unwrap_err().to_string().contains("is over"));
    }
}
