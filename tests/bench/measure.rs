//! What time and memory a process has used, and what many measurements say together.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, Sha256};
use moji_tests::support::processes::now;
use rustix::time::{ClockId, clock_gettime};

/// The processor's time that this process has used, all threads together.
pub(super) fn processor() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// The most memory that this process has had at a time, in KiB.
pub(super) fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Time on the wall and of the processor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) wall: Duration,
    pub(super) processor: Duration,
}

/// A stopwatch for both.
pub(super) struct Watch(Instant, Duration);

impl Watch {
    pub(super) fn start() -> Self {
        Self(now(), processor())
    }

    pub(super) fn read(&self) -> Used {
        Used { wall: self.0.elapsed(), processor: processor().saturating_sub(self.1) }
    }
}

/// The value below which so many hundredths of all lie; zero of none.
pub(super) fn percentile(values: &[f64], hundredths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) * hundredths).div_ceil(100);
    sorted.get(at).copied().unwrap_or_default()
}

pub(super) fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The digest of a file, read in pieces of the size that moji uses.
pub(super) fn digest(path: &Path) -> io::Result<Sha256> {
    let (mut hasher, mut file, mut buffer) = (Hasher::new(), File::open(path)?, vec![0; DATA_BYTES]);
    loop {
        let length = file.read(&mut buffer)?;
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
            _ => return Ok(hasher.finish()),
        }
    }
}
