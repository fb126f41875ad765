//! Sums over many builds: of the farm, of targets, packages and builders.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use moji_proto::api::{
    Build, BuildState, BuilderTotals, History, PAGE_MAX, Package, PackageDetail, Page, Throughput, Took,
};
use moji_proto::{FailureKind, TargetName};
use rusqlite::params;

use super::rows::seconds;
use super::{BuildFilter, Done, Views, containing};
use crate::history::words::{Word, bytes, micros};

/// What a package's chart shows.
const DURATIONS_MAX: u32 = 200;
/// How far back builders are judged.
const DAYS: i64 = 30;
/// Of how many builds of a builder the speed is compared,
const COMPARED: u32 = 50;
/// each with so many of the others.
const WITH: u32 = 10;
/// Builds that a builder's page shows.
const SETTLED: u32 = 50;

fn before(now: Timestamp, hours: i64) -> i64 {
    micros(now.saturating_sub(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The middle one.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

impl Views {
    /// What has become of builds lately.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn throughput(&self, now: Timestamp) -> Done<Throughput> {
        Ok(Throughput { hour: self.settled_in(now, 1)?, day: self.settled_in(now, 24)? })
    }

    fn settled_in(&self, now: Timestamp, hours: i64) -> Done<History> {
        let count = |state: BuildState| {
            let sql = "SELECT count(*) FROM builds WHERE state = ?1 AND settled_at >= ?2";
            let found = self.row(sql, params![state.word(), before(now, hours)], |row| row.unsigned(0))?;
            Done::Ok(found.unwrap_or(0))
        };
        let (succeeded, failed) = (count(BuildState::Succeeded)?, count(BuildState::Failed)?);
        Ok(History { succeeded, failed, held: count(BuildState::Held)? })
    }

    /// What was settled in the last 24 hours, by target.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn day_of_targets(&self, now: Timestamp) -> Done<BTreeMap<Option<TargetName>, History>> {
        let sql =
            "SELECT target, state, count(*) FROM builds WHERE settled_at >= ?1 GROUP BY +target, +state";
        let read = |row: &super::Columns<'_>| {
            Ok((row.maybe_parsed(0)?, row.0.get::<_, String>(1)?, row.unsigned(2)?))
        };
        let mut days: BTreeMap<_, History> = BTreeMap::new();
        for (target, state, count) in self.rows(sql, [before(now, 24)], read)? {
            let day = days.entry(target).or_default();
            match state.parse() {
                Ok(BuildState::Succeeded) => day.succeeded += count,
                Ok(BuildState::Failed) => day.failed += count,
                Ok(BuildState::Held) => day.held += count,
                _ => {}
            }
        }
        Ok(days)
    }

    /// Packages by name; those with `search` in it. [`Page::next`] is what to skip for the next part.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn packages(&self, search: Option<&str>, skip: u64, limit: u32) -> Done<Page<Package>> {
        let limit = limit.clamp(1, PAGE_MAX);
        let pattern = search.filter(|text| !text.is_empty()).map(containing);
        let sql = r"SELECT name, count(*), max(id) FROM builds
                    WHERE name IS NOT NULL AND (?1 IS NULL OR name LIKE ?1 ESCAPE '\')
                    GROUP BY name ORDER BY name LIMIT ?2 OFFSET ?3";
        let read =
            |row: &super::Columns<'_>| Ok((row.0.get::<_, String>(0)?, row.unsigned(1)?, row.unsigned(2)?));
        let mut found = self.rows(sql, params![pattern, limit + 1, bytes(skip)], read)?;
        let size = usize::try_from(limit).unwrap_or(usize::MAX);
        let next = (found.len() > size).then(|| skip.saturating_add(limit.into()));
        found.truncate(size);
        let last = self.outlines(&found.iter().map(|(.., last)| *last).collect::<Vec<_>>())?;
        let package = |((name, builds, _), last)| Package { name, builds, last };
        let items = found.into_iter().zip(last).map(package).collect();
        let sql = r"SELECT count(DISTINCT name) FROM builds
                    WHERE name IS NOT NULL AND (?1 IS NULL OR name LIKE ?1 ESCAPE '\')";
        let total = self.row(sql, params![pattern], |row| row.unsigned(0))?;
        Ok(Page { items, next, total })
    }

    /// A package; only of one target's builds when one is given.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn package(&self, name: &str, target: Option<&TargetName>) -> Done<Option<PackageDetail>> {
        let filter = BuildFilter {
            package: Some(name.to_owned()),
            target: target.cloned().map(Some),
            limit: PAGE_MAX,
            ..BuildFilter::default()
        };
        let builds = self.builds(&filter)?.items;
        if builds.is_empty() {
            return Ok(None);
        }
        let sql = "SELECT a.ended_at, a.leased_at, a.builder, a.target \
                   FROM (SELECT id, settled_by FROM builds WHERE name = ?1 AND +state = 'succeeded' \
                   AND (?2 IS NULL OR +target = ?2) ORDER BY id DESC LIMIT ?3) b \
                   JOIN attempts a ON a.id = b.settled_by WHERE a.ended_at IS NOT NULL";
        let values = params![name, target.map(|target| target.as_str()), DURATIONS_MAX];
        let mut durations = self.rows(sql, values, |row| {
            let (at, builder) = (row.time(0)?, row.0.get(2)?);
            Ok(Took { at, seconds: seconds(row.time(1)?, at), builder, target: row.parsed(3)? })
        })?;
        durations.sort_by_key(|took| took.at);
        Ok(Some(PackageDetail { name: name.to_owned(), builds, durations }))
    }

    /// What a builder did in the last 30 days, and the builds that it settled last.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn builder(&self, id: &str, now: Timestamp) -> Done<(BuilderTotals, Vec<Build>)> {
        let since = before(now, DAYS * 24);
        // One pass without a sort: a busy builder has made many attempts.
        let kinds: Vec<_> = <FailureKind as Word>::ALL.iter().map(|kind| (*kind, kind.word())).collect();
        let counts: String =
            kinds.iter().map(|(_, word)| format!(", count(*) FILTER (WHERE failure = '{word}')")).collect();
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE outcome = 'succeeded'), \
             count(*) FILTER (WHERE ending = 'lost'){counts} FROM attempts WHERE builder = ?1 AND ended_at >= ?2"
        );
        let read = |row: &super::Columns<'_>| {
            let mut failed = Vec::new();
            for (at, (kind, _)) in (3..).zip(&kinds) {
                failed.push((*kind, row.unsigned(at)?));
            }
            failed.retain(|(_, count)| *count > 0);
            let (attempts, succeeded, lost) = (row.unsigned(0)?, row.unsigned(1)?, row.unsigned(2)?);
            Ok(BuilderTotals { attempts, succeeded, lost, failed, percent_of_others: None })
        };
        let mut totals = self.row(&sql, params![id, since], read)?.unwrap_or_default();
        totals.percent_of_others = self.percent_of_others(id, since)?;
        let filter = BuildFilter { builder: Some(id.to_owned()), limit: SETTLED, ..BuildFilter::default() };
        Ok((totals, self.builds(&filter)?.items))
    }

    /// How long the builder's last packages took it, compared with the others' median for each: the middle one
    /// of these.
    fn percent_of_others(&self, builder: &str, since: i64) -> Done<Option<u64>> {
        let sql = "SELECT b.name, max(a.ended_at - a.leased_at, 0) FROM (SELECT id, name, settled_by FROM builds \
                   WHERE builder = ?1 AND +state = 'succeeded' AND +settled_at >= ?2 AND name IS NOT NULL \
                   ORDER BY id DESC LIMIT ?3) b JOIN attempts a ON a.id = b.settled_by";
        let read = |row: &super::Columns<'_>| Ok((row.0.get::<_, String>(0)?, row.unsigned(1)?));
        let own = self.rows(sql, params![builder, since, COMPARED], read)?;
        let names: BTreeSet<_> = own.iter().map(|(name, _)| name).collect();
        let mut percents = Vec::new();
        for name in names {
            let sql = "SELECT max(a.ended_at - a.leased_at, 0) FROM (SELECT id, settled_by FROM builds \
                       WHERE name = ?1 AND +state = 'succeeded' AND +builder != ?2 AND +settled_at >= ?3 \
                       ORDER BY id DESC LIMIT ?4) b JOIN attempts a ON a.id = b.settled_by";
            let others = self.rows(sql, params![name, builder, since, WITH], |row| row.unsigned(0))?;
            let took = own.iter().filter(|(package, _)| package == name).map(|(_, took)| *took).collect();
            if let (Some(own), Some(others)) = (median(took), median(others))
                && others > 0
            {
                percents.push(own.saturating_mul(100) / others);
            }
        }
        Ok(median(percents))
    }
}
