//! Whether the metadata say of each package what `createrepo_c` says of it now: the check of what was taken over from
//! one generation to the next.
//!
//! It deliberately does not know which packages there should be. Blocks.

use std::io;
use std::path::{Path, PathBuf};

use super::MetadataConfig;
use super::createrepo::{Call, check_program};
use super::inspect::Disagreement;
use super::make::lines;
use super::native::spool::Spool;
use super::packages::{Package, REPODATA};

/// The packages that are described in another way; or that `createrepo_c` cannot be asked.
///
/// # Errors
/// When nothing can be written to the folder for temporary files.
pub(super) fn descriptions(
    config: &MetadataConfig,
    folder: &Path,
    repodata: &Path,
    packages: &[Package],
) -> io::Result<Vec<(PathBuf, Disagreement)>> {
    let not_compared = |why: String| Ok(vec![(repodata.to_owned(), Disagreement::NotCompared(why))]);
    if let Err(missing) = check_program(&config.createrepo) {
        return not_compared(missing.to_string());
    }
    let apart = tempfile::tempdir()?;
    let list = apart.path().join("list");
    std::fs::write(&list, lines(packages))?;
    let call = Call { folder, list: &list, output: apart.path(), revision: 1, update: false };
    let said = call.command(&config.createrepo).output()?;
    if !said.status.success() {
        return not_compared(format!("createrepo_c ended with {}", said.status));
    }
    let (mut served, mut anew) = (Spool::new(apart.path())?, Spool::new(apart.path())?);
    if let Err(error) = served.take_in(repodata) {
        return Ok(vec![(repodata.to_owned(), Disagreement::Unreadable(error.to_string()))]);
    }
    if let Err(error) = anew.take_in(&apart.path().join(REPODATA)) {
        return not_compared(error.to_string());
    }
    let mut found = Vec::new();
    for package in packages {
        if let Some(kind) = served.differs(&anew, &package.path)? {
            found.push((folder.join(&package.path), Disagreement::Description(format!("{kind}.xml"))));
        }
    }
    Ok(found)
}
