//! Programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_proto::api::{Event, EventKind};
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::super::testing::{MemoryLog, event};
use super::*;
use crate::outgoing::pace::{Trouble, TroubleKind};
use crate::outgoing::program::give;

const LONG: Duration = Duration::from_secs(30);

/// A script in a folder of its own, whose path it has as `$here`.
fn script(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    write(&path, &format!("#!/bin/sh\nhere={}\n{text}", folder.path().display()));
    (folder, path)
}

/// Another process writes it: a fork of another test cannot have it open for writing then (ETXTBSY).
fn write(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(std::process::Command::new("cp").arg("-p").args([&draft, path]).status().unwrap().success());
}

async fn read_when_there(path: &Path) -> String {
    let look = async {
        loop {
            match fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(LONG, look).await.expect("in time")
}

/// Waits until a process is gone, or a zombie that nobody waits for.
async fn wait_gone(pid: &str) {
    let number = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let is_there = || {
        test_kill_process(number).is_ok()
            && fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "))
    };
    let gone = async {
        while is_there() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, gone).await.expect("in time");
}

#[tokio::test]
async fn a_program_is_told_what_happened() {
    let (folder, program) = script("cat >$here/input\nenv -0 >$here/env\npwd >$here/pwd");
    let mut told = event(17, EventKind::Failed);
    told.text = "foo\nMOJI_EVENT=held \u{1b}[31m\0$(touch x)".into();
    give(&program, &told, LONG).await.unwrap();
    let input = fs::read_to_string(folder.path().join("input")).unwrap();
    assert_eq!(input.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Event>(&input).unwrap(), told);
    let environment = fs::read_to_string(folder.path().join("env")).unwrap();
    let mut ours: Vec<_> = environment.split('\0').filter(|line| line.starts_with("MOJI_")).collect();
    ours.sort_unstable();
    assert_eq!(
        ours,
        [
            "MOJI_BUILDER=board-7",
            "MOJI_EVENT=failed",
            "MOJI_EVENT_ID=17",
            "MOJI_REASON=it broke",
            "MOJI_SRPM=foo-1-1.src.rpm",
            "MOJI_TARGET=f43",
            "MOJI_TEXT=foo MOJI_EVENT=held  [31m $(touch x)",
        ]
    );
    assert_eq!(fs::read_to_string(folder.path().join("pwd")).unwrap(), "/\n");
}

#[tokio::test]
async fn what_it_is_not_told_is_empty() {
    let (folder, program) =
        script("set -u\necho \"<$MOJI_BUILDER$MOJI_REASON$MOJI_SRPM$MOJI_TARGET>\" >$here/said");
    let mut told = event(17, EventKind::QueueEmpty);
    (told.build, told.builder, told.reason) = (None, None, None);
    give(&program, &told, LONG).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("said")).unwrap(), "<>\n");
}

async fn trouble(text: &str, limit: Duration) -> Trouble {
    let (_folder, program) = script(text);
    give(&program, &event(17, EventKind::Failed), limit).await.unwrap_err()
}

#[tokio::test]
async fn what_a_program_that_fails_says_is_kept_in_bounds_and_cleaned() {
    let said = trouble(
        "echo no\nyes 0123456789 | head -n 50000 >&2\nprintf 'bad \\033[31mthing\\n' >&2\nexit 3",
        LONG,
    )
    .await;
    assert_eq!(said.kind, TroubleKind::Refused);
    assert!(said.why.contains("exit status: 3") && said.why.ends_with("bad  [31mthing"), "{}", said.why);
    assert!(said.why.len() < 600 && !said.why.contains(char::is_control), "{}", said.why);
    let said = trouble("echo what; kill -9 $$", LONG).await;
    assert!(said.why.contains("SIGKILL") && said.why.ends_with("what"), "{}", said.why);
}

#[tokio::test]
async fn one_that_is_not_there_is_waited_for() {
    let (folder, program) = script("");
    for path in [folder.path().join("missing"), folder.path().to_owned()] {
        let trouble = give(&path, &event(1, EventKind::Held), LONG).await.unwrap_err();
        assert!(matches!(trouble.kind, TroubleKind::Away(None)), "{trouble:?}");
    }
    fs::remove_file(&program).unwrap();
    let log = MemoryLog::new();
    let running = Running::start(Receiver::Program(program.clone()), &log, |_| ()).await;
    for id in 1..=3 {
        log.add(event(id, EventKind::Held));
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(log.changes(), [0]);
    let list = folder.path().join("list");
    write(&program, &format!("#!/bin/sh\necho $MOJI_EVENT_ID >>{}\n", list.display()));
    log.wait_delivered(3).await;
    running.stop().await;
    assert_eq!(fs::read_to_string(list).unwrap(), "1\n2\n3\n");
}

#[tokio::test]
async fn one_that_fails_is_run_ten_times_and_others_have_their_turn() {
    let (folder, program) = script("echo $MOJI_EVENT_ID >>$here/list\n[ $MOJI_EVENT_ID != 5 ]");
    let log = MemoryLog::new();
    let running = Running::start(Receiver::Program(program), &log, |_| ()).await;
    log.add(event(5, EventKind::Failed));
    log.add(event(6, EventKind::Failed));
    log.wait_delivered(6).await;
    running.stop().await;
    assert_eq!(fs::read_to_string(folder.path().join("list")).unwrap(), "5\n".repeat(10) + "6\n");
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_its_children() {
    let hangs = "trap '' TERM\nsh -c 'trap \"\" TERM; echo $$ >$0/child; while :; do sleep 600; done' $here &\necho $$ >$here/pid\nwait\nwhile :; do sleep 600; done";
    let (folder, program) = script(hangs);
    let (told, begin) = (event(17, EventKind::Failed), tokio::time::Instant::now());
    let (given, ()) = tokio::join!(give(&program, &told, Duration::from_millis(500)), async {
        read_when_there(&folder.path().join("child")).await;
    });
    let trouble = given.unwrap_err();
    assert!(
        trouble.why.contains("killed after 0.5 s") && trouble.kind == TroubleKind::Refused,
        "{trouble:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    for name in ["pid", "child"] {
        wait_gone(&fs::read_to_string(folder.path().join(name)).unwrap()).await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    // It holds the outputs open too.
    let (folder, program) = script("sleep 600 &\necho $! >$here/child");
    let begin = tokio::time::Instant::now();
    give(&program, &event(17, EventKind::Failed), LONG).await.unwrap();
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
    wait_gone(&fs::read_to_string(folder.path().join("child")).unwrap()).await;
}

#[tokio::test]
async fn a_try_that_is_not_waited_for_any_more_ends() {
    let (folder, program) = script("sleep 600 &\necho $! >$here/child\necho $$ >$here/pid\nwait");
    let log = MemoryLog::new();
    let running = Running::start(Receiver::Program(program), &log, |_| ()).await;
    log.add(event(17, EventKind::Failed));
    let pid = read_when_there(&folder.path().join("pid")).await;
    running.kill().await;
    wait_gone(&pid).await;
    wait_gone(&fs::read_to_string(folder.path().join("child")).unwrap()).await;
    assert_eq!(log.changes(), [0]);
}

#[tokio::test]
async fn one_that_reads_nothing_is_told_all_the_same() {
    let (_folder, program) = script("exec <&-\nexit 0");
    let mut told = event(17, EventKind::Failed);
    told.missing = vec!["x".repeat(1000); 500];
    give(&program, &told, LONG).await.unwrap();
}
