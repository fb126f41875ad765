//! What a builder knows: nothing, a password, or a token, which stands where a password would.

use std::fmt;

use moji_proto::{Fingerprint, Token};

/// The secret with which a builder gets in.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Secret {
    /// None: for a server that lets anybody in.
    #[default]
    None,
    /// The server's password.
    Password(String),
    /// A credential's token.
    Token(Token),
}

impl Secret {
    /// A token if it is meant to be one, else a password.
    ///
    /// # Errors
    /// When it is empty, or a token that is damaged. The text is not quoted.
    pub fn new(text: &str) -> anyhow::Result<Self> {
        if text.is_empty() {
            anyhow::bail!("the password is empty");
        }
        if Token::is_meant(text) {
            return Ok(Self::Token(text.trim().trim_start_matches('\u{feff}').parse()?));
        }
        Ok(Self::Password(text.to_owned()))
    }

    /// The key that the server must have according to a token.
    pub(super) fn server(&self) -> Option<Fingerprint> {
        match self {
            Self::Token(token) => Some(token.server),
            Self::None | Self::Password(_) => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(secret)",
            Self::Token(_) => "Token(secret)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_token_must_be_one() {
        let token = format!("moji1.{}.board.{}", "ab".repeat(32), "cd".repeat(32));
        assert!(matches!(Secret::new(&token).unwrap(), Secret::Token(_)));
        assert_eq!(Secret::new("moji").unwrap(), Secret::Password("moji".into()));
        assert!(Secret::new("").is_err());
        let error = Secret::new(&token[..token.len() - 5]).unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains("cdcd"), "{error}");
        assert!(!format!("{:?}", Secret::new("hunter2").unwrap()).contains("hunter2"));
    }
}
