//! Whether there is room on the disk for more work.

use std::path::Path;

use tokio::task::spawn_blocking;

use crate::room::{FreeSpace, in_words};

/// A disk that has no limit set and was full counts as full until it has so much room.
const LEAST: u64 = 1 << 20;

/// What is known of the room on the disk.
#[derive(Debug)]
pub(super) struct Space {
    min_free: u64,
    free_space: FreeSpace,
    has_room: bool,
    /// It does not tell, and that was said.
    is_silent: bool,
}

impl Space {
    pub(super) fn new(min_free: u64, free_space: FreeSpace) -> Self {
        Self { min_free, free_space, has_room: true, is_silent: false }
    }

    /// Nothing is handed out, for lack of room.
    pub(super) fn is_full(&self) -> bool {
        !self.has_room
    }

    /// Looks at the disk of a folder; gives whether there is room when that has changed.
    pub(super) async fn look(&mut self, folder: &Path) -> Option<bool> {
        if self.min_free == 0 && self.has_room {
            return None;
        }
        let (free_space, path) = (self.free_space.clone(), folder.to_owned());
        let free = spawn_blocking(move || free_space.at(&path)).await.ok()?;
        if let Err(error) = &free {
            if !self.is_silent {
                tracing::warn!("cannot find out how much room {} has: {error}", folder.display());
            }
            self.is_silent = true;
        } else {
            self.is_silent = false;
        }
        let free = free.unwrap_or(u64::MAX);
        // A little more to begin again than to stop: else it would go to and fro.
        let needed = if self.has_room {
            self.min_free
        } else {
            self.min_free.saturating_add(self.min_free / 20).max(LEAST)
        };
        let has_room = free >= needed;
        if has_room == self.has_room {
            return None;
        }
        self.has_room = has_room;
        if has_room {
            tracing::info!("there is room again: {} are free", in_words(free));
        } else {
            tracing::warn!(
                "nothing is handed out: {} are free on the disk of {}, less than {} (--min-free); make room",
                in_words(free),
                folder.display(),
                in_words(self.min_free)
            );
        }
        Some(has_room)
    }

    /// A write has found the disk full. Gives whether that is news.
    pub(super) fn is_full_now(&mut self) -> bool {
        std::mem::replace(&mut self.has_room, false)
    }
}
