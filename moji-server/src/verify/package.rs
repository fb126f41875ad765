//! One RPM: what it says that it is, whether it says that in a way that nobody can misread, and whether
//! its bytes are those that it was made with.
//!
//! | digest | compared | |
//! |---|---|---|
//! | header: SHA-256, SHA-1, SHA3-256 | each that is there | one must be: rpm has always written one, and refuses to install without |
//! | payload: SHA-256 | when it is there | rpmbuild before 4.14 (2017) wrote none; the manifest's digest stands for it |
//! | payload: SHA-512, SHA3-256 of RPM 6 | no | they cover the same bytes as the SHA-256 that is there too |
//! | MD5, digests of the unpacked payload | no | the first proves nothing; the others would need unpacking |

use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use moji_proto::Sha256;
use moji_proto::names::NAME_MAX;
use rpm::{DigestStatus, IndexData, IndexTag, PackageMetadata};

use super::refused::quoted;
use super::{Delivered, Reason, Refused, VerifyError};
use crate::beneath;
use crate::lease_record::digest_of_rest;
use crate::payload::PayloadDigest;
use crate::rpm_file::{RpmFile, Stop};

/// More files than in any package; texlive's largest has some 40,000.
const MAX_FILES: usize = 1_000_000;
/// Longest path of a file: `PATH_MAX` of Linux.
const PATH_MAX: usize = 4096;
/// Tags that the `rpm` crate has no method for.
const NOSOURCE: u32 = 1051;
const NOPATCH: u32 = 1052;
const OLDFILENAMES: u32 = 1027;

/// What an RPM says of itself, as far as it was found to be sound.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) arch: String,
    pub(super) kind: Kind,
    release: String,
    /// Where the payload begins.
    payload_at: u64,
    /// Its digest in hex, when the header has one.
    payload_sha256: Option<String>,
}

/// Source or binary.
#[derive(Debug)]
pub(super) enum Kind {
    Source {
        /// Without the sources themselves, which may not be given away.
        nosrc: bool,
    },
    Binary {
        /// The file name of its source package.
        source_rpm: String,
    },
}

impl Package {
    /// Reads the headers of a file and checks all that can be checked without its payload.
    pub(super) fn read(delivered: &Delivered) -> Result<Self, VerifyError> {
        let disk = |error| VerifyError::Disk { path: delivered.path.clone(), error };
        let file = beneath::open_regular(&delivered.path).map_err(disk)?;
        let length = file.metadata().map_err(disk)?.len();
        let refuse = |reason| VerifyError::Refused(Refused::file(&delivered.name, reason));
        let package = match Self::of(&file, length) {
            Ok(package) => package.map_err(refuse)?,
            Err(error) => return Err(disk(error)),
        };
        let file_name = package.file_name();
        if delivered.name.as_str() != file_name {
            return Err(refuse(Reason::FileName(quoted(&file_name))));
        }
        Ok(package)
    }

    /// The outer error is the disk's.
    pub(super) fn of(file: &impl FileExt, length: u64) -> io::Result<Result<Self, Reason>> {
        let (head, outline) = match checked_head(file, length) {
            Ok(head) => head,
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::NotRpm) => return Ok(Err(Reason::NotRpm)),
            Err(Stop::Ends) => return Ok(Err(Reason::Malformed("it ends within its RPM header".into()))),
            Err(Stop::Malformed(why)) => return Ok(Err(Reason::Malformed(why))),
        };
        match outline.size {
            None => return Ok(Err(Reason::NoSize)),
            Some(says) if says != length => return Ok(Err(Reason::Size { says, is: length })),
            Some(_) => {}
        }
        // The rpm crate (0.30.2) panics on some malformed headers, also on some that were checked.
        let described = catch_unwind(AssertUnwindSafe(|| describe(&head, outline.main.end)));
        Ok(described.unwrap_or_else(|_| Err(malformed("the rpm library cannot read it"))))
    }

    /// What the file must be called.
    fn file_name(&self) -> String {
        let arch = match self.kind {
            Kind::Source { nosrc: false } => "src",
            Kind::Source { nosrc: true } => "nosrc",
            Kind::Binary { .. } => &self.arch,
        };
        format!("{}-{}-{}.{arch}.rpm", self.name, self.version, self.release)
    }

    /// Compares the payload's digest; reads all of it, in pieces, unless that was done when it came.
    pub(super) fn check_payload(&self, delivered: &Delivered) -> Result<(), VerifyError> {
        let Some(expected) = &self.payload_sha256 else { return Ok(()) };
        let digest = match delivered.payload {
            Some(PayloadDigest { from, sha256 }) if from == self.payload_at => sha256,
            _ => payload_digest(delivered, self.payload_at)
                .map_err(|error| VerifyError::Disk { path: delivered.path.clone(), error })?,
        };
        if digest.to_string().eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(Refused::file(&delivered.name, Reason::PayloadDigest).into())
    }
}

fn payload_digest(delivered: &Delivered, from: u64) -> io::Result<Sha256> {
    let mut file = beneath::open_regular(&delivered.path)?;
    file.seek(SeekFrom::Start(from))?;
    digest_of_rest(file)
}

fn malformed(why: &str) -> Reason {
    Reason::Malformed(format!("its RPM header is malformed: {why}"))
}

/// The beginning of the file up to the payload, with both headers sound enough for the rpm crate.
fn checked_head(file: &impl FileExt, length: u64) -> Result<(Vec<u8>, RpmFile), Stop> {
    let (outline, head) = RpmFile::with_head(file, length)?;
    outline.signature.check_once(&head)?;
    outline.main.check_once(&head)?;
    Ok((head, outline))
}

fn describe(mut head: &[u8], payload_at: u64) -> Result<Package, Reason> {
    let rpm = PackageMetadata::parse(&mut head).map_err(|_| malformed("the rpm library cannot read it"))?;
    check_header_digests(&rpm)?;
    let text = |found: Result<&str, rpm::Error>, what: &'static str| {
        let text = found.map_err(|_| malformed(&format!("it has no {what}")))?;
        is_plain(text, what)
            .then(|| text.to_owned())
            .ok_or_else(|| Reason::Characters { what, text: quoted(text) })
    };
    // Reads the epoch of those that have one, which must be a number.
    if rpm.header.entry_is_present(IndexTag::RPMTAG_EPOCH) && rpm.get_epoch().is_err() {
        return Err(malformed("its epoch is no number"));
    }
    let has_source_rpm = rpm.header.entry_is_present(IndexTag::RPMTAG_SOURCERPM);
    let kind = match (rpm.is_source_package(), has_source_rpm) {
        (true, false) => {
            Kind::Source { nosrc: [NOSOURCE, NOPATCH].iter().any(|tag| rpm.header.entry_is_present(*tag)) }
        }
        (false, true) => {
            let source = rpm.get_source_rpm().map_err(|_| malformed("its source package is no text"))?;
            Kind::Binary { source_rpm: source.to_owned() }
        }
        (true, true) => return Err(malformed("it is a source package, and built from one")),
        (false, false) => return Err(malformed("it has no source package")),
    };
    check_paths(&rpm, matches!(kind, Kind::Source { .. }))?;
    Ok(Package {
        name: text(rpm.get_name(), "name")?,
        version: text(rpm.get_version(), "version")?,
        release: text(rpm.get_release(), "release")?,
        arch: text(rpm.get_arch(), "architecture")?,
        kind,
        payload_at,
        payload_sha256: payload_sha256(&rpm)?,
    })
}

/// RPM's own characters (`ALLOWED_CHARS_NAME`, `ALLOWED_CHARS_VERREL`), and nothing that looks like an
/// option or a hidden file.
fn is_plain(text: &str, what: &str) -> bool {
    let more = match what {
        "name" => "._+-",
        "architecture" => "._",
        _ => "._+~^",
    };
    let starts_well = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= NAME_MAX
        && text.starts_with(starts_well)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn check_header_digests(rpm: &PackageMetadata) -> Result<(), Reason> {
    let report = rpm.check_digests().map_err(|_| malformed("the rpm library cannot read it"))?;
    let digests = [
        ("SHA-256", &report.header_sha256),
        ("SHA-1", &report.header_sha1),
        ("SHA3-256", &report.header_sha3_256),
    ];
    for (name, status) in digests {
        if let DigestStatus::Mismatch { .. } = status {
            return Err(Reason::HeaderDigest(name));
        }
    }
    match digests.iter().any(|(_, status)| status.is_verified()) {
        true => Ok(()),
        false => Err(Reason::NoHeaderDigest),
    }
}

fn payload_sha256(rpm: &PackageMetadata) -> Result<Option<String>, Reason> {
    if !rpm.header.entry_is_present(IndexTag::RPMTAG_PAYLOADSHA256) {
        return Ok(None);
    }
    match rpm.header.entry(IndexTag::RPMTAG_PAYLOADSHA256) {
        Ok(IndexData::StringTag(digest)) => Ok(Some(digest)),
        Ok(IndexData::StringArray(digests)) => {
            digests.into_iter().next().map(Some).ok_or_else(|| malformed("its payload's digest is empty"))
        }
        _ => Err(malformed("its payload's digest is no text")),
    }
}

/// Whether all files would be installed where their paths say, below `/`.
fn check_paths(rpm: &PackageMetadata, is_source: bool) -> Result<(), Reason> {
    if rpm.header.entry_is_present(OLDFILENAMES) {
        return Err(malformed("it lists its files in the way of RPM 3"));
    }
    let cannot = |_| malformed("its list of files contradicts itself");
    let files = rpm.get_file_paths_split().map_err(cannot)?;
    let names = rpm.header.get_entry_data_as_string_array(IndexTag::RPMTAG_BASENAMES);
    let folders = rpm.header.get_entry_data_as_u32_array(IndexTag::RPMTAG_DIRINDEXES);
    if names.map_or(0, |names| names.len()) != files.len()
        || folders.map_or(0, |folders| folders.len()) != files.len()
    {
        return Err(malformed("its list of files contradicts itself"));
    }
    if files.len() > MAX_FILES {
        return Err(Reason::TooManyFiles(files.len()));
    }
    for (folder, name) in files {
        if let Some(why) = wrong_path(folder, name, is_source) {
            return Err(Reason::Path { path: quoted(&format!("{folder}{name}")), why });
        }
    }
    Ok(())
}

fn wrong_path(folder: &str, name: &str, is_source: bool) -> Option<&'static str> {
    // The root itself is in the package filesystem.
    let is_root = folder == "/" && name.is_empty();
    let is_folder =
        if is_source { folder.is_empty() } else { folder.starts_with('/') && folder.ends_with('/') };
    if !is_folder {
        Some("its folder is not one that begins at the root")
    } else if folder.split('/').chain([name]).any(|part| part == ".." || part == ".") {
        Some("it leaves its folder")
    } else if name.contains('/') || (name.is_empty() && !is_root) {
        Some("its name is none")
    } else if folder.chars().chain(name.chars()).any(char::is_control) {
        Some("it has a control character")
    // In characters: what is not UTF-8 was made longer when it was read.
    } else if folder.split('/').chain([name]).any(|part| part.chars().count() > NAME_MAX)
        || folder.len() + name.len() > PATH_MAX
    {
        Some("it is too long")
    } else {
        None
    }
}
