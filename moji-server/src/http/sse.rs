//! Streams of events to whoever reads them (Server-Sent Events), and how many there may be.
//!
//! A piece is made when the one before it is on its way, so a reader that does not read costs one piece and the
//! buffer of its connection, which is closed in the end ([`super::stall`]). It deliberately does not know what is
//! sent.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::{Api, ApiError};

/// What goes on and on at a time, of all kinds together.
pub(crate) const STREAMS: usize = 512;
/// How often something is sent that means nothing: proxies close what is silent.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What means nothing.
pub(super) const SILENCE: &str = ": still here\n\n";

/// A place among the streams.
///
/// # Errors
/// When there are too many.
pub(super) fn place(api: &Api) -> Result<OwnedSemaphorePermit, ApiError> {
    let full = |_| {
        ApiError::Unavailable(format!("{STREAMS} readers follow something already: close some, or ask again"))
    };
    std::sync::Arc::clone(&api.streams).try_acquire_owned().map_err(full)
}

/// The id that the last event had which the client has seen.
pub(super) fn last_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.trim().parse().ok()
}

/// Adds an event.
pub(super) fn event(to: &mut String, id: Option<u64>, name: Option<&str>, data: &impl Serialize) {
    // JSON has no line end in it: what is written here is one line each.
    let Ok(data) = serde_json::to_string(data) else { return };
    if let Some(id) = id {
        let _ = writeln!(to, "id: {id}");
    }
    if let Some(name) = name {
        let _ = writeln!(to, "event: {name}");
    }
    let _ = write!(to, "data: {data}\n\n");
}

/// The answer with these pieces.
pub(super) fn response<E: std::error::Error + Send + Sync + 'static>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For nginx, which else keeps pieces until it has many.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
