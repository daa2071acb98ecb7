//! Writes a record into a store's file as the store would, checksums and all.

use std::path::Path;

use preload_sidecar::job::{Job, State};
use rusqlite::{Connection, Row, params, types::ValueRef};
use serde_json::Value;

const COLUMNS: &str = "ordinal, uid, id, live, state, path, cluster, ended, generation, body";
const LEDGER: &str = "uid, next_ordinal, ids, ids_sum, live, live_sum, loaded, loaded_sum";

/// `body`, with what it lacks taken from `base`, so that a few words make a record.
pub fn filled_in(body: &str, base: &Job) -> Option<String> {
    let Ok(given @ Value::Object(_)) = serde_json::from_str(body) else { return None };
    let mut all = serde_json::to_value(base).expect("a job has a text");
    merge(&mut all, given);
    Some(all.to_string())
}

fn merge(into: &mut Value, given: Value) {
    match (into, given) {
        (Value::Object(into), Value::Object(given)) => {
            for (key, value) in given {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, given) => *into = given,
    }
}

/// Puts `body` into the first of two records, the second of which is `other`. With `job` the columns and the ledger say
/// what that says; without, they stay.
pub fn record(file: &Path, body: &str, job: Option<&Job>, other: &Job) {
    let mut conn = Connection::open(file).expect("a database");
    let tx = conn.transaction().expect("a transaction");
    if let Some(job) = job {
        let state = serde_json::to_value(job.state).expect("a name");
        tx.execute(
            "UPDATE jobs SET uid = ?, id = ?, live = ?, state = ?, path = ?, cluster = ?, ended = ?, generation = ?
             WHERE ordinal = 1",
            params![
                job.uid.as_bytes(),
                job.id.as_str(),
                job.state.is_live(),
                state.as_str(),
                job.spec.path.as_str(),
                job.cluster,
                job.ended.map(|at| at.as_microsecond()),
                job.failures.generation.cast_signed(),
            ],
        )
        .expect("a row");
        let jobs = [(1, job), (2, other)];
        let id = |job: &Job| Some(job.id.to_string());
        let live = |job: &Job| job.state.is_live().then(String::new);
        let loaded = |job: &Job| (job.state == State::Loaded).then(|| job.cluster.clone());
        let [ids, live, loaded] = [tally(&jobs, id), tally(&jobs, live), tally(&jobs, loaded)];
        tx.execute(
            "UPDATE store SET ids = ?, ids_sum = ?, live = ?, live_sum = ?, loaded = ?, loaded_sum = ?",
            [ids.0, ids.1, live.0, live.1, loaded.0, loaded.1],
        )
        .expect("a row");
        let ledger = tx.query_one(&format!("SELECT {LEDGER} FROM store"), (), |row| sum(row, 8));
        tx.execute("UPDATE store SET checksum = ?", [ledger.expect("a row")]).expect("a row");
    }
    tx.execute("UPDATE jobs SET body = ? WHERE ordinal = 1", [body]).expect("a row");
    let job = tx.query_one(&format!("SELECT {COLUMNS} FROM jobs WHERE ordinal = 1"), (), |row| sum(row, 10));
    tx.execute("UPDATE jobs SET checksum = ? WHERE ordinal = 1", [job.expect("a row")]).expect("a row");
    tx.commit().expect("room");
}

/// How many of the jobs an index has, and the sum of its entries.
fn tally(jobs: &[(i64, &Job)], key: impl Fn(&Job) -> Option<String>) -> (i64, i64) {
    let entries = jobs.iter().filter_map(|(ordinal, job)| {
        let key = key(job)?;
        Some(i64::from(checksum([ValueRef::Integer(*ordinal), ValueRef::Text(key.as_bytes())])))
    });
    entries.fold((0, 0), |(count, sum), entry| (count + 1, sum + entry))
}

/// Of the first `columns`.
fn sum(row: &Row<'_>, columns: usize) -> rusqlite::Result<u32> {
    let values = (0..columns).map(|i| row.get_ref(i)).collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(checksum(values))
}

fn checksum<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for value in values {
        let (tag, content) = match value {
            ValueRef::Null => (0, Vec::new()),
            ValueRef::Integer(number) => (1, number.to_le_bytes().to_vec()),
            ValueRef::Real(number) => (2, number.to_le_bytes().to_vec()),
            ValueRef::Text(text) => (3, text.to_vec()),
            ValueRef::Blob(blob) => (4, blob.to_vec()),
        };
        crc.update(&[tag]);
        crc.update(&content.len().to_le_bytes());
        crc.update(&content);
    }
    crc.finalize()
}
