//! The beginning of a connection, the same for builders and people: TLS, then the handshake.

use anyhow::Context as _;
use moji_proto::Fingerprint;
use moji_proto::frame::Frame;
use moji_proto::handshake::{Agreed, Binding};
use moji_proto::io::FrameReader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};

use super::{Access, Opened};

/// A connection whose ends have proven who they are: what it brings, and where to write.
pub(crate) type Greeted<Io> = (FrameReader<ReadHalf<Opened<Io>>>, WriteHalf<Opened<Io>>);

impl Access {
    /// Gets in, and remembers the server.
    ///
    /// # Errors
    /// [`super::Unwelcome`] when the next try would end the same way.
    pub(crate) async fn greet<Io>(&mut self, io: Io, server: &str) -> anyhow::Result<Greeted<Io>>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let expected = self.expected(server).await?;
        let (io, binding, key) = self.open(io, server, expected).await?;
        let (read, mut write) = split(io);
        let mut frames = FrameReader::new(read);
        let agreed = match self.handshake(&mut frames, &mut write, binding, key).await {
            Ok(agreed) => agreed,
            Err(error) => return Err(self.judge(server, expected, key, error)),
        };
        self.remember(server, expected, agreed).await;
        frames.handshake_done();
        Ok((frames, write))
    }

    /// `key` is the one that the server has, or must have.
    async fn handshake(
        &mut self,
        frames: &mut FrameReader<impl AsyncRead + Unpin>,
        write: &mut (impl AsyncWrite + Unpin),
        binding: Binding,
        key: Option<Fingerprint>,
    ) -> anyhow::Result<Agreed> {
        let (client, hello) = self.begin(binding)?;
        write.write_all(&hello).await?;
        write.flush().await?;
        match self.prove(client, next(frames).await?, key).await? {
            Ok(agreed) => Ok(agreed),
            Err((awaiting, proof)) => {
                write.write_all(&proof).await?;
                write.flush().await?;
                Ok(awaiting.finish(next(frames).await?)?)
            }
        }
    }
}

/// The next frame of a connection that must not end now.
pub(crate) async fn next(frames: &mut FrameReader<impl AsyncRead + Unpin>) -> anyhow::Result<Frame> {
    frames.next().await?.context("the server closed the connection")
}
