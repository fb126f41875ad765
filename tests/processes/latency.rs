//! From an SRPM in SOURCE of an idle farm to a Mock that runs. Prints, and asserts no time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use moji_tests::support::processes::{Farm, tiny, wait_until};

/// Stands for Mock: says when it was started, and fails as a package does. Answers what a client
/// asks at its start.
const FAKE: &str = "#!/bin/sh
now=$(date +%s%N)
for argument; do
    case $argument in
        --version) echo 6.7; exit 0 ;;
        --clean | --orphanskill) exit 0 ;;
        --resultdir=*)
            echo \"$now\" >\"${argument#*=}/started.log\"
            echo 'x - Start: rpmbuild x' >\"${argument#*=}/state.log\" ;;
    esac
done
exit 1
";

#[test]
fn how_long_it_takes_until_mock_runs() {
    let runs = std::env::var("MOJI_LATENCY_RUNS").map_or(5, |number| number.parse().unwrap());
    let mut farm = Farm::start(&[]);
    let fake = farm.path("fake-mock");
    fs::write(&fake, FAKE).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    farm.start_client("b1", &["--mock", fake.to_str().unwrap()]);
    let mut times = Vec::new();
    for n in 0..runs {
        let name = format!("latency{n}");
        let srpm = farm.tiny_srpms(&[(&name, "true")]).remove(0);
        let dropped = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        farm.queue(&srpm);
        farm.wait_finished(&tiny(&name));
        let path = farm.repo(format!("{name}-1-1/started.log"));
        wait_until("the result", || path.exists());
        let started: u64 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
        times.push(Duration::from_nanos(started).saturating_sub(dropped));
    }
    times.sort();
    println!("idle to Mock started, {runs} runs: median {:?}, worst {:?}", times[runs / 2], times[runs - 1]);
}
