//! Files and folders beneath an opened folder, without a link on the way.
//!
//! A path is looked up anew at each use: between two looks, somebody who may write along it can put a
//! link there, and what was meant for staging is written elsewhere. What begins at an opened folder and
//! follows no link stays beneath it, whatever is renamed meanwhile. The kernel sees to that
//! (`openat2(2)` with `RESOLVE_BENEATH`, Linux 5.6); where it cannot, or a sandbox does not let it, each
//! part of the path is opened by itself without following it. Only regular files are opened: a FIFO
//! would stop the server, a device do anything.
//!
//! **The border.** Through here goes whatever a peer names or fills, and whatever others than the server
//! can put into its way: results and logs in staging, the SRPM on its way to a builder, `build.json`, the
//! records in FINISHED. Not through here: the four folders themselves and what the operator names
//! (their paths may well have links in them), `priority.txt` and `requires.txt` (which may be links to
//! somebody's checkout), and renames of whole entries with checked names, which never follow the entry itself.
//!
//! All of it blocks. It knows neither attempts nor names: that these are checked is the types' business,
//! and that a name is one part of a path is checked once more.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How every folder is opened: for listing and fsync too, which an `O_PATH` cannot do.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How every file is opened, besides: whatever it turns out to be, opening it does nothing.
const FILE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// What the kernel is asked to see to.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// What nobody but the server reads.
const PRIVATE_FOLDER: Mode = Mode::RWXU;

/// An opened folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// For messages, and for asking about the disk.
    path: PathBuf,
    lookup: Lookup,
}

/// Who keeps a path beneath its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    /// The kernel.
    Kernel,
    /// This module: one part of the path after the other.
    Parts,
}

impl Lookup {
    /// Which of them works here.
    fn here() -> Self {
        static HERE: OnceLock<Lookup> = OnceLock::new();
        *HERE.get_or_init(|| Self::after(rustix::fs::openat2(CWD, ".", FOLDER, Mode::empty(), BENEATH)))
    }

    /// An old kernel does not know the call, nor does a sandbox that is older than it.
    fn after<T>(tried: Result<T, Errno>) -> Self {
        match tried {
            Err(Errno::NOSYS | Errno::PERM) => Self::Parts,
            _ => Self::Kernel,
        }
    }
}

impl Folder {
    /// Opens a folder that is not a peer's to name: links in `path` are followed.
    ///
    /// # Errors
    /// When it is not there, or is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned(), lookup: Lookup::here() })
    }

    /// Opens the folder `path`, which is made when it is missing. Links on the way to it are followed;
    /// itself it must be none.
    ///
    /// # Errors
    /// When it cannot be made, or something else stands there.
    pub fn make(path: &Path) -> io::Result<Self> {
        let (parent, name) = split(path)?;
        Self::open(parent)?.make_folder(name)
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder beneath.
    ///
    /// # Errors
    /// When it is not there, is no folder, or a link is on the way.
    pub fn folder(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let fd = self.open_beneath(path, FOLDER, Mode::empty())?;
        Ok(Self { fd, path: self.path.join(path), lookup: self.lookup })
    }

    /// Opens a folder in this one, which is made when it is missing, for the server's eyes only.
    ///
    /// # Errors
    /// As [`Self::folder`]; and when the disk is full.
    pub fn make_folder(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = one_part(name.as_ref())?;
        match rustix::fs::mkdirat(&self.fd, name, PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => self.folder(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file beneath, for reading.
    ///
    /// # Errors
    /// When it is not there, is anything else, or a link is on the way.
    pub fn open_file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        self.file(path.as_ref(), OFlags::RDONLY, Mode::empty())
    }

    /// Opens a regular file in this folder for reading and appending; it is made when it is missing.
    ///
    /// # Errors
    /// As [`Self::open_file`]; and when the disk is full.
    pub fn append(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        self.file(one_part(name.as_ref())?, flags, Mode::from_raw_mode(0o666))
    }

    /// Makes a file in this folder, for writing. What is there already is not opened.
    ///
    /// # Errors
    /// When something has that name, or the disk is full.
    pub fn create_new(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.file(one_part(name.as_ref())?, flags, Mode::from_raw_mode(0o666))
    }

    /// Moves an entry, whatever it is, in place of what has the new name.
    ///
    /// # Errors
    /// When it is not there, or cannot be moved.
    pub fn rename(&self, name: impl AsRef<Path>, to: &Self, new: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, one_part(name.as_ref())?, &to.fd, one_part(new.as_ref())?)?)
    }

    /// Removes an entry, whatever it is, with all that is in it. That nothing is there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let name = one_part(name.as_ref())?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                let folder = self.folder(name)?;
                for entry in folder.names()? {
                    folder.remove(entry)?;
                }
                Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes its entries durable.
    ///
    /// # Errors
    /// When fsync(2) fails.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Sets its mode.
    ///
    /// # Errors
    /// When it belongs to another user.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    fn file(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
        let file = File::from(self.open_beneath(path, flags | FILE, mode)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(file)
    }

    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let parts = parts(path)?;
        if self.lookup == Lookup::Kernel {
            return Ok(rustix::fs::openat2(&self.fd, path, flags, mode, BENEATH)?);
        }
        let Some((last, before)) = parts.split_last() else { return Err(no_name(path)) };
        let mut at: Option<OwnedFd> = None;
        for part in before {
            let from = at.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            at = Some(open_part(from, part, FOLDER, Mode::empty())?);
        }
        Ok(open_part(at.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd), last, flags, mode)?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens the regular file `path` for reading: links on the way to it are followed, itself it must be none.
///
/// # Errors
/// When it is not there, or is anything else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let (parent, name) = split(path)?;
    Folder::open(parent)?.open_file(name)
}

/// Folder and name of a path.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().ok_or_else(|| no_name(path))?;
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Opens one part of a path, which must be no link.
fn open_part(at: BorrowedFd<'_>, part: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, part, flags | OFlags::NOFOLLOW, mode)
}

/// The names that a path is made of.
fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    let part = |part| match part {
        Component::Normal(name) => Ok(name),
        _ => Err(no_name(path)),
    };
    let parts = path.components().map(part).collect::<io::Result<Vec<_>>>()?;
    if parts.is_empty() { Err(no_name(path)) } else { Ok(parts) }
}

fn one_part(path: &Path) -> io::Result<&Path> {
    if parts(path)?.len() == 1 && !path.as_os_str().as_bytes().contains(&b'/') {
        Ok(path)
    } else {
        Err(no_name(path))
    }
}

fn no_name(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} names nothing beneath a folder"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use rustix::fs::FileType;

    use super::*;

    /// A folder with what a hostile neighbour may have put there, and a secret beside it; once for each
    /// way to look up.
    fn each_way(test: impl Fn(&Path, &Folder)) {
        for lookup in [Lookup::Kernel, Lookup::Parts] {
            let at = tempfile::tempdir().unwrap();
            let inside = at.path().join("inside");
            fs::create_dir_all(inside.join("folder")).unwrap();
            fs::create_dir(at.path().join("outside")).unwrap();
            for file in ["outside/secret", "inside/file", "inside/folder/file"] {
                fs::write(at.path().join(file), file).unwrap();
            }
            symlink("../outside/secret", inside.join("to-file")).unwrap();
            symlink("../outside", inside.join("to-folder")).unwrap();
            symlink("folder", inside.join("to-sibling")).unwrap();
            symlink("/proc/self/root", inside.join("magic")).unwrap();
            symlink("nowhere", inside.join("dangling")).unwrap();
            rustix::fs::mknodat(CWD, inside.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
            let folder = Folder { lookup, ..Folder::open(&inside).unwrap() };
            test(at.path(), &folder);
            assert_eq!(fs::read(at.path().join("outside/secret")).unwrap(), b"outside/secret", "{lookup:?}");
            assert_eq!(fs::read_dir(at.path().join("outside")).unwrap().count(), 1, "{lookup:?}");
            assert!(!inside.join("nowhere").exists(), "{lookup:?}");
        }
    }

    fn content(file: io::Result<File>) -> String {
        let mut text = String::new();
        file.unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_beneath_is_found() {
        each_way(|at, folder| {
            assert_eq!(content(folder.open_file("file")), "inside/file");
            assert_eq!(content(folder.open_file("folder/file")), "inside/folder/file");
            folder.folder("folder").unwrap().append("file").unwrap().write_all(b"+").unwrap();
            assert_eq!(content(folder.open_file("folder/file")), "inside/folder/file+");
            folder.make_folder("new").unwrap().create_new("file").unwrap().write_all(b"new").unwrap();
            let new = folder.make_folder("new").unwrap();
            assert_eq!(new.path(), at.join("inside/new"));
            new.rename("file", folder, "moved").unwrap();
            new.sync().unwrap();
            new.set_mode(0o750).unwrap();
            assert_eq!((new.names().unwrap(), content(folder.open_file("moved"))), (vec![], "new".into()));
            for name in ["folder", "new", "moved", "to-folder", "magic", "never there"] {
                folder.remove(name).unwrap();
            }
            assert_eq!(folder.names().unwrap(), ["dangling", "fifo", "file", "to-file", "to-sibling"]);
        });
    }

    #[test]
    fn no_link_is_followed() {
        each_way(|_, folder| {
            for name in ["to-file", "to-folder", "to-sibling", "magic", "dangling"] {
                assert!(folder.open_file(name).is_err(), "{name}");
                assert!(folder.append(name).is_err(), "{name}");
                assert!(folder.create_new(name).is_err(), "{name}");
                assert!(folder.folder(name).is_err(), "{name}");
                assert!(folder.make_folder(name).is_err(), "{name}");
            }
            for path in ["to-folder/secret", "to-sibling/file", "magic/etc/passwd", "folder/../file"] {
                assert!(folder.open_file(path).is_err(), "{path}");
            }
            for path in ["", ".", "..", "/", "/etc/passwd", "../outside/secret", "folder/../../outside"] {
                assert!(folder.open_file(path).is_err(), "{path}");
                assert!(folder.folder(path).is_err(), "{path}");
                assert!(folder.append(path).is_err(), "{path}");
                assert!(folder.remove(path).is_err(), "{path}");
                assert!(folder.rename(path, folder, "x").is_err(), "{path}");
                assert!(folder.rename("file", folder, path).is_err(), "{path}");
            }
            for path in ["folder/file", "folder/", "./file"] {
                assert!(folder.remove(path).is_err(), "{path}: not one part");
                assert!(folder.append(path).is_err(), "{path}: not one part");
            }
        });
    }

    #[test]
    fn links_are_moved_and_removed_themselves() {
        each_way(|at, folder| {
            folder.rename("to-file", folder, "file").unwrap();
            assert!(at.join("inside/file").is_symlink());
            folder.rename("to-folder", folder, "to-sibling").unwrap();
            folder.remove("to-sibling").unwrap();
            folder.remove("file").unwrap();
        });
    }

    #[test]
    fn only_regular_files_are_opened() {
        each_way(|at, folder| {
            assert!(at.join("inside/fifo").symlink_metadata().unwrap().file_type().is_fifo());
            // None of these may wait for somebody at the other end.
            for name in ["fifo", "folder"] {
                assert!(folder.open_file(name).is_err(), "{name}");
                assert!(folder.append(name).is_err(), "{name}");
            }
        });
        let devices = Folder::open(Path::new("/dev")).unwrap();
        for lookup in [Lookup::Kernel, Lookup::Parts] {
            let devices = Folder { lookup, ..Folder::open(devices.path()).unwrap() };
            let error = devices.open_file("null").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert!(open_regular(Path::new("/dev/null")).is_err());
        assert!(open_regular(Path::new("/proc/self/exe")).is_err(), "a magic link");
    }

    #[test]
    fn the_kernel_is_asked_when_it_can() {
        assert_eq!(Lookup::after::<()>(Err(Errno::NOSYS)), Lookup::Parts);
        assert_eq!(Lookup::after::<()>(Err(Errno::PERM)), Lookup::Parts);
        assert_eq!(Lookup::after::<()>(Err(Errno::ACCESS)), Lookup::Kernel);
        assert_eq!(Lookup::after(Ok(())), Lookup::Kernel);
    }

    /// A folder that was opened stays the same one, whatever takes its name.
    #[test]
    fn a_folder_that_is_exchanged_is_no_way_out() {
        each_way(|at, folder| {
            let opened = folder.folder("folder").unwrap();
            fs::rename(at.join("inside/folder"), at.join("inside/away")).unwrap();
            symlink("../outside", at.join("inside/folder")).unwrap();
            opened.create_new("late").unwrap();
            assert!(at.join("inside/away/late").exists());
        });
    }
}
