//! How long a build will take, from how long builds took.
//!
//! What is known best decides: this package on builders of this class, else this package elsewhere, else
//! packages whose SRPM is about as large, else a plain guess. Each says how far it was off lately, so
//! that nobody takes a guess for knowledge.
//!
//! Pure: whole milliseconds, no clock, and the same history gives the same numbers. It deliberately does not
//! know queues, builders or where the history is kept.

mod class;
mod eta;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use class::{BuilderClass, ClassError};
pub use eta::{Eta, eta};
use window::Window;

/// What a build takes when nothing at all is known.
const DEFAULT_MILLIS: u64 = 60_000;
/// How many attempts of a package in a class count: enough that one odd one does not, few enough that a
/// new version's own speed is soon known.
const ATTEMPTS: usize = 5;
/// Packages that are remembered.
const PACKAGES_MAX: usize = 32 * 1024;
/// Classes that are remembered: what a builder says of itself must not fill the memory.
const CLASSES_MAX: usize = 32;
/// How many packages must have been built on a class before sizes are compared within it alone.
const ENOUGH: usize = 8;
/// Longest time that counts: a month.
const MILLIS_MAX: u64 = 31 * 24 * 3600 * 1000;
/// The unit of ratios.
const THOUSAND: u64 = 1000;

/// An attempt that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The package's name.
    pub package: String,
    /// Where it was built.
    pub class: BuilderClass,
    /// Bytes of its SRPM, when that is known.
    pub size: Option<u64>,
    /// From the lease to the results.
    pub took: Duration,
}

/// How long a build will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// Most likely.
    pub time: Duration,
    /// A quarter of such guesses was too long by at least this much.
    pub low: Duration,
    /// A quarter of them was too short by at least this much.
    pub high: Duration,
    /// Where it comes from.
    pub basis: Basis,
}

/// Where an expectation comes from, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Earlier attempts at this package, on such builders.
    History,
    /// Earlier attempts at this package, on other builders.
    OtherClass,
    /// Other packages of about this size.
    Size,
    /// Nothing.
    Default,
}

impl Basis {
    /// How far off it is taken to be until that is known, in thousandths.
    fn usual(self) -> (u64, u64) {
        match self {
            Self::History => (800, 1300),
            Self::OtherClass => (600, 1700),
            Self::Size => (300, 3000),
            Self::Default => (100, 10_000),
        }
    }
}

/// How long builds took, as far as it is remembered.
#[derive(Debug, Default, Clone)]
pub struct Estimates {
    packages: BTreeMap<Arc<str>, Package>,
    /// The names of `packages` by [`Package::learnt`].
    by_age: BTreeMap<u64, Arc<str>>,
    /// When each class was last heard of.
    classes: BTreeMap<BuilderClass, u64>,
    /// How many times as long the first class takes as the second one, in thousandths.
    ratios: BTreeMap<(BuilderClass, BuilderClass), Window>,
    /// Thousandths of a millisecond for each unit of [`extent`], everywhere (`None`) and by class.
    pace: BTreeMap<Option<BuilderClass>, Window>,
    /// How many times as long as expected builds took, in thousandths.
    errors: BTreeMap<Basis, Window>,
    /// Counts what was learnt.
    now: u64,
}

#[derive(Debug, Default, Clone)]
struct Package {
    classes: BTreeMap<BuilderClass, Recent>,
    learnt: u64,
}

/// The last attempts, oldest first, in milliseconds.
#[derive(Debug, Default, Clone)]
struct Recent(Vec<u64>);

impl Recent {
    fn push(&mut self, millis: u64) {
        if self.0.len() >= ATTEMPTS {
            self.0.remove(0);
        }
        self.0.push(millis);
    }

    fn median(&self) -> Option<u64> {
        window::median(self.0.clone())
    }
}

impl Estimates {
    /// Takes in what a history knows, oldest first.
    pub fn from_history(samples: impl IntoIterator<Item = Sample>) -> Self {
        let mut estimates = Self::default();
        samples.into_iter().for_each(|sample| estimates.learn(&sample));
        estimates
    }

    /// Takes in an attempt that succeeded.
    pub fn learn(&mut self, sample: &Sample) {
        let Sample { package, class, size, took } = sample;
        let actual = millis(*took);
        let size = size.unwrap_or(0);
        // What would have been said before is what such guesses are measured by.
        let (guess, basis) = self.guess(package, Some(class), size);
        let name: Arc<str> = self
            .packages
            .get_key_value(package.as_str())
            .map_or_else(|| Arc::from(package.as_str()), |(name, _)| Arc::clone(name));
        self.errors.entry(basis).or_default().put(&name, ratio(actual, guess));

        self.now += 1;
        let known = self.packages.entry(Arc::clone(&name)).or_default();
        self.by_age.remove(&known.learnt);
        known.learnt = self.now;
        known.classes.entry(class.clone()).or_default().push(actual);
        self.by_age.insert(self.now, Arc::clone(&name));
        self.classes.insert(class.clone(), self.now);
        self.compare(&name, class);
        if let Some(median) = self.median(&name, class).filter(|_| size > 0) {
            let pace = ratio(median, extent(size));
            for key in [None, Some(class.clone())] {
                self.pace.entry(key).or_default().put(&name, pace);
            }
        }
        self.forget();
    }

    /// How long a build of this package will take on such a builder, or on whichever comes (`None`).
    /// `size`: of the SRPM in bytes; 0 when it is not known.
    pub fn expect(&self, package: &str, class: Option<&BuilderClass>, size: u64) -> Expectation {
        let (guess, basis) = self.guess(package, class, size);
        let quartiles = self.errors.get(&basis).filter(|errors| errors.len() >= ENOUGH);
        let (low, high) = quartiles.map_or(basis.usual(), Window::quartiles);
        let part = |thousandths: u64| guess.saturating_mul(thousandths) / THOUSAND;
        Expectation {
            time: Duration::from_millis(guess),
            low: Duration::from_millis(part(low).min(guess)),
            high: Duration::from_millis(part(high).clamp(guess, guess.max(MILLIS_MAX))),
            basis,
        }
    }

    fn guess(&self, package: &str, class: Option<&BuilderClass>, size: u64) -> (u64, Basis) {
        let (guess, basis) = self
            .of_package(package, class)
            .or_else(|| Some((self.of_size(class, size)?, Basis::Size)))
            .unwrap_or((DEFAULT_MILLIS, Basis::Default));
        (guess.clamp(1, MILLIS_MAX), basis)
    }

    fn of_package(&self, package: &str, class: Option<&BuilderClass>) -> Option<(u64, Basis)> {
        let known = self.packages.get(package)?;
        let Some(class) = class else {
            let medians = known.classes.values().filter_map(Recent::median).collect();
            return Some((window::median(medians)?, Basis::History));
        };
        if let Some(own) = self.median(package, class) {
            return Some((own, Basis::History));
        }
        let scaled = known.classes.iter().filter_map(|(other, recent)| {
            let ratio = self.ratios.get(&(class.clone(), other.clone())).map_or(THOUSAND, Window::median);
            Some(recent.median()?.saturating_mul(ratio) / THOUSAND)
        });
        Some((window::median(scaled.collect())?, Basis::OtherClass))
    }

    fn of_size(&self, class: Option<&BuilderClass>, size: u64) -> Option<u64> {
        if size == 0 {
            return None;
        }
        let own = class.and_then(|class| self.pace.get(&Some(class.clone())));
        let pace = own.filter(|own| own.len() >= ENOUGH).or_else(|| self.pace.get(&None))?;
        Some(extent(size).saturating_mul(pace.median()) / THOUSAND)
    }

    fn median(&self, package: &str, class: &BuilderClass) -> Option<u64> {
        self.packages.get(package)?.classes.get(class)?.median()
    }

    /// What this package tells about how its classes compare.
    fn compare(&mut self, name: &Arc<str>, class: &BuilderClass) {
        let Some(known) = self.packages.get(name) else { return };
        let Some(own) = known.classes.get(class).and_then(Recent::median) else { return };
        for (other, recent) in known.classes.iter().filter(|(other, _)| *other != class) {
            let Some(median) = recent.median() else { continue };
            let pairs = [(class, other, ratio(own, median)), (other, class, ratio(median, own))];
            for (a, b, ratio) in pairs {
                self.ratios.entry((a.clone(), b.clone())).or_default().put(name, ratio);
            }
        }
    }

    /// Drops what was learnt longest ago, of what is too much.
    fn forget(&mut self) {
        while self.packages.len() > PACKAGES_MAX
            && let Some((_, name)) = self.by_age.pop_first()
        {
            self.packages.remove(&name);
        }
        while self.classes.len() > CLASSES_MAX {
            let oldest = self.classes.iter().min_by_key(|(_, learnt)| **learnt);
            let Some(oldest) = oldest.map(|(class, _)| class.clone()) else { return };
            self.classes.remove(&oldest);
            self.pace.remove(&Some(oldest.clone()));
            self.ratios.retain(|(a, b), _| *a != oldest && *b != oldest);
            for package in self.packages.values_mut() {
                package.classes.remove(&oldest);
            }
            self.packages.retain(|_, package| !package.classes.is_empty());
            self.by_age.retain(|_, name| self.packages.contains_key(name));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(MILLIS_MAX).clamp(1, MILLIS_MAX)
}

/// In thousandths; never 0, which would make all that is scaled by it nothing.
fn ratio(a: u64, b: u64) -> u64 {
    (a.saturating_mul(THOUSAND) / b.max(1)).max(1)
}

/// What build time is taken to grow with: the square root of the SRPM's size. A line of slope one half
/// through the logarithms fits: ten times the source is three times the build rather than ten, because most
/// of a large SRPM is data, documentation and tests.
fn extent(size: u64) -> u64 {
    size.isqrt().max(1)
}
