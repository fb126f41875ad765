//! Whether the metadata of every repository in REPO agree with its files, and making them anew when they
//! do not: for `fsck`.
//!
//! It deliberately does not use what the server remembers, except to save reading headers again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use moji_proto::Sha256;
use moji_proto::digest::Hasher;
use tokio_util::sync::CancellationToken;

use super::compare;
use super::generations::{self, Wrong};
use super::ledger::Ledger;
use super::packages::{self, Complaints, REPODATA, Walk};
use super::publish;
use super::refresh::{Aim, Run, Trust, Where};
use super::repomd::{self, Repomd};
use super::{Generation, MetadataConfig, Repository};

/// One thing in which the metadata of a repository and its files disagree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disagreement {
    /// The metadata cannot be read; the text says why.
    Unreadable(String),
    /// A metadata file is not what `repomd.xml` says; the text says how.
    File(String),
    /// An RPM that the metadata do not name.
    Unlisted,
    /// The metadata name a file that is not there.
    Missing,
    /// An RPM has another size than the metadata say.
    Size,
    /// An RPM has another digest than the metadata say.
    Digest,
    /// The metadata say otherwise of it than `createrepo_c` does now; the text names the file.
    Description(String),
    /// What the metadata say of packages could not be compared with what `createrepo_c` says; the text says why.
    NotCompared(String),
    /// A generation that was to stay cannot be used; the text says why.
    Generation(String),
    /// Something beside the generations that a crash left.
    Leftover,
    /// Something beside the generations that no server puts there.
    Stray,
}

/// Compares the metadata of all repositories with their files; gives the file that each disagreement is
/// about. Reads all RPMs for their `digests`, and has `createrepo_c` describe them once more. Blocks, and changes
/// nothing.
///
/// # Errors
/// When a folder cannot be read.
pub fn inspect(
    config: &MetadataConfig,
    digests: bool,
) -> io::Result<Vec<(Repository, PathBuf, Disagreement)>> {
    let mut had = BTreeSet::new();
    for entry in fs::read_dir(config.nested_private()).into_iter().flatten() {
        had.extend(entry?.file_name().into_string());
    }
    let nested = packages::nested(&config.repo, &had)?;
    let mut found = Vec::new();
    let repositories = nested.iter().map(|name| Repository::Nested(name.clone()));
    for repository in std::iter::once(Repository::Main).chain(repositories) {
        let inner = if repository == Repository::Main { nested.clone() } else { BTreeSet::new() };
        let disagreements = one(config, &repository, &inner, digests)?;
        found.extend(disagreements.into_iter().map(|(path, what)| (repository.clone(), path, what)));
        for (path, wrong) in generations::inspect(&config.places(&repository).folder, digests)? {
            let what = match wrong {
                Wrong::Damaged(why) => Disagreement::Generation(why),
                Wrong::Leftover => Disagreement::Leftover,
                Wrong::Foreign => Disagreement::Stray,
            };
            found.push((repository.clone(), path, what));
        }
    }
    Ok(found)
}

fn one(
    config: &MetadataConfig,
    repository: &Repository,
    nested: &BTreeSet<String>,
    digests: bool,
) -> io::Result<Vec<(PathBuf, Disagreement)>> {
    let places = config.places(repository);
    let folder = &places.folder;
    let ledger = Ledger::load(&places.ledger)?;
    let (known, refused) =
        ledger.published.as_ref().map_or((&[][..], &[][..]), |e| (&e.packages, &e.refused));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let packages = Walk { folder, nested, known, refused, now }.packages(&mut Complaints::default())?;

    let repodata = folder.join(REPODATA);
    let path = repodata.join(repomd::REPOMD);
    let unreadable = |path: PathBuf, why: &str| Ok(vec![(path, Disagreement::Unreadable(why.to_owned()))]);
    let Some(text) = publish::read_repomd(&repodata)? else {
        return if packages.is_empty() { Ok(Vec::new()) } else { unreadable(path, "it is not there") };
    };
    let repomd = match Repomd::parse(&text) {
        Ok(repomd) => repomd,
        Err(error) => return unreadable(path, &error.to_string()),
    };
    let mut found = Vec::new();
    for file in &repomd.files {
        let path = repodata.join(&file.name);
        // Another kind of checksum is another tool's.
        if let Err(why) = publish::check(&path, file)
            && (file.sha256.is_some() || !path.exists())
        {
            found.push((path, Disagreement::File(why)));
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let Some(primary) = repomd.files.iter().find(|file| file.kind == "primary") else {
        return unreadable(path, "it names no primary.xml");
    };
    let primary = repodata.join(&primary.name);
    let Some(mut listed) = repomd::listed_packages(&primary) else {
        return unreadable(primary, "it is no primary.xml that is packed with gzip");
    };
    for package in &packages {
        let path = folder.join(&package.path);
        match listed.remove(&package.path) {
            None => found.push((path, Disagreement::Unlisted)),
            Some(listed) if listed.size.is_some_and(|size| size != package.size) => {
                found.push((path, Disagreement::Size));
            }
            Some(listed) if digests && listed.sha256.is_some() && listed.sha256 != Some(digest(&path)?) => {
                found.push((path, Disagreement::Digest));
            }
            Some(_) => {}
        }
    }
    if digests && found.is_empty() {
        found.extend(compare::descriptions(config, folder, &repodata, &packages)?);
    }
    // What is there all the same is not whole, so the walk has left it out.
    found.extend(listed.into_keys().map(|name| {
        let path = folder.join(name);
        let what = if path.exists() { Disagreement::Size } else { Disagreement::Missing };
        (path, what)
    }));
    found.sort();
    Ok(found)
}

/// The digest of a file. Blocks.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn digest(path: &Path) -> io::Result<Sha256> {
    let (mut file, mut hasher, mut piece) = (fs::File::open(path)?, Hasher::new(), vec![0; 256 * 1024]);
    loop {
        match io::Read::read(&mut file, &mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the metadata of repositories as if there were none, and publishes them as one more generation.
/// Only for when no server runs.
///
/// # Errors
/// Of which repository they could not be made, and why.
pub async fn make_anew(
    config: MetadataConfig,
    repositories: &BTreeSet<Repository>,
) -> anyhow::Result<Vec<Generation>> {
    let config = Arc::new(config);
    let nested = super::refresh::discover(&config, &BTreeSet::new()).context("cannot read REPO")?;
    let mut made = Vec::new();
    for repository in repositories {
        let run = Run {
            config: Arc::clone(&config),
            repository: repository.clone(),
            nested: nested.clone(),
            complaints: Complaints::default(),
            trust: Trust::Nothing,
            expired: BTreeSet::new(),
            memory: None,
            place: Where::Everywhere,
            aim: Aim::Publish,
            is_retry: false,
        };
        let ended = run.run(CancellationToken::new()).await;
        let reached = ended.result.map_err(|error| anyhow!("{repository}: {error:#}"))?;
        made.extend(reached.map(|reached| reached.generation));
    }
    Ok(made)
}
