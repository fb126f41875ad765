//! Lists of entries, one a line: what `priority.txt` and `requires.txt` have in common. An entry
//! names SRPMs by file name, NVR, package name, or a glob over any of these.
//!
//! Knows bytes and names only: not what an entry is good for, where the file lies, or who asks.

use std::collections::HashMap;

use moji_proto::SrpmName;

use super::SrpmHeader;
use super::glob::{Glob, GlobSet};

/// Longest list that is read, in bytes; what follows is ignored with a warning.
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

/// Something in a list that is not understood. The other lines count all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong, for the operator.
    pub text: String,
}

/// What was not understood of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Warnings {
    /// First line first, at most 100.
    pub(super) said: Vec<Warning>,
    /// How many there are beyond those.
    pub(super) unsaid: usize,
}

impl Warnings {
    fn add(&mut self, line: u32, text: String) {
        if self.said.len() < MAX_WARNINGS {
            self.said.push(Warning { line, text });
        } else {
            self.unsaid += 1;
        }
    }
}

/// What a line says of the SRPMs that its entry names.
pub(super) trait Value: Sized {
    /// Reads what a line says: its entry, and its value. `text` has neither a comment nor white
    /// space around it, and is not empty.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    fn read(line: u32, text: &str) -> Result<(&str, Self), String>;

    /// Adds what a later line says of the same entry.
    fn join(&mut self, later: Self);
}

/// A list as an operator wrote it.
#[derive(Debug, Clone)]
pub(super) struct Entries<T> {
    /// Only looked up, never iterated: the order of a HashMap would differ from run to run.
    exact: HashMap<String, T>,
    /// In the order of their lines; the same glob is there once.
    globs: Box<GlobSet>,
    of_globs: Vec<T>,
    count: usize,
    pub(super) warnings: Warnings,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            globs: Box::default(),
            of_globs: Vec::new(),
            count: 0,
            warnings: Warnings::default(),
        }
    }
}

impl<T: Value> Entries<T> {
    /// Reads a list: one entry a line; `#` begins a comment at the start of a line or after white
    /// space. CRLF and a byte order mark are fine. Never fails: what is not understood is a
    /// [`Warning`].
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut list = Self::default();
        let (bytes, too_long) = bounded(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
        let (mut globs, mut places, mut known) = (Vec::new(), 0, HashMap::new());
        let mut number = 0;
        for line in bytes.split(|b| *b == b'\n') {
            number += 1;
            let (entry, value) = match read_line(number, line) {
                Ok(None) => continue,
                Ok(Some(entry)) => entry,
                Err(text) => {
                    list.warnings.add(number, text);
                    continue;
                }
            };
            if list.count == MAX_ENTRIES {
                list.warnings.add(number, format!("only the first {MAX_ENTRIES} entries count"));
                break;
            }
            match entry {
                Entry::Glob(_, glob) if places + glob.places() > MAX_GLOB_CHARACTERS => {
                    let text = format!(
                        "it does not count: the globs of a list may have {MAX_GLOB_CHARACTERS} characters in all"
                    );
                    list.warnings.add(number, text);
                    continue;
                }
                Entry::Glob(text, glob) => {
                    places += glob.places();
                    let at = *known.entry(text).or_insert(globs.len());
                    match list.of_globs.get_mut(at) {
                        Some(before) => before.join(value),
                        None => {
                            list.of_globs.push(value);
                            globs.push(glob);
                        }
                    }
                }
                Entry::Exact(text) => match list.exact.get_mut(text) {
                    Some(before) => before.join(value),
                    None => {
                        list.exact.insert(text.to_owned(), value);
                    }
                },
            }
            list.count += 1;
        }
        if too_long {
            let text = format!("the file ends here for moji: it is longer than {MAX_SIZE} bytes");
            list.warnings.add(number, text);
        }
        list.globs = Box::new(GlobSet::new(&globs));
        list
    }
}

impl<T> Entries<T> {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What the entries without a glob say of an SRPM: that of its file name, its NVR, its name.
    pub(super) fn exact<'a>(
        &'a self,
        name: &'a SrpmName,
        header: &'a SrpmHeader,
    ) -> impl Iterator<Item = &'a T> {
        let texts = [name.as_str(), header.nvr.as_str(), header.name.as_str()];
        texts.into_iter().filter_map(|text| self.exact.get(text))
    }

    /// What the first glob that matches says of an SRPM, among those before one of which `end` holds;
    /// it must hold of all that follow, too.
    pub(super) fn first_glob(
        &self,
        name: &SrpmName,
        header: &SrpmHeader,
        end: impl Fn(&T) -> bool,
    ) -> Option<&T> {
        let count = self.of_globs.partition_point(|value| !end(value));
        let first = |text: &str, lengths: &[usize]| self.globs.first(count, text, lengths);
        let at = Names::of(name, header).each(first).flatten().min()?;
        self.of_globs.get(at)
    }

    /// What all globs that match say of an SRPM, in the order of their lines.
    pub(super) fn each_glob(&self, name: &SrpmName, header: &SrpmHeader) -> impl Iterator<Item = &T> {
        let all = |text: &str, lengths: &[usize]| self.globs.all(text, lengths);
        let mut found: Vec<usize> = Names::of(name, header).each(all).flatten().collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|at| self.of_globs.get(at))
    }
}

/// The texts by which globs know an SRPM, and which beginnings of them count.
struct Names<'a>(Vec<(&'a str, Vec<usize>)>);

impl<'a> Names<'a> {
    fn of(name: &'a SrpmName, header: &'a SrpmHeader) -> Self {
        let (file, nvr, name) = (name.as_str(), header.nvr.as_str(), header.name.as_str());
        if file.starts_with(nvr) && nvr.starts_with(name) {
            return Self(vec![(file, vec![name.len(), nvr.len(), file.len()])]);
        }
        Self([file, nvr, name].map(|text| (text, vec![text.len()])).into())
    }

    fn each<R>(self, ask: impl Fn(&str, &[usize]) -> R) -> impl Iterator<Item = R> {
        self.0.into_iter().map(move |(text, lengths)| ask(text, &lengths))
    }
}

/// What stands for SRPMs at the start of a line.
enum Entry<'a> {
    Exact(&'a str),
    Glob(&'a str, Glob),
}

/// What of a list is read, and whether that is not all of it.
fn bounded(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.get(..MAX_SIZE) {
        Some(head) if bytes.len() > MAX_SIZE => {
            // The last line is cut somewhere: half an entry is another entry.
            let end = head.iter().rposition(|b| *b == b'\n').unwrap_or(0);
            (head.get(..end).unwrap_or_default(), true)
        }
        _ => (bytes, false),
    }
}

fn read_line<T: Value>(number: u32, line: &[u8]) -> Result<Option<(Entry<'_>, T)>, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} bytes"));
    }
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
    let text = without_comment(line).trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (entry, value) = T::read(number, text)?;
    Ok(Some((read_entry(entry)?, value)))
}

fn read_entry(text: &str) -> Result<Entry<'_>, String> {
    let is_glob = text.contains(['*', '?', '[']);
    let allowed = if is_glob { "._+~^-*?[]!" } else { "._+~^-" };
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c)) {
        return Err(format!(
            "{} has {odd:?} in it, which no file name, NVR or package name has",
            quoted(text)
        ));
    }
    if !is_glob {
        return Ok(Entry::Exact(text));
    }
    let glob = Glob::new(text).map_err(|why| format!("{} is not a glob: {why}", quoted(text)))?;
    Ok(Entry::Glob(text, glob))
}

/// Some of `text`, so that it can be shown.
pub(super) fn quoted(text: &str) -> String {
    let some: String = text.chars().take(80).collect();
    format!("{some:?}")
}

/// That an entry has a folder in it, for a list of this name.
pub(super) fn check_no_folder(entry: &str, list: &str) -> Result<(), String> {
    if !entry.contains('/') {
        return Ok(());
    }
    Err(format!(
        "{} has a folder in it: an entry is a file name, an NVR, a package name or a glob, \
         and a target has a {list} of its own in its folder",
        quoted(entry)
    ))
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
