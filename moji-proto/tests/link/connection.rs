//! Frames in, frames out: order, cuts, peers that do not read.

use bytes::Bytes;
use futures_util::FutureExt as _;
use moji_proto::frame::{self, FrameError, Kind};
use moji_proto::io::{FrameReader, Outgoings, ReadError, WriteError, queues};
use moji_proto::{ToServer, encoding, limits};
use tokio::io::AsyncWriteExt as _;

use super::{Message, Reader, ask, bytes, halves, reader, soon, writer};

async fn next_message(reader: &mut Reader) -> Message {
    let frame = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!(frame.kind, Kind::Control);
    encoding::decode(&frame.body).unwrap()
}

fn control(message: &Message) -> Bytes {
    frame::encode(Kind::Control, &encoding::encode(message).unwrap())
}

#[tokio::test(start_paused = true)]
async fn control_overtakes_bulk() {
    let (a, b) = tokio::io::duplex(1024);
    let (out, _a) = halves(a);
    let (_b, mut reader) = halves(b);
    let mut stream = Outgoings::default().open(&out);
    let big = bytes(1, limits::WINDOW as usize);
    let sending = stream.send(big);
    tokio::pin!(sending);

    let first = tokio::select! {
        biased;
        _ = &mut sending => panic!("nobody has read that much"),
        frame = reader.next() => frame,
    };
    assert_eq!(first.unwrap().unwrap().kind, Kind::Data);
    out.send(&ask(1)).unwrap();
    // The frame under way comes first, those that wait do not.
    let mut before = 0;
    loop {
        let frame = tokio::select! {
            biased;
            _ = &mut sending => panic!("nobody has read that much"),
            frame = reader.next() => frame.unwrap().unwrap(),
        };
        match frame.kind {
            Kind::Control => break,
            _ => before += 1,
        }
    }
    assert!(before <= 1, "{before} data frames went first");
}

#[tokio::test(start_paused = true)]
async fn ordered_messages_stay_behind_the_bulk_before_them() {
    let (a, b) = tokio::io::duplex(1024);
    let (out, _a) = halves(a);
    let (_b, mut reader) = halves(b);
    let mut stream = Outgoings::default().open(&out);
    let sending = async {
        stream.send(bytes(1, 3 * limits::DATA_BYTES)).await.unwrap();
        out.send_ordered(&ask(2)).await.unwrap();
    };
    let reading = async {
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(reader.next().await.unwrap().unwrap().kind);
        }
        kinds
    };
    let ((), kinds) = soon(async { tokio::join!(sending, reading) }).await;
    assert_eq!(kinds, [Kind::Data, Kind::Data, Kind::Data, Kind::Control]);
}

#[tokio::test(start_paused = true)]
async fn single_bytes_make_the_same_frames() {
    let (a, b) = tokio::io::duplex(1);
    let (out, _a) = halves(a);
    let (_b, mut reader) = halves(b);
    let mut stream = Outgoings::default().open(&out);
    for slot in [3, 400] {
        out.send(&ask(slot)).unwrap();
    }
    stream.send(bytes(5, 3000)).await.unwrap();
    assert_eq!(next_message(&mut reader).await, ask(3));
    assert_eq!(next_message(&mut reader).await, ask(400));
    let frame = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!(frame::split_data(frame.body).unwrap(), (stream.id, bytes(5, 3000)));
}

#[tokio::test(start_paused = true)]
async fn reading_can_be_broken_off_at_any_byte() {
    let (a, b) = tokio::io::duplex(3);
    let (out, _a) = halves(a);
    let (_b, mut reader) = halves(b);
    for slot in 0..50 {
        out.send(&ask(slot)).unwrap();
    }
    let mut slot = 0;
    while slot < 50 {
        // Asked once, thrown away, asked again.
        if let Some(frame) = reader.next().now_or_never() {
            let frame = frame.unwrap().unwrap();
            assert_eq!(encoding::decode::<Message>(&frame.body).unwrap(), ask(slot));
            slot += 1;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_between_frames_is_an_end_and_inside_one_is_a_loss() {
    let whole = control(&ask(600));
    for cut in 0..=whole.len() {
        let (a, b) = tokio::io::duplex(1024);
        let mut raw = a;
        raw.write_all(&whole).await.unwrap();
        raw.write_all(&whole[..cut]).await.unwrap();
        drop(raw);
        let (_b, mut reader) = halves(b);
        assert_eq!(next_message(&mut reader).await, ask(600));
        match soon(reader.next()).await {
            Ok(None) => assert_eq!(cut, 0),
            Err(ReadError::Truncated) => assert!(0 < cut && cut < whole.len(), "{cut}"),
            Ok(Some(_)) => assert_eq!(cut, whole.len()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn work_before_the_handshake_and_garbage_are_refused() {
    for (sent, expected) in [
        (control(&ask(1)), FrameError::TooEarly(Kind::Control)),
        (Bytes::from_static(b"GET / HTTP/1.1\r\n"), FrameError::UnknownKind(b'/')),
        (
            Bytes::from_static(b"\0\x01\0\0\x01"),
            FrameError::TooLong { kind: Kind::ClientHello, bytes: 0xffff },
        ),
    ] {
        let (mut raw, b) = tokio::io::duplex(64);
        raw.write_all(&sent).await.unwrap();
        let mut reader = FrameReader::new(b);
        match soon(reader.next()).await {
            Err(ReadError::Frame(error)) => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
        // And it stays so.
        assert!(soon(reader.next()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_found_out_after_a_bounded_number_of_messages() {
    let (a, _b) = tokio::io::duplex(64);
    let (out, _reader) = halves(a);
    let mut queued = 0;
    let error = loop {
        match out.send(&ask(7)) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        // The writer gets its chance to take some.
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, WriteError::Stuck), "{error}");
    assert!((1024..8192).contains(&queued), "{queued}");
}

#[tokio::test(start_paused = true)]
async fn the_writer_closes_the_connection_when_nobody_can_send_any_more() {
    let (a, b) = tokio::io::duplex(16);
    let (read, write) = tokio::io::split(a);
    let out = writer(write);
    let stream = Outgoings::default().open(&out);
    let (_b, mut peer) = halves(b);
    out.send(&ask(8)).unwrap();
    drop(out);
    // A stream is somebody who can send; its drop has one more thing to say.
    assert_eq!(next_message(&mut peer).await, ask(8));
    drop(stream);
    assert!(matches!(next_message(&mut peer).await, ToServer::Stream(_)));
    assert!(soon(peer.next()).await.unwrap().is_none());
    drop(reader(read));
}

#[tokio::test(start_paused = true)]
async fn senders_learn_that_the_connection_has_ended() {
    let (a, b) = tokio::io::duplex(16);
    let (out, _reader) = halves(a);
    drop(b);
    out.send(&ask(1)).unwrap();
    soon(out.closed()).await;
    assert!(matches!(out.send(&ask(2)), Err(WriteError::Closed)));
    assert!(matches!(soon(out.send_ordered(&ask(3))).await, Err(WriteError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn what_is_buffered_on_the_way_is_flushed() {
    let (a, b) = tokio::io::duplex(1024);
    let (out, queues) = queues::<Message>();
    tokio::spawn(queues.write(tokio::io::BufWriter::with_capacity(1 << 20, a)));
    let (_b, mut reader) = halves(b);
    for slot in 0..5 {
        out.send(&ask(slot)).unwrap();
        assert_eq!(next_message(&mut reader).await, ask(slot));
        out.send_ordered(&ask(slot + 10)).await.unwrap();
        assert_eq!(next_message(&mut reader).await, ask(slot + 10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_an_error_of_its_own_and_harms_nobody() {
    let (a, b) = tokio::io::duplex(1024);
    let (out, _a) = halves(a);
    let (_b, mut reader) = halves(b);
    let error = out.send(&Message::Goodbye { reason: "x".repeat(limits::CONTROL_BODY) }).unwrap_err();
    assert!(matches!(error, WriteError::Encoding(_)), "{error}");
    out.send(&ask(9)).unwrap();
    assert_eq!(next_message(&mut reader).await, ask(9));
}
