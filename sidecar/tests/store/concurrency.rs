//! Many callers at once.

use std::{fs, path::Path};

use futures_util::future::join_all;
use preload_sidecar::store::{Created, Store, StoreError};
use tempfile::tempdir;

use crate::{ROOM, id, loaded, open, put, queued};

/// Transactions in the log. With synchronous=FULL each cost one fsync. (SQLite file format, section 4: a
/// header of 32 bytes, then frames of 24 bytes and a page; of a commit frame bytes 4..8 are not zero.)
fn commits(dir: &Path) -> usize {
    let log = fs::read(dir.join("loads.sqlite3-wal")).unwrap();
    let salt = &log[16..24];
    let frames = log[32..].chunks_exact(24 + 4096).take_while(|frame| &frame[8..16] == salt);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_starts_of_one_id_one_wins_with_one_fsync() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, &queued("first")).await;
    let before = commits(dir.path());
    let starts = (0..64).map(|_| tokio::spawn(start(store.clone(), "a")));
    let results: Vec<(Created, _)> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(commits(dir.path()) - before, 1);
    let winner = store.get(&id("a")).await.unwrap().unwrap();
    assert_eq!(results.iter().filter(|(created, _)| *created == Created::New).count(), 1);
    for (created, uid) in results {
        match created {
            Created::New => assert_eq!(uid, winner.uid),
            other => assert_eq!(other, Created::Exists(Box::new(winner.clone()))),
        }
    }
    store.close().await;
}

async fn start(store: Store, name: &'static str) -> (Created, uuid::Uuid) {
    let job = queued(name);
    let uid = job.uid;
    (store.create(job, ROOM).await.unwrap(), uid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_wait_at_the_same_time_share_fsyncs() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, &queued("first")).await;
    let before = commits(dir.path());
    // Polled in turn on one task: all 64 are in the channel before the first is answered.
    let jobs: Vec<_> = (0..64).map(|n| queued(&format!("job-{n}"))).collect();
    let created = join_all(jobs.iter().map(|job| store.create(job.clone(), ROOM))).await;
    assert!(created.iter().all(|c| *c == Ok(Created::New)));
    let fsyncs = commits(dir.path()) - before;
    assert!(fsyncs < 64, "{fsyncs} fsyncs for 64 jobs");
    let mut live = store.live().await.unwrap();
    live.remove(0);
    assert_eq!(live, jobs);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_holds_also_within_a_group() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let names: Vec<String> = (0..64).map(|n| format!("job-{n}")).collect();
    let created = join_all(names.iter().map(|name| store.create(queued(name), 10))).await;
    let new = created.iter().filter(|c| **c == Ok(Created::New)).count();
    let full = created.iter().filter(|c| **c == Ok(Created::Full { live: 10 })).count();
    assert_eq!((new, full), (10, 54));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_fails_does_not_harm_its_group() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let names: Vec<String> = (0..64).map(|n| format!("job-{n}")).collect();
    let requests = names.iter().enumerate().map(|(n, name)| {
        let store = &store;
        async move {
            if n % 2 == 0 {
                store.create(queued(name), ROOM).await.is_ok()
            } else {
                store.update(queued(name)).await == Err(StoreError::NotFound { id: id(name) })
            }
        }
    });
    assert!(join_all(requests).await.into_iter().all(|as_wanted| as_wanted));
    assert_eq!(store.live().await.unwrap().len(), 32);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_gives_up_does_not_undo_its_write() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let job = loaded(queued("a"), "c");
    {
        let mut create = Box::pin(store.create(job.clone(), ROOM));
        let _sent = futures_util::poll!(&mut create);
    }
    store.clone().close().await;
    let store = open(dir.path()).await;
    assert_eq!(store.get(&id("a")).await.unwrap(), Some(job));
    store.close().await;
}
