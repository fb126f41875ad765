//! The report in REPO. All of it blocks.

use std::io;
use std::path::Path;

use super::{Report, excerpt_of, html, text};
use crate::beneath::Folder;
use crate::durable;

/// The page.
pub const HTML: &str = "report.html";
/// The data.
pub const JSON: &str = "report.json";
/// The text.
pub const TEXT: &str = "report.txt";

/// How many logs are read for one report, each by its end.
const LOGS_MAX: usize = 500;

/// Looks into the logs of what failed, for the lines that tell why. A log that cannot be read has none.
pub fn read_excerpts(repo: &Path, report: &mut Report) {
    let Ok(repo) = Folder::open(repo) else { return };
    let failed =
        report.targets.iter_mut().flat_map(|target| target.failed.iter_mut().chain(&mut target.held));
    for failed in failed.filter(|failed| failed.excerpt.is_none()).take(LOGS_MAX) {
        let Some(logs) = &failed.logs else { continue };
        let log = repo.open_file(Path::new(logs).join("build.log"));
        failed.excerpt = log.and_then(excerpt_of).ok().flatten();
    }
}

/// Writes all three forms, each whole or not at all. The data come last: a program that waits for them finds the others.
///
/// # Errors
/// When one cannot be written; what was there is then still there.
pub fn write(repo: &Path, report: &Report) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    durable::write_whole(&repo.join(TEXT), text(report).as_bytes())?;
    durable::write_whole(&repo.join(HTML), html(report).as_bytes())?;
    durable::write_whole(&repo.join(JSON), &json)
}
