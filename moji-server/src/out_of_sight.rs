//! The builders' password, out of sight of everyone else on this machine.
//!
//! `ps` shows every local user how a program was started, and it cannot be changed afterwards. So a
//! server whose command line or environment has the password is started once more without, and gets the
//! password through a pipe. The same as the client's module: the wire, which both share, opens nothing.
//!
//! Nothing here knows what the password is for, or what else the options say.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// The environment variable with the password.
pub const VARIABLE: &str = "MOJI_PASSWORD";
/// What makes the second start read the password from the pipe.
const FROM_PIPE: &str = "--password-file=-";
/// The longest password, and what a pipe always takes in one go.
const LONGEST: usize = 4096;
/// Everyone may read.
const OPEN: u32 = 0o004;

/// Closes environment, memory and open files of this process to others of the same user (and gives up
/// core dumps, which would hold the same: passwords and keys). Lasts until the next exec.
pub fn close_to_others() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("cannot close this process to others of the same user: {error}");
    }
}

/// A start of this program that tells nobody the password.
#[derive(Debug, PartialEq, Eq)]
pub struct Again {
    /// Its arguments, without the program's name.
    arguments: Vec<OsString>,
    /// What stands in its standard input; `None`: that stays as it is.
    input: Option<String>,
}

impl Again {
    /// How to start anew, when the password can be seen now. `arguments` are those of this start, without
    /// the program's name, `on_line` and `in_file` say what they have of a password, and `on_line_of` gives
    /// the password of other arguments, if they can be understood at all.
    ///
    /// # Errors
    /// When the password can be none.
    pub fn plan(
        arguments: Vec<OsString>,
        (on_line, in_file): (Option<&str>, bool),
        in_environment: Option<OsString>,
        on_line_of: impl Fn(&[OsString]) -> Option<Option<String>>,
    ) -> anyhow::Result<Option<Self>> {
        let (mut arguments, password) = match (on_line, in_environment) {
            // Said later, with all else that is wrong.
            (Some(""), _) => return Ok(None),
            (Some(on_line), _) => {
                let Some(rest) = without(&arguments, on_line, on_line_of) else { return Ok(None) };
                (rest, on_line.to_owned())
            }
            (None, Some(_)) if in_file => return Ok(Some(Self { arguments, input: None })),
            (None, Some(password)) if password.is_empty() => return Ok(None),
            (None, Some(password)) => {
                let password = password.into_string();
                (arguments, password.ok().with_context(|| format!("{VARIABLE} is not UTF-8"))?)
            }
            (None, None) => return Ok(None),
        };
        if password.len() >= LONGEST || password.contains(['\n', '\r', '\0']) {
            bail!("the password has a line end in it, or more than {LONGEST} bytes");
        }
        arguments.insert(0, FROM_PIPE.into());
        Ok(Some(Self { arguments, input: Some(password) }))
    }

    /// Becomes that start. Returns only when it is not possible, with the reason.
    pub fn start(self) -> io::Error {
        match self.command() {
            Ok(mut command) => command.exec(),
            Err(error) => error,
        }
    }

    fn command(self) -> io::Result<Command> {
        // Not /proc/self/exe: the program would be called `exe` then.
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(name) = std::env::args_os().next() {
            command.arg0(name);
        }
        command.args(self.arguments).env_remove(VARIABLE);
        if let Some(password) = self.input {
            // The writing end is closed here; the reading one gives what is in it, then an end.
            let (reading, mut writing) = io::pipe()?;
            writing.write_all(password.as_bytes())?;
            command.stdin(reading);
        }
        Ok(command)
    }
}

/// The arguments without the password: the last of those that are written like it without which there is
/// no password any more. (What stands behind the password belongs to other options.)
fn without(
    arguments: &[OsString],
    password: &str,
    on_line_of: impl Fn(&[OsString]) -> Option<Option<String>>,
) -> Option<Vec<OsString>> {
    let alike = |(at, argument): (usize, &OsString)| (argument == OsStr::new(password)).then_some(at);
    arguments.iter().enumerate().filter_map(alike).rev().find_map(|at| {
        let mut rest = arguments.to_vec();
        rest.remove(at);
        matches!(on_line_of(&rest), Some(None)).then_some(rest)
    })
}

/// The first line of a password file; `-` is the standard input.
///
/// # Errors
/// When it cannot be read, or the line is empty.
pub fn read_password(path: &Path) -> anyhow::Result<String> {
    read_secret(path, "password")
}

/// The same for another secret; `what` is its name.
///
/// # Errors
/// As [`read_password`].
pub fn read_secret(path: &Path, what: &str) -> anyhow::Result<String> {
    let cannot = || format!("cannot read the {what} file {}", path.display());
    let mut text = Vec::new();
    // No more than that is read: the file could be any.
    let most = LONGEST as u64;
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut text).with_context(cannot)?;
    } else {
        let file = File::open(path).with_context(cannot)?;
        warn_if_open(path, &file, what);
        file.take(most).read_to_end(&mut text).with_context(cannot)?;
    }
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let password = String::from_utf8(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    let password = password.ok().with_context(|| format!("{}: it is not UTF-8", cannot()))?;
    if password.is_empty() {
        bail!("the {what} file {} has an empty first line", path.display());
    }
    if line.len() == LONGEST {
        bail!("the first line of the {what} file {} is longer than {LONGEST} bytes", path.display());
    }
    Ok(password)
}

/// Says so when everyone on this machine can read a file that has a password, or such a secret, in it.
pub fn warn_if_open(path: &Path, file: &File, what: &str) {
    if file.metadata().is_ok_and(|data| data.is_file() && data.mode() & OPEN != 0) {
        let path = path.display();
        tracing::warn!("everyone on this machine can read the {what} in {path}: chmod o= {path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two names and perhaps a password; `--o` wants a value, `--maybe=` has one.
    fn parse(arguments: &[OsString]) -> Option<Option<String>> {
        let mut names = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.to_str().unwrap() {
                "--o" => drop(rest.next()?),
                option if option.starts_with("--") => {}
                name => names.push(name.to_owned()),
            }
        }
        (names.len() <= 3).then(|| names.get(2).cloned())
    }

    fn plan(line: &str, in_file: bool, environment: Option<&str>) -> Option<(String, Option<String>)> {
        let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let on_line = parse(&arguments).unwrap();
        let again = Again::plan(arguments, (on_line.as_deref(), in_file), environment.map(Into::into), parse);
        let again = again.unwrap()?;
        Some((again.arguments.join(OsStr::new(" ")).into_string().unwrap(), again.input))
    }

    #[test]
    fn only_the_password_leaves_the_command_line() {
        for (line, rest) in [
            ("h c pw", "h c"),
            ("--o x h c pw --flag", "--o x h c --flag"),
            ("h pw pw", "h pw"),
            ("pw pw pw --o pw", "pw pw --o pw"),
            ("--o pw h c pw --o pw --flag", "--o pw h c --o pw --flag"),
        ] {
            let wanted = Some((format!("--password-file=- {rest}"), Some("pw".to_owned())));
            assert_eq!(plan(line, false, None), wanted, "{line}");
            assert_eq!(plan(line, false, Some("other")), wanted, "{line}: the command line comes first");
        }
    }

    #[test]
    fn the_environment_is_left_too() {
        let wanted = |rest: &str, input: Option<&str>| Some((rest.to_owned(), input.map(str::to_owned)));
        assert_eq!(plan("h c", false, Some("pw x")), wanted("--password-file=- h c", Some("pw x")));
        // The file counts, but what was in the environment may be a password all the same.
        assert_eq!(plan("h c", true, Some("pw")), wanted("h c", None));
        for (in_file, environment) in [(false, None), (true, None), (false, Some(""))] {
            assert_eq!(plan("h c", in_file, environment), None);
        }
    }

    #[test]
    fn what_can_be_no_password() {
        for password in ["a\nb", "a\r", "a\0", &"x".repeat(4096)] {
            let again = Again::plan(vec![], (None, false), Some(password.into()), parse);
            assert!(again.is_err(), "{password:?}");
        }
    }

    #[test]
    fn the_first_line_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read_password(&path).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(b"a b \nc").as_deref(), Ok("a b "));
        assert_eq!(read(b"a\r\n").as_deref(), Ok("a"));
        assert_eq!(read(b"a").as_deref(), Ok("a"));
        assert_eq!(read(&[&[b'x'; 4095][..], b"\n"].concat()).map(|it| it.len()), Ok(4095));
        for (content, wanted) in [
            (&b""[..], "empty first line"),
            (b"\nb", "empty first line"),
            (b"\xff\n", "not UTF-8"),
            (&[b'x'; 5000], "longer than"),
        ] {
            let error = read(content).unwrap_err();
            assert!(error.contains(wanted) && error.contains("password"), "{error}");
        }
    }
}
