//! A look into what was delivered, before it is published: one large RPM, and as many small ones as one
//! attempt hardly ever brings, with the digests of their payloads taken while they came, and without. The yardstick is
//! the SHA-256 of the same bytes, and nothing else.
//!
//! Each look is a process of its own, so that its memory can be told. All files are in the kernel's cache.

use std::fs;
use std::path::Path;

use moji_tests::support::simulated::{rpm_with_files, srpm};

use crate::Settings;
use crate::delivering::make_results;
use crate::measure::median;
use crate::report::Table;
use crate::roles::{Apart, NAME, VERSION, apart};

/// Of a small package.
const PAYLOAD: usize = 20_000;
const FILES: usize = 20;

/// Looks at each set of files, and hashes it, in turn.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Table> {
    let at = settings.folder.join("verification");
    let (large, small) = (at.join("large"), at.join("small"));
    make_results(&large, settings.large)?;
    make_small(&small, settings.small)?;
    let sets = [
        (format!("1 RPM of {} MiB", settings.large >> 20), large),
        (format!("{} RPMs of {} KB, {FILES} files each", settings.small, PAYLOAD / 1000), small),
    ];
    let mut rows = Vec::new();
    for (name, folder) in sets {
        let (mut hashed, mut verified, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            hashed.push(apart("digest", &folder)?);
            verified.push(apart("verify-hashed", &folder)?);
            again.push(apart("verify", &folder)?);
        }
        let base = median(&wall(&hashed));
        rows.push(row(format!("{name}: sha256"), &hashed, base));
        rows.push(row(format!("{name}: verify, hashed when it came"), &verified, base));
        rows.push(row(format!("{name}: verify, read again"), &again, base));
    }
    fs::remove_dir_all(&at)?;
    Ok(Table {
        key: "verification".to_owned(),
        title: "A look into what was delivered".to_owned(),
        columns: vec!["ms", "of sha256", "CPU ms", "peak MiB"],
        rows,
        note: format!(
            "median of {}; hashed when it came: as a delivery is; read again: as one that was resumed; peak: beyond what \
             the process had before",
            settings.rounds
        ),
    })
}

fn make_small(folder: &Path, count: usize) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let source = format!("{NAME}-{VERSION}-1.src.rpm");
    fs::write(folder.join(&source), srpm(NAME, VERSION, "1", 3_000))?;
    for n in 1..count {
        let name = format!("{NAME}-part-{n}");
        let rpm = rpm_with_files([&name, VERSION, "1"], &source, PAYLOAD, FILES);
        fs::write(folder.join(format!("{name}-{VERSION}-1.noarch.rpm")), rpm)?;
    }
    Ok(())
}

fn wall(samples: &[Apart]) -> Vec<f64> {
    samples.iter().map(|sample| sample.used.wall.as_secs_f64() * 1e3).collect()
}

fn row(name: String, samples: &[Apart], base: f64) -> (String, Vec<Option<f64>>) {
    let processor: Vec<_> = samples.iter().map(|one| one.used.processor.as_secs_f64() * 1e3).collect();
    let memory: Vec<_> = samples.iter().map(|one| one.memory as f64 / 1024.0).collect();
    let time = median(&wall(samples));
    (name, [time, time / base, median(&processor), median(&memory)].map(Some).to_vec())
}
