//! A build can be repeated against the generation of the repository that it ran against.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use moji_tests::support::processes::{Farm, hostmock, let_pass, now, wait_until};
use moji_tests::support::repository::wait_for_packages;

/// A library that says its version, as a program.
fn library(version: u32) -> String {
    format!(
        "Name: moji-t-foo\nVersion: {version}\nRelease: 1%{{?dist}}\nSummary: A library\nLicense: MIT\nBuildArch: noarch\n\
         %description\nA library.\n%prep\n%build\n%install\nmkdir -p %{{buildroot}}/usr/bin\n\
         printf '#!/bin/sh\\necho foo is {version}\\n' >%{{buildroot}}/usr/bin/moji-t-foo\n\
         chmod 755 %{{buildroot}}/usr/bin/moji-t-foo\n%files\n/usr/bin/moji-t-foo\n"
    )
}

const USER: &str = "Name: moji-t-user\nVersion: 1\nRelease: 1%{?dist}\nSummary: A user\nLicense: MIT\nBuildArch: noarch\n\
                    BuildRequires: moji-t-foo\n%description\nA user.\n%prep\n%build\nmoji-t-foo\n%install\n%files\n";

fn packages(names: &[&str]) -> Vec<String> {
    let of = |name: &&str| ["noarch", "src"].map(|arch| format!("{name}/{name}.t3.{arch}.rpm"));
    names.iter().flat_map(of).collect()
}

/// Mock by hand, as README.md says. Gives build.log.
fn repeat(farm: &Farm, name: &str, url: &str, srpm: &Path) -> String {
    let results = farm.path(name);
    let output = Command::new(hostmock())
        .arg("-r")
        .arg(farm.path("configs/here.cfg"))
        .arg(format!("--addrepo={url}"))
        .arg("--resultdir")
        .arg(&results)
        .arg(srpm)
        .env("HOSTMOCK_BASEDIR", farm.path("by-hand"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(results.join("build.log")).unwrap()
}

#[test]
fn a_build_of_yesterday_is_repeated_with_what_it_had() {
    let mut farm = Farm::new();
    farm.start_server_with_repo(&[]);
    farm.start_client("b1", &[]);
    farm.queue(&farm.srpm_of("foo-1", &library(1)));
    wait_for_packages(&farm.repo(""), &packages(&["moji-t-foo-1-1"]));
    farm.queue(&farm.srpm_of("user", USER));
    let srpm = "moji-t-user-1-1.src.rpm";
    farm.wait_finished(srpm);
    let used = farm.build_record("moji-t-user-1-1").attempt.unwrap().repository.unwrap();
    let url = used.url.unwrap();
    assert!(url.ends_with(&format!("/repo/generations/{}/", used.generation)), "{url}");
    let log = fs::read_to_string(farm.repo("moji-t-user-1-1/build.log")).unwrap();
    assert!(log.contains("foo is 1"), "{log}");

    // The library is replaced.
    fs::remove_dir_all(farm.repo("moji-t-foo-1-1")).unwrap();
    farm.queue(&farm.srpm_of("foo-2", &library(2)));
    wait_for_packages(&farm.repo(""), &packages(&["moji-t-foo-2-1", "moji-t-user-1-1"]));
    wait_until("a newer generation", || {
        let newest = fs::read_dir(farm.repo("generations")).unwrap().flatten();
        let numbers = newest.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        numbers.max().is_some_and(|newest| newest > used.generation)
    });
    let srpm = farm.finished(srpm);
    let before = repeat(&farm, "before", &url, &srpm);
    assert!(before.contains("foo is 1") && !before.contains("foo is 2"), "{before}");
    let after = repeat(&farm, "after", &farm.repo_url(), &srpm);
    assert!(after.contains("foo is 2"), "{after}");
}

/// On a farm on which nothing runs just then. It takes a minute, because what somebody may just be reading stays for so
/// long.
#[test]
fn generations_that_nobody_needs_are_removed() {
    let mut farm = Farm::new();
    farm.start_server_with_repo(&["--keep-generations", "0s"]);
    farm.start_client("b1", &[]);
    farm.queue(&farm.srpm_of("foo-1", &library(1)));
    wait_for_packages(&farm.repo(""), &packages(&["moji-t-foo-1-1"]));
    let numbers = |farm: &Farm| -> BTreeSet<u64> {
        let found = fs::read_dir(farm.repo("generations")).unwrap().flatten();
        found.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let before = numbers(&farm);
    farm.queue(&farm.srpm_of("user", USER));
    farm.wait_finished("moji-t-user-1-1.src.rpm");
    wait_until("the next generation", || numbers(&farm).last() > before.last());
    let begin = now();
    while !numbers(&farm).is_disjoint(&before) {
        assert!(begin.elapsed() < Duration::from_secs(120), "{:?} are still there", numbers(&farm));
        // The keeper looks when something changes, and once a minute.
        fs::write(farm.repo("README"), format!("{:?}", begin.elapsed())).unwrap();
        let_pass(Duration::from_secs(2));
    }
    assert!(numbers(&farm).last() > before.last(), "the newest one stays");
}
