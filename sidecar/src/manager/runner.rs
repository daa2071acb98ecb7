//! Drives one load from QUEUED to its end: the only place that moves its state.
//!
//! WAITING until every gate is open, LISTING, LOADING while anything is missing and attempts are left,
//! VERIFYING after each. A restart of the sidecar comes in at WAITING again; what is cached is not loaded
//! twice, because the listing counts it.

use std::{collections::HashMap, collections::HashSet, sync::Arc, time::Duration};

use alluxio_client::{Client, Error, File, Worker};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Manager,
    live::{ChangeError, Live},
    sampler::{self, Baseline},
    verify::{self, Verdict},
};
use crate::{
    engine::{
        distributed_load::{self, Wish},
        launcher::{Abilities, LauncherError},
        leftovers,
        process::Exit,
    },
    gates::{self, Need, Shut},
    human::bytes,
    job::{EngineKind, Event, FailureList, Job, LoadMetadata, Reason, Remnant, State},
    survey::Survey,
};

/// Between two looks at a shut gate: quick at first, so that a cluster that just comes up is not kept waiting.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Counts of a running listing are published this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// Calls in flight that raise replication limits of single files.
const RAISING: usize = 32;

/// How long the job service may be silent before a cancelled load ends without its word. Jobs do not
/// survive their job master, so none is left then.
const SILENT_JOB_SERVICE: Duration = Duration::from_secs(60);
/// A stop of the sidecar does not wait longer for it; the next start cancels what is left.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// A job worker reports its health every second; one silent for longer than this is asked for a second time.
const FRESH_HEALTH_MS: i64 = 10_000;
/// Two reports at least fall into this.
const HEALTH_WATCH: Duration = Duration::from_millis(2500);

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

/// What to do about what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    direct_cache: bool,
    top_up: bool,
    resumed: bool,
}

impl Runner {
    pub(super) fn new(manager: Manager, live: Arc<Live>) -> Self {
        Self { manager, live }
    }

    /// Returns when the load has ended durably, or the sidecar stops.
    pub(super) async fn run(self) {
        let Err(stop) = self.drive().await else { return };
        let patience = if matches!(stop, Stop::Shutdown) { SHUTDOWN_PATIENCE } else { SILENT_JOB_SERVICE };
        let ended = async {
            self.clear_remnant(patience).await?;
            match stop {
                Stop::Failed { reason, message } => self.apply(Event::Failed { reason, message }).await,
                Stop::Cancelled => self.apply(Event::Cancelled).await,
                Stop::TimedOut => {
                    let limit = self.job().spec.timeout.unwrap_or_default();
                    let message = format!("not loaded within the timeout of {} s", limit.as_secs_f64());
                    self.apply(Event::Failed { reason: Reason::TimedOut, message }).await
                }
                Stop::Shutdown => Ok(()),
            }
        };
        if let Err(stop) = ended.await {
            tracing::info!(?stop, "load was left where it is");
        }
    }

    async fn drive(&self) -> Result<(), Stop> {
        self.unless_stopped(self.live.admitted.cancelled()).await?;
        if self.job().state == State::Queued {
            self.apply(Event::Admitted).await?;
        }
        self.clear_remnant(SILENT_JOB_SERVICE).await?;
        // The attempt that a restart interrupted goes on.
        let mut resumed = self.job().attempt > 0;
        let mut need = None;
        let mut shut = None;
        loop {
            let cluster = self.wait_for_gates(need, shut.take()).await?;
            self.apply(Event::GatesOpened { cluster }).await?;
            let survey = match self.list().await? {
                Ok(survey) => survey,
                Err(closed) => {
                    shut = Some(closed);
                    continue;
                }
            };
            let attempt =
                if survey.is_complete() { None } else { self.first_attempt(&survey, resumed).await? };
            if attempt.is_some() {
                need = Some(Need::of(&survey));
                shut = self.unless_stopped(self.gates(need)).await?.err();
                if shut.is_some() {
                    continue;
                }
            } else {
                self.apply(Event::LoadingSkipped).await?;
            }
            resumed = false;
            match self.load_and_verify(survey, attempt).await? {
                None => return Ok(()),
                Some(closed) => shut = Some(closed),
            }
        }
    }

    /// Attempts until everything is verified (`None`) or a gate shut in between.
    async fn load_and_verify(&self, survey: Survey, first: Option<Attempt>) -> Result<Option<Shut>, Stop> {
        let mut next = first;
        let mut survey = survey;
        loop {
            let mut causes = HashMap::new();
            let mut loaded_at = None;
            if let Some(attempt) = next {
                match self.load(attempt, &survey).await? {
                    Ok(found) => causes = found,
                    Err(shut) => return Ok(Some(shut)),
                }
                loaded_at = Some(Instant::now());
            }
            match self.verify(loaded_at, &causes).await? {
                Verdict::Shut(shut) => return Ok(Some(shut)),
                Verdict::Complete(found) => {
                    self.live.count(found.count(true)).await;
                    self.apply(Event::Verified { empty: found.files_total == 0 }).await?;
                    return Ok(None);
                }
                Verdict::Missing(found, failures) => {
                    self.missing(&found, failures).await?;
                    let Some(again) = self.next_attempt(&found).await? else {
                        return Err(self.incomplete(&found));
                    };
                    let need = Some(Need::of(&found));
                    if let Err(shut) = self.unless_stopped(self.gates(need)).await? {
                        return Ok(Some(shut));
                    }
                    next = Some(again);
                    survey = found;
                }
            }
        }
    }

    async fn missing(&self, found: &Survey, failures: FailureList) -> Result<(), Stop> {
        self.live.count(found.count(true)).await;
        self.apply(Event::FoundMissing { failures }).await
    }

    fn incomplete(&self, found: &Survey) -> Stop {
        let mut count = found.count(true);
        count.files_failed = found.files_total - found.files_cached;
        count.bytes_failed = found.bytes_missing();
        let attempts = self.job().attempt;
        Stop::Failed {
            reason: Reason::Incomplete,
            message: format!(
                "{} of {} files ({}) are not loaded after {attempts} attempts; ListFailures names them",
                count.files_failed,
                found.files_total,
                bytes(count.bytes_failed),
            ),
        }
    }

    /// How to begin, after a listing that found something missing. `None`: no attempt is left.
    async fn first_attempt(&self, survey: &Survey, resumed: bool) -> Result<Option<Attempt>, Stop> {
        let job = self.job();
        let direct_cache = survey.lacks_only_copies() && self.abilities().await?.direct_cache;
        if resumed {
            return Ok(Some(Attempt { direct_cache, top_up: false, resumed }));
        }
        if job.attempt == 0 {
            self.abilities().await?;
            return Ok(Some(Attempt { direct_cache, top_up: false, resumed }));
        }
        self.next_attempt(survey).await
    }

    /// What follows a verification that found something missing.
    async fn next_attempt(&self, found: &Survey) -> Result<Option<Attempt>, Stop> {
        let direct_cache = self.job().spec.replicas.get() > 1 && self.abilities().await?.direct_cache;
        Ok(next_attempt(&self.job(), found.lacks_only_copies(), direct_cache))
    }

    /// What the command can do; a load without one ends here.
    async fn abilities(&self) -> Result<Abilities, Stop> {
        let alluxio = &self.manager.0.alluxio;
        let asked = self.unless_stopped(async { alluxio.launcher().await?.abilities().await }).await?;
        let missing = |message| Stop::Failed { reason: Reason::CommandMissing, message };
        match asked {
            Ok(abilities) if abilities.distributed_load => Ok(abilities),
            Ok(_) => Err(missing(
                "this Alluxio has no distributedLoad; 2.9.3 is the last release that has it".into(),
            )),
            Err(error @ LauncherError::NotFound { .. }) => Err(missing(error.to_string())),
            Err(error) => Err(missing(format!("distributedLoad cannot be asked what it can do: {error}"))),
        }
    }

    /// Runs the engine once. Alluxio's words about files that failed come back.
    async fn load(
        &self,
        attempt: Attempt,
        survey: &Survey,
    ) -> Result<Result<HashMap<String, String>, Shut>, Stop> {
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
            let floor = distributed_load::job_floor(client).await?;
            Ok::<_, Error>((floor, client.workers().await?))
        });
        let (job_floor, workers) = match before.await? {
            Ok(before) => before,
            Err(error) => return Ok(Err(unreachable(&error))),
        };
        let remnant = Remnant { job_floor, job_control_id: None };
        let Attempt { direct_cache, top_up, resumed } = attempt;
        let why = "distributedLoad is there and its job service has live workers".to_owned();
        let engine = EngineKind::DistributedLoad;
        self.apply(Event::LoadingStarted { engine, why, top_up, resumed, remnant }).await?;

        let wish = Wish { path: job.spec.path.clone(), replicas: job.spec.replicas.get(), direct_cache };
        let submitted = watch::Sender::new(None);
        let stop = CancellationToken::new();
        let baseline = Baseline::new(survey, &workers);
        let mut run = std::pin::pin!(distributed_load::run(launcher, &wish, &submitted, &stop));
        let end = {
            let mut told = submitted.subscribe();
            let persisting = async {
                while told.changed().await.is_ok() {
                    let id = *told.borrow_and_update();
                    if self.note_submitted(id).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                end = &mut run => Ok(end),
                stopped = self.unless_stopped(std::future::pending::<()>()) => Err(stopped),
                () = sampler::run(client, &self.manager, &self.live, baseline) => Err(Ok(())),
                () = persisting => Err(Ok(())),
            }
        };
        let end = match end {
            Ok(end) => end,
            Err(stopped) => {
                // The child is gone before anything else happens.
                stop.cancel();
                let _ = run.await;
                let id = *submitted.borrow();
                self.note_submitted(id).await?;
                stopped?;
                return Err(Stop::Shutdown);
            }
        };
        let id = *submitted.borrow();
        self.note_submitted(id).await?;
        let end = end.map_err(|error| Stop::Failed {
            reason: Reason::CommandMissing,
            message: format!(
                "{error}: {}",
                std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
            ),
        })?;
        self.manager.0.metrics.command(match end.exit {
            Exit::Code(code) => code.to_string(),
            Exit::Killed(signal) => format!("signal {signal}"),
            Exit::Stopped => "stopped".to_owned(),
        });
        if end.output.unknown_command || end.exit.could_not_start() {
            return Err(Stop::Failed { reason: Reason::CommandMissing, message: end.complaint() });
        }
        let asked = self.unless_stopped(distributed_load::causes(client, &wish.path, remnant)).await?;
        self.clear_remnant(SILENT_JOB_SERVICE).await?;
        self.apply(Event::LoadingEnded { message: end.complaint() }).await?;
        Ok(Ok(asked.unwrap_or_default()))
    }

    /// Makes durable which command in the job service is ours.
    async fn note_submitted(&self, id: Option<i64>) -> Result<(), Stop> {
        let known = self.job().remnant.and_then(|remnant| remnant.job_control_id);
        match id {
            Some(job_control_id) if known.is_none() => self.apply(Event::Submitted { job_control_id }).await,
            _ => Ok(()),
        }
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

    /// LISTING: loads metadata, counts, and raises limits that would evict the copies wished for.
    async fn list(&self) -> Result<Result<Survey, Shut>, Stop> {
        let client = match self.unless_stopped(self.client()).await? {
            Ok(client) => client,
            Err(shut) => return Ok(Err(shut)),
        };
        match self.unless_stopped(self.list_with(client)).await? {
            Ok(survey) => {
                self.live.count(survey.count(true)).await;
                Ok(Ok(survey))
            }
            Err(error) => self.or_shut(error.into()).map(Err),
        }
    }

    async fn list_with(&self, client: &Client) -> Result<Survey, Error> {
        let spec = &self.job().spec;
        let replicas = spec.replicas.get();
        let live: HashSet<i64> = live_ids(&client.workers().await?);
        let metadata = match spec.load_metadata {
            LoadMetadata::Once => alluxio_client::LoadMetadata::Once,
            LoadMetadata::Never => alluxio_client::LoadMetadata::Never,
            LoadMetadata::Always => alluxio_client::LoadMetadata::Always,
        };
        let mut survey = Survey::new(replicas, live);
        let mut listing = client.list(spec.path.as_str(), metadata).await?;
        let mut published = Instant::now();
        let mut raising = FuturesUnordered::new();
        while let Some(file) = listing.next().await? {
            if survey.add(&file).is_some() && limits_copies(&file, replicas) {
                if raising.len() == RAISING {
                    raising.next().await;
                }
                raising.push(raise_limit(client, file.path.clone(), replicas));
            }
            if published.elapsed() >= PUBLISH_EVERY {
                published = Instant::now();
                self.live.advance(survey.count(false)).await;
            }
        }
        while raising.next().await.is_some() {}
        Ok(survey)
    }

    /// Polls until every gate is open; returns the identity of the cluster. `shut`: what is known to be shut.
    async fn wait_for_gates(&self, need: Option<Need>, shut: Option<Shut>) -> Result<String, Stop> {
        let mut known = shut;
        let mut pause = FIRST_LOOK;
        loop {
            let shut = match known.take() {
                Some(shut) => shut,
                None => match self.unless_stopped(self.gates(need)).await? {
                    Ok(cluster) => return Ok(cluster),
                    Err(shut) => shut,
                },
            };
            let job = self.job();
            if job.state != State::Waiting || job.reason != Some(shut.reason) || job.message != shut.message {
                self.apply(Event::GateShut { reason: shut.reason, message: shut.message.clone() }).await?;
            }
            let left = self.job().wait_left(self.manager.now());
            if left.is_zero() {
                let waited = self.job().spec.wait_timeout.as_secs_f64();
                return Err(Stop::Failed {
                    reason: Reason::GateTimedOut,
                    message: format!("waited {waited} s: {}", shut.message),
                });
            }
            self.unless_stopped(tokio::time::sleep(pause.min(left))).await?;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Looks at every gate once; open: the identity of the cluster.
    async fn gates(&self, need: Option<Need>) -> Result<String, Shut> {
        let client = self.client().await?;
        let spec = &self.job().spec;
        let master = client.master_info().await.map_err(|error| unreachable(&error))?;
        if master.safe_mode {
            let message = "the alluxio master is in safe mode, waiting for its workers".to_owned();
            return Err(Shut { reason: Reason::AlluxioUnreachable, message });
        }
        let cluster = client.cluster_id().await.map_err(|error| unreachable(&error))?;
        let workers = client.workers().await.map_err(|error| unreachable(&error))?;
        let mut shut = gates::workers(spec, &workers);
        if let (None, Some(need)) = (&shut, need) {
            let job_workers = live_job_workers(client, self.manager.now().as_millisecond()).await;
            let job_workers = job_workers.map_err(|error| unreachable(&error))?;
            shut = gates::job_workers(job_workers)
                .or_else(|| gates::room(spec, need, &workers, self.promised()));
        }
        shut.map_or(Ok(cluster), Err)
    }

    /// Bytes that our other running loads are still going to cache.
    fn promised(&self) -> u64 {
        let others = self.manager.live();
        let loading = others.iter().filter(|job| job.state == State::Loading && job.id != self.live.id);
        loading.map(|job| job.progress.count()).map(|c| c.bytes_total - c.bytes_cached).sum()
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
            Alluxio(error) if error.is_transient() => Ok(unreachable(&error)),
            Alluxio(error) => Err(Stop::Failed { reason: Reason::Internal, message: chain(&error) }),
            Store(error) => Ok(Shut { reason: Reason::Internal, message: error.to_string() }),
        }
    }

    /// Cancels what our command left in the job service. Gives up after `patience` without an answer.
    async fn clear_remnant(&self, patience: Duration) -> Result<(), Stop> {
        let job = self.job();
        let Some(remnant) = job.remnant else { return Ok(()) };
        let mut silent_since = Instant::now();
        while silent_since.elapsed() < patience {
            let cancelling = async {
                let client = self.client().await.map_err(|shut| shut.message)?;
                leftovers::cancel(client, &self.live.path, remnant).await.map_err(|error| chain(&error))
            };
            // A job service that keeps making jobs is not silent; hence no bound on one long cancel but this.
            match timeout(patience.max(SHUTDOWN_PATIENCE) * 10, cancelling).await {
                Ok(Ok(0)) => return self.apply(Event::RemnantCleared).await,
                Ok(Ok(jobs)) => {
                    self.manager.0.metrics.leftovers(jobs);
                    tracing::info!(jobs, "cancelled the jobs that distributedLoad left behind");
                    return self.apply(Event::RemnantCleared).await;
                }
                Ok(Err(message)) => tracing::debug!(message, "the job service is silent; trying again"),
                Err(_) => silent_since = Instant::now() - patience,
            }
            tokio::time::sleep(FIRST_LOOK).await;
        }
        tracing::warn!("the job service did not answer for {patience:?}; jobs of this load may go on there");
        if patience == SHUTDOWN_PATIENCE { Ok(()) } else { self.apply(Event::RemnantCleared).await }
    }

    /// Applies `event` durably, however long the store takes; only a stop of the sidecar ends the trying.
    async fn apply(&self, event: Event) -> Result<(), Stop> {
        let mut pause = FIRST_LOOK;
        loop {
            match self.live.apply(event.clone()).await {
                Ok(_) => return Ok(()),
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

/// Another attempt, a top-up of copies, or neither. Top-ups do not count as attempts but are as many at most.
fn next_attempt(job: &Job, lacks_only_copies: bool, direct_cache: bool) -> Option<Attempt> {
    let most = job.spec.max_attempts.get();
    let resumed = false;
    if lacks_only_copies && direct_cache && job.top_ups < most {
        return Some(Attempt { direct_cache, top_up: true, resumed });
    }
    (job.attempt < most).then_some(Attempt { direct_cache, top_up: false, resumed })
}

/// Alluxio evicts copies above a finite limit; -1 is unlimited and never touched.
fn limits_copies(file: &File, replicas: u32) -> bool {
    u32::try_from(file.replication_max).is_ok_and(|max| max < replicas)
}

async fn raise_limit(client: &Client, path: String, replicas: u32) {
    let max = i32::try_from(replicas).unwrap_or(i32::MAX);
    if let Err(error) = client.set_replication_max(&path, max).await {
        tracing::warn!(path, %error, "the file's replication limit could not be raised; copies may be missing");
    }
}

/// Ids of workers whose copies count.
pub(super) fn live_ids(workers: &[Worker]) -> HashSet<i64> {
    workers.iter().filter(|w| gates::is_live(w)).map(|w| w.id).collect()
}

/// Job workers stay listed for 60 s after their death. Their reports carry their own clocks, so one that
/// looks old is believed dead only when it does not move.
async fn live_job_workers(client: &Client, now_ms: i64) -> Result<usize, Error> {
    let first = client.job_workers().await?;
    let fresh = |ms: i64| (now_ms - ms).abs() <= FRESH_HEALTH_MS;
    if first.is_empty() || first.iter().any(|w| fresh(w.last_updated_ms)) {
        return Ok(first.iter().filter(|w| fresh(w.last_updated_ms)).count());
    }
    tokio::time::sleep(HEALTH_WATCH).await;
    let second = client.job_workers().await?;
    let moved = |id: i64, ms: i64| first.iter().any(|w| w.id == id && w.last_updated_ms != ms);
    Ok(second.iter().filter(|w| moved(w.id, w.last_updated_ms)).count())
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Shut {
    Shut { reason: Reason::AlluxioUnreachable, message: chain(error) }
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::job::{AlluxioPath, LoadId, Spec};

    fn job(attempt: u32, top_ups: u32) -> Job {
        let path = AlluxioPath::try_from("/a".to_owned()).unwrap();
        let id = LoadId::try_from("a".to_owned()).unwrap();
        Job { attempt, top_ups, ..Job::new(id, Uuid::nil(), Spec::new(path), Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn attempts_end() {
        let again = |direct_cache| Some(Attempt { direct_cache, top_up: false, resumed: false });
        assert_eq!(next_attempt(&job(1, 0), false, false), again(false));
        assert_eq!(next_attempt(&job(2, 0), false, true), again(true));
        assert_eq!(next_attempt(&job(3, 0), false, true), None);
    }

    #[test]
    fn copies_are_topped_up_beyond_the_attempts_but_not_for_ever() {
        let top_up = Some(Attempt { direct_cache: true, top_up: true, resumed: false });
        assert_eq!(next_attempt(&job(3, 0), true, true), top_up);
        assert_eq!(next_attempt(&job(3, 3), true, true), None);
        assert_eq!(next_attempt(&job(3, 0), true, false), None);
    }

    #[test]
    fn only_finite_limits_below_the_wish_are_raised() {
        let file = |replication_max| File { replication_max, ..File::default() };
        assert!(limits_copies(&file(1), 2));
        assert!(!limits_copies(&file(-1), 2));
        assert!(!limits_copies(&file(2), 2));
    }
}
