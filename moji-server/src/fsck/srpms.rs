//! SRPMs against each other, against what is told of them in FINISHED, and against REPO.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use moji_proto::AttemptId;

use super::difference::{Difference, Discardable, Spot};
use crate::commit::RESULTS;
use crate::folders::Folders;
use crate::history::{Found, Place, Srpms, Survey};
use crate::{BuildKey, metadata};

pub(super) fn check(folders: &Folders, survey: &Survey, found: &mut Vec<Difference>) -> io::Result<()> {
    duplicates(folders, survey, found)?;
    found.extend(survey.working.iter().filter_map(|key| cut_commit(folders, survey, key)));
    for key in &survey.finished {
        finished(folders, survey, key, found);
    }
    let records = survey.records.iter().filter(|record| is_in_finished(record));
    found.extend(records.filter_map(|record| lone(survey, record)));
    Ok(())
}

fn is_in_finished(found: &Found) -> bool {
    matches!(found.place, Place::Held | Place::Failed)
}

fn attempt(found: &Found) -> Option<AttemptId> {
    found.record.attempt.as_ref().map(|attempt| attempt.id)
}

/// What REPO tells of an SRPM.
fn in_repo<'a>(survey: &'a Survey, key: &'a BuildKey) -> impl Iterator<Item = &'a Found> {
    survey.records.iter().filter(move |found| found.key == *key && !is_in_finished(found))
}

fn duplicates(folders: &Folders, survey: &Survey, found: &mut Vec<Difference>) -> io::Result<()> {
    type Folder<'a> = (Spot, &'a Path, &'a Srpms);
    let source: Folder<'_> = (Spot::Source, &folders.source, &survey.source);
    let working: Folder<'_> = (Spot::Working, &folders.working, &survey.working);
    let finished: Folder<'_> = (Spot::Finished, &folders.finished, &survey.finished);
    for ((earlier, from, here), (later, to, there)) in
        [(source, working), (source, finished), (working, finished)]
    {
        for key in here.intersection(there) {
            let path = from.join(key.path());
            let content = match are_same(&path, &to.join(key.path())) {
                // Two names of one file: a person has linked it back to have it built again.
                Ok(Same::File) => continue,
                Ok(Same::Content) => Discardable::Yes,
                Ok(Same::Name) => Discardable::OnlyHere,
                // It moved on meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            found.push(Difference::Duplicate { key: key.clone(), path, earlier, later, content });
        }
    }
    Ok(())
}

/// What two SRPMs have in common.
enum Same {
    File,
    Content,
    Name,
}

fn are_same(one: &Path, other: &Path) -> io::Result<Same> {
    let (seen, other_seen) = (one.symlink_metadata()?, other.symlink_metadata()?);
    if seen.ino() == other_seen.ino() {
        return Ok(Same::File);
    }
    let is_same = seen.len() == other_seen.len() && metadata::digest(one)? == metadata::digest(other)?;
    Ok(if is_same { Same::Content } else { Same::Name })
}

/// As `commit::complete` sees it: the attempt's staging is there without its results.
fn cut_commit(folders: &Folders, survey: &Survey, key: &BuildKey) -> Option<Difference> {
    let found = in_repo(survey, key).find(|found| {
        let staging = attempt(found).map(|attempt| folders.attempt(attempt));
        staging.is_some_and(|staging| staging.is_dir() && !staging.join(RESULTS).exists())
    })?;
    let nvr = found.record.nvr.clone()?;
    Some(Difference::CutCommit { key: key.clone(), nvr, path: folders.working.join(key.path()) })
}

/// An SRPM in FINISHED against what tells how it ended.
fn finished(folders: &Folders, survey: &Survey, key: &BuildKey, found: &mut Vec<Difference>) {
    let beside: Vec<&Found> =
        survey.records.iter().filter(|record| record.key == *key && is_in_finished(record)).collect();
    let record_path = folders.failure_record(key);
    let is_torn = survey.unreadable.iter().any(|(path, _)| {
        path.parent() == record_path.parent()
            && path.file_name().is_some_and(|name| {
                name.to_str().and_then(crate::history::recorded).is_some_and(|(srpm, _)| srpm == key.srpm)
            })
    });
    // What is read of it elsewhere tells nothing sure while it is queued again.
    if survey.source.contains(key) || survey.working.contains(key) {
        return;
    }
    let last = in_repo(survey, key).max_by_key(|found| found.at());
    match (beside.as_slice(), last) {
        ([], _) if is_torn || survey.hides(folders, key) => {}
        ([], None) => found.push(Difference::NoResult { path: folders.finished.join(key.path()) }),
        ([], Some(last)) if !last.record.outcome.is_success() => {
            found.push(Difference::NoFailureRecord { path: record_path, copy: last.path.clone() });
        }
        ([], Some(_)) => {}
        (records, _) => {
            let success = in_repo(survey, key).filter(|found| found.record.outcome.is_success());
            let success = success.map(|found| found.at()).max();
            for record in records {
                if success.is_some_and(|success| success > record.at()) {
                    found.push(Difference::OutdatedRecord { path: record.path.clone() });
                }
            }
            if let [held, failed, ..] = records
                && success.is_none_or(|success| success <= held.at() && success <= failed.at())
            {
                found.push(Difference::TwoRecords { path: held.path.clone() });
            }
        }
    }
}

/// A record in FINISHED whose SRPM is nowhere.
fn lone(survey: &Survey, record: &Found) -> Option<Difference> {
    let key = &record.key;
    let is_there = [&survey.source, &survey.working, &survey.finished].iter().any(|at| at.contains(key));
    let copy =
        in_repo(survey, key).any(|found| attempt(found).is_some() && attempt(found) == attempt(record));
    let content = if copy { Discardable::Yes } else { Discardable::OnlyHere };
    (!is_there).then(|| Difference::LoneRecord { path: record.path.clone(), content })
}
