//! How much room there is on a disk. Measured here, decided elsewhere.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Tells how many bytes are free for the server's user on the file system of a path. Blocks.
#[derive(Clone)]
pub struct FreeSpace(Arc<Measure>);

type Measure = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

impl FreeSpace {
    /// What the file system says.
    pub fn of_the_disk() -> Self {
        Self::new(|path| {
            let disk = rustix::fs::statvfs(path)?;
            Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
        })
    }

    /// What a test says.
    pub fn new(free: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(free))
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn at(&self, path: &Path) -> io::Result<u64> {
        (self.0)(path)
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreeSpace")
    }
}

/// Whether a disk is full, or a quota used up: room may come, so the same can be tried again.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A size for people: `512 B`, `1.5 GiB`.
pub fn in_words(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = None;
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = Some(next);
    }
    unit.map_or_else(|| format!("{bytes} B"), |unit| format!("{value:.1} {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words() {
        for (bytes, words) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")] {
            assert_eq!(in_words(bytes), words);
        }
        assert!(in_words(u64::MAX).ends_with("PiB"));
    }

    #[test]
    fn a_disk_tells_what_is_free() {
        let at = tempfile::tempdir().unwrap();
        assert!(FreeSpace::of_the_disk().at(at.path()).unwrap() > 0);
        FreeSpace::of_the_disk().at(&at.path().join("missing")).unwrap_err();
    }
}
