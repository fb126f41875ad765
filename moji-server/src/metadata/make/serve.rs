//! Publishes what was made, and tells of what is served.
//!
//! It deliberately does not know who made it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use moji_proto::Sha256;
use tracing::{info, warn};

use super::super::generations::Gone;
use super::super::ledger::Edition;
use super::super::native::Index;
use super::super::packages::Package;
use super::super::publish::{self, Publication, PublishError, Staged};
use super::super::refresh::{Memory, Places, Plan, Reached, RunError, clear, now};
use super::super::{Generation, Repository};
use super::{Published, full, is_listed};
use crate::crash::{self, Point};

/// What was made of a plan.
pub(super) struct Next<'a> {
    pub(super) staged: Staged<'a>,
    /// RPMs that `createrepo_c` cannot read, by path, in order: not in the plan.
    pub(super) unreadable: Vec<Package>,
    /// Where everything lies, and what is not there any more, if that is known.
    pub(super) index: Option<(Index, Gone)>,
}

/// Publishes it.
pub(super) fn publish(
    repository: &Repository,
    places: &Places,
    plan: Plan,
    next: Next<'_>,
) -> Result<Published, RunError> {
    let Plan { mut memory, number, packages, served, .. } = plan;
    let Next { staged, unreadable, index } = next;
    let before = memory.ledger.published.as_ref().map(|edition| edition.refused.as_slice());
    let refused = refused(&places.folder, before.unwrap_or_default(), &packages, unreadable);
    let count = packages.len();
    let edition = Edition {
        number,
        repomd: Sha256::of(b""),
        files: Vec::new(),
        packages,
        refused,
        replaces: Vec::new(),
    };
    let publication = Publication {
        folder: &places.folder,
        staged,
        ledger: &places.ledger,
        follows: served.as_ref(),
        now: now(),
    };
    let passed = |step| {
        crash::at(Point::Publication(step));
        Ok(())
    };
    publish::publish(&publication, &mut memory.ledger, edition, passed).map_err(|error| match error {
        PublishError::Overtaken => RunError::Overtaken,
        // A createrepo_c that had no room left may have ended with 0.
        error => anyhow!(error).context(format!("failed to publish{}", full(&places.staging))).into(),
    })?;
    info!("{repository}: generation {number} is published, {count} packages");
    // What is left of it is removed before the next run too.
    let _ = clear(&places.staging);
    memory.forget_xml();
    let (index, gone) = index.unzip();
    memory.index = index;
    let reached = reached(repository, places, &mut memory, gone.as_ref())?;
    Ok((reached, memory))
}

/// All RPMs that cannot be read: those that are so since now, of which it is told, and those from before that are still
/// there as they were.
fn refused(
    folder: &Path,
    before: &[Package],
    packages: &[Package],
    unreadable: Vec<Package>,
) -> Vec<Package> {
    for package in &unreadable {
        let file = folder.join(&package.path);
        warn!("left out of the metadata until it changes: {}: createrepo_c cannot read it", file.display());
    }
    let still = before.iter().filter(|Package { path, .. }| {
        !is_listed(packages, path) && !is_listed(&unreadable, path) && folder.join(path).exists()
    });
    let mut refused: Vec<Package> = still.chain(&unreadable).cloned().collect();
    refused.sort();
    refused
}

/// Tells of the edition that is served, once it can be had where it stays. That it cannot is no reason to
/// serve an older one. `gone` is what has gone with this edition, if that is known.
pub(in super::super) fn reached(
    repository: &Repository,
    places: &Places,
    memory: &mut Memory,
    gone: Option<&Gone>,
) -> Result<Reached, RunError> {
    let Memory { ledger, generations, index, .. } = memory;
    let edition = ledger.published.as_ref().context("the ledger does not know what is served")?;
    let mut index = index.as_mut().filter(|index| index.repomd == edition.repomd);
    let made = generations.make(edition, now(), index.as_deref_mut(), gone);
    let fixed = made.is_ok();
    let unfixed = match made {
        Ok(None) => None,
        Ok(Some((count, why))) => Some(format!(
            "{count} packages can have no link, and are missing in the generations that stay once they go: {why}"
        )),
        Err(error) => Some(format!("generation {} is served, but not kept: {error:#}", edition.number)),
    };
    if let Some(index) = index
        && let Err(error) = index.save(&places.index)
    {
        warn!("{repository}: the next start has to take the metadata apart: {error}");
    }
    let listing: Arc<[Package]> = edition.packages.as_slice().into();
    let (repository, number) = (repository.clone(), edition.number);
    let generation = Generation { repository, number, packages: listing.len(), listing, fixed };
    Ok(Reached { generation, unfixed, held: generations.held() })
}
