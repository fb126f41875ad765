//! Asks dnf everything that it can tell of the packages of a repository, as those do who install from it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, like tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What `%{…}` can be. What dnf gets from `source_name` or `evr` is there twice, and that does no harm.
const TAGS: [&str; 22] = [
    "name",
    "epoch",
    "version",
    "release",
    "evr",
    "arch",
    "sourcerpm",
    "source_name",
    "debug_name",
    "buildtime",
    "size",
    "downloadsize",
    "installsize",
    "license",
    "url",
    "summary",
    "description",
    "provides",
    "requires",
    "obsoletes",
    "conflicts",
    "reponame",
];

/// The other questions: of all packages together.
const QUESTIONS: [&[&str]; 14] = [
    &["--provides"],
    &["--requires"],
    &["--requires-pre"],
    &["--recommends"],
    &["--suggests"],
    &["--supplements"],
    &["--enhances"],
    &["--conflicts"],
    &["--obsoletes"],
    &["--list"],
    &["--changelogs"],
    &["--info"],
    &["--deplist"],
    &["--srpm"],
];

/// A question to dnf and what it says.
pub type Answer = (String, String);

/// Everything that dnf says of a repository; `scratch` is an empty folder.
pub fn answers(repository: &Path, scratch: &Path) -> Vec<Answer> {
    let format = TAGS.map(|tag| format!("{tag}=%{{{tag}}}")).join("|");
    let mut questions: Vec<Vec<&str>> = vec![vec!["--qf", &format]];
    questions.extend(QUESTIONS.iter().map(|question| question.to_vec()));
    questions.iter().map(|question| (question.join(" "), ask(repository, scratch, question))).collect()
}

/// Where dnf would fetch the packages, below the repository.
pub fn locations(repository: &Path, scratch: &Path) -> Vec<String> {
    let base = format!("{}/", url(repository));
    let said = ask(repository, scratch, &["--location"]);
    let mut found: Vec<_> = said
        .lines()
        .map(|line| line.strip_prefix(&base).unwrap_or_else(|| panic!("{line}")).to_owned())
        .collect();
    found.sort();
    found
}

fn ask(repository: &Path, scratch: &Path, question: &[&str]) -> String {
    let mut command = Command::new("dnf");
    command.args(["-q", "--noplugins", "--releasever=1", "--setopt=reposdir=/dev/null"]);
    // Nothing of this machine, and of no other repository. Of its logs one is below that root and one is not.
    let log = scratch.join("log");
    fs::create_dir_all(&log).unwrap();
    command
        .arg(format!("--installroot={}", scratch.display()))
        .arg(format!("--setopt=logdir={}", log.display()));
    command.arg(format!("--repofrompath=asked,{}", url(repository)));
    command.args(["--repo=asked", "repoquery"]).args(question);
    command.env("HOME", scratch).env("LC_ALL", "C.UTF-8");
    let output = command.output().unwrap_or_else(|error| {
        panic!("dnf: {error}: run scripts/test, or scripts/install-deps --with dnf");
    });
    let said = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{complaints}");
    // It tells on the other one which packages have no files.
    in_order(&said) + &in_order(&complaints)
}

/// What it says of each package, sorted: it tells them in the order of the metadata, and that is nobody's.
fn in_order(said: &str) -> String {
    // With what it begins to tell of a package; else each line is about something else.
    let begins = ["name=", "Name         : ", "Changelog for ", "package: "];
    let is_begin = |line: &str| begins.iter().any(|begin| line.starts_with(begin));
    let in_pieces = said.lines().any(is_begin);
    let mut pieces: Vec<String> = Vec::new();
    for line in said.lines() {
        match pieces.last_mut() {
            Some(last) if in_pieces && !is_begin(line) => {
                last.push('\n');
                last.push_str(line);
            }
            _ => pieces.push(line.to_owned()),
        }
    }
    pieces.sort();
    pieces.iter().flat_map(|piece| [piece.trim_end(), "\n"]).collect()
}

fn url(repository: &Path) -> String {
    format!("file://{}", repository.display().to_string().trim_end_matches('/'))
}
