//! One event to one program of the operator: JSON on its standard input, the most wanted of it in its environment.
//!
//! It is run directly, never by a shell, in a process group of its own, which ends with it: what a program leaves
//! behind for each event would pile up. It deliberately does not know whether it is the first try.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use moji_proto::api::Event;
use moji_proto::outcome::one_line;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use super::pace::Trouble;

/// How long a program may take.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL; and how long outputs may stay open after the program's end.
const GRACE: Duration = Duration::from_secs(2);
/// How much of the end of each of its outputs is kept.
const TAIL: usize = 2 * 1024;

/// One try. To be dropped at any time: the program is killed then.
pub(super) async fn give(program: &Path, event: &Event, limit: Duration) -> Result<(), Trouble> {
    let mut body = serde_json::to_vec(event).map_err(|error| Trouble::refused(error.to_string()))?;
    body.push(b'\n');
    let mut child = command(program, event).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => {
            Trouble::refused(error.to_string())
        }
        _ => Trouble::away(format!("it cannot be run: {error}")),
    })?;
    let group = Group::of(&child);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (input, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let status = {
        let talk = async { tokio::join!(feed(input, &body), tail(stdout, &mut out), tail(stderr, &mut err)) };
        tokio::pin!(talk);
        let mut is_open = true;
        let end = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut talk, if is_open => is_open = false,
                }
            }
        };
        let status = timeout(limit, end).await;
        match status {
            Ok(_) => group.signal(Signal::KILL),
            Err(_) => end_group(&group, &mut child).await,
        }
        if is_open {
            let _ = timeout(GRACE, &mut talk).await;
        }
        status
    };
    let said = if err.is_empty() { &out } else { &err };
    match status {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Trouble::refused(failure(status, said))),
        Ok(Err(error)) => Err(Trouble::away(format!("it cannot be waited for: {error}"))),
        Err(_) => Err(Trouble::refused(format!(
            "it was killed after {} s; it said: {}",
            limit.as_secs_f32(),
            last(said)
        ))),
    }
}

fn command(program: &Path, event: &Event) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        // The password, and what else was meant for the server only.
        let name_text = name.to_string_lossy();
        if name_text.starts_with("MOJI_") || matches!(&*name_text, "NOTIFY_SOCKET" | "CREDENTIALS_DIRECTORY")
        {
            command.env_remove(&name);
        }
    }
    command.envs(environment(event));
    command
}

/// What of an event a shell script would have to dig out of JSON. All of them are always there, so that `set -u` works.
fn environment(event: &Event) -> [(&'static str, String); 7] {
    let build = event.build.as_ref();
    let target = build.and_then(|build| build.target.as_ref()).or(event.target.as_ref());
    [
        ("MOJI_EVENT", event.kind.word().to_owned()),
        ("MOJI_EVENT_ID", event.id.to_string()),
        ("MOJI_TEXT", one_line(&event.text)),
        ("MOJI_SRPM", build.map(|build| build.srpm.to_string()).unwrap_or_default()),
        ("MOJI_TARGET", target.map(ToString::to_string).unwrap_or_default()),
        ("MOJI_BUILDER", event.builder.as_deref().map(one_line).unwrap_or_default()),
        ("MOJI_REASON", event.reason.as_deref().map(one_line).unwrap_or_default()),
    ]
}

/// A program may end without having read all, or anything.
async fn feed(input: Option<ChildStdin>, body: &[u8]) {
    if let Some(mut input) = input {
        let _ = input.write_all(body).await;
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

fn failure(status: ExitStatus, said: &[u8]) -> String {
    format!("it ended with {status}; it said: {}", last(said))
}

/// The last lines of what it said, in one.
fn last(said: &[u8]) -> String {
    const BYTES: usize = 400;
    let end = said.get(said.len().saturating_sub(BYTES)..).unwrap_or_default();
    let text = one_line(&String::from_utf8_lossy(end));
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// The processes of a program. Killed when nobody waits for them any more.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// The number of a group is not given away while anybody is in it; when nobody is, nobody gets the signal.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn end_group(group: &Group, child: &mut Child) {
    group.signal(Signal::TERM);
    tokio::select! {
        _ = child.wait() => {}
        () = sleep(GRACE) => {}
    }
    group.signal(Signal::KILL);
    let _ = child.wait().await;
}
