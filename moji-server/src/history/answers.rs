//! What is told from rows: who is parked, how long builds took, what was settled, what packages provide.
//!
//! It deliberately changes nothing, and judges nothing.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::entry::{BuildState, Verdict};
use super::sqlite::key;
use super::store::{ParkedBuild, Parks, Products, SettledBuild, StoreError, Waiting};
use super::words::{Columns, micros, time, unsigned};
use crate::estimates::{BuilderClass, Sample};

type Done<T> = Result<T, StoreError>;

/// The builds that are parked.
pub(super) fn parked(connection: &Connection) -> Done<Parks> {
    let mut statement = connection.prepare(
        "SELECT target, srpm, parked_at, missing, \
         (SELECT count(*) FROM attempts WHERE build = b.id AND failure = 'missing_dependency'), \
         (SELECT generation FROM attempts WHERE build = b.id AND failure = 'missing_dependency' \
         ORDER BY ended_at DESC LIMIT 1) \
         FROM builds b WHERE state = 'parked'",
    )?;
    let mut rows = statement.query([])?;
    let mut parks = Parks::new();
    while let Some(row) = rows.next()? {
        let generation = row.get::<_, Option<i64>>(5)?.map_or(0, unsigned);
        let (since, missing) = (time(row.get(2)?), Columns(row).list(3)?);
        let parked = ParkedBuild { since, missing, tries: row.get(4)?, generation };
        parks.insert(key(&Columns(row))?, parked);
    }
    Ok(parks)
}

/// The builds that wait.
pub(super) fn waiting(connection: &Connection) -> Done<Waiting> {
    let sql = "SELECT target, srpm, size FROM builds WHERE state = 'queued' AND size IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut waiting = Waiting::new();
    while let Some(row) = rows.next()? {
        waiting.insert(key(&Columns(row))?, unsigned(row.get(2)?));
    }
    Ok(waiting)
}

/// Attempts that succeeded.
pub(super) fn durations(connection: &Connection, most: usize) -> Done<Vec<Sample>> {
    let mut statement = connection.prepare(
        "SELECT b.name, a.builder_class, b.size, a.ended_at - a.leased_at \
         FROM attempts a JOIN builds b ON b.id = a.build \
         WHERE a.outcome = 'succeeded' AND a.ended_at > a.leased_at AND b.name IS NOT NULL \
         ORDER BY a.ended_at DESC, a.id DESC LIMIT ?1",
    )?;
    let mut rows = statement.query([limit(most)])?;
    let mut samples = Vec::new();
    while let Some(row) = rows.next()? {
        let class = Columns(row).maybe_parsed(1)?;
        samples.push(Sample {
            package: row.get(0)?,
            class: class.unwrap_or_else(BuilderClass::unknown),
            size: row.get::<_, Option<i64>>(2)?.map(unsigned),
            took: Duration::from_micros(unsigned(row.get(3)?)),
        });
    }
    samples.reverse();
    Ok(samples)
}

/// What was settled since then, but not what was taken out.
pub(super) fn settled_since(
    connection: &Connection,
    since: Timestamp,
    most: usize,
) -> Done<Vec<SettledBuild>> {
    let mut statement = connection.prepare(
        "SELECT b.target, b.srpm, b.nvr, b.state, b.failure, b.reason, s.missing, \
         (SELECT count(*) FROM attempts WHERE build = b.id), b.queued_at, b.settled_at, \
         s.ended_at - s.leased_at, \
         (SELECT sum(max(ended_at - leased_at, 0)) FROM attempts WHERE build = b.id), s.builder \
         FROM builds b LEFT JOIN attempts s ON s.id = b.settled_by \
         WHERE b.settled_at >= ?1 AND b.state IN ('succeeded', 'failed', 'held') \
         ORDER BY b.settled_at DESC, b.id DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![micros(since), limit(most)])?;
    let mut builds = Vec::new();
    while let Some(row) = rows.next()? {
        builds.extend(settled_build(row)?);
    }
    builds.reverse();
    Ok(builds)
}

fn settled_build(row: &Row<'_>) -> Done<Option<SettledBuild>> {
    let columns = Columns(row);
    let BuildState::Settled(verdict) = columns.word(3)? else { return Ok(None) };
    let micros =
        |at| Ok::<_, StoreError>(row.get::<_, Option<i64>>(at)?.map(unsigned).map(Duration::from_micros));
    Ok(Some(SettledBuild {
        key: key(&columns)?,
        nvr: columns.maybe_parsed(2)?,
        verdict,
        failure: columns.maybe_word(4)?,
        reason: row.get(5)?,
        missing: if verdict == Verdict::Succeeded { Vec::new() } else { columns.list(6)? },
        attempts: row.get(7)?,
        queued_at: time(row.get(8)?),
        settled_at: time(row.get(9)?),
        took: micros(10)?,
        busy: micros(11)?.unwrap_or_default(),
        builder: columns.maybe_parsed(12)?,
    }))
}

/// What packages provide.
pub(super) fn products(connection: &Connection) -> Done<Products> {
    let mut statement =
        connection.prepare("SELECT target, package, capability FROM provides ORDER BY 1, 2, 3")?;
    let mut rows = statement.query([])?;
    let mut products = Products::new();
    while let Some(row) = rows.next()? {
        let is_main = row.get_ref(0)?.as_bytes_or_null().is_ok_and(|target| target == Some(b"".as_slice()));
        let target = if is_main { None } else { Some(Columns(row).parsed(0)?) };
        products.entry((target, row.get(1)?)).or_default().push(row.get(2)?);
    }
    Ok(products)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
