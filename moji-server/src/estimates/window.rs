//! The newest figure of each of the packages that were heard of last, and their middle.
//!
//! It deliberately does not know what the figures mean.

use std::collections::VecDeque;
use std::sync::Arc;

/// How many packages are enough for a median, and few enough to be sorted at each change.
const MOST: usize = 63;

/// A figure for each of the last packages. One package counts once, however often it is built.
#[derive(Debug, Default, Clone)]
pub(super) struct Window {
    recent: VecDeque<(Arc<str>, u64)>,
    /// A quarter, the middle, three quarters.
    quartiles: (u64, u64, u64),
}

impl Window {
    pub(super) fn put(&mut self, package: &Arc<str>, figure: u64) {
        self.recent.retain(|(known, _)| known != package);
        if self.recent.len() >= MOST {
            self.recent.pop_front();
        }
        self.recent.push_back((Arc::clone(package), figure));
        let mut sorted: Vec<u64> = self.recent.iter().map(|(_, figure)| *figure).collect();
        sorted.sort_unstable();
        let quarter = |quarters: usize| at(&sorted, (sorted.len() - 1) * quarters);
        self.quartiles = (quarter(1), quarter(2), quarter(3));
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len()
    }

    pub(super) fn median(&self) -> u64 {
        self.quartiles.1
    }

    pub(super) fn quartiles(&self) -> (u64, u64) {
        (self.quartiles.0, self.quartiles.2)
    }
}

/// The figure at a place that is counted in quarters, between its neighbours if need be.
fn at(sorted: &[u64], quarters: usize) -> u64 {
    let below = sorted.get(quarters / 4).copied().unwrap_or(0);
    let above = sorted.get(quarters.div_ceil(4)).copied().unwrap_or(below);
    let part = (quarters % 4) as u64;
    below + (above - below).saturating_mul(part) / 4
}

/// The middle one; between two, half-way.
pub(super) fn median(mut figures: Vec<u64>) -> Option<u64> {
    figures.sort_unstable();
    let last = figures.len().checked_sub(1)?;
    Some(at(&figures, last * 2))
}
