//! The API's description for other programs (OpenAPI 3.1), made from the handlers and types themselves.

use axum::body::Body;
use axum::http::Response;
use utoipa::OpenApi;

use super::answer::json;
use super::{events, health, json as handlers, logs, metrics};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Moji",
        description = "What an RPM build farm tells of itself. It only reads: what changes something is said with \
                       the program `moji`. A reader ignores fields that it does not know."
    ),
    paths(
        handlers::overview,
        handlers::queue,
        handlers::builds,
        handlers::build,
        handlers::why,
        handlers::build_log,
        handlers::attempt,
        handlers::attempt_log,
        logs::lines,
        handlers::find,
        handlers::packages,
        handlers::package,
        handlers::builders,
        handlers::builder,
        handlers::targets,
        handlers::report,
        handlers::events_page,
        serve,
        events::serve,
        metrics::serve,
        health::lives,
        health::is_ready,
    )
)]
struct Described;

/// The description.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    Described::openapi()
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, body = serde_json::Value)))]
pub(super) async fn serve() -> Response<Body> {
    json(&document())
}
