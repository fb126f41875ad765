//! What holds for every message, whoever sends it.

use std::fmt::Debug;

use moji_proto::encoding::{self, EncodingError};
use moji_proto::limits::CONTROL_BODY;
use moji_proto::outcome::{MISSING_MAX, Outcome, REASON_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{assert_shown, within};

/// serde believes the length of a vector up to 1 MiB, bincode that of a text up to its own limit, 8
/// times [`CONTROL_BODY`]; beyond that only what came counts. The most for a byte are empty texts: 24
/// bytes each, in a vector that doubles.
const BELIEVED: u64 = (1 << 20) + 8 * CONTROL_BODY as u64 + (4 << 10);
const FOR_A_BYTE: u64 = 24 * 3;

/// The message that `bytes` are, if they are one: it is what its own encoding says, too.
pub(super) fn read<M>(bytes: &[u8]) -> Option<M>
where
    M: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let most = BELIEVED + FOR_A_BYTE * bytes.len() as u64;
    let message: M = match within(most, || encoding::decode(bytes)) {
        Ok(message) => message,
        Err(error) => {
            assert_shown(&error.to_string(), REASON_MAX + 100);
            return None;
        }
    };
    // Where it ends is beyond doubt.
    let longer = [bytes, &[0]].concat();
    assert!(
        matches!(encoding::decode::<M>(&longer), Err(EncodingError::Trailing(1)))
            || longer.len() > CONTROL_BODY
    );
    let shorter = bytes.split_last().map(|(_, shorter)| encoding::decode::<M>(shorter));
    assert!(!matches!(shorter, Some(Ok(_))), "{message:?}");
    // Numbers have longer spellings too, so the bytes may differ, but never in length upwards.
    let again = encoding::encode(&message).unwrap();
    assert!(again.len() <= bytes.len(), "{message:?}");
    let once_more: M = encoding::decode(&again).unwrap();
    assert_eq!(once_more, message);
    assert_eq!(encoding::encode(&once_more).unwrap(), again);
    Some(message)
}

/// A name that was let in can be a path component and be shown.
pub(super) fn assert_name(name: &str) {
    assert_shown(name, 255);
    assert!(!name.is_empty() && !name.starts_with(['.', '-']) && !name.contains(['/', '\\']), "{name:?}");
}

/// The bytes were enough for so many things, of which each takes `each` bytes.
pub(super) fn assert_paid(bytes: &[u8], count: usize, each: usize) {
    assert!(count * each <= bytes.len(), "{count} things in {} bytes", bytes.len());
}

/// What is kept of what a peer says of an outcome is bounded, and the same when it is written down.
pub(super) fn assert_outcome(said: Outcome) {
    let outcome = said.bounded();
    assert_eq!(outcome.clone().bounded(), outcome);
    if let Outcome::Failed { reason, missing, .. } = &outcome {
        assert!(missing.len() <= MISSING_MAX);
        missing.iter().chain([reason]).for_each(|text| assert_shown(text, REASON_MAX));
    }
    let json = serde_json::to_string(&outcome).unwrap();
    assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
}
