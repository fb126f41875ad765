//! A parcel over one connection: announced, listed, and sent from where the server wants it. What the
//! server says to it, and when it is tried again, is decided elsewhere.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use moji_proto::io::{OutgoingStream, StreamError, WriteError};
use moji_proto::limits::MANIFEST_PART;
use moji_proto::{AttemptId, Sha256, ToServer};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use crate::connection::Link;
use crate::crash::{self, Point};
use crate::outbox::{Parcel, ParcelReader};

/// How an upload ended, as far as this side knows.
#[derive(Debug)]
pub enum UploadEnd {
    /// All that could be said is said; the server's verdict follows.
    Said,
    /// The connection has ended.
    Lost,
    /// The parcel is not what it was.
    Broken(io::Error),
}

/// What announces a parcel.
pub fn announcement(attempt: AttemptId, parcel: &Parcel) -> ToServer {
    let files = u32::try_from(parcel.manifest.len()).unwrap_or(u32::MAX);
    ToServer::Deliver { attempt, outcome: parcel.outcome.clone(), files, bytes: parcel.bytes() }
}

/// Lists the files of a parcel that was announced.
///
/// # Errors
/// When the connection has ended.
pub async fn list(link: &Link, attempt: AttemptId, parcel: &Parcel) -> Result<(), WriteError> {
    for entries in parcel.manifest.chunks(MANIFEST_PART) {
        link.out.send_ordered(&ToServer::Manifest { attempt, entries: entries.to_vec() }).await?;
    }
    Ok(())
}

/// Sends the bytes that the server wants. What cannot be read just now the server is told with the
/// stream's last word, and rejects.
pub async fn upload(
    link: Link,
    attempt: AttemptId,
    parcel: &Parcel,
    folder: PathBuf,
    wanted: (u64, Sha256),
) -> UploadEnd {
    let (offset, part) = wanted;
    let kept = parcel.clone();
    let begun = spawn_blocking(move || ParcelReader::resume(folder, &kept, offset, part)).await;
    let (reader, offset) = match begun.map_err(io::Error::other).and_then(|begun| begun) {
        Ok((reader, from)) => (Ok(reader), from),
        Err(error) => (Err(error), offset),
    };
    let announce = move |stream| ToServer::Upload { attempt, offset, stream };
    let Ok(mut stream) = link.open_stream(announce).await else { return UploadEnd::Lost };
    let sent = match reader {
        Ok(reader) => send(&mut stream, reader).await,
        Err(error) => Err(SendError::Read(error)),
    };
    match sent {
        Ok(()) => {
            let ended = said(stream.end(None).await);
            crash::at(Point::Sent);
            ended
        }
        // The verdict says why.
        Err(SendError::Stream(StreamError::Unwanted)) => said(stream.abort("the server wants no more").await),
        Err(SendError::Stream(_)) => UploadEnd::Lost,
        Err(SendError::Read(error)) => {
            tracing::error!("cannot read the results of {}: {error}", parcel.srpm);
            let ended = said(stream.abort(&format!("the builder cannot read its outbox: {error}")).await);
            if is_for_good(&error) { UploadEnd::Broken(error) } else { ended }
        }
    }
}

fn said(last: Result<(), WriteError>) -> UploadEnd {
    if last.is_ok() { UploadEnd::Said } else { UploadEnd::Lost }
}

/// Whether a file is gone or is another one: trying again does not mend that.
fn is_for_good(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

enum SendError {
    Stream(StreamError),
    Read(io::Error),
}

async fn send(stream: &mut OutgoingStream<ToServer>, mut reader: ParcelReader) -> Result<(), SendError> {
    loop {
        let read = spawn_blocking(move || (reader.next_piece(), reader));
        let piece;
        (piece, reader) = read.await.map_err(|error| SendError::Read(io::Error::other(error)))?;
        let piece = piece.map_err(SendError::Read)?;
        if piece.is_empty() {
            return Ok(());
        }
        stream.send(Bytes::from(piece)).await.map_err(SendError::Stream)?;
        crash::at(Point::PieceSent);
    }
}
