//! Sees that credentials were added, revoked or have expired, while the server runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch::Sender;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::credentials::{Credentials, FILE};

/// What differs after the file was replaced.
type Version = Option<(u64, i64, i64, u64)>;

/// Looks at the file, until the shutdown, and tells the sessions what has changed. A file that is damaged
/// or gone changes nothing: nobody is let in, or put out, by an accident.
pub(crate) async fn watch(
    private: PathBuf,
    look: Duration,
    credentials: Sender<Arc<Credentials>>,
    shutdown: CancellationToken,
) {
    let mut looks = interval(look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Option<Version> = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        let (folder, last) = (private.clone(), seen);
        let Ok((version, read)) = spawn_blocking(move || look_at(&folder, last)).await else { continue };
        seen = Some(version);
        let mut now = match read {
            Some(Ok(read)) => read,
            Some(Err(error)) => {
                tracing::error!("{error}; those of before go on to count");
                continue;
            }
            None => (**credentials.borrow()).clone(),
        };
        now.look_at_the_clock(Timestamp::now());
        let now = Arc::new(now);
        credentials.send_if_modified(|known| {
            let has_changed = *known != now;
            if has_changed {
                tell(known, &now);
                *known = now;
            }
            has_changed
        });
    }
}

/// The file's version, and what is in it if that is another one than the last. Blocks.
fn look_at(
    private: &Path,
    last: Option<Version>,
) -> (Version, Option<Result<Credentials, super::credentials::CredentialsError>>) {
    let version = private
        .join(FILE)
        .metadata()
        .ok()
        .map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.size()));
    // Gone is no news: it was there when there were credentials.
    let is_news = version.is_some() && last != Some(version);
    (version, is_news.then(|| Credentials::read(private)))
}

fn tell(known: &Credentials, now: &Credentials) {
    for credential in now.all() {
        let name = &credential.name;
        match (known.good(name).is_ok(), now.good(name)) {
            (true, Err(refusal)) => tracing::warn!("{refusal}"),
            (false, Ok(credential)) => tracing::info!("the credential {name} ({}) is good", credential.role),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use moji_proto::PublicKey;

    use super::*;
    use crate::access::credentials::{Credential, Role};

    #[tokio::test]
    async fn what_is_added_revoked_or_expired_is_seen_and_accidents_change_nothing() {
        let private = tempfile::tempdir().unwrap();
        let (sender, mut seen) = tokio::sync::watch::channel(Arc::new(Credentials::default()));
        let shutdown = CancellationToken::new();
        let watching = watch(private.path().into(), Duration::from_millis(5), sender, shutdown.clone());
        let watching = tokio::spawn(watching);
        let board: moji_proto::CredentialName = "board".parse().unwrap();
        let credential = Credential {
            name: board.clone(),
            role: Role::Builder,
            targets: Vec::new(),
            key: PublicKey::new([7; 32]),
            added: Timestamp::now(),
            expires: None,
            revoked: None,
        };
        Credentials::new(vec![credential.clone()]).write(private.path()).unwrap();
        seen.wait_for(|now| now.good(&board).is_ok()).await.unwrap();

        std::fs::remove_file(private.path().join(FILE)).unwrap();
        std::fs::write(private.path().join(FILE), "damaged").unwrap();
        let expiring = |when| {
            Credentials::new(vec![Credential {
                expires: Some(Timestamp::now() + when),
                ..credential.clone()
            }])
        };
        seen.mark_unchanged();
        expiring(Duration::from_secs(3600)).write(private.path()).unwrap();
        seen.changed().await.unwrap();
        assert!(seen.borrow_and_update().good(&board).is_ok(), "no accident was taken for news");
        expiring(Duration::from_millis(30)).write(private.path()).unwrap();
        seen.wait_for(|now| now.good(&board).is_err()).await.unwrap();
        shutdown.cancel();
        watching.await.unwrap();
    }
}
