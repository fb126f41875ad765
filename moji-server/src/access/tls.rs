//! TLS 1.3, and nothing older. No certificate is ever looked at for its names or dates: builders know the
//! key.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use moji_proto::handshake::{Binding, Refusal, RefusalCode, TLS_EXPORTER, TLS_PROTOCOL};
use moji_proto::io::ReadAhead;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::Identity;

/// How a TLS connection begins (RFC 8446, section 5.1): the type of its first record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Accepts connections with a server's key.
pub(super) fn acceptor(identity: &Identity) -> anyhow::Result<TlsAcceptor> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())
        })
        .context("the server's key and its certificate cannot be used")?;
    config.alpn_protocols = vec![TLS_PROTOCOL.to_vec()];
    // A builder connects rarely and stays: to resume sessions would be memory and risk for nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The TLS handshake, and what ties proofs to this connection.
pub(super) async fn accept<Io>(
    acceptor: &TlsAcceptor,
    io: Io,
) -> anyhow::Result<(TlsStream<ReadAhead<Io>>, Binding)>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    // Before rustls sees it, which would answer with an alert of TLS first.
    let mut io = ReadAhead::new(io);
    let first = io.first().await.context("the TLS handshake failed")?;
    if first != HANDSHAKE_RECORD {
        // Perhaps somebody's builder all the same: it understands this.
        let reason = "this server expects TLS: start the builder without --plaintext";
        io.write_all(&Refusal::new(RefusalCode::Protocol, reason).encode()).await?;
        io.shutdown().await?;
        bail!("it does not speak TLS");
    }
    let stream = acceptor
        .accept(io)
        .await
        .context("the TLS handshake failed; perhaps it knows this server by another key")?;
    let binding = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], TLS_EXPORTER, None)
        .context("the TLS connection cannot be tied to its proofs")?;
    Ok((stream, binding))
}
