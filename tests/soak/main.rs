//! Soaking: one server and three clients with real builds, and everything that can go wrong at random,
//! for as long as one likes. `scripts/soak` runs it; a short run is part of `scripts/test`.
//!
//! `MOJI_SOAK_SECONDS` is how long faults last, `MOJI_SEED` which ones come in which order (not exactly
//! when: processes are real), `MOJI_SLOTS` how many slots each client has. Everything lies on a tmpfs where
//! one can be had, up to 2 GB and 100 MB for each minute; big results end when their share of that is
//! used.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

mod checks;
mod faults;
mod random;
mod runs;
mod soak;
mod supply;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use soak::{Settings, Soak};

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn settings() -> Settings {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let number = |name: &str| {
        let number = |value: String| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number"));
        setting(name).map(number)
    };
    let slots = setting("MOJI_SLOTS").unwrap_or_else(|| "3,2,2".into());
    Settings {
        seed: number("MOJI_SEED").unwrap_or(time.as_millis() as u64 % 1_000_000),
        faults_for: Duration::from_secs(number("MOJI_SOAK_SECONDS").unwrap_or(20)),
        slots: slots.split(',').map(str::to_owned).collect(),
    }
}

#[test]
fn nothing_is_lost_and_nothing_accepted_twice() {
    let settings = settings();
    let (seed, seconds) = (settings.seed, settings.faults_for.as_secs());
    let again = format!("MOJI_SEED={seed} MOJI_SOAK_SECONDS={seconds} cargo test -p moji-tests --test soak");
    println!("{again}");
    let mut soak = Soak::new(settings);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        soak.run();
        checks::check(&mut soak)
    }));
    let problems = match ended {
        Ok(report) => {
            println!("{report}");
            report.problems
        }
        Err(_) => vec!["it panicked, see above".to_owned()],
    };
    if problems.is_empty() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}"));
    soak.keep_logs(&folder);
    panic!("{}\nseed {seed}, logs in {}, once more: {again}", problems.join("\n"), folder.display());
}
