//! Reading the texts of Mock, rpmbuild and dnf line by line. Pure; knows what their lines look
//! like, but not whose fault anything is.

use moji_proto::outcome::MISSING_MAX;

/// Longest part of a line that is looked at, in bytes: build logs have lines of megabytes.
const LINE_MAX: usize = 4096;

/// The lines of a log, each cut to [`LINE_MAX`] and trimmed at the end. Of a line that was
/// overwritten with carriage returns (progress bars), what was visible last.
pub(super) fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split('\n').map(|line| {
        let line = line.trim_end();
        let line = line.rfind('\r').and_then(|at| line.get(at + 1..)).unwrap_or(line);
        cut(line, LINE_MAX)
    })
}

/// The first `max` bytes of `text`, less when that would split a character.
fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

/// A step that state.log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mock) enum Step<'a> {
    /// `Start: NAME`
    Start(&'a str),
    /// `Finish: NAME`
    Finish(&'a str),
}

/// The step in one line of state.log: `2026-11-20 12:21:02,578 - Start: chroot init`.
pub(in crate::mock) fn step(line: &str) -> Option<Step<'_>> {
    let (_, event) = line.split_once(" - ")?;
    let event = event.trim();
    event
        .strip_prefix("Start: ")
        .map(Step::Start)
        .or_else(|| event.strip_prefix("Finish: ").map(Step::Finish))
}

/// The part of mock.log that says why: what follows the last `ERROR: Command failed`, which is the
/// output of the command, without the command itself.
pub(super) fn after_command_failed(mock_log: &str) -> Vec<&str> {
    let all: Vec<_> = lines(mock_log).collect();
    let Some(at) = all.iter().rposition(|line| line.starts_with("ERROR: Command failed")) else {
        return Vec::new();
    };
    all.get(at + 1..).unwrap_or_default().iter().copied().filter(|line| !line.starts_with(" # ")).collect()
}

/// The last of Mock's own error messages: not the line with the elapsed time, and not the headline
/// of a failed command, whose command line says little.
pub(super) fn last_error(mock_log: &str) -> Option<&str> {
    lines(mock_log).rev().filter_map(|line| line.strip_prefix("ERROR: ")).map(str::trim).find(|text| {
        !text.is_empty() && !text.starts_with("Exception(") && !text.starts_with("Command failed")
    })
}

/// The command that failed last, as mock.log quotes it.
pub(super) fn failed_command(mock_log: &str) -> Option<&str> {
    lines(mock_log).rev().find_map(|line| line.strip_prefix(" # "))
}

/// The output of the last command in root.log that ended with another code than 0, without log
/// prefixes. Only there are the errors of `dnf update`, and only that part counts: an earlier
/// command that complained and succeeded is not the reason.
pub(super) fn last_failed_section(root_log: &str) -> Vec<&str> {
    let mut failed = Vec::new();
    let mut current = Vec::new();
    let mut harmless = false;
    for line in lines(root_log) {
        let text = without_prefix(line);
        if let Some(command) = text.strip_prefix("Executing command: ") {
            // Cleaning up comes after the failure and often fails itself.
            let command = cut(command, 40);
            harmless = command.contains("umount") || command.contains("btrfs");
            current.clear();
        } else if let Some(code) = text.strip_prefix("Child return code was: ") {
            let output = std::mem::take(&mut current);
            if code.trim() != "0" && !harmless {
                failed = output;
            }
        } else {
            current.push(text);
        }
    }
    failed
}

/// A line of root.log without its `LEVEL file.py:LINE:  `.
fn without_prefix(line: &str) -> &str {
    let level = ["DEBUG ", "INFO ", "WARNING ", "ERROR "].iter().any(|level| line.starts_with(level));
    match line.split_once(":  ") {
        Some((prefix, text)) if level && prefix.len() < 64 && prefix.contains(".py:") => text,
        _ => line,
    }
}

/// A requirement that the package manager could not satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing<'a> {
    /// What is required, in RPM's notation.
    pub(super) requirement: &'a str,
    /// The package that requires it, when it is not the build itself.
    pub(super) needed_by: Option<&'a str>,
}

/// All requirements that `lines`, the output of dnf (4 or 5) or yum, names as missing, each once.
pub(super) fn missing<'a>(output: impl IntoIterator<Item = &'a str>) -> Vec<Missing<'a>> {
    let mut found: Vec<Missing<'a>> = Vec::new();
    for item in output.into_iter().filter_map(missing_in) {
        if found.len() < MISSING_MAX && !found.iter().any(|known| known.requirement == item.requirement) {
            found.push(item);
        }
    }
    found
}

fn missing_in(line: &str) -> Option<Missing<'_>> {
    const DIRECT: [&str; 4] = [
        "No matching package to install: ", // dnf 4 builddep
        "No match for argument: ",          // dnf 4 and 5
        "No Package found for ",            // yum-builddep
        "nothing provides requested ",      // libsolv
    ];
    for marker in DIRECT {
        if let Some((_, rest)) = line.split_once(marker) {
            return requirement(rest, None);
        }
    }
    let (_, rest) = line.split_once("nothing provides ")?;
    let (what, by) = rest.split_once(" needed by ")?;
    requirement(what, by.split_whitespace().next())
}

fn requirement<'a>(text: &'a str, needed_by: Option<&'a str>) -> Option<Missing<'a>> {
    let requirement = text.trim().trim_matches(['\'', '"']).trim();
    requirement.contains(char::is_alphanumeric).then_some(Missing { requirement, needed_by })
}

/// Whether a line tells of a full disk. `/dev/full` is what test suites use to see this very error.
pub(super) fn says_disk_full(line: &str) -> bool {
    let full = line.contains("No space left on device") && !line.contains("/dev/full");
    full || line.contains("more space needed on the ")
        || line.contains("more space on the ") && line.contains(" needs ")
        || line.contains("Disk quota exceeded")
}
