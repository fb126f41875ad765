//! Logs while a build runs, and logs that are too long.

use std::fs;
use std::time::Duration;

use moji_tests::support::processes::{Farm, now, wait_until};

#[test]
fn a_log_is_on_the_server_two_seconds_after_it_was_written() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    let gate = farm.path("gates/talk");
    let script = format!(
        "echo waiting at the gate\nfor word in first second third; do\n\
         while ! test -e {}-$word; do sleep 0.02; done; echo the $word word; done",
        gate.display()
    );
    farm.queue(&farm.tiny_srpms(&[("talk", &script)])[0]);
    let attempt = farm.wait_at_gate("b1", "talk");
    let staging = farm.working(".moji/attempts").join(attempt.file_name().unwrap());
    let has = |log: &std::path::Path, text: &str| fs::read_to_string(log).is_ok_and(|log| log.contains(text));
    for word in ["first", "second", "third"] {
        let line = format!("\nthe {word} word");
        assert!(!has(&staging.join("build.log"), &line));
        // The last word ends the build, which removes both files.
        if word == "third" {
            break;
        }
        farm.open(&format!("talk-{word}"));
        wait_until("the builder's log", || has(&attempt.join("result/build.log"), &line));
        let written = now();
        wait_until("the server's log", || has(&staging.join("build.log"), &line));
        assert!(written.elapsed() < Duration::from_secs(2), "{word}: {:?}", written.elapsed());
    }
    for log in ["mock.log", "root.log", "state.log"] {
        wait_until(log, || staging.join(log).exists());
    }
    farm.open("talk-third");
    farm.wait_finished("talk-1-1.src.rpm");
    assert!(has(&farm.repo("talk-1-1/build.log"), "\nthe third word"));
}

#[test]
fn a_log_that_is_too_long_loses_its_middle() {
    const LIMIT: usize = 256 << 10;
    let mut farm = Farm::start(&["--log-limit", "256K"]);
    farm.start_client("b1", &["--log-limit", "256K"]);
    farm.queue(&farm.example_srpms(&["moji-chatter"], &["-D", "megabytes 3"])[0]);
    farm.wait_finished("moji-chatter-1.3-1.src.rpm");
    let log = fs::read(farm.repo("moji-chatter-1.3-1/build.log")).unwrap();
    assert!(log.len() <= LIMIT && log.len() > LIMIT / 2, "{} bytes", log.len());
    let log = String::from_utf8_lossy(&log);
    let (head, tail) = log.split_once("\n[... ").unwrap();
    let (cut, tail) = tail.split_once(" ...]\n").unwrap();
    assert!(cut.contains("bytes cut here: the log was longer than the limit of 262144 bytes"), "{cut}");
    assert!(head.contains("Building target platforms") && head.contains("no text: "), "{head:.2000}");
    assert!(tail.contains("Wrote: "), "the end is missing");
}
