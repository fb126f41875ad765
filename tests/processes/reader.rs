//! Whoever reads the repository never sees a broken one.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use moji_tests::support::processes::{Farm, tiny, wait_until};
use moji_tests::support::repository::{check_repository, read_metadata};

/// How often something is published; each takes between one and two seconds.
fn publications() -> usize {
    std::env::var("MOJI_PUBLICATIONS").map_or(20, |number| number.parse().unwrap())
}

#[test]
fn a_reader_in_a_loop_sees_only_whole_metadata() {
    let mut farm = Farm::start(&[]);
    farm.start_client("b1", &[]);
    farm.queue_quick("seed");
    farm.wait_finished(&tiny("seed"));
    let repo = farm.repo("");
    wait_until("the first metadata", || check_repository(&repo).is_ok_and(|packages| packages.len() == 2));
    let rpm = repo.join("seed-1-1/seed-1-1.t3.noarch.rpm");
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let errors = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut errors = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = read_metadata(&repo) {
                    errors.push(error);
                }
                reads.fetch_add(1, Ordering::Relaxed);
            }
            errors
        });
        // A panic in here must end the reader too.
        let publishing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..publications() {
                // Folders come, and every third time one goes.
                let staged = farm.path("staged");
                fs::create_dir(&staged).unwrap();
                fs::copy(&rpm, staged.join("seed-1-1.t3.noarch.rpm")).unwrap();
                fs::rename(&staged, repo.join(format!("copy-{n}"))).unwrap();
                if n % 3 == 2 {
                    fs::remove_dir_all(repo.join(format!("copy-{}", n - 1))).unwrap();
                }
                wait_until("the next publication", || check_repository(&repo).is_ok());
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let errors = reader.join().unwrap();
        if let Err(panic) = publishing {
            std::panic::resume_unwind(panic);
        }
        errors
    });
    let reads = reads.into_inner();
    println!("{} publications, {reads} reads, {} errors", publications(), errors.len());
    assert_eq!(errors, Vec::<String>::new());
    assert!(reads > publications(), "the reader hardly ran: {reads}");
}
