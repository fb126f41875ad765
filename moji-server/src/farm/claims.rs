//! Builders that come back with an attempt that has no lease: was it published already, or is its SRPM
//! still to be built? The folders tell, a few at a time, while the farm goes on.
//!
//! That an attempt was given to this very builder must be known before ([`super::evidence`]): a digest
//! everybody can know who has the SRPM. Without that knowledge nothing is kept from others and nothing
//! large is read; only the word that results were published is then still said again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use moji_proto::{AttemptId, HeldAttempt, Nvr};
use tokio::task::{JoinSet, spawn_blocking};

use super::{Farm, Given, Trouble, without_panic};
use crate::commit;
use crate::folders::Folders;
use crate::lease_record::{FileIdentity, LeaseRecord, digest_of};
use crate::record::BuildRecord;
use crate::scheduler::{Claim, Event, LeaseState, SessionId};
use crate::session::SessionCommand;
use crate::source;
use crate::{BuildKey, BuilderId};

/// So many are looked at at a time: each may read a whole SRPM.
const AT_A_TIME: usize = 4;

/// What a builder says that it holds.
#[derive(Debug, Clone)]
pub(super) struct WantedBack {
    session: SessionId,
    builder: BuilderId,
    held: HeldAttempt,
    /// What is known of it, if it was given to this builder: nobody else gets that build meanwhile.
    given: Option<Given>,
}

/// What the folders say about it.
#[derive(Debug)]
pub(super) enum Found {
    /// Its results are published.
    Published,
    /// Its SRPM is the one that waits or is built now.
    ToBuild {
        key: BuildKey,
        file: FileIdentity,
        /// The lease that it had, as far as it is known.
        record: Box<LeaseRecord>,
    },
    /// Neither.
    Nothing,
}

/// Claims that wait for an answer, at most [`moji_proto::limits::HOLDS`] of each session. Builders take
/// turns: one that claims much waits longer, and the others do not.
#[derive(Debug, Default)]
pub(super) struct Claims {
    waiting: BTreeMap<BuilderId, VecDeque<WantedBack>>,
    /// Whose turn it was last.
    last: Option<BuilderId>,
    looking: JoinSet<(WantedBack, anyhow::Result<Found>)>,
}

impl Claims {
    pub(super) fn add(&mut self, wanted: WantedBack) {
        self.waiting.entry(wanted.builder.clone()).or_default().push_back(wanted);
    }

    /// A session has ended: nobody waits for its answers. Gives what it had wanted.
    pub(super) fn forget(&mut self, session: SessionId) -> Vec<WantedBack> {
        let all = std::mem::take(&mut self.waiting).into_values().flatten();
        let (forgotten, waiting): (Vec<_>, Vec<_>) = all.partition(|wanted| wanted.session == session);
        waiting.into_iter().for_each(|wanted| self.add(wanted));
        forgotten
    }

    /// The next one: of the builder after the one whose turn it was.
    fn take(&mut self) -> Option<WantedBack> {
        let after = match &self.last {
            Some(last) => self.waiting.range((Bound::Excluded(last), Bound::Unbounded)).next(),
            None => None,
        };
        let builder = after.or_else(|| self.waiting.iter().next())?.0.clone();
        let of_builder = self.waiting.get_mut(&builder)?;
        let wanted = of_builder.pop_front();
        if of_builder.is_empty() {
            self.waiting.remove(&builder);
        }
        self.last = Some(builder);
        wanted
    }

    /// Begins to look at as many as may be looked at.
    pub(super) fn look(&mut self, folders: &Arc<Folders>) {
        while self.looking.len() < AT_A_TIME
            && let Some(wanted) = self.take()
        {
            let folders = Arc::clone(folders);
            self.looking.spawn_blocking(move || {
                let found = without_panic(|| look_for(&folders, &wanted));
                (wanted, found)
            });
        }
    }

    /// The next answer; `None` when nothing is looked at.
    pub(super) async fn next(&mut self) -> Option<(WantedBack, anyhow::Result<Found>)> {
        self.looking.join_next().await?.ok()
    }
}

impl WantedBack {
    fn given_for(&self) -> Option<BuildKey> {
        self.given.as_ref().map(|given| given.key.clone())
    }

    /// The builds that it may be.
    fn keys(&self) -> [BuildKey; 2] {
        let held = &self.held;
        [Some(held.target.clone()), None].map(|target| BuildKey { target, srpm: held.srpm.clone() })
    }
}

impl Farm {
    /// Until the folders have told, nobody else gets that SRPM.
    async fn look_into(&mut self, wanted: WantedBack) {
        if let Some(key) = wanted.given_for() {
            self.handle(Event::Reserved(key)).await;
        }
        self.claims.add(wanted);
    }

    /// Something that a builder wanted back is decided, or nobody waits for it any more.
    pub(super) async fn looked_into(&mut self, keys: impl IntoIterator<Item = BuildKey>) {
        for key in keys {
            self.handle(Event::Unreserved(key)).await;
        }
    }

    /// A session has ended.
    pub(super) async fn forget_claims(&mut self, session: SessionId) {
        for wanted in self.claims.forget(session) {
            self.looked_into(wanted.given_for()).await;
        }
    }

    /// A builder says that it holds an attempt.
    pub(super) async fn on_hold(&mut self, session: SessionId, held: HeldAttempt) {
        let Some(connected) = self.sessions.get(&session) else { return };
        let attempt = held.attempt;
        let known = self.given.get(&attempt).and_then(|record| record.srpm_sha256);
        let Some(lease) = self.scheduler.lease(attempt) else {
            let builder = connected.name.clone();
            let given = self.evidence.find(&builder, &held).cloned();
            return self.look_into(WantedBack { session, builder, held, given }).await;
        };
        if lease.builder != connected.name {
            return self.tell(session, SessionCommand::Stale(attempt));
        }
        let is_over = matches!(lease.state, LeaseState::Deferred { .. } | LeaseState::Committing { .. });
        let is_it = lease.srpm.key.srpm == held.srpm && lease.target == held.target;
        match known {
            _ if !is_it => self.tell(session, SessionCommand::Stale(attempt)),
            Some(sha256) if sha256 != held.sha256 => self.tell(session, SessionCommand::Stale(attempt)),
            // The last server did not live long enough to write down what it had sent.
            None if !is_over => {
                let given = Some(Given::of(lease, self.given.get(&attempt)));
                let builder = connected.name.clone();
                self.look_into(WantedBack { session, builder, held, given }).await;
            }
            _ => {
                let claim = Claim { session, slot: held.slot };
                self.handle(Event::Held { claim, attempt }).await;
            }
        }
    }

    /// The folders were asked about an attempt.
    pub(super) async fn on_claim(&mut self, (wanted, found): (WantedBack, anyhow::Result<Found>)) {
        let (session, attempt, given_for) = (wanted.session, wanted.held.attempt, wanted.given_for());
        match found {
            _ if !self.sessions.contains_key(&session) => {}
            Ok(Found::Published) => self.tell(session, SessionCommand::Accept(attempt)),
            Ok(Found::Nothing) => self.tell(session, SessionCommand::Stale(attempt)),
            Ok(Found::ToBuild { key, file, record }) => {
                if let Err(wanted) = self.on_srpm_found(wanted, key, file, *record).await {
                    return self.claims.add(wanted);
                }
            }
            Err(error) => {
                tracing::warn!(
                    "cannot find out whether {} may keep {attempt}: {error:#}; trying again",
                    wanted.builder
                );
                return self.troubles.push(Trouble::Claim(wanted));
            }
        }
        self.looked_into(given_for).await;
    }

    /// Gives it back when the SRPM has changed since its digest was computed.
    async fn on_srpm_found(
        &mut self,
        wanted: WantedBack,
        key: BuildKey,
        file: FileIdentity,
        mut record: LeaseRecord,
    ) -> Result<(), WantedBack> {
        let (folders, looked_at) = (Arc::clone(&self.folders), key.clone());
        let now = spawn_blocking(move || file_now(&folders, &looked_at)).await;
        if !matches!(now, Ok(Ok(Some((_, now)))) if now.is_like(&file)) {
            return Err(wanted);
        }
        let WantedBack { session, held, .. } = wanted;
        let attempt = held.attempt;
        record.srpm_sha256 = Some(held.sha256);
        let generation = record.generation();
        self.given.insert(attempt, record);
        let claim = Claim { session, slot: held.slot };
        self.handle(Event::Claimed { claim, attempt, key, target: held.target, generation }).await;
        self.say_what_is_in_use();
        if self.scheduler.lease(attempt).is_none() {
            self.given.remove(&attempt);
        }
        Ok(())
    }
}

/// Blocks.
fn look_for(folders: &Folders, wanted: &WantedBack) -> anyhow::Result<Found> {
    let WantedBack { builder, held, given, .. } = wanted;
    let keys = wanted.keys();
    let records = keys.iter().flat_map(|key| records_of(folders, key, held.attempt));
    let published = records.filter_map(|record: BuildRecord| Some((record.srpm, record.attempt?)));
    let mut of_attempt = published.filter(|(_, attempt)| attempt.id == held.attempt);
    if let Some((srpm, attempt)) = of_attempt.next() {
        // Another's: whatever else is known, there is nothing that this builder could add.
        let is_its_own = srpm == held.srpm && attempt.builder == *builder;
        return Ok(if is_its_own { Found::Published } else { Found::Nothing });
    }
    let Some(given) = given else { return Ok(Found::Nothing) };
    let key = given.key.clone();
    let known = LeaseRecord::read(folders, held.attempt);
    // It was given to another one, whose logs and results lie there.
    if known.as_ref().is_some_and(|record| record.builder != *builder) {
        return Ok(Found::Nothing);
    }
    let Some((folder, file)) = file_now(folders, &key)? else { return Ok(Found::Nothing) };
    let path = folder.join(key.path());
    if digest_of(&path).with_context(|| format!("cannot read {}", path.display()))? != held.sha256 {
        return Ok(Found::Nothing);
    }
    let header = source::read_header(&folder, &key);
    let nvr = header.with_context(|| format!("cannot read the header of {}", path.display()))?.nvr;
    let record = match known {
        Some(record) if record.key() == key => record,
        _ => LeaseRecord::of_claim(held, given, nvr, file),
    };
    Ok(Found::ToBuild { key, file, record: Box::new(record) })
}

/// The records that may tell of an attempt at a build.
fn records_of(folders: &Folders, key: &BuildKey, attempt: AttemptId) -> Vec<BuildRecord> {
    // Failures have one beside the SRPM, whatever has become of REPO since.
    let beside = [folders.failure_record(key), folders.held_record(key)].map(|path| fs::read(path).ok());
    let beside = beside.into_iter().flatten().filter_map(|json| serde_json::from_slice(&json).ok());
    let mut nvrs: BTreeSet<Nvr> = Nvr::new(key.srpm.stem()).into_iter().collect();
    for folder in [&folders.finished, &folders.source, &folders.working] {
        nvrs.extend(source::read_header(folder, key).map(|header| header.nvr));
    }
    let published = nvrs.iter().flat_map(|nvr| {
        let place = folders.published(key, nvr);
        let further = place.join(format!("attempt-{attempt}"));
        [place, further]
    });
    beside.chain(published.filter_map(|place| commit::read_record(&place))).collect()
}

/// The folder in which the SRPM of a build lies that waits or is built, and what it is.
fn file_now(folders: &Folders, key: &BuildKey) -> io::Result<Option<(PathBuf, FileIdentity)>> {
    // One that is built counts: what lies in SOURCE beside it is another, which waits for its end.
    for folder in [&folders.working, &folders.source] {
        match FileIdentity::of(&folder.join(key.path())) {
            Ok(file) => return Ok(Some((folder.clone(), file))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
