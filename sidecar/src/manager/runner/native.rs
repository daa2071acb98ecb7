//! LOADING by the native engine: progress from what the workers acknowledge, and the proof of lengths after it.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use alluxio_client::{Client, Error};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Runner, Stop, attempt::Attempt, loading::Ran, unreachable};
use crate::{
    engine::native::{self, Done, Outcome, Wish, lengths},
    gates::{self, Shut},
    job::{AlluxioPath, Count, Event, Job},
    manager::{sampler::Rate, verify},
    survey::Survey,
};

/// Acknowledgements are published this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

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
        };
        let done = watch::Sender::new(Done::default());
        let progress = self.tell_acknowledged(done.subscribe(), survey.count(true));
        let loaded = self.unless_stopped(async {
            tokio::select! {
                loaded = native::run(client, &wish, &done) => loaded,
                never = progress => match never {},
            }
        });
        let (outcome, complaint) = match loaded.await? {
            Ok(outcome) => (Some(outcome), String::new()),
            // What was loaded until then counts; verification finds the rest.
            Err(error) => (None, super::chain(&error)),
        };
        let mut ended = Instant::now();
        let short = self
            .unless_stopped(self.short_blocks(client, &wish, outcome.as_ref(), job.lengths_unproven, ended))
            .await?;
        let mut causes = outcome.unwrap_or_default().causes;
        let shut = match short {
            Ok(short) => {
                if !short.is_empty() {
                    ended = Instant::now();
                }
                causes.extend(short);
                self.lengths_are_proven().await?;
                None
            }
            // They are proven when the gate is open again.
            Err(error) => Some(unreachable(&error)),
        };
        self.apply(Event::LoadingEnded { message: complaint }).await?;
        Ok(shut.map_or(Ok(Ran { refused: false, ended, causes }), Err))
    }

    /// Makes sure that no block is shorter than its file says. Gives the files of which one was.
    async fn short_blocks(
        &self,
        client: &Client,
        wish: &Wish,
        outcome: Option<&Outcome>,
        unproven: bool,
        ended: Instant,
    ) -> Result<HashMap<String, String>, Error> {
        let add_up = match outcome {
            // What an earlier run left unproven may not have been seen yet.
            _ if unproven => false,
            Some(outcome) if !outcome.in_batches => true,
            Some(outcome) => {
                let after = verify::proven_workers(client, Some(ended)).await?;
                lengths::add_up(&wish.workers, &after, &outcome.acknowledged)
            }
            None => false,
        };
        if add_up { Ok(HashMap::new()) } else { sweep(client, &wish.path).await }
    }

    /// Removes what a run that was cut short has left too short. Gives the files.
    pub(super) async fn clear_short_blocks(&self) -> Result<Result<HashMap<String, String>, Shut>, Stop> {
        self.unless_stopped(async {
            let client = self.client().await?;
            sweep(client, &self.live.path).await.map_err(|error| unreachable(&error))
        })
        .await
    }

    /// Loads below, above or of the same path that ended before their blocks were proven left them to us.
    pub(super) async fn doubt_lengths(&self) -> Result<(), Stop> {
        let unproven = self.unproven_before().await;
        if unproven.is_empty() { Ok(()) } else { self.apply(Event::LengthsDoubted).await }
    }

    /// Our blocks are proven, and with them those of loads that ended before they could.
    pub(super) async fn lengths_are_proven(&self) -> Result<(), Stop> {
        self.apply(Event::LengthsProven).await?;
        for mut job in self.unproven_before().await {
            if self.live.path.contains(job.spec.path.as_str()) {
                job.lengths_unproven = false;
                if let Err(error) = self.manager.0.store.update(job).await {
                    // They are proven once more by the next load.
                    tracing::debug!(%error, "an older load keeps its doubt");
                }
            }
        }
        Ok(())
    }

    async fn unproven_before(&self) -> Vec<Job> {
        match self.manager.0.store.ended_unproven().await {
            Ok(mut jobs) => {
                jobs.retain(|job| job.spec.path.overlaps(&self.live.path));
                jobs
            }
            Err(error) => {
                tracing::warn!(%error, "it is not known whether older loads left blocks unproven");
                Vec::new()
            }
        }
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
                files_cached: before.files_cached + files,
                bytes_cached: before.bytes_cached + bytes,
                cached_exact: true,
                ..before
            };
            (count.bytes_per_second, count.eta) = rate.add(Instant::now(), &count);
            self.live.advance(count).await;
        }
    }
}

/// The master lists what a worker holds after its next heartbeat.
async fn sweep(client: &Client, path: &AlluxioPath) -> Result<HashMap<String, String>, Error> {
    let workers = verify::proven_workers(client, Some(Instant::now())).await?;
    lengths::sweep(client, path, &workers).await
}
