//! How many connections there are, from where, and how many of them are strangers'.
//!
//! When too many strangers are there, those of the address with the most of them make place for one from
//! an address with few: some machines that only connect cannot lock the others out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::peer::Origin;

/// All places, and who has them. The lock is held for a look at the tables, never across a wait.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    limits: Most,
    last: u64,
    taken: usize,
    by_origin: BTreeMap<Origin, usize>,
    /// The oldest first.
    strangers: BTreeMap<u64, Stranger>,
    strangers_by_origin: BTreeMap<Origin, usize>,
}

#[derive(Debug)]
struct Most {
    all: usize,
    per_origin: usize,
    strangers: usize,
    strangers_per_origin: usize,
}

#[derive(Debug)]
struct Stranger {
    origin: Option<Origin>,
    displaced: CancellationToken,
}

/// Why a connection has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    All(usize),
    Origin(usize),
    Strangers(usize),
    StrangersOfOrigin(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(most) => write!(f, "{most} connections are open (--limit connections)"),
            Self::Origin(most) => {
                write!(f, "{most} connections of its address are open (--limit connections-per-address)")
            }
            Self::Strangers(most) => {
                write!(f, "{most} connections have not introduced themselves yet (--limit strangers)")
            }
            Self::StrangersOfOrigin(most) => write!(
                f,
                "{most} connections of its address have not introduced themselves yet \
                 (--limit strangers-per-address)"
            ),
        }
    }
}

impl Places {
    /// All free; `all` of them at most.
    pub(crate) fn new(limits: &Limits, all: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            limits: Most {
                all,
                per_origin: limits.connections_per_address,
                strangers: limits.strangers,
                strangers_per_origin: limits.strangers_per_address,
            },
            last: 0,
            taken: 0,
            by_origin: BTreeMap::new(),
            strangers: BTreeMap::new(),
            strangers_by_origin: BTreeMap::new(),
        })))
    }

    /// A place for a stranger.
    ///
    /// # Errors
    /// Which of the limits is reached.
    pub(crate) fn take(&self, origin: Option<Origin>) -> Result<Place, Full> {
        let mut table = self.lock();
        table.check(origin)?;
        table.last += 1;
        table.taken += 1;
        let (id, displaced) = (table.last, CancellationToken::new());
        table.strangers.insert(id, Stranger { origin, displaced: displaced.clone() });
        if let Some(origin) = origin {
            *table.by_origin.entry(origin).or_default() += 1;
            *table.strangers_by_origin.entry(origin).or_default() += 1;
        }
        Ok(Place { id, origin, displaced, places: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check(&mut self, origin: Option<Origin>) -> Result<(), Full> {
        let of = |table: &BTreeMap<Origin, usize>| {
            origin.and_then(|origin| table.get(&origin).copied()).unwrap_or(0)
        };
        let Most { all, per_origin, strangers, strangers_per_origin } = self.limits;
        if self.taken >= all {
            return Err(Full::All(all));
        }
        if of(&self.by_origin) >= per_origin {
            return Err(Full::Origin(per_origin));
        }
        let own = of(&self.strangers_by_origin);
        if own >= strangers_per_origin {
            return Err(Full::StrangersOfOrigin(strangers_per_origin));
        }
        if self.strangers.len() >= strangers && !self.displace(own) {
            return Err(Full::Strangers(strangers));
        }
        Ok(())
    }

    /// Sends the oldest stranger of the most crowded address away, when that has more than one more than
    /// the newcomer's.
    fn displace(&mut self, own: usize) -> bool {
        let crowded = self.strangers_by_origin.iter().max_by_key(|(_, count)| **count);
        let Some((crowded, count)) = crowded.map(|(origin, count)| (*origin, *count)) else { return false };
        let oldest = self.strangers.iter().find(|(_, stranger)| stranger.origin == Some(crowded));
        let Some(oldest) = oldest.map(|(id, _)| *id).filter(|_| count > own + 1) else { return false };
        if let Some(stranger) = self.stranger_left(oldest) {
            stranger.displaced.cancel();
        }
        true
    }

    fn stranger_left(&mut self, id: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&id)?;
        subtract(&mut self.strangers_by_origin, stranger.origin);
        Some(stranger)
    }
}

/// One less. An address of which nothing is left is not remembered: there are many of them.
fn subtract(table: &mut BTreeMap<Origin, usize>, origin: Option<Origin>) {
    let Some(origin) = origin else { return };
    if let Some(count) = table.get_mut(&origin) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            table.remove(&origin);
        }
    }
}

/// The place of one connection; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    id: u64,
    origin: Option<Origin>,
    displaced: CancellationToken,
    places: Places,
}

impl Place {
    /// It is a stranger's no more.
    pub(crate) fn is_known(&self) {
        self.places.lock().stranger_left(self.id);
    }

    /// When it must make place for another stranger; never for one that is known.
    pub(crate) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.lock();
        table.stranger_left(self.id);
        table.taken = table.taken.saturating_sub(1);
        subtract(&mut table.by_origin, self.origin);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> Option<Origin> {
        Some(Origin::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn places() -> Places {
        let limits = Limits {
            connections_per_address: 4,
            strangers: 5,
            strangers_per_address: 3,
            ..Limits::default()
        };
        Places::new(&limits, 8)
    }

    #[test]
    fn each_limit_holds_and_what_is_left_is_free_again() {
        let places = places();
        let mut kept: Vec<_> = (0..3).map(|_| places.take(address(1)).unwrap()).collect();
        assert_eq!(places.take(address(1)).unwrap_err(), Full::StrangersOfOrigin(3));
        kept.iter().for_each(Place::is_known);
        kept.push(places.take(address(1)).unwrap());
        kept[3].is_known();
        assert_eq!(places.take(address(1)).unwrap_err(), Full::Origin(4));
        kept.extend((2..6).map(|last| places.take(address(last)).unwrap()));
        assert_eq!(places.take(address(9)).unwrap_err(), Full::All(8));
        kept.clear();
        let table = places.lock();
        assert!(table.taken == 0 && table.by_origin.is_empty() && table.strangers_by_origin.is_empty());
        assert!(table.strangers.is_empty());
    }

    #[test]
    fn a_crowd_of_strangers_makes_place_for_one_from_elsewhere() {
        let places = places();
        let crowd: Vec<_> = [1, 1, 1, 2, 2].map(|last| places.take(address(last)).unwrap()).into();
        let newcomer = places.take(address(3)).unwrap();
        let displaced: Vec<_> = crowd.iter().map(|place| place.displaced.is_cancelled()).collect();
        assert_eq!(displaced, [true, false, false, false, false]);
        assert!(!newcomer.displaced.is_cancelled());
        // Now nobody has two more than the second of a newcomer's would be.
        assert_eq!(places.take(address(3)).unwrap_err(), Full::Strangers(5));
        // The one that was sent away is not subtracted twice when it goes.
        drop(crowd);
        assert_eq!(places.lock().strangers_by_origin, BTreeMap::from([(address(3).unwrap(), 1)]));
    }

    #[test]
    fn peers_without_an_address_share_only_the_places_of_all() {
        let places = places();
        let kept: Vec<_> = (0..5).map(|_| places.take(None).unwrap()).collect();
        assert_eq!(places.take(None).unwrap_err(), Full::Strangers(5));
        assert_eq!(places.take(address(1)).unwrap_err(), Full::Strangers(5));
        drop(kept);
    }
}
