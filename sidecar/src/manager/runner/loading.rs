//! LOADING: one run of the engine, from what must be known before it to what it left behind.

use std::{collections::HashMap, convert::Infallible, future::pending};

use alluxio_client::Client;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Runner, SILENT_JOB_SERVICE, Stop, attempt::Attempt, job_service_silent, sampler, unreachable};
use crate::{
    engine::{
        distributed_load::{self, End, Told, Wish},
        launcher::Launcher,
        process::{Exit, ProcessError},
    },
    gates::Shut,
    human::seconds,
    job::{EngineChoice, EngineKind, Event, Reason, Remnant},
    manager::{sampler::Baseline, stall},
    survey::Survey,
};

/// What came of a run.
pub(super) struct Ran {
    /// Nothing was even submitted.
    pub(super) refused: bool,
    /// When the cache was changed last.
    pub(super) ended: Instant,
    /// Alluxio's words about files that failed, by path.
    pub(super) causes: HashMap<String, String>,
}

/// What ended the wait for a command.
enum Interruption {
    /// It has ended by itself.
    None(Result<End, ProcessError>),
    Stop(Stop),
    Stall,
}

impl Runner {
    /// Runs the engine once.
    pub(super) async fn load(&self, attempt: Attempt, survey: &Survey) -> Result<Result<Ran, Shut>, Stop> {
        match attempt.engine {
            EngineKind::DistributedLoad => self.load_by_command(attempt, survey).await,
            EngineKind::Native => self.load_natively(attempt, survey).await,
        }
    }

    async fn load_by_command(&self, attempt: Attempt, survey: &Survey) -> Result<Result<Ran, Shut>, Stop> {
        let job = self.job();
        let client = match self.unless_stopped(self.client()).await? {
            Ok(client) => client,
            Err(shut) => return Ok(Err(shut)),
        };
        let launcher = match self.manager.0.alluxio.launcher().await {
            Ok(launcher) => launcher,
            Err(error) => return Ok(Err(unreachable(&error))),
        };
        let before = self.unless_stopped(async {
            let floor =
                distributed_load::job_floor(client).await.map_err(|error| job_service_silent(&error))?;
            Ok((floor, client.workers().await.map_err(|error| unreachable(&error))?))
        });
        let (job_floor, workers) = match before.await? {
            Ok(before) => before,
            Err(shut) => return Ok(Err(shut)),
        };
        let remnant = Remnant { job_floor, job_control_id: None };
        self.apply(attempt.started(&job, Some(remnant))).await?;

        let wish = Wish { path: job.spec.path.clone(), replicas: job.spec.replicas.get() };
        let baseline = Baseline::new(survey, &workers);
        let (end, complaint) = self.command(client, launcher, &wish, baseline).await?;
        self.manager.0.metrics.command(match end.exit {
            Exit::Code(code) => code.to_string(),
            Exit::Killed(signal) => format!("signal {signal}"),
            Exit::Stopped => "stopped".to_owned(),
        });
        // AUTO goes on natively.
        let asked_for = job.spec.engine == EngineChoice::DistributedLoad;
        if asked_for && (end.output.unknown_command || end.exit.could_not_start()) {
            return Err(Stop::Failed { reason: Reason::CommandMissing, message: end.complaint() });
        }
        let asked = self.unless_stopped(distributed_load::causes(client, &wish.path, remnant)).await?;
        self.unless_stopped(self.clear_remnant(SILENT_JOB_SERVICE)).await??;
        self.apply(Event::LoadingEnded { message: complaint }).await?;
        let (refused, causes) = (end.was_refused(), asked.unwrap_or_default());
        Ok(Ok(Ran { refused, ended: Instant::now(), causes }))
    }

    /// Runs the command to its end, tells its progress, and stops one that gets nowhere. How it ended, and
    /// what there is to complain of.
    async fn command(
        &self,
        client: &Client,
        launcher: &Launcher,
        wish: &Wish,
        baseline: Baseline,
    ) -> Result<(End, String), Stop> {
        let begun = Instant::now();
        let told = watch::Sender::new(Told::default());
        let stop = CancellationToken::new();
        let mut run = std::pin::pin!(distributed_load::run(launcher, wish, &told, &stop));
        let patience = self.manager.0.limits.stall_after;
        let interruption = tokio::select! {
            ended = &mut run => Interruption::None(ended),
            Err(stop) = self.unless_stopped(pending::<Infallible>()) => Interruption::Stop(stop),
            stop = self.persist_id(told.subscribe()) => Interruption::Stop(stop),
            () = stall::until(client, &self.live, told.subscribe(), patience) => Interruption::Stall,
            never = self.tell_progress(client, baseline, begun, told.subscribe()) => match never {},
        };
        // The child is gone before anything else happens.
        let (ended, stalled) = match interruption {
            Interruption::None(ended) => (ended, false),
            Interruption::Stop(why) => {
                stop.cancel();
                let _ = run.await;
                let id = told.borrow().job_control_id;
                self.note_submitted(id).await?;
                return Err(why);
            }
            Interruption::Stall => {
                tracing::warn!(?patience, "distributedLoad makes no progress and is stopped");
                stop.cancel();
                (run.await, true)
            }
        };
        let id = told.borrow().job_control_id;
        self.note_submitted(id).await?;
        let end = ended.map_err(|error| Stop::Failed {
            reason: Reason::Internal,
            message: format!(
                "{error}: {}",
                std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
            ),
        })?;
        let complaint = if stalled {
            format!("distributedLoad made no progress for {} and was stopped", seconds(patience))
        } else {
            end.complaint()
        };
        Ok((end, complaint))
    }

    /// Returns only when the id cannot be stored.
    async fn persist_id(&self, mut told: watch::Receiver<Told>) -> Stop {
        while told.changed().await.is_ok() {
            let id = told.borrow_and_update().job_control_id;
            if let Err(stop) = self.note_submitted(id).await {
                return stop;
            }
        }
        pending().await
    }

    /// Until dropped. While its JVM starts, the command moves nothing, and every call is slow.
    async fn tell_progress(
        &self,
        client: &Client,
        baseline: Baseline,
        begun: Instant,
        mut told: watch::Receiver<Told>,
    ) -> Infallible {
        while !told.borrow_and_update().began && told.changed().await.is_ok() {}
        sampler::run(client, &self.manager, &self.live, baseline, begun).await
    }

    /// Makes durable which command in the job service is ours.
    pub(super) async fn note_submitted(&self, id: Option<i64>) -> Result<(), Stop> {
        let known = self.job().remnant.and_then(|remnant| remnant.job_control_id);
        match id {
            Some(job_control_id) if known.is_none() => self.apply(Event::Submitted { job_control_id }).await,
            _ => Ok(()),
        }
    }
}
