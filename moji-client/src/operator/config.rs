//! Which farm, and with which token: command line before environment before configuration file.
//!
//! The file has a secret in it, so it is used only when nobody else can read it. What it says of one server is not
//! used with another one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use moji_proto::{Fingerprint, Token};
use serde::Deserialize;

use super::Failure;
use super::options::Common;
use super::output::note;
use crate::access::{Access, Secret};
use crate::options::host_and_port;
use crate::out_of_sight::read_password;
use crate::start::Tcp;

/// Where a first try finds a server.
const LOCAL: &str = "localhost";
/// Longest configuration file that is read.
const LONGEST: u64 = 64 * 1024;

/// What the environment says.
#[derive(Clone, Default)]
pub struct Environment {
    /// `MOJI_SERVER`.
    pub server: Option<String>,
    /// `MOJI_TOKEN`.
    pub token: Option<String>,
    /// `MOJI_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// The folder for configuration files: `XDG_CONFIG_HOME`, or `.config` at home.
    pub config_home: Option<PathBuf>,
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let config_home = text("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
        Self {
            server: text("MOJI_SERVER"),
            token: text("MOJI_TOKEN"),
            token_file: text("MOJI_TOKEN_FILE").map(PathBuf::from),
            config_home,
        }
    }

    /// The configuration file.
    ///
    /// # Errors
    /// When there is no home for it.
    pub fn config_file(&self, common: &Common) -> Result<PathBuf, Failure> {
        if let Some(path) = &common.config {
            return Ok(path.clone());
        }
        let home = self.config_home.as_ref().map(|home| home.join("moji/config.toml"));
        home.ok_or_else(|| {
            Failure::Wrong("there is no home folder for the configuration: give --config".into())
        })
    }
}

/// The configuration file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFile {
    /// The server.
    pub server: Option<String>,
    /// The token.
    pub token: Option<String>,
    /// The key that the server must have.
    pub server_key: Option<String>,
    /// No TLS.
    pub plaintext: bool,
}

/// How to reach a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server's host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// A token, or nothing.
    pub secret: Secret,
    /// The key that the server must have.
    pub server_key: Option<Fingerprint>,
    /// No TLS.
    pub plaintext: bool,
}

impl Settings {
    /// All sources together.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(common: &Common, environment: &Environment) -> Result<Self, Failure> {
        let file = match environment.config_file(common) {
            Ok(path) => ConfigFile::read(&path, common.config.is_some())?,
            Err(_) => ConfigFile::default(),
        };
        Self::combine(common, environment, file)
    }

    fn combine(common: &Common, environment: &Environment, file: ConfigFile) -> Result<Self, Failure> {
        let parse = |server: &str| host_and_port(server).map_err(|error| wrong(&error));
        let theirs = file.server.as_deref().map(parse).transpose()?;
        let ours = common.server.as_deref().or(environment.server.as_deref()).map(parse).transpose()?;
        // A token is for one server: with another one it could only fail, or show whose it is.
        let file = match (&ours, &theirs) {
            (Some(ours), theirs) if theirs.as_ref() != Some(ours) => ConfigFile::default(),
            _ => file,
        };
        let (host, port) = ours.or(theirs).unwrap_or((LOCAL.into(), moji_proto::DEFAULT_PORT));
        let token = match (&common.token_file, &environment.token, &environment.token_file) {
            (Some(path), ..) | (None, None, Some(path)) => Some(read_token(path)?),
            (None, Some(token), _) => Some(token_of(token)?),
            (None, None, None) => file.token.as_deref().map(token_of).transpose()?,
        };
        let server_key =
            match (common.server_key, file.server_key) {
                (Some(key), _) => Some(key),
                (None, Some(key)) => Some(key.parse().map_err(|error| {
                    Failure::Wrong(format!("server-key in the configuration file: {error}"))
                })?),
                (None, None) => None,
            };
        let secret = token.map_or(Secret::None, Secret::Token);
        Ok(Self { host, port, secret, server_key, plaintext: common.plaintext || file.plaintext })
    }

    /// The way there.
    pub fn way(self) -> (Tcp, Access) {
        let access = Access::of_person(self.secret, self.server_key, self.plaintext);
        (Tcp::new(self.host, self.port), access)
    }
}

impl ConfigFile {
    /// What a file says; nothing when there is none that must be.
    ///
    /// # Errors
    /// When it cannot be read, others can read it, or it is wrong.
    pub fn read(path: &Path, must_be: bool) -> Result<Self, Failure> {
        let at = path.display();
        let cannot =
            |error: io::Error| Failure::Wrong(format!("cannot read the configuration file {at}: {error}"));
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be => return Ok(Self::default()),
            file => file.map_err(cannot)?,
        };
        let mode = file.metadata().map_err(cannot)?.mode();
        if mode & 0o077 != 0 {
            return Err(Failure::Wrong(format!(
                "others may read or write {at}, which has your token in it: chmod 600 {at} (and have the token \
                 replaced, if somebody may have seen it)"
            )));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(cannot)?;
        // The parser's own message quotes the line, which may be the token's.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line =
                error.span().map_or(1, |span| 1 + text.get(..span.start).unwrap_or("").matches('\n').count());
            Failure::Wrong(format!("{at}:{line}: {}", first_line(error.message())))
        })
    }

    /// Writes it, for its owner only, in the place of what was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let cannot = |error: io::Error| Failure::Broken(format!("cannot write {}: {error}", path.display()));
        let text = self.text();
        let part = path.with_extension("part");
        let written = || {
            if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
                fs::DirBuilder::new().recursive(true).create(folder)?;
                fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            }
            // One that is left of a start before could have other rights.
            let _ = fs::remove_file(&part);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, path)
        };
        written().map_err(cannot)
    }

    fn text(&self) -> String {
        let mut text =
            String::from("# Written by moji login. It has a secret in it: nobody else may read it.\n");
        let entries = [("server", &self.server), ("token", &self.token), ("server-key", &self.server_key)];
        for (name, value) in entries {
            if let Some(value) = value {
                // What JSON writes as a text means the same in TOML.
                text.push_str(&format!("{name} = {}\n", serde_json::Value::from(value.as_str())));
            }
        }
        if self.plaintext {
            text.push_str("plaintext = true\n");
        }
        text
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn wrong(error: &anyhow::Error) -> Failure {
    Failure::Wrong(format!("{error:#}"))
}

/// The token in a file's first line.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_token(path: &Path) -> Result<Token, Failure> {
    warn_if_open(path);
    let text = read_password(path).map_err(|error| {
        Failure::Wrong(format!("{error:#}").replace("the password file", "the token file"))
    })?;
    token_of(&text)
}

/// As the builder does of its password file: the file may be another program's, so that is no reason to stop.
fn warn_if_open(path: &Path) {
    let mode = fs::metadata(path).ok().filter(fs::Metadata::is_file).map_or(0, |data| data.mode());
    if mode & 0o004 != 0 {
        let path = path.display();
        note(&format!("everyone on this machine can read the token in {path}: chmod o= {path}"));
    }
}

/// The token in a text.
///
/// # Errors
/// When it is none. The text is not quoted.
pub fn token_of(text: &str) -> Result<Token, Failure> {
    match Secret::new(text.trim()) {
        Ok(Secret::Token(token)) => Ok(token),
        Ok(Secret::None | Secret::Password(_)) => Err(Failure::Wrong(
            "this is no token: it begins with moji1. and comes from moji-server credential add (the builders' \
             password lets only builders in)"
                .into(),
        )),
        Err(error) => Err(wrong(&error)),
    }
}
