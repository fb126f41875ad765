use moji_proto::Outcome;
use moji_proto::api::{Event, EventKind, Page};

use super::scene::{RUNS, Scene, Streamed};

/// The events in a stream, in the order in which they came.
fn events(text: &str) -> Vec<Event> {
    let of_block = |block: &str| {
        let lines: Vec<&str> = block.lines().collect();
        let (id, data) = match lines.as_slice() {
            [id, data] => (id.strip_prefix("id: ")?, data.strip_prefix("data: ")?),
            _ => return None,
        };
        let event: Event = serde_json::from_str(data).unwrap();
        assert_eq!(event.id.to_string(), id);
        Some(event)
    };
    text.split("\n\n").filter_map(of_block).collect()
}

fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

async fn all(scene: &Scene) -> Vec<Event> {
    let (mut all, mut since) = (Vec::new(), 0);
    loop {
        let page: Page<Event> = scene.get(&format!("/api/v1/events?since={since}&limit=500")).await.json();
        all.extend(page.items);
        match page.next {
            Some(next) => since = next,
            None => return all,
        }
    }
}

async fn until_id(stream: &mut Streamed, id: u64) {
    stream.until(&format!("id: {id}\ndata: ")).await;
}

#[tokio::test]
async fn from_where_the_client_was() {
    let scene = Scene::new();
    let known = all(&scene).await;
    assert!(known.len() >= 7, "{known:?}");
    let last = known.last().unwrap().id;
    let mut new = scene.stream("/events", &[]).await;
    let mut resumed = scene.stream("/events?since=1", &[("last-event-id", &known[2].id.to_string())]).await;
    let mut first = scene.stream("/events?since=0&kind=failed,queued", &[]).await;
    new.until(&format!("retry: 2000\n\nid: {last}\n\n")).await;
    scene.queue("more");
    assert!(scene.history.flush());
    let now = all(&scene).await;
    assert_eq!(now.len(), known.len() + 1);
    let newest = now.last().unwrap().id;
    for stream in [&mut new, &mut resumed, &mut first] {
        until_id(stream, newest).await;
        stream.until_end_of_event().await;
    }
    assert_eq!(events(&new.text), now[known.len()..]);
    assert_eq!(events(&resumed.text), now[3..]);
    let wanted = |event: &Event| matches!(event.kind, EventKind::Failed | EventKind::Queued);
    assert_eq!(
        ids(&events(&first.text)),
        ids(&now.iter().filter(|event| wanted(event)).cloned().collect::<Vec<_>>())
    );
    let part: Page<Event> = scene.get("/api/v1/events?kind=queued&limit=2").await.json();
    assert_eq!((part.items.len(), part.next), (2, Some(part.items[1].id)));
    assert!(part.items.iter().all(|event| event.kind == EventKind::Queued));
}

/// More than a subscriber may be behind, and readers that come while it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_missed_and_none_comes_twice() {
    const MORE: usize = 3000;
    let scene = Scene::new();
    let recorder = scene.history.recorder();
    let entries: Vec<_> = (0..MORE).map(|number| scene.queued(&format!("p{number}"))).collect();
    let mut slow = scene.stream("/events?since=0", &[]).await;
    slow.until("retry").await;
    let mut live = scene.stream("/events?since=0", &[]).await;
    live.until("data").await;
    let writing = tokio::task::spawn_blocking(move || {
        for entry in entries {
            recorder.record(entry);
        }
    });
    let mut readers = vec![live];
    for _ in 0..8 {
        readers.push(scene.stream("/events?since=0", &[]).await);
        readers.last_mut().unwrap().until("data").await;
    }
    writing.await.unwrap();
    assert!(scene.history.flush());
    readers.push(slow);
    // What this one finds in the history it is told once more.
    readers.push(scene.stream("/events?since=0", &[]).await);
    for number in 0..500 {
        scene.queue(&format!("q{number}"));
    }
    assert!(scene.history.flush());
    let known = all(&scene).await;
    assert!(known.len() > MORE);
    for reader in &mut readers {
        until_id(reader, known.last().unwrap().id).await;
    }
    // What comes twice comes before these: the first one may still be found in the history.
    for name in ["one", "another"] {
        scene.queue(name);
        assert!(scene.history.flush());
        let newest = all(&scene).await.last().unwrap().id;
        for reader in &mut readers {
            until_id(reader, newest).await;
            reader.until_end_of_event().await;
        }
    }
    let known = all(&scene).await;
    for reader in readers {
        assert_eq!(ids(&events(&reader.text)), ids(&known));
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_said() {
    let scene = Scene::new();
    let known = all(&scene).await;
    let (third, last) = (known[2].id, known.last().unwrap().id);
    let database = rusqlite::Connection::open(scene.folders.private().join("history.sqlite")).unwrap();
    database.execute("DELETE FROM events WHERE id < ?1", [i64::try_from(third).unwrap()]).unwrap();
    let mut older = scene.stream(&format!("/events?since={}", known[0].id), &[]).await;
    until_id(&mut older, last).await;
    let reset =
        format!("id: {}\nevent: reset\ndata: {{\"oldest\":{third},\"newest\":{last}}}\n\n", third - 1);
    assert!(older.text.contains(&reset), "{}", older.text);
    assert_eq!(ids(&events(&older.text)), ids(&known[2..]));
    // A history that was lost, and began anew.
    let mut newer = scene.stream(&format!("/events?since={}", last + 1000), &[]).await;
    newer.until(&format!("id: {last}\nevent: reset\n")).await;
    scene.settle(RUNS, 7, Outcome::Succeeded, "");
    newer.until("\"kind\":\"succeeded\"").await;
    // The beginning is no gap.
    let mut first = scene.stream("/events?since=0", &[]).await;
    until_id(&mut first, last).await;
    assert!(!first.text.contains("reset"), "{}", first.text);
}
