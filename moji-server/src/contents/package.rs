//! One RPM in a repository: what others can depend on in it.
//!
//! Others may have put it there, so its header is checked before the `rpm` crate (0.30.2) sees it, and a panic that happens all the
//! same is a bad header.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use moji_proto::outcome::plain;
use rpm::PackageMetadata;

use crate::dependency::{Capability, Evr, FileHash, PackagePath, PublishedPackage, Sense, Versions};
use crate::rpm_file::{RpmFile, Stop};
use crate::rpm_relations::provides;

/// More capabilities than any package has; the kernel's modules have some 10,000.
const PROVIDES_MAX: usize = 1 << 16;
/// More files than in any package; texlive's largest has some 40,000.
const FILES_MAX: usize = 1_000_000;

/// Reads the header of the RPM that lies at `path` in its repository. Blocks. The inner error says why
/// nothing can depend on it.
///
/// # Errors
/// When the disk does not give it.
pub(super) fn read(file: &std::fs::File, path: &str) -> io::Result<Result<PublishedPackage, String>> {
    of(file, file.metadata()?.size(), path)
}

/// The same of anything of `length` bytes.
pub(super) fn of(
    file: &impl FileExt,
    length: u64,
    path: &str,
) -> io::Result<Result<PublishedPackage, String>> {
    let head = match RpmFile::with_head(file, length) {
        Ok((_, head)) => head,
        Err(Stop::Io(error)) => return Err(error),
        Err(Stop::NotRpm) => return Ok(Err("it is no RPM".to_owned())),
        Err(Stop::Ends) => return Ok(Err("it ends within its RPM header".to_owned())),
        Err(Stop::Malformed(why)) => return Ok(Err(why)),
    };
    let described = catch_unwind(AssertUnwindSafe(|| describe(&head, path)));
    let unreadable = || Err("the rpm library cannot read it".to_owned());
    Ok(described.unwrap_or_else(|_| unreadable()))
}

fn describe(mut head: &[u8], path: &str) -> Result<PublishedPackage, String> {
    let rpm = PackageMetadata::parse(&mut head).map_err(|_| "the rpm library cannot read it".to_owned())?;
    if rpm.is_source_package() {
        return Err("it is a source package".to_owned());
    }
    let text = |found: Result<&str, rpm::Error>, what: &str| match found {
        Ok(text) if !text.is_empty() && plain(text) == text => Ok(Box::<str>::from(text)),
        _ => Err(format!("it has no usable {what}")),
    };
    let name = text(rpm.get_name(), "name")?;
    let version = text(rpm.get_version(), "version")?;
    let release = text(rpm.get_release(), "release")?;
    let evr = Evr::of(rpm.get_epoch().ok(), &version, &release);
    let mut provides = provides(&rpm, PROVIDES_MAX);
    // Packages of old rpms do not say it.
    if !provides.iter().any(|capability| *capability.name == *name) {
        let versions = Some(Versions { sense: Sense::Equal, evr: evr.clone() });
        provides.push(Capability { name: (&*name).into(), versions });
    }
    Ok(PublishedPackage {
        path: PackagePath::new(path),
        arch: text(rpm.get_arch(), "architecture")?,
        source: text(rpm.get_source_rpm(), "source").ok(),
        files: files(&rpm),
        name,
        evr,
        provides,
    })
}

/// In order, each once.
fn files(rpm: &PackageMetadata) -> Vec<FileHash> {
    let paths = rpm.get_file_paths_split().unwrap_or_default().into_iter().take(FILES_MAX);
    let mut files: Vec<_> = paths.map(|(folder, name)| FileHash::of(&format!("{folder}{name}"))).collect();
    files.sort();
    files.dedup();
    files
}
