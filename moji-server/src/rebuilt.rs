//! Builds that failed while they used what has been built anew since: what they used, and moving them back into
//! SOURCE, once.
//!
//! That it was done is written into the failure's record before the SRPM is moved, and is taken over into the record of
//! the next attempt: so no crash makes it happen twice. All of it blocks, and decides nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use moji_proto::Outcome;
use moji_proto::{FailureKind, SrpmName, TargetName};

use crate::BuildKey;
use crate::beneath::Folder;
use crate::durable;
use crate::folders::Folders;
use crate::record::BuildRecord;

/// What Mock's package_state plugin lists the packages of a chroot in (mock/plugins/package_state.py).
const INSTALLED: &str = "installed_pkgs.log";
/// No list of that kind is longer: 10,000 packages of 100 bytes.
const INSTALLED_MAX: u64 = 1 << 20;
const RECORD_MAX: u64 = 16 << 20;

/// A build that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedBuild {
    /// Which.
    pub key: BuildKey,
    /// The packages that were installed for it.
    pub used: BTreeSet<String>,
    /// The generation of the repository that it had.
    pub generation: u64,
}

/// What a build used, if it failed in %build and was not tried again for that before. `published`: where its logs lie.
pub fn failed_build(key: &BuildKey, record: &BuildRecord, published: &Path) -> Option<FailedBuild> {
    let Outcome::Failed { kind: FailureKind::Package, reason, .. } = &record.outcome else { return None };
    let attempt = record.attempt.as_ref().filter(|_| reason.starts_with("%build") && !record.retried)?;
    let generation = attempt.repository.as_ref().map_or(0, |repository| repository.generation);
    let used = installed(published).ok()?;
    Some(FailedBuild { key: key.clone(), used, generation })
}

/// The failed builds in FINISHED, for a start.
pub fn failed_builds(folders: &Folders) -> Vec<FailedBuild> {
    let mut found = in_folder(folders, None);
    for entry in fs::read_dir(&folders.finished).into_iter().flatten().flatten() {
        let target = entry.file_name().to_str().and_then(|name| TargetName::new(name).ok());
        if let Some(target) = target.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.extend(in_folder(folders, Some(&target)));
        }
    }
    found
}

fn in_folder(folders: &Folders, target: Option<&TargetName>) -> Vec<FailedBuild> {
    let path = target.map_or(folders.finished.clone(), |target| folders.finished.join(target.as_str()));
    let names = fs::read_dir(path).into_iter().flatten().flatten();
    let srpms = names.filter_map(|entry| SrpmName::new(entry.file_name().to_str()?).ok());
    let failed = srpms.filter_map(|srpm| {
        let key = BuildKey { target: target.cloned(), srpm };
        let record = read_failure(folders, &key).ok()?;
        let published = folders.published(&key, record.nvr.as_ref()?);
        failed_build(&key, &record, &published)
    });
    failed.collect()
}

/// Whether the failure's record says that it was tried once more already.
pub fn was_retried(folders: &Folders, key: &BuildKey) -> bool {
    read_failure(folders, key).is_ok_and(|record| record.retried)
}

/// Moves a failed SRPM from FINISHED to SOURCE, unless that was done before. Gives whether it was.
///
/// # Errors
/// When the record cannot be written, or the SRPM not be moved: then nothing has happened, or it is tried no more.
pub fn retry(folders: &Folders, key: &BuildKey) -> anyhow::Result<bool> {
    let mut record = match read_failure(folders, key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        record => record.context("cannot read its record")?,
    };
    if record.retried || !folders.finished.join(key.path()).is_file() {
        return Ok(false);
    }
    record.retried = true;
    let path = folders.failure_record(key);
    durable::write_whole(&path, &record.to_json()?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    folders.retry(key).with_context(|| format!("cannot move {key} from FINISHED to SOURCE"))?;
    Ok(true)
}

fn read_failure(folders: &Folders, key: &BuildKey) -> io::Result<BuildRecord> {
    let path = folders.failure_record(key);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut json = Vec::new();
    Folder::open(folder)?.open_file(name)?.take(RECORD_MAX).read_to_end(&mut json)?;
    serde_json::from_slice(&json).map_err(io::Error::other)
}

fn installed(published: &Path) -> io::Result<BTreeSet<String>> {
    let mut text = Vec::new();
    Folder::open(published)?.open_file(INSTALLED)?.take(INSTALLED_MAX).read_to_end(&mut text)?;
    Ok(packages_in(&String::from_utf8_lossy(&text)))
}

/// The names in lines of `name-version-release.arch build-time size digest installed`.
fn packages_in(text: &str) -> BTreeSet<String> {
    let nevras = text.lines().filter_map(|line| line.split_whitespace().next());
    nevras.filter_map(|nevra| nevra.rsplitn(3, '-').nth(2)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_installed_packages() {
        let text = "moji-buildroot-12-1.x86_64 1795176953 445388322 installed\n\
                    libfoo-devel-3.1-2.t3.aarch64 0 0 abcdef installed\n\nodd\n-1-2 3\n";
        let names = packages_in(text);
        assert_eq!(
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            ["", "libfoo-devel", "moji-buildroot"]
        );
    }
}
