//! The server's key and its certificate: made at the first start, kept in `WORKING/.moji`, shown to
//! nobody. Builders know the key by its fingerprint, so it lives as long as the farm.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use moji_proto::Fingerprint;
use moji_proto::signing::{Seed, SigningKey};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::durable;

/// The file in the private folder: a private key as `openssl genpkey -algorithm ed25519` writes it, and a
/// certificate for it.
const FILE: &str = "identity.pem";
/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A server's key and certificate.
pub struct Identity {
    seed: Seed,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
    pub(super) certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl Identity {
    /// Reads the key in the private folder; makes it when there is none. Blocks.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged: it is never replaced, because every builder
    /// would take the server for another.
    pub fn load_or_make(private: &Path) -> anyhow::Result<Self> {
        let path = private.join(FILE);
        // Two that begin at once must not make two keys.
        let _lock = super::credentials::lock(private)?;
        match fs::read(&path) {
            Ok(pem) => Self::parse(&pem).with_context(|| damaged(&path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(&path),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read the server's key {}", path.display()))
            }
        }
    }

    fn make(path: &Path) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow!("no random numbers from the system: {error}"))?;
        let key = PrivatePkcs8KeyDer::from([&PKCS8[..], &seed].concat());
        let pair = KeyPair::try_from(&key).context("cannot make a key")?;
        let certificate = CertificateParams::new(vec!["moji".to_owned()])
            .and_then(|params| params.self_signed(&pair))
            .context("cannot make a certificate")?;
        let pem = format!("{}{}", pair.serialize_pem(), certificate.pem());
        let identity = Self { seed: Seed::new(seed), key, certificate: certificate.der().clone() };
        durable::write_private(path, pem.as_bytes())
            .with_context(|| format!("cannot write the server's key {}", path.display()))?;
        tracing::info!("made a key for this server: {}", identity.fingerprint());
        Ok(identity)
    }

    fn parse(pem: &[u8]) -> anyhow::Result<Self> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).context("it has no private key")?;
        let Some((&PKCS8, seed)) = key.secret_pkcs8_der().split_first_chunk() else {
            bail!("its private key is not an Ed25519 key");
        };
        let seed = seed.first_chunk().context("its private key is too short")?;
        let certificate = CertificateDer::from_pem_slice(pem).context("it has no certificate")?;
        Ok(Self { seed: Seed::new(*seed), key, certificate })
    }

    /// What the server signs with.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::new(&self.seed)
    }

    /// What builders know it by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.signing_key().public().fingerprint()
    }
}

fn damaged(path: &Path) -> String {
    format!(
        "the server's key {} is damaged: put it back from a backup, or remove it to get another key, which \
         every builder has to be told",
        path.display()
    )
}

/// Whether a private folder can be used by this process: what it writes there the server must be able to
/// read. Before a server has run there is none, and it is made if `make` says so.
///
/// # Errors
/// A sentence that says as whom to run, or that no server has run yet.
pub(super) fn check_owner(working: &Path, make: bool) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let private = working.join(".moji");
    let owner_of = |path: &Path| {
        let found = path.metadata().with_context(|| format!("cannot read {}", path.display()));
        found.map(|found| found.uid())
    };
    let own = rustix::process::geteuid().as_raw();
    let wrong_user = |path: &Path, owner: u32| {
        anyhow!(
            "{} belongs to the user with the number {owner}: run this as that user (sudo -u '#{owner}' \
             moji-server …), or the server could not read what is written",
            path.display()
        )
    };
    if !private.exists() {
        if !make {
            bail!("no server has used {} yet: is it the server's folder WORKING?", working.display());
        }
        let owner = owner_of(working)?;
        if own == 0 && owner != own {
            return Err(wrong_user(working, owner));
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&private)
            .with_context(|| format!("cannot make {}", private.display()))?;
    }
    let owner = owner_of(&private)?;
    if owner == own { Ok(private) } else { Err(wrong_user(&private, owner)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let private = tempfile::tempdir().unwrap();
        let made = Identity::load_or_make(private.path()).unwrap();
        let file = private.path().join(FILE);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = Identity::load_or_make(private.path()).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        assert_eq!(made.certificate, again.certificate);
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let private = tempfile::tempdir().unwrap();
        let file = private.path().join(FILE);
        Identity::load_or_make(private.path()).unwrap();
        let whole = fs::read(&file).unwrap();
        for content in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n", &whole[..100], &whole[120..]] {
            fs::write(&file, content).unwrap();
            let error = format!("{:#}", Identity::load_or_make(private.path()).unwrap_err());
            assert!(error.contains("is damaged"), "{error}");
            assert_eq!(fs::read(&file).unwrap(), content);
        }
    }
}
