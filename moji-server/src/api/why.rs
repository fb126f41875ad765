//! Why a build is where it is.

use moji_proto::api::{Build, BuildState, Missing, Why};

use super::{Api, ApiError};
use crate::farm_handle::WhyWaiting;

impl Api {
    /// Why a build is where it is.
    ///
    /// # Errors
    /// When there is none, or farm or history do not answer.
    pub async fn why(&self, reference: &str) -> Result<Why, ApiError> {
        let (key, detail) = self.known(reference).await?;
        let mut build = detail.build;
        let waits = match build.state {
            // A build that an older one is the newest of may have been queued again since: the farm knows.
            BuildState::Queued | BuildState::Parked => self.farm.why(key.clone()).await?,
            _ => WhyWaiting::default(),
        };
        let excerpt = self.excerpt(key, &build).await;
        let mut phase = None;
        if build.state == BuildState::Running {
            let running = self.running().await;
            let found = running.iter().find(|running| Some(running.attempt) == build.attempt);
            phase = found.and_then(|running| match running.is_orphaned {
                true => Some("its connection is lost, and it may come back".to_owned()),
                false => running.phase.map(|phase| phase.to_string()),
            });
            build.builder = build.builder.or_else(|| found.map(|running| running.builder.clone()));
        }
        let mut summary = summary(&build, &waits, phase.as_deref());
        let has_rpms = detail.artifacts.iter().any(|artifact| artifact.name.is_rpm());
        if build.state == BuildState::Succeeded && !has_rpms {
            summary = "it succeeded, but its NVR was published before: REPO keeps what it had, and got only the logs".into();
        }
        let missing = match waits.missing.is_empty() {
            true => build.missing.iter().map(|missing| unprovided(missing)).collect(),
            false => waits.missing,
        };
        Ok(Why { build, summary, excerpt, missing, place: waits.place, builders: waits.builders })
    }
}

fn unprovided(requirement: &str) -> Missing {
    Missing { requirement: requirement.to_owned(), providers: Vec::new() }
}

/// The whole story in one line.
fn summary(build: &Build, waits: &WhyWaiting, phase: Option<&str>) -> String {
    let builder = build.builder.as_deref().unwrap_or("a builder");
    let reason = build.reason.as_deref().unwrap_or("nobody has said why");
    match build.state {
        BuildState::Queued => match (&waits.waits_for, waits.place) {
            (Some(why), _) => why.clone(),
            (None, Some(1)) => "it is the next one: it waits for a builder that can take it".to_owned(),
            (None, Some(place)) => {
                format!("it can be built, and {} SRPMs are before it in the queue", place - 1)
            }
            (None, None) => "it waits for a builder that can take it".to_owned(),
        },
        BuildState::Parked => match build.missing.is_empty() {
            true => format!("it is parked: {reason}"),
            false => format!("it is parked until something provides {}", build.missing.join(", ")),
        },
        BuildState::Running => match phase {
            Some(phase) => format!("{builder} has it: {phase}"),
            None => format!("{builder} has it"),
        },
        BuildState::Succeeded => format!("it is published; {builder} built it"),
        BuildState::Failed => match build.failure {
            Some(kind) => format!("it failed ({kind}): {reason}"),
            None => format!("it failed: {reason}"),
        },
        BuildState::Held => format!("it is held until somebody says retry: {reason}"),
        BuildState::Withdrawn => match &build.reason {
            Some(reason) => format!("it was taken out: {reason}"),
            None => "it was taken out by a person".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moji_proto::FailureKind;

    #[test]
    fn one_line_for_each_state() {
        let build = |state| Build {
            id: 17,
            target: None,
            srpm: "foo-1-1.src.rpm".parse().unwrap(),
            nvr: None,
            package: None,
            state,
            queued_at: jiff::Timestamp::UNIX_EPOCH,
            settled_at: None,
            attempts: 3,
            attempt: None,
            builder: Some("board-7".into()),
            took_seconds: None,
            failure: Some(FailureKind::Package),
            reason: Some("a.c:3: error".into()),
            missing: vec!["libx".into(), "y >= 2".into()],
        };
        let waits = |place, waits_for: Option<&str>| WhyWaiting {
            place,
            waits_for: waits_for.map(str::to_owned),
            ..WhyWaiting::default()
        };
        let of = |state, waits: &WhyWaiting| summary(&build(state), waits, Some("building"));
        let none = waits(None, None);
        assert_eq!(of(BuildState::Queued, &waits(None, Some("it waits for glibc"))), "it waits for glibc");
        assert!(of(BuildState::Queued, &waits(Some(1), None)).contains("next one"));
        assert!(of(BuildState::Queued, &waits(Some(5), None)).contains("4 SRPMs are before it"));
        assert_eq!(of(BuildState::Parked, &none), "it is parked until something provides libx, y >= 2");
        assert_eq!(of(BuildState::Running, &none), "board-7 has it: building");
        assert_eq!(of(BuildState::Failed, &none), "it failed (package): a.c:3: error");
        assert!(of(BuildState::Held, &none).ends_with("says retry: a.c:3: error"));
    }
}
