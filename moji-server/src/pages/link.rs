//! Where things are: addresses of this server, each part of them encoded.

use moji_proto::api::BuildState;
use moji_proto::{FailureKind, TargetName};

use crate::history::BuildFilter;
use crate::http::encoded;

/// A name that may have slashes in it, which stay.
fn parts(name: &str) -> String {
    name.split('/').map(|part| encoded(part.as_bytes())).collect::<Vec<_>>().join("/")
}

pub(super) fn build(id: u64) -> String {
    format!("/build/{id}")
}

pub(super) fn log(build: u64, attempt: impl std::fmt::Display, name: &str) -> String {
    format!("/build/{build}/log/{}?attempt={attempt}", encoded(name.as_bytes()))
}

pub(super) fn lines(attempt: impl std::fmt::Display, name: &str) -> String {
    format!("/api/v1/attempts/{attempt}/logs/{}/lines", encoded(name.as_bytes()))
}

pub(super) fn raw_log(attempt: impl std::fmt::Display, name: &str) -> String {
    format!("/api/v1/attempts/{attempt}/logs/{}", encoded(name.as_bytes()))
}

pub(super) fn package(name: &str) -> String {
    format!("/package/{}", encoded(name.as_bytes()))
}

pub(super) fn builder(id: &str) -> String {
    format!("/builder/{}", parts(id))
}

/// How a target is called in an address: SOURCE itself is `-`.
pub(super) fn target_word(target: Option<&TargetName>) -> &str {
    target.map_or("-", TargetName::as_str)
}

pub(super) fn target(target: Option<&TargetName>) -> String {
    format!("/target/{}", encoded(target_word(target).as_bytes()))
}

pub(super) fn repo(below: &str) -> String {
    format!("/repo/{}", parts(below))
}

/// A page with what was asked for.
pub(super) fn query(path: &str, asked: &[(&str, String)]) -> String {
    let asked = asked.iter().filter(|(_, value)| !value.is_empty());
    let asked: Vec<String> =
        asked.map(|(name, value)| format!("{name}={}", encoded(value.as_bytes()))).collect();
    if asked.is_empty() { path.to_owned() } else { format!("{path}?{}", asked.join("&")) }
}

/// The list of these builds.
pub(super) fn builds(filter: &BuildFilter) -> String {
    let mut asked =
        vec![("state", filter.states.iter().map(|state| state.word()).collect::<Vec<_>>().join(","))];
    if let Some(target) = &filter.target {
        asked.push(("target", target_word(target.as_ref()).to_owned()));
    }
    asked.push(("package", filter.package.clone().unwrap_or_default()));
    asked.push(("builder", filter.builder.clone().unwrap_or_default()));
    asked.push(("kind", filter.failure.map(kind).unwrap_or_default().to_owned()));
    asked.push(("q", filter.search.clone().unwrap_or_default()));
    asked.push(("before", filter.before.map(|id| id.to_string()).unwrap_or_default()));
    query("/builds", &asked)
}

/// The list of all builds in a state.
pub(super) fn in_state(state: BuildState) -> String {
    builds(&BuildFilter { states: vec![state], ..BuildFilter::default() })
}

/// The word of a failure's kind, the same as in JSON.
pub(super) fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Package => "package",
        FailureKind::MissingDependency => "missing_dependency",
        FailureKind::Infrastructure => "infrastructure",
        FailureKind::Configuration => "configuration",
        FailureKind::UnreadableSrpm => "unreadable_srpm",
        FailureKind::Interrupted => "interrupted",
    }
}
