//! VERIFYING: is every block in the cache, as wished, on workers that are alive?
//!
//! A worker's copies count when it sent a heartbeat after the loading ended (a worker without room says ok
//! and evicts; the master's map knows only after a heartbeat), was not silent, and answered a call of ours.
//! The master lists the blocks of a dead worker for minutes.
//!
//! LOADED speaks of one instant, and counting takes a while. Where nothing can have left the cache meanwhile,
//! that instant is the whole count; where the cache is full or has shrunk, everything must have been there in
//! two counts in a row, and the instant lies between them.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use alluxio_client::{Client, Error, LoadMetadata, Worker};
use futures_util::future::join_all;
use thiserror::Error as ThisError;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::{
    gates::{self, Shut},
    job::{Failure, FailureList, Job, Reason},
    store::{Store, StoreError},
    survey::Survey,
};

/// A live worker sends a heartbeat a second; one that has not within this is no proof of anything.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// For one round trip to a worker.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Failures stored at once: bounds memory, and the size of a transaction.
const BATCH: usize = 500;
/// Times to count at most, when the cluster changes underneath.
pub(super) const ROUNDS: u64 = 3;
/// A worker with less than one part in so many of its cache free may have to evict blocks.
const PRESSED_BELOW: u64 = 20;

/// What a verification found.
#[derive(Debug)]
pub(super) enum Verdict {
    Complete(Survey),
    Missing(Survey, FailureList),
    /// Not to be judged now.
    Shut(Shut),
}

/// A list of failures on its way into the store.
pub(super) struct Failures<'a> {
    store: &'a Store,
    uid: Uuid,
    list: FailureList,
    batch: Vec<Failure>,
}

impl<'a> Failures<'a> {
    /// `generation`: one that no list of this load had before.
    pub(super) fn new(store: &'a Store, uid: Uuid, generation: u64) -> Self {
        Self { store, uid, list: FailureList { generation, count: 0 }, batch: Vec::new() }
    }

    pub(super) async fn push(&mut self, failure: Failure) -> Result<(), StoreError> {
        self.batch.push(failure);
        self.list.count += 1;
        if self.batch.len() == BATCH { self.write().await } else { Ok(()) }
    }

    /// The list, once it is durable.
    pub(super) async fn finish(mut self) -> Result<FailureList, StoreError> {
        if !self.batch.is_empty() {
            self.write().await?;
        }
        Ok(self.list)
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        self.store.append_failures(self.uid, self.list.generation, batch).await
    }
}

#[derive(Debug, ThisError)]
pub(super) enum VerifyError {
    #[error(transparent)]
    Alluxio(#[from] Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Verifies the path of `job`. `loaded_at`: when an engine ended; `None`: nothing was loaded just now.
/// `causes`: why files failed, by path, for the list of failures.
pub(super) async fn run(
    client: &Client,
    store: &Store,
    job: &Job,
    loaded_at: Option<Instant>,
    causes: &HashMap<String, String>,
) -> Result<Verdict, VerifyError> {
    let mut whole_before = false;
    for round in 0..ROUNDS {
        let workers = proven_workers(client, loaded_at).await?;
        if let Some(shut) = gates::workers(&job.spec, &workers) {
            return Ok(Verdict::Shut(shut));
        }
        let proven: HashSet<i64> = workers.iter().map(|w| w.id).collect();
        // A number that no verification of this load had before: several changes lie between two of them.
        let generation = job.sequence + round;
        let (survey, failures) = walk(client, store, job, generation, proven, causes).await?;
        let changed = change(&workers, &proven_workers(client, None).await?);
        if changed == Change::WorkersGone {
            // What we saw is void.
            whole_before = false;
            continue;
        }
        let cluster = client.cluster_id().await?;
        if cluster != job.cluster {
            let message =
                format!("the alluxio cluster changed from {} to {cluster} during the load", job.cluster);
            return Ok(Verdict::Shut(Shut { reason: Reason::ClusterChanged, message }));
        }
        if !survey.is_complete() {
            return Ok(Verdict::Missing(survey, failures));
        }
        if changed == Change::None || whole_before {
            return Ok(Verdict::Complete(survey));
        }
        whole_before = true;
    }
    let message = "workers came and went during every verification".to_owned();
    Ok(Verdict::Shut(Shut { reason: Reason::WorkersMissing, message }))
}

/// What happened to the cache while it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing left it.
    None,
    /// Blocks may have left it.
    Evictions,
    /// A worker fell silent, or is another one.
    WorkersGone,
}

pub(super) fn change(before: &[Worker], after: &[Worker]) -> Change {
    let mut change = Change::None;
    for worker in before {
        let Some(now) = after.iter().find(|now| now.id == worker.id) else { return Change::WorkersGone };
        let free = |w: &Worker| w.capacity_bytes.saturating_sub(w.used_bytes);
        let pressed = |w: &Worker| free(w) < w.capacity_bytes / PRESSED_BELOW;
        if now.used_bytes < worker.used_bytes || pressed(now) || pressed(worker) {
            change = Change::Evictions;
        }
    }
    change
}

/// Live workers that were heard of after `loaded_at` and answered a call of ours.
pub(super) async fn proven_workers(
    client: &Client,
    loaded_at: Option<Instant>,
) -> Result<Vec<Worker>, Error> {
    let begun = Instant::now();
    let heard = |worker: &Worker| {
        // The master tells whole seconds, so the heartbeat may be up to one older than it says.
        loaded_at.is_none_or(|at| worker.last_contact + Duration::from_secs(1) <= at.elapsed())
    };
    let workers = loop {
        let mut workers = client.workers().await?;
        workers.retain(gates::is_live);
        if workers.iter().all(heard) || begun.elapsed() > HEARTBEAT_WITHIN {
            workers.retain(heard);
            break workers;
        }
        sleep(LOOK_EVERY).await;
    };
    Ok(answering(client, workers).await)
}

/// Those of `workers` that answer a call of ours.
pub(super) async fn answering(client: &Client, workers: Vec<Worker>) -> Vec<Worker> {
    let answers =
        join_all(workers.iter().map(|w| timeout(ANSWER_WITHIN, client.ping_worker(&w.address)))).await;
    let answered = workers.into_iter().zip(answers).filter_map(|(worker, answer)| match answer {
        Ok(Ok(())) => Some(worker),
        silent => {
            tracing::warn!(
                host = worker.address.host,
                ?silent,
                "a worker does not answer; its copies do not count"
            );
            None
        }
    });
    answered.collect()
}

/// Counts every block below the path; what is missing goes to the store in batches.
async fn walk(
    client: &Client,
    store: &Store,
    job: &Job,
    generation: u64,
    proven: HashSet<i64>,
    causes: &HashMap<String, String>,
) -> Result<(Survey, FailureList), VerifyError> {
    let replicas = job.spec.replicas.get();
    let mut survey = Survey::new(replicas, proven);
    let mut failures = Failures::new(store, job.uid, generation);
    let mut listing = client.list(job.spec.path.as_str(), LoadMetadata::Never).await?;
    while let Some(file) = listing.next().await? {
        if let Some(tally) = survey.add(&file) {
            let cause = causes.get(&file.path).map(String::as_str);
            failures.push(tally.failure(&file, replicas, cause)).await?;
        }
    }
    Ok((survey, failures.finish().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: i64, used_bytes: u64) -> Worker {
        Worker { id, used_bytes, capacity_bytes: 100, ..Worker::default() }
    }

    #[test]
    fn only_a_cache_with_room_that_did_not_shrink_is_unchanged() {
        let two = |one, two| [worker(1, one), worker(2, two)];
        assert_eq!(change(&two(10, 20), &two(10, 30)), Change::None);
        assert_eq!(change(&two(10, 20), &two(10, 19)), Change::Evictions);
        assert_eq!(change(&two(10, 96), &two(10, 96)), Change::Evictions);
        assert_eq!(change(&two(10, 20), &two(10, 96)), Change::Evictions);
        assert_eq!(change(&two(10, 95), &two(10, 95)), Change::None);
        assert_eq!(change(&two(10, 20), &[worker(1, 10), worker(3, 20)]), Change::WorkersGone);
        assert_eq!(change(&two(10, 20), &[worker(1, 9)]), Change::WorkersGone);
        assert_eq!(change(&[worker(1, 10)], &two(10, 20)), Change::None, "a new one does no harm");
    }
}
