//! The end of a server that was told to stop.

use std::path::Path;
use std::time::Duration;

use moji_server::folders::Folders;
use moji_server::room::FreeSpace;
use moji_server::run::{Config, run};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_is_never_taken_for_a_failure() {
    let at = tempfile::tempdir().unwrap();
    let folder = |name: &str| at.path().join(name);
    let config = Config {
        folders: Folders {
            source: folder("source"),
            working: folder("working"),
            finished: folder("finished"),
            repo: folder("repo"),
        },
        password: None,
        plaintext: true,
        heartbeat: Duration::from_secs(20),
        dead_after: Duration::from_secs(90),
        rules: Default::default(),
        grace: Duration::ZERO,
        patience: Duration::from_secs(60),
        min_free: 0,
        free_space: FreeSpace::of_the_disk(),
        createrepo: Path::new("/bin/true").into(),
        metadata: moji_server::metadata::Maker::Native,
        log_limit: 1 << 20,
        limits: moji_server::Limits::default(),
        watch: true,
        rescan: Duration::from_secs(60),
        keep_generations: Duration::from_secs(2 * 24 * 60 * 60),
        http: None,
        outgoing: Vec::new(),
        repository_urls: moji_server::repository_url::RepositoryUrls::default(),
    };
    // Tasks end in the moment of the shutdown too: which of them is seen first is left to chance.
    for _ in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(config.clone(), listener, shutdown.clone()));
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}
