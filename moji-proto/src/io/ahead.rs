//! Reads ahead on a connection. TLS takes some 4 KiB from its socket at a time, each with a call of the kernel; while
//! much comes it is worth to fetch more at once.
//!
//! While little comes nothing is kept: a thousand builders that wait must not cost a buffer each.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// So much is fetched while nothing is known of what comes. More than the hello of a builder: what is left unread when
/// a connection is closed can cost the peer what it was told last.
const LEAST: usize = 4096;
/// So much at most, while each time all of it comes.
const MOST: usize = 64 * 1024;

/// A connection on which more is read than was asked for.
#[derive(Debug)]
pub struct ReadAhead<Io> {
    io: Io,
    buffer: BytesMut,
    /// How much is fetched the next time.
    next: usize,
}

impl<Io> ReadAhead<Io> {
    /// Nothing is read yet.
    pub fn new(io: Io) -> Self {
        Self { io, buffer: BytesMut::new(), next: LEAST }
    }
}

impl<Io: AsyncRead + Unpin> ReadAhead<Io> {
    /// Waits for what comes first, and gives the first byte of it. It is read once more.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn first(&mut self) -> io::Result<u8> {
        if self.buffer.is_empty() {
            self.buffer.reserve(LEAST);
            self.io.read_buf(&mut self.buffer).await?;
        }
        self.buffer.first().copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// How much is worth fetching next, when so much of `room` bytes came.
    fn learn(&mut self, came: usize, room: usize) {
        self.next = if came < room { LEAST } else { MOST.min(self.next * 4) };
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for ReadAhead<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            let wanted = into.remaining();
            if wanted >= this.next {
                let before = into.filled().len();
                let read = Pin::new(&mut this.io).poll_read(context, into);
                if read.is_ready() {
                    this.learn(into.filled().len() - before, wanted);
                } else {
                    this.rest();
                }
                return read;
            }
            this.buffer.reserve(this.next);
            let mut room = (&mut this.buffer).limit(this.next);
            let read = pin!(this.io.read_buf(&mut room)).poll(context);
            if read.is_pending() {
                this.rest();
            }
            let came = ready!(read)?;
            this.learn(came, this.next);
        }
        let length = into.remaining().min(this.buffer.len());
        into.put_slice(this.buffer.get(..length).unwrap_or_default());
        this.buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<Io> ReadAhead<Io> {
    /// Nothing is there to be read.
    fn rest(&mut self) {
        (self.buffer, self.next) = (BytesMut::new(), LEAST);
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for ReadAhead<Io> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// Whatever is asked for: the same bytes, the first one twice.
    #[tokio::test]
    async fn nothing_is_lost_and_nothing_comes_twice() {
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        for asked in [1, 7, 4095, 4096, 5000, 70_000] {
            let (mut peer, io) = tokio::io::duplex(100_000);
            let bytes = sent.clone();
            let writing = tokio::spawn(async move { peer.write_all(&bytes).await });
            let mut ahead = ReadAhead::new(io);
            assert_eq!(ahead.first().await.unwrap(), 0);
            let (mut read, mut buffer) = (Vec::new(), vec![0; asked]);
            loop {
                match ahead.read(&mut buffer).await.unwrap() {
                    0 => break,
                    length => read.extend_from_slice(&buffer[..length]),
                }
            }
            writing.await.unwrap().unwrap();
            assert!(read == sent, "{asked}");
        }
    }

    #[tokio::test]
    async fn it_fetches_more_while_much_comes_and_keeps_nothing_while_nothing_does() {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut ahead = ReadAhead::new(io);
        peer.write_all(&[7; 500_000]).await.unwrap();
        let mut most = 0;
        let mut buffer = [0; 4096];
        for _ in 0..100 {
            ahead.read_exact(&mut buffer).await.unwrap();
            most = most.max(ahead.buffer.len());
        }
        assert!(most > MOST / 2 && most <= MOST, "{most}");
        ahead.read_exact(&mut vec![0; 500_000 - 100 * 4096]).await.unwrap();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(pin!(ahead.read(&mut buffer)).poll(&mut context).is_pending());
        assert_eq!((ahead.buffer.capacity(), ahead.next), (0, LEAST));
    }

    #[tokio::test]
    async fn a_connection_that_ends_at_once_has_no_first_byte() {
        let (peer, io) = tokio::io::duplex(10);
        drop(peer);
        let error = ReadAhead::new(io).first().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
