//! Reads a repository as dnf does, and compares it with what lies there.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_proto::Sha256;

use super::processes::{DEADLINE, let_pass, now};

/// The packages that metadata list: path below the repository, and digest.
pub type Packages = BTreeMap<String, String>;

/// Whether the metadata of a repository are whole and say exactly what is there: every file that
/// repomd.xml names has its digest, every package that they list is there with its digest, and
/// every RPM that is there is listed. Gives the packages.
///
/// # Errors
/// The first thing that is not so.
pub fn check_repository(repo: &Path) -> Result<Packages, String> {
    let listed = read_metadata(repo)?;
    for (href, digest) in &listed {
        check_file(&repo.join(href), digest)?;
    }
    let mut there = BTreeSet::new();
    rpms_below(repo, repo, &mut there);
    let missing: Vec<_> = there.iter().filter(|path| !listed.contains_key(*path)).collect();
    if missing.is_empty() { Ok(listed) } else { Err(format!("not in the metadata: {missing:?}")) }
}

/// Waits until [`check_repository`] finds nothing wrong and exactly these packages, in any order.
pub fn wait_for_packages(repo: &Path, expected: &[impl AsRef<str>]) {
    let mut expected: Vec<_> = expected.iter().map(AsRef::as_ref).collect();
    expected.sort_unstable();
    let begin = now();
    loop {
        let found = check_repository(repo);
        if found.as_ref().is_ok_and(|packages| packages.keys().eq(&expected)) {
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "{}: wanted {expected:#?}, found {found:#?}", repo.display());
        let_pass(Duration::from_millis(20));
    }
}

/// Reads repomd.xml and everything that it names, with their digests; gives the packages.
///
/// # Errors
/// What is not there or not as repomd.xml says.
pub fn read_metadata(repo: &Path) -> Result<Packages, String> {
    let repomd = repo.join("repodata/repomd.xml");
    let repomd = fs::read_to_string(&repomd).map_err(|error| format!("{}: {error}", repomd.display()))?;
    let mut packages = None;
    for data in elements(&repomd, "data") {
        let path = repo.join(attribute(data, "location", "href")?);
        let content = check_file(&path, content_of(data, "checksum")?)?;
        if data.starts_with("<data type=\"primary\"") {
            packages = Some(read_primary(&content)?);
        }
    }
    packages.ok_or_else(|| "repomd.xml names no primary".to_owned())
}

fn read_primary(gzipped: &[u8]) -> Result<Packages, String> {
    let mut primary = String::new();
    // Several members: one for each group of packages.
    flate2::read::MultiGzDecoder::new(gzipped)
        .read_to_string(&mut primary)
        .map_err(|error| format!("primary: {error}"))?;
    let mut packages = Packages::new();
    for package in elements(&primary, "package") {
        let href = attribute(package, "location", "href")?.to_owned();
        if let Some(other) = packages.insert(href.clone(), content_of(package, "checksum")?.to_owned()) {
            return Err(format!("{href} is listed twice, once as {other}"));
        }
    }
    if attribute(&primary, "metadata", "packages")? != packages.len().to_string() {
        return Err(format!("primary says another number of packages than {}", packages.len()));
    }
    Ok(packages)
}

fn check_file(path: &Path, digest: &str) -> Result<Vec<u8>, String> {
    let content = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = Sha256::of(&content).to_string();
    if found == digest { Ok(content) } else { Err(format!("{} is {found}, not {digest}", path.display())) }
}

/// RPMs of this repository; a folder with metadata of its own is another one.
pub(super) fn rpms_below(repo: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.ends_with("generations") {
            continue;
        }
        if path.is_dir() && !path.join("repodata").exists() {
            rpms_below(repo, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rpm") {
            found.insert(path.strip_prefix(repo).unwrap().to_str().unwrap().to_owned());
        }
    }
}

// Metadata as createrepo_c writes them are regular enough for this; nothing here has to read what
// anybody else wrote.

/// The elements of a name, each from its opening tag to its end. They are not nested.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name} "), format!("</{name}>"));
    let starts: Vec<usize> = text.match_indices(&open).map(|(at, _)| at).collect();
    let ends = text.match_indices(&close).map(|(at, _)| at);
    starts.iter().zip(ends).filter_map(|(start, end)| text.get(*start..end)).collect()
}

pub(super) fn attribute<'a>(text: &'a str, element: &str, name: &str) -> Result<&'a str, String> {
    let value = text
        .split(&format!("<{element} "))
        .nth(1)
        .and_then(|rest| rest.split('>').next())
        .and_then(|tag| tag.split(&format!("{name}=\"")).nth(1))
        .and_then(|rest| rest.split('"').next());
    value.ok_or_else(|| format!("no {element} with {name} in {text:.80}"))
}

pub(super) fn content_of<'a>(text: &'a str, element: &str) -> Result<&'a str, String> {
    let content = text
        .split(&format!("<{element} "))
        .nth(1)
        .and_then(|rest| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split('<').next());
    content.ok_or_else(|| format!("no {element} in {text:.80}"))
}
