//! What happened, in the words of the history: the one place that hears of all of it.

use jiff::Timestamp;
use moji_proto::{FailureKind, LogFile, Outcome};

use super::Farm;
use crate::BuildKey;
use crate::history::{self, AttemptEnd, Entry, Leased, Settled, Verdict};
use crate::lease_record::LeaseRecord;
use crate::record::BuildRecord;
use crate::scheduler::{Ending, Lease};
use crate::source::QueuedSrpm;

/// One thing that happened, with all that is known of it.
#[derive(Debug)]
pub(super) enum Note<'a> {
    /// An SRPM waits, for the first time or again.
    Queued(&'a QueuedSrpm),
    /// A builder has it.
    Leased(&'a Lease, &'a LeaseRecord),
    /// A builder has come back with it.
    Readopted(&'a Lease, Option<&'a LeaseRecord>),
    /// An attempt has ended.
    Ended {
        /// The lease, as it was last.
        lease: &'a Lease,
        /// In which way.
        ending: &'a Ending,
        /// When it began, and what of.
        record: Option<&'a LeaseRecord>,
        /// Bytes of each live log.
        logs: &'a [(LogFile, u64)],
        /// Bytes that were delivered.
        bytes: u64,
    },
    /// A build is settled.
    Settled {
        /// Which.
        key: &'a BuildKey,
        /// How.
        record: &'a BuildRecord,
    },
    /// A person has taken an SRPM away.
    Withdrawn {
        /// Which.
        key: &'a BuildKey,
        /// Where it was missed.
        from: &'static str,
    },
}

impl Farm {
    /// Takes note of what happened.
    pub(super) fn note(&mut self, what: Note<'_>) {
        tracing::debug!("{what:?}");
        if let Some(entry) = what.entry(Timestamp::now()) {
            self.history.record(entry);
        }
    }
}

impl Note<'_> {
    /// What the history is told.
    fn entry(self, now: Timestamp) -> Option<Entry> {
        Some(match self {
            Self::Queued(srpm) => Entry::Queued(srpm.into()),
            Self::Leased(lease, record) => Entry::Leased(leased(lease, record.leased_at)),
            Self::Readopted(lease, record) => {
                Entry::Readopted(leased(lease, record.map_or(now, |record| record.leased_at)))
            }
            Self::Ended { lease, ending, record, logs, bytes } => {
                let (ending, outcome) = ended(ending)?;
                let logs = logs.iter().map(|(log, bytes)| (log.file_name().to_owned(), *bytes)).collect();
                let srpm_sha256 = record.and_then(|record| record.srpm_sha256);
                let end = AttemptEnd::new(lease.attempt, now, ending);
                Entry::AttemptEnded(AttemptEnd { outcome, srpm_sha256, logs, bytes, ..end })
            }
            Self::Settled { key, record } => Entry::Settled(Settled {
                key: key.clone(),
                at: now,
                verdict: if record.held.is_some() { Verdict::Held } else { Verdict::of(record) },
                record: Box::new(record.clone()),
                size: None,
            }),
            Self::Withdrawn { key, from } => {
                Entry::Withdrawn { key: key.clone(), at: now, reason: format!("taken out of {from}") }
            }
        })
    }
}

fn leased(lease: &Lease, at: Timestamp) -> Leased {
    Leased {
        srpm: (&lease.srpm).into(),
        attempt: lease.attempt,
        builder: lease.builder.clone(),
        class: None,
        target: lease.target.clone(),
        generation: None,
        at,
    }
}

/// How an attempt ended, and what its builder said of it; nothing for one that settled its build,
/// because that says all.
fn ended(ending: &Ending) -> Option<(history::Ending, Option<Outcome>)> {
    Some(match ending {
        Ending::Published => return None,
        Ending::Superseded => (history::Ending::Stale, None),
        Ending::Lost => (history::Ending::Lost, None),
        Ending::Unclaimed => (history::Ending::Interrupted, None),
        Ending::Failed(outcome) => (history::Ending::Delivered, Some(outcome.clone())),
        Ending::Rejected(reason) => {
            let outcome = Outcome::failed(FailureKind::Infrastructure, reason, None, Vec::new());
            (history::Ending::Rejected, Some(outcome))
        }
        Ending::Released { .. } => (history::Ending::Released, None),
        Ending::Cancelled => (history::Ending::Cancelled, None),
    })
}
