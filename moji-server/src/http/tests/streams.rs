use moji_proto::Outcome;

use super::scene::{RUNS, Scene, id};
use super::*;

fn log(serial: u64) -> String {
    format!("/api/v1/attempts/{}/logs/build.log", id(serial))
}

#[tokio::test]
async fn a_log_in_part() {
    let scene = Scene::new();
    let path = log(7);
    assert_eq!(scene.get(&path).await.body, "first line\nsecond ");
    let part = scene.ask("GET", &path, &[("range", "bytes=6-9")]).await;
    assert_eq!((part.status, part.body.as_str()), (206, "line"));
    assert_eq!(part.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(scene.get(&format!("{path}?offset=11")).await.body, "second ");
    let behind = scene.get(&format!("{path}?offset=18")).await;
    assert_eq!((behind.status, behind.body.as_str()), (200, ""));
    // A link that a builder could not have made, but somebody on the machine.
    let link = scene.folders.attempt(id(7)).join("root.log");
    std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
    assert_eq!(scene.get(&path.replace("build.log", "root.log")).await.status, 404);
}

#[tokio::test]
async fn a_log_is_followed_from_staging_into_repo() {
    let scene = Scene::new();
    let mut whole = scene.stream(&format!("{}?follow=true", log(7)), &[]).await;
    let mut rest = scene.stream("/api/v1/builds/baz/logs/build.log?follow=true&offset=6", &[]).await;
    let mut lines = scene.stream(&format!("{}/lines", log(7)), &[]).await;
    whole.until("second ").await;
    lines.until("id: 11\ndata: [[[\"\",\"first line\"]]]\n\n").await;
    scene.put_live_log(7, "first line\nsecond \x1b[31mred\x1b[m\n");
    whole.until("red\x1b[m\n").await;
    lines.until("data: [[[\"\",\"second \"],[\"red\",\"red\"]]]\n\n").await;
    let all = "first line\nsecond \x1b[31mred\x1b[m\n<b>last</b>";
    scene.settle(RUNS, 7, Outcome::Succeeded, all);
    assert!(scene.history.flush());
    scene.stops(7);
    whole.drain().await;
    assert_eq!(whole.text, all);
    rest.drain().await;
    assert_eq!(rest.text, all[6..]);
    lines.drain().await;
    assert!(
        lines.text.ends_with("data: [[[\"\",\"<b>last</b>\"]]]\n\nevent: end\ndata: 41\n\n"),
        "{}",
        lines.text
    );
    // Again from where a line has ended, of one that is published.
    let last = lines.text.match_indices("id: ").nth(1).unwrap().0 + 4;
    let last = lines.text[last..].lines().next().unwrap();
    let mut again = scene.stream(&format!("{}/lines", log(7)), &[("last-event-id", last)]).await;
    again.drain().await;
    assert!(again.text.contains("<b>last</b>") && !again.text.contains("second"), "{}", again.text);
}

#[tokio::test]
async fn a_log_that_has_not_begun_is_waited_for() {
    let scene = Scene::new();
    let path = log(7).replace("build.log", "state.log");
    assert_eq!(scene.get(&path).await.status, 404);
    let mut follows = scene.stream(&format!("{path}?follow=true"), &[]).await;
    fs::write(scene.folders.attempt(id(7)).join("state.log"), "begins\n").unwrap();
    follows.until("begins\n").await;
    // It ends with the attempt, also when nothing of it is published.
    scene.stops(7);
    follows.drain().await;
    assert_eq!(follows.text, "begins\n");
    let missing = scene.get(&format!("{}?follow=true", path.replace("state.log", "root.log"))).await;
    assert_eq!(missing.status, 404, "the attempt has ended: it will not come");
}

#[tokio::test]
async fn streams_end_with_the_server_and_are_not_too_many() {
    let mut scene = Scene::new();
    let ending = CancellationToken::new();
    scene.api = scene.api.clone().until(ending.clone());
    let mut events = scene.stream("/events", &[]).await;
    let mut follows = scene.stream(&format!("{}?follow=true", log(7)), &[]).await;
    let mut lines = scene.stream(&format!("{}/lines", log(7)), &[]).await;
    let left = scene.api.streams.available_permits();
    assert_eq!(left, STREAMS - 3);
    let taken = Arc::clone(&scene.api.streams).acquire_many_owned(left.try_into().unwrap()).await.unwrap();
    for path in ["/events".to_owned(), format!("{}?follow=true", log(7)), format!("{}/lines", log(7))] {
        let got = scene.get(&path).await;
        assert!(got.status == 503 && got.header("retry-after") == "2", "{path}: {}", got.status);
    }
    assert_eq!(scene.get(&log(7)).await.status, 200, "that is no stream");
    drop(taken);
    ending.cancel();
    events.drain().await;
    follows.drain().await;
    lines.drain().await;
    assert!(!lines.text.contains("event: end"), "{}", lines.text);
    drop((events, follows, lines));
    assert_eq!(scene.api.streams.available_permits(), STREAMS);
}
