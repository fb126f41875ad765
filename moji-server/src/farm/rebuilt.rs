//! Builds that failed, and are tried once more when what they used has been built anew.

use tokio::task::spawn_blocking;

use super::Farm;
use crate::BuildKey;
use crate::commit::Published;
use crate::rebuilt::{self, FailedBuild};
use crate::scheduler::{Event, Lease};

impl Farm {
    /// What a build used that has just failed.
    pub(super) async fn remember_failure(&mut self, lease: &Lease, published: &Published) {
        if !self.retry_on_change {
            return;
        }
        let (key, record, folder) =
            (lease.srpm.key.clone(), published.record.clone(), published.folder.clone());
        let looked = spawn_blocking(move || rebuilt::failed_build(&key, &record, &folder)).await;
        if let Ok(Some(failed)) = looked {
            self.failed(failed).await;
        }
    }

    pub(super) async fn failed(&mut self, FailedBuild { key, used, generation }: FailedBuild) {
        self.handle(Event::Failed { key, used, generation }).await;
    }

    /// What a failed build used has been built anew.
    pub(super) async fn retry(&mut self, key: BuildKey, package: String) {
        let (folders, moving) = (self.folders.clone(), key.clone());
        // The watcher of SOURCE finds it.
        match spawn_blocking(move || rebuilt::retry(&folders, &moving)).await {
            Ok(Ok(true)) => {
                tracing::info!(
                    "{key} failed, and is tried once more: {package}, which it used, was built anew"
                );
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!("{key} is not tried again: {error:#}"),
            Err(error) => tracing::error!("{key}: {error}"),
        }
    }
}
