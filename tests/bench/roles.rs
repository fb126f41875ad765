//! This program as another process: a server, or something whose peak of memory is asked for.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _, stdin, stdout};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_server::folders::Folders;
use moji_server::payload::PayloadDigest;
use moji_server::verify::{Delivered, Leased, verify};
use moji_tests::support::simulated::server_config;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::measure::{Memory, Used, Watch, digest, forget_peak, processor};

/// What every server here takes.
pub(super) const PASSWORD: &str = "a password of the usual length";
/// What is leased and delivered: `NAME-VERSION-1.src.rpm`.
pub(super) const NAME: &str = "measured";
pub(super) const VERSION: &str = "1";
/// Where the first header of an RPM begins.
const LEAD: u64 = 96;
/// What it is built for.
pub(super) const TARGET: &str = "here";

/// Whether a server speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Tls,
    Plaintext,
}

impl Wire {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Plaintext => "plaintext",
        }
    }
}

/// The four folders of a server.
pub(super) fn folders(at: &Path) -> Folders {
    let [source, working, finished, repo] =
        ["source", "working", "finished", "repo"].map(|name| at.join("farm").join(name));
    Folders { source, working, finished, repo }
}

/// A server in a process of its own; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts one over the [`folders`] at a place.
    pub(super) fn start(at: &Path, wire: Wire) -> anyhow::Result<Self> {
        let mut child = again(&["serve", wire.name()], at)?.stdin(Stdio::piped()).spawn()?;
        let ask = child.stdin.take().context("the server has no input")?;
        let mut answers = BufReader::new(child.stdout.take().context("the server has no output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().parse().context("the server does not say where it listens")?;
        Ok(Self { child, ask, answers, address })
    }

    /// The processor's time that it has used, and its memory; its peak is that since it was asked the last time.
    pub(super) fn used(&mut self) -> anyhow::Result<(Duration, Memory)> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let [time, now, peak] = numbers?[..] else { bail!("the server does not answer") };
        Ok((Duration::from_nanos(time), Memory { now, peak }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was found out in a process of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    pub(super) used: Used,
    /// How much more memory it had at its peak than before, in KiB.
    pub(super) memory: u64,
}

/// Does something with all files of a folder, in a process of its own: `verify`, `verify-hashed` or `digest`.
pub(super) fn apart(role: &str, folder: &Path) -> anyhow::Result<Apart> {
    let output = again(&[role], folder)?.output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers?[..] {
        [wall, processor, memory] if output.status.success() => {
            let [wall, processor] = [wall, processor].map(Duration::from_nanos);
            Ok(Apart { used: Used { wall, processor }, memory })
        }
        _ => bail!("{role} of {} has failed", folder.display()),
    }
}

fn again(role: &[&str], folder: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("role").args(role).arg(folder).stdout(Stdio::piped());
    Ok(command)
}

/// Plays a role.
pub(super) fn play(words: &[&str]) -> anyhow::Result<()> {
    match *words {
        ["serve", wire, at] => serve(Path::new(at), wire == Wire::Plaintext.name()),
        ["verify", folder] => {
            let files = delivered(Path::new(folder), false)?;
            watched(|| verify_all(&files))
        }
        ["verify-hashed", folder] => {
            let files = delivered(Path::new(folder), true)?;
            watched(|| verify_all(&files))
        }
        ["digest", folder] => watched(|| {
            for entry in fs::read_dir(folder)? {
                digest(&mut File::open(entry?.path())?)?;
            }
            Ok(())
        }),
        _ => bail!("no such role: {words:?}"),
    }
}

fn watched(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    forget_peak();
    let (before, watch) = (Memory::of("self")?.now, Watch::start());
    work()?;
    let Used { wall, processor } = watch.read();
    let more = Memory::of("self")?.peak.saturating_sub(before);
    println!("{} {} {more}", wall.as_nanos(), processor.as_nanos());
    Ok(())
}

/// The RPMs of a folder; with the digests of their payloads, when those were taken while they came.
fn delivered(folder: &Path, is_hashed: bool) -> anyhow::Result<Vec<Delivered>> {
    let mut delivered = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (entry.file_name().to_string_lossy().parse()?, entry.path());
        let payload = is_hashed.then(|| payload_digest(&path)).transpose()?;
        delivered.push(Delivered { name, path, payload });
    }
    Ok(delivered)
}

fn verify_all(delivered: &[Delivered]) -> anyhow::Result<()> {
    let leased = Leased { name: NAME, version: VERSION, target: &TARGET.parse()?, machine: "x86_64" };
    Ok(verify(delivered, &leased)?)
}

/// The digest of what comes after the lead and both headers of an RPM.
fn payload_digest(path: &Path) -> anyhow::Result<PayloadDigest> {
    let (mut file, mut from) = (File::open(path)?, LEAD);
    for padding in [8, 1] {
        let mut intro = [0; 16];
        file.read_exact_at(&mut intro, from)?;
        // Magic and version, nothing, how many tags of 16 bytes, how many bytes of their data.
        let number =
            |at: usize| intro.iter().skip(at).take(4).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        from = (from + 16 + number(8) * 16 + number(12)).next_multiple_of(padding);
    }
    file.seek(SeekFrom::Start(from))?;
    Ok(PayloadDigest { from, sha256: digest(&mut file)? })
}

/// Serves until nobody asks any more.
fn serve(at: &Path, plaintext: bool) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    let mut config = server_config(folders(at));
    config.password = Some(PASSWORD.to_owned());
    config.plaintext = plaintext;
    let serving = runtime.spawn(moji_server::run::run(config, listener, CancellationToken::new()));
    for _ in stdin().lock().lines() {
        if serving.is_finished() {
            bail!("the server has ended: {:?}", runtime.block_on(serving));
        }
        let memory = Memory::of("self")?;
        println!("{} {} {}", processor().as_nanos(), memory.now, memory.peak);
        stdout().flush()?;
        forget_peak();
    }
    Ok(())
}
