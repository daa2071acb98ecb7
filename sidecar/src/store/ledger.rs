//! What the indexes must hold: a count and a sum per index, kept in step with every write.
//!
//! SQLite trusts its index pages. A flipped bit there makes a load unfindable without any error, and
//! "not found" would then be a lie. The ledger is compared with the indexes when the store is opened.

use std::path::Path;

use rusqlite::{
    Connection, Transaction, TransactionBehavior,
    types::{Value, ValueRef},
};
use uuid::Uuid;

use super::{
    error::OpenError,
    record::{self, checksum},
    schema,
};
use crate::job::{Job, State};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) next_ordinal: i64,
    ids: Tally,
    live: Tally,
    loaded: Tally,
}

/// Order does not matter: entries are added and taken away one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    count: i64,
    sum: i64,
}

impl Tally {
    fn add(&mut self, ordinal: i64, key: &[u8]) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(entry(ordinal, key));
    }

    fn take(&mut self, ordinal: i64, key: &[u8]) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(entry(ordinal, key));
    }
}

fn entry(ordinal: i64, key: &[u8]) -> i64 {
    i64::from(checksum([ValueRef::Integer(ordinal), ValueRef::Text(key)]))
}

impl Ledger {
    /// That of an empty store.
    pub(super) fn new() -> Self {
        Self { next_ordinal: 1, ..Self::default() }
    }

    /// Rows that the index of live jobs holds, those in quarantine included.
    pub(super) fn live(&self) -> i64 {
        self.live.count
    }

    pub(super) fn add(&mut self, ordinal: i64, job: &Job) {
        self.ids.add(ordinal, job.id.as_str().as_bytes());
        if job.state.is_live() {
            self.live.add(ordinal, b"");
        }
        if job.state == State::Loaded {
            self.loaded.add(ordinal, job.cluster.as_bytes());
        }
    }

    pub(super) fn take(&mut self, ordinal: i64, job: &Job) {
        self.ids.take(ordinal, job.id.as_str().as_bytes());
        if job.state.is_live() {
            self.live.take(ordinal, b"");
        }
        if job.state == State::Loaded {
            self.loaded.take(ordinal, job.cluster.as_bytes());
        }
    }

    pub(super) fn write(&self, conn: &Connection, uid: Uuid) -> rusqlite::Result<()> {
        let values = self.columns(uid);
        let sum = checksum(values.iter().map(ValueRef::from));
        conn.prepare_cached("INSERT OR REPLACE INTO store VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
            .execute(rusqlite::params_from_iter(values.into_iter().chain([sum.into()])))?;
        Ok(())
    }

    /// `None`: the row does not hold.
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Option<(Self, Uuid)>> {
        const COLUMNS: &str = "uid, next_ordinal, ids, ids_sum, live, live_sum, loaded, loaded_sum, checksum";
        conn.query_one(&format!("SELECT {COLUMNS} FROM store WHERE only_row = 1"), (), |row| {
            if !record::holds(row, 8)? {
                return Ok(None);
            }
            let tally = |at| Ok::<_, rusqlite::Error>(Tally { count: row.get(at)?, sum: row.get(at + 1)? });
            let ledger =
                Self { next_ordinal: row.get(1)?, ids: tally(2)?, live: tally(4)?, loaded: tally(6)? };
            Ok(Some((ledger, Uuid::from_bytes(row.get(0)?))))
        })
    }

    /// Compares with what the indexes hold, and makes them again from the table where they differ.
    pub(super) fn audit(&self, conn: &mut Connection, file: &Path) -> Result<(), OpenError> {
        let damaged = |problem| OpenError::Damaged { file: file.to_owned(), problem };
        let problem = match self.agrees(conn) {
            Ok(true) => return Ok(()),
            Ok(false) => "an index has lost entries".to_owned(),
            Err(error) => match OpenError::from_sql(file, &error) {
                OpenError::Damaged { problem, .. } => problem,
                other => return Err(other),
            },
        };
        tracing::error!(file = %file.display(), problem, "an index is damaged and is made again");
        let repaired = Transaction::new(conn, TransactionBehavior::Immediate).and_then(|tx| {
            let more = self.repair(&tx)?;
            if more.is_none() {
                tx.commit()?
            } else {
                tx.rollback()?
            }
            Ok(more)
        });
        match repaired {
            Ok(None) => Ok(()),
            Ok(Some(more)) => Err(damaged(format!("{problem}; {more}"))),
            Err(error) => match OpenError::from_sql(file, &error) {
                OpenError::Damaged { problem: more, .. } => Err(damaged(format!("{problem}; {more}"))),
                other => Err(other),
            },
        }
    }

    /// Makes all indexes of `jobs` again. What is wrong beyond them comes back: roll back then.
    pub(super) fn repair(&self, conn: &Connection) -> rusqlite::Result<Option<String>> {
        schema::rebuild_indexes(conn)?;
        if !self.agrees(conn)? {
            return Ok(Some("the table itself has lost rows".to_owned()));
        }
        Ok(schema::integrity(conn)?.into_iter().next())
    }

    fn agrees(&self, conn: &Connection) -> rusqlite::Result<bool> {
        const IDS: &str = "SELECT ordinal, id FROM jobs INDEXED BY jobs_id";
        const LIVE: &str = "SELECT ordinal, '' FROM jobs INDEXED BY jobs_live WHERE live = 1";
        const LOADED: &str =
            "SELECT ordinal, cluster FROM jobs INDEXED BY jobs_loaded WHERE state = 'loaded'";
        for (sql, tally) in [(IDS, self.ids), (LIVE, self.live), (LOADED, self.loaded)] {
            if count(conn, sql)? != Some(tally) {
                return Ok(false);
            }
        }
        let newest: Option<i64> = conn.query_one("SELECT max(ordinal) FROM jobs", (), |row| row.get(0))?;
        Ok(newest.unwrap_or(0) < self.next_ordinal)
    }

    fn columns(&self, uid: Uuid) -> [Value; 8] {
        let Self { next_ordinal, ids, live, loaded } = *self;
        [
            uid.as_bytes().to_vec().into(),
            next_ordinal.into(),
            ids.count.into(),
            ids.sum.into(),
            live.count.into(),
            live.sum.into(),
            loaded.count.into(),
            loaded.sum.into(),
        ]
    }
}

/// Reads an index from end to end. `None`: its entries are out of order, a search would miss some.
fn count(conn: &Connection, sql: &str) -> rusqlite::Result<Option<Tally>> {
    let mut tally = Tally::default();
    let mut last: (Vec<u8>, i64) = (Vec::new(), i64::MIN);
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let ordinal: i64 = row.get(0)?;
        let ValueRef::Text(key) = row.get_ref(1)? else { return Ok(None) };
        if (key, ordinal) <= (last.0.as_slice(), last.1) {
            return Ok(None);
        }
        tally.add(ordinal, key);
        last.0.clear();
        last.0.extend_from_slice(key);
        last.1 = ordinal;
    }
    Ok(Some(tally))
}
