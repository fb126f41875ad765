//! A disk that is nearly full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moji_proto::{Outcome, ToBuilder};
use moji_server::room::FreeSpace;
use moji_tests::support::simulated::built;
use tokio::time::{Instant, timeout};

use super::Result;
use super::returning::{lease, server};

const MB: u64 = 1 << 20;

/// A disk with as much room as is said.
fn disk(free: u64) -> (Arc<AtomicU64>, FreeSpace) {
    let free = Arc::new(AtomicU64::new(free));
    let told = Arc::clone(&free);
    (free, FreeSpace::new(move |_| Ok(told.load(Ordering::SeqCst))))
}

#[tokio::test(start_paused = true)]
async fn without_room_nothing_is_handed_out() -> Result {
    let (free, free_space) = disk(99 * MB);
    let server = server(&["one", "two"], |config| {
        (config.min_free, config.free_space) = (100 * MB, free_space);
        config.dead_after = Duration::from_secs(3600);
    })?;
    let mut builder = server.builder("hungry", &["f43"], 2).await?;
    builder.ask(0).await?;
    assert!(timeout(Duration::from_secs(60), builder.word()).await.is_err(), "no room for that");
    free.store(200 * MB, Ordering::SeqCst);
    let begun = Instant::now();
    let assignment = builder.assignment().await?;
    assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
    builder.whole(assignment.stream).await?;
    free.store(10 * MB, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(6)).await;
    builder.ask(1).await?;
    assert!(timeout(Duration::from_secs(60), builder.word()).await.is_err(), "no room for that");
    // What is built already is still taken.
    let attempt = assignment.attempt;
    builder.deliver(attempt, Outcome::Succeeded, &[("one-1-1.src.rpm", &built("one", b"built"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn results_that_do_not_fit_are_not_begun() -> Result {
    let (free, free_space) = disk(4 * MB);
    let server = server(&["large"], |config| config.free_space = free_space)?;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let attempt = lease(&mut builder).await?.attempt;
    let content = built("large", &vec![b'x'; MB as usize]);
    let files = [("large-1-1.src.rpm", &content[..])];
    for _ in 0..5 {
        builder.deliver(attempt, Outcome::Succeeded, &files).await?;
        let ToBuilder::Rejected { again: true, reason, .. } = builder.word().await? else { panic!() };
        assert!(reason.contains("full") && reason.contains("1.0 MiB"), "{reason}");
    }
    let staged = server.site.folders.attempt(attempt).join("results/large-1-1.src.rpm");
    assert_eq!(staged.metadata().map_or(0, |data| data.len()), 0);
    free.store(6 * MB, Ordering::SeqCst);
    builder.deliver(attempt, Outcome::Succeeded, &files).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    Ok(())
}
