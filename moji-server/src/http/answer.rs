//! How answers look over HTTP: JSON, or what is wrong as JSON, and questions of a query string.

use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use moji_proto::api::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::ApiError;

/// When to ask again after what could not be answered now, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("2");

/// An answer as JSON.
pub(super) fn json(answer: &impl Serialize) -> Response<Body> {
    json_with(StatusCode::OK, answer)
}

pub(super) fn json_with(status: StatusCode, answer: &impl Serialize) -> Response<Body> {
    let body = match serde_json::to_vec(answer) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!("an answer cannot be written as JSON: {error}");
            return problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written as JSON".into());
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is wrong.
pub(super) fn problem(status: StatusCode, error: String) -> Response<Body> {
    let mut response = json_with(status, &Problem { error });
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, AGAIN);
    }
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        problem(status, self.to_string())
    }
}

/// What a query string asks for. A parameter that there is not is an error: left out of account, it would let
/// through what was to be left out.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(ApiError::Wrong(moji_proto::outcome::one_line(&error.to_string()))),
        }
    }
}
