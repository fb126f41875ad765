//! The one file that knows bincode: control messages to bytes and back.
//!
//! bincode is no longer developed, so nothing else may use it; another crate with the same bytes
//! could take its place here. Its decoder accepts trailing bytes and needs a limit to be safe
//! against lengths that lie: both are seen to here.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::CONTROL_BODY;

/// Little-endian, variable-length integers, never more than [`CONTROL_BODY`] bytes.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<CONTROL_BODY>()
}

/// A message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// A message of ours is larger than [`CONTROL_BODY`] bytes.
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
/// When they are none, or more than one message.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, EncodingError> {
    let (message, used) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| EncodingError::Decode(crate::outcome::one_line(&error.to_string())))?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(message),
        more => Err(EncodingError::Trailing(more)),
    }
}
