//! The pages' addresses: what is asked for, whom to ask for it, and which page shows it.
//!
//! It deliberately does not know how a page looks: `pages`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::get;
use jiff::Timestamp;
use moji_proto::api::{Build, BuildDetail, BuildState};
use moji_proto::{AttemptId, TargetName};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::api::{Api, ApiError};
use crate::history::BuildFilter;
use crate::log_text;
use crate::pages::{self, Frame, LogPart, Markup, assets};

const SOFTWARE: &str = concat!("moji-server ", env!("CARGO_PKG_VERSION"));
/// How much of a log is one page.
const PART: u64 = 128 * 1024;
/// How much of the log of something that runs is on its page.
const TAIL: u64 = 16 * 1024;
/// Up to where the lines of a log are counted.
const COUNTED: u64 = 64 * 1024 * 1024;
/// Entries of a target's newest builds.
const NEWEST: u32 = 20;
/// Entries of the queue.
const QUEUED: u32 = 500;

type Answer = Result<Markup, ApiError>;

/// What is asked for in an address. What is empty is not asked for: forms send all their fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    state: String,
    target: String,
    package: String,
    builder: String,
    kind: String,
    q: String,
    before: String,
    skip: String,
    attempt: String,
    from: String,
    build: String,
}

/// The pages, and what they load.
pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/queue", get(queue))
        .route("/builds", get(builds))
        .route("/find", get(find))
        .route("/build/{id}", get(build))
        .route("/build/{id}/log/{name}", get(log))
        .route("/packages", get(packages))
        .route("/package/{name}", get(package))
        .route("/builders", get(builders))
        .route("/builder/{*id}", get(builder))
        .route("/targets", get(targets))
        .route("/target/{name}", get(target))
        .route("/report", get(report))
        .route("/static/{hash}/{name}", get(asset))
        .with_state(api)
}

fn frame() -> Frame<'static> {
    Frame { now: Timestamp::now(), software: SOFTWARE }
}

/// A page, or the page that says why there is none.
fn shown(answer: Answer) -> Response<Body> {
    let (status, markup) = match answer {
        Ok(markup) => (StatusCode::OK, markup),
        Err(ApiError::NotFound(text)) => {
            (StatusCode::NOT_FOUND, pages::problem(frame(), "There is no such thing", &text))
        }
        Err(ApiError::Wrong(text)) => {
            (StatusCode::BAD_REQUEST, pages::problem(frame(), "That cannot be asked", &text))
        }
        Err(ApiError::Unavailable(text)) => {
            (StatusCode::SERVICE_UNAVAILABLE, pages::problem(frame(), "Not now", &text))
        }
    };
    let mut response = Response::new(Body::from(markup.into_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(pages::POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Where there is nothing.
pub(super) async fn nothing() -> Response<Body> {
    shown(Err(ApiError::NotFound("There is no page at this address.".into())))
}

async fn asset(uri: Uri) -> Response<Body> {
    let Some(asset) = assets::at(uri.path()) else {
        return shown(Err(ApiError::NotFound(
            "This page was made by another version: load it again.".into(),
        )));
    };
    let mut response = Response::new(Body::from(asset.content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}

async fn overview(State(api): State<Api>) -> Response<Body> {
    shown(api.overview().await.map(|overview| pages::overview(frame(), &overview)))
}

async fn queue(State(api): State<Api>, Query(asked): Query<Asked>) -> Response<Body> {
    shown(
        async {
            let target = target_of(&asked.target)?;
            let queue = api.queue(target.clone(), QUEUED).await?;
            let targets = api.targets().await?;
            Ok(pages::queue(frame(), &queue, target.as_ref().map(Option::as_ref), &targets))
        }
        .await,
    )
}

async fn builds(State(api): State<Api>, Query(asked): Query<Asked>) -> Response<Body> {
    shown(
        async {
            let filter = filter_of(&asked)?;
            let page = api.builds(filter.clone()).await?;
            // The list is whole without them.
            let targets = api.targets().await.unwrap_or_default();
            Ok(pages::builds(frame(), &page, &filter, &targets))
        }
        .await,
    )
}

/// To the page of the build that is meant.
async fn find(State(api): State<Api>, Query(asked): Query<Asked>) -> Response<Body> {
    match api.find(&asked.build).await {
        Ok(build) => Redirect::temporary(&format!("/build/{}", build.id)).into_response(),
        Err(error) => shown(Err(error)),
    }
}

async fn build(State(api): State<Api>, Path(id): Path<String>) -> Response<Body> {
    shown(
        async {
            let detail = api.build(&number(&id)?.to_string()).await?;
            let is_waiting = matches!(detail.build.state, BuildState::Queued | BuildState::Parked);
            // The page is useful without it.
            let why = if is_waiting { api.why(&id).await.ok() } else { None };
            let tail = tail(&api, &detail).await;
            Ok(pages::build(frame(), &detail, why.as_ref(), tail.as_ref()))
        }
        .await,
    )
}

/// The end of the log of what runs.
async fn tail(api: &Api, detail: &BuildDetail) -> Option<LogPart> {
    let running = detail.attempts.iter().find(|attempt| attempt.running.is_some())?;
    let log = api.log_of_attempt(running.id, "build.log").await.ok()?;
    let (attempt, name) = (log.attempt, log.name.clone());
    let empty = LogPart {
        attempt,
        name,
        from: 0,
        to: 0,
        size: 0,
        first: Some(1),
        before: None,
        lines: Vec::new(),
        is_growing: true,
    };
    let Ok(open) = api.open_log(&log).await else { return Some(empty) };
    let read = spawn_blocking(move || read(&open.file, None, TAIL, true)).await.ok()?.ok()?;
    Some(read.into_part(true, empty))
}

async fn log(
    State(api): State<Api>,
    Path((id, name)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    shown(log_page(api, &id, &name, &asked).await)
}

async fn log_page(api: Api, id: &str, name: &str, asked: &Asked) -> Answer {
    let detail = api.build(&number(id)?.to_string()).await?;
    let log = match asked.attempt.as_str() {
        "" => api.log_of_build(id, name).await?,
        attempt => {
            let attempt = attempt_of(attempt)?;
            if !detail.attempts.iter().any(|one| one.id == attempt) {
                return Err(ApiError::NotFound(format!("build {id} has no attempt {attempt}")));
            }
            api.log_of_attempt(attempt, name).await?
        }
    };
    let from = if asked.from.is_empty() { None } else { Some(number(&asked.from)?) };
    let is_growing = detail.attempts.iter().any(|one| one.id == log.attempt && one.ended_at.is_none());
    let open = api.open_log(&log).await?;
    let read = spawn_blocking(move || read(&open.file, from, PART, is_growing)).await;
    let read = read
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| ApiError::Unavailable(format!("{name} cannot be read now: {error}")))?;
    let empty = LogPart {
        attempt: log.attempt,
        name: log.name,
        from: 0,
        to: 0,
        size: 0,
        first: None,
        before: None,
        lines: Vec::new(),
        is_growing,
    };
    Ok(pages::log(frame(), &detail.build, &read.into_part(is_growing, empty)))
}

async fn packages(State(api): State<Api>, Query(asked): Query<Asked>) -> Response<Body> {
    shown(
        async {
            let skip = if asked.skip.is_empty() { 0 } else { number(&asked.skip)? };
            let search = Some(asked.q.clone()).filter(|search| !search.is_empty());
            let page = api.packages(search, skip, 0).await?;
            Ok(pages::packages(frame(), &page, &asked.q, skip))
        }
        .await,
    )
}

async fn package(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    shown(
        async {
            let target = target_of(&asked.target)?.flatten();
            let package = api.package(&name, target.clone()).await?;
            Ok(pages::package(frame(), &package, target.as_ref()))
        }
        .await,
    )
}

async fn builders(State(api): State<Api>) -> Response<Body> {
    shown(api.builders().await.map(|builders| pages::builders(frame(), &builders)))
}

async fn builder(State(api): State<Api>, Path(id): Path<String>) -> Response<Body> {
    shown(api.builder(&id).await.map(|detail| pages::builder(frame(), &detail)))
}

async fn targets(State(api): State<Api>) -> Response<Body> {
    shown(api.targets().await.map(|targets| pages::targets(frame(), &targets)))
}

async fn target(State(api): State<Api>, Path(name): Path<String>, headers: HeaderMap) -> Response<Body> {
    shown(
        async {
            let wanted = target_of(&name)?.flatten();
            let targets = api.targets().await?;
            let target = targets.iter().find(|target| target.name == wanted);
            let target = target.ok_or_else(|| ApiError::NotFound(format!("there is no target {name:?}")))?;
            let filter = BuildFilter { target: Some(wanted), limit: NEWEST, ..BuildFilter::default() };
            let newest: Vec<Build> = api.builds(filter).await?.items;
            Ok(pages::target(frame(), target, origin(&headers).as_deref(), &newest))
        }
        .await,
    )
}

async fn report(State(api): State<Api>) -> Response<Body> {
    let report = match api.report().await {
        Ok(report) => serde::Deserialize::deserialize(report.as_ref())
            .map(Some)
            .map_err(|error| ApiError::Unavailable(format!("report.json is not what it should be: {error}"))),
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    };
    shown(report.map(|report| pages::report(frame(), report.as_ref())))
}

/// Where whoever asks finds this server, as he says himself.
fn origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    (!host.is_empty() && host.chars().all(is_host)).then(|| format!("http://{host}"))
}

fn number(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::Wrong(format!("{text:?} is no number")))
}

fn attempt_of(text: &str) -> Result<AttemptId, ApiError> {
    text.parse().map_err(|_| ApiError::Wrong(format!("{text:?} is no attempt's id")))
}

/// Empty: any; `-`: SOURCE itself.
fn target_of(text: &str) -> Result<Option<Option<TargetName>>, ApiError> {
    match text {
        "" => Ok(None),
        "-" => Ok(Some(None)),
        name => TargetName::new(name)
            .map(|name| Some(Some(name)))
            .map_err(|error| ApiError::Wrong(format!("{name:?} is no target: {error}"))),
    }
}

fn filter_of(asked: &Asked) -> Result<BuildFilter, ApiError> {
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let states: Result<Vec<BuildState>, String> =
        asked.state.split(',').filter(|word| !word.is_empty()).map(str::parse).collect();
    let kind = some(&asked.kind).map(|kind| {
        serde_json::from_value(serde_json::Value::String(kind.clone()))
            .map_err(|_| ApiError::Wrong(format!("{kind:?} is no kind of failure")))
    });
    Ok(BuildFilter {
        states: states.map_err(ApiError::Wrong)?,
        target: target_of(&asked.target)?,
        package: some(&asked.package),
        builder: some(&asked.builder),
        failure: kind.transpose()?,
        search: some(&asked.q),
        before: some(&asked.before).map(|before| number(&before)).transpose()?,
        limit: 0,
    })
}

/// Bytes of a log, whole lines of them.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    from: u64,
    size: u64,
    first: Option<u64>,
    bytes: Vec<u8>,
}

impl Read {
    fn into_part(self, is_growing: bool, part: LogPart) -> LogPart {
        let to = self.from + self.bytes.len() as u64;
        let before = (self.from > 0).then(|| self.from.saturating_sub(PART));
        let mut cleaner = log_text::Cleaner::new(self.from);
        let mut lines = cleaner.push(&self.bytes);
        lines.extend(cleaner.finish());
        LogPart { from: self.from, to, size: self.size, first: self.first, before, lines, is_growing, ..part }
    }
}

/// At most so much from this byte on, or the end. It begins and ends with a line, where lines are not endless; of a
/// log that grows the last line counts when it is whole.
fn read(file: &File, from: Option<u64>, most: u64, is_growing: bool) -> io::Result<Read> {
    let size = file.metadata()?.len();
    let wanted = from.unwrap_or(size.saturating_sub(most)).min(size);
    // One byte earlier: if that ends a line, nothing is skipped.
    let begin = wanted.saturating_sub(1);
    let mut bytes = vec![0; usize::try_from((size - begin).min(most + 1)).unwrap_or(0)];
    let length = read_up_to(file, &mut bytes, begin)?;
    bytes.truncate(length);
    let skipped = match bytes.iter().position(|byte| *byte == b'\n') {
        _ if wanted == 0 => 0,
        Some(at) => at + 1,
        None => bytes.len().min(1),
    };
    bytes.drain(..skipped);
    let from = begin + skipped as u64;
    let is_end = from + bytes.len() as u64 >= size;
    if (!is_end || is_growing)
        && let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n')
    {
        bytes.truncate(last + 1);
    }
    let first = if from <= COUNTED { Some(1 + newlines(file, from)?) } else { None };
    Ok(Read { from, size, first, bytes })
}

fn read_up_to(file: &File, into: &mut [u8], from: u64) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = into.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

fn newlines(file: &File, before: u64) -> io::Result<u64> {
    let (mut at, mut count, mut piece) = (0, 0, vec![0; 256 * 1024]);
    while at < before {
        let length = read_up_to(file, &mut piece, at)?;
        if length == 0 {
            break;
        }
        let wanted = usize::try_from(before - at).map_or(length, |rest| rest.min(length));
        count += piece.iter().take(wanted).filter(|byte| **byte == b'\n').count() as u64;
        at += length as u64;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn seen(file: &File, from: Option<u64>, most: u64, is_growing: bool) -> (u64, Option<u64>, String) {
        let Read { from, first, bytes, .. } = read(file, from, most, is_growing).unwrap();
        (from, first, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn parts_of_a_log_are_whole_lines_with_their_numbers() {
        let log = file("one\ntwo\nthree\nfour\nfi");
        let all = "one\ntwo\nthree\nfour\n";
        assert_eq!(seen(&log, None, 1000, true), (0, Some(1), all.into()));
        assert_eq!(seen(&log, None, 1000, false), (0, Some(1), format!("{all}fi")));
        assert_eq!(seen(&log, None, 8, false), (14, Some(4), "four\nfi".into()));
        assert_eq!(seen(&log, Some(4), 11, false), (4, Some(2), "two\nthree\n".into()));
        assert_eq!(seen(&log, Some(5), 100, false), (8, Some(3), "three\nfour\nfi".into()));
        assert_eq!(seen(&log, Some(99), 8, false), (21, Some(5), String::new()));
        assert_eq!(seen(&file(""), None, 8, true), (0, Some(1), String::new()));
    }

    #[test]
    fn a_line_that_does_not_end_is_shown_in_parts() {
        let log = file(&"x".repeat(1000));
        let (from, _, text) = seen(&log, None, 100, true);
        assert_eq!((from, text.len()), (900, 100));
        assert_eq!(seen(&log, Some(0), 100, false).2.len(), 101);
    }

    #[test]
    fn one_part_after_the_other_is_the_whole() {
        let text: String = (0..400).map(|line| format!("{line} {}\n", "y".repeat(line % 37))).collect();
        let log = file(&text);
        let (mut at, mut found) = (0, String::new());
        while at < text.len() as u64 {
            let (from, first, part) = seen(&log, Some(at), 200, false);
            assert_eq!(from, at);
            assert_eq!(first, Some(1 + text[..at as usize].matches('\n').count() as u64));
            at += part.len() as u64;
            found += &part;
        }
        assert_eq!(found, text);
    }

    #[test]
    fn what_is_asked_for_is_understood_or_refused() {
        let asked =
            Asked { state: "failed,held".into(), target: "-".into(), q: " gcc ".into(), ..Asked::default() };
        let filter = filter_of(&asked).unwrap();
        assert_eq!(filter.states, [BuildState::Failed, BuildState::Held]);
        assert_eq!((filter.target, filter.search.as_deref()), (Some(None), Some("gcc")));
        assert_eq!(filter_of(&Asked::default()).unwrap(), BuildFilter::default());
        for wrong in [
            Asked { state: "odd".into(), ..Asked::default() },
            Asked { kind: "odd".into(), ..Asked::default() },
            Asked { before: "-1".into(), ..Asked::default() },
            Asked { target: "../x".into(), ..Asked::default() },
        ] {
            assert!(matches!(filter_of(&wrong), Err(ApiError::Wrong(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_host_is_a_host() {
        let of = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            origin(&headers)
        };
        assert_eq!(of("farm.example:6780").as_deref(), Some("http://farm.example:6780"));
        assert_eq!(of("[::1]:6780").as_deref(), Some("http://[::1]:6780"));
        assert_eq!((of("a;rm -rf"), of("a/b"), of("")), (None, None, None));
    }
}
