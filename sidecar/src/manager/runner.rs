//! Drives one load from QUEUED to its end: the only place that moves its state.
//!
//! WAITING until every gate is open, LISTING, LOADING while anything is missing and attempts are left,
//! VERIFYING after each. A restart of the sidecar comes in at WAITING again; what is cached is not loaded
//! twice, because the listing counts it.

mod attempt;
mod listing;
mod loading;
mod native;
mod remnant;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use alluxio_client::{Client, Error, Worker};
use tokio::time::Instant;

use self::{
    attempt::{Attempt, Runs},
    remnant::{SHUTDOWN_PATIENCE, SILENT_JOB_SERVICE},
};
use super::{
    Manager,
    live::{ChangeError, Live},
    sampler,
    verify::{self, Verdict},
};
use crate::{
    engine::native::lengths::Swept,
    gates::{self, Need, Shut, unreachable},
    human::{chain, seconds},
    job::{EngineChoice, EngineKind, Event, FailureList, Job, Reason, State},
    survey::Survey,
};

/// Between two looks at a shut gate: quick at first, so that a cluster that just comes up is not kept waiting.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Before blocks are asked again that could not be proven whole.
const UNPROVEN_PAUSE: Duration = Duration::from_secs(5);

/// Why a load ends other than LOADED, or pauses.
#[derive(Debug)]
pub(super) enum Stop {
    Failed {
        reason: Reason,
        message: String,
    },
    Cancelled,
    TimedOut,
    /// The sidecar stops; the load goes on when it is back.
    Shutdown,
}

#[derive(Debug)]
pub(super) struct Runner {
    manager: Manager,
    live: Arc<Live>,
}

impl Runner {
    pub(super) fn new(manager: Manager, live: Arc<Live>) -> Self {
        Self { manager, live }
    }

    /// Returns when the load has ended durably, or the sidecar stops.
    pub(super) async fn run(self) {
        // Large, and most loads wait for their turn: what comes after is not allocated before.
        if let Err(stop) = self.unless_stopped(self.live.admitted.cancelled()).await {
            return Box::pin(self.end(stop)).await;
        }
        if let Err(stop) = Box::pin(self.drive()).await {
            Box::pin(self.end(stop)).await;
        }
    }

    /// Brings the load to its end, whatever the reason, unless the sidecar stops.
    pub(super) async fn end(&self, stop: Stop) {
        let patience = if matches!(stop, Stop::Shutdown) { SHUTDOWN_PATIENCE } else { SILENT_JOB_SERVICE };
        let stopping = self.manager.stopping();
        let ended = async {
            tokio::select! {
                cleared = self.clear_remnant(patience) => cleared?,
                () = stopping.cancelled(), if !matches!(stop, Stop::Shutdown) => return Err(Stop::Shutdown),
            }
            let event = match stop {
                Stop::Shutdown => return Ok(()),
                _ if self.job().cancel_requested.is_some() => Event::Cancelled,
                Stop::Failed { reason, message } => Event::Failed { reason, message },
                Stop::Cancelled => Event::Cancelled,
                Stop::TimedOut => {
                    let limit = self.job().spec.timeout.unwrap_or_default();
                    let message = format!("not loaded within the timeout of {} s", limit.as_secs_f64());
                    Event::Failed { reason: Reason::TimedOut, message }
                }
            };
            match self.apply(event).await {
                // The wish became durable while the end was about to.
                Err(Stop::Cancelled) => self.apply(Event::Cancelled).await,
                ended => ended,
            }
        };
        if let Err(stop) = ended.await {
            tracing::info!(?stop, "load was left where it is");
        }
    }

    async fn drive(&self) -> Result<(), Stop> {
        if self.job().state == State::Queued {
            self.apply(Event::Admitted).await?;
        }
        self.unless_stopped(self.clear_remnant(SILENT_JOB_SERVICE)).await??;
        // The attempt that a restart interrupted goes on.
        let mut resumed = self.job().attempt > 0;
        // What ran before a restart may have ended just now.
        let mut runs = Runs { ended: resumed.then(Instant::now), ..Runs::default() };
        let (mut need, mut engine) = (None, None);
        let mut shut = None;
        loop {
            let cluster = self.wait_for_gates(need, engine, shut.take()).await?;
            self.apply(Event::GatesOpened { cluster }).await?;
            if self.job().attempt == 0
                && let Err(closed) = self.doubt_lengths().await?
            {
                shut = Some(closed);
                continue;
            }
            if self.job().lengths_unproven {
                match self.clear_short_blocks().await? {
                    // What is on silent workers is looked at again once everything is there.
                    Ok(Swept { short, .. }) if short.is_empty() => {}
                    Ok(_) => runs.ended = Some(Instant::now()),
                    Err(closed) => {
                        shut = Some(closed);
                        continue;
                    }
                }
            }
            let survey = match self.list().await? {
                Ok(survey) => survey,
                Err(closed) => {
                    shut = Some(closed);
                    continue;
                }
            };
            let attempt = if survey.is_complete() { None } else { self.first_attempt(resumed).await? };
            if let Some(attempt) = attempt {
                (need, engine) = (Some(Need::of(&survey)), Some(attempt.engine));
                shut = self.unless_stopped(self.gates(need, engine)).await?.err();
                if shut.is_some() {
                    // Waits for no job worker, but chooses again.
                    if self.job().spec.engine == EngineChoice::Auto {
                        engine = None;
                    }
                    continue;
                }
            } else {
                self.apply(Event::LoadingSkipped).await?;
            }
            resumed = false;
            match self.load_and_verify(survey, attempt, &mut runs).await? {
                None => return Ok(()),
                Some(closed) => shut = Some(closed),
            }
            let job = self.job();
            if job.attempt > 0 {
                engine = attempt::next_attempt(&job).map(|next| next.engine);
            } else if job.spec.engine == EngineChoice::Auto {
                engine = None;
            }
        }
    }

    /// Attempts until everything is verified (`None`) or a gate shut in between.
    async fn load_and_verify(
        &self,
        survey: Survey,
        first: Option<Attempt>,
        runs: &mut Runs,
    ) -> Result<Option<Shut>, Stop> {
        let mut next = first;
        let mut short = HashMap::new();
        let mut survey = survey;
        loop {
            let mut causes = std::mem::take(&mut short);
            if let Some(attempt) = next {
                let ran = match self.load(attempt, &survey).await? {
                    Ok(ran) => ran,
                    Err(shut) => return Ok(Some(shut)),
                };
                runs.refused = if ran.refused { runs.refused + 1 } else { 0 };
                runs.native += u32::from(attempt.engine == EngineKind::Native);
                runs.ended = Some(ran.ended);
                causes = ran.causes;
            }
            match self.verify(runs.ended, &causes).await? {
                Verdict::Shut(shut) => return Ok(Some(shut)),
                Verdict::Complete(found) => {
                    // What an earlier run had asked for may have come after the last look.
                    if self.job().lengths_unproven {
                        match self.clear_short_blocks().await? {
                            Ok(Swept { short: some, .. }) if !some.is_empty() => {
                                // The next verification counts its failures by a sequence number of its own.
                                self.apply(Event::LengthsDoubted).await?;
                                (next, short, runs.ended) = (None, some, Some(Instant::now()));
                                continue;
                            }
                            Ok(Swept { unproven: 0, unasked, .. }) => {
                                self.lengths_are_proven(unasked == 0).await?;
                            }
                            Ok(Swept { unproven, .. }) => {
                                let message = format!(
                                    "workers of {unproven} blocks do not answer, or have them no longer: not proven \
                                     whole"
                                );
                                // Workers are given the time to come back, or to be known as gone.
                                self.unless_stopped(tokio::time::sleep(UNPROVEN_PAUSE)).await?;
                                return Ok(Some(Shut { reason: Reason::WorkersMissing, message }));
                            }
                            Err(shut) => return Ok(Some(shut)),
                        }
                    }
                    self.live.count(found.count(true)).await;
                    self.apply(Event::Verified { empty: found.files_total == 0 }).await?;
                    return Ok(None);
                }
                Verdict::Missing(found, failures) => {
                    let again = match next {
                        Some(refused) if runs.are_refused() => Some(refused.again()),
                        _ => self.next_attempt().await?,
                    };
                    let pause = again.map_or(Duration::ZERO, |again| runs.pause_before(again));
                    self.missing(&found, failures, again, pause).await?;
                    let Some(again) = again else { return Err(self.incomplete(&found)) };
                    self.unless_stopped(tokio::time::sleep(pause)).await?;
                    let need = Some(Need::of(&found));
                    if let Err(shut) = self.unless_stopped(self.gates(need, Some(again.engine))).await? {
                        return Ok(Some(shut));
                    }
                    next = Some(again);
                    survey = found;
                }
            }
        }
    }

    async fn missing(
        &self,
        found: &Survey,
        failures: FailureList,
        again: Option<Attempt>,
        pause: Duration,
    ) -> Result<(), Stop> {
        let mut count = found.count(true);
        count.files_failed = found.files_missing();
        count.bytes_failed = found.bytes_missing();
        self.live.count(count).await;
        let message = match again {
            Some(_) if !pause.is_zero() => format!(
                "{} of {} files are not loaded; trying again in {}",
                found.files_missing(),
                found.files_total,
                seconds(pause)
            ),
            _ => String::new(),
        };
        self.apply(Event::FoundMissing { failures, message }).await
    }

    async fn verify(
        &self,
        loaded_at: Option<Instant>,
        causes: &HashMap<String, String>,
    ) -> Result<Verdict, Stop> {
        let client = match self.unless_stopped(self.client()).await? {
            Ok(client) => client,
            Err(shut) => return Ok(Verdict::Shut(shut)),
        };
        let store = &self.manager.0.store;
        let verified =
            self.unless_stopped(verify::run(client, store, &self.job(), loaded_at, causes)).await?;
        verified.or_else(|error| self.or_shut(error).map(Verdict::Shut))
    }

    async fn client(&self) -> Result<&Client, Shut> {
        self.manager.0.alluxio.client().await.map_err(|error| unreachable(&error))
    }

    /// A transient error shuts a gate; a permanent one ends the load.
    fn or_shut(&self, error: verify::VerifyError) -> Result<Shut, Stop> {
        use verify::VerifyError::{Alluxio, Store};
        match error {
            Alluxio(Error::NotFound { .. }) => Err(Stop::Failed {
                reason: Reason::PathNotFound,
                message: format!("{} does not exist in alluxio", self.live.path),
            }),
            // What a master says in trouble, or of its own trouble with the under file system.
            Alluxio(error @ (Error::Server { .. } | Error::Unauthenticated { .. })) => {
                Ok(unreachable(&error))
            }
            Alluxio(error) if error.is_transient() => Ok(unreachable(&error)),
            Alluxio(error) => Err(Stop::Failed { reason: Reason::Internal, message: chain(&error) }),
            Store(error) => Ok(Shut { reason: Reason::Internal, message: error.to_string() }),
        }
    }

    /// Applies `event` durably, however long the store takes; only a stop of the sidecar ends the trying.
    async fn apply(&self, event: Event) -> Result<(), Stop> {
        let mut pause = FIRST_LOOK;
        loop {
            match self.live.apply(event.clone()).await {
                Ok(_) => return Ok(()),
                Err(ChangeError::Illegal(_)) if self.job().cancel_requested.is_some() => {
                    return Err(Stop::Cancelled);
                }
                Err(ChangeError::Illegal(error)) => {
                    tracing::error!(%error, "the load is in a state it cannot be in; this is a bug");
                    return Err(Stop::Failed { reason: Reason::Internal, message: error.to_string() });
                }
                Err(ChangeError::Store(error)) => {
                    tracing::error!(%error, "a state cannot be stored; trying again")
                }
            }
            tokio::select! {
                () = self.manager.stopping().cancelled() => return Err(Stop::Shutdown),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_LOOK),
            }
        }
    }

    /// `work`, unless the load is cancelled, its time is up, or the sidecar stops.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let left = self.job().time_left(self.manager.now());
        let time_up = async {
            match left {
                Some(left) if self.job().state.is_active() => tokio::time::sleep(left).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.live.cancel.cancelled() => Err(Stop::Cancelled),
            () = self.manager.stopping().cancelled() => Err(Stop::Shutdown),
            () = time_up => Err(Stop::TimedOut),
            done = work => Ok(done),
        }
    }

    fn job(&self) -> Arc<Job> {
        self.live.job()
    }
}

/// Ids of workers whose copies count.
pub(super) fn live_ids(workers: &[Worker]) -> HashSet<i64> {
    workers.iter().filter(|w| gates::is_live(w)).map(|w| w.id).collect()
}

fn job_service_silent(error: &Error) -> Shut {
    let message = format!("the job service does not answer: {}", chain(error));
    Shut { reason: Reason::AlluxioUnreachable, message }
}
