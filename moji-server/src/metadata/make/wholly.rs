//! What `createrepo_c` is given when it makes everything, and what it made of it.
//!
//! It deliberately does not know how it is called.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use tracing::{debug, warn};

use super::super::Repository;
use super::super::createrepo::Said;
use super::super::packages::{Package, REPODATA};
use super::super::publish::{self, Served, Staged};
use super::super::refresh::{Places, Plan, RunError};
use super::super::repomd::{self, REPOMD, Repomd};
use super::serve::{self, Next};
use super::{Published, lines};

/// An empty staging folder, with the package list, and with a copy of what is served if that may be reused. Gives whether
/// there are packages that `--update` would take for unchanged, though they may not be: the other list is without them.
pub(super) fn stage(places: &Places, plan: &Plan) -> io::Result<bool> {
    super::stage(places, &plan.packages)?;
    let before = plan.memory.ledger.published.as_ref().map(|edition| edition.packages.as_slice());
    let reread = mistakable(before.unwrap_or_default(), &plan.packages);
    let without = plan.packages.iter().filter(|package| !reread.contains(&package.path));
    fs::write(places.list_without(), lines(without))?;
    if let Some(served) = plan.served.as_ref().filter(|_| plan.update) {
        let (from, to) = (places.folder.join(REPODATA), places.staged());
        fs::create_dir(&to)?;
        for name in served.names() {
            fs::copy(from.join(&name), to.join(&name))?;
        }
        fs::write(to.join(REPOMD), &served.text)?;
    }
    Ok(!reread.is_empty())
}

/// The packages that `createrepo_c --update` cannot tell from what they were `before`.
fn mistakable(before: &[Package], now: &[Package]) -> BTreeSet<String> {
    let mistakable = now.iter().filter(|package| {
        let old = before.binary_search_by(|p| p.path.cmp(&package.path)).ok().and_then(|at| before.get(at));
        old.is_some_and(|old| package.mistakable_for(old))
    });
    mistakable.map(|package| package.path.clone()).collect()
}

/// Publishes what `createrepo_c` has made.
pub(super) fn publish(
    repository: &Repository,
    places: &Places,
    mut plan: Plan,
    said: &Said,
) -> Result<Published, RunError> {
    debug!("{repository}: createrepo_c said: {}", said.whole());
    if let Some(served) = &plan.served {
        keep_added(repository, places, served)
            .context("failed to keep what people have added to the metadata")?;
    }
    let staged = places.staged();
    let (packages, unreadable) = separate(&places.folder, &staged, plan.packages, said);
    plan.packages = packages;
    serve::publish(
        repository,
        places,
        plan,
        Next { staged: Staged::Folder(&staged), unreadable, index: None },
    )
}

/// Puts back what people have added to what is served, which `createrepo_c` keeps only where it builds upon that. What is
/// damaged is left out.
fn keep_added(repository: &Repository, places: &Places, served: &Served) -> io::Result<()> {
    const END: &[u8] = b"</repomd>";
    let (from, to) = (places.folder.join(REPODATA), places.staged());
    // One that a full disk has cut off, or kept from being written, is refused by whoever publishes it, who says why.
    let mut text = fs::read(to.join(REPOMD)).unwrap_or_default();
    let Some(end) = text.windows(END.len()).rposition(|window| window == END) else { return Ok(()) };
    let there: BTreeSet<String> = repomd::data_elements(&text).into_iter().map(|(kind, _)| kind).collect();
    let mut added = Vec::new();
    for (kind, element) in repomd::data_elements(&served.text) {
        let files = served.repomd.iter().flat_map(|repomd| &repomd.files);
        let Some(file) = files.into_iter().find(|file| file.kind == kind) else { continue };
        if repomd::is_own(&kind) || there.contains(&kind) {
            continue;
        }
        let path = from.join(&file.name);
        if let Err(why) = publish::check(&path, file) {
            warn!("{repository}: {kind} is not in the metadata any more: {}: {why}", path.display());
            continue;
        }
        fs::copy(&path, to.join(&file.name))?;
        added.extend([b"  ".as_slice(), element, b"\n"].concat());
    }
    if added.is_empty() {
        return Ok(());
    }
    text.splice(end..end, added);
    fs::write(to.join(REPOMD), text)
}

/// Parts the packages into those that the staged metadata list and those that `createrepo_c` could
/// not read. It says so only by leaving them out. A package that is gone meanwhile is in neither.
fn separate(
    folder: &Path,
    staged: &Path,
    packages: Vec<Package>,
    said: &Said,
) -> (Vec<Package>, Vec<Package>) {
    let repomd = fs::read(staged.join(REPOMD)).ok().and_then(|text| Repomd::parse(&text).ok());
    let primary = repomd.and_then(|repomd| repomd.files.into_iter().find(|file| file.kind == "primary"));
    let Some(primary) = primary.map(|file| staged.join(file.name)) else { return (packages, Vec::new()) };
    let listed = repomd::package_count(&primary).unwrap_or(packages.len());
    if listed == packages.len() {
        return (packages, Vec::new());
    }
    warn!("createrepo_c lists {listed} of {} packages; it said: {said}", packages.len());
    let locations = repomd::package_locations(&primary).unwrap_or_default();
    let (found, missing): (Vec<_>, Vec<_>) = packages.into_iter().partition(|p| locations.contains(&p.path));
    if found.len() == listed {
        let missing = missing.into_iter().filter(|package| folder.join(&package.path).exists()).collect();
        (found, missing)
    } else {
        // It writes locations in a way that is not known here: blame none.
        let mut packages = [found, missing].concat();
        packages.sort();
        (packages, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_update_would_overlook_is_found() {
        let package = |path: &str, inode| Package { path: path.into(), size: 5, modified: (7, 8), inode };
        let before = [package("a", 1), package("c", 2)];
        assert!(mistakable(&before, &before).is_empty());
        assert!(mistakable(&before, &[package("b", 3), package("c", 2)]).is_empty());
        assert_eq!(
            mistakable(&before, &[package("a", 1), package("c", 9)]),
            BTreeSet::from(["c".to_owned()])
        );
    }
}
