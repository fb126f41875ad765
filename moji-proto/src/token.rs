//! Join tokens: all that a builder needs to get in, in one word that its owner copies.
//!
//! ```text
//! moji1.<fingerprint of the server's key>.<name of the credential>.<private key>
//! ```
//! Fingerprint and private key are 64 hex digits each. The server makes the key pair, keeps the public
//! half and forgets the token.

use std::fmt;
use std::str::FromStr;

use crate::signing::{Fingerprint, Seed};
use crate::{CredentialName, Sha256};

/// What every token begins with; the number is the layout's.
pub const PREFIX: &str = "moji1.";

/// A credential as its owner has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The key that the server must have.
    pub server: Fingerprint,
    /// Which credential it is.
    pub name: CredentialName,
    /// What its owner signs with.
    pub seed: Seed,
}

impl Token {
    /// The token as the one line to be copied. Everything else that shows a token hides the key.
    pub fn to_secret_text(&self) -> String {
        let server = self.server.to_string();
        let server = server.strip_prefix("sha256:").unwrap_or(&server);
        format!("{PREFIX}{server}.{}.{}", self.name, Sha256(*self.seed.secret_bytes()))
    }

    /// Whether a secret is meant to be a token and not a password: also one of a later version, or one that
    /// was damaged at its beginning when it was copied.
    pub fn is_meant(text: &str) -> bool {
        let word = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        let beginning = word.get(..PREFIX.len()).unwrap_or_default().to_ascii_lowercase();
        beginning.starts_with("moji")
            && beginning.ends_with('.')
            && beginning.as_bytes().get(4).is_some_and(u8::is_ascii_digit)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} at {})", self.name, self.server)
    }
}

/// A text is no token. It does not quote the text, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token is damaged: {0}; copy it once more, all of it")]
pub struct TokenError(&'static str);

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError("it does not begin with moji1."))?;
        let parts = rest.split_once('.').and_then(|(server, rest)| Some((server, rest.rsplit_once('.')?)));
        let (server, (name, seed)) = parts.ok_or(TokenError("a part of it is missing"))?;
        let server = format!("sha256:{server}")
            .parse()
            .map_err(|_| TokenError("its second part is no fingerprint"))?;
        let name = CredentialName::new(name).map_err(|_| TokenError("its third part is no name"))?;
        let seed: Sha256 = seed.parse().map_err(|_| TokenError("its last part is not 64 hex digits"))?;
        Ok(Self { server, name, seed: Seed::new(seed.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::SigningKey;

    #[test]
    fn a_token_survives_being_copied_and_shows_nothing() {
        let seed = Seed::new([0xa7; 32]);
        let server = SigningKey::new(&Seed::new([3; 32])).public().fingerprint();
        let name = CredentialName::new("board-7.example.org").unwrap();
        let token = Token { server, name, seed };
        let text = token.to_secret_text();
        for meant in [
            text.clone(),
            format!(" {text}"),
            format!("\u{feff}{text}"),
            text.to_uppercase(),
            "moji2.x".into(),
        ] {
            assert!(Token::is_meant(&meant), "{meant}");
        }
        for password in ["moji", "moji1", "mojix.", "mojo1.", "", "mo\u{308}ji1.", "long and moji1."] {
            assert!(!Token::is_meant(password), "{password}");
        }
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert!(!format!("{token:?}").contains("a7a7"), "{token:?}");
    }

    #[test]
    fn a_damaged_token_is_named_and_not_quoted() {
        let hex = "ab".repeat(32);
        for (text, wanted) in [
            (hex.clone(), "begin"),
            (format!("moji1.{hex}"), "missing"),
            (format!("moji1.{hex}.{hex}"), "missing"),
            (format!("moji1.{}.board.{hex}", &hex[1..]), "fingerprint"),
            (format!("moji1.{hex}.-x.{hex}"), "no name"),
            (format!("moji1.{hex}.board.{}", &hex[2..]), "64 hex digits"),
        ] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("abab"), "{error}");
        }
    }
}
