//! The history as `fsck` sees it: what is wrong with the file, and where it disagrees with the folders.

use std::path::Path;

use super::entry::Entry;
use super::path;
use super::reconcile::{Reconciled, When, look, reconcile};
use super::schema;
use super::sqlite::{Sqlite, SqliteStore};
use super::store::{Backend as _, Known, Stamps, Store as _, StoreError};
use super::survey::Survey;
use crate::folders::Folders;

/// What was found.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// The folders.
    pub(crate) survey: Survey,
    /// What the history knows.
    pub(crate) known: Known,
    /// What it must be told so that it agrees with the folders.
    pub(crate) lacks: Vec<Entry>,
    /// How the file is.
    pub(crate) file: FileState,
}

/// How the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileState {
    /// Sound, and of the newest version.
    Sound,
    /// There is none.
    Missing,
    /// Its version is older: the next start migrates it.
    Older(usize),
    /// It was made by a newer program.
    Newer(String),
    /// It cannot be used.
    Broken(String),
    /// It cannot be looked at.
    Unavailable(String),
}

/// Looks at the folders, and compares the history with them. Changes nothing.
pub(crate) fn inspect(folders: &Folders, when: When) -> anyhow::Result<Inspected> {
    let (known, file) = match known(&path(folders)) {
        Ok(found) => found,
        Err(StoreError::Broken(why)) => (Known::default(), FileState::Broken(why)),
        Err(StoreError::Newer(why)) => (Known::default(), FileState::Newer(why)),
        Err(StoreError::Unavailable(why) | StoreError::Refused(why)) => {
            (Known::default(), FileState::Unavailable(why))
        }
    };
    let (survey, mut lacks) = look(folders, &known, when)?;
    if !matches!(file, FileState::Sound | FileState::Missing) {
        lacks.clear();
    }
    Ok(Inspected { survey, known, lacks, file })
}

fn known(path: &Path) -> Result<(Known, FileState), StoreError> {
    if !path.exists() {
        return Ok((Known::default(), FileState::Missing));
    }
    let (connection, version) = schema::open_to_look(path)?;
    if version < schema::MIGRATIONS.len() {
        let state = if version == 0 { FileState::Missing } else { FileState::Older(version) };
        return Ok((Known::default(), state));
    }
    let wrong = schema::integrity(&connection)?;
    if let Some(first) = wrong.first() {
        return Err(StoreError::Broken(format!("{first} ({} such)", wrong.len())));
    }
    Ok((SqliteStore::new(connection).known()?, FileState::Sound))
}

/// Opens the history as a server would, and makes it agree with all of the folders, whatever it has read
/// of them before. `broken`: why the one that
/// is there must be put aside first, which only a thorough look finds.
pub(crate) fn rebuild(folders: &Folders, broken: Option<&str>) -> anyhow::Result<Reconciled> {
    let (mut store, _) = Sqlite::new(&path(folders)).open(broken)?;
    store.remember(&Stamps::new())?;
    reconcile(folders, store.as_mut(), When::Quiet)
}
