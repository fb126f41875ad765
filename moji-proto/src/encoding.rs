//! The one file that knows bincode: control messages to bytes and back.
//!
//! bincode is no longer developed, so nothing else may use it; another crate with the same bytes
//! could take its place here. Its decoder accepts trailing bytes and needs a limit to be safe
//! against lengths that lie: both are seen to here.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::CONTROL_BODY;

/// bincode's own limit. It counts an integer with its size in memory, 8 bytes for a `u64` that
/// travels as one, so a limit of [`CONTROL_BODY`] would refuse honest messages far below that size:
/// what may travel is decided by the length of the bytes alone, and this only stops lengths that
/// lie. No byte on the wire counts for more than 8.
const CLAIMED: usize = 8 * CONTROL_BODY;

/// Little-endian, variable-length integers, never more than [`CLAIMED`] bytes.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<CLAIMED>()
}

/// A message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// A message of ours is larger than [`CONTROL_BODY`] bytes, or cannot be encoded.
    #[error("a message is too large or cannot be encoded: {0}")]
    Encode(String),
    /// The bytes are not a message.
    #[error("bytes that are no message of this protocol version: {0}")]
    Decode(String),
    /// The bytes are a message and something more.
    #[error("{0} bytes too many behind a message")]
    Trailing(usize),
}

/// `message` as bytes.
///
/// # Errors
/// When it takes more than [`CONTROL_BODY`] bytes.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, EncodingError> {
    let bytes = bincode::serde::encode_to_vec(message, config())
        .map_err(|error| EncodingError::Encode(error.to_string()))?;
    // The limit of the configuration is not looked at while encoding.
    if bytes.len() > CONTROL_BODY {
        return Err(EncodingError::Encode(format!(
            "{} bytes, at most {CONTROL_BODY} may travel",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// The message that `bytes` are.
///
/// # Errors
/// When they are none, or more than one message, or more than [`CONTROL_BODY`].
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, EncodingError> {
    if bytes.len() > CONTROL_BODY {
        let what = format!("{} bytes, at most {CONTROL_BODY} may travel", bytes.len());
        return Err(EncodingError::Decode(what));
    }
    let (message, used) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| EncodingError::Decode(crate::outcome::one_line(&error.to_string())))?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(message),
        more => Err(EncodingError::Trailing(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MANIFEST_PART, TAGS, TARGETS};
    use crate::names::NAME_MAX;
    use crate::{ArtifactName, AttemptId, BuilderName, ManifestEntry, Phase, Registration, Resources, Tag};
    use crate::{FailureKind, Outcome, Sha256, TargetName, ToServer, outcome};

    const ATTEMPT: AttemptId = AttemptId { boot: u64::MAX, serial: u64::MAX - 1 };

    /// Both directions have the same idea of what is too large.
    #[test]
    fn what_can_be_encoded_can_be_decoded() {
        // 3 bytes an attempt, of which bincode counts 20.
        let small = AttemptId { boot: 1, serial: 2 };
        let most = (CONTROL_BODY - 5) / 3;
        for (count, fits) in [(most, true), (most + 2, false)] {
            let message = ToServer::Heartbeat { attempts: vec![(small, Phase::Building); count], disk: None };
            match encode(&message) {
                Ok(bytes) => assert_eq!(decode::<ToServer>(&bytes).unwrap(), message),
                Err(error) => assert!(!fits, "{error}"),
            }
            assert_eq!(encode(&message).is_ok(), fits, "{count}");
        }
        assert!(matches!(decode::<ToServer>(&vec![2; CONTROL_BODY + 1]), Err(EncodingError::Decode(_))));
    }

    #[test]
    fn the_largest_messages_of_honest_peers_fit() {
        let name = ArtifactName::new(format!("{}.rpm", "x".repeat(NAME_MAX - 4))).unwrap();
        let entry = ManifestEntry { name, size: u64::MAX, sha256: Sha256([255; 32]) };
        let longest = "x".repeat(outcome::REASON_MAX);
        let missing = vec![longest.clone(); outcome::MISSING_MAX];
        let target = TargetName::new("x".repeat(128)).unwrap();
        for message in [
            ToServer::Manifest { attempt: ATTEMPT, entries: vec![entry; MANIFEST_PART] },
            ToServer::Deliver {
                attempt: ATTEMPT,
                outcome: Outcome::failed(FailureKind::MissingDependency, &longest, Some(i32::MIN), missing),
                files: u32::MAX,
                bytes: u64::MAX,
            },
            ToServer::Register(Registration {
                name: BuilderName::new("x".repeat(128)).unwrap(),
                targets: vec![target; TARGETS],
                slots: u16::MAX,
                arch: longest.clone(),
                software: longest,
                resources: Resources { cores: u16::MAX, memory: u64::MAX, disk: u64::MAX },
                tags: vec![Tag::new("x".repeat(64)).unwrap(); TAGS],
            }),
        ] {
            assert_eq!(decode::<ToServer>(&encode(&message).unwrap()).unwrap(), message);
        }
    }
}
