//! Sees that credentials were added, revoked or have expired, while the server runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch::Sender;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::credentials::{Credentials, FILE};

/// What differs after the file was replaced.
type Version = (u64, i64, i64, u64);

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
    let mut file = Watched::new(private.clone());
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        let looked = spawn_blocking(move || {
            let news = file.look();
            (file, news)
        });
        let news;
        // After a panic it is looked at as for the first time.
        (file, news) = looked.await.unwrap_or_else(|_| (Watched::new(private.clone()), None));
        let mut now = news.unwrap_or_else(|| (**credentials.borrow()).clone());
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

/// The file, and what of it was seen.
struct Watched {
    private: PathBuf,
    /// The last one that could be read.
    seen: Option<Version>,
    last_error: Option<String>,
}

impl Watched {
    fn new(private: PathBuf) -> Self {
        Self { private, seen: None, last_error: None }
    }

    /// What is in it, if that is news. Blocks.
    fn look(&mut self) -> Option<Credentials> {
        // Gone is no news: it was there when there were credentials.
        let file = self.private.join(FILE).metadata().ok()?;
        let version = (file.ino(), file.mtime(), file.mtime_nsec(), file.size());
        if self.seen == Some(version) {
            return None;
        }
        match Credentials::read(&self.private) {
            Ok(read) => {
                (self.seen, self.last_error) = (Some(version), None);
                Some(read)
            }
            // It is read again: what it says may be that somebody was revoked.
            Err(error) => {
                let error = error.to_string();
                if self.last_error.as_ref() != Some(&error) {
                    tracing::error!("{error}; those of before go on to count");
                    self.last_error = Some(error);
                }
                None
            }
        }
    }
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

    #[test]
    fn what_could_not_be_read_is_read_again() {
        let private = tempfile::tempdir().unwrap();
        let path = private.path().join(FILE);
        let mut file = Watched::new(private.path().into());
        assert_eq!(file.look(), None);
        Credentials::default().write(private.path()).unwrap();
        let (good, written) = (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
        let put = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        };
        put(&vec![b'x'; good.len()]);
        assert_eq!(file.look(), None);
        // The same file by all that tells files apart, as if the disk had failed once.
        put(&good);
        assert_eq!(file.look(), Some(Credentials::default()));
        assert_eq!(file.look(), None);
    }
}
