//! Whether the server lives, and whether it can answer: for supervisors and load balancers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use moji_proto::api::Server;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::answer::{json, json_with};
use crate::api::Api;

/// How long each part may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a server is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Health {
    /// Whether all is well.
    pub(crate) is_ready: bool,
    /// What is not, each in one line.
    pub(crate) problems: Vec<String>,
    /// What goes wrong in the farm although the server answers, each in one line: for people, not for load balancers.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
pub(super) async fn lives() -> Response<Body> {
    json(&Health { is_ready: true, problems: Vec::new(), warnings: Vec::new() })
}

/// Whether the farm answers, and the history can be read.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn is_ready(State(api): State<Api>) -> Response<Body> {
    let farm = timeout(PATIENCE, api.farm.live());
    let history = timeout(PATIENCE, api.events(0, Vec::new(), 1));
    let (farm, history) = tokio::join!(farm, history);
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    match farm {
        // Whoever is sent elsewhere for that would find neither pages that tell of it, nor the repository as it was.
        Ok(Ok(live)) => warnings = troubles(&live.server),
        Ok(Err(stopping)) => problems.push(stopping.to_string()),
        Err(_) => problems.push(format!("the farm does not answer within {PATIENCE:?}")),
    }
    match history {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => problems.push(error.to_string()),
        Err(_) => problems.push(format!("the history does not answer within {PATIENCE:?}")),
    }
    let is_ready = problems.is_empty();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_with(status, &Health { is_ready, problems, warnings })
}

/// What keeps the farm, but not the server, from its work.
fn troubles(server: &Server) -> Vec<String> {
    let full = server.is_full.then(|| "the disk is full: nothing is handed out".to_owned());
    let metadata = server.out_of_date.iter().map(|one| {
        format!("the metadata of {} are out of date since {:.0}: {}", one.folder(), one.since, one.reason)
    });
    full.into_iter().chain(metadata).collect()
}
