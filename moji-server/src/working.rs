//! Watches WORKING for SRPMs that a person takes away: `mv` is the remote control.
//!
//! Only hints; the farm looks for itself, because it moves SRPMs there too. What is lost is found
//! by the farm's periodic check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use moji_proto::TargetName;
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::BuildKey;

/// Watches WORKING and the folders of targets in it, but not the busy staging folders.
#[derive(Debug, Default)]
pub struct WorkingWatch {
    /// `None` when the system has no more watches to give.
    watcher: Option<RecommendedWatcher>,
    root: PathBuf,
    targets: BTreeSet<TargetName>,
}

impl WorkingWatch {
    /// Sends the keys of what disappears from `working` to `hints`, as long as there is room.
    pub fn new(working: &Path, hints: mpsc::Sender<BuildKey>) -> Self {
        let root = working.to_owned();
        let on_event = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
                for key in event.paths.iter().filter_map(|path| key_of(&root, path)) {
                    let _ = hints.try_send(key);
                }
            }
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(working, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(
                "cannot watch {}: {error}; it is looked at now and then instead",
                working.display()
            );
        }
        Self { watcher: watcher.ok(), root: working.to_owned(), targets: BTreeSet::new() }
    }

    /// An SRPM has been moved into WORKING: its folder is worth watching.
    pub fn entered(&mut self, key: &BuildKey) {
        let Some(target) = &key.target else { return };
        if let Some(watcher) = &mut self.watcher
            && !self.targets.contains(target)
            && watcher.watch(&self.root.join(target.as_str()), RecursiveMode::NonRecursive).is_ok()
        {
            self.targets.insert(target.clone());
        }
    }
}

/// The key of a path `WORKING/<srpm>` or `WORKING/<target>/<srpm>`.
fn key_of(working: &Path, path: &Path) -> Option<BuildKey> {
    let below = path.strip_prefix(working).ok()?;
    let srpm = below.file_name()?.to_str()?.parse().ok()?;
    let target = match below.parent()?.to_str()? {
        "" => None,
        folder => Some(folder.parse().ok()?),
    };
    Some(BuildKey { target, srpm })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_srpms_at_the_right_depth_are_leased_ones() {
        let key = |path: &str| key_of(Path::new("/w"), Path::new(path)).map(|key| key.to_string());
        assert_eq!(key("/w/a-1-1.src.rpm").as_deref(), Some("a-1-1.src.rpm"));
        assert_eq!(key("/w/f43/a-1-1.src.rpm").as_deref(), Some("f43/a-1-1.src.rpm"));
        assert_eq!(key("/w/.moji/a-1-1.src.rpm"), None);
        assert_eq!(key("/w/f43/deeper/a-1-1.src.rpm"), None);
        assert_eq!(key("/elsewhere/a-1-1.src.rpm"), None);
    }
}
