//! What the last server left behind, at the start of the next one: publications that were not finished,
//! SRPMs in WORKING, staging.
//!
//! | found | done |
//! |---|---|
//! | an SRPM in WORKING whose results are in REPO | its commit is completed |
//! | one with a `lease.json` that fits it, or several | the leases go on: their builders may come back |
//! | any other in WORKING | back to SOURCE |
//! | staging of an attempt whose SRPM is in SOURCE again | stays until that is settled: an upload that was cut goes on even then |
//! | any other staging | removed |
//!
//! All of it can be done again after a crash at any point. It blocks, and decides nothing about builds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use moji_proto::{AttemptId, TargetName};

use crate::BuildKey;
use crate::commit;
use crate::farm::Given;
use crate::folders::Folders;
use crate::history::{Remembered, is_repository};
use crate::lease_record::{FileIdentity, LeaseRecord};
use crate::rebuilt::FailedBuild;
use crate::scheduler::{Lease, LeaseState, Try};
use crate::source::{self, QueuedSrpm};

/// What a farm begins with.
#[derive(Debug, Default)]
pub struct LeftBehind {
    /// Leases whose SRPM is in WORKING.
    pub leases: Vec<(Lease, LeaseRecord)>,
    /// Staging of attempts that were given up, by the SRPM, which waits in SOURCE.
    pub staged: BTreeMap<BuildKey, BTreeSet<AttemptId>>,
    /// Attempts that were given up and may turn up again. The history knows them too, unless it was lost.
    pub unanswered: Vec<Given>,
    /// SRPMs that went back to SOURCE.
    pub put_back: Vec<BuildKey>,
    /// What went wrong with SRPMs that are not settled. The folders do not tell, the history does.
    pub tries: BTreeMap<BuildKey, Vec<Try>>,
    /// What else the history remembers.
    pub remembered: Remembered,
    /// Builds that failed and may be tried once more; empty when they are not to be.
    pub failed: Vec<FailedBuild>,
    /// Those that have a repository.
    pub repositories: Vec<Option<TargetName>>,
}

/// Tidies up.
///
/// # Errors
/// When a folder cannot be read or written.
pub fn take_over(folders: &Folders) -> anyhow::Result<LeftBehind> {
    complete_commits(folders)?;
    let mut records = read_records(folders)?;
    let mut left = LeftBehind::default();
    for key in folders.in_working()? {
        let leases = leases_of(folders, &key, records.get(&key).map_or(&[][..], Vec::as_slice));
        if leases.is_empty() {
            folders
                .requeue(&key)
                .with_context(|| format!("cannot move {key} from WORKING back to SOURCE"))?;
            left.put_back.push(key);
        } else {
            records.remove(&key);
            left.leases.extend(leases);
        }
    }
    for (key, records) in records {
        let Ok(file) = FileIdentity::of(&folders.source.join(key.path())) else { continue };
        let fitting: Vec<_> = records.iter().filter(|record| record.file.is_like(&file)).collect();
        left.unanswered.extend(fitting.iter().map(|record| Given::recorded(record)));
        let attempts: BTreeSet<_> = fitting.iter().map(|record| record.attempt).collect();
        if !attempts.is_empty() {
            left.staged.insert(key, attempts);
        }
    }
    remove_other_staging(folders, &left)?;
    left.repositories = repositories(folders)?;
    Ok(left)
}

/// Whose metadata there are.
fn repositories(folders: &Folders) -> anyhow::Result<Vec<Option<TargetName>>> {
    let mut found: Vec<_> = is_repository(&folders.repo).then_some(None).into_iter().collect();
    for entry in fs::read_dir(&folders.repo).context("cannot read REPO")? {
        let entry = entry.context("cannot read REPO")?;
        let target = entry.file_name().to_str().and_then(|name| TargetName::new(name).ok());
        found.extend(target.filter(|_| is_repository(&entry.path())).map(Some));
    }
    Ok(found)
}

/// What the last server had published when it ended is finished, not built again.
fn complete_commits(folders: &Folders) -> anyhow::Result<()> {
    for key in folders.in_working()? {
        if let Some(header) = source::read_header(&folders.working, &key)
            && commit::complete(folders, &key, &header.nvr)?
        {
            tracing::info!("{key} had been published when the last server ended; it is finished now");
        }
    }
    Ok(())
}

/// The records of all attempts in staging.
fn read_records(folders: &Folders) -> anyhow::Result<BTreeMap<BuildKey, Vec<LeaseRecord>>> {
    let mut records: BTreeMap<BuildKey, Vec<LeaseRecord>> = BTreeMap::new();
    for entry in fs::read_dir(folders.attempts()).context("cannot read the staging folder")? {
        let entry = entry.context("cannot read the staging folder")?;
        let attempt = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(record) = attempt.and_then(|attempt| LeaseRecord::read(folders, attempt)) {
            records.entry(record.key()).or_default().push(record);
        }
    }
    records.values_mut().for_each(|records| records.sort_by_key(|record| record.attempt));
    Ok(records)
}

/// The leases of an SRPM in WORKING: those that were given for the file that lies there now.
fn leases_of(folders: &Folders, key: &BuildKey, records: &[LeaseRecord]) -> Vec<(Lease, LeaseRecord)> {
    let Ok(file) = FileIdentity::of(&folders.working.join(key.path())) else { return Vec::new() };
    let mut fitting = records.iter().filter(|record| record.file.is_like(&file)).peekable();
    if fitting.peek().is_none() {
        return Vec::new();
    }
    let Some(header) = source::read_header(&folders.working, key) else { return Vec::new() };
    let lease = |record: &LeaseRecord| Lease {
        attempt: record.attempt,
        srpm: QueuedSrpm {
            key: key.clone(),
            header: header.clone(),
            size: file.size,
            queued_at: record.queued_at,
        },
        target: record.target.clone(),
        session: None,
        builder: record.builder.clone(),
        slot: record.slot,
        since: None,
        late_at: None,
        charged: std::time::Duration::ZERO,
        ended: None,
        generation: record.generation(),
        state: LeaseState::Running { claimed_by: None },
    };
    fitting.map(|record| (lease(record), record.clone())).collect()
}

fn remove_other_staging(folders: &Folders, left: &LeftBehind) -> anyhow::Result<()> {
    let leased = left.leases.iter().map(|(lease, _)| lease.attempt);
    let of_use: BTreeSet<_> = leased.chain(left.staged.values().flatten().copied()).collect();
    for entry in fs::read_dir(folders.attempts()).context("cannot read the staging folder")? {
        let path = entry.context("cannot read the staging folder")?.path();
        if attempt_of(&path).is_none_or(|attempt| !of_use.contains(&attempt)) {
            tracing::info!("removing {}: nothing that waits or is built belongs to it", path.display());
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn attempt_of(staging: &Path) -> Option<AttemptId> {
    staging.file_name()?.to_str()?.parse().ok()
}
