//! What the API's query strings ask for.
//!
//! Pure: words become states, kinds and targets, or a sentence about what is wrong with them.

use std::str::FromStr;

use moji_proto::api::{BuildState, EventKind};
use moji_proto::{FailureKind, TargetName};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as WordError, StrDeserializer};
use utoipa::IntoParams;

use crate::api::ApiError;
use crate::history::BuildFilter;

/// SOURCE itself, where a target is named.
const ITSELF: &str = "-";

/// Which builds are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BuildsQuery {
    /// In one of these states, with commas between them.
    #[param(value_type = Option<Vec<BuildState>>, style = Form, explode = false)]
    state: Option<String>,
    /// For this target; `-`: those of SOURCE itself.
    target: Option<String>,
    /// Of this package.
    package: Option<String>,
    /// Settled by this builder.
    builder: Option<String>,
    /// Failed through this one's fault.
    #[param(value_type = Option<FailureKind>)]
    kind: Option<String>,
    /// With this in the SRPM's name.
    q: Option<String>,
    /// Older than this one: `next` of the page before.
    before: Option<u64>,
    /// At most so many; 50 when nothing is said, never more than 500.
    limit: Option<u32>,
}

impl BuildsQuery {
    /// What is asked of the history. An empty parameter, as forms send it, asks for nothing.
    pub(crate) fn filter(self) -> Result<BuildFilter, ApiError> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(BuildFilter {
            states: list(self.state.as_deref())?,
            target: target(self.target.as_deref())?,
            package: given(self.package),
            builder: given(self.builder),
            failure: given(self.kind).map(|kind| failure(&kind)).transpose()?,
            search: given(self.q),
            before: self.before,
            limit: self.limit.unwrap_or_default(),
        })
    }
}

/// Which SRPMs are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct QueueQuery {
    /// For this target; `-`: those of SOURCE itself.
    pub(crate) target: Option<String>,
    /// At most so many; 50 when nothing is said, never more than 500.
    pub(crate) limit: Option<u32>,
}

/// Which packages are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PackagesQuery {
    /// With this in the name.
    pub(crate) q: Option<String>,
    /// `next` of the page before.
    pub(crate) before: Option<u64>,
    /// At most so many; 50 when nothing is said, never more than 500.
    pub(crate) limit: Option<u32>,
}

/// Which builds of a package are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PackageQuery {
    /// For this target.
    pub(crate) target: Option<String>,
}

/// Which build is meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FindQuery {
    /// Its number, the id of an attempt, `[TARGET/]SRPM`, `[TARGET/]NVR` or `[TARGET/]package`.
    pub(crate) build: String,
}

/// Which events are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// After this one.
    pub(crate) since: Option<u64>,
    /// Of these kinds, with commas between them.
    #[param(value_type = Option<Vec<EventKind>>, style = Form, explode = false)]
    pub(crate) kind: Option<String>,
    /// At most so many; 50 when nothing is said, never more than 500. Not of a stream.
    pub(crate) limit: Option<u32>,
}

/// Which part of a log is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Whether to go on until the attempt has ended.
    #[serde(default)]
    pub(crate) follow: bool,
    /// From this byte on.
    pub(crate) offset: Option<u64>,
}

/// Words with commas between them.
pub(crate) fn list<T: FromStr<Err = String>>(words: Option<&str>) -> Result<Vec<T>, ApiError> {
    let words = words.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(ApiError::Wrong)).collect()
}

/// The kinds of events that are wanted.
pub(crate) fn kinds(words: Option<&str>) -> Result<Vec<EventKind>, ApiError> {
    list(words)
}

/// A target, or SOURCE itself.
pub(crate) fn target(name: Option<&str>) -> Result<Option<Option<TargetName>>, ApiError> {
    match name {
        None | Some("") => Ok(None),
        Some(ITSELF) => Ok(Some(None)),
        Some(name) => match TargetName::new(name) {
            Ok(target) => Ok(Some(Some(target))),
            Err(error) => Err(ApiError::Wrong(error.to_string())),
        },
    }
}

fn failure(word: &str) -> Result<FailureKind, ApiError> {
    let word: StrDeserializer<'_, WordError> = word.into_deserializer();
    FailureKind::deserialize(word).map_err(|error| ApiError::Wrong(format!("kind: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        let query = |state: &str, target: &str, kind: &str| {
            let given = |text: &str| Some(text.to_owned());
            let query = BuildsQuery {
                state: given(state),
                target: given(target),
                kind: given(kind),
                ..Default::default()
            };
            query.filter()
        };
        let filter = query("failed, held,", "-", "missing_dependency").unwrap();
        assert_eq!(filter.states, [BuildState::Failed, BuildState::Held]);
        assert_eq!((filter.target, filter.failure), (Some(None), Some(FailureKind::MissingDependency)));
        let none = query("", "", "").unwrap();
        assert_eq!(none, BuildFilter::default());
        let named = query("", "f43", "").unwrap().target;
        assert_eq!(named, Some(Some("f43".parse().unwrap())));
        for (state, target, kind, word) in
            [("lost", "", "", "queued, parked"), ("", "a/b", "", "a/b"), ("", "", "mine", "infrastructure")]
        {
            let Err(ApiError::Wrong(why)) = query(state, target, kind) else { panic!("{word}") };
            assert!(why.contains(word), "{why}");
        }
        assert!(kinds(Some("queued,x")).is_err());
    }
}
