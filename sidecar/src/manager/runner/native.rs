//! LOADING by the native engine: progress from what the workers acknowledge, and the proof of lengths after it.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use alluxio_client::{Client, Error};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Runner, Stop, attempt::Attempt, loading::Ran, unreachable};
use crate::{
    engine::native::{
        self, Done, Outcome, Wish,
        lengths::{self, Swept},
    },
    gates::{self, Shut},
    job::{AlluxioPath, Count, Event, Job, Reason},
    manager::{sampler::Rate, verify},
    store::StoreError,
    survey::Survey,
};

/// Acknowledgements are published this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// Whether blocks are whole.
struct Proof {
    /// Files of which one was too short, and why.
    short: HashMap<String, String>,
    /// Nothing is left to look at.
    done: bool,
}

impl Runner {
    /// Loads what is missing, and only that.
    pub(super) async fn load_natively(
        &self,
        attempt: Attempt,
        survey: &Survey,
    ) -> Result<Result<Ran, Shut>, Stop> {
        let job = self.job();
        let client = match self.unless_stopped(self.client()).await? {
            Ok(client) => client,
            Err(shut) => return Ok(Err(shut)),
        };
        let mut workers = match self.unless_stopped(client.workers()).await? {
            Ok(workers) => workers,
            Err(error) => return Ok(Err(unreachable(&error))),
        };
        workers.retain(gates::is_live);
        self.apply(attempt.started(&job, None)).await?;
        let wish = Wish {
            path: job.spec.path.clone(),
            replicas: job.spec.replicas.get(),
            max_bytes_per_second: job.spec.max_bytes_per_second,
            workers,
            held: survey.held.clone(),
            evicts: job.spec.allow_evict,
            insist: job.attempt > 0 || job.lengths_unproven,
        };
        let done = watch::Sender::new(Done::default());
        let progress = self.tell_acknowledged(done.subscribe(), survey.count(true));
        let loaded = self.unless_stopped(async {
            tokio::select! {
                loaded = native::run(client, &wish, &done) => loaded,
                never = progress => match never {},
            }
        });
        let (outcome, listed) = loaded.await?;
        // What was loaded until then counts; verification finds the rest.
        let complaint = listed.err().map_or_else(String::new, |error| super::chain(&error));
        let mut ended = Instant::now();
        let proof = self.prove(client, &wish, &outcome, job.lengths_unproven, ended);
        let proof = self.unless_stopped(proof).await?;
        let mut causes = outcome.causes;
        let shut = match proof {
            Ok(Proof { short, done }) => {
                if !short.is_empty() {
                    ended = Instant::now();
                }
                causes.extend(short);
                if done {
                    self.lengths_are_proven(true).await?;
                }
                None
            }
            // They are proven when the gate is open again.
            Err(error) => Some(self.or_shut(error.into())?),
        };
        self.apply(Event::LoadingEnded { message: complaint }).await?;
        Ok(shut.map_or(Ok(Ran { refused: false, ended, causes }), Err))
    }

    /// Makes sure that no block is shorter than its file says.
    async fn prove(
        &self,
        client: &Client,
        wish: &Wish,
        outcome: &Outcome,
        unproven: bool,
        ended: Instant,
    ) -> Result<Proof, Error> {
        let answered = !outcome.unanswered && !unproven;
        if answered {
            let add_up = !outcome.in_batches || {
                let after = verify::proven_workers(client, Some(ended)).await?;
                lengths::add_up(&wish.workers, &after, &outcome.acknowledged)
            };
            if add_up {
                return Ok(Proof { short: HashMap::new(), done: true });
            }
        }
        let Swept { short, unproven, unasked } = sweep(client, &wish.path, wish.replicas).await?;
        // What was not answered may come later: it is looked at again once everything is there.
        Ok(Proof { short, done: unproven + unasked == 0 && answered })
    }

    /// Removes what is too short.
    pub(super) async fn clear_short_blocks(&self) -> Result<Result<Swept, Shut>, Stop> {
        let client = match self.unless_stopped(self.client()).await? {
            Ok(client) => client,
            Err(shut) => return Ok(Err(shut)),
        };
        let replicas = self.job().spec.replicas.get();
        match self.unless_stopped(sweep(client, &self.live.path, replicas)).await? {
            Ok(swept) => Ok(Ok(swept)),
            Err(error) => self.or_shut(error.into()).map(Err),
        }
    }

    /// Loads below, above or of the same path that ended before their blocks were proven left them to us.
    pub(super) async fn doubt_lengths(&self) -> Result<Result<(), Shut>, Stop> {
        match self.unproven_before().await {
            Ok(none) if none.is_empty() => Ok(Ok(())),
            Ok(_) => self.apply(Event::LengthsDoubted).await.map(Ok),
            Err(error) => Ok(Err(Shut { reason: Reason::Internal, message: error.to_string() })),
        }
    }

    /// Our blocks are proven. `all`: every copy there is, and with them those of loads that ended before they could be.
    pub(super) async fn lengths_are_proven(&self, all: bool) -> Result<(), Stop> {
        self.apply(Event::LengthsProven).await?;
        if !all {
            return Ok(());
        }
        // Those that cannot be read now are proven once more by the next load.
        for mut job in self.unproven_before().await.unwrap_or_default() {
            if self.live.path.contains(job.spec.path.as_str()) {
                job.lengths_unproven = false;
                if let Err(error) = self.manager.0.store.update(job).await {
                    tracing::debug!(%error, "an older load keeps its doubt");
                }
            }
        }
        Ok(())
    }

    async fn unproven_before(&self) -> Result<Vec<Job>, StoreError> {
        let mut jobs = self.manager.0.store.ended_unproven().await?;
        jobs.retain(|job| job.spec.path.overlaps(&self.live.path));
        Ok(jobs)
    }

    /// Until dropped.
    async fn tell_acknowledged(&self, done: watch::Receiver<Done>, before: Count) -> Infallible {
        let mut rate = Rate::default();
        let mut ticks = interval(PUBLISH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Done { files, bytes } = *done.borrow();
            let mut count = Count {
                // More may come than was missing: what left the cache since the listing, or was added.
                files_cached: (before.files_cached + files).min(before.files_total),
                bytes_cached: (before.bytes_cached + bytes).min(before.bytes_total),
                cached_exact: true,
                ..before
            };
            (count.bytes_per_second, count.eta) = rate.add(Instant::now(), &count);
            self.live.advance(count).await;
        }
    }
}

/// The master lists what a worker holds after its next heartbeat.
async fn sweep(client: &Client, path: &AlluxioPath, replicas: u32) -> Result<Swept, Error> {
    let workers = verify::proven_workers(client, Some(Instant::now())).await?;
    lengths::sweep(client, path, replicas, &workers).await
}
