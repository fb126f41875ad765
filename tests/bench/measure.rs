//! What time and memory a process has used, and what many measurements say together.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use moji_proto::limits::DATA_BYTES;
use moji_proto::{Hasher, Sha256};
use moji_tests::support::processes::now;
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// The processor's time that this process has used, all threads together.
pub(super) fn processor() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// What a process has used of the processor: exact to a tick of the kernel, which is 10 ms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) own: Duration,
    /// Of its children that have ended, and theirs.
    pub(super) children: Duration,
}

impl Spent {
    /// Until now, of a process: its id, or `self`.
    pub(super) fn of(process: impl Display) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name, in brackets, may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
        // utime, stime, cutime and cstime: the 14th to the 17th of all.
        let ticks: Vec<u64> =
            fields.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
        let [user, system, user_children, system_children] = ticks[..] else {
            bail!("a short /proc/PID/stat")
        };
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
        Ok(Self { own: time(user + system), children: time(user_children + system_children) })
    }

    pub(super) fn all(self) -> Duration {
        self.own + self.children
    }
}

/// The memory of a process, in KiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: u64,
    /// The most at a time, since it began or since [`forget_peak`].
    pub(super) peak: u64,
}

impl Memory {
    /// Of a process: its id, or `self`.
    pub(super) fn of(process: impl Display) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            anyhow::Ok(value.with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok(Self { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

/// The peak of this process counts from now on. Where the kernel does not do that it stays what it was, which
/// tells too much and never too little.
pub(super) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The processor's time that this thread has used.
pub(super) fn thread_processor() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
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

/// The digest of the rest of a file, read in pieces of the size that moji uses.
pub(super) fn digest(file: &mut File) -> io::Result<Sha256> {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; DATA_BYTES]);
    loop {
        let length = file.read(&mut buffer)?;
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
            _ => return Ok(hasher.finish()),
        }
    }
}
