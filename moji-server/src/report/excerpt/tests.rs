//! Logs as tools write them, and logs that nobody would write.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// The line that tells most of the section that failed.
fn told(section: &str, body: &str) -> String {
    let log = format!(
        "Executing command: ['bash']\nExecuting(%prep): /bin/sh\nnot.c:1: error: of another section\n\
         Executing({section}): /bin/sh -e /var/tmp/rpm-tmp.X\n+ umask 022\n{body}\nRPM build errors:\n\
         error: Bad exit status from /var/tmp/rpm-tmp.X ({section})\n\
             Bad exit status from /var/tmp/rpm-tmp.X ({section})\nChild return code was: 1\n"
    );
    let found = excerpt(&log).unwrap();
    let line = found.lines[found.telling].clone();
    assert_eq!(
        log.lines().nth(found.line_number.unwrap() as usize - 1).map(plain).map(|line| cut(&line)),
        Some(line.clone())
    );
    line.trim().to_owned()
}

#[test]
fn what_tools_write() {
    let table = [
        // Compilers: the first error, not its consequences.
        (
            "%build",
            "cc -c a.c\nIn file included from a.c:1:\nb.h:3:5: warning: unused error variable\na.c:3:1: error: expected ';'\na.c:9:1: error: 2nd\nmake: *** [Makefile:3: a.o] Error 1",
            "a.c:3:1: error: expected ';'",
        ),
        (
            "%build",
            "a.c:1:10: fatal error: foo.h: No such file or directory\ncompilation terminated.",
            "a.c:1:10: fatal error: foo.h: No such file or directory",
        ),
        (
            "%build",
            "FAILED: a.o\nc++ -c a.cc\na.cc:3:1: error: 'x' was not declared\nninja: build stopped: subcommand failed.",
            "a.cc:3:1: error: 'x' was not declared",
        ),
        (
            "%build",
            "   Compiling foo v1.0\nerror[E0425]: cannot find value `x` in this scope\n --> src/main.rs:2:5\nerror: could not compile `foo`",
            "error[E0425]: cannot find value `x` in this scope",
        ),
        (
            "%build",
            "# example.com/foo\n./main.go:3:14: undefined: x\nnote: module requires Go 1.99",
            "./main.go:3:14: undefined: x",
        ),
        ("%build", "Foo.java:3: error: cannot find symbol\n1 error", "Foo.java:3: error: cannot find symbol"),
        (
            "%build",
            "[INFO] Building\n[ERROR] COMPILATION ERROR :\n[ERROR] Foo.java:[3,4] cannot find symbol",
            "[ERROR] COMPILATION ERROR :",
        ),
        (
            "%build",
            "Foo.hs:3:1: error: [GHC-88464]\n    Variable not in scope: x",
            "Foo.hs:3:1: error: [GHC-88464]",
        ),
        (
            "%build",
            "File \"x.ml\", line 3, characters 0-4:\nError: Unbound module Foo",
            "Error: Unbound module Foo",
        ),
        // Linkers.
        (
            "%build",
            "/usr/bin/ld: a.o: in function `main':\na.c:(.text+0x5): undefined reference to `f'\ncollect2: error: ld returned 1 exit status",
            "a.c:(.text+0x5): undefined reference to `f'",
        ),
        (
            "%build",
            "/usr/bin/ld: cannot find -lfoo: No such file or directory\ncollect2: error: ld returned 1 exit status",
            "/usr/bin/ld: cannot find -lfoo: No such file or directory",
        ),
        // Configuration.
        (
            "%build",
            "-- Looking for x - not found\nCMake Error at CMakeLists.txt:3 (message):\n  Foo is needed\n-- Configuring incomplete, errors occurred!",
            "CMake Error at CMakeLists.txt:3 (message):",
        ),
        (
            "%build",
            "Program x found: NO\nmeson.build:3:0: ERROR: Dependency \"foo\" not found",
            "meson.build:3:0: ERROR: Dependency \"foo\" not found",
        ),
        (
            "%build",
            "checking for strerror_r... no\n./configure: line 3: foo: command not found\nconfigure: error: foo is needed",
            "configure: error: foo is needed",
        ),
        // Python.
        (
            "%build",
            "Traceback (most recent call last):\n  File \"setup.py\", line 1, in <module>\n    import x\nModuleNotFoundError: No module named 'x'\nerror: subprocess-exited-with-error",
            "ModuleNotFoundError: No module named 'x'",
        ),
        (
            "%build",
            "error: subprocess-exited-with-error\nexit code: 1\nTraceback (most recent call last):\n  File \"a\"\nfoo.Odd: why",
            "foo.Odd: why",
        ),
        // Tests go first in %check, and only there.
        (
            "%check",
            "error: this is what the test wants\nFAIL: test-foo\n# FAIL:  1\nmake: *** [check] Error 2",
            "FAIL: test-foo",
        ),
        (
            "%check",
            " 1/2 Test #1: a ....   Passed\n 2/2 Test #2: b ....***Failed    0.01 sec\nThe following tests FAILED:",
            "2/2 Test #2: b ....***Failed    0.01 sec",
        ),
        (
            "%check",
            "test a::b ... ok\ntest a::c ... FAILED\nthread 'a::c' panicked at src/a.rs:3:4:\nerror: test failed",
            "test a::c ... FAILED",
        ),
        (
            "%check",
            "=== RUN TestX\n--- FAIL: TestX (0.00s)\n    x_test.go:7: want 1\nFAIL\tx\t0.1s",
            "--- FAIL: TestX (0.00s)",
        ),
        (
            "%check",
            "    def test():\n>       assert 1 == 2\nE       assert 1 == 2\nFAILED t.py::test - assert 1 == 2",
            "E       assert 1 == 2",
        ),
        ("%check", "ok 1 - a\nnot ok 2 - b # TODO later\nnot ok 3 - c", "not ok 3 - c"),
        (
            "%check",
            "3/10 unit / foo   FAIL            0.12s   exit status 1\nSummary of Failures:",
            "3/10 unit / foo   FAIL            0.12s   exit status 1",
        ),
        (
            "%check",
            "ERROR: test_x (m.T.test_x)\nTraceback (most recent call last):\n  File \"m\"\nKeyError: 'x'",
            "ERROR: test_x (m.T.test_x)",
        ),
        (
            "%check",
            "a.c:3:1: error: tests do not compile\nmake: *** [check] Error 2",
            "a.c:3:1: error: tests do not compile",
        ),
        // patch, and what is not there.
        (
            "%prep",
            "patching file a.c\nHunk #1 FAILED at 3.\n1 out of 1 hunk FAILED -- saving rejects to file a.c.rej",
            "Hunk #1 FAILED at 3.",
        ),
        (
            "%build",
            "checking for foo... no\n/var/tmp/rpm-tmp.X: line 41: foo: command not found",
            "/var/tmp/rpm-tmp.X: line 41: foo: command not found",
        ),
        (
            "%build",
            "make: *** No rule to make target 'x', needed by 'all'.  Stop.",
            "make: *** No rule to make target 'x', needed by 'all'.  Stop.",
        ),
        (
            "%install",
            "ERROR   0002: file '/usr/bin/x' contains an invalid runpath '/tmp' in [/tmp]",
            "ERROR   0002: file '/usr/bin/x' contains an invalid runpath '/tmp' in [/tmp]",
        ),
        // make when nothing else; the last line when not even that.
        (
            "%build",
            "doing things\nmake[1]: Entering directory '/x'\nmake: *** [Makefile:3: all] Error 1\nmake[1]: Leaving directory '/x'",
            "make: *** [Makefile:3: all] Error 1",
        ),
        ("%install", "one\n\u{1b}[31mtwo\u{1b}[0m \u{1b}]0;title\u{7}three\u{202e}\n+ exit 1", "two three"),
    ];
    for (section, body, line) in table {
        assert_eq!(told(section, body), line, "{body}");
    }
}

#[test]
fn what_rpm_says_of_the_files() {
    let log = "Executing(%check): sh\nFAIL: of a test that may fail\nProcessing files: a-1-1.noarch\n\
               error: Installed (but unpackaged) file(s) found:\n   /usr/bin/x\n   /usr/bin/y\n\nRPM build errors:\n\
               \x20   Installed (but unpackaged) file(s) found:\n   /usr/bin/x\nChild return code was: 1";
    let found = excerpt(log).unwrap();
    assert_eq!(found.line_number, Some(4));
    assert_eq!(found.lines[found.telling], "error: Installed (but unpackaged) file(s) found:");
    assert_eq!(found.lines[found.telling + 1], "   /usr/bin/x");
}

/// The logs of real runs of Mock.
#[test]
fn real_logs() {
    let told = |case: &str| {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../moji-client/tests/mock-cases");
        excerpt_of(File::open(cases.join(case).join("build.log")).unwrap())
            .unwrap()
            .map(|found| found.lines[found.telling].clone())
    };
    let table = [
        ("failed-build", "cc1: error: boom in build"),
        ("failed-check", "FAIL: 1 of 3 tests"),
        (
            "failed-files",
            "error: File not found: /builddir/build/BUILDROOT/t-fail-files-1.0-1.mt12.x86_64/usr/bin/not-there",
        ),
        ("failed-generate-buildrequires", "no pyproject.toml"),
        ("failed-install", "boom"),
        ("failed-prep", "boom in prep"),
        ("spec-does-not-parse", "error: this spec needs another distribution"),
        // Killed: where it stood.
        ("timeout", "tick 5"),
        ("rpmbuild-oom-killed", "going silent"),
    ];
    for (case, line) in table {
        assert_eq!(told(case).as_deref(), Some(line), "{case}");
    }
    for case in ["succeeded", "missing-buildrequires", "missing-buildrequires-dynamic", "repo-missing"] {
        assert_eq!(told(case), None, "{case}");
    }
}

#[test]
fn some_lines_around_it() {
    let log =
        "Executing(%build): sh\n+ make\nzero\none\ntwo\na.c:1: error: no\nthree\nfour\n+ exit\nfive\nsix\n";
    let found = excerpt(log).unwrap();
    let lines = ["one", "two", "a.c:1: error: no", "three", "four", "+ exit", "five"];
    assert_eq!(
        (found.line_number, &*found.lines, found.telling),
        (Some(6), &lines.map(str::to_owned)[..], 2)
    );
    let found =
        excerpt("Executing(%build): sh\n+ make\na.c:1: error: no\n+ exit\nRPM build errors:\n").unwrap();
    assert_eq!((&*found.lines, found.telling), (&["a.c:1: error: no".to_owned()][..], 0));
}

#[test]
fn only_the_end_of_a_huge_log_is_read() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("build.log");
    let long = "ä".repeat(3000);
    let log = format!("a.c:1: error: far away\n{}b.c:2: error: {long}\n", "x\n".repeat(3 << 20));
    std::fs::write(&path, &log).unwrap();
    let (of_text, of_file) =
        (excerpt(&log).unwrap(), excerpt_of(File::open(&path).unwrap()).unwrap().unwrap());
    assert_eq!((of_text.line_number, of_file.line_number), (Some(2 + (3 << 20)), None));
    assert_eq!(of_text.lines, of_file.lines);
    let line = &of_file.lines[of_file.telling];
    assert!(line.starts_with("b.c:2: error: ää") && line.ends_with("ä…"), "{line}");
    assert_eq!(line.chars().count(), SHOWN_MAX);
}

proptest! {
    /// Whatever is in a log: what is shown is short, harmless, and holds the line it speaks of.
    #[test]
    fn nothing_harmful_is_shown(
        parts in proptest::collection::vec(
            prop_oneof![
                "\\PC{0,300}", ".{0,20}", "[\u{0}-\u{20}\u{7f}-\u{a0}\u{200b}-\u{202e}]{0,8}",
                Just("error: ".to_owned()), Just("\n".to_owned()), Just("\r".to_owned()),
                Just("\u{1b}[3".to_owned()), Just("\u{1b}]".to_owned()),
                Just("\nTraceback (most recent call last):\n".to_owned()),
                Just("\nBad exit status from x (%build)\n".to_owned()), Just("\nExecuting(%build): x\n".to_owned()),
            ],
            0..40,
        ),
    ) {
        let log = parts.concat();
        if let Some(found) = excerpt(&log) {
            prop_assert!(found.telling < found.lines.len() && found.lines.len() <= 8);
            prop_assert!(found.line_number.unwrap() as usize <= log.split('\n').count());
            for line in &found.lines {
                prop_assert!(line.chars().count() <= SHOWN_MAX);
                prop_assert!(!line.contains(char::is_control));
                prop_assert_eq!(&outcome::plain(line), line);
            }
        }
    }
}
