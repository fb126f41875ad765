//! Ed25519 keys (RFC 8032) and their fingerprints: who a server is, and who a credential's owner is.
//! The one file that knows ring.
//!
//! The server keeps nothing of a credential but the public key, so that a stolen file lets nobody in.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::Sha256;

/// Bytes of a public key.
pub const PUBLIC_KEY: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// What stands before a public key in a certificate: the DER of a `SubjectPublicKeyInfo` up to the
/// key's bits (RFC 8410, section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A private key: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// `bytes` must be random.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for keeping them. Whoever has them is the key's owner.
    pub fn secret_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// A private key that is ready to sign.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key that `seed` is.
    pub fn new(seed: &Seed) -> Self {
        match Ed25519KeyPair::from_seed_unchecked(&seed.0) {
            Ok(pair) => Self(pair),
            Err(_) => unreachable!("any 32 bytes are an Ed25519 key"),
        }
    }

    /// What others check its signatures with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_KEY];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        let mut bytes = [0; SIGNATURE];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        bytes
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().fingerprint())
    }
}

/// What a signature is checked with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; PUBLIC_KEY]);

impl PublicKey {
    /// Any 32 bytes; when they are no key, no signature fits them.
    pub fn new(bytes: [u8; PUBLIC_KEY]) -> Self {
        Self(bytes)
    }

    /// The key in a certificate's `SubjectPublicKeyInfo`; `None` when that is no Ed25519 key.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI)?.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY] {
        &self.0
    }

    /// What people compare.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::of(&[&SPKI[..], &self.0].concat()))
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// The SHA-256 of a key's `SubjectPublicKeyInfo`, as `sha256:` and 64 hex digits: what
/// `openssl pkey -pubout -outform DER | sha256sum` says of the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(Sha256);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a key's fingerprint: that is \"sha256:\" and 64 hex digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let hex = text.strip_prefix("sha256:").ok_or(FingerprintError)?;
        hex.parse().map(Self).map_err(|_| FingerprintError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        hex.parse::<Sha256>().unwrap().0
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_rfc() {
        let seed = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = SigningKey::new(&Seed::new(seed));
        let public = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        assert_eq!(key.public().as_bytes(), &public);
        let signature = key.sign(&[0x72]);
        assert_eq!(&signature[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert!(key.public().verify(&[0x72], &signature));
        assert!(!key.public().verify(&[0x73], &signature));
        assert!(!PublicKey::new([7; 32]).verify(&[0x72], &signature));
    }

    #[test]
    fn a_fingerprint_has_one_text() {
        let fingerprint = SigningKey::new(&Seed::new([7; 32])).public().fingerprint();
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for text in ["", "sha256:", "sha256:ab", &fingerprint.to_string()[7..]] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }

    #[test]
    fn only_ed25519_keys_are_taken_from_a_certificate() {
        let key = SigningKey::new(&Seed::new([7; 32])).public();
        let der = [&SPKI[..], key.as_bytes()].concat();
        assert_eq!(PublicKey::from_spki(&der), Some(key));
        assert_eq!(PublicKey::from_spki(&der[..43]), None);
        assert_eq!(PublicKey::from_spki(&[0; 44]), None);
    }
}
