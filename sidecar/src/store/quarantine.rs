//! Rows of `jobs` that are out of service because they do not hold.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Quarantined,
    error::{Bad, Fault},
    jobs,
    record::{self, COLUMNS},
};

/// Takes a row out of service, unless it holds by now or is out already.
pub(super) fn take(conn: &Connection, bad: &Bad) -> Result<Option<Quarantined>, Fault> {
    let ordinal = bad.ordinal;
    let known = conn.prepare_cached("SELECT 1 FROM quarantine WHERE ordinal = ?1")?.exists([ordinal])?;
    if known || jobs::read(conn, ordinal).is_ok() {
        return Ok(None);
    }
    // The indexes were compared with the ledger: what they say of the row is what it once was.
    let id: Option<String> =
        conn.query_one("SELECT max(id) FROM jobs INDEXED BY jobs_id WHERE ordinal = ?1", [ordinal], |row| {
            row.get(0)
        })?;
    if id.is_none() && !conn.prepare_cached("SELECT 1 FROM jobs WHERE ordinal = ?1")?.exists([ordinal])? {
        return Ok(None); // Deleted since it was read.
    }
    let live = conn
        .prepare("SELECT 1 FROM jobs INDEXED BY jobs_live WHERE live = 1 AND ordinal = ?1")?
        .exists([ordinal])?;
    let content = conn
        .query_row(&format!("SELECT {COLUMNS} FROM jobs NOT INDEXED WHERE ordinal = ?1"), [ordinal], |row| {
            record::describe(row)
        })
        .optional()
        .unwrap_or_else(|error| Some(error.to_string()));
    conn.execute(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
        params![
            ordinal,
            id,
            live,
            bad.reason,
            Timestamp::now().as_microsecond(),
            content.unwrap_or_default()
        ],
    )?;
    let id = id.unwrap_or_default();
    tracing::error!(
        id,
        ordinal,
        reason = bad.reason,
        "the record of a load is damaged and goes into quarantine"
    );
    Ok(Some(Quarantined { id, reason: bad.reason.clone() }))
}

/// The id belongs to a row in quarantine.
pub(super) fn holds(conn: &Connection, id: &str) -> Result<bool, Fault> {
    Ok(conn.prepare_cached("SELECT 1 FROM quarantine WHERE id = ?1")?.exists([id])?)
}

/// Rows in quarantine that the index of live jobs still counts.
pub(super) fn live(conn: &Connection) -> Result<i64, Fault> {
    let mut statement = conn.prepare_cached("SELECT count(*) FROM quarantine WHERE live = 1")?;
    Ok(statement.query_row((), |row| row.get(0))?)
}

/// Sets the id free. False: no row in quarantine has it.
pub(super) fn forget(conn: &Connection, id: &str) -> Result<bool, Fault> {
    let mut statement = conn.prepare_cached("UPDATE quarantine SET id = NULL, content = '' WHERE id = ?1")?;
    Ok(statement.execute([id])? > 0)
}

/// Sets the ids of rows free that came in before `before` (microseconds of the epoch).
pub(super) fn forget_old(conn: &Connection, before: i64) -> Result<(), Fault> {
    conn.prepare_cached("UPDATE quarantine SET id = NULL, content = '' WHERE time < ?1 AND id IS NOT NULL")?
        .execute([before])?;
    Ok(())
}

/// Nothing is in quarantine.
pub(super) fn is_empty(conn: &Connection) -> Result<bool, Fault> {
    Ok(!conn.prepare_cached("SELECT 1 FROM quarantine")?.exists(())?)
}
