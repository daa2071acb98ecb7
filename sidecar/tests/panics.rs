//! Panics inside the manager's tasks: a load ends with INTERNAL, housekeeping goes on, others are served.
//!
//! They come from the clock, which a test may choose: whoever asks it for the time is who panics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use preload_sidecar::{
    alluxio::{Alluxio, AlluxioConfig},
    clock::Clock,
    job::{AlluxioPath, Job, LoadId, Reason, Spec, State},
    manager::{Limits, Manager, ManagerError},
    metrics::Metrics,
    store::Store,
};
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);

/// A clock that panics as often as it is loaded for, in spans of one name only (`None`: in none).
#[derive(Debug, Clone, Default)]
struct Fuse {
    span: Option<&'static str>,
    panics: Arc<AtomicUsize>,
    calls: watch::Sender<usize>,
}

impl Fuse {
    fn new(span: Option<&'static str>, panics: usize) -> Self {
        Self { span, panics: Arc::new(panics.into()), calls: watch::Sender::default() }
    }

    fn clock(&self) -> Clock {
        let fuse = self.clone();
        Clock::from_fn(move || {
            let here = tracing::Span::current().metadata().map(tracing::Metadata::name);
            if here == fuse.span {
                fuse.calls.send_modify(|calls| *calls += 1);
                let left = |left: usize| left.checked_sub(1);
                assert!(
                    fuse.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err(),
                    "told to panic"
                );
            }
            Timestamp::now()
        })
    }

    async fn called(&self, times: usize) {
        let mut calls = self.calls.subscribe();
        let called = calls.wait_for(|calls| *calls >= times);
        tokio::time::timeout(LIMIT, called)
            .await
            .expect("nobody asks for the time")
            .expect("we hold a sender");
    }
}

async fn manager(directory: &Path, clock: Clock) -> Manager {
    let directory = directory.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&directory)).await.unwrap().unwrap();
    let nowhere = vec!["127.0.0.1:1".to_owned()];
    let config = AlluxioConfig { masters: nowhere.clone(), job_masters: nowhere, ..AlluxioConfig::default() };
    let alluxio = Arc::new(Alluxio::new(config, store.uid()));
    Manager::start(store, alluxio, clock, Limits::default(), Metrics::new()).await.unwrap()
}

async fn ended(manager: &Manager, id: &LoadId) -> Arc<Job> {
    let ended = async {
        let mut watch = manager.watch(id, false).await.unwrap();
        while watch.present().state.is_live() {
            watch.changed().await.unwrap();
        }
        watch.present()
    };
    tokio::time::timeout(LIMIT, ended).await.expect("the load hangs")
}

fn id(name: &str) -> LoadId {
    LoadId::try_from(name.to_owned()).unwrap()
}

fn spec() -> Spec {
    Spec::new(AlluxioPath::try_from("/a".to_owned()).unwrap())
}

#[tokio::test]
async fn a_load_whose_task_panics_fails_and_the_next_one_runs() {
    let _spans_are_known = tracing::subscriber::set_default(tracing_subscriber::registry());
    // The task; it and the first try to end the load; and two more tries.
    for panics in [1, 2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let fuse = Fuse::new(Some("load"), panics);
        let manager = manager(folder.path(), fuse.clock()).await;
        manager.start_load(Some(id("a")), spec()).await.unwrap();
        let job = ended(&manager, &id("a")).await;
        assert_eq!((job.state, job.reason), (State::Failed, Some(Reason::Internal)), "{panics}");
        assert!(job.message.contains("bug"), "{}", job.message);
        assert_eq!(fuse.panics.load(Ordering::Relaxed), 0, "all of them happened");

        manager.start_load(Some(id("b")), spec()).await.unwrap();
        let mut watch = manager.watch(&id("b"), false).await.unwrap();
        let waits = async {
            while watch.present().state != State::Waiting {
                watch.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, waits).await.expect("the next load is held up");
        manager.shut_down().await;
    }
}

#[tokio::test]
async fn housekeeping_that_panics_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let fuse = Fuse::new(None, 1);
    let manager = manager(folder.path(), fuse.clock()).await;
    // It asks when it forgets what is old, first of all.
    fuse.called(2).await;
    manager.shut_down().await;
}

#[tokio::test]
async fn a_call_that_panics_is_told_so_and_the_next_one_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let fuse = Fuse::new(None, 0);
    let manager = manager(folder.path(), fuse.clock()).await;
    fuse.called(1).await;
    fuse.panics.store(1, Ordering::Relaxed);
    let refused = manager.start_load(Some(id("a")), spec()).await;
    assert!(matches!(refused, Err(ManagerError::Panicked)), "{refused:?}");
    manager.start_load(Some(id("a")), spec()).await.unwrap();
    manager.shut_down().await;
}
