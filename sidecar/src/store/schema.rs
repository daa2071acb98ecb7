//! The tables, their versions, and the proof that a file has them.

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id` of our files: "Prld".
pub(super) const APPLICATION_ID: i64 = 0x5072_6c64;

/// Entry n leads from version n to n + 1 (`PRAGMA user_version`). Never edited once released.
pub(super) const MIGRATIONS: &[&str] = &[V1];

/// - `store` has one row: the store's uid and the [`Ledger`](super::ledger::Ledger).
/// - `jobs.body` is the job as JSON; the other columns repeat what queries look for. `checksum` covers them
///   all.
/// - Indexes other than `jobs_id` are partial: they cost nothing for the rows that they are not about.
///   `jobs_id` is not UNIQUE because a row in quarantine keeps its place; the writer sees to it.
/// - `quarantine` names rows of `jobs` that are out of service. They are not removed: freeing the pages of
///   a damaged row could free pages of its neighbours.
const V1: &str = "
CREATE TABLE store(
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    uid BLOB NOT NULL,
    next_ordinal INTEGER NOT NULL,
    ids INTEGER NOT NULL, ids_sum INTEGER NOT NULL,
    live INTEGER NOT NULL, live_sum INTEGER NOT NULL,
    loaded INTEGER NOT NULL, loaded_sum INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE jobs(
    ordinal INTEGER PRIMARY KEY,
    uid BLOB NOT NULL,
    id TEXT NOT NULL,
    live INTEGER NOT NULL,
    state TEXT NOT NULL,
    path TEXT NOT NULL,
    cluster TEXT NOT NULL,
    ended INTEGER,
    generation INTEGER NOT NULL,
    body TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX jobs_id ON jobs(id);
CREATE INDEX jobs_live ON jobs(live) WHERE live = 1;
CREATE INDEX jobs_loaded ON jobs(cluster) WHERE state = 'loaded';
CREATE INDEX jobs_ended ON jobs(ended) WHERE ended IS NOT NULL;
CREATE INDEX jobs_failures ON jobs(uid) WHERE generation <> 0;
CREATE TABLE failures(
    uid BLOB NOT NULL,
    generation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (uid, generation, number)
) WITHOUT ROWID;
CREATE TABLE quarantine(
    ordinal INTEGER PRIMARY KEY,
    id TEXT,
    live INTEGER NOT NULL,
    reason TEXT NOT NULL,
    time INTEGER NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX quarantine_id ON quarantine(id);
";

pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The version that `migrations` lead to.
pub(super) fn latest(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX)
}

/// Runs what is missing, each step with its new version in one transaction.
pub(super) fn migrate(conn: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let present = usize::try_from(version(conn)?).unwrap_or(usize::MAX);
    for (step, sql) in migrations.iter().enumerate().skip(present) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", latest(&migrations[..=step]))?;
        tx.commit()?;
    }
    Ok(())
}

/// Whether the file's schema is, to the letter, what the first `version` migrations make: a flipped bit in
/// a definition could otherwise change what a query means.
pub(super) fn is_intact(conn: &Connection, version: usize) -> rusqlite::Result<bool> {
    let mut model = Connection::open_in_memory()?;
    migrate(&mut model, MIGRATIONS.get(..version).unwrap_or(MIGRATIONS))?;
    Ok(definitions(conn)? == definitions(&model)?)
}

/// Makes every index of `jobs` again from the table.
pub(super) fn rebuild_indexes(conn: &Connection) -> rusqlite::Result<()> {
    let indexes: Vec<(String, String)> = conn
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'jobs'")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, sql) in indexes {
        conn.execute_batch(&format!("DROP INDEX {name}; {sql};"))?;
    }
    Ok(())
}

/// What SQLite finds wrong with the whole file, a line each. Reads everything: a second per 100 MB or so.
pub(super) fn integrity(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let lines: Vec<String> = conn
        .prepare("PRAGMA integrity_check(20)")?
        .query_map((), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// A line of [`integrity`] speaks of pages, not of what rows and index entries say of each other.
pub(super) fn is_structural(line: &str) -> bool {
    ["Tree", "Freelist", "Page", "***"].iter().any(|start| line.starts_with(start))
}

type Definition = (String, String, Option<String>);

fn definitions(conn: &Connection) -> rusqlite::Result<Vec<Definition>> {
    conn.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_version_is_led_to_the_latest_and_no_step_runs_twice() {
        let mut conn = Connection::open_in_memory().unwrap();
        let first = ["CREATE TABLE a(x); INSERT INTO a VALUES (1);"];
        migrate(&mut conn, &first).unwrap();
        let both = [first[0], "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1;"];
        migrate(&mut conn, &both).unwrap();
        migrate(&mut conn, &both).unwrap();
        let row: (i64, i64) =
            conn.query_one("SELECT x, y FROM a", (), |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        assert_eq!((row, version(&conn).unwrap()), ((1, 2), 2));
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut conn = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a(x);", "CREATE TABLE b(x); CREATE TABLE a(x);"];
        migrate(&mut conn, &steps).unwrap_err();
        assert_eq!(version(&conn).unwrap(), 1);
        assert_eq!(definitions(&conn).unwrap().len(), 1);
    }
}
