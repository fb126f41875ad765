//! SOURCE, the folder in which SRPMs wait: what lies there becomes events for the owner of the
//! queue.
//!
//! An SRPM counts when it is whole, an operator edits `priority.txt` and `requires.txt` with any
//! editor, and neither may wait for the other. What happens when is decided in pure code (`intake` for SRPMs,
//! `lists` for those two): it gets observations and the time, and answers with actions.
//! [`watch()`] acts: it asks the file system (off the async threads, in `jobs`) and sends the
//! events. inotify (`hints`) only says where to look; a rescan finds what it did not say.
//!
//! Deliberately not here: the queue itself, moving files, and whether anybody wants to build.

mod edit;
mod entries;
mod folder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod glob;
mod hints;
mod intake;
mod jobs;
mod known;
mod lists;
pub mod priority;
mod requires;
mod srpm;
mod watch;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_proto::TargetName;

pub use edit::edit_priority;
pub use priority::{Priority, Warning};
pub use requires::{Demand, Lack, Requires};
pub use srpm::{SrpmHeader, srpm_header};
pub use watch::watch;

use crate::BuildKey;

/// Which folder to watch, and how patiently.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// SOURCE. Must exist when the watch begins.
    pub folder: PathBuf,
    /// Whether to watch with inotify.
    pub watch: bool,
    /// How often everything is looked at, in case inotify did not tell (overflow, NFS).
    pub rescan: Duration,
    /// How long an SRPM that is not whole must stay as it is until it is broken.
    pub broken_after: Duration,
    /// How long a file must stay as it is when nothing tells that its writer is done.
    pub settle: Duration,
    /// The file in which headers are kept for the next start, if they are.
    pub headers: Option<PathBuf>,
}

impl SourceConfig {
    /// The usual times for `folder`: a rescan every 60 s, broken after 60 s, settled after 1 s.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            watch: true,
            rescan: Duration::from_secs(60),
            broken_after: Duration::from_secs(60),
            settle: Duration::from_secs(1),
            headers: None,
        }
    }
}

/// What happened in SOURCE.
///
/// Whoever gets these also moves files in SOURCE, so each is about the recent past: look before
/// acting on one. The events of one key come in the order in which things happened.
#[derive(Debug, Clone)]
pub enum SourceEvent {
    /// A whole, readable SRPM: new, replaced by other content under the same name, or moved back.
    /// Once for each time it changed (size, times or inode); a `chmod` or `touch` repeats it for
    /// the same content, so a `Found` of a queued key replaces what was known of it. So does what
    /// happens to another hard link of the file: it was queued for another target, and is moved there.
    Found(QueuedSrpm),
    /// Something writes over an SRPM that was found: not to be handed out until it is found again.
    Changing(BuildKey),
    /// An SRPM that was found or broken is no longer there.
    Gone(BuildKey),
    /// It will never be whole or readable: to be moved to FINISHED with a failure record.
    Broken {
        /// Which file it is.
        key: BuildKey,
        /// What is wrong with it, for the packager; follows after "foo.src.rpm: ".
        reason: String,
    },
    /// A `priority.txt` as it is now; an empty list when it was removed.
    Priority {
        /// The target in whose folder it lies; `None` for the one directly in SOURCE.
        target: Option<TargetName>,
        /// Its content. Its warnings are already in the log.
        list: Priority,
    },
    /// A `requires.txt` as it is now; an empty list when it was removed.
    Requires {
        /// The target in whose folder it lies; `None` for the one directly in SOURCE.
        target: Option<TargetName>,
        /// Its content. Its warnings are already in the log.
        list: Requires,
    },
    /// Comes once: everything that lay in SOURCE at the start has been reported, except what was
    /// not whole, not readable, or written to just then. Before that the order of the queue is not
    /// known.
    Ready,
}

/// A whole SRPM in SOURCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedSrpm {
    /// Its target and file name.
    pub key: BuildKey,
    /// What its header says.
    pub header: SrpmHeader,
    /// Size of the file, in bytes.
    pub size: u64,
    /// Since when it lies here as it is: its ctime, which rename(2), link(2) and the last write
    /// set. (The mtime of an SRPM that was moved in is often that of its build, years ago.)
    /// Putting an SRPM back sets it too: the queue must remember when that build was first queued.
    pub queued_at: jiff::Timestamp,
}

/// What the header of an SRPM says that lies in `folder`; `None` when it cannot be read. Blocks.
pub fn read_header(folder: &Path, key: &BuildKey) -> Option<SrpmHeader> {
    match folder::read_srpm(folder, key) {
        Ok(Some((_, srpm::Head::Srpm { header, .. }))) => Some(header),
        _ => None,
    }
}
