//! `priority.txt`: what is built first. Parsing it, and finding the line that an SRPM matches.
//!
//! Knows bytes and names only: not where the file lies, when it changed, or who asks.

use std::collections::HashMap;

use moji_proto::SrpmName;

use super::SrpmHeader;
use super::glob::{Glob, GlobSet};

/// Longest `priority.txt` that is read, in bytes; what follows is ignored with a warning.
pub const MAX_SIZE: usize = 1 << 20;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 1024;
/// Most entries of one list.
pub const MAX_ENTRIES: usize = 20_000;
/// Most characters of all globs together, and one more for each glob: 1,000 globs of 11. They are
/// tried in 0.1 s on 20,000 SRPMs, whatever is in them.
pub const MAX_GLOB_CHARACTERS: usize = 20_000;
/// Most warnings that are kept; the rest is counted.
const MAX_WARNINGS: usize = 100;

/// A list of what to build first, as an operator wrote it.
#[derive(Debug, Clone, Default)]
pub struct Priority {
    /// Only looked up, never iterated: the order of a HashMap would differ from run to run.
    exact: HashMap<String, u32>,
    /// In the order of their lines.
    globs: Box<GlobSet>,
    glob_lines: Vec<u32>,
    entries: usize,
    warnings: Vec<Warning>,
    unsaid: usize,
}

/// Something in a `priority.txt` that is not understood. The other lines count all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong, for the operator.
    pub text: String,
}

/// One line without its comment.
enum Line {
    Blank,
    Exact(String),
    Glob(Glob),
}

impl Priority {
    /// Reads a list: one entry a line (file name, NVR, package name, or a glob with `*`, `?` and
    /// `[..]` over any of these), first line first; `#` begins a comment at the start of a line or
    /// after white space. CRLF and a byte order mark are fine. Of an entry that is there twice the
    /// first counts. Never fails: what is not understood is a [`Warning`].
    pub fn parse(bytes: &[u8]) -> Self {
        let mut list = Self::default();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let (bytes, too_long) = match bytes.get(..MAX_SIZE) {
            Some(head) if bytes.len() > MAX_SIZE => {
                // The last line is cut somewhere: half an entry is another entry.
                let end = head.iter().rposition(|b| *b == b'\n').unwrap_or(0);
                (head.get(..end).unwrap_or_default(), true)
            }
            _ => (bytes, false),
        };
        let (mut globs, mut places) = (Vec::new(), 0);
        let mut number = 0;
        for line in bytes.split(|b| *b == b'\n') {
            number += 1;
            let entry = match read_line(line) {
                Ok(Line::Blank) => continue,
                Ok(entry) => entry,
                Err(text) => {
                    list.warn(number, text);
                    continue;
                }
            };
            if list.entries == MAX_ENTRIES {
                list.warn(number, format!("only the first {MAX_ENTRIES} entries count"));
                break;
            }
            match entry {
                Line::Glob(glob) if places + glob.places() > MAX_GLOB_CHARACTERS => {
                    let text = format!(
                        "it does not count: the globs of a list may have {MAX_GLOB_CHARACTERS} characters in all"
                    );
                    list.warn(number, text);
                    continue;
                }
                Line::Glob(glob) => {
                    places += glob.places();
                    list.glob_lines.push(number);
                    globs.push(glob);
                }
                Line::Exact(text) => {
                    list.exact.entry(text).or_insert(number);
                }
                Line::Blank => {}
            }
            list.entries += 1;
        }
        if too_long {
            list.warn(number, format!("the file ends here for moji: it is longer than {MAX_SIZE} bytes"));
        }
        list.globs = Box::new(GlobSet::new(&globs));
        list
    }

    /// The smallest line (from 1) that matches the file name, the NVR or the package name of an
    /// SRPM; `None` when no line does. An SRPM with a smaller rank is built earlier.
    pub fn rank(&self, name: &SrpmName, header: &SrpmHeader) -> Option<u32> {
        let (file, nvr, name) = (name.as_str(), header.nvr.as_str(), header.name.as_str());
        let exact = [file, nvr, name].iter().filter_map(|text| self.exact.get(*text).copied()).min();
        // Only what stands before that can be better.
        let count = self.glob_lines.partition_point(|line| exact.is_none_or(|exact| *line < exact));
        let lengths = [file.len(), nvr.len(), name.len()];
        let glob = if file.starts_with(nvr) && nvr.starts_with(name) {
            self.globs.first(count, file, &lengths)
        } else {
            let texts = [file, nvr, name].into_iter();
            texts.filter_map(|text| self.globs.first(count, text, &[text.len()])).min()
        };
        glob.and_then(|glob| self.glob_lines.get(glob).copied()).or(exact)
    }

    /// What was not understood, first line first; at most 100, see [`Priority::unsaid`].
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// How many warnings there are beyond those in [`Priority::warnings`].
    pub fn unsaid(&self) -> usize {
        self.unsaid
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether no SRPM can match.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn warn(&mut self, line: u32, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(Warning { line, text });
        } else {
            self.unsaid += 1;
        }
    }
}

fn read_line(line: &[u8]) -> Result<Line, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} bytes"));
    }
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
    let text = without_comment(line).trim();
    if text.is_empty() {
        return Ok(Line::Blank);
    }
    let quoted: String = text.chars().take(80).collect();
    if text.contains('/') {
        return Err(format!(
            "{quoted:?} has a folder in it: an entry is a file name, an NVR, a package name or a glob, \
             and a target has a priority.txt of its own in its folder"
        ));
    }
    if text.contains(char::is_whitespace) {
        return Err(format!("{quoted:?} has white space in it: one entry a line"));
    }
    let is_glob = text.contains(['*', '?', '[']);
    let allowed = if is_glob { "._+~^-*?[]!" } else { "._+~^-" };
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c)) {
        return Err(format!("{quoted:?} has {odd:?} in it, which no file name, NVR or package name has"));
    }
    if !is_glob {
        return Ok(Line::Exact(text.to_owned()));
    }
    Glob::new(text).map(Line::Glob).map_err(|why| format!("{quoted:?} is not a glob: {why}"))
}

/// The line up to the `#` that stands at its start or after white space.
fn without_comment(line: &str) -> &str {
    let mut after_space = true;
    for (at, c) in line.char_indices() {
        if c == '#' && after_space {
            return line.get(..at).unwrap_or_default();
        }
        after_space = c.is_whitespace();
    }
    line
}
