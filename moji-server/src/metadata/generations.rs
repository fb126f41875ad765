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
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use moji_proto::Sha256;
use tracing::debug;

use super::ledger::Edition;
use super::packages::{GENERATIONS, Package, REPODATA};
use super::publish::{self, make_folder, read_repomd, write_new};
use super::register::{Made, Register};
use super::repomd::{self, MdFile, REPOMD, Repomd};
use super::retention::Held;
use super::rewrite;
use crate::durable;

/// The folder of the links, in the folder of the generations.
pub(super) const RPMS: &str = "rpms";
/// The longest file name that every file system takes.
const NAME_MAX: usize = 255;

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

/// What became of making a generation that stays.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fixed {
    /// Packages for which no link could be made, and why not the first of them.
    pub(super) loose: Option<(usize, String)>,
}

/// Where a generation finds packages, by their paths in REPO.
type PlacesOf = BTreeMap<String, String>;

impl Generations {
    /// Settles what is there: removes what a crash has left, and finds out what the register does not say.
    /// When that fails, none can be made, and [`make`](Self::make) says why.
    pub(super) fn open(folder: &Path, path: &Path, now: u64) -> Self {
        let (folder, path) = (folder.to_owned(), path.to_owned());
        match Self::settled(&folder, &path, now) {
            Ok(register) => Self { folder, path, register, trouble: None },
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
        let before = register.clone();
        register.made.retain(|number, _| there.contains(number));
        for number in there {
            if !register.made.contains_key(&number) {
                let (bytes, links) = read_made(&at.join(number.to_string()));
                register.add(number, Made { of: None, bytes, superseded: Some(now) }, links);
            }
        }
        if register != before {
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
    /// superseded now.
    ///
    /// # Errors
    /// When that fails: there is nothing then, or all of it.
    pub(super) fn make(&mut self, edition: &Edition, now: u64) -> anyhow::Result<Fixed> {
        if let Some(trouble) = &self.trouble {
            bail!("{trouble}");
        }
        let (mut fixed, before) = (Fixed::default(), self.register.clone());
        if !self.has(edition) {
            let at = self.folder.join(GENERATIONS);
            let links =
                self.link(&at, &edition.packages, &mut fixed).context("failed to keep the packages")?;
            let part = at.join(format!(".{}", edition.number));
            let bytes = self.write(&part, edition, &links)?;
            take_away(&at, edition.number).context("failed to remove what has its name")?;
            let name = at.join(edition.number.to_string());
            fs::rename(&part, &name).with_context(|| format!("failed to rename {}", part.display()))?;
            durable::sync_folder(&at).context("failed to sync its folder")?;
            let made = Made { of: Some(edition.repomd), bytes, superseded: None };
            self.register.add(edition.number, made, links.into_values().filter_map(link_of));
        }
        self.register.supersede_but(edition.number, now);
        if self.register != before {
            self.register.save(&self.path).context("failed to note it")?;
        }
        Ok(fixed)
    }

    /// Links the packages that have no link yet. Gives for each path where a generation finds it.
    fn link(&self, at: &Path, packages: &[Package], fixed: &mut Fixed) -> anyhow::Result<PlacesOf> {
        let rpms = at.join(RPMS);
        make_folder(at)?;
        make_folder(&rpms)?;
        let there: BTreeSet<String> = names(&rpms)?.into_iter().collect();
        let mut places = PlacesOf::new();
        for package in packages {
            let name = link_name(package);
            let place = if there.contains(&name) {
                format!("../{RPMS}/{name}")
            } else {
                match link(&self.folder.join(&package.path), &rpms.join(&name), package) {
                    Ok(()) => format!("../{RPMS}/{name}"),
                    Err(error) if cannot_link(&error) => {
                        fixed.loose.get_or_insert((0, error.to_string())).0 += 1;
                        format!("../../{}", package.path)
                    }
                    Err(error) => return Err(error).context(package.path.clone()),
                }
            };
            places.insert(package.path.clone(), place);
        }
        durable::sync_folder(&rpms)?;
        Ok(places)
    }

    /// Writes the folder of a generation; gives the bytes of its metadata.
    fn write(&self, part: &Path, edition: &Edition, places: &PlacesOf) -> anyhow::Result<u64> {
        let (served, to) = (self.folder.join(REPODATA), part.join(REPODATA));
        remove_all(part)?;
        make_folder(part)?;
        make_folder(&to)?;
        let text = read_repomd(&served)?.context("there is no repomd.xml")?;
        ensure!(Sha256::of(&text) == edition.repomd, "somebody else changed the served repomd.xml meanwhile");
        let repomd = Repomd::parse(&text).context("repomd.xml")?;
        let old =
            repomd.files.iter().find(|file| file.kind == "primary").context("there is no primary.xml")?;

        let unnamed = to.join(".primary");
        let file = OpenOptions::new().write(true).create_new(true).open(&unnamed)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let place = |href: &str| match places.get(href) {
            Some(place) => place.clone(),
            // Written in a way that is not known here: it is where it was.
            None => format!("../../{href}"),
        };
        let primary =
            rewrite::primary(&served.join(&old.name), &file, place).with_context(|| old.name.clone())?;
        file.sync_all()?;
        let name = format!("{}-primary.xml.gz", primary.sha256);
        fs::rename(&unnamed, to.join(&name))?;

        let mut bytes = primary.size + text.len() as u64;
        for file in repomd.files.iter().filter(|file| stays(&file.kind)) {
            take(&served.join(&file.name), &to, file).with_context(|| file.name.clone())?;
            bytes += to.join(&file.name).metadata()?.len();
        }
        let text = rewrite::repomd(&text, &primary, &name, stays).context("repomd.xml")?;
        write_new(&to.join(REPOMD), text.as_slice())?;
        durable::sync_folder(&to)?;
        durable::sync_folder(part)?;
        Ok(bytes)
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

/// What a package is called among the links: what it is in REPO decides, so that another file of the same
/// name has another link.
fn link_name(package: &Package) -> String {
    let Package { path, size, modified: (seconds, nanos), inode } = package;
    let digest = Sha256::of(format!("{path}\n{size}\n{seconds}.{nanos}\n{inode}").as_bytes()).to_string();
    let name = path.rsplit('/').next().unwrap_or_default();
    // Nothing that means something in a URL.
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._+~^-".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    let digest = digest.get(..16).unwrap_or_default();
    let name = name.get(name.len().saturating_sub(NAME_MAX - 17)..).unwrap_or_default();
    format!("{digest}-{name}")
}

/// The link that a place names, if it names one.
pub(super) fn link_of(place: impl AsRef<str>) -> Option<String> {
    let name = place.as_ref().strip_prefix("../")?.strip_prefix(RPMS)?.strip_prefix('/')?;
    Some(name.to_owned())
}

fn link(from: &Path, to: &Path, package: &Package) -> io::Result<()> {
    fs::hard_link(from, to)?;
    let found = fs::symlink_metadata(to)?;
    let same = found.ino() == package.inode
        && found.len() == package.size
        && (found.mtime(), found.mtime_nsec()) == package.modified;
    if same {
        return Ok(());
    }
    fs::remove_file(to)?;
    Err(io::Error::other("it was replaced meanwhile"))
}

/// Whether an error says that this file can have no link, rather than that something is wrong.
fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
    )
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
        let damage = match publish::served_whole(&path)? {
            None => Some("its metadata are damaged".to_owned()),
            Some(_) if thorough || Some(number) == last => match places(&path) {
                None => Some("its primary.xml is damaged".to_owned()),
                Some(places) => {
                    let lost = places.iter().find(|place| !path.join(place.as_str()).is_file());
                    lost.map(|place| format!("its package {place} is not there"))
                }
            },
            Some(_) => None,
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
