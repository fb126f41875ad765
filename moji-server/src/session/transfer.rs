//! SRPMs and logs between the wire and the disk, in tasks of their own: each piece is read or written
//! on a blocking thread, and no thread is held in between.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes};
use moji_proto::io::{IncomingStream, OutgoingStream, Piece};
use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, Sha256, ToBuilder};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::beneath::{self, Folder};
use crate::bucket::Bucket;
use crate::limits::Limits;
use crate::room::is_full;
use crate::staging::AtWork;

/// How often a full disk is tried again.
const FULL: Duration = Duration::from_secs(5);

/// An SRPM to send. It lies where people may put what they like.
#[derive(Debug)]
pub(super) struct ToSend {
    /// WORKING.
    pub(super) working: PathBuf,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// Sends a file, and gives its digest.
///
/// # Errors
/// When it cannot be read, has another size, or the connection ends.
pub(super) async fn send_file(mut stream: OutgoingStream<ToBuilder>, srpm: ToSend) -> anyhow::Result<Sha256> {
    match send_bytes(&mut stream, srpm).await {
        Ok(digest) => {
            stream.end(Some(digest)).await?;
            Ok(digest)
        }
        Err(error) => {
            stream.abort(&format!("{error:#}")).await?;
            Err(error)
        }
    }
}

async fn send_bytes(stream: &mut OutgoingStream<ToBuilder>, srpm: ToSend) -> anyhow::Result<Sha256> {
    let size = srpm.size;
    let opened = spawn_blocking(move || srpm.open()).await?;
    let (mut file, mut hasher) = (opened.context("cannot open it (links are not followed)")?, Hasher::new());
    loop {
        let read = spawn_blocking(move || {
            let mut piece = Vec::with_capacity(DATA_BYTES);
            (&file).take(DATA_BYTES as u64).read_to_end(&mut piece)?;
            hasher.update(&piece);
            io::Result::Ok((piece, file, hasher))
        });
        let piece;
        (piece, file, hasher) = read.await?.context("cannot read the SRPM")?;
        if piece.is_empty() {
            if stream.sent() != size {
                bail!("it had {size} bytes and now has {}: it was changed meanwhile", stream.sent());
            }
            return Ok(hasher.finish());
        }
        stream.send(Bytes::from(piece)).await?;
    }
}

impl ToSend {
    fn open(&self) -> io::Result<File> {
        let below = self.path.strip_prefix(&self.working).map_err(io::Error::other)?;
        Folder::open(&self.working)?.open_file(below)
    }
}

/// A live log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// How many bytes of it the sender takes to be here.
    pub(super) offset: u64,
    /// Most bytes of it.
    pub(super) limit: u64,
    /// What it is called in messages.
    pub(super) about: String,
    /// How fast the logs of its attempt may come.
    pub(super) pace: LogPace,
}

/// The pace of all live logs of one attempt. The lock is held for a calculation, never across a wait.
#[derive(Debug, Clone)]
pub(super) struct LogPace(Arc<Mutex<Bucket>>);

/// A piece counts for so many bytes at least: each costs a write and an answer.
const LEAST_PIECE: u64 = 4096;

impl LogPace {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Bucket::new(limits.log_rate, limits.log_burst))))
    }

    /// How long the sender is to wait after a piece.
    fn after(&self, bytes: u64) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(bytes.max(LEAST_PIECE))
    }
}

/// Appends what comes to a log, up to its limit; then the sender is told to stop, as when the attempt ends.
/// A disk that is full is waited for: meanwhile the sender keeps what comes next.
///
/// # Errors
/// When the file cannot be written, or has another length: there would be a gap, or a part twice.
pub(super) async fn receive_log(
    mut stream: IncomingStream<ToBuilder>,
    Log { path, offset, limit, about, pace }: Log,
    work: AtWork,
    ended: CancellationToken,
) -> anyhow::Result<()> {
    let over = work.over();
    let opened = spawn_blocking(move || {
        if work.check().is_err() {
            return Ok(None);
        }
        let (staging, name) = beneath::split(&path)?;
        let file = Folder::make(staging)?.append(name)?;
        Ok::<_, io::Error>(Some((file.metadata()?.len(), Appended { file, work })))
    });
    let Some((length, mut file)) = opened.await?.context("cannot open it")? else { return Ok(()) };
    if length != offset {
        bail!("it is sent from byte {offset} on, but {length} bytes of it are here");
    }
    let mut room = limit.saturating_sub(length);
    let mut was_slowed = false;
    loop {
        let next = tokio::select! {
            biased;
            () = over.cancelled() => return Ok(()),
            next = stream.next() => next,
        };
        let Some(Piece::Data(mut bytes)) = next else { break };
        bytes.truncate(room.try_into().unwrap_or(usize::MAX));
        let length = bytes.len() as u64;
        let mut was_told = false;
        while !bytes.is_empty() {
            let written;
            (file, bytes, written) = spawn_blocking(move || file.append(bytes)).await?;
            match written {
                Err(_) if over.is_cancelled() => return Ok(()),
                Err(error) if is_full(&error) => {
                    if !was_told {
                        tracing::warn!("{about}: the server's disk is full; trying again every {FULL:?}");
                    }
                    was_told = true;
                    tokio::select! {
                        () = over.cancelled() => return Ok(()),
                        () = ended.cancelled() => return Ok(()),
                        () = sleep(FULL) => {}
                    }
                }
                written => written.context("cannot write it")?,
            }
        }
        room -= length;
        if room == 0 {
            stream.unwanted()?;
            break;
        }
        // It is on the disk, and the sender does not know: it waits when its window is full.
        let wait = pace.after(length);
        if !wait.is_zero() {
            if !std::mem::replace(&mut was_slowed, true) {
                tracing::info!("{about} comes too fast, and is slowed down (--limit log-rate)");
            }
            tokio::select! {
                () = over.cancelled() => return Ok(()),
                () = ended.cancelled() => {}
                () = sleep(wait) => {}
            }
        }
        stream.wrote(length)?;
    }
    Ok(())
}

/// A log that may be written to as long as the work goes on.
#[derive(Debug)]
struct Appended {
    file: File,
    work: AtWork,
}

impl Appended {
    /// Writes as much as there is room for; gives what is left. Blocks.
    fn append(self, bytes: Bytes) -> (Self, Bytes, io::Result<()>) {
        if self.work.check().is_err() {
            return (self, bytes, Err(io::ErrorKind::Interrupted.into()));
        }
        let (file, left, written) = append(self.file, bytes);
        (Self { file, ..self }, left, written)
    }
}

fn append(mut file: File, mut bytes: Bytes) -> (File, Bytes, io::Result<()>) {
    while !bytes.is_empty() {
        match file.write(&bytes) {
            Ok(0) => return (file, bytes, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes.advance(written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (file, bytes, Err(error)),
        }
    }
    (file, bytes, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_in_working_is_sent() {
        let at = tempfile::tempdir().unwrap();
        let working = at.path().join("working");
        std::fs::create_dir_all(working.join("f43")).unwrap();
        std::fs::write(at.path().join("secret"), "secret").unwrap();
        std::fs::write(working.join("f43/a-1-1.src.rpm"), "srpm").unwrap();
        std::os::unix::fs::symlink("../secret", working.join("link-1-1.src.rpm")).unwrap();
        std::os::unix::fs::symlink("f43", working.join("f44")).unwrap();
        let fifo = working.join("fifo-1-1.src.rpm");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let open = |path: &str| {
            ToSend { working: working.clone(), path: working.join(path), size: 4 }.open().map(drop)
        };
        assert!(open("f43/a-1-1.src.rpm").is_ok());
        for path in
            ["link-1-1.src.rpm", "f44/a-1-1.src.rpm", "fifo-1-1.src.rpm", "f43", "../secret", "/etc/passwd"]
        {
            assert!(open(path).is_err(), "{path}");
        }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_still_there() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (_, left, written) = append(full, Bytes::from_static(b"a line"));
        assert!(is_full(&written.unwrap_err()));
        assert_eq!(left, "a line");
        let file = tempfile::tempfile().unwrap();
        let (file, left, written) = append(file, left);
        written.unwrap();
        assert!(left.is_empty() && file.metadata().unwrap().len() == 6);
    }
}
