//! How long things take; run with `--release --run-ignored only --no-capture`.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use super::watching::Watched;
use crate::source::folder::list;
use crate::source::intake::{Intake, Observation};
use crate::source::testing::Fake;
use crate::source::{SourceConfig, SourceEvent};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn measure_20000_srpms() {
    let mut begun = Instant::now();
    let mut watched = Watched::with(
        |c| c.rescan = Duration::from_secs(3600),
        |w| {
            for n in 0..20_000 {
                let name = format!("p{n}");
                fs::write(w.path(&format!("{name}-1-1.src.rpm")), Fake::new(&name, "1", "1").bytes())
                    .unwrap();
            }
            begun = Instant::now();
        },
    )
    .await;
    let mut found = 0;
    loop {
        match watched.next().await {
            SourceEvent::Found(_) => found += 1,
            SourceEvent::Ready => break,
            other => panic!("{other:?}"),
        }
    }
    println!("{found} SRPMs at the start, ready after {:?}", begun.elapsed());
    while found < 20_000 {
        watched.next().await;
        found += 1;
    }
    println!("{found} SRPMs after {:?}", begun.elapsed());
    // A rescan: list, then compare with what is known.
    let begun = Instant::now();
    let listing = list(&watched.path(""), None).unwrap();
    println!("listed in {:?}", begun.elapsed());
    let mut intake = Intake::new(&SourceConfig::new(""));
    for round in 0..2 {
        let srpms = listing.srpms.clone();
        let begun = Instant::now();
        intake.handle(Duration::ZERO, Observation::Folder { target: None, srpms });
        println!("compared in {:?} (round {round})", begun.elapsed());
    }
    let mut times = Vec::new();
    for n in 0..500 {
        let name = format!("q{n}-1-1.src.rpm");
        let bytes = Fake::new("q", "1", "1").bytes();
        let begun = Instant::now();
        watched.move_in(&name, &bytes);
        watched.found(&name).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "written, renamed, found: median {:?}, 99 % {:?}, worst {:?}",
        times[250], times[495], times[499]
    );
    watched.stop().await;
}
