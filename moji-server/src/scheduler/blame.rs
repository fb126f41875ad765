//! Whose fault it was: what went wrong with an SRPM, what went wrong on a builder, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moji_proto::{AttemptId, FailureKind};

use super::Moment;
use crate::{BuildKey, BuilderId};

/// An SRPM with which so many attempts came to grief is held: its builder was lost, or builder or
/// repository were to blame each time. A package that kills builders cannot kill a fourth one.
pub const MOST_TRIES: usize = 3;
/// An SRPM that was given back so often, whatever the reason, is held: nothing goes on for ever. What was
/// given back without a trouble counts once for each builder, so that none can go on under new names.
pub const MOST_RETURNS: usize = 10;
/// A builder on which so many attempts in a row failed through its own fault is suspended.
pub const STREAK: u32 = 3;
/// So many attempts that a builder gave back without a trouble count as one that failed through its
/// fault, when nothing good came in between: else it could take and give back for ever, and each time
/// costs renames, lines and rows.
pub const RETURNS: u32 = 4;
/// What is remembered of a builder is forgotten when so long nothing was added: then a builder of that
/// name may be another one.
pub(super) const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Most builders of which something is remembered: names are cheap.
pub(super) const MOST_STANDINGS: usize = 4096;
/// The first suspension; each one that follows without a good attempt in between is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// No suspension is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(4 * 60 * 60);

/// An attempt that ended without a result that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The attempt.
    pub attempt: AttemptId,
    /// Where it was.
    pub builder: BuilderId,
    /// How it ended.
    pub kind: TryKind,
}

/// How a [`Try`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryKind {
    /// The builder vanished. Taken back when it turns up again with the attempt.
    Lost,
    /// It failed, and not through the package.
    Failed(FailureKind),
    /// The builder gave it back because of a trouble of its own.
    GivenBack,
    /// The builder gave it back, and nobody is to blame. The builder may have it again.
    Returned,
    /// Its results were not good.
    Rejected,
}

impl TryKind {
    /// Whether it counts for [`MOST_TRIES`].
    fn is_grief(self) -> bool {
        match self {
            Self::Lost
            | Self::Rejected
            | Self::Failed(FailureKind::Infrastructure | FailureKind::Configuration) => true,
            Self::Failed(_) | Self::GivenBack | Self::Returned => false,
        }
    }
}

impl std::fmt::Display for TryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost => f.write_str("lost"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
            Self::GivenBack | Self::Returned => f.write_str("gave it back"),
            Self::Rejected => f.write_str("results refused"),
        }
    }
}

/// What went wrong with each SRPM that is not settled, and on each builder since its last good one.
#[derive(Debug, Default)]
pub(super) struct Blame {
    tries: BTreeMap<BuildKey, Vec<Try>>,
    standing: BTreeMap<BuilderId, Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    streak: u32,
    /// Attempts in a row that it gave back without a trouble.
    returns: u32,
    suspended_until: Option<Moment>,
    /// When something was added last, or a suspension ended.
    changed: Moment,
}

impl Blame {
    /// What a server before this one has seen.
    pub(super) fn restore(&mut self, key: BuildKey, tries: Vec<Try>) {
        self.tries.insert(key, tries);
    }

    pub(super) fn add(&mut self, key: &BuildKey, attempt: AttemptId, builder: &BuilderId, kind: TryKind) {
        let tried = Try { attempt, builder: builder.clone(), kind };
        self.tries.entry(key.clone()).or_default().push(tried);
    }

    /// An SRPM was given back, and nobody is to blame. Each builder counts once: what one does again and
    /// again its own standing tells.
    pub(super) fn returned(&mut self, key: &BuildKey, attempt: AttemptId, builder: &BuilderId) {
        let is_same = |tried: &Try| tried.builder == *builder && tried.kind == TryKind::Returned;
        if !self.tries.get(key).is_some_and(|tries| tries.iter().any(is_same)) {
            self.add(key, attempt, builder, TryKind::Returned);
        }
    }

    /// The builder of an attempt that was taken for lost has turned up again with it.
    pub(super) fn take_back(&mut self, key: &BuildKey, attempt: AttemptId) {
        if let Some(tries) = self.tries.get_mut(key) {
            tries.retain(|tried| tried.attempt != attempt);
        }
    }

    /// An SRPM is settled, or a person has taken it away. Gives the attempts that were lost.
    pub(super) fn forgive(&mut self, key: &BuildKey) -> Vec<AttemptId> {
        let tries = self.tries.remove(key).unwrap_or_default();
        tries.into_iter().filter(|tried| tried.kind == TryKind::Lost).map(|tried| tried.attempt).collect()
    }

    /// Who has tried an SRPM in vain.
    pub(super) fn has_tried(&self, key: &BuildKey, builder: &BuilderId) -> bool {
        let in_vain = |tried: &Try| tried.builder == *builder && tried.kind != TryKind::Returned;
        self.tries.get(key).is_some_and(|tries| tries.iter().any(in_vain))
    }

    /// Whether the results of an attempt were not good: it does not come back.
    pub(super) fn was_rejected(&self, key: &BuildKey, attempt: AttemptId) -> bool {
        let rejected = |tried: &Try| tried.attempt == attempt && tried.kind == TryKind::Rejected;
        self.tries.get(key).is_some_and(|tries| tries.iter().any(rejected))
    }

    /// How many attempts at an SRPM came to grief.
    pub(super) fn griefs(&self, key: &BuildKey) -> usize {
        self.tries.get(key).map_or(0, |tries| tries.iter().filter(|tried| tried.kind.is_grief()).count())
    }

    /// Why an SRPM must not be tried again, if so.
    pub(super) fn verdict(&self, key: &BuildKey) -> Option<String> {
        let tries = self.tries.get(key)?;
        let griefs: Vec<_> = tries.iter().filter(|tried| tried.kind.is_grief()).collect();
        if griefs.len() < MOST_TRIES && tries.len() < MOST_RETURNS {
            return None;
        }
        let counted = if griefs.len() < MOST_TRIES { tries.iter().collect() } else { griefs };
        let builders: BTreeSet<_> = counted.iter().map(|tried| &tried.builder).collect();
        let each: Vec<_> =
            counted.iter().map(|tried| format!("{} ({})", tried.builder, tried.kind)).collect();
        let all = if builders.len() == 1 { ", all on the only builder there was" } else { "" };
        let hint = match counted.iter().all(|tried| tried.kind == TryKind::Lost) {
            true => "; the package may be what ends its builders",
            false => "",
        };
        Some(format!("{} attempts came to nothing{all}: {}{hint}", counted.len(), each.join(", ")))
    }

    /// An attempt on a builder ended in a way that speaks for it. Gives whether that ended its
    /// suspension.
    pub(super) fn did_well(&mut self, builder: &BuilderId) -> bool {
        self.standing.remove(builder).is_some_and(|standing| standing.suspended_until.is_some())
    }

    /// What is remembered of a builder, to be added to. A new one takes the place of those of whom
    /// nothing was heard for long.
    fn standing_of(&mut self, now: Moment, builder: &BuilderId) -> &mut Standing {
        if !self.standing.contains_key(builder) {
            self.standing.retain(|_, other| other.suspended_until.is_some() || now < other.changed + IDLE);
            if self.standing.len() >= MOST_STANDINGS {
                // Whoever is suspended stays so as long as there is anybody else.
                let worth = |(_, other): &(&BuilderId, &Standing)| (other.suspended_until, other.changed);
                let least = self.standing.iter().min_by_key(worth).map(|(builder, _)| builder.clone());
                least.map(|least| self.standing.remove(&least));
            }
        }
        let standing = self.standing.entry(builder.clone()).or_default();
        standing.changed = now;
        standing
    }

    /// An attempt on a builder failed through its fault. Gives how long it is suspended, if it is.
    pub(super) fn failed_on(&mut self, now: Moment, builder: &BuilderId) -> Option<Duration> {
        let standing = self.standing_of(now, builder);
        if standing.suspended_until.is_some() {
            // What its other slots had begun before tells nothing new.
            return None;
        }
        standing.streak += 1;
        let beyond = standing.streak.checked_sub(STREAK)?;
        let pause = FIRST_PAUSE.saturating_mul(1 << beyond.min(16)).min(LONGEST_PAUSE);
        standing.suspended_until = Some(now + pause);
        Some(pause)
    }

    /// A builder gave an attempt back, and nobody is to blame. Gives how long it is suspended, if it is.
    pub(super) fn gave_back(&mut self, now: Moment, builder: &BuilderId) -> Option<Duration> {
        let standing = self.standing_of(now, builder);
        standing.returns = (standing.returns + 1) % RETURNS;
        if standing.returns == 0 { self.failed_on(now, builder) } else { None }
    }

    /// How many attempts in a row have failed through a builder's fault.
    pub(super) fn streak(&self, builder: &BuilderId) -> u32 {
        self.standing.get(builder).map_or(0, |standing| standing.streak)
    }

    /// Until when a builder gets no work.
    pub(super) fn suspended_until(&self, builder: &BuilderId) -> Option<Moment> {
        self.standing.get(builder)?.suspended_until
    }

    /// When the next suspension is over.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.standing.values().filter_map(|standing| standing.suspended_until).min()
    }

    /// Ends the suspensions that are over, and says whether there were any. The streak stays: one
    /// more failure, and the next suspension is twice as long.
    pub(super) fn end_suspensions(&mut self, now: Moment) -> bool {
        let mut any = false;
        for standing in self.standing.values_mut() {
            if standing.suspended_until.is_some_and(|until| until <= now) {
                standing.suspended_until = None;
                standing.changed = now;
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
impl Blame {
    pub(super) fn remembered(&self) -> usize {
        self.standing.len()
    }

    pub(super) fn tries(&self) -> Vec<(BuildKey, Vec<Try>)> {
        self.tries.iter().map(|(key, tries)| (key.clone(), tries.clone())).collect()
    }
}
