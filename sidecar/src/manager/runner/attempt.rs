//! Which attempt comes next, and which engine makes it.
//!
//! AUTO takes distributedLoad where the command exists and its job service has live workers, else NATIVE. What a
//! command leaves undone is repaired natively: only what is missing is asked for.

use std::{fmt, time::Duration};

use super::{LAST_LOOK, Runner, Stop, waiting::live_job_workers};
use crate::{
    engine::launcher::{Abilities, LauncherError},
    human::bytes,
    job::{Count, EngineChoice, EngineKind, Event, Job, Reason, Remnant, State},
    survey::Survey,
};

/// How often the command is asked what it can do before the load fails for want of an answer.
const PROBES: u32 = 3;

/// Commands in a row that submitted nothing and do not count as attempts, and the pause before the first of
/// them is run again; each pause is twice as long as the one before.
const MAX_REFUSALS: u32 = 5;
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// Before the second native run of a load; each pause is four times as long as the one before.
const NATIVE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_NATIVE_PAUSE: Duration = Duration::from_secs(60);

/// The runs of an engine since the sidecar started, for one load.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// When the last one ended.
    pub(super) ended: Option<tokio::time::Instant>,
    /// Commands that submitted nothing, in a row.
    pub(super) refused: u32,
    /// Native ones.
    pub(super) native: u32,
}

impl Runs {
    /// The last one does not count as an attempt.
    pub(super) fn are_refused(&self) -> bool {
        (1..=MAX_REFUSALS).contains(&self.refused)
    }

    /// How long to wait before `next`.
    pub(super) fn pause_before(&self, next: Attempt) -> Duration {
        match next.engine {
            EngineKind::DistributedLoad if self.refused > 0 => REFUSAL_PAUSE * 2_u32.pow(self.refused - 1),
            EngineKind::Native if self.native > 0 => {
                (NATIVE_PAUSE * 4_u32.saturating_pow((self.native - 1).min(8))).min(LONGEST_NATIVE_PAUSE)
            }
            EngineKind::DistributedLoad | EngineKind::Native => Duration::ZERO,
        }
    }
}

/// What to do about what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) engine: EngineKind,
    pub(super) why: Why,
    /// Loads what a command left undone; does not count as an attempt.
    pub(super) repair: bool,
    /// Goes on with what a restart of the sidecar cut short, or what the job service refused.
    pub(super) resumed: bool,
}

/// Why an engine was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Asked,
    JobServiceWorks,
    NoCommand,
    NoLauncher,
    NoJobService,
    Limited,
    Repair,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "the spec asks for it",
            Self::JobServiceWorks => "distributedLoad is there and its job service has live workers",
            Self::NoCommand => "this Alluxio has no distributedLoad",
            Self::NoLauncher => "distributedLoad cannot be run here",
            Self::NoJobService => "no job service with live workers answers",
            Self::Limited => "the spec limits the bandwidth, which distributedLoad cannot",
            Self::Repair => "it loads what distributedLoad left undone",
        })
    }
}

impl Attempt {
    /// The same once more, because it was refused.
    pub(super) fn again(self) -> Self {
        Self { resumed: true, repair: false, ..self }
    }

    /// The event that begins it.
    pub(super) fn started(self, job: &Job, remnant: Option<Remnant>) -> Event {
        // The reason for the first run is that for those after it.
        let same = job.engine == Some(self.engine) && !job.engine_reason.is_empty();
        let why = if same { job.engine_reason.clone() } else { self.why.to_string() };
        Event::LoadingStarted {
            engine: self.engine,
            why,
            message: self.describe(job),
            top_up: self.repair,
            resumed: self.resumed,
            remnant,
        }
    }

    /// What a watcher should know about it; nothing about a plain first attempt.
    fn describe(self, job: &Job) -> String {
        let most = job.spec.max_attempts;
        match self {
            Self { resumed: true, .. } => format!("attempt {} goes on", job.attempt),
            Self { repair: true, .. } => {
                format!("loading what distributedLoad left undone, {} of {most}", job.top_ups + 1)
            }
            Self { .. } if job.attempt > 0 || job.state == State::Verifying => {
                let Count { files_failed, files_total, bytes_failed, .. } = *job.progress.count();
                let attempt = job.attempt + 1;
                match files_failed {
                    0 => format!("attempt {attempt} of {most}"),
                    _ => format!(
                        "attempt {attempt} of {most}: {files_failed} of {files_total} files ({}) were not loaded",
                        bytes(bytes_failed)
                    ),
                }
            }
            Self { .. } => String::new(),
        }
    }
}

impl Runner {
    pub(super) fn incomplete(&self, found: &Survey) -> Stop {
        let job = self.job();
        let repairs = match job.top_ups {
            0 => String::new(),
            repairs => format!(" and {repairs} native repairs"),
        };
        Stop::Failed {
            reason: Reason::Incomplete,
            message: format!(
                "{} of {} files ({}) are not loaded after {} attempts{repairs}; ListFailures names them",
                found.files_missing(),
                found.files_total,
                bytes(found.bytes_missing()),
                job.attempt,
            ),
        }
    }

    /// How to begin, after a listing that found something missing. `None`: no attempt is left.
    pub(super) async fn first_attempt(&self, resumed: bool) -> Result<Option<Attempt>, Stop> {
        let job = self.job();
        if job.attempt > 0 && !resumed {
            return Ok(next_attempt(&job));
        }
        let (engine, why) = match job.engine {
            // A repair that a restart cut short.
            Some(EngineKind::Native) if resumed && job.top_ups > 0 => (EngineKind::Native, Why::Repair),
            // The reason that was given for the first run stays.
            Some(EngineKind::Native) if resumed => (EngineKind::Native, Why::Asked),
            _ => self.choose().await?,
        };
        Ok(Some(Attempt { engine, why, repair: false, resumed }))
    }

    /// What follows a verification that found something missing. Nothing may have run before it: all was there when it
    /// was listed.
    pub(super) async fn next_attempt(&self) -> Result<Option<Attempt>, Stop> {
        match self.job().attempt {
            0 => self.first_attempt(false).await,
            _ => Ok(next_attempt(&self.job())),
        }
    }

    /// The engine for a first run.
    async fn choose(&self) -> Result<(EngineKind, Why), Stop> {
        match self.job().spec.engine {
            EngineChoice::Native => Ok((EngineKind::Native, Why::Asked)),
            EngineChoice::DistributedLoad => {
                self.abilities().await?;
                Ok((EngineKind::DistributedLoad, Why::Asked))
            }
            EngineChoice::Auto if self.job().spec.max_bytes_per_second.is_some() => {
                Ok((EngineKind::Native, Why::Limited))
            }
            EngineChoice::Auto => self.unless_stopped(self.best()).await,
        }
    }

    /// What AUTO means here and now.
    async fn best(&self) -> (EngineKind, Why) {
        let alluxio = &self.manager.0.alluxio;
        let abilities = match alluxio.launcher().await {
            Ok(launcher) => launcher.abilities().await,
            Err(error) => Err(error),
        };
        match abilities {
            Ok(Abilities { distributed_load: true }) => {}
            Ok(Abilities { distributed_load: false }) => return (EngineKind::Native, Why::NoCommand),
            Err(error) => {
                tracing::info!(%error, "distributedLoad cannot be run; loading natively");
                return (EngineKind::Native, Why::NoLauncher);
            }
        }
        let Ok(client) = self.client().await else { return (EngineKind::Native, Why::NoJobService) };
        match live_job_workers(client, self.manager.now().as_millisecond()).await {
            Ok(1..) => (EngineKind::DistributedLoad, Why::JobServiceWorks),
            Ok(0) | Err(_) => (EngineKind::Native, Why::NoJobService),
        }
    }

    /// What the command can do; a load that asks for it ends here without one.
    async fn abilities(&self) -> Result<(), Stop> {
        let alluxio = &self.manager.0.alluxio;
        let missing = |message| Stop::Failed { reason: Reason::CommandMissing, message };
        let mut tries = 1;
        let asked = loop {
            let asked = self.unless_stopped(async { alluxio.launcher().await?.abilities().await }).await?;
            match asked {
                // A JVM that did not start on a busy node may start the next time.
                Err(error) if tries < PROBES && !matches!(error, LauncherError::NotFound { .. }) => {
                    tracing::warn!(%error, "distributedLoad did not say what it can do; asking again");
                    tries += 1;
                    self.unless_stopped(tokio::time::sleep(LAST_LOOK)).await?;
                }
                asked => break asked,
            }
        };
        match asked {
            Ok(Abilities { distributed_load: true }) => Ok(()),
            Ok(_) => Err(missing(
                "this Alluxio has no distributedLoad; 2.9.3 is the last release that has it; \
                 engine NATIVE or AUTO loads without it"
                    .into(),
            )),
            Err(error @ LauncherError::NotFound { .. }) => Err(missing(error.to_string())),
            Err(error) => Err(Stop::Failed {
                reason: Reason::Internal,
                message: format!("distributedLoad cannot be asked what it can do: {error}"),
            }),
        }
    }
}

/// What follows a run after which something is missing. Repairs do not count as attempts but are as many at most.
pub(super) fn next_attempt(job: &Job) -> Option<Attempt> {
    let most = job.spec.max_attempts.get();
    let native = |why, repair| Attempt { engine: EngineKind::Native, why, repair, resumed: false };
    if job.engine == Some(EngineKind::DistributedLoad) || job.top_ups > 0 {
        return (job.top_ups < most).then_some(native(Why::Repair, true));
    }
    (job.attempt < most).then_some(native(Why::Asked, false))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::job::{AlluxioPath, LoadId, Spec};

    fn job(engine: EngineKind, attempt: u32, top_ups: u32) -> Job {
        let path = AlluxioPath::try_from("/a".to_owned()).unwrap();
        let id = LoadId::try_from("a".to_owned()).unwrap();
        let job = Job::new(id, Uuid::nil(), Spec::new(path), Timestamp::UNIX_EPOCH);
        Job { attempt, top_ups, engine: Some(engine), ..job }
    }

    #[test]
    fn native_attempts_end() {
        let next = |attempt| next_attempt(&job(EngineKind::Native, attempt, 0));
        assert_eq!(next(2).map(|next| (next.engine, next.repair)), Some((EngineKind::Native, false)));
        assert_eq!(next(3), None);
    }

    #[test]
    fn a_command_is_repaired_natively_but_not_for_ever() {
        let next = |engine, top_ups| next_attempt(&job(engine, 3, top_ups));
        let repair = Some((EngineKind::Native, true));
        assert_eq!(next(EngineKind::DistributedLoad, 0).map(|next| (next.engine, next.repair)), repair);
        assert_eq!(next(EngineKind::Native, 2).map(|next| (next.engine, next.repair)), repair);
        assert_eq!(next(EngineKind::Native, 3), None);
    }

    #[test]
    fn a_second_attempt_says_what_the_first_left() {
        let mut job = job(EngineKind::Native, 1, 0);
        let next = next_attempt(&job).unwrap();
        assert_eq!(next.describe(&job), "attempt 2 of 3");
        let (files_failed, bytes_failed) = (2, 2048);
        let count =
            Count { files_total: 7, files_failed, bytes_total: 4096, bytes_failed, ..Count::default() };
        job.count(count, Timestamp::UNIX_EPOCH);
        assert_eq!(next.describe(&job), "attempt 2 of 3: 2 of 7 files (2.0 KiB) were not loaded");
    }

    #[test]
    fn pauses_grow() {
        let attempt = |engine| Attempt { engine, why: Why::Asked, repair: false, resumed: false };
        let refused = |refused| {
            let runs = Runs { refused, ..Runs::default() };
            runs.pause_before(attempt(EngineKind::DistributedLoad).again()).as_secs()
        };
        assert_eq!([0, 1, 2, 5].map(refused), [0, 1, 2, 16]);
        let native = |native| {
            let runs = Runs { native, ..Runs::default() };
            runs.pause_before(attempt(EngineKind::Native)).as_secs()
        };
        assert_eq!([0, 1, 2, 3, 4, 99].map(native), [0, 1, 4, 16, 60, 60]);
    }
}
