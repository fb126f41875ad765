//! Turns what inotify says about REPO into hints: where it may be worth looking.
//!
//! Hints only: events can be lost (overflow, NFS, no watches left), and say nothing about a file
//! being whole. Generations that stay are not watched: there are many of them, each of two folders, and
//! watches are few. It deliberately does not know which folders are repositories.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::thread;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::packages::{GENERATIONS, REPODATA};

const WAITING_MAX: usize = 1024;

/// Where something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// In or at the entry of this name directly in REPO, and there in or at this one, if it is in there.
    Entry(String, Option<String>),
    /// Anywhere: events were lost.
    Anywhere,
}

/// What the watcher tells.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Hint(Hint),
    /// There is a folder of generations now.
    Generations(PathBuf),
}

/// The hints of one watched folder.
pub(super) struct Hints {
    hints: mpsc::Receiver<Said>,
    lost: Arc<AtomicBool>,
    /// Folders that are not to be watched any more. The watcher lives as long as this.
    unwatch: Option<blocking::SyncSender<PathBuf>>,
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
            let hints =
                event.map_or_else(|_| vec![Said::Hint(Hint::Anywhere)], |event| hints_of(&root, &event));
            for hint in hints {
                // The channel is full, so somebody will receive, and then see this.
                if sender.try_send(hint).is_err() {
                    overflow.store(true, Ordering::Relaxed);
                }
            }
        };
        let mut watcher = RecommendedWatcher::new(send, Config::default().with_follow_symlinks(false))?;
        watcher.watch(repo, RecursiveMode::Recursive)?;
        for folder in generations_below(repo) {
            unwatch(&mut watcher, &folder);
        }
        // In a thread, because it waits for the watcher to answer.
        let (sender, folders) = blocking::sync_channel::<PathBuf>(WAITING_MAX);
        thread::Builder::new().name("unwatch".to_owned()).spawn(move || {
            for folder in folders {
                unwatch(&mut watcher, &folder);
            }
        })?;
        Ok(Self { hints, lost, unwatch: Some(sender) })
    }

    /// Never a hint: for a folder that cannot be watched.
    pub(super) fn none() -> Self {
        Self { hints: mpsc::channel(1).1, lost: Arc::default(), unwatch: None }
    }

    /// The next hint; waits for ever when nothing can come any more. Cancel safe.
    pub(super) async fn next(&mut self) -> Hint {
        loop {
            let Some(said) = self.hints.recv().await else { std::future::pending().await };
            let lost = self.lost.swap(false, Ordering::Relaxed);
            match said {
                Said::Generations(folder) => {
                    // One that does not fit is watched, which costs watches and nothing else.
                    let _ = self.unwatch.as_ref().map(|folders| folders.try_send(folder));
                    if lost {
                        return Hint::Anywhere;
                    }
                }
                Said::Hint(hint) => return if lost { Hint::Anywhere } else { hint },
            }
        }
    }
}

fn unwatch(watcher: &mut RecommendedWatcher, folder: &Path) {
    // What is gone is not watched either.
    if let Err(error) = watcher.unwatch(folder) {
        tracing::debug!("{}: {error}", folder.display());
    }
}

/// The folders of generations of REPO and of what may be repositories in it.
fn generations_below(repo: &Path) -> Vec<PathBuf> {
    let inner = std::fs::read_dir(repo).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = std::iter::once(repo.to_owned()).chain(inner).map(|folder| folder.join(GENERATIONS));
    all.filter(|folder| folder.is_dir()).collect()
}

fn hints_of(repo: &Path, event: &Event) -> Vec<Said> {
    if event.need_rescan() {
        return vec![Said::Hint(Hint::Anywhere)];
    }
    if let EventKind::Create(CreateKind::Folder) = event.kind
        && let [folder] = event.paths.as_slice()
        && folder.ends_with(GENERATIONS)
        && hint_of(repo, folder).is_none()
    {
        return vec![Said::Generations(folder.clone())];
    }
    match event.kind {
        // httpd reading is no change.
        EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write) => Vec::new(),
        _ => event.paths.iter().filter_map(|path| hint_of(repo, path)).map(Said::Hint).collect(),
    }
}

fn hint_of(repo: &Path, path: &Path) -> Option<Hint> {
    let inner = path.strip_prefix(repo).ok()?;
    let names: Vec<&OsStr> = inner.components().map(Component::as_os_str).collect();
    if names.iter().any(|name| name.as_encoded_bytes().starts_with(b".")) {
        return None;
    }
    // Of REPO, or of a repository in it: nothing in there is for the metadata.
    if names.iter().take(2).any(|name| *name == GENERATIONS) {
        return None;
    }
    match (names.as_slice(), names.iter().position(|name| *name == REPODATA)) {
        ([], _) => Some(Hint::Anywhere),
        // That a folder becomes a repository is a change; what happens in its metadata is not.
        ([entry, inner], Some(1)) if *inner == REPODATA => {
            Some(Hint::Entry(entry.to_str()?.to_owned(), None))
        }
        (_, Some(_)) => None,
        ([entry, rest @ ..], None) => {
            let name = |name: &OsStr| name.to_string_lossy().into_owned();
            Some(Hint::Entry(name(entry), rest.first().map(|inner| name(inner))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::Flag;

    #[test]
    fn metadata_and_hidden_names_are_no_changes() {
        let repo = Path::new("/srv/r");
        let at = |path: &str| hint_of(repo, Path::new(path));
        let entry =
            |name: &str, inner: Option<&str>| Some(Hint::Entry(name.to_owned(), inner.map(str::to_owned)));
        assert_eq!(at("/srv/r"), Some(Hint::Anywhere));
        assert_eq!(at("/srv/r/a.rpm"), entry("a.rpm", None));
        assert_eq!(at("/srv/r/foo-1-1/a.rpm"), entry("foo-1-1", Some("a.rpm")));
        assert_eq!(at("/srv/r/f43/repodata"), entry("f43", None));
        assert_eq!(at("/srv/r/f43/foo/a.rpm"), entry("f43", Some("foo")));
        let hidden = ["repodata", "repodata/x", "f43/repodata/x", ".hidden", "foo/.part/a.rpm"];
        for path in hidden.into_iter().chain(["generations", "f43/generations/rpms/a.rpm"]) {
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
        assert_eq!(hints_of(repo, &overflow), [Said::Hint(Hint::Anywhere)]);
    }

    /// Generations of before and those that come later.
    #[tokio::test]
    async fn generations_are_not_watched() {
        let at = tempfile::tempdir().unwrap();
        let repo = at.path();
        std::fs::create_dir_all(repo.join("generations/1/repodata")).unwrap();
        std::fs::create_dir_all(repo.join("f43/repodata")).unwrap();
        let mut hints = Hints::watch(repo).unwrap();
        assert!(is_watched(repo) && is_watched(&repo.join("f43/repodata")));
        for folder in ["generations", "generations/1", "generations/1/repodata"] {
            assert!(!is_watched(&repo.join(folder)), "{folder}");
        }
        std::fs::create_dir(repo.join("f43/generations")).unwrap();
        std::fs::create_dir(repo.join("f43/later")).unwrap();
        let later = Hint::Entry("f43".to_owned(), Some("later".to_owned()));
        assert_eq!(hints.next().await, later);
        until(|| is_watched(&repo.join("f43/later")) && !is_watched(&repo.join("f43/generations"))).await;
        drop(hints);
        until(|| !is_watched(repo)).await;
    }

    async fn until(condition: impl Fn() -> bool) {
        let start = tokio::time::Instant::now();
        while !condition() {
            assert!(start.elapsed() < std::time::Duration::from_secs(60), "it never comes true");
            tokio::task::yield_now().await;
        }
    }

    /// Whether this process watches a folder.
    fn is_watched(folder: &Path) -> bool {
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(folder).unwrap());
        let files = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let watch = format!(" ino:{inode:x} ");
        texts.into_iter().any(|text| text.lines().any(|l| l.starts_with("inotify wd:") && l.contains(&watch)))
    }
}
