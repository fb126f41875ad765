//! Hard links of a repository's packages, one for each that a generation names: what it is in REPO decides what a link
//! is called.
//!
//! It deliberately does not know generations, nor when a link may go.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use moji_proto::Sha256;

use super::packages::{GENERATIONS, Package};

/// The folder of the links, in the folder of the generations.
pub(super) const RPMS: &str = "rpms";
/// The longest file name that every file system takes.
const NAME_MAX: usize = 255;

/// The links that a generation names.
pub(super) struct Links<'a> {
    /// The repository's folder.
    folder: &'a Path,
    /// Those that are known to be there, so that nobody has to try.
    pub(super) there: BTreeSet<String>,
    /// Those that it names.
    pub(super) names: BTreeSet<String>,
    /// Why some package has none.
    pub(super) loose: Option<String>,
}

impl<'a> Links<'a> {
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder, there: BTreeSet::new(), names: BTreeSet::new(), loose: None }
    }

    /// Makes a package's link, if there is none. Gives where a generation finds the package.
    pub(super) fn place_of(&mut self, package: &Package) -> anyhow::Result<String> {
        let name = link_name(package);
        if !self.there.contains(&name) {
            let to = self.folder.join(GENERATIONS).join(RPMS).join(&name);
            match link(&self.folder.join(&package.path), &to, package) {
                Err(error) if cannot_link(&error) => {
                    self.loose.get_or_insert_with(|| error.to_string());
                    return Ok(format!("../../{}", package.path));
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context(package.path.clone()).context("failed to keep the packages");
                }
                _ => {}
            }
        }
        let place = format!("../{RPMS}/{name}");
        self.names.insert(name);
        Ok(place)
    }
}

/// What a package is called among the links: what it is in REPO decides, so that another file of the same
/// name has another link.
pub(super) fn link_name(package: &Package) -> String {
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
pub(super) fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
    )
}
