//! How an attempt goes and how it ended. A failed build is data, not an error.

use serde::{Deserialize, Serialize};

use crate::names::is_invisible;

/// What a builder does for an attempt just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The SRPM is on its way.
    Receiving,
    /// Mock makes the chroot (state.log: `chroot init`).
    Preparing,
    /// Mock installs the BuildRequires (state.log: `build setup`).
    InstallingBuildRequires,
    /// rpmbuild runs (state.log: `rpmbuild`).
    Building,
    /// The results are on their way.
    Delivering,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Mock ended with 0 and said so in state.log.
    Succeeded,
    /// Anything else.
    Failed {
        /// Whose fault it is.
        kind: FailureKind,
        /// The reason in one line for people; see [`Outcome::failed`] for its limits.
        reason: String,
        /// What Mock exited with: its exit code, or minus the number of the signal that ended it.
        /// Absent when Mock did not run.
        exit_code: Option<i32>,
        /// The requirements that nothing provides, in RPM's notation (`pkgconfig(zlib) >= 1.2`);
        /// only for [`FailureKind::MissingDependency`].
        missing: Vec<String>,
    },
}

/// Whose fault a failed attempt is; this decides what happens next (DESIGN, "Blame").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureKind {
    /// The package's own: a section failed, the spec does not parse, it ran out of time.
    Package,
    /// A BuildRequires is missing, too old or not installable.
    MissingDependency,
    /// The builder's or a repository's: disk full, mirror broken, chroot locked, out of memory.
    Infrastructure,
    /// The configuration of that target on that builder.
    Configuration,
    /// The SRPM cannot be read.
    UnreadableSrpm,
    /// Nobody's: cancelled, drained, or killed from outside.
    Interrupted,
}

/// Longest reason, in bytes.
pub const REASON_MAX: usize = 512;
/// Most missing requirements that are named.
pub const MISSING_MAX: usize = 64;

impl Outcome {
    /// A failure whose texts are cut to what may travel: a reason of one line of at most
    /// [`REASON_MAX`] bytes without control characters, at most [`MISSING_MAX`] requirements of at
    /// most [`REASON_MAX`] bytes.
    pub fn failed(kind: FailureKind, reason: &str, exit_code: Option<i32>, missing: Vec<String>) -> Self {
        let missing = missing.iter().take(MISSING_MAX).map(|m| one_line(m)).collect();
        Self::Failed { kind, reason: one_line(reason), exit_code, missing }
    }

    /// The same outcome with the limits of [`Outcome::failed`]: for what a peer said.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Succeeded => Self::Succeeded,
            Self::Failed { kind, reason, exit_code, missing } => {
                Self::failed(kind, &reason, exit_code, missing)
            }
        }
    }

    /// Whether the build succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded)
    }
}

/// `text` as one line of at most [`REASON_MAX`] bytes in which control characters are spaces, so
/// that it can be shown on a terminal and stand in a log.
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    // Made plain first: what hides text counts as space at both ends.
    let plain = text.chars().map(plain_char).skip_while(|c| c.is_whitespace());
    for c in plain {
        if line.len() + c.len_utf8() > REASON_MAX {
            break;
        }
        line.push(c);
    }
    line.truncate(line.trim_end().len());
    line
}

/// `text` of any length as one line for a terminal or a log: with spaces in place of line ends, of what
/// a terminal obeys, and of what hides or reorders the text beside it.
pub fn plain(text: &str) -> String {
    text.chars().map(plain_char).collect()
}

fn plain_char(c: char) -> char {
    // Beside what names must not have: Arabic letter mark, annotations, tags.
    let hides =
        is_invisible(c) || matches!(c, '\u{61c}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    if c.is_control() || hides { ' ' } else { c }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Package => "package",
            Self::MissingDependency => "missing dependency",
            Self::Infrastructure => "builder or repository",
            Self::Configuration => "configuration",
            Self::UnreadableSrpm => "unreadable SRPM",
            Self::Interrupted => "interrupted",
        })
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Receiving => "receiving the SRPM",
            Self::Preparing => "preparing the chroot",
            Self::InstallingBuildRequires => "installing BuildRequires",
            Self::Building => "building",
            Self::Delivering => "delivering",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_cut_to_one_harmless_line() {
        let said = Outcome::Failed {
            kind: FailureKind::Package,
            reason: format!(" \u{1b}[31mred\u{7}\nsecond {}", "ä".repeat(400)),
            exit_code: Some(1),
            missing: vec!["a\tb".into(); 100],
        };
        let Outcome::Failed { reason, missing, .. } = said.bounded() else { panic!() };
        assert!(reason.starts_with("[31mred  second ä"), "{reason}");
        assert!(reason.len() <= REASON_MAX && !reason.contains(char::is_control));
        assert_eq!(missing, vec!["a b"; MISSING_MAX]);
    }

    #[test]
    fn no_text_moves_what_stands_beside_it() {
        let hostile = "a\u{1b}]0;b\u{7}\u{9b}2J\r\n\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{feff}\u{e0041}\u{2028}z\u{0}";
        for line in [one_line(hostile), plain(hostile)] {
            let odd: Vec<_> = line.chars().filter(|c| !c.is_ascii_graphic() && *c != ' ').collect();
            assert!(odd.is_empty(), "{odd:?} in {line:?}");
        }
        let longer = "\u{e4} ".repeat(REASON_MAX);
        assert_eq!(plain(&longer), longer);
    }

    #[test]
    fn one_line_stays_as_it_is() {
        for text in ["\u{202e} zlib\u{2066}", "\u{2069}\u{1b}a\u{202a}b", "\u{2028}", " plain "] {
            let line = one_line(text);
            assert_eq!(one_line(&line), line, "{text:?}");
        }
        assert_eq!(one_line("\u{202e}zlib"), "zlib");
    }
}
