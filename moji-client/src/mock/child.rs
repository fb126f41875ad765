//! One child process in its own process group, with files for its output.
//!
//! Shared by everything here that starts Mock. Does not know what the program does, nor why it
//! should end.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::command::Argv;
use super::evidence::Ended;

/// The part of an environment that Mock may see: pairs whose name is on a short list.
///
/// Mock with `isolation=simple` gives the build the host's network and no PID namespace; a build
/// has been seen to read the environment of a process of the same user, password included. So what
/// a client was started with (`MOJI_PASSWORD`, tokens, agents' sockets) never gets to Mock, and a
/// variable that nobody thought of is absent rather than present. `HOSTMOCK_*` configures the
/// stand-in for Mock on hosts without chroots.
pub fn environment(all: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "TMPDIR", "TZ"];
    const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"];
    const PREFIXES: [&str; 3] = ["LC_", "XDG_", "HOSTMOCK_"];
    let allowed = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            NAMES.contains(&name)
                || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
                || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    };
    let mut kept: Vec<_> = all.into_iter().filter(|(name, _)| allowed(name)).collect();
    kept.sort();
    kept
}

/// Where a child's standard output and error go: both to the end of one file. Never a pipe: when
/// the reader of a pipe is gone, Mock can spin in its SIGPIPE handler with the root locked.
pub(super) struct Output(File);

impl Output {
    /// Appends to `path`, which is made when it is not there.
    pub(super) fn append(path: &Path) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
        Ok(Self(OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)?))
    }
}

/// A running child. Dropping it while it runs sends SIGTERM to its group, not SIGKILL: Mock that is
/// terminated ends what runs in its chroot, Mock that is killed leaves rpmbuild running with nobody
/// to end it. The runtime reaps the child later.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    running: bool,
}

impl Process {
    /// Starts `argv` with exactly the environment `env` and `/dev/null` as standard input, as the
    /// leader of a new process group, so that a terminal's Ctrl-C reaches moji alone.
    ///
    /// An ignored SIGINT is inherited by children, and dispositions cannot be reset without unsafe
    /// code; a client that handles SIGINT itself is safe, because handlers are reset at exec. It
    /// matters little: nothing here uses SIGINT.
    pub(super) fn start(argv: &Argv, env: &[(OsString, OsString)], output: Output) -> io::Result<Self> {
        let child = Command::new(&argv.program)
            .args(&argv.args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.0.try_clone()?)
            .stderr(output.0)
            .process_group(0)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group, running: true })
    }

    /// The child's process id, for logs; 0 when it has ended.
    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Waits until the child ends. Cancel safe. What is left of its process group is killed then,
    /// so that nothing outlives it but what left the group.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.running = false;
        // Nothing else can have this group's id yet: it was the id of a process reaped just now.
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        status
    }

    /// Waits for at most `time`; `None` when the child still runs then.
    pub(super) async fn wait_for(&mut self, time: Duration) -> Option<io::Result<ExitStatus>> {
        tokio::time::timeout(time, self.wait()).await.ok()
    }

    /// Sends `signal` to the whole group.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match self.group {
            Some(group) if self.running => kill_process_group(group, signal),
            _ => Err(Errno::SRCH),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running {
            let _ = self.signal(Signal::TERM);
        }
    }
}

/// What `status` says, in our words.
pub(super) fn ended(status: io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, signal) => Ended::Signal(signal.unwrap_or(0)),
        },
        Err(error) => Ended::NotStarted(format!("waiting for it failed: {error}")),
    }
}

/// Runs a short command to its end: at most `limit`, then SIGTERM, `grace`, SIGKILL, `grace`. One
/// that survives that (it runs as root and the caller does not) is left behind with a warning.
pub(super) async fn run_briefly(
    argv: &Argv,
    env: &[(OsString, OsString)],
    output: io::Result<Output>,
    limit: Duration,
    grace: Duration,
) -> Ended {
    let mut process = match output.and_then(|output| Process::start(argv, env, output)) {
        Ok(process) => process,
        Err(error) => return Ended::NotStarted(describe(argv, &error)),
    };
    if let Some(status) = process.wait_for(limit).await {
        return ended(status);
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = process.signal(signal);
        if process.wait_for(grace).await.is_some() {
            return Ended::TimedOut;
        }
    }
    tracing::warn!(pid = process.id(), "a command of Mock cannot be ended; leaving it behind");
    Ended::TimedOut
}

/// Why `argv` did not start, with its program's name.
pub(super) fn describe(argv: &Argv, error: &io::Error) -> String {
    format!("{}: {error}", argv.program.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_here() {
        let names = [
            "MOJI_PASSWORD",
            "PATH",
            "LC_ALL",
            "HTTPS_PROXY",
            "no_proxy",
            "XDG_RUNTIME_DIR",
            "SSH_AUTH_SOCK",
            "AWS_SECRET_ACCESS_KEY",
            "HOSTMOCK_X",
            "LD_PRELOAD",
            "PATHX",
            "HOME",
            "PYTHONPATH",
        ];
        let all = names.map(|name| (OsString::from(name), OsString::from("1")));
        let kept: Vec<_> = environment(all).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            kept,
            ["HOME", "HOSTMOCK_X", "HTTPS_PROXY", "LC_ALL", "PATH", "XDG_RUNTIME_DIR", "no_proxy"]
        );
    }
}
