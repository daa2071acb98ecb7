//! Owner of all loads: accepts them, admits them, runs them, forgets them.
//!
//! Only live loads are in memory; finished ones are read from the store. Each live load is driven by one
//! task (`runner`), which is the only one that moves its state; requests only record wishes.
//!
//! Invariants: at most `Limits::running` loads run at once, and never two whose paths overlap; a load is in
//! `live` from the moment it is durable until its terminal state is durable.

mod admission;
mod check;
mod fanout;
mod live;
mod loads;
mod monitor;
mod reverify;
mod runner;
mod sampler;
mod schedule;
mod stall;
mod verify;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking::Shared;
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use uuid::Uuid;

pub use self::watch::Watch;
use self::{
    live::{ChangeError, Live},
    loads::Loads,
    reverify::Checks,
    runner::{Runner, Stop},
    schedule::Schedule,
};
use crate::{
    alluxio::Alluxio,
    clock::Clock,
    gates::Shut,
    job::{Event, Failure, FailureList, Job, LoadId, Reason, Spec, State},
    metrics::Metrics,
    store::{Created, Deleted, ListQuery, Store, StoreError},
};

/// Tries to end a load whose task is gone, after the first.
const BURIALS: u32 = 3;

/// How long a stop waits for a master that loads metadata and workers that cache blocks for us. Kubernetes kills after
/// 30 s by default.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// How much the sidecar takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Loads at once. distributedLoad submits one command at a time and each has a JVM of its own.
    pub running: usize,
    /// Loads waiting behind those.
    pub queued: usize,
    /// How long finished loads are remembered.
    pub retention: Duration,
    /// How many finished loads are remembered.
    pub retained: usize,
    /// How long a command may run without any progress. Longer than a large file takes that pushes others
    /// out of a full cache: then no byte is seen to come in, and no job to end.
    pub stall_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running: 4,
            queued: 64,
            retention: Duration::from_secs(30 * 24 * 3600),
            retained: 10_000,
            stall_after: Duration::from_secs(15 * 60),
        }
    }
}

/// Handle on the manager; clones share it.
#[derive(Debug, Clone)]
pub struct Manager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    alluxio: Arc<Alluxio>,
    clock: Clock,
    limits: Limits,
    metrics: Metrics,
    live: Shared<Loads>,
    /// LOADED jobs with a watcher that follows them.
    followed: Shared<HashMap<LoadId, tokio::sync::watch::Sender<Arc<Job>>>>,
    checks: Checks,
    schedule: Schedule,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// A request that was not carried out. The caller acts, except for `Store`.
#[derive(Debug, Clone, Error)]
pub enum ManagerError {
    #[error("load {id} exists with another wish; see {}", fields.join(", "))]
    Conflict { id: LoadId, fields: Vec<&'static str> },
    #[error("{live} loads are queued or running, as many as allowed; try again later")]
    QueueFull { live: usize },
    #[error("there is no load {id}")]
    NotFound { id: LoadId, store: Uuid },
    #[error("load {id} is {}; cancel it first", format!("{state:?}").to_ascii_uppercase())]
    StillLive { id: LoadId, state: State },
    #[error("load {id} is {state:?}; only a LOADED load is checked")]
    NotLoaded { id: LoadId, state: State },
    #[error("load {id} stays LOADED and could not be checked: {}", shut.message)]
    NotJudged { id: LoadId, shut: Shut },
    #[error("the list was made anew by another verification; begin again without a token")]
    ListChanged,
    #[error("the sidecar is stopping; try again")]
    Stopping,
    #[error("load {id} is just being taken up; try again")]
    NotDriven { id: LoadId },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Internal(#[from] crate::job::IllegalEvent),
    #[error("the sidecar has a bug: see its log")]
    Panicked,
}

impl From<ChangeError> for ManagerError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Store(error) => Self::Store(error),
            ChangeError::Illegal(error) => Self::Internal(error),
        }
    }
}

impl Manager {
    /// Takes up every live load of `store` where it stood, and starts the monitor.
    pub async fn start(
        store: Store,
        alluxio: Arc<Alluxio>,
        clock: Clock,
        limits: Limits,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let manager = Self(Arc::new(Inner {
            store,
            alluxio,
            clock,
            limits,
            metrics,
            live: Shared::default(),
            followed: Shared::default(),
            checks: Checks::default(),
            schedule: Schedule::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        let inner = &manager.0;
        let mut jobs = inner.store.live().await?;
        // Those that ran go first: they hold data half loaded.
        jobs.sort_by_key(|job| job.state == State::Queued);
        let jobs: Vec<Job> = jobs.into_iter().map(|job| job.recovered(inner.clock.now())).collect();
        // All or none: a failure half way must not leave loads running that nobody can reach.
        for job in &jobs {
            inner.store.update(job.clone()).await?;
        }
        for job in jobs {
            manager.drive(job);
        }
        manager.admit();
        inner.tasks.spawn(monitor::keep(manager.clone()));
        inner.tasks.spawn(schedule::keep(manager.clone()));
        // Asking `alluxio getConf` takes a JVM's start; the first load should not wait for it.
        let (alluxio, stopping) = (Arc::clone(&inner.alluxio), inner.stopping.clone());
        inner.tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                resolved = alluxio.client() => if let Err(error) = resolved {
                    tracing::warn!(%error, "alluxio cannot be addressed yet");
                },
            }
        });
        Ok(manager)
    }

    /// Durable when it returns. The same id and an equal spec return the load as it is.
    pub async fn start_load(&self, id: Option<LoadId>, spec: Spec) -> Result<Arc<Job>, ManagerError> {
        let manager = self.clone();
        self.to_its_end(async move { manager.create(id, spec).await }).await
    }

    async fn create(&self, id: Option<LoadId>, spec: Spec) -> Result<Arc<Job>, ManagerError> {
        let inner = &self.0;
        let uid = Uuid::now_v7();
        let id = match id {
            Some(id) => id,
            None => LoadId::from(uid),
        };
        let job = Job::new(id.clone(), uid, spec, inner.clock.now());
        match inner.store.create(job.clone(), inner.limits.running + inner.limits.queued).await? {
            Created::New => {
                let live = self.drive(job);
                self.admit();
                Ok(live.job())
            }
            Created::Exists(stored) => match stored.spec.differences(&job.spec) {
                fields if fields.is_empty() => self.newest(*stored).await,
                fields => Err(ManagerError::Conflict { id, fields }),
            },
            Created::Full { live } => Err(ManagerError::QueueFull { live }),
        }
    }

    pub async fn get(&self, id: &LoadId) -> Result<Arc<Job>, ManagerError> {
        if let Some(live) = self.find(id) {
            return Ok(live.job());
        }
        let stored = self.0.store.get(id).await?;
        stored.map(Arc::new).ok_or_else(|| self.not_found(id))
    }

    /// A load that no task drives: a finished one. One that is stored as live is about to get its task.
    async fn finished(&self, id: &LoadId) -> Result<Arc<Job>, ManagerError> {
        let job = self.get(id).await?;
        if job.state.is_live() { Err(ManagerError::NotDriven { id: id.clone() }) } else { Ok(job) }
    }

    /// A stream of the load's states. See [`Watch`].
    pub async fn watch(&self, id: &LoadId, follow: bool) -> Result<Watch, ManagerError> {
        Watch::open(self.clone(), id.clone(), follow).await
    }

    /// Newest first, with their ordinals. Live loads show their present progress.
    pub async fn list(&self, query: ListQuery) -> Result<Vec<(u64, Arc<Job>)>, ManagerError> {
        let mut newest = Vec::new();
        for (ordinal, job) in self.0.store.list(query).await? {
            newest.push((ordinal, self.newest(job).await?));
        }
        Ok(newest)
    }

    /// What was read from the store a moment ago, as it is now: a load may have ended since, after it had shown
    /// more progress than its row.
    async fn newest(&self, stored: Job) -> Result<Arc<Job>, ManagerError> {
        if let Some(live) = self.find(&stored.id) {
            return Ok(live.job());
        }
        if !stored.state.is_live() {
            return Ok(Arc::new(stored));
        }
        let again = self.0.store.get(&stored.id).await?;
        // Deleted meanwhile: it was there when we were asked.
        Ok(Arc::new(again.filter(|job| job.uid == stored.uid).unwrap_or(stored)))
    }

    /// The wish is durable when it returns; a finished load stays as it is.
    pub async fn cancel(&self, id: &LoadId) -> Result<Arc<Job>, ManagerError> {
        let (manager, id) = (self.clone(), id.clone());
        self.to_its_end(async move { manager.record_cancel(&id).await }).await
    }

    async fn record_cancel(&self, id: &LoadId) -> Result<Arc<Job>, ManagerError> {
        let Some(live) = self.find(id) else { return self.finished(id).await };
        if live.job().cancel_requested.is_some() {
            return Ok(live.job());
        }
        match live.apply(Event::CancelRequested).await {
            Ok(job) => {
                live.cancel.cancel();
                Ok(job)
            }
            // It finished meanwhile.
            Err(ChangeError::Illegal(_)) => self.get(id).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The list that the last verification made, and its failures numbered above `after`. `generation`: of
    /// the list that the caller has begun to read.
    pub async fn failures(
        &self,
        id: &LoadId,
        generation: Option<u64>,
        after: u64,
        limit: usize,
    ) -> Result<(FailureList, Vec<(u64, Failure)>), ManagerError> {
        let job = self.get(id).await?;
        let list = job.failures;
        if generation.is_some_and(|generation| generation != list.generation) {
            return Err(ManagerError::ListChanged);
        }
        Ok((list, self.0.store.failures(job.uid, list.generation, after, limit).await?))
    }

    pub async fn delete(&self, id: &LoadId) -> Result<(), ManagerError> {
        match self.0.store.delete(id).await? {
            Deleted::Yes => {
                self.0.followed.with(|followed| followed.remove(id));
                self.0.schedule.forget(id);
                Ok(())
            }
            Deleted::NotFound => Err(self.not_found(id)),
            Deleted::StillLive(job) => Err(ManagerError::StillLive { id: id.clone(), state: job.state }),
        }
    }

    /// Live loads, in the order of their coming.
    #[must_use]
    pub fn live(&self) -> Vec<Arc<Job>> {
        self.0.live.with(|live| live.all().map(|l| l.job()).collect())
    }

    /// Cancelled when [`shut_down`](Self::shut_down) begins: watches end with it.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// Ends every child and task. Loads stay as they are in the store and go on at the next start.
    pub async fn shut_down(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if timeout(SETTLED_WITHIN, self.0.alluxio.settled()).await.is_err() {
            tracing::warn!(
                "calls are cut off: a file that the master is about to make known may stay incomplete, and a worker \
                 be busy for two minutes"
            );
        }
    }

    /// Runs `work` in a task of its own: a client that hangs up half way must not leave a load that is
    /// stored and not driven, or a wish that is stored and not heard.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ManagerError>> + Send + 'static,
    ) -> Result<T, ManagerError> {
        if self.0.stopping.is_cancelled() {
            return Err(ManagerError::Stopping);
        }
        match self.0.tasks.spawn(work).await {
            Ok(done) => done,
            Err(ended) if ended.is_panic() => Err(ManagerError::Panicked),
            Err(_) => Err(ManagerError::Stopping),
        }
    }

    /// Drives loads that are live in the store and unknown here, when they were so at the last look too.
    /// They come from a write whose outcome was an error, but which is on the disk all the same.
    async fn adopt(&self, seen: &mut HashSet<Uuid>) -> Result<(), StoreError> {
        let stored = self.0.store.live().await?;
        let known: HashSet<Uuid> = self.0.live.with(|live| live.all().map(|l| l.job().uid).collect());
        let strays: Vec<Job> = stored.into_iter().filter(|job| !known.contains(&job.uid)).collect();
        let before = std::mem::replace(seen, strays.iter().map(|job| job.uid).collect());
        for job in strays.into_iter().filter(|job| before.contains(&job.uid)) {
            tracing::warn!(id = %job.id, "a load in the store was not running; taking it up");
            let job = job.recovered(self.now());
            self.0.store.update(job.clone()).await?;
            self.drive(job);
        }
        self.admit();
        Ok(())
    }

    /// The load, unless it has ended: then the store knows it, also in the moment before it leaves `live`.
    fn find(&self, id: &LoadId) -> Option<Arc<Live>> {
        self.0.live.with(|live| live.get(id).filter(|l| l.job().state.is_live()).cloned())
    }

    fn not_found(&self, id: &LoadId) -> ManagerError {
        ManagerError::NotFound { id: id.clone(), store: self.0.store.uid() }
    }

    /// Gives `job` its task.
    fn drive(&self, job: Job) -> Arc<Live> {
        let inner = &self.0;
        // Of the highest level, so that a line of any level says which load it is about.
        let span = tracing::error_span!("load", id = %job.id, path = %job.spec.path);
        let live = Arc::new(Live::new(
            job,
            inner.store.clone(),
            inner.clock.clone(),
            inner.metrics.clone(),
            inner.tasks.clone(),
            inner.stopping.clone(),
        ));
        if live.job().cancel_requested.is_some() {
            live.cancel.cancel();
        }
        inner.live.with(|all| all.add(Arc::clone(&live)));
        let (manager, ended) = (self.clone(), Arc::clone(&live));
        let runner = Runner::new(self.clone(), Arc::clone(&live));
        let work = inner.tasks.spawn(runner.run().instrument(span.clone()));
        let watchdog = async move {
            let outcome = work.await;
            if ended.job().state.is_live() && !manager.stopping().is_cancelled() {
                tracing::error!(?outcome, "the task of a load ended before the load; this is a bug");
                manager.bury(&ended).await;
            }
            if !ended.job().state.is_live() {
                manager.0.schedule.note(&ended.job());
                manager.0.live.with(|live| live.remove(&ended));
                manager.admit();
            }
        };
        inner.tasks.spawn(watchdog.instrument(span));
        live
    }

    /// Ends a load whose task is gone. What happened to that may happen again here, so each try is a task too.
    async fn bury(&self, live: &Arc<Live>) {
        let message = "the sidecar has a bug: the task of this load ended early; see its log".to_owned();
        let stop = Stop::Failed { reason: Reason::Internal, message: message.clone() };
        let undertaker = Runner::new(self.clone(), Arc::clone(live));
        let thorough = async move { Box::pin(undertaker.end(stop)).await };
        let _panicked = self.0.tasks.spawn(thorough.in_current_span()).await;
        for _ in 0..BURIALS {
            if !live.job().state.is_live() || self.stopping().is_cancelled() {
                return;
            }
            // Without a look at what the load left in Alluxio.
            let (live, message) = (Arc::clone(live), message.clone());
            let plain = async move {
                let event = match live.job().cancel_requested {
                    Some(_) => Event::Cancelled,
                    None => Event::Failed { reason: Reason::Internal, message },
                };
                if let Err(error) = live.apply(event).await {
                    tracing::error!(%error, "the load could not be ended");
                }
            };
            let _panicked = self.0.tasks.spawn(plain.in_current_span()).await;
        }
    }

    /// Lets as many loads go ahead as limits and overlaps allow.
    fn admit(&self) {
        self.0.live.with(|live| live.admit(self.0.limits.running));
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

/// A mutex that is only ever held for the length of a closure, never across an await.
mod parking {
    use std::sync::{Mutex, PoisonError};

    #[derive(Debug, Default)]
    pub(super) struct Shared<T>(Mutex<T>);

    impl<T> Shared<T> {
        pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            // A panic in a closure leaves a list of handles at worst one short; serving goes on.
            f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}
