//! `requires.txt`: which SRPMs ask for more of a builder than the others. Parsing it, what an SRPM
//! asks for, and what a builder lacks of that.
//!
//! Knows bytes, names and numbers only: not which builders there are, or which of them gets what.

use std::collections::BTreeSet;
use std::fmt;

use moji_proto::{Resources, SrpmName, Tag};

use super::SrpmHeader;
use super::entries::{Entries, Value, Warning, check_no_folder, quoted};
use crate::options::size;
use crate::room::in_words;

/// How a demand is written, for the operator.
const FORM: &str = "memory=8G, disk=40G, cores=8 or tag=fast";

/// A list of what SRPMs ask for, as an operator wrote it.
#[derive(Debug, Clone, Default)]
pub struct Requires(Entries<Demand>);

/// What an SRPM asks for of the builder that gets it. By default it asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// Least memory for one slot, in bytes; 0: any.
    pub memory: u64,
    /// Least free disk, in bytes; 0: any.
    pub disk: u64,
    /// Least cores for one slot; 0: any.
    pub cores: u16,
    /// Tags that the builder must have.
    pub tags: BTreeSet<Tag>,
}

/// Something that a builder has too little of, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Memory for one slot, in bytes.
    Memory {
        /// What the SRPM asks for.
        wanted: u64,
        /// What the builder has; 0: it does not say.
        there: u64,
    },
    /// Free disk, in bytes.
    Disk {
        /// What the SRPM asks for.
        wanted: u64,
        /// What the builder has; 0: it does not say.
        there: u64,
    },
    /// Cores for one slot.
    Cores {
        /// What the SRPM asks for.
        wanted: u16,
        /// What the builder has; 0: it does not say.
        there: u16,
    },
    /// It does not have this tag.
    Tag(Tag),
}

impl Requires {
    /// Reads a list: on each line an entry as in `priority.txt`, then at least one demand
    /// (`memory=8G disk=40G cores=8 tag=fast`), with white space between. Comments, line ends,
    /// bounds and [`Warning`]s are those of [`Priority::parse`](super::Priority::parse).
    pub fn parse(bytes: &[u8]) -> Self {
        Self(Entries::parse(bytes))
    }

    /// What an SRPM asks for: what all lines that match its file name, its NVR or its name ask for
    /// together, the largest of each number and all tags.
    pub fn demand(&self, name: &SrpmName, header: &SrpmHeader) -> Demand {
        let mut demand = Demand::default();
        for more in self.0.exact(name, header).chain(self.0.each_glob(name, header)) {
            demand.add(more);
        }
        demand
    }

    /// What was not understood, first line first; at most 100, see [`Requires::unsaid`].
    pub fn warnings(&self) -> &[Warning] {
        &self.0.warnings.said
    }

    /// How many warnings there are beyond those in [`Requires::warnings`].
    pub fn unsaid(&self) -> usize {
        self.0.warnings.unsaid
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no SRPM asks for anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Demand {
    /// Whether any builder will do.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What a builder with these resources and tags has too little of; empty when it will do. One
    /// that does not say how much it has, has too little: whoever asks for 32 GiB of memory does so
    /// because less has failed.
    pub fn lacks(&self, resources: &Resources, tags: &[Tag]) -> Vec<Lack> {
        let Resources { cores, memory, disk } = *resources;
        let numbers = [
            (memory < self.memory).then_some(Lack::Memory { wanted: self.memory, there: memory }),
            (disk < self.disk).then_some(Lack::Disk { wanted: self.disk, there: disk }),
            (cores < self.cores).then_some(Lack::Cores { wanted: self.cores, there: cores }),
        ];
        let missing = self.tags.iter().filter(|tag| !tags.contains(tag)).cloned().map(Lack::Tag);
        numbers.into_iter().flatten().chain(missing).collect()
    }

    fn add(&mut self, other: &Self) {
        self.memory = self.memory.max(other.memory);
        self.disk = self.disk.max(other.disk);
        self.cores = self.cores.max(other.cores);
        self.tags.extend(other.tags.iter().cloned());
    }
}

impl Value for Demand {
    fn read(_line: u32, text: &str) -> Result<(&str, Self), String> {
        let mut parts = text.split_whitespace();
        let entry = parts.next().unwrap_or_default();
        check_no_folder(entry, "requires.txt")?;
        let mut demand = Self::default();
        for part in parts {
            demand.add(&read_demand(part)?);
        }
        if demand.is_nothing() {
            return Err(format!("{} asks for nothing: what follows it is {FORM}", quoted(entry)));
        }
        Ok((entry, demand))
    }

    fn join(&mut self, later: Self) {
        self.add(&later);
    }
}

/// One demand.
fn read_demand(text: &str) -> Result<Demand, String> {
    let wrong = |why: &dyn fmt::Display| format!("{} is no demand: {why}", quoted(text));
    let (kind, value) = text.split_once('=').ok_or_else(|| wrong(&format_args!("write {FORM}")))?;
    let mut demand = Demand::default();
    match kind {
        "memory" => demand.memory = size(value).map_err(|why| wrong(&why))?,
        "disk" => demand.disk = size(value).map_err(|why| wrong(&why))?,
        "cores" => {
            demand.cores = value.parse().map_err(|_| wrong(&"cores are a whole number, up to 65535"))?;
        }
        "tag" => {
            demand.tags.insert(value.parse().map_err(|why| wrong(&why))?);
        }
        _ => return Err(wrong(&format_args!("write {FORM}"))),
    }
    if demand.is_nothing() {
        return Err(wrong(&"0 is what everybody has"));
    }
    Ok(demand)
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { wanted, there } => sizes(f, "memory", *wanted, *there),
            Self::Disk { wanted, there } => sizes(f, "free disk", *wanted, *there),
            Self::Cores { wanted, there: 0 } => {
                write!(f, "{} wanted, the builder does not say how many it has", cores(*wanted))
            }
            Self::Cores { wanted, there } => write!(f, "{} wanted, {there} there", cores(*wanted)),
            Self::Tag(tag) => write!(f, "the tag {tag} wanted"),
        }
    }
}

fn sizes(f: &mut fmt::Formatter<'_>, what: &str, wanted: u64, there: u64) -> fmt::Result {
    let has = match in_words(there) {
        _ if there == 0 => "the builder does not say how much it has".to_owned(),
        // Almost enough: 8 GiB are not 8 GiB then.
        has if has == in_words(wanted) => format!("{} less there", in_words(wanted.saturating_sub(there))),
        has => format!("{has} there"),
    };
    write!(f, "{} of {what} wanted, {has}", in_words(wanted))
}

fn cores(number: u16) -> String {
    if number == 1 { "1 core".to_owned() } else { format!("{number} cores") }
}
