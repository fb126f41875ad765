use std::collections::BTreeSet;

use jiff::Timestamp;
use moji_proto::FailureKind;
use moji_proto::api::{
    Attempt, Build, BuildDetail, BuildState, Builder, BuilderDetail, Event, OutOfDate, Overview, Package,
    PackageDetail, Page, Problem, Queued, Target, Why,
};
use serde_json::Value;

use super::scene::{BAD, GOOD, RUNS, Scene, WAITS, id, key};
use super::*;
use crate::http::health::Health;

#[tokio::test]
async fn what_is_documented_is_what_there_is() {
    let documented = openapi::document();
    let documented: Vec<&str> = documented.paths.paths.keys().map(String::as_str).collect();
    for (path, _) in json::table() {
        let path = path.replace("{*", "{");
        assert!(documented.contains(&path.as_str()), "{path} is not in the description");
    }
    let scene = Scene::new();
    let attempt = id(5).to_string();
    for path in documented {
        if path == "/events" {
            continue;
        }
        let path = path
            .replace("{reference}", "f43/bar-1-1")
            .replace("{attempt}", &attempt)
            .replace("packages/{name}", "packages/foo")
            .replace("{name}", "build.log")
            .replace("{id}", "lab/board-9")
            .replace("/find", "/find?build=foo");
        let got = scene.get(&path).await;
        // There is no report yet.
        let expected = if path.ends_with("/report") { 404 } else { 200 };
        assert_eq!(got.status, expected, "{path}: {}", got.body);
        assert_eq!(got.header("x-content-type-options"), "nosniff", "{path}");
        assert!(got.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        let head = scene.ask("HEAD", &path, &[]).await;
        assert_eq!((head.status, head.body.as_str()), (expected, ""), "{path}");
    }
    let document: Value = scene.get("/api/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    for schema in ["Overview", "BuildDetail", "Why", "Event", "Problem"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
}

/// Whatever is asked: a program that was made from the description knows the answer's status.
#[tokio::test]
async fn what_can_go_wrong_is_promised_too() {
    let mut scene = Scene::new();
    let document = openapi::document();
    let promised: Vec<_> = document
        .paths
        .paths
        .iter()
        .map(|(path, item)| (path.as_str(), &item.get.as_ref().expect("it only reads").responses.responses))
        .collect();
    let attempt = format!("/{}", id(5));
    let mut seen = BTreeSet::new();
    for is_over in [false, true] {
        if is_over {
            // The farm has gone, and the history with it.
            (scene.api.farm, _) = crate::farm_handle::FarmHandle::new();
            fs::remove_file(scene.folders.private().join("history.sqlite")).unwrap();
        }
        for (path, promised) in &promised {
            let known = path
                .replace("{reference}", "f43/bar-1-1")
                .replace("/{attempt}", &attempt)
                .replace("packages/{name}", "packages/foo")
                .replace("{name}", "build.log")
                .replace("{id}", "lab/board-9");
            let unknown = path.replace(['{', '}'], "");
            let mut asked = vec![
                unknown,
                format!("{known}?no=such"),
                format!("{known}?limit=-1"),
                format!("{known}?kind=x"),
            ];
            // What is well is a stream without end.
            if is_over || *path != "/events" {
                asked.push(known);
            }
            for asked in asked.iter().filter(|asked| is_over || *asked != "/events") {
                for headers in [&[][..], &[("range", "bytes=1-2")], &[("range", "bytes=9999999-")]] {
                    let got = scene.ask("GET", asked, headers).await;
                    let status = got.status.to_string();
                    assert!(promised.contains_key(&status), "{asked} {headers:?}: {status}: {}", got.body);
                    seen.insert(got.status);
                }
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 206, 400, 404, 416, 503]);
}

#[tokio::test]
async fn answers_are_of_the_types_that_are_promised() {
    let scene = Scene::new();
    let overview: Overview = scene.get("/api/v1/overview").await.json();
    assert_eq!(overview.running[0].attempt, id(7));
    let number = overview.running[0].build.expect("the history knows it");
    let srpms = |builds: &[Build]| builds.iter().map(|build| build.srpm.clone()).collect::<Vec<_>>();
    assert_eq!(srpms(&overview.newest), [key(BAD).srpm, key(GOOD).srpm]);
    assert_eq!(srpms(&overview.failures), [key(BAD).srpm]);
    assert_eq!((overview.throughput.hour.succeeded, overview.throughput.hour.failed), (1, 1));
    let found: Build = scene.get(&format!("/api/v1/find?build={number}")).await.json();
    assert_eq!((found.state, found.srpm), (BuildState::Running, key(RUNS).srpm));
    let queue: Page<Queued> = scene.get("/api/v1/queue?target=f43").await.json();
    assert_eq!((queue.items.len(), queue.total), (1, Some(1)));
    let none: Page<Queued> = scene.get("/api/v1/queue?target=-").await.json();
    assert!(none.items.is_empty());
    let builds: Page<Build> = scene.get("/api/v1/builds?state=failed,running").await.json();
    assert_eq!(builds.items.len(), 2, "{builds:?}");
    let builds: Page<Build> = scene.get("/api/v1/builds?target=f43&kind=package&q=BA").await.json();
    assert_eq!(srpms(&builds.items), [key(BAD).srpm]);
    let part: Page<Build> = scene.get("/api/v1/builds?limit=3").await.json();
    let next = part.next.unwrap();
    let rest: Page<Build> = scene.get(&format!("/api/v1/builds?limit=3&before={next}")).await.json();
    assert_eq!((part.items.len(), rest.items.len(), rest.next), (3, 1, None));
    let packages: Page<Package> = scene.get("/api/v1/packages?q=fo").await.json();
    assert_eq!(packages.items[0].name, GOOD);
    let package: PackageDetail = scene.get("/api/v1/packages/foo").await.json();
    assert_eq!(package.durations.len(), 1);
    let builders: Vec<Builder> = scene.get("/api/v1/builders").await.json();
    assert_eq!(builders[0].id, "lab/board-9");
    let connected: BuilderDetail = scene.get("/api/v1/builders/lab/board-9").await.json();
    assert!(connected.builder.is_some() && connected.builds.is_empty());
    let away: BuilderDetail = scene.get("/api/v1/builders/board-5").await.json();
    assert!(away.builder.is_none() && away.builds.len() == 1, "{away:?}");
    let busy: BuilderDetail = scene.get("/api/v1/builders/board-7").await.json();
    assert_eq!(busy.running[0].build, Some(number));
    let targets: Vec<Target> = scene.get("/api/v1/targets").await.json();
    let days: Vec<(u64, u64)> =
        targets.iter().map(|target| (target.day.succeeded, target.day.failed)).collect();
    assert_eq!(days, [(1, 0), (0, 1)]);
    fs::write(scene.folders.repo.join("report.json"), r#"{"format":1}"#).unwrap();
    let report: Value = scene.get("/api/v1/report").await.json();
    assert_eq!(report["format"], 1);
    let _: Page<Event> = scene.get("/api/v1/events?since=0&kind=failed,held").await.json();
}

#[tokio::test]
async fn a_build_is_told_from_history_farm_and_folders() {
    let scene = Scene::new();
    let bad: BuildDetail = scene.get("/api/v1/builds/f43/bar-1-1").await.json();
    assert_eq!(bad.build.failure, Some(FailureKind::Package));
    assert_eq!(bad.folder.as_deref(), Some("/repo/f43/bar-1-1/"));
    let excerpt = bad.excerpt.unwrap();
    assert!(excerpt.log == "build.log" && excerpt.lines.iter().any(|line| line.contains("expected ';'")));
    assert_eq!(bad.attempts[0].logs[0].name.as_str(), "build.log");
    let folder = scene.get("/repo/f43/bar-1-1/").await;
    assert!(folder.body.contains("build.log"));
    let good: BuildDetail = scene.get("/api/v1/builds/foo").await.json();
    assert_eq!((good.artifacts.len(), good.excerpt), (2, None));
    let runs: BuildDetail = scene.get("/api/v1/builds/baz-1-1.src.rpm").await.json();
    let running = runs.attempts[0].running.as_ref().unwrap();
    assert_eq!((running.slot, running.build), (Some(0), Some(runs.build.id)));
    assert_eq!((runs.attempts[0].logs[0].bytes, runs.folder), (18, None));
    let attempt: Attempt = scene.get(&format!("/api/v1/attempts/{}", id(7))).await.json();
    assert_eq!(attempt, runs.attempts[0]);
    let why: Why = scene.get(&format!("/api/v1/builds/{}/why", bad.build.id)).await.json();
    assert!(why.summary.contains("it failed (package): a.c:3:1") && why.excerpt.is_some(), "{why:?}");
    let why: Why = scene.get("/api/v1/builds/f43/qux-1-1/why").await.json();
    assert!(why.place == Some(5) && why.build.srpm == key(WAITS).srpm, "{why:?}");
}

#[tokio::test]
async fn a_later_failure_leaves_the_good_result_where_it_is() {
    let scene = Scene::new();
    let folder = scene.folders.repo.join("foo-1-1");
    // As `commit` puts it: the good result stands, the other one has a folder inside.
    let good = fs::read(folder.join("build.json")).unwrap();
    scene.queue(GOOD);
    let outcome = moji_proto::Outcome::failed(FailureKind::Package, "no", Some(1), Vec::new());
    scene.settle(GOOD, 9, outcome, "later\n");
    let inside = folder.join(format!("attempt-{}", id(9)));
    fs::create_dir(&inside).unwrap();
    fs::rename(folder.join("build.json"), inside.join("build.json")).unwrap();
    fs::rename(folder.join("build.log"), inside.join("build.log")).unwrap();
    fs::write(folder.join("build.json"), good).unwrap();
    fs::write(folder.join("build.log"), "fine\n").unwrap();
    assert!(scene.history.flush());
    let later: BuildDetail = scene.get("/api/v1/builds/foo").await.json();
    assert_eq!(later.folder, Some(format!("/repo/foo-1-1/attempt-{}/", id(9))));
    assert_eq!(scene.get("/api/v1/builds/foo/logs/build.log").await.body, "later\n");
    let first = scene.get(&format!("/api/v1/attempts/{}/logs/build.log", id(3))).await;
    assert_eq!(first.body, "fine\n");
}

#[tokio::test]
async fn what_is_wrong_is_said_as_json() {
    let scene = Scene::new();
    for (path, status, word) in [
        ("/api/v1/nothing", 404, "openapi.json"),
        ("/api/v2", 404, "openapi.json"),
        ("/api/", 404, "openapi.json"),
        ("/api/v1/builds/none-1-1", 404, "TARGET"),
        ("/api/v1/builds/none/why", 404, "none"),
        ("/api/v1/builds/foo/logs/build.json", 404, "no log"),
        ("/api/v1/builds/foo/logs/..%2f..%2fsecret.log", 404, "no log"),
        ("/api/v1/builds/foo/logs/root.log", 404, "root.log"),
        ("/api/v1/builds/f43/qux/logs/build.log", 404, "no builder has had it"),
        ("/api/v1/attempts/x", 404, "attempt"),
        ("/api/v1/packages/none", 404, "none"),
        ("/api/v1/builders/none", 404, "none"),
        ("/api/v1/report", 404, "no report yet"),
        ("/api/v1/builds?state=lost", 400, "queued, parked"),
        ("/api/v1/builds?stat=failed", 400, "stat"),
        ("/api/v1/builds?limit=-1", 400, "digit"),
        ("/api/v1/queue?target=a%2fb", 400, "a/b"),
        ("/api/v1/events?kind=x", 400, "no kind of event"),
        ("/api/v1/find", 400, "build"),
        ("/events?kind=x", 400, "no kind of event"),
    ] {
        let got = scene.get(path).await;
        assert_eq!((got.status, got.header("content-type")), (status, "application/json"), "{path}");
        let problem: Problem = serde_json::from_str(&got.body).unwrap();
        assert!(problem.error.contains(word), "{path}: {}", problem.error);
    }
    for method in ["POST", "PUT", "DELETE"] {
        let got = scene.ask(method, "/api/v1/builds", &[]).await;
        assert_eq!((got.status, got.header("content-type")), (405, "application/json"), "{method}");
    }
}

#[tokio::test]
async fn it_is_ready_when_farm_and_history_answer() {
    let mut scene = Scene::new();
    let health: Health = scene.get("/readyz").await.json();
    assert!(health.is_ready && health.problems.is_empty() && health.warnings.is_empty());
    // What is wrong in the farm is told, and is no reason to send people elsewhere.
    let troubled = Scene::new();
    {
        let mut live = troubled.live.lock().unwrap();
        live.server.is_full = true;
        let since = Timestamp::from_second(1_790_000_000).unwrap();
        let reason = "no room".to_owned();
        let repository = Some("f43".to_owned());
        live.server.out_of_date.push(OutOfDate { repository, since, failures: 4, reason });
    }
    let health: Health = troubled.get("/readyz").await.json();
    assert!(health.is_ready && health.problems.is_empty());
    assert_eq!(
        health.warnings,
        [
            "the disk is full: nothing is handed out",
            "the metadata of REPO/f43 are out of date since 2026-09-21T14:13:20Z: no room"
        ]
    );
    fs::remove_file(scene.folders.private().join("history.sqlite")).unwrap();
    let got = scene.get("/readyz").await;
    let health: Health = serde_json::from_str(&got.body).unwrap();
    assert!(got.status == 503 && health.problems.len() == 1, "{health:?}");
    // A farm that does not answer, and one that is gone.
    let (farm, asks) = crate::farm_handle::FarmHandle::new();
    scene.api.farm = farm;
    let got = scene.get("/readyz").await;
    assert!(got.status == 503 && got.body.contains("the farm does not answer within 2s"), "{}", got.body);
    drop(asks);
    let got = scene.get("/api/v1/overview").await;
    assert!(got.status == 503 && got.header("retry-after") == "2", "{}", got.body);
    let health: Health = scene.get("/healthz").await.json();
    assert!(health.is_ready);
}

#[tokio::test]
async fn numbers_for_prometheus() {
    let scene = Scene::new();
    let counting = tokio::spawn(scene.api.clone().count(CancellationToken::new()));
    let _reader = scene.stream("/events", &[]).await;
    let got = scene.get("/metrics").await;
    assert!(got.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "moji_queue{target=\"f43\",state=\"ready\"} 1\n",
        "moji_leases{phase=\"building\"} 1\n",
        "moji_leases{phase=\"receiving\"} 0\n",
        "moji_builders{state=\"idle\"} 1\n",
        "moji_slots{state=\"busy\"} 1\n",
        "moji_http_streams 1\n",
        "# UNIT moji_oldest_ready_srpm_age_seconds seconds\n",
        "# TYPE moji_publish_latency_seconds histogram\n",
        "# TYPE process_cpu_seconds counter\n",
        "process_open_fds ",
        "# EOF\n",
    ] {
        assert!(got.body.contains(line), "{line} in {}", got.body);
    }
    let value = |name: &str| -> f64 {
        let line = got.body.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert!((100.0..1000.0).contains(&value("moji_oldest_ready_srpm_age_seconds")));
    assert!(value("process_resident_memory_bytes") > 1e6);
    counting.abort();
}

#[tokio::test]
async fn a_repo_file_for_dnf() {
    let mut scene = Scene::new();
    let got = scene.get("/repo/f43/moji.repo").await;
    for line in ["[moji-f43]\n", "\nbaseurl=http://farm.example:6780/repo/f43/\n", "\ngpgcheck=0\n"] {
        assert!(got.body.contains(line), "{}", got.body);
    }
    let main = scene.get("/repo/moji.repo").await;
    assert!(
        main.body.starts_with("[moji]\n") && main.body.contains("baseurl=http://farm.example:6780/repo/\n")
    );
    for path in
        ["/repo/f44/moji.repo", "/repo/foo-1-1/moji.repo", "/repo/f43/x/moji.repo", "/repo/f43/moji.repo/"]
    {
        assert_eq!(scene.get(path).await.status, 404, "{path}");
    }
    assert_eq!(scene.ask("GET", "/repo/moji.repo", &[("host", "x/y")]).await.status, 400);
    let urls =
        crate::repository_url::RepositoryUrls::new(Some("https://r.example/moji/".parse().unwrap()), None);
    scene.api = scene.api.clone().with_repository_urls(urls);
    let got = scene.get("/repo/f43/moji.repo").await;
    assert!(got.body.contains("\nbaseurl=https://r.example/moji/f43/\n"), "{}", got.body);
    fs::write(scene.folders.repo.join("f43/moji.repo"), "own\n").unwrap();
    assert_eq!(scene.get("/repo/f43/moji.repo").await.body, "own\n");
}
