//! A builder that builds nothing, at once: it takes Mock's place where the farm itself is measured.
//!
//! It has Mock's command line as far as `moji-client` uses it. `--rebuild SRPM --resultdir=FOLDER` copies the SRPM,
//! writes `state.log`, `root.log` and `build.log` as after a success and one RPM that may be published, and ends with 0;
//! `--version` answers; `--clean` and `--orphanskill` have nothing to do. What else it does stands in its environment
//! (`moji-client` hands on what begins with `HOSTMOCK_`):
//!
//! | variable | |
//! |---|---|
//! | `HOSTMOCK_NOOP_STARTED` | a file: gets a line `SRPM NANOSECONDS`, the SRPM's file name and when this program began (CLOCK_MONOTONIC) |
//! | `HOSTMOCK_NOOP_FILES` | so many further packages, `NAME-part-1` and so on; each ... |
//! | `HOSTMOCK_NOOP_FILE_BYTES` | ... with a payload of so many bytes (4096) |
//! | `HOSTMOCK_NOOP_BIG` | one further package, `NAME-big`, with a payload of so many bytes |
//!
//! It deliberately does not read the SRPM: name, version and release are those of the file's name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use moji_proto::Hasher;
use moji_tests::support::simulated::{rpm_head, rpm_with_files};
use rustix::time::{ClockId, clock_gettime};

/// The payload of a package, unless it is said otherwise.
const PAYLOAD: usize = 4096;
/// The big one is written in such pieces.
const PIECE: usize = 1 << 20;
/// Files that are listed in a package's header.
const LISTED: usize = 3;

fn main() -> anyhow::Result<()> {
    let began = clock_gettime(ClockId::Monotonic);
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("6.7");
        return Ok(());
    }
    let Some(srpm) = after(&arguments, "--rebuild") else { return Ok(()) };
    let name = srpm.file_name().and_then(|name| name.to_str()).context("--rebuild: the SRPM has no name")?;
    if let Some(file) = std::env::var_os("HOSTMOCK_NOOP_STARTED") {
        let began = Duration::try_from(began)?.as_nanos();
        // One write, so that the lines of several slots do not mix.
        let mut file = OpenOptions::new().append(true).create(true).open(file)?;
        file.write_all(format!("{name} {began}\n").as_bytes())?;
    }
    let results = arguments.iter().find_map(|argument| argument.to_str()?.strip_prefix("--resultdir="));
    build(&srpm, name, Path::new(results.context("--resultdir is missing")?))
}

fn after(arguments: &[OsString], option: &str) -> Option<PathBuf> {
    let at = arguments.iter().position(|argument| argument == option)?;
    arguments.get(at + 1).map(PathBuf::from)
}

fn number(variable: &str, otherwise: usize) -> anyhow::Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}: {text:?} is no number")),
        Err(_) => Ok(otherwise),
    }
}

fn build(srpm: &Path, file_name: &str, to: &Path) -> anyhow::Result<()> {
    let mut nvr = file_name.strip_suffix(".src.rpm").unwrap_or_default().rsplitn(3, '-');
    let (Some(release), Some(version), Some(name)) = (nvr.next(), nvr.next(), nvr.next()) else {
        bail!("{file_name} is not NAME-VERSION-RELEASE.src.rpm");
    };
    fs::create_dir_all(to)?;
    fs::copy(srpm, to.join(file_name))?;
    fs::write(to.join("root.log"), "DEBUG util.py:461:  nothing to install\n")?;
    fs::write(to.join("build.log"), format!("Wrote: /builddir/build/RPMS/{name}.noarch.rpm\n"))?;
    let path = |name: &str| to.join(format!("{name}-{version}-{release}.noarch.rpm"));
    fs::write(path(name), rpm_with_files([name, version, release], file_name, PAYLOAD, LISTED))?;
    let size = number("HOSTMOCK_NOOP_FILE_BYTES", PAYLOAD)?;
    for n in 1..=number("HOSTMOCK_NOOP_FILES", 0)? {
        let part = format!("{name}-part-{n}");
        fs::write(path(&part), rpm_with_files([&part, version, release], file_name, size, LISTED))?;
    }
    match number("HOSTMOCK_NOOP_BIG", 0)? {
        0 => {}
        size => {
            let big = format!("{name}-big");
            write_big(&path(&big), [&big, version, release], file_name, size)?;
        }
    }
    fs::write(to.join("state.log"), state_log(file_name))?;
    Ok(())
}

/// Not in memory as a whole.
fn write_big(path: &Path, nvr: [&str; 3], source: &str, size: usize) -> anyhow::Result<()> {
    // No zeros: they have a meaning of their own at the start of a file.
    let piece: Vec<u8> = (1..=251).cycle().take(PIECE).collect();
    let pieces = || {
        let left = (0..size).step_by(PIECE).map(|at| size - at);
        left.filter_map(|left| piece.get(..left.min(PIECE)))
    };
    let mut digest = Hasher::new();
    pieces().for_each(|piece| digest.update(piece));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&rpm_head(nvr, source, size, digest.finish()))?;
    for piece in pieces() {
        file.write_all(piece)?;
    }
    Ok(file.flush()?)
}

fn state_log(srpm: &str) -> String {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    let steps = [
        "Start: chroot init".to_owned(),
        "Finish: chroot init".to_owned(),
        format!("Start: build phase for {srpm}"),
        format!("Start: build setup for {srpm}"),
        format!("Finish: build setup for {srpm}"),
        format!("Start: rpmbuild {srpm}"),
        format!("Finish: rpmbuild {srpm}"),
        format!("Finish: build phase for {srpm}"),
        "Finish: run".to_owned(),
    ];
    steps.iter().map(|step| format!("{now},000 - {step}\n")).collect()
}
