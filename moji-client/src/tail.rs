//! Follows a log while Mock writes it, and sends what is appended: over whatever connection the
//! attempt has just now, from where the server has it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{AttemptId, LogFile, ToServer};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::connection::Lease;
use crate::mock::results::open_regular;

/// How often the file is looked at: what is written is on its way within this time.
const EVERY: Duration = Duration::from_millis(500);

/// A log to follow.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    /// The attempt that it belongs to.
    pub attempt: AttemptId,
    /// Which log.
    pub file: LogFile,
    /// Where Mock writes it; need not be there yet.
    pub path: PathBuf,
    /// Up to which byte it is sent. What is longer is seen when the build has ended.
    pub limit: u64,
}

impl Tail {
    /// Sends what is there and what is appended, until `ended` and all is sent; nothing of a log of which
    /// nothing was sent by then: a build that short is seen by its results. A live view is
    /// never worth an attempt: what goes wrong is only logged, and the next lease tries again.
    pub(crate) async fn follow(self, mut leases: watch::Receiver<Option<Lease>>, ended: CancellationToken) {
        loop {
            let lease = leases.borrow_and_update().clone();
            if let Some(lease) = lease {
                tokio::select! {
                    biased;
                    changed = leases.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                    followed = self.follow_over(lease, &ended) => if let Err(error) = followed {
                        tracing::debug!("the live view of {} stops: {error:#}", self.file.file_name());
                    },
                }
            }
            tokio::select! {
                () = ended.cancelled() => return,
                changed = leases.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Over one connection, until `ended` and all is sent, or the limit is reached.
    async fn follow_over(&self, lease: Lease, ended: &CancellationToken) -> anyhow::Result<()> {
        let mut stream = None;
        let mut sent = lease.logs.get(&self.file).copied().unwrap_or(0);
        loop {
            // Asked before the last look, so that nothing written before it is missed.
            let is_last = ended.is_cancelled();
            if is_last && sent == 0 {
                // Nobody has begun to read it, and all of it comes with the results now.
                break;
            }
            let most = (DATA_BYTES as u64).min(self.limit.saturating_sub(sent));
            let piece = if most > 0 { read_from(self.path.clone(), sent, most).await? } else { Vec::new() };
            let piece = Bytes::from(piece);
            if !piece.is_empty() {
                let stream = match &mut stream {
                    Some(stream) => stream,
                    none => {
                        let (attempt, file) = (self.attempt, self.file);
                        let offset = sent;
                        let announce = move |stream| ToServer::Log { attempt, file, offset, stream };
                        none.insert(lease.link.open_stream(announce).await?)
                    }
                };
                sent += piece.len() as u64;
                stream.send(piece).await?;
            } else if is_last || most == 0 {
                break;
            } else {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = sleep(EVERY) => {}
                }
            }
        }
        match stream {
            Some(stream) => Ok(stream.end(None).await?),
            None => Ok(()),
        }
    }
}

/// What stands in a file from `offset` on, at most `most` bytes; nothing when it is not there.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn read_from(path: PathBuf, offset: u64, most: u64) -> io::Result<Vec<u8>> {
    let read = spawn_blocking(move || {
        let file: File = match open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let mut piece = Vec::new();
        (&file).seek(SeekFrom::Start(offset))?;
        file.take(most).read_to_end(&mut piece)?;
        Ok(piece)
    });
    read.await.map_err(io::Error::other)?
}
