//! Named credentials: who may come in, what for, until when. Kept in `WORKING/.moji/credentials.json`,
//! which holds public keys only: whoever steals it can log in as nobody.
//!
//! A revoked credential stays in the file. Its owner is told what happened, and a server without a
//! password does not open to everybody because the last credential is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use moji_proto::handshake::{Refusal, RefusalCode};
use moji_proto::{CredentialName, PublicKey, Sha256, TargetName};
use serde::{Deserialize, Serialize};

use crate::durable;

/// The file in the private folder.
pub(super) const FILE: &str = "credentials.json";
/// Whoever changes the file, or makes the server's key, holds this one locked.
const LOCK: &str = "credentials.lock";
/// Of the file.
const FORMAT: u32 = 1;

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes SRPMs, builds them and delivers the results; nothing else.
    Builder,
    /// Sees everything, submits SRPMs, and has builds tried again.
    Submitter,
    /// Submits, cancels and changes the queue.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Builder => "builder",
            Self::Submitter => "submitter",
            Self::Admin => "admin",
        })
    }
}

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its name.
    pub name: CredentialName,
    /// What it is for.
    pub role: Role,
    /// For which targets only; empty: for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetName>,
    /// What its owner's signatures are checked with, as 64 hex digits.
    #[serde(with = "hex")]
    pub key: PublicKey,
    /// Since when it exists.
    pub added: Timestamp,
    /// From when on it is worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Since when it is worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

impl Credential {
    /// Whether its owner may build for a target.
    pub fn is_for(&self, target: &TargetName) -> bool {
        self.targets.is_empty() || self.targets.contains(target)
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

mod hex {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(key: &PublicKey, to: S) -> Result<S::Ok, S::Error> {
        Sha256(*key.as_bytes()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<PublicKey, D::Error> {
        Ok(PublicKey::new(Sha256::deserialize(from)?.0))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    credentials: Vec<Credential>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the credentials in {path} cannot be used: {reason}")]
pub struct CredentialsError {
    path: PathBuf,
    reason: String,
}

/// All credentials, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_name: BTreeMap<CredentialName, Credential>,
    /// The keys alone, for the handshake.
    keys: BTreeMap<CredentialName, PublicKey>,
    /// Those whose time is over.
    expired: BTreeSet<CredentialName>,
}

impl Credentials {
    /// Reads the file in the private folder; none, when there is none. Blocks.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(private: &Path) -> Result<Self, CredentialsError> {
        let path = private.join(FILE);
        let wrong = |reason: String| CredentialsError { path: path.clone(), reason };
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let content: Content = serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        if content.format != FORMAT {
            return Err(wrong(format!("it has the format {}, this program knows {FORMAT}", content.format)));
        }
        let mut credentials = Self::new(content.credentials);
        credentials.look_at_the_clock(Timestamp::now());
        Ok(credentials)
    }

    /// These.
    pub fn new(credentials: Vec<Credential>) -> Self {
        let keys = credentials.iter().map(|one| (one.name.clone(), one.key)).collect();
        let by_name = credentials.into_iter().map(|one| (one.name.clone(), one)).collect();
        Self { by_name, keys, expired: BTreeSet::new() }
    }

    /// Writes the file in the private folder. Blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, private: &Path) -> anyhow::Result<()> {
        let path = private.join(FILE);
        let content = Content { format: FORMAT, credentials: self.by_name.values().cloned().collect() };
        durable::write_private(&path, &serde_json::to_vec_pretty(&content)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Finds out whose time is over. Gives whether that has changed.
    pub(super) fn look_at_the_clock(&mut self, now: Timestamp) -> bool {
        let expired = self.all().filter(|one| one.has_expired(now)).map(|one| one.name.clone()).collect();
        std::mem::replace(&mut self.expired, expired) != self.expired
    }

    /// Whether there never was one.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All of them by name, revoked ones too.
    pub fn all(&self) -> impl Iterator<Item = &Credential> {
        self.by_name.values()
    }

    /// Their keys.
    pub fn keys(&self) -> &BTreeMap<CredentialName, PublicKey> {
        &self.keys
    }

    /// The credential of that name, if it is good for something.
    ///
    /// # Errors
    /// Why it is not, for its owner.
    pub fn good(&self, name: &CredentialName) -> Result<&Credential, Refusal> {
        let revoked = |reason: String| Err(Refusal::new(RefusalCode::Revoked, &reason));
        match self.by_name.get(name) {
            None => revoked(format!("there is no credential {name} any more")),
            Some(Credential { revoked: Some(when), .. }) => {
                revoked(format!("the credential {name} was revoked at {when:.0}"))
            }
            Some(Credential { expires: Some(when), .. }) if self.expired.contains(name) => {
                revoked(format!("the credential {name} has expired at {when:.0}"))
            }
            Some(credential) => Ok(credential),
        }
    }

    /// That a credential was revoked, in words; `None` when it was not. One that has expired was good when
    /// it was used.
    pub fn revocation(&self, name: &CredentialName) -> Option<String> {
        let expired = self.expired.contains(name)
            && self.by_name.get(name).is_some_and(|credential| credential.revoked.is_none());
        self.good(name).err().filter(|_| !expired).map(|refusal| refusal.reason)
    }

    /// Adds one, in the place of a revoked one of its name.
    ///
    /// # Errors
    /// When there is a good one of that name.
    pub fn add(&mut self, credential: Credential) -> anyhow::Result<()> {
        let name = &credential.name;
        if let Some(known) = self.by_name.get(name)
            && known.revoked.is_none()
        {
            anyhow::bail!(
                "there is a credential {name} already: choose another name, or revoke it first \
                 (moji-server credential revoke {name})"
            );
        }
        self.keys.insert(name.clone(), credential.key);
        self.by_name.insert(name.clone(), credential);
        Ok(())
    }

    /// Makes one worthless. Gives whether it was good before.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn revoke(&mut self, name: &CredentialName, now: Timestamp) -> anyhow::Result<bool> {
        let credential = self
            .by_name
            .get_mut(name)
            .with_context(|| format!("there is no credential {name} (see moji-server credential list)"))?;
        Ok(credential.revoked.replace(credential.revoked.unwrap_or(now)).is_none())
    }
}

/// Waits until nobody else changes the credentials, or makes the server's key. Blocks.
///
/// # Errors
/// When the private folder cannot be written.
pub(super) fn lock(private: &Path) -> anyhow::Result<File> {
    let path = private.join(LOCK);
    let lock = File::options().create(true).append(true).mode(0o600).open(&path);
    let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, key: u8) -> Credential {
        Credential {
            name: name.parse().unwrap(),
            role: Role::Builder,
            targets: vec!["fedora-43-armv7hl".parse().unwrap()],
            key: PublicKey::new([key; 32]),
            added: "2026-11-01T10:00:00Z".parse().unwrap(),
            expires: Some("2026-12-01T10:00:00Z".parse().unwrap()),
            revoked: None,
        }
    }

    #[test]
    fn they_survive_being_written_and_hold_nothing_that_lets_one_in() {
        let private = tempfile::tempdir().unwrap();
        assert!(Credentials::read(private.path()).unwrap().is_empty());
        let mut credentials = Credentials::new(vec![credential("board", 3), credential("laptop", 4)]);
        credentials.write(private.path()).unwrap();
        credentials.look_at_the_clock(Timestamp::now());
        assert_eq!(Credentials::read(private.path()).unwrap(), credentials);
        let json = fs::read_to_string(private.path().join(FILE)).unwrap();
        assert!(json.contains(&"03".repeat(32)), "the public key, and it alone: {json}");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_open_door() {
        let private = tempfile::tempdir().unwrap();
        for content in ["", "{}", "[]", r#"{"format":2,"credentials":[]}"#, r#"{"format":1}"#] {
            fs::write(private.path().join(FILE), content).unwrap();
            assert!(Credentials::read(private.path()).is_err(), "{content}");
        }
    }

    #[test]
    fn what_is_revoked_or_expired_is_worth_nothing_and_its_owner_is_told() {
        let mut credentials = Credentials::new(vec![credential("board", 3), credential("laptop", 4)]);
        let (board, laptop) = ("board".parse().unwrap(), "laptop".parse().unwrap());
        let (early, late) =
            ("2026-11-30T00:00:00Z".parse().unwrap(), "2026-12-01T10:00:00Z".parse().unwrap());
        assert!(!credentials.look_at_the_clock(early));
        assert!(credentials.good(&board).is_ok());
        assert!(credentials.revoke(&board, early).unwrap());
        assert!(!credentials.revoke(&board, late).unwrap(), "it was revoked before");
        let refusal = credentials.good(&board).unwrap_err();
        assert!(refusal.reason.contains("revoked at 2026-11-30"), "{refusal}");
        assert!(credentials.look_at_the_clock(late));
        assert!(!credentials.look_at_the_clock(late));
        assert!(credentials.good(&laptop).unwrap_err().reason.contains("has expired"));
        assert!(credentials.good(&"nobody".parse().unwrap()).is_err());
        assert!(!credentials.is_empty());
    }

    #[test]
    fn a_name_is_given_out_again_only_when_it_was_revoked() {
        let mut credentials = Credentials::new(vec![credential("board", 3)]);
        let error = credentials.add(credential("board", 5)).unwrap_err().to_string();
        assert!(error.contains("revoke board"), "{error}");
        let board = "board".parse().unwrap();
        credentials.revoke(&board, Timestamp::now()).unwrap();
        credentials.add(credential("board", 5)).unwrap();
        assert_eq!(credentials.good(&board).unwrap().key, PublicKey::new([5; 32]));
        assert_eq!(credentials.keys()[&board], PublicKey::new([5; 32]));
    }
}
