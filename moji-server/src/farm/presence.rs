//! Which builders come and go, for those who look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::api::EventKind;
use tokio::time::Instant;

use super::note::Note;
use super::{Connected, Farm};
use crate::BuilderId;
use crate::scheduler::{Builder, SessionId};

/// Most builders that are remembered after they were lost.
const AWAY: usize = 256;

/// By then the old connection of a builder that has come back is known to be dead, unless `dead-after` is long.
const TWINS: Duration = Duration::from_secs(5 * 60);

/// Builders that were lost with work, and several that have one name.
#[derive(Debug, Default)]
pub(super) struct Presence {
    away: BTreeMap<BuilderId, Away>,
    /// Since when several connections have a name, and whether that was said.
    twins: BTreeMap<BuilderId, (Instant, bool)>,
}

/// A builder that is not connected.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) since: Timestamp,
    /// What it said of itself.
    pub(super) builder: Builder,
    pub(super) slots: u16,
    pub(super) software: String,
}

impl Presence {
    pub(super) fn away(&self) -> impl Iterator<Item = &Away> {
        self.away.values()
    }

    fn add(&mut self, away: Away) {
        if self.away.len() >= AWAY {
            let oldest = self.away.iter().min_by_key(|(_, away)| away.since).map(|(name, _)| name.clone());
            oldest.map(|oldest| self.away.remove(&oldest));
        }
        self.away.insert(away.builder.id.clone(), away);
    }
}

impl Presence {
    /// Of the names of all connections, those that several have had for so long that they are several builders; each is
    /// told once.
    fn find_twins<'a>(
        &mut self,
        now: Instant,
        names: impl IntoIterator<Item = &'a BuilderId>,
    ) -> Vec<BuilderId> {
        let mut seen = BTreeSet::new();
        let several: BTreeSet<_> = names.into_iter().filter(|name| !seen.insert(*name)).collect();
        self.twins.retain(|name, _| several.contains(name));
        let mut found = Vec::new();
        for name in several {
            let (since, told) = self.twins.entry(name.clone()).or_insert((now, false));
            if now.duration_since(*since) >= TWINS && !std::mem::replace(told, true) {
                found.push(name.clone());
            }
        }
        found
    }
}

impl Farm {
    /// Builders are known by their names: of several with one, people see only one.
    pub(super) fn look_for_twins(&mut self) {
        let names = self.sessions.values().map(|connected| &connected.name);
        for name in self.presence.find_twins(Instant::now(), names) {
            tracing::warn!(
                "several builders are called {name}, and are shown as one: start each moji-client with a --name of its own"
            );
        }
    }

    /// A builder has connected.
    pub(super) fn arrived(&mut self, name: &BuilderId) {
        let is_here = self.sessions.values().any(|other| other.name == *name);
        let (kind, text) = match self.presence.away.remove(name) {
            // Its old connection will be found to be dead.
            _ if is_here => return,
            Some(_) => (EventKind::BuilderBack, format!("{name} is back")),
            None => (EventKind::BuilderConnected, format!("{name} has connected")),
        };
        self.note(Note::Happened { kind, text, builder: Some(name.clone()), generation: None });
    }

    /// A builder's connection has ended; its leases are as they were.
    pub(super) fn left(&mut self, session: SessionId, gone: Connected, reason: &str) {
        let Connected { name, slots, software, .. } = gone;
        let builders = self.scheduler.builders(self.now());
        let Some(builder) = builders.filter(|seen| seen.session == session).map(|seen| seen.builder).next()
        else {
            return;
        };
        let builder = builder.clone();
        if self.sessions.values().any(|other| other.name == name) {
            return;
        }
        let had = self.scheduler.leases().filter(|lease| lease.is_run_by(session)).count();
        let (kind, text) = match had {
            0 => (EventKind::BuilderLeft, format!("{name} has left: {reason}")),
            1 => (EventKind::BuilderLost, format!("{name} is lost with 1 build: {reason}")),
            many => (EventKind::BuilderLost, format!("{name} is lost with {many} builds: {reason}")),
        };
        if had > 0 {
            self.presence.add(Away { since: Timestamp::now(), builder, slots, software });
        }
        self.note(Note::Happened { kind, text, builder: Some(name), generation: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_builders_of_one_name_are_told_of_once_and_not_one_that_has_come_back() {
        let (mut presence, begin) = (Presence::default(), Instant::now());
        let [a, b]: [BuilderId; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let mut at = |minute: u64, names: &[&BuilderId]| {
            presence.find_twins(begin + Duration::from_secs(60 * minute), names.iter().copied())
        };
        let (twins, alone) = ([&a, &b, &a], [&a, &b]);
        let (none, told): ([BuilderId; 0], _) = ([], [a.clone()]);
        // The old connection of one that has come back.
        assert_eq!(at(0, &twins), none);
        assert_eq!(at(4, &alone), none);
        assert_eq!(at(6, &twins), none);
        assert_eq!(at(10, &twins), none);
        assert_eq!(at(11, &twins), told);
        assert_eq!(at(12, &twins), none);
        assert_eq!(at(13, &alone), none);
        assert_eq!(at(14, &twins), none);
        assert_eq!(at(19, &twins), told);
    }
}
