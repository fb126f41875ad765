//! Words, times and bars of `moji top`.
//!
//! Knows nothing of where on the screen they stand.

use moji_proto::api::{BuildState, BuilderState};
use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    /// Whether there are colours; else what matters is bold.
    pub(super) colours: bool,
    /// Whether there is more than ASCII.
    pub(super) unicode: bool,
}

impl Looks {
    pub(super) fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn dim(self) -> Style {
        if self.colours { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    /// What went well, or is as it should be.
    pub(super) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    /// What somebody should look at.
    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What is not as it should be, and may become so by itself.
    pub(super) fn odd(self) -> Style {
        self.colour(Color::Yellow)
    }

    pub(super) fn build(self, state: BuildState) -> Style {
        match state {
            BuildState::Succeeded => self.good(),
            BuildState::Failed | BuildState::Held => self.bad(),
            BuildState::Parked => self.odd(),
            BuildState::Running => self.colour(Color::Cyan),
            BuildState::Queued | BuildState::Withdrawn => self.dim(),
        }
    }

    pub(super) fn builder(self, state: BuilderState) -> Style {
        match state {
            BuilderState::Building => self.good(),
            BuilderState::Idle => Style::new(),
            BuilderState::Draining | BuilderState::Drained => self.odd(),
            BuilderState::Suspended | BuilderState::Away => self.bad(),
        }
    }

    /// What separates two things of one line.
    pub(super) fn dot(self) -> &'static str {
        if self.unicode { " · " } else { " | " }
    }

    /// What stands for a text that was cut.
    pub(super) fn ellipsis(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }

    /// What a rule is made of.
    pub(super) fn rule(self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }

    /// A bar of `width` cells, `part` of `whole` of it full.
    pub(super) fn bar(self, part: u64, whole: u64, width: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let cells = u64::try_from(width).unwrap_or(u64::MAX).min(1_000);
        let eighths = part.min(whole).saturating_mul(cells * 8).checked_div(whole).unwrap_or(0);
        let full = usize::try_from(eighths / 8).unwrap_or(width);
        if !self.unicode {
            return format!("{}{}", "#".repeat(full), ".".repeat(width.saturating_sub(full)));
        }
        let piece = usize::try_from(eighths % 8).ok().and_then(|rest| EIGHTHS.get(rest)).copied();
        let mut bar = "█".repeat(full);
        bar.push_str(piece.unwrap_or_default());
        let used = bar.chars().count();
        bar.push_str(&"░".repeat(width.saturating_sub(used)));
        bar
    }
}

/// A time that passes while one looks at it: `0:07`, `12:30`, `1:02:30`, `3d 4h`.
pub(super) fn clock(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

/// About how long: `7s`, `12m`, `3h 20m`, `2d 4h`.
pub(super) fn about(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m"),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Looks = Looks { colours: false, unicode: false };
    const RICH: Looks = Looks { colours: true, unicode: true };

    #[test]
    fn times_are_short() {
        let clocks = [7, 750, 3_750, 273_600].map(clock);
        assert_eq!(clocks, ["0:07", "12:30", "1:02:30", "3d 4h"]);
        assert_eq!([7, 750, 3_750, 187_200].map(about), ["7s", "12m", "1h 2m", "2d 4h"]);
    }

    #[test]
    fn a_bar_is_as_wide_as_it_is_told_whatever_the_numbers() {
        for (part, whole) in [(0, 10), (3, 10), (10, 10), (99, 10), (1, 0), (u64::MAX, u64::MAX), (0, 0)] {
            for width in [0, 1, 7, 30] {
                assert_eq!(RICH.bar(part, whole, width).chars().count(), width, "{part}/{whole}");
                assert_eq!(PLAIN.bar(part, whole, width).len(), width, "{part}/{whole}");
            }
        }
        assert_eq!(RICH.bar(3, 16, 8), "█▌░░░░░░");
        assert_eq!(PLAIN.bar(3, 10, 10), "###.......");
    }
}
