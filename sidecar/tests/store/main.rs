//! The durable store, from outside: what it promises, what a crash, a full disk and bit rot leave of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail where they stand")]

mod api;
mod concurrency;
mod crash_points;
mod damage;
mod disk;
mod format;
mod kill;
mod log;

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use preload_sidecar::{
    job::{AlluxioPath, Job, LoadId, Spec, State},
    store::{Created, Store},
};
use uuid::Uuid;

const ROOM: usize = 1_000_000;

fn id(text: &str) -> LoadId {
    LoadId::try_from(text.to_owned()).unwrap()
}

fn path(text: &str) -> AlluxioPath {
    AlluxioPath::try_from(text.to_owned()).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn queued(name: &str) -> Job {
    Job::new(id(name), Uuid::new_v4(), Spec::new(path(&format!("/data/{name}"))), at(0))
}

fn ended(mut job: Job, state: State, second: i64) -> Job {
    job.state = state;
    job.ended = Some(at(second));
    job.sequence += 1;
    job
}

fn loaded(mut job: Job, cluster: &str) -> Job {
    job.cluster = cluster.to_owned();
    ended(job, State::Loaded, 1)
}

/// Opens, and says why it cannot.
async fn open(dir: &Path) -> Store {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || Store::open(&dir)).await.unwrap().unwrap()
}

async fn put(store: &Store, job: &Job) {
    assert_eq!(store.create(job.clone(), ROOM).await.unwrap(), Created::New);
}
