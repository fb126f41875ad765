//! A connection of which the beginning was looked at, and is read once more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// So much may be looked at. More than the hello of a builder: what is left unread when a connection is
/// closed can cost the peer what it was told last.
const PEEK: usize = 4096;

/// A connection on which nothing seems to have been read yet.
pub(crate) struct Peeked<Io> {
    beginning: Bytes,
    io: Io,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Peeked<Io> {
    /// Waits for what comes first; gives the first byte of it, and the connection.
    ///
    /// # Errors
    /// When the connection ends before.
    pub(super) async fn at(mut io: Io) -> io::Result<(u8, Self)> {
        let mut beginning = BytesMut::with_capacity(PEEK);
        io.read_buf(&mut beginning).await?;
        let first = beginning.first().copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((first, Self { beginning: beginning.freeze(), io }))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Peeked<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.beginning.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let length = buffer.remaining().min(self.beginning.len());
        buffer.put_slice(&self.beginning.copy_to_bytes(length));
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Peeked<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
