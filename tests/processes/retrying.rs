//! Builds that failed with a broken library are tried once more when it is built anew.

use std::fs;
use std::path::PathBuf;

use moji_tests::support::processes::{Farm, wait_until};
use moji_tests::support::repository::read_metadata;

fn spec(name: &str, version: u32, build: &str, program: &str) -> String {
    format!(
        "Name: {name}\nVersion: {version}\nRelease: 1%{{?dist}}\nSummary: A package for tests\nLicense: MIT\n\
         BuildArch: noarch\n{}%description\nA package for tests.\n%prep\n%build\n{build}\n%install\n\
         mkdir -p %{{buildroot}}/usr/bin\nprintf '#!/bin/sh\\n{program}\\n' >%{{buildroot}}/usr/bin/{name}\n\
         chmod 755 %{{buildroot}}/usr/bin/{name}\n%files\n/usr/bin/{name}\n",
        if build.is_empty() { "" } else { "BuildRequires: moji-t-lib\n" },
    )
}

/// Versions before 2 are broken.
fn library(farm: &Farm, version: u32) -> PathBuf {
    farm.srpm_of(
        &format!("lib-{version}"),
        &spec("moji-t-lib", version, "", &format!("test {version} -gt 1")),
    )
}

fn publish(farm: &Farm, version: u32) {
    farm.queue(&library(farm, version));
    let wanted = format!("moji-t-lib-{version}-1/moji-t-lib-{version}-1.t3.noarch.rpm");
    wait_until(&format!("{wanted} in the metadata"), || {
        read_metadata(&farm.repo("")).is_ok_and(|listed| listed.contains_key(&wanted))
    });
}

fn tries(farm: &Farm, srpm: &str) -> usize {
    farm.hand_outs().iter().filter(|(given, _)| given == srpm).count()
}

#[test]
fn what_failed_with_a_broken_library_is_tried_once_more_when_there_is_another() {
    let arguments = ["--retry-failed-on-change"];
    let mut farm = Farm::new();
    farm.start_server_with_repo(&arguments);
    farm.start_client("b1", &[]);
    publish(&farm, 1);
    let (mended, hopeless) = ("moji-t-mended-1-1.src.rpm", "moji-t-hopeless-1-1.src.rpm");
    farm.queue(&farm.srpm_of("mended", &spec("moji-t-mended", 1, "moji-t-lib", ":")));
    farm.queue(&farm.srpm_of("hopeless", &spec("moji-t-hopeless", 1, "moji-t-lib; false", ":")));
    for srpm in [mended, hopeless] {
        farm.wait_finished(srpm);
        assert!(!farm.failure_record(srpm).retried, "{srpm}");
    }

    publish(&farm, 2);
    for srpm in [mended, hopeless] {
        wait_until(&format!("the second try of {srpm}"), || tries(&farm, srpm) == 2);
        farm.wait_finished(srpm);
    }
    assert!(farm.build_record("moji-t-mended-1-1").outcome.is_success());
    assert!(!farm.finished(format!("{mended}.failed.json")).exists());
    assert!(farm.failure_record(hopeless).retried);

    // Never again, also not by another server. What comes after it in the queue shows that it was its turn.
    publish(&farm, 3);
    marker(&farm, "first");
    assert_eq!((tries(&farm, mended), tries(&farm, hopeless)), (2, 2));
    farm.server.as_mut().unwrap().kill();
    farm.start_server_with_repo(&arguments);
    publish(&farm, 4);
    marker(&farm, "second");
    assert_eq!((tries(&farm, mended), tries(&farm, hopeless)), (0, 0));
    assert_eq!(farm.where_is(hopeless), ["FINISHED"]);
}

/// Builds something that comes after whatever was queued by now.
fn marker(farm: &Farm, name: &str) {
    let srpm = format!("moji-t-{name}-1-1.src.rpm");
    farm.queue(&farm.srpm_of(name, &spec(&format!("moji-t-{name}"), 1, "true", ":")));
    farm.wait_finished(&srpm);
    assert!(fs::exists(farm.repo(format!("moji-t-{name}-1-1/build.json"))).unwrap());
}
