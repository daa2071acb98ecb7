//! Every released version of the file must open, and a newer one is refused, not guessed at.

use std::{collections::BTreeMap, fs, path::PathBuf};

use preload_sidecar::{
    job::{EngineChoice, Failure, FailureList, Job, Reason, State},
    store::{OpenError, Store},
};
use tempfile::tempdir;
use uuid::Uuid;

use crate::{ended, id, loaded, open, put, queued};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1.sqlite3")
}

/// What the fixture of version 1 holds. Never edited: a new version gets a new fixture.
fn jobs() -> [Job; 3] {
    let uid = |n: u128| Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_0000 + n);
    let mut live = queued("live");
    live.uid = uid(1);
    live.spec.labels = BTreeMap::from([("owner".to_owned(), "fluid".to_owned())]);
    live.spec.engine = EngineChoice::DistributedLoad;
    let mut whole = loaded(queued("whole"), "1767225600000");
    whole.uid = uid(2);
    let mut failed = ended(queued("failed"), State::Failed, 9);
    failed.uid = uid(3);
    failed.reason = Some(Reason::Incomplete);
    failed.message = "2 of 3 files are not loaded".to_owned();
    failed.failures = FailureList { generation: 5, count: 2 };
    [live, whole, failed]
}

fn failures() -> Vec<Failure> {
    let failure = |path: &str, seen| Failure {
        path: path.to_owned(),
        length: 4096,
        bytes_missing: 4096,
        replicas_seen: seen,
        reason: "no copy on a live worker".to_owned(),
    };
    vec![failure("/data/failed/ä", 0), failure("/data/failed/b", 1)]
}

/// Writes the fixture of a version that has none yet.
async fn write() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    for job in jobs() {
        put(&store, &job).await;
    }
    store.append_failures(jobs()[2].uid, 5, failures()).await.unwrap();
    store.close().await;
    fs::copy(dir.path().join("loads.sqlite3"), fixture()).unwrap();
}

#[tokio::test]
async fn version_1_opens() {
    if !fixture().exists() {
        write().await;
        panic!("{} was not there; it is written now: check it in", fixture().display());
    }
    let dir = tempdir().unwrap();
    fs::copy(fixture(), dir.path().join("loads.sqlite3")).unwrap();
    let store = open(dir.path()).await;
    for job in jobs() {
        assert_eq!(store.get(&job.id).await.unwrap().as_ref(), Some(&job));
    }
    let found = store.failures(jobs()[2].uid, 5, 0, 10).await.unwrap();
    assert_eq!(found.into_iter().map(|(_, failure)| failure).collect::<Vec<_>>(), failures());
    assert_eq!(store.scrub().await.unwrap(), []);
    put(&store, &queued("new")).await;
    assert_eq!(
        store.live().await.unwrap().iter().map(|j| &j.id).collect::<Vec<_>>(),
        [&id("live"), &id("new")]
    );
    store.close().await;
}

#[tokio::test]
async fn a_newer_version_is_refused_and_left_alone() {
    let dir = tempdir().unwrap();
    open(dir.path()).await.close().await;
    let file = dir.path().join("loads.sqlite3");
    let newer = rusqlite::Connection::open(&file).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let before = fs::read(&file).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error, OpenError::Newer { file: file.clone(), found: 99, known: 1 });
    let message = error.to_string();
    for part in [file.to_str().unwrap(), "99", "version", "newer version that wrote it", "aside"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
}
