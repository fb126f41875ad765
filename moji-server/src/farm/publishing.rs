//! Results on their way to REPO: looked at, compared with what is published, committed, or refused.
//!
//! All of that is done off the farm's task. What is decided there is which file names are whose.

use std::path::PathBuf;
use std::sync::Arc;

use moji_proto::outcome::one_line;
use moji_proto::{AttemptId, Outcome};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::note::Note;
use super::{Farm, without_panic};
use crate::access::credentials::Credentials;
use crate::catalogue::{Catalogue, Rival};
use crate::commit::{self, Delivery, Published, RESULTS, UNPUBLISHED};
use crate::folders::Folders;
use crate::quarantine::{self, Bounds};
use crate::record::BuildRecord;
use crate::scheduler::{Event, Fate, Lease, Wait};
use crate::unsynced::{self, Renewed};
use crate::verify::{self, Delivered, Leased, Refused, VerifyError};

/// So many deliveries are looked at at a time: each may take the memory of a large header several times,
/// and the disk is one.
const AT_A_TIME: usize = 2;

/// What is being published.
#[derive(Debug)]
pub(super) struct Publishing {
    catalogue: Catalogue,
    bounds: Bounds,
    credentials: watch::Receiver<Arc<Credentials>>,
    places: Arc<Semaphore>,
    tasks: JoinSet<(AttemptId, CommitEnd)>,
}

/// How publishing ended.
#[derive(Debug)]
pub(super) enum CommitEnd {
    /// All of it is done.
    Published(Box<Published>),
    /// The results are not good.
    Refused {
        /// Why.
        reason: String,
        /// Where they lie now, if they could be kept.
        kept: Option<PathBuf>,
    },
    /// They are not here any more, for this reason: the disk has not taken them. Their builder has them.
    Lost(String),
    /// Not now.
    Failed(anyhow::Error),
}

impl Publishing {
    pub(super) fn new(
        catalogue: Catalogue,
        bounds: Bounds,
        credentials: watch::Receiver<Arc<Credentials>>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        Self { catalogue, bounds, credentials, places, tasks: JoinSet::new() }
    }

    /// The next end; `None` when nothing is published.
    pub(super) async fn next(&mut self) -> Option<Result<(AttemptId, CommitEnd), JoinError>> {
        self.tasks.join_next().await
    }

    /// Whether nothing is being published.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    fn begin(&mut self, folders: &Arc<Folders>, lease: Lease, outcome: Outcome, delivery: Delivery) {
        let attempt = lease.attempt;
        let reserved = match outcome.is_success() {
            true => self.catalogue.reserve(folders, &lease, &delivery.manifest),
            // Of a failure no RPM is published.
            false => Ok(Vec::new()),
        };
        let rivals = match reserved {
            Ok(rivals) => rivals,
            Err(busy) => {
                self.tasks.spawn(async move { (attempt, CommitEnd::Failed(busy.into())) });
                return;
            }
        };
        let (folders, bounds, places) = (Arc::clone(folders), self.bounds, Arc::clone(&self.places));
        let credentials = self.credentials.clone();
        self.tasks.spawn(async move {
            let place = places.acquire_owned().await;
            let publishing = spawn_blocking(move || {
                let looked = without_panic(|| {
                    let staging = folders.attempt(lease.attempt);
                    if let Renewed::Lost(why) = unsynced::renew(&staging, &delivery.manifest)? {
                        return Ok(Some(CommitEnd::Lost(why)));
                    }
                    let refused = look(&folders, &lease, &outcome, &delivery, &rivals, &credentials)?;
                    Ok(refused.map(|reason| keep(&folders, &lease, &delivery, reason, bounds)))
                });
                drop(place);
                match looked {
                    Ok(Some(end)) => end,
                    Ok(None) => {
                        let published =
                            without_panic(|| commit::commit(&folders, &lease, outcome, &delivery));
                        published.map_or_else(CommitEnd::Failed, |done| CommitEnd::Published(Box::new(done)))
                    }
                    Err(error) => CommitEnd::Failed(error),
                }
            });
            (attempt, publishing.await.unwrap_or_else(|error| CommitEnd::Failed(error.into())))
        });
    }
}

/// Why the results must not be published, if so. Blocks.
fn look(
    folders: &Folders,
    lease: &Lease,
    outcome: &Outcome,
    delivery: &Delivery,
    rivals: &[Rival],
    credentials: &watch::Receiver<Arc<Credentials>>,
) -> anyhow::Result<Option<String>> {
    // What an earlier try has published was looked at by it.
    if !outcome.is_success() || commit::is_published(folders, lease) {
        return Ok(None);
    }
    let staging = folders.attempt(lease.attempt);
    let rpms = delivery.manifest.iter().filter(|entry| entry.name.is_rpm());
    let delivered: Vec<_> = rpms
        .map(|entry| {
            // Where an earlier try has put it.
            let aside = staging.join(UNPUBLISHED).join(&entry.name);
            let path = if aside.exists() { aside } else { staging.join(RESULTS).join(&entry.name) };
            let payload = delivery.payloads.get(&entry.name).copied();
            Delivered { name: entry.name.clone(), path, payload }
        })
        .collect();
    let header = &lease.srpm.header;
    let leased = Leased {
        name: &header.name,
        version: &header.version,
        target: &lease.target,
        machine: &delivery.machine,
    };
    match verify::verify(&delivered, &leased) {
        Ok(()) => {}
        Err(VerifyError::Refused(refused)) => return Ok(Some(refused.to_string())),
        Err(disk @ VerifyError::Disk { .. }) => return Err(disk.into()),
    }
    for rival in rivals {
        if rival.stands_in_the_way()? {
            return Ok(Some(Refused::taken(&rival.entry.name, &rival.shown).to_string()));
        }
    }
    // Last, because all of this may have taken a while, and results may have waited before.
    let revoked = lease.builder.credential.as_ref().and_then(|name| credentials.borrow().revocation(name));
    Ok(revoked.map(|why| format!("{why} before they were published")))
}

/// Keeps what is refused. Blocks.
fn keep(folders: &Folders, lease: &Lease, delivery: &Delivery, reason: String, bounds: Bounds) -> CommitEnd {
    let kept = quarantine::keep(folders, lease, &delivery.manifest, &reason, bounds);
    // Without room they are lost: nobody waits for that.
    let kept = kept.inspect_err(|error| tracing::warn!("{error:#}")).ok();
    CommitEnd::Refused { reason, kept }
}

impl Farm {
    pub(super) async fn commit(&mut self, lease: Lease, outcome: Outcome, fate: Fate) {
        let attempt = lease.attempt;
        let Some(mut delivery) = self.deliveries.get(&attempt).cloned() else {
            return tracing::error!("{attempt} is to be published, but nothing was delivered");
        };
        delivery.fate = fate;
        // From here on nobody else works on the files.
        self.stagings.vacate(attempt).await;
        self.publishing.begin(&self.folders, lease, outcome, delivery);
    }

    pub(super) async fn on_commit(&mut self, ended: Result<(AttemptId, CommitEnd), JoinError>) {
        let (attempt, end) = match ended {
            Ok(ended) => ended,
            Err(error) => return tracing::error!("a publication broke off: {error}"),
        };
        let Some(lease) = self.scheduler.lease(attempt).cloned() else { return };
        match end {
            CommitEnd::Published(published) => {
                let key = &lease.srpm.key;
                self.publishing.catalogue.settled(&lease, Some(&published.record));
                tell_published(key, &published);
                let rpms = published.record.artifacts.iter().any(|entry| entry.name.is_rpm());
                if published.record.parked {
                    // A history that knew how the attempt ended, and no more, would have the next server try it again.
                    self.tell_together();
                    self.handle(Event::Committed { attempt, rpms }).await;
                    self.parked(&lease, &published);
                    self.told_together();
                } else {
                    self.note(Note::Settled { key, record: &published.record });
                    self.handle(Event::Committed { attempt, rpms }).await;
                    self.remember_failure(&lease, &published).await;
                }
                self.settled(key).await;
            }
            CommitEnd::Refused { reason, kept } => {
                let (key, builder) = (&lease.srpm.key, &lease.builder);
                let kept = kept.map(|place| format!("; they lie in {}", place.display())).unwrap_or_default();
                tracing::warn!("{key}: the results of {builder} are refused: {reason}{kept}");
                self.publishing.catalogue.settled(&lease, None);
                self.handle(Event::Rejected { attempt, reason }).await;
            }
            CommitEnd::Lost(why) => {
                let (key, builder) = (&lease.srpm.key, &lease.builder);
                tracing::error!(
                    "{key}: the disk has lost what {builder} has delivered, which delivers it again: {why}"
                );
                self.publishing.catalogue.settled(&lease, None);
                let reason = format!("the server's disk has lost them: {why}");
                self.handle(Event::ResultsLost { attempt, reason }).await;
            }
            CommitEnd::Failed(error) => {
                let key = &lease.srpm.key;
                tracing::error!("{key} is built but could not be published, trying again soon: {error:#}");
                self.handle(Event::CommitFailed(attempt)).await;
            }
        }
    }
}

impl Farm {
    /// The SRPM of an attempt that lacked something is in SOURCE again. What it lacked may have come meanwhile.
    fn parked(&mut self, lease: &Lease, published: &Published) {
        let (key, attempt) = (&lease.srpm.key, lease.attempt);
        let Outcome::Failed { missing, .. } = &published.record.outcome else { return };
        if let Some(Wait::Parked(_)) = self.scheduler.wait_of(key) {
            let logs = match published.folder.is_dir() {
                true => format!("; logs in {}", published.folder.display()),
                false => String::new(),
            };
            let what = one_line(&missing.join(", "));
            tracing::info!("{key} is parked until something provides {what}{logs}");
            self.note(Note::Parked { key, attempt, missing });
        } else {
            let what = one_line(&missing.join(", "));
            tracing::info!("{key} lacked {what}, of which something has come meanwhile; it is queued again");
            self.note(Note::Queued(&lease.srpm));
        }
    }
}

fn tell_published(key: &crate::BuildKey, published: &Published) {
    let Published { record: BuildRecord { outcome, held, note, .. }, folder } = published;
    match (outcome, held) {
        // That is told when it is parked, or queued again.
        (Outcome::Failed { .. }, None) if published.record.parked => {}
        (Outcome::Succeeded, _) => tracing::info!("{key} succeeded: {}", folder.display()),
        (Outcome::Failed { kind, reason, .. }, None) => {
            tracing::warn!("{key} failed ({kind}): {reason}; logs in {}", folder.display());
        }
        (Outcome::Failed { kind, reason, .. }, Some(why)) => tracing::warn!(
            "{key} is held: {why}. The last one failed ({kind}): {reason}; logs in {}; move it back into SOURCE \
             to try again",
            folder.display()
        ),
    }
    if let Some(note) = note {
        tracing::warn!("{key}: {note}");
    }
}
