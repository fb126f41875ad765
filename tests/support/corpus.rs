//! RPMs of every kind that there is: what metadata have to say of them is hard to get right.
//!
//! `rpmbuild` makes them, because it knows more kinds than any other program. It takes its time: where many are
//! wanted and it matters little what is in them, others make them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::processes::top;

const CORNERS: &str = include_str!("corpus/corners.spec");
const CROWD: &str = include_str!("corpus/crowd.spec");
/// Old packages have it in their changelogs.
const LATIN1_E_ACUTE: u8 = 0xe9;

/// What can be hard about one package each: several architectures, epochs, conditions in requirements, weak
/// dependencies, requirements of scriptlets, 5,000 files, names and texts that have to be escaped, changelogs in
/// two encodings, entries of one day, no description and a very long one, a source package. `to` is a folder
/// that is not there yet.
pub fn corners(to: &Path) {
    let mut spec = Vec::new();
    for (n, piece) in CORNERS.split("LATIN1").enumerate() {
        // The comment that explains the word is the first to use it.
        if n > 1 {
            spec.push(LATIN1_E_ACUTE);
        }
        spec.extend(piece.as_bytes());
    }
    rpmbuild(&spec, &[("corners.txt", b"text\n")], to);
}

/// 140 packages of one build.
pub fn crowd(to: &Path) {
    rpmbuild(CROWD.as_bytes(), &[], to);
}

/// One of the examples of `tests/specs`, with packages of debug information where this machine's rpmbuild makes them.
pub fn example(name: &str, to: &Path) {
    let specs = top().join("tests/specs");
    let spec = fs::read(specs.join(format!("{name}.spec"))).unwrap();
    let data = specs.join(format!("{name}.tsv"));
    let source = data.exists().then(|| (format!("{name}.tsv"), fs::read(data).unwrap()));
    let sources: Vec<_> = source.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    rpmbuild(&spec, &sources, to);
}

/// Builds a spec file; all packages, the source package too, come into the folder `to`, which appears as a whole.
fn rpmbuild(spec: &[u8], sources: &[(&str, &[u8])], to: &Path) {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    fs::write(at("x.spec"), spec).unwrap();
    for (name, content) in sources {
        fs::write(at(name), content).unwrap();
    }
    let mut command = Command::new("rpmbuild");
    command.args(["-ba", "--nodeps", "--quiet"]).env("HOME", work.path()).env("LC_ALL", "C.UTF-8");
    for (name, value) in [
        ("_topdir", work.path().to_str().unwrap()),
        ("_sourcedir", work.path().to_str().unwrap()),
        ("_dbpath", at("db").to_str().unwrap()),
        ("_tmppath", work.path().to_str().unwrap()),
        // Old packages are like that, and rpmbuild would make no such ones any more.
        ("_invalid_encoding_terminates_build", "0"),
        // What is compressed does not matter here.
        ("_binary_payload", "w1.gzdio"),
    ] {
        command.args(["--define", &format!("{name} {value}")]);
    }
    let output = command.arg(at("x.spec")).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let made = at("made");
    fs::create_dir(&made).unwrap();
    for folder in ["RPMS", "SRPMS"] {
        gather(&at(folder), &made);
    }
    // Not by rename: temporary folders may be on another file system.
    let part = to.with_extension("part");
    fs::create_dir(&part).unwrap();
    for rpm in files(&made) {
        fs::copy(&rpm, part.join(rpm.file_name().unwrap())).unwrap();
    }
    fs::rename(part, to).unwrap();
}

fn gather(from: &Path, to: &Path) {
    for path in files(from) {
        if path.is_dir() {
            gather(&path, to);
        } else {
            fs::rename(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}
