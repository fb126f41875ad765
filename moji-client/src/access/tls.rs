//! TLS 1.3 to a server that is known by its key. Of its certificate neither names nor dates count.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use moji_proto::Fingerprint;
use moji_proto::handshake::{Binding, TLS_EXPORTER, TLS_PROTOCOL};
use moji_proto::io::ReadAhead;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The TLS handshake: the stream, what ties proofs to it, and the key that the server has proven to have.
pub(super) async fn connect<Io>(io: Io) -> anyhow::Result<(TlsStream<ReadAhead<Io>>, Binding, Fingerprint)>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .context("TLS cannot be used")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![TLS_PROTOCOL.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from("moji").context("TLS cannot be used")?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, ReadAhead::new(io))
        .await
        .map_err(super::no_tls)?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(TLS_PROTOCOL) {
        bail!("the server speaks TLS, but is no moji-server");
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first).context("it has no certificate")?;
    let key = super::key_of(certificate)?;
    let binding = session
        .export_keying_material([0; 32], TLS_EXPORTER, None)
        .context("the TLS connection cannot be tied to its proofs")?;
    Ok((stream, binding, key))
}

/// Takes any certificate whose key the server has. Whether it is the right key is looked at afterwards:
/// before it is, nothing of ours is sent.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
