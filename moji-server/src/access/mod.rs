//! Who may come in: the server's key, TLS, the password, and named credentials that can be added and
//! revoked while it runs.
//!
//! It knows nothing of builds. What a credential permits is here; that a session keeps to it is the
//! session's business.

pub mod command;
pub mod credentials;
pub mod identity;
mod tls;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moji_proto::handshake::{Binding, HandshakeError, PLAINTEXT, Salt, ServerSecret};
use moji_proto::io::ReadAhead;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use credentials::{Credentials, CredentialsError};
use identity::Identity;
pub(crate) use watch::watch;

/// A connection, encrypted or not.
pub(crate) type Opened<Io> = Either<Io, TlsStream<ReadAhead<Io>>>;

/// What every session needs to find out who is there.
#[derive(Clone)]
pub struct Access {
    /// The server's key, and the password.
    pub(crate) secret: ServerSecret,
    /// The credentials as they are now.
    pub(crate) credentials: tokio::sync::watch::Receiver<Arc<Credentials>>,
    tls: Option<TlsAcceptor>,
    /// Builders may come in with a password.
    pub(crate) has_password: bool,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}

impl Access {
    /// With TLS, unless `plaintext`. Stretches the password: slow. `salt` must be random.
    pub(crate) fn new(
        identity: &Identity,
        password: Option<&str>,
        salt: Salt,
        plaintext: bool,
        credentials: tokio::sync::watch::Receiver<Arc<Credentials>>,
    ) -> anyhow::Result<Self> {
        let tls = if plaintext { None } else { Some(tls::acceptor(identity)?) };
        let secret = ServerSecret::new(Arc::new(identity.signing_key()), password, salt)
            .map_err(|error: HandshakeError| anyhow::anyhow!(error))?;
        Ok(Self { secret, credentials, tls, has_password: password.is_some() })
    }

    /// The TLS handshake, if there is to be one, and what ties proofs to this connection.
    ///
    /// # Errors
    /// When the peer speaks no TLS 1.3; it is told so if that can be done.
    pub(crate) async fn open<Io>(&self, io: Io) -> anyhow::Result<(Opened<Io>, Binding)>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        match &self.tls {
            None => Ok((Either::Left(io), PLAINTEXT)),
            Some(acceptor) => {
                let (stream, binding) = tls::accept(acceptor, io).await?;
                Ok((Either::Right(stream), binding))
            }
        }
    }
}

/// Whether anybody needs a credential or a password: then the server may listen on all addresses.
///
/// # Errors
/// When the file cannot be read.
pub fn has_credentials(private: &Path) -> Result<bool, CredentialsError> {
    Ok(!Credentials::read(private)?.is_empty())
}

/// How often the credentials are looked at: a revoked one ends its sessions within a second.
pub const LOOK: Duration = Duration::from_millis(300);
