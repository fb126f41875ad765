//! Rules of this repository that no compiler checks.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moji_tests::support::processes::{program, top};

/// The longest file of Rust.
const LINES: usize = 800;

/// Files with this extension below a folder of the repository, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What of a file the compiler sees outside of tests: without comments, and without what follows
/// `#[cfg(test)]`, which stands before the tests at the end, or before `mod tests;`.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    before_tests.lines().filter(is_code).map(|line| format!("{line}\n")).collect()
}

/// The words of a file that it must not use, by path. `a::{b, c::d}` counts as `a::b` and `a::c::d`.
fn offences(text: &str, forbidden: &[&str]) -> Vec<String> {
    let mut words: BTreeSet<String> = BTreeSet::new();
    let code = code(text);
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    words.extend(code.split(|c| !is_word(c)).map(str::to_owned));
    for statement in code.split(';').filter_map(|statement| statement.split_once("use ")) {
        let tree: String = statement.1.split_whitespace().collect();
        words.extend(uses(&tree));
    }
    let is = |word: &str, what: &str| {
        let word = format!("::{}::", word.trim_matches(':'));
        word.contains(&format!("::{what}::"))
    };
    forbidden
        .iter()
        .filter(|what| words.iter().any(|word| is(word, what)))
        .map(|what| (*what).to_owned())
        .collect()
}

/// All paths of a tree of `use`, without blanks.
fn uses(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let rest = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut begin, mut paths) = (0, 0, Vec::new());
    for (at, c) in rest.char_indices().chain([(rest.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                paths.extend(uses(&rest[begin..at]).iter().map(|path| format!("{head}{path}")));
                begin = at + 1;
            }
            _ => {}
        }
    }
    paths
}

fn assert_pure(paths: &[PathBuf], forbidden: &[&str]) {
    assert!(!paths.is_empty());
    for path in paths {
        let found = offences(&fs::read_to_string(path).unwrap(), forbidden);
        assert!(found.is_empty(), "{} uses {found:?}", path.display());
    }
}

#[test]
fn the_rules_find_what_they_forbid() {
    let find = |text| offences(text, &["std::fs", "tokio", "HashMap"]);
    assert_eq!(find("use std::fs::File;"), ["std::fs"]);
    assert_eq!(
        find("use std::{\n    collections::{BTreeMap, HashMap},\n    fs,\n};"),
        ["std::fs", "HashMap"]
    );
    assert_eq!(find("fn f() { tokio::spawn(g()); }"), ["tokio"]);
    assert_eq!(find("// std::fs\nuse std::fmt;\n#[cfg(test)]\nmod tests {\n use std::fs;\n}"), [""; 0]);
    assert_eq!(find("use std::io; struct MyHashMap;"), [""; 0]);
}

#[test]
fn the_wire_knows_no_runtime_file_system_or_clock() {
    let forbidden = [
        "tokio::spawn",
        "tokio::time",
        "tokio::fs",
        "tokio::net",
        "tokio::task",
        "std::fs",
        "std::net",
        "std::thread",
        "Instant",
        "SystemTime",
    ];
    assert_pure(&files(&top().join("moji-proto/src"), "rs"), &forbidden);
}

#[test]
fn what_decides_is_pure() {
    let mut sources = files(&top().join("moji-server/src/scheduler"), "rs");
    sources.retain(|path| {
        !path.components().any(|part| part.as_os_str() == "tests") && !path.ends_with("tests.rs")
    });
    sources.extend(["agent", "backoff"].map(|name| top().join(format!("moji-client/src/{name}.rs"))));
    sources.extend(
        ["parcels", "room", "words"].map(|name| top().join(format!("moji-client/src/agent/{name}.rs"))),
    );
    let mut dependency = files(&top().join("moji-server/src/dependency"), "rs");
    dependency.retain(|path| !path.components().any(|part| part.as_os_str() == "tests"));
    sources.extend(dependency);
    sources.push(top().join("moji-server/src/source/intake.rs"));
    sources.push(top().join("moji-server/src/source/lists.rs"));
    sources.push(top().join("moji-server/src/metadata/coalescer.rs"));
    sources.extend(["pace", "url"].map(|name| top().join(format!("moji-server/src/outgoing/{name}.rs"))));
    let estimates = ["mod", "class", "eta", "window"];
    sources.extend(estimates.map(|name| top().join(format!("moji-server/src/estimates/{name}.rs"))));
    let report = ["excerpt/rules", "html", "providers", "text", "words"];
    sources.extend(report.map(|name| top().join(format!("moji-server/src/report/{name}.rs"))));
    sources.push(top().join("moji-server/src/metadata/retention.rs"));
    sources.extend(
        ["mod", "escape", "style"].map(|name| top().join(format!("moji-server/src/log_text/{name}.rs"))),
    );
    sources.extend(
        ["path", "range", "listing"].map(|name| top().join(format!("moji-server/src/http/{name}.rs"))),
    );
    assert_pure(
        &sources,
        &["tokio", "std::fs", "std::net", "std::thread", "Instant", "SystemTime", "HashMap", "HashSet"],
    );
}

#[test]
fn files_can_be_read() {
    for path in files(top(), "rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES, "{} has {lines} lines, more than {LINES}", path.display());
    }
}

/// The long options that a program's help names.
fn options(name: &str) -> BTreeSet<String> {
    let (name, subcommand) = name.split_once(' ').map_or((name, None), |(name, sub)| (name, Some(sub)));
    let output = Command::new(program(name)).args(subcommand).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    // Only at the beginning of a line: elsewhere they are mentioned, in other programs' examples too.
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split_whitespace().take(2));
    words
        .filter(|word| word.starts_with("--"))
        .map(|word| word.split(['[', '=', '<', ',']).next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_option_is_in_the_readme() {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    let words: BTreeSet<&str> = readme
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--"))
        .collect();
    for (name, some) in [
        ("moji-server", "--dead-after"),
        ("moji-server fsck", "--digests"),
        ("moji-client", "--mock-arg"),
        ("moji", "--token-file"),
        ("moji submit", "--wait"),
        ("moji queue", "--limit"),
        ("moji log", "--raw"),
        ("moji why", "--json"),
        ("moji retry", "--kind"),
        ("moji hold", "--reason"),
        ("moji prio", "--target"),
        ("moji history", "--before"),
        ("moji events", "--since"),
    ] {
        let options = options(name);
        assert!(options.contains(some), "{name} --help is read wrongly: {options:?}");
        let usual = ["--help", "--version"];
        let missing: Vec<_> =
            options.iter().map(String::as_str).filter(|o| !usual.contains(o) && !words.contains(o)).collect();
        assert!(missing.is_empty(), "README.md does not name {missing:?} of {name}");
    }
}

#[test]
fn every_limit_is_in_the_readme_with_its_default() {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    for limit in moji_server::limits::LIMITS {
        let row = format!("| `{}` | `{}` | ", limit.name, limit.default);
        assert!(readme.contains(&row), "README.md has no row {row}");
    }
}

/// `scripts/fuzz` builds with a lock file of its own, which nothing else would notice to be out of date.
#[test]
fn the_fuzz_targets_lock_what_the_crates_depend_on() {
    let lock = fs::read_to_string(top().join("tests/fuzz/Cargo.lock")).unwrap();
    for name in ["moji-proto", "moji-server", "moji-client"] {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\n")).unwrap();
        let (locked, _) = rest.split_once("\n]").unwrap();
        let manifest = fs::read_to_string(top().join(name).join("Cargo.toml")).unwrap();
        let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
        let dependencies = rest.split("\n[").next().unwrap().lines();
        let dependencies = dependencies.filter(|line| !line.contains("optional = true"));
        let names: Vec<_> = dependencies.filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
        assert!(names.len() > 3, "{name} depends on {names:?}");
        for dependency in names.into_iter().filter(|word| !word.is_empty() && !word.starts_with('#')) {
            let is_locked =
                locked.contains(&format!("\"{dependency}\"")) || locked.contains(&format!("\"{dependency} "));
            assert!(
                is_locked,
                "{dependency} of {name}: run cargo metadata in tests/fuzz, and commit its Cargo.lock"
            );
        }
    }
}
