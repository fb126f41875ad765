//! The folders decide, the history follows: what it must be told so that it agrees with them.
//!
//! [`plan`] decides and is pure; [`reconcile`] looks, plans and writes. Doing it twice is the same as
//! doing it once, whatever the history knew before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use moji_proto::Outcome;

use super::entry::{AttemptEnd, BuildState, Ending, Entry, Settled, Verdict};
use super::store::{Known, OpenBuild, ParkedBuild, Parks, Stamps, Store};
use super::survey::{Found, Place, Survey, survey};
use crate::BuildKey;
use crate::folders::Folders;
use crate::lease_record::digest_of;

/// So many folders that cannot be read are named in the log.
const CLOSED_TOLD: usize = 10;
/// What is written in one transaction.
const BATCH: usize = 1000;

/// What else goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Nothing: no lease is running that does not lie in WORKING.
    Quiet,
    /// The farm is at work, and what it moves just now is not known yet: it tells that itself.
    Running,
}

/// What was told to the history.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// Builds that it did not know.
    pub(crate) unearthed: usize,
    /// Builds that it took for open and are not.
    pub(crate) closed: usize,
    /// Attempts that it took for running and are not.
    pub(crate) ended: usize,
    /// Records that cannot be read.
    pub(crate) unreadable: usize,
}

/// Makes the history agree with the folders.
///
/// # Errors
/// When the folders cannot be read, or the store not written.
pub(crate) fn reconcile(folders: &Folders, store: &mut dyn Store, when: When) -> anyhow::Result<Reconciled> {
    let known = store.known()?;
    let wanted = known.open.iter().map(|(key, build)| (key.clone(), build.nvr.clone())).collect();
    let survey = survey(folders, &store.stamps()?, &wanted).context("cannot read the folders")?;
    tell_closed(&survey);
    let mut entries = plan(&survey, &known, when, Timestamp::now());
    entries.retain(|entry| !is_for_another_srpm(folders, entry));
    leave_hidden(folders, &survey, &known, &mut entries);
    find_sizes(folders, &mut entries);
    for batch in entries.chunks(BATCH) {
        store.apply(batch)?;
    }
    store.remember(&survey.stamps)?;
    let mut done = Reconciled { unreadable: survey.unreadable.len(), ..Reconciled::default() };
    for entry in &entries {
        match entry {
            Entry::Unearthed(_) | Entry::FoundParked { .. } => done.unearthed += 1,
            Entry::Settled(_) | Entry::Withdrawn { .. } => done.closed += 1,
            Entry::AttemptEnded(_) => done.ended += 1,
            _ => {}
        }
    }
    Ok(done)
}

/// All that the folders show and that `known` lacks or contradicts.
pub(crate) fn look(folders: &Folders, known: &Known, when: When) -> anyhow::Result<(Survey, Vec<Entry>)> {
    let survey = survey(folders, &Stamps::new(), &BTreeMap::new()).context("cannot read the folders")?;
    let mut entries = plan(&survey, known, when, Timestamp::now());
    entries.retain(|entry| !is_for_another_srpm(folders, entry));
    leave_hidden(folders, &survey, known, &mut entries);
    find_sizes(folders, &mut entries);
    Ok((survey, entries))
}

/// Says which folders cannot be read, and what to do.
fn tell_closed(survey: &Survey) {
    for (folder, why) in survey.closed.iter().take(CLOSED_TOLD) {
        tracing::warn!(
            "the history does not know what is in {}: {why}. Give it to the server's user; the next start reads it",
            folder.display()
        );
    }
    let more = survey.closed.len().saturating_sub(CLOSED_TOLD);
    if more > 0 {
        tracing::warn!("nor what is in {more} other folders; moji-server fsck names them");
    }
}

/// Of a build that is not found nothing is told when it may lie where nobody can look.
fn leave_hidden(folders: &Folders, survey: &Survey, known: &Known, entries: &mut Vec<Entry>) {
    let gone = entries.iter().filter_map(|entry| match entry {
        Entry::Withdrawn { key, .. } if survey.hides(folders, key) => Some(key.clone()),
        _ => None,
    });
    let hidden: BTreeSet<BuildKey> = gone.collect();
    let is_hidden = |key: Option<&BuildKey>| key.is_some_and(|key| hidden.contains(key));
    entries.retain(|entry| match entry {
        Entry::Withdrawn { key, .. } => !is_hidden(Some(key)),
        Entry::AttemptEnded(end) => !is_hidden(known.attempts.get(&end.attempt).map(|known| &known.key)),
        _ => true,
    });
}

/// The builds that the folders alone show to be parked: for a start at which the history cannot be read.
///
/// # Errors
/// When the folders cannot be read.
pub(crate) fn parked(folders: &Folders) -> anyhow::Result<Parks> {
    let (_, entries) = look(folders, &Known::default(), When::Quiet)?;
    let parked = entries.into_iter().filter_map(|entry| {
        let Entry::FoundParked { key, record, .. } = entry else { return None };
        let (attempt, Outcome::Failed { missing, .. }) = (record.attempt?, record.outcome) else {
            return None;
        };
        let generation = attempt.repository.map_or(0, |repository| repository.generation);
        Some((key, ParkedBuild { since: attempt.delivered_at, missing, tries: 1, generation }))
    });
    Ok(parked.collect())
}

/// Whether a person has put another SRPM in the place of one that was parked.
fn is_for_another_srpm(folders: &Folders, entry: &Entry) -> bool {
    let Entry::FoundParked { key, record, .. } = entry else { return false };
    let built = record.attempt.as_ref().and_then(|attempt| attempt.srpm_sha256);
    // Without a digest there is nothing to tell them apart by: a build too many is the lesser harm.
    built.is_none_or(|built| digest_of(&folders.source.join(key.path())).ok() != Some(built))
}

/// How large the SRPMs are.
fn find_sizes(folders: &Folders, entries: &mut [Entry]) {
    let size = |folder: &Path, key: &BuildKey| Some(folder.join(key.path()).symlink_metadata().ok()?.len());
    for entry in entries {
        match entry {
            Entry::FoundParked { key, size: found, .. } => {
                *found = size(&folders.source, key).unwrap_or_default();
            }
            Entry::Settled(settled) | Entry::Unearthed(settled) => {
                settled.size = size(&folders.finished, &settled.key);
            }
            _ => {}
        }
    }
}

/// What the history must be told, in this order; how large SRPMs are is still to be found.
pub(crate) fn plan(survey: &Survey, known: &Known, when: When, now: Timestamp) -> Vec<Entry> {
    let mut plan = Vec::new();
    let mut told = BTreeSet::new();
    // First, so that what is only guessed of their attempts comes too late.
    plan.extend(survey.records.iter().filter_map(|found| found_parked(survey, known, when, found)));
    for (key, open) in &known.open {
        let waits = survey.source.contains(key);
        if survey.working.contains(key) {
            continue;
        }
        let found = if waits { None } else { deciding(survey, known, open, key) };
        if when == When::Quiet && found.is_none() {
            let end = |attempt| Entry::AttemptEnded(AttemptEnd::new(attempt, now, Ending::Interrupted));
            plan.extend(open.running.iter().copied().map(end));
        }
        match found {
            _ if waits => {}
            Some(found) => {
                told.extend(found.record.attempt.as_ref().map(|attempt| attempt.id));
                plan.push(Entry::Settled(settled(found)));
            }
            None if when == When::Quiet => {
                let reason = match survey.finished.contains(key) {
                    true => "its SRPM is in FINISHED, but no result is there",
                    false => "its SRPM is in none of the folders",
                };
                plan.push(Entry::Withdrawn { key: key.clone(), at: now, reason: reason.to_owned() });
            }
            None => {}
        }
    }
    // What is parked is not settled: its record tells of an attempt only.
    for found in survey.records.iter().filter(|found| !found.record.parked) {
        let attempt = found.record.attempt.as_ref().map(|attempt| attempt.id);
        let is_known = match attempt {
            Some(id) if told.contains(&id) => true,
            Some(id) => known
                .attempts
                .get(&id)
                .is_some_and(|attempt| attempt.has_outcome && attempt.build != BuildState::Withdrawn),
            None => is_refusal_known(survey, known, found),
        };
        if !is_known {
            told.extend(attempt);
            plan.push(Entry::Unearthed(settled(found)));
        }
    }
    plan
}

/// What is to be told of the record of a parked build, whose end the history has not heard of. A farm at work may have
/// woken it meanwhile, and what the history knows of it is not contradicted then.
fn found_parked(survey: &Survey, known: &Known, when: When, found: &Found) -> Option<Entry> {
    let attempt = found.record.attempt.as_ref().filter(|_| found.record.parked)?;
    let has_ended = known.attempts.get(&attempt.id).is_some_and(|attempt| attempt.has_outcome);
    let waits = survey.source.contains(&found.key) && !survey.working.contains(&found.key);
    let is_waiting = found.place == Place::Result && waits;
    let may_be_woken = when == When::Running && known.open.contains_key(&found.key);
    let (key, record) = (found.key.clone(), found.record.clone());
    (is_waiting && !has_ended && !may_be_woken).then_some(Entry::FoundParked { key, record, size: 0 })
}

/// A record without an attempt: it was settled above, or is known by its reason.
fn is_refusal_known(survey: &Survey, known: &Known, found: &Found) -> bool {
    let is_open = known.open.contains_key(&found.key)
        && survey.finished.contains(&found.key)
        && !survey.source.contains(&found.key)
        && !survey.working.contains(&found.key);
    let reason = reason(found);
    is_open || known.refused.contains(&(found.key.clone(), reason))
}

fn reason(found: &Found) -> String {
    match &found.record.outcome {
        Outcome::Succeeded => String::new(),
        Outcome::Failed { reason, .. } => reason.clone(),
    }
}

/// The record that settled an open build whose SRPM is in FINISHED: what lies beside the SRPM, else the
/// last result. Records of other builds of the same SRPM do not count.
fn deciding<'a>(survey: &'a Survey, known: &Known, open: &OpenBuild, key: &BuildKey) -> Option<&'a Found> {
    if !survey.finished.contains(key) {
        return None;
    }
    let may_be_its = |found: &&Found| match &found.record.attempt {
        _ if found.key != *key => false,
        None => true,
        Some(attempt) => known.attempts.get(&attempt.id).is_none_or(|known| match known.build {
            // Its SRPM was taken out and has come back, and its builder went on with it.
            BuildState::Withdrawn => attempt.delivered_at >= open.queued_at,
            state => open.running.contains(&attempt.id) || state.is_open(),
        }),
    };
    let mut beside = survey.records.iter().filter(|found| matches!(found.place, Place::Held | Place::Failed));
    let results = survey.records.iter().filter(|found| !matches!(found.place, Place::Held | Place::Failed));
    let results = results.filter(|found| !found.record.parked);
    beside.find(may_be_its).or_else(|| results.filter(may_be_its).max_by_key(|found| found.at()))
}

fn settled(found: &Found) -> Settled {
    let verdict = match found.place {
        Place::Held => Verdict::Held,
        _ => Verdict::of(&found.record),
    };
    Settled { key: found.key.clone(), at: found.at(), verdict, record: found.record.clone(), size: None }
}
