//! `priority.txt`: what is built first. Parsing it, and finding the line that an SRPM matches.
//!
//! Knows bytes and names only: not where the file lies, when it changed, or who asks.

use moji_proto::SrpmName;

use super::SrpmHeader;
use super::entries::{Entries, Value, check_no_folder, quoted};

pub use super::entries::{MAX_ENTRIES, MAX_GLOB_CHARACTERS, MAX_LINE, MAX_SIZE, Warning};

/// A list of what to build first, as an operator wrote it.
#[derive(Debug, Clone, Default)]
pub struct Priority(Entries<Rank>);

/// The line of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u32);

impl Value for Rank {
    fn read(line: u32, text: &str) -> Result<(&str, Self), String> {
        check_no_folder(text, "priority.txt")?;
        if text.contains(char::is_whitespace) {
            return Err(format!("{} has white space in it: one entry a line", quoted(text)));
        }
        Ok((text, Self(line)))
    }

    /// The first counts.
    fn join(&mut self, _later: Self) {}
}

impl Priority {
    /// Reads a list: one entry a line (file name, NVR, package name, or a glob with `*`, `?` and
    /// `[..]` over any of these), first line first; `#` begins a comment at the start of a line or
    /// after white space. CRLF and a byte order mark are fine. Of an entry that is there twice the
    /// first counts. Never fails: what is not understood is a [`Warning`].
    pub fn parse(bytes: &[u8]) -> Self {
        Self(Entries::parse(bytes))
    }

    /// The smallest line (from 1) that matches the file name, the NVR or the package name of an
    /// SRPM; `None` when no line does. An SRPM with a smaller rank is built earlier.
    pub fn rank(&self, name: &SrpmName, header: &SrpmHeader) -> Option<u32> {
        let exact = self.0.exact(name, header).min();
        // Only what stands before that can be better.
        let too_late = |rank: &Rank| exact.is_some_and(|exact| rank > exact);
        let rank = self.0.first_glob(name, header, too_late).or(exact);
        rank.map(|Rank(line)| *line)
    }

    /// What was not understood, first line first; at most 100, see [`Priority::unsaid`].
    pub fn warnings(&self) -> &[Warning] {
        &self.0.warnings.said
    }

    /// How many warnings there are beyond those in [`Priority::warnings`].
    pub fn unsaid(&self) -> usize {
        self.0.warnings.unsaid
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no SRPM can match.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
