//! Metadata that cost what changed (`--metadata native`): `createrepo_c` reads only the packages that are new, and all
//! other XML is taken over, packed, from the generation before.
//!
//! ```text
//! repodata/<sha256>-primary.xml.gz = member: head, packages="10001"
//!                                  + member: group of ~64 packages    as it was, byte by byte
//!                                  + member: group with the new one   unpacked, put together, packed
//!                                  + member: …
//!                                  + member: end
//! ```
//!
//! A gzip file of several members is one file to whoever unpacks it (RFC 1952, 2.2). Which packages share a member
//! [`groups`] says; where the members lie, the [`Index`] remembers, a help and not the truth: without it the served
//! files are taken apart once. The XML of a package is always `createrepo_c`'s own ([`spool`]). The fourth file of a
//! group is its primary member with the places that a fixed generation names.
//!
//! It deliberately does not know when to publish, and how a generation comes to be served.

mod groups;
mod index;
pub(super) mod spool;
mod write;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use flate2::read::GzDecoder;
use moji_proto::Sha256;

use super::packages::Package;
use super::publish::UNFINISHED;
use super::rewrite::{self, Written};
pub(super) use index::{FixedFile, Index, Members};
use index::{Group, Member, lie_in_turn};
use spool::Spool;
use write::Part;

/// No group's XML is near this size, unless it is damaged.
const UNPACKED_MAX: u64 = 4 << 30;

/// The three files of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Primary,
    Filelists,
    Other,
}

/// In the order of `repomd.xml`.
const KINDS: [Kind; 3] = [Kind::Primary, Kind::Filelists, Kind::Other];

impl Kind {
    /// In `repomd.xml`, and at the end of the file's name.
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Filelists => "filelists",
            Self::Other => "other",
        }
    }

    /// As createrepo_c writes them (src/xml_file.h).
    fn head(self, packages: usize) -> String {
        let (element, namespaces) = match self {
            Self::Primary => (
                "metadata",
                "xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\"",
            ),
            Self::Filelists => ("filelists", "xmlns=\"http://linux.duke.edu/metadata/filelists\""),
            Self::Other => ("otherdata", "xmlns=\"http://linux.duke.edu/metadata/other\""),
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{element} {namespaces} packages=\"{packages}\">\n"
        )
    }

    fn end(self) -> &'static str {
        match self {
            Self::Primary => "</metadata>",
            Self::Filelists => "</filelists>",
            Self::Other => "</otherdata>",
        }
    }
}

/// What is to be served next.
pub(super) struct Order<'a> {
    /// The folder `repodata`, which is there.
    pub(super) repodata: &'a Path,
    /// The generation.
    pub(super) number: u64,
    /// All packages, by path.
    pub(super) packages: &'a [Package],
    /// Where what is served lies; none when nothing of it is to be used.
    pub(super) index: Option<&'a Index>,
    /// Paths of packages that came, went or are others now than those that `index` is of.
    pub(super) changed: &'a BTreeSet<String>,
    /// The XML of those that came, and without an index of all.
    pub(super) spool: &'a Spool,
    /// The `repomd.xml` that is served: what a person added to it stays.
    pub(super) served: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// Files that are written, durable, and not served yet: each under its name with [`UNFINISHED`] before it.
pub(super) struct Made {
    /// What serves them.
    pub(super) repomd: Vec<u8>,
    pub(super) index: Index,
}

/// One group of the next generation.
struct Next<'a> {
    start: u64,
    packages: Vec<&'a Package>,
    /// What it was and still is.
    same: Option<&'a Group>,
}

/// Where the next generation gets a group's members.
enum Source<'a> {
    /// They are what they were.
    Same(&'a Group),
    /// All its packages are in the spool: read when they are written, because without an index that is everything.
    Spooled(&'a [&'a Package]),
    /// Some packages are what they were.
    Texts([Vec<u8>; 3]),
}

impl Source<'_> {
    fn part(&self, kind: Kind, spool: &Spool) -> anyhow::Result<Part<'_>> {
        let at = kind as usize;
        let text = match self {
            Self::Same(group) => {
                return group.members.get(at).copied().map(Part::Old).context("no such kind");
            }
            Self::Texts(texts) => Cow::Borrowed(texts.get(at).context("no such kind")?.as_slice()),
            Self::Spooled(packages) => {
                let mut text = Vec::new();
                for package in *packages {
                    spool.read(&package.path, kind, &mut text).context("failed to read the spool")?;
                }
                Cow::Owned(text)
            }
        };
        Ok(Part::Text(text))
    }
}

/// Writes the three files beside those that are served.
///
/// # Errors
/// When a file cannot be written, or what is served cannot be taken apart.
pub(super) fn make(order: &Order<'_>) -> anyhow::Result<Made> {
    let groups = next_groups(order);
    let old = order.index.map(|index| Old::open(order.repodata, index)).transpose()?;
    let is_spooled = |package: &&Package| order.spool.has(&package.path);
    let sources = groups.iter().map(|group| match group.same {
        Some(same) => Ok(Source::Same(same)),
        None if group.packages.iter().all(is_spooled) => Ok(Source::Spooled(&group.packages)),
        None => texts(order, old.as_ref(), group).map(Source::Texts),
    });
    let sources: Vec<Source<'_>> = sources.collect::<anyhow::Result<_>>()?;
    let count = order.packages.len();
    let files = old.map(|old| old.files.map(Some)).unwrap_or_default();
    let written = std::thread::scope(|scope| {
        let jobs = KINDS.into_iter().zip(&files).map(|(kind, old)| {
            let path = order.repodata.join(format!("{UNFINISHED}{}.xml.gz", kind.name()));
            let parts = sources.iter().map(move |source| source.part(kind, order.spool));
            scope.spawn(move || write::file(&path, old.as_ref(), &kind.head(count), parts, kind.end()))
        });
        let jobs: Vec<_> = jobs.collect();
        let ended = jobs.into_iter().map(|job| match job.join() {
            Ok(written) => written.context("failed to write the metadata"),
            Err(_) => Err(anyhow::anyhow!("writing the metadata panicked")),
        });
        ended.collect::<anyhow::Result<Vec<_>>>()
    })?;
    finish(order, &groups, written)
}

fn next_groups<'a>(order: &Order<'a>) -> Vec<Next<'a>> {
    let mut packages: Vec<(u64, &Package)> =
        order.packages.iter().map(|package| (groups::hash(&package.path), package)).collect();
    packages.sort_unstable_by_key(|(hash, package)| (*hash, &package.path));
    let hashes: Vec<u64> = packages.iter().map(|(hash, _)| *hash).collect();
    let old = order.index.map(|index| index.groups.as_slice()).unwrap_or_default();
    let starts: Vec<u64> = old.iter().map(|group| group.start).collect();
    let touched: BTreeSet<usize> = order
        .changed
        .iter()
        .map(|path| groups::group_of(&starts, |start| *start, groups::hash(path)))
        .collect();
    let regrouped = groups::regroup(&starts, &hashes);
    let ends: Vec<u64> = regrouped.iter().skip(1).map(|(start, _)| *start).chain([u64::MAX]).collect();
    let next = regrouped.into_iter().zip(ends).map(|((start, range), end)| {
        let at = old.binary_search_by_key(&start, |group| group.start).ok();
        // The same hashes, and nothing of it has changed.
        let same = at.filter(|at| {
            let old_end = starts.get(at + 1).copied().unwrap_or(u64::MAX);
            old_end == end && !touched.contains(at)
        });
        let members = packages.get(range).unwrap_or_default();
        let packages = members.iter().map(|(_, package)| *package).collect();
        Next { start, packages, same: same.and_then(|at| old.get(at)) }
    });
    next.collect()
}

/// The XML of a group's packages: in the primary file by path, with the digest; in the other two by digest.
type GroupXml = (BTreeMap<String, (String, Vec<u8>)>, [BTreeMap<String, Vec<u8>>; 2]);

/// What is served, open.
struct Old<'a> {
    index: &'a Index,
    files: [File; 3],
}

impl<'a> Old<'a> {
    fn open(repodata: &Path, index: &'a Index) -> anyhow::Result<Self> {
        let open = |name: &String| File::open(repodata.join(name)).with_context(|| name.clone());
        let [primary, filelists, other] = &index.files;
        let files = [open(primary)?, open(filelists)?, open(other)?];
        for (number, file) in files.iter().enumerate() {
            let members = index.groups.iter().filter_map(|group| group.members.get(number));
            ensure!(
                lie_in_turn(members, file.metadata()?.len()),
                "{} does not lie as it should",
                index.repomd
            );
        }
        Ok(Self { index, files })
    }

    fn group(&self, group: &Group) -> anyhow::Result<GroupXml> {
        let [primary, filelists, other] = &self.files;
        let [in_primary, in_filelists, in_other] = group.members;
        Ok((
            spool::by_path(&unpacked(primary, in_primary)?)?,
            [
                spool::by_digest(&unpacked(filelists, in_filelists)?)?,
                spool::by_digest(&unpacked(other, in_other)?)?,
            ],
        ))
    }
}

fn unpacked(file: &File, member: Member) -> io::Result<Vec<u8>> {
    let mut packed = vec![0; usize::try_from(member.size).map_err(io::Error::other)?];
    file.read_exact_at(&mut packed, member.offset)?;
    let mut text = Vec::with_capacity(usize::try_from(member.open).unwrap_or_default());
    GzDecoder::new(packed.as_slice()).take(UNPACKED_MAX.min(member.open + 1)).read_to_end(&mut text)?;
    if text.len() as u64 == member.open { Ok(text) } else { Err(io::Error::other("a member is damaged")) }
}

/// The texts of a group that is not as it was.
fn texts(order: &Order<'_>, old: Option<&Old<'_>>, group: &Next<'_>) -> anyhow::Result<[Vec<u8>; 3]> {
    let (mut texts, mut known) = (<[Vec<u8>; 3]>::default(), BTreeMap::new());
    for package in &group.packages {
        let path = package.path.as_str();
        if order.spool.has(path) {
            for (kind, text) in KINDS.into_iter().zip(&mut texts) {
                order.spool.read(path, kind, text).context("failed to read the spool")?;
            }
            continue;
        }
        let old = old.with_context(|| format!("there is no XML of {path}"))?;
        let at = old.index.group_of(path);
        let (primary, others) = match known.entry(at) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let group = old.index.groups.get(at).context("there is no group")?;
                new.insert(old.group(group).context("failed to take apart what is served")?)
            }
        };
        let (digest, element) = primary.get(path).with_context(|| format!("what is served lacks {path}"))?;
        let [to_primary, to_others @ ..] = &mut texts;
        to_primary.extend_from_slice(element);
        for (to, others) in to_others.iter_mut().zip(others) {
            to.extend_from_slice(others.get(digest).with_context(|| format!("what is served lacks {path}"))?);
        }
    }
    Ok(texts)
}

fn finish(order: &Order<'_>, groups: &[Next<'_>], written: Vec<write::File>) -> anyhow::Result<Made> {
    let mut names = <[String; 3]>::default();
    for ((kind, name), file) in KINDS.into_iter().zip(&mut names).zip(&written) {
        *name = format!("{}-{}.xml.gz", file.written.sha256, kind.name());
        let from = order.repodata.join(format!("{UNFINISHED}{}.xml.gz", kind.name()));
        fs::rename(&from, order.repodata.join(format!("{UNFINISHED}{name}")))?;
    }
    let [primary, filelists, other] = written.as_slice() else { anyhow::bail!("not three files") };
    let parts: [Written; 3] = [primary.written, filelists.written, other.written];
    let repomd = repomd(order, &names, parts);
    let mut new = Vec::with_capacity(groups.len());
    for (at, group) in groups.iter().enumerate() {
        let member = |file: &write::File| file.members.get(at).copied().context("a member is missing");
        let fixed = group.same.and_then(|same| same.fixed);
        new.push(Group {
            start: group.start,
            members: [member(primary)?, member(filelists)?, member(other)?],
            fixed,
        });
    }
    let fixed = order.index.and_then(|index| index.fixed.clone());
    let index = Index::new(Sha256::of(&repomd), names, new, fixed);
    Ok(Made { repomd, index })
}

/// As createrepo_c writes it (src/xml_dump_repomd.c), without the digests of the unpacked files: nobody needs them, and to
/// find them out costs the unpacking of everything.
fn repomd(order: &Order<'_>, names: &[String; 3], files: [Written; 3]) -> Vec<u8> {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <repomd xmlns=\"http://linux.duke.edu/metadata/repo\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n  \
         <revision>{}</revision>\n",
        order.number
    );
    for ((kind, name), file) in KINDS.into_iter().zip(names).zip(files) {
        text += &format!(
            "  <data type=\"{}\">\n    <checksum type=\"sha256\">{}</checksum>\n    \
             <location href=\"repodata/{name}\"/>\n    <timestamp>{}</timestamp>\n    <size>{}</size>\n    \
             <open-size>{}</open-size>\n  </data>\n",
            kind.name(),
            file.sha256,
            order.now,
            file.size,
            file.open_size
        );
    }
    let mut text = text.into_bytes();
    for (kind, element) in order.served.map(super::repomd::data_elements).unwrap_or_default() {
        if !super::repomd::is_own(&kind) {
            text.extend_from_slice(b"  ");
            text.extend_from_slice(element);
            text.push(b'\n');
        }
    }
    text.extend_from_slice(b"</repomd>\n");
    text
}

/// Writes the primary file of a fixed generation at `to`: the same members as those of what is served, but where packages
/// lie. `place` says that of a package; it is asked for those of groups that are not in `old`, the fixed file of the index.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn fix(
    index: &Index,
    repodata: &Path,
    old: Option<&File>,
    to: &Path,
    count: usize,
    mut place: impl FnMut(&str) -> anyhow::Result<String>,
) -> anyhow::Result<(Written, Members)> {
    let [primary, ..] = &index.files;
    let served = File::open(repodata.join(primary)).with_context(|| primary.clone())?;
    let parts = index.groups.iter().map(|group| match group.fixed.filter(|_| old.is_some()) {
        Some(member) => Ok(Part::Old(member)),
        None => {
            let [member, ..] = group.members;
            let text = unpacked(&served, member).context("failed to take apart what is served")?;
            Ok(Part::Text(Cow::Owned(rewrite::places(&text, &mut place)?)))
        }
    });
    let (head, end) = (Kind::Primary.head(count), Kind::Primary.end());
    let file = write::file(to, old, &head, parts, end).context("failed to write primary.xml")?;
    ensure!(file.members.len() == index.groups.len(), "a member is missing");
    Ok((file.written, Members(file.members)))
}
