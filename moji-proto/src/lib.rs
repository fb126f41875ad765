//! The wire between `moji-server` and `moji-client`.
//!
//! Everything here is data and pure functions over bytes: names that are checked once, messages,
//! frames and the handshake. It deliberately knows no runtime, no file system and no clock. The
//! feature `io` adds [`io`]: the same frames over any `AsyncRead` and `AsyncWrite`, still without
//! spawning, sleeping or opening anything. The feature `api` adds [`api`]: what the server tells of the farm as JSON.
//!
//! `PROTOCOL.md` beside this crate describes the wire for people who write a peer of their own.

#[cfg(feature = "api")]
pub mod api;
pub mod digest;
pub mod encoding;
pub mod frame;
pub mod handshake;
#[cfg(feature = "io")]
pub mod io;
pub mod limits;
pub mod message;
pub mod names;
pub mod operator;
pub mod outcome;
pub mod repository_url;
pub mod signing;
pub mod token;
pub mod version;

pub use digest::{Hasher, Sha256};
pub use message::{
    Assignment, HeldAttempt, LogFile, ManifestEntry, Registration, Resources, StreamId, StreamMessage,
    ToBuilder, ToServer,
};
pub use names::{
    ArtifactName, AttemptId, BuilderName, CredentialName, NameError, Nvr, SrpmName, Tag, TargetName,
};
pub use outcome::{FailureKind, Outcome, Phase};
pub use repository_url::RepositoryUrl;
pub use signing::{Fingerprint, PublicKey};
pub use token::Token;

/// The port that Moji has always had.
pub const DEFAULT_PORT: u16 = 6789;
