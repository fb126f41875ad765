//! Makes a staged generation the served one, so that a reader of `repomd.xml` and of what it names
//! finds everything, whole, at every moment and after a crash at any moment.
//!
//! Files are copied into the served folder under a name with a dot, and renamed there: so they get
//! the SELinux label and the default ACL of that folder, which a rename from elsewhere would not give
//! them, and staging may lie on any file system. They are 0644 whatever the umask: who may read the
//! repository is decided by the modes of REPO and the folders above it.
//!
//! It deliberately does not know how the generation was made, and all of it blocks.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use moji_proto::Sha256;
use moji_proto::digest::Hasher;

use super::ledger::{Edition, Ledger};
use super::packages::REPODATA;
use super::repomd::{MdFile, REPOMD, REPOMD_MAX, Repomd};
use crate::crash::steps;
use crate::durable;

/// How the names of files begin that are being written in the served `repodata`.
pub(crate) const UNFINISHED: &str = ".moji-";
const PIECE: usize = 256 * 1024;

steps! {
    /// The steps, in order. The second column is what a crash right after a step leaves; readers have a
    /// whole generation in every row, and the next start (`settle`) tidies up as the third column says.
    ///
    /// | after | served | next start |
    /// |---|---|---|
    /// | `Checked` | old | removes staging, runs again |
    /// | `Recorded` | old | sees that `repomd.xml` is not the pending one; forgets that; runs again |
    /// | `Placed` | old, and files that nothing names | the same, and deletes those files |
    /// | `PlacedDurably` | the same | the same |
    /// | `Written` | the same, and `.moji-repomd.xml` | the same, and deletes that |
    /// | `Switched` | new; old again if the power fails too, and its files are there | sees which one it is, by digest; either is whole |
    /// | `SwitchedDurably` | new | sees that `repomd.xml` is the pending one; settles the ledger |
    /// | `Settled` | new | makes it where it stays, if that was not done |
    pub enum Step {
        /// Every file that the staged `repomd.xml` names is there with that size and digest.
        Checked,
        /// The ledger says which generation is about to come, and what it replaces.
        Recorded,
        /// The files are in the served `repodata` under their final names, each durable.
        Placed,
        /// And their names are durable.
        PlacedDurably,
        /// The new `repomd.xml` lies beside the old one, durable, under a name with a dot.
        Written,
        /// It has taken the old one's place.
        Switched,
        /// Durably.
        SwitchedDurably,
        /// The ledger says so.
        Settled,
    }
}

/// What to publish, and where.
pub(super) struct Publication<'a> {
    /// The repository's folder.
    pub(super) folder: &'a Path,
    /// What is to be served.
    pub(super) staged: Staged<'a>,
    /// Where the ledger is kept.
    pub(super) ledger: &'a Path,
    /// What this generation was made to follow.
    pub(super) follows: Option<&'a Served>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// The `repomd.xml` of a repository, read once.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) text: Vec<u8>,
    pub(super) digest: Sha256,
    /// What it says; `None` when it cannot be read.
    pub(super) repomd: Option<Repomd>,
}

impl Served {
    /// The text of one that was read.
    pub(super) fn of(text: Vec<u8>) -> Self {
        Self { digest: Sha256::of(&text), repomd: Repomd::parse(&text).ok(), text }
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        Ok(read_repomd(&folder.join(REPODATA))?.map(Self::of))
    }

    /// Whether all that it names is there with the size that it gives.
    pub(super) fn is_whole(&self, folder: &Path) -> bool {
        let repodata = folder.join(REPODATA);
        let is_there = |file: &MdFile| {
            fs::metadata(repodata.join(&file.name))
                .is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
        };
        self.repomd.as_ref().is_some_and(|repomd| repomd.files.iter().all(is_there))
    }

    /// The names of the files that it names.
    pub(super) fn names(&self) -> Vec<String> {
        self.repomd.as_ref().map(Repomd::names).unwrap_or_default()
    }
}

/// Where the next generation is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Staged<'a> {
    /// In this folder: `repomd.xml` and its files, which somebody else made, so they are checked.
    Folder(&'a Path),
    /// Its files are in the served `repodata` already, digested and durable, each under its name with
    /// [`UNFINISHED`] before it; this is its `repomd.xml`.
    Beside(&'a [u8]),
}

/// Why a generation was not published. The served one is untouched, unless the message says else.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error("the staged metadata are not usable: {0}")]
    Staged(String),
    #[error("somebody else changed the served repomd.xml meanwhile")]
    Overtaken,
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PublishError + use<'a> {
    move |source| PublishError::Io { what, path: path.to_owned(), source }
}

/// Publishes. `edition` gives number and packages; digest, names and what is replaced are filled in.
/// `passed` is told each step after it was taken: tests end it there, as a crash would.
///
/// # Errors
/// See [`PublishError`]; and what `passed` returns.
pub(super) fn publish(
    publication: &Publication<'_>,
    ledger: &mut Ledger,
    mut edition: Edition,
    mut passed: impl FnMut(Step) -> Result<(), PublishError>,
) -> Result<(), PublishError> {
    let Publication { folder, staged, follows, now, .. } = *publication;
    let repodata = &folder.join(REPODATA);

    let text = match staged {
        Staged::Folder(staged) => read_repomd(staged)
            .map_err(io_error("failed to read", &staged.join(REPOMD)))?
            .ok_or_else(|| PublishError::Staged("there is no repomd.xml".to_owned()))?,
        Staged::Beside(text) => text.to_owned(),
    };
    let repomd =
        Repomd::parse(&text).map_err(|error| PublishError::Staged(format!("repomd.xml: {error}")))?;
    if repomd.revision != Some(edition.number) || !repomd.files.iter().any(|file| file.kind == "primary") {
        return Err(PublishError::Staged(
            "repomd.xml has no primary.xml, or not the revision asked for".to_owned(),
        ));
    }
    if let Staged::Folder(staged) = staged {
        for file in &repomd.files {
            check(&staged.join(&file.name), file)
                .map_err(|why| PublishError::Staged(format!("{}: {why}", file.name)))?;
        }
    }
    passed(Step::Checked)?;

    make_folder(repodata).map_err(io_error("failed to make", repodata))?;
    edition.replaces = follows.map(Served::names).unwrap_or_default();
    edition.repomd = Sha256::of(&text);
    edition.files = repomd.names();
    ledger.pending = Some(edition);
    ledger.save_pending(publication.ledger).map_err(io_error("failed to write", publication.ledger))?;
    passed(Step::Recorded)?;

    for file in &repomd.files {
        match staged {
            Staged::Folder(staged) => place(&staged.join(&file.name), repodata, file)?,
            Staged::Beside(_) => place_beside(repodata, file)?,
        }
    }
    passed(Step::Placed)?;
    durable::sync_folder(repodata).map_err(io_error("failed to sync", repodata))?;
    passed(Step::PlacedDurably)?;

    let unfinished = repodata.join(format!("{UNFINISHED}{REPOMD}"));
    write_new(&unfinished, text.as_slice()).map_err(io_error("failed to write", &unfinished))?;
    passed(Step::Written)?;
    let served = read_repomd(repodata).map_err(io_error("failed to read repomd.xml in", repodata))?;
    if served.as_deref() != follows.map(|follows| follows.text.as_slice()) {
        return Err(PublishError::Overtaken);
    }
    fs::rename(&unfinished, repodata.join(REPOMD)).map_err(io_error("failed to rename", &unfinished))?;
    passed(Step::Switched)?;
    durable::sync_folder(repodata)
        .map_err(io_error("the new metadata are served, but failed to sync", repodata))?;
    passed(Step::SwitchedDurably)?;

    ledger.promote(now);
    ledger
        .save(publication.ledger)
        .map_err(io_error("the new metadata are served, but failed to write", publication.ledger))?;
    passed(Step::Settled)
}

/// Settles what an earlier run left: the ledger against the served `repomd.xml`, unfinished files, and
/// files that were superseded at least `keep` seconds ago. Files that no generation of this server
/// named or replaced are somebody else's, and stay. Returns what is served.
///
/// # Errors
/// When the folder or the ledger cannot be read or written.
pub(super) fn settle(
    folder: &Path,
    ledger_path: &Path,
    ledger: &mut Ledger,
    now: u64,
    keep: u64,
) -> io::Result<Option<Served>> {
    let repodata = folder.join(REPODATA);
    let before = (ledger.pending.is_some(), ledger.superseded.clone());
    let served = Served::read(folder)?;
    ledger.settle(served.as_ref().map(|served| served.digest), now);
    let named = served.as_ref().map(Served::names).unwrap_or_default();
    for name in ledger.take_expired(now, keep) {
        if !named.contains(&name) {
            remove(&repodata.join(&name))?;
        }
    }
    if repodata.is_dir() {
        for entry in fs::read_dir(&repodata)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                remove(&entry.path())?;
            }
        }
    }
    if before != (false, ledger.superseded.clone()) {
        ledger.save(ledger_path)?;
    }
    Ok(served)
}

/// Makes the folder `path` if it is missing, durable and readable by everyone whatever the umask. Its
/// parent must be there.
///
/// # Errors
/// When that fails, or something else has the name.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if put_folder(path)? { path.parent().map_or(Ok(()), durable::sync_folder) } else { Ok(()) }
}

/// The same, and its name is durable only when the caller has synced its parent. Gives whether it was missing.
///
/// # Errors
/// As [`make_folder`].
pub(super) fn put_folder(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn read_repomd(repodata: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(repodata.join(REPOMD)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = Vec::new();
    file.take(REPOMD_MAX).read_to_end(&mut text)?;
    Ok(Some(text))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the file is what `repomd.xml` says; the text completes its name.
pub(super) fn check(path: &Path, expected: &MdFile) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let (size, digest) = copy(file, &mut io::sink()).map_err(|error| error.to_string())?;
    if expected.size.is_some_and(|expected| expected != size) {
        Err(format!("it has {size} bytes, which is not what repomd.xml says"))
    } else if expected.sha256 != Some(digest) {
        Err(format!("its SHA-256 is {digest}, which is not what repomd.xml says"))
    } else {
        Ok(())
    }
}

/// Puts a checked file into `repodata` under its name. One that is there already stays if it is the
/// same; names hold the digest, so another one is a damaged one. So may be one that the disk has not taken: that is
/// told once, and it is written anew.
fn place(staged: &Path, repodata: &Path, file: &MdFile) -> Result<(), PublishError> {
    let path = repodata.join(&file.name);
    if check(&path, file).is_ok() && durable::sync_file(&path).is_ok() {
        return Ok(());
    }
    let unfinished = repodata.join(format!("{UNFINISHED}{}", file.name));
    let digest = File::open(staged)
        .and_then(|staged| write_new(&unfinished, staged))
        .map_err(io_error("failed to write", &unfinished))?;
    if file.sha256 != Some(digest) {
        return Err(PublishError::Staged(format!("{} changed while it was copied", file.name)));
    }
    fs::rename(&unfinished, &path).map_err(io_error("failed to rename", &unfinished))
}

/// Gives a durable file beside those that are served its name. What has no such file is served already.
fn place_beside(repodata: &Path, file: &MdFile) -> Result<(), PublishError> {
    let (path, unfinished) = (repodata.join(&file.name), repodata.join(format!("{UNFINISHED}{}", file.name)));
    match fs::rename(&unfinished, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check(&path, file).map_err(|why| PublishError::Staged(format!("{}: {why}", file.name)))
        }
        renamed => renamed.map_err(io_error("failed to rename", &unfinished)),
    }
}

/// Writes a durable file that everyone can read, and gives its digest.
pub(super) fn write_new(path: &Path, from: impl Read) -> io::Result<Sha256> {
    remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    let (_, digest) = copy(from, &mut file)?;
    file.sync_all()?;
    Ok(digest)
}

fn copy(mut from: impl Read, to: &mut impl io::Write) -> io::Result<(u64, Sha256)> {
    let (mut piece, mut size, mut hasher) = (vec![0; PIECE], 0, Hasher::new());
    loop {
        let count = match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let bytes = piece.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok((size, hasher.finish()));
        }
        size += bytes.len() as u64;
        hasher.update(bytes);
        to.write_all(bytes)?;
    }
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
