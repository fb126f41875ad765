//! What a peer can make this side keep.

use bytes::Bytes;
use moji_proto::frame::{self, Kind};
use moji_proto::io::{FrameReader, Incoming, queues};
use moji_proto::limits::{DATA_BYTES, WINDOW, WINDOW_FRAMES};
use tokio::io::AsyncWriteExt as _;

use super::{End, Message, bytes, soon, take};

/// The most memory that `work` had at a time, in bytes. All of it runs on this thread.
fn most(work: impl Future<Output = ()>) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    allocation_counter::measure(|| runtime.block_on(work)).bytes_max
}

#[test]
fn a_stream_of_any_length_takes_no_more_than_its_window() {
    const SIZE: u64 = 256 << 20;
    let most = most(async {
        let (a, mut b) = End::pair(64 * 1024);
        let mut stream = a.announce();
        let sending = tokio::spawn(async move {
            let piece = bytes(1, DATA_BYTES);
            while stream.sent() < SIZE {
                stream.send(piece.clone()).await.unwrap();
            }
            stream.end(None).await.unwrap();
        });
        let mut incoming = soon(b.streams.recv()).await.unwrap();
        // The disk is slow at first: everything that may be under way is.
        let first = soon(incoming.next()).await;
        soon(async {
            a.out.send_ordered(&super::ask(1)).await.unwrap();
            b.said.recv().await.unwrap();
        })
        .await;
        drop(first);
        incoming.wrote(DATA_BYTES as u64).unwrap();
        let (rest, ..) = soon(take(incoming)).await.unwrap();
        assert_eq!(rest, SIZE - DATA_BYTES as u64);
        soon(sending).await.unwrap();
    });
    assert!(most < 2 * WINDOW, "{most} bytes at a time");
}

#[test]
fn single_bytes_do_not_keep_the_large_frames_that_came_with_them() {
    let most = most(async {
        let (mut raw, io) = tokio::io::duplex(300 * 1024);
        let sending = tokio::spawn(async move {
            let big = Bytes::from(vec![7; DATA_BYTES]);
            for _ in 0..WINDOW_FRAMES {
                raw.write_all(&frame::data_header(1, 1)).await.unwrap();
                raw.write_all(b"x").await.unwrap();
                raw.write_all(&frame::data_header(2, big.len())).await.unwrap();
                raw.write_all(&big).await.unwrap();
            }
        });
        let (out, _queues) = queues::<Message>();
        let mut incoming = Incoming::new(2);
        let _kept = incoming.open(1, &out).unwrap();
        drop(incoming.open(2, &out).unwrap());
        let mut reader = FrameReader::new(io);
        reader.handshake_done();
        while let Some(frame) = soon(reader.next()).await.unwrap() {
            let (id, bytes) = frame::split_data(frame.body).unwrap();
            incoming.on_data(id, bytes).unwrap();
        }
        sending.await.unwrap();
    });
    assert!(most < 4 << 20, "{most} bytes at a time");
}

#[test]
fn a_stranger_makes_us_keep_next_to_nothing() {
    let most = most(async {
        let (mut raw, io) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(io);
        let sending = tokio::spawn(async move {
            // As long as a hello may be, and then something that goes on for ever.
            raw.write_all(&frame::encode(Kind::ClientHello, &[0; 1024])).await.unwrap();
            raw.write_all(&frame::header(Kind::ClientHello, 1024)).await.unwrap();
            while raw.write_all(&[0; 64]).await.is_ok() {}
        });
        while let Ok(Some(_)) = soon(reader.next()).await {}
        drop(reader);
        sending.await.unwrap();
    });
    assert!(most < 32 * 1024, "{most} bytes at a time");
}
