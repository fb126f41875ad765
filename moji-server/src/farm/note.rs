//! What happened, in the words of the history: the one place that hears of all of it.

use jiff::Timestamp;
use moji_proto::{AttemptId, FailureKind, LogFile, Outcome, TargetName};

use super::Farm;
use crate::BuildKey;
use crate::estimates::BuilderClass;
use crate::history::{self, AttemptEnd, Entry, Leased, Settled, Verdict};
use crate::lease_record::LeaseRecord;
use crate::record::BuildRecord;
use crate::scheduler::{Ending, Lease, LeaseState};
use crate::source::QueuedSrpm;

/// One thing that happened, with all that is known of it.
#[derive(Debug)]
pub(super) enum Note<'a> {
    /// An SRPM waits, for the first time or again.
    Queued(&'a QueuedSrpm),
    /// A builder has it.
    Leased(&'a Lease, &'a LeaseRecord, Option<BuilderClass>),
    /// A builder has come back with it.
    Readopted(&'a Lease, Option<&'a LeaseRecord>, Option<BuilderClass>),
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
    /// A build waits for what is missing.
    Parked {
        /// Which.
        key: &'a BuildKey,
        /// The attempt that has shown it.
        attempt: AttemptId,
        /// What is missing.
        missing: &'a [String],
    },
    /// What a package's last good build provides.
    Provided {
        /// In which repository.
        target: Option<TargetName>,
        /// The package.
        package: &'a str,
        /// What it provides.
        capabilities: Vec<String>,
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
        self.reporting.took_note(&what);
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
            Self::Leased(lease, record, class) => {
                Entry::Leased(leased(lease, record.leased_at, Some(record), class))
            }
            Self::Readopted(lease, record, class) => {
                let at = record.map_or(now, |record| record.leased_at);
                Entry::Readopted(leased(lease, at, record, class))
            }
            Self::Ended { lease, ending, record, logs, bytes } => {
                let (ending, outcome) = ended(lease, ending)?;
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
            Self::Parked { key, attempt, missing } => Entry::Parked(history::Parked {
                key: key.clone(),
                at: now,
                missing: missing.to_vec(),
                attempt,
            }),
            Self::Provided { target, package, capabilities } => {
                Entry::Provided { target, package: package.to_owned(), capabilities }
            }
            Self::Withdrawn { key, from } => {
                Entry::Withdrawn { key: key.clone(), at: now, reason: format!("taken out of {from}") }
            }
        })
    }
}

fn leased(lease: &Lease, at: Timestamp, record: Option<&LeaseRecord>, class: Option<BuilderClass>) -> Leased {
    Leased {
        srpm: (&lease.srpm).into(),
        attempt: lease.attempt,
        builder: lease.builder.clone(),
        class,
        target: lease.target.clone(),
        generation: record.and_then(|record| Some(record.repository.as_ref()?.generation)),
        at,
    }
}

/// How an attempt ended, and what its builder said of it; nothing for one that settled its build,
/// because that says all.
fn ended(lease: &Lease, ending: &Ending) -> Option<(history::Ending, Option<Outcome>)> {
    Some(match ending {
        Ending::Published => return None,
        Ending::Parked => match &lease.state {
            LeaseState::Committing { outcome, .. } => (history::Ending::Delivered, Some(outcome.clone())),
            _ => return None,
        },
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
