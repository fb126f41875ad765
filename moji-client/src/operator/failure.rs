//! Why a command of `moji` came to nothing, and what the program ends with then.

use std::io;

use crate::access::{Unwelcome, said};

/// Why a command came to nothing. Its text is one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no connection, or none any more: the next try may end otherwise.
    #[error("{0}")]
    Unreachable(String),
    /// The server does not let this person in, or is not the right one.
    #[error("{0}")]
    Unwelcome(String),
    /// The server does not do that, or knows no such thing.
    #[error("{0}")]
    Refused(String),
    /// The command, the configuration or a file is wrong.
    #[error("{0}")]
    Wrong(String),
    /// Something on this machine does not work.
    #[error("{0}")]
    Broken(String),
    /// Nobody reads what is written (`moji history | head`).
    #[error("nobody reads the output")]
    Unread,
}

impl Failure {
    /// What the program ends with.
    pub fn code(&self) -> u8 {
        match self {
            Self::Unreachable(_) | Self::Unwelcome(_) => 3,
            Self::Refused(_) => 4,
            Self::Wrong(_) => 64,
            Self::Broken(_) => 74,
            // What a shell says of a program that SIGPIPE has ended.
            Self::Unread => 141,
        }
    }

    /// Whether the next connection may bring what this one did not.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// A connection that could not be made, or has ended.
    pub(crate) fn of_connection(error: &anyhow::Error) -> Self {
        let text = moji_proto::outcome::plain(&said(error));
        if error.is::<Unwelcome>() { Self::Unwelcome(text) } else { Self::Unreachable(text) }
    }

    /// Writing to standard output failed.
    pub(crate) fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Broken(format!("cannot write the output: {error}")),
        }
    }
}
