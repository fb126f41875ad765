//! Numbers and times in words.

use jiff::Timestamp;
use maud::{Markup, html};
use moji_proto::{FailureKind, Phase};

pub(super) use crate::report::words::duration;

/// Whole seconds from one to the other; none when they are the wrong way round.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(from.duration_until(to).as_secs()).unwrap_or(0)
}

/// `12 s`, `5 min`, `3 h`, `2 d`: one unit, for what is looked at in passing.
fn roughly(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A moment, as how long ago it was; the script lets it tick.
pub(super) fn ago(now: Timestamp, at: Timestamp) -> Markup {
    html! {
        time datetime=(at) title=(moment(at)) data-tick="ago" { (roughly(seconds(at, now))) " ago" }
    }
}

/// How long something has been going on; the script lets it tick.
pub(super) fn since(now: Timestamp, at: Timestamp) -> Markup {
    html! { time datetime=(at) title=(moment(at)) data-tick="for" { (duration(seconds(at, now))) } }
}

/// A moment, as the clock showed it.
pub(super) fn at(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (moment(at)) } }
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `417 bytes`, `1.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = "bytes";
    let mut tenths = bytes.saturating_mul(10);
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1024, larger);
    }
    if unit == "bytes" || tenths >= 1000 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// `12,345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + 4);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 build`, `12,345 builds`.
pub(super) fn many(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{} {what}s", number(count)) }
}

pub(super) fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Package => "the package itself",
        FailureKind::MissingDependency => "a missing dependency",
        FailureKind::Infrastructure => "a builder or a repository",
        FailureKind::Configuration => "a target's configuration",
        FailureKind::UnreadableSrpm => "an unreadable SRPM",
        FailureKind::Interrupted => "interrupted",
    }
}

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Receiving => "receiving the SRPM",
        Phase::Preparing => "making the chroot",
        Phase::InstallingBuildRequires => "installing BuildRequires",
        Phase::Building => "building",
        Phase::Delivering => "delivering",
    }
}

/// How fast a builder is, from how long it takes in percent of the others' time.
pub(super) fn speed(percent: u64) -> String {
    match percent {
        97..=103 => "as fast as the others".to_owned(),
        0..97 => format!(
            "{} % faster than the others",
            10_000u64.checked_div(percent).map_or(100, |p| p.saturating_sub(100))
        ),
        104..200 => format!("takes {} % longer than the others", percent - 100),
        _ => format!("takes {}.{} times as long as the others", percent / 100, percent % 100 / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1_300_000, 5_368_709_120, u64::MAX / 10].map(size)[..5],
            ["0 bytes", "1023 bytes", "1.0 KiB", "1.2 MiB", "5.0 GiB"]
        );
        assert_eq!([5, 60, 3599, 7200, 172_800].map(roughly), ["5 s", "1 min", "59 min", "2 h", "2 d"]);
        assert_eq!((many(1, "build"), many(2000, "build")), ("1 build".into(), "2,000 builds".into()));
    }

    #[test]
    fn speed_is_said_from_the_reader_s_side() {
        assert_eq!(
            [100, 50, 80, 130, 250].map(speed),
            [
                "as fast as the others",
                "100 % faster than the others",
                "25 % faster than the others",
                "takes 30 % longer than the others",
                "takes 2.5 times as long as the others"
            ]
        );
        assert_eq!(speed(0), "100 % faster than the others");
    }
}
