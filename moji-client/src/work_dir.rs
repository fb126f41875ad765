//! The builder's own folder: attempts that are being built, and the outbox.
//!
//! ```text
//! WORK_DIR/lock                      one client at a time
//! WORK_DIR/slot-0/<attempt>/         the SRPM, mock.log and Mock's result directory
//! WORK_DIR/outbox/<attempt>/         finished results, durable, until the server has accepted them
//! ```
//! All of it blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use moji_proto::{AttemptId, Sha256};
use rustix::fs::FlockOperation;

use crate::outbox::{self, Parcel};

/// The folder, locked for this client.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: fs::File,
}

impl WorkDir {
    /// Makes the folder if it is missing, locks it, and removes what an earlier client was building:
    /// the server gives that out again. What it had finished stays in the outbox.
    ///
    /// # Errors
    /// When it cannot be written, its path cannot be given to Mock, or another client uses it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot use the work folder {} (see --work-dir)", path.display());
        fs::create_dir_all(path).with_context(cannot)?;
        let path = fs::canonicalize(path).with_context(cannot)?;
        let lock = fs::File::create(path.join("lock")).with_context(cannot)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            == Err(rustix::io::Errno::WOULDBLOCK)
        {
            bail!(
                "another moji-client uses the work folder {}: give this one its own (--work-dir)",
                path.display()
            );
        }
        let work_dir = Self { path, _lock: lock };
        work_dir.remove_leftovers().with_context(cannot)?;
        Ok(work_dir)
    }

    /// The folders of attempts that an earlier client has left in its slots.
    fn leftovers(&self) -> io::Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with("slot-")) {
                for attempt in fs::read_dir(entry.path())? {
                    left.push(attempt?.path());
                }
            }
        }
        Ok(left)
    }

    fn remove_leftovers(&self) -> anyhow::Result<()> {
        for left in self.leftovers()?.iter().filter(|left| !left.join(outbox::FINISHED).is_file()) {
            tracing::info!(
                "removing {}: that attempt was not finished when its client ended",
                left.display()
            );
            fs::remove_dir_all(left).with_context(|| format!("cannot remove {}", left.display()))?;
        }
        Ok(())
    }

    /// Packs what had ended and was not in the outbox yet when an earlier client was killed. What there
    /// is no room for waits for the next start.
    fn pack_leftovers(&self, log_limit: u64) -> anyhow::Result<()> {
        for left in self.leftovers()? {
            match outbox::pack_left(&left, &self.path.join("outbox"), log_limit) {
                Ok(parcel) => {
                    tracing::info!("{} had ended with an earlier client: it is packed now", parcel.srpm)
                }
                Err(error) if outbox::is_disk_trouble(&error) => {
                    tracing::error!(
                        "{} cannot be packed, and waits for the next start: {error:#}",
                        left.display()
                    );
                    continue;
                }
                Err(error) => {
                    tracing::info!("removing {}: it is not whole: {error:#}", left.display());
                }
            }
            outbox::remove_slot(&left).with_context(|| format!("cannot remove {}", left.display()))?;
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of an attempt while it is being built.
    pub fn attempt(&self, slot: u16, attempt: AttemptId) -> PathBuf {
        self.path.join(format!("slot-{slot}")).join(attempt.to_string())
    }

    /// The folder of an attempt's finished results.
    pub fn outbox(&self, attempt: AttemptId) -> PathBuf {
        self.path.join("outbox").join(attempt.to_string())
    }

    /// The finished results that wait to be delivered, oldest first, what was still to be packed
    /// included, with logs of at most `log_limit` bytes; what is broken is removed.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn parcels(&self, log_limit: u64) -> anyhow::Result<Vec<Parcel>> {
        self.pack_leftovers(log_limit)?;
        outbox::open(&self.path.join("outbox"))
    }

    /// A text that is the same at each start and different for each work folder of a machine: what
    /// tells the chroots of two clients apart.
    pub fn id(&self) -> String {
        let digest = Sha256::of(self.path.as_os_str().as_encoded_bytes()).to_string();
        digest.chars().take(8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_at_a_time_and_leftovers_go() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("work");
        let first = WorkDir::open(&path).unwrap();
        let attempt = AttemptId { boot: 1, serial: 2 };
        let error = WorkDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("another moji-client"), "{error}");
        for left in [first.attempt(3, attempt), first.outbox(attempt)] {
            fs::create_dir_all(left.join("deep")).unwrap();
        }
        fs::write(path.join("a file of its owner"), "").unwrap();
        let id = first.id();
        drop(first);
        let second = WorkDir::open(&path).unwrap();
        assert!(!second.attempt(3, attempt).exists() && second.outbox(attempt).exists());
        // It is none.
        assert_eq!(second.parcels(1000).unwrap(), []);
        assert!(!second.outbox(attempt).exists());
        assert!(path.join("a file of its owner").exists());
        assert_eq!(second.id(), id);
    }
}
