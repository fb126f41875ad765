//! How much room there is for builds. Blocks.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::mock::evidence::free_bytes;

/// Tells the free space, in bytes, where it is smallest; nothing when that cannot be known. A test
/// brings its own.
#[derive(Clone)]
pub struct FreeSpace(Arc<dyn Fn() -> Option<u64> + Send + Sync>);

impl FreeSpace {
    /// Whatever `look` says.
    pub fn new(look: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// On the file systems of these folders; those that are not there do not count.
    pub fn of(folders: Vec<PathBuf>) -> Self {
        Self::new(move || folders.iter().filter_map(|folder| free_bytes(folder)).min())
    }

    /// Looks.
    pub fn look(&self) -> Option<u64> {
        (self.0)()
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreeSpace")
    }
}

/// A size for people.
pub(crate) fn readable(bytes: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_what_is_there() {
        let here = std::env::temp_dir();
        let some = FreeSpace::of(vec![here.clone(), "/nonexistent/folder".into()]);
        assert!(some.look().is_some_and(|bytes| bytes > 0));
        assert_eq!(FreeSpace::of(vec!["/nonexistent/folder".into()]).look(), None);
    }

    #[test]
    fn sizes_for_people() {
        let said = [0, 1023, 1024, 1_572_864, 2 << 30].map(readable);
        assert_eq!(said, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "2.0 GiB"]);
    }
}
