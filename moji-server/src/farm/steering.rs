//! What people want of the farm: builds tried again, stopped, moved forward; builders left alone; everything paused.
//!
//! Whether somebody may want that was looked at before. What lasts is written down before it is done.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use moji_proto::CredentialName;
use moji_proto::api::{EventKind, Steered};
use moji_proto::operator::Done;
use moji_proto::outcome::one_line;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::note::Note;
use super::{Farm, exists};
use crate::commit::Refusal;
use crate::durable;
use crate::farm_handle::Act;
use crate::folders::Folders;
use crate::scheduler::{Event, HoldCause, Lease};
use crate::source::edit_priority;
use crate::{BuildKey, BuilderId};

/// The file that remembers it.
const FILE: &str = "steering.json";
/// Most builders that are drained at a time.
const DRAINED: usize = 4096;

/// What people want that lasts, over restarts too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    #[serde(default)]
    paused: Option<Steered>,
    #[serde(default)]
    drained: BTreeMap<BuilderId, Steered>,
}

impl Steering {
    /// What was wanted of the servers before this one. Blocks.
    ///
    /// # Errors
    /// When that cannot be read: to go on would be to hand out against somebody's will.
    pub fn read(folders: &Folders) -> anyhow::Result<Self> {
        let path = path(folders);
        let cannot = || {
            format!(
                "cannot read {}, which says whether the queue is paused and who gets no work; mend or remove it",
                path.display()
            )
        };
        match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => serde_json::from_slice(&read.with_context(cannot)?).with_context(cannot),
        }
    }

    /// Who has stopped everything.
    pub(super) fn paused(&self) -> Option<&Steered> {
        self.paused.as_ref()
    }

    /// Who has stopped a builder.
    pub(super) fn drained(&self, builder: &BuilderId) -> Option<&Steered> {
        self.drained.get(builder)
    }
}

fn path(folders: &Folders) -> PathBuf {
    folders.private().join(FILE)
}

/// What came of it, and whether that is what was wanted.
type Told = Result<String, String>;

impl Farm {
    /// At the start: as it was before.
    pub(super) async fn steer_as_before(&mut self) {
        let Steering { paused, drained } = self.steering.clone();
        if let Some(Steered { by, reason, .. }) = paused {
            let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
            let why = reason.map(|why| format!(": {why}")).unwrap_or_default();
            tracing::warn!("the queue is paused{by}{why}; moji unpause");
            self.handle(Event::Paused(true)).await;
        }
        for builder in drained.into_keys() {
            tracing::info!("{builder} is drained and gets no work; moji resume {builder}");
            self.handle(Event::Drained(builder, true)).await;
        }
    }

    /// Does what somebody wants, and says what came of each thing.
    pub(super) async fn act(&mut self, who: Option<CredentialName>, act: Act) -> Vec<Done> {
        let by = who.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
        let whom = if by.is_empty() { " by a person".to_owned() } else { by.clone() };
        let mut done = Vec::new();
        match act {
            Act::Retry(builds) => {
                for (about, key) in builds {
                    let told = self.retry_wanted(&key, &by).await;
                    done.push(said(about, told));
                }
            }
            Act::Cancel(builds) => {
                for (about, key) in builds {
                    let told = self.stop_wanted(&key, format!("cancelled{whom}"), HoldCause::Cancelled).await;
                    done.push(said(about, told));
                }
            }
            Act::Hold(builds, reason) => {
                let why = reason.map(|why| format!(": {}", one_line(&why))).unwrap_or_default();
                for (about, key) in builds {
                    let told = self.stop_wanted(&key, format!("held{whom}{why}"), HoldCause::Person).await;
                    done.push(said(about, told));
                }
            }
            Act::Prioritize(target, entry, place) => {
                let folder = match &target {
                    Some(target) => self.folders.source.join(target.as_str()),
                    None => self.folders.source.clone(),
                };
                let text = entry.clone();
                let edited = spawn_blocking(move || edit_priority(&folder, &text, place)).await;
                let told = match edited {
                    Ok(Ok(told)) => Ok(told),
                    Ok(Err(error)) => Err(format!("{error:#}")),
                    Err(error) => Err(error.to_string()),
                };
                if let Ok(text) = &told {
                    tracing::info!("priority.txt: {text}{by}");
                }
                done.push(said(entry, told));
            }
            Act::Drain(builder, reason) => {
                let told = self.drain(&builder, steered(who, reason)).await;
                done.push(said(builder, told));
            }
            Act::Resume(builder) => {
                let told = self.resume_builder(&builder, &by).await;
                done.push(said(builder, told));
            }
            Act::Pause(reason) => {
                let told = self.pause(Some(steered(who, reason)), &by).await;
                done.push(said("queue".into(), told));
            }
            Act::Unpause => {
                let told = self.pause(None, &by).await;
                done.push(said("queue".into(), told));
            }
        }
        done
    }

    async fn retry_wanted(&mut self, key: &BuildKey, by: &str) -> Told {
        if self.scheduler.holders(key).next().is_some() {
            return Err("a builder has it".into());
        }
        if self.scheduler.is_parked(key) {
            tracing::info!("{key} is tried now{by}, although something was missing");
            // Before it is: it may go to a builder at once.
            if let Some(srpm) = self.scheduler.queued_srpm(key).cloned() {
                self.note(Note::Queued(&srpm));
            }
            self.handle(Event::TryNow(key.clone())).await;
            return Ok("queued again, although something was missing".into());
        }
        if self.scheduler.is_queued(key) {
            return Err("it is queued already".into());
        }
        let (folders, moving) = (self.folders.clone(), key.clone());
        let retry = move || folders.retry(&moving).inspect(|()| folders.forget_outcome(&moving));
        match spawn_blocking(retry).await {
            // The watcher of SOURCE finds it.
            Ok(Ok(())) => {
                tracing::info!("{key} is queued again{by}");
                Ok("queued again".into())
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                if exists(self.folders.source.join(key.path())).await {
                    return Err("it was put back into SOURCE a moment ago".into());
                }
                Err("its SRPM is not in FINISHED any more: submit it again".into())
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err("one of that name is in SOURCE already".into())
            }
            Ok(Err(error)) => Err(format!("it cannot be moved from FINISHED to SOURCE: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn stop_wanted(&mut self, key: &BuildKey, reason: String, cause: HoldCause) -> Told {
        let is_cancelled = cause == HoldCause::Cancelled;
        let reason = one_line(&reason);
        if self.scheduler.holders(key).any(Lease::is_committing) {
            return Err("too late: its results are being published".into());
        }
        if self.scheduler.holders(key).next().is_some() {
            tracing::info!("{key} is taken from its builder: {reason}");
            let is_another = self.scheduler.is_queued(key);
            self.handle(Event::Stop { key: key.clone(), reason, cause }).await;
            if !exists(self.folders.finished.join(key.path())).await {
                return Err("it is stopped, but FINISHED cannot be written: that is tried again".into());
            }
            let told = if is_cancelled { "stopped; it is in FINISHED" } else { "stopped and held" };
            let more =
                if is_another { "; another one of its name waits in SOURCE, and is built" } else { "" };
            return Ok(format!("{told}{more}"));
        }
        if !self.scheduler.is_queued(key) {
            let is_new = exists(self.folders.source.join(key.path())).await;
            let why =
                if is_new { "it has just come into SOURCE: try again" } else { "it neither waits nor runs" };
            return Err(why.into());
        }
        if !exists(self.folders.source.join(key.path())).await {
            return Err("its SRPM has just been taken out of SOURCE".into());
        }
        tracing::info!("{key} is taken out of the queue: {reason}");
        self.handle(Event::Gone(key.clone())).await;
        self.move_to_finished(key.clone(), Refusal::Held(cause, reason)).await;
        if !exists(self.folders.finished.join(key.path())).await {
            return Err("it is out of the queue, but FINISHED cannot be written: that is tried again".into());
        }
        Ok(if is_cancelled { "out of the queue; it is in FINISHED" } else { "held" }.into())
    }

    async fn drain(&mut self, builder: &str, steered: Steered) -> Told {
        let id = self.known_builder(builder)?;
        if self.steering.drained.len() >= DRAINED && !self.steering.drained.contains_key(&id) {
            return Err(format!("{DRAINED} builders are drained already"));
        }
        let by = steered.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = steered.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let mut steering = self.steering.clone();
        steering.drained.insert(id.clone(), steered);
        self.steer(steering).await?;
        self.handle(Event::Drained(id.clone(), true)).await;
        self.tell_steered(format!("{id} is drained{by}{why}"), Some(id.clone()));
        let has = self.scheduler.leases().filter(|lease| lease.builder == id).count();
        Ok(match has {
            0 => "it gets no more work".into(),
            some => format!("it gets no more work; it still builds {some}"),
        })
    }

    async fn resume_builder(&mut self, builder: &str, by: &str) -> Told {
        let id = self.known_builder(builder)?;
        let mut steering = self.steering.clone();
        steering.drained.remove(&id);
        self.steer(steering).await?;
        self.handle(Event::Drained(id.clone(), false)).await;
        self.handle(Event::Pardoned(id.clone())).await;
        self.tell_steered(format!("{id} gets work again{by}"), Some(id));
        Ok("it gets work again".into())
    }

    async fn pause(&mut self, paused: Option<Steered>, by: &str) -> Told {
        match (&paused, &self.steering.paused) {
            (Some(_), Some(_)) => return Err("it is paused already".into()),
            (None, None) => return Err("it is not paused".into()),
            _ => {}
        }
        let is_paused = paused.is_some();
        let why = paused.as_ref().and_then(|paused| paused.reason.as_ref());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        self.steer(Steering { paused, ..self.steering.clone() }).await?;
        self.handle(Event::Paused(is_paused)).await;
        let running = self.scheduler.leases().count();
        let (text, told) = match is_paused {
            true if running > 0 => {
                ("paused", format!("nothing more is handed out; what runs goes on: {running}"))
            }
            true => ("paused", "nothing more is handed out".into()),
            false => ("not paused any more", "what waits is handed out again".into()),
        };
        self.tell_steered(format!("the queue is {text}{by}{why}"), None);
        Ok(told)
    }

    fn tell_steered(&mut self, text: String, builder: Option<BuilderId>) {
        tracing::info!("{text}");
        self.note(Note::Happened { kind: EventKind::Steered, text, builder, generation: None });
    }

    /// Written down before anything is done.
    async fn steer(&mut self, steering: Steering) -> Result<(), String> {
        let path = path(&self.folders);
        let json = serde_json::to_vec_pretty(&steering).map_err(|error| error.to_string())?;
        let written = spawn_blocking(move || durable::write_private(&path, &json)).await;
        written
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| format!("it cannot be written down, so it is not done: {error}"))?;
        self.steering = steering;
        Ok(())
    }

    /// The builder of that name that was seen; its credential may be left out when that is clear.
    fn known_builder(&self, text: &str) -> Result<BuilderId, String> {
        let connected = self.sessions.values().map(|on| &on.name);
        let away = self.presence.away().map(|away| &away.builder.id);
        let mut known: Vec<&BuilderId> = connected.chain(away).chain(self.steering.drained.keys()).collect();
        known.sort();
        known.dedup();
        if let Some(exact) = known.iter().find(|id| id.to_string() == text) {
            return Ok((*exact).clone());
        }
        let named: Vec<_> = known.iter().filter(|id| id.name.as_str() == text).collect();
        match named.as_slice() {
            [one] => Ok((**one).clone()),
            [] => Err("no such builder was seen since the server's start (moji builders)".into()),
            [..] => {
                let names: Vec<_> = named.iter().map(ToString::to_string).collect();
                Err(format!("several are called so: {}", names.join(", ")))
            }
        }
    }
}

fn steered(who: Option<CredentialName>, reason: Option<String>) -> Steered {
    let reason = reason.map(|reason| one_line(&reason)).filter(|reason| !reason.is_empty());
    Steered { by: who.map(|name| name.to_string()), at: Timestamp::now(), reason }
}

fn said(about: String, told: Told) -> Done {
    let is_done = told.is_ok();
    let text = one_line(&told.unwrap_or_else(|error| error));
    Done { about: one_line(&about), is_done, text }
}
