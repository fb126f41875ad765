//! Logs over HTTP: in part, as they grow, and as lines for a page.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, header};
use bytes::Bytes;
use futures_util::stream;
use moji_proto::api::Problem;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::answer::Asked;
use super::files::whole_or_part;
use super::query::LogQuery;
use super::sse::{self, KEEP_ALIVE, SILENCE};
use crate::api::{Api, ApiError, Follower, LogOf};
use crate::log_text::{Cleaner, Line};

/// What is so short is made harmless at once.
const SMALL: usize = 8 * 1024;
/// Lines of one event.
const LINES: usize = 200;

/// A log as it is, from a byte on, or followed.
pub(super) async fn answer(
    api: &Api,
    log: LogOf,
    asked: LogQuery,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let LogQuery { follow, offset } = asked;
    if !follow {
        let path = std::path::PathBuf::from(log.name.as_str());
        let open = api.open_log(&log).await?;
        let ranged;
        let headers = match offset {
            // The same as a range, but that nothing is left is no error.
            Some(offset) if offset < open.data.len() => {
                ranged = with_range(headers, offset);
                &ranged
            }
            Some(_) => return Ok(text(Body::empty())),
            None => headers,
        };
        let mut response = whole_or_part(method, headers, open.file, &open.data, &path).await;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(response);
    }
    let place = sse::place(api)?;
    let follower = api.follow_log(log, offset.unwrap_or_default()).await?;
    let pieces = stream::unfold((follower, place), |(mut follower, place)| async {
        let piece = follower.next().await.transpose()?;
        Some((piece, (follower, place)))
    });
    Ok(text(Body::from_stream(pieces)))
}

fn with_range(headers: &HeaderMap, offset: u64) -> HeaderMap {
    let mut headers = headers.clone();
    if !headers.contains_key(header::RANGE)
        && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
    {
        headers.insert(header::RANGE, range);
    }
    headers
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A log as lines for a page, until the attempt has ended: Server-Sent Events whose id is where the next line
/// begins, in bytes, and whose data are lines, each an array of `[style, text]`. Harmless text in styles of a
/// closed set: empty, `bold`, `red`, `bold-red`, and so on for eight colours. An event of the name `end` is the
/// last one.
#[utoipa::path(get, path = "/api/v1/attempts/{attempt}/logs/{name}/lines",
    params(("attempt" = String, Path), ("name" = String, Path), LogQuery),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn lines(
    State(api): State<Api>,
    Path((attempt, name)): Path<(String, String)>,
    Asked(asked): Asked<LogQuery>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let attempt =
        attempt.parse().map_err(|error: moji_proto::NameError| ApiError::NotFound(error.to_string()))?;
    let place = sse::place(&api)?;
    let offset = sse::last_id(&headers).or(asked.offset).unwrap_or_default();
    let log = api.log_of_attempt(attempt, &name).await?;
    let follower = api.follow_log(log, offset).await?;
    let rendering = Arc::clone(&api.rendering);
    let reader = Reader { follower, rendering, cleaner: Cleaner::new(offset), state: Stage::Begins };
    Ok(sse::response(stream::unfold((reader, place), |(mut reader, place)| async {
        let piece = reader.next().await.transpose()?;
        Some((piece.map(Bytes::from), (reader, place)))
    })))
}

/// One reader of lines.
struct Reader {
    follower: Follower,
    /// Places for those who have much to make harmless.
    rendering: Arc<Semaphore>,
    cleaner: Cleaner,
    state: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begins,
    Follows,
    Ended,
}

impl Reader {
    /// What is sent next; `None`: that was all.
    async fn next(&mut self) -> io::Result<Option<String>> {
        match self.state {
            Stage::Ended => return Ok(None),
            Stage::Begins => {
                self.state = Stage::Follows;
                return Ok(Some("retry: 2000\n\n".to_owned()));
            }
            Stage::Follows => {}
        }
        loop {
            let Ok(piece) = timeout(KEEP_ALIVE, self.follower.next()).await else {
                return Ok(Some(SILENCE.to_owned()));
            };
            let mut sent = String::new();
            match piece? {
                Some(bytes) => sent = self.render(bytes).await?,
                None if self.follower.is_whole() => {
                    self.state = Stage::Ended;
                    put(&mut sent, self.cleaner.finish().as_slice());
                    sse::event(&mut sent, None, Some("end"), &self.follower.offset());
                }
                // The server stops: the client comes back for the rest.
                None => return Ok(None),
            }
            if !sent.is_empty() {
                return Ok(Some(sent));
            }
        }
    }
}

impl Reader {
    /// Lines of a piece. Of large ones one after the other: a log that many read must not keep the pages waiting.
    async fn render(&mut self, bytes: Bytes) -> io::Result<String> {
        let is_small = bytes.len() <= SMALL;
        let mut cleaner = std::mem::replace(&mut self.cleaner, Cleaner::new(0));
        let clean = move || {
            let mut sent = String::new();
            put(&mut sent, &cleaner.push(&bytes));
            (cleaner, sent)
        };
        let (cleaner, sent) = match is_small {
            true => clean(),
            false => {
                let place = self.rendering.acquire().await.map_err(io::Error::other)?;
                let cleaned = spawn_blocking(clean).await.map_err(io::Error::other)?;
                drop(place);
                cleaned
            }
        };
        self.cleaner = cleaner;
        Ok(sent)
    }
}

fn put(to: &mut String, lines: &[Line]) {
    for lines in lines.chunks(LINES) {
        sse::event(to, lines.last().map(|line| line.end), None, &lines);
    }
}
