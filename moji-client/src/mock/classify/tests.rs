//! Every case that was measured, and arbitrary texts.

use std::path::{Path, PathBuf};

use moji_proto::outcome::{MISSING_MAX, REASON_MAX};
use proptest::prelude::*;

use super::*;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock-cases")
}

/// What the measured run `name` left. Its result directory is kept as a listing, `files.txt`.
fn case(name: &str) -> Evidence {
    let dir = cases().join(name);
    let exit = std::fs::read_to_string(dir.join("exit")).unwrap().trim().parse().unwrap();
    let listing = std::fs::read_to_string(dir.join("files.txt")).unwrap();
    Evidence {
        result_dir_empty: listing.trim().is_empty(),
        ..Evidence::read(Ended::Exit(exit), &dir, &dir.join("stderr.log"), None)
    }
}

use FailureKind::{Configuration, Infrastructure, Interrupted, MissingDependency, Package, UnreadableSrpm};

/// Case, kind (`None`: succeeded), words in the reason, missing requirements.
type Row = (&'static str, Option<FailureKind>, &'static [&'static str], &'static [&'static str]);

const TABLE: &[Row] = &[
    (
        "addrepo-unreachable",
        Some(Infrastructure),
        &["could not download metadata for repo '1270011_nope'"],
        &[],
    ),
    ("broken-config", Some(Configuration), &["Config error: /srv/farm/broken.cfg: invalid syntax"], &[]),
    (
        "buildrequires-not-installable",
        Some(MissingDependency),
        &["nothing provides libnowhere.so.9 needed by t-broken-req-1.0-1.noarch"],
        &["libnowhere.so.9"],
    ),
    // dd's own message was discarded: only the free space tells (see below).
    ("disk-full-build", Some(Package), &["%install failed"], &[]),
    ("disk-full-dnf", Some(Infrastructure), &["disk full on the builder", "needs 274MB more space"], &[]),
    ("disk-full-unpack", Some(Infrastructure), &["disk full on the builder", "No space left on device"], &[]),
    ("failed-build", Some(Package), &["%build failed: cc1: error: boom in build"], &[]),
    ("failed-check", Some(Package), &["%check failed: FAIL: 1 of 3 tests"], &[]),
    ("failed-files", Some(Package), &["rpmbuild failed: File not found: ", "usr/bin/not-there"], &[]),
    (
        "failed-generate-buildrequires",
        Some(Package),
        &["%generate_buildrequires failed: no pyproject.toml"],
        &[],
    ),
    ("failed-install", Some(Package), &["%install failed: boom"], &[]),
    ("failed-prep", Some(Package), &["%prep failed: boom in prep"], &[]),
    (
        "missing-buildrequires",
        Some(MissingDependency),
        &["no package provides no-such-package-devel >= 3.1, and 1 more"],
        &["no-such-package-devel >= 3.1", "pkgconfig(alsoNotThere)"],
    ),
    (
        "missing-buildrequires-dynamic",
        Some(MissingDependency),
        &["no package provides python3dist(nowhere)"],
        &["python3dist(nowhere)"],
    ),
    (
        "missing-buildrequires-version",
        Some(MissingDependency),
        &["no package provides gcc >= 99"],
        &["gcc >= 99"],
    ),
    ("missing-until-published", Some(MissingDependency), &["t-ok-devel >= 1.0"], &["t-ok-devel >= 1.0"]),
    ("no-such-config", Some(Configuration), &["Non-existing Mock config 'no-such-conf'"], &[]),
    (
        "postinstall-failed",
        Some(MissingDependency),
        &["the built packages cannot be installed", "nothing provides python needed by livemedia-modifier"],
        &["python", "/usr/bin/python"],
    ),
    ("repo-broken-metadata", Some(Infrastructure), &["30", "a repository is broken"], &[]),
    ("repo-missing", Some(Infrastructure), &["could not download metadata for repo 'moji'"], &[]),
    ("repo-rpm-gone", Some(Infrastructure), &["packages from local repository have incorrect checksum"], &[]),
    ("root-locked", Some(Infrastructure), &["in use", "Build root is locked by another process"], &[]),
    ("rpmbuild-oom-killed", Some(Infrastructure), &["killed by signal 9", "out of memory"], &[]),
    ("sigint", Some(Infrastructure), &["stopped from outside", "SIGINT"], &[]),
    ("sigterm-after-success", None, &[], &[]),
    ("sigterm-build", Some(Infrastructure), &["stopped from outside", "SIGTERM"], &[]),
    ("sigterm-dnf", Some(Infrastructure), &["stopped from outside", "SIGTERM"], &[]),
    ("spec-does-not-parse", Some(Package), &["does not parse: this spec needs another distribution"], &[]),
    ("srpm-truncated", Some(UnreadableSrpm), &["trunc.src.rpm", "error reading package header"], &[]),
    ("succeeded", None, &[], &[]),
    ("succeeded-after-dependency-published", None, &[], &[]),
    ("succeeded-dynamic-buildrequires", None, &[], &[]),
    ("timeout", Some(Package), &["rpmbuild ran out of time: Timeout(5) expired"], &[]),
];

#[track_caller]
fn check(name: &str, evidence: &Evidence, kind: Option<FailureKind>, words: &[&str], missing: &[&str]) {
    match (classify(evidence), kind) {
        (Outcome::Succeeded, None) => {}
        (Outcome::Failed { kind, reason, exit_code, missing: named }, Some(expected)) => {
            assert_eq!(kind, expected, "{name}: {reason}");
            assert_eq!(named, missing, "{name}: {reason}");
            assert_eq!(exit_code, evidence.ended.exit_code(), "{name}");
            for word in words {
                assert!(reason.contains(word), "{name}: no {word:?} in {reason:?}");
            }
        }
        (outcome, _) => panic!("{name}: {outcome:?}"),
    }
}

#[test]
fn every_measured_case() {
    for (name, kind, words, missing) in TABLE {
        check(name, &case(name), *kind, words, missing);
    }
    let mut listed: Vec<_> = TABLE.iter().map(|row| row.0.to_owned()).collect();
    let mut there: Vec<_> = std::fs::read_dir(cases())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there, "a case without a row, or a row without a case");
}

#[test]
fn a_failure_with_a_full_disk_is_the_builders() {
    for name in ["disk-full-build", "failed-build", "failed-generate-buildrequires"] {
        let full = Evidence { lowest_free: Some(5 << 20), ..case(name) };
        check(name, &full, Some(Infrastructure), &["disk full on the builder (only 5 MiB"], &[]);
        let room = Evidence { lowest_free: Some(DISK_LOW), ..case(name) };
        check(name, &room, Some(Package), &[" failed"], &[]);
    }
    let mut said = case("disk-full-build");
    said.build_log = said.build_log.replace(
        "error: Bad exit status",
        "dd: error writing 'blob': No space left on device\nerror: Bad exit status",
    );
    check("said", &said, Some(Infrastructure), &["dd: error writing"], &[]);
    // Copying the results failed: a truncated RPM is there.
    let mut copy = case("failed-build");
    copy.mock_log.push_str("ERROR: Can not copy /builddir/x.rpm to /srv/farm/results\n");
    check("copy", &copy, Some(Infrastructure), &["Can not copy"], &[]);
    let mut unpacked = case("failed-build");
    unpacked.ended = Ended::Exit(40);
    check(
        "no room",
        &Evidence { lowest_free: Some(0), ..unpacked.clone() },
        Some(Infrastructure),
        &["disk full"],
        &[],
    );
    check("room", &unpacked, Some(Package), &[], &[]);
    // Succeeded all the same, with little left.
    check("ok", &Evidence { lowest_free: Some(0), ..case("succeeded") }, None, &[], &[]);
}

/// As rpmbuild 4.18 was seen to do on a disk that was full while it wrote the script of `%build`.
#[test]
fn a_script_that_could_not_be_written_is_no_success() {
    let good = case("succeeded");
    let (before, build) = good.build_log.split_once("Executing(%build)").unwrap();
    let (header, rest) = build.split_once('\n').unwrap();
    let (_, after) = rest.split_once("Executing(%install)").unwrap();
    let build_log = format!("{before}Executing(%build){header}\nExecuting(%install){after}");
    let empty = Evidence { build_log, ..good };
    let full = Evidence { lowest_free: Some(0), ..empty.clone() };
    check("full", &full, Some(Infrastructure), &["only 0 MiB", "script that it could not write"], &[]);
    // With room it is the package's own way to run its scripts.
    check("room", &Evidence { lowest_free: Some(DISK_LOW), ..empty.clone() }, None, &[], &[]);
    let untraced = Evidence { build_log: full.build_log.replace("+ umask", "umask"), ..full };
    check("untraced", &untraced, None, &[], &[]);
    for name in ["succeeded", "succeeded-dynamic-buildrequires", "succeeded-after-dependency-published"] {
        check(name, &Evidence { lowest_free: Some(0), ..case(name) }, None, &[], &[]);
    }
}

#[test]
fn success_needs_the_code_and_the_log() {
    let mut cut = case("succeeded");
    cut.state_log = cut.state_log.replace("Finish: run", "");
    check("cut", &cut, Some(Infrastructure), &["Finish: run"], &[]);
    check(
        "empty",
        &Evidence { result_dir_empty: true, ..case("succeeded") },
        Some(Infrastructure),
        &["empty"],
        &[],
    );
    check(
        "no logs",
        &Evidence { state_log: String::new(), ..case("succeeded") },
        Some(Infrastructure),
        &[],
        &[],
    );
    let after = Evidence { ended: Ended::Exit(1), ..case("succeeded") };
    check("1", &after, Some(Infrastructure), &["after the build was finished"], &[]);
}

#[test]
fn moji_ended_it() {
    let with = |name: &str, ended: Ended| Evidence { ended, ..case(name) };
    let limit = &["the build ran longer than the build's time limit"];
    check("a", &with("sigterm-build", Ended::TimedOut), Some(Package), limit, &[]);
    check("b", &with("sigterm-dnf", Ended::TimedOut), Some(Infrastructure), &["\"dnf4 update\""], &[]);
    check("c", &with("sigterm-build", Ended::Stalled), Some(Package), &["watchdog"], &[]);
    check("d", &with("sigterm-dnf", Ended::Stalled), Some(Infrastructure), &["Mock wrote nothing"], &[]);
    check("e", &with("sigterm-after-success", Ended::Stalled), None, &[], &[]);
    check("f", &with("sigterm-after-success", Ended::Cancelled), None, &[], &[]);
    check("f", &with("sigterm-build", Ended::Cancelled), Some(Interrupted), &["cancelled"], &[]);
    check("f", &with("failed-build", Ended::Cancelled), Some(Interrupted), &["cancelled"], &[]);
    check("g", &with("failed-build", Ended::Stalled), Some(Package), &["boom in build"], &[]);
    // dnf hung while it installed dynamic BuildRequires, which happens inside of rpmbuild's step.
    let dynamic = with("missing-buildrequires-dynamic", Ended::Stalled);
    check("h", &dynamic, Some(Infrastructure), &["wrote nothing"], &[]);
    check("i", &with("sigterm-build", Ended::Signal(9)), Some(Infrastructure), &["SIGKILL"], &[]);
    check("j", &with("sigterm-after-success", Ended::Signal(9)), None, &[], &[]);
    let absent = Evidence { ended: Ended::NotStarted("no such file".into()), ..case("no-such-config") };
    check("k", &absent, Some(Infrastructure), &["could not be started: no such file"], &[]);
}

#[test]
fn done_is_not_enough() {
    // Done, and then another step that failed or was cut: --postinstall.
    let cut = Evidence { ended: Ended::Exit(143), ..case("postinstall-failed") };
    check("postinstall", &cut, Some(Infrastructure), &["SIGTERM"], &[]);
    // A verbose Mock copies what the build prints into mock.log.
    let mut lies = case("sigterm-build");
    lies.mock_log.push_str("INFO: Done(x) Config(y)\n");
    lies.state_log = lies.state_log.replace("Finish: build phase", "");
    check("lies", &lies, Some(Infrastructure), &["SIGTERM"], &[]);
}

#[test]
fn a_broken_repository_parks_nothing() {
    // The chroot's own packages are missing: every package would be parked.
    let mut early = case("missing-buildrequires");
    early.state_log = early.state_log.split_inclusive('\n').take(6).collect();
    check("early", &early, Some(Infrastructure), &["package manager failed"], &[]);
    // dnf went on without a repository: what is missing may well be in it.
    let mut without = case("missing-buildrequires");
    without.mock_log.push_str("Ignoring repositories: updates\n");
    check("ignored", &without, Some(Infrastructure), &["metadata for repo updates"], &[]);
}

#[test]
fn other_forms_of_a_missing_requirement() {
    let table: &[(&str, &[&str])] = &[
        (
            "Failed to resolve the transaction:\nNo match for argument: pkgconfig(zlib)\n",
            &["pkgconfig(zlib)"],
        ),
        (
            "Failed to resolve the transaction:\nProblem: nothing provides libfoo.so.1()(64bit) needed by a-1.x86_64 from x\n",
            &["libfoo.so.1()(64bit)"],
        ),
        ("  - nothing provides python3 >= 3.99 needed by b-1.noarch\n", &["python3 >= 3.99"]),
        ("Error: No Package found for foo-devel >= 2\n", &["foo-devel >= 2"]),
        ("  - nothing provides requested bar\n", &["bar"]),
        ("No matching package to install: 'a'\nNo matching package to install: 'a'\n", &["a"]),
    ];
    for (output, missing) in table {
        let mut evidence = case("missing-buildrequires");
        evidence.root_log = String::new();
        evidence.mock_log = format!("ERROR: Command failed: \n # dnf5 builddep\n{output}");
        check(output, &evidence, Some(MissingDependency), &[], missing);
    }
}

#[test]
fn code_1_without_a_step() {
    let table = [
        ("mock: error: unrecognized arguments: --nochek\n", Configuration),
        (
            "ERROR: Cannot find/open srpm: /a.src.rpm. Error: [Errno 2] No such file or directory: '/a'\n",
            Infrastructure,
        ),
        ("PermissionError: [Errno 13] Permission denied: '/srv/out/state.log'\n", Infrastructure),
        ("", Infrastructure),
    ];
    for (mock_log, kind) in table {
        let evidence = Evidence { mock_log: mock_log.into(), ..case("srpm-truncated") };
        check(mock_log, &evidence, Some(kind), &[], &[]);
    }
}

#[test]
fn a_traceback_is_not_the_specs_fault() {
    let mut evidence = case("spec-does-not-parse");
    evidence
        .mock_log
        .push_str("Traceback (most recent call last):\n  File \"x\"\nOSError: [Errno 5] I/O error\n");
    evidence.build_log = String::new();
    check("traceback", &evidence, Some(Infrastructure), &["OSError: [Errno 5]"], &[]);
}

/// Pieces that the rules look for, in any order and with rubbish between them.
fn log() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        "\\PC{0,40}",
        Just("\u{1b}[".to_owned()),
        Just("Bad exit status from (%".to_owned()),
        Just("DEBUG x.py:1:  Executing command: é".to_owned()),
        Just("DEBUG x.py:1:  Child return code was: 1".to_owned()),
        Just("nothing provides  needed by".to_owned()),
        Just("No matching package to install: '\u{0}\u{202e}'".to_owned()),
        Just("2026-11-20 - Start: rpmbuild x".to_owned()),
        Just("2026-11-20 - Start: build setup".to_owned()),
        Just("2026-11-20 - Finish: run".to_owned()),
        Just("ERROR: Command failed: ".to_owned()),
        Just("Traceback (most recent call last)".to_owned()),
        Just("é".repeat(5000)),
        Just("\r\n\0".to_owned()),
        (0..200usize).prop_map(|n| "nothing provides x needed by y\n".repeat(n)),
    ];
    let end = prop_oneof![Just(""), Just("\n"), Just("\r")];
    proptest::collection::vec((piece, end), 0..20)
        .prop_map(|pieces| pieces.into_iter().map(|(text, end)| text + end).collect())
}

fn ended() -> impl Strategy<Value = Ended> {
    prop_oneof![
        any::<i32>().prop_map(Ended::Exit),
        (0..256).prop_map(Ended::Exit),
        prop_oneof![Just(0), Just(1), Just(10), Just(30), Just(143), Just(247)].prop_map(Ended::Exit),
        any::<i32>().prop_map(Ended::Signal),
        Just(Ended::TimedOut),
        Just(Ended::Stalled),
        Just(Ended::Cancelled),
        "\\PC*".prop_map(Ended::NotStarted),
    ]
}

proptest! {
    #[test]
    fn any_text_gives_a_bounded_verdict(
        ended in ended(),
        logs in [log(), log(), log(), log()],
        lowest_free in any::<Option<u64>>(),
        result_dir_empty: bool,
    ) {
        let [root_log, build_log, state_log, mock_log] = logs;
        let said_done = state_log.contains("Finish: run") || mock_log.contains("Done(");
        let evidence = Evidence {
            ended: ended.clone(), root_log, build_log, state_log, mock_log, lowest_free, result_dir_empty,
        };
        match classify(&evidence) {
            Outcome::Succeeded => prop_assert!(said_done && !result_dir_empty),
            Outcome::Failed { kind, reason, missing, .. } => {
                prop_assert!(!reason.is_empty() && reason.len() <= REASON_MAX);
                prop_assert!(!reason.contains(char::is_control));
                prop_assert!(missing.len() <= MISSING_MAX);
                prop_assert!(missing.iter().all(|m| m.len() <= REASON_MAX && !m.contains(char::is_control)));
                prop_assert_eq!(missing.is_empty(), kind != MissingDependency);
            }
        }
    }
}

#[test]
fn a_line_of_megabytes_is_no_problem() {
    let mut evidence = case("failed-build");
    evidence.build_log = format!("{}\n{}\0{}", "y".repeat(3 << 20), evidence.build_log, "\r".repeat(1 << 20));
    check("huge", &evidence, Some(Package), &["%build failed: cc1: error: boom in build"], &[]);
}
