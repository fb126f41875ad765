//! Times and sizes as people say them. Pure.

use jiff::Timestamp;
use moji_proto::TargetName;
use moji_proto::api::{Build, Eta, OutOfDate, QueueCounts, Steered};
use moji_proto::outcome::plain;

/// Seconds as `42s`, `3m 20s`, `2h 05m`, `4d 03h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// The same in one unit, for estimates: `40 s`, `12 min`, `3 h`, `4 days`.
pub fn about(seconds: u64) -> String {
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5400 => format!("{} min", (seconds + 30) / 60),
        5400..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}

/// How long ago something was.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    duration(seconds_between(then, now))
}

/// Whole seconds from one time to another; 0 when clocks disagree.
pub fn seconds_between(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.as_second().saturating_sub(then.as_second())).unwrap_or(0)
}

/// That dnf does not see what has changed; none when it does.
pub fn out_of_date(repositories: &[OutOfDate], now: Timestamp) -> Option<String> {
    let first = repositories.first()?;
    let oldest = repositories.iter().map(|one| one.since).min()?;
    let others = match repositories.len().saturating_sub(1) {
        0 => String::new(),
        1 => " and of another repository".to_owned(),
        more => format!(" and of {more} other repositories"),
    };
    let ago = ago(oldest, now);
    Some(format!("The metadata of {}{others} are out of date for {ago}: {}", first.folder(), first.reason))
}

/// A time, to the second, in UTC: the same wherever it is read.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Bytes as `512 B`, `4.2 MiB`.
pub fn size(bytes: u64) -> String {
    let units: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// A target, or what stands for none.
pub fn target(target: Option<&TargetName>) -> &str {
    target.map_or("any", TargetName::as_str)
}

/// What a build is called: its NVR, or its SRPM.
pub fn name(build: &Build) -> String {
    plain(build.nvr.as_ref().map_or(build.srpm.as_str(), |nvr| nvr.as_str()))
}

/// A number of things.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The queue in one line: `3 ready, 2 wait for others, 1 parked, 4 running`.
pub fn queue(queue: &QueueCounts) -> String {
    let QueueCounts { ready, waiting, parked, running } = *queue;
    if ready + waiting + parked + running == 0 {
        return "empty".into();
    }
    format!("{ready} ready, {waiting} wait for others, {parked} parked, {running} running")
}

/// How long all of it will take.
pub fn eta(eta: &Eta) -> String {
    match eta.low == eta.high {
        true => format!("about {}", about(eta.expected)),
        false => format!("about {} ({} to {})", about(eta.expected), about(eta.low), about(eta.high)),
    }
}

/// Who has done something, when and why.
pub fn steered(steered: &Steered, now: Timestamp) -> String {
    let by = steered.by.as_deref().map(|by| format!(" by {}", plain(by))).unwrap_or_default();
    let reason = steered.reason.as_deref().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    format!("{} ago{by}{reason}", ago(steered.at, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        let durations =
            [(0, "0s"), (59, "59s"), (60, "1m 00s"), (3599, "59m 59s"), (3661, "1h 01m"), (90_000, "1d 01h")];
        for (seconds, text) in durations {
            assert_eq!(duration(seconds), text);
        }
        for (seconds, text) in [(89, "89 s"), (90, "2 min"), (5400, "2 h"), (172_800, "2 days")] {
            assert_eq!(about(seconds), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ago(at(100), at(40)), "0s");
        assert_eq!(time(at(0)), "1970-01-01 00:00:00");
    }
}
