//! Durable loads.

mod error;

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use uuid::Uuid;

use crate::job::{AlluxioPath, Failure, Job, LoadId, State};

pub use error::{OpenError, StoreError};

/// The store of one sidecar. Cheap to clone; all clones speak to the same two threads.
#[derive(Debug, Clone)]
pub struct Store {
    uid: Uuid,
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

/// A row that was taken out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// As the id index has it.
    pub id: String,
    pub reason: String,
}

impl Store {
    /// Opens or creates `<dir>/loads.sqlite3`, and `dir`. Exclusive: a second opener gets
    /// [`OpenError::Locked`]. Blocking.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Err(OpenError::NotADirectory { path: dir.to_owned() })
    }

    /// Made once per store: another uid means that the store was lost.
    #[must_use]
    pub fn uid(&self) -> Uuid {
        self.uid
    }

    /// Durable when it returns.
    pub async fn create(&self, _job: Job, _max_live: usize) -> Result<Created, StoreError> {
        Err(StoreError::Closed)
    }

    /// Replaces the stored job with the same uid. Durable when it returns.
    pub async fn update(&self, _job: Job) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    pub async fn get(&self, _id: &LoadId) -> Result<Option<Job>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Jobs that are not terminal, oldest first.
    pub async fn live(&self) -> Result<Vec<Job>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Newest first, with their ordinals: creation order, never reused.
    pub async fn list(&self, _query: ListQuery) -> Result<Vec<(u64, Job)>, StoreError> {
        Err(StoreError::Closed)
    }

    /// LOADED jobs of another cluster than `cluster`.
    pub async fn loaded_elsewhere(&self, _cluster: &str) -> Result<Vec<Job>, StoreError> {
        Err(StoreError::Closed)
    }

    pub async fn any_loaded(&self) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }

    /// Forgets a finished job and its failures. Durable when it returns.
    pub async fn delete(&self, _id: &LoadId) -> Result<Deleted, StoreError> {
        Err(StoreError::Closed)
    }

    /// Rows of a verification. Durable no later than the next [`update`](Self::update) of that job.
    /// `generation` must never have been used before for `uid`, or what an interrupted verification left
    /// mixes in; [`Job::sequence`] serves.
    pub async fn append_failures(
        &self,
        _uid: Uuid,
        _generation: u64,
        _failures: Vec<Failure>,
    ) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Failures with a running number above `after`, in the order of their coming.
    pub async fn failures(
        &self,
        _uid: Uuid,
        _generation: u64,
        _after: u64,
        _limit: usize,
    ) -> Result<Vec<(u64, Failure)>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Forgets jobs that ended before `before`, the oldest finished ones beyond the newest `keep`, and
    /// failures that no job refers to. Works in small transactions; those done stay done when one fails.
    pub async fn prune(&self, _before: Timestamp, _keep: usize) -> Result<Vec<LoadId>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Reads every row in small steps and takes those that are damaged out of service.
    pub async fn scrub(&self) -> Result<Vec<Quarantined>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Ends both threads after all that was asked before; other clones get [`StoreError::Closed`].
    pub async fn close(self) {}
}
