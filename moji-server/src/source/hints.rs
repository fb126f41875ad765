//! Where to look: what inotify says, sorted out and gathered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use tokio::sync::{Notify, mpsc};

use super::folder::Spot;
use super::intake::Hint;

/// Paths to look at one by one; when there are more, everything is looked at.
const SPOTS: usize = 16_384;

/// What inotify's thread does: sorts out what is of interest, and never waits.
pub(super) fn listener(
    source: PathBuf,
    hints: mpsc::Sender<(Spot, Hint)>,
    lost: Arc<Notify>,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    move |event| {
        let Ok(event) = event else { return lost.notify_one() };
        if event.need_rescan() {
            return lost.notify_one();
        }
        let Some(hint) = hint_of(&event.kind) else { return };
        for path in event.paths {
            let spot = path.strip_prefix(&source).ok().and_then(Spot::of);
            if spot.is_some_and(|spot| hints.try_send((spot, hint)).is_err()) {
                lost.notify_one();
            }
        }
    }
}

fn hint_of(kind: &EventKind) -> Option<Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Closed),
        // Moji's own reading among them.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Hint::Closed),
        // Comes after From and To.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(Hint::Written),
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Create(_) | EventKind::Remove(_) => {
            Some(Hint::Appeared)
        }
        _ => Some(Hint::Touched),
    }
}

/// Where to look next.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) all: bool,
    pub(super) spots: BTreeMap<Spot, Hint>,
}

impl Dirty {
    pub(super) fn add(&mut self, spot: Spot, hint: Hint) {
        if spot == Spot::Root {
            self.all = true;
        } else if self.spots.len() >= SPOTS {
            self.all = true;
            self.spots.clear();
        } else {
            self.spots.entry(spot).and_modify(|before| *before = before.then(hint)).or_insert(hint);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.all && self.spots.is_empty()
    }
}
