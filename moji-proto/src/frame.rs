//! Frames: what travels over the byte stream.
//!
//! ```text
//! length  4 bytes, big-endian: of everything behind it
//! kind    1 byte
//! body    length - 1 bytes
//! ```
//!
//! The decoder sees each kind's own limit before it has buffered a body, so that five bytes are
//! enough to refuse an oversized frame.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::limits;
use crate::message::StreamId;

/// Bytes before the body: length and kind.
pub const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First frame of the client. Its layout never changes.
    ClientHello = 1,
    /// First frame of the server. Its layout never changes.
    ServerHello = 2,
    /// Proof that a side knows the password.
    Proof = 3,
    /// "No, because …": the last frame of a connection. Its layout never changes.
    Refusal = 4,
    /// A control message in bincode.
    Control = 16,
    /// File bytes of a stream.
    Data = 17,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::ClientHello, Self::ServerHello, Self::Proof, Self::Refusal, Self::Control, Self::Data]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// Longest body of a frame of this kind, in bytes.
    pub fn limit(self) -> usize {
        match self {
            Self::ClientHello | Self::ServerHello | Self::Proof | Self::Refusal => limits::HANDSHAKE_BODY,
            Self::Control => limits::CONTROL_BODY,
            Self::Data => limits::DATA_BODY,
        }
    }

    /// Whether a frame of this kind may come before the handshake is done.
    pub fn is_handshake(self) -> bool {
        !matches!(self, Self::Control | Self::Data)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// The bytes that it carries.
    pub body: Bytes,
}

/// The peer does not speak this protocol, or speaks it badly: the connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that does not exist.
    #[error("a frame of the unknown kind {0}: this is no Moji peer, or the stream is damaged")]
    UnknownKind(u8),
    /// A frame without even a kind.
    #[error("an empty frame")]
    Empty,
    /// A frame that is longer than its kind may be.
    #[error("a {kind:?} frame of {bytes} bytes, at most {} are allowed", kind.limit())]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// The length that it claims for its body.
        bytes: usize,
    },
    /// Work before the handshake is done.
    #[error("a {0:?} frame before the handshake is done")]
    TooEarly(Kind),
    /// A TLS connection begins where a frame was to come.
    #[error(
        "it speaks TLS, and this side does not: --plaintext must be given to both programs, or to neither"
    )]
    Tls,
    /// A data frame without a stream's number.
    #[error("a data frame too short for its stream's number")]
    NoStream,
}

/// Takes frames off the front of `buffer`; `None` when the next one is not complete yet. The body
/// shares the buffer's memory. `handshake_only` refuses everything that has no place before the
/// handshake is done.
///
/// # Errors
/// When what stands there cannot be a frame; nothing more can be read from that peer then.
pub fn decode(buffer: &mut BytesMut, handshake_only: bool) -> Result<Option<Frame>, FrameError> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else {
        // Nothing is known of a frame's kind before its fifth byte, but an empty one has none.
        return match buffer.first_chunk::<4>() {
            Some([0, 0, 0, 0]) => Err(FrameError::Empty),
            _ => Ok(None),
        };
    };
    let [a, b, c, d, kind] = *header;
    // A record of TLS, an alert or a handshake; as a length it would be more than 300 MiB.
    if handshake_only && matches!((a, b), (0x15 | 0x16, 3)) {
        return Err(FrameError::Tls);
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let body_length = length.checked_sub(1).ok_or(FrameError::Empty)?;
    let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
    if handshake_only && !kind.is_handshake() {
        return Err(FrameError::TooEarly(kind));
    }
    if body_length > kind.limit() {
        return Err(FrameError::TooLong { kind, bytes: body_length });
    }
    if buffer.len() < HEADER + body_length {
        buffer.reserve(HEADER + body_length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(Frame { kind, body: buffer.split_to(body_length).freeze() }))
}

/// The bytes before a body of `body_length` bytes.
pub fn header(kind: Kind, body_length: usize) -> [u8; HEADER] {
    debug_assert!(body_length <= kind.limit(), "{kind:?} of {body_length} bytes");
    let [a, b, c, d] = (body_length as u32 + 1).to_be_bytes();
    [a, b, c, d, kind as u8]
}

/// A whole frame as bytes; for everything but bulk.
pub fn encode(kind: Kind, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + body.len());
    bytes.put_slice(&header(kind, body.len()));
    bytes.put_slice(body);
    bytes.freeze()
}

/// Header of a data frame together with its stream's number: what stands before the file bytes.
pub fn data_header(stream: StreamId, bytes: usize) -> [u8; HEADER + 4] {
    let [a, b, c, d, kind] = header(Kind::Data, 4 + bytes);
    let [e, f, g, h] = stream.to_be_bytes();
    [a, b, c, d, kind, e, f, g, h]
}

/// Stream and file bytes of a data frame's body.
///
/// # Errors
/// When the body is too short to name a stream.
pub fn split_data(mut body: Bytes) -> Result<(StreamId, Bytes), FrameError> {
    let stream = body.try_get_u32().map_err(|_| FrameError::NoStream)?;
    Ok((stream, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(parts: &[(Kind, usize)]) -> Vec<u8> {
        parts.iter().flat_map(|(kind, size)| encode(*kind, &vec![7; *size]).to_vec()).collect()
    }

    #[test]
    fn an_oversized_frame_is_refused_at_its_fifth_byte() {
        for kind in [Kind::ClientHello, Kind::Control, Kind::Data] {
            let mut good = BytesMut::from(&header(kind, kind.limit())[..]);
            assert_eq!(decode(&mut good, false), Ok(None));
            let mut bad = BytesMut::from(&(kind.limit() as u32 + 2).to_be_bytes()[..]);
            bad.put_u8(kind as u8);
            assert_eq!(decode(&mut bad, false), Err(FrameError::TooLong { kind, bytes: kind.limit() + 1 }));
        }
    }

    #[test]
    fn garbage_is_refused() {
        let refused = |bytes: &[u8], early| decode(&mut BytesMut::from(bytes), early).unwrap_err();
        assert_eq!(refused(b"\0\0\0\0", false), FrameError::Empty);
        assert_eq!(refused(b"\0\0\0\0\x10", false), FrameError::Empty);
        assert_eq!(refused(b"GET / HTTP/1.1", true), FrameError::UnknownKind(b'/'));
        assert_eq!(refused(&header(Kind::Data, 4), true), FrameError::TooEarly(Kind::Data));
        assert_eq!(split_data(Bytes::from_static(b"\0\0\x01")), Err(FrameError::NoStream));
    }

    #[test]
    fn data_headers_name_stream_and_length() {
        let mut bytes = BytesMut::from(&data_header(0x0102_0304, 2)[..]);
        bytes.put_slice(b"ab");
        let frame = decode(&mut bytes, false).unwrap().unwrap();
        assert_eq!(split_data(frame.body), Ok((0x0102_0304, Bytes::from_static(b"ab"))));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_frames(
            sizes in proptest::collection::vec((0usize..3, 0usize..600), 1..8),
            cuts in proptest::collection::vec(1usize..400, 1..20),
        ) {
            let kinds = [Kind::Control, Kind::Data, Kind::Proof];
            let parts: Vec<_> = sizes.iter().map(|(kind, size)| (kinds[*kind], *size)).collect();
            let bytes = bytes_of(&parts);
            let (mut buffer, mut found, mut rest) = (BytesMut::new(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.put_slice(now);
                rest = later;
                while let Some(frame) = decode(&mut buffer, false).unwrap() {
                    found.push((frame.kind, frame.body.len()));
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, parts);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_make_it_keep_more_than_one_frame(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), early in any::<bool>(),
        ) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, early) {}
            prop_assert!(buffer.capacity() <= limits::DATA_BODY + HEADER + 300);
        }
    }
}
