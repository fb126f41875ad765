//! Who may work in the staging of an attempt: one session at a time, and none while the farm moves or removes
//! what is there.
//!
//! A write is on a blocking thread, which nobody can stop, and what it has open stays open wherever the folder
//! is moved meanwhile, into REPO too. So each piece of work carries a permit that it looks at again and again,
//! and whoever wants the folder takes back the permits and waits until the last one is gone.
//!
//! Knows nothing of leases, nor of what lies in the folders.

use std::collections::BTreeMap;
use std::time::Duration;

use moji_proto::AttemptId;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Work that was stopped ends with the piece of a file that it is at: a disk that takes longer is worth a line.
const SLOW: Duration = Duration::from_secs(10);

/// The stagings that are in use. The farm has it.
#[derive(Debug, Default)]
pub(crate) struct Stagings {
    tenants: BTreeMap<AttemptId, Tenant>,
    last: u64,
}

#[derive(Debug)]
struct Tenant {
    over: CancellationToken,
    works: TaskTracker,
}

/// Which tenancy: an attempt that was given back may have another one later, on the same connection too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TenancyId {
    pub(crate) attempt: AttemptId,
    number: u64,
}

/// What a session has of an attempt's staging. Its drop stops the work there, but does not wait for that.
#[derive(Debug)]
pub(crate) struct Tenancy {
    id: TenancyId,
    over: CancellationToken,
    works: TaskTracker,
}

/// The permit of one piece of work: whoever has files of a staging open has one, on whatever thread.
#[derive(Debug, Clone)]
pub(crate) struct AtWork {
    over: CancellationToken,
    counted: Option<TaskTrackerToken>,
}

/// A permit was taken back.
#[derive(Debug, thiserror::Error)]
#[error("the attempt has ended")]
pub(crate) struct Over;

impl Stagings {
    /// Gives the staging of an attempt to a session. Nobody works there when this returns.
    pub(crate) async fn let_to(&mut self, attempt: AttemptId) -> Tenancy {
        self.vacate(attempt).await;
        self.last += 1;
        let tenant = Tenant { over: CancellationToken::new(), works: TaskTracker::new() };
        let id = TenancyId { attempt, number: self.last };
        let tenancy = Tenancy { id, over: tenant.over.clone(), works: tenant.works.clone() };
        self.tenants.insert(attempt, tenant);
        tenancy
    }

    /// Takes it back. Nobody works there when this returns, and nobody begins to.
    pub(crate) async fn vacate(&mut self, attempt: AttemptId) {
        let Some(Tenant { over, works }) = self.tenants.remove(&attempt) else { return };
        over.cancel();
        works.close();
        if timeout(SLOW, works.wait()).await.is_err() {
            tracing::warn!("what was sent for {attempt} is still being written after {SLOW:?}; waiting");
            works.wait().await;
        }
    }
}

impl Tenancy {
    pub(crate) fn id(&self) -> TenancyId {
        self.id
    }

    /// A permit, which may be worth nothing already.
    pub(crate) fn work(&self) -> AtWork {
        AtWork { over: self.over.clone(), counted: Some(self.works.token()) }
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl AtWork {
    /// Whether the work may go on: to be asked before each piece of it.
    ///
    /// # Errors
    /// When it may not.
    pub(crate) fn check(&self) -> Result<(), Over> {
        if self.over.is_cancelled() { Err(Over) } else { Ok(()) }
    }

    /// The work rests, and nobody waits for it: it must go on with another permit. What a session keeps between
    /// two pieces of work rests, because the session may be waiting for the farm, which waits for the work.
    pub(crate) fn rest(&mut self) {
        self.counted = None;
    }

    /// Tells those that wait for something else that the work is over.
    pub(crate) fn over(&self) -> CancellationToken {
        self.over.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: AttemptId = AttemptId { boot: 5, serial: 17 };

    #[tokio::test(start_paused = true)]
    async fn the_next_tenant_waits_for_the_work_of_the_last_one() {
        let mut stagings = Stagings::default();
        let first = stagings.let_to(ATTEMPT).await;
        let work = first.work();
        work.check().unwrap();
        // Longer than a line in the log takes.
        let second = timeout(3 * SLOW, stagings.let_to(ATTEMPT)).await;
        assert!(second.is_err(), "two work there");
        work.check().unwrap_err();
        drop(work);
        let second = stagings.let_to(ATTEMPT).await;
        second.work().check().unwrap();
        assert_ne!(first.id(), second.id());
        // What the first one begins too late finds that out before it does anything.
        first.work().check().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_the_folder_waits_for_work_on_another_thread() {
        let mut stagings = Stagings::default();
        let tenancy = stagings.let_to(ATTEMPT).await;
        let work = tenancy.work();
        let working = tokio::task::spawn_blocking(move || {
            while work.check().is_ok() {
                std::thread::yield_now();
            }
        });
        stagings.vacate(ATTEMPT).await;
        assert!(stagings.tenants.is_empty());
        working.await.unwrap();
    }

    /// Else the farm could wait for a session that waits for the farm.
    #[tokio::test(start_paused = true)]
    async fn work_that_rests_is_not_waited_for() {
        let mut stagings = Stagings::default();
        let tenancy = stagings.let_to(ATTEMPT).await;
        let mut work = tenancy.work();
        work.rest();
        timeout(SLOW, stagings.vacate(ATTEMPT)).await.expect("it waits");
        work.check().unwrap_err();
        tenancy.work().check().unwrap_err();
    }

    #[tokio::test]
    async fn what_a_session_forgets_stops() {
        let tenancy = Stagings::default().let_to(ATTEMPT).await;
        let work = tenancy.work();
        drop(tenancy);
        work.check().unwrap_err();
    }
}
