//! Turns what inotify says about REPO into hints: where it may be worth looking.
//!
//! Hints only: events can be lost (overflow, NFS, no watches left), and say nothing about a file
//! being whole. It deliberately does not know which folders are repositories.

use std::ffi::OsStr;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::packages::REPODATA;

const WAITING_MAX: usize = 1024;

/// Where something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// In or at the entry of this name directly in REPO.
    Entry(String),
    /// Anywhere: events were lost.
    Anywhere,
}

/// The hints of one watched folder.
pub(super) struct Hints {
    hints: mpsc::Receiver<Hint>,
    lost: Arc<AtomicBool>,
    _watcher: Option<RecommendedWatcher>,
}

impl Hints {
    /// Watches `repo`, all folders below included. Blocks while it looks at each of them.
    ///
    /// # Errors
    /// When inotify refuses, for example because the user's watches are used up.
    pub(super) fn watch(repo: &Path) -> notify::Result<Self> {
        let (sender, hints) = mpsc::channel(WAITING_MAX);
        let lost = Arc::new(AtomicBool::new(false));
        let (root, overflow) = (repo.to_owned(), Arc::clone(&lost));
        let send = move |event: notify::Result<Event>| {
            let hints = event.map_or_else(|_| vec![Hint::Anywhere], |event| hints_of(&root, &event));
            for hint in hints {
                // The channel is full, so somebody will receive, and then see this.
                if sender.try_send(hint).is_err() {
                    overflow.store(true, Ordering::Relaxed);
                }
            }
        };
        let mut watcher = RecommendedWatcher::new(send, Config::default().with_follow_symlinks(false))?;
        watcher.watch(repo, RecursiveMode::Recursive)?;
        Ok(Self { hints, lost, _watcher: Some(watcher) })
    }

    /// Never a hint: for a folder that cannot be watched.
    pub(super) fn none() -> Self {
        Self { hints: mpsc::channel(1).1, lost: Arc::default(), _watcher: None }
    }

    /// The next hint; waits for ever when nothing can come any more. Cancel safe.
    pub(super) async fn next(&mut self) -> Hint {
        let Some(hint) = self.hints.recv().await else { std::future::pending().await };
        if self.lost.swap(false, Ordering::Relaxed) { Hint::Anywhere } else { hint }
    }
}

fn hints_of(repo: &Path, event: &Event) -> Vec<Hint> {
    if event.need_rescan() {
        return vec![Hint::Anywhere];
    }
    match event.kind {
        // httpd reading is no change.
        EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write) => Vec::new(),
        _ => event.paths.iter().filter_map(|path| hint_of(repo, path)).collect(),
    }
}

fn hint_of(repo: &Path, path: &Path) -> Option<Hint> {
    let inner = path.strip_prefix(repo).ok()?;
    let names: Vec<&OsStr> = inner.components().map(Component::as_os_str).collect();
    if names.iter().any(|name| name.as_encoded_bytes().starts_with(b".")) {
        return None;
    }
    match (names.as_slice(), names.iter().position(|name| *name == REPODATA)) {
        ([], _) => Some(Hint::Anywhere),
        // That a folder becomes a repository is a change; what happens in its metadata is not.
        ([entry, inner], Some(1)) if *inner == REPODATA => Some(Hint::Entry(entry.to_str()?.to_owned())),
        (_, Some(_)) => None,
        ([entry, ..], None) => Some(Hint::Entry(entry.to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, Flag};

    #[test]
    fn metadata_and_hidden_names_are_no_changes() {
        let repo = Path::new("/srv/r");
        let at = |path: &str| hint_of(repo, Path::new(path));
        let entry = |name: &str| Some(Hint::Entry(name.to_owned()));
        assert_eq!(at("/srv/r"), Some(Hint::Anywhere));
        assert_eq!((at("/srv/r/a.rpm"), at("/srv/r/foo-1-1/a.rpm")), (entry("a.rpm"), entry("foo-1-1")));
        assert_eq!((at("/srv/r/f43/repodata"), at("/srv/r/f43/foo/a.rpm")), (entry("f43"), entry("f43")));
        for path in ["repodata", "repodata/x", "f43/repodata/x", ".hidden", "foo/.part/a.rpm"] {
            assert_eq!(at(&format!("/srv/r/{path}")), None, "{path}");
        }
        assert_eq!(at("/elsewhere"), None);
    }

    #[test]
    fn reading_is_no_change_and_an_overflow_is_everywhere() {
        let repo = Path::new("/srv/r");
        let event = |kind| Event::new(kind).add_path("/srv/r/a.rpm".into());
        let count = |kind| hints_of(repo, &event(kind)).len();
        assert_eq!(count(EventKind::Access(AccessKind::Open(AccessMode::Any))), 0);
        assert_eq!(count(EventKind::Access(AccessKind::Close(AccessMode::Read))), 0);
        assert_eq!(count(EventKind::Access(AccessKind::Close(AccessMode::Write))), 1);
        assert_eq!(count(EventKind::Create(CreateKind::Any)), 1);
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(hints_of(repo, &overflow), [Hint::Anywhere]);
    }
}
