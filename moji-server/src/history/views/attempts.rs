//! Attempts: one, and to which builds some belong.

use std::collections::BTreeMap;

use moji_proto::AttemptId;

use super::rows::{ATTEMPT, attempt};
use super::{Done, FoundAttempt, Views};
use crate::BuildKey;

impl Views {
    /// An attempt.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn attempt(&self, id: AttemptId) -> Done<Option<FoundAttempt>> {
        let sql = format!(
            "SELECT {ATTEMPT}, b.id, b.target, b.srpm FROM attempts a JOIN builds b ON b.id = a.build \
             WHERE a.id = ?1"
        );
        self.row(&sql, [id.to_string()], |row| {
            let key = BuildKey { target: row.maybe_parsed(14)?, srpm: row.parsed(15)? };
            Ok(FoundAttempt { build: row.unsigned(13)?, key, attempt: attempt(row)? })
        })
    }

    /// The numbers of the builds of these attempts.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn numbers(&self, attempts: &[AttemptId]) -> Done<BTreeMap<AttemptId, u64>> {
        let mut numbers = BTreeMap::new();
        for id in attempts {
            let sql = "SELECT build FROM attempts WHERE id = ?1";
            if let Some(number) = self.row(sql, [id.to_string()], |row| row.unsigned(0))? {
                numbers.insert(*id, number);
            }
        }
        Ok(numbers)
    }
}
