//! What the machine does without moji: TLS over loopback, SHA-256 and a durable file, a loop of small durable files, rsync.
//! Each as good as it is easily made: a limit that is too slow would flatter the measure beside it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Plain};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_proto::Hasher;
use moji_proto::limits::DATA_BYTES;
use moji_server::access::identity::Identity;
use moji_tests::support::processes::{let_pass, now};
use moji_tests::support::tls::{accept, acceptor, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How long rsync's daemon may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// TLS between two ends of this process, which throw away what they get: so many bytes on each of some connections.
pub(super) fn tls(at: &Path, bytes: u64, streams: usize) -> anyhow::Result<Duration> {
    fs::create_dir_all(at)?;
    Identity::load_or_make(at)?;
    let acceptor = acceptor(&fs::read(at.join("identity.pem"))?)?;
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
        let begin = now();
        for _ in 0..streams {
            senders.spawn(send(address, bytes));
            let (socket, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            receivers.spawn(async move {
                // Of its own accord rustls reads 4 KiB at a time.
                let socket = BufReader::with_capacity(64 * 1024, socket);
                let (mut stream, _) = accept(&acceptor, socket).await?;
                let (mut buffer, mut left) = (vec![0; DATA_BYTES], bytes);
                while left > 0 {
                    let length = stream.read(&mut buffer).await?;
                    anyhow::ensure!(length > 0, "the connection has ended");
                    left = left.saturating_sub(length as u64);
                }
                anyhow::Ok(())
            });
        }
        while let Some(received) = receivers.join_next().await {
            received??;
        }
        Ok(begin.elapsed())
    })
}

async fn send(address: SocketAddr, bytes: u64) -> anyhow::Result<()> {
    let (mut stream, _) = connect(TcpStream::connect(address).await?).await?;
    let (buffer, mut left) = (vec![7; DATA_BYTES], bytes);
    while left > 0 {
        let length = left.min(DATA_BYTES as u64);
        stream.write_all(buffer.get(..length as usize).unwrap_or_default()).await?;
        left -= length;
    }
    stream.shutdown().await?;
    // A socket that is closed before what came is read takes back what was sent.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    Ok(())
}

/// SHA-256 of bytes in memory, which are written to a file, and then durable: so many bytes in each of some files.
pub(super) fn hash_and_write(at: &Path, bytes: u64, files: usize) -> anyhow::Result<Duration> {
    let folder = at.join("hashed");
    fs::create_dir_all(&folder)?;
    let begin = now();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..files)
            .map(|number| {
                let path = folder.join(number.to_string());
                scope.spawn(move || {
                    let (mut file, mut hasher, buffer) =
                        (File::create(path)?, Hasher::new(), vec![7; DATA_BYTES]);
                    for _ in 0..bytes / DATA_BYTES as u64 {
                        hasher.update(&buffer);
                        file.write_all(&buffer)?;
                    }
                    std::hint::black_box(hasher.finish());
                    file.sync_all()
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| match writer.join() {
            Ok(written) => Ok(written?),
            Err(_) => bail!("a writer has panicked"),
        })
    })?;
    let took = begin.elapsed();
    fs::remove_dir_all(folder)?;
    Ok(took)
}

/// Every file of a folder created anew, written and made durable, one after the other.
pub(super) fn small_files(at: &Path, from: &Path) -> anyhow::Result<Duration> {
    let to = at.join("small");
    fs::create_dir_all(&to)?;
    let mut contents = Vec::new();
    for entry in fs::read_dir(from)? {
        contents.push(fs::read(entry?.path())?);
    }
    let begin = now();
    for (number, content) in contents.iter().enumerate() {
        let mut file = File::create_new(to.join(number.to_string()))?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    File::open(&to)?.sync_all()?;
    let took = begin.elapsed();
    fs::remove_dir_all(to)?;
    Ok(took)
}

/// rsync's daemon over an empty folder; killed when it is dropped.
pub(super) struct Rsyncd {
    child: Child,
    port: u16,
    module: PathBuf,
}

impl Rsyncd {
    /// Starts it; none when rsync is not there.
    pub(super) fn start(at: &Path) -> anyhow::Result<Option<Self>> {
        let version =
            Command::new("rsync").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let (module, config) = (at.join("rsync"), at.join("rsyncd.conf"));
        fs::create_dir_all(&module)?;
        // Root's daemon would give the files to somebody else.
        let as_root = if rustix::process::geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
        let text =
            format!("use chroot = no\nread only = no\n{as_root}[bench]\npath = {}\n", module.display());
        fs::write(&config, text)?;
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut daemon = Command::new("rsync");
        daemon.args(["--daemon", "--no-detach", "--address=127.0.0.1"]).arg(format!("--port={port}"));
        daemon.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = Self { child: daemon.spawn()?, port, module };
        let begin = now();
        while Plain::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if begin.elapsed() > PATIENCE {
                bail!("rsync's daemon does not listen");
            }
            let_pass(Duration::from_millis(5));
        }
        Ok(Some(daemon))
    }

    /// Sends a file or a folder, durably, so many times at once; all of it is removed again.
    pub(super) fn send(&self, from: &Path, times: usize) -> anyhow::Result<Duration> {
        let begin = now();
        let mut clients = Vec::new();
        for number in 0..times {
            let to = format!("rsync://127.0.0.1:{}/bench/{number}/", self.port);
            let mut client = Command::new("rsync");
            client.args(["--recursive", "--whole-file", "--fsync"]).arg(from).arg(to).stdin(Stdio::null());
            clients.push(client.spawn().context("cannot start rsync")?);
        }
        for mut client in clients {
            if !client.wait()?.success() {
                bail!("rsync has failed");
            }
        }
        let took = begin.elapsed();
        for entry in fs::read_dir(&self.module)? {
            fs::remove_dir_all(entry?.path())?;
        }
        Ok(took)
    }
}

impl Drop for Rsyncd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
