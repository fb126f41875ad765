//! What compilers, linkers, test suites, rpm and make write when something fails.
//!
//! It deliberately looks at one line at a time, and does not know which one is shown.

/// How much a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// That something else went wrong: make, ninja, pip.
    Consequence,
    /// Often harmless; when nothing tells more, it is what went wrong.
    Hint,
    /// An error, in so many words.
    Telling,
    /// A test failed, in the section for tests.
    Test,
}

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// `%check`.
    Check,
    /// Any other.
    Other,
}

/// `%build` of `error: Bad exit status from /var/tmp/rpm-tmp.X (%build)`.
pub(super) fn failed_section(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Bad exit status from ")?;
    let section = rest.rsplit_once('(')?.1.strip_suffix(')')?;
    let plain = |c: char| c.is_ascii_alphabetic() || c == '_';
    (section.len() < 40 && section.strip_prefix('%')?.chars().all(plain)).then_some(section)
}

/// Lines of the shell's trace, of rpmbuild's frame and of Mock, which never tell why.
pub(super) fn is_noise(line: &str) -> bool {
    const FRAME: [&str; 22] = [
        "RPM build errors:",
        "RPM build warnings:",
        "Child return code was:",
        "Child pid",
        "Child dead",
        "Executing(",
        "Executing command:",
        "Mock Version:",
        "Building for target",
        "Building target platforms:",
        "Processing files:",
        "Provides:",
        "Requires:",
        "Requires(",
        "Wrote:",
        "Finish: ",
        "Start: ",
        "warning: ",
        "Warning: ",
        "[... ",
        "make: Leaving directory",
        "make: Entering directory",
    ];
    let trimmed = line.trim_start();
    let shell = trimmed.trim_start_matches('+');
    trimmed.chars().all(|c| !c.is_alphanumeric())
        || (shell.len() < trimmed.len() && shell.starts_with(' '))
        || trimmed.contains("Bad exit status from ")
        || is_of_make(trimmed, ": Entering directory")
        || is_of_make(trimmed, ": Leaving directory")
        || FRAME.iter().any(|frame| trimmed.starts_with(frame))
}

/// `make[2]: …`.
fn is_of_make(line: &str, what: &str) -> bool {
    line.starts_with("make") && line.contains(what)
}

/// How much the line tells by itself.
pub(super) fn weight(line: &str, section: Section) -> Option<Weight> {
    if is_consequence(line) {
        Some(Weight::Consequence)
    } else if section == Section::Check && is_test(line) {
        Some(Weight::Test)
    } else if is_error(line) || is_of_linker(line) || is_of_rpm(line) || is_other(line) {
        Some(Weight::Telling)
    } else if is_hint(line) {
        Some(Weight::Hint)
    } else {
        None
    }
}

/// What is said of an error that is, or was, said elsewhere.
fn is_consequence(line: &str) -> bool {
    const SAID: [&str; 10] = [
        "error: ld returned ",
        "error: linker command failed",
        "error: could not compile `",
        "error: aborting due to ",
        "error: subprocess-exited-with-error",
        "error: metadata-generation-failed",
        "error: command '",
        "ERROR: Failed building wheel",
        "recipe for target",
        "ninja: build stopped",
    ];
    // But `*** No rule to make target` is a cause.
    let make = line.contains("*** [") && line.contains("] ") && !line.contains("No rule to make target");
    make || line.starts_with("FAILED: ") || SAID.iter().any(|said| line.contains(said))
}

/// What most tools write: `error:` as a word, or at the beginning.
fn is_error(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let is_word = |at: usize| {
        let before = lower.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
    };
    let named = lower.match_indices("error:").any(|(at, _)| is_word(at));
    // rustc, CMake, javac through Maven, rpm's scripts for %install.
    named
        || ["error[E", "CMake Error", "[ERROR] ", "ERROR ", "Error: "].iter().any(|is| line.starts_with(is))
        || is_of_go(line)
}

/// `./main.go:3:14: undefined: x`.
fn is_of_go(line: &str) -> bool {
    let Some((file, rest)) = line.split_once(".go:") else { return false };
    let mut parts = rest.splitn(3, ':');
    let mut number =
        || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    !file.contains(' ') && number() && number() && rest.matches(':').count() > 1
}

fn is_of_linker(line: &str) -> bool {
    const SAID: [&str; 6] = [
        "undefined reference to",
        "cannot find -l",
        "ld: cannot find ",
        "multiple definition of",
        "undefined symbol:",
        "recompile with -fPIC",
    ];
    SAID.iter().any(|said| line.contains(said))
}

fn is_of_rpm(line: &str) -> bool {
    const SAID: [&str; 8] = [
        "File not found: ",
        "File not found by glob: ",
        "Directory not found: ",
        "Installed (but unpackaged) file(s) found:",
        "Empty %files file ",
        "File must begin with \"/\": ",
        "Arch dependent binaries in noarch package",
        "in installed files; aborting",
    ];
    SAID.iter().any(|said| line.contains(said))
}

/// patch, make, go's modules, and what calls itself fatal.
fn is_other(line: &str) -> bool {
    let hunk = line.starts_with("Hunk #") && line.contains(" FAILED at ");
    let go = line.starts_with("go: ")
        && ["cannot find", "dial tcp", "no such", "not found"].iter().any(|said| line.contains(said));
    hunk || go
        || line.contains("No rule to make target")
        || line.starts_with("can't find file to patch at input line")
        || line.starts_with("fatal: ")
        || line.contains("panicked at ")
}

/// What test suites write of a test that failed.
fn is_test(line: &str) -> bool {
    let trimmed = line.trim_start();
    // automake, unittest, go, TAP, gtest, pytest's own lines.
    const BEGIN: [&str; 8] =
        ["FAIL: ", "FAIL ", "ERROR: test", "--- FAIL: ", "not ok ", "[  FAILED  ]", "FAILED ", "E   "];
    let begins = BEGIN.iter().any(|begin| trimmed.starts_with(begin)) && !trimmed.contains("# TODO");
    // ctest, gtest, cargo, prove, meson.
    let numbered = trimmed.starts_with(|c: char| c.is_ascii_digit());
    begins
        || ["***Failed", "***Exception", "***Timeout", "***Not Run"].iter().any(|said| line.contains(said))
        || line.ends_with(": Failure")
        || (line.starts_with("test ") && line.ends_with("... FAILED"))
        || (line.contains(" Failed ") && line.ends_with(" subtests"))
        || (numbered && (line.contains(" FAIL ") || line.contains(" TIMEOUT ")))
}

fn is_hint(line: &str) -> bool {
    const SAID: [&str; 22] = [
        "No such file or directory",
        "command not found",
        ": not found",
        "Permission denied",
        "No space left on device",
        "cannot allocate memory",
        "Cannot allocate memory",
        "Out of memory",
        "virtual memory exhausted",
        "Segmentation fault",
        "Bus error",
        "Illegal instruction",
        "Assertion",
        "Killed",
        "Aborted",
        "FAILED",
        "FAIL:",
        "Failed ",
        "failed: ",
        "Could not resolve host",
        "is not a git repository",
        "Can't locate ",
    ];
    // `TypeError: …`, of which the traceback is not to be seen.
    let exception = line.split_once(": ").is_some_and(|(name, _)| {
        (name.ends_with("Error") || name.ends_with("Exception")) && !name.contains(' ')
    });
    exception || SAID.iter().any(|said| line.contains(said))
}
