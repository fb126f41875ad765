//! The XML of single packages, as `createrepo_c` wrote it: taken apart, and kept in a file, because that of a large
//! repository is too much for the memory.
//!
//! It deliberately does not know groups, nor what the XML says beyond which package it is of.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::super::repomd::{REPOMD, Repomd, attribute};
use super::{KINDS, Kind};

/// How a package ends in each of the three files.
const END: &[u8] = b"</package>\n";
/// How it begins.
const BEGIN: &[u8] = b"<package";
/// No honest package has more XML than that: its largest file list has some hundred thousand files.
const PACKAGE_MAX: usize = 256 << 20;

/// Why XML cannot be taken apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{file} is not in the form that createrepo_c writes: {why}")]
    Form { file: String, why: &'static str },
}

/// Where something lies in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    offset: u64,
    size: u64,
}

/// Packages by path, each with its element in each of the three files.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    size: u64,
    packages: BTreeMap<String, [Place; 3]>,
}

impl Spool {
    /// An empty one, in a file without a name in `folder`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(folder)?, size: 0, packages: BTreeMap::new() })
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.packages.contains_key(path)
    }

    /// Forgets others.
    pub(crate) fn keep(&mut self, mut which: impl FnMut(&str) -> bool) {
        self.packages.retain(|path, _| which(path));
    }

    /// The first of the three files in which another spool says otherwise of a package. One that the other does not know is
    /// no difference.
    ///
    /// # Errors
    /// When either cannot be read.
    pub(crate) fn differs(&self, other: &Self, path: &str) -> io::Result<Option<&'static str>> {
        for kind in KINDS {
            let (mut one, mut two) = (Vec::new(), Vec::new());
            if self.read(path, kind, &mut one)? && other.read(path, kind, &mut two)? && one != two {
                return Ok(Some(kind.name()));
            }
        }
        Ok(None)
    }

    /// Takes in all packages of another one.
    ///
    /// # Errors
    /// When that one cannot be read, or this one not be written.
    pub(crate) fn append(&mut self, other: Self) -> io::Result<()> {
        for (path, mut places) in other.packages {
            for place in &mut places {
                let mut text = vec![0; usize::try_from(place.size).map_err(io::Error::other)?];
                other.file.read_exact_at(&mut text, place.offset)?;
                self.file.write_all_at(&text, self.size)?;
                place.offset = self.size;
                self.size += place.size;
            }
            self.packages.insert(path, places);
        }
        Ok(())
    }

    /// Appends what a package has in one of the files.
    pub(super) fn read(&self, path: &str, kind: Kind, into: &mut Vec<u8>) -> io::Result<bool> {
        let Some(place) = self.packages.get(path).and_then(|places| places.get(kind as usize)) else {
            return Ok(false);
        };
        let begin = into.len();
        into.resize(begin + usize::try_from(place.size).map_err(io::Error::other)?, 0);
        self.file.read_exact_at(into.get_mut(begin..).unwrap_or_default(), place.offset)?;
        Ok(true)
    }

    /// Takes in all packages of a folder `repodata`.
    ///
    /// # Errors
    /// When a file cannot be read or taken apart: then nothing has changed.
    pub(crate) fn take_in(&mut self, repodata: &Path) -> Result<(), Unusable> {
        let text = std::fs::read(repodata.join(REPOMD))?;
        let repomd = Repomd::parse(&text)
            .map_err(|_| Unusable::Form { file: REPOMD.to_owned(), why: "it cannot be read" })?;
        let mut files = Vec::new();
        for kind in KINDS {
            let file = repomd.files.iter().find(|file| file.kind == kind.name());
            let missing =
                || Unusable::Form { file: REPOMD.to_owned(), why: "it does not name all three files" };
            files.push(repodata.join(&file.ok_or_else(missing)?.name));
        }
        let files = files.iter().map(|path| (path.display().to_string(), File::open(path)));
        let mut found = Found::default();
        self.file.seek(io::SeekFrom::Start(self.size))?;
        let mut to = BufWriter::with_capacity(256 * 1024, &self.file);
        let mut size = self.size;
        for (kind, (name, file)) in KINDS.into_iter().zip(files) {
            let form = |why| Unusable::Form { file: name.clone(), why };
            let mut reader = BufReader::with_capacity(256 * 1024, MultiGzDecoder::new(BufReader::new(file?)));
            elements(&mut reader, |element| {
                let place = Place { offset: size, size: element.len() as u64 };
                to.write_all(element)?;
                size += place.size;
                found.add(kind, element, place).map_err(form)
            })
            .map_err(|error| match error {
                Unusable::Form { why, .. } => form(why),
                error => error,
            })?;
        }
        to.flush()?;
        drop(to);
        self.packages.extend(found.packages()?);
        self.size = size;
        Ok(())
    }
}

/// What was seen of some packages, as long as not all of it is known to belong together.
#[derive(Debug, Default)]
struct Found {
    /// Path, digest, place in the primary file.
    primary: Vec<(String, String, Place)>,
    /// By digest. Two packages with one digest are the same in both files.
    filelists: BTreeMap<String, Place>,
    other: BTreeMap<String, Place>,
}

impl Found {
    fn add(&mut self, kind: Kind, element: &[u8], place: Place) -> Result<(), &'static str> {
        match kind {
            Kind::Primary => {
                let (path, digest) = identity(element).ok_or("a package without a location or a digest")?;
                self.primary.push((path, digest, place));
            }
            Kind::Filelists | Kind::Other => {
                let digest = pkgid(element).ok_or("a package without a pkgid")?;
                let to = if kind == Kind::Other { &mut self.other } else { &mut self.filelists };
                to.insert(digest, place);
            }
        }
        Ok(())
    }

    fn packages(self) -> Result<BTreeMap<String, [Place; 3]>, Unusable> {
        let Self { primary, filelists, other } = self;
        let packages = primary.into_iter().map(|(path, digest, place)| {
            match (filelists.get(&digest), other.get(&digest)) {
                (Some(filelists), Some(other)) => Ok((path, [place, *filelists, *other])),
                _ => Err(Unusable::Form { file: path, why: "it is not in all three files" }),
            }
        });
        packages.collect()
    }
}

/// Hands over the elements of the packages, each with its line end, one after the other.
fn elements(
    from: &mut impl BufRead,
    mut each: impl FnMut(&[u8]) -> Result<(), Unusable>,
) -> Result<(), Unusable> {
    let form = |why| Unusable::Form { file: String::new(), why };
    let (mut element, mut inside, mut ends) = (Vec::new(), false, false);
    loop {
        let begin = element.len();
        let room = (PACKAGE_MAX - begin) as u64;
        if from.by_ref().take(room).read_until(b'\n', &mut element)? == 0 {
            let why = if room == 0 { "a package that is too large" } else { "it ends too early" };
            return if ends && !inside { Ok(()) } else { Err(form(why)) };
        }
        let line = element.get(begin..).unwrap_or_default();
        if !inside {
            ends |= [&b"</metadata>"[..], b"</filelists>", b"</otherdata>"]
                .iter()
                .any(|end| line.starts_with(end));
            // The head may stand before the first package on its line.
            match find(line, BEGIN)
                .filter(|at| line.get(at + BEGIN.len()).is_some_and(u8::is_ascii_whitespace))
            {
                Some(at) => {
                    inside = true;
                    element.drain(..begin + at);
                }
                None => {
                    element.clear();
                    continue;
                }
            }
        }
        if element.ends_with(END) {
            each(&element)?;
            element.clear();
            inside = false;
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Path and digest of a package in the primary file.
pub(super) fn identity(element: &[u8]) -> Option<(String, String)> {
    let mut reader = Reader::from_reader(element);
    let (mut path, mut digest, mut is_digest) = (None, None, false);
    let mut buffer = Vec::new();
    while path.is_none() || digest.is_none() {
        buffer.clear();
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(start) if start.local_name().as_ref() == "checksum" => {
                is_digest = attribute(&start, "pkgid").as_deref() == Some("YES");
            }
            Event::Text(text) if is_digest => {
                digest = Some(text.into_inner().trim().to_owned());
                is_digest = false;
            }
            Event::Empty(start) | Event::Start(start) if start.local_name().as_ref() == "location" => {
                path = Some(attribute(&start, "href")?);
            }
            Event::Eof => return None,
            _ => {}
        }
    }
    Some((path?, digest?))
}

/// The digest of a package in the other two files.
fn pkgid(element: &[u8]) -> Option<String> {
    let line = element.split(|byte| *byte == b'>').next()?;
    let from = find(line, b"pkgid=\"")? + 7;
    let digest = line.get(from..)?.split(|byte| *byte == b'"').next()?;
    String::from_utf8(digest.to_owned()).ok().filter(|digest| !digest.is_empty())
}

/// The elements of a text, by path; for a member of a primary file.
pub(super) fn by_path(text: &[u8]) -> Result<BTreeMap<String, (String, Vec<u8>)>, Unusable> {
    let mut found = BTreeMap::new();
    elements_of_member(text, |element| {
        let why = "a package without a location or a digest";
        let (path, digest) = identity(element).ok_or(Unusable::Form { file: String::new(), why })?;
        found.insert(path, (digest, element.to_owned()));
        Ok(())
    })?;
    Ok(found)
}

/// The same for the other two files, by digest.
pub(super) fn by_digest(text: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Unusable> {
    let mut found = BTreeMap::new();
    elements_of_member(text, |element| {
        let digest = pkgid(element).ok_or(Unusable::Form { file: String::new(), why: "no pkgid" })?;
        found.insert(digest, element.to_owned());
        Ok(())
    })?;
    Ok(found)
}

fn elements_of_member(text: &[u8], each: impl FnMut(&[u8]) -> Result<(), Unusable>) -> Result<(), Unusable> {
    elements(&mut text.chain(&b"</metadata>\n"[..]), each)
}
