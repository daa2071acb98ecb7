//! Every released version of the file must open, and a newer one is refused, not guessed at.

use std::{
    collections::BTreeMap,
    fs,
    num::{NonZeroU32, NonZeroU64},
    path::{Path, PathBuf},
    time::Duration,
};

use preload_sidecar::{
    job::{
        Count, EngineChoice, EngineKind, Failure, FailureList, Job, LoadMetadata, Reason, Remnant, State,
        Transition,
    },
    store::{ListQuery, OpenError, Store, StoreError},
};
use tempfile::tempdir;
use uuid::Uuid;

use crate::{
    at,
    damage::{DB, LOG, position},
    ended, id, loaded, open, put, queued,
};

/// A version of the program, and what its fixture holds.
type Release = (&'static str, fn() -> Vec<Job>);

/// Never edited once released: a release adds itself, and [`every_release_opens`] writes its fixture.
const RELEASES: [Release; 1] = [("0.1.0", jobs_of_0_1_0)];

fn fixture(version: &str, log: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store-{version}.sqlite3{log}"))
}

/// What the fixture of schema version 1 holds, which was closed.
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

#[tokio::test]
async fn version_1_opens() {
    let dir = tempdir().unwrap();
    fs::copy(fixture("v1", ""), dir.path().join(DB)).unwrap();
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

/// A job in each state, every field in use, first created first. The last one is in the log only.
fn jobs_of_0_1_0() -> Vec<Job> {
    let states = [
        State::Queued,
        State::Waiting,
        State::Listing,
        State::Loading,
        State::Verifying,
        State::Loaded,
        State::Failed,
        State::Cancelled,
        State::Stale,
    ];
    let jobs = states.into_iter().zip(1_u32..).map(|(state, n)| {
        let mut job = queued(&format!("job-{n}"));
        job.uid = Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_0000 + u128::from(n));
        job.state = state;
        job.reason = Some(Reason::Incomplete);
        job.message = format!("what is said in {state:?}");
        job.spec.replicas = NonZeroU32::new(2).unwrap();
        job.spec.engine = EngineChoice::Native;
        job.spec.load_metadata = LoadMetadata::Always;
        job.spec.min_workers = 3;
        job.spec.allow_evict = true;
        job.spec.timeout = Some(Duration::from_secs(7200));
        job.spec.labels = BTreeMap::from([("owner".to_owned(), "fluid".to_owned())]);
        job.spec.reverify_interval = Some(Duration::from_secs(600));
        job.spec.max_bytes_per_second = NonZeroU64::new(1 << 20);
        job.progress.reset(Count {
            files_total: 9,
            files_cached: 4,
            files_failed: 1,
            bytes_total: 9000,
            bytes_cached: 4000,
            bytes_failed: 1000,
            bytes_per_second: 50,
            eta: Some(Duration::from_millis(100_500)),
            totals_exact: true,
            cached_exact: true,
        });
        job.attempt = 2;
        job.top_ups = 1;
        job.engine = Some(EngineKind::Native);
        job.engine_reason = "asked for".to_owned();
        job.sequence = 7;
        job.sequence_ceiling = 1031;
        job.transitions.push_back(Transition {
            from: State::Queued,
            to: state,
            reason: Some(Reason::NotEnoughRoom),
            message: "ä".to_owned(),
            time: at(5),
            sequence: 6,
        });
        job.cluster = "1767225600000".to_owned();
        job.started = Some(at(2));
        job.ended = (!state.is_live()).then(|| at(9));
        job.updated = at(10);
        job.cancel_requested = Some(at(8));
        job.shut_since = Some(at(1));
        job.active = Duration::from_millis(3500);
        job.remnant = Some(Remnant { job_floor: 11, job_control_id: Some(12) });
        job.lengths_unproven = true;
        job.failures = FailureList { generation: 5, count: 2 };
        job.verified = Some(at(8));
        job
    });
    jobs.collect()
}

/// Writes the fixture of the present version: a store that was killed, with a damaged row in quarantine.
async fn write(version: &str, jobs: &[Job]) {
    const MARK: &str = "to be damaged";
    let dir = tempdir().unwrap();
    let file = dir.path().join(DB);
    let (last, first) = jobs.split_last().unwrap();
    let store = open(dir.path()).await;
    let mut damaged = queued("damaged");
    damaged.message = MARK.to_owned();
    put(&store, &damaged).await;
    store.close().await;
    let mut content = fs::read(&file).unwrap();
    let mark = position(&content, MARK.as_bytes());
    content[mark] ^= 1;
    fs::write(&file, content).unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.get(&damaged.id).await, Err(StoreError::Damaged { id: damaged.id.to_string() }));
    for job in first {
        put(&store, job).await;
    }
    store.close().await;
    let store = open(dir.path()).await;
    put(&store, last).await;
    store.append_failures(last.uid, 5, failures()).await.unwrap();
    // Copied while it is open and at rest: what kill -9 leaves.
    fs::copy(&file, fixture(version, "")).unwrap();
    fs::copy(dir.path().join(LOG), fixture(version, "-wal")).unwrap();
    store.close().await;
}

fn copy(version: &str, to: &Path) {
    fs::copy(fixture(version, ""), to.join(DB)).unwrap();
    fs::copy(fixture(version, "-wal"), to.join(LOG)).unwrap();
}

#[tokio::test]
async fn every_release_opens() {
    for (version, jobs) in RELEASES {
        let jobs = jobs();
        if !fixture(version, "").exists() {
            assert_eq!(version, env!("CARGO_PKG_VERSION"), "only that version can write its fixture");
            write(version, &jobs).await;
            panic!(
                "{} and its -wal were not there; they are written now: check them in",
                fixture(version, "").display()
            );
        }
        let dir = tempdir().unwrap();
        copy(version, dir.path());
        let store = open(dir.path()).await;
        for job in &jobs {
            assert_eq!(store.get(&job.id).await.unwrap().as_ref(), Some(job), "{version}");
        }
        let list = store.list(ListQuery { limit: 100, ..ListQuery::default() }).await.unwrap();
        assert_eq!(list.into_iter().rev().map(|(_, job)| job).collect::<Vec<_>>(), jobs, "{version}");
        let live: Vec<_> = jobs.iter().filter(|job| job.state.is_live()).cloned().collect();
        assert_eq!(store.live().await.unwrap(), live, "{version}");
        let last = jobs.last().unwrap();
        let found = store.failures(last.uid, 5, 0, 10).await.unwrap();
        assert_eq!(
            found.into_iter().map(|(_, failure)| failure).collect::<Vec<_>>(),
            failures(),
            "{version}"
        );
        let damaged = id("damaged");
        assert_eq!(
            store.get(&damaged).await,
            Err(StoreError::Damaged { id: damaged.to_string() }),
            "{version}"
        );
        assert_eq!(store.scrub().await.unwrap(), [], "{version}: known already");
        put(&store, &queued("new")).await;
        store.delete(&damaged).await.unwrap();
        store.close().await;

        // The log is a part of it.
        let dir = tempdir().unwrap();
        copy(version, dir.path());
        fs::remove_file(dir.path().join(LOG)).unwrap();
        let store = open(dir.path()).await;
        assert_eq!(store.get(&last.id).await.unwrap(), None, "{version}");
        store.close().await;
    }
}

#[test]
fn this_version_is_among_the_releases() {
    let present = env!("CARGO_PKG_VERSION");
    assert!(
        RELEASES.iter().any(|(version, _)| *version == present),
        "add {present} to RELEASES and run the tests"
    );
    for log in ["", "-wal"] {
        assert!(fixture(present, log).exists(), "run every_release_opens, and check in what it writes");
    }
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
