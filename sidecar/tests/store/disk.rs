//! Full, read-only, forbidden and failing disks. Needs root: own small file systems are mounted, in a mount
//! namespace that only the test's thread is in and that goes with it.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    panic,
    path::Path,
    process::Command,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Uid, setfsuid},
};
use preload_sidecar::{
    job::Job,
    store::{Created, ListQuery, OpenError, Store, StoreError},
};
use tempfile::tempdir;

use crate::{ROOM, id, open, queued};

/// Runs `test` on a tmpfs of 2 MiB.
fn on_small_disk<F: Future<Output = ()>>(test: impl FnOnce(std::path::PathBuf) -> F + Send + 'static) {
    let dir = tempdir().unwrap();
    let path = dir.path().to_owned();
    in_thread(move || {
        unshare(CloneFlags::CLONE_NEWNS)
            .expect("mounting needs CAP_SYS_ADMIN: run the tests as root, in a container with --privileged");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        mount(Some("small"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=2m")).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(path));
    });
}

/// What `run` changes of its thread ends with the thread.
fn in_thread(run: impl FnOnce() + Send + 'static) {
    if let Err(failed) = thread::spawn(run).join() {
        panic::resume_unwind(failed);
    }
}

fn remount(dir: &Path, flags: MsFlags) -> nix::Result<()> {
    let nothing = None::<&str>;
    mount(nothing, dir, nothing, MsFlags::MS_REMOUNT | flags, nothing)
}

/// Takes all the room that is left.
fn fill(ballast: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(ballast).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// A job that is about to be stored, of some kilobytes.
fn bulky(n: usize) -> Job {
    let mut job = queued(&format!("job-{n}"));
    job.message = "m".repeat(3000);
    job
}

/// Creates until the store refuses.
async fn create_until_refused(store: &Store, acknowledged: &mut Vec<Job>) -> StoreError {
    loop {
        let job = bulky(acknowledged.len());
        match store.create(job.clone(), ROOM).await {
            Ok(created) => assert_eq!(created, Created::New),
            Err(error) => {
                assert_eq!(store.get(&job.id).await, Ok(None), "what was refused is not there");
                return error;
            }
        }
        acknowledged.push(job);
    }
}

async fn assert_holds(store: &Store, acknowledged: &[Job]) {
    assert_eq!(store.live().await.unwrap(), acknowledged);
    let list = store.list(ListQuery { limit: ROOM, ..ListQuery::default() }).await.unwrap();
    assert_eq!(list.len(), acknowledged.len());
}

#[test]
fn a_full_disk_is_named_and_loses_nothing_and_the_store_goes_on_when_there_is_room() {
    on_small_disk(async |dir| {
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![0; 400_000]).unwrap();
        let store = open(&dir).await;
        let mut acknowledged = Vec::new();
        for round in 0..3 {
            let error = create_until_refused(&store, &mut acknowledged).await;
            assert_eq!(error, StoreError::Full { file: dir.join("loads.sqlite3") });
            assert!(error.is_transient());
            fill(&ballast);
            assert_holds(&store, &acknowledged).await;
            let mut changed = acknowledged[0].clone();
            changed.sequence += 1;
            // The log may have room for a small change; if not, the old version stays.
            match store.update(changed.clone()).await {
                Ok(()) => acknowledged[0] = changed,
                Err(error) => assert!(matches!(error, StoreError::Full { .. }), "{error}"),
            }
            assert_holds(&store, &acknowledged).await;
            // Room again: nobody has to restart anything.
            fs::write(&ballast, vec![0; 300_000 - 100_000 * round]).unwrap();
            let job = bulky(acknowledged.len());
            assert_eq!(store.create(job.clone(), ROOM).await, Ok(Created::New));
            acknowledged.push(job);
        }
        fs::remove_file(&ballast).unwrap();
        store.close().await;
        let store = open(&dir).await;
        assert_holds(&store, &acknowledged).await;
        assert_eq!(store.scrub().await, Ok(vec![]));
        store.close().await;
    });
}

#[test]
fn a_disk_that_is_full_at_the_start_is_named_or_does_no_harm() {
    on_small_disk(async |dir| {
        let ballast = dir.join("ballast");
        fill(&ballast);
        let fresh = dir.join("fresh");
        let error = Store::open(&fresh).unwrap_err();
        assert!(matches!(&error, OpenError::Full { path } if path.starts_with(&dir)), "{error}");
        fs::remove_file(&ballast).unwrap();
        open(&fresh).await.close().await;

        let store = open(&dir).await;
        let job = bulky(0);
        assert_eq!(store.create(job.clone(), ROOM).await, Ok(Created::New));
        store.close().await;
        fill(&ballast);
        match Store::open(&dir) {
            Ok(store) => {
                assert_holds(&store, std::slice::from_ref(&job)).await;
                store.close().await;
            }
            Err(error) => assert!(matches!(error, OpenError::Full { .. }), "{error}"),
        }
        fs::remove_file(&ballast).unwrap();
        let store = open(&dir).await;
        assert_holds(&store, &[job]).await;
        store.close().await;
    });
}

#[test]
fn a_read_only_disk_is_named_and_the_store_is_as_it_was_afterwards() {
    on_small_disk(async |dir| {
        let store = open(&dir).await;
        let job = bulky(0);
        assert_eq!(store.create(job.clone(), ROOM).await, Ok(Created::New));
        store.close().await;
        remount(&dir, MsFlags::MS_RDONLY).unwrap();
        for dir in [dir.clone(), dir.join("fresh")] {
            let error = Store::open(&dir).unwrap_err();
            assert!(matches!(&error, OpenError::ReadOnly { path } if path.starts_with(&dir)), "{error}");
        }
        remount(&dir, MsFlags::empty()).unwrap();
        let store = open(&dir).await;
        assert_holds(&store, &[job]).await;
        store.close().await;
    });
}

#[test]
fn a_forbidden_directory_is_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_owned();
    in_thread(move || {
        // Of this thread only; permission checks then count, also for root.
        setfsuid(Uid::from_raw(65534));
        assert_eq!(setfsuid(Uid::from_raw(65534)), Uid::from_raw(65534), "run the tests as root");
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(&error, OpenError::NoPermission { path: p } if p.starts_with(&path)), "{error}");
        let error = Store::open(&path.join("below")).unwrap_err();
        assert!(matches!(&error, OpenError::NoPermission { .. }), "{error}");
    });
}

const FAILING: &str = "PRELOAD_TEST_FAILING_DIR";

/// Runs in the child only, where exceeding the limit for the size of files is an error, not a signal.
#[test]
fn child() {
    let Ok(dir) = env::var(FAILING) else { return };
    let dir = Path::new(&dir);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        let store = open(dir).await;
        let mut acknowledged = Vec::new();
        // Not at the border of a page: writes are cut in their middle.
        for limit in [200_123, 300_001] {
            setrlimit(Resource::RLIMIT_FSIZE, limit, hard).unwrap();
            let error = create_until_refused(&store, &mut acknowledged).await;
            assert!(matches!(error, StoreError::Io { .. }) && error.is_transient(), "{error}");
            assert_holds(&store, &acknowledged).await;
        }
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        let job = bulky(acknowledged.len());
        assert_eq!(store.create(job.clone(), ROOM).await, Ok(Created::New));
        acknowledged.push(job);
        assert_holds(&store, &acknowledged).await;
        store.close().await;
        let store = open(dir).await;
        assert_holds(&store, &acknowledged).await;
        assert_eq!(store.get(&id("job-0")).await.unwrap().as_ref(), acknowledged.first());
        store.close().await;
    });
    fs::write(dir.join("passed"), "").unwrap();
}

#[test]
fn an_error_of_the_disk_is_named_and_passes() {
    let dir = tempdir().unwrap();
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "disk::child", "--nocapture"])
        .env(FAILING, dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(dir.path().join("passed").exists(), "the child did not run its test");
}
