//! Generations that stay: `generations/<N>` in a repository gives dnf exactly the packages of generation
//! N, also when the repository has gone on.
//!
//! ```text
//! REPO/repodata/              what is served: generation 9
//! REPO/foo-1-1/foo-1-1.x86_64.rpm
//! REPO/generations/8/repodata/   as it was served, but for the places of the packages:
//! REPO/generations/9/repodata/     ../rpms/7d0c…-foo-1-1.x86_64.rpm
//! REPO/generations/rpms/         one hard link for each package that any of them names
//! ```
//!
//! A link costs an entry in a folder, and keeps the package when REPO loses or replaces it. Where none can be
//! made (another file system, somebody else's file), the place of the package in REPO is named. A
//! generation is written under a name with a dot and renamed, so one that is there is whole. Which there
//! are the folder says; the [`Register`] remembers what would take long to find out.
//!
//! It deliberately does not know which of them are to be kept, and all of it blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use tracing::debug;

use super::ledger::Edition;
use super::links::{Links, RPMS, cannot_link, link_name, link_of};
use super::native::{self, FixedFile, Index, Members};
use super::packages::{GENERATIONS, Package, REPODATA};
use super::publish::{Served, make_folder, put_folder, read_repomd, write_new};
use super::register::{Made, Register};
use super::repomd::{self, MdFile, REPOMD, Repomd};
use super::retention::Held;
use super::rewrite;
use crate::durable;

/// The fixed generations of one repository.
pub(super) struct Generations {
    /// The repository's folder.
    folder: PathBuf,
    /// Where the register is kept.
    path: PathBuf,
    register: Register,
    /// Why nothing can be said of them, or done.
    trouble: Option<String>,
}

/// What the edition `since` had, and the next one has not.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) since: u64,
    pub(super) packages: Vec<Package>,
}

/// A generation that was written, and has no name yet.
struct Written {
    /// Of its metadata.
    bytes: u64,
    /// Those that it names.
    links: BTreeSet<String>,
    /// Why some packages have none.
    loose: Option<String>,
    /// What an index is to know of it.
    fixed: Option<(FixedFile, Members)>,
}

impl Generations {
    /// Settles what is there: removes what a crash or a failure has left, and finds out what the register does not
    /// say. When that fails, none can be made, and [`make`](Self::make) says why.
    pub(super) fn open(folder: &Path, path: &Path, now: u64) -> Self {
        let (folder, path) = (folder.to_owned(), path.to_owned());
        match Self::settled(&folder, &path, now) {
            Ok(register) => {
                let settled = Self { folder, path, register, trouble: None };
                if let Err(error) = settled.sweep() {
                    debug!("{}: failed to remove links that nobody needs: {error}", settled.folder.display());
                }
                settled
            }
            Err(error) => {
                let trouble = Some(format!("{}: {error}", folder.join(GENERATIONS).display()));
                Self { folder, path, register: Register::default(), trouble }
            }
        }
    }

    fn settled(folder: &Path, path: &Path, now: u64) -> io::Result<Register> {
        let mut register = Register::load(path)?;
        let at = folder.join(GENERATIONS);
        let mut there = BTreeSet::new();
        for name in names(&at)? {
            if name.starts_with('.') {
                remove_all(&at.join(name))?;
            } else if let Ok(number) = name.parse::<u64>()
                && name == number.to_string()
            {
                there.insert(number);
            }
        }
        let known = register.made.len();
        register.made.retain(|number, _| there.contains(number));
        let mut is_news = register.made.len() != known;
        is_news |= register.forget_lost(&names(&at.join(RPMS))?);
        for number in there {
            if !register.made.contains_key(&number) {
                let (bytes, links) = read_made(&at.join(number.to_string()));
                register.add(number, Made { of: None, bytes, superseded: Some(now), loose: None }, links);
                is_news = true;
            }
        }
        if is_news {
            register.forget_links();
            register.save(path)?;
        }
        Ok(register)
    }

    /// The highest number that one has or had.
    pub(super) fn highest(&self) -> Option<u64> {
        self.register.made.last_key_value().map(|(number, _)| *number)
    }

    /// What there is.
    pub(super) fn held(&self) -> Vec<Held> {
        let held = |(number, made): (&u64, &Made)| Held {
            number: *number,
            bytes: made.bytes,
            superseded: made.superseded,
        };
        self.register.made.iter().map(held).collect()
    }

    /// Removes generations, and the links that only they named; never the one that is served.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(super) fn remove(&mut self, numbers: &BTreeSet<u64>, served: Option<u64>) -> io::Result<()> {
        let at = self.folder.join(GENERATIONS);
        let mut removed = false;
        for number in numbers.iter().filter(|number| Some(**number) != served) {
            if self.register.made.remove(number).is_none() {
                continue;
            }
            take_away(&at, *number)?;
            debug!("{}: generation {number} is removed", self.folder.display());
            removed = true;
        }
        if removed {
            self.register.forget_links();
            self.register.save(&self.path)?;
            self.sweep()?;
        }
        Ok(())
    }

    /// Removes the links that no generation names.
    fn sweep(&self) -> io::Result<()> {
        let at = self.folder.join(GENERATIONS).join(RPMS);
        for name in names(&at)?.into_iter().filter(|name| !self.register.links.contains_key(name)) {
            remove_all(&at.join(name))?;
        }
        Ok(())
    }

    /// Whether this edition can be had where it stays.
    pub(super) fn has(&self, edition: &Edition) -> bool {
        self.register.made.get(&edition.number).is_some_and(|made| made.of == Some(edition.repomd))
    }

    /// Makes the folder for the edition that is served, if there is none of it; those before it are
    /// superseded now. Gives how many packages can have no link, and why not one of them.
    ///
    /// With an index of what is served, only what has changed since the fixed generation that it knows is made anew.
    /// `gone` is what has gone since the edition before.
    ///
    /// # Errors
    /// When that fails: there is nothing then, or all of it.
    pub(super) fn make(
        &mut self,
        edition: &Edition,
        now: u64,
        index: Option<&mut Index>,
        gone: Option<&Gone>,
    ) -> anyhow::Result<Option<(usize, String)>> {
        if let Some(trouble) = &self.trouble {
            bail!("{trouble}");
        }
        let is_missing = !self.has(edition);
        if is_missing {
            let at = self.folder.join(GENERATIONS);
            let part = at.join(format!(".{}", edition.number));
            let Written { bytes, links, loose, fixed } =
                self.write(&part, edition, index.as_deref(), gone)?;
            take_away(&at, edition.number).context("failed to remove what has its name")?;
            let name = at.join(edition.number.to_string());
            fs::rename(&part, &name).with_context(|| format!("failed to rename {}", part.display()))?;
            durable::sync_folder(&at).context("failed to sync its folder")?;
            if let (Some(index), Some((file, members))) = (index, fixed) {
                index.fixed_is(file, members);
            }
            let count = edition.packages.len().saturating_sub(links.len());
            let loose = loose.filter(|_| count > 0).map(|why| (count, why));
            let made = Made { of: Some(edition.repomd), bytes, superseded: None, loose };
            self.register.add(edition.number, made, links);
        }
        if self.register.supersede_but(edition.number, now) || is_missing {
            self.register.save(&self.path).context("failed to note it")?;
        }
        Ok(self.register.made.get(&edition.number).and_then(|made| made.loose.clone()))
    }

    /// Writes the folder of a generation, durable but for its name.
    fn write(
        &self,
        part: &Path,
        edition: &Edition,
        index: Option<&Index>,
        gone: Option<&Gone>,
    ) -> anyhow::Result<Written> {
        let at = self.folder.join(GENERATIONS);
        make_folder(&at)?;
        make_folder(&at.join(RPMS))?;
        remove_all(part)?;
        let to = part.join(REPODATA);
        put_folder(part)?;
        put_folder(&to)?;
        let served = Served::read(&self.folder)?.context("there is no repomd.xml")?;
        ensure!(served.digest == edition.repomd, "somebody else changed the served repomd.xml meanwhile");
        let repomd = served.repomd.context("repomd.xml cannot be read")?;

        let unnamed = to.join(".primary");
        let (links, primary, members) = match index {
            Some(index) => {
                let (links, primary, members) = self.build_upon(&unnamed, edition, index, gone)?;
                (links, primary, Some(members))
            }
            None => {
                let (links, primary) = self.build_anew(&unnamed, edition, &repomd)?;
                (links, primary, None)
            }
        };
        durable::sync_folder(&at.join(RPMS))?;
        let name = format!("{}-primary.xml.gz", primary.sha256);
        fs::rename(&unnamed, to.join(&name))?;

        let from = self.folder.join(REPODATA);
        let mut bytes = primary.size + served.text.len() as u64;
        for file in repomd.files.iter().filter(|file| stays(&file.kind)) {
            take(&from.join(&file.name), &to, file).with_context(|| file.name.clone())?;
            bytes += to.join(&file.name).metadata()?.len();
        }
        let text = rewrite::repomd(&served.text, &primary, &name, stays).context("repomd.xml")?;
        write_new(&to.join(REPOMD), text.as_slice())?;
        durable::sync_folder(&to)?;
        durable::sync_folder(part)?;
        let fixed = members.map(|members| (FixedFile { number: edition.number, name }, members));
        Ok(Written { bytes, links: links.names, loose: links.loose, fixed })
    }

    /// Writes the primary file of a generation, all of it.
    fn build_anew(
        &self,
        to: &Path,
        edition: &Edition,
        repomd: &Repomd,
    ) -> anyhow::Result<(Links<'_>, rewrite::Written)> {
        let old =
            repomd.files.iter().find(|file| file.kind == "primary").context("there is no primary.xml")?;
        let mut links = Links::new(&self.folder);
        links.there.extend(names(&self.folder.join(GENERATIONS).join(RPMS))?);
        let mut places = BTreeMap::new();
        for package in &edition.packages {
            places.insert(package.path.as_str(), links.place_of(package)?);
        }
        let file = OpenOptions::new().write(true).create_new(true).open(to)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let place = |href: &str| match places.get(href) {
            Some(place) => place.clone(),
            // Written in a way that is not known here: it is where it was.
            None => format!("../../{href}"),
        };
        let from = self.folder.join(REPODATA).join(&old.name);
        let primary = rewrite::primary(&from, &file, place).with_context(|| old.name.clone())?;
        file.sync_all()?;
        Ok((links, primary))
    }

    /// Writes the primary file of a generation upon the one that the index knows.
    fn build_upon(
        &self,
        to: &Path,
        edition: &Edition,
        index: &Index,
        gone: Option<&Gone>,
    ) -> anyhow::Result<(Links<'_>, rewrite::Written, Members)> {
        let old = index.open_fixed(&self.folder.join(GENERATIONS));
        let is_known = |number| self.register.made.get(&number).filter(|made| made.of.is_some());
        let old = old.and_then(|(FixedFile { number, .. }, file)| Some((*number, is_known(*number)?, file)));
        let mut links = Links::new(&self.folder);
        if let Some((number, made, _)) = &old {
            links.names = self.links_after(*number, edition, gone);
            links.loose = made.loose.as_ref().map(|(_, why)| why.clone());
        }
        let (served, count) = (self.folder.join(REPODATA), edition.packages.len());
        let old = old.as_ref().map(|(.., file)| file);
        let (primary, members) = native::fix(index, &served, old, to, count, |path| {
            let packages = &edition.packages;
            let found = packages.binary_search_by(|package| package.path.as_str().cmp(path));
            let package = found.ok().and_then(|found| packages.get(found));
            links.place_of(package.with_context(|| format!("{path} is not one of its packages"))?)
        })?;
        Ok((links, primary, members))
    }

    /// The links of an earlier generation that an edition needs too.
    fn links_after(&self, number: u64, edition: &Edition, gone: Option<&Gone>) -> BTreeSet<String> {
        let old = self.register.links_of(number);
        match gone.filter(|gone| gone.since == number) {
            Some(gone) => {
                let gone: BTreeSet<String> = gone.packages.iter().map(link_name).collect();
                old.filter(|link| !gone.contains(*link)).cloned().collect()
            }
            // Between them were others, of which none stays: what has gone with these is not known.
            None => {
                let old: BTreeSet<&String> = old.collect();
                edition.packages.iter().map(link_name).filter(|link| old.contains(link)).collect()
            }
        }
    }
}

/// Whether files of a kind are the same for a fixed generation: not those that name places of packages.
fn stays(kind: &str) -> bool {
    !kind.starts_with("primary") && !kind.ends_with("_db") && !kind.ends_with("_zck") && kind != "prestodelta"
}

/// Puts one of the served files into a generation: the same file, if that can be.
fn take(served: &Path, to: &Path, file: &MdFile) -> io::Result<()> {
    let path = to.join(&file.name);
    match fs::hard_link(served, &path) {
        Err(error) if cannot_link(&error) => write_new(&path, File::open(served)?).map(drop),
        linked => linked,
    }
}

/// Removes a generation so that nobody sees a part of it.
fn take_away(at: &Path, number: u64) -> io::Result<()> {
    let away = at.join(format!(".{number}.old"));
    remove_all(&away)?;
    match fs::rename(at.join(number.to_string()), &away) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => remove_all(&away),
    }
}

/// Removes a file, or a folder with all that is in it.
fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names in a folder, sorted; none when it is not there.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// What a generation is that the register does not know: the bytes of its metadata, and its links.
fn read_made(folder: &Path) -> (u64, Vec<String>) {
    let repodata = folder.join(REPODATA);
    let files = fs::read_dir(&repodata).into_iter().flatten().flatten();
    let bytes = files.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
    (bytes, places(folder).unwrap_or_default().iter().filter_map(link_of).collect())
}

/// Where a generation says that its packages are; `None` when it cannot be read.
fn places(folder: &Path) -> Option<BTreeSet<String>> {
    let repodata = folder.join(REPODATA);
    let repomd = Repomd::parse(&read_repomd(&repodata).ok()??).ok()?;
    let primary = repomd.files.iter().find(|file| file.kind == "primary")?;
    repomd::package_locations(&repodata.join(&primary.name))
}

/// What is wrong with the fixed generations of a repository: which file or folder, and what. Reads the
/// packages' places in all generations for `thorough`, else in the last one.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn inspect(folder: &Path, thorough: bool) -> io::Result<Vec<(PathBuf, Wrong)>> {
    let at = folder.join(GENERATIONS);
    let (mut found, mut numbers) = (Vec::new(), Vec::new());
    for name in names(&at)? {
        let path = at.join(&name);
        match name.parse::<u64>() {
            Ok(number) if name == number.to_string() => numbers.push(number),
            _ if name == RPMS => {}
            _ if name.starts_with('.') && path.is_dir() => found.push((path, Wrong::Leftover)),
            _ => found.push((path, Wrong::Foreign)),
        }
    }
    numbers.sort_unstable();
    let last = numbers.last().copied();
    for number in numbers {
        let path = at.join(number.to_string());
        let is_whole = Served::read(&path)?.is_some_and(|served| served.is_whole(&path));
        let damage = match is_whole {
            false => Some("its metadata are damaged".to_owned()),
            true if thorough || Some(number) == last => match places(&path) {
                None => Some("its primary.xml is damaged".to_owned()),
                Some(places) => {
                    let lost = places.iter().find(|place| !path.join(place.as_str()).is_file());
                    lost.map(|place| format!("its package {place} is not there"))
                }
            },
            true => None,
        };
        found.extend(damage.map(|why| (path, Wrong::Damaged(why))));
    }
    Ok(found)
}

/// What can be wrong in the folder of the generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A crash has left it.
    Leftover,
    /// Nobody here has put it there.
    Foreign,
    /// It cannot be used; the text says why.
    Damaged(String),
}

#[cfg(test)]
#[path = "generations_tests.rs"]
mod tests;
