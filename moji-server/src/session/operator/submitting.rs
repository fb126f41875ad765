//! An SRPM from a person: announced, received, looked at, queued.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_proto::io::{Batch, IncomingStream, Last, Outgoing};
use moji_proto::operator::{Done, Place, RequestId, Role, ToOperator};
use moji_proto::outcome::one_line;
use moji_proto::{Sha256, SrpmName, TargetName};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::acts::is_held_by_person;
use super::{Desk, Rights};
use crate::BuildKey;
use crate::durable;
use crate::farm_handle::Act;
use crate::submissions::{Announced, Begun, Occupied, Upload, only_logs};

/// How long an older connection may take to give its upload up, and how often it is looked whether it has.
const TAKE_OVER: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);
/// How long nothing may come of an SRPM that was announced.
const STALL: Duration = Duration::from_secs(5 * 60);
/// Most pieces that are written at a time.
const BATCH: usize = 8;

/// One submission.
pub(super) struct Submitting {
    pub(super) request: RequestId,
    pub(super) rights: Rights,
    pub(super) desk: Desk,
    pub(super) out: Outgoing<ToOperator>,
    /// Where its bytes come from.
    pub(super) uploads: mpsc::Receiver<(u64, IncomingStream<ToOperator>)>,
    /// For the log.
    pub(super) who: String,
}

impl Submitting {
    /// To its end, which the person is told.
    pub(super) async fn run(
        mut self,
        (srpm, target): (SrpmName, Option<TargetName>),
        (size, sha256): (u64, Sha256),
        place: Option<Place>,
        is_repeat: bool,
    ) {
        let key = BuildKey { target, srpm };
        let (request, about) = (self.request, key.to_string());
        let announced = Announced { by: self.rights.name.clone(), key, size, sha256 };
        let answer = match self.submit(announced, place, is_repeat).await {
            Ok(text) => {
                ToOperator::Done { request, done: vec![Done { about, is_done: true, text: one_line(&text) }] }
            }
            Err(error) => ToOperator::Refused { request, reason: one_line(&format!("{error:#}")) },
        };
        // Without a connection nobody waits for it; what has arrived stays.
        let _ = self.out.send(&answer);
    }

    async fn submit(
        &mut self,
        announced: Announced,
        place: Option<Place>,
        is_repeat: bool,
    ) -> anyhow::Result<String> {
        let key = announced.key.clone();
        self.check(&key, place).await?;
        let upload = match self.begin(announced, is_repeat).await? {
            Begun::Queued(told) => return self.prioritized(&key, place, told).await,
            Begun::Wanted(upload) => upload,
        };
        self.out.send(&ToOperator::Wanted { request: self.request, offset: upload.offset() })?;
        let upload = self.receive(upload).await?;
        let (upload, nvr, is_published) = spawn_blocking(move || {
            let mut upload = upload;
            upload.check().map(|nvr| (upload.is_published(&nvr), nvr)).map(|(is, nvr)| (upload, nvr, is))
        })
        .await??;
        let told = if is_published { only_logs("queued", &nvr) } else { "queued".to_owned() };
        // Before it can be handed out.
        let told = self.prioritized(&key, place, told).await?;
        spawn_blocking(move || upload.queue()).await??;
        tracing::info!("{} has submitted {key}", self.who);
        Ok(told)
    }

    /// Gives it its place in priority.txt, under the name that it has in SOURCE; says that too.
    async fn prioritized(
        &self,
        key: &BuildKey,
        place: Option<Place>,
        told: String,
    ) -> anyhow::Result<String> {
        let Some(place) = place else { return Ok(told) };
        let act = Act::Prioritize(key.target.clone(), key.srpm.to_string(), place);
        let done = self.desk.api.farm.act(self.rights.name.clone(), act).await?;
        Ok(done.into_iter().fold(told, |told, done| format!("{told}; {}", done.text)))
    }

    /// Takes over from an older connection of the same person.
    async fn begin(&self, announced: Announced, is_repeat: bool) -> anyhow::Result<Begun> {
        let end = Instant::now() + TAKE_OVER;
        loop {
            let (submissions, announced) = (self.desk.submissions.clone(), announced.clone());
            let begun = spawn_blocking(move || submissions.begin(announced, is_repeat)).await?;
            match begun {
                Err(error) if error.is::<Occupied>() && Instant::now() < end => sleep(AGAIN).await,
                begun => return begun,
            }
        }
    }

    async fn check(&self, key: &BuildKey, place: Option<Place>) -> anyhow::Result<()> {
        if !self.rights.is_for(key.target.as_ref()) {
            let targets: Vec<_> = self.rights.targets.iter().map(TargetName::as_str).collect();
            bail!("your credential is only for {} (--target)", targets.join(", "));
        }
        let name = key.to_string();
        let newest = self.desk.api.history.ask(move |views| {
            let Some((id, _)) = views.find(&name)? else { return Ok(None) };
            Ok(views.build(id)?.map(|detail| detail.build))
        });
        if let Ok(Some(build)) = newest.await
            && is_held_by_person(&build)
            && self.rights.role != Role::Admin
        {
            bail!(
                "it is {}; only an admin lets it go",
                build.reason.as_deref().unwrap_or("held by a person")
            );
        }
        if place.is_some() && self.rights.role != Role::Admin {
            bail!("a place in priority.txt needs a credential with the role admin");
        }
        let Some(target) = &key.target else { return Ok(()) };
        let folder = self.desk.api.folders.source.join(target.as_str());
        let making = folder.clone();
        if spawn_blocking(move || making.is_dir()).await? {
            return Ok(());
        }
        let live = self.desk.api.farm.live().await?;
        if !live.targets.iter().any(|known| known.name.as_ref() == Some(target)) {
            bail!("no builder for {target} is connected, and SOURCE has no folder {target}");
        }
        let source = self.desk.api.folders.source.clone();
        spawn_blocking(move || match std::fs::create_dir(&folder) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| durable::sync_folder(&source)),
        })
        .await?
        .with_context(|| format!("SOURCE has no folder {target}, and it cannot be made"))
    }

    async fn receive(&mut self, mut upload: Box<Upload>) -> anyhow::Result<Box<Upload>> {
        let over = upload.over();
        let stream = tokio::select! {
            biased;
            () = over.cancelled() => return Err(Occupied.into()),
            stream = timeout(STALL, self.uploads.recv()) => stream.with_context(nothing_came)?,
        };
        let (offset, mut stream) = stream.context("the connection has ended")?;
        if offset != upload.offset() {
            stream.unwanted()?;
            bail!("it was to be sent from {} on, not from {offset}", upload.offset());
        }
        loop {
            let batch = tokio::select! {
                biased;
                () = over.cancelled() => return Err(Occupied.into()),
                batch = timeout(STALL, stream.next_batch(BATCH)) => batch.with_context(nothing_came)?,
            };
            let (length, Batch { pieces, last }) = (batch.bytes(), batch);
            let (written, returned) = spawn_blocking(move || {
                let written = pieces.iter().try_for_each(|bytes| upload.write(bytes));
                (written, upload)
            })
            .await?;
            upload = returned;
            written?;
            match last {
                None => stream.wrote(length)?,
                Some(Last::End(_)) => return Ok(upload),
                Some(Last::Abort(reason)) => bail!("it was given up: {}", one_line(&reason)),
                Some(Last::Cut) => bail!("the connection was lost"),
            }
        }
    }
}

fn nothing_came() -> String {
    format!("nothing came for {STALL:?}")
}
