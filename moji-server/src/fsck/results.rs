//! Results in REPO against their records.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use moji_proto::names::RESERVED_ARTIFACT;

use super::Depth;
use super::difference::Difference;
use super::staging::is_part;
use crate::history::{Found, Place, Survey, entries, further_attempt};
use crate::metadata;

pub(super) fn check(survey: &Survey, depth: Depth, found: &mut Vec<Difference>) -> io::Result<()> {
    let unreadable = survey.unreadable.iter();
    found.extend(
        unreadable.map(|(path, why)| Difference::UnreadableRecord { path: path.clone(), why: why.clone() }),
    );
    let closed = survey.closed.iter();
    found.extend(
        closed.map(|(path, why)| Difference::UnreadableFolder { path: path.clone(), why: why.clone() }),
    );
    for record in survey.records.iter().filter(|found| matches!(found.place, Place::Result | Place::Further))
    {
        match result(record, depth, found) {
            // Replaced or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

fn result(record: &Found, depth: Depth, found: &mut Vec<Difference>) -> io::Result<()> {
    let Some(folder) = record.path.parent() else { return Ok(()) };
    if let Some(says) = foreign(record, folder) {
        found.push(Difference::ForeignRecord { path: record.path.clone(), says });
    }
    let mut there: BTreeMap<_, _> = entries(folder)?.into_iter().collect();
    for artifact in &record.record.artifacts {
        let path = folder.join(&artifact.name);
        match there.remove(artifact.name.as_str()).filter(|metadata| metadata.is_file()) {
            None => found.push(Difference::NoArtifact { path }),
            Some(is) if is.len() != artifact.size => {
                found.push(Difference::ArtifactSize { path, recorded: artifact.size, found: is.len() });
            }
            Some(_) if depth == Depth::Digests && metadata::digest(&path)? != artifact.sha256 => {
                found.push(Difference::ArtifactDigest { path });
            }
            Some(_) => {}
        }
    }
    for (name, metadata) in there {
        let expected = name == RESERVED_ARTIFACT
            || is_part(&name)
            || record.place == Place::Result && metadata.is_dir() && further_attempt(&name).is_some();
        if !expected {
            found.push(Difference::Unnamed { path: folder.join(name) });
        }
    }
    Ok(())
}

/// Of what a record tells, when that is not what its folder's name says.
fn foreign(record: &Found, folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_str()?;
    match record.place {
        Place::Further => {
            let attempt = record.record.attempt.as_ref()?.id;
            (further_attempt(name) != Some(attempt)).then(|| format!("attempt {attempt}"))
        }
        _ => {
            let nvr = record.record.nvr.as_ref()?;
            (nvr.as_str() != name).then(|| nvr.to_string())
        }
    }
}
