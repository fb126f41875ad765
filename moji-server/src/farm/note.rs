//! What happened, in the words of the history: the one place that hears of all of it.

use jiff::Timestamp;
use moji_proto::api::EventKind;
use moji_proto::{AttemptId, FailureKind, LogFile, Outcome, TargetName};

use super::Farm;
use crate::estimates::BuilderClass;
use crate::history::{self, AttemptEnd, Entry, Happening, Leased, Settled, Verdict};
use crate::lease_record::LeaseRecord;
use crate::record::BuildRecord;
use crate::scheduler::{Ending, Lease, LeaseState};
use crate::source::QueuedSrpm;
use crate::{BuildKey, BuilderId};

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
        /// Where it was missed, or who cancelled it.
        reason: String,
    },
    /// Something happened to no build in particular.
    Happened {
        /// What.
        kind: EventKind,
        /// In one line for people.
        text: String,
        /// To which builder.
        builder: Option<BuilderId>,
        /// Which generation of which repository is served now.
        generation: Option<(Option<TargetName>, u64)>,
    },
}

impl Farm {
    /// Takes note of what happened.
    pub(super) fn note(&mut self, what: Note<'_>) {
        tracing::debug!("{what:?}");
        self.reporting.took_note(&what);
        self.looking.took_note(&what);
        let is_arrival = !self.ready && matches!(what, Note::Queued(_));
        let Some(entry) = what.entry(Timestamp::now()) else { return };
        match &mut self.together {
            Some(together) => together.push(entry),
            None if is_arrival => self.arrivals.push(entry),
            None => self.tell_history(entry),
        }
    }

    fn tell_history(&mut self, entry: Entry) {
        self.tell_arrivals();
        self.history.record(entry);
    }

    /// What is noted from here on is kept, until [`Farm::told_together`].
    pub(super) fn tell_together(&mut self) {
        self.together.get_or_insert_default();
    }

    /// What was kept is told to the history in one.
    pub(super) fn told_together(&mut self) {
        if let Some(entries) = self.together.take() {
            self.tell_history(Entry::Together(entries));
        }
    }

    /// The leases of the last server: it may not have lived long enough to write down the last of them.
    pub(super) fn tell_restored(&self, leases: &[(Lease, LeaseRecord)]) {
        let now = Timestamp::now();
        let entries =
            leases.iter().filter_map(|(lease, record)| Note::Leased(lease, record, None).entry(now));
        self.history.record_all(entries.collect());
    }

    /// What has come since the start begins to be written: not while the queue is not known, and the processors have
    /// better to do, but before what comes next.
    pub(super) fn tell_arrivals(&mut self) {
        self.history.record_all(std::mem::take(&mut self.arrivals));
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
            Self::Withdrawn { key, reason } => Entry::Withdrawn { key: key.clone(), at: now, reason },
            Self::Happened { kind, text, builder, generation } => {
                let (target, generation) = generation.unzip();
                let target = target.flatten();
                Entry::Happened(Happening { at: now, kind, text, builder, target, generation })
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
