//! Whether what a builder delivered may be published: each RPM is what its name says, whole, and was
//! built from the SRPM that was leased, for the target that was leased.
//!
//! Of a success only; of a failure no RPM is published. The digests of the manifest were compared when
//! the files arrived, so this is about what the files say of themselves and of each other. A payload is
//! read in pieces, if its digest was not taken when it arrived, and never unpacked: rpm takes file names from the
//! header, and that is looked at here.
//!
//! It deliberately does not know REPO, the scheduler or who the builder is, and it decides nothing about
//! what becomes of files that are refused. All of it blocks.

mod arch;
mod package;
mod refused;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use moji_proto::{ArtifactName, TargetName};

pub use refused::{Reason, Refused};

use crate::payload::PayloadDigest;
use package::{Kind, Package};
use refused::quoted;

/// What was leased.
#[derive(Debug, Clone, Copy)]
pub struct Leased<'a> {
    /// The SRPM's package name.
    pub name: &'a str,
    /// Its version. The release may differ, because Mock rebuilds the SRPM with the target's `%dist`.
    pub version: &'a str,
    /// What it was built for.
    pub target: &'a TargetName,
    /// What the builder says that its machine is (`uname -m`); for targets whose name tells no
    /// architecture.
    pub machine: &'a str,
}

/// An RPM that was delivered.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// What it would be called in REPO.
    pub name: ArtifactName,
    /// Where it lies now.
    pub path: PathBuf,
    /// What was found out of its bytes when they came; nothing: they are read.
    pub payload: Option<PayloadDigest>,
}

/// Why there is no verdict that all is well.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The results are not good.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// They cannot be read; another time they may be.
    #[error("cannot read {}: {error}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Looks at all RPMs of a success.
///
/// # Errors
/// The first reason why they must not be published, or that the disk does not give them.
pub fn verify(delivered: &[Delivered], leased: &Leased<'_>) -> Result<(), VerifyError> {
    let mut packages = Vec::new();
    for file in delivered {
        packages.push((file, Package::read(file)?));
    }
    let source = the_source(&packages, leased)?;
    for (file, package) in &packages {
        let refuse = |reason| Refused::file(&file.name, reason);
        if let Kind::Binary { source_rpm } = &package.kind {
            if *source_rpm != source.as_str() {
                let (says, is) = (quoted(source_rpm), source.to_string());
                return Err(refuse(Reason::BuiltFromAnother { says, is }).into());
            }
            if !arch::fits(&package.arch, leased.target.as_str(), leased.machine) {
                let (arch, target) = (quoted(&package.arch), leased.target.clone());
                return Err(refuse(Reason::Arch { arch, target }).into());
            }
        }
    }
    // Last, because it may read all bytes.
    for (file, package) in &packages {
        package.check_payload(file)?;
    }
    Ok(())
}

/// The name of the one source package, which must be the leased one.
fn the_source<'a>(
    packages: &[(&'a Delivered, Package)],
    leased: &Leased<'_>,
) -> Result<&'a ArtifactName, Refused> {
    let mut sources = packages.iter().filter(|(_, package)| matches!(package.kind, Kind::Source { .. }));
    let Some((file, source)) = sources.next() else { return Err(Refused::NoSource) };
    if let Some((second, _)) = sources.next() {
        return Err(Refused::file(&second.name, Reason::SecondSource(file.name.to_string())));
    }
    if (source.name.as_str(), source.version.as_str()) != (leased.name, leased.version) {
        let (name, version) = (leased.name, leased.version);
        let leased = quoted(&format!("{name}-{version}"));
        let is = quoted(&format!("{}-{}", source.name, source.version));
        return Err(Refused::file(&file.name, Reason::OtherSource { is, leased }));
    }
    Ok(&file.name)
}
