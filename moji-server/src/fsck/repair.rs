//! Mends differences, each once, in an order in which no repair undoes another.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::difference::{Difference, Repair};
use crate::folders::Folders;
use crate::metadata::{MetadataConfig, Repository, make_anew};
use crate::{commit, durable, history};

/// Mends what is safe; gives what could not be mended though it should, and why. Only while the folders
/// are claimed. Blocks, and must not be called from async code.
pub fn repair(folders: &Folders, createrepo: &Path, differences: &[Difference]) -> Vec<anyhow::Error> {
    let (mut failed, mut repositories, mut reconcile, mut broken) =
        (Vec::new(), BTreeSet::new(), false, None);
    let mut done: Vec<Repair> = Vec::new();
    for repair in differences.iter().filter_map(Difference::repair) {
        if done.contains(&repair) {
            continue;
        }
        done.push(repair.clone());
        match repair {
            Repair::MakeMetadata(repository) => {
                repositories.insert(repository);
            }
            Repair::Reconcile => reconcile = true,
            Repair::RebuildHistory(why) => broken = Some(why),
            other => failed.extend(in_folders(folders, other).err()),
        }
    }
    if !repositories.is_empty() {
        failed.extend(metadata(folders, createrepo, &repositories).err());
    }
    // Last, because it follows the folders.
    if reconcile || broken.is_some() {
        let rebuilt = history::rebuild(folders, broken.as_deref()).context("cannot mend the history");
        failed.extend(rebuilt.err());
    }
    failed
}

fn in_folders(folders: &Folders, repair: Repair) -> anyhow::Result<()> {
    let cannot = repair.to_string();
    let cannot = || format!("cannot {cannot}");
    match repair {
        Repair::Complete(key, nvr) => commit::complete(folders, &key, &nvr).map(drop).with_context(cannot),
        Repair::Remove(path) => remove(&path, |path| fs::remove_file(path)).with_context(cannot),
        Repair::RemoveFolder(path) => remove(&path, |path| fs::remove_dir_all(path)).with_context(cannot),
        Repair::CopyRecord(from, to) => {
            let record = fs::read(&from).with_context(cannot)?;
            durable::write_whole(&to, &record).with_context(cannot)
        }
        Repair::MakeMetadata(_) | Repair::Reconcile | Repair::RebuildHistory(_) => Ok(()),
    }
}

fn remove(path: &PathBuf, how: impl Fn(&PathBuf) -> io::Result<()>) -> io::Result<()> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), durable::sync_folder)
}

fn metadata(folders: &Folders, createrepo: &Path, repositories: &BTreeSet<Repository>) -> anyhow::Result<()> {
    let config = MetadataConfig {
        createrepo: createrepo.to_owned(),
        ..MetadataConfig::new(folders.repo.clone(), folders.metadata_private())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start what runs createrepo_c")?;
    runtime.block_on(make_anew(config, repositories)).map(drop)
}
