//! Which builders come and go, for those who look.

use std::collections::BTreeMap;

use jiff::Timestamp;
use moji_proto::api::EventKind;

use super::note::Note;
use super::{Connected, Farm};
use crate::BuilderId;
use crate::scheduler::{Builder, SessionId};

/// Most builders that are remembered after they have gone.
const AWAY: usize = 256;

/// Builders that were here.
#[derive(Debug, Default)]
pub(super) struct Presence {
    away: BTreeMap<BuilderId, Away>,
}

/// A builder that is not connected.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) since: Timestamp,
    /// What it said of itself.
    pub(super) builder: Builder,
    pub(super) slots: u16,
    pub(super) software: String,
    /// It had work then.
    had_work: bool,
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

impl Farm {
    /// A builder has connected.
    pub(super) fn arrived(&mut self, name: &BuilderId) {
        let is_here = self.sessions.values().any(|other| other.name == *name);
        let (kind, text) = match self.presence.away.remove(name) {
            // Its old connection will be found to be dead.
            _ if is_here => return,
            Some(away) if away.had_work => (EventKind::BuilderBack, format!("{name} is back")),
            _ => (EventKind::BuilderConnected, format!("{name} has connected")),
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
        self.presence.add(Away { since: Timestamp::now(), builder, slots, software, had_work: had > 0 });
        self.note(Note::Happened { kind, text, builder: Some(name), generation: None });
    }
}
