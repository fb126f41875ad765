//! `moji login`: which server is yours, and your token.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use moji_proto::operator::Role;
use moji_proto::outcome::plain;
use moji_proto::{DEFAULT_PORT, Token};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::access::Secret;
use crate::operator::config::{ConfigFile, Environment, Settings, read_token, token_of};
use crate::operator::options::{Common, Login};
use crate::operator::output::print;
use crate::operator::{Failure, Farm};
use crate::options::host_and_port;

/// Longest token that is read.
const LONGEST: usize = 4096;

/// Takes a token, tries it, and writes it down.
pub(super) async fn login(common: &Common, environment: &Environment, wanted: Login) -> Result<(), Failure> {
    let path = environment.config_file(common)?;
    let wanted = server_of(common, environment, wanted)?;
    let (host, port) = host_and_port(&wanted).map_err(|error| Failure::Wrong(format!("{error:#}")))?;
    let token = token(common, environment, &wanted).await?;
    let secret = token.clone().map_or(Secret::None, Secret::Token);
    let server = match (host.contains(':'), port) {
        (true, port) => format!("[{host}]:{port}"),
        (false, DEFAULT_PORT) => host.clone(),
        (false, port) => format!("{host}:{port}"),
    };
    let Common { server_key, plaintext, .. } = *common;
    let (dial, access) = Settings { host, port, secret, server_key, plaintext }.way();
    let farm = Farm::new(dial, access);
    let welcome = farm.session().await?.welcome().clone();
    farm.leave().await;
    let file = ConfigFile {
        server: Some(server.clone()),
        token: token.map(|token| token.to_secret_text()),
        server_key: server_key.map(|key| key.to_string()),
        plaintext,
    };
    let at = path.clone();
    tokio::task::spawn_blocking(move || file.write(&at))
        .await
        .map_err(|error| Failure::Broken(error.to_string()))??;
    let name = welcome.credential.map(|name| format!(" as {name}")).unwrap_or_default();
    let may = match welcome.role {
        Role::Submitter => "submitter: you may look, submit SRPMs and have them tried again",
        Role::Admin => "admin: you may do everything",
    };
    print(&format!(
        "{server} ({}) lets you in{name}, {may}\nwritten to {}\n",
        plain(&welcome.software),
        path.display()
    ))
}

/// Which server is meant: where it is named does not matter, two of them do.
fn server_of(common: &Common, environment: &Environment, wanted: Login) -> Result<String, Failure> {
    match (wanted.host, &common.server) {
        (Some(host), Some(other)) if host != *other => Err(Failure::Wrong(format!(
            "which one is it? HOST says {}, --server {}",
            plain(&host),
            plain(other)
        ))),
        (Some(host), _) => Ok(host),
        (None, Some(server)) => Ok(server.clone()),
        (None, None) => environment
            .server
            .clone()
            .ok_or_else(|| Failure::Wrong("which server? Say it: moji login HOST[:PORT]".into())),
    }
}

/// The token; none: the server may let anybody in.
async fn token(common: &Common, environment: &Environment, host: &str) -> Result<Option<Token>, Failure> {
    if let Some(path) = &common.token_file {
        return read_token(path).map(Some);
    }
    if let Some(token) = &environment.token {
        return token_of(token).map(Some);
    }
    if let Some(path) = &environment.token_file {
        return read_token(path).map(Some);
    }
    let prompt = format!("Token for {} (none: just Enter): ", plain(host));
    let asking = tokio::task::spawn_blocking(move || ask(&prompt));
    let typed = tokio::select! {
        biased;
        asked = asking => asked.map_err(|error| Failure::Broken(error.to_string()))??,
        _ = tokio::signal::ctrl_c() => {
            echo_again();
            return Err(Failure::Wrong("left without a token".into()));
        }
    };
    if typed.trim().is_empty() { Ok(None) } else { token_of(&typed).map(Some) }
}

/// Asks on the terminal, which does not show what is typed.
fn ask(prompt: &str) -> Result<String, Failure> {
    let cannot = |error: io::Error| {
        Failure::Wrong(format!(
            "there is no terminal to ask for the token ({error}): give --token-file FILE, or -"
        ))
    };
    let mut terminal = terminal().map_err(cannot)?;
    let _quiet = Quiet::begin(&terminal).map_err(|error| cannot(error.into()))?;
    terminal.write_all(prompt.as_bytes()).map_err(cannot)?;
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while line.len() < LONGEST && terminal.read(&mut byte).map_err(cannot)? == 1 && byte != *b"\n" {
        line.extend_from_slice(&byte);
    }
    let _ = terminal.write_all(b"\n");
    String::from_utf8(line).map_err(|_| Failure::Wrong("that is no token: it is not UTF-8".into()))
}

fn terminal() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(PathBuf::from("/dev/tty"))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet(File, Termios);

impl Quiet {
    fn begin(terminal: &File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        let own = terminal.as_fd().try_clone_to_owned().map_err(|_| rustix::io::Errno::MFILE)?;
        Ok(Self(File::from(own), before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.0, OptionalActions::Flush, &self.1);
    }
}

/// For whoever leaves in the middle of it: the other thread still reads.
fn echo_again() {
    if let Ok(mut terminal) = terminal()
        && let Ok(mut modes) = tcgetattr(&terminal)
    {
        modes.local_modes.insert(LocalModes::ECHO);
        let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        let _ = terminal.write_all(b"\n");
    }
}
