//! Streams: windows, ends, and peers that break the rules.

use bytes::Bytes;
use futures_util::FutureExt as _;
use moji_proto::io::{Incoming, Outgoing, Outgoings, Piece, StreamError, WriteError, queues};
use moji_proto::limits::{DATA_BYTES, WINDOW, WINDOW_FRAMES};
use moji_proto::{Hasher, Sha256};

use super::{End, Message, ask, bytes, log, soon, take};

const KIB64: usize = 64 * 1024;

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_reports_stalls_the_sender_at_the_window_and_control_still_flows() {
    let (mut a, mut b) = End::pair(5000);
    let mut stream = a.announce();
    let sending = tokio::spawn(async move {
        for number in 0..64 {
            stream.send(bytes(number, KIB64)).await.unwrap();
        }
        stream.end(None).await.unwrap();
    });
    let mut incoming = soon(b.streams.recv()).await.unwrap();
    let mut taken = 0;
    while taken < WINDOW {
        let Some(Piece::Data(bytes)) = soon(incoming.next()).await else { panic!() };
        taken += bytes.len() as u64;
    }
    assert_eq!(taken, WINDOW);
    // Both ways, and behind whatever the sender may have queued after the window.
    b.out.send(&ask(1)).unwrap();
    assert_eq!(soon(a.said.recv()).await, Some(ask(1)));
    a.out.send_ordered(&ask(2)).await.unwrap();
    assert_eq!(soon(b.said.recv()).await, Some(ask(2)));
    assert_eq!(incoming.try_next(), None);
    // A byte less than a frame does not let it go on, a whole one does.
    incoming.wrote(KIB64 as u64 - 1).unwrap();
    b.out.send(&ask(3)).unwrap();
    assert_eq!(soon(a.said.recv()).await, Some(ask(3)));
    a.out.send_ordered(&ask(4)).await.unwrap();
    assert_eq!(soon(b.said.recv()).await, Some(ask(4)));
    assert_eq!(incoming.try_next(), None);
    incoming.wrote(1).unwrap();
    assert_eq!(soon(incoming.next()).await, Some(Piece::Data(bytes(WINDOW / KIB64 as u64, KIB64))));
    incoming.wrote(WINDOW).unwrap();
    let (rest, _, last) = soon(take(incoming)).await.unwrap();
    assert_eq!((rest, last), (64 * KIB64 as u64 - WINDOW - KIB64 as u64, Piece::End(None)));
    soon(sending).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_honest_sender_of_single_bytes_waits_instead_of_breaking_the_rules() {
    let (a, mut b) = End::pair(5000);
    let mut stream = a.announce();
    let most = WINDOW_FRAMES as u64;
    let sending = tokio::spawn(async move {
        for number in 0..3 * most {
            stream.send(bytes(number, 1)).await.unwrap();
        }
        stream.end(Some(Sha256([3; 32]))).await.unwrap();
    });
    let mut incoming = soon(b.streams.recv()).await.unwrap();
    for _ in 0..most {
        assert!(matches!(soon(incoming.next()).await, Some(Piece::Data(_))));
    }
    a.out.send_ordered(&ask(1)).await.unwrap();
    assert_eq!(soon(b.said.recv()).await, Some(ask(1)));
    assert_eq!(incoming.try_next(), None, "more frames than the window allows");
    incoming.wrote(most).unwrap();
    let (rest, _, last) = soon(take(incoming)).await.unwrap();
    assert_eq!((rest, last), (2 * most, Piece::End(Some(Sha256([3; 32])))));
    soon(sending).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn both_ends_can_send_at_once_through_a_narrow_pipe() {
    const SIZE: u64 = 64 << 20;
    let (a, b) = End::pair(8192);
    let play = |mut end: End, seed| async move {
        let mut stream = end.announce();
        let sending = tokio::spawn(async move {
            let (piece, mut hasher) = (bytes(seed, 100_000), Hasher::new());
            while stream.sent() < SIZE {
                let piece = piece.slice(..piece.len().min((SIZE - stream.sent()) as usize));
                hasher.update(&piece);
                stream.send(piece).await.unwrap();
            }
            stream.all_received().await.unwrap();
            let digest = hasher.finish();
            stream.end(Some(digest)).await.unwrap();
        });
        let incoming = end.streams.recv().await.unwrap();
        let (count, digest, last) = take(incoming).await.unwrap();
        assert_eq!((count, last), (SIZE, Piece::End(Some(digest))));
        sending.await.unwrap();
        // The peer may still need us to read.
        end
    };
    soon(async { tokio::join!(play(a, 1), play(b, 2)) }).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_word_comes_after_all_data_even_when_every_place_is_taken() {
    let (a, mut b) = End::pair(1024);
    let mut stream = a.announce();
    for number in 0..WINDOW_FRAMES as u64 {
        stream.send(bytes(number, 2)).await.unwrap();
    }
    stream.end(None).await.unwrap();
    let incoming = soon(b.streams.recv()).await.unwrap();
    // All of it has arrived before the first piece is taken.
    a.out.send_ordered(&ask(1)).await.unwrap();
    assert_eq!(soon(b.said.recv()).await, Some(ask(1)));
    let (count, _, last) = soon(take(incoming)).await.unwrap();
    assert_eq!((count, last), (2 * WINDOW_FRAMES as u64, Piece::End(None)));
}

#[tokio::test(start_paused = true)]
async fn an_abort_says_why_in_one_line() {
    let (a, mut b) = End::pair(1024);
    let mut stream = a.announce();
    stream.send(bytes(0, 10)).await.unwrap();
    stream.abort("disk\nfull").await.unwrap();
    let incoming = soon(b.streams.recv()).await.unwrap();
    let (count, _, last) = soon(take(incoming)).await.unwrap();
    assert_eq!((count, last), (10, Piece::Abort("disk full".into())));
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_goes_away_in_the_middle_does_not_leave_the_receiver_waiting() {
    let (a, mut b) = End::pair(1024);
    let mut stream = a.announce();
    // Cancelled while it waits for room: some frames are queued, one is lost.
    assert!(stream.send(bytes(0, 8 * DATA_BYTES)).now_or_never().is_none());
    drop(stream);
    let incoming = soon(b.streams.recv()).await.unwrap();
    let (_, _, last) = soon(take(incoming)).await.unwrap();
    assert!(matches!(last, Piece::Abort(_)), "{last:?}");
    // What it had queued comes later and harms nobody.
    a.out.send_ordered(&ask(1)).await.unwrap();
    assert_eq!(soon(b.said.recv()).await, Some(ask(1)));
    assert!(!b.reading.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_wants_no_more_stops_the_sender_whether_it_says_so_or_just_goes_away() {
    for explicit in [true, false] {
        let (a, b) = tokio::io::duplex(1024);
        let (a, mut b) = (End::new(a, 1), End::new(b, 1));
        let mut stream = a.announce();
        let sending = tokio::spawn(async move {
            loop {
                if let Err(error) = stream.send(bytes(0, KIB64)).await {
                    break (stream, error);
                }
            }
        });
        let mut incoming = soon(b.streams.recv()).await.unwrap();
        assert!(matches!(soon(incoming.next()).await, Some(Piece::Data(_))));
        if explicit {
            incoming.unwanted().unwrap();
        } else {
            drop(incoming);
        }
        let (mut stream, error) = soon(sending).await.unwrap();
        assert!(matches!(error, StreamError::Unwanted), "{error}");
        assert!(matches!(soon(stream.all_received()).await, Err(StreamError::Unwanted)));
        // Its place is free again as soon as the sender has had its last word.
        stream.abort("as you wish").await.unwrap();
        a.out.send_ordered(&ask(1)).await.unwrap();
        assert_eq!(soon(b.said.recv()).await, Some(ask(1)));
        let second = a.announce();
        soon(b.streams.recv()).await.unwrap();
        drop(second);
        assert!(!b.reading.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_leaves_with_all_it_needs_has_received_all() {
    let (mut a, mut b) = End::pair(1024);
    let mut stream = a.announce();
    stream.send(bytes(0, 5000)).await.unwrap();
    let mut incoming = soon(b.streams.recv()).await.unwrap();
    // It knows the size and does not wait for the end.
    assert_eq!(soon(incoming.next()).await, Some(Piece::Data(bytes(0, 5000))));
    incoming.wrote(5000).unwrap();
    drop(incoming);
    b.out.send(&ask(1)).unwrap();
    assert_eq!(soon(a.said.recv()).await, Some(ask(1)));
    soon(stream.all_received()).await.unwrap();
    assert!(matches!(soon(stream.send(bytes(1, 1))).await, Err(StreamError::Unwanted)));
    stream.end(None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_lost_connection_ends_on_both_sides() {
    let (a, mut b) = End::pair(1024);
    let mut stream = a.announce();
    stream.send(bytes(0, 10)).await.unwrap();
    let mut incoming = soon(b.streams.recv()).await.unwrap();
    assert_eq!(soon(incoming.next()).await, Some(Piece::Data(bytes(0, 10))));
    let waiting = tokio::spawn(async move { stream.all_received().await });
    // Everything of the sender's session but the stream goes away.
    a.reading.abort();
    drop((a.out, a.outgoings, a.streams, a.said));
    let error = soon(waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, StreamError::Write(WriteError::Closed)), "{error}");
    // With it goes the last sender of that side: its drop said so first.
    assert!(matches!(soon(incoming.next()).await, Some(Piece::Abort(_))));
    assert_eq!(soon(incoming.next()).await, None);
}

/// The receiving side alone, for peers that break the rules.
fn alone(most: usize) -> (Incoming, Outgoing<Message>, moji_proto::io::Queues) {
    let (out, queues) = queues();
    (Incoming::new(most), out, queues)
}

fn assert_protocol(result: Result<impl Sized, StreamError>, about: &str) {
    match result {
        Err(StreamError::Protocol(what)) => assert!(what.contains(about), "{what}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted: {about}"),
    }
}

#[test]
fn going_beyond_the_window_breaks_the_rules() {
    let (mut incoming, out, _queues) = alone(8);
    let mut stream = incoming.open(1, &out).unwrap();
    let piece = bytes(0, DATA_BYTES);
    for _ in 0..WINDOW / DATA_BYTES as u64 {
        incoming.on_data(1, piece.clone()).unwrap();
    }
    // What is taken is not yet written.
    assert!(stream.try_next().is_some());
    stream.wrote(1).unwrap();
    assert_protocol(incoming.on_data(1, bytes(0, 2)), "bytes than the window");
}

#[test]
fn every_written_byte_makes_room_for_one() {
    let (mut incoming, out, _queues) = alone(8);
    let mut stream = incoming.open(1, &out).unwrap();
    for _ in 0..WINDOW / DATA_BYTES as u64 {
        incoming.on_data(1, bytes(0, DATA_BYTES)).unwrap();
    }
    stream.wrote(2).unwrap();
    incoming.on_data(1, bytes(0, 2)).unwrap();
    assert_protocol(incoming.on_data(1, bytes(0, 1)), "bytes than the window");
}

#[test]
fn many_tiny_or_empty_frames_break_the_rules() {
    let (mut incoming, out, _queues) = alone(8);
    let _stream = incoming.open(1, &out).unwrap();
    for number in 0..WINDOW_FRAMES as u64 {
        incoming.on_data(1, bytes(number, 1)).unwrap();
    }
    assert_protocol(incoming.on_data(1, bytes(0, 1)), "frames than the window");
    let _stream = incoming.open(2, &out).unwrap();
    assert_protocol(incoming.on_data(2, Bytes::new()), "without bytes");
}

#[test]
fn numbers_count_up_and_are_announced() {
    let (mut incoming, out, _queues) = alone(2);
    assert_protocol(incoming.open(0, &out), "used twice");
    assert_protocol(incoming.on_data(0, bytes(0, 1)), "never announced");
    assert_protocol(incoming.on_data(5, bytes(0, 1)), "never announced");
    let _first = incoming.open(5, &out).unwrap();
    assert_protocol(incoming.open(5, &out), "used twice");
    assert_protocol(incoming.open(4, &out), "used twice");
    assert_protocol(incoming.on_data(6, bytes(0, 1)), "never announced");
    let _second = incoming.open(6, &out).unwrap();
    assert_protocol(incoming.open(7, &out), "too many streams");
}

#[test]
fn a_number_that_has_ended_cannot_come_back_and_late_bytes_for_it_are_nobodys() {
    let (mut incoming, out, _queues) = alone(1);
    let mut stream = incoming.open(3, &out).unwrap();
    incoming.on_last(3, Piece::End(None));
    incoming.on_data(3, bytes(0, 1)).unwrap();
    incoming.on_last(3, Piece::Abort("twice".into()));
    assert_eq!(stream.try_next(), Some(Piece::End(None)));
    assert_eq!(stream.try_next(), None);
    assert_protocol(incoming.open(3, &out), "used twice");
    // The last word of a stream that never was is nobody's either.
    incoming.on_last(9, Piece::End(None));
    assert!(incoming.open(4, &out).is_ok());
}

#[test]
fn a_stream_that_nobody_reads_keeps_nothing_but_its_place() {
    let (mut incoming, out, _queues) = alone(1);
    drop(incoming.open(1, &out).unwrap());
    let piece = bytes(0, DATA_BYTES);
    for _ in 0..100 {
        incoming.on_data(1, piece.clone()).unwrap();
    }
    // The sender has not said its last word: there is no place for another one.
    assert_protocol(incoming.open(2, &out), "too many streams");
}

#[tokio::test(start_paused = true)]
async fn reports_that_lie_or_come_late_harm_nobody() {
    let (mut a, b) = End::pair(1024);
    let mut stream = a.announce();
    b.out.send(&received(stream.id, u64::MAX)).unwrap();
    b.out.send(&received(stream.id, 3)).unwrap();
    b.out.send(&received(77, 3)).unwrap();
    b.out.send(&ask(1)).unwrap();
    assert_eq!(soon(a.said.recv()).await, Some(ask(1)));
    soon(stream.send(bytes(0, 10))).await.unwrap();
    stream.end(None).await.unwrap();
    b.out.send(&received(1, 10)).unwrap();
    b.out.send(&ask(2)).unwrap();
    assert_eq!(soon(a.said.recv()).await, Some(ask(2)));
}

fn received(stream: u32, bytes: u64) -> Message {
    Message::Stream(moji_proto::StreamMessage::Received { stream, bytes })
}

#[test]
fn stream_numbers_are_announced_in_order() {
    let (out, _queues) = queues::<Message>();
    let mut outgoings = Outgoings::default();
    let ids: Vec<_> = (0..3).map(|_| outgoings.open(&out).id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(log(ids[0]), log(1));
}
