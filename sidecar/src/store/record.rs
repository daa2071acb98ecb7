//! A job as a row of `jobs`: which columns, and the checksum that binds them.

use rusqlite::{
    Row,
    types::{Value, ValueRef},
};

use super::error::Bad;
use crate::job::{Job, State};

/// In the order that [`columns`] and [`decode`] use; `checksum` covers all the others.
pub(super) const COLUMNS: &str =
    "ordinal, uid, id, live, state, path, cluster, ended, generation, body, checksum";
const COVERED: usize = 10;
const BODY: usize = 9;

/// CRC-32 over types, lengths and contents, so that no two lists of values look alike.
pub(super) fn checksum<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let mut bytes = |tag: u8, content: &[u8]| {
        crc.update(&[tag]);
        crc.update(&content.len().to_le_bytes());
        crc.update(content);
    };
    for value in values {
        match value {
            ValueRef::Null => bytes(0, &[]),
            ValueRef::Integer(i) => bytes(1, &i.to_le_bytes()),
            ValueRef::Real(r) => bytes(2, &r.to_le_bytes()),
            ValueRef::Text(text) => bytes(3, text),
            ValueRef::Blob(blob) => bytes(4, blob),
        }
    }
    crc.finalize()
}

/// Whether column `covered` is the checksum of those before it.
pub(super) fn holds(row: &Row<'_>, covered: usize) -> rusqlite::Result<bool> {
    let values = (0..covered).map(|i| row.get_ref(i)).collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(row.get_ref(covered)? == ValueRef::Integer(checksum(values).into()))
}

/// Name of a state in SQL and in fixtures.
pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Waiting => "waiting",
        State::Listing => "listing",
        State::Loading => "loading",
        State::Verifying => "verifying",
        State::Loaded => "loaded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
        State::Stale => "stale",
    }
}

/// All columns, the checksum last.
pub(super) fn columns(ordinal: i64, job: &Job, body: String) -> [Value; COVERED + 1] {
    let mut values = [
        ordinal.into(),
        job.uid.as_bytes().to_vec().into(),
        job.id.as_str().to_owned().into(),
        i64::from(job.state.is_live()).into(),
        state_name(job.state).to_owned().into(),
        job.spec.path.as_str().to_owned().into(),
        job.cluster.clone().into(),
        job.ended.map(|at| at.as_microsecond()).into(),
        job.failures.generation.cast_signed().into(),
        body.into(),
        Value::Null,
    ];
    values[COVERED] = checksum(values[..COVERED].iter().map(ValueRef::from)).into();
    values
}

/// The job of a row with [`COLUMNS`], or why it cannot be believed.
pub(super) fn decode(row: &Row<'_>) -> rusqlite::Result<Result<(i64, Job), Bad>> {
    let ordinal: i64 = row.get(0)?;
    let bad = |reason: String| Ok(Err(Bad { ordinal, reason }));
    if !holds(row, COVERED)? {
        return bad("the checksum does not hold".to_owned());
    }
    let ValueRef::Text(body) = row.get_ref(BODY)? else { return bad("the body is not text".to_owned()) };
    let job: Job = match serde_json::from_slice(body) {
        Ok(job) => job,
        Err(error) => return bad(format!("the body cannot be read: {error}")),
    };
    for (i, value) in columns(ordinal, &job, String::new())[..BODY].iter().enumerate() {
        if row.get_ref(i)? != ValueRef::from(value) {
            return bad(format!("column {i} contradicts the body"));
        }
    }
    Ok(Ok((ordinal, job)))
}

/// Everything of a row that can be read, for people.
pub(super) fn describe(row: &Row<'_>) -> rusqlite::Result<String> {
    let mut text = String::new();
    for (i, name) in COLUMNS.split(", ").enumerate() {
        let value = match row.get_ref(i)? {
            ValueRef::Null => "null".to_owned(),
            ValueRef::Integer(i) => i.to_string(),
            ValueRef::Real(r) => r.to_string(),
            ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            ValueRef::Blob(bytes) => format!("{bytes:02x?}"),
        };
        text.push_str(&format!("{name}: {value}\n"));
    }
    Ok(text)
}
