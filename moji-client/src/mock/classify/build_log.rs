//! Why rpmbuild failed, in one line, out of build.log. Pure.
//!
//! rpmbuild's two outputs are two pipes, so that lines can be out of order, and `sh -x` repeats
//! every command. What is shown is therefore a guess by rules: the *first* line of the failed
//! section that a compiler, a test suite or a tool wrote as an error (what follows the first error
//! is mostly its consequence), else the last line before rpmbuild gave up.

use super::text::{lines, says_disk_full};

/// How many lines before the end are looked at, at most.
const WINDOW: usize = 2000;
/// How many of the last lines may tell of a full disk. A test suite that meets the same error on
/// purpose, long before something else fails, is not the builder's fault.
const DISK_WINDOW: usize = 200;
/// Longest quotation, in characters: the whole reason is one line of 512 bytes.
const QUOTE_MAX: usize = 240;

/// What rpmbuild says about its failure.
#[derive(Debug, Default)]
pub(super) struct Failure {
    /// The section that failed: `%build`.
    pub(super) section: Option<String>,
    /// The line that tells most.
    pub(super) line: Option<String>,
    /// Whether rpmbuild itself said that it failed.
    pub(super) reported: bool,
}

impl Failure {
    /// What failed, for people: `%build failed: cc1: error: boom in build`.
    pub(super) fn reason(&self, otherwise: &str) -> String {
        let what = match &self.section {
            Some(section) => format!("{section} failed"),
            None => otherwise.to_owned(),
        };
        match &self.line {
            Some(line) => format!("{what}: {line}"),
            None => what,
        }
    }
}

/// Looks for the failure that `build_log` ends with.
pub(super) fn failure(build_log: &str) -> Failure {
    let mut window: Vec<String> = lines(build_log).rev().take(WINDOW).map(plain).collect();
    window.reverse();
    let section = window.iter().rev().find_map(|line| failed_section(line));
    let reported = section.is_some()
        || window.iter().any(|line| line == "RPM build errors:" || line.starts_with("error: "));
    let begin = window.iter().rposition(|line| line.starts_with("Executing(%")).unwrap_or(0);
    let part = window.get(begin..).unwrap_or_default();
    Failure { section: section.map(str::to_owned), line: telling_line(part).map(quote), reported }
}

/// The line near the end that tells of a full disk.
pub(super) fn disk_full(build_log: &str) -> Option<String> {
    lines(build_log)
        .rev()
        .take(DISK_WINDOW)
        .map(plain)
        .find(|line| !is_noise(line) && says_disk_full(line))
        .map(|line| quote(&line))
}

/// How many of the scripts that rpmbuild ran have executed nothing, not even what rpm puts at the beginning of each
/// (`%___build_pre` of rpm's macros). rpmbuild does not look whether a script could be written (`doScript` in
/// build/build.c), and on a full disk goes on as if an empty one had succeeded.
///
/// Lines may be out of order, so they are counted. A script may be traced in another way, then nothing is said; and
/// a package may print such lines itself, and of a long log the middle is not here, so that this is for a build of which
/// the disk is suspected anyway.
pub(super) fn empty_scripts(build_log: &str) -> usize {
    let count = |begin: &str| lines(build_log).filter(|line| line.starts_with(begin)).count();
    match (count("Executing("), count("+ umask ")) {
        (_, 0) => 0,
        (run, executed) => run.saturating_sub(executed),
    }
}

/// Whether rpmbuild had given the build back to Mock to have a package manager install dynamic
/// BuildRequires: what hangs then is not the package.
pub(super) fn waits_for_packages(build_log: &str) -> bool {
    lines(build_log)
        .rev()
        .find(|line| !line.is_empty())
        .is_some_and(|line| line.starts_with("Going to install missing buildrequires"))
}

/// `%build` of `error: Bad exit status from /var/tmp/rpm-tmp.X (%build)`.
fn failed_section(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Bad exit status from ")?;
    let (_, section) = rest.rsplit_once('(')?;
    let section = section.strip_suffix(')')?;
    let plain = |c: char| c.is_ascii_alphabetic() || c == '_';
    (section.len() < 40 && section.strip_prefix('%')?.chars().all(plain)).then_some(section)
}

fn telling_line(part: &[String]) -> Option<&str> {
    let candidates = || part.iter().map(String::as_str).filter(|line| !is_noise(line));
    let rules: [fn(&str) -> bool; 3] = [is_error, is_hint, is_make];
    rules.iter().find_map(|rule| candidates().find(|line| rule(line))).or_else(|| candidates().next_back())
}

/// Lines of the shell, of rpmbuild's frame and of Mock, which never tell why.
fn is_noise(line: &str) -> bool {
    let trimmed = line.trim_start();
    let shell = trimmed.trim_start_matches('+');
    trimmed.is_empty()
        || (shell.len() < trimmed.len() && (shell.is_empty() || shell.starts_with(' ')))
        || trimmed.contains("Bad exit status from ")
        || trimmed.chars().all(|c| !c.is_alphanumeric())
        || [
            "RPM build errors:",
            "RPM build warnings:",
            "Child return code was:",
            "Executing(",
            "Executing command:",
            "Mock Version:",
            "Building for target",
            "Building target platforms:",
            "Processing files:",
            "Provides:",
            "Requires",
            "Wrote:",
            "Finish: ",
            "Start: ",
            "warning: ",
            "[... ",
            "make: Leaving directory",
            "make: Entering directory",
        ]
        .iter()
        .any(|frame| trimmed.starts_with(frame))
}

/// What compilers, linkers, configure, CMake, rpmbuild and most tools write: `error:` as a word.
fn is_error(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let named =
        |at: usize| !lower.get(..at).is_some_and(|b| b.ends_with(|c: char| c.is_ascii_alphanumeric()));
    lower.match_indices("error:").any(|(at, _)| named(at))
        || lower.starts_with("error ")
        || lower.starts_with("error[e")
        || line.starts_with("CMake Error")
}

fn is_hint(line: &str) -> bool {
    // `TypeError: …`: the last line of a Python traceback, and of other languages' like it.
    let exception = line.split_once(": ").is_some_and(|(name, _)| {
        (name.ends_with("Error") || name.ends_with("Exception")) && !name.contains(' ')
    });
    exception
        || [
            "undefined reference",
            "No such file or directory",
            "command not found",
            "Permission denied",
            "No rule to make target",
            "Segmentation fault",
            "Assertion",
            "panicked at",
            "not found",
            "FAILED",
            "FAIL:",
            "*** FAIL",
            "Failed ",
            "failed: ",
            "Killed",
            "fatal:",
        ]
        .iter()
        .any(|hint| line.contains(hint))
}

fn is_make(line: &str) -> bool {
    line.contains("*** [") || line.starts_with("ninja: build stopped")
}

/// `line` without colours; other control characters are spaces.
fn plain(line: &str) -> String {
    let mut shown = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            shown.push(if c.is_control() { ' ' } else { c });
        } else if chars.next_if_eq(&'[').is_some() {
            // A CSI sequence ends with a letter or one of a few signs (ECMA-48, 5.4).
            while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// `line` shortened, and without rpmbuild's own `error: ` in front.
fn quote(line: &str) -> String {
    let line = line.trim();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match line.char_indices().nth(QUOTE_MAX) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or(line)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_the_failed_section() {
        let table = [
            // A colour, an error of an earlier section, consequences.
            (
                "Executing(%prep): x\nerror: not this\nExecuting(%build): x\n+ echo error: nor this\n\
                 \u{1b}[01m\u{1b}[Kmain.c:3:1:\u{1b}[m \u{1b}[31merror: \u{1b}[mexpected ';'\nmain.c:9: error: 2nd\n\
                 make: *** [Makefile:3: all] Error 1\nerror: Bad exit status from /var/tmp/rpm-tmp.x (%build)",
                "%build failed: main.c:3:1: error: expected ';'",
            ),
            (
                "Executing(%build): x\nld: a.o: undefined reference to `f'\nmake: *** [all] Error 1\n\
                 Bad exit status from x (%build)",
                "%build failed: ld: a.o: undefined reference to `f'",
            ),
            (
                "Executing(%check): x\nTraceback (most recent call last):\n  File \"a\"\nValueError: no\n\
                 Bad exit status from x (%check)",
                "%check failed: ValueError: no",
            ),
            (
                "Executing(%install): x\nmake: *** [all] Error 1\nBad exit status from x (%install)",
                "%install failed: make: *** [all] Error 1",
            ),
            ("progress 1\rprogress 2\rboom\r\nBad exit status from x (%install)", "%install failed: boom"),
            ("TypeErrors: 3 terror: none\nboom\n", "rpmbuild failed: boom"),
            ("", "rpmbuild failed"),
            ("+ :\n+\n++ x\n", "rpmbuild failed"),
        ];
        for (log, reason) in table {
            assert_eq!(failure(log).reason("rpmbuild failed"), reason);
        }
    }

    #[test]
    fn a_test_of_the_full_disk_is_not_a_full_disk() {
        assert!(disk_full("cp: error writing 'x': No space left on device\n").is_some());
        assert!(disk_full("cat: /dev/full: No space left on device\n").is_none());
        assert!(disk_full("+ grep 'No space left on device' log\n").is_none());
        assert!(disk_full(&format!("No space left on device\n{}", "other\n".repeat(300))).is_none());
    }
}
