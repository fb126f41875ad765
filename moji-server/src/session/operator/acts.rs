//! What people want done: whether they may, which builds they mean, and what came of it.

use moji_proto::io::Outgoing;
use moji_proto::operator::{Act, Done, NAME_MAX, NAMES, RequestId, Role, ToOperator};
use moji_proto::outcome::one_line;
use moji_proto::{FailureKind, TargetName, api};

use super::{Desk, Rights};
use crate::BuildKey;
use crate::farm_handle;

/// Most builds that one wish for all that failed queues again.
const RETRIED: usize = 20_000;

/// Whether something can be done with a build; or why not.
type IsGood = fn(&api::Build, Role) -> Result<(), String>;

/// Does it, or says why not.
pub(super) async fn act(
    desk: &Desk,
    rights: &Rights,
    who: &str,
    out: &Outgoing<ToOperator>,
    request: RequestId,
    act: Act,
) {
    tracing::debug!("{who} wants: {act:?}");
    let wish = Wish { desk, rights };
    let answer = match wish.fulfil(act).await {
        Ok(done) => ToOperator::Done { request, done },
        Err(reason) => ToOperator::Refused { request, reason: one_line(&reason) },
    };
    // Without a connection nobody waits for it.
    let _ = out.send(&answer);
}

struct Wish<'a> {
    desk: &'a Desk,
    rights: &'a Rights,
}

impl Wish<'_> {
    async fn fulfil(&self, act: Act) -> Result<Vec<Done>, String> {
        if !self.may(&act) {
            let name = self.rights.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            return Err(format!(
                "the credential{name} has the role submitter, and this needs one with the role admin"
            ));
        }
        check(&act)?;
        match act {
            Act::Retry { builds } => {
                let (meant, mut done) = self.meant(builds, is_retryable).await?;
                done.extend(self.each(meant, |one| farm_handle::Act::Retry(vec![one])).await?);
                Ok(done)
            }
            Act::RetryFailed { kind, target } => self.retry_failed(kind, target).await,
            Act::Cancel { builds } => {
                let (meant, mut done) = self.meant(builds, is_open).await?;
                done.extend(self.each(meant, |one| farm_handle::Act::Cancel(vec![one])).await?);
                Ok(done)
            }
            Act::Hold { builds, reason } => {
                let (meant, mut done) = self.meant(builds, is_open).await?;
                let hold = |one| farm_handle::Act::Hold(vec![one], reason.clone());
                done.extend(self.each(meant, hold).await?);
                Ok(done)
            }
            Act::Prioritize { entry, target, place } => {
                self.farm(farm_handle::Act::Prioritize(target, entry, place)).await
            }
            Act::Drain { builder, reason } => self.farm(farm_handle::Act::Drain(builder, reason)).await,
            Act::Resume { builder } => self.farm(farm_handle::Act::Resume(builder)).await,
            Act::Pause { reason } => self.farm(farm_handle::Act::Pause(reason)).await,
            Act::Unpause => self.farm(farm_handle::Act::Unpause).await,
        }
    }

    fn may(&self, act: &Act) -> bool {
        match self.rights.role {
            Role::Admin => true,
            Role::Submitter => matches!(act, Act::Retry { .. } | Act::RetryFailed { .. }),
        }
    }

    async fn farm(&self, act: farm_handle::Act) -> Result<Vec<Done>, String> {
        let who = self.rights.name.clone();
        let done = self.desk.api.farm.act(who, act).await.map_err(|error| error.to_string());
        self.desk.api.forget_overview().await;
        done
    }

    /// One after the other, so that the farm has time for builders in between: each waits for the disk.
    async fn each(
        &self,
        meant: Vec<(String, BuildKey)>,
        act: impl Fn((String, BuildKey)) -> farm_handle::Act,
    ) -> Result<Vec<Done>, String> {
        let mut done = Vec::new();
        for one in meant {
            done.extend(self.farm(act(one)).await?);
        }
        Ok(done)
    }

    /// The builds that are meant; and what is to be said of names that mean none.
    async fn meant(
        &self,
        names: Vec<String>,
        is_good: IsGood,
    ) -> Result<(Vec<(String, BuildKey)>, Vec<Done>), String> {
        let asked = names.clone();
        let found = self.desk.api.history.ask(move |views| {
            let found = asked.iter().map(|name| {
                let Some((id, key)) = views.find(name)? else { return Ok(None) };
                // What is done to an SRPM is done to its newest build.
                let newest = views.find(&key.to_string())?.map(|(newest, _)| newest);
                Ok(views.build(id)?.map(|detail| (detail.build, key, newest)))
            });
            found.collect::<Result<Vec<_>, _>>()
        });
        let found = found.await.map_err(|error| format!("the history cannot be read now: {error}"))?;
        let (mut meant, mut done) = (Vec::new(), Vec::new());
        for (name, found) in names.into_iter().zip(found) {
            let why_not = match &found {
                None => Some("there is no such build (moji history)".to_owned()),
                Some((_, key, _)) if !self.rights.is_for(key.target.as_ref()) => {
                    Some("it is for a target that your credential is not for".to_owned())
                }
                Some((build, _, Some(newest))) if *newest != build.id => {
                    Some(format!("build {} is over; the newest one of it is {newest}", build.id))
                }
                Some((build, ..)) => is_good(build, self.rights.role).err(),
            };
            match (why_not, found) {
                // Said by the whole name: which one was meant may be a surprise.
                (None, Some((_, key, _))) => meant.push((key.to_string(), key)),
                (why, _) => {
                    let text = why.unwrap_or_default();
                    done.push(Done { about: one_line(&name), is_done: false, text });
                }
            }
        }
        Ok((meant, done))
    }

    /// All that failed; said of as many as one message holds.
    async fn retry_failed(
        &self,
        kind: Option<FailureKind>,
        target: Option<TargetName>,
    ) -> Result<Vec<Done>, String> {
        let wanted = target.clone();
        let asked = self.desk.api.history.ask(move |views| views.retryable(kind, wanted.as_ref()));
        let mut keys = asked.await.map_err(|error| format!("the history cannot be read now: {error}"))?;
        keys.retain(|key| self.rights.is_for(key.target.as_ref()));
        keys.truncate(RETRIED);
        let (mut queued, mut not) = (0, Vec::new());
        let meant = keys.into_iter().map(|key| (key.to_string(), key)).collect();
        for done in self.each(meant, |one| farm_handle::Act::Retry(vec![one])).await? {
            match done.is_done {
                true => queued += 1,
                false => not.push(done),
            }
        }
        let text = match (queued, not.len()) {
            (0, 0) => "nothing has failed that was not queued again since".into(),
            (queued, 0) => format!("queued again: {queued}"),
            (queued, not) => format!("queued again: {queued}; not: {not}"),
        };
        not.truncate(NAMES - 1);
        not.push(Done { about: "all that failed".into(), is_done: queued > 0 || not.is_empty(), text });
        Ok(not)
    }
}

fn is_retryable(build: &api::Build, role: Role) -> Result<(), String> {
    match build.state {
        api::BuildState::Held if is_held_by_person(build) && role != Role::Admin => {
            let reason = build.reason.as_deref().unwrap_or("held by a person");
            Err(format!("it is {reason}; only an admin lets it go"))
        }
        api::BuildState::Succeeded => {
            let nvr = build.nvr.as_ref().map_or("<NVR>", |nvr| nvr.as_str());
            Err(format!("it has succeeded; to build it again, its operator removes REPO/{nvr} first"))
        }
        _ => Ok(()),
    }
}

fn is_open(build: &api::Build, _: Role) -> Result<(), String> {
    match build.state {
        state if state.is_open() => Ok(()),
        api::BuildState::Withdrawn => Err("it neither waits nor runs: it was taken out".into()),
        api::BuildState::Held => Err("it neither waits nor runs: it is held".into()),
        state => Err(format!("it neither waits nor runs: it has {state}")),
    }
}

/// Whether it is held because a person wants it so, and not because too many attempts came to nothing.
pub(super) fn is_held_by_person(build: &api::Build) -> bool {
    build.state == api::BuildState::Held && build.failure == Some(FailureKind::Interrupted)
}

/// Whether it is as long as it may be.
fn check(act: &Act) -> Result<(), String> {
    let names: &[String] = match act {
        Act::Retry { builds } | Act::Cancel { builds } | Act::Hold { builds, .. } => builds,
        Act::Prioritize { entry: name, .. }
        | Act::Drain { builder: name, .. }
        | Act::Resume { builder: name } => std::slice::from_ref(name),
        Act::RetryFailed { .. } | Act::Pause { .. } | Act::Unpause => &[],
    };
    if names.len() > NAMES {
        return Err(format!("{} names in one message, more than {NAMES}", names.len()));
    }
    match names.iter().find(|name| name.len() > NAME_MAX) {
        Some(long) => Err(format!("a name of {} bytes, more than {NAME_MAX}", long.len())),
        None => Ok(()),
    }
}
