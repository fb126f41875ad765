//! The lines of logs that tell why builds failed, kept for those that are asked for again and again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use moji_proto::api::Excerpt;
use moji_proto::{ArtifactName, AttemptId, LogFile};

use super::places::Places;
use crate::report::excerpt_of;

/// How many are kept.
const KEPT: usize = 64;

/// What was read; the newest last. The lock is held for a look, never while a log is read.
#[derive(Debug, Default)]
pub(super) struct Excerpts(Mutex<VecDeque<(AttemptId, Option<Excerpt>)>>);

impl Excerpts {
    /// Of an attempt whose logs are published, and do not change any more. Blocks.
    pub(super) fn of(&self, places: &Places<'_>, attempt: AttemptId) -> Option<Excerpt> {
        let kept = |this: &Self| {
            let kept = this.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().find(|(of, _)| *of == attempt).map(|(_, excerpt)| excerpt.clone())
        };
        if let Some(excerpt) = kept(self) {
            return excerpt;
        }
        let (excerpt, was_there) = read(places, attempt);
        if was_there {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back((attempt, excerpt.clone()));
            while kept.len() > KEPT {
                kept.pop_front();
            }
        }
        excerpt
    }
}

/// The excerpt, and whether there was a log.
fn read(places: &Places<'_>, attempt: AttemptId) -> (Option<Excerpt>, bool) {
    let mut was_there = false;
    for log in [LogFile::Build, LogFile::Root].map(LogFile::file_name) {
        let Ok(name) = ArtifactName::new(log) else { continue };
        let Ok(file) = places.open_published(attempt, &name) else { continue };
        was_there = true;
        if let Ok(Some(found)) = excerpt_of(file) {
            return (Some(Excerpt { log: log.to_owned(), lines: found.lines }), true);
        }
    }
    (None, was_there)
}
