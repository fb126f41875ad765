//! Argument lists for Mock, from pure functions.
//!
//! Mock executes its configs as Python and renders paths and repositories as Jinja templates. So
//! everything that could have come from a job or a server is checked here, and nothing here runs,
//! reads a file or knows how long a build may take.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A program and its arguments, ready to be started without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argv {
    /// The program: a path, or a name to look up in `PATH`.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
}

/// Why no argument list can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A text that Mock renders as a template has template markers in it.
    #[error("{what} {text:?} has template markers ({{{{, {{% or {{#), which Mock would execute")]
    Template {
        /// Which input.
        what: &'static str,
        /// The input, shortened.
        text: String,
    },
    /// A path is relative: Mock could take it for an option, or resolve it somewhere else.
    #[error("{what} {path:?} is not an absolute path")]
    NotAbsolute {
        /// Which input.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The config's name is empty or looks like an option.
    #[error("{0:?} is not a Mock config: it is empty or starts with a dash")]
    Config(OsString),
    /// The id of a root has characters that could change a path.
    #[error("{0:?} is no id for a root: 1 to 64 letters, digits, dashes and underscores, no dash first")]
    UniqueExt(String),
    /// A repository's URL that must not get into a dnf configuration.
    #[error("{0:?} is not a repository URL: http://, https://, ftp:// or file:///, without spaces")]
    Repository(String),
    /// One of the user's own arguments takes something away that moji needs.
    #[error("--mock-arg {arg:?} cannot be used: {reason}")]
    MockArg {
        /// The argument.
        arg: String,
        /// Why not.
        reason: &'static str,
    },
}

/// The id of one chroot (`--uniqueext`): a slot's own root and lock, with shared caches. A fixed id
/// per slot lets the next run on it clean what a killed one left (0.5 GB each).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueExt(String);

impl UniqueExt {
    /// Checks `text`: 1 to 64 ASCII letters, digits, `-` and `_`, no dash first.
    ///
    /// # Errors
    /// [`CommandError::UniqueExt`] when `text` is anything else.
    pub fn new(text: &str) -> Result<Self, CommandError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 64 || text.starts_with('-') || !text.chars().all(plain) {
            return Err(CommandError::UniqueExt(shorten(text)));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One chroot of Mock: what every command about it has in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    mock: OsString,
    config: OsString,
    uniqueext: UniqueExt,
    mock_args: Vec<String>,
}

/// What [`Root::rebuild`] builds and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Where the results go: an absolute path, writable by the user who runs Mock, fresh for each
    /// attempt because Mock appends to logs and keeps old RPMs.
    pub resultdir: PathBuf,
    /// The source package: an absolute path.
    pub srpm: PathBuf,
    /// Repositories to add, the farm's own first. Mock neither checks signatures nor caches the
    /// metadata of these.
    pub add_repos: Vec<String>,
}

impl Root {
    /// The root `uniqueext` of `config` (what `-r` takes: a name, or a path that ends in `.cfg`),
    /// with the program `mock` and the arguments that the builder's owner adds to every run.
    ///
    /// # Errors
    /// When `config` is empty or an option, or a user's argument takes something away that moji
    /// needs (see [`check_mock_args`]).
    pub fn new(
        mock: impl Into<OsString>,
        config: impl Into<OsString>,
        uniqueext: UniqueExt,
        mock_args: Vec<String>,
    ) -> Result<Self, CommandError> {
        let config = config.into();
        if config.is_empty() || config.as_bytes().starts_with(b"-") {
            return Err(CommandError::Config(config));
        }
        check_mock_args(&mock_args)?;
        Ok(Self { mock: mock.into(), config, uniqueext, mock_args })
    }

    /// What `-r` takes.
    pub fn config(&self) -> &OsStr {
        &self.config
    }

    /// The id of this root.
    pub fn uniqueext(&self) -> &UniqueExt {
        &self.uniqueext
    }

    /// `mock -r CONFIG --uniqueext=… --resultdir=… --addrepo=… <user's> --rebuild SRPM`.
    ///
    /// # Errors
    /// When a path is relative, or a path or URL has in it what Mock would execute.
    pub fn rebuild(&self, build: &Build) -> Result<Argv, CommandError> {
        absolute("the result directory", &build.resultdir)?;
        absolute("the SRPM", &build.srpm)?;
        no_template("the result directory", build.resultdir.as_os_str())?;
        let mut args = self.common();
        args.push(option("--resultdir=", build.resultdir.as_os_str()));
        for url in &build.add_repos {
            check_url(url)?;
            args.push(option("--addrepo=", OsStr::new(url)));
        }
        args.extend(self.mock_args.iter().map(OsString::from));
        args.push("--rebuild".into());
        args.push(build.srpm.clone().into_os_string());
        Ok(Argv { program: self.mock.clone(), args })
    }

    /// `mock … --orphanskill`: ends every process in the chroot. Works during rpmbuild for a caller
    /// that is not root, who may not signal Mock itself in its other phases.
    pub fn orphanskill(&self) -> Argv {
        self.mode("--orphanskill")
    }

    /// `mock … --clean`: removes the chroot. Ends with 60 at once when another Mock holds it.
    pub fn clean(&self) -> Argv {
        self.mode("--clean")
    }

    fn mode(&self, mode: &str) -> Argv {
        let mut args = self.common();
        args.extend(which_root(&self.mock_args));
        args.push(mode.into());
        Argv { program: self.mock.clone(), args }
    }

    fn common(&self) -> Vec<OsString> {
        vec!["-r".into(), self.config.clone(), option("--uniqueext=", OsStr::new(self.uniqueext.as_str()))]
    }
}

/// The user's arguments that say *which* root is meant or how it is stored, so that cleaning finds
/// the one the build used: option, and whether its value may be the next argument.
const WHICH_ROOT: [(&str, bool); 10] = [
    ("--configdir", true),
    ("--rootdir", true),
    ("--config-opts", true),
    ("--enable-plugin", true),
    ("--disable-plugin", true),
    ("--plugin-option", true),
    ("--isolation", true),
    ("--bootstrap-chroot", false),
    ("--no-bootstrap-chroot", false),
    ("--use-bootstrap-image", false),
];

fn which_root(mock_args: &[String]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut rest = mock_args.iter();
    while let Some(arg) = rest.next() {
        for (name, takes_value) in WHICH_ROOT {
            if arg == name {
                kept.push(arg.into());
                if takes_value {
                    kept.extend(rest.next().map(OsString::from));
                }
                break;
            }
            if takes_value && arg.strip_prefix(name).is_some_and(|value| value.starts_with('=')) {
                kept.push(arg.into());
                break;
            }
        }
    }
    kept
}

const OWN: &str = "moji sets it itself";
const MODE: &str = "moji only rebuilds";
const LEAKS: &str = "packages of one build would leak into the next one on this root";
const REFUSED: [(&str, &str); 22] = [
    ("-r", OWN),
    ("--root", OWN),
    ("--uniqueext", OWN),
    ("--resultdir", OWN),
    ("--rebuild", OWN),
    ("-n", LEAKS),
    ("--no-clean", LEAKS),
    ("-N", LEAKS),
    ("--no-cleanup-after", LEAKS),
    ("--chain", MODE),
    ("--buildsrpm", MODE),
    ("--shell", MODE),
    ("--chroot", MODE),
    ("--clean", MODE),
    ("--scrub", MODE),
    ("--init", MODE),
    ("--installdeps", MODE),
    ("--orphanskill", MODE),
    ("--calculate-build-dependencies", MODE),
    ("--version", MODE),
    ("--help", MODE),
    ("-h", MODE),
];

/// Checks what the builder's owner gave as `--mock-arg`, at start rather than at the first build.
/// Also refuses abbreviations, which Mock's option parser accepts.
///
/// # Errors
/// [`CommandError::MockArg`] names the first argument that cannot be used and why.
pub fn check_mock_args(args: &[String]) -> Result<(), CommandError> {
    for arg in args {
        let refuse = |reason| Err(CommandError::MockArg { arg: shorten(arg), reason });
        let name = arg.split_once('=').map_or(arg.as_str(), |(name, _)| name);
        if name == "--" {
            return refuse("what follows would be taken for SRPMs");
        }
        let known = WHICH_ROOT.iter().any(|(option, _)| *option == name);
        for (option, reason) in REFUSED {
            let abbreviated = !known && name.len() > 4 && option.starts_with(name);
            let joined = option == "-r" && name.starts_with("-r") && !name.starts_with("--");
            if name == option || abbreviated || joined {
                return refuse(reason);
            }
        }
    }
    Ok(())
}

fn option(name: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(name);
    text.push(value);
    text
}

fn absolute(what: &'static str, path: &Path) -> Result<(), CommandError> {
    if path.is_absolute() { Ok(()) } else { Err(CommandError::NotAbsolute { what, path: path.to_owned() }) }
}

/// Mock renders `--resultdir` and the texts of repositories with Jinja (`{{`, `{%`, `{#`).
fn no_template(what: &'static str, text: &OsStr) -> Result<(), CommandError> {
    let marker = |pair: &[u8]| matches!(pair, b"{{" | b"{%" | b"{#");
    if text.as_bytes().windows(2).any(marker) {
        return Err(CommandError::Template { what, text: shorten(&text.to_string_lossy()) });
    }
    Ok(())
}

/// A URL goes into dnf's configuration as a line: no line break, no space, no template.
fn check_url(url: &str) -> Result<(), CommandError> {
    let known = ["http://", "https://", "ftp://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
    if !known || url.len() > 2048 || !url.chars().all(|c| c.is_ascii_graphic()) {
        return Err(CommandError::Repository(shorten(url)));
    }
    no_template("the repository", OsStr::new(url))
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(mock_args: &[&str]) -> Root {
        let args = mock_args.iter().map(|a| (*a).to_owned()).collect();
        Root::new("mock", "fedora-43-aarch64", UniqueExt::new("moji-2").unwrap(), args).unwrap()
    }

    fn build(resultdir: &str, srpm: &str, repos: &[&str]) -> Build {
        Build {
            resultdir: resultdir.into(),
            srpm: srpm.into(),
            add_repos: repos.iter().map(|r| (*r).to_owned()).collect(),
        }
    }

    fn line(argv: &Argv) -> String {
        let words: Vec<_> = argv.args.iter().map(|a| a.to_string_lossy()).collect();
        format!("{} {}", argv.program.to_string_lossy(), words.join(" "))
    }

    #[test]
    fn rebuild() {
        let table = [
            (
                root(&[]),
                build("/var/out/7", "/var/in/a-1-1.src.rpm", &[]),
                "mock -r fedora-43-aarch64 --uniqueext=moji-2 --resultdir=/var/out/7 --rebuild /var/in/a-1-1.src.rpm",
            ),
            (
                root(&["--nocheck", "--define=x y"]),
                build("/o", "/-r.src.rpm", &["http://repo/a", "file:///srv/b/$basearch"]),
                "mock -r fedora-43-aarch64 --uniqueext=moji-2 --resultdir=/o --addrepo=http://repo/a \
                 --addrepo=file:///srv/b/$basearch --nocheck --define=x y --rebuild /-r.src.rpm",
            ),
        ];
        for (root, build, expected) in table {
            assert_eq!(line(&root.rebuild(&build).unwrap()), expected);
        }
    }

    #[test]
    fn what_cleans_repeats_only_what_says_which_root() {
        let root = root(&[
            "--nocheck",
            "--configdir",
            "/etc/my mock",
            "-D",
            "x 1",
            "--config-opts=basedir=/big",
            "--postinstall",
            "--no-bootstrap-chroot",
            "--rootdirx",
        ]);
        let common = "mock -r fedora-43-aarch64 --uniqueext=moji-2 --configdir /etc/my mock \
                      --config-opts=basedir=/big --no-bootstrap-chroot";
        assert_eq!(line(&root.orphanskill()), format!("{common} --orphanskill"));
        assert_eq!(line(&root.clean()), format!("{common} --clean"));
    }

    #[test]
    fn nothing_that_mock_would_execute_or_take_for_an_option() {
        let good = "/in/a-1-1.src.rpm";
        let table = [
            build("/out/{{ x }}", good, &[]),
            build("/out/{% x", good, &[]),
            build("/out/{#", good, &[]),
            build("out", good, &[]),
            build("/out", "-r.src.rpm", &[]),
            build("/out", good, &["http://x/{{ cmd }}"]),
            build("/out", good, &["http://x/\n[evil]"]),
            build("/out", good, &["http://x/a b"]),
            build("/out", good, &["/srv/repo"]),
            build("/out", good, &["--x"]),
        ];
        for build in table {
            assert!(root(&[]).rebuild(&build).is_err(), "{build:?}");
        }
        for id in ["", "-a", "a/b", "a.b", "{{a}}", "ä", &"x".repeat(65)] {
            assert!(UniqueExt::new(id).is_err(), "{id}");
        }
        for config in ["", "-n", "--shell"] {
            assert!(Root::new("mock", config, UniqueExt::new("a").unwrap(), vec![]).is_err(), "{config}");
        }
    }

    #[test]
    fn user_arguments_that_would_break_the_farm_are_refused() {
        for arg in
            ["-r", "-rx", "--root=x", "--resultdir", "--resul=/x", "-n", "-N", "--no-cleanup", "--shell"]
        {
            assert!(check_mock_args(&[arg.to_owned()]).is_err(), "{arg}");
        }
        for arg in ["--", "--chain", "--unique=a"] {
            assert!(check_mock_args(&[arg.to_owned()]).is_err(), "{arg}");
        }
        for arg in
            ["--rootdir=/x", "--nocheck", "--config-opts=a=b", "-D", "with foo", "-v", "--rpmbuild-opts=x"]
        {
            assert!(check_mock_args(&[arg.to_owned()]).is_ok(), "{arg}");
        }
    }
}
