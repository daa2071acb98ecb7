//! What stands in the store: a record that somebody else wrote, or files of which bytes were changed.
#![no_main]

mod planted;
mod sidecar;

use std::{fs, path::Path, sync::LazyLock};

use alluxio_preload_api::v1::{self, preload_service_server::PreloadService};
use arbitrary::Arbitrary;
use futures_util::StreamExt;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use preload_sidecar::{
    job::{AlluxioPath, Event, Job, LoadId, Spec},
    store::{ListQuery, Store, StoreError},
};
use tonic::{Code, Request};

use sidecar::{RUNTIME, Sidecar, directory};

const FILE: &str = "loads.sqlite3";
const LOG: &str = "loads.sqlite3-wal";

#[derive(Arbitrary, Debug)]
enum Case<'a> {
    /// The body of the first record, under a checksum that holds; `agrees`: the columns and the ledger say the same.
    Body { agrees: bool, body: &'a str },
    /// Bytes of the file.
    Patches(Vec<(u16, u8)>),
    /// Bytes of the log beside it.
    Log(Vec<(u16, u8)>),
}

/// A store with two jobs, closed.
static CLOSED: LazyLock<(Vec<u8>, [Job; 2])> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let (dir, jobs) = (directory(), ["one", "two"].map(job));
        let store = Store::open(dir.path()).expect("a new store");
        for job in &jobs {
            store.create(job.clone(), 9).await.expect("a new job");
        }
        store.close().await;
        (fs::read(dir.path().join(FILE)).expect("a file"), jobs)
    })
});

/// A store of which all but the first job is in the log only, and what it held after each write to that.
static OPEN: LazyLock<(Vec<u8>, Vec<u8>, Vec<Vec<Job>>)> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let (dir, [one, two]) = (directory(), ["one", "two"].map(job));
        let store = Store::open(dir.path()).expect("a new store");
        store.create(one.clone(), 9).await.expect("a new job");
        store.close().await;
        let store = Store::open(dir.path()).expect("the store");
        store.create(two.clone(), 9).await.expect("a new job");
        let mut later = one.clone();
        later.apply(Event::Admitted, Timestamp::UNIX_EPOCH).expect("legal");
        store.update(later.clone()).await.expect("an update");
        let [file, log] = [FILE, LOG].map(|name| fs::read(dir.path().join(name)).expect("a file"));
        store.close().await;
        (file, log, vec![vec![one.clone()], vec![two.clone(), one], vec![two, later]])
    })
});

fuzz_target!(|case: Case<'_>| {
    let dir = directory();
    let file = dir.path().join(FILE);
    match case {
        Case::Body { agrees, body } => {
            let (bytes, [one, two]) = &*CLOSED;
            fs::write(&file, bytes).expect("a file");
            let job = |text: &str| serde_json::from_str::<Job>(text).ok();
            let whole = if job(body).is_none() { planted::filled_in(body, one) } else { None };
            let body = whole.as_deref().unwrap_or(body);
            let planted = job(body);
            if let Some(planted) = &planted {
                let text = serde_json::to_string(planted).expect("a job has a text");
                assert_eq!(job(&text).as_ref(), Some(planted), "its own text");
                drop(planted.clone().recovered(Timestamp::UNIX_EPOCH));
            }
            match planted {
                // Two records of one id: no store writes that.
                Some(job) if job.id == two.id => {}
                Some(job) if agrees => {
                    planted::record(&file, body, Some(&job), two);
                    RUNTIME.block_on(serves(dir.path(), &job, two));
                }
                // Found as damaged, unless it says what the columns say.
                planted => {
                    planted::record(&file, body, None, two);
                    let written = [vec![two.clone()], vec![two.clone(), planted.unwrap_or(one.clone())]];
                    let store = RUNTIME.block_on(look(dir.path(), &[one, two], &written));
                    RUNTIME.block_on(store.expect("a store that holds").close());
                }
            }
        }
        Case::Patches(patches) => {
            let (bytes, [one, two]) = &*CLOSED;
            fs::write(&file, patched(bytes, &patches)).expect("a file");
            let both = [two, one].map(Clone::clone);
            let written = [vec![], both[..1].to_vec(), both[1..].to_vec(), both.to_vec()];
            RUNTIME.block_on(comes_up(dir.path(), &[one, two], &written));
        }
        Case::Log(patches) => {
            let (bytes, log, written) = &*OPEN;
            fs::write(&file, bytes).expect("a file");
            fs::write(dir.path().join(LOG), patched(log, &patches)).expect("a file");
            // What comes after the damage is lost, as after a power cut without a disk that keeps its word; what was in
            // the file before is not.
            RUNTIME.block_on(comes_up(dir.path(), &[&written[0][0]], written));
        }
    }
});

/// Strange as it may be, a record that holds is served as it was written, and a sidecar comes up with it and stops.
async fn serves(dir: &Path, planted: &Job, other: &Job) {
    let store = Store::open(dir).expect("a store that holds");
    assert_eq!(store.get(&planted.id).await.expect("the record"), Some(planted.clone()));
    assert_eq!(store.get(&other.id).await.expect("a record"), Some(other.clone()));
    let all = store.list(ListQuery { limit: 9, ..ListQuery::default() }).await.expect("a list");
    assert_eq!(all.into_iter().map(|(_, job)| job).collect::<Vec<_>>(), [other.clone(), planted.clone()]);
    let live: Vec<Job> = [planted, other].into_iter().filter(|job| job.state.is_live()).cloned().collect();
    assert_eq!(store.live().await.expect("a list"), live);
    assert_eq!(store.scrub().await, Ok(vec![]));
    // It would ask for seconds about the jobs of a command.
    if planted.remnant.is_some() && planted.state.is_live() {
        return store.close().await;
    }
    let sidecar = Sidecar::start(store, dir).await.expect("a sidecar");
    let request = v1::WatchLoadRequest { load_id: planted.id.to_string(), ..v1::WatchLoadRequest::default() };
    match sidecar.service.watch_load(Request::new(request)).await {
        Ok(states) => {
            let first = states.into_inner().next().await.expect("the present state").expect("a load");
            assert_eq!((first.id, first.uid), (planted.id.to_string(), planted.uid.to_string()));
        }
        // It ended long ago, and is forgotten.
        Err(status) => assert!(planted.ended.is_some() && status.code() == Code::NotFound, "{status:?}"),
    }
    sidecar.stop().await;
}

/// As [`look`], and a sidecar comes up with the store and stops, or says why not.
async fn comes_up(dir: &Path, kept: &[&Job], written: &[Vec<Job>]) {
    let Some(store) = look(dir, kept, written).await else { return };
    match Sidecar::start(store.clone(), dir).await {
        Ok(sidecar) => sidecar.stop().await,
        Err(error) => {
            no_panic(&error);
            store.close().await;
        }
    }
}

/// What the store holds is one of `written`, newest first, as far as it says that it holds all; it has `kept` or says
/// that they are damaged. `None`: it cannot be opened, and says so.
async fn look(dir: &Path, kept: &[&Job], written: &[Vec<Job>]) -> Option<Store> {
    let store = match Store::open(dir) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().contains(FILE), "it names no file: {error}");
            return None;
        }
    };
    let is_written = |job: &Job| written.iter().flatten().any(|known| known == job);
    for job in kept {
        match store.get(&job.id).await {
            Ok(Some(found)) => assert!(is_written(&found), "never written: {found:?}"),
            Ok(None) => panic!("{} is lost, and nobody says so", job.id),
            Err(error) => no_panic(&error),
        }
    }
    match store.live().await {
        Ok(live) => assert!(live.iter().all(is_written), "never written: {live:?}"),
        Err(error) => no_panic(&error),
    }
    match store.list(ListQuery { limit: 9, ..ListQuery::default() }).await {
        Ok(list) => {
            let list: Vec<Job> = list.into_iter().map(|(_, job)| job).collect();
            assert!(written.contains(&list), "never written: {list:?}");
        }
        Err(error) => no_panic(&error),
    }
    for error in [store.scrub().await.err(), store.create(job("three"), 9).await.err()].into_iter().flatten()
    {
        no_panic(&error);
    }
    Some(store)
}

fn no_panic(error: &StoreError) {
    assert!(!matches!(error, StoreError::Panicked), "{error}");
}

fn patched(bytes: &[u8], patches: &[(u16, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, byte) in patches {
        let place = usize::from(*place) * bytes.len() / (usize::from(u16::MAX) + 1);
        bytes[place] = *byte;
    }
    bytes
}

fn job(name: &str) -> Job {
    let id = LoadId::try_from(name.to_owned()).expect("an id");
    let path = AlluxioPath::try_from(format!("/{name}")).expect("a path");
    let uid = "0196f3a4-0000-7000-8000-000000000001".parse().expect("a uid");
    Job::new(id, uid, Spec::new(path), Timestamp::UNIX_EPOCH)
}
