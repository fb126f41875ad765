//! Roots that a killed run left: each holds 0.5 GB and perhaps an rpmbuild that still runs.
//!
//! Does not know which roots there are: the caller uses a fixed id per slot and lists them all.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::child::{Output, run_briefly};
use super::command::{Root, UniqueExt};
use super::evidence::Ended;
use super::run::Limits;

/// Mock's exit code for a root that another Mock holds. It says so at once and never waits.
const LOCKED: i32 = 60;
/// Between two tries at a locked root.
const RETRY: Duration = Duration::from_secs(1);

/// Why a root is not clean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClearError {
    /// Another Mock held it all the time.
    #[error("another Mock uses the root")]
    Locked,
    /// `mock --clean` took too long.
    #[error("mock --clean took longer than its limit")]
    TimedOut,
    /// `mock --clean` could not be started; the text says why.
    #[error("mock --clean could not be started: {0}")]
    NotStarted(String),
    /// `mock --clean` ended with this exit code, or minus this signal.
    #[error("mock --clean ended with {0}")]
    Failed(i32),
}

/// Ends what runs in `root` (when `orphans`) and removes it, in `limits.clean_timeout` altogether.
/// A locked root is tried again, its processes ended each time: the Mock that holds it ends when
/// rpmbuild does. What the commands say is appended to `log`.
///
/// # Errors
/// When the root is not clean in the end; see [`ClearError`].
pub async fn clear(
    root: &Root,
    env: &[(OsString, OsString)],
    log: &Path,
    limits: &Limits,
    mut orphans: bool,
) -> Result<(), ClearError> {
    let begin = Instant::now();
    let left = || limits.clean_timeout.saturating_sub(begin.elapsed());
    loop {
        if orphans {
            let how = run_briefly(&root.orphanskill(), env, Output::append(log), left(), limits.grace).await;
            if how != Ended::Exit(0) {
                warn!(root = root.uniqueext().as_str(), ?how, "mock --orphanskill failed");
            }
        }
        match run_briefly(&root.clean(), env, Output::append(log), left(), limits.grace).await {
            Ended::Exit(0) => return Ok(()),
            Ended::Exit(LOCKED) if left() <= RETRY => return Err(ClearError::Locked),
            Ended::Exit(LOCKED) => {
                orphans = true;
                tokio::time::sleep(RETRY).await;
            }
            Ended::TimedOut | Ended::Stalled | Ended::Cancelled => return Err(ClearError::TimedOut),
            Ended::NotStarted(why) => return Err(ClearError::NotStarted(why)),
            ended => return Err(ClearError::Failed(ended.exit_code().unwrap_or_default())),
        }
    }
}

/// At the start of a client: clears all `roots`, one after the other, each in
/// `limits.clean_timeout`. Results are logged, and returned for whoever wants to say more: a root
/// that is not clean is no reason not to start, because Mock cleans it when it builds there.
pub async fn sweep(
    roots: &[Root],
    env: &[(OsString, OsString)],
    log: &Path,
    limits: &Limits,
) -> Vec<(UniqueExt, Result<(), ClearError>)> {
    let mut results = Vec::new();
    for root in roots {
        let result = clear(root, env, log, limits, true).await;
        // The roots of a slot have one id, whatever the target.
        let (id, config) = (root.uniqueext(), root.config().display());
        match &result {
            Ok(()) => info!(root = id.as_str(), %config, "root is clean"),
            Err(error) => {
                warn!(root = id.as_str(), %config, %error, log = %log.display(), "root is not clean")
            }
        }
        results.push((id.clone(), result));
    }
    results
}
