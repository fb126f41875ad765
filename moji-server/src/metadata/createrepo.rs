//! Runs `createrepo_c` as a child: its arguments, its output, its end.
//!
//! It deliberately does not know what is published, or when.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::time::Duration;

use moji_proto::outcome::plain;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How much of the end of each of the child's two outputs is kept.
const TAIL: usize = 8 * 1024;
/// So many characters of it are told where a line of the log says that it has failed.
const SAID: usize = 300;
/// Between SIGTERM and SIGKILL; and how long outputs may stay open after the child's end.
const GRACE: Duration = Duration::from_secs(2);

/// The program that makes the metadata is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not there or cannot be run: install createrepo_c, or give --createrepo PATH", .0.display())]
pub struct MissingProgram(pub PathBuf);

/// Finds `program` as the server will: a name with a `/` is a path, another is looked up in `PATH`.
///
/// # Errors
/// [`MissingProgram`], whose text tells the operator what to do.
pub fn check_program(program: &Path) -> Result<PathBuf, MissingProgram> {
    let runnable = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let candidates: Vec<PathBuf> = if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        vec![program.to_owned()]
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder| folder.join(program)).collect()
    };
    candidates.into_iter().find(runnable).ok_or_else(|| MissingProgram(program.to_owned()))
}

/// One call of `createrepo_c`.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The repository's folder, absolute.
    pub(super) folder: &'a Path,
    /// The file with the paths of the packages, relative to that, one a line.
    pub(super) list: &'a Path,
    /// The folder in which it makes `repodata`.
    pub(super) output: &'a Path,
    /// The generation's number.
    pub(super) revision: u64,
    /// Whether it may take over from `output/repodata` what it says of unchanged packages.
    pub(super) update: bool,
}

impl Call<'_> {
    /// The arguments, for createrepo_c 0.17 (Debian 12) to 1.x (Fedora):
    /// gzip, because that is what every dnf and yum reads (1.x would take zstd); `--update` with a
    /// copy of the served files in the output folder and not `--update-md-path`, because only so
    /// does `--keep-all-metadata` keep what a person added with `modifyrepo_c` (groups, updateinfo).
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            ["--quiet", "--no-database", "--general-compress-type=gz", "--checksum", "sha256", "--pkglist"]
                .map(OsString::from)
                .into();
        arguments.push(self.list.into());
        arguments.push("--outputdir".into());
        arguments.push(self.output.into());
        arguments.extend(["--revision".into(), self.revision.to_string().into()]);
        if self.update {
            arguments.extend(["--update", "--keep-all-metadata"].map(OsString::from));
        }
        arguments.push(self.folder.into());
        arguments
    }

    /// The command that runs `program` so.
    pub(super) fn command(&self, program: &Path) -> process::Command {
        let mut command = process::Command::new(program);
        command.args(self.arguments()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        // It parses packages that came from outside, and has no business with the builders' password.
        command.env_remove("MOJI_PASSWORD");
        command
    }
}

/// Why there is nothing to publish.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Missing(MissingProgram),
    #[error("stopped")]
    Stopped,
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    TooLong(Duration),
    #[error("it ended with {0}; it said: {1}")]
    Failed(ExitStatus, Said),
    #[error("failed to run it")]
    Io(#[from] io::Error),
}

/// The end of what the child wrote.
#[derive(Debug, Default)]
pub(super) struct Said(Vec<u8>, Vec<u8>);

impl Said {
    /// All of it, as one line.
    pub(super) fn whole(&self) -> String {
        let text =
            [self.1.as_slice(), self.0.as_slice()].map(|said| String::from_utf8_lossy(said).into_owned());
        // It quotes the packages that it reads, and these could write lines of the log.
        plain(text.join("\n").trim())
    }
}

/// Its last lines, as many as fit into a line of the log; what it complains of, if it does.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = [&self.1, &self.0].map(|said| last_lines(&String::from_utf8_lossy(said)));
        f.write_str(last.iter().find(|last| !last.is_empty()).map_or("nothing", String::as_str))
    }
}

fn last_lines(text: &str) -> String {
    let mut last = String::new();
    for line in text.lines().rev() {
        let line = plain(line);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let length = line.chars().count();
        if last.is_empty() {
            last = line.chars().take(SAID).collect();
            if length > SAID {
                last.push('…');
            }
        } else if length + 2 + last.chars().count() <= SAID {
            last = format!("{line}; {last}");
        } else {
            break;
        }
    }
    last
}

/// Runs `program` until it ends, `limit` is over, or `shutdown`: then its process group is ended.
pub(super) async fn run(
    program: &Path,
    call: &Call<'_>,
    limit: Duration,
    shutdown: &CancellationToken,
) -> Result<Said, CallError> {
    // Spawning only to learn that it is not there would fork the server at every try, and a fork
    // shares its locks for a moment.
    check_program(program).map_err(CallError::Missing)?;
    let mut command = Command::from(call.command(program));
    command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            CallError::Missing(MissingProgram(program.to_owned()))
        }
        _ => CallError::Io(error),
    })?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut said = Said::default();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = {
        let outputs = async { tokio::join!(tail(out, &mut said.0), tail(err, &mut said.1)) };
        tokio::pin!(outputs);
        let mut open = true;
        let end = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut outputs, if open => open = false,
                }
            }
        };
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(CallError::Stopped),
            status = end => status.map_err(CallError::from),
            () = sleep(limit) => Err(CallError::TooLong(limit)),
        };
        if ended.is_err() {
            end_group(group, &mut child).await;
        }
        if open {
            let _ = timeout(GRACE, &mut outputs).await;
        }
        ended
    };
    let status = ended?;
    if status.success() { Ok(said) } else { Err(CallError::Failed(status, said)) }
}

async fn end_group(group: Option<Pid>, child: &mut Child) {
    let Some(group) = group else { return };
    let _ = kill_process_group(group, Signal::TERM);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Reads to the end; keeps the last [`TAIL`] bytes.
async fn tail(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; TAIL];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        into.extend_from_slice(piece.get(..count).unwrap_or_default());
        into.drain(..into.len().saturating_sub(TAIL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_these() {
        let call = |update| Call {
            folder: Path::new("/srv/repo"),
            list: Path::new("/priv/list"),
            output: Path::new("/priv/new"),
            revision: 12,
            update,
        };
        let common = "--quiet --no-database --general-compress-type=gz --checksum sha256 --pkglist /priv/list \
                      --outputdir /priv/new --revision 12";
        for (update, end) in [(false, "/srv/repo"), (true, "--update --keep-all-metadata /srv/repo")] {
            let arguments = call(update).arguments().join(OsString::from(" ").as_os_str());
            assert_eq!(arguments, OsString::from(format!("{common} {end}")));
        }
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        assert_eq!(check_program(Path::new("/bin/sh")), Ok("/bin/sh".into()));
        assert!(check_program(Path::new("sh")).unwrap().ends_with("sh"));
        for name in ["no-such-createrepo", "/no/such/createrepo", "/etc/passwd", "/"] {
            let error = check_program(Path::new(name)).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("install createrepo_c"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_it_says_is_kept_in_bounds_and_cleaned() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("says");
        let text = "#!/bin/sh\nyes 0123456789 | head -n 50000\nprintf 'bad \\033[31mthing\\n' >&2\nexit 3\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let call =
            Call { folder: Path::new("/"), list: &script, output: &script, revision: 1, update: false };
        let error =
            run(&script, &call, Duration::from_secs(60), &CancellationToken::new()).await.unwrap_err();
        let CallError::Failed(status, said) = error else { panic!("{error}") };
        assert_eq!(status.code(), Some(3));
        assert_eq!(said.to_string(), "bad  [31mthing");
        let whole = said.whole();
        assert!(whole.starts_with("bad  [31mthing  ") && whole.ends_with(" 0123456789"), "{whole}");
        assert!(!whole.contains(char::is_control) && whole.len() <= 2 * TAIL + 1, "{whole}");
    }

    #[test]
    fn its_last_lines_are_told_as_far_as_they_fit() {
        let said = |err: &str| Said(b"progress".to_vec(), err.into()).to_string();
        assert_eq!(said(" \n\r\n"), "progress");
        assert_eq!(Said::default().to_string(), "nothing");
        assert_eq!(said("first\n\n  last \u{1b}[m \n\n"), "first; last  [m");
        let (long, mark) = ("é".repeat(150), "e".repeat(148));
        assert_eq!(said(&format!("one\n{long}\n{mark}\n")), format!("{long}; {mark}"));
        assert_eq!(said(&format!("one\n{long}\n{mark}e\n")), format!("{mark}e"));
        assert_eq!(said(&format!("one\n{}\n", "x".repeat(4000))), format!("{}…", "x".repeat(300)));
    }

    #[tokio::test]
    async fn time_limit_and_shutdown_end_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("hangs");
        // Its child holds the outputs open, so only the end of the group ends the call early.
        std::fs::write(&script, "#!/bin/sh\nsleep 600 &\nsleep 600\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let call =
            Call { folder: Path::new("/"), list: &script, output: &script, revision: 1, update: false };
        let shutdown = CancellationToken::new();
        let started = tokio::time::Instant::now();
        let error = run(&script, &call, Duration::from_millis(50), &shutdown).await.unwrap_err();
        assert!(matches!(error, CallError::TooLong(_)), "{error}");
        shutdown.cancel();
        let error = run(&script, &call, Duration::from_secs(600), &shutdown).await.unwrap_err();
        assert!(matches!(error, CallError::Stopped), "{error}");
        assert!(started.elapsed() < GRACE, "{:?}", started.elapsed());
    }
}
