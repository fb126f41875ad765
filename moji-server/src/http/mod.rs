//! The server's own HTTP: read-only, without secrets, for whoever has no httpd at hand.
//!
//! Everything that changes something goes over the protocol's port, authenticated; here are files of REPO
//! under `/repo/`, and what [`Api`] tells: as JSON, as streams of events and logs, as numbers. It deliberately
//! decides nothing about builds, and it has no TLS: whoever wants that puts a proxy in front, or checks signatures as dnf does.

mod answer;
mod dnf;
mod events;
mod files;
mod health;
mod json;
mod listing;
mod logs;
mod metrics;
mod openapi;
mod pages;
mod path;
mod process;
mod query;
mod range;
mod sse;
mod stall;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::{Redirect, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::peer::{Origin, Peer};
use files::Files;
pub(crate) use path::encoded;
pub(crate) use sse::STREAMS;
use stall::Unstalled;

/// Where REPO is.
pub const REPO: &str = "/repo/";
/// Connections at a time; those beyond wait to be taken.
const CONNECTIONS: usize = 2048;
/// The same from one address; those beyond are closed at once. This machine, a proxy perhaps, has no
/// limit of its own.
const CONNECTIONS_PER_ADDRESS: usize = 512;
/// How long a request's header may take, and how long a connection may be idle between two.
const HEADER: Duration = Duration::from_secs(30);
/// Most bytes of a request's header.
const HEADER_BYTES: usize = 16 * 1024;
/// How long a peer may leave unread what it asked for.
const STALL: Duration = Duration::from_secs(60);
/// How long requests may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How long accepting rests after an error such as too many open files.
const REST: Duration = Duration::from_millis(200);

/// What is served: to whoever connects, and to people on the protocol's port. No handler asks who that is.
pub(crate) fn router(api: &Api) -> Router {
    Router::new()
        .route("/repo", get(|| async { Redirect::permanent(REPO) }))
        .route("/repo/", get(files::serve))
        .route("/repo/{*path}", get(files::serve))
        .with_state(Files::new(api.folders.repo.clone(), api.repository_urls.clone()))
        .merge(json::routes(api.clone()))
        .merge(pages::routes(api.clone()))
        .fallback(pages::nothing)
        .layer(map_response(harmless))
}

/// What people put into REPO must not act in a browser, whatever it looks like.
async fn harmless(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; sandbox";
    // Pages have one of their own.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(policy));
    response
}

/// Serves until `shutdown`, then gives requests a moment to end.
pub async fn serve(listener: Arc<TcpListener>, api: Api, shutdown: CancellationToken) {
    let router = router(&api.until(shutdown.clone()));
    let mut connections = JoinSet::new();
    let mut of: BTreeMap<Id, Option<Origin>> = BTreeMap::new();
    loop {
        let (stream, address) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next_with_id() => {
                of.remove(&match ended { Ok((id, ())) => id, Err(error) => error.id() });
                continue;
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!("cannot take an HTTP connection: {error}");
                    sleep(REST).await;
                    continue;
                }
            },
        };
        let origin = limited(address);
        let same = of.values().filter(|other| origin.is_some() && **other == origin).count();
        if same >= CONNECTIONS_PER_ADDRESS {
            tracing::debug!("{address}: {same} HTTP connections from there already");
            continue;
        }
        let task = connections.spawn(connection(stream, address, router.clone(), shutdown.clone()));
        of.insert(task.id(), origin);
    }
    if timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::debug!("{} HTTP connections are closed", connections.len());
    }
}

fn limited(address: SocketAddr) -> Option<Origin> {
    let peer = Peer::at(address);
    peer.origin().filter(|_| peer.address().is_some_and(|address| !address.ip().is_loopback()))
}

async fn connection(stream: TcpStream, address: SocketAddr, router: Router, shutdown: CancellationToken) {
    // It has ended already, which is found out below.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Unstalled::new(stream, STALL));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("HTTP connection of {address}: {error}");
    }
}

#[cfg(test)]
mod tests;
