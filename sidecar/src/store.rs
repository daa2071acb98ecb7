//! Durable loads: one SQLite file in the state directory, one thread that writes and one that reads.
//!
//! Owns the files `loads.sqlite3*` and `loads.lock`. Knows nothing of what a job's states mean, beyond live
//! and LOADED; never decides on a change, never starts one by itself.
//!
//! Invariants:
//! - what a call acknowledged survives kill -9 and a power cut (SQLite: WAL, synchronous=FULL);
//! - callers that write at the same time share one fsync (`thread`);
//! - a job is served as it was written, or not at all: a row whose checksum does not hold is answered with
//!   [`StoreError::Damaged`] and put in `quarantine`, and the rest is served;
//! - "not found" is true: opening compares the indexes with the `ledger`;
//! - nothing blocks the async runtime; a future that is dropped does not stop a write that was sent.

mod disk;
mod error;
mod failures;
mod jobs;
mod ledger;
mod quarantine;
mod record;
mod schema;
mod thread;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use jiff::Timestamp;
use uuid::Uuid;

use crate::job::{AlluxioPath, Failure, Job, LoadId, State};

use error::{Bad, Fault};
pub use error::{OpenError, StoreError};
use jobs::Draft;
use thread::{Read, Worker, Write, Writer};

/// Finished jobs that one transaction of [`Store::prune`] removes.
const PRUNE_STEP: i64 = 256;
/// Rows that one step of [`Store::scrub`] reads.
const SCRUB_STEP: usize = 256;

/// The store of one sidecar. Cheap to clone; all clones speak to the same two threads.
#[derive(Clone)]
pub struct Store {
    uid: Uuid,
    file: Arc<Path>,
    reader: Worker<Read>,
    writer: Worker<Write>,
    threads: Arc<Mutex<Option<Threads>>>,
}

struct Threads {
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// What [`Store::create`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// The job is durable.
    New,
    /// The id is taken by this job; nothing was written.
    Exists(Box<Job>),
    /// As many live jobs as allowed are stored already; nothing was written.
    Full { live: usize },
}

/// What [`Store::delete`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    Yes,
    NotFound,
    /// Only finished jobs are deleted.
    StillLive(Box<Job>),
}

/// Which jobs to list; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Any of these; empty: all.
    pub states: Vec<State>,
    /// The path itself or one below it.
    pub path_prefix: Option<AlluxioPath>,
    /// All of these labels with these values.
    pub labels: BTreeMap<String, String>,
    /// Only jobs with a smaller ordinal.
    pub before: Option<u64>,
    /// At most so many jobs come back.
    pub limit: usize,
}

/// Something that [`Store::scrub`] took out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Of the load; empty when it cannot be told.
    pub id: String,
    pub reason: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("uid", &self.uid).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates `<dir>/loads.sqlite3`, and `dir`. Exclusive: a second opener gets
    /// [`OpenError::Locked`]. Blocking.
    ///
    /// Reads the indexes, not the rows: 100,000 finished jobs take some tens of milliseconds.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let opened = disk::open(dir)?;
        let file: Arc<Path> = opened.file.as_path().into();
        let lock = Arc::new(opened.lock);
        let spawn = |e: std::io::Error| OpenError::from_io("starting threads for", &opened.file, &e);
        let conn = disk::connect(&file).map_err(|e| OpenError::from_sql(&file, &e))?;
        let (reader, reading) = thread::reader(conn, Arc::clone(&lock)).map_err(spawn)?;
        let writer =
            Writer { conn: opened.conn, ledger: opened.ledger, uid: opened.uid, file: opened.file.clone() };
        let (writer, writing) = writer.spawn(lock).map_err(spawn)?;
        let threads = Arc::new(Mutex::new(Some(Threads { reader: reading, writer: writing })));
        Ok(Self { uid: opened.uid, file, reader, writer, threads })
    }

    /// Made once per store: another uid means that the store was lost.
    #[must_use]
    pub fn uid(&self) -> Uuid {
        self.uid
    }

    /// Durable when it returns. `max_live` counts all live jobs that are stored.
    pub async fn create(&self, job: Job, max_live: usize) -> Result<Created, StoreError> {
        let id = job.id.clone();
        let draft = Arc::new(Draft::new(job).map_err(|error| error.at(&self.file))?);
        self.settle(&id, || {
            let draft = Arc::clone(&draft);
            self.writer.call(move |conn, ledger| jobs::create(conn, ledger, &draft, max_live))
        })
        .await
    }

    /// Replaces the stored job with the same uid. Durable when it returns. A stored job that is damaged is
    /// replaced too.
    pub async fn update(&self, job: Job) -> Result<(), StoreError> {
        let id = job.id.clone();
        let draft = Arc::new(Draft::new(job).map_err(|error| error.at(&self.file))?);
        self.settle(&id, || {
            let draft = Arc::clone(&draft);
            self.writer.call(move |conn, ledger| jobs::update(conn, ledger, &draft))
        })
        .await
    }

    pub async fn get(&self, id: &LoadId) -> Result<Option<Job>, StoreError> {
        self.settle(id, || {
            let id = id.clone();
            self.reader.call(move |conn| jobs::get(conn, &id))
        })
        .await
    }

    /// Jobs that are not terminal, oldest first. Here and in other calls that return many jobs, a damaged
    /// one is logged, put in quarantine, and left out.
    pub async fn live(&self) -> Result<Vec<Job>, StoreError> {
        self.read_each(jobs::live).await
    }

    /// LOADED jobs of another cluster than `cluster`.
    pub async fn loaded_elsewhere(&self, cluster: &str) -> Result<Vec<Job>, StoreError> {
        let cluster = cluster.to_owned();
        self.read_each(move |conn| jobs::loaded_elsewhere(conn, &cluster)).await
    }

    /// Jobs that were cancelled or failed before the lengths of their blocks were proven.
    pub async fn ended_unproven(&self) -> Result<Vec<Job>, StoreError> {
        self.read_each(jobs::ended_unproven).await
    }

    pub async fn any_loaded(&self) -> Result<bool, StoreError> {
        self.reader.call(jobs::any_loaded).await.map_err(|fault| self.error(fault))
    }

    /// Newest first, with their ordinals: creation order, never reused.
    pub async fn list(&self, query: ListQuery) -> Result<Vec<(u64, Job)>, StoreError> {
        let query = Arc::new(query);
        let mut found = Vec::new();
        let mut before = Some(query.before.map_or(i64::MAX, |b| i64::try_from(b).unwrap_or(i64::MAX)));
        // In steps, so that other readers get their turn.
        while let Some(below) = before
            && found.len() < query.limit
        {
            let (query, wanted) = (Arc::clone(&query), query.limit - found.len());
            let step = self.reader.call(move |conn| jobs::list(conn, &query, below, wanted)).await;
            let step = step.map_err(|fault| self.error(fault))?;
            self.quarantine_all(step.bad).await;
            found.extend(step.jobs.into_iter().map(|(ordinal, job)| (ordinal.cast_unsigned(), job)));
            before = step.before;
        }
        Ok(found)
    }

    /// Forgets a finished job and its failures, and sets the id of a damaged one free. Durable when it
    /// returns.
    pub async fn delete(&self, id: &LoadId) -> Result<Deleted, StoreError> {
        self.settle(id, || {
            let id = id.clone();
            self.writer.call(move |conn, ledger| jobs::delete(conn, ledger, &id))
        })
        .await
    }

    /// Rows of a verification, after those appended before. Durable when it returns.
    /// `generation` must never have been used before for `uid`, or what an interrupted verification left
    /// mixes in; it must grow; [`Job::sequence`] serves.
    pub async fn append_failures(
        &self,
        uid: Uuid,
        generation: u64,
        failures: Vec<Failure>,
    ) -> Result<(), StoreError> {
        let bodies = failures::bodies(&failures).map_err(|error| error.at(&self.file))?;
        let generation = generation.cast_signed();
        let call = self.writer.call(move |conn, _| failures::append(conn, uid, generation, bodies));
        call.await.map_err(|fault| self.error(fault))
    }

    /// The newest generation of failures that is stored for `uid`, whether or not a job refers to it; 0: none.
    pub async fn newest_generation(&self, uid: Uuid) -> Result<u64, StoreError> {
        let call = self.reader.call(move |conn| failures::newest(conn, uid));
        call.await.map(i64::cast_unsigned).map_err(|fault| self.error(fault))
    }

    /// Failures with a running number above `after` (0: from the start), in the order of their coming.
    pub async fn failures(
        &self,
        uid: Uuid,
        generation: u64,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Failure)>, StoreError> {
        let (generation, after) = (generation.cast_signed(), i64::try_from(after).unwrap_or(i64::MAX));
        let call = self.reader.call(move |conn| failures::page(conn, uid, generation, after, limit));
        let page = call.await.map_err(|fault| self.error(fault))?;
        if page.bad > 0 {
            tracing::error!(%uid, rows = page.bad, "records of failed files are damaged and left out");
        }
        Ok(page.failures)
    }

    /// Forgets jobs that ended before `before`, the oldest finished ones beyond the newest `keep`, and
    /// failures that no job refers to, unless their job is one of those that `spared` names: somebody is adding
    /// to them. Works in small transactions; those done stay done when one fails.
    pub async fn prune(
        &self,
        before: Timestamp,
        keep: usize,
        spared: impl Fn(Uuid) -> bool + Clone + Send + 'static,
    ) -> Result<Vec<LoadId>, StoreError> {
        let before = before.as_microsecond();
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let mut forgotten = Vec::new();
        loop {
            let call = self.writer.call(move |conn, ledger| {
                let ordinals = jobs::outlived(conn, before, keep, PRUNE_STEP)?;
                let (jobs, bads) = jobs::read_each(conn, &ordinals)?;
                for (ordinal, job) in &jobs {
                    jobs::remove(conn, ledger, *ordinal, job)?;
                }
                for bad in &bads {
                    quarantine::take(conn, bad)?;
                }
                Ok((ordinals.is_empty(), jobs))
            });
            let (done, jobs) = call.await.map_err(|fault| self.error(fault))?;
            forgotten.extend(jobs.into_iter().map(|(_, job)| job.id));
            if done {
                break;
            }
        }
        let forget = self.writer.call(move |conn, _| quarantine::forget_old(conn, before));
        forget.await.map_err(|fault| self.error(fault))?;
        let mut next = Some((Vec::new(), i64::MIN));
        while let Some(after) = next {
            let spared = spared.clone();
            let call = self.writer.call(move |conn, _| failures::remove_orphans(conn, &after, spared));
            next = call.await.map_err(|fault| self.error(fault))?;
        }
        Ok(forgotten)
    }

    /// Reads every row in small steps and takes those that are damaged out of service; then has SQLite
    /// check the file, and makes damaged indexes again. [`StoreError::Corrupt`]: there is more than that.
    pub async fn scrub(&self) -> Result<Vec<Quarantined>, StoreError> {
        let mut found = Vec::new();
        let ordinals = self.reader.call(jobs::all).await.map_err(|fault| self.error(fault))?;
        for some in ordinals.chunks(SCRUB_STEP).map(<[i64]>::to_vec) {
            let call = self.reader.call(move |conn| Ok(jobs::read_each(conn, &some)?.1));
            let bads = call.await.map_err(|fault| self.error(fault))?;
            found.extend(self.quarantine_all(bads).await);
        }
        let mut next = Some(failures::Key::default());
        let mut lost = 0;
        while let Some(after) = next {
            let call = self.reader.call(move |conn| failures::audit(conn, &after, SCRUB_STEP));
            let (bad, last) = call.await.map_err(|fault| self.error(fault))?;
            lost += bad;
            next = last;
        }
        if lost > 0 {
            let reason = format!("{lost} records of failed files do not hold");
            tracing::error!(reason, "records of failed files are damaged and left out");
            found.push(Quarantined { id: String::new(), reason });
        }
        self.check_file().await?;
        Ok(found)
    }

    /// Ends both threads after all that was asked before; other clones get [`StoreError::Closed`].
    pub async fn close(self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { reader, writer }) = threads else { return };
        // The writer ends last: the last connection folds the log into the file.
        self.reader.close().await;
        let _never_panics = tokio::task::spawn_blocking(move || reader.join()).await;
        self.writer.close().await;
        let _never_panics = tokio::task::spawn_blocking(move || writer.join()).await;
    }

    // === what the calls above are made of ===

    fn error(&self, fault: Fault) -> StoreError {
        match fault.at(&self.file) {
            Fault::Store(error) => error,
            Fault::Bad(bad) => StoreError::Corrupt { file: self.file.to_path_buf(), problem: bad.reason },
        }
    }

    /// Puts a row in quarantine that `attempt` stumbles over, and tries once more.
    async fn settle<T, F>(&self, id: &LoadId, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        for _ in 0..2 {
            match attempt().await {
                Err(Fault::Bad(bad)) => _ = self.quarantine_all(vec![bad]).await,
                other => return other.map_err(|fault| self.error(fault)),
            }
        }
        Err(StoreError::Damaged { id: id.to_string() })
    }

    async fn read_each(
        &self,
        which: impl FnOnce(&rusqlite::Connection) -> Result<Vec<i64>, Fault> + Send + 'static,
    ) -> Result<Vec<Job>, StoreError> {
        let call = self.reader.call(move |conn| jobs::read_each(conn, &which(conn)?));
        let (jobs, bads) = call.await.map_err(|fault| self.error(fault))?;
        self.quarantine_all(bads).await;
        Ok(jobs.into_iter().map(|(_, job)| job).collect())
    }

    /// A row that cannot be put there (a full disk) is met again, and never served.
    async fn quarantine_all(&self, bads: Vec<Bad>) -> Vec<Quarantined> {
        let mut taken = Vec::new();
        for bad in bads {
            let (ordinal, reason) = (bad.ordinal, bad.reason.clone());
            match self.writer.call(move |conn, _| quarantine::take(conn, &bad)).await {
                Ok(found) => taken.extend(found),
                Err(fault) => {
                    let error = self.error(fault);
                    tracing::error!(ordinal, reason, %error, "a damaged record cannot go into quarantine");
                }
            }
        }
        taken
    }

    async fn check_file(&self) -> Result<(), StoreError> {
        let file: PathBuf = self.file.to_path_buf();
        let check = tokio::task::spawn_blocking(move || thread::look(&file, schema::integrity)).await;
        let lines = check.unwrap_or(Err(StoreError::Closed.into())).map_err(|fault| self.error(fault))?;
        let Some(problem) = lines.first().cloned() else { return Ok(()) };
        tracing::error!(problem, file = %self.file.display(), "the store's file is damaged");
        let call = self.writer.call(move |conn, ledger| {
            // Rows in quarantine keep their place, and disagree with their index entries.
            if !lines.iter().any(|line| schema::is_structural(line)) && !quarantine::is_empty(conn)? {
                return Ok(());
            }
            match ledger.repair(conn)? {
                None => Ok(()),
                Some(problem) => Err(StoreError::Corrupt { file: PathBuf::new(), problem }.into()),
            }
        });
        call.await.map_err(|fault| self.error(fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_panics_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let panicked = |fault: Result<(), Fault>| matches!(fault, Err(Fault::Store(StoreError::Panicked)));
        for _ in 0..2 {
            let write = store.writer.call(|conn, _| {
                conn.execute("DELETE FROM store", ())?;
                panic!("in the middle of a change")
            });
            assert!(panicked(write.await));
            assert!(panicked(store.reader.call(|_| panic!("while reading")).await));
        }
        assert_eq!(store.live().await, Ok(Vec::new()));
        let rows =
            store.reader.call(|conn| Ok(conn.query_row("SELECT count(*) FROM store", (), |r| r.get(0))?));
        assert_eq!(rows.await.ok(), Some(1_i64), "the change was rolled back");
        store.close().await;
    }
}
