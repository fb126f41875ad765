//! A person's program that does what a test says.

use anyhow::{Context as _, bail};
use moji_proto::frame::Kind;
use moji_proto::handshake::{Binding, PLAINTEXT, Refusal};
use moji_proto::operator::{Act, Done, FromOperator, Operate, Place, RequestId, Role, ToOperator};
use moji_proto::{Sha256, SrpmName, TargetName, ToServer, encoding};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use super::peer::{Peer, ScriptedBuilder, Who};

/// The connection of a person's program.
pub type Connection<Io = DuplexStream> = Peer<Io, FromOperator, ToOperator>;

/// A person's program that was let in.
pub struct Person<Io = DuplexStream> {
    /// Its connection.
    pub connection: Connection<Io>,
    /// What it may do.
    pub role: Role,
    requests: RequestId,
    /// What was said to the last announcement of something that was not wanted.
    said: String,
}

/// An SRPM that is submitted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its name.
    pub srpm: SrpmName,
    /// For which target.
    pub target: Option<TargetName>,
    /// What it is.
    pub content: Vec<u8>,
    /// Where it goes in priority.txt.
    pub place: Option<Place>,
    /// See [`FromOperator::Submit`].
    pub is_repeat: bool,
}

impl Submission {
    /// For any builder.
    ///
    /// # Errors
    /// When the name is none.
    pub fn new(srpm: &str, content: Vec<u8>) -> anyhow::Result<Self> {
        Ok(Self { srpm: srpm.parse()?, target: None, content, place: None, is_repeat: false })
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Person<Io> {
    /// Handshake and introduction, without TLS.
    ///
    /// # Errors
    /// When the server refuses; a refusal is a [`Refusal`].
    pub async fn enter(io: Io, who: Who<'_>) -> anyhow::Result<Self> {
        Self::enter_on(io, who, PLAINTEXT).await
    }

    /// The same on a connection to which proofs are tied.
    ///
    /// # Errors
    /// When the server refuses; a refusal is a [`Refusal`].
    pub async fn enter_on(io: Io, who: Who<'_>, binding: Binding) -> anyhow::Result<Self> {
        let mut peer = ScriptedBuilder::new(io);
        peer.introduce(who, binding).await?;
        peer.say(ToServer::Operate(Operate { software: "a test".into() })).await?;
        let frame = peer.frame().await?;
        if frame.kind == Kind::Refusal {
            return Err(Refusal::decode(frame.body).into());
        }
        match encoding::decode(&frame.body)? {
            ToOperator::Welcome { role, .. } => {
                Ok(Self { connection: peer.speaking(), role, requests: 0, said: String::new() })
            }
            other => bail!("{other:?} came instead of a welcome"),
        }
    }

    /// A number for a request.
    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        self.requests
    }

    /// What is at a path: status and body.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(u16, String)> {
        let request = self.request();
        self.connection.say(FromOperator::Get { request, path: path.into() }).await?;
        match self.connection.hear().await? {
            ToOperator::Answer { request: about, status, stream, .. } if about == request => {
                let (body, _) = self.connection.whole(stream).await?;
                Ok((status, String::from_utf8(body)?))
            }
            other => bail!("{other:?} came instead of an answer"),
        }
    }

    /// Has something done; or why nothing of it is.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn act(&mut self, act: Act) -> anyhow::Result<Result<Vec<Done>, String>> {
        let request = self.request();
        self.connection.say(FromOperator::Act { request, act }).await?;
        self.answer(request).await
    }

    /// The answer to a request that changes something.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn answer(&mut self, request: RequestId) -> anyhow::Result<Result<Vec<Done>, String>> {
        match self.connection.hear().await? {
            ToOperator::Done { request: about, done } if about == request => Ok(Ok(done)),
            ToOperator::Refused { request: about, reason } if about == request => Ok(Err(reason)),
            other => bail!("{other:?} came instead of an answer"),
        }
    }

    /// Has one thing done, and says what was done.
    ///
    /// # Errors
    /// When it is not.
    pub async fn does(&mut self, act: Act) -> anyhow::Result<String> {
        let done = self.act(act).await?.map_err(anyhow::Error::msg)?;
        let [one] = <[Done; 1]>::try_from(done).map_err(|done| anyhow::anyhow!("{done:?}"))?;
        if one.is_done { Ok(one.text) } else { bail!("{}: {}", one.about, one.text) }
    }

    /// Announces an SRPM: how much of it is wanted from where on; nothing of one that is queued.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn announce(&mut self, srpm: &Submission) -> anyhow::Result<(RequestId, Option<u64>)> {
        let request = self.request();
        let Submission { srpm, target, content, place, is_repeat } = srpm.clone();
        let (size, sha256) = (content.len() as u64, Sha256::of(&content));
        self.connection
            .say(FromOperator::Submit { request, srpm, target, size, sha256, place, is_repeat })
            .await?;
        match self.connection.hear().await? {
            ToOperator::Wanted { request: about, offset } if about == request => Ok((request, Some(offset))),
            ToOperator::Done { done, .. } => {
                self.said = done.into_iter().map(|done| done.text).collect();
                Ok((request, None))
            }
            ToOperator::Refused { reason, .. } => bail!("{reason}"),
            other => bail!("{other:?} came instead of an answer"),
        }
    }

    /// Submits an SRPM, and says what came of it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn submit(&mut self, srpm: &Submission) -> anyhow::Result<String> {
        let (request, Some(offset)) = self.announce(srpm).await? else {
            return Ok(std::mem::take(&mut self.said));
        };
        let stream = self.connection.next_stream();
        self.connection.say(FromOperator::Upload { request, offset, stream }).await?;
        let rest = srpm.content.get(usize::try_from(offset)?..).context("more is there than there is")?;
        self.connection.data(stream, rest).await?;
        self.connection.end(stream, None).await?;
        let done = self.answer(request).await?.map_err(anyhow::Error::msg)?;
        Ok(done.into_iter().map(|done| done.text).collect())
    }
}
