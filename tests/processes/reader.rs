//! Whoever reads the repository never sees a broken one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use moji_tests::support::processes::{Farm, outcome_of, tiny, wait_until};
use moji_tests::support::repository::{check_repository, read_metadata};
use rustix::process::Signal;

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

#[test]
fn the_server_shows_repo_and_its_generations_itself() {
    let mut farm = Farm::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let (code, said) =
        outcome_of(farm.server_command(&["--listen", "127.0.0.1:0", "--http", taken_address.as_str()]));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("cannot serve HTTP at [{taken_address}]")), "{said}");

    farm.start_server(&["--http", "127.0.0.1:0"]);
    let line = farm.server().wait_line("/ shows the farm, and REPO, to everybody");
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    wait_until("the first generation", || {
        get("/repo/generations/1/repodata/repomd.xml").contains("<revision>1</revision>")
    });
    assert!(get("/repo/../working/.moji/identity.pem").starts_with("HTTP/1.0 404"));
    farm.server().signal(Signal::TERM);
    assert_eq!(farm.server.as_mut().unwrap().wait_code(), 0);
    assert!(TcpStream::connect(address).is_err(), "it ends with the server");
}
