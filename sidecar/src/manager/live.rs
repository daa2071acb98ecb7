//! One live load: the only way to change its job, and where its watchers listen.
//!
//! Invariant: persist first, publish second. A client never hears of a state that a restart takes back.
//! Progress is the exception: it is published always and persisted now and then, which `sequence_ceiling`
//! makes safe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::fanout::Fanout;
use crate::{
    clock::Clock,
    job::{AlluxioPath, Count, Event, IllegalEvent, Job, LoadId},
    metrics::Metrics,
    store::{Store, StoreError},
};

/// Progress lost by a crash is at most this old; what the cache holds is counted again anyhow.
const PERSIST_PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: LoadId,
    pub(super) path: AlluxioPath,
    /// Cancelled by CancelLoad, after the wish is durable.
    pub(super) cancel: CancellationToken,
    /// Cancelled when the load may leave QUEUED.
    pub(super) admitted: CancellationToken,
    /// Room for what it misses is set aside; given only under the lock of all live loads.
    pub(super) has_room: AtomicBool,
    /// Bytes that the last exact count found missing, over all wished copies.
    pub(super) missing: AtomicU64,
    /// Bytes cached as seen last, exact or reckoned; unlike what is published it may go back.
    pub(super) seen: AtomicU64,
    clock: Clock,
    store: Store,
    metrics: Metrics,
    changing: Mutex<Instant>,
    published: Fanout<Job>,
}

/// A change was not made; nothing was published.
#[derive(Debug, Error)]
pub(super) enum ChangeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
}

impl Live {
    /// `job` is durable already.
    pub(super) fn new(
        job: Job,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            id: job.id.clone(),
            path: job.spec.path.clone(),
            cancel: CancellationToken::new(),
            admitted: CancellationToken::new(),
            has_room: AtomicBool::new(false),
            missing: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            clock,
            store,
            metrics,
            changing: Mutex::new(Instant::now()),
            published: Fanout::new(Arc::new(job), tasks, stopping),
        }
    }

    pub(super) fn job(&self) -> Arc<Job> {
        self.published.latest()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Job>> {
        self.published.subscribe()
    }

    /// Applies `event` durably, then publishes.
    pub(super) async fn apply(&self, event: Event) -> Result<Arc<Job>, ChangeError> {
        let mut persisted_at = self.changing.lock().await;
        let mut job = Job::clone(&self.job());
        let from = job.state;
        job.apply(event, self.clock.now())?;
        self.store.update(job.clone()).await?;
        *persisted_at = Instant::now();
        let job = Arc::new(job);
        self.published.publish(Arc::clone(&job));
        if from != job.state {
            self.metrics.transition(&job);
            tracing::info!(
                from = ?from, to = ?job.state, reason = ?job.reason, why = job.message,
                attempt = job.attempt, "load changed state"
            );
        }
        Ok(job)
    }

    /// Publishes newer counts. A failing store does not stop progress.
    pub(super) async fn advance(&self, count: Count) {
        self.note(&count);
        self.progress(|job, clock| job.advance(count, clock.now())).await;
    }

    /// Publishes an exact count as it is.
    pub(super) async fn count(&self, exact: Count) {
        self.note(&exact);
        self.progress(|job, clock| job.count(exact, clock.now())).await;
    }

    fn note(&self, count: &Count) {
        self.seen.store(count.bytes_cached, Ordering::Relaxed);
        if count.cached_exact {
            self.missing.store(count.bytes_total.saturating_sub(count.bytes_cached), Ordering::Relaxed);
        }
    }

    async fn progress(&self, change: impl FnOnce(&mut Job, &Clock) -> bool) {
        let mut persisted_at = self.changing.lock().await;
        let mut job = Job::clone(&self.job());
        let must_persist = change(&mut job, &self.clock);
        if must_persist || persisted_at.elapsed() >= PERSIST_PROGRESS_EVERY {
            match self.store.update(job.clone()).await {
                Ok(()) => *persisted_at = Instant::now(),
                // The reservation is used up: this sequence number must not be seen.
                Err(_) if must_persist => return,
                Err(error) => tracing::debug!(%error, "progress was not persisted"),
            }
        }
        self.published.publish(Arc::new(job));
    }
}
