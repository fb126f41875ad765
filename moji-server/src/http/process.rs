//! What the system says of this process (proc(5)). It blocks.

use std::fs;

/// This process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    /// When it began, in seconds since 1970.
    pub(super) started: f64,
    /// Seconds on all processors.
    pub(super) cpu: f64,
    /// Bytes of memory in use.
    pub(super) resident: u64,
    pub(super) open_files: u64,
}

/// How /proc counts.
#[derive(Debug, Clone, Copy)]
struct Units {
    /// Bytes.
    page: u64,
    /// In a second.
    ticks: f64,
}

/// How it stands; none where there is no /proc.
pub(super) fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let open_files = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    let units = Units { page: rustix::param::page_size() as u64, ticks: f64::from(ticks) };
    parse(&stat, &boot, units).map(|process| Process { open_files, ..process })
}

fn parse(stat: &str, boot: &str, units: Units) -> Option<Process> {
    // The name before it may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Counted from `state`, which is field 3 of proc_pid_stat(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok().map(f64::from);
    let wide = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<u32>().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "a machine that runs for a million years")]
    let started = wide(22)? as f64 / units.ticks;
    Some(Process {
        started: f64::from(booted) + started,
        cpu: (field(14)? + field(15)?) / units.ticks,
        resident: wide(24)? * units.page,
        open_files: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_right_ones() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 222 333 444 0\n";
        let units = Units { page: 4096, ticks: 100.0 };
        let process = parse(stat, "cpu 1 2\nbtime 1700000000\n", units).unwrap();
        assert_eq!((process.cpu, process.resident), (3.0, 333 * 4096));
        assert_eq!(process.started, 1_700_000_123.45);
        assert_eq!(parse("17 (x", "", units), None);
        let own = read().unwrap();
        assert!(own.resident > 1 << 20 && own.open_files > 2, "{own:?}");
    }
}
