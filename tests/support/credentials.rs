//! Credentials in the private folder of a server, as `moji-server credential` leaves them there.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use jiff::Timestamp;
use moji_proto::signing::{Seed, SigningKey};
use moji_proto::{CredentialName, Sha256, Token};
use moji_server::access::credentials::{Credential, Credentials, Role};
use moji_server::access::identity::Identity;

/// Makes a builder's credential, good for all targets and for ever; `adjust` changes that. Gives its token.
/// One of a name that was there before gets another key.
///
/// # Errors
/// When there is a good one of that name, or the folder cannot be written.
pub fn give(private: &Path, name: &str, adjust: impl FnOnce(&mut Credential)) -> anyhow::Result<Token> {
    match fs::DirBuilder::new().mode(0o700).create(private) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let server = Identity::load_or_make(private)?.fingerprint();
    let mut credentials = Credentials::read(private)?;
    let name: CredentialName = name.parse()?;
    let known = credentials.keys().get(&name).map(|key| key.fingerprint());
    let seed = Seed::new(Sha256::of(format!("{name} {known:?}").as_bytes()).0);
    let mut credential = Credential {
        name: name.clone(),
        role: Role::Builder,
        targets: Vec::new(),
        key: SigningKey::new(&seed).public(),
        added: Timestamp::now(),
        expires: None,
        revoked: None,
    };
    adjust(&mut credential);
    credentials.add(credential)?;
    credentials.write(private)?;
    Ok(Token { server, name, seed })
}

/// Changes a credential that there is.
///
/// # Errors
/// When the folder cannot be read or written.
pub fn change(
    private: &Path,
    name: &CredentialName,
    change: impl FnOnce(&mut Credential),
) -> anyhow::Result<()> {
    let mut all: Vec<_> = Credentials::read(private)?.all().cloned().collect();
    if let Some(credential) = all.iter_mut().find(|credential| credential.name == *name) {
        change(credential);
    }
    Credentials::new(all).write(private)
}
