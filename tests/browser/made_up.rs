//! A farm that is not there: enough of everything to look at.

use jiff::{SignedDuration, Timestamp};
use moji_proto::api::{Build, BuildDetail, Overview, Page, Target, Why};
use moji_server::history::BuildFilter;
use moji_server::log_text;
use moji_server::pages::{self, Frame, LogPart};
use serde_json::{Value, json};

use crate::site::Site;

pub(crate) fn frame() -> Frame<'static> {
    Frame { now: Timestamp::now(), software: "moji-server 0.1.0" }
}

pub(crate) fn given<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn before(seconds: i64) -> String {
    (Timestamp::now() - SignedDuration::from_secs(seconds)).to_string()
}

fn attempt_id(number: u64) -> String {
    format!("0123456789abcdef-{number}")
}

pub(crate) fn build(id: u64, nvr: &str, state: &str, seconds: i64, reason: Option<&str>) -> Value {
    let package = nvr.rsplitn(3, '-').nth(2).unwrap_or(nvr);
    let is_settled = matches!(state, "succeeded" | "failed" | "held" | "withdrawn");
    json!({
        "id": id, "target": (!id.is_multiple_of(5)).then_some("fedora-43-aarch64"), "srpm": format!("{nvr}.src.rpm"), "nvr": nvr,
        "package": package, "state": state, "queued_at": before(seconds + 5000),
        "settled_at": is_settled.then(|| before(seconds)), "attempts": 1 + id % 2,
        "attempt": attempt_id(id), "builder": (state != "queued").then(|| format!("lab/board-{}", id % 4 + 1)),
        "took_seconds": (state != "queued").then_some(47 + id * 83 % 3000),
        "failure": (state == "failed").then_some("package"), "reason": reason, "missing": [],
    })
}

pub(crate) fn running(number: u64, srpm: &str, seconds: i64, phase: &str) -> Value {
    json!({
        "attempt": attempt_id(number), "build": number, "srpm": format!("{srpm}.src.rpm"), "target": "fedora-43-aarch64",
        "builder": format!("lab/board-{}", number % 4 + 1), "slot": 0, "since": before(seconds), "phase": phase,
        "expected_seconds": (number != 402).then_some(1800), "is_orphaned": number == 403, "is_publishing": false,
    })
}

fn builder(name: &str, state: &str, attempts: &[u64]) -> Value {
    json!({
        "id": name, "state": state, "arch": "aarch64", "targets": ["fedora-43-aarch64", "fedora-42-aarch64"], "broken_targets": [],
        "tags": ["big"], "cores": 8, "memory": 17_179_869_184_u64, "disk": 251_000_000_000_u64, "slots": 2,
        "connected_at": before(86_000), "suspended_seconds": (state == "suspended").then_some(900),
        "drained": (state == "drained").then(|| json!({ "by": "ana", "at": before(4000), "reason": "new fan" })),
        "software": "moji-client 0.1.0", "attempts": attempts.iter().map(|id| attempt_id(*id)).collect::<Vec<_>>(),
    })
}

fn builders() -> Vec<Value> {
    vec![
        builder("lab/board-1", "building", &[400]),
        builder("lab/board-2", "building", &[401]),
        builder("lab/board-3", "building", &[402]),
        builder("lab/board-4", "away", &[403]),
        builder("lab/ampere", "idle", &[]),
        builder("attic", "drained", &[]),
        builder("lab/rock-5b", "suspended", &[]),
    ]
}

fn newest() -> Vec<Value> {
    vec![
        build(398, "zlib-ng-2.2.4-3.fc43", "succeeded", 40, None),
        build(397, "python-charset-normalizer-3.4.2-1.fc43", "succeeded", 95, None),
        build(396, "libfoo-1.9.1-2.fc43", "failed", 300, Some(FAILED)),
        build(395, "hello-2.12.1-6.fc43", "succeeded", 420, None),
        build(394, "kernel-tools-6.17.4-200.fc43", "held", 1900, Some("3 builders were lost with it")),
        build(393, "openssl-3.5.1-1.fc43", "succeeded", 4100, None),
    ]
}

const FAILED: &str =
    "%build: gcc: error: ‘PyUnicode_AsUTF8’ undeclared (first use in this function); exit code 1";

pub(crate) fn overview() -> Overview {
    given(json!({
        "server": { "software": "moji-server 0.1.0", "started_at": before(400_000), "paused": null, "is_full": false, "out_of_date": [] },
        "queue": { "ready": 212, "waiting": 37, "parked": 4, "running": 4 },
        "eta": { "low": 5400, "expected": 7800, "high": 14_400 },
        "throughput": { "hour": { "succeeded": 31, "failed": 2, "held": 0 }, "day": { "succeeded": 614, "failed": 23, "held": 3 } },
        "slots": { "total": 14, "busy": 4 },
        "running": [running(400, "gcc-15.2.1-3.fc43", 2700, "building"), running(401, "python-cryptography-45.0.4-2.fc43", 640, "installing_build_requires"),
            running(402, "rust-1.91.0-1.fc43", 75, "preparing"), running(403, "llvm-21.1.5-1.fc43", 1200, "building")],
        "builders": builders(), "newest": newest(),
        "failures": [newest()[2], newest()[4], build(380, "perl-Net-SSLeay-1.94-9.fc43", "failed", 9000, Some("%check: t/local/07_sslecho.t: 3 of 122 subtests failed"))],
    }))
}

pub(crate) fn builds() -> Vec<Build> {
    let mut all: Vec<Value> = vec![
        build(403, "llvm-21.1.5-1.fc43", "running", 100, None),
        build(399, "bash-5.3.0-2.fc43", "queued", 10, None),
        build(392, "gtk4-4.20.2-1.fc43", "parked", 60, Some("misses pkgconfig(wayland-protocols) >= 1.45")),
        build(391, "old-1-1.fc43", "withdrawn", 400, None),
    ];
    all.extend(newest());
    all.into_iter().map(given).collect()
}

fn log_text(lines: usize) -> String {
    let line = |n: usize| match n % 9 {
        0 => {
            format!("[{n:4}/1893] \u{1b}[32mBuilding C object\u{1b}[0m src/CMakeFiles/foo.dir/part_{n}.c.o\n")
        }
        4 => format!("\u{1b}[1;35mwarning:\u{1b}[0m unused variable ‘x{n}’ [-Wunused-variable]\n"),
        _ => format!(
            "gcc -DHAVE_CONFIG_H -I. -O2 -flto=auto -g -grecord-gcc-switches -Wall -c part_{n}.c -o part_{n}.o\n"
        ),
    };
    (1..=lines).map(line).collect()
}

pub(crate) fn log_part(lines: usize) -> LogPart {
    let text = log_text(lines);
    LogPart {
        attempt: given(json!(attempt_id(403))),
        name: given(json!("build.log")),
        from: 90_000,
        to: 90_000 + text.len() as u64,
        size: 90_000 + text.len() as u64,
        first: Some(1201),
        lines: log_text::lines(text.as_bytes()),
        is_growing: true,
        before: Some(0),
    }
}

fn logs() -> Vec<Value> {
    ["build.log", "root.log", "state.log"].map(|name| json!({ "name": name, "bytes": 128_000 })).into()
}

fn attempt(number: u64, outcome: Option<bool>) -> Value {
    json!({
        "id": attempt_id(number), "builder": "lab/board-4", "target": "fedora-43-aarch64", "generation": 61, "leased_at": before(1200),
        "ended_at": outcome.map(|_| before(600)), "ending": outcome.map(|_| "delivered"), "succeeded": outcome,
        "failure": (outcome == Some(false)).then_some("package"), "reason": (outcome == Some(false)).then_some(FAILED), "exit_code": 1,
        "missing": [], "logs": logs(),
        "running": outcome.is_none().then(|| running(403, "llvm-21.1.5-1.fc43", 1200, "building")),
    })
}

pub(crate) fn running_build() -> BuildDetail {
    given(json!({
        "build": build(403, "llvm-21.1.5-1.fc43", "running", 100, None), "size": 171_234_567, "sha256": "5a".repeat(32),
        "attempts": [attempt(403, None), attempt(402, Some(false))], "artifacts": [], "folder": null, "excerpt": null,
    }))
}

pub(crate) fn failed_build() -> BuildDetail {
    given(json!({
        "build": build(396, "libfoo-1.9.1-2.fc43", "failed", 300, Some(FAILED)), "size": 1_234_567, "sha256": "c3".repeat(32),
        "attempts": [attempt(404, Some(false))], "artifacts": [], "folder": "/repo/fedora-43-aarch64/libfoo-1.9.1-2.fc43/",
        "excerpt": { "log": "build.log", "lines": ["gcc -O2 -Wall -c src/text.c -o src/text.o", "src/text.c: In function ‘as_text’:",
            "src/text.c:41:12: error: ‘PyUnicode_AsUTF8’ undeclared (first use in this function)", "   41 |     return PyUnicode_AsUTF8(object);",
            "make: *** [Makefile:88: src/text.o] Error 1", "error: Bad exit status from /var/tmp/rpm-tmp.8sKq2J (%build)"] },
    }))
}

pub(crate) fn good_build() -> BuildDetail {
    let artifact = |name: &str, size: u64| json!({ "name": name, "size": size, "sha256": "8e".repeat(32) });
    given(json!({
        "build": build(398, "zlib-ng-2.2.4-3.fc43", "succeeded", 40, None), "size": 2_484_321, "sha256": "91".repeat(32),
        "attempts": [attempt(405, Some(true))], "folder": "/repo/fedora-43-aarch64/zlib-ng-2.2.4-3.fc43/", "excerpt": null,
        "artifacts": [artifact("zlib-ng-2.2.4-3.fc43.aarch64.rpm", 112_344), artifact("zlib-ng-devel-2.2.4-3.fc43.aarch64.rpm", 40_000),
            artifact("zlib-ng-2.2.4-3.fc43.src.rpm", 2_484_000), artifact("build.log", 91_000)],
    }))
}

pub(crate) fn parked_build() -> (BuildDetail, Why) {
    let build =
        build(392, "gtk4-4.20.2-1.fc43", "parked", 60, Some("misses pkgconfig(wayland-protocols) >= 1.45"));
    let detail = given(json!({
        "build": build, "size": 9_484_321, "sha256": "91".repeat(32), "attempts": [attempt(406, Some(false))], "artifacts": [],
        "folder": null, "excerpt": null,
    }));
    let why = given(json!({
        "build": build, "summary": "It is parked until something provides pkgconfig(wayland-protocols) >= 1.45.", "excerpt": null,
        "missing": [{ "requirement": "pkgconfig(wayland-protocols) >= 1.45", "providers": [{ "build": "fedora-43-aarch64/wayland-protocols-1.45-1.src.rpm", "state": "queued" }] }],
        "place": null, "builders": [{ "builder": "attic", "reasons": ["ana has drained it: new fan"] },
            { "builder": "lab/ampere", "reasons": ["the build is parked"] }, { "builder": "lab/board-1", "reasons": ["the build is parked", "all its slots are busy"] }],
    }));
    (detail, why)
}

pub(crate) fn targets() -> Vec<Target> {
    let target = |name: Option<&str>, ready: u64, builders: u64| {
        given(json!({
            "name": name, "queue": { "ready": ready, "waiting": 37, "parked": 4, "running": 4 }, "builders": builders,
            "day": { "succeeded": 614, "failed": 23, "held": 3 }, "generation": 61,
        }))
    };
    vec![
        target(None, 3, 7),
        target(Some("fedora-42-aarch64"), 12, 5),
        target(Some("fedora-43-aarch64"), 197, 7),
    ]
}

/// Shows a page of every kind; gives the paths.
pub(crate) fn show_all(site: &Site) -> Vec<&'static str> {
    let queued = |at: u64, name: &str, waits: Option<&str>, is_parked: bool| {
        json!({
            "place": (!is_parked).then_some(at), "target": "fedora-43-aarch64", "srpm": format!("{name}.src.rpm"), "size": 1_234_567 * at,
            "queued_at": before(7000), "expected_seconds": (at != 2).then_some(900 * at), "waits_for": waits, "is_parked": is_parked,
        })
    };
    let queue: Page<_> = given(json!({ "next": null, "total": 249, "items": [
        queued(1, "bash-5.3.0-2.fc43", None, false), queued(2, "coreutils-9.8-1.fc43", None, false),
        queued(3, "gnome-shell-49.1-1.fc43", Some("mutter-49.1-1.fc43, which is queued"), false),
        queued(4, "gtk4-4.20.2-1.fc43", Some("pkgconfig(wayland-protocols) >= 1.45"), true),
    ] }));
    let list = Page { items: builds(), next: Some(390), total: Some(20_417) };
    let filter = BuildFilter::default();
    let packages: Page<_> =
        given(json!({ "next": 50, "total": 9120, "items": newest().into_iter().map(|build| json!({
        "name": build["package"], "builds": 12, "last": build,
    })).collect::<Vec<_>>() }));
    let took = |n: u64| {
        json!({ "at": before(400_000 - 3000 * i64::try_from(n).unwrap()), "seconds": 1500 + n * n * 7919 % 900 + if n == 40 { 1900 } else { 0 },
            "builder": format!("lab/board-{}", n % 4 + 1), "target": "fedora-43-aarch64" })
    };
    let package = given(
        json!({ "name": "llvm", "builds": builds().iter().take(6).collect::<Vec<_>>(), "durations": (0..60).map(took).collect::<Vec<_>>() }),
    );
    let one_builder = given(json!({
        "id": "lab/board-1", "builder": builders()[0], "running": [running(400, "gcc-15.2.1-3.fc43", 2700, "building")],
        "totals": { "attempts": 812, "succeeded": 771, "lost": 3, "failed": [["package", 26], ["infrastructure", 9], ["missing_dependency", 3]], "percent_of_others": 83 },
        "builds": newest(),
    }));
    let report = given(json!({
        "format": 1, "written_at": before(600), "standing": "stuck",
        "totals": { "counts": { "built": 614, "failed": 2, "held": 1, "parked": 1, "waiting": 1, "cycles": 1 }, "attempts": 671,
            "wall_seconds": 81_000, "busy_seconds": 640_000, "critical_path_seconds": 32_000 },
        "targets": [{
            "target": "fedora-43-aarch64", "began": before(90_000), "ended": before(700), "attempts": 671, "busy_seconds": 640_000,
            "counts": { "built": 2, "failed": 1, "held": 1, "parked": 1, "waiting": 1, "cycles": 1 },
            "built": [{ "srpm": "bash-5.3.0-2.fc43.src.rpm", "attempts": 1, "seconds": 340, "builder": "lab/board-2" }, { "srpm": "zlib-ng-2.2.4-3.fc43.src.rpm", "attempts": 2, "seconds": 95 }],
            "failed": [{ "srpm": "libfoo-1.9.1-2.fc43.src.rpm", "kind": "package", "reason": FAILED, "attempts": 1, "builder": "lab/board-4", "logs": "fedora-43-aarch64/libfoo-1.9.1-2.fc43",
                "excerpt": { "lines": ["src/text.c: In function ‘as_text’:", "src/text.c:41:12: error: ‘PyUnicode_AsUTF8’ undeclared", "make: *** [Makefile:88: src/text.o] Error 1"], "telling": 1 } }],
            "held": [{ "srpm": "kernel-tools-6.17.4-200.fc43.src.rpm", "reason": "3 builders were lost with it", "attempts": 3 }],
            "parked": [{ "srpm": "gtk4-4.20.2-1.fc43.src.rpm", "attempts": 1, "missing": [{ "requirement": "pkgconfig(wayland-protocols) >= 1.45", "providers": [] }] }],
            "cycles": [{ "edges": [{ "package": "a", "requirement": "b-devel" }, { "package": "b", "requirement": "a-devel" }] }],
            "waiting": [{ "srpm": "gnome-shell-49.1-1.fc43.src.rpm", "needs": [{ "requirement": "mutter-devel >= 49", "providers": [{ "srpm": "mutter-49.1-1.fc43.src.rpm", "state": "parked" }] }] }],
        }],
    }));
    let known = targets();
    let (parked, why) = parked_build();
    let shown = [
        ("/", pages::overview(frame(), &overview())),
        ("/queue", pages::queue(frame(), &queue, None, &known)),
        ("/builds", pages::builds(frame(), &list, &filter, &known)),
        ("/build/403", pages::build(frame(), &running_build(), None, Some(&log_part(60)))),
        ("/build/396", pages::build(frame(), &failed_build(), None, None)),
        ("/build/398", pages::build(frame(), &good_build(), None, None)),
        ("/build/392", pages::build(frame(), &parked, Some(&why), None)),
        ("/build/403/log/build.log", pages::log(frame(), &running_build().build, &log_part(300))),
        ("/packages", pages::packages(frame(), &packages, "", 0)),
        ("/package/llvm", pages::package(frame(), &package, None)),
        ("/builders", pages::builders(frame(), &builders().into_iter().map(given).collect::<Vec<_>>())),
        ("/builder/lab/board-1", pages::builder(frame(), &one_builder)),
        ("/targets", pages::targets(frame(), &known)),
        (
            "/target/fedora-43-aarch64",
            pages::target(frame(), &known[2], Some("http://farm.example:6780"), &builds()),
        ),
        ("/report", pages::report(frame(), Some(&report))),
        ("/problem", pages::problem(frame(), "There is no such thing", "build 17 is not known")),
    ];
    shown
        .map(|(path, page)| {
            site.show(path, page);
            path
        })
        .into()
}
