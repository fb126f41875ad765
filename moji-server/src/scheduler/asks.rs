//! Slots that wait for work, in the order in which they asked.

use std::collections::BTreeMap;

use super::SessionId;

/// When a slot asked, counted.
type Turn = u64;

/// The slots without work. Each waits once, however often it asks.
#[derive(Debug, Default)]
pub(super) struct Asks {
    last: Turn,
    by_session: BTreeMap<SessionId, BTreeMap<Turn, u16>>,
    turns: BTreeMap<(SessionId, u16), Turn>,
}

impl Asks {
    /// A slot waits from now on. One that waits already keeps its turn.
    pub(super) fn add(&mut self, session: SessionId, slot: u16) {
        let next = self.last + 1;
        if *self.turns.entry((session, slot)).or_insert(next) == next {
            self.last = next;
            self.by_session.entry(session).or_default().insert(next, slot);
        }
    }

    /// A slot waits no more.
    pub(super) fn remove(&mut self, session: SessionId, slot: u16) {
        let Some(turn) = self.turns.remove(&(session, slot)) else { return };
        if let Some(slots) = self.by_session.get_mut(&session) {
            slots.remove(&turn);
            if slots.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }

    /// Nor any slot of a session.
    pub(super) fn remove_all(&mut self, session: SessionId) {
        for slot in self.by_session.remove(&session).unwrap_or_default().into_values() {
            self.turns.remove(&(session, slot));
        }
    }

    /// The slot of a session that has waited longest, and since when.
    pub(super) fn oldest_of(&self, session: SessionId) -> Option<(Turn, u16)> {
        let (turn, slot) = self.by_session.get(&session)?.first_key_value()?;
        Some((*turn, *slot))
    }

    /// Of each session that waits, since when.
    pub(super) fn sessions(&self) -> BTreeMap<Turn, SessionId> {
        let first = |(session, slots): (&SessionId, &BTreeMap<Turn, u16>)| {
            Some((*slots.first_key_value()?.0, *session))
        };
        self.by_session.iter().filter_map(first).collect()
    }

    /// How many slots wait.
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_waits_once_and_keeps_its_turn() {
        let (one, two) = (SessionId(1), SessionId(2));
        let mut asks = Asks::default();
        for (session, slot) in [(two, 5), (one, 3), (two, 4), (one, 3), (two, 5)] {
            asks.add(session, slot);
        }
        assert_eq!(asks.len(), 3);
        assert_eq!(asks.sessions().into_values().collect::<Vec<_>>(), [two, one]);
        assert_eq!(asks.oldest_of(two).map(|(_, slot)| slot), Some(5));
        asks.remove(two, 5);
        assert_eq!(asks.sessions().into_values().collect::<Vec<_>>(), [one, two]);
        asks.remove_all(one);
        asks.remove(two, 4);
        assert_eq!((asks.len(), asks.sessions().len()), (0, 0));
    }
}
