//! Builds: parts of the list of them, and one with all that is known of it.

use jiff::Timestamp;
use moji_proto::api::{Artifact, Build, BuildDetail, BuildState, PAGE_MAX, Page};
use moji_proto::{AttemptId, FailureKind, TargetName};
use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

use super::rows::{ATTEMPT, BUILD, attempt, build};
use super::{BuildFilter, Done, Views, containing};
use crate::BuildKey;
use crate::history::sqlite::key;
use crate::history::words::{Word as _, bytes};
use crate::history::write::json;

/// What the rows of a list must be, in SQL.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// The first one finds the rows by its index, the others only choose among these (`+`): without
    /// statistics SQLite cannot know which of them leaves the least.
    fn add(&mut self, column: &str, condition: &str, value: impl Into<Value>) {
        let plus = if self.sql.is_empty() { "" } else { "+" };
        self.sql.push(format!("{plus}{column} {condition}"));
        self.values.push(value.into());
    }

    /// Those of a filter, the one that leaves the least first.
    fn of(filter: &BuildFilter, state: Option<BuildState>) -> Self {
        let mut all = Self::default();
        let rare = state.filter(|state| *state != BuildState::Succeeded);
        if let Some(package) = &filter.package {
            all.add("name", "= ?", package.clone());
        }
        if let Some(failure) = filter.failure {
            all.add("failure", "= ?", failure.word().to_owned());
        }
        if let Some(state) = rare {
            all.add("state", "= ?", state.word().to_owned());
        }
        if let Some(builder) = &filter.builder {
            all.add("builder", "= ?", builder.clone());
        }
        if let Some(target) = &filter.target {
            all.add("target", "IS ?", target.as_ref().map(ToString::to_string));
        }
        if let Some(state) = state.filter(|_| rare.is_none()) {
            all.add("state", "= ?", state.word().to_owned());
        }
        if let Some(text) = filter.search.as_ref().filter(|text| !text.is_empty()) {
            all.add("srpm", r"LIKE ? ESCAPE '\'", containing(text));
        }
        all
    }

    fn to_sql(&self, select: &str) -> String {
        let all = if self.sql.is_empty() { "1".to_owned() } else { self.sql.join(" AND ") };
        format!("SELECT {select} FROM builds WHERE {all}")
    }
}

/// One question for each state: so each is answered in the order of an index.
fn each_state(states: &[BuildState]) -> Vec<Option<BuildState>> {
    match states {
        [] => vec![None],
        states => {
            states.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().map(Some).collect()
        }
    }
}

impl Views {
    /// Builds, the newest first: those that were queued last.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn builds(&self, filter: &BuildFilter) -> Done<Page<Build>> {
        let limit = usize::try_from(filter.limit.clamp(1, PAGE_MAX)).unwrap_or(1);
        let mut ids = Vec::new();
        for state in each_state(&filter.states) {
            let mut conditions = Conditions::of(filter, state);
            // Always there, so that the statement is the same on each page.
            conditions.sql.push("id < ?".to_owned());
            conditions.values.push(bytes(filter.before.unwrap_or(u64::MAX)).into());
            conditions.values.push(bytes(limit as u64 + 1).into());
            let sql = conditions.to_sql("id") + " ORDER BY id DESC LIMIT ?";
            ids.extend(self.rows(&sql, params_from_iter(conditions.values), |row| row.unsigned(0))?);
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let is_more = ids.len() > limit;
        ids.truncate(limit);
        let items = self.outlines(&ids)?;
        let next = items.last().map(|build| build.id).filter(|_| is_more);
        let total = match (filter.before, next) {
            (None, None) => Some(items.len() as u64),
            _ => self.count(filter)?,
        };
        Ok(Page { items, next, total })
    }

    /// How many there are on all pages, where that takes no look at each.
    fn count(&self, filter: &BuildFilter) -> Done<Option<u64>> {
        if filter.search.as_ref().is_some_and(|text| !text.is_empty()) {
            return Ok(None);
        }
        let mut sum = 0;
        for state in each_state(&filter.states) {
            let conditions = Conditions::of(filter, state);
            let sql = conditions.to_sql("count(*)");
            sum += self.row(&sql, params_from_iter(conditions.values), |row| row.unsigned(0))?.unwrap_or(0);
        }
        Ok(Some(sum))
    }

    /// What was settled last, in these states (none: in any settled one), the last one first.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn settled_last(&self, states: &[BuildState], limit: u32) -> Done<Vec<Build>> {
        let all = [BuildState::Succeeded, BuildState::Failed, BuildState::Held];
        let states = if states.is_empty() { &all } else { states };
        let limit = limit.min(PAGE_MAX);
        let mut found: Vec<(Timestamp, u64)> = Vec::new();
        for state in states {
            let sql = "SELECT settled_at, id FROM builds WHERE state = ?1 AND settled_at IS NOT NULL \
                       ORDER BY settled_at DESC, id DESC LIMIT ?2";
            found.extend(
                self.rows(sql, params![state.word(), limit], |row| Ok((row.time(0)?, row.unsigned(1)?)))?,
            );
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        self.outlines(&found.into_iter().map(|(_, id)| id).collect::<Vec<_>>())
    }

    /// These builds, in this order; those that are not there are left out.
    pub(super) fn outlines(&self, ids: &[u64]) -> Done<Vec<Build>> {
        let sql = format!("SELECT {BUILD} ORDER BY wanted.key");
        self.rows(&sql, [json(&ids)], |row| build(row, self.now))
    }

    /// A build in outline.
    fn outline(&self, id: u64) -> Done<Option<Build>> {
        Ok(self.outlines(&[id])?.pop())
    }

    /// All that the history knows of a build: without excerpt and folder, and what runs is not told.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn build(&self, id: u64) -> Done<Option<BuildDetail>> {
        let Some(build) = self.outline(id)? else { return Ok(None) };
        let sql = "SELECT size, srpm_sha256 FROM builds WHERE id = ?1";
        let read = |row: &super::Columns<'_>| Ok((row.maybe_unsigned(0)?, row.maybe_parsed(1)?));
        let (size, sha256) = self.row(sql, [bytes(id)], read)?.unwrap_or((None, None));
        let sql = format!(
            "SELECT {ATTEMPT} FROM attempts a WHERE a.build = ?1 ORDER BY a.leased_at DESC, a.id DESC LIMIT ?2"
        );
        let attempts = self.rows(&sql, params![bytes(id), PAGE_MAX], attempt)?;
        let sql = "SELECT f.name, f.size, f.sha256 FROM builds b JOIN artifacts f ON f.attempt = b.settled_by \
                   WHERE b.id = ?1 ORDER BY f.name";
        let artifacts = self.rows(sql, [bytes(id)], |row| {
            Ok(Artifact { name: row.parsed(0)?, size: row.unsigned(1)?, sha256: row.parsed(2)? })
        })?;
        Ok(Some(BuildDetail { build, size, sha256, attempts, artifacts, folder: None, excerpt: None }))
    }

    /// The build that is meant: its number, an attempt's id, `[TARGET/]SRPM`, `[TARGET/]NVR` or `[TARGET/]package`;
    /// of several the newest.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn find(&self, reference: &str) -> Done<Option<(u64, BuildKey)>> {
        let by_number = reference.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(number) = reference.parse().ok().filter(|_| by_number)
            && let Some(found) = self.named("id = ?1", None, &bytes(number))?
        {
            return Ok(Some(found));
        }
        if let Ok(id) = reference.parse::<AttemptId>() {
            let is_its = "id = (SELECT build FROM attempts WHERE id = ?1)";
            return self.named(is_its, None, &id.to_string());
        }
        let (target, name) = match reference.split_once('/') {
            Some((target, name)) => (Some(target), name),
            None => (None, reference),
        };
        // Where the header could not be read, the file's name has to do.
        let names = [
            ("srpm = ?1", name.to_owned()),
            ("nvr = ?1", name.to_owned()),
            ("srpm = ?1", format!("{name}.src.rpm")),
        ];
        for (condition, name) in names.into_iter().chain([("name = ?1", name.to_owned())]) {
            if let Some(found) = self.named(condition, target, &name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The newest build of which that is true, of one target if one is given.
    fn named(
        &self,
        condition: &str,
        target: Option<&str>,
        value: &dyn rusqlite::ToSql,
    ) -> Done<Option<(u64, BuildKey)>> {
        let sql = format!(
            "SELECT target, srpm, id FROM builds WHERE {condition} \
             AND (?2 IS NULL OR (?2 IN ('any', '-') AND target IS NULL) OR +target = ?2) \
             ORDER BY id DESC LIMIT 1"
        );
        self.row(&sql, params![value, target], |row| Ok((row.unsigned(2)?, key(row)?)))
    }

    /// Builds that failed or are held, and of which no later one exists: what `retry` can mean. Not those that a
    /// person holds (nobody's fault): whoever lets these go names them.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn retryable(&self, kind: Option<FailureKind>, target: Option<&TargetName>) -> Done<Vec<BuildKey>> {
        let mut found = Vec::new();
        for state in [BuildState::Failed, BuildState::Held] {
            let sql = "SELECT target, srpm, id FROM builds b WHERE state = ?1 AND (?2 IS NULL OR +failure = ?2) \
                       AND (?3 IS NULL OR +target = ?3) \
                       AND (state != 'held' OR failure IS NOT 'interrupted') AND NOT EXISTS (SELECT 1 FROM builds later \
                       WHERE later.srpm = b.srpm AND later.target IS b.target AND later.id > b.id) ORDER BY id";
            let values =
                params![state.word(), kind.map(FailureKind::word), target.map(|target| target.as_str())];
            found.extend(self.rows(sql, values, |row| Ok((row.unsigned(2)?, key(row)?)))?);
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }
}
