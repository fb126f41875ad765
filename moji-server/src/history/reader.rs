//! Looks into the history beside its writer: some connections of their own, which change nothing and keep nobody
//! waiting.
//!
//! They are kept, because to open one takes longer than most questions. The writer may put the file aside and
//! make another one at any time: each question goes to the file that has the name then.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::schema;
use super::store::StoreError;
use super::views::Views;
use crate::folders::Folders;

/// Questions at a time, and connections that are kept; the other questions wait.
const AT_A_TIME: usize = 2;

/// Asks the history. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    path: PathBuf,
    places: Arc<Semaphore>,
    kept: Arc<Mutex<Vec<Kept>>>,
}

/// Which file a connection is to. No other one can have that number while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> Result<Self, StoreError> {
        let metadata = fs::metadata(path)
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

#[derive(Debug)]
struct Kept {
    file: FileId,
    views: Views,
}

impl Reader {
    /// For a farm's history, whether it is open or not.
    pub fn of(folders: &Folders) -> Self {
        let (places, kept) = (Arc::new(Semaphore::new(AT_A_TIME)), Arc::default());
        Self { path: super::path(folders), places, kept }
    }

    /// Asks. What was recorded a moment ago may not be seen yet. All that one question sees is of one moment.
    ///
    /// # Errors
    /// When the history cannot be read now.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Views) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = |_| StoreError::Unavailable("the history is closed".into());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        let reader = self.clone();
        let asked = spawn_blocking(move || {
            let _place = place;
            reader.ask_now(question)
        });
        asked.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// The same for whoever may wait. Blocks.
    fn ask_now<T>(&self, question: impl FnOnce(&Views) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut open = self.open()?;
        let answer = open.views.at_one_moment(Timestamp::now(), question);
        // What failed once is opened anew.
        if !matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Broken(_))) {
            self.lock().push(open);
        }
        answer
    }

    fn open(&self) -> Result<Kept, StoreError> {
        let file = FileId::of(&self.path)?;
        let kept = {
            let mut kept = self.lock();
            kept.retain(|one| one.file == file);
            kept.pop()
        };
        match kept {
            Some(kept) => Ok(kept),
            None => Ok(Kept { file, views: Views::new(schema::open_to_ask(&self.path)?) }),
        }
    }

    /// Held only to take one out or put one back.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.lock().len()
    }
}
