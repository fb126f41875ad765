//! Globs over names: `*`, `?` and `[..]`, nothing else. All globs of a list are tried at once.
//!
//! A bit stands for a place in a glob: "the name so far matches the glob up to here". A byte of
//! the name moves all bits of all globs on by one, 64 with each operation (Shift-And, Baeza-Yates
//! and Gonnet 1992). So the cost is the length of the globs times that of the name, whatever is in
//! them. Not globset: it takes minutes for a thousand globs that begin with `*`.

/// A glob over ASCII names. Matches the whole name, upper and lower case apart.
#[derive(Debug, Default)]
pub(super) struct Glob {
    /// Whether a `*` stands at its start.
    any_start: bool,
    /// What the bytes of a name have to be, and whether a `*` follows.
    units: Vec<(Unit, bool)>,
}

/// What one byte of a name has to be.
#[derive(Debug)]
enum Unit {
    Byte(u8),
    Any,
    Class { ranges: Vec<(u8, u8)>, negated: bool },
}

impl Unit {
    fn is(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::Any => true,
            Self::Class { ranges, negated } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte)) != *negated
            }
        }
    }
}

impl Glob {
    /// Reads `text`.
    ///
    /// # Errors
    /// When a `[` is not closed or a range runs backwards: what is wrong, as text.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        let mut glob = Self::default();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            let unit = match first {
                b'*' => {
                    let star = glob.units.last_mut().map_or(&mut glob.any_start, |(_, star)| star);
                    *star = true;
                    continue;
                }
                b'?' => Unit::Any,
                b'[' => {
                    let (class, after) = class(rest)?;
                    rest = after;
                    class
                }
                byte => Unit::Byte(*byte),
            };
            glob.units.push((unit, false));
        }
        Ok(glob)
    }

    /// How many places it has: one before each unit, and its end.
    pub(super) fn places(&self) -> usize {
        self.units.len() + 1
    }
}

/// The class after a `[`, and what follows its `]`. A `]` at its start stands for itself, and so
/// does a `-` at its start or end.
fn class(text: &[u8]) -> Result<(Unit, &[u8]), &'static str> {
    let (negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        match rest {
            [] => return Err("its [ is not closed"),
            [b']', after @ ..] if !ranges.is_empty() => {
                return Ok((Unit::Class { ranges, negated }, after));
            }
            [from, b'-', to, after @ ..] if *to != b']' => {
                if from > to {
                    return Err("a range in its [] runs backwards");
                }
                ranges.push((*from, *to));
                rest = after;
            }
            [byte, after @ ..] => {
                ranges.push((*byte, *byte));
                rest = after;
            }
        }
    }
}

/// Globs in their order, all tried at once.
#[derive(Debug, Clone, Default)]
pub(super) struct GlobSet {
    /// The place after the last one of each glob.
    ends: Vec<usize>,
    /// The places where globs begin, where they end, and where a `*` lets them stay at any byte.
    begin: Vec<u64>,
    end: Vec<u64>,
    stay: Vec<u64>,
    /// For each ASCII byte, the places to which it leads from the place before.
    lead: Vec<Vec<u64>>,
}

impl GlobSet {
    pub(super) fn new(globs: &[Glob]) -> Self {
        let words = globs.iter().map(Glob::places).sum::<usize>().div_ceil(64);
        let none = vec![0; words];
        let mut set = Self {
            ends: Vec::with_capacity(globs.len()),
            begin: none.clone(),
            end: none.clone(),
            stay: none.clone(),
            lead: vec![none; if globs.is_empty() { 0 } else { 128 }],
        };
        let mut place = 0;
        for glob in globs {
            put(&mut set.begin, place, true);
            put(&mut set.stay, place, glob.any_start);
            for (unit, star) in &glob.units {
                place += 1;
                put(&mut set.stay, place, *star);
                for (byte, lead) in (0..).zip(&mut set.lead) {
                    put(lead, place, unit.is(byte));
                }
            }
            put(&mut set.end, place, true);
            place += 1;
            set.ends.push(place);
        }
        set
    }

    /// Which of the first `count` globs is the first that matches `name` up to one of `lengths`.
    pub(super) fn first(&self, count: usize, name: &str, lengths: &[usize]) -> Option<usize> {
        let mut first = count;
        self.run(count, name, lengths, |mut ended| {
            if let Some((word, bits)) = Iterator::find(&mut ended, |(_, bits)| *bits != 0) {
                first = first.min(self.glob_at(word, bits));
            }
        });
        (first < count).then_some(first)
    }

    /// All globs that match `name` up to one of `lengths`, some of them more than once.
    pub(super) fn all(&self, name: &str, lengths: &[usize]) -> Vec<usize> {
        let mut all = Vec::new();
        self.run(self.ends.len(), name, lengths, |ended| {
            for (word, mut bits) in ended {
                while bits != 0 {
                    all.push(self.glob_at(word, bits));
                    bits &= bits - 1;
                }
            }
        });
        all
    }

    /// The glob that has the lowest place of `bits` in a word.
    fn glob_at(&self, word: usize, bits: u64) -> usize {
        let place = word * 64 + bits.trailing_zeros() as usize;
        self.ends.partition_point(|end| *end <= place)
    }

    /// Tries the first `count` globs, and tells for each of `lengths` the words of ends that were
    /// reached; ends of more than those may be among them.
    fn run(
        &self,
        count: usize,
        name: &str,
        lengths: &[usize],
        mut tell: impl FnMut(&mut dyn Iterator<Item = (usize, u64)>),
    ) {
        let Some(words) = self.ends.get(..count).and_then(<[_]>::last).map(|end| end.div_ceil(64)) else {
            return;
        };
        // With a word of zeros before them: then the words do not depend on each other, and the
        // compiler takes several at once.
        let mut at = vec![0];
        at.extend(self.begin.iter().take(words));
        let mut next = at.clone();
        for (length, byte) in (1..).zip(name.bytes()) {
            let Some(lead) = self.lead.get(usize::from(byte)) else { return };
            let masks = lead.iter().zip(&self.stay);
            let words = at.iter().zip(at.get(1..).unwrap_or_default()).zip(masks);
            for (next, ((low, high), (lead, stay))) in
                next.get_mut(1..).unwrap_or_default().iter_mut().zip(words)
            {
                *next = (high << 1 | low >> 63) & lead | high & stay;
            }
            std::mem::swap(&mut at, &mut next);
            if lengths.contains(&length) {
                tell(
                    &mut (0..)
                        .zip(at.get(1..).unwrap_or_default().iter().zip(&self.end).map(|(at, end)| at & end)),
                );
            }
            if at.iter().all(|word| *word == 0) {
                return;
            }
        }
    }
}

fn put(words: &mut [u64], place: usize, on: bool) {
    if let Some(word) = words.get_mut(place / 64) {
        *word |= u64::from(on) << (place % 64);
    }
}
