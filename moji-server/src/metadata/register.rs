//! What is known of the fixed generations of one repository: one small file in the private folder.
//!
//! It is a help, not the truth: without it the generations themselves are read. It deliberately does not
//! touch them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use moji_proto::Sha256;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::durable;

/// The file's content.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Register {
    /// The generations that are there.
    pub(super) made: BTreeMap<u64, Made>,
    /// The first and the last generation that names a link. One in between may not, which costs a link
    /// that stays longer.
    pub(super) links: BTreeMap<String, (u64, u64)>,
}

/// A generation that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The digest of the served `repomd.xml` that it was made from; `None` when that was forgotten.
    pub(super) of: Option<Sha256>,
    /// Of its metadata.
    pub(super) bytes: u64,
    /// Since when another one is served, in seconds since 1970.
    pub(super) superseded: Option<u64>,
    /// How many of its packages can have no link, and why not one of them.
    #[serde(default)]
    pub(super) loose: Option<(usize, String)>,
}

impl Register {
    /// Reads the file. A missing or damaged one is an empty register.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!("{} is damaged ({error}): the generations are read instead", path.display());
            Self::default()
        }))
    }

    /// Writes the file durably, whole or not at all.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        durable::write_whole(path, &serde_json::to_vec(self)?)
    }

    /// Takes in a generation and the links that it names.
    pub(super) fn add(&mut self, number: u64, made: Made, links: impl IntoIterator<Item = String>) {
        self.made.insert(number, made);
        for link in links {
            let (first, last) = self.links.entry(link).or_insert((number, number));
            (*first, *last) = ((*first).min(number), (*last).max(number));
        }
    }

    /// The links that a generation names.
    pub(super) fn links_of(&self, number: u64) -> impl Iterator<Item = &String> {
        self.links
            .iter()
            .filter(move |(_, (first, last))| (*first..=*last).contains(&number))
            .map(|(link, _)| link)
    }

    /// All but one are superseded, those that were not yet, at `now`. Gives whether that is news.
    pub(super) fn supersede_but(&mut self, served: u64, now: u64) -> bool {
        let mut is_news = false;
        for (number, made) in &mut self.made {
            let superseded = (*number != served).then(|| made.superseded.unwrap_or(now));
            is_news |= std::mem::replace(&mut made.superseded, superseded) != superseded;
        }
        is_news
    }

    /// Forgets the links that are not among those that are there, in order, and what the generations are that name
    /// them: nothing is built upon these. Gives whether that is news.
    pub(super) fn forget_lost(&mut self, there: &[String]) -> bool {
        let made = &mut self.made;
        let before = self.links.len();
        self.links.retain(|link, (first, last)| {
            let is_there = there.binary_search(link).is_ok();
            if !is_there {
                made.range_mut(*first..=(*last).max(*first)).for_each(|(_, made)| made.of = None);
            }
            is_there
        });
        self.links.len() != before
    }

    /// Forgets the links that no generation names that is still there.
    pub(super) fn forget_links(&mut self) {
        let made = &self.made;
        self.links.retain(|_, (first, last)| made.range(*first..=(*last).max(*first)).next().is_some());
    }
}
