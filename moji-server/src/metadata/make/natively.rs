//! Has the next generation's files made from what is served and the XML of what is new.
//!
//! It deliberately does not publish them.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::super::generations::Gone;
use super::super::native::spool::Spool;
use super::super::native::{self, Index};
use super::super::packages::{Package, REPODATA};
use super::super::refresh::{Memory, Places, Plan, now};
use super::super::{ledger, publish::Served};
use super::full;

/// Files that are written, and not served yet.
pub(super) struct Made {
    pub(super) made: native::Made,
    /// What `createrepo_c` cannot read, by path, in order: not in the plan any more.
    pub(super) unreadable: Vec<Package>,
    pub(super) gone: Gone,
}

/// Has the files of the next generation written.
///
/// # Errors
/// When they cannot be; also when what is served cannot be taken apart.
pub(super) fn make(places: &Places, plan: &mut Plan) -> anyhow::Result<Made> {
    let repodata = places.folder.join(REPODATA);
    let Memory { ledger, index, spool, .. } = &mut *plan.memory;
    let published = ledger.published.as_ref().context("nothing is published")?;
    let (added, removed) = ledger::difference(&published.packages, &plan.packages);
    let newer = spool.take().map_or_else(|| Spool::new(places.private()), Ok)?;
    let index = index.take().filter(|index| index.repomd == published.repomd);
    let index = index.or_else(|| Index::load(&places.index, published.repomd));
    let spool = match &index {
        Some(_) => newer,
        None => {
            // What has been served so far, and over it what is newer.
            let is_added = |path: &str| added.binary_search_by(|new| new.path.as_str().cmp(path)).is_ok();
            let mut served = Spool::new(places.private())?;
            served.take_in(&repodata).context("cannot take apart what is served")?;
            served.keep(|path| !is_added(path));
            served.append(newer)?;
            served
        }
    };

    let paths = added.iter().map(|package| package.path.as_str());
    let changed: BTreeSet<String> = paths.chain(removed).map(str::to_owned).collect();
    let without: Vec<Package> =
        added.into_iter().filter(|package| !spool.has(&package.path)).cloned().collect();
    let was_changed = |package: &&Package| changed.contains(&package.path);
    let gone = published.packages.iter().filter(was_changed).cloned().collect();
    let gone = Gone { since: published.number, packages: gone };
    if !without.is_empty() {
        plan.packages.retain(|package| without.binary_search(package).is_err());
    }
    let made = native::make(&native::Order {
        repodata: &repodata,
        number: plan.number,
        packages: &plan.packages,
        index: index.as_ref(),
        changed: &changed,
        spool: &spool,
        served: plan.served.as_ref().map(|Served { text, .. }| text.as_slice()),
        now: now(),
    });
    let made = made.with_context(|| format!("failed to make the metadata{}", full(&repodata)))?;
    // The others are gone meanwhile.
    let is_there = |package: &Package| places.folder.join(&package.path).exists();
    let unreadable = without.into_iter().filter(is_there).collect();
    Ok(Made { made, unreadable, gone })
}
