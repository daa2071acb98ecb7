//! What stands in the store: a record that somebody else wrote, or a file of which bytes were changed.
#![no_main]

use std::{fs, path::Path, sync::LazyLock};

use arbitrary::Arbitrary;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use preload_sidecar::{
    job::{AlluxioPath, Job, LoadId, Spec},
    store::{ListQuery, Store, StoreError},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[derive(Arbitrary, Debug)]
enum Case<'a> {
    /// The body of a record, with a checksum that holds.
    Body(&'a str),
    /// Bytes of the file.
    Patches(Vec<(u16, u8)>),
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// A store with two jobs, closed.
static FILE: LazyLock<(Vec<u8>, Vec<Job>)> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let dir = directory();
        let store = Store::open(dir.path()).expect("a new store");
        let mut jobs = Vec::new();
        for name in ["one", "two"] {
            let job = job(name);
            store.create(job.clone(), 9).await.expect("a new job");
            jobs.push(job);
        }
        store.close().await;
        (fs::read(dir.path().join("loads.sqlite3")).expect("a file"), jobs)
    })
});

fuzz_target!(|case: Case<'_>| {
    let dir = directory();
    let file = dir.path().join("loads.sqlite3");
    let (bytes, jobs) = &*FILE;
    match case {
        Case::Body(body) => {
            // What is no job is found as such; what is one is served by the words of its record.
            let planted = serde_json::from_str::<Job>(body);
            if let Ok(job) = &planted {
                let text = serde_json::to_string(job).expect("a job has a text");
                assert_eq!(serde_json::from_str::<Job>(&text).expect("its own text"), *job);
                drop(job.clone().recovered(Timestamp::UNIX_EPOCH));
            }
            fs::write(&file, bytes).expect("a file");
            plant(&file, body);
            RUNTIME.block_on(look(dir.path(), jobs, planted.ok().as_ref(), true));
        }
        Case::Patches(patches) => {
            let mut bytes = bytes.clone();
            for (place, byte) in patches {
                let place = usize::from(place) * bytes.len() / (usize::from(u16::MAX) + 1);
                bytes[place] = byte;
            }
            fs::write(&file, bytes).expect("a file");
            RUNTIME.block_on(look(dir.path(), jobs, None, false));
        }
    }
});

/// Each job is served as it was written, which may be as `planted`, or not at all. `opens`: whether the file must.
async fn look(dir: &Path, jobs: &[Job], planted: Option<&Job>, opens: bool) {
    let store = match Store::open(dir) {
        Ok(store) => store,
        Err(error) => {
            let message = error.to_string();
            assert!(!opens, "{message}");
            assert!(message.contains("loads.sqlite3"), "it names no file: {message}");
            return;
        }
    };
    for job in jobs {
        match store.get(&job.id).await {
            Ok(Some(found)) => assert!(found == *job || Some(&found) == planted, "{found:?}"),
            Ok(None) => panic!("{} is lost, and nobody says so", job.id),
            Err(error) => assert!(!matches!(error, StoreError::Panicked), "{error}"),
        }
    }
    let known = |job: &Job| assert!(jobs.contains(job) || Some(job) == planted, "never written: {job:?}");
    match store.live().await {
        Ok(live) => live.iter().for_each(known),
        Err(error) => assert!(!matches!(error, StoreError::Panicked), "{error}"),
    }
    match store.list(ListQuery { limit: 9, ..ListQuery::default() }).await {
        Ok(list) => list.iter().for_each(|(_, job)| known(job)),
        Err(error) => assert!(!matches!(error, StoreError::Panicked), "{error}"),
    }
    for outcome in
        [store.scrub().await.err(), store.create(job("three"), 9).await.err()].into_iter().flatten()
    {
        assert!(!matches!(outcome, StoreError::Panicked), "{outcome}");
    }
    store.close().await;
}

/// Writes `body` into the first record, under a checksum that holds.
fn plant(file: &Path, body: &str) {
    use rusqlite::types::ValueRef;
    let conn = rusqlite::Connection::open(file).expect("a database");
    conn.execute("UPDATE jobs SET body = ?1 WHERE ordinal = (SELECT min(ordinal) FROM jobs)", [body])
        .expect("a row");
    let sql = "SELECT ordinal, uid, id, live, state, path, cluster, ended, generation, body FROM jobs ORDER BY ordinal";
    let checksum = conn
        .query_one(&format!("{sql} LIMIT 1"), (), |row| {
            let mut crc = crc32fast::Hasher::new();
            for column in 0..10 {
                let (tag, content) = match row.get_ref(column)? {
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
            Ok(crc.finalize())
        })
        .expect("a row");
    conn.execute("UPDATE jobs SET checksum = ?1 WHERE ordinal = (SELECT min(ordinal) FROM jobs)", [checksum])
        .expect("a row");
}

fn job(name: &str) -> Job {
    let id = LoadId::try_from(name.to_owned()).expect("an id");
    let path = AlluxioPath::try_from(format!("/{name}")).expect("a path");
    let uid = "0196f3a4-0000-7000-8000-000000000001".parse().expect("a uid");
    Job::new(id, uid, Spec::new(path), Timestamp::UNIX_EPOCH)
}

/// In memory: nothing of it has to last.
fn directory() -> TempDir {
    tempfile::Builder::new().prefix("preload-fuzz-").tempdir_in("/dev/shm").expect("room in /dev/shm")
}
