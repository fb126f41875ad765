//! Requests, answers and lost connections, on a clock of their own.

use std::time::Duration;

use bytes::Bytes;
use moji_client::operator::Failure;
use moji_client::operator::events::{Heard, Stream};
use moji_proto::api::{EventKind, Overview};
use moji_proto::operator::{Act, FromOperator, Role, ToOperator};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Peer, farm};

#[tokio::test(start_paused = true)]
async fn answers_belong_to_their_questions_whatever_their_order() {
    let (farm, mut accepted) = farm();
    let server = tokio::spawn(async move {
        let mut peer = Peer::welcome(accepted.recv().await.unwrap()).await;
        let (first, a) = peer.path().await;
        let (second, b) = peer.path().await;
        // The second one is answered first, and the first one goes on for longer than what is asked after it.
        peer.answer(second, 200, &format!("[\"{b}\"]")).await;
        let mut stream = peer.begin_answer(first, 200, [Bytes::from(format!("[\"{a}\""))]).await;
        let Some(FromOperator::Act { request, act: Act::Unpause }) = peer.next().await else { panic!() };
        peer.done(request, "x", true);
        stream.send(Bytes::from_static(b"]")).await.unwrap();
        stream.end(None).await.unwrap();
        assert_eq!(peer.next().await, None);
    });
    let session = farm.session().await.unwrap();
    assert_eq!(session.welcome().role, Role::Admin);
    let both = async {
        tokio::join!(farm.json::<Vec<String>>("/a"), async {
            let two = farm.json::<Vec<String>>("/b").await;
            assert!(farm.act(Act::Unpause).await.unwrap()[0].is_done);
            two
        })
    };
    let (one, two) = timeout(Duration::from_secs(600), both).await.expect("each has an answer");
    assert_eq!((one.unwrap(), two.unwrap()), (vec!["/a".to_owned()], vec!["/b".to_owned()]));
    drop(session);
    farm.leave().await;
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_no_to() {
    let (farm, mut accepted) = farm();
    tokio::spawn(async move {
        let mut peer = Peer::welcome(accepted.recv().await.unwrap()).await;
        for (status, body) in [
            (404, "{\"error\":\"no\\u001b such\"}"),
            (500, "<html>"),
            (503, "{\"error\":\"later\"}"),
            (200, "{}"),
        ] {
            let (request, _) = peer.path().await;
            peer.answer(request, status, body).await;
        }
        let Some(FromOperator::Act { request, .. }) = peer.next().await else { panic!() };
        peer.out.send(&ToOperator::Refused { request, reason: "not you".into() }).unwrap();
        peer.next().await;
    });
    let failure = |result: Result<Overview, Failure>| result.unwrap_err();
    assert_eq!(failure(farm.json("/x").await), Failure::Refused("no  such".into()));
    assert_eq!(failure(farm.json("/x").await), Failure::Refused("the server answers 500 to /x".into()));
    assert_eq!(failure(farm.json("/x").await), Failure::Unreachable("later".into()));
    assert!(failure(farm.json("/x").await).to_string().contains("another version"));
    assert_eq!(farm.act(Act::Unpause).await.unwrap_err(), Failure::Refused("not you".into()));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_and_a_refusal_is_final() {
    let (farm, mut accepted) = farm();
    tokio::spawn(async move {
        let io = accepted.recv().await.unwrap();
        sleep(Duration::from_secs(60)).await;
        drop(io);
        Peer::refuse(accepted.recv().await.unwrap(), "a builder's token").await;
        let _never_reads = accepted.recv().await;
        sleep(Duration::from_secs(3600)).await;
    });
    let begin = Instant::now();
    let silent = farm.session().await.unwrap_err();
    assert!(silent.is_passing() && silent.to_string().contains("does not answer"), "{silent}");
    assert!(begin.elapsed() < Duration::from_secs(31));
    sleep(Duration::from_secs(40)).await;
    let refused = farm.session().await.unwrap_err();
    assert!(!refused.is_passing() && refused.code() == 3, "{refused:?}");
    assert!(refused.to_string().contains("a builder's token"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_stopped_and_a_lost_connection_is_said() {
    let (farm, mut accepted) = farm();
    let server = tokio::spawn(async move {
        let mut peer = Peer::welcome(accepted.recv().await.unwrap()).await;
        let (request, _) = peer.path().await;
        let mut endless = peer.begin_answer(request, 200, []).await;
        let piece = Bytes::from(vec![b'x'; 1 << 16]);
        // The window bounds what a reader that does not read makes the server keep.
        while endless.send(piece.clone()).await.is_ok() {}
        let sent = endless.sent();
        let (request, _) = peer.path().await;
        let _half = peer.begin_answer(request, 200, [Bytes::from_static(b"half")]).await;
        sleep(Duration::from_secs(1)).await;
        peer.cut();
        sent
    });
    let answer = farm.get("/endless").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(answer);
    let mut half = farm.get("/half").await.unwrap().body;
    assert_eq!(half.next().await.unwrap().unwrap(), "half");
    assert!(half.next().await.unwrap_err().is_passing());
    assert!(server.await.unwrap() <= 3 << 20);
    assert!(farm.session().await.unwrap_err().is_passing());
}

fn event(id: u64) -> String {
    format!(
        "id: {id}\nevent: queued\ndata: {{\"id\":{id},\"at\":\"2026-01-01T00:00:00Z\",\"kind\":\"queued\",\"text\":\"x\",\
         \"build\":null,\"attempt\":null,\"builder\":null,\"failure\":null,\"reason\":null,\"target\":null,\"generation\":null}}\n\n"
    )
}

#[tokio::test(start_paused = true)]
async fn events_go_on_where_they_were() {
    let (farm, mut accepted) = farm();
    let server = tokio::spawn(async move {
        let mut paths = Vec::new();
        for ids in [&[7, 9][..], &[], &[12]] {
            let mut peer = Peer::welcome(accepted.recv().await.unwrap()).await;
            let (request, path) = peer.path().await;
            paths.push(path);
            let text: String = ids.iter().map(|id| event(*id)).collect();
            // The last one is cut in its middle.
            let text = format!(": hello\n\nevent: lagged\ndata: 5\n\n{text}{}", &event(99)[..30]);
            let _stream =
                peer.begin_answer(request, 200, text.as_bytes().chunks(11).map(Bytes::copy_from_slice)).await;
            sleep(Duration::from_secs(1)).await;
            peer.cut();
        }
        paths
    });
    let mut stream = Stream::new(&farm, Some(5), vec![EventKind::Queued, EventKind::Failed]);
    let (mut ids, mut lost) = (Vec::new(), 0);
    while ids.last() != Some(&12) {
        match stream.next().await.unwrap() {
            Heard::Event(event) => ids.push(event.id),
            Heard::Lost(_) => lost += 1,
            Heard::Connected | Heard::Missed => {}
        }
    }
    assert_eq!(ids, [7, 9, 12]);
    assert_eq!(lost, 2);
    let paths = server.await.unwrap();
    assert_eq!(paths, [5, 9, 9].map(|since| format!("/events?since={since}&kind=queued%2Cfailed")));
}
