//! Rows of `failures`: what a verification found missing.

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::{
    error::{Fault, StoreError},
    record,
};
use crate::job::Failure;

const COLUMNS: &str = "uid, generation, number, body, checksum";
const COVERED: usize = 4;

/// Rows that one transaction removes: some ten milliseconds of the writer's time.
const REMOVE_STEP: i64 = 5000;

/// Failures as JSON, serialised by the caller rather than by the one writer.
pub(super) fn bodies(failures: &[Failure]) -> Result<Vec<String>, StoreError> {
    failures
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .map_err(|error| StoreError::Internal { file: "".into(), problem: error.to_string() })
}

pub(super) fn append(
    conn: &Connection,
    uid: Uuid,
    generation: i64,
    bodies: Vec<String>,
) -> Result<(), Fault> {
    let last: Option<i64> = conn
        .prepare_cached("SELECT max(number) FROM failures WHERE uid = ?1 AND generation = ?2")?
        .query_row(params![uid.as_bytes(), generation], |row| row.get(0))?;
    let mut insert = conn.prepare_cached("INSERT INTO failures VALUES (?, ?, ?, ?, ?)")?;
    for (number, body) in (last.unwrap_or(0) + 1..).zip(bodies) {
        let sum = record::checksum([
            uid.as_bytes().as_slice().into(),
            rusqlite::types::ValueRef::Integer(generation),
            rusqlite::types::ValueRef::Integer(number),
            body.as_str().into(),
        ]);
        insert.execute(params![uid.as_bytes(), generation, number, body, sum])?;
    }
    Ok(())
}

/// The newest generation of `uid`; 0: none.
pub(super) fn newest(conn: &Connection, uid: Uuid) -> Result<i64, Fault> {
    let newest: Option<i64> = conn
        .prepare_cached("SELECT max(generation) FROM failures WHERE uid = ?1")?
        .query_row([uid.as_bytes()], |row| row.get(0))?;
    Ok(newest.unwrap_or(0))
}

/// A page of what was found, and how many rows of it do not hold.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) failures: Vec<(u64, Failure)>,
    pub(super) bad: usize,
}

pub(super) fn page(
    conn: &Connection,
    uid: Uuid,
    generation: i64,
    after: i64,
    limit: usize,
) -> Result<Page, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM failures WHERE uid = ?1 AND generation = ?2 AND number > ?3 ORDER BY number"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![uid.as_bytes(), generation, after])?;
    let mut page = Page { failures: Vec::new(), bad: 0 };
    while page.failures.len() < limit
        && let Some(row) = rows.next()?
    {
        match decode(row)? {
            Some(failure) => page.failures.push((row.get::<_, i64>(2)?.cast_unsigned(), failure)),
            None => page.bad += 1,
        }
    }
    Ok(page)
}

fn decode(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Failure>> {
    if !record::holds(row, COVERED)? {
        return Ok(None);
    }
    Ok(serde_json::from_str(row.get_ref(3)?.as_str()?).ok())
}

/// Primary key of a row; pages of an audit go on after it.
pub(super) type Key = (Vec<u8>, i64, i64);

/// How many of `limit` rows after `after` do not hold, and where to go on.
pub(super) fn audit(conn: &Connection, after: &Key, limit: usize) -> Result<(usize, Option<Key>), Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM failures WHERE (uid, generation, number) > (?1, ?2, ?3)
         ORDER BY uid, generation, number LIMIT ?4"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after.0, after.1, after.2, limit.cast_signed()])?;
    let (mut bad, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        last = Some((row.get(0)?, row.get(1)?, row.get(2)?));
        bad += usize::from(decode(row)?.is_none());
    }
    Ok((bad, last))
}

/// Removes rows of `uid`, bounded; [`remove_orphans`] gets what is left.
pub(super) fn remove_some(conn: &Connection, uid: Uuid) -> Result<(), Fault> {
    conn.prepare_cached(
        "DELETE FROM failures WHERE (uid, generation, number) IN
         (SELECT uid, generation, number FROM failures WHERE uid = ?1 LIMIT ?2)",
    )?
    .execute(params![uid.as_bytes(), REMOVE_STEP])?;
    Ok(())
}

/// Removes rows of the first generation after `after` that no job refers to, bounded. Returns where to go
/// on; `None`: there is none left.
///
/// A job refers to the generation in its row; a live one also to its newest, which may be growing. `spared`: whose
/// rows are growing though the job is not live.
pub(super) fn remove_orphans(
    conn: &Connection,
    after: &(Vec<u8>, i64),
    spared: impl Fn(Uuid) -> bool,
) -> Result<Option<(Vec<u8>, i64)>, Fault> {
    let mut next = conn.prepare_cached(
        "SELECT uid, generation FROM failures WHERE (uid, generation) > (?1, ?2)
         ORDER BY uid, generation LIMIT 1",
    )?;
    let Some((uid, generation)) = next
        .query_row(params![after.0, after.1], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)))
        .optional()?
    else {
        return Ok(None);
    };
    let wanted = conn
        .prepare_cached(
            "SELECT 1 FROM jobs INDEXED BY jobs_failures WHERE uid = ?1 AND generation <> 0 AND generation = ?2
             UNION ALL
             SELECT 1 FROM jobs INDEXED BY jobs_live WHERE live = 1 AND uid = ?1
             AND ?2 = (SELECT max(generation) FROM failures WHERE uid = ?1)",
        )?
        .exists(params![uid, generation])?;
    if wanted || Uuid::from_slice(&uid).is_ok_and(spared) {
        return Ok(Some((uid, generation)));
    }
    let removed = conn
        .prepare_cached(
            "DELETE FROM failures WHERE (uid, generation, number) IN
             (SELECT uid, generation, number FROM failures WHERE uid = ?1 AND generation = ?2 LIMIT ?3)",
        )?
        .execute(params![uid, generation, REMOVE_STEP])?;
    let more = i64::try_from(removed).unwrap_or(i64::MAX) >= REMOVE_STEP;
    Ok(Some(if more { after.clone() } else { (uid, generation) }))
}
