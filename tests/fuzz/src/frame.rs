//! Frames out of a stream of bytes, whichever pieces it arrives in.
//!
//! The first byte says whether the handshake is done, and how long the pieces are.

use bytes::{BufMut as _, BytesMut};
use moji_proto::frame::{self, Frame, FrameError, HEADER, Kind};
use moji_proto::limits;

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let handshake_only = how & 1 == 1;
    let (frames, error) = read(bytes, bytes.len().max(1), handshake_only);
    let pieces = read(bytes, usize::from(how >> 1) + 1, handshake_only);
    assert_eq!((&frames, &error), (&pieces.0, &pieces.1), "the pieces make a difference");
    let mut again = Vec::new();
    for Frame { kind, body } in frames {
        assert!(body.len() <= kind.limit() && (kind.is_handshake() || !handshake_only), "{kind:?}");
        let encoded = frame::encode(kind, &body);
        if kind == Kind::Data {
            match frame::split_data(body.clone()) {
                Ok((stream, file)) => {
                    assert_eq!([&frame::data_header(stream, file.len())[..], &file].concat(), encoded);
                }
                Err(_) => assert!(body.len() < 4),
            }
        }
        again.extend(encoded);
    }
    let rest = bytes.strip_prefix(&again[..]).expect("frames that nobody has sent");
    assert!(error.is_some() || is_part_of_a_frame(rest), "{} bytes are not read", rest.len());
}

/// The frames of `bytes`, and what is wrong with the next one.
fn read(bytes: &[u8], piece: usize, handshake_only: bool) -> (Vec<Frame>, Option<FrameError>) {
    let body = if handshake_only { limits::HANDSHAKE_BODY } else { limits::DATA_BODY };
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.put_slice(piece);
        loop {
            match frame::decode(&mut buffer, handshake_only) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        // The buffer may double for what has come; what has been promised counts for one frame.
        let most = HEADER + body + 2 * (bytes.len() + 64);
        assert!(buffer.capacity() <= most, "{} bytes are kept, not {most}", buffer.capacity());
    }
    (frames, None)
}

/// Whether `rest` may become a frame: one that is longer than its kind may be is refused at once.
fn is_part_of_a_frame(rest: &[u8]) -> bool {
    let Some((length, rest)) = rest.split_first_chunk() else { return true };
    let length = u32::from_be_bytes(*length) as usize;
    let most = match rest.first() {
        None => usize::MAX,
        Some(1..=4) => limits::HANDSHAKE_BODY,
        Some(16) => limits::CONTROL_BODY,
        Some(17) => limits::DATA_BODY,
        Some(_) => return false,
    };
    (rest.len() + 1..=most.saturating_add(1)).contains(&length)
}
