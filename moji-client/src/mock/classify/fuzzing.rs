//! What fuzz targets reach of the reading of logs, beside [`classify`](super::classify()) itself. Only
//! with the cargo feature `fuzzing`, which no release has.

use super::text;

/// The lines of a log, as all rules see them.
pub fn lines(log: &str) -> Vec<&str> {
    text::lines(log).collect()
}

/// The output of the last command in root.log that failed.
pub fn last_failed_section(root_log: &str) -> Vec<&str> {
    text::last_failed_section(root_log)
}

/// The requirements that a package manager's output names as missing.
pub fn missing<'a>(output: &[&'a str]) -> Vec<&'a str> {
    text::missing(output.iter().copied()).into_iter().map(|missing| missing.requirement).collect()
}
