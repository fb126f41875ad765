//! TLS for peers that do what a test says: honest ones, and those that stand between two others.
//!
//! It looks at no key. Whoever cares which server it talks to finds the key in the server's hello.

use std::sync::Arc;

use anyhow::Context as _;
use moji_proto::handshake::{Binding, TLS_EXPORTER, TLS_PROTOCOL};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// A client's connection to whoever is there, and what ties proofs to it.
///
/// # Errors
/// When the peer speaks no TLS 1.3.
pub async fn connect<Io>(io: Io) -> anyhow::Result<(client::TlsStream<Io>, Binding)>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![TLS_PROTOCOL.to_vec()];
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("moji")?, io).await?;
    let binding = stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER, None)?;
    Ok((stream, binding))
}

/// As [`connect`], for peers whose connections are in memory. What is said on the stream that is given
/// goes through TLS; it ends when the connection does.
///
/// # Errors
/// When the peer speaks no TLS 1.3.
pub async fn within(io: DuplexStream) -> anyhow::Result<(DuplexStream, Binding)> {
    let (mut stream, binding) = connect(io).await?;
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { copy_bidirectional(&mut theirs, &mut stream).await });
    Ok((ours, binding))
}

/// Takes connections with the key and certificate of an `identity.pem`.
///
/// # Errors
/// When the text holds neither.
pub fn acceptor(pem: &[u8]) -> anyhow::Result<TlsAcceptor> {
    let key = PrivateKeyDer::from_pem_slice(pem).context("no key")?;
    let certificate = CertificateDer::from_pem_slice(pem).context("no certificate")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![TLS_PROTOCOL.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A server's connection, and what ties proofs to it.
///
/// # Errors
/// When the peer speaks no TLS 1.3.
pub async fn accept<Io>(acceptor: &TlsAcceptor, io: Io) -> anyhow::Result<(server::TlsStream<Io>, Binding)>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let stream = acceptor.accept(io).await?;
    let binding = stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER, None)?;
    Ok((stream, binding))
}

/// Any certificate will do.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
