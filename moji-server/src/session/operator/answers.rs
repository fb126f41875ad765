//! Paths of the API, answered on the protocol's port by what answers them over HTTP.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use moji_proto::io::OutgoingStream;
use moji_proto::limits::DATA_BYTES;
use moji_proto::operator::{RequestId, ToOperator};
use moji_proto::outcome::one_line;
use tokio::time::timeout;
use tower::ServiceExt as _;

/// How long a reader may leave unread what it asked for.
const STALL: Duration = Duration::from_secs(60);
/// What may be asked for.
const PATHS: [&str; 3] = ["/api/v1/", "/events", "/metrics"];

/// An answer whose body is still to be sent.
pub(super) struct Answered {
    pub(super) request: RequestId,
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Body,
}

/// Asks for a path.
pub(super) async fn get(router: Router, request: RequestId, path: &str) -> Answered {
    let response = match PATHS.iter().any(|known| path.starts_with(known)) {
        true => ask(router, path).await,
        false => told(StatusCode::NOT_FOUND, "only the API is answered here"),
    };
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Answered {
        request,
        status: response.status().as_u16(),
        content_type: one_line(content_type.unwrap_or_default()),
        body: response.into_body(),
    }
}

async fn ask(router: Router, path: &str) -> Response<Body> {
    let Ok(request) = Request::get(path).body(Body::empty()) else {
        return told(StatusCode::BAD_REQUEST, "that is no path");
    };
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

fn told(status: StatusCode, text: &str) -> Response<Body> {
    let problem = moji_proto::api::Problem { error: text.into() };
    let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = status;
    response
}

/// Sends a body to its end, as long as somebody reads it.
pub(super) async fn send(body: Body, mut stream: OutgoingStream<ToOperator>) {
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            biased;
            // Nothing may come for hours that would show it.
            () = stream.unwanted() => return,
            piece = pieces.next() => piece,
        };
        let Some(piece) = piece else { break };
        let mut piece: Bytes = match piece {
            Ok(piece) => piece,
            Err(error) => {
                // Whoever has ended the connection has been told.
                let _ = stream.abort(&one_line(&error.to_string())).await;
                return;
            }
        };
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(DATA_BYTES));
            match timeout(STALL, stream.send(part)).await {
                Ok(Ok(())) => {}
                // It is not wanted any more.
                Ok(Err(_)) => return,
                Err(_) => {
                    let _ = stream.abort("nobody reads it").await;
                    return;
                }
            }
        }
    }
    let _ = stream.end(None).await;
}
