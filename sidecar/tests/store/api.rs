//! What each call promises, on a healthy disk.

use std::collections::BTreeMap;

use preload_sidecar::{
    job::{Failure, FailureList, Job, State},
    store::{Created, Deleted, ListQuery, OpenError, Store, StoreError},
};
use tempfile::tempdir;
use uuid::Uuid;

use crate::{ROOM, at, ended, id, loaded, open, path, put, queued};

#[tokio::test]
async fn a_job_comes_back_as_it_was_also_after_reopening() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let uid = store.uid();
    let mut job = queued("a");
    job.spec.labels = BTreeMap::from([("owner".to_owned(), "näme \0 \u{1f600}".to_owned())]);
    job.message = "x".repeat(100_000);
    put(&store, &job).await;
    assert_eq!(store.get(&id("a")).await.unwrap(), Some(job.clone()));
    assert_eq!(store.get(&id("b")).await.unwrap(), None);
    let mut job = loaded(job, "c1");
    job.sequence = u64::MAX;
    store.update(job.clone()).await.unwrap();
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(store.uid(), uid);
    assert_eq!(store.get(&id("a")).await.unwrap(), Some(job));
    assert_eq!(store.live().await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn an_id_is_taken_for_good_until_it_is_deleted() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let first = queued("a");
    put(&store, &first).await;
    let second = queued("a");
    assert_eq!(store.create(second.clone(), ROOM).await.unwrap(), Created::Exists(Box::new(first.clone())));
    assert_eq!(
        store.delete(&id("a")).await.unwrap(),
        Deleted::StillLive(Box::new(first.clone())),
        "a live job is not deleted"
    );
    let done = ended(first, State::Failed, 5);
    store.update(done.clone()).await.unwrap();
    assert_eq!(store.create(second.clone(), ROOM).await.unwrap(), Created::Exists(Box::new(done.clone())));
    assert_eq!(store.delete(&id("a")).await.unwrap(), Deleted::Yes);
    assert_eq!(store.delete(&id("a")).await.unwrap(), Deleted::NotFound);
    assert_eq!(store.update(done.clone()).await, Err(StoreError::NotFound { id: id("a") }));
    put(&store, &second).await;
    assert_eq!(store.update(done).await, Err(StoreError::NotFound { id: id("a") }), "another uid");
    store.close().await;
}

#[tokio::test]
async fn live_jobs_are_counted_and_listed_oldest_first() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let jobs: Vec<Job> = ["z", "m", "a"].map(queued).into();
    for job in &jobs {
        assert_eq!(store.create(job.clone(), 3).await.unwrap(), Created::New);
    }
    assert_eq!(store.create(queued("more"), 3).await.unwrap(), Created::Full { live: 3 });
    assert_eq!(store.get(&id("more")).await.unwrap(), None);
    let exists = store.create(queued("m"), 3).await.unwrap();
    assert_eq!(exists, Created::Exists(Box::new(jobs[1].clone())), "full or not, what is there is there");
    assert_eq!(store.live().await.unwrap(), jobs);
    store.update(ended(jobs[1].clone(), State::Cancelled, 1)).await.unwrap();
    assert_eq!(store.live().await.unwrap(), [jobs[0].clone(), jobs[2].clone()]);
    assert_eq!(store.create(queued("more"), 3).await.unwrap(), Created::New);
    store.close().await;
}

#[tokio::test]
async fn lists_are_newest_first_in_stable_pages_and_filtered() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    // More than one step of the scan; every tenth has a label, every third is finished.
    let names: Vec<String> = (0..2500).map(|n| format!("job-{n:04}")).collect();
    let creating = names.iter().enumerate().map(|(n, name)| {
        let mut job = queued(name);
        job.spec.path = path(["/a", "/a/b", "/ab", "/a0"][n % 4]);
        if n % 10 == 0 {
            job.spec.labels.insert("team".to_owned(), (n % 20).to_string());
        }
        if n % 3 == 0 {
            job = ended(job, State::Failed, 1);
        }
        let store = &store;
        async move { put(store, &job).await }
    });
    for one in creating {
        one.await;
    }
    let list = async |query: ListQuery| {
        let found = store.list(query).await.unwrap();
        found.into_iter().map(|(_, job)| job.id.to_string()).collect::<Vec<_>>()
    };
    let all = ListQuery { limit: 10_000, ..ListQuery::default() };
    assert_eq!(list(all.clone()).await, names.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(list(ListQuery { limit: 0, ..all.clone() }).await, Vec::<String>::new());

    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = store.list(ListQuery { limit: 700, before, ..ListQuery::default() }).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        paged.extend(page.into_iter().map(|(_, job)| job.id.to_string()));
        put(&store, &queued(&format!("meanwhile-{}", paged.len()))).await;
    }
    assert_eq!(paged, names.iter().rev().cloned().collect::<Vec<_>>());

    let expect = |keep: &dyn Fn(usize) -> bool| {
        names
            .iter()
            .enumerate()
            .rev()
            .filter(|(n, _)| keep(*n))
            .map(|(_, name)| name.clone())
            .collect::<Vec<_>>()
    };
    let below_a = ListQuery { path_prefix: Some(path("/a")), ..all.clone() };
    assert_eq!(list(below_a).await, expect(&|n| n % 4 < 2));
    let failed = ListQuery { states: vec![State::Failed, State::Stale], ..all.clone() };
    assert_eq!(list(failed).await, expect(&|n| n % 3 == 0));
    let team = BTreeMap::from([("team".to_owned(), "0".to_owned())]);
    assert_eq!(list(ListQuery { labels: team.clone(), ..all.clone() }).await, expect(&|n| n % 20 == 0));
    let oldest = ListQuery { labels: team, before: Some(12), path_prefix: Some(path("/")), ..all };
    assert_eq!(list(oldest).await, ["job-0000"]);
    store.close().await;
}

#[tokio::test]
async fn loaded_jobs_of_other_clusters_are_found() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    assert!(!store.any_loaded().await.unwrap());
    let old = loaded(queued("old"), "c1");
    let new = loaded(queued("new"), "c2");
    for job in [&old, &new, &ended(queued("failed"), State::Failed, 1), &queued("live")] {
        put(&store, job).await;
    }
    assert!(store.any_loaded().await.unwrap());
    assert_eq!(store.loaded_elsewhere("c2").await.unwrap(), std::slice::from_ref(&old));
    assert_eq!(store.loaded_elsewhere("c3").await.unwrap().len(), 2);
    let mut stale = old;
    stale.state = State::Stale;
    store.update(stale).await.unwrap();
    assert_eq!(store.loaded_elsewhere("c2").await.unwrap(), []);
    assert_eq!(store.delete(&id("new")).await.unwrap(), Deleted::Yes);
    assert!(!store.any_loaded().await.unwrap());
    store.close().await;
}

#[tokio::test]
async fn jobs_that_ended_unproven_are_found() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let unproven = |name, state| {
        let mut job = ended(queued(name), state, 1);
        job.lengths_unproven = true;
        // Text that looks like it is none.
        job.message = "\"lengths_unproven\":false".to_owned();
        job
    };
    let [cancelled, failed] = [("cancelled", State::Cancelled), ("failed", State::Failed)]
        .map(|(name, state)| unproven(name, state));
    let mut talks = ended(queued("talks"), State::Failed, 1);
    talks.message = "\"lengths_unproven\":true".to_owned();
    for job in [&cancelled, &failed, &talks, &unproven("live", State::Loading)] {
        put(&store, job).await;
    }
    assert_eq!(store.ended_unproven().await.unwrap(), [cancelled.clone(), failed]);
    store.update(Job { lengths_unproven: false, ..cancelled }).await.unwrap();
    assert_eq!(store.ended_unproven().await.unwrap().len(), 1);
    store.close().await;
}

fn failure(n: u64) -> Failure {
    Failure {
        path: format!("/data/{n}"),
        length: n,
        bytes_missing: u64::MAX,
        replicas_seen: 0,
        reason: "gone".to_owned(),
    }
}

#[tokio::test]
async fn failures_are_paged_per_generation_and_go_with_their_job() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut job = queued("a");
    put(&store, &job).await;
    let (uid, other) = (job.uid, Uuid::new_v4());
    store.append_failures(uid, 7, (0..10).map(failure).collect()).await.unwrap();
    store.append_failures(uid, 9, (10..15).map(failure).collect()).await.unwrap();
    store.append_failures(uid, 9, (15..20).map(failure).collect()).await.unwrap();
    store.append_failures(other, 9, (20..30).map(failure).collect()).await.unwrap();
    let page = store.failures(uid, 9, 0, 7).await.unwrap();
    let after = page.last().unwrap().0;
    let rest = store.failures(uid, 9, after, 100).await.unwrap();
    let all: Vec<Failure> = page.into_iter().chain(rest).map(|(_, failure)| failure).collect();
    assert_eq!(all, (10..20).map(failure).collect::<Vec<_>>());

    // Of a live job its newest generation may be growing: it stays, older ones and strangers go.
    store.prune(at(0), ROOM, |_| false).await.unwrap();
    assert_eq!(store.failures(uid, 7, 0, 100).await.unwrap(), []);
    assert_eq!(store.failures(other, 9, 0, 100).await.unwrap(), []);
    assert_eq!(store.failures(uid, 9, 0, 100).await.unwrap().len(), 10);

    // Of a finished job only the generation that it names stays, unless somebody adds to a newer one.
    store.append_failures(uid, 11, vec![failure(0)]).await.unwrap();
    job = ended(job, State::Failed, 1);
    job.failures = FailureList { generation: 9, count: 10 };
    store.update(job.clone()).await.unwrap();
    store.prune(at(0), ROOM, move |checked| checked == uid).await.unwrap();
    assert_eq!(store.failures(uid, 11, 0, 100).await.unwrap().len(), 1);
    assert_eq!(store.newest_generation(uid).await.unwrap(), 11);
    store.prune(at(0), ROOM, |_| false).await.unwrap();
    assert_eq!(store.failures(uid, 11, 0, 100).await.unwrap(), []);
    assert_eq!(store.failures(uid, 9, 0, 100).await.unwrap().len(), 10);

    assert_eq!(store.delete(&job.id).await.unwrap(), Deleted::Yes);
    assert_eq!(store.failures(uid, 9, 0, 100).await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn more_failures_than_one_transaction_removes_go_too() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut job = ended(queued("a"), State::Failed, 1);
    job.failures = FailureList { generation: 1, count: 12_000 };
    put(&store, &job).await;
    store.append_failures(job.uid, 1, (0..12_000).map(failure).collect()).await.unwrap();
    assert_eq!(store.delete(&job.id).await.unwrap(), Deleted::Yes);
    assert_ne!(store.failures(job.uid, 1, 0, 1).await.unwrap(), [], "bounded");
    store.prune(at(0), ROOM, |_| false).await.unwrap();
    assert_eq!(store.failures(job.uid, 1, 0, 1).await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn retention_goes_by_time_and_by_number_and_spares_live_jobs() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, &queued("live")).await;
    // Ended in another order than created.
    for n in 0..600 {
        put(&store, &ended(queued(&format!("job-{n:03}")), State::Failed, 1000 - n)).await;
    }
    let forgotten = store.prune(at(403), ROOM, |_| false).await.unwrap();
    assert_eq!((forgotten.len(), forgotten[0].as_str(), forgotten[1].as_str()), (2, "job-599", "job-598"));
    let forgotten = store.prune(at(0), 10, |_| false).await.unwrap();
    assert_eq!(forgotten.len(), 588);
    assert_eq!(store.prune(at(0), 10, |_| false).await.unwrap(), []);
    let left = store.list(ListQuery { limit: 100, ..ListQuery::default() }).await.unwrap();
    let left: Vec<&str> = left.iter().map(|(_, job)| job.id.as_str()).collect();
    let newest = ["job-009", "job-008", "job-007", "job-006", "job-005", "job-004", "job-003", "job-002"];
    assert_eq!(left, [&newest[..], &["job-001", "job-000", "live"]].concat());
    store.close().await;

    let store = open(dir.path()).await;
    put(&store, &queued("next")).await;
    let ordinals: Vec<u64> = store
        .list(ListQuery { limit: 2, ..ListQuery::default() })
        .await
        .unwrap()
        .iter()
        .map(|j| j.0)
        .collect();
    assert_eq!(ordinals, [602, 11], "ordinals are never used again");
    store.close().await;
}

#[tokio::test]
async fn a_healthy_store_has_nothing_to_scrub() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 0..600 {
        put(&store, &queued(&format!("job-{n}"))).await;
    }
    store.append_failures(Uuid::new_v4(), 1, (0..600).map(failure).collect()).await.unwrap();
    assert_eq!(store.scrub().await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let dir = tempdir().unwrap();
    let store = open(dir.path()).await;
    let error = Store::open(dir.path()).unwrap_err();
    let file = dir.path().join("loads.sqlite3");
    assert_eq!(error, OpenError::Locked { file, pid: Some(std::process::id()) });
    put(&store, &queued("a")).await;
    let clone = store.clone();
    store.close().await;
    assert_eq!(clone.get(&id("a")).await, Err(StoreError::Closed));
    assert_eq!(clone.create(queued("b"), ROOM).await, Err(StoreError::Closed));
    open(dir.path()).await.close().await;
    let mut files: Vec<_> =
        dir.path().read_dir().unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["loads.lock", "loads.sqlite3"], "an orderly end leaves one file of data");
}

#[tokio::test]
async fn a_bad_directory_is_named() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(Store::open(&file).unwrap_err(), OpenError::NotADirectory { path: file.clone() });
    let below = Store::open(&file.join("below")).unwrap_err();
    assert!(matches!(below, OpenError::NotADirectory { .. }), "{below}");
    open(&dir.path().join("made/on/the/way")).await.close().await;
}

#[tokio::test]
async fn what_an_interrupted_creation_left_is_no_obstacle() {
    let dir = tempdir().unwrap();
    for left_over in ["loads.sqlite3.new", "loads.sqlite3.new-wal", "loads.sqlite3.new-shm", "loads.lock"] {
        std::fs::write(dir.path().join(left_over), "half").unwrap();
    }
    let store = open(dir.path()).await;
    put(&store, &queued("a")).await;
    store.close().await;
}
