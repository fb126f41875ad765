//! The API as JSON, below `/api/v1`: each path asks one question.
//!
//! It deliberately joins and decides nothing: what is answered is [`Api`]'s, how it looks is `moji_proto::api`'s.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::routing::{MethodRouter, get};
use moji_proto::AttemptId;
use moji_proto::api::{
    Attempt, BASE, Build, BuildDetail, Builder, BuilderDetail, Event, Overview, PAGE, PAGE_MAX, Package,
    PackageDetail, Page, Problem, Queued, Target, Why,
};

use super::answer::{Asked, json, problem};
use super::query::{
    self, BuildsQuery, EventsQuery, FindQuery, LogQuery, PackageQuery, PackagesQuery, QueueQuery,
};
use super::{events, health, logs, metrics, openapi};
use crate::api::{Api, ApiError};

type Answer = Result<Response<Body>, ApiError>;

/// Where what is. A build's reference may have a slash in it (`fedora-43-aarch64/zlib`), so what comes behind it
/// is told apart by its end.
pub(super) fn table() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/api/v1/overview", get(overview)),
        ("/api/v1/queue", get(queue)),
        ("/api/v1/builds", get(builds)),
        ("/api/v1/builds/{*reference}", get(of_build)),
        ("/api/v1/attempts/{attempt}", get(attempt)),
        ("/api/v1/attempts/{attempt}/logs/{name}", get(attempt_log)),
        ("/api/v1/attempts/{attempt}/logs/{name}/lines", get(logs::lines)),
        ("/api/v1/find", get(find)),
        ("/api/v1/packages", get(packages)),
        ("/api/v1/packages/{name}", get(package)),
        ("/api/v1/builders", get(builders)),
        ("/api/v1/builders/{*id}", get(builder)),
        ("/api/v1/targets", get(targets)),
        ("/api/v1/report", get(report)),
        ("/api/v1/events", get(events_page)),
        ("/api/v1/openapi.json", get(openapi::serve)),
        ("/events", get(events::serve)),
        ("/metrics", get(metrics::serve)),
        ("/healthz", get(health::lives)),
        ("/readyz", get(health::is_ready)),
    ]
}

/// The routes.
pub(super) fn routes(api: Api) -> Router {
    let known = table().into_iter().fold(Router::new(), |router, (path, asked)| router.route(path, asked));
    let unknown = || async {
        problem(
            StatusCode::NOT_FOUND,
            format!("there is nothing here; {BASE}/openapi.json says what there is"),
        )
    };
    let other_method = || async {
        problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "HTTP only reads: what changes something is said with the program moji".to_owned(),
        )
    };
    known
        .route("/api", get(unknown))
        .route("/api/", get(unknown))
        .route("/api/{*rest}", get(unknown))
        .method_not_allowed_fallback(other_method)
        .with_state(api)
}

/// The farm at a glance.
#[utoipa::path(get, path = "/api/v1/overview", responses(
    (status = 200, body = Overview), (status = 503, body = Problem)))]
async fn overview(State(api): State<Api>) -> Answer {
    Ok(json(api.overview().await?.as_ref()))
}

/// What lies in SOURCE, in the order in which it is handed out.
#[utoipa::path(get, path = "/api/v1/queue", params(QueueQuery), responses(
    (status = 200, body = Page<Queued>), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn queue(State(api): State<Api>, Asked(asked): Asked<QueueQuery>) -> Answer {
    let target = query::target(asked.target.as_deref())?;
    Ok(json(&api.queue(target, asked.limit.unwrap_or_default()).await?))
}

/// Builds, the newest first.
#[utoipa::path(get, path = "/api/v1/builds", params(BuildsQuery), responses(
    (status = 200, body = Page<Build>), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn builds(State(api): State<Api>, Asked(asked): Asked<BuildsQuery>) -> Answer {
    Ok(json(&api.builds(asked.filter()?).await?))
}

/// What is below a build.
async fn of_build(
    State(api): State<Api>,
    Path(path): Path<String>,
    asked: Asked<LogQuery>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    if let Some(reference) = path.strip_suffix("/why") {
        return why(api, reference).await;
    }
    match path.rsplit_once("/logs/") {
        Some((reference, name)) => build_log(api, reference, name, asked, method, headers).await,
        None => build(api, &path).await,
    }
}

/// A build with all that is known of it.
#[utoipa::path(get, path = "/api/v1/builds/{reference}",
    params(("reference" = String, Path, description = "its number, the id of an attempt, `[TARGET/]SRPM`, \
        `[TARGET/]NVR` or `[TARGET/]package`")),
    responses((status = 200, body = BuildDetail), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
async fn build(api: Api, reference: &str) -> Answer {
    Ok(json(&api.build(reference).await?))
}

/// Why a build is where it is.
#[utoipa::path(get, path = "/api/v1/builds/{reference}/why",
    params(("reference" = String, Path, description = "as of a build")),
    responses((status = 200, body = Why), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
async fn why(api: Api, reference: &str) -> Answer {
    Ok(json(&api.why(reference).await?))
}

/// A log of a build's last attempt. Ranges can be asked for, but not of one that is followed.
#[utoipa::path(get, path = "/api/v1/builds/{reference}/logs/{name}",
    params(("reference" = String, Path, description = "as of a build"),
        ("name" = String, Path, description = "`build.log`, `root.log`, `state.log`, `mock.log`"), LogQuery),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 206, content_type = "text/plain", body = String), (status = 304), (status = 416),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn build_log(
    api: Api,
    reference: &str,
    name: &str,
    Asked(asked): Asked<LogQuery>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let log = api.log_of_build(reference, name).await?;
    logs::answer(&api, log, asked, &method, &headers).await
}

/// An attempt.
#[utoipa::path(get, path = "/api/v1/attempts/{attempt}", params(("attempt" = String, Path)), responses(
    (status = 200, body = Attempt), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn attempt(State(api): State<Api>, Path(attempt): Path<String>) -> Answer {
    Ok(json(&api.attempt(attempt_id(&attempt)?).await?))
}

/// A log of an attempt. Ranges can be asked for, but not of one that is followed.
#[utoipa::path(get, path = "/api/v1/attempts/{attempt}/logs/{name}",
    params(("attempt" = String, Path), ("name" = String, Path), LogQuery),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 206, content_type = "text/plain", body = String), (status = 304), (status = 416),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn attempt_log(
    State(api): State<Api>,
    Path((attempt, name)): Path<(String, String)>,
    Asked(asked): Asked<LogQuery>,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let log = api.log_of_attempt(attempt_id(&attempt)?, &name).await?;
    logs::answer(&api, log, asked, &method, &headers).await
}

/// The build that is meant.
#[utoipa::path(get, path = "/api/v1/find", params(FindQuery), responses(
    (status = 200, body = Build), (status = 400, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem)))]
async fn find(State(api): State<Api>, Asked(asked): Asked<FindQuery>) -> Answer {
    Ok(json(&api.find(&asked.build).await?))
}

/// Packages by name.
#[utoipa::path(get, path = "/api/v1/packages", params(PackagesQuery), responses(
    (status = 200, body = Page<Package>), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn packages(State(api): State<Api>, Asked(asked): Asked<PackagesQuery>) -> Answer {
    let search = asked.q.filter(|search| !search.is_empty());
    let (skip, limit) = (asked.before.unwrap_or_default(), asked.limit.unwrap_or_default());
    Ok(json(&api.packages(search, skip, limit).await?))
}

/// A package with its history.
#[utoipa::path(get, path = "/api/v1/packages/{name}", params(("name" = String, Path), PackageQuery), responses(
    (status = 200, body = PackageDetail), (status = 400, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem)))]
async fn package(
    State(api): State<Api>,
    Path(name): Path<String>,
    Asked(asked): Asked<PackageQuery>,
) -> Answer {
    let target = query::target(asked.target.as_deref())?.flatten();
    Ok(json(&api.package(&name, target).await?))
}

/// The builders that are connected, or were lost with work.
#[utoipa::path(get, path = "/api/v1/builders", responses(
    (status = 200, body = Vec<Builder>), (status = 503, body = Problem)))]
async fn builders(State(api): State<Api>) -> Answer {
    Ok(json(&api.builders().await?))
}

/// A builder with its history.
#[utoipa::path(get, path = "/api/v1/builders/{id}",
    params(("id" = String, Path, description = "`board-7`, `lab/board-7`")),
    responses((status = 200, body = BuilderDetail), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn builder(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(json(&api.builder(&id).await?))
}

/// The targets, SOURCE itself first.
#[utoipa::path(get, path = "/api/v1/targets", responses(
    (status = 200, body = Vec<Target>), (status = 503, body = Problem)))]
async fn targets(State(api): State<Api>) -> Answer {
    Ok(json(&api.targets().await?))
}

/// The newest report, as `report.json` in REPO has it.
#[utoipa::path(get, path = "/api/v1/report", responses(
    (status = 200, body = serde_json::Value), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn report(State(api): State<Api>) -> Answer {
    Ok(json(api.report().await?.as_ref()))
}

/// What happened, oldest first. With `since` the first ones after it, else the first ones that are kept.
#[utoipa::path(get, path = "/api/v1/events", params(EventsQuery), responses(
    (status = 200, body = Page<Event>), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn events_page(State(api): State<Api>, Asked(asked): Asked<EventsQuery>) -> Answer {
    let kinds = query::kinds(asked.kind.as_deref())?;
    let limit = asked.limit.filter(|limit| *limit > 0).unwrap_or(PAGE).min(PAGE_MAX);
    let found = api.events(asked.since.unwrap_or_default(), kinds, limit).await?;
    let is_full = u32::try_from(found.events.len()).is_ok_and(|length| length >= limit);
    let next = found.events.last().filter(|_| is_full).map(|event| event.id);
    Ok(json(&Page { items: found.events, next, total: None }))
}

fn attempt_id(text: &str) -> Result<AttemptId, ApiError> {
    text.parse().map_err(|error: moji_proto::NameError| ApiError::NotFound(error.to_string()))
}
