//! What happened, for the history: the one place that hears of all of it.

use moji_proto::LogFile;

use super::Farm;
use crate::BuildKey;
use crate::lease_record::LeaseRecord;
use crate::record::BuildRecord;
use crate::scheduler::{Ending, Lease};
use crate::source::QueuedSrpm;

/// One thing that happened, with all that is known of it.
#[derive(Debug)]
#[expect(dead_code, reason = "for the log, as a whole; the history will read the fields")]
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
    }
}
