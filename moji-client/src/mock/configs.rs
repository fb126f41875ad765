//! Finding a Mock config, and Mock itself, before the first build needs them.
//!
//! Configs are Python that Mock executes, so this looks at their names only. Which folders there
//! are comes from the caller; nothing here reads the environment.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_proto::{NameError, TargetName};

use super::child::{Output, run_briefly};
use super::command::Argv;
use super::evidence::{Ended, open_regular};

/// Where packages put Mock's configs.
pub const SYSTEM: &str = "/etc/mock";
/// How many configs an error lists.
const LISTED: usize = 20;
/// Files in a config folder that are no target.
const NO_TARGETS: [&str; 2] = ["site-defaults", "chroot-aliases"];
/// How long `mock --version` may take: it loads all of Mock, and a busy board is slow.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// A config that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MockConfig {
    /// The file.
    pub path: PathBuf,
    /// What to give to `-r`: the name as it was given when it is one, else the file's absolute path.
    pub argument: OsString,
    /// The target that a builder with this config builds for: the file's name without `.cfg`, or the one that
    /// its owner gave.
    pub target: TargetName,
}

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No folder has a config of that name.
    #[error("there is no Mock config {name:?} in {}; {}", folders(.searched), listing(.there))]
    NotFound {
        /// The name.
        name: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
        /// The names of the configs that are there, sorted.
        there: Vec<String>,
    },
    /// The path names no readable file.
    #[error("the Mock config {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The config's name is none for a target.
    #[error("the Mock config {} cannot be a target; give that a name (see --target)", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        source: NameError,
    },
}

fn folders(searched: &[PathBuf]) -> String {
    let names: Vec<_> = searched.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

fn listing(there: &[String]) -> String {
    if there.is_empty() {
        return "no config is there: is mock-core-configs installed?".to_owned();
    }
    let shown: Vec<_> = there.iter().take(LISTED).map(String::as_str).collect();
    let more = there.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("there are {}{more}", shown.join(", "))
}

/// The folders in which a program looks for configs by name, in its order. Mock takes
/// `~/.config/mock` before `/etc/mock`; hostmock (`hostmock` in the program's name), the stand-in
/// for hosts without chroots, takes `$HOSTMOCK_CONFIG_DIR` and `~/.config/hostmock` before those.
pub fn folders_of(mock: &OsStr, home: Option<&Path>, hostmock_config_dir: Option<&OsStr>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let program = Path::new(mock).file_name().unwrap_or(mock);
    if program.to_string_lossy().contains("hostmock") {
        folders.extend(hostmock_config_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from));
        folders.extend(home.map(|home| home.join(".config/hostmock")));
    }
    folders.extend(home.map(|home| home.join(".config/mock")));
    folders.push(SYSTEM.into());
    folders
}

/// Finds the config that `mock -r mock_config` would take: a path when it ends in `.cfg`, as Mock
/// decides it, else a name in one of `folders`, the first one first. `name` is the target's when it is
/// not that of the config. Blocking.
///
/// # Errors
/// When there is none, it cannot be read, or its name is none for a target; see [`ConfigError`].
pub fn find(
    mock_config: &str,
    name: Option<TargetName>,
    folders: &[PathBuf],
) -> Result<MockConfig, ConfigError> {
    if mock_config.ends_with(".cfg") {
        let unreadable = |source| ConfigError::Unreadable { path: mock_config.into(), source };
        let path = std::path::absolute(mock_config).map_err(unreadable)?;
        open_config(&path).map_err(unreadable)?;
        return Ok(MockConfig { target: target(name, &path)?, argument: path.clone().into(), path });
    }
    let file = format!("{mock_config}.cfg");
    // Every name in a folder is a file's name, except that Mock takes `eol/NAME` too.
    let harmless = !mock_config.is_empty() && !mock_config.starts_with(['/', '.', '-']);
    for path in folders.iter().filter(|_| harmless).map(|folder| folder.join(&file)) {
        match open_config(&path) {
            Ok(()) => {
                return Ok(MockConfig { target: target(name, &path)?, argument: mock_config.into(), path });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }
    let (name, searched) = (mock_config.to_owned(), folders.to_vec());
    Err(ConfigError::NotFound { name, searched, there: names_in(folders) })
}

/// Links are followed here: configs of a release are links to its template's.
fn open_config(path: &Path) -> io::Result<()> {
    let real = std::fs::canonicalize(path)?;
    open_regular(&real).map(|_| ())
}

fn target(name: Option<TargetName>, path: &Path) -> Result<TargetName, ConfigError> {
    if let Some(name) = name {
        return Ok(name);
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    TargetName::new(stem).map_err(|source| ConfigError::Name { path: path.to_owned(), source })
}

/// The names of the configs in `folders`, sorted, each once. What cannot be read has none.
fn names_in(folders: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".cfg").map(str::to_owned))
        .filter(|name| TargetName::new(name.as_str()).is_ok() && !NO_TARGETS.contains(&name.as_str()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Why Mock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no such program.
    #[error("{} is not there: install the package \"mock\" (dnf install mock), or name another program", .0.display())]
    NotFound(PathBuf),
    /// It is there, but may not be executed.
    #[error("{} cannot be executed: {source}", program.display())]
    NotExecutable {
        /// The program.
        program: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The caller may not use Mock.
    #[error(
        "Mock refuses this user ({said}): add it to the group \"mock\" (usermod -a -G mock USER) and log in again"
    )]
    NotInGroup {
        /// What Mock said.
        said: String,
    },
    /// `mock --version` failed.
    #[error("{} --version failed: {how}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How, and what it said last.
        how: String,
    },
}

/// Asks `mock` for its version, within a minute. `env` is as for [`run`](super::run::run).
///
/// # Errors
/// When it is not there, may not be executed or does not answer; see [`ProbeError`]. Each text
/// says what to do.
pub async fn probe(mock: &OsStr, env: &[(OsString, OsString)]) -> Result<String, ProbeError> {
    let program = || PathBuf::from(mock);
    let argv = Argv { program: mock.to_owned(), args: vec!["--version".into()] };
    let failed = |how: String| ProbeError::Failed { program: program(), how };
    // A file, not a pipe, for the reason that `Output` gives.
    let said = tempfile::NamedTempFile::new().map_err(|error| failed(error.to_string()))?;
    find_program(mock, env)?;
    let ended =
        run_briefly(&argv, env, Output::append(said.path()), PROBE_TIME, Duration::from_secs(2)).await;
    let mut bytes = Vec::new();
    let _ = io::Read::read_to_end(&mut io::Read::take(said, 64 * 1024), &mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let last =
        moji_proto::outcome::one_line(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or(""));
    match ended {
        Ended::Exit(0) if !last.is_empty() => Ok(last),
        _ if text.contains("mock") && text.contains("group") => Err(ProbeError::NotInGroup { said: last }),
        Ended::NotStarted(why) => Err(failed(why)),
        Ended::TimedOut => Err(failed(format!("no answer in {} s", PROBE_TIME.as_secs()))),
        Ended::Exit(code) => Err(failed(format!("exit code {code}, {last:?}"))),
        ended => Err(failed(format!("{ended:?}, {last:?}"))),
    }
}

/// Looks for the program as the kernel and `PATH` would, to tell "not there" from "not executable".
fn find_program(mock: &OsStr, env: &[(OsString, OsString)]) -> Result<(), ProbeError> {
    let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let candidates: Vec<PathBuf> = if mock.to_string_lossy().contains('/') {
        vec![mock.into()]
    } else {
        std::env::split_paths(path.unwrap_or_default()).map(|folder| folder.join(mock)).collect()
    };
    let mut denied = None;
    for candidate in candidates {
        match rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK) {
            Ok(()) if candidate.is_file() => return Ok(()),
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(error) => {
                denied = Some(ProbeError::NotExecutable { program: candidate, source: error.into() })
            }
        }
    }
    Err(denied.unwrap_or_else(|| ProbeError::NotFound(mock.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let folders = vec![dir.path().join("home"), dir.path().join("gone"), dir.path().join("etc")];
        std::fs::create_dir_all(folders[2].join("eol")).unwrap();
        std::fs::create_dir_all(&folders[0]).unwrap();
        for file in ["fedora-43-aarch64.cfg", "site-defaults.cfg", "logging.ini", "eol/fedora-12-i386.cfg"] {
            std::fs::write(folders[2].join(file), "x").unwrap();
        }
        (dir, folders)
    }

    #[test]
    fn by_name_the_users_own_first() {
        let (_dir, folders) = folders();
        let found = find("fedora-43-aarch64", None, &folders).unwrap();
        assert_eq!(found.path, folders[2].join("fedora-43-aarch64.cfg"));
        assert_eq!(found.argument, "fedora-43-aarch64");
        assert_eq!(found.target.as_str(), "fedora-43-aarch64");
        std::os::unix::fs::symlink(&found.path, folders[0].join("fedora-43-aarch64.cfg")).unwrap();
        assert_eq!(
            find("fedora-43-aarch64", None, &folders).unwrap().path,
            folders[0].join("fedora-43-aarch64.cfg")
        );
        assert_eq!(find("eol/fedora-12-i386", None, &folders).unwrap().target.as_str(), "fedora-12-i386");
    }

    #[test]
    fn by_path() {
        let (_dir, folders) = folders();
        let path = folders[2].join("fedora-43-aarch64.cfg");
        let found = find(path.to_str().unwrap(), None, &[]).unwrap();
        assert_eq!(found.argument, path.as_os_str());
        assert!(matches!(find("./gone.cfg", None, &folders), Err(ConfigError::Unreadable { .. })));
        std::fs::write(folders[2].join("a b.cfg"), "x").unwrap();
        let odd = folders[2].join("a b.cfg");
        assert!(matches!(find(odd.to_str().unwrap(), None, &[]), Err(ConfigError::Name { .. })));
        let named = find(odd.to_str().unwrap(), Some("even".parse().unwrap()), &[]).unwrap();
        assert_eq!((named.target.as_str(), named.path), ("even", odd));
    }

    #[test]
    fn an_error_says_what_is_there() {
        let (_dir, folders) = folders();
        for n in 0..30 {
            std::fs::write(folders[0].join(format!("rhel-{n:02}-x86_64.cfg")), "x").unwrap();
        }
        let text = find("fedora-99", None, &folders).unwrap_err().to_string();
        assert!(text.contains("there are fedora-43-aarch64, rhel-00-x86_64,"), "{text}");
        assert!(text.contains(" and 11 more") && !text.contains("site-defaults"), "{text}");
        assert!(text.len() < 2000);
        for name in ["", "-r", "../etc/fedora-43-aarch64", "/etc/mock/x"] {
            assert!(find(name, None, &folders).is_err(), "{name}");
        }
        let text = find("x", None, &folders[1..2]).unwrap_err().to_string();
        assert!(text.contains("mock-core-configs"), "{text}");
    }

    #[test]
    fn folders_of_mock_and_hostmock() {
        let home = Some(Path::new("/home/b"));
        let dir = Some(OsStr::new("/conf"));
        let text =
            |folders: Vec<PathBuf>| folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>();
        assert_eq!(text(folders_of(OsStr::new("mock"), home, dir)), ["/home/b/.config/mock", "/etc/mock"]);
        assert_eq!(
            text(folders_of(OsStr::new("/usr/libexec/hostmock"), home, dir)),
            ["/conf", "/home/b/.config/hostmock", "/home/b/.config/mock", "/etc/mock"]
        );
        assert_eq!(text(folders_of(OsStr::new("mock"), None, None)), ["/etc/mock"]);
    }
}
