//! Server and client are killed in the middle of an upload: Mock does not run again, and what has
//! arrived is not sent again. `MOJI_UPLOAD_MIB` is how large the artifact is. Prints what was re-sent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use moji_proto::Outcome;
use moji_tests::support::processes::{Farm, TARGET, hostmock, wait_for, wait_until};
use moji_tests::support::proxy::Proxy;

/// A package with so many MiB that cannot be compressed, in a payload that is not.
fn spec(mib: u64) -> String {
    format!(
        "%define _binary_payload w.ufdio\nName: large\nVersion: 1\nRelease: 1\nSummary: A package for tests\n\
         License: MIT\nBuildArch: noarch\n%description\nA package for tests.\n%prep\n%build\n%install\n\
         mkdir -p %{{buildroot}}/usr/share/large\n\
         head -c {mib}M /dev/urandom >%{{buildroot}}/usr/share/large/data\n%files\n/usr/share/large\n"
    )
}

#[test]
fn an_upload_survives_the_server_and_the_client() {
    let mib: u64 = std::env::var("MOJI_UPLOAD_MIB").map_or(48, |number| number.parse().unwrap());
    let mut farm = Farm::start(&["--grace", "60s"]);
    let (mock, runs) = (farm.path("mock"), farm.path("runs"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *.src.rpm) echo run >>{}; esac\nexec {} \"$@\"\n",
        runs.display(),
        hostmock().display()
    );
    fs::write(&mock, script).unwrap();
    fs::set_permissions(&mock, fs::Permissions::from_mode(0o755)).unwrap();
    let proxy = Proxy::new(farm.address());
    let arguments = ["--mock", mock.to_str().unwrap()];
    let client =
        |farm: &Farm| farm.client_command_for("board", TARGET, &proxy.address().to_string(), &arguments);
    let command = client(&farm);
    farm.run_client("board", command);
    fs::write(farm.path("specs/large.spec"), spec(mib)).unwrap();
    let srpm = farm.make_srpms(&[farm.path("specs/large.spec")], &[]).remove(0);
    // As slow as it takes to be killed in the middle.
    proxy.limit(Some((mib << 20) / 8));
    farm.queue(&srpm);
    let share = |part: u64| (mib << 20) * part / 100;
    let passed = |part: u64| {
        let what = format!("{part} percent of the upload");
        wait_for(&what, || (proxy.counts().up > share(part)).then_some(()));
    };

    passed(30);
    farm.server.as_mut().unwrap().kill();
    let before = proxy.counts().up;
    farm.start_server(&["--grace", "60s"]);
    let goes_on = farm.server().wait_line(" goes on at byte ");
    println!("the server was killed at {before} bytes: {goes_on}");

    passed(60);
    farm.client_mut("board").kill();
    let before = proxy.counts().up;
    let command = client(&farm);
    let mark = farm.server().mark();
    farm.run_client("board", command);
    let goes_on = farm.server().wait_line_after(mark, " goes on at byte ");
    println!("the client was killed at {before} bytes: {goes_on}");
    proxy.limit(None);

    wait_until("the result", || farm.finished("large-1-1.src.rpm").exists());
    let record = farm.build_record("large-1-1");
    assert_eq!(record.outcome, Outcome::Succeeded);
    let size: u64 = record.artifacts.iter().map(|artifact| artifact.size).sum();
    let resent = proxy.counts().up.saturating_sub(size);
    println!(
        "{size} bytes of results, {} passed, {resent} more (logs and messages included)",
        proxy.counts().up
    );
    assert_eq!(fs::read_to_string(runs).unwrap(), "run\n", "Mock ran again");
    // Twice what is under way at most: the window, and what the proxy and the sockets hold.
    assert!(resent < 16 << 20, "{resent} bytes were sent again");
}
