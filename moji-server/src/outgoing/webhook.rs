//! One event to one web server: a POST of its JSON, signed when there is a key.
//!
//! Each delivery has a connection of its own, is bounded in time and in what is read of the answer, and follows no
//! redirect. It deliberately does not know whether it is the first try.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use moji_proto::api::Event;
use ring::hmac;
use rustls::crypto::ring as with_ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::pace::{Trouble, TroubleKind};
use super::url::HookUrl;

/// Name, connection and TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// All of a delivery.
const WHOLE: Duration = Duration::from_secs(30);
/// What is read of an answer; nobody looks at it.
const ANSWER_MAX: usize = 64 * 1024;

/// How long parts of a delivery may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) connect: Duration,
    pub(super) whole: Duration,
}

/// A web server that is told.
pub(super) struct Webhook {
    url: HookUrl,
    key: Option<hmac::Key>,
    /// Made when it is needed, and again when that has not worked: certificates can be installed later.
    tls: OnceCell<TlsConnector>,
    pub(super) times: Times,
}

impl Webhook {
    /// For a URL, with the bytes of the key.
    pub(super) fn new(url: HookUrl, key: Option<&[u8]>) -> Self {
        let key = key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
        Self { url, key, tls: OnceCell::new(), times: Times { connect: CONNECT, whole: WHOLE } }
    }

    /// Trusts these, and not the system's.
    #[cfg(test)]
    pub(super) fn trust(&mut self, roots: RootCertStore) {
        self.tls = OnceCell::new_with(Some(connector(roots).unwrap()));
    }

    /// One try. To be dropped at any time.
    pub(super) async fn give(&self, event: &Event) -> Result<(), Trouble> {
        let request = self.request(event, Timestamp::now())?;
        let took_longer =
            |limit: Duration| Trouble::away(format!("no answer within {} s", limit.as_secs_f32()));
        let answer = timeout(self.times.whole, self.post(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(took_longer(self.times.whole)));
        let (status, headers) = answer?;
        judge(status, &headers, Timestamp::now())
    }

    /// What is sent at that time.
    fn request(&self, event: &Event, now: Timestamp) -> Result<Request<Body>, Trouble> {
        let body = serde_json::to_vec(event).map_err(|error| Trouble::refused(error.to_string()))?;
        let timestamp = now.as_second().to_string();
        let mut request = Request::post(self.url.path())
            .header(HOST, self.url.authority())
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("moji-server/", env!("CARGO_PKG_VERSION")))
            .header("X-Moji-Event", event.kind.word())
            .header("X-Moji-Event-Id", event.id)
            .header("X-Moji-Timestamp", &timestamp);
        if let Some(key) = &self.key {
            request = request.header("X-Moji-Signature", signature(key, &timestamp, &body));
        }
        request.body(Body::from(body)).map_err(|error| Trouble::refused(error.to_string()))
    }

    async fn post(&self, request: Request<Body>) -> Result<(StatusCode, HeaderMap), Trouble> {
        let connecting = timeout(self.times.connect, self.connect()).await;
        let cannot = |error: io::Error| Trouble::away(format!("cannot connect: {error}"));
        let late = |_| Trouble::away(format!("no connection within {} s", self.times.connect.as_secs_f32()));
        let io = connecting.map_err(late)?.map_err(cannot)?;
        let failed =
            |error: hyper::Error| Trouble::away(format!("the connection failed: {}", whole_text(&error)));
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            // What is not read of a short answer would be a reset for the other side. Its end says nothing new.
            drain(body).await;
            Ok((head.status, head.headers))
        };
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
        .map_err(failed)
    }

    async fn connect(&self) -> io::Result<Pin<Box<dyn Stream>>> {
        let addresses: Vec<SocketAddr> = lookup_host((self.url.host(), self.url.port())).await?.collect();
        // One family of addresses often leads nowhere: the others must have their time too.
        let each = self.times.connect / u32::try_from(addresses.len().clamp(1, 3)).unwrap_or(1);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.secure(stream).await,
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "nobody answers"),
            }
        }
        Err(last)
    }

    async fn secure(&self, stream: TcpStream) -> io::Result<Pin<Box<dyn Stream>>> {
        if !self.url.is_https() {
            return Ok(Box::pin(stream));
        }
        let tls = self.tls.get_or_try_init(|| async {
            let roots = spawn_blocking(system_roots).await.map_err(anyhow::Error::from).flatten();
            roots.and_then(connector).map_err(|error| io::Error::other(format!("{error:#}")))
        });
        let tls = tls.await?;
        let name = ServerName::try_from(self.url.host().to_owned()).map_err(io::Error::other)?;
        Ok(Box::pin(tls.connect(name, stream).await?))
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// `sha256=` and the HMAC of `timestamp.body`, in hexadecimal digits.
fn signature(key: &hmac::Key, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    let mut text = "sha256=".to_owned();
    for byte in context.sign().as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What an answer means.
fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<(), Trouble> {
    if status.is_success() {
        return Ok(());
    }
    let why = format!("it answered {status}");
    let comes_back = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    let kind = match comes_back {
        true => TroubleKind::Away(retry_after(headers, now)),
        false => TroubleKind::Refused,
    };
    Err(Trouble { kind, why })
}

/// In how long the receiver wants to be asked again: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(at.duration_since(now)).ok()
}

/// Reads the first part of an answer, or all of it.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        read += frame.data_ref().map_or(1, |data| data.len().max(1));
        if read > ANSWER_MAX {
            break;
        }
    }
}

/// hyper's own text does not say what happened below it.
fn whole_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
        anyhow::bail!(
            "this system's certificates cannot be used ({why}): install ca-certificates, or \
             set SSL_CERT_FILE"
        );
    }
    Ok(roots)
}

fn connector(roots: RootCertStore) -> anyhow::Result<TlsConnector> {
    let config = ClientConfig::builder_with_provider(Arc::new(with_ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be used")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, retry_after: Option<&str>) -> Option<TroubleKind> {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
        }
        let now = Timestamp::from_second(784_111_777).unwrap();
        judge(StatusCode::from_u16(status).unwrap(), &headers, now).err().map(|trouble| trouble.kind)
    }

    #[test]
    fn what_answers_mean() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, None), None, "{status}");
        }
        for status in [500, 502, 503, 599, 408, 425, 429] {
            assert_eq!(judged(status, None), Some(TroubleKind::Away(None)), "{status}");
        }
        for status in [300, 301, 304, 308, 400, 401, 404, 410, 413, 422, 499] {
            assert_eq!(judged(status, Some("7")), Some(TroubleKind::Refused), "{status}");
        }
    }

    #[test]
    fn when_to_come_back() {
        let asked = |text| match judged(503, Some(text)) {
            Some(TroubleKind::Away(asked)) => asked.map(|asked| asked.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(asked("Sun, 06 Nov 1994 08:40:37 GMT"), None, "over");
        for text in ["", "-5", "soon", "99999999999999999999999"] {
            assert_eq!(asked(text), None, "{text:?}");
        }
    }
}
