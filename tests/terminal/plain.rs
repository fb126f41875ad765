//! `moji` where nobody looks, or where somebody wants it plain.

use std::process::{Command, Output};

use moji_tests::support::processes::{Farm, program};

use crate::tmux::Terminal;

/// A line of shell that runs `moji` with that farm.
pub(crate) fn moji(farm: &Farm, arguments: &str) -> String {
    let nothing = farm.path("home/none.toml");
    format!(
        "env -u MOJI_TOKEN -u MOJI_TOKEN_FILE HOME={} MOJI_SERVER={} {} {arguments}",
        nothing.parent().unwrap().display(),
        farm.address(),
        program("moji").display()
    )
}

fn output(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).env_remove("NO_COLOR").output().unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn top_wants_a_terminal() {
    let farm = Farm::start(&[]);
    let out = output(&moji(&farm, "top"));
    let (stdout, stderr) = text(&out);
    assert_eq!((out.status.code(), stdout.as_str()), (Some(64), ""));
    assert!(stderr.contains("moji status"), "{stderr}");
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_gated("first");
    farm.wait_at_gate("b1", "first");
    let status = moji(&farm, "status");
    let run = |environment: &[(&str, &str)], line: &str| {
        let terminal = Terminal::run(&farm.path(""), (100, 40), environment, line);
        terminal.wait_for(&["ended: 0", "first"]);
        terminal.coloured()
    };
    assert!(run(&[], &status).contains('\u{1b}'), "no colour on a terminal");
    let plain = run(&[("NO_COLOR", "1")], &status);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let piped = run(&[], &format!("{status} | cat -v"));
    assert!(!piped.contains('\u{1b}') && !piped.contains("^["), "{piped:?}");
    let narrow = Terminal::run(&farm.path(""), (60, 40), &[], &status);
    let screen = narrow.wait_for(&["ended: 0", "first"]);
    assert!(screen.contains("b1") || screen.contains("building"), "{screen}");
}

#[test]
fn an_upload_has_a_bar_on_a_terminal_and_lines_in_a_pipe() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    let [one, two] = ["one", "two"].map(|name| farm.tiny_srpms(&[(name, "echo quick")]).remove(0));
    let line = moji(&farm, &format!("submit {}", one.display()));
    let terminal = Terminal::run(&farm.path(""), (100, 30), &[], &line);
    terminal.wait_for(&["ended: 0", "one-1-1"]);
    farm.wait_finished("one-1-1.src.rpm");
    let out = output(&moji(&farm, &format!("submit {}", two.display())));
    let (stdout, stderr) = text(&out);
    assert!(out.status.success(), "{stderr}");
    let both = format!("{stdout}{stderr}");
    assert!(both.contains("two-1-1") && !both.contains(['\u{1b}', '\r']), "{both:?}");
    farm.wait_finished("two-1-1.src.rpm");
}

#[test]
fn json_is_what_the_api_says() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_quick("quick");
    farm.wait_finished("quick-1-1.src.rpm");
    // The same names in each listing, whatever the values are: those that programs rely upon.
    for (command, keys) in [
        ("status", ["server", "queue", "slots", "running", "builders", "newest"].as_slice()),
        ("builders", ["id", "state", "slots", "targets"].as_slice()),
        ("history", ["id", "srpm", "state", "queued_at", "settled_at", "attempts"].as_slice()),
        ("why quick", ["build", "summary", "missing", "builders"].as_slice()),
    ] {
        let out = output(&moji(&farm, &format!("{command} --json")));
        let (stdout, stderr) = text(&out);
        assert!(out.status.success(), "{command}: {stderr}");
        let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        // A list, or a page of one: its first entry.
        let first = value.get("items").unwrap_or(&value);
        let first = first.as_array().map_or(first, |items| items.first().unwrap());
        for key in keys {
            assert!(first.get(key).is_some(), "{command}: {key} is missing in {stdout}");
        }
    }
}
