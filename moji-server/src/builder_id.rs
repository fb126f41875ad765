//! Which builder: its name, and the credential with which it came in.
//!
//! A name is what a builder says of itself. Without the credential beside it, whoever has one could call
//! himself like another's builder, take up its attempts and spoil its standing.

use std::fmt;
use std::str::FromStr;

use moji_proto::{BuilderName, CredentialName, NameError};
use serde::{Deserialize, Serialize};

/// A builder. Written `name`, or `credential/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuilderId {
    /// How it came in; none: with the password, or where anybody may.
    pub credential: Option<CredentialName>,
    /// What it calls itself.
    pub name: BuilderName,
}

impl From<BuilderName> for BuilderId {
    fn from(name: BuilderName) -> Self {
        Self { credential: None, name }
    }
}

impl fmt::Display for BuilderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credential {
            Some(credential) => write!(f, "{credential}/{}", self.name),
            None => fmt::Display::fmt(&self.name, f),
        }
    }
}

impl fmt::Debug for BuilderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BuilderId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (credential, name) = match text.split_once('/') {
            Some((credential, name)) => (Some(credential.parse()?), name),
            None => (None, text),
        };
        Ok(Self { credential, name: name.parse()? })
    }
}

impl TryFrom<String> for BuilderId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<BuilderId> for String {
    fn from(builder: BuilderId) -> Self {
        builder.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_has_one_text_and_no_other_builder_has_it() {
        for text in ["board-7", "lab/board-7", "board-7/board-7"] {
            assert_eq!(text.parse::<BuilderId>().unwrap().to_string(), text);
        }
        for text in ["", "/board-7", "lab/", "a/b/c", "../board-7", "lab/\u{1b}"] {
            assert!(text.parse::<BuilderId>().is_err(), "{text:?}");
        }
    }
}
