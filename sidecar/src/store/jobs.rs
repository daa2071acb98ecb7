//! Reading and writing rows of `jobs`, one transaction's worth at a time.
//!
//! A row is found through an index and then read from the table by its ordinal, so that what is checked is
//! what is served. Rows in quarantine are never seen.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params, params_from_iter};

use super::{
    Created, Deleted, ListQuery,
    error::{Bad, Fault, StoreError},
    failures,
    ledger::Ledger,
    quarantine,
    record::{self, COLUMNS},
};
use crate::job::{AlluxioPath, Job, LoadId};

const IN_SERVICE: &str = "ordinal NOT IN (SELECT ordinal FROM quarantine)";

/// Rows that one step of a list looks at: about a millisecond of the reader's time.
const LIST_STEP: i64 = 1000;

/// A job and its body, serialised by the caller rather than by the one writer.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) job: Job,
    body: String,
}

impl Draft {
    pub(super) fn new(job: Job) -> Result<Self, StoreError> {
        match serde_json::to_string(&job) {
            Ok(body) => Ok(Self { job, body }),
            Err(error) => Err(StoreError::Internal { file: "".into(), problem: error.to_string() }),
        }
    }
}

// === writing ===

pub(super) fn create(
    conn: &Connection,
    ledger: &mut Ledger,
    draft: &Draft,
    max_live: usize,
) -> Result<Created, Fault> {
    if let Some((_, job)) = find(conn, &draft.job.id)? {
        return Ok(Created::Exists(Box::new(job)));
    }
    if quarantine::holds(conn, draft.job.id.as_str())? {
        return Err(StoreError::Damaged { id: draft.job.id.to_string() }.into());
    }
    let live = usize::try_from(ledger.live() - quarantine::live(conn)?).unwrap_or(0);
    if live >= max_live {
        return Ok(Created::Full { live });
    }
    insert(conn, ledger, draft)?;
    Ok(Created::New)
}

pub(super) fn update(conn: &Connection, ledger: &mut Ledger, draft: &Draft) -> Result<(), Fault> {
    match find(conn, &draft.job.id)? {
        Some((ordinal, old)) if old.uid == draft.job.uid => {
            ledger.take(ordinal, &old);
            ledger.add(ordinal, &draft.job);
            cached(
                conn,
                "UPDATE jobs SET uid = ?2, id = ?3, live = ?4, state = ?5, path = ?6, cluster = ?7, ended = ?8,
                 generation = ?9, body = ?10, checksum = ?11 WHERE ordinal = ?1",
            )?
            .execute(params_from_iter(record::columns(ordinal, &draft.job, draft.body.clone())))?;
            Ok(())
        }
        // What is in memory is whole: it replaces the damaged row, as the newest of the list.
        None if quarantine::forget(conn, draft.job.id.as_str())? => insert(conn, ledger, draft),
        _ => Err(StoreError::NotFound { id: draft.job.id.clone() }.into()),
    }
}

pub(super) fn delete(conn: &Connection, ledger: &mut Ledger, id: &LoadId) -> Result<Deleted, Fault> {
    match find(conn, id)? {
        Some((_, job)) if job.state.is_live() => Ok(Deleted::StillLive(Box::new(job))),
        Some((ordinal, job)) => {
            remove(conn, ledger, ordinal, &job)?;
            Ok(Deleted::Yes)
        }
        None if quarantine::forget(conn, id.as_str())? => Ok(Deleted::Yes),
        None => Ok(Deleted::NotFound),
    }
}

pub(super) fn remove(conn: &Connection, ledger: &mut Ledger, ordinal: i64, job: &Job) -> Result<(), Fault> {
    failures::remove_some(conn, job.uid)?;
    cached(conn, "DELETE FROM jobs WHERE ordinal = ?1")?.execute([ordinal])?;
    ledger.take(ordinal, job);
    Ok(())
}

fn insert(conn: &Connection, ledger: &mut Ledger, draft: &Draft) -> Result<(), Fault> {
    let ordinal = ledger.next_ordinal;
    ledger.next_ordinal += 1;
    ledger.add(ordinal, &draft.job);
    cached(conn, "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params_from_iter(record::columns(ordinal, &draft.job, draft.body.clone())))?;
    Ok(())
}

// === reading ===

/// The job with that id, and its ordinal.
pub(super) fn find(conn: &Connection, id: &LoadId) -> Result<Option<(i64, Job)>, Fault> {
    let sql = in_service("SELECT ordinal FROM jobs INDEXED BY jobs_id WHERE id = ?1 AND ");
    let ordinal = cached(conn, &sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
    ordinal.map(|ordinal| read(conn, ordinal)).transpose()
}

/// As [`find`], for readers: an id in quarantine is not "not found".
pub(super) fn get(conn: &Connection, id: &LoadId) -> Result<Option<Job>, Fault> {
    match find(conn, id)? {
        Some((_, job)) => Ok(Some(job)),
        None if quarantine::holds(conn, id.as_str())? => {
            Err(StoreError::Damaged { id: id.to_string() }.into())
        }
        None => Ok(None),
    }
}

/// One row, by its ordinal. Whatever is wrong with it alone is [`Fault::Bad`].
pub(super) fn read(conn: &Connection, ordinal: i64) -> Result<(i64, Job), Fault> {
    let bad = |reason: String| Fault::Bad(Bad { ordinal, reason });
    let sql = format!("SELECT {COLUMNS} FROM jobs NOT INDEXED WHERE ordinal = ?1");
    match cached(conn, &sql)?.query_row([ordinal], record::decode).optional().map_err(Fault::from) {
        Ok(Some(Ok(found))) => Ok(found),
        Ok(Some(Err(found))) => Err(Fault::Bad(found)),
        Ok(None) => Err(bad("an index names it, and it is not there".to_owned())),
        Err(Fault::Store(StoreError::Corrupt { problem, .. })) => Err(bad(problem)),
        Err(other) => Err(other),
    }
}

/// Ordinals of the live jobs, oldest first.
pub(super) fn live(conn: &Connection) -> Result<Vec<i64>, Fault> {
    let sql = in_service("SELECT ordinal FROM jobs INDEXED BY jobs_live WHERE live = 1 AND ");
    let mut statement = cached(conn, &sql)?;
    Ok(statement.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Ordinals of LOADED jobs whose cluster is not `cluster`.
pub(super) fn loaded_elsewhere(conn: &Connection, cluster: &str) -> Result<Vec<i64>, Fault> {
    let sql = in_service(
        "SELECT ordinal FROM jobs INDEXED BY jobs_loaded WHERE state = 'loaded' AND cluster <> ?1 AND ",
    );
    let mut statement = cached(conn, &sql)?;
    Ok(statement.query_map([cluster], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Ordinals of jobs that ended with `lengths_unproven`. Looks at each that was cancelled or failed, some ten
/// microseconds long.
pub(super) fn ended_unproven(conn: &Connection) -> Result<Vec<i64>, Fault> {
    let sql = in_service(
        "SELECT ordinal FROM jobs NOT INDEXED WHERE state IN ('cancelled', 'failed')
         AND instr(body, '\"lengths_unproven\":true') > 0 AND ",
    );
    let mut statement = cached(conn, &sql)?;
    Ok(statement.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn any_loaded(conn: &Connection) -> Result<bool, Fault> {
    let sql = in_service("SELECT 1 FROM jobs INDEXED BY jobs_loaded WHERE state = 'loaded' AND ");
    Ok(cached(conn, &sql)?.exists(())?)
}

/// Ordinals of at most `limit` finished jobs, first ended first, that ended before `before` (microseconds
/// of the epoch) or are not among the `keep` that ended last.
pub(super) fn outlived(conn: &Connection, before: i64, keep: i64, limit: i64) -> Result<Vec<i64>, Fault> {
    let sql = format!(
        "SELECT ordinal FROM jobs INDEXED BY jobs_ended WHERE ended IS NOT NULL AND {IN_SERVICE}
         AND (ended < ?1 OR ordinal NOT IN (SELECT ordinal FROM jobs INDEXED BY jobs_ended
              WHERE ended IS NOT NULL AND {IN_SERVICE} ORDER BY ended DESC, ordinal DESC LIMIT ?2))
         ORDER BY ended, ordinal LIMIT ?3"
    );
    let mut statement = cached(conn, &sql)?;
    Ok(statement
        .query_map(params![before, keep, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?)
}

/// One bounded step of a list.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) jobs: Vec<(i64, Job)>,
    pub(super) bad: Vec<Bad>,
    /// Where the next step goes on; `None`: all was seen.
    pub(super) before: Option<i64>,
}

/// Looks at [`LIST_STEP`] rows below `before` for at most `limit` that match.
pub(super) fn list(conn: &Connection, query: &ListQuery, before: i64, limit: usize) -> Result<Step, Fault> {
    match scan(conn, query, before, limit) {
        // A page that leads to rows does not hold; which rows there are, an index knows too.
        Err(Fault::Store(StoreError::Corrupt { .. })) => pick(conn, query, before, limit),
        step => step,
    }
}

/// As [`list`], row by row: those that cannot be reached come apart.
fn pick(conn: &Connection, query: &ListQuery, before: i64, limit: usize) -> Result<Step, Fault> {
    let mut ordinals = all(conn)?;
    ordinals.retain(|ordinal| *ordinal < before);
    ordinals.reverse();
    let looked_at = usize::try_from(LIST_STEP).unwrap_or(usize::MAX).min(ordinals.len());
    let floor = ordinals[..looked_at].last().copied().filter(|_| looked_at < ordinals.len());
    let mut step = Step { jobs: Vec::new(), bad: Vec::new(), before: floor };
    for ordinal in &ordinals[..looked_at] {
        if step.jobs.len() == limit {
            break;
        }
        match read(conn, *ordinal) {
            Ok(found) if matches(query, &found.1) => step.jobs.push(found),
            Ok(_) => {}
            Err(Fault::Bad(bad)) => step.bad.push(bad),
            Err(fault) => return Err(fault),
        }
    }
    Ok(step)
}

fn matches(query: &ListQuery, job: &Job) -> bool {
    (query.states.is_empty() || query.states.contains(&job.state))
        && query.path_prefix.as_ref().is_none_or(|prefix| prefix.contains(job.spec.path.as_str()))
        && query.labels.iter().all(|(key, value)| job.spec.labels.get(key) == Some(value))
}

fn scan(conn: &Connection, query: &ListQuery, before: i64, limit: usize) -> Result<Step, Fault> {
    let floor: Option<i64> = cached(
        conn,
        "SELECT ordinal FROM jobs NOT INDEXED WHERE ordinal < ?1 ORDER BY ordinal DESC LIMIT 1 OFFSET ?2",
    )?
    .query_row([before, LIST_STEP - 1], |row| row.get(0))
    .optional()?;
    let sql = in_service(
        "SELECT ordinal FROM jobs NOT INDEXED WHERE ordinal < ?1 AND ordinal >= ?2
         AND (?3 = '' OR instr(?3, ',' || state || ',') > 0)
         AND (?4 IS NULL OR path = ?4 OR (path > ?4 || '/' AND path < ?4 || '0')) AND ",
    ) + " ORDER BY ordinal DESC";
    let states: String = query.states.iter().map(|s| format!(",{},", record::state_name(*s))).collect();
    let prefix = query.path_prefix.as_ref().map(AlluxioPath::as_str).filter(|path| *path != "/");
    let mut step = Step { jobs: Vec::new(), bad: Vec::new(), before: floor };
    let mut statement = cached(conn, &sql)?;
    let mut rows = statement.query(params![before, floor.unwrap_or(i64::MIN), states, prefix])?;
    let mut last = before;
    while step.jobs.len() < limit
        && let Some(row) = rows.next()?
    {
        let ordinal: i64 = row.get(0)?;
        if ordinal >= last {
            let problem = "the table is out of order".to_owned();
            return Err(StoreError::Corrupt { file: "".into(), problem }.into());
        }
        last = ordinal;
        match read(conn, ordinal) {
            // The statement has no say about labels.
            Ok(found) if matches(query, &found.1) => step.jobs.push(found),
            Ok(_) => {}
            Err(Fault::Bad(bad)) => step.bad.push(bad),
            Err(fault) => return Err(fault),
        }
    }
    Ok(step)
}

/// Jobs with their ordinals, and rows that do not hold.
type Rows = (Vec<(i64, Job)>, Vec<Bad>);

/// Reads rows one by one; those that do not hold come apart.
pub(super) fn read_each(conn: &Connection, ordinals: &[i64]) -> Result<Rows, Fault> {
    let (mut jobs, mut bads) = (Vec::new(), Vec::new());
    for ordinal in ordinals {
        match read(conn, *ordinal) {
            Ok(found) => jobs.push(found),
            Err(Fault::Bad(bad)) => bads.push(bad),
            Err(fault) => return Err(fault),
        }
    }
    Ok((jobs, bads))
}

/// Ordinals of all rows, as the index of ids has them.
pub(super) fn all(conn: &Connection) -> Result<Vec<i64>, Fault> {
    let sql = in_service("SELECT ordinal FROM jobs INDEXED BY jobs_id WHERE ");
    let mut statement = cached(conn, &sql)?;
    let mut ordinals = statement.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    ordinals.sort_unstable();
    Ok(ordinals)
}

fn in_service(sql: &str) -> String {
    format!("{sql}{IN_SERVICE}")
}

fn cached<'conn>(conn: &'conn Connection, sql: &str) -> rusqlite::Result<CachedStatement<'conn>> {
    conn.prepare_cached(sql)
}
